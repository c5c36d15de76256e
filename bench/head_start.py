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

import argparse
import sys
import warnings
from dataclasses import replace
from itertools import product

import pandas as pd
import torch
from fine_tune import DRAWN_SIZE, FOLDS, TASKS, Task, loaders, opened
from kept import Kept, versions

from coursekit.blocks import RegressionBlock
from coursekit.bodies import create_head
from coursekit.data import ColReader
from coursekit.drawn_bears import draw_bears
from coursekit.losses import BCEWithLogitsLossFlat, MSELossFlat
from coursekit.measures import accuracy_multi, rmse
from coursekit.messages import DataError

COLUMNS = ["task", "way", "fold", "loss", "metric", "warned"]
KEPT = Kept(__file__, COLUMNS)
BATCH, CHANNELS = 64, 1280


def width(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    "How wide the box around each of 400 drawn bears is, in pixels."
    source = draw_bears(n=400, size=DRAWN_SIZE, seed=5)
    table = pd.read_csv(source / "attributes.csv")
    table["width"] = table["right"] - table["left"]
    readers = {"get_x": ColReader("file", pref=source), "get_y": ColReader("width")}
    x, y = opened(table, RegressionBlock, size, **readers)
    return x, y[:, None]


HEADS = {
    "width": Task(width, 96, 3, MSELossFlat, (rmse,)),
    "points": replace(TASKS["points"], head=None),
    "scenes": replace(TASKS["scenes"], metrics=(accuracy_multi,)),
}


def same_for_all(task: Task, y: torch.Tensor, fold: int) -> tuple:
    dls = loaders(torch.zeros(len(y)), y, fold, BATCH)
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


def run(name: str, folds: int) -> None:
    task = HEADS[name]
    try:
        x, y = task.read(task.size)
    except DataError as error:
        return print(f"{name} is left out: {error}")
    done = KEPT.done(3)
    for fold, way in product(range(folds), ("same", "zero", "mean")):
        if (name, way, str(fold)) in done:
            continue
        given = (task, y, fold) if way == "same" else (task, x, y, fold, way)
        loss, metric, warned = (same_for_all if way == "same" else trained)(*given)
        KEPT.add(name, way, fold, f"{loss:.4f}", f"{metric:.4f}", warned)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=HEADS, help="one task")
    parser.add_argument("--folds", type=int, default=FOLDS, help="how many of the folds")
    parser.add_argument("--table", action="store_true", help="show what was found")
    asked = parser.parse_args()
    if asked.table:
        table = KEPT.frame().groupby(["task", "way"])
        print(table[["loss", "metric"]].agg(["mean", "std", "count"]).round(3))
        return
    torch.set_num_threads(1)
    about = f"metric: rmse in pixels of {DRAWN_SIZE}, mean distance in the same, accuracy_multi"
    KEPT.begin(f"python bench/head_start.py; {versions()}; {about}")
    for name in [asked.only] if asked.only else HEADS:
        run(name, asked.folds)


if __name__ == "__main__":
    sys.exit(main())
