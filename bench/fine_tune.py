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

from dataclasses import dataclass
from itertools import product

import pandas as pd
import torch
from kept import Kept, loaders, main, seconds_of, show_ways
from pictures import of_folder, opened, photos
from torch.utils.data import TensorDataset

from coursekit.bodies import efficientnet_lite0
from coursekit.data import ColReader
from coursekit.datasets import URLs, untar_data
from coursekit.drawn_bears import draw_bears
from coursekit.loaders import DataLoaders
from coursekit.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from coursekit.measures import accuracy, accuracy_multi
from coursekit.messages import DataError
from coursekit.multilabel import MultiCategoryBlock, average_precision
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


# ---------------------------------------------------------------- pictures
def bears(size: int) -> tuple:
    return of_folder(URLs.BEARS, size)


def scenes(size: int) -> tuple:
    source = untar_data(URLs.SCENES)
    table = pd.read_csv(source / "labels.csv").sample(400, random_state=0)
    readers = {
        "get_x": ColReader("fname", pref=source / "images"),
        "get_y": ColReader("labels", label_delim=" "),
    }
    return opened(table, MultiCategoryBlock, size, **readers)


def drawn(size: int, block, get_y) -> tuple:
    "400 drawn bears, with what `get_y` reads from their table."
    source = draw_bears(n=400, size=DRAWN_SIZE, seed=5)
    table = pd.read_csv(source / "attributes.csv")
    table["width"] = table["right"] - table["left"]
    return opened(table, block, size, get_x=ColReader("file", pref=source), get_y=get_y)


def points(size: int) -> tuple:
    "The middle of the box around each of 400 drawn bears."

    def middle(row):
        return [[(row["left"] + row["right"]) / 2, (row["top"] + row["bottom"]) / 2]]

    return drawn(size, PointBlock, middle)


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

    def data(self, name: str) -> tuple | None:
        "Pictures and targets; none where they cannot be had, with a word about it."
        try:
            return self.read(self.size)
        except DataError as error:
            print(f"{name} are left out: {error}")

    def learner(self, x, y, fold: int, batch: int, **way):
        torch.manual_seed(fold)
        dls, n_out = loaders_of(x, y, fold, batch), self.outputs(y)
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
def loaders_of(x, y, fold: int, batch: int) -> DataLoaders:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    test = torch.arange(len(x)) % FOLDS == fold
    halves = (TensorDataset(x[order[part]], y[order[part]]) for part in (~test, test))
    return loaders(*halves, batch)


def trained(task: Task, data: tuple, batch: int, way: str, fold: int) -> list:
    learn = task.learner(*data, fold, batch, **WAYS[way])
    torch.manual_seed(fold)
    seconds = seconds_of(learn, lambda learn: learn.fine_tune(task.epochs))
    loss, metric, *more = learn.validate()
    return [loss, metric, *(more or [""]), seconds]


def run(name: str) -> None:
    task, data = TASKS[name], TASKS[name].data(name)
    keys = (
        (name, batch, way, fold)
        for fold, batch, way in product(range(FOLDS), task.batches, WAYS)
        if data and (way != "fastai" or batch in (16, 64))
    )
    KEPT.fill(keys, lambda name, *key: trained(task, data, *key))


def show(table: pd.DataFrame) -> None:
    show_ways(table, ["task", "batch"], "fold", ["loss", "metric"])


SAID = "; ".join(f"{name} {t.size} px, fine_tune({t.epochs})" for name, t in TASKS.items())
ABOUT = (
    f"{FOLDS} folds",
    f"{SAID}; metric: accuracy, for scenes accuracy_multi with mAP as other, for points the"
    f" mean distance in pixels of {DRAWN_SIZE}; loss: held out",
)
if __name__ == "__main__":
    main(__doc__, KEPT, ABOUT, run, TASKS, show)
