"""Questions to a data library with the names of fastai 2, and a way to write down the answers.

Every question below is put to fastai once, in an environment of its own, and the answers are committed:

    /path/to/fastai/bin/python tests/data_oracle.py

writes `tests/fixtures/data_oracle.json`. `test_data_oracle.py` puts the same questions to coursekit.
This file imports neither library: `lib` is a namespace that holds the names of one of them.

Pictures are ramps: red says from which column of the original a pixel comes, green from which row, and blue is
full, so that whatever a transform does to the geometry can be read from its result.
"""

import hashlib
import inspect
import json
import math
import platform
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from PIL import Image

FIXTURE = Path(__file__).parent / "fixtures" / "data_oracle.json"
QUESTIONS: dict[str, Callable] = {}
TOLERANCE: dict[str, float] = {}


def question(tolerance: float = 0.0):
    "Register a question; numbers of its answer may differ by `tolerance`."

    def register(ask):
        QUESTIONS[ask.__name__], TOLERANCE[ask.__name__] = ask, tolerance
        return ask

    return register


# ---------------------------------------------------------------- what an answer is made of
def plain(value):
    "The same thing made of what JSON knows."
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, torch.Tensor | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Path):
        return value.as_posix()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, str):
        return str(value)
    return [plain(each) for each in value]


def numbers(indices, most: int = 40):
    "A list of integers, shortened if it is long; the hash covers all of it."
    indices = [int(index) for index in indices]
    if len(indices) <= most:
        return indices
    digest = hashlib.sha256(json.dumps(indices).encode()).hexdigest()
    return {"length": len(indices), "first": indices[:10], "last": indices[-3:], "sha256": digest}


def split(splitter, items):
    train, valid = splitter(items)
    return {"train": numbers(train), "valid": numbers(valid)}


def seed_all(seed: int = 0):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (either library may use the old generator)
    torch.manual_seed(seed)


def failure(call, *arguments) -> bool:
    "Whether it raises."
    try:
        call(*arguments)
    except Exception:
        return True
    return False


# ---------------------------------------------------------------- inputs
def ramp(width: int, height: int) -> Image.Image:
    red = np.broadcast_to(255 * (np.arange(width) + 0.5) / width, (height, width))
    green = np.broadcast_to(255 * (np.arange(height)[:, None] + 0.5) / height, (height, width))
    return Image.fromarray(
        np.stack([red, green, np.full_like(red, 255)], -1).round().astype("uint8")
    )


PETS = [f"Abyssinian_{i}.jpg" for i in (1, 2, 10, 33)]
PETS += [f"great_pyrenees_{i}.jpg" for i in (3, 4, 107)] + [f"Maine_Coon_{i}.jpg" for i in (5, 61)]
PETS += [f"pug_{i}.jpg" for i in range(1, 7)]
DIGITS = {"train": {"3": 10, "7": 9}, "valid": {"3": 4, "7": 3}}


def pets_folder(path: Path) -> Path:
    "Names as in PETS, and two files that are no pictures."
    (path / "images").mkdir(parents=True)
    for index, name in enumerate(PETS):
        Image.new("RGB", (12 + index, 10), (9 * index, 40, 200)).save(path / "images" / name)
    (path / "images" / "Abyssinian_100.mat").write_bytes(b"no picture")
    (path / "notes.txt").write_text("no picture")
    return path


def digits_folder(path: Path) -> Path:
    "Folders as in MNIST_SAMPLE, a hidden folder, odd extensions, and a table of labels."
    rows = []
    for part, counts in DIGITS.items():
        for digit, count in counts.items():
            (path / part / digit).mkdir(parents=True)
            for index in range(count):
                name = f"{part}/{digit}/{100 * int(digit) + index}.png"
                Image.new("L", (28, 28), 20 * int(digit) + index).save(path / name)
                rows.append((name, digit, part == "valid"))
    for name in ("extra/a.JPG", "extra/b.jpeg", "extra/c.gif", "extra/d.bmp", "extra/.hidden.png"):
        (path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), 60).save(path / name, format="JPEG" if "J" in name else None)
    (path / ".hidden").mkdir()
    Image.new("L", (8, 8)).save(path / ".hidden" / "e.png")
    (path / "extra" / "README").write_text("no picture")
    table = pd.DataFrame(rows, columns=["name", "label", "is_valid"])
    table.to_csv(path / "labels.csv", index=False)
    return path


def table(rows: int = 100) -> pd.DataFrame:
    names = [f"{index:06}.jpg" for index in range(rows)]
    labels = [
        ("chair", "car", "horse person", "bus")[index * index % 7 % 4] for index in range(rows)
    ]
    where = ["north", "south", "east"]
    return pd.DataFrame(
        {
            "fname": names,
            "labels": labels,
            "is_valid": [index % 6 == 1 for index in range(rows)],
            "site": [where[index * 5 % 11 % 3] for index in range(rows)],
            "number": [index * 7 % 13 for index in range(rows)],
        }
    )


