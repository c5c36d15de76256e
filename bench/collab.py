"""Quality, speed and scale of collaborative filtering; kept in bench/collab.csv, which lesson 10 shows.

    COURSEKIT_FASTAI=/path/to/python python bench/collab.py --save    # fastai 2, scikit-surprise and implicit are there
    python bench/collab.py --only race --rounds 3 --strict
    python bench/collab.py --tune      # how the settings below were chosen; held-out ratings are not looked at

Three tables. **quality**: RMSE, recall@10 and NDCG@10 of ours and of others on five random splits of MovieLens 100k.
**race**: five one-cycle epochs of the same model with the same settings and split by coursekit, fastai and a bare
loop; each is a process of its own, they take turns, who begins changes, and a first epoch on a few ratings is not
counted; a ratio is that of two trainings of the same round, so that a busy machine slows both. **scale**: a million
users, each run a process of its own. Without `COURSEKIT_FASTAI` only our own side runs. A missed goal is reported;
with `--strict` it is also an error.
"""

import argparse
import csv
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from helper import Helper, clocked, peak_memory, spread, verdict
from sides import Y_RANGE, recommender, table_in

KEPT = Path(__file__).with_suffix(".csv")
TABLES = ("quality", "race", "scale")
COLUMNS = [
    *("table", "method", "rmse", "rmse spread", "recall@10", "ndcg@10"),
    *("threads", "seed", "mse", "distinct", "ratio", "batch", "ratings/s", "peak GB", "seconds"),
]
RACE = {"epochs": 5, "rate": 5e-3, "wd": 0.1, "factors": 50, "bs": 64}
FASTER_GOAL, RMSE_GOAL = 8, 0.905
SPLITS = range(5)
LESSON = {"epochs": 4, "rate": 1e-2, "wd": 0.4, "factors": 50, "bs": 1024, "others": 4}
CHOSEN = {  # by `--tune`
    "one of ours": RACE | {"wd": 0.15},
    "mean of ten": RACE,
    "watching": LESSON | {"epochs": 8, "wd": 0.1, "others": 16},
    "als": {"input": "ratings", "factors": 16, "regularization": 5.0, "alpha": 0.3},
}
N_AVERAGED = 10
SCALE = {"users": 1_000_000, "items": 100_000, "ratings": 20_000_000}
SCALE_SETTINGS = {
    8192: {"rate": 1e-2, "wd": 0.1},
    65536: {"rate": 3e-2, "wd": 0.1},
    1024: {"rate": 3e-3, "wd": 0.1},
}
SCALE_RUNS = [  # sparse, batch, steps: an epoch if None
    (True, 8192, None),
    *itertools.product((True, False), (65536,), (60,)),
    (False, 8192, 100),
    *itertools.product((True, False), (1024,), (200,)),
]


def serve(name: str, folder: Path) -> None:
    answer = ANSWERS[name]
    for line in sys.stdin:
        print(f"\nANSWER {json.dumps(answer(folder, **json.loads(line)))}", flush=True)


# ---------------------------------------------------------------- race: what a racer does, in its own process
def race_side(side: str, folder: Path, seed: int, rows=None, **settings) -> dict:
    "Seconds and error of one training, by a side of the race card."
    return clocked(recommender(side, folder, seed - 1, rows, **settings))


def race_fastai(folder: Path, seed: int, rows=None, **settings) -> dict:
    "The same, and the share of the training ratings that come in an epoch."
    from fastai.collab import CollabDataLoaders

    dls = CollabDataLoaders.from_df(table_in(folder, rows), seed=seed, device="cpu")
    drawn = dls.train.get_idxs()
    found = race_side("fastai", folder, seed, rows, **settings)
    return found | {"distinct": len(set(drawn)) / len(drawn)}


