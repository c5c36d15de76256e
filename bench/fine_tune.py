"""Batch norm of a pretrained body in `fine_tune`: averages kept, or counted anew.

    nice python bench/fine_tune.py              # every task; or --only bears
    python bench/fine_tune.py --table           # means, spreads, paired differences

EfficientNet-Lite0, five folds, so that every picture is tested once; the ways begin with
the same head and see the same batches, and all else is what `vision_learner` and
`fine_tune` do by themselves. A row of bench/fine_tune.csv is written as soon as its
training is over; the same command again goes on where it was stopped. Without
COURSEKIT_MIRROR, or a folder of one's own in its place, the bears and the scenes are left
out. No picture leaves this script.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from kept import Kept, in_words, versions
from torch.utils.data import TensorDataset

from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.bodies import efficientnet_lite0
from coursekit.data import ColReader, IndexSplitter, get_image_files, parent_label
from coursekit.datasets import URLs, untar_data
from coursekit.drawn_bears import draw_bears
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from coursekit.measures import accuracy, accuracy_multi
from coursekit.messages import DataError
from coursekit.multilabel import MultiCategoryBlock, average_precision
from coursekit.resizing import Resize
from coursekit.targets import PointBlock
from coursekit.vision import vision_learner

FOLDS, DRAWN_SIZE = 5, 192
WAYS = {
    "keep": {"bn_eval": True},
    "anew": {"bn_eval": False},  # frozen, the body stands still; unfrozen, it counts
    "fastai": {"bn_eval": False, "train_bn": True},  # it counts and learns, frozen too
}
COLUMNS = ["task", "batch", "way", "fold", "loss", "metric", "other", "cpu_seconds"]
KEPT = Kept(__file__, COLUMNS)


# -------------------------------------------------- pictures, each opened once
def of_folder(source: Path, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return opened(sorted(get_image_files(source)), CategoryBlock, size, get_y=parent_label)


def photos(size: int) -> tuple:
    return of_folder(untar_data(URLs.PHOTOS), size)


def bears(size: int) -> tuple:
    return of_folder(untar_data(URLs.BEARS), size)


def scenes(size: int) -> tuple:
    import pandas as pd

    source = untar_data(URLs.SCENES)
    table = pd.read_csv(source / "labels.csv").sample(400, random_state=0)
    readers = {
        "get_x": ColReader("fname", pref=source / "images"),
        "get_y": ColReader("labels", label_delim=" "),
    }
    return opened(table, MultiCategoryBlock, size, **readers)


def points(size: int) -> tuple:
    "The middle of the box around each of 400 drawn bears."
    import pandas as pd

    source = draw_bears(n=400, size=DRAWN_SIZE, seed=5)
    table = pd.read_csv(source / "attributes.csv")

    def middle(row):
        return [[(row["left"] + row["right"]) / 2, (row["top"] + row["bottom"]) / 2]]

    readers = {"get_x": ColReader("file", pref=source), "get_y": middle}
    return opened(table, PointBlock, size, **readers)


def opened(items, block, size: int, **readers) -> tuple[torch.Tensor, torch.Tensor]:
    parts, splitter = (ImageBlock, block), IndexSplitter([0])  # all but one see every label
    template = DataBlock(parts, splitter=splitter, item_tfms=Resize(size), **readers)
    dls = template.dataloaders(items, bs=len(items), num_workers=0, device="cpu")
    options = {"shuffle": False, "drop_last": False}
    both = [dl.new(**options).one_batch() for dl in dls.loaders]
    return tuple(map(torch.cat, zip(*both, strict=True)))


def distance(pred, target):
    "In pixels of the drawn picture, which is 2 wide."
    return (pred.view_as(target) - target).norm(dim=-1).mean() * DRAWN_SIZE / 2


@dataclass
class Task:
    "Pictures and targets, what is measured, and how long it trains."

    read: object
    size: int
    epochs: int
    loss: type
    metrics: tuple
    batches: tuple = (8, 16, 32, 64)
    head: dict | None = None

    def learner(self, x, y, fold: int, batch: int, **way):
        torch.manual_seed(fold)
        dls, n_out = loaders(x, y, fold, batch), self.outputs(y)
        options = {"loss_func": self.loss(), "metrics": self.metrics, "n_out": n_out}
        options |= way | (self.head or {})
        return vision_learner(dls, efficientnet_lite0, **options)

    def outputs(self, y) -> int:
        return int(y.max()) + 1 if y.ndim == 1 else y[0].numel()


LABELS = (accuracy_multi, average_precision)
TASKS = {
    "photos": Task(photos, 128, 4, CrossEntropyLossFlat, (accuracy,)),
    "bears": Task(bears, 128, 2, CrossEntropyLossFlat, (accuracy,)),
    "scenes": Task(scenes, 96, 3, BCEWithLogitsLossFlat, LABELS, (16, 64)),
    "points": Task(points, 96, 3, MSELossFlat, (distance,), (16, 64), {"y_range": (-1, 1)}),
}


# ---------------------------------------------------------------- training
def loaders(x, y, fold: int, batch: int) -> DataLoaders:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    test = torch.arange(len(x)) % FOLDS == fold
    train, valid = (TensorDataset(x[order[part]], y[order[part]]) for part in (~test, test))
    return DataLoaders(
        DataLoader(train, bs=batch, shuffle=True, drop_last=True, device="cpu"),
        DataLoader(valid, bs=64, device="cpu"),
    )


def trained(task: Task, data: tuple, fold: int, batch: int, way: str) -> list[float]:
    learn = task.learner(*data, fold, batch, **WAYS[way])
    begin = time.process_time()
    torch.manual_seed(fold)
    with learn.no_logging():
        learn.fine_tune(task.epochs)
    seconds = time.process_time() - begin
    loss, metric, *more = learn.validate()
    return [loss, metric, *(more or [""]), seconds]


def row_of(key: tuple, found: list) -> list[str]:
    *values, seconds = found
    told = ["" if value == "" else f"{value:.4f}" for value in values]
    return [*key, *told, f"{seconds:.1f}"]


def run(name: str, batches: tuple) -> None:
    task = TASKS[name]
    try:
        data = task.read(task.size)
    except DataError as error:
        return print(f"{name} is left out: {error}")
    done = KEPT.done(4)
    for fold, batch, way in product(range(FOLDS), batches, WAYS):
        key = (name, str(batch), way, str(fold))
        if key in done or (way == "fastai" and batch not in (16, 64)):
            continue
        KEPT.add(*row_of(key, trained(task, data, fold, batch, way)))


# ---------------------------------------------------------------- what was found
def table() -> None:
    found = {}
    for task, batch, way, _, *values in KEPT.rows():
        key = (task, int(batch))
        kept = found.setdefault(key, {}).setdefault(way, [])
        kept.append([float(value or "nan") for value in values])
    for (task, batch), ways in sorted(found.items()):
        for column, name in enumerate(COLUMNS[4:]):
            ours = {way: np.array(runs)[:, column] for way, runs in ways.items()}
            n = min(map(len, ours.values()))  # a run that was stopped has fewer of some
            ours = {way: x[:n] for way, x in ours.items()}
            if n < 2 or np.isnan(ours["keep"]).any():
                continue
            keep = ours["keep"]
            parts = [f"{w} {x.mean():.3f} sd {x.std(ddof=1):.3f}" for w, x in ours.items()]
            gaps = [f"keep - {way} {in_words(keep - ours[way])}" for way in list(ours)[1:]]
            print(f"{task:7} {batch:3} {name:12}", *parts, *gaps, sep="; ")


def header() -> list[str]:
    tasks = [f"{name} {t.size} px, fine_tune({t.epochs})" for name, t in TASKS.items()]
    return [
        f"python bench/fine_tune.py; {versions()}; {FOLDS} folds",
        f"{'; '.join(tasks)}; metric: accuracy, for scenes accuracy_multi with mAP as"
        f" other, for points the mean distance in pixels of {DRAWN_SIZE}; loss: held out",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=TASKS, help="one task")
    parser.add_argument("--batch", type=int, nargs="*", default=(), help="batch sizes")
    parser.add_argument("--table", action="store_true", help="show what was found")
    asked = parser.parse_args()
    if asked.table:
        return table()
    torch.set_num_threads(1)
    KEPT.begin(*header())
    for name in [asked.only] if asked.only else TASKS:
        run(name, tuple(asked.batch) or TASKS[name].batches)


if __name__ == "__main__":
    sys.exit(main())