# ---------------------------------------------------------------- splitters
@question()
def random_splitter(lib, _):
    cases = [
        (10, 0.2, 42),
        (10, 0.2, 0),
        (10, 0.5, 1),
        (13, 0.33, 7),
        (100, 0.2, 42),
        (100, 0.1, 3),
    ]
    cases += [
        (5, 0.2, 42),
        (40, 0.99, 5),
        (416, 0.2, 42),
        (7390, 0.2, 42),
        (60_000, 0.25, 123456789),
    ]
    return {
        f"n={n}, valid_pct={part}, seed={seed}": split(
            lib.RandomSplitter(valid_pct=part, seed=seed), list(range(n))
        )
        for n, part, seed in cases
    }


@question()
def random_splitter_again(lib, _):
    "A splitter with a seed splits alike each time, whatever was drawn in between."
    splitter, items = lib.RandomSplitter(0.3, 8), list(range(20))
    first = split(splitter, items)
    torch.rand(5)
    return {"first": first, "second": split(splitter, items)}


@question()
def other_splitters(lib, _):
    letters, frame = list("abcdefghij"), table(12)
    paths = [Path(name) for name in ("d/train/3/1.png", "d/valid/3/2.png", "d/train/7/3.png")]
    paths += [Path(name) for name in ("d/valid/7/4.png", "d/test/7/5.png", "d/train/valid/6.png")]
    return {
        "EndSplitter": split(lib.EndSplitter(), letters),
        "EndSplitter 0.34": split(lib.EndSplitter(valid_pct=0.34), letters),
        "EndSplitter start": split(lib.EndSplitter(0.5, valid_last=False), letters),
        "IndexSplitter": split(lib.IndexSplitter([2, 5, 7]), letters),
        "IndexSplitter keeps the order": split(lib.IndexSplitter([7, 2, 5]), letters),
        "IndexSplitter array": split(lib.IndexSplitter(np.array([0, 9])), letters),
        "FuncSplitter": split(lib.FuncSplitter(lambda letter: letter in "aeiou"), letters),
        "MaskSplitter": split(lib.MaskSplitter([i % 3 == 0 for i in range(10)]), letters),
        "ColSplitter": split(lib.ColSplitter(), frame),
        "ColSplitter by number": split(lib.ColSplitter(2), frame),
        "ColSplitter on": split(lib.ColSplitter("site", on="north"), frame),
        "ColSplitter on list": split(lib.ColSplitter("site", on=["north", "east"]), frame),
        "GrandparentSplitter": split(lib.GrandparentSplitter(), paths),
        "GrandparentSplitter names": split(
            lib.GrandparentSplitter(train_name="train", valid_name="test"), paths
        ),
        "GrandparentSplitter list": split(
            lib.GrandparentSplitter(valid_name=["valid", "test"]), paths
        ),
    }


@question()
def splitter_errors(lib, _):
    return {
        "ColSplitter of a list": failure(lib.ColSplitter(), [1, 2, 3]),
        "ColSplitter without the column": failure(lib.ColSplitter("nowhere"), table(4)),
        "EndSplitter 0": failure(lib.EndSplitter, 0),
        "EndSplitter 1": failure(lib.EndSplitter, 1),
    }


# ---------------------------------------------------------------- labels
@question()
def labellers(lib, _):
    paths = [Path("images") / name for name in PETS[::3]]
    pet, digit = lib.RegexLabeller(r"(.+)_\d+.jpg$"), lib.RegexLabeller(r"/(\d)/")
    by_name = lib.using_attr(pet, "name")
    whole = lib.RegexLabeller(r"^images/(.*)_", match=True)
    return {
        "parent_label": [
            lib.parent_label(p) for p in (Path("a/b/c.png"), "x/3/7.png", Path("c.png"))
        ],
        "RegexLabeller on a path": [pet(path) for path in paths],
        "RegexLabeller on a name": [pet(path.name) for path in paths],
        "using_attr": [by_name(path) for path in paths],
        "RegexLabeller searches": [digit(p) for p in ("train/3/77.png", Path("valid/7/3.png"))],
        "RegexLabeller match": [whole(path) for path in paths],
        "no match is an error": failure(pet, "pug.png"),
    }


@question()
def col_reader(lib, _):
    rows = [row for _, row in table(6).iterrows()]
    tuples = list(table(6).itertuples())

    def read(*arguments, of=rows, **options):
        reader = lib.ColReader(*arguments, **options)
        return [value if isinstance(value, str) else plain(value) for value in map(reader, of)]

    return {
        "by name": read("fname"),
        "by number": read(1),
        "pref and suff": read("number", pref="n-", suff=".png"),
        "a path as pref": read("fname", pref=Path("data/train")),
        "label_delim": read("labels", label_delim=" "),
        "two columns": read(["fname", "number"]),
        "one row": plain(lib.ColReader("number")(rows[5])),
        "named tuples": read("labels", of=tuples),
    }


def categorised(lib, labels, valid=(-1,), **options):
    "Vocabulary and integers that a `CategoryBlock` makes of `labels`."
    block = lib.DataBlock(
        blocks=(lib.TransformBlock, lib.CategoryBlock(**options)),
        get_y=lambda index: labels[index],
        splitter=lib.IndexSplitter([index % len(labels) for index in valid]),
    )
    dsets = block.datasets(list(range(len(labels))))
    train, test = (
        [int(dsets_[i][1]) for i in range(len(dsets_))] for dsets_ in (dsets.train, dsets.valid)
    )
    return {"vocab": list(dsets.vocab), "train": train, "valid": test}


