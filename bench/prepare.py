"""What the races need, written into a folder for processes that know nothing of coursekit.

Each function is given the folder and how many; it may be called twice. Returns words about it.
"""

import random
import shutil
from pathlib import Path

import numpy as np

LONG_SIDE, LARGE = 320, (4000, 3000)


def digits(folder: Path, n: int = 0) -> str:
    "MNIST as arrays."
    from coursekit.datasets import URLs, untar_data
    from coursekit.digits import load_idx

    path = untar_data(URLs.MNIST)
    for half, part in (("train", "train"), ("valid", "t10k")):
        for name, file in (("x", "images-idx3"), ("y", "labels-idx1")):
            values = load_idx(path / f"{part}-{file}-ubyte")
            np.save(folder / f"{half}_{name}.npy", np.asarray(values)[: n or None])
    return "MNIST"


def ratings_table():
    "MovieLens 100k: user, movie, rating."
    import pandas as pd

    from coursekit.datasets import URLs, untar_data

    names, file = ["user", "movie", "rating"], untar_data(URLs.ML_100k) / "u.data"
    return pd.read_csv(file, delimiter="\t", header=None, names=names, usecols=range(3))


def ratings(folder: Path, n: int = 0) -> str:
    "MovieLens 100k."
    table = ratings_table().head(n or None)
    np.savez(folder / "ratings.npz", **{name: table[name].to_numpy() for name in table})
    return "MovieLens 100k"


def many_ratings(folder: Path, n: int) -> str:
    "Random ratings with a few active users and popular items: good for their cost alone."
    rng = np.random.default_rng(0)
    users, items = max(1000, n // 40), max(500, n // 200)
    columns = {
        "user": (users * rng.random(n) ** 2).astype(np.int32),
        "movie": (items * rng.random(n) ** 2).astype(np.int32),
        "rating": rng.integers(1, 6, n).astype(np.float32),
    }
    np.savez(folder / f"ratings_{n}.npz", **columns)
    return f"{n:,} random ratings of {users:,} users and {items:,} items"


def octave(rng, size: tuple[int, int], cells: int):
    "Smooth noise with `cells` bumps across, `(height, width, 3)`, mostly between -1 and 1."
    from PIL import Image

    small = ((rng.normal(size=(cells, cells, 3)).clip(-2.5, 2.5) + 2.5) * 51).astype("uint8")
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image, dtype="float32") / 51 - 2.5


def save(pixels: np.ndarray, file: Path, quality: int) -> None:
    "A picture of numbers up to 255 as a JPEG."
    from PIL import Image

    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(file, quality=quality)


def small_photos(folder: Path, n: int = 512) -> str:
    "Pictures of 320 pixels, as hard to decode as photographs: soft shapes, texture, grain."
    rng, square = np.random.default_rng(0), (LONG_SIDE, LONG_SIDE)
    grain = [[octave(rng, square, cells) for _ in range(4)] for cells in (40, 80, 160, 320)]
    for index in range(n):
        image = 128 + 50 * octave(rng, square, 3) + 30 * octave(rng, square, 12)
        for level, strength in enumerate((14, 11, 9, 6)):
            shift = (int(rng.integers(99)), index)
            image += strength * np.roll(grain[level][index % 4], shift, axis=(0, 1))
        width, height = (LONG_SIDE, 240) if index % 2 else (240, LONG_SIDE)
        file = folder / "small" / "ab"[index // 2 % 2] / f"{index:04}.jpg"
        save(image[:height, :width], file, 90)
    return f"drawn pictures of {LONG_SIDE} pixels, {mean_size(folder / 'small'):.0f} kB each"


def large_photos(folder: Path, n: int = 8) -> str:
    "Pictures of 12 megapixels with the grain of a sensor, about 3 MB each, as a telephone stores them."
    rng = np.random.default_rng(0)
    smooth = 128 + 50 * octave(rng, LARGE, 6) + 14 * octave(rng, LARGE, 60)
    for index in range(n):
        grain = 4.4 * rng.standard_normal((LARGE[1], LARGE[0], 1), dtype=np.float32)
        image = np.roll(smooth, 397 * index, axis=1) + grain
        save(image, folder / "large" / "ab"[index % 2] / f"{index:04}.jpg", 91)
    return f"drawn pictures of 12 megapixels, {mean_size(folder / 'large') / 1000:.1f} MB each"


def phone_photos(folder: Path, n: int = 12) -> str:
    "Pictures of the size that a telephone sends: sky above, and a hill of one of two colours."
    chance, hills = np.random.default_rng(0), {"grass": (70, 140, 60), "sand": (200, 170, 110)}
    y, x = np.mgrid[0:960, 0:1280]
    for name, colour in hills.items():
        for i in range(n // 2):
            hill = y > 500 + 150 * np.sin(x / chance.uniform(100, 300) + i)
            picture = np.where(hill[..., None], colour, (120, 160, 220))
            noise = chance.normal(0, 12, (960, 1280, 1))
            save(picture + noise, folder / "photos" / name / f"{i}.jpg", 90)
    return f"drawn pictures of 1280 x 960, {mean_size(folder / 'photos'):.0f} kB each"


def mean_size(folder: Path) -> float:
    sizes = [file.stat().st_size for file in folder.rglob("*.jpg")]
    return sum(sizes) / len(sizes) / 1000


def bears(folder: Path, n: int = 416) -> str:
    "Photographs of bears, or drawings in their place, in one order for all; and a ResNet-18's first weights."
    import torch
    import torchvision

    from coursekit.datasets import URLs, untar_data
    from coursekit.drawn_bears import draw_bears
    from coursekit.messages import DataError

    try:
        path, words = untar_data(URLs.BEARS), "photographs of bears"
    except DataError:
        path, words = draw_bears(n=416, size=256), "drawn bears (no photographs could be had)"
    files = sorted(
        file for kind in ("black", "grizzly", "teddy") for file in (path / kind).iterdir()
    )
    random.Random(0).shuffle(files)
    for file in files[:n]:
        target = folder / "bears" / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), folder / "resnet18.pth")
    return f"{words}; a ResNet-18 with random weights"


def lite0(folder: Path, n: int = 416) -> str:
    "The same, and an EfficientNet-Lite0 that has learned from ImageNet."
    from coursekit.datasets import URLs, untar_data

    words = bears(folder, n).partition(";")[0]
    shutil.copy(next(untar_data(URLs.EFFICIENTNET_LITE0).glob("*.pth")), folder)
    return f"{words}; weights learned from ImageNet"
