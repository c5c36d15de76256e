"Errors by group: what fairlearn says, what the binomial says, and the groups that are too small to say anything."

import json

import numpy as np
import pandas as pd
import pytest
from fairlearn_oracle import FIXTURE, NAMES, table
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from coursekit.group_errors import error_rates_by_group, plot_error_rates, share_interval
from coursekit.messages import DataError


def test_equal_to_fairlearn():
    answer = json.loads(FIXTURE.read_text(encoding="utf-8"))
    target, said, groups = table()
    ours = error_rates_by_group(target, said, groups, metrics=list(NAMES))
    rate = ours.set_index(["by", "group", "metric"])
    compared = 0
    for row in answer["groups"]:
        group = f"{row['colour']}, {row['place']}"
        for name in NAMES:
            one = rate.loc[("colour & place", group, name)]
            assert abs(one.rate - row[name]) < 1e-12 and one.people == row["n"]
            compared += 1
    for name in NAMES:
        assert abs(rate.loc[("all", "all", name)].rate - answer["overall"][name]) < 1e-12
    assert compared == 36


@pytest.mark.parametrize("method", ["wilson", "clopper-pearson"])
def test_intervals_are_those_of_scipy(method):
    scipys = {"wilson": "wilson", "clopper-pearson": "exact"}[method]
    for n in (1, 2, 7, 30, 400):
        for hits in {0, 1, n // 3, n - 1, n}:
            theirs = stats.binomtest(hits, n).proportion_ci(0.9, method=scipys)
            assert np.allclose(share_interval(hits, n, 0.9, method), theirs, atol=1e-10)


def test_coverage_in_small_groups():
    "Drawn groups of 10 and 40 with an error of .05: how often does the interval hold it?"
    rng, held = np.random.default_rng(0), {"wilson": [], "clopper-pearson": []}
    for _ in range(300):
        group = np.repeat(["small", "larger"], [10, 40])
        said = rng.random(50) < 0.05
        for method, found in held.items():
            out = error_rates_by_group(np.zeros(50), said, group, "error", method=method)
            found.append(((out.low <= 0.05) & (out.high >= 0.05)).tolist()[1:])
    assert np.mean(held["wilson"]) > 0.9 and np.mean(held["clopper-pearson"]) > 0.95


def test_twelve_equal_groups_look_unequal():
    "Together (Bonferroni) the intervals of twelve equal groups miss the truth in one audit of twenty, not of three."
    rng, alone, together = np.random.default_rng(1), 0, 0
    for _ in range(150):
        group, said = np.arange(720) % 12, rng.random(720) < 0.15
        for kind in (False, True):
            out = error_rates_by_group(np.zeros(720), said, group, "error", together=kind)[1:]
            missed = ((out.low > 0.15) | (out.high < 0.15)).any()
            alone, together = alone + (missed and not kind), together + (missed and kind)
    assert alone > 40 and together < 20


def test_a_planted_gap_hides_in_single_columns():
    n = 8000
    rng = np.random.default_rng(2)
    sex, tone = rng.integers(0, 2, n), rng.integers(0, 2, n)
    wrong = rng.random(n) < np.where(sex == tone, 0.05, 0.25)
    out = error_rates_by_group(np.zeros(n), wrong, {"sex": sex, "tone": tone}, "error")
    rates = out.set_index("by").rate
    assert np.ptp(rates["sex"]) < 0.02 and np.ptp(rates["tone"]) < 0.02
    assert np.ptp(rates["sex & tone"]) > 0.15


def rows_of(out):
    return out.set_index(["by", "group"])


def test_small_and_missing_groups():
    frame = pd.DataFrame({"g": ["a", "a", "b", None, np.nan, "c"]})
    out = rows_of(
        error_rates_by_group([1, 0, 0, 1, 1, 1], [1, 1, 0, 0, 1, 0], frame, "false negative rate")
    )
    assert out.loc[("g", "(missing)")].n == 2
    assert out.loc[("g", "b")].note == "no rate: no positive case"
    assert np.isnan(out.loc[("g", "b")].rate) and out.loc[("g", "b")].people == 1
    assert out.loc[("g", "c")].note == "one person: no statement"
    assert out.loc[("g", "c")].low == pytest.approx(0.2065, abs=1e-4)
    assert out.people.sum() == 12


def test_any_metric():
    rng = np.random.default_rng(3)
    target, score = rng.integers(0, 2, 400), rng.random(400)
    group = np.where(np.arange(400) % 2, "odd", "even")
    target[group == "odd"] = 1

    def area(t, s):
        return roc_auc_score(t, s) if len(set(t)) == 2 else 1 / 0

    def distance(t, s):
        return abs(t - s)

    out = rows_of(error_rates_by_group(target, score, group, [area, distance]))
    area_even = out[out.metric == "area"].loc[("group", "even")]
    even = group == "even"
    assert area_even.rate == roc_auc_score(target[even], score[even]) and np.isnan(area_even.low)
    assert "division" in out[out.metric == "area"].loc[("group", "odd")].note
    of_even = out[out.metric == "distance"].loc[("group", "even")]
    x = abs(target - score)[even]
    theirs = stats.ttest_1samp(x, 0).confidence_interval()
    assert (of_even.low, of_even.high) == pytest.approx(tuple(theirs))
    said = (score > 0.5).astype(int)
    one = rows_of(error_rates_by_group(target, said, group, f1_score)).loc[("group", "even")]
    assert one.rate == f1_score(target[even], said[even])


def test_words_as_labels_and_three_classes():
    out = error_rates_by_group(["cat", "dog", "cow"], ["cat", "cow", "cow"], list("aab"), "error")
    assert out.rate.tolist() == [1 / 3, 0.5, 0]
    out = error_rates_by_group(
        ["good", "bad", "bad"],
        ["bad", "bad", "good"],
        list("aab"),
        "false positive rate",
        positive="bad",
    )
    assert out.rate.tolist()[:2] == [1, 1] and np.isnan(out.rate[2])


@pytest.mark.parametrize(
    ("targets", "said", "groups", "words"),
    [
        ([1, 0], [0.2, 0.7], ["a", "b"], "predictions holds 0.2, a score.*scores >= 0.5"),
        ([1, np.nan], [1, 1], ["a", "b"], "targets: 1 value of 2 missing"),
        ([0, 1, 2], [1, 0, 1], list("aab"), "labels .0, 1, 2."),
        (["yes", "no"], ["no", "no"], list("ab"), "positive="),
        (["no", "no"], ["no", "no"], list("ab"), "positive="),
        ([1, 0], [1, 0], ["a"], "groups has 1 row"),
        ([1, 0], [1, 0], "a", "groups is 'a'"),
        ([], [], [], "one row at least"),
        ([1], [1, 0], ["a"], "same length"),
    ],
)
def test_refused(targets, said, groups, words):
    with pytest.raises(DataError, match=words):
        error_rates_by_group(targets, said, groups, ["error", "false negative rate"])


def test_other_refusals():
    ask = [1, 0], [1, 0], ["a", "b"]
    with pytest.raises(DataError, match=r"no metric 'f1'.*precision"):
        error_rates_by_group(*ask, "f1")
    with pytest.raises(DataError, match="shape"):
        error_rates_by_group(*ask, lambda t, p: np.zeros(3))
    with pytest.raises(ValueError, match="between 0 and 1"):
        error_rates_by_group(*ask, confidence=95)
    with pytest.raises(ValueError, match="'wald'"):
        error_rates_by_group(*ask, method="wald")


def test_the_figure_shows_each_group_with_its_number():
    target, said, groups = table()
    out = error_rates_by_group(target, said, groups)
    figure = plot_error_rates(out, ["error", "false negative rate"])
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == out[out.metric == "error"].group.tolist()
    numbers = [text.get_text().strip() for text in figure.axes[1].texts]
    assert numbers == [f"{n:,}" for n in out[out.metric == "false negative rate"].n]


def test_panels_below_each_other_share_their_axis():
    out = error_rates_by_group(*table())
    figure = plot_error_rates(out, columns=1)
    boxes = [ax.get_position().y0 for ax in figure.axes]
    assert boxes == sorted(boxes, reverse=True) and len(boxes) == 3
    ends = [ax.get_xlim()[1] for ax in figure.axes]
    assert len(set(ends)) == 1 and ends[0] >= out.high.max()
    two = plot_error_rates(out, columns=2)
    assert [ax.get_visible() for ax in two.axes] == [True, True, True, False]