@question()
def categorize(lib, _):
    words = ["teddy", "black", "Black", "grizzly", "black"]
    return {
        "strings": categorised(lib, words),
        "integers": categorised(lib, [10, 9, 2, 10, 9]),
        "booleans": categorised(lib, [True, False, True, False]),
        "floats": categorised(lib, [0.5, 0.25, 0.5]),
        "add_na": categorised(lib, words, add_na=True),
        "add_na takes the unseen": categorised(lib, ["a", "c", "b"], valid=[1], add_na=True),
        "unsorted": categorised(lib, words, sort=False),
        "a given vocab is sorted": categorised(
            lib, words, vocab=["teddy", "grizzly", "black", "Black"]
        ),
        "a given vocab kept": categorised(
            lib, words, vocab=["teddy", "grizzly", "black", "Black"], sort=False
        ),
        "digits as strings": categorised(lib, ["10", "9", "2", "9"]),
        "vocab from training alone": categorised(
            lib, ["b", "a", "c", "a"], valid=[2, 3], add_na=True
        ),
    }


@question()
def categorize_errors(lib, _):
    return {
        "unseen in validation": failure(categorised, lib, ["a", "b", "c"]),
        "not in the given vocab": failure(lambda: categorised(lib, ["a", "b"], vocab=["b", "c"])),
    }


@question()
def vocabulary(lib, _):
    "What a vocabulary can do: from a label to its number and back, and how many there are."
    block = lib.DataBlock(
        blocks=(lib.TransformBlock, lib.CategoryBlock),
        get_y=lambda index: "ba"[index % 2],
        splitter=lib.IndexSplitter([0, 1]),
    )
    dsets = block.datasets(list(range(6)))
    dls = dsets.dataloaders(bs=2, num_workers=0)
    return {
        "first": dls.vocab[0],
        "length": len(dls.vocab),
        "decode": dsets.decode(dsets.train[1]),
        "o2i": dict(getattr(dls.vocab, "o2i", {})),
        "c of the loaders": dls.c,
        "c of the datasets": getattr(dsets, "c", None),
    }


@question()
def regression(lib, _):
    def loaded(values, **options):
        block = lib.DataBlock(
            blocks=(lib.TransformBlock, lib.RegressionBlock(**options)),
            get_x=lambda index: torch.tensor([float(index)]),
            get_y=lambda index: values[index],
            splitter=lib.IndexSplitter([0, 1]),
        )
        dls = block.dataloaders(list(range(len(values))), bs=2, num_workers=0)
        target = dls.valid.one_batch()[1]
        return {"values": target, "type": str(target.dtype), "shape": target.shape, "c": dls.c}

    return {
        "numbers": loaded([1, 2.5, 3, 4]),
        "pairs": loaded([[1, 2], [3, 4.5], [5, 6], [7, 8]]),
        "pairs, n_out": loaded([[1, 2], [3, 4.5], [5, 6], [7, 8]], n_out=2),
    }


# ---------------------------------------------------------------- files, data sets, loaders
@question()
def image_files(lib, folder):
    def found(path, **options):
        return sorted(
            file.relative_to(path).as_posix() for file in lib.get_image_files(path, **options)
        )

    pets, digits = pets_folder(folder / "pets"), digits_folder(folder / "digits")
    return {
        "pets": found(pets),
        "digits": found(digits),
        "only in": found(digits, folders=["train", "valid"]),
        "one folder as a word": found(digits, folders="valid"),
        "not below": found(digits / "extra", recurse=False),
    }


def described(dls, files=()):
    "What a `DataLoaders` says of itself, and the names of its validation files if they are known."
    batch = dls.valid.one_batch()
    return {
        "vocab": list(dls.vocab),
        "c": dls.c,
        "items": [len(dls.train_ds), len(dls.valid_ds)],
        "batches": [len(dls.train), len(dls.valid)],
        "x": [str(batch[0].dtype), *batch[0].shape],
        "y": [str(batch[1].dtype), *batch[1].shape],
        "first labels of valid": batch[1][:5],
        "first pixel of valid": batch[0][:5, :, 0, 0],
    }


@question(tolerance=1e-4)
def pets(lib, folder):
    path = pets_folder(folder)
    names = sorted(lib.get_image_files(path / "images"))
    block = lib.DataBlock(
        blocks=(lib.ImageBlock, lib.CategoryBlock),
        get_items=lambda path: sorted(lib.get_image_files(path)),
        splitter=lib.RandomSplitter(seed=42),
        get_y=lib.using_attr(lib.RegexLabeller(r"(.+)_\d+.jpg$"), "name"),
        item_tfms=lib.Resize(8),
    )
    dsets = block.datasets(path / "images")
    common = {"item_tfms": lib.Resize(8), "seed": 7, "num_workers": 0, "bs": 4}
    loaders = lib.ImageDataLoaders
    by_name = loaders.from_name_func(path, names, lambda name: name[0].isupper(), **common)
    by_re = loaders.from_name_re(path, names, r"^(.*)_\d+.jpg$", **common)
    by_path = loaders.from_path_func(
        path, names, lambda p: p.name.split("_")[-2], valid_pct=0.4, **common
    )
    return {
        "datasets": [len(dsets), len(dsets.train), len(dsets.valid)],
        "splits": [numbers(part) for part in dsets.splits],
        "valid": [file.name for file in dsets.valid.items],
        "size of the first": dsets.valid[0][0].size,
        "labels of train": [int(dsets.train[i][1]) for i in range(len(dsets.train))],
        "one by index": int(dsets[3][1]),
        "n_inp": dsets.n_inp,
        "dataloaders": described(block.dataloaders(path / "images", bs=4, num_workers=0)),
        "from_name_func": described(by_name),
        "from_name_re": described(by_re),
        "from_path_func": described(by_path),
    }


