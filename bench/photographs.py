"""What lesson 07 says of 122 photographs and takes too long to show in it.

    nice python bench/photographs.py              # every task; or --only tune
    python bench/photographs.py --table           # means, spreads, paired differences

`frozen`: norms that stand still in a frozen body, against norms that learn and count, after
2, 5 and 10 epochs. `tune`: head alone or `fine_tune`, with and without augmentation, in
equally many epochs, so equally many steps, at two rates. EfficientNet-Lite0, folds, so that
every photograph is tested once; all ways of a fold have the same photographs, the same
seed and the same kind of head. A row of bench/photographs.csv is written as soon as its
training is over; the same command again goes on where it was stopped.
"""

import argparse
import csv
import sys
import time
from itertools import product
from pathlib import Path

import torch
from fine_tune import FOLDS, paired
from recipes import versions

from coursekit.augment import aug_transforms
from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.bodies import efficientnet_lite0
from coursekit.data import IndexSplitter, get_image_files, parent_label
from coursekit.datasets import URLs, untar_data
from coursekit.measures import accuracy
from coursekit.resizing import Resize
from coursekit.vision import vision_learner

KEPT = Path(__file__).with_suffix(".csv")
SIZE, LARGER, BATCH, EPOCHS, RATES = 96, 128, 8, 6, (2e-3, 5e-3)
COLUMNS = ["task", "way", "epochs", "lr", "fold", "loss", "metric", "cpu_seconds"]
# no change but to the final size
PLAIN = {"do_flip": False, "max_rotate": 0, "max_zoom": 1, "max_lighting": 0, "max_warp": 0}


def loaders(fold: int, augmented: bool):
    files = sorted(get_image_files(untar_data(URLs.PHOTOS)))
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))
    test = order[torch.arange(len(files)) % FOLDS == fold].tolist()
    changes = aug_transforms(size=SIZE, min_scale=0.75) if augmented else _plain()
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        splitter=IndexSplitter(test),
        get_y=parent_label,
        item_tfms=Resize(LARGER),
        batch_tfms=changes,
    )
    return block.dataloaders(files, bs=BATCH, num_workers=0, seed=fold, device="cpu")


def _plain() -> list:
    return aug_transforms(size=SIZE, min_scale=1.0, **PLAIN)


def trained(way: str, epochs: int, lr: float, fold: int) -> list[float]:
    dls = loaders(fold, augmented="changed" in way)
    torch.manual_seed(fold)
    options = {"metrics": accuracy, "lin_ftrs": [], "train_bn": way == "moving"}
    learn = vision_learner(dls, efficientnet_lite0, **options)
    begin = time.process_time()
    torch.manual_seed(fold)
    with learn.no_logging():
        if way.startswith("tune"):
            learn.fine_tune(epochs - 1, base_lr=lr, freeze_epochs=1)
        else:
            learn.fit_one_cycle(epochs, lr)
    seconds = time.process_time() - begin
    return [*learn.validate(), seconds]


WAYS = ("head", "head, changed", "tune", "tune, changed")
TASKS = {
    "tune": [(way, EPOCHS, lr) for lr, way in product(RATES, WAYS)],
    "frozen": list(product(("still", "moving"), (2, 5, 10), (5e-3,))),
}


def run(name: str) -> None:
    done = {tuple(row[:5]) for row in rows()}
    # a rate after the other, and fold by fold: what is there at any time can be compared
    rates = sorted({lr for _, _, lr in TASKS[name]})
    for rate, fold, (way, epochs, lr) in product(rates, range(FOLDS), TASKS[name]):
        key = (name, way, str(epochs), str(lr), str(fold))
        if key in done or lr != rate:
            continue
        loss, metric, seconds = trained(way, epochs, lr, fold)
        row = [*key, f"{loss:.4f}", f"{metric:.4f}", f"{seconds:.1f}"]
        with KEPT.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)
        print(*row, sep="\t", flush=True)


def rows() -> list[list[str]]:
    if not KEPT.exists():
        return []
    with KEPT.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.reader(file) if row and not row[0].startswith("#")][1:]


def table() -> None:
    import numpy as np
    import pandas as pd

    found = pd.DataFrame(rows(), columns=COLUMNS)
    found[COLUMNS[2:]] = found[COLUMNS[2:]].astype(float)
    for (task, epochs, lr), part in found.groupby(["task", "epochs", "lr"]):
        first = TASKS[task][0][0]
        for what in ("metric", "loss"):
            wide = part.pivot_table(index="fold", columns="way", values=what).dropna()
            for way in [name for name in dict.fromkeys(part.way) if name in wide]:
                x = wide[way]
                gap = "" if way == first else paired(np.array(x), np.array(wide[first]))
                spread = x.std(ddof=1)
                print(f"{task} {epochs:.0f} epochs at {lr:g}, {what}: {way:14} {x.mean():.3f} "
                      f"sd {spread:.3f} {gap} ({len(x)} folds)")  # fmt: skip


def header() -> list[str]:
    return [
        f"# python bench/photographs.py; {versions()}; {FOLDS} folds",
        f"# photographs in the public domain at {SIZE} px, batches of {BATCH}; tune: in all"
        f" {EPOCHS} epochs, of fine_tune the first frozen; changed: aug_transforms(size={SIZE},"
        " min_scale=0.75); loss and metric (accuracy) on the photographs of the fold",
        ",".join(COLUMNS),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=TASKS, help="one task")
    parser.add_argument("--table", action="store_true", help="show what was found")
    asked = parser.parse_args()
    if asked.table:
        return table()
    torch.set_num_threads(1)
    if not KEPT.exists():
        KEPT.write_text("\n".join(header()) + "\n", encoding="utf-8")
    for name in [asked.only] if asked.only else TASKS:
        run(name)


if __name__ == "__main__":
    sys.exit(main())