def race(options, folder: Path) -> Iterator[dict]:
    "A row for each training of each racer, in as many rounds as seeds: one thread for all, then those that each takes."
    ratings = ratings_table()[["user", "movie", "rating"]]
    np.savez(folder / "ratings.npz", **{name: ratings[name].to_numpy() for name in ratings})
    pythons = {"bare loop": sys.executable, "coursekit": sys.executable}
    if options.fastai:
        pythons["fastai"] = options.fastai
    for threads in ("1", "by default"):  # the first is the one that a busy machine harms least
        few = {"OMP_NUM_THREADS": "1"} if threads == "1" else {}
        racers = [Helper(python, __file__, name, folder, **few) for name, python in pythons.items()]
        for racer in racers:
            racer.ask(seed=0, rows=5000, **RACE | {"epochs": 1})
        for seed in range(options.rounds):
            shift = seed % len(racers)
            done = {
                racer.name: racer.ask(seed=seed, **RACE)
                for racer in racers[shift:] + racers[:shift]
            }
            for racer in racers:
                found = done[racer.name]
                if options.fastai:
                    found["ratio"] = done["fastai"]["seconds"] / found["seconds"]
                yield {"method": racer.name, "threads": threads, "seed": seed} | found
        for racer in racers:
            racer.close()


def judge_race(rows: list[dict]) -> int:
    "Print ratios; return how many goals were missed."
    missed = 0
    for threads in dict.fromkeys(row["threads"] for row in rows):
        here = [row for row in rows if row["threads"] == threads]
        by = {
            name: [r for r in here if r["method"] == name] for name in {r["method"] for r in here}
        }
        seconds = {name: [row["seconds"] for row in of] for name, of in by.items()}
        print(f"  threads {threads}")
        for name, of in by.items():
            errors = spread([row["mse"] for row in of], "{:.3f}")
            print(f"    {name:12}{spread(seconds[name], '{:.2f}'):>24} s   MSE {errors}")
        for other in set(by) - {"coursekit"}:
            pairs = zip(seconds["coursekit"], seconds[other], strict=True)
            ratios = [ours / theirs for ours, theirs in pairs]
            pairs = zip(by["coursekit"], by[other], strict=True)
            busy = statistics.median(ours["busy"] / theirs["busy"] for ours, theirs in pairs)
            words, over = verdict(ratios, 1 / FASTER_GOAL if other == "fastai" else None)
            print(
                f"    coursekit : {other:12} x {spread(ratios, '{:.3f}')}   processors' time x {busy:.3f}{words}"
            )
            missed += over
        if "fastai" in by:
            worse = [
                ours["seed"]
                for ours, theirs in zip(by["coursekit"], by["fastai"], strict=True)
                if ours["mse"] > theirs["mse"]
            ]
            print(
                f"    MSE above fastai's: {f'seeds {worse}, MISSED' if worse else 'with no seed'}"
            )
            print(
                f"    of fastai's training rows {by['fastai'][0]['distinct']:.1%} come in an epoch"
            )
            missed += bool(worse)
    return missed


# ---------------------------------------------------------------- quality: a split, and methods of ours
def ratings_table():
    import pandas as pd

    from coursekit.datasets import URLs, untar_data

    names = ["user", "movie", "rating", "timestamp"]
    return pd.read_csv(
        untar_data(URLs.ML_100k) / "u.data", delimiter="\t", header=None, names=names
    )


class Split:
    "A fifth of the ratings held out at random. Users and films are numbers from 1 on; 0 is for those not in training."

    def __init__(self, ratings, seed: int, valid_pct: float = 0.2):
        import torch

        from coursekit.ratings import CollabDataLoaders

        self.seed = seed
        self.dls = CollabDataLoaders.from_df(ratings, valid_pct, seed=seed, device="cpu")
        self.pairs, self.stars = self.dls.train_ds.tensors
        self.valid_pairs, self.valid_stars = self.dls.valid_ds.tensors
        self.shape = tuple(map(len, self.dls.classes.values()))
        self.seen, self.relevant = (torch.zeros(self.shape, dtype=torch.bool) for _ in range(2))
        self.seen[tuple(self.pairs.T)] = True
        liked = self.valid_pairs[(self.valid_stars >= 4) & self.valid_pairs.all(1)]
        self.relevant[tuple(liked.T)] = True

    def rmse(self, scores) -> float:
        "Of predictions cut to the range of the ratings, as scikit-surprise does."
        wrong = scores[tuple(self.valid_pairs.T)].clamp(1, 5) - self.valid_stars
        return wrong.square().mean().sqrt().item()

    def ranking(self, scores) -> tuple[float, float]:
        "Recall@10 and NDCG@10 of lists without what the user has rated in training."
        from coursekit.ranking import ndcg_at_k, recall_at_k

        scores = scores.float().masked_fill(self.seen, -math.inf)
        scores[:, 0] = -math.inf
        return recall_at_k(scores, self.relevant), ndcg_at_k(scores, self.relevant)