@question(tolerance=1e-4)
def digits(lib, folder):
    path = digits_folder(folder)
    block = lib.DataBlock(
        blocks=(lib.ImageBlock, lib.CategoryBlock),
        get_items=lambda path: sorted(lib.get_image_files(path, folders=["train", "valid"])),
        splitter=lib.GrandparentSplitter(),
        get_y=lib.parent_label,
    )
    frame, loaders = pd.read_csv(path / "labels.csv"), lib.ImageDataLoaders
    small = {"num_workers": 0, "bs": 4}
    from_folder = described(loaders.from_folder(path, **small))
    (
        from_folder.pop("first labels of valid"),
        from_folder.pop("first pixel of valid"),
    )  # order of the disk
    grey = loaders.from_folder(path, img_cls=lib.PILImageBW, **small)
    return {
        "dataloaders": described(block.dataloaders(path, num_workers=0, bs=4)),
        "from_folder": from_folder,
        "grey": grey.one_batch()[0].shape,
        "from_df": described(loaders.from_df(frame, path, seed=3, **small)),
        "from_df, valid_col": described(
            loaders.from_df(frame, path, valid_col="is_valid", **small)
        ),
        "from_df, columns": described(
            loaders.from_df(frame, path, fn_col="name", label_col="label", seed=3, **small)
        ),
        "from_csv": described(loaders.from_csv(path, seed=3, **small)),
    }


@question()
def table_of_100(lib, _):
    "The book's way into multi-label data: a `DataBlock` grown step by step on a table."
    frame = table(100)
    seed_all(42)
    plain_block = lib.DataBlock().datasets(frame)
    x, y = plain_block.train[0]
    seed_all(42)
    block = lib.DataBlock(get_x=lambda row: row["fname"], get_y=lambda row: row["labels"])
    named = block.datasets(frame)
    column = lib.DataBlock(
        get_x=lib.ColReader("fname", pref="images/"),
        get_y=lib.ColReader("labels", label_delim=" "),
        splitter=lib.ColSplitter(),
    ).datasets(frame)
    return {
        "lengths": [len(plain_block.train), len(plain_block.valid)],
        "both are the row": [x["fname"], y["fname"]],
        "first": named.train[0],
        "second": named.train[1],
        "last of valid": named.valid[len(named.valid) - 1],
        "columns": [len(column.train), len(column.valid), column.train[0], column.valid[0]],
    }


def pairs_loaders(lib, n: int, valid: int, **options):
    block = lib.DataBlock(
        blocks=(lib.TransformBlock, lib.CategoryBlock),
        get_x=lambda index: torch.tensor([float(index), 1.0]),
        get_y=lambda index: "odd" if index % 2 else "even",
        splitter=lib.IndexSplitter(list(range(valid))),
    )
    return block.dataloaders(list(range(n)), num_workers=0, **options)


@question()
def batches(lib, _):
    "Sizes of batches: what is dropped, what is shuffled, what validation gets."

    def sizes(n, valid, **options):
        dls = pairs_loaders(lib, n, valid, **options)
        train, test = ([batch[0] for batch in loader] for loader in (dls.train, dls.valid))
        seen = sorted(torch.cat(train)[:, 0].long().tolist()) if train else []
        return {
            "train": [len(x) for x in train],
            "valid": [len(x) for x in test],
            "len": [len(dls.train), len(dls.valid)],
            "bs": [dls.train.bs, dls.valid.bs],
            "each once": len(seen) == len(set(seen)),
            "valid in order": torch.cat(test)[:, 0].long().tolist() == list(range(valid)),
            "train in order": bool((torch.cat(train)[:, 0].diff() > 0).all()) if train else None,
        }

    return {
        "default": sizes(300, 130),
        "bs=32": sizes(300, 40, bs=32),
        "val_bs": sizes(100, 40, bs=16, val_bs=24),
        "even": sizes(128, 64),
        "drop_last=False": sizes(100, 20, bs=32, drop_last=False),
        "shuffle=False": sizes(100, 20, bs=32, shuffle=False),
    }


@question()
def loaders_around(lib, _):
    "Loaders made of lists of pairs, and a loader of its own."
    pairs = [(torch.tensor([float(i)]), i % 3) for i in range(21)]
    dls = lib.DataLoaders.from_dsets(pairs[:14], pairs[14:], bs=4, num_workers=0)
    loader = lib.DataLoader(pairs, bs=8, num_workers=0)
    batch = loader.one_batch()
    both = lib.DataLoaders(loader, loader)
    return {
        "from_dsets": [[len(x) for x, _ in dls.train], [len(x) for x, _ in dls.valid]],
        "DataLoader": [[len(x) for x, _ in loader], len(loader), batch[0].shape, batch[1]],
        "targets": [str(batch[1].dtype), [y.tolist() for _, y in dls.valid]],
        "DataLoaders": [len(both.train), len(both.valid), len(both[0]), len(both.loaders)],
        "batch_size": [len(x) for x, _ in lib.DataLoader(pairs, batch_size=9, num_workers=0)],
        "drop_last": [
            len(x) for x, _ in lib.DataLoader(pairs, bs=8, drop_last=True, num_workers=0)
        ],
    }


