"""Quality, speed and scale of collaborative filtering; kept in bench/collab.csv, which lesson 10 shows.

    COURSEKIT_FASTAI=/path/to/python python bench/collab.py --save    # fastai 2, scikit-surprise and implicit are there
    python bench/collab.py --only race --rounds 3
    python bench/collab.py --tune      # how the settings below were chosen; held-out ratings are not looked at

Three tables. **quality**: RMSE, recall@10 and NDCG@10 of ours and of others on five random splits of MovieLens 100k.
**race**: five one-cycle epochs of the same model with the same settings and split by coursekit, fastai and a bare
loop, as the race card has it, with one thread and with those that each takes. **scale**: a million users, each run a
process of its own. Without `COURSEKIT_FASTAI` only our own side runs.
"""

import argparse
import itertools
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import prepare
import torch
from collab_sides import biases_of, timed
from helper import Helper, in_turns, ratios
from kept import seconds_of, versions
from races import RECOMMENDER as RACE
from sides import Y_RANGE
from torch.utils.data import TensorDataset

import coursekit.training  # noqa: F401, learners get fit_one_cycle from it
from coursekit.bodies import sigmoid_range
from coursekit.collab import EmbeddingDotBias, collab_learner
from coursekit.data import RandomSplitter
from coursekit.learner import Learner
from coursekit.loaders import DataLoaders
from coursekit.losses import BCEWithLogitsLossFlat
from coursekit.ranking import ndcg_at_k, recall_at_k
from coursekit.ratings import CollabDataLoaders

BENCH = Path(__file__).resolve().parent
KEPT = BENCH / "collab.csv"
COLUMNS = [
    *("table", "method", "rmse", "rmse spread", "recall@10", "ndcg@10"),
    *("threads", "seed", "mse", "distinct", "ratio", "batch", "ratings/s", "peak GB", "seconds"),
]
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


# ---------------------------------------------------------------- race
def helpers_of(stack: ExitStack, pythons: dict[str, str], script: str, folder: Path, **few) -> dict:
    "A process for each name, until the stack is closed."
    return {
        name: stack.enter_context(Helper(python, str(BENCH / script), name, folder, **few))
        for name, python in pythons.items()
    }


def race(options, folder: Path) -> Iterator[dict]:
    "A row for each training of each racer: one thread for all, then those that each takes."
    prepare.ratings(folder)
    pythons = {"bare loop": sys.executable, "coursekit": sys.executable}
    if options.fastai:
        pythons["fastai"] = options.fastai
    for threads in ("1", "by default"):  # the first is the one that a busy machine harms least
        few = {"OMP_NUM_THREADS": "1"} if threads == "1" else {}
        with ExitStack() as stack:
            racers = helpers_of(stack, pythons, "sides.py", folder, **few)
            turns = {name: partial(one_turn, racer) for name, racer in racers.items()}
            done, failed, _ = in_turns(turns, options.rounds, math.inf)
        for name, why in failed.items():
            print(f"  {name}: {why}")
        for name, found in done.items():
            times = ratios(found, done["fastai"]) if "fastai" in done else [None] * len(found)
            for seed, (each, ratio) in enumerate(zip(found, times, strict=True)):
                more = {"ratio": ratio} if ratio else {}
                yield {"method": name, "threads": threads, "seed": seed} | each | more


def one_turn(racer: Helper, seed: int) -> dict:
    "A training; of fastai also the share of the training ratings that come in an epoch."
    few = {"n": 5000, "epochs": 1} if seed < 0 else {}
    order = {"turn": seed - 1} | RACE | few
    found = racer.ask(action="recommender", **order)
    if racer.name == "fastai":
        found["distinct"] = racer.ask(action="distinct", turn=seed - 1)["distinct"]
    return found


# ---------------------------------------------------------------- quality
class Split:
    "A fifth of the ratings held out at random. Users and films are numbers from 1 on; 0 is for those not in training."

    def __init__(self, ratings, seed: int, valid_pct: float = 0.2):
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
        scores = scores.float().masked_fill(self.seen, -math.inf)
        scores[:, 0] = -math.inf
        return recall_at_k(scores, self.relevant), ndcg_at_k(scores, self.relevant)


