"Lesson 11's tools against scipy, scikit-learn, numbers of statsmodels 0.15, closed forms and planted truth."

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression

from coursekit.data import DateSplitter, GroupSplitter
from coursekit.evidence import break_even, expected_utility, permutation_test, uplift_curve
from coursekit.hidden import HiddenTestSet, vendor_scorecard
from coursekit.intervals import (
    equivalence_test,
    mean_interval,
    paired_difference,
    rate_difference,
    wilson_interval,
)
from coursekit.messages import DataError
from coursekit.regression import least_squares, relationship_report
from coursekit.tables import baseline_report, numbers_in, split_report, table_folds


def towns() -> pd.DataFrame:
    "The same table everywhere, without a random generator: statsmodels has seen it too."
    i = np.arange(60)
    warm, damp = (
        np.round(np.sin(i) * 5 + i % 7, 3),
        np.round(np.cos(i * 1.7) * 3 + (i % 4), 3),
    )
    spread = np.round(2 - 0.3 * warm + 0.1 * damp + np.sin(i * i), 3)
    return pd.DataFrame({"warm": warm, "damp": damp, "city": i % 9, "spread": spread})


# statsmodels 0.15.0, OLS(spread, constant + warm + damp), and cov_type="cluster" by city with use_t
PLAIN = [
    [-0.31070127742378295, -0.3539370327653291, -0.26746552208223684, 1.2475160964667725e-20],
    [0.16791783840291105, 0.09373232717378946, 0.24210334963203264, 3.0362089537618525e-05],
    [1.8957826914696618, 1.646835906147456, 2.1447294767918677, 8.948231488227726e-22],
]
CLUSTERED = [
    [-0.31070127742378295, -0.3534444105506829, -0.267958144296883, 1.624130168731277e-07],
    [0.16791783840291105, 0.10629810357500438, 0.22953757323081772, 0.00023683545441129081],
    [1.8957826914696618, 1.5538805755209408, 2.2376848074183826, 1.3198433424784687e-06],
]


@pytest.mark.parametrize(("group", "theirs"), [(None, PLAIN), ("city", CLUSTERED)])
def test_least_squares_is_that_of_statsmodels(group, theirs):
    found = least_squares(towns(), "spread", ["warm", "damp"], group)
    assert np.allclose(found[["effect", "low", "high", "p"]], theirs, rtol=1e-9)
    assert (found.n == 60).all()


def test_least_squares_on_a_table_that_we_did_not_make():
    data = load_diabetes(as_frame=True, scaled=False).frame
    names = list(data.columns[:-1])
    found = least_squares(data, "target", names)
    theirs = LinearRegression().fit(data[names], data.target)
    assert np.allclose(found.effect[names], theirs.coef_)
    assert np.isclose(found.effect["constant"], theirs.intercept_)


def test_intervals_of_effects_hold_the_truth():
    held = []
    for seed in range(300):
        x, noise = np.random.default_rng(seed).normal(size=(2, 15))
        row = least_squares(pd.DataFrame({"x": x, "y": 0.5 * x + noise}), "y", ["x"]).loc["x"]
        held.append(row.low < 0.5 < row.high)
    assert abs(np.mean(held) - 0.95) < 0.04


BAD_REGRESSIONS = {
    "is 1 in all 60": lambda t: least_squares(t.assign(one=1), "spread", ["one"]),
    "follows exactly from ['warm', 'damp']": lambda t: least_squares(
        t.assign(sum=t.warm - 3 * t.damp), "spread", ["warm", "damp", "sum"]
    ),
    "no finite number in 1 of 60": lambda t: least_squares(
        t.assign(warm=t.warm.where(t.index != 3)), "spread", ["warm"]
    ),
    "pd.get_dummies for kinds": lambda t: least_squares(t.assign(k="a"), "spread", ["k"]),
    "0 columns called 'hot'": lambda t: least_squares(t, "spread", ["hot"]),
    "4 rows for 2 predictors": lambda t: least_squares(t.head(4), "spread", ["warm", "damp"]),
    "at least one, each once": lambda t: least_squares(t, "spread", []),
    "are of one group, 7": lambda t: least_squares(t.assign(city=7), "spread", ["warm"], "city"),
    "the table has no rows": lambda t: least_squares(t.head(0), "spread", ["warm"]),
    "is empty in 1 rows": lambda t: least_squares(
        t.assign(city=t.city.where(t.index != 3)), "spread", ["warm"], "city"
    ),
}