@question()
def test_loader(lib, _):
    dls = pairs_loaders(lib, 40, 10, bs=8)
    bare, labelled = (
        dls.test_dl(list(range(100, 119))),
        dls.test_dl(list(range(5)), with_labels=True),
    )
    return {
        "batches": [len(batch[0]) for batch in bare],
        "parts of a batch": [len(bare.one_batch()), len(labelled.one_batch())],
        "in order": torch.cat([batch[0] for batch in bare])[:, 0],
        "labels": labelled.one_batch()[1],
        "bs": dls.test_dl(list(range(30)), bs=30).bs,
    }


# ---------------------------------------------------------------- pictures: one way only, on validation
SIZES = [(200, 100), (100, 200), (128, 128), (90, 60), (131, 77), (320, 240)]


def picture_loaders(lib, pictures, item_tfms, batch_tfms=None, train: int = 2, **options):
    "Loaders of pictures in memory: the first, `train` times, in training; all of them in validation."
    items = [0] * train + list(range(len(pictures)))
    block = lib.DataBlock(
        blocks=(lib.ImageBlock, lib.CategoryBlock(vocab=["a", "b"])),
        get_x=lambda item: np.array(pictures[item]),
        get_y=lambda item: "ab"[item % 2],
        splitter=lib.IndexSplitter(list(range(train, len(items)))),
        item_tfms=item_tfms,
        batch_tfms=batch_tfms,
    )
    return block.dataloaders(items, num_workers=0, **{"bs": 64, "drop_last": False} | options)


def grid(batch, points: int = 5):
    "Bytes of each picture at `points` x `points` places, a little away from the edges."
    height, width = batch.shape[-2:]
    rows, columns = (
        torch.linspace(0.03, 0.97, points).mul(n - 1).round().long() for n in (height, width)
    )
    return (batch[:, :, rows][:, :, :, columns] * 255).round().int().permute(0, 2, 3, 1)


def validation_pictures(lib, item_tfms, batch_tfms=None, sizes=SIZES):
    batch = picture_loaders(lib, [ramp(*size) for size in sizes], item_tfms, batch_tfms)
    x = batch.valid.one_batch()[0]
    return {
        "shape": x.shape,
        "pixels": {f"{w} x {h}": g for (w, h), g in zip(sizes, grid(x), strict=True)},
    }


@question(tolerance=3)
def resize(lib, _):
    method, tfm = lib.ResizeMethod, lib.Resize
    return {
        "crop": validation_pictures(lib, tfm(128)),
        "crop named": validation_pictures(lib, tfm(128, method.Crop)),
        "squish": validation_pictures(lib, tfm(128, method.Squish)),
        "squish by word": validation_pictures(lib, tfm(128, method="squish")),
        "pad zeros": validation_pictures(lib, tfm(128, method.Pad, pad_mode="zeros")),
        "pad reflection": validation_pictures(lib, tfm(128, method.Pad)),
        "pad border": validation_pictures(lib, tfm(128, method.Pad, pad_mode="border")),
        "height, width": validation_pictures(lib, tfm((64, 96))),
        "height, width pad": validation_pictures(lib, tfm((64, 96), method.Pad, pad_mode="zeros")),
    }


@question(tolerance=3)
def random_resized_crop_on_validation(lib, _):
    tfm = lib.RandomResizedCrop
    return {
        "224": validation_pictures(lib, tfm(224), sizes=SIZES[:2]),
        "128": validation_pictures(lib, tfm(128, min_scale=0.35)),
        "val_xtra=0": validation_pictures(lib, tfm(64, val_xtra=0)),
        "height, width": validation_pictures(lib, tfm((64, 96))),
    }


@question(tolerance=3)
def presizing_on_validation(lib, _):
    "Batch transforms leave validation pictures alone, but for their size."
    tfms = lib.aug_transforms
    return {
        "same size": validation_pictures(lib, lib.Resize(96), tfms()),
        "size": validation_pictures(lib, lib.Resize(96), tfms(size=64)),
        "size, min_scale": validation_pictures(lib, lib.Resize(96), tfms(size=64, min_scale=0.75)),
        "height, width": validation_pictures(lib, lib.Resize(96), tfms(size=(48, 64))),
    }


@question(tolerance=1e-3)
def normalize(lib, _):
    pictures = [
        Image.new("RGB", (16, 16), colour)
        for colour in ((0, 0, 0), (255, 128, 64), (124, 116, 104))
    ]

    def values(batch_tfms):
        loaders = picture_loaders(lib, pictures, lib.Resize(16), batch_tfms)
        batch = loaders.valid.one_batch()[0]
        return {"type": str(batch.dtype), "values": batch[:, :, 8, 8]}

    stats = lib.Normalize.from_stats
    return {
        "imagenet_stats": plain(lib.imagenet_stats),
        "from_stats": values([stats(*lib.imagenet_stats)]),
        "other stats": values([stats([0.5, 0.5, 0.5], [0.25, 0.5, 1.0])]),
        "after aug_transforms": values([*lib.aug_transforms(), stats(*lib.imagenet_stats)]),
        "before aug_transforms": values([stats(*lib.imagenet_stats), *lib.aug_transforms()]),
        "without": values(None),
    }