def mean_and_biases(split: Split):
    (mean, users, movies), seconds = timed(lambda: biases_of(split.pairs, split.stars, split.shape))
    return mean + users[:, None] + movies, seconds


def neighbours(split: Split, k: int = 40):
    "Biases, plus the mean of what is left at the k most alike films that the user has rated."
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
    with torch.no_grad():
        scores = model.u_weight.weight @ model.i_weight.weight.T
        scores += model.u_bias.weight + model.i_bias.weight[:, 0]
    return scores if model.y_range is None else sigmoid_range(scores, *model.y_range)


def dot_bias(split: Split, seed: int | None = None, *, epochs, rate, wd, factors, bs):
    "`collab_learner` with the split's own seed, or another."
    dls = DataLoaders.from_dsets(split.dls.train_ds, split.dls.valid_ds, bs=bs, device="cpu")
    torch.manual_seed(split.seed if seed is None else seed)
    learn = collab_learner(dls, factors, y_range=Y_RANGE)
    seconds = seconds_of(learn, lambda learn: learn.fit_one_cycle(epochs, rate, wd=wd))
    return matrix_of(learn.model), seconds


def mean_of_several(split: Split, n: int = N_AVERAGED, **settings):
    "The mean of the predictions of learners that begin differently."
    found = [dot_bias(split, 100 * split.seed + i, **settings) for i in range(n)]
    return sum(scores for scores, _ in found) / n, sum(seconds for _, seconds in found)


def popularity(split: Split):
    return split.seen.sum(0).float().expand(split.shape), 0.0


def watching(split: Split, *, epochs, rate, wd, factors, bs, others, least=1):
    "The same model, asked who rates what at all, or with at least so many stars; `others` films drawn for each rating."
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
        seconds_of(learn, lambda learn: learn.fit_one_cycle(epochs, rate, wd=wd))
        return model

    model, seconds = timed(train)
    return matrix_of(model), seconds


def theirs(split: Split, helper: Helper, folder: Path, **order):
    "Scores by a method of others."
    parts = {"pairs": split.pairs.numpy(), "stars": split.stars.numpy(), "shape": split.shape}
    np.savez(folder / "split.npz", **parts)
    seconds = helper.ask(seed=split.seed, **order)["seconds"]
    return torch.from_numpy(np.load(folder / "scores.npy")), seconds


LISTS_ALONE = ("popularity", "watched", "ALS")  # methods that predict no stars
OURS = {
    "film and person": mean_and_biases,
    "40 neighbours": neighbours,
    "coursekit, as in the race": partial(dot_bias, **RACE),
    "coursekit, tuned": partial(dot_bias, **CHOSEN["one of ours"]),
    f"coursekit, mean of {N_AVERAGED}": partial(mean_of_several, **CHOSEN["mean of ten"]),
    "popularity": popularity,
    "coursekit, watched or not": partial(watching, **LESSON),
    "coursekit, watched or not, tuned": partial(watching, **CHOSEN["watching"]),
}


def methods_of(helpers: dict[str, Helper], folder: Path) -> dict[str, Callable]:
    "Each method, a function of a split."
    if not helpers:
        return OURS
    svd, als = (partial(theirs, helper=helper, folder=folder) for helper in helpers.values())
    return OURS | {
        "surprise SVD": partial(svd, method="SVD"),
        "surprise SVD++": partial(svd, method="SVDpp"),
        "implicit ALS, tuned": partial(als, **CHOSEN["als"]),
    }


def rivals_of(stack: ExitStack, options, folder: Path) -> dict[str, Helper]:
    "Processes of scikit-surprise and implicit, if there is a Python that has them."
    pythons = dict.fromkeys(("surprise", "implicit") if options.fastai else (), options.fastai)
    # implicit asks for one thread
    return helpers_of(stack, pythons, "collab_sides.py", folder, OPENBLAS_NUM_THREADS="1")


