"""Drawn bears by day and the same bears at night: who is told right by a model that has seen day only.

    nice python bench/night.py

EfficientNet-Lite0 makes features, a logistic regression on 240 bears by day tells grizzly, black bear and
teddy; it is asked about 150 others, each drawn twice: by day, and by the camera of the night. A row of
bench/night.csv is a picture. Lesson 13 loads it.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from pictures import features
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from coursekit.drawn_bears import KINDS, draw_bear

KEPT = Path(__file__).with_suffix(".csv")
TRAINED, ASKED, SIZE = 240, 150, 128


def seen(folder: int, n: int, camera: str) -> np.ndarray:
    "What the body makes of bears of one camera, pooled: `(n, 1280)`."
    drawn = (draw_bear(KINDS[i % 3], (folder, i), SIZE, camera=camera)[0] for i in range(n))
    pictures = np.stack([np.asarray(picture, np.float32) / 255 for picture in drawn])
    return features(torch.from_numpy(pictures).permute(0, 3, 1, 2)).numpy()


def main() -> None:
    torch.set_num_threads(1)
    kinds = np.array([KINDS[i % 3] for i in range(TRAINED)])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    model.fit(seen(1, TRAINED, "day"), kinds)
    with KEPT.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["bear", "kind", "camera", "said"])
        for camera in ("day", "night"):
            said = model.predict(seen(2, ASKED, camera))
            out.writerows((i, kinds[i], camera, one) for i, one in enumerate(said))
            print(camera, np.mean(said == kinds[:ASKED]), file=sys.stderr)


if __name__ == "__main__":
    main()