def timed(train: Callable) -> tuple:
    "What a function returns, and the seconds of the processor that it takes."
    start = time.process_time()
    found = train()
    return found, time.process_time() - start


def biases_of(pairs, stars, shape: tuple, extra: int = 10):
    "The mean, and what each user and each film has above it, pulled to 0 by `extra` ratings."
    import torch

    mean, found = stars.mean(), [None, None]
    left = stars - mean
    for side in (1, 0):
        sums = torch.bincount(pairs[:, side], left, minlength=shape[side])
        counts = torch.bincount(pairs[:, side], minlength=shape[side])
        found[side] = (sums / (counts + extra)).float()
        left = left - found[side][pairs[:, side]]
    return mean, *found


def mean_and_biases(split: Split):
    (mean, users, movies), seconds = timed(lambda: biases_of(split.pairs, split.stars, split.shape))
    return mean + users[:, None] + movies, seconds


def neighbours(split: Split, k: int = 40):
    "Biases, plus the mean of what is left at the k most alike films that the user has rated."
    import torch

    base, seconds = mean_and_biases(split)

    def train():
        left = torch.zeros(split.shape)
        left[split.seen] = (
            torch.zeros(split.shape).index_put(tuple(split.pairs.T), split.stars) - base
        )[split.seen]
        length, rated = left.norm(dim=0) + 1e-6, split.seen.float()
        together = rated.T @ rated
        alike = left.T @ left / torch.outer(length, length) * together / (together + 50)
        return left, alike.fill_diagonal_(0).clamp_(min=0)

    (left, alike), more = timed(train)
    scores = base.clone()
    for user in range(1, split.shape[0]):
        rated = split.seen[user].nonzero()[:, 0]
        weights, best = alike[:, rated].topk(min(k, len(rated)), dim=1)
        scores[user] += (weights * left[user, rated][best]).sum(1) / (weights.sum(1) + 1e-6)
    return scores, seconds + more


def matrix_of(model):
    "The score of each film for each user."
    import torch

    from coursekit.bodies import sigmoid_range

    with torch.no_grad():
        scores = model.u_weight.weight @ model.i_weight.weight.T
        scores += model.u_bias.weight + model.i_bias.weight[:, 0]
    return scores if model.y_range is None else sigmoid_range(scores, *model.y_range)


def dot_bias(split: Split, seed: int | None = None, *, epochs, rate, wd, factors, bs):
    "`collab_learner` with the split's own seed, or another."
    import torch

    from coursekit.collab import collab_learner
    from coursekit.loaders import DataLoaders

    dls = DataLoaders.from_dsets(split.dls.train_ds, split.dls.valid_ds, bs=bs, device="cpu")
    torch.manual_seed(split.seed if seed is None else seed)
    learn = collab_learner(dls, factors, y_range=Y_RANGE)
    with learn.no_bar(), learn.no_logging():
        _, seconds = timed(lambda: learn.fit_one_cycle(epochs, rate, wd=wd))
    return matrix_of(learn.model), seconds


def mean_of_several(split: Split, n: int = N_AVERAGED, **settings):
    "The mean of the predictions of learners that begin differently."
    found = [dot_bias(split, 100 * split.seed + i, **settings) for i in range(n)]
    return sum(scores for scores, _ in found) / n, sum(seconds for _, seconds in found)


def popularity(split: Split):
    return split.seen.sum(0).float().expand(split.shape), 0.0