def quality(options, folder: Path) -> Iterator[dict]:
    "A row for each method: means over the splits, and the deviation of the RMSE between them."
    ratings = prepare.ratings_table()
    splits = [Split(ratings, seed) for seed in SPLITS]
    with ExitStack() as stack:
        for name, method in methods_of(rivals_of(stack, options, folder), folder).items():
            yield {"method": name} | judged(name, [(split, *method(split)) for split in splits])


def judged(name: str, found: list[tuple]) -> dict:
    "Of what a method said of each split: the split, scores and seconds."
    recall, ndcg = map(
        statistics.mean, zip(*(split.ranking(x) for split, x, _ in found), strict=True)
    )
    row = {"recall@10": recall, "ndcg@10": ndcg}
    row["seconds"] = statistics.median(seconds for *_, seconds in found)
    if any(word in name for word in LISTS_ALONE):
        return row
    errors = [split.rmse(scores) for split, scores, _ in found]
    return {"rmse": statistics.mean(errors), "rmse spread": statistics.stdev(errors)} | row


# ---------------------------------------------------------------- how settings are chosen
def grid(**values) -> list[dict]:
    return [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]


LISTS = {"factors": [50], "others": [4], "rate": [1e-2], "bs": [1024]}
TRIED = {
    "ratings": [
        RACE | {"wd": wd, "factors": factors}
        for factors, decays in (
            (30, (0.1,)),
            (50, (0.08, 0.1, 0.12, 0.15)),
            (100, (0.12, 0.15, 0.2)),
        )
        for wd in decays
    ],
    "watching": [
        *grid(epochs=[4, 8], wd=[0.2, 0.4, 0.8], least=[1, 4], **LISTS),
        *grid(epochs=[8, 16], wd=[0.05, 0.1], **LISTS),
        *grid(epochs=[16], wd=[0.2], **LISTS),
        *grid(epochs=[8], wd=[0.1, 0.2], **LISTS | {"others": [16]}),
        *grid(epochs=[8], wd=[0.1, 0.2], **LISTS | {"factors": [16], "others": [4, 16]}),
    ],
    "als": grid(
        input=["ratings", "watched", "liked", "liked, bm25"],
        factors=[8, 12, 16, 32, 64],
        regularization=[0.05, 5.0],
        alpha=[0.3, 1.0, 3.0],
    ),
}


def of_one_and_of_five(split: Split, **settings) -> tuple[float, float]:
    "RMSE of a learner, the mean of five, and of the mean of their predictions."
    scores = [dot_bias(split, seed, **settings)[0] for seed in range(5)]
    return statistics.mean(map(split.rmse, scores)), split.rmse(sum(scores) / len(scores))


def tune(options, folder: Path) -> None:
    "On a tenth of the training ratings of split 0, twice. What split 0 has held out is not looked at."
    ratings = prepare.ratings_table()
    inner = ratings.iloc[RandomSplitter(0.2, seed=0)(ratings)[0]]
    splits = [Split(inner, seed, 0.1) for seed in range(2)]
    with ExitStack() as stack:
        helpers = rivals_of(stack, options, folder)
        lists = {"watching": watching}
        if helpers:
            lists["als"] = partial(theirs, helper=helpers["implicit"], folder=folder)
        measures = {"ratings": of_one_and_of_five} | {
            name: lambda split, method=method, **settings: split.ranking(
                method(split, **settings)[0]
            )
            for name, method in lists.items()
        }
        for name in measures if options.tune == "all" else measures.keys() & {options.tune}:
            for settings in TRIED[name]:
                found = [measures[name](split, **settings) for split in splits]
                means = (f"{statistics.mean(each):.4f}" for each in zip(*found, strict=True))
                print(f"  {name}:", *means, settings, flush=True)


# ---------------------------------------------------------------- scale
def asked_once(name: str, folder: Path, **order) -> dict:
    "What a process of its own says to one order."
    script = str(BENCH / "collab_sides.py")
    with Helper(sys.executable, script, name, folder) as helper:
        return helper.ask(**order)


