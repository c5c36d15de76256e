"Two ways and more, run with the same seeds and the same budget."

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from coursekit.comparing import compare
from coursekit.learner import Learner
from coursekit.loaders import DataLoaders
from coursekit.messages import DataError


def noisy(way, seed):
    return way + torch.randn(1).item(), 10


def learner(epochs, metrics=()):
    x = torch.linspace(-1, 1, 32)[:, None]
    data = torch.utils.data.TensorDataset(x, 2 * x)
    loaders = [torch.utils.data.DataLoader(data, batch_size=8) for _ in range(2)]
    dls = DataLoaders(*loaders)
    learn = Learner(dls, nn.Linear(1, 1), loss_func=nn.MSELoss(), metrics=list(metrics))
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, 0.01)
    return learn


def test_pairs_share_seeds_and_the_interval_is_students():
    found = compare(noisy, {"a": 0.0, "b": 1.0}, seeds=[3, 5, 8])
    assert found.scores.index.tolist() == [3, 5, 8]
    assert np.allclose(found.scores["b"] - found.scores["a"], 1)
    other = compare(
        lambda way, seed: (way * seed**0.5, 1), {"a": 1, "b": 2, "c": 3}, seeds=range(1, 7)
    )
    row = other.table().loc["c"]
    theirs = stats.ttest_rel(other.scores["c"], other.scores["a"]).confidence_interval(0.975)
    assert np.allclose([row["low"], row["high"]], theirs)


def test_a_learner_gives_its_metric_and_its_steps():
    found = compare(
        lambda way, seed: learner(2, way),
        {"mae": [nn.functional.l1_loss], "loss": []},
        seeds=2,
        higher_is_better=False,
    )
    assert (found.steps == 8).all(axis=None)
    # the same weights, twice: a mean square is above the square of the mean
    assert (found.scores["loss"] > found.scores["mae"] ** 2).all()


def test_the_first_to_run_changes_and_seeds_are_set():
    order, drawn = [], []

    def run(way, seed):
        order.append(way)
        drawn.append((torch.rand(1).item(), np.random.rand()))  # noqa: NPY002
        return 0.0, 1

    compare(run, {"a": "a", "b": "b"}, seeds=2)
    assert order == ["a", "b", "b", "a"]
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]


def test_unequal_seconds(monkeypatch):
    now = [0.0]  # a clock of its own: sleep on a busy machine lasts as long as it likes
    monkeypatch.setattr("coursekit.comparing.time.perf_counter", lambda: now[0])

    def run(way, seed):
        now[0] += way
        return 0.0

    with pytest.raises(DataError, match=r"unequal budgets: short had .* seconds"):
        compare(run, {"short": 0.02, "long": 0.06}, seeds=2, budget="seconds")
    assert compare(run, {"short": 0.05, "long": 0.051}, seeds=2, budget="seconds")


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"ways": {"a": 1}}, DataError, "1 way"),
        ({"seeds": 1}, DataError, "two or more"),
        ({"seeds": [1, 1]}, DataError, "each once"),
        ({"budget": "money"}, ValueError, "budget='money'"),
        ({"reference": "c"}, ValueError, "'c' is none of the ways: a, b"),
        ({"free": ["d"]}, ValueError, "'d' is none of the ways"),
        ({"run": lambda way, seed: (0, way)}, DataError, "a had 1 steps a run, b 2"),
        ({"run": lambda way, seed: 0.5}, DataError, "no optimizer took a step"),
        ({"run": lambda way, seed: learner(0)}, DataError, "has not been trained"),
        ({"run": lambda way, seed: (float("nan"), 1)}, DataError, None),
    ],
)
def test_what_cannot_be_compared_is_named(more, error, words):
    given = {"run": noisy, "ways": {"a": 1, "b": 2}, "seeds": 2} | more
    with pytest.raises(error, match=words):
        compare(**given).table()


def test_the_counter_is_taken_away_when_a_run_fails():
    from torch.optim import optimizer

    before = len(optimizer._global_optimizer_post_hooks)
    with pytest.raises(ZeroDivisionError):
        compare(lambda way, seed: 1 / 0, {"a": 1, "b": 2}, seeds=2)
    assert len(optimizer._global_optimizer_post_hooks) == before


def test_the_plot_shows_each_difference_and_its_interval():
    import matplotlib as mpl

    mpl.use("Agg")
    found = compare(noisy, {"a": 0.0, "b": 1.0, "c": 2.0}, seeds=4)
    ax = found.plot(label="accuracy")
    dots = [line.get_ydata() for line in ax.lines if line.get_marker() == "o"]
    assert np.allclose(dots, [[1, 2]] * 4)  # seeds are shared, so nothing else is left
    assert ax.get_ylabel() == "accuracy minus that of a"
    assert [each.get_text() for each in ax.get_xticklabels()] == ["b", "c"]
