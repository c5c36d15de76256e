"Counts, agreement and the report, against scipy, scikit-learn and a parser of HTML."

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.stats import binomtest, poisson
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from coursekit.messages import DataError
from coursekit.monitoring import agreement_report, alert_ratio_check, poisson_interval
from coursekit.reports import FailureMode, MonitoringReport, report_of_log


@pytest.mark.parametrize("count", [0, 1, 3, 20, 500])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_interval_is_where_the_count_becomes_surprising(count, level):
    low, high = poisson_interval(count, level)
    out = (1 - level) / 2
    assert poisson.cdf(count, high) == pytest.approx(out)
    assert low == 0 if count == 0 else poisson.sf(count - 1, low) == pytest.approx(out)


@pytest.mark.parametrize("rate", [0.5, 3.0, 40.0])
def test_it_covers_at_least_as_often_as_it_says(rate):
    counts = np.arange(0, 200)
    ends = np.array([poisson_interval(int(count)) for count in counts])
    covers = (ends[:, 0] <= rate) & (rate <= ends[:, 1])
    assert poisson.pmf(counts, rate)[covers].sum() >= 0.95


@pytest.mark.parametrize("pair", [(1, 2), (0, 5), (7, 0), (30, 61), (200, 90)])
@pytest.mark.parametrize("times", [(1, 1), (28, 7)])
def test_the_ratio_is_a_binomial(pair, times):
    (before, after), (t0, t1) = pair, times
    found = alert_ratio_check(before, after, t0, t1)
    theirs = binomtest(after, before + after, t1 / (t0 + t1))
    ends = theirs.proportion_ci(0.95, "exact")
    low, high = (t0 / t1 * p / (1 - p) if p < 1 else np.inf for p in ends)
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.ratio == (after / t1 / (before / t0) if before else np.inf)


def test_verdicts():
    def said(*counts):
        return alert_ratio_check(*counts).verdict

    assert said(50, 100) == said(100, 50) == said(0, 20) == "warning"
    assert said(1, 2) == said(0, 0) == said(4, 1) == "too few to tell"
    assert said(200, 210) == "no warning" and said(100, 150) == "changed"


@pytest.mark.parametrize("rate", [2.0, 10.0, 60.0])
def test_quiet_weeks_are_quiet(rate):
    chance = np.random.default_rng(0)
    pairs = chance.poisson(rate, (400, 2))
    loud = [alert_ratio_check(a, b).verdict in ("warning", "changed") for a, b in pairs]
    assert np.mean(loud) < 0.06


def test_agreement_is_that_of_scikit_learn():
    chance = np.random.default_rng(1)
    person, model = chance.choice(list("abc"), (2, 200))
    found = agreement_report(person, model, [f"{i}.jpg" for i in range(200)])
    assert found.kappa == pytest.approx(cohen_kappa_score(person, model))
    assert (found.table.to_numpy() == confusion_matrix(person, model)).all()
    assert found.agree == (person == model).mean()
    assert found.disagreements.which.tolist() == [
        f"{i}.jpg" for i in np.flatnonzero(person != model)
    ]
    assert (
        agreement_report(["a"], ["a"]).kappa != agreement_report(["a"], ["a"]).kappa
    )  # not a number


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: poisson_interval(1.5), "count is 1.5"),
        (lambda: poisson_interval(True), "count is True"),
        (lambda: poisson_interval(2, 95), "level=95"),
        (lambda: alert_ratio_check(1, -2), "after is -2"),
        (lambda: alert_ratio_check(1, 2, time_before=0), "time_before is 0"),
        (lambda: alert_ratio_check(1, 2, factor=1), "factor=1"),
        (lambda: agreement_report([], []), "0 answers"),
        (lambda: FailureMode("", "x"), "say both"),
        (lambda: FailureMode("x", "y", 2, 1), "no range"),
    ],
)
def test_errors_name_the_thing(call, words):
    with pytest.raises(DataError, match=words):
        call()


class Page(HTMLParser):
    "Addresses, texts for pictures and words of a page."

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words.append(data)


def log(n, night, seed):
    chance = np.random.default_rng(seed)
    said = chance.choice(["bear", "none"], n, p=[0.2, 0.8])
    return pd.DataFrame(
        {
            "day": np.arange(n) % 7,
            "place": chance.choice(["river", "<script>alert(1)</script>"], n),
            "said": said,
            "person": np.where(chance.random(n) < 0.9, said, "none"),
            "distance": chance.normal(1 + night, 0.1, n),
            "ms": chance.exponential(20, n),
        }
    )


MODES = [
    FailureMode("alerts", "alert ratio", 0.5, 2),
    FailureMode("far away", "distance ratio", 0.9, 1.1, "label"),
    FailureMode("complaints <b>", "days to an answer", 0, 7),
]


def test_a_report_stands_alone_and_lets_nothing_in(tmp_path):
    report = report_of_log(log(400, 0.5, 0), log(400, 0, 1), MODES, "bear", "Week <1>")
    fig = Figure()
    fig.subplots().plot([1, 2])
    report.figure("A line", fig, 'up "and" up')
    page = Page(report.save(tmp_path / "a.html").read_text())
    assert "script" not in page.tags and "b" not in page.tags and page.tags.count("img") == 2
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert 'up "and" up' in [value for name, value in page.attributes if name == "alt"]
    words = " ".join(page.words)
    assert words.index("far away") < words.index("complaints <b>") < words.index("alert ratio")
    assert "1 alarm, 1 not measured, 1 fine" in words


def test_values_are_those_of_the_log():
    now, before = log(400, 0, 2), log(800, 0, 3)
    report = report_of_log(now, before, MODES, "bear")
    values = vars(report)["values"]
    alerts = [(each.said == "bear").sum() for each in (now, before)]
    assert values["alerts"] == alerts[0]
    assert values["alert ratio"] == pytest.approx(alerts[0] / alerts[1])
    assert values["kappa"] == pytest.approx(cohen_kappa_score(now.person, now.said))
    assert values["p95 ms"] == pytest.approx(now.ms.quantile(0.95))
    by_place = (now.person != now.said).groupby(now.place).mean()
    assert values["worst place"] == by_place.max()


def test_green_means_that_all_is_measured_and_fine():
    report = report_of_log(log(400, 0, 2), log(400, 0, 3), MODES, "bear")
    assert not report.green and report.states["complaints <b>"] == "not measured"
    report.measure("days to an answer", 3)
    assert report.green
    assert not MonitoringReport("nothing", []).green
    with pytest.raises(DataError, match="in the report already"):
        report.measure("kappa", 1)
    with pytest.raises(DataError, match="no column 'ms'"):
        report_of_log(log(9, 0, 0).drop(columns="ms"), log(9, 0, 0), MODES, "bear")
    with pytest.raises(DataError, match="before has no rows"):
        report_of_log(log(9, 0, 0), log(9, 0, 0)[:0], MODES, "bear")
    nobody = log(50, 0, 4).assign(person=None)
    report = report_of_log(nobody, log(50, 0, 5), MODES, "bear")
    assert "kappa" not in vars(report)["values"]