# ---------------------------------------------------------------- pictures: chance, on training
DRAWS = 1024
CHANCE = (
    0.08  # three standard deviations of the difference of two means of DRAWS numbers from -1 to 1
)


def training_pictures(lib, item_tfms, batch_tfms=None, picture=None, bs: int = DRAWS):
    "The same picture many times through the training loader: `(draws, 3, height, width)`."
    seed_all()
    loaders = picture_loaders(
        lib, [picture or ramp(48, 48)], item_tfms, batch_tfms, train=DRAWS, bs=bs
    )
    return torch.cat([torch.as_tensor(x) for x, _ in loaders.train]).as_subclass(torch.Tensor)


def origin(batch, part: float = 0.5):
    """Fit, for each picture, where a pixel comes from: `x0 = a + b x + c y`, `y0 = d + e x + f y`, all in -1..1
    from edge to edge. Only the middle `part` is used, which no padding reaches. Returns `(pictures, 2, 3)`."""
    height, width = batch.shape[-2:]
    y, x = torch.meshgrid(
        *((torch.arange(n) + 0.5) / n * 2 - 1 for n in (height, width)), indexing="ij"
    )
    inside = (x.abs() < part) & (y.abs() < part)
    known = torch.stack([torch.ones_like(x), x, y], -1)[inside]
    values = batch[:, :2].permute(0, 2, 3, 1)[:, inside] * 2 - 1
    return torch.linalg.lstsq(known.expand(len(batch), -1, -1), values).solution.mT


def spread(values, unchanged=None, close: float = 0.01):
    "Mean, standard deviation, smallest and largest; of those that changed, if `unchanged` is given, and their share."
    answer = {}
    if unchanged is not None:
        changed = (values - unchanged).abs() > close
        answer, values = {"share changed": changed.double().mean().item()}, values[changed]
    low, high = values.double().quantile(torch.tensor([0.01, 0.99]).double()).tolist()
    return answer | {
        "mean": values.mean().item(),
        "std": values.std().item(),
        "1 %": low,
        "99 %": high,
    }


def crops(batch):
    "Spread of the crops that a batch of ramps shows, as shares of the picture."
    (left, across, _), (top, _, down) = origin(batch, part=1.0).permute(1, 2, 0)
    return {
        "width": spread(across),
        "height": spread(down),
        "middle x": spread(left / 2),
        "middle y": spread(top / 2),
        "area": spread(across * down),
    }


@question(tolerance=CHANCE)
def random_crops(lib, _):
    wide = ramp(96, 72)
    item, whole = lib.Resize, lib.ResizeMethod
    return {
        "Resize": crops(training_pictures(lib, item(48), picture=wide)),
        "Resize squish": crops(training_pictures(lib, item(48, whole.Squish), picture=wide)),
        "RandomResizedCrop": crops(training_pictures(lib, lib.RandomResizedCrop(48), picture=wide)),
        "RandomResizedCrop 0.35": crops(
            training_pictures(lib, lib.RandomResizedCrop(48, min_scale=0.35), picture=wide)
        ),
        "max_scale": crops(
            training_pictures(
                lib, lib.RandomResizedCrop(48, min_scale=0.2, max_scale=0.4), picture=wide
            )
        ),
        "ratio": crops(
            training_pictures(
                lib, lib.RandomResizedCrop(48, min_scale=0.3, ratio=(1, 1)), picture=wide
            )
        ),
        "min_scale of aug_transforms": crops(
            training_pictures(
                lib, item(48, whole.Squish), only(lib, size=32, min_scale=0.6), bs=4, picture=wide
            )
        ),
    }


def only(lib, **options):
    "`aug_transforms` with everything switched off but `options`."
    off = {
        "do_flip": False,
        "max_rotate": 0.0,
        "max_zoom": 1.0,
        "max_warp": 0.0,
        "max_lighting": 0.0,
    }
    return lib.aug_transforms(**off | options)


@question(tolerance=CHANCE)
def flips(lib, _):
    def turned(**options):
        fit = (
            origin(training_pictures(lib, lib.Resize(48), only(lib, **options)))[:, :, 1:]
            .round()
            .int()
        )
        names = [str(matrix.tolist()) for matrix in fit]
        return {name: names.count(name) / len(names) for name in sorted(set(names))}

    return {"do_flip": turned(do_flip=True), "flip_vert": turned(do_flip=True, flip_vert=True)}


@question(tolerance=CHANCE)
def rotations(lib, _):
    "In units of the largest angle."

    def angles(most, **options):
        x0 = origin(training_pictures(lib, lib.Resize(48), only(lib, **options)))[:, 0]
        return spread(torch.atan2(x0[:, 2], x0[:, 1]) * 180 / math.pi / most, 0.0, 0.01)

    return {
        "10 degrees": angles(10, max_rotate=10.0),
        "30 degrees": angles(30, max_rotate=30.0, p_affine=1.0),
        "mult": angles(20, max_rotate=10.0, mult=2.0),
    }


