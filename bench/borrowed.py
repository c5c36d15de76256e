"""Lesson 00: borrowed parameters against random ones, each at every rate of the same grid; kept in bench/borrowed.csv.

    nice python bench/borrowed.py
    python bench/borrowed.py --table      # means over the splits

The photographs inside the package, without the thirty of the drawer of lesson 00, at 64 pixels; EfficientNet-Lite0;
batches of 8; one-cycle; a split for each seed, the same for all sides. A row is written as soon as its training is
over; the same command again goes on where it was stopped.
"""

import random
import time
from collections import Counter
from itertools import product

import numpy as np
import pandas as pd
import torch
from kept import Kept, main

import coursekit.training  # noqa: F401, learners get fit_one_cycle from it
from coursekit.bodies import efficientnet_lite0
from coursekit.data import get_image_files, parent_label
from coursekit.datasets import URLs, untar_data
from coursekit.heads import Baseline
from coursekit.image_loaders import ImageDataLoaders
from coursekit.measures import accuracy
from coursekit.resizing import Resize
from coursekit.vision import vision_learner

RATES = (2e-4, 1e-3, 5e-3, 2.5e-2)
COLUMNS = ["weights", "body", "epochs", "rate", "seed", "floor", "accuracy", "cpu_seconds"]
KEPT = Kept(__file__, COLUMNS)
SIDES = list(product(("borrowed", "random"), ("frozen", "learns")))
SHORT = [(*side, 2, rate, seed) for seed, side, rate in product(range(3), SIDES, RATES)]
# ten times as long, at the rate that is best in most rows of the short table
LONG = [(*side, 20, RATES[1], seed) for seed, side in product(range(3), SIDES)]
PLAN = SHORT + LONG


def loaders(seed: int) -> ImageDataLoaders:
    "The photographs of lesson 00, without those of its drawer."
    files = sorted(get_image_files(untar_data(URLs.PHOTOS)))
    random.Random(0).shuffle(files)
    how = {"item_tfms": Resize(64), "bs": 8, "num_workers": 0, "device": "cpu"}
    return ImageDataLoaders.from_path_func(".", files[30:], parent_label, 0.3, seed=seed, **how)


def play(weights: str, body: str, epochs: int, rate: float, seed: int) -> list[float]:
    "Share of the commonest class, share of right answers, seconds of the processor."
    start, dls = time.process_time(), loaders(seed)
    torch.manual_seed(seed)
    learn = vision_learner(
        dls, efficientnet_lite0, metrics=accuracy, pretrained=weights == "borrowed"
    )
    learn.freeze() if body == "frozen" else learn.unfreeze()
    learn.remove_cbs(Baseline)
    with learn.no_logging():
        learn.fit_one_cycle(epochs, rate)
    commonest = Counter(map(parent_label, dls.train.items)).most_common(1)[0][0]
    floor = np.mean([parent_label(file) == commonest for file in dls.valid.items])
    return [floor, learn.validate()[1], time.process_time() - start]


def show(table: pd.DataFrame) -> None:
    "Means over the splits, for each rate."
    print(
        table.groupby(["epochs", "weights", "body", "rate"]).accuracy.agg(["mean", "std", "size"])
    )


if __name__ == "__main__":
    main(__doc__, KEPT, (), lambda: KEPT.fill(PLAN, play), show=show)