def watching(split: Split, *, epochs, rate, wd, factors, bs, others, least=1):
    "The same model, asked who rates what at all, or with at least so many stars; `others` films drawn for each rating."
    import torch
    from torch.utils.data import TensorDataset

    from coursekit.collab import EmbeddingDotBias
    from coursekit.learner import Learner
    from coursekit.loaders import DataLoaders
    from coursekit.losses import BCEWithLogitsLossFlat

    torch.manual_seed(split.seed)

    def train():
        known, (n_users, n_movies) = split.pairs[split.stars >= least], split.shape
        drawn = torch.randint(1, n_movies, (others * len(known),))
        drawn = torch.stack([known[:, 0].repeat(others), drawn], 1)
        drawn = drawn[~split.seen[tuple(drawn.T)]]
        answers = torch.cat([torch.ones(len(known)), torch.zeros(len(drawn))])
        dls = DataLoaders.from_dsets(TensorDataset(torch.cat([known, drawn]), answers), bs=bs)
        model = EmbeddingDotBias(factors, n_users, n_movies)
        learn = Learner(dls, model, BCEWithLogitsLossFlat())
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(epochs, rate, wd=wd)
        return model

    model, seconds = timed(train)
    return matrix_of(model), seconds


# ---------------------------------------------------------------- quality: methods of others, in their own process
def answer_surprise(folder: Path, method: str, seed: int, **settings) -> dict:
    "SVD or SVDpp of scikit-surprise: the prediction for each pair, from what it has learned."
    import pandas as pd
    import surprise

    split = np.load(folder / "split.npz")
    (users, movies), stars, shape = split["pairs"].T, split["stars"], tuple(split["shape"])
    table = pd.DataFrame({"user": users, "movie": movies, "rating": stars})
    data = surprise.Dataset.load_from_df(table, surprise.Reader(rating_scale=(1, 5)))
    trainset = data.build_full_trainset()
    algo = getattr(surprise, method)(random_state=seed, **settings)
    _, seconds = timed(lambda: algo.fit(trainset))
    factors = algo.pu
    if method == "SVDpp":
        own = [[item for item, _ in trainset.ur[user]] for user in range(trainset.n_users)]
        factors = factors + np.stack([algo.yj[it].sum(0) / np.sqrt(len(it)) for it in own])
    rows = [trainset.to_raw_uid(user) for user in range(trainset.n_users)]
    columns = [trainset.to_raw_iid(item) for item in range(trainset.n_items)]
    scores = np.full(shape, trainset.global_mean)
    scores[rows] += algo.bu[:, None]
    scores[:, columns] += algo.bi
    scores[np.ix_(rows, columns)] += factors @ algo.qi.T
    for user, item in ((0, 0), (5, 7), (trainset.n_users - 1, trainset.n_items - 1)):
        asked = algo.predict(rows[user], columns[item], clip=False).est
        assert abs(asked - scores[rows[user], columns[item]]) < 1e-4, "not what surprise predicts"
    np.save(folder / "scores.npy", scores)
    return {"seconds": seconds}


def answer_implicit(folder: Path, seed: int, input: str, **settings) -> dict:
    "ALS of implicit, from ratings, from what was rated at all, or as its example for MovieLens: 4 and 5 stars by BM25."
    import scipy.sparse
    from implicit.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import bm25_weight

    split = np.load(folder / "split.npz")
    (users, movies), stars, shape = split["pairs"].T, split["stars"], tuple(split["shape"])
    if input == "watched":
        stars = np.ones_like(stars)
    if input in ("liked", "liked, bm25"):
        users, movies, stars = (values[stars >= 4] for values in (users, movies, stars))
        stars = np.ones_like(stars)
    table = scipy.sparse.csr_matrix((stars, (users, movies)), shape)
    if input == "liked, bm25":
        table = (bm25_weight(table.T.tocsr(), B=0.9) * 5).T.tocsr()
    model = AlternatingLeastSquares(iterations=15, random_state=seed, num_threads=1, **settings)
    _, seconds = timed(lambda: model.fit(table, show_progress=False))
    np.save(folder / "scores.npy", model.user_factors @ model.item_factors.T)
    return {"seconds": seconds}


def asked(helper: Helper, folder: Path, split: Split, **order):
    "Scores by a method of others."
    import torch

    parts = {"pairs": split.pairs.numpy(), "stars": split.stars.numpy(), "shape": split.shape}
    np.savez(folder / "split.npz", **parts)
    seconds = helper.ask(seed=split.seed, **order)["seconds"]
    return torch.from_numpy(np.load(folder / "scores.npy")), seconds


