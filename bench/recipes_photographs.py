"""Recipes on photographs of 96 pixels, where small ones cost half; kept in recipes_photographs.csv.

    nice python bench/recipes_photographs.py             # or --only photographs
    python bench/recipes_photographs.py --table          # what was found, with intervals

A small net from scratch, on the processor: 122 photographs in the public domain and, with COURSEKIT_MIRROR, landscapes
with one label each. Every way has the same time and one schedule. The rates are tried for each way alike; the lesson
takes for each split the rate that was best on the other splits. A seed is a split too, the same for all ways. A row is
written as soon as its training is over; the same command again goes on where it was stopped.
"""

import argparse
import sys
import time
from itertools import product

import pandas as pd
import torch
import torch.nn.functional as F
from kept import Kept, versions
from recipes import Short
from torch.utils.data import TensorDataset

import coursekit.training  # noqa: F401, learners get fit_one_cycle from it
from coursekit.augment import aug_transforms
from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.convolutions import simple_cnn
from coursekit.data import ColReader, EndSplitter, get_image_files, parent_label
from coursekit.datasets import URLs, untar_data
from coursekit.events import Callback
from coursekit.learner import Learner
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.losses import CrossEntropyLossFlat
from coursekit.measures import accuracy
from coursekit.messages import DataError
from coursekit.normalize import Normalize
from coursekit.recipes import CutMix, MixUp
from coursekit.resizing import Resize

OPENED, SIZE, SMALL = 128, 96, 48
COST_OF_SMALL = 0.52  # an epoch of small pictures, in epochs of full size, measured
RATES, BATCH = (3e-3, 1e-2), 16
SETS = {"photographs": (82, 16, 4), "landscapes": (300, 12, 4)}  # trained on, epochs, splits
WAYS = ("plain", "mixup", "cutmix", "progressive", "small")
COLUMNS = [
    *("set", "way", "rate", "seed", "steps", "cross_entropy", "accuracy"),
    *("tta_accuracy", "confidence", "cpu_seconds"),
]
KEPT = Kept(__file__, COLUMNS)


def photographs() -> tuple[torch.Tensor, torch.Tensor]:
    "Pictures as bytes and their classes; every picture is opened once."
    return opened(get_image_files(untar_data(URLs.PHOTOS)), get_y=parent_label)


def landscapes() -> tuple[torch.Tensor, torch.Tensor]:
    source = untar_data(URLs.SCENES)
    table = pd.read_csv(source / "labels.csv")
    table = table[~table.labels.str.contains(" ")].reset_index(drop=True)
    return opened(
        table, get_x=ColReader("fname", pref=source / "images"), get_y=ColReader("labels")
    )


def opened(items, **readers) -> tuple[torch.Tensor, torch.Tensor]:
    blocks, tfms = (ImageBlock, CategoryBlock), Resize(OPENED)
    block = DataBlock(blocks, splitter=EndSplitter(0.01), item_tfms=tfms, **readers)
    dls = block.dataloaders(items, bs=64, num_workers=0, device="cpu")
    parts = [
        batch
        for dl in dls.loaders
        for batch in dl.new(shuffle=False, drop_last=False, after_batch=[])
    ]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def loaders(x, y, n: int, seed: int, size: int) -> DataLoaders:
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    train, valid = (TensorDataset(x[rows], y[rows]) for rows in (order[:n], order[n:]))
    mean, std = (
        each((0, 2, 3)) / 255 for each in (x[order[:n]].float().mean, x[order[:n]].float().std)
    )
    tfms = [*aug_transforms(size=size, min_scale=0.75), Normalize.from_stats(mean, std)]
    options = {"after_batch": tfms, "device": "cpu"}
    return DataLoaders(
        DataLoader(train, bs=BATCH, shuffle=True, drop_last=True, **options),
        DataLoader(valid, bs=64, **options),
    )


class Grow(Callback):
    "Go on with other loaders from an epoch on, under the same schedule."

    def __init__(self, dls: DataLoaders, epoch: int):
        self.dls, self.at = dls, epoch

    def before_epoch(self):
        if self.learn.epoch == self.at:
            self.learn.dls = self.dls


def plan(way: str, epochs: int) -> tuple[int, int]:
    "Epochs with small pictures and with large ones, for the time of `epochs` with large ones."
    small = {"progressive": epochs / 2, "small": epochs}.get(way, 0)
    return round(small / COST_OF_SMALL), epochs - round(small)


def trained(x, y, n: int, epochs: int, way: str, rate: float, seed: int) -> list:
    small, large = plan(way, epochs)
    full, half = (loaders(x, y, n, seed, size) for size in (SIZE, SMALL))
    torch.manual_seed(seed)
    model = simple_cnn((3, 16, 32, 64, 128), bn=True, n_out=int(y.max()) + 1)
    model = model.to(memory_format=torch.channels_last)
    more = {"mixup": [MixUp()], "cutmix": [CutMix()], "progressive": [Grow(full, small)]}
    cbs = [Short(), *more.get(way, [])]
    learn = Learner(
        half if small else full, model, CrossEntropyLossFlat(), cbs=cbs, metrics=accuracy
    )
    begin = time.process_time()
    with learn.no_logging():
        learn.fit_one_cycle(small + large, rate)
    seconds = time.process_time() - begin
    scores, targets = learn.get_preds(act=lambda scores: scores)
    steps = len(learn.dls.train) * (small + large)
    found = [F.cross_entropy(scores, targets), accuracy(scores, targets)]
    found += [accuracy(*learn.tta()), scores.softmax(1).amax(1).mean()]
    return [steps, *(f"{float(value):.4f}" for value in found), f"{seconds:.1f}"]


def header() -> list[str]:
    return [
        f"python bench/recipes_photographs.py; {versions()}",
        f"simple_cnn((3, 16, 32, 64, 128)) from scratch, {SIZE} px, small {SMALL} px, an epoch at {SMALL} counted as"
        f" {COST_OF_SMALL}; batches of {BATCH}; trained on, epochs, splits: {SETS}",
    ]


def run(name: str) -> None:
    n, epochs, splits = SETS[name]
    try:
        x, y = {"photographs": photographs, "landscapes": landscapes}[name]()
    except DataError as error:
        return print(f"{name} are left out: {error}")
    done = KEPT.done(4)
    for seed, rate, way in product(range(splits), RATES, WAYS):
        key = (name, way, str(rate), str(seed))
        if key in done:
            continue
        KEPT.add(*key, *trained(x, y, n, epochs, way, rate, seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=SETS, help="one set")
    parser.add_argument("--table", action="store_true", help="show what was found")
    asked = parser.parse_args()
    if asked.table:
        table = KEPT.frame().groupby(["set", "rate", "way"])
        print(table[COLUMNS[4:]].mean().round(3).assign(sd=table.accuracy.std(), n=table.size()))
        return
    torch.set_num_threads(1)
    KEPT.begin(*header())
    for name in [asked.only] if asked.only else SETS:
        run(name)


if __name__ == "__main__":
    sys.exit(main())
