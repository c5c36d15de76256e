"""What each part of the model of ratings is worth, each way with settings of its own.

    nice python bench/collab_parts.py           # or --only nets
    python bench/collab_parts.py --table        # means, spreads, paired differences

MovieLens 100k, batches of 512. Every way looks for its settings by the same search: first
the pull, which is rate x decay x epochs, then the rate, then the epochs; each is doubled
and halved for as long as that gains 0.0005. (Nets and biases keep the epochs, and other
ends of the range take what was found for 0 to 5.5.) The search sees the training ratings
of split 0 alone, a tenth of them held out. Then each way is trained on five random splits
and judged on the fifth that is held out there. A row of bench/collab_parts.csv is written
as soon as its training is over; the same command again goes on where it was stopped.
"""

from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pandas as pd
import torch
from kept import Kept, main, show_ways
from prepare import ratings_table
from torch import nn

import coursekit.training  # noqa: F401, learners get fit_one_cycle from it
from coursekit.bodies import sigmoid_range
from coursekit.collab import Embedding, Module, collab_learner
from coursekit.data import RandomSplitter
from coursekit.learner import Learner
from coursekit.measures import rmse
from coursekit.ratings import CollabDataLoaders

SPLITS, BATCH, GAIN = range(5), 512, 5e-4
COLUMNS = ["stage", "group", "way", "split", "lr", "wd", "epochs", "factors", "steps", "rmse"]
KEPT = Kept(__file__, COLUMNS)


# ---------------------------------------------------------------- models
class Product(Module):
    "The dot product of lesson 10; a score of 0 stands for `start` stars, if that is given."

    def __init__(self, sizes, factors, y_range=None, start=None, bias=False):
        self.tables = nn.ModuleList(Embedding(n, factors) for n in sizes)
        self.biases = nn.ModuleList(Embedding(n, 1) for n in sizes) if bias else None
        self.y_range, self.zero = y_range, 0.0
        if start is not None:
            low, high = y_range or (0, 0)
            self.zero = np.log((start - low) / (high - start)) if y_range else start

    def forward(self, x):
        users, films = (table(x[:, i]) for i, table in enumerate(self.tables))
        scores = (users * films).sum(1) + self.zero
        if self.biases is not None:
            scores = scores + sum(bias(x[:, i])[:, 0] for i, bias in enumerate(self.biases))
        return scores if self.y_range is None else sigmoid_range(scores, *self.y_range)


class SideBySide(Module):
    "The small net of lesson 10."

    def __init__(self, sizes, factors):
        widths = (74, 101) if factors is None else (factors, factors)
        pairs = zip(sizes, widths, strict=True)
        self.tables = nn.ModuleList(Embedding(n, width) for n, width in pairs)
        first = nn.Linear(sum(widths), 100)
        self.layers = nn.Sequential(first, nn.ReLU(), nn.Linear(100, 1))

    def forward(self, x):
        both = torch.cat([table(x[:, i]) for i, table in enumerate(self.tables)], 1)
        return sigmoid_range(self.layers(both)[:, 0], 0, 5.5)


# ---------------------------------------------------------------- ways and their settings
@dataclass(frozen=True)
class Settings:
    "Of a training; the pull is in units of a rate of .01 for 5 epochs, so it is their decay."

    pull: float = 0.2
    lr: float = 1e-2
    epochs: int = 5
    factors: int | None = 50

    @property
    def wd(self) -> float:
        return self.pull * 0.05 / (self.lr * self.epochs)


def product(**how):
    def make(dls, factors):
        mean = dls.train_ds.tensors[1].mean().item() if how.get("start") else None
        return Product(sizes_of(dls), factors, **how | {"start": mean})

    return make


def by_hand(dls, factors):
    return SideBySide(sizes_of(dls), factors)


def of_library(dls, factors):
    return collab_learner(dls, use_nn=True, y_range=(0, 5.5)).model


