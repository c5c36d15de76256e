"""What bench/collab.py has done in a process of its own: methods of others, and what needs much memory.

python bench/collab_sides.py --serve surprise --folder FOLDER
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from helper import answer_orders, peak_memory


def timed(train: Callable) -> tuple:
    "What a function returns, and the seconds of the processor that it takes."
    start = time.process_time()
    found = train()
    return found, time.process_time() - start


# ---------------------------------------------------------------- methods of others
def surprise(folder: Path, method: str, seed: int, **settings) -> dict:
    "SVD or SVDpp of scikit-surprise: the prediction for each pair, from what it has learned."
    import pandas as pd
    from surprise import Dataset, Reader, prediction_algorithms

    split = np.load(folder / "split.npz")
    (users, movies), stars, shape = split["pairs"].T, split["stars"], tuple(split["shape"])
    table = pd.DataFrame({"user": users, "movie": movies, "rating": stars})
    data = Dataset.load_from_df(table, Reader(rating_scale=(1, 5)))
    trainset = data.build_full_trainset()
    algo = getattr(prediction_algorithms, method)(random_state=seed, **settings)
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


def implicit(folder: Path, seed: int, input: str, **settings) -> dict:
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


# ---------------------------------------------------------------- a million users
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
    columns = {"user": user.astype(np.int32), "item": item.astype(np.int32)}
    for name, values in (columns | {"rating": stars.astype(np.float32)}).items():
        np.save(folder / f"many_{name}.npy", values)
    return {"ratings": len(stars)}


def clock_of(bs: int, steps: int | None):
    "A callback that measures ratings a second from the third batch on; the fit ends after so many steps."
    from coursekit.events import Callback, CancelFitException

    class Clock(Callback):
        def after_batch(self):
            seen = self.learn.train_iter - 2
            if not self.learn.training or seen < 0:
                return
            if seen == 0:
                self.start = time.process_time()
            else:
                self.rate = seen * bs / (time.process_time() - self.start)
            if steps and seen >= steps:
                raise CancelFitException

    return Clock()


def loaders_of_many(folder: Path, bs: int):
    import pandas as pd

    from coursekit.ratings import CollabDataLoaders

    names = ("user", "item", "rating")
    table = pd.DataFrame({name: np.load(folder / f"many_{name}.npy") for name in names})
    options = {"bs": bs, "val_bs": 65536, "device": "cpu"}
    return CollabDataLoaders.from_df(table, 0.05, seed=0, **options)


def simple_errors(dls) -> dict:
    "Mean squared errors of the mean of all, and of biases, on what is held out."
    (pairs, stars), (valid_pairs, valid_stars) = dls.train_ds.tensors, dls.valid_ds.tensors
    mean, users, items = biases_of(pairs, stars, tuple(map(len, dls.classes.values())))
    expected = mean + users[valid_pairs[:, 0]] + items[valid_pairs[:, 1]]
    wrong = (expected - valid_stars).square().mean().item()
    return {"mse of biases": wrong, "variance": valid_stars.var().item()}


def train_many(
    folder: Path, sparse: bool, bs: int, rate: float, wd: float, steps: int | None = None
) -> dict:
    "An epoch, or some steps of one, and what it takes."
    import torch

    import coursekit.training  # noqa: F401, learners get fit_one_cycle from it
    from coursekit.collab import collab_learner

    torch.set_num_threads(1)
    dls, loaders_seconds = timed(lambda: loaders_of_many(folder, bs))
    found = {"loaders seconds": loaders_seconds, "loaders GB": peak_memory() / 1000}
    if steps is None:
        found |= simple_errors(dls)
    torch.manual_seed(0)
    learn, clock = collab_learner(dls, 50, sparse=sparse, y_range=(0.5, 5.5)), clock_of(bs, steps)
    with learn.no_bar(), learn.no_logging():
        _, found["seconds"] = timed(lambda: learn.fit_one_cycle(1, rate, wd=wd, cbs=clock))
    found |= {"ratings/s": clock.rate, "peak GB": peak_memory() / 1000}
    if steps is None:
        found["mse"] = float(learn.recorder.values[-1][1])  # noqa: PD011
    return found


ANSWERS = {
    "surprise": surprise,
    "implicit": implicit,
    "make many": make_many,
    "train many": train_many,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", choices=ANSWERS, required=True, help="what is done")
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    answer_orders(lambda **order: partial(ANSWERS[options.serve], options.folder, **order))


if __name__ == "__main__":
    main()