def methods_of(helpers: dict[str, Helper], folder: Path) -> dict[str, tuple[Callable, bool]]:
    "Each method: a function of a split, and whether it predicts stars."
    ours = {
        "film and person": (mean_and_biases, True),
        "40 neighbours": (neighbours, True),
        "coursekit, as in the race": (lambda split: dot_bias(split, **RACE), True),
        "coursekit, tuned": (lambda split: dot_bias(split, **CHOSEN["one of ours"]), True),
        f"coursekit, mean of {N_AVERAGED}": (
            lambda split: mean_of_several(split, **CHOSEN["mean of ten"]),
            True,
        ),
        "popularity": (popularity, False),
        "coursekit, watched or not": (lambda split: watching(split, **LESSON), False),
        "coursekit, watched or not, tuned": (
            lambda split: watching(split, **CHOSEN["watching"]),
            False,
        ),
    }
    if not helpers:
        return ours

    def theirs(name: str, **order) -> Callable:
        return lambda split: asked(helpers[name], folder, split, **order)

    return ours | {
        "surprise SVD": (theirs("surprise", method="SVD"), True),
        "surprise SVD++": (theirs("surprise", method="SVDpp"), True),
        "implicit ALS, tuned": (theirs("implicit", **CHOSEN["als"]), False),
    }


def helpers_for(options, folder: Path) -> dict[str, Helper]:
    if not options.fastai:
        return {}
    one = {"OPENBLAS_NUM_THREADS": "1"}  # implicit asks for it
    return {
        name: Helper(options.fastai, __file__, name, folder, **one)
        for name in ("surprise", "implicit")
    }


def quality(options, folder: Path) -> Iterator[dict]:
    "A row for each method: means over the splits, and the deviation of the RMSE between them."
    import torch

    import coursekit.training  # noqa: F401, learners get fit_one_cycle from it

    torch.set_num_threads(1)
    ratings, helpers = ratings_table(), helpers_for(options, folder)
    splits = [Split(ratings, seed) for seed in SPLITS]
    for name, (method, stars) in methods_of(helpers, folder).items():
        errors, lists, seconds = [], [], []
        for split in splits:
            scores, took = method(split)
            errors.append(split.rmse(scores))
            lists.append(split.ranking(scores))
            seconds.append(took)
        row = {"method": name}
        if stars:
            row |= {"rmse": statistics.mean(errors), "rmse spread": statistics.stdev(errors)}
        recall, ndcg = map(statistics.mean, zip(*lists, strict=True))
        yield row | {"recall@10": recall, "ndcg@10": ndcg, "seconds": statistics.median(seconds)}
    for helper in helpers.values():
        helper.close()


def judge_quality(rows: list[dict]) -> int:
    ours = {
        row["method"]: row["rmse"] for row in rows if "coursekit" in row["method"] and "rmse" in row
    }
    best = min(ours, key=ours.get)
    missed = ours[best] > RMSE_GOAL
    print(
        f"  {best}: RMSE {ours[best]:.4f}   goal at most {RMSE_GOAL}: {'MISSED' if missed else 'met'}"
    )
    return int(missed)


# ---------------------------------------------------------------- how settings are chosen
def grid(**values) -> list[dict]:
    return [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]


def ratings_tried() -> list[dict]:
    fifty, hundred = (0.08, 0.1, 0.12, 0.15), (0.12, 0.15, 0.2)
    tried = [(0.1, 30), *((wd, 50) for wd in fifty), *((wd, 100) for wd in hundred)]
    return [RACE | {"wd": wd, "factors": factors} for wd, factors in tried]


def watching_tried() -> list[dict]:
    same = {"rate": [1e-2], "bs": [1024]}
    return [
        *grid(epochs=[4, 8], wd=[0.2, 0.4, 0.8], least=[1, 4], factors=[50], others=[4], **same),
        *grid(epochs=[8, 16], wd=[0.05, 0.1], factors=[50], others=[4], **same),
        *grid(epochs=[16], wd=[0.2], factors=[50], others=[4], **same),
        *grid(epochs=[8], wd=[0.1, 0.2], factors=[50], others=[16], **same),
        *grid(epochs=[8], wd=[0.1, 0.2], factors=[16], others=[4, 16], **same),
    ]


