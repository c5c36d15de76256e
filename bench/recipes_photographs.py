"""Recipes on photographs of 96 pixels, where small ones cost half; kept in recipes_photographs.csv.

    nice python bench/recipes_photographs.py
    python bench/recipes_photographs.py --table          # what was found, with intervals

A small net from scratch, on the processor: 122 photographs in the public domain. Every way has the same time and one
schedule. The rates are tried for each way alike; the lesson takes for each split the rate that was best on the other
splits. A seed is a split too, the same for all ways. A row is written as soon as its training is over; the same command
again goes on where it was stopped.
"""

from functools import cache
from itertools import product

import pandas as pd
import torch
import torch.nn.functional as F
from kept import Kept, loaders, main, seconds_of, show_ways
from pictures import photos
from recipes import Short
from torch.utils.data import TensorDataset

import coursekit.training  # noqa: F401, learners get fit_one_cycle from it
from coursekit.augment import aug_transforms
from coursekit.convolutions import simple_cnn
from coursekit.data import EndSplitter
from coursekit.events import Callback
from coursekit.learner import Learner
from coursekit.loaders import DataLoaders
from coursekit.losses import CrossEntropyLossFlat
from coursekit.measures import accuracy
from coursekit.normalize import Normalize
from coursekit.recipes import CutMix, MixUp

OPENED, SIZE, SMALL = 128, 96, 48
COST_OF_SMALL = 0.52  # an epoch of small pictures, in epochs of full size, measured
RATES, BATCH = (3e-3, 1e-2), 16
TRAINED_ON, EPOCHS, SPLITS = 82, 16, 4
WAYS = ("plain", "mixup", "cutmix", "progressive", "small")
COLUMNS = [
    *("set", "way", "rate", "seed", "steps", "cross_entropy", "accuracy"),
    *("tta_accuracy", "confidence", "cpu_seconds"),
]
KEPT = Kept(__file__, COLUMNS)


@cache
def photographs() -> tuple[torch.Tensor, torch.Tensor]:
    "Pictures as bytes and their classes; every picture is opened once."
    return photos(OPENED, splitter=EndSplitter(0.01), tfms=[])


def loaders_of(seed: int, size: int) -> DataLoaders:
    x, y = photographs()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    halves = order[:TRAINED_ON], order[TRAINED_ON:]
    seen = x[halves[0]].float()
    stats = Normalize.from_stats(*(each((0, 2, 3)) / 255 for each in (seen.mean, seen.std)))
    tfms = [*aug_transforms(size=size, min_scale=0.75), stats]
    return loaders(*(TensorDataset(x[rows], y[rows]) for rows in halves), BATCH, after_batch=tfms)


class Grow(Callback):
    "Go on with other loaders from an epoch on, under the same schedule."

    def __init__(self, dls: DataLoaders, epoch: int):
        self.dls, self.at = dls, epoch

    def before_epoch(self):
        if self.learn.epoch == self.at:
            self.learn.dls = self.dls


def plan(way: str) -> tuple[int, int]:
    "Epochs with small pictures and with large ones, for the time of `EPOCHS` with large ones."
    small = {"progressive": EPOCHS / 2, "small": EPOCHS}.get(way, 0)
    return round(small / COST_OF_SMALL), EPOCHS - round(small)


def trained(name: str, way: str, rate: float, seed: int) -> list:
    small, large = plan(way)
    full, half = (loaders_of(seed, size) for size in (SIZE, SMALL))
    torch.manual_seed(seed)
    model = simple_cnn((3, 16, 32, 64, 128), bn=True, n_out=4)
    model = model.to(memory_format=torch.channels_last)
    more = {"mixup": [MixUp()], "cutmix": [CutMix()], "progressive": [Grow(full, small)]}
    options = {"cbs": [Short(), *more.get(way, [])], "metrics": accuracy}
    learn = Learner(half if small else full, model, CrossEntropyLossFlat(), **options)
    seconds = seconds_of(learn, lambda learn: learn.fit_one_cycle(small + large, rate))
    scores, targets = learn.get_preds(act=lambda scores: scores)
    steps = len(learn.dls.train) * (small + large)
    found = [F.cross_entropy(scores, targets), accuracy(scores, targets)]
    found += [accuracy(*learn.tta()), scores.softmax(1).amax(1).mean()]
    return [steps, *map(float, found), seconds]


def run() -> None:
    keys = product(range(SPLITS), RATES, WAYS)
    KEPT.fill((("photographs", way, rate, seed) for seed, rate, way in keys), trained)


def show(table: pd.DataFrame) -> None:
    show_ways(table, ["set", "rate"], "seed", COLUMNS[5:])


ABOUT = (
    "",
    f"simple_cnn((3, 16, 32, 64, 128)) from scratch, {SIZE} px, small {SMALL} px, an epoch at {SMALL} counted as"
    f" {COST_OF_SMALL}; batches of {BATCH}; {TRAINED_ON} trained on, {EPOCHS} epochs, {SPLITS} splits",
)
if __name__ == "__main__":
    main(__doc__, KEPT, ABOUT, run, show=show)
