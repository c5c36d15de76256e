"""What lesson 07 says of 122 photographs and takes too long to show in it.

    nice python bench/photographs.py              # both tasks; or --only frozen
    python bench/photographs.py --table           # means, spreads, paired differences

`head`: the head alone on a frozen body, with the pictures, folds, steps and kind of head of
`photos` in bench/fine_tune.py with batches of 8, at three rates, so that the two can be set
beside each other. `frozen`: five photographs of each kind; norms that stand still in a
frozen body, against norms that learn and count, after 2, 5 and 10 epochs. A row of
bench/photographs.csv is written as soon as its training is over; the same command again
goes on where it was stopped.
"""

from functools import cache
from itertools import product

import pandas as pd
import torch
from fine_tune import FOLDS, loaders_of
from kept import Kept, main, others, seconds_of, show_ways, some_of_each
from pictures import features, photos
from torch import nn

from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.bodies import (
    AdaptiveConcatPool2d,
    create_body,
    create_head,
    efficientnet_lite0,
)
from coursekit.data import IndexSplitter, get_image_files, parent_label
from coursekit.datasets import URLs, untar_data
from coursekit.events import Callback, CancelValidException
from coursekit.heads import Baseline
from coursekit.learner import Learner
from coursekit.losses import CrossEntropyLossFlat
from coursekit.measures import accuracy
from coursekit.resizing import Resize
from coursekit.vision import vision_learner

COLUMNS = ["task", "way", "epochs", "lr", "fold", "loss", "metric", "cpu_seconds"]
KEPT = Kept(__file__, COLUMNS)
SIZE, PER_KIND, SEEDS = 64, 5, 3  # of frozen
RATES = (1e-3, 2e-3, 5e-3)  # of head


class AtTheEnd(Callback):
    "No validation while it learns: it takes time, and nothing is chosen by it."

    def before_validate(self) -> None:
        raise CancelValidException


def measured(learn: Learner, epochs: int, lr: float) -> list[float]:
    with learn.added_cbs(AtTheEnd()):
        seconds = seconds_of(learn, lambda learn: learn.fit_one_cycle(epochs, lr))
    return [*learn.validate(), seconds]


# ---------------------------------------------------------------- head alone
@cache
def seen() -> tuple[torch.Tensor, torch.Tensor]:
    "What the body makes of the photographs, once."
    x, y = photos(128)
    body = nn.Sequential(create_body(efficientnet_lite0), AdaptiveConcatPool2d(), nn.Flatten())
    return features(x, body.eval()), y


def head_alone(way: str, epochs: int, lr: float, fold: int) -> list[float]:
    x, y = seen()
    torch.manual_seed(fold)
    head = create_head(x.shape[1], int(y.max()) + 1, pool=False)
    learn = Learner(loaders_of(x, y, fold, 8), head, CrossEntropyLossFlat(), metrics=accuracy)
    torch.manual_seed(fold)
    return measured(learn, epochs, lr)


# ---------------------------------------------------------------- frozen
def few_and_others(seed: int):
    files = sorted(get_image_files(untar_data(URLs.PHOTOS)))
    kinds = sorted(set(map(parent_label, files)))
    y = torch.tensor([kinds.index(parent_label(file)) for file in files])
    rest = others(y, some_of_each(y, PER_KIND, seed)).nonzero()[:, 0].tolist()
    parts, splitter = (ImageBlock, CategoryBlock), IndexSplitter(rest)
    block = DataBlock(parts, splitter=splitter, get_y=parent_label, item_tfms=Resize(SIZE))
    return block.dataloaders(files, bs=4, num_workers=0, seed=seed, device="cpu")


def frozen(way: str, epochs: int, lr: float, seed: int) -> list[float]:
    torch.manual_seed(seed)
    options = {"metrics": accuracy, "lin_ftrs": [], "train_bn": way == "moving"}
    learn = vision_learner(few_and_others(seed), efficientnet_lite0, **options)
    learn.remove_cbs(Baseline)
    torch.manual_seed(seed)
    return measured(learn, epochs, lr)


# ---------------------------------------------------------------- both
TASKS = {
    "head": (head_alone, [("head", 5, lr, f) for f, lr in product(range(FOLDS), RATES)]),
    "frozen": (
        frozen,
        [
            (way, epochs, 5e-3, seed)
            for seed, epochs, way in product(range(SEEDS), (2, 5, 10), ("still", "moving"))
        ],
    ),
}


def run(name: str) -> None:
    train, keys = TASKS[name]
    KEPT.fill(((name, *key) for key in keys), lambda name, *key: train(*key))


def show(table: pd.DataFrame) -> None:
    show_ways(table, ["task", "epochs", "lr"], "fold", ["metric", "loss"])


ABOUT = (
    "photographs in the public domain",
    f"head: 128 px, folds and steps of fine_tune(4) in bench/fine_tune.csv, batches of"
    f" 8; frozen: {PER_KIND} of each kind, {SIZE} px, batches of 4, fold is a draw;"
    " loss and metric (accuracy) on the others",
)
if __name__ == "__main__":
    main(__doc__, KEPT, ABOUT, run, TASKS, show)