def als_tried() -> list[dict]:
    return grid(
        input=["ratings", "watched", "liked", "liked, bm25"],
        factors=[8, 12, 16, 32, 64],
        regularization=[0.05, 5.0],
        alpha=[0.3, 1.0, 3.0],
    )


def tune(options, folder: Path) -> None:
    "On a tenth of the training ratings of split 0, twice. What split 0 has held out is not looked at."
    import torch

    import coursekit.training  # noqa: F401, learners get fit_one_cycle from it
    from coursekit.data import RandomSplitter

    torch.set_num_threads(1)
    ratings, helpers = ratings_table(), helpers_for(options, folder)
    inner = ratings.iloc[RandomSplitter(0.2, seed=0)(ratings)[0]]
    splits = [Split(inner, seed, 0.1) for seed in range(2)]
    if options.tune in ("all", "ratings"):
        for settings in ratings_tried():
            one, mean = [], []
            for split in splits:
                scores = [dot_bias(split, seed, **settings)[0] for seed in range(5)]
                one += [split.rmse(each) for each in scores]
                mean.append(split.rmse(sum(scores) / len(scores)))
            errors = f"of one {statistics.mean(one):.4f}, of the mean of five {statistics.mean(mean):.4f}"
            print(f"  RMSE {errors}: {settings}", flush=True)
    if options.tune in ("all", "watching"):
        try_lists(splits, watching, watching_tried())
    if options.tune in ("all", "als") and helpers:
        try_lists(splits, partial(asked, helpers["implicit"], folder), als_tried())
    for helper in helpers.values():
        helper.close()


def try_lists(splits: list[Split], method: Callable, candidates: list[dict]) -> None:
    found = []
    for settings in candidates:
        values = [split.ranking(method(split, **settings)[0])[1] for split in splits]
        found.append((statistics.mean(values), settings))
    for value, settings in sorted(found, key=lambda each: -each[0]):
        print(f"  NDCG@10 {value:.4f}: {settings}")


# ---------------------------------------------------------------- scale
def make_many(folder: Path, users: int, items: int, ratings: int, seed: int = 0) -> dict:
    """Ratings with a few active users and popular items and many others; each is the sum of a bias of the user, one of
    the item, the product of four factors of each, and noise, cut to 1 to 5 and rounded to halves."""
    rng = np.random.default_rng(seed)

    def drawn(n: int, many: int) -> np.ndarray:
        "Positions in 0 to n, where the first are the more likely ones, under random names."
        weights = (np.arange(n) + n / 1000) ** -0.8
        counts = rng.multinomial(many, weights / weights.sum())
        return np.repeat(rng.permutation(n), counts)

    many = int(1.2 * ratings)
    pairs = drawn(users, many) * items + rng.permutation(drawn(items, many))
    pairs.sort()  # `np.unique` takes minutes for so many
    pairs = rng.permutation(pairs[np.diff(pairs, prepend=-1) > 0])[:ratings]
    user, item = np.divmod(pairs, items)
    biases = [rng.normal(0, 0.4, n).astype(np.float32) for n in (users, items)]
    factors = [rng.normal(0, 0.65, (n, 4)).astype(np.float32) for n in (users, items)]
    stars = 3.4 + biases[0][user] + biases[1][item]
    for k in range(4):
        stars += factors[0][user, k] * factors[1][item, k]
    stars += rng.normal(0, 0.6, len(stars)).astype(np.float32)
    stars = (2 * stars.clip(1, 5)).round() / 2
    for name, values in (("user", user), ("item", item), ("rating", stars)):
        np.save(
            folder / f"many_{name}.npy", values.astype(np.float32 if name == "rating" else np.int32)
        )
    return {"ratings": len(stars)}


