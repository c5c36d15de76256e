"""How hard the drawn bears are: two classifiers over six seeds, kept in bench/drawn_bears.csv.

    python bench/drawn_bears.py

600 pictures a seed, 480 to train and 120 held out. The painters were tuned while looking at the first
three seeds only; tests/test_drawn_bears.py measures the other three again. When the painters change,
the table is deleted and made anew.
"""

import csv
import tempfile
from pathlib import Path

import numpy as np
import torch
from kept import Kept, main
from pictures import features, frozen_body, linear_head
from PIL import Image

from coursekit import drawn_bears
from coursekit.drawn_bears import KINDS, draw_bears

TUNING, TESTING = (0, 1, 2), (10, 11, 12)
COLUMNS = ["seed", "used_for_tuning", "nearest_mean_in_pixels", "linear_on_features"]
KEPT = Kept(__file__, COLUMNS)


def versions() -> str:
    return f"painters {drawn_bears._PAINTER}"


def resized(images, size):
    return np.stack([np.array(image.resize((size, size))) for image in images])


def nearest_mean_accuracy(x, y, train):
    means = torch.stack([x[:train][y[:train] == kind].mean(0) for kind in range(len(KINDS))])
    return (torch.cdist(x[train:], means).argmin(1) == y[train:]).float().mean().item()


def accuracies(folder, body, train=480):
    "Of the nearest class mean in pixels, and of a linear head on frozen features, on pictures held out."
    with (folder / "attributes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = [Image.open(folder / row["file"]).convert("RGB") for row in rows]
    y = torch.tensor([KINDS.index(row["kind"]) for row in rows])
    pixels = torch.tensor(resized(images, 64)).flatten(1).float()
    large = torch.tensor(resized(images, 160)).permute(0, 3, 1, 2) / 255
    x = features(large, body)
    right = (linear_head(x[:train], y[:train], x[train:]) == y[train:]).float().mean().item()
    return nearest_mean_accuracy(pixels, y, train), right


def row(seed, tuned):
    with tempfile.TemporaryDirectory() as home:
        found = accuracies(draw_bears(Path(home) / "set", n=600, seed=seed), frozen_body())
    return [f"{share:.3f}" for share in found]


def run() -> None:
    KEPT.fill(((seed, "yes" if seed in TUNING else "no") for seed in TUNING + TESTING), row)


if __name__ == "__main__":
    main(__doc__, KEPT, (versions(),), run)
