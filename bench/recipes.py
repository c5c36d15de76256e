"""Mixup, label smoothing and progressive resizing, alone and together, over seeds; kept in bench/recipes.csv.

    nice python bench/recipes.py

Every training has the time of `FEW` or `MANY` epochs at full size, on one thread. A row is written as soon as its
training is over; the same command again goes on where it was stopped. Seed by seed, so that what is there at any time
is a whole table of fewer seeds.
"""

from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from kept import Kept, loaders, main, seconds_of
from pictures import halves
from torch import nn
from torch.utils.data import TensorDataset

import coursekit.training  # noqa: F401, learners get fit_one_cycle from it
from coursekit.augment import BatchTransform, aug_transforms
from coursekit.data import EndSplitter, get_image_files, parent_label
from coursekit.drawn_bears import draw_bears
from coursekit.events import Callback, CancelValidException
from coursekit.learner import Learner
from coursekit.loaders import DataLoaders
from coursekit.losses import CrossEntropyLossFlat
from coursekit.measures import accuracy
from coursekit.normalize import Normalize, imagenet_stats
from coursekit.recipes import LabelSmoothingCrossEntropyFlat, MixUp, xresnet18

PICTURES, TRAINED_ON, DRAWN_SIZE, DRAWN_SEED = 1200, 400, 64, 8
SIZE, SMALL, COST_OF_SMALL = 40, 20, 0.85  # an epoch of small pictures, in epochs of full size
FEW, MANY, RATE, BATCH = 4, 20, 6e-3, 32
SEEDS = (0, 1, 2)
OPTIONS = list(product((0, 1), repeat=3))  # mixup, smoothing, progressive
PLAIN, OTHERS = OPTIONS[0], ("no Normalize", "no zero-init", "one 7x7 stem", "no augmentation")
COLUMNS = [
    *("variant", "mixup", "smoothing", "progressive", "budget", "seed"),
    *("first_train_loss", "last_train_loss", "cross_entropy", "accuracy", "tta_accuracy"),
    *("largest_score", "confidence", "cpu_seconds"),
]
KEPT = Kept(__file__, COLUMNS)


@cache
def in_memory() -> list[TensorDataset]:
    "Pictures as bytes and their classes, for training and for validation; every picture is opened once."
    files = get_image_files(draw_bears(n=PICTURES, size=DRAWN_SIZE, seed=DRAWN_SEED))
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()
    how = {"splitter": EndSplitter(1 - TRAINED_ON / PICTURES), "get_y": parent_label}
    return [TensorDataset(*half) for half in halves([files[i] for i in order], tfms=[], **how)]


def loaders_of(size: int, variant: str = "xresnet18") -> DataLoaders:
    change = aug_transforms(size=size, min_scale=0.75)
    tfms = [BatchTransform(size=size)] if variant == "no augmentation" else change
    if variant != "no Normalize":
        tfms = [*tfms, Normalize.from_stats(*imagenet_stats)]
    return loaders(*in_memory(), BATCH, 200, after_batch=tfms)


def network(variant: str) -> nn.Module:
    model = xresnet18(n_out=3, widen=0.25, stem_szs=(8, 8, 16))
    if variant == "no zero-init":
        for block in model.modules():
            if hasattr(block, "convpath"):
                nn.init.ones_(block.convpath[-1][1].weight)
    if variant == "one 7x7 stem":
        stem = nn.Conv2d(3, 16, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(stem.weight)
        model = nn.Sequential(stem, nn.BatchNorm2d(16), nn.ReLU(), *model[3:])
    return model.to(memory_format=torch.channels_last)


class Short(Callback):
    "Pictures in the order of memory that convolutions like, and no validation before the last epoch."

    order = 20

    def before_batch(self):
        self.learn.xb = (self.learn.x.contiguous(memory_format=torch.channels_last),)

    def before_validate(self):
        if self.learn.epoch < self.learn.n_epoch - 1:
            raise CancelValidException


def phases(epochs: int, progressive: int) -> list[tuple[int, int, float]]:
    "Size, epochs and rate of each phase, for the time of `epochs` at full size."
    if not progressive:
        return [(SIZE, epochs, RATE)]
    return [(SMALL, round(epochs / 2 / COST_OF_SMALL), RATE), (SIZE, epochs // 2, RATE / 2)]


def trained(variant, mixup, smoothing, progressive, budget, seed) -> list:
    torch.manual_seed(seed)
    loss = LabelSmoothingCrossEntropyFlat() if smoothing else CrossEntropyLossFlat()
    epochs = {"few": FEW, "many": MANY}[budget]
    cbs, steps = [Short(), *([MixUp()] if mixup else [])], phases(epochs, progressive)
    learn = Learner(
        loaders_of(steps[0][0], variant), network(variant), loss, cbs=cbs, metrics=accuracy
    )
    seconds, losses = 0.0, []
    for size, n, rate in steps:
        learn.dls = loaders_of(size, variant)
        seconds += seconds_of(learn, lambda learn, n=n, rate=rate: learn.fit_one_cycle(n, rate))
        losses += [float(row[0]) for row in learn.recorder.values]
    scores, targets = learn.get_preds(act=lambda scores: scores)
    found = [F.cross_entropy(scores, targets), accuracy(scores, targets)]
    found.append(accuracy(*learn.tta()) if variant != "no augmentation" else found[-1])
    sure = [scores.amax(1).mean(), scores.softmax(1).amax(1).mean()]
    return [losses[0], losses[-1], *map(float, found), *map(float, sure), seconds]


def keys():
    "Of each training: variant, options, budget, seed."
    for seed in SEEDS:
        for budget, options in product(("few", "many"), OPTIONS):
            yield "xresnet18", *options, budget, seed
    for seed, variant in product(SEEDS, OTHERS):
        yield variant, *PLAIN, "many", seed
    for seed, options in product(SEEDS, ((1, 0, 0), (0, 1, 0))):
        yield "no augmentation", *options, "many", seed


ABOUT = (
    f"seeds {', '.join(map(str, SEEDS))}",
    f"draw_bears(n={PICTURES}, size={DRAWN_SIZE}, seed={DRAWN_SEED}); the first {TRAINED_ON} in a random order"
    f" (seed 0) are trained on; {SIZE} px, progressive {SMALL} then {SIZE} px, an epoch at {SMALL} counted as"
    f" {COST_OF_SMALL}; few = {FEW} epochs, many = {MANY};"
    f" rate {RATE}; batches of {BATCH}; xresnet18(widen=0.25, stem_szs=(8, 8, 16))",
)
if __name__ == "__main__":
    main(__doc__, KEPT, ABOUT, lambda: KEPT.fill(keys(), trained))