@pytest.mark.parametrize("words", BAD_REGRESSIONS)
def test_a_regression_says_what_it_cannot_answer(words):
    with pytest.raises(DataError) as caught:
        BAD_REGRESSIONS[words](towns())
    assert words in str(caught.value)


def test_relationship_report_goes_from_alone_to_held_fixed():
    report = relationship_report(towns(), "spread", "warm", given=["damp"], group="city")
    assert np.isclose(report.effect["and damp"], PLAIN[0][0])
    assert np.isclose(report.p["and damp"], CLUSTERED[0][3])
    change = np.subtract(*np.quantile(towns().warm, [0.9, 0.1]))
    assert np.allclose(report.gain, report.effect * change)
    assert list(report.columns)[:3] == ["effect", "low", "high"]
    assert list(report.columns)[-2:] == ["n", "p"]


# ---------------------------------------------------------------- intervals
def test_wilson_is_scipys_for_all_small_tables():
    for n in (1, 2, 7, 30, 400):
        for hits in range(0, n + 1, max(1, n // 20)):
            theirs = stats.binomtest(hits, n).proportion_ci(method="wilson")
            assert np.allclose(wilson_interval(hits, n), theirs, atol=1e-12)


def test_newcombe_is_that_of_statsmodels():
    found = rate_difference((5, 56), (1, 29))
    assert np.allclose(found[1:], (-0.09147889682955238, 0.16190296498773124), rtol=1e-9)


@pytest.mark.parametrize(("n", "p"), [(30, 0.1), (200, 0.02), (1000, 0.05)])
def test_wilson_covers(n, p):
    hits = np.random.default_rng(0).binomial(n, p, 4000)
    held = {h: np.less(*wilson_interval(h, n)) and wilson_interval(h, n) for h in set(hits)}
    assert np.mean([held[h][0] <= p <= held[h][1] for h in hits]) > 0.91


def test_mean_interval_covers():
    values = np.random.default_rng(0).normal(3, 2, (2000, 5))
    held = [low < 3 < high for _, low, high in map(mean_interval, values)]
    assert abs(np.mean(held) - 0.95) < 0.02


def test_equivalence_at_the_margin_is_called_rarely():
    x = np.random.default_rng(0).normal(0.2, 1, (2000, 400))
    said = [equivalence_test(row.mean(), row.std(ddof=1) / 20, 0.2, df=399)["verdict"] for row in x]
    assert np.mean(["negligible" in each for each in said]) < 0.07


def test_paired_difference_is_the_paired_test():
    first, second = np.random.default_rng(0).normal(size=(2, 9))
    found, theirs = paired_difference(first, second), stats.ttest_rel(first, second)
    assert np.isclose(found["p"], theirs.pvalue) and found["n"] == 9
    assert np.allclose((found["low"], found["high"]), theirs.confidence_interval())
    assert found["wins"] == (first > second).sum()
    assert paired_difference([1, 2], [1, 2])["verdict"] == "not decided"
    assert paired_difference([1, 2, 3], [0, 1, 2])["verdict"] == "first is better"
    assert (
        paired_difference([1, 2, 3], [0, 1, 2], higher_is_better=False)["verdict"]
        == "second is better"
    )


@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        (lambda: wilson_interval(3, 0), ValueError, "at least one case"),
        (lambda: wilson_interval(4, 3), ValueError, "4 of 3"),
        (lambda: wilson_interval(1, 3, 95), ValueError, "between 0 and 1"),
        (lambda: rate_difference((0, 0), (1, 2)), ValueError, "at least one case"),
        (lambda: mean_interval([1.0]), DataError, "two or more"),
        (lambda: mean_interval([1.0, np.nan]), DataError, "place 1"),
        (lambda: mean_interval([]), DataError, "0 values"),
        (lambda: paired_difference([1, 2], [1, 2, 3]), DataError, "2 and 3 scores"),
        (lambda: paired_difference([1, 2], [1, np.nan], ("a", "b")), DataError, "b has 1 value"),
        (lambda: equivalence_test(0.1, 0.1, 0), ValueError, "margin 0"),
        (lambda: equivalence_test(np.nan, 0.1, 1), ValueError, "a finite effect"),
    ],
)
def test_intervals_refuse(action, error, words):
    with pytest.raises(error) as caught:
        action()
    assert words in str(caught.value)