def scale(options, folder: Path) -> Iterator[dict]:
    "A row for each run: an epoch with sparse gradients, some steps of the others."
    n = asked_once("make many", folder, **SCALE)["ratings"]
    for sparse, bs, steps in SCALE_RUNS:
        order = {"sparse": sparse, "bs": bs, "steps": steps} | SCALE_SETTINGS[bs]
        found = asked_once("train many", folder, **order)
        if steps is None:
            yield {"method": "mean of all", "mse": found["variance"]}
            yield {"method": "user and item bias", "mse": found["mse of biases"]}
            took, memory = found["loaders seconds"], found["loaders GB"]
            loaders = {"seconds": took, "ratings/s": n / took, "peak GB": memory}
            yield {"method": f"from_df, {n:,} ratings"} | loaders
        kind = "sparse" if sparse else "dense"
        name = f"{kind}, {'an epoch' if steps is None else f'{steps} steps'}"
        yield {"method": name, "batch": bs} | found


# ---------------------------------------------------------------- what is kept
MAKERS = {"quality": quality, "race": race, "scale": scale}
ABOUT = {
    "quality": f"MovieLens 100k, random splits by seeds {SPLITS[0]} to {SPLITS[-1]}; rmse: mean, spread: standard"
    " deviation of the splits; recall and ndcg: of held-out ratings of at least 4, without what was rated in"
    " training; seconds: of the processor, to train, median of the splits; one thread for all; tuned: on a"
    " tenth of the training ratings of split 0, by --tune",
    "race": f"MovieLens 100k, {RACE}, a seed for each round; ratio: how many times as fast as fastai in the same"
    " round; distinct: share of the training ratings that come in an epoch",
    "scale": f"{SCALE}, drawn with seed 0; one thread; seconds and ratings/s: of the processor; peak GB: of the"
    " whole process, table and loaders included",
}


def shown(value) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 1000 else f"{value:.2f}" if value >= 20 else f"{value:.4f}"


def save(table: str, rows: list[dict]) -> None:
    "Put these rows, and where they come from, in the place of the table's old ones."
    lines, where = KEPT.read_text(encoding="utf-8").splitlines(), versions().rpartition(";")[0]
    made = f"python bench/collab.py --save --only {table}; {where}; {os.cpu_count()} cores"
    notes = {name: [x for x in lines if x.startswith(f"# {name}: ")] for name in MAKERS}
    notes[table] = [f"# {table}: {each}" for each in (made, ABOUT[table])]
    kept = pd.read_csv(KEPT, comment="#", dtype=str, keep_default_na=False)
    parts = {name: kept[kept.table == name] for name in MAKERS}
    told = [{"table": table} | {name: shown(value) for name, value in row.items()} for row in rows]
    parts[table] = pd.DataFrame(told).reindex(columns=COLUMNS)
    text = pd.concat(parts.values()).to_csv(index=False, lineterminator="\n")
    KEPT.write_text("\n".join([*itertools.chain(*notes.values()), text]), encoding="utf-8")


def make(table: str, options, folder: Path) -> None:
    "Print a table row by row, and keep it if asked."
    rows = []
    print(table)
    for row in MAKERS[table](options, folder):
        rows.append(row)
        print("  " + ", ".join(f"{name} {shown(value)}" for name, value in row.items()), flush=True)
    if options.save:
        save(table, rows)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    python = os.environ.get("COURSEKIT_FASTAI")
    words = "a Python that has fastai 2, scikit-surprise and implicit"
    parser.add_argument("--fastai", default=python, help=words)
    parser.add_argument("--rounds", type=int, default=5, help="of the race, a seed each (5)")
    parser.add_argument("--only", choices=MAKERS, help="one table")
    parser.add_argument("--save", action="store_true", help=f"write {KEPT.name}")
    parser.add_argument("--tune", nargs="?", const="all", choices=["all", *TRIED])
    options = parser.parse_args()
    if not options.fastai and options.save and options.only != "scale":
        parser.error("--save keeps the rows of others too: give --fastai, or --only scale")
    return options


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.tune:
            return tune(options, Path(folder))
        for table in [options.only] if options.only else MAKERS:
            make(table, options, Path(folder))
    print(f"{os.cpu_count()} cores, {os.getloadavg()[0]:.1f} processes in the last minute")


if __name__ == "__main__":
    sys.exit(main())