def train_many(
    folder: Path, sparse: bool, bs: int, rate: float, wd: float, steps: int | None = None
) -> dict:
    "An epoch, or some steps of one, and what it takes."
    import pandas as pd
    import torch

    import coursekit.training  # noqa: F401, learners get fit_one_cycle from it
    from coursekit.collab import collab_learner
    from coursekit.events import Callback, CancelFitException
    from coursekit.ratings import CollabDataLoaders

    torch.set_num_threads(1)
    names = ("user", "item", "rating")
    table = pd.DataFrame({name: np.load(folder / f"many_{name}.npy") for name in names})
    found = {"table GB": peak_memory() / 1000}
    dls, found["loaders seconds"] = timed(
        lambda: CollabDataLoaders.from_df(table, 0.05, seed=0, bs=bs, val_bs=65536, device="cpu")
    )
    found["loaders GB"] = peak_memory() / 1000
    if steps is None:
        (pairs, stars), (valid_pairs, valid_stars) = dls.train_ds.tensors, dls.valid_ds.tensors
        mean, users, items = biases_of(pairs, stars, tuple(map(len, dls.classes.values())))
        expected = mean + users[valid_pairs[:, 0]] + items[valid_pairs[:, 1]]
        found["mse of biases"] = (expected - valid_stars).square().mean().item()
        found["variance"] = valid_stars.var().item()
        del pairs, stars, valid_pairs, valid_stars, expected

    class Clock(Callback):
        "Time from the third batch on, in training alone; the fit ends after so many steps."

        def after_batch(self):
            if not self.learn.training or self.learn.train_iter < 2:
                return
            if self.learn.train_iter == 2:
                self.start = time.process_time()
            self.seen = self.learn.train_iter - 2
            self.seconds = time.process_time() - self.start
            if steps and self.learn.train_iter >= steps + 2:
                raise CancelFitException

    torch.manual_seed(0)
    learn, clock = collab_learner(dls, 50, sparse=sparse, y_range=(0.5, 5.5)), Clock()
    with learn.no_bar(), learn.no_logging():
        _, found["seconds"] = timed(lambda: learn.fit_one_cycle(1, rate, wd=wd, cbs=clock))
    found |= {"ratings/s": clock.seen * bs / clock.seconds, "peak GB": peak_memory() / 1000}
    if steps is None:
        found["mse"] = float(learn.recorder.values[-1][1])  # noqa: PD011
    return found


def scale(options, folder: Path) -> Iterator[dict]:
    "A row for each run: an epoch with sparse gradients, some steps of the others."
    with Helper(sys.executable, __file__, "make many", folder) as maker:
        n = maker.ask(**SCALE)["ratings"]
    for sparse, bs, steps in SCALE_RUNS:
        with Helper(sys.executable, __file__, "train many", folder) as trainer:
            found = trainer.ask(sparse=sparse, bs=bs, steps=steps, **SCALE_SETTINGS[bs])
        if steps is None:
            yield {"method": "mean of all", "mse": found["variance"]}
            yield {"method": "user and item bias", "mse": found["mse of biases"]}
            yield {
                "method": f"from_df, {n:,} ratings",
                "seconds": found["loaders seconds"],
                "ratings/s": n / found["loaders seconds"],
                "peak GB": found["loaders GB"],
            }
        name = f"{'sparse' if sparse else 'dense'}, {'an epoch' if steps is None else f'{steps} steps'}"
        yield {"method": name, "batch": bs} | found


def judge_scale(rows: list[dict]) -> int:
    "Print how much faster sparse gradients are, and whether an epoch has learned more than biases."
    for bs in dict.fromkeys(row["batch"] for row in rows if "batch" in row):
        sparse, dense = (
            next(
                row["ratings/s"] for row in rows if row.get("batch") == bs and kind in row["method"]
            )
            for kind in ("sparse", "dense")
        )
        print(f"  batch {bs:,}: sparse is {sparse / dense:.1f} times as fast as dense")
    errors = {row["method"]: row["mse"] for row in rows if "mse" in row}
    missed = errors["sparse, an epoch"] > 0.95 * errors["user and item bias"]
    print(f"  an epoch learns more than biases: {'MISSED' if missed else 'met'}")
    return int(missed)


# ---------------------------------------------------------------- what is told, and kept
ANSWERS = {
    "fastai": race_fastai,
    "coursekit": partial(race_side, "coursekit"),
    "bare loop": partial(race_side, "bare loop"),
    "surprise": answer_surprise,
    "implicit": answer_implicit,
    "make many": lambda folder, **sizes: make_many(folder, **sizes),
    "train many": train_many,
}
MAKERS = {
    "quality": (quality, judge_quality),
    "race": (race, judge_race),
    "scale": (scale, judge_scale),
}