# ---------------------------------------------------------------- tables
def visits(seed: int = 0, n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "who": rng.integers(0, 12, n).astype(str),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 60, n), "D"),
            "x": rng.normal(size=n),
            "y": rng.normal(size=n),
            "kind": rng.choice(["a", "b", "c"], n),
        }
    )
    table["sick"] = table.x + 0.5 * rng.normal(size=n) > 0
    return table


@pytest.mark.parametrize("seed", range(5))
def test_folds_keep_what_they_promise(seed):
    table = visits(seed)
    for way in ({}, {"group": "who"}, {"place": ["x", "y"]}):
        found = table_folds(table, folds=4, seed=seed, **way)
        assert sorted(np.concatenate([valid for _, valid in found])) == list(range(120))
        assert all(not set(train) & set(valid) for train, valid in found)
        assert all(len(train) + len(valid) == 120 for train, valid in found)
    for train, valid in table_folds(table, group="who", folds=4, seed=seed):
        assert not set(table.who.iloc[train]) & set(table.who.iloc[valid])
    gap = pd.Timedelta(days=3)
    for train, valid in table_folds(table, date="day", folds=4, gap=gap):
        assert table.day.iloc[train].max() + gap < table.day.iloc[valid].min()


def test_reports_on_a_table_that_we_did_not_make():
    data = load_breast_cancer(as_frame=True).frame
    pairs = table_folds(data, folds=4)
    report = baseline_report(data, "target", split=pairs)
    y = data.target.astype(str).to_numpy()
    right = [
        DummyClassifier().fit(y[a][:, None], y[a]).predict(y[b][:, None]) == y[b] for a, b in pairs
    ]
    assert np.isclose(report.score["always the commonest"], np.concatenate(right).mean())
    assert (report.n == len(data)).all() and report.score["a line through everything"] > 0.95
    data = load_diabetes(as_frame=True).frame
    report = baseline_report(data, "target", split=table_folds(data))
    assert (report.metric == "mean absolute error").all()
    assert report.score["a line through everything"] < report.score["always the mean"]


def test_text_gaps_and_splitters_of_lesson_3():
    table = visits().drop(columns="day")
    table.loc[::7, "x"], table.loc[::5, "kind"] = np.nan, None
    forest = RandomForestClassifier(10, random_state=0)
    report = baseline_report(table, "sick", {"forest": forest}, GroupSplitter("who", seed=0))
    assert report.score.between(0, 1).all() and "forest" in report.index
    found = split_report(
        visits(), "sick", forest, {"by day": DateSplitter("day"), "random": None}, drop=["day"]
    )
    assert (found.low <= found.score).all() and (found.score <= found.high).all()


