"""How hard the drawn bears are: two classifiers over six seeds, kept in bench/drawn_bears.csv.

    python bench/drawn_bears.py

600 pictures a seed, 480 to train and 120 held out. The painters were tuned while looking at the first
three seeds only; tests/test_drawn_bears.py measures the other three again.
"""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from coursekit import drawn_bears
from coursekit.datasets import URLs, untar_data
from coursekit.drawn_bears import KINDS, draw_bears

TUNING, TESTING = (0, 1, 2), (10, 11, 12)
KEPT = Path(__file__).with_suffix(".csv")


def versions() -> str:
    return f"painters {drawn_bears._PAINTER}"


def frozen_body():
    "EfficientNet-Lite0 without its last layer, weights from ImageNet."
    import timm

    model = timm.create_model("tf_efficientnet_lite0")
    file = next(untar_data(URLs.EFFICIENTNET_LITE0).glob("*.pth"))
    weights = torch.load(file, weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    model.reset_classifier(0)
    return model.eval()


@torch.no_grad()
def features_of(body, images, size=160):
    found = []
    for start in range(0, len(images), 50):
        small = [np.array(image.resize((size, size))) for image in images[start : start + 50]]
        x = torch.tensor(np.stack(small)).permute(0, 3, 1, 2) / 255
        found.append(body((x - 0.498) / 0.502))
    return torch.cat(found)


def nearest_mean_accuracy(x, y, train):
    means = torch.stack([x[:train][y[:train] == kind].mean(0) for kind in range(len(KINDS))])
    return (torch.cdist(x[train:], means).argmin(1) == y[train:]).float().mean().item()


def linear_head_accuracy(x, y, train, decay=0.01):
    "Logistic regression on standardised features."
    x = (x - x[:train].mean(0)) / (x[:train].std(0) + 1e-6)
    head = torch.zeros(x.shape[1] + 1, len(KINDS), requires_grad=True)
    optimiser = torch.optim.LBFGS([head], max_iter=100)

    def loss():
        optimiser.zero_grad()
        value = F.cross_entropy(x[:train] @ head[1:] + head[0], y[:train])
        value = value + decay / 2 * head[1:].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return ((x[train:] @ head[1:] + head[0]).argmax(1) == y[train:]).float().mean().item()


def accuracies(folder, body, train=480):
    "Of the nearest class mean in pixels, and of a linear head on frozen features, on pictures held out."
    with (folder / "attributes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = [Image.open(folder / row["file"]).convert("RGB") for row in rows]
    y = torch.tensor([KINDS.index(row["kind"]) for row in rows])
    small = np.stack([np.array(image.resize((64, 64))).ravel() for image in images])
    by_pixels = nearest_mean_accuracy(torch.tensor(small).float(), y, train)
    return by_pixels, linear_head_accuracy(features_of(body, images), y, train)


def main() -> None:
    body, rows = frozen_body(), []
    for seed in TUNING + TESTING:
        with tempfile.TemporaryDirectory() as home:
            found = accuracies(draw_bears(Path(home) / "set", n=600, seed=seed), body)
        rows.append([seed, "yes" if seed in TUNING else "no", *(f"{share:.3f}" for share in found)])
        print(*rows[-1], sep="\t")
    with KEPT.with_suffix(".unfinished").open("w", encoding="utf-8", newline="") as file:
        file.write(f"# python bench/drawn_bears.py; {versions()}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "used_for_tuning", "nearest_mean_in_pixels", "linear_on_features"])
        writer.writerows(rows)
    KEPT.with_suffix(".unfinished").replace(KEPT)


if __name__ == "__main__":
    sys.exit(main())