@question(tolerance=CHANCE)
def zooms(lib, _):
    def zoomed(**options):
        fit = origin(training_pictures(lib, lib.Resize(48), only(lib, **options)))
        scale, changed = 1 / fit[:, 0, 1], (fit[:, 0, 1] - 1).abs() > 0.004
        room = 1 - fit[changed, 0, 1]
        return {
            "share changed": changed.double().mean().item(),
            "scale": spread(scale[changed]),
            "x as y": (fit[:, 0, 1] - fit[:, 1, 2]).abs().max().item(),
            "place in the room": spread((fit[changed, 0, 0] / room)[room.abs() > 0.1]),
        }

    return {
        "to 1.5": zoomed(max_zoom=1.5),
        "out to 0.8": zoomed(min_zoom=0.8, max_zoom=1.0, p_affine=1.0),
    }


@question(tolerance=CHANCE)
def warps(lib, _):
    "The most that an inner point moves, in units of the half picture and of the largest warp."

    def moved(**options):
        batch = training_pictures(lib, lib.Resize(48), only(lib, **options))
        batch = (batch[:, :2] * 2 - 1)[..., 8:40, 8:40]
        still = (torch.as_tensor(np.array(ramp(48, 48))).permute(2, 0, 1)[:2] / 255 * 2 - 1)[
            ..., 8:40, 8:40
        ]
        most = (batch - still).abs().amax((1, 2, 3))
        return spread(most, 0.0, 0.02)

    return {
        "0.2": moved(max_warp=0.2),
        "0.4, always": moved(max_warp=0.4, p_affine=1.0),
        "mult": moved(max_warp=0.2, mult=2.0),
    }


@question(tolerance=CHANCE)
def lighting(lib, _):
    "Brightness and contrast, read from two greys: a shift and a factor of the logits."
    greys = Image.fromarray(
        np.repeat(np.array([[64] * 24 + [128] * 24], dtype="uint8"), 48, 0)
    ).convert("RGB")

    def lit(**options):
        batch = training_pictures(lib, lib.Resize(48), only(lib, **options), picture=greys)
        dark, light = batch[:, 0, 24, 6].logit(), batch[:, 0, 24, 40].logit()
        before = torch.tensor([64 / 255, 128 / 255]).logit()
        contrast = (light - dark) / (before[1] - before[0])
        return {
            "contrast": spread(contrast, 1.0, 0.002),
            "brightness": spread(dark / contrast - before[0], 0.0, 0.002),
            "same in each channel": (batch[:, 0] - batch[:, 2]).abs().max().item() < 1e-3,
        }

    return {
        "0.2": lit(max_lighting=0.2),
        "0.4, always": lit(max_lighting=0.4, p_lighting=1.0),
        "mult": lit(max_lighting=0.2, mult=2.0),
    }


@question()
def defaults(lib, _):
    "What may be left out, and its value."
    wanted = {
        "aug_transforms": "mult do_flip flip_vert max_rotate min_zoom max_zoom max_lighting max_warp p_affine "
        "p_lighting xtra_tfms size mode pad_mode min_scale",
        "RandomResizedCrop": "min_scale ratio val_xtra max_scale",
        "Resize": "method pad_mode",
        "RandomSplitter": "valid_pct seed",
        "EndSplitter": "valid_pct valid_last",
        "GrandparentSplitter": "train_name valid_name",
        "ColSplitter": "col on",
        "RegexLabeller": "match",
        "ColReader": "pref suff label_delim",
        "CategoryBlock": "vocab sort add_na",
        "RegressionBlock": "n_out",
        "get_image_files": "recurse",
    }
    answer = {}
    for name, parameters in wanted.items():
        signature = inspect.signature(getattr(lib, name)).parameters
        answer[name] = {
            each: plain(signature[each].default) for each in parameters.split() if each in signature
        }
    return answer


# ---------------------------------------------------------------- transforms of one's own
def own_loaders(lib, item_tfms=None, batch_tfms=None, **options):
    pictures = [lib.PILImage.create(np.full((6, 6, 3), 40 * i, np.uint8)) for i in range(6)]
    block = lib.DataBlock(
        blocks=(lib.ImageBlock, lib.CategoryBlock),
        get_x=lambda i: pictures[i],
        get_y=lambda i: "odd" if i % 2 else "even",
        splitter=lib.IndexSplitter([0, 5]),
        item_tfms=item_tfms,
        batch_tfms=batch_tfms,
    )
    return block.dataloaders(list(range(6)), bs=2, num_workers=0, shuffle=False, **options)


def first_values(loader) -> list:
    return [[round(v, 4) for v in x[:, 0, 0, 0].tolist()] for x, *_ in loader]