def test_nullable_numbers_mixed_kinds_and_infinity():
    table = visits().drop(columns="day")
    table["count"] = pd.array([None, *range(119)], dtype="Int64")
    table["mixed"] = [1, "one", None] * 40
    table["shade"] = pd.Categorical(table.kind)
    report = baseline_report(table, "sick")
    assert report.score.between(0, 1).all() and (report.n == 30).all()
    with pytest.raises(DataError, match="'count' has no finite number in 1 of 120"):
        numbers_in(table, "count")
    with pytest.raises(DataError, match="'x' holds infinite numbers"):
        baseline_report(table.assign(x=np.inf), "sick")


def test_split_report_shows_what_groups_give_away():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(30), 20)
    marks, habit = rng.normal(size=(30, 4))[who], rng.normal(size=30)[who] > 0
    table = pd.DataFrame(marks + 0.05 * rng.normal(size=marks.shape)).add_prefix("mark_")
    table = table.assign(who=who, target=habit)
    ways = {"random": table_folds(table), "people": table_folds(table, group="who")}
    model = RandomForestClassifier(20, random_state=0)
    found = split_report(table, "target", model, ways, drop=["who"])
    assert found.score["random"] > 0.95 > 0.75 > found.score["people"]
    alone = table.assign(target=rng.permutation(habit))  # the control: no habit of one's own
    found = split_report(alone, "target", model, ways, drop=["who"])
    assert abs(found.score["random"] - found.score["people"]) < 0.12


BAD_TABLES = {
    "pd.to_datetime(table['day'])": lambda t: table_folds(t.astype({"day": str}), date="day"),
    "has 12 groups, too few for 13": lambda t: table_folds(t, group="who", folds=13),
    "has 1 group,": lambda t: table_folds(t.assign(who="a"), group="who"),
    "'who' is empty in 3": lambda t: table_folds(
        t.assign(who=t.who.where(t.index > 2)), group="who"
    ),
    "no date in 3 of 120": lambda t: table_folds(
        t.assign(day=t.day.where(t.index > 2)), date="day"
    ),
    "a smaller gap": lambda t: table_folds(t, date="day", gap=pd.Timedelta(days=90)),
    "different dates, too few": lambda t: table_folds(t.head(3), date="day"),
    "is empty in 5 of 120": lambda t: baseline_report(
        t.assign(sick=t.sick.where(t.index > 4)), "sick", drop=["day"]
    ),
    "is always 'ill'": lambda t: baseline_report(t.assign(sick="ill"), "sick", drop=["day"]),
    "holds dates: make numbers": lambda t: baseline_report(t, "sick"),
    "0 rows to train on": lambda t: baseline_report(
        t, "sick", split=lambda t: ([], list(range(len(t)))), drop=["day"]
    ),
    "no column beside": lambda t: baseline_report(t[["sick"]], "sick"),
    "0 columns called 'ill'": lambda t: baseline_report(t, "ill"),
    "this is a list": lambda t: baseline_report([1, 2], "sick"),
    "no split was given": lambda t: split_report(
        t, "sick", DummyClassifier(), {"none": []}, drop=["day"]
    ),
    "is 7 in all 120 rows": lambda t: numbers_in(t.assign(x=7), "x"),
}


@pytest.mark.parametrize("words", BAD_TABLES)
def test_a_table_report_names_the_column_and_the_way_out(words):
    with pytest.raises(DataError) as caught:
        BAD_TABLES[words](visits())
    assert words in str(caught.value)


# ---------------------------------------------------------------- a hidden test set
def test_looks_are_counted_and_remembered(tmp_path):
    x, y = np.arange(100.0)[:, None], np.arange(100) % 2 == 0

    def accuracy(y, p):
        return (y == p).mean()

    file = tmp_path / "looks.jsonl"
    hidden = HiddenTestSet(x, y, accuracy, 0.4, looks=2, log_file=file)
    card = vendor_scorecard(lambda x: np.ones(len(x), bool), hidden, "one")
    assert card["score"] == 0.5 and card["passed"] and card["n"] == 100
    assert card["low"] < 0.5 < card["high"]
    with pytest.raises(ValueError, match="or nan"):
        hidden.score(lambda x: np.full(len(x), np.nan), "two")
    again = HiddenTestSet(x, y, accuracy, 0.4, looks=2, log_file=file)
    with pytest.raises(PermissionError, match="three may not be scored"):
        again.score(lambda x: y, "three")
    assert [look["who"] for look in again.log] == ["one", "two", "three"]
    assert "0 of 2 looks left" in repr(again)


