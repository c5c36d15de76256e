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
import csv
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from kept import versions
from PIL import Image

from coursekit.batches import collate
from coursekit.data import get_image_files, parent_label
from coursekit.data_loader import default_workers, megapixels
from coursekit.datasets import URLs, untar_data
from coursekit.loaders import DataLoader
from coursekit.pipeline import Datasets
from coursekit.resizing import Resize, ResizeMethod
from coursekit.transforms import Categorize, PILImage, ToTensor

KEPT = Path(__file__).with_suffix(".csv")
COLUMNS = ["pictures", "files", "megapixels", "megabytes", "workers", "turn", "seconds", "cpu"]
BATCH, SIZE, LARGE, JPEG_QUALITY = 8, 128, (4000, 3000), 91
SQUISH = Resize(SIZE, ResizeMethod.Squish)


def enlarged(file: Path, to: Path) -> None:
    "A photograph as a camera would store it: 12 megapixels, a little noise, about 3 MB."
    picture = Image.open(file).convert("RGB").resize(LARGE, Image.Resampling.BICUBIC)
    chance = np.random.default_rng(0)
    noise = 5 * chance.standard_normal((LARGE[1], LARGE[0], 1), dtype=np.float32)
    pixels = (np.asarray(picture, dtype=np.float32) + noise).clip(0, 255).astype(np.uint8)
    to.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(to, quality=JPEG_QUALITY)


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


def used() -> float:
    "Seconds of the processors, of workers that have ended too."
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def one_pass(data: Datasets, workers) -> tuple[float, float]:
    start, before = time.perf_counter(), used()
    bare_loop(data) if workers == "bare loop" else through_loader(data, workers)
    return time.perf_counter() - start, used() - before


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--passes", type=int, default=5)
    asked.add_argument("--only", help="a set")
    asked = asked.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    ways = ["bare loop", 0, 2]
    with KEPT.open("w", newline="") as kept:
        cores = len(os.sched_getaffinity(0))
        kept.write(f"# python bench/workers.py; {versions()}; {cores} cores, shared with others\n")
        writer = csv.writer(kept, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, files in sets(folder).items():
            if asked.only and name != asked.only:
                continue
            data = datasets(files)
            size = round(megapixels(data) / len(data), 3)
            heavy = round(sum(file.stat().st_size for file in files) / len(files) / 1e6, 3)
            print(f"{name}: by default {default_workers(data, 9)} workers")
            for turn in range(asked.passes + 1):
                for way in ways[:: 1 if turn % 2 else -1]:
                    seconds, cpu = one_pass(data, way)
                    row = [name, len(files), size, heavy, way, turn, f"{seconds:.3f}", f"{cpu:.3f}"]
                    if turn:
                        writer.writerow(row)
                        kept.flush()
                        print(*row)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
