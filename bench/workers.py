"""From which size of an epoch on do worker processes pay? The default of DataLoader rests on it.

    nice python bench/workers.py              # a minute or two on two idle cores
    python bench/workers.py --passes 3 --only "3 MB"

One pass each in turn, as often as `--passes` says, after one that is not counted; who begins
changes. The work is the same for all: open, squish to 128 pixels, stack, batches of 8. The
bare loop does it without any loader. The large photographs are those in the public domain,
enlarged to 12 megapixels, with the noise of a sensor, so that a file has about 3 MB. A row of
bench/workers.csv is one pass.
"""

import argparse
import math
import os
import tempfile
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from helper import clocked, in_turns
from kept import Kept
from PIL import Image
from prepare import LARGE, save

from coursekit.batches import collate
from coursekit.data import get_image_files, parent_label
from coursekit.data_loader import default_workers, megapixels
from coursekit.datasets import URLs, untar_data
from coursekit.loaders import DataLoader
from coursekit.pipeline import Datasets
from coursekit.resizing import Resize, ResizeMethod
from coursekit.transforms import Categorize, PILImage, ToTensor

COLUMNS = ["pictures", "files", "megapixels", "megabytes", "workers", "turn", "seconds", "cpu"]
KEPT = Kept(__file__, COLUMNS)
BATCH, SIZE, JPEG_QUALITY = 8, 128, 91
SQUISH = Resize(SIZE, ResizeMethod.Squish)


def enlarged(file: Path, to: Path) -> None:
    "A photograph as a camera would store it: 12 megapixels, a little noise, about 3 MB."
    picture = Image.open(file).convert("RGB").resize(LARGE, Image.Resampling.BICUBIC)
    chance = np.random.default_rng(0)
    noise = 5 * chance.standard_normal((LARGE[1], LARGE[0], 1), dtype=np.float32)
    save(np.asarray(picture, dtype=np.float32) + noise, to, JPEG_QUALITY)


def sets(folder: Path) -> dict[str, list[Path]]:
    "Files of each set."
    small = get_image_files(untar_data(URLs.PHOTOS))
    for i, file in enumerate(small[::20]):
        enlarged(file, folder / file.parent.name / f"{i}.jpg")
    large = list(get_image_files(folder))
    many = list(small) * 4
    return {"320 pixels": list(small), "320 pixels, 4 times": many, "3 MB": large * 2}


def datasets(files: list[Path]) -> Datasets:
    return Datasets(files, [[PILImage.create], [parent_label, Categorize()]])


def bare_loop(data: Datasets) -> None:
    tensor = ToTensor()
    for start in range(0, len(data), BATCH):
        items = [data[i] for i in range(start, min(start + BATCH, len(data)))]
        parts = [SQUISH.apply((picture, y), ("image", "category")) for picture, y in items]
        collate([(tensor(picture), y) for picture, y in parts])


def through_loader(data: Datasets, workers: int) -> None:
    loader = DataLoader(data, BATCH, num_workers=workers, after_item=[SQUISH, ToTensor])
    for _ in loader:
        pass


def one_pass(data: Datasets, workers) -> dict:
    return clocked(
        partial(bare_loop, data)
        if workers == "bare loop"
        else partial(through_loader, data, workers)
    )


def rows_of(name: str, files: list[Path], passes: int) -> None:
    "Passes in turns; a row of each."
    data = datasets(files)
    size = f"{megapixels(data) / len(data):.3f}"
    heavy = f"{sum(file.stat().st_size for file in files) / len(files) / 1e6:.3f}"
    print(f"{name}: by default {default_workers(data, 9)} workers")
    turns = {way: lambda turn, way=way: one_pass(data, way) for way in ("bare loop", 0, 2)}
    done, _, _ = in_turns(turns, passes, math.inf)
    for turn, (way, found) in product(range(passes), done.items()):
        seconds, cpu = (f"{found[turn][key]:.3f}" for key in ("seconds", "busy"))
        KEPT.add(name, len(files), size, heavy, way, turn + 1, seconds, cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--only", help="a set")
    options = parser.parse_args()
    torch.set_num_threads(1)
    KEPT.begin(f"{len(os.sched_getaffinity(0))} cores, shared with others", anew=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, files in sets(Path(folder)).items():
            if options.only in (None, name):
                rows_of(name, files, options.passes)


if __name__ == "__main__":
    main()