@pytest.mark.parametrize("bad", [{"y": [1]}, {"x": [], "y": []}, {"looks": 0}])
def test_a_hidden_set_needs_rows_and_looks(bad):
    with pytest.raises(ValueError):
        HiddenTestSet(**({"x": [1, 2], "y": [1, 2], "metric": max, "threshold": 1} | bad))


# ---------------------------------------------------------------- the lesson's own
@pytest.mark.parametrize("seed", range(3))
def test_permutation_test_is_scipys(seed):
    x, noise = np.random.default_rng(seed).normal(size=(2, 30))
    y = 0.3 * x + noise
    found = permutation_test(x, y, draws=4000)
    theirs = stats.permutation_test(
        (x,),
        lambda x: abs(np.corrcoef(x, y)[0, 1]),
        permutation_type="pairings",
        alternative="greater",
        n_resamples=2000,
    )
    assert abs(found["p"] - theirs.pvalue) < 0.05 and found["n"] == 30
    assert np.isclose(found["effect"], stats.linregress(x, y).slope)


def test_permutation_p_is_even_under_the_null():
    p = []
    for seed in range(200):
        x, y = np.random.default_rng(seed).normal(size=(2, 12))
        p.append(permutation_test(x, y, 199, seed)["p"])
    assert stats.kstest(p, "uniform").pvalue > 0.01 and min(p) >= 1 / 200


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([], [], "3 or more"),
        ([1, 2, 3], [1, 2], "same length"),
        ([1, 1, 1], [1, 2, 3], "x is 1.0 in all 3 rows"),
        ([1, 2, np.nan], [1, 2, 3], "x is not finite in 1 of 3"),
    ],
)
def test_permutation_test_refuses(x, y, words):
    with pytest.raises(ValueError, match=words):
        permutation_test(x, y)


def test_utility_meets_at_break_even():
    for worth in ((0, -1, 0, 9), (2, 1, -5, 3), (0, -3, -1, 0)):
        leave, act = expected_utility(break_even(worth), worth)
        assert np.isclose(leave, act)
    with pytest.raises(ValueError, match="either way"):
        break_even((0, 1, 0, 1))
    with pytest.raises(ValueError, match="between 0 and 1"):
        expected_utility(1.2, (0, -1, 0, 9))


def test_uplift_curve_ends_at_the_difference_of_the_trial():
    rng = np.random.default_rng(0)
    treated, score = rng.random(5000) < 0.5, rng.normal(size=5000)
    outcome = rng.random(5000) < 0.2 + 0.3 * (treated & (score > 0))
    shares, gains = uplift_curve(score, treated, outcome, points=10)
    assert np.isclose(gains[-1], outcome[treated].mean() - outcome[~treated].mean())
    assert gains[0] == 0 and np.isclose(shares[5], 0.5) and abs(gains[5] - 0.15) < 0.03
    flat = uplift_curve(score, treated, rng.random(5000) < 0.2)[1]
    assert np.abs(flat).max() < 0.03


@pytest.mark.parametrize(
    ("treated", "outcome", "words"),
    [
        ([True] * 6, [1] * 6, "0 were not"),
        ([False] * 6, [1] * 6, "0 were treated"),
        ([True, False] * 3, [1] * 5, "5 outcomes"),
        ([True, False] * 3, [1, np.nan] * 3, "nan"),
    ],
)
def test_uplift_curve_refuses(treated, outcome, words):
    with pytest.raises(ValueError, match=words):
        uplift_curve(np.arange(6.0), treated, outcome, points=1)