FULL, SHORT = ("pull", "lr", "epochs"), ("pull", "lr")
BIAS = product(y_range=(0, 5.5), bias=True)
FOUND = Settings(0.4)  # what the search finds for 0 to 5.5, and a good start for others
WAYS = {  # group -> way -> model, first settings, what is searched
    "bias": {"bias, 0 to 5.5": (BIAS, FOUND, SHORT)},
    "nets": {
        "net by hand": (by_hand, replace(FOUND, factors=None), SHORT),
        "the library's net": (of_library, replace(FOUND, factors=None), SHORT),
    },
    "limits": {
        "no limits": (product(), Settings(), FULL),
        "no limits, mean added": (product(start=True), Settings(), FULL),
        "0 to 5.5": (product(y_range=(0, 5.5)), Settings(), FULL),
    },
    "ends": {
        "0 to 5": (product(y_range=(0, 5)), FOUND, ()),
        "-0.5 to 5.5": (product(y_range=(-0.5, 5.5)), FOUND, ()),
        "1 to 5": (product(y_range=(1, 5)), FOUND, ()),
        "0 to 6": (product(y_range=(0, 6)), FOUND, ()),
    },
}


def sizes_of(dls) -> list[int]:
    return [len(ids) for ids in dls.classes.values()]


# ---------------------------------------------------------------- training
def loaders(table: pd.DataFrame, seed: int, share: float = 0.2) -> CollabDataLoaders:
    return CollabDataLoaders.from_df(table, share, seed=seed, bs=BATCH, device="cpu")


def trained(dls, make, settings: Settings, seed: int) -> tuple[int, float]:
    torch.manual_seed(seed)
    learn = Learner(dls, make(dls, settings.factors), nn.MSELoss(), metrics=rmse)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(settings.epochs, settings.lr, wd=settings.wd)
    return settings.epochs * len(dls.train), float(learn.recorder.final_record[-1])


def search(score, settings: Settings, names: tuple) -> Settings:
    "One name after the other, doubled and halved while that gains enough."
    best = score(settings)
    for name in names:
        for times in (2, 0.5):
            while True:
                value = getattr(settings, name) * times
                candidate = replace(settings, **{name: type(getattr(settings, name))(value)})
                if not 1 <= candidate.epochs <= 20 or (found := score(candidate)) > best - GAIN:
                    break
                settings, best = candidate, found
    return settings


def key_of(stage: str, group: str, way: str, split: int, s: Settings) -> tuple[str, ...]:
    settings = f"{s.lr:g}", f"{s.wd:.4g}", str(s.epochs), str(s.factors)
    return (stage, group, way, str(split), *settings)


@cache
def parts() -> tuple[CollabDataLoaders, list[CollabDataLoaders]]:
    "A tenth of the training ratings of split 0 held out; and the splits."
    table = ratings_table()
    inner = loaders(table.iloc[RandomSplitter(0.2, seed=0)(table)[0]], 0, 0.1)
    return inner, [loaders(table, split) for split in SPLITS]


def run(group: str) -> None:
    inner, outer = parts()
    done = {tuple(row[:8]): float(row[9]) for row in KEPT.rows()}

    def kept(stage, way, make, dls, split, settings) -> float:
        key = key_of(stage, group, way, split, settings)
        if key not in done:
            steps, done[key] = trained(dls, make, settings, split)
            KEPT.add(*key, steps, f"{done[key]:.5f}")
        return done[key]

    for way, (make, start, names) in WAYS[group].items():
        chosen = search(partial(kept, "choice", way, make, inner, 0), start, names)
        for split in SPLITS:
            kept("result", way, make, outer[split], split, chosen)


def show(table: pd.DataFrame) -> None:
    found = table.query("stage == 'result'")
    print(found.groupby("way", sort=False)[["lr", "wd", "epochs", "factors", "steps"]].first())
    show_ways(found, ["stage"], "split", ["rmse"])


ABOUT = (
    f"splits {SPLITS[0]} to {SPLITS[-1]}",
    f"MovieLens 100k, batches of {BATCH}; choice: a tenth of the training ratings of split 0,"
    " looked at to choose the settings; result: the fifth that is held out of each split",
)
if __name__ == "__main__":
    main(__doc__, KEPT, ABOUT, run, WAYS, show)