@question(tolerance=1e-4)
def own_transforms(lib, _):
    "Transforms with `encodes`: which parts, which side, in what order, how often."
    seen = []

    class Wrapper(lib.RandTransform):
        split_idx, order = None, 2

        def __init__(self):
            pass

        def before_call(self, b, split_idx):
            self.idx = split_idx

        def encodes(self, img: lib.PILImage):
            return lib.PILImage.create(255 - np.array(img) if self.idx == 0 else np.array(img))

    class Parts(lib.Transform):
        def __init__(self, order=0, split_idx=None):
            self.order, self.split_idx = order, split_idx

        def encodes(self, x: lib.PILImage):
            seen.append("picture")
            return x

        def encodes(self, x: lib.TensorImage):  # noqa: F811
            seen.append([str(x.dtype), list(x.shape), round(float(x.max()), 3)])
            return x

        def encodes(self, x: lib.TensorMask):  # noqa: F811
            seen.append("mask")
            return x

    class Child(Parts):
        def encodes(self, x: lib.PILImage):
            seen.append("picture of the child")
            return x

    class Whole(lib.ItemTransform):
        order = 1

        def encodes(self, xy):
            x, y = xy
            seen.append([type(x).__name__, int(y)])
            return xy

    class Sometimes(lib.RandTransform):
        def encodes(self, x: lib.TensorImage):
            return x * 0 + 9

    def what(loader=None, **tfms):
        seen.clear()
        dls = own_loaders(lib, **tfms)
        # the first batch is looked at when loaders are made
        seen.clear()
        getattr(dls, loader or "train").one_batch()
        return list(seen)

    def share(p):
        random.seed(5)
        step = Sometimes(p=p)
        x = lib.TensorImage(torch.zeros(3, 2, 2))
        drawn = [bool((step(x, split_idx=0) == 9).all()) for _ in range(60)]
        return drawn

    stats = lib.Normalize.from_stats([0.5] * 3, [0.1] * 3)
    dls = own_loaders(lib, item_tfms=Wrapper())
    return {
        "two sides": [first_values(dls.train), first_values(dls.valid)],
        "test": first_values(dls.test_dl([1, 2])),
        "item": what(item_tfms=Parts()),
        "item, a child": what(item_tfms=Child()),
        "item, late": what(item_tfms=Parts(order=6)),
        "item, whole": what(item_tfms=Whole()),
        "side 0": [what(d, item_tfms=Parts(split_idx=0)) for d in ("train", "valid")],
        "side 1": [what(d, item_tfms=Parts(split_idx=1)) for d in ("train", "valid")],
        "batch": {
            str(order): what("valid", batch_tfms=[stats, Parts(order=order)])
            for order in (0, 9, 11, 35, 98, 100)
        },
        "chance": [share(0.3), share(1.0), share(0.0)],
    }


@question()
def lists(lib, _):
    "Files and labels in lists, and several targets."
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.png" for i in range(12)]
        for i, file in enumerate(files):
            Image.new("RGB", (6, 6), (i, 0, 0)).save(file)

        def loaders(labels, **options):
            dls = lib.ImageDataLoaders.from_lists(
                folder, files, labels, seed=4, bs=4, num_workers=0, **options
            )
            y = torch.stack([torch.as_tensor(dls.valid_ds[i][1]) for i in range(len(dls.valid_ds))])
            return [len(dls.train_ds), str(y.dtype), y.float().tolist(), plain(dls.c)]

        words = [str(i % 3) for i in range(12)]
        series = pd.Series(words, index=range(12))
        return {
            "words": loaders(words),
            "a column": loaders(series),
            "numbers": loaders([i % 2 for i in range(12)], valid_pct=0.4),
            "with a point": loaders([i / 2 for i in range(12)]),
        }


@question()
def several_targets(lib, _):
    frame = table(12)
    block = lib.DataBlock(
        blocks=(lib.TransformBlock, lib.CategoryBlock, lib.CategoryBlock),
        n_inp=1,
        getters=[lambda row: torch.ones(2), lib.ColReader("site"), lib.ColReader("fname")],
        splitter=lib.IndexSplitter([]),
    )
    dls = block.dataloaders(frame, bs=4, num_workers=0)
    return {
        "vocab": [list(vocab) for vocab in dls.vocab],
        "c": list(dls.c),
        "lengths": [len(dls.train_ds), len(dls.c), dls.n_inp],
    }


# ---------------------------------------------------------------- asking
def ask(name: str, lib) -> dict:
    "The answer of one library, as JSON would give it back."
    with tempfile.TemporaryDirectory() as folder:
        return json.loads(json.dumps(plain(QUESTIONS[name](lib, Path(folder) / "data"))))


def main():
    import fastai
    import fastai.vision.all
    import fastcore
    import PIL
    import torchvision

    lib = SimpleNamespace(**vars(fastai.vision.all))
    modules = (fastai, fastcore, torch, torchvision, PIL, pd, np)
    answers = {}
    for name in QUESTIONS:
        print(name)
        answers[name] = ask(name, lib)
    record = {
        "command": "python tests/data_oracle.py, in an environment with fastai",
        "versions": {"python": platform.python_version()}
        | {m.__name__: m.__version__ for m in modules},
        "answers": answers,
    }
    FIXTURE.write_text(written(record))


def written(record: dict) -> str:
    "JSON with a line for each answer to a part of a question."
    answers = {name: dict.fromkeys(answer, "") for name, answer in record["answers"].items()}
    text = json.dumps(record | {"answers": answers}, indent=1)
    parts = [json.dumps(each) for answer in record["answers"].values() for each in answer.values()]
    return re.sub(r'""(?=,?\n)', lambda _: parts.pop(0), text) + "\n"


if __name__ == "__main__":
    main()
