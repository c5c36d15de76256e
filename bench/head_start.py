"""Numbers, points and several labels: does `vision_learner` beat one answer for all?

    nice python bench/head_start.py             # every task; or --only width
    python bench/head_start.py --table          # means and spreads over the folds

Three ways: the best answer of the training pictures that is the same for all; a head as
fastai's, which begins around 0; and that of `vision_learner`, which begins at the mean.
400 pictures of 96 pixels, EfficientNet-Lite0, `fine_tune(3)`, batches of 64, held out
pictures of up to five folds. A row of bench/head_start.csv is written as soon as its
training is over; the same command again goes on where it was stopped. The scenes need
COURSEKIT_MIRROR. No picture leaves this script.
"""

import warnings
from dataclasses import replace
from itertools import product

import pandas as pd
import torch
from fine_tune import DRAWN_SIZE, FOLDS, TASKS, Task, drawn, loaders_of
from kept import Kept, main, show_ways

from coursekit.blocks import RegressionBlock
from coursekit.bodies import create_head
from coursekit.data import ColReader
from coursekit.losses import BCEWithLogitsLossFlat, MSELossFlat
from coursekit.measures import accuracy_multi, rmse

COLUMNS = ["task", "way", "fold", "loss", "metric", "warned"]
KEPT = Kept(__file__, COLUMNS)
BATCH, CHANNELS = 64, 1280


def width(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    "How wide the box around each of 400 drawn bears is, in pixels."
    x, y = drawn(size, RegressionBlock, ColReader("width"))
    return x, y[:, None]


HEADS = {
    "width": Task(width, 96, 3, MSELossFlat, (rmse,)),
    "points": replace(TASKS["points"], head=None),
    "scenes": replace(TASKS["scenes"], metrics=(accuracy_multi,)),
}


def same_for_all(task: Task, y: torch.Tensor, fold: int) -> tuple:
    dls = loaders_of(torch.zeros(len(y)), y, fold, BATCH)
    train, valid = (loader.source.tensors[1] for loader in dls.loaders)
    answer = train.flatten(1).mean(0)
    if task.loss is BCEWithLogitsLossFlat:
        answer = answer.clamp(1e-3, 1 - 1e-3).logit()
    pred = answer.expand(len(valid), -1)
    return *(float(each(pred, valid)) for each in (task.loss(), *task.metrics)), ""


def trained(task: Task, x, y, fold: int, way: str) -> tuple:
    torch.manual_seed(fold)
    zero = {"custom_head": create_head(CHANNELS, task.outputs(y))}
    learn = task.learner(x, y, fold, BATCH, **(zero if way == "zero" else {}))
    torch.manual_seed(fold)
    with learn.no_logging(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        learn.fine_tune(task.epochs)
    return *learn.validate(), sum("same for all" in str(each.message) for each in told)


def row(name: str, data: tuple, way: str, fold: int) -> tuple:
    if way == "same":
        return same_for_all(HEADS[name], data[1], fold)
    return trained(HEADS[name], *data, fold, way)


def run(name: str) -> None:
    data = HEADS[name].data(name)
    ways = product(range(FOLDS), ("same", "zero", "mean"))
    keys = ((name, way, fold) for fold, way in ways if data)
    KEPT.fill(keys, lambda name, way, fold: row(name, data, way, fold))


def show(table: pd.DataFrame) -> None:
    show_ways(table, ["task"], "fold", ["loss", "metric"])


ABOUT = (f"metric: rmse in pixels of {DRAWN_SIZE}, mean distance in the same, accuracy_multi",)
if __name__ == "__main__":
    main(__doc__, KEPT, ABOUT, run, HEADS, show)