def notes_of(table: str, rounds: int) -> list[str]:
    "Where the rows of a table come from."
    import torch

    command = ["git", "-C", str(KEPT.parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    about = {
        "quality": f"MovieLens 100k, random splits by seeds {SPLITS[0]} to {SPLITS[-1]}; rmse: mean, spread: standard"
        " deviation of the splits; recall and ndcg: of held-out ratings of at least 4, without what was rated in"
        " training; seconds: of the processor, to train, median of the splits; one thread for all; tuned: on a"
        " tenth of the training ratings of split 0, by --tune",
        "race": f"MovieLens 100k, {RACE}, seeds 0 to {rounds - 1}; ratio: how many times as fast as fastai in the same"
        " round; distinct: share of the training ratings that come in an epoch",
        "scale": f"{SCALE}, drawn with seed 0; one thread; seconds and ratings/s: of the processor; peak GB: of the"
        " whole process, table and loaders included",
    }
    where = f"after commit {commit or 'unknown'}; torch {torch.__version__.partition('+')[0]}; {os.cpu_count()} cores"
    return [
        f"# {table}: python bench/collab.py --save --only {table}; {where}",
        f"# {table}: {about[table]}",
    ]


def shown(value) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 1000 else f"{value:.2f}" if value >= 20 else f"{value:.4f}"


def save(table: str, notes: list[str], rows: list[dict]) -> None:
    "Put these rows in the place of the table's old ones."
    lines = KEPT.read_text(encoding="utf-8").splitlines() if KEPT.exists() else []
    comments = [line for line in lines if line.startswith("# ")]
    kept = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    tables = {name: [row for row in kept if row["table"] == name] for name in TABLES}
    tables[table] = [
        {"table": table} | {k: shown(row[k]) for k in COLUMNS[1:] if k in row} for row in rows
    ]
    temporary = KEPT.with_suffix(".new")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        for name in TABLES:
            old = [line for line in comments if line.startswith(f"# {name}: ")]
            for line in notes if name == table else old:
                file.write(line + "\n")
        writer = csv.DictWriter(
            file, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n"
        )
        writer.writeheader()
        for name in TABLES:
            writer.writerows(tables[name])
    temporary.replace(KEPT)


def make(table: str, options, folder: Path) -> int:
    "Print a table row by row, judge it, and keep it if asked; return how many goals were missed."
    rows, (maker, judge) = [], MAKERS[table]
    print(table)
    for row in maker(options, folder):
        rows.append(row)
        print("  " + ", ".join(f"{name} {shown(value)}" for name, value in row.items()), flush=True)
    if options.save:
        save(table, notes_of(table, options.rounds), rows)
    return judge(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--fastai",
        default=os.environ.get("COURSEKIT_FASTAI"),
        help="a Python that has fastai 2, scikit-surprise and implicit",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of the race, a seed each (5)")
    parser.add_argument("--only", choices=TABLES, help="one table")
    parser.add_argument("--save", action="store_true", help=f"write {KEPT.name}")
    parser.add_argument("--strict", action="store_true", help="a missed goal is an error")
    parser.add_argument(
        "--tune",
        nargs="?",
        const="all",
        choices=["all", "ratings", "watching", "als"],
        help="try settings",
    )
    parser.add_argument("--serve", choices=ANSWERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.folder)
        return 0
    if not options.fastai:
        if options.save and options.only != "scale":
            parser.error("--save keeps the rows of others too: give --fastai, or --only scale")
        print("no COURSEKIT_FASTAI: only our own side runs")
    with tempfile.TemporaryDirectory() as folder:
        if options.tune:
            tune(options, Path(folder))
            return 0
        tables = [options.only] if options.only else TABLES
        missed = sum(make(table, options, Path(folder)) for table in tables)
    print(f"{os.cpu_count()} cores, {os.getloadavg()[0]:.1f} processes in the last minute")
    print(f"{missed} goals missed" if missed else "no goal missed")
    return int(options.strict and missed > 0)


if __name__ == "__main__":
    sys.exit(main())
