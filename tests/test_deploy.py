"What lesson 12 exports, against closed forms, simulations and planted truth."

from datetime import date

import numpy as np
import pandas as pd
import pytest

from coursekit.deploy import (
    RolloutPlan,
    Scope,
    ShadowMode,
    checklist,
    cost_per_thousand,
    coverage,
    fill_wait,
    patrol_days,
    smoothed,
    streams_on,
)
from coursekit.messages import DataError


def waited(size, rate, deadline, n=60_000, seed=1):
    "Request by request, without a formula."
    arrive = np.random.default_rng(seed).exponential(1 / rate, n).cumsum()
    waits, batch = [], []
    for time in arrive:
        if batch and time > batch[0] + deadline:
            waits += [batch[0] + deadline - each for each in batch]
            batch = []
        batch.append(time)
        if len(batch) == size:
            waits += [time - each for each in batch]
            batch = []
    return np.mean(waits)


@pytest.mark.parametrize("size", [2, 8, 32])
@pytest.mark.parametrize("rate", [5, 50, 500])
@pytest.mark.parametrize("deadline", [0.002, 0.02, 0.2])
def test_waiting_is_what_the_formula_says(size, rate, deadline):
    assert fill_wait(size, rate, deadline) == pytest.approx(
        waited(size, rate, deadline), rel=0.03, abs=2e-5
    )


def test_the_ends_of_the_formula():
    assert fill_wait(1, 50) == 0 == fill_wait(8, 50, 0) == fill_wait(1, 50, 0.1)
    assert fill_wait(8, 50, 1e4) == pytest.approx(fill_wait(8, 50)) == pytest.approx(0.07)


@pytest.mark.parametrize("wrong", [(0, 5), (4, 0), (4, -1), (4, 5, -0.1), (4, float("nan"))])
def test_waiting_for_nonsense_is_refused(wrong):
    with pytest.raises(DataError, match="size="):
        fill_wait(*wrong)


def test_a_price():
    # 3,600 seconds at 100 a second, busy all the time, are 360 thousand
    assert cost_per_thousand(3.6, 100, 1) == pytest.approx(0.01)
    assert cost_per_thousand(3.6, 100, 0.5) == pytest.approx(0.02)
    assert streams_on(100, 25, 0) == 4 and streams_on(99, 25, 0) == 3 and streams_on(10, 25) == 0
    for wrong in ((-1, 100), (1, 0), (1, 100, 0), (1, 100, 1.1)):
        with pytest.raises(DataError, match="price="):
            cost_per_thousand(*wrong)
    with pytest.raises(DataError, match="reserve=1"):
        streams_on(100, 25, 1)


def test_a_product_is_asked_for_more():
    assert set(checklist("hobby")) < set(checklist("product"))
    assert checklist("product", checklist("product")) == []
    with pytest.raises(DataError, match="'hobby' or 'product'"):
        checklist("toy")
    with pytest.raises(DataError, match="not on the list"):
        checklist("hobby", ["world peace"])


def test_coverage_shows_what_is_not_there():
    data = pd.DataFrame({"camera": ["day"] * 3, "distance": ["near", "far", "near"]})
    table = coverage(data, camera=["day", "night"], distance=["far", "near"])
    assert table.pictures.tolist() == [3, 0, 1, 2]
    assert table.index[table["empty"]].tolist() == [("camera", "night")]
    with pytest.raises(DataError, match="'weather'"):
        coverage(data, weather=["rain"])


@pytest.mark.parametrize("frames", [1, 2, 5, 50])
def test_smoothing_is_a_running_mean(frames):
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 20)
    naive = [p[max(0, i + 1 - frames) : i + 1].mean(0) for i in range(20)]
    assert np.allclose(smoothed(p, frames), naive)
    # what comes later changes nothing
    assert np.allclose(smoothed(p[:7], frames), smoothed(p, frames)[:7])
    with pytest.raises(DataError, match="frames=0"):
        smoothed(p, 0)


def test_the_shadow_has_no_say():
    def person(case):
        return case % 3

    def failing(case):
        raise RuntimeError("no memory")

    for model in (lambda case: 7, failing):
        shadow = ShadowMode(model, person)
        assert [shadow(case) for case in range(9)] == [case % 3 for case in range(9)]
    assert shadow.log[1] == (1, 1, "failed: RuntimeError")


def test_nothing_goes_out_that_nobody_has_seen():
    plan = RolloutPlan(Scope(("river",), date(2026, 6, 1), date(2026, 6, 7)))
    day = date(2026, 6, 3)
    assert plan.alert("bear", "river", day, lambda what: True) is False  # beside people
    plan.stage = 2
    assert plan.alert("bear", "river", day, lambda what: True) is True
    assert plan.alert("bear", "river", day, lambda what: None) is False
    with pytest.raises(DataError, match="nobody has looked at bear"):
        plan.alert("bear", "river", day, None)
    for place, when in (("lake", day), ("river", date(2026, 5, 31)), ("river", date(2026, 6, 8))):
        with pytest.raises(DataError, match="outside of the trial"):
            plan.alert("bear", place, when, lambda what: True)


def test_stages_go_on_slowly_and_back_at_once():
    plan = RolloutPlan(Scope((), date(2026, 1, 1), date(2026, 1, 1)), needed=2)
    assert [plan.report(green) for green in (1, 0, 1, 1, 1, 1, 1, 0, 0, 0)] == [
        *(1, 1, 1, 2, 2, 3, 3, 2, 1, 1)
    ]


@pytest.fixture(scope="module")
def gaps():
    def gap(**rule):
        share, records, patrols = patrol_days(**rule)
        return share[:, 0] - share[:, 1], records, patrols

    return gap


def test_hot_spots_run_away_and_rates_hold(gaps):
    hot, records, patrols = gaps(start=(10.5, 9.5))
    fair, *_ = gaps(start=(10, 10))
    mended, *_ = gaps(start=(10.5, 9.5), explore=0.2, per_patrol=True)
    assert 0.2 < hot.mean() < 0.45 and abs(fair.mean()) < 0.15 and abs(fair).mean() > 0.8
    assert abs(mended).mean() < 0.06
    # what is found for each patrol knows of no difference: the planted rate is 10 everywhere
    assert np.allclose(records.sum(0) / patrols.sum(0), 10, rtol=0.05)


def test_without_a_loop_there_is_no_gap(gaps):
    assert abs(gaps(start=(19, 1), explore=1.0)[0]).max() < 1e-12
    assert abs(gaps(start=(19, 1), power=0)[0]).max() < 1e-12
    # in proportion the expected share stays where it was
    kept, *_ = gaps(start=(60, 40), power=1.0)
    assert kept.mean() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(
    "wrong", [((1,), {}), ((0, 0), {}), ((1, -1), {}), ((1, 1), {"explore": 2})]
)
def test_no_districts_no_patrols(wrong):
    start, more = wrong
    with pytest.raises(DataError, match="two or more districts"):
        patrol_days(start, **more)
