"Scores of strangers and the test for a shift, against scipy, scikit-learn and planted shifts."

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from scipy.stats import chi2_contingency
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from coursekit.drift import (
    Mahalanobis,
    ShiftDetector,
    energy,
    mix_p,
    neighbour_distance,
    permutation_p,
    uncertainty,
)
from coursekit.messages import DataError

rng = np.random.default_rng(0)
BANK = rng.normal(size=(60, 12))
X = rng.normal(size=(25, 12))
LABELS = np.arange(60) % 3


@pytest.mark.parametrize("k", [1, 5, 60])
def test_neighbours_are_those_of_scikit_learn(k):
    far, _ = NearestNeighbors(n_neighbors=k).fit(BANK).kneighbors(X)
    assert np.allclose(neighbour_distance(BANK, X, k, unit=False), far.mean(1))
    one = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (BANK, X)]
    far, _ = NearestNeighbors(n_neighbors=k).fit(one[0]).kneighbors(one[1])
    assert np.allclose(neighbour_distance(BANK, X, k), far.mean(1))
    # tensors and single precision are as good
    assert np.allclose(
        neighbour_distance(torch.tensor(BANK), torch.tensor(X).float(), k), far.mean(1)
    )


@pytest.mark.parametrize("features", [12, 200])
def test_mahalanobis_is_that_of_scipy(features):
    bank, x = rng.normal(size=(60, features)), rng.normal(size=(7, features))
    means = np.stack([bank[kind == LABELS].mean(0) for kind in range(3)])
    left = bank - means[LABELS]
    inverse = np.linalg.inv(LedoitWolf(assume_centered=True).fit(left).covariance_)
    naive = [min(mahalanobis(row, mean, inverse) for mean in means) for row in x]
    assert np.allclose(Mahalanobis(bank, LABELS, unit=False)(x), naive, rtol=1e-6)


def test_scores_of_the_answer():
    scores = torch.tensor(rng.normal(size=(9, 4)) * 50)
    assert np.allclose(energy(scores), -scores.logsumexp(1))
    assert np.allclose(uncertainty(scores), 1 - scores.softmax(1).amax(1))
    assert np.isfinite(energy(scores * 1e3)).all()


def test_the_p_value_is_that_of_dealing_by_hand():
    reference, window = rng.exponential(1, 40), rng.exponential(1.4, 15)
    both, chance = np.r_[reference, window], np.random.default_rng(1)
    dealt = np.array([chance.permutation(both)[:15].mean() for _ in range(20_000)])
    by_hand = (dealt >= window.mean()).mean()
    assert permutation_p(reference, window, n=20_000) == pytest.approx(by_hand, abs=0.01)
    # of few scores every way to deal is counted
    few = np.round(both[:6], 1)
    ways = [np.mean(part) for part in combinations(few, 2)]
    exact = np.mean(np.array(ways) >= few[4:].mean() - 1e-12)
    assert permutation_p(few[:4], few[4:]) == pytest.approx(exact)
    assert permutation_p([1, 1, 1], [1, 1]) == permutation_p([0.1] * 30, [0.1] * 20) == 1
    assert permutation_p([0, 0], [0]) == 1 and permutation_p([1, 2], [9]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_false_alarms_come_at_the_rate_that_was_asked_for(rate):
    "600 windows, each with a fresh reference, of a skewed score."
    chance = np.random.default_rng(5)
    draws = chance.exponential(1, (600, 90)) ** 2
    found = [permutation_p(row[30:], row[:30], n=299, seed=i) for i, row in enumerate(draws)]
    share, spread = np.mean(np.array(found) <= rate), (rate * (1 - rate) / 600) ** 0.5
    assert abs(share - rate) < 4 * spread


def test_a_planted_shift_is_found_and_no_shift_is_not():
    chance = np.random.default_rng(6)
    bank, held = chance.normal(size=(150, 20)) + 3, chance.normal(size=(200, 20)) + 3
    detector = ShiftDetector(bank, held, rate=0.05)
    assert detector.false_alarms(40, repeats=300) == pytest.approx(0.05, abs=0.04)
    turned = np.r_[np.ones(10), -np.ones(10)] * 1.5
    found, none = [], []
    for i in range(200):
        window = chance.normal(size=(40, 20)) + 3
        none.append(detector.look(window, seed=i).alarm)
        found.append(detector.look(window + turned, seed=i).alarm)
    # with one reference for all windows the rate depends on that reference
    assert np.mean(found) > 0.95 and np.mean(none) < 0.15


def test_weak_features_are_strange_as_directions_only():
    chance = np.random.default_rng(7)
    bank, known = (chance.normal(2, 0.3, (80, 30)) for _ in range(2))
    weak = chance.normal(0, 0.3, (80, 30)) + np.r_[np.ones(15), np.zeros(15)]
    assert neighbour_distance(bank, weak).mean() > 2 * neighbour_distance(bank, known).mean()


def test_the_mix():
    before, now = ["a"] * 40 + ["b"] * 60, ["a"] * 20 + ["b"] * 10
    theirs = chi2_contingency([[40, 60], [20, 10]], correction=False).pvalue
    assert mix_p(before, now) == pytest.approx(theirs)
    assert mix_p(["a"], ["a", "a"]) == 1 and mix_p(["a"] * 30, ["b"] * 30) < 1e-6
    chance = np.random.default_rng(8)
    found = [mix_p(chance.choice(3, 200), chance.choice(3, 60)) for _ in range(600)]
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.036)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: neighbour_distance(BANK, X[:, :4]), "x has 4 features, and 12 were learned"),
        (lambda: neighbour_distance(BANK, X[0]), r"x has the shape \(12,\)"),
        (lambda: neighbour_distance(BANK, X[:0]), "give"),
        (lambda: neighbour_distance(BANK, X * np.nan), "not finite"),
        (lambda: neighbour_distance(BANK, X, 61), "k=61 neighbours of a bank with 60 rows"),
        (lambda: Mahalanobis(BANK, LABELS[1:]), "59 labels for 60 rows"),
        (lambda: Mahalanobis(np.ones((9, 4)), np.zeros(9)), "do not differ"),
        (lambda: permutation_p([], [1]), "reference has 0 scores"),
        (lambda: permutation_p([1], [np.inf]), "window has 1 scores, 0 of them finite"),
        (lambda: mix_p([], ["a"]), "0 labels before"),
        (lambda: ShiftDetector(BANK, X, rate=0), "rate=0"),
        (lambda: ShiftDetector(BANK, X).false_alarms(25), "from 1 to 24"),
    ],
)
def test_errors_name_the_thing(call, words):
    with pytest.raises(DataError, match=words):
        call()
