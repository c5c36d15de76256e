"What lesson 03 does not already check: bad input, odd files, workers, and the idioms of fastai's book."

import contextlib
import os
import pickle
import subprocess
import sys
import time
import warnings
from collections import namedtuple

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import SubsetRandomSampler, TensorDataset, WeightedRandomSampler

matplotlib.use("agg")
import matplotlib.pyplot as plt
from fastcore.xtras import Path

from coursekit.batches import BatchIndices, collate, to_cpu, to_device
from coursekit.blocks import (
    CategoryBlock,
    DataBlock,
    ImageBlock,
    RegressionBlock,
    TransformBlock,
)
from coursekit.data import (
    ColReader,
    ColSplitter,
    DateSplitter,
    EndSplitter,
    FuncSplitter,
    GrandparentSplitter,
    GroupSplitter,
    IndexSplitter,
    MaskSplitter,
    RandomSplitter,
    RegexLabeller,
    get_image_files,
    parent_label,
    using_attr,
)
from coursekit.image_loaders import ImageDataLoaders
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.messages import DataError, name_of
from coursekit.pipeline import Datasets
from coursekit.transforms import (
    Categorize,
    PILImage,
    PILImageBW,
    ToTensor,
    Transform,
    arrange,
)


class Resize(Transform):
    "The simplest one: lesson 04 has the real one."

    def __init__(self, size):
        self.size = size

    def image(self, picture, drawn=None):
        return picture.resize((self.size, self.size))


class Jitter(Transform):
    "Random on training, so that one item shows differently each time."

    def draw(self, parts, kinds, training):
        return torch.rand(()).item() if training else 0.0

    def image(self, picture, drawn):
        return picture.point(lambda value: int(value * (1 - drawn / 2)))


@pytest.fixture(autouse=True)
def tidy():
    before = getattr(Path, "BASE_PATH", None)
    yield
    Path.BASE_PATH = before
    plt.close("all")


def paint(file, size=(20, 16), colour=(200, 40, 40)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file)
    return file


@pytest.fixture
def bears(tmp_path):
    "Eight pictures of each of three kinds, of several sizes."
    for k, kind in enumerate(("black", "grizzly", "teddy")):
        for i in range(8):
            paint(tmp_path / "bears" / kind / f"{i}.png", (20 + i, 16 + k), (60 * k, 20 * i, 90))
    return tmp_path / "bears"


def bears_block(**changes):
    parts = {
        "blocks": (ImageBlock, CategoryBlock),
        "get_items": get_image_files,
        "splitter": RandomSplitter(valid_pct=0.25, seed=42),
        "get_y": parent_label,
        "item_tfms": Resize(8),
    }
    return DataBlock(**parts | changes)


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


# ---------------------------------------------------------------- files
def test_files_of_an_odd_tree(tmp_path):
    names = ["b/2.PNG", "a/é ü.jpg", "a/deep/er/1.JpEg", "z.webp", "a/10.png", "a/9.png"]
    for name in (*names, ".hidden/1.png", "a/._2.jpg", "a/Thumbs.db", "a/1.txt", "b/png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    found = get_image_files(tmp_path)
    assert {str(f.relative_to(tmp_path)) for f in found if "self" not in f.parts} == set(names)
    assert not any("loop" in f.parts for f in found) and list(found) == sorted(found)


def test_linked_folders_are_followed(tmp_path):
    paint(tmp_path / "elsewhere" / "teddy" / "1.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "teddy").symlink_to(tmp_path / "elsewhere" / "teddy")
    assert [f.name for f in get_image_files(tmp_path / "set")] == ["1.png"]


def test_no_folder_and_no_files(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        get_image_files(tmp_path / "nowhere")
    assert len(get_image_files(tmp_path)) == 0
    assert len(get_image_files(str(tmp_path), folders=["train"])) == 0


# ---------------------------------------------------------------- labels
def test_labellers():
    assert RegexLabeller(r"^(\w)", match=True)("abc") == "a"
    with pytest.raises(ValueError, match="has no group"):
        RegexLabeller("abc")
    with pytest.raises(DataError, match="is not in 'x'"):
        RegexLabeller("(y)")("x")
    assert using_attr(len, "name")(Path("a/four")) == 4
    assert [name_of(f) for f in (RandomSplitter(), PILImage.create, lambda x: x, parent_label)] == [
        "RandomSplitter",
        "PILImage.create",
        "your lambda",
        "parent_label",
    ]


def test_columns():
    Row = namedtuple("Row", "fname label")
    table = pd.DataFrame({"fname": ["a", None], "label": ["x y", np.nan], "k": [1, 2]})
    assert ColReader("fname", pref=Path("p"), suff=".jpg")(table.iloc[0]) == Path("p/a.jpg")
    assert ColReader("fname", pref="p/", suff=".jpg")(table.iloc[0]) == "p/a.jpg"
    assert ColReader(["fname", "k"])(table.iloc[0]) == ["a", 1]
    assert ColReader(1, label_delim=" ")(table.iloc[0]) == ["x", "y"]
    assert ColReader("label")(Row("f", "z")) == ColReader(1)(Row("f", "z")) == "z"
    assert ColReader("label")({"label": 3}) == 3
    assert pd.isna(ColReader("fname", pref="p/")(table.iloc[1]))
    for row in (table.iloc[0], Row("f", "z"), {"a": 1}, 5):
        with pytest.raises(DataError, match="no column 'lable'"):
            ColReader("lable")(row)


def test_categories():
    given = Categorize(["b", "a"])
    given.setup(["a", "b"])
    with pytest.raises(DataError, match="'zzz', which is not in the vocabulary that was given"):
        given.setup(["a", "zzz"])
    Categorize(["b", "a"], add_na=True).setup(["zzz"])
    with pytest.raises(TypeError, match="a set has no order"):
        Categorize({"b", "a"})
    assert (given("b"), given.decode(torch.tensor(1))) == (0, "a")
    numbers = Categorize()
    numbers.setup([3, np.int64(1), torch.tensor(2)])
    assert list(numbers.vocab) == [1, 2, 3] and numbers(torch.tensor(2)) == 1
    by_appearance = Categorize(sort=False)
    by_appearance.setup(["z", "a"])
    assert list(by_appearance.vocab) == ["z", "a"]
    unknown = Categorize(["a"], add_na=True)
    assert (list(unknown.vocab), unknown("a"), unknown("q")) == (["#na#", "a"], 1, 0)
    with pytest.raises(DataError, match="twice"):
        Categorize(["a", "a"])
    with pytest.raises(DataError, match="7 is a number, 'a' is text"):
        Categorize().setup(["a", 7])
    with pytest.raises(DataError, match="one label is wanted, this is a list"):
        Categorize().setup([["a", "b"], ["a"]])
    with pytest.raises(DataError, match="there is no label, it is nan"):
        given(float("nan"))


# ---------------------------------------------------------------- splitters
def test_splitters_say_what_is_wrong():
    table = pd.DataFrame({"v": [0, 1, np.nan], "word": ["yes", "no", "no"], "d": ["1/2/24"] * 3})
    for split, words in (
        (lambda: RandomSplitter(20), "valid_pct=20"),
        (lambda: EndSplitter(0), "valid_pct=0"),
        (lambda: MaskSplitter([True])([1, 2]), "1 values for 2 items"),
        (lambda: ColSplitter("valid")(table), "no column 'valid'"),
        (lambda: ColSplitter("v")(table), "empty in row 2"),
        (lambda: ColSplitter("word")(table), "any text counts as true"),
        (lambda: ColSplitter()([1, 2]), "splits a pandas table, not list"),
        (lambda: GroupSplitter("word")([1, 2]), "give a function of one item"),
        (lambda: GroupSplitter(lambda i: "me")([1, 2]), "belong to one group"),
        (lambda: DateSplitter("d")(table), "does not sort by time"),
        (lambda: GroupSplitter("v")(pd.DataFrame({"v": [pd.NA, 1]})), "empty in row 0"),
    ):
        with pytest.raises((DataError, ValueError), match=words):
            split()


def test_splitters():
    ten = list(range(10))
    once = IndexSplitter(iter([1, 2]))
    assert once(ten) == once(ten) == ([0, 3, 4, 5, 6, 7, 8, 9], [1, 2])
    assert EndSplitter(0.3)(ten) == (ten[:7], ten[7:])
    assert EndSplitter(0.3, valid_last=False)(ten) == (ten[3:], ten[:3])
    assert FuncSplitter(lambda r: r["a"] > 7)(pd.DataFrame({"a": ten})) == (ten[:8], [8, 9])
    assert ColSplitter("w", on="no")(pd.DataFrame({"w": ["yes", "no"]})) == ([0], [1])
    paths = ["d/train/a/1", "d/dev/a/2", "d/test/a/3"]
    assert GrandparentSplitter(valid_name=["dev", "test"])(paths) == ([0], [1, 2])
    before = torch.random.get_rng_state()
    assert RandomSplitter(seed=3)(ten) == RandomSplitter(seed=3)(ten)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together(seed):
    owners = [name for i, name in enumerate("abcdefgh") for _ in range(i + 1)]
    table = pd.DataFrame({"who": owners}, index=np.arange(len(owners)) + 1000)
    train, valid = GroupSplitter("who", 0.25, seed=seed)(table)
    assert sorted(train + valid) == list(range(len(owners)))
    chosen = {owners[i] for i in valid}
    assert len(chosen) == 2 and not chosen & {owners[i] for i in train}


def test_dates():
    days = pd.to_datetime(["2024-03-01", "2024-01-01", "2024-02-01", "2024-03-01", "2024-01-05"])
    table = pd.DataFrame({"day": days})
    assert DateSplitter("day", 0.2)(table) == ([1, 2, 4], [0, 3])  # one day is not torn apart
    assert DateSplitter("day", cutoff=pd.Timestamp("2024-02-01"))(table) == ([1, 4], [0, 2, 3])
    assert DateSplitter(lambda r: r["day"].month, 0.4)(table) == ([1, 2, 4], [0, 3])
    assert DateSplitter(lambda day: day)(["2024-01-02", "2023-01-01"]) == ([1], [0])


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (lambda items: ([0, 1], []), "validation set is empty: of 24 items your lambda put 2"),
        (lambda items: ([], [0]), "training set is empty"),
        (lambda items: ([0, 1], [1]), "on both sides, number 1"),
        (lambda items: ([0, 1], [99]), "index 99 for 24 items"),
        (lambda items: [0, 1, 2], "two lists of positions"),
        (lambda items: ([True] * 24, [False] * 24), "MaskSplitter"),
    ],
)
def test_splits_are_checked(bears, split, words):
    with pytest.raises(DataError, match=words):
        bears_block(splitter=split).datasets(bears)


def test_index_labels_are_no_positions():
    table = pd.DataFrame({"x": range(6), "y": list("ababab")}, index=range(100, 106))
    block = DataBlock(
        (TransformBlock, CategoryBlock),
        get_x=ColReader("x"),
        get_y=ColReader("y"),
        splitter=lambda df: (df.index[:4].tolist(), df.index[4:].tolist()),
    )
    with pytest.raises(DataError, match="reset_index"):
        block.datasets(table)
    assert len(block.datasets(table.reset_index(drop=True)).valid) == 2


# ---------------------------------------------------------------- pictures
def test_pictures_of_all_kinds(tmp_path):
    grey = Image.new("L", (6, 4), 128)
    made = {
        "grey.png": grey,
        "palette.png": Image.new("RGB", (6, 4), (10, 200, 30)).quantize(8),
        "rgba.png": Image.new("RGBA", (6, 4), (1, 2, 3, 90)),
        "one.png": Image.new("1", (6, 4), 1),
        "cmyk.jpg": Image.new("CMYK", (6, 4)),
        "deep.png": Image.fromarray(np.full((4, 6), 32768, np.uint16)),
        "la.png": grey.convert("LA"),
    }
    for name, image in made.items():
        image.save(tmp_path / name)
        for cls, channels in ((PILImage, 3), (PILImageBW, 1)):
            opened = cls.create(tmp_path / name)
            assert isinstance(opened, cls) and opened.shape == (4, 6), name
            assert ToTensor()(opened).shape == (channels, 4, 6), name
    assert np.asarray(PILImage.create(tmp_path / "palette.png"))[0, 0].tolist() == [10, 200, 30]
    assert set(np.asarray(PILImageBW.create(tmp_path / "deep.png")).flat) == {128}
    with pytest.raises(DataError, match="scale them"):
        PILImage.create(Image.new("F", (3, 3)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(tmp_path, orientation):
    "However a camera was held, the red corner is where the note says."
    from PIL import ImageOps

    upright = Image.new("RGB", (24, 16))
    upright.paste((255, 0, 0), (0, 0, 8, 8))
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the way back, of Pillow's seven
    stored = upright.transpose(Image.Transpose(turns[orientation])) if orientation > 1 else upright
    note = Image.Exif()
    note[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=note)
    opened = PILImage.create(tmp_path / "a.png")
    assert np.array_equal(opened, upright)
    assert np.array_equal(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")), upright)
    assert opened.getexif().get(0x0112, 1) == 1


def test_pictures_from_memory(tmp_path):
    file = paint(tmp_path / "a.png")
    expected = np.asarray(PILImage.create(file))
    tensor = torch.from_numpy(expected.copy()).permute(2, 0, 1)
    for source in (file.read_bytes(), str(file), expected, tensor, tensor.float() / 255):
        assert np.array_equal(PILImage.create(source), expected)
    original = Image.open(file)
    assert PILImage.create(original) is not original and type(original) is not PILImage
    again = pickle.loads(pickle.dumps(PILImage.create(file)))
    assert np.array_equal(again, expected)
    for source, words in (
        (np.zeros((3, 3, 7)), "no picture can be made"),
        (np.zeros((3, 3), np.int64), "int64"),
        (3.5, "float 3.5 is no picture"),
        (None, "NoneType None is no picture"),
        (b"", "the file is empty"),
        (b"nonsense" * 99, "is text, not a picture"),
        (tmp_path / "nowhere.png", "is not there"),
    ):
        with pytest.raises(DataError, match=words):
            PILImage.create(source)


# ---------------------------------------------------------------- bad data
def test_empty_and_missing_source(tmp_path):
    with pytest.raises(DataError, match="get_image_files found no items in"):
        bears_block().dataloaders(tmp_path)
    with pytest.raises(DataError, match="is a place, not a list"):
        bears_block(get_items=None).dataloaders(tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        bears_block().dataloaders(tmp_path / "nowhere")
    with pytest.raises(DataError, match="returned nothing"):
        bears_block(get_items=lambda path: None).datasets(tmp_path)
    assert len(DataBlock(get_items=lambda n: (i for i in range(n))).datasets(10)) == 10
    assert len(DataBlock(get_items=lambda n: set(range(n))).datasets(10)) == 10


def test_labels_that_cannot_be(bears):
    with pytest.raises(DataError, match="have one label, 'teddy'"):
        bears_block().datasets(bears / "teddy")
    block = bears_block(blocks=(ImageBlock, CategoryBlock(vocab=["teddy"])))
    assert block.datasets(bears / "teddy").c == 1  # said on purpose
    only_valid = FuncSplitter(lambda file: parent_label(file) == "teddy")
    with pytest.raises(DataError, match=r"validation item .*teddy.* 'teddy' is not among the 2"):
        bears_block(splitter=only_valid).datasets(bears)
    with pytest.raises(DataError, match="has no label, it is None"):
        bears_block(get_y=lambda file: None).datasets(bears)
    with pytest.raises(DataError, match="has no label, it is ''"):
        bears_block(get_y=lambda file: "").datasets(bears)
    with pytest.raises(DataError, match="mixed type"):
        bears_block(get_y=lambda f: 1 if f.parent.name == "teddy" else "a").datasets(bears)
    with pytest.raises(DataError, match=r"your lambda failed on .*KeyError"):
        bears_block(get_y=lambda file: {}[file]).datasets(bears)
    with pytest.raises(DataError, match="a label of its own: look at what get_y returns"):
        bears_block(get_y=None).datasets(bears)


@pytest.mark.parametrize("where", [0, 9])
@pytest.mark.parametrize("value", [np.nan, None, pd.NA, pd.NaT])
def test_holes_in_a_table(where, value):
    table = pd.DataFrame({"x": range(10), "y": list("ab" * 5)}, dtype=object)
    table.loc[where, "y"] = value
    block = DataBlock(
        (TransformBlock, CategoryBlock), get_y=ColReader("y"), splitter=IndexSplitter([8, 9])
    )
    with pytest.raises(DataError, match="no label, it is"):
        block.datasets(table)


def test_holes_in_numbers():
    table = pd.DataFrame({"x": range(10), "y": [1.0] * 9 + [np.nan]})
    for valid in ([8], [9]):
        block = DataBlock(
            (TransformBlock, RegressionBlock), get_x=ColReader("x"), get_y=ColReader("y")
        )
        with pytest.raises(DataError, match="nan"):
            block.new(splitter=IndexSplitter(valid)).datasets(table)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture(bears, workers):
    broken = bears / "grizzly" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    block = bears_block(splitter=IndexSplitter([0, 23]))
    loaders = block.dataloaders(bears, bs=4, num_workers=workers, drop_last=False)
    start = time.perf_counter()
    with pytest.raises(DataError, match=r"grizzly/3.png is damaged .*verify_images") as caught:
        list(loaders.train)
    assert len(str(caught.value).splitlines()) == 1
    list(loaders.valid)  # the next loop starts at once
    assert time.perf_counter() - start < 60  # and does not wait for ever
    with pytest.warns(UserWarning, match=r"left out .*grizzly/3.png") as noticed:
        kept = block.dataloaders(
            bears, bs=4, num_workers=workers, drop_last=False, skip_broken=True
        )
        assert sum(len(y) for x, y in kept.train) == 21
    assert sum("left out" in str(one.message) for one in noticed) == 1


def test_a_batch_of_nothing_but_broken(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for file in files:
        file.write_bytes(b"no")
    loader = DataLoader(Datasets(files, [[PILImage.create]]), bs=2, skip_broken=True, num_workers=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert list(loader) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_unequal_sizes(bears, workers):
    loaders = bears_block(item_tfms=None).dataloaders(bears, num_workers=workers, bs=8)
    with pytest.raises(DataError, match=r"differ in shape \(.*item_tfms=Resize"):
        list(loaders.train)
    with pytest.raises(DataError, match=r"shape \(\(2,\), \(3,\)\) and cannot be stacked$"):
        collate([torch.zeros(2), torch.zeros(3)])
    with pytest.raises(DataError, match="let a transform turn it into a tensor"):
        collate([Image.new("RGB", (2, 2))] * 2)
    with pytest.raises(DataError, match="more parts than others"):
        collate([(1, 2), (1,)])


def test_wrong_arguments(bears):
    with pytest.raises(TypeError, match="a generator has not"):
        DataLoader(i for i in range(3))
    for make in (
        lambda: DataLoader([1, 2], bs=0),
        lambda: bears_block().dataloaders(bears, bs=0),
        lambda: bears_block().dataloaders(bears, batch_size=-1),
    ):
        with pytest.raises(ValueError, match="at least 1"):
            make()
    with pytest.raises(TypeError, match="no part splittr"):
        bears_block().new(splittr=None)
    with pytest.raises(TypeError, match="is no block"):
        DataBlock((ImageBlock, "category"))
    with pytest.raises(ValueError, match="1 getters for 2 blocks"):
        DataBlock((ImageBlock, CategoryBlock), getters=[parent_label])
    with pytest.raises(DataError, match="training set is empty"):
        DataLoaders.from_dsets([], [1])
    with pytest.raises(TypeError, match="indexed by a number"):
        Datasets([1, 2, 3])["a"]
    with pytest.raises(DataError, match="there is no validation loader"):
        _ = DataLoaders([1]).valid


# ---------------------------------------------------------------- the book's idioms
def test_show_batch(bears):
    loaders = bears_block(item_tfms=[Resize(8), Jitter]).dataloaders(bears, bs=12, num_workers=0)
    for show, count in (
        (lambda: loaders.show_batch(max_n=9), 9),
        (lambda: loaders.valid.show_batch(max_n=4, nrows=1), 4),
        (lambda: loaders.train.show_batch(max_n=8, nrows=2, unique=True), 8),
        (lambda: loaders.show_batch(max_n=100), 12),
        (lambda: loaders.train.show_batch(loaders.one_batch(), max_n=2), 2),
        (lambda: loaders.show_batch(nrows=1, ncols=3), 3),
    ):
        show()
        axes = plt.gcf().axes
        assert len(axes) == count and all(ax.images and ax.get_title() for ax in axes)
        plt.close("all")
    loaders.train.show_batch(max_n=4, unique=True)
    shown = [np.asarray(ax.images[0].get_array()) for ax in plt.gcf().axes]
    assert (
        len({ax.get_title() for ax in plt.gcf().axes}) == 1
    )  # one item, by chance each time another
    assert any(not np.array_equal(shown[0], other) for other in shown[1:])


def test_show_batch_of_other_things(capsys):
    DataLoaders.from_dsets([(torch.tensor(1.0), 2)] * 4, [1]).show_batch(max_n=2)
    assert "1.0" in capsys.readouterr().out
    DataLoaders(TorchDataLoader([(torch.zeros(3, 4, 4), 1)] * 4, batch_size=2)).show_batch()
    assert len(plt.gcf().axes) == 2


def test_labels_in_a_table_are_text(monkeypatch):
    shown, labels = [], ["<script>alert(1)</script>", "$x$"]
    monkeypatch.setattr("IPython.display.display", lambda table: shown.append(table._repr_html_()))
    dsets = Datasets([0, 1] * 4, [[lambda i: float(i)], [lambda i: labels[i], Categorize()]])
    DataLoaders.from_dsets(dsets, dsets, bs=8, num_workers=0).show_batch()
    assert "&lt;script&gt;" in shown[0] and "<script>" not in shown[0]
    assert "$x$" in shown[0] and "tex2jax_ignore" in shown[0]


def test_pets_summary(tmp_path, capsys):
    for i, name in enumerate(["great_pyrenees", "Abyssinian", "basset_hound"] * 4):
        paint(tmp_path / "images" / f"{name}_{i}.jpg", (20 + i, 16))
    pets = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        splitter=RandomSplitter(seed=42),
        get_y=using_attr(RegexLabeller(r"(.+)_\d+.jpg$"), "name"),
        item_tfms=Resize(16),
    )
    Path.BASE_PATH = tmp_path
    pets.summary(tmp_path)
    said = capsys.readouterr().out
    for words in ("12 items", "10 to train on, 2", "great_pyrenees", "Resize", "(4, 3, 16, 16)"):
        assert words in said
    assert "All steps work" in said and str(tmp_path) not in said
    pets.summary(tmp_path, show_batch=True)
    assert len(plt.gcf().axes) == 4
    dls = pets.dataloaders(tmp_path / "images")
    assert list(dls.vocab) == ["Abyssinian", "basset_hound", "great_pyrenees"] and dls.c == 3


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"get_items": lambda path: []}, "finding the items"),
        ({"get_items": lambda path: 1 / 0}, "finding the items:\n  ZeroDivisionError"),
        ({"splitter": lambda items: 1}, "the split"),
        ({"get_y": lambda file: None}, "the labels"),
        ({"blocks": (ImageBlock, RegressionBlock)}, "the labels"),
        ({"get_x": lambda file: file.with_suffix(".gone")}, "PILImage.create"),
        ({"item_tfms": [lambda picture: 1 / 0]}, "the transform your lambda"),
        ({"item_tfms": None}, "stacking the items"),
        ({"batch_tfms": lambda batch: batch @ 1}, "the transform your lambda"),
    ],
)
def test_summary_says_where_it_breaks(bears, capsys, changes, where):
    bears_block(**changes).summary(bears)
    said = capsys.readouterr().out
    assert f"It breaks here, at {where}" in said and "All steps work" not in said


def test_table_idioms(tmp_path):
    table = pd.DataFrame(
        {"fname": [f"{i}.png" for i in range(10)], "labels": list("ab" * 5), "is_valid": [0, 1] * 5}
    )

    def splitter(df):
        return df.index[df["is_valid"] == 0].tolist(), df.index[df["is_valid"] == 1].tolist()

    block = DataBlock(
        blocks=(TransformBlock, CategoryBlock),
        splitter=splitter,
        get_x=lambda r: r["fname"],
        get_y=lambda r: r["labels"],
    )
    table["labels"] = list("aabba" * 2)
    dsets = block.datasets(table)
    assert dsets.train[0] == ("0.png", 0) and dsets.valid[1] == ("3.png", 1)
    assert list(dsets.vocab[torch.tensor([1, 0])]) == ["b", "a"]
    assert dsets.decode(dsets.train[1]) == ("2.png", "b")
    for i in range(10):
        paint(tmp_path / "pics" / f"{i}.png")
    table.to_csv(tmp_path / "labels.csv", index=False)
    whole = {"valid_col": "is_valid", "item_tfms": Resize(8), "bs": 2}
    first = ImageDataLoaders.from_df(table, tmp_path, folder="pics", **whole)
    second = ImageDataLoaders.from_csv(tmp_path, folder="pics", **whole)
    assert first.path == tmp_path and same(list(first.valid), list(second.valid))


def test_one_line_loaders(bears):
    files, small = get_image_files(bears), {"item_tfms": Resize(8), "seed": 42, "valid_pct": 0.25}
    block = bears_block().dataloaders(bears, bs=64)
    made = [
        ImageDataLoaders.from_folder(bears, **small),
        ImageDataLoaders.from_path_func(bears, files, parent_label, **small),
        ImageDataLoaders.from_path_re(bears, files, r"(\w+)/\d+\.png$", **small),
    ]
    for loaders in made:
        assert same(list(loaders.valid), list(block.valid)) and loaders.path == bears
    by_name = [
        ImageDataLoaders.from_name_func(bears, files, lambda name: int(name[0]) > 3, **small),
        ImageDataLoaders.from_name_re(bears, files, r"^(\d)", **small),
    ]
    assert list(by_name[0].vocab) == [False, True] and by_name[1].c == 8


def test_from_folder_with_a_split_in_it(tmp_path):
    for side, n in (("train", 4), ("valid", 2), ("rest", 3)):
        for kind in "37":
            for i in range(n):
                paint(tmp_path / side / kind / f"{i}.png")
    loaders = ImageDataLoaders.from_folder(tmp_path, img_cls=PILImageBW, bs=4)
    assert (loaders.train.n, loaders.valid.n) == (8, 4)
    assert loaders.one_batch()[0].shape == (4, 1, 16, 20)


def test_lists_of_pairs_and_torch_loaders():
    x, y = torch.randn(20, 3), torch.arange(20)
    dset = list(zip(x, y, strict=True))
    for loaders in (
        DataLoaders.from_dsets(dset, dset, bs=8),
        DataLoaders(DataLoader(dset, batch_size=8), DataLoader(dset, batch_size=8)),
        DataLoaders(TorchDataLoader(dset, batch_size=8), TorchDataLoader(dset, batch_size=8)),
    ):
        first, targets = loaders.one_batch()
        assert first.shape == (8, 3) and targets.shape == (8,) and loaders.bs == 8
        assert torch.equal(torch.cat([b for _, b in loaders.valid]), y)
    with pytest.raises(DataError, match="these are DataLoader"):
        loaders.new(bs=2)
    with pytest.raises(DataError, match="number of items 0"):
        DataLoaders([]).one_batch()
    meta = DataLoaders(TorchDataLoader(dset, batch_size=8), device="meta")
    assert meta.one_batch()[0].device.type == "meta"
    assert sorted(
        torch.cat(list(DataLoader(range(15), batch_size=5, shuffle=True))).tolist()
    ) == list(range(15))


# ---------------------------------------------------------------- loaders
def test_last_batches(bears):
    def sizes(loader):
        return [len(y) for x, y in loader]

    dls = bears_block().dataloaders(bears, bs=8, num_workers=0)
    assert (sizes(dls.train), sizes(dls.valid)) == ([8, 8], [6]) and len(dls.train) == 2
    dls = bears_block().dataloaders(bears, bs=7, val_bs=4, num_workers=0)
    assert (sizes(dls.train), sizes(dls.valid)) == ([7, 7], [4, 2])
    assert sizes(bears_block().dataloaders(bears, num_workers=0).train) == [18]  # less than a batch
    assert sizes(bears_block().dataloaders(bears, bs=7, drop_last=False, num_workers=0).train) == [
        7,
        7,
        4,
    ]
    assert len(BatchIndices(10, 4)) == 3 == len(list(BatchIndices(10, 4)))
    assert list(BatchIndices(0, 4)) == []


def test_seeded_shuffling_repeats():
    def epochs(**changes):
        loader = DataLoader(range(30), bs=8, shuffle=True, **{"seed": 3} | changes)
        loader.one_batch()  # looking does not disturb the order
        return [torch.cat(list(loader)).tolist() for _ in range(3)]

    assert epochs() == epochs() != epochs(seed=4)
    assert len({tuple(epoch) for epoch in epochs()}) == 3
    torch.manual_seed(0)
    first = epochs(seed=None)
    torch.manual_seed(0)
    assert epochs(seed=None) == first


def test_workers_change_nothing(bears):
    def loaded(workers):
        dls = bears_block(batch_tfms=lambda batch: batch * 2).dataloaders(
            bears, bs=5, seed=1, num_workers=workers
        )
        return [list(dls.train), list(dls.train), list(dls.valid)]

    assert all(same(a, b) for a, b in zip(loaded(0), loaded(2), strict=True))
    torch.manual_seed(5)
    one = list(DataLoader(list(range(40)), bs=8, shuffle=True, num_workers=0))
    torch.manual_seed(5)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            one, DataLoader(list(range(40)), bs=8, shuffle=True, num_workers=2), strict=True
        )
    )


def test_lambdas_and_random_items_in_workers(bears):
    block = bears_block(item_tfms=[Resize(8), Jitter, lambda picture: picture.rotate(90)])
    torch.manual_seed(0)
    first = list(block.dataloaders(bears, bs=9, seed=1, num_workers=2).train)
    torch.manual_seed(0)
    again = list(block.dataloaders(bears, bs=9, seed=1, num_workers=2).train)
    other = list(block.dataloaders(bears, bs=9, seed=1, num_workers=2).train)
    assert same(first, again) and not same(first, other)


class Fails:
    "A dataset of which item 7 raises."

    def __len__(self):
        return 200

    def __getitem__(self, i):
        if i == 7:
            raise KeyError("seven")
        return torch.tensor(i)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_ends_quickly(workers):
    loader = DataLoader(Fails(), bs=2, num_workers=workers)
    start = time.perf_counter()
    for _ in range(2):
        with pytest.raises(DataError, match=r"^item 7: KeyError: 'seven'"):
            list(loader)
    assert next(iter(loader)).tolist() == [0, 1]
    for _ in loader:
        break
    assert time.perf_counter() - start < 60


def test_in_memory_is_the_slow_path(monkeypatch):
    data = TensorDataset(torch.arange(50.0).view(25, 2), torch.arange(25))
    how = {"bs": 4, "shuffle": True, "seed": 9, "after_batch": lambda x: x + 1}
    fast, slow = DataLoader(data, **how), DataLoader(data, **how, num_workers=2)
    lists = DataLoader(list(data), **how)
    assert fast.in_memory and not slow.in_memory and not lists.in_memory
    batches = list(fast)
    assert same(batches, list(slow)) and same(batches, list(lists))
    assert [type(batch) for batch in batches] == [tuple] * 7
    chosen = DataLoader(data, batch_sampler=[[3, 1], [2]])
    assert [y.tolist() for x, y in chosen] == [[3, 1], [2]] and len(chosen) == 2
    assert len(chosen.new(data, bs=5)) == 5


def test_own_sampler_and_collating(bears):
    dsets = bears_block().datasets(bears)
    loader = DataLoader(dsets.train, batch_sampler=[[0, 0], [1]], collate_fn=len, num_workers=2)
    assert list(loader) == [2, 1]
    loaders = DataLoaders.from_dsets(range(9), range(4), batch_sampler=[[8], [7]], bs=3)
    assert torch.cat(list(loaders.train)).tolist() == [8, 7] and len(loaders.valid) == 2


def test_several_inputs(bears):
    block = DataBlock(
        blocks=(ImageBlock, ImageBlock(PILImageBW), CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        n_inp=2,
        item_tfms=Resize(8),
    )
    dls = block.dataloaders(bears, bs=4)
    colour, grey, label = dls.one_batch()
    assert colour.shape == (4, 3, 8, 8) and grey.shape == (4, 1, 8, 8) and label.shape == (4,)
    assert dls.n_inp == 2 and dls.kinds == ("image", "image", "category")
    assert len(dls.test_dl(get_image_files(bears)).one_batch()) == 2
    targets = DataBlock(
        (TransformBlock, RegressionBlock, CategoryBlock),
        n_inp=1,
        getters=[lambda i: i, lambda i: i / 2, lambda i: i % 2],
    )
    assert [part.shape for part in targets.dataloaders(range(20), bs=4).one_batch()] == [(4,)] * 3


def test_numbers_as_targets():
    one = DataBlock((TransformBlock, RegressionBlock), get_y=lambda i: i / 3)
    two = one.new(get_y=lambda i: (i, -i))
    for block, shape, c in ((one, (4,), 1), (two, (4, 2), 2)):
        dls = block.dataloaders(range(20), bs=4)
        y = dls.one_batch()[1]
        assert (y.shape, y.dtype, dls.c) == (shape, torch.float32, c)
    assert one.datasets(range(20)).decode((3, torch.tensor(1.5))) == (3, 1.5)


def test_test_dl(bears):
    dls = bears_block(item_tfms=[Resize(8), Jitter]).dataloaders(bears, bs=5)
    files = get_image_files(bears)[::-1]
    plain = dls.test_dl(files)
    assert [len(batch) for batch in plain] == [1] * 5 and plain.n == 24
    labelled = dls.test_dl(files, with_labels=True)
    assert torch.cat([y for x, y in labelled]).tolist() == [2] * 8 + [1] * 8 + [0] * 8
    assert same(
        list(plain), [batch[:1] for batch in dls.test_dl(files, with_labels=True)]
    )  # nothing random
    table = pd.DataFrame(
        {"f": [f"{f.parent.name}/{f.name}" for f in files], "l": [f.parent.name for f in files]}
    )
    by_table = ImageDataLoaders.from_df(
        table, bears, label_col="l", item_tfms=Resize(8), seed=1, bs=4
    )
    some = by_table.test_dl(table.iloc[5:8])
    assert some.n == 3 and some.one_batch()[0].shape == (3, 3, 8, 8)
    with pytest.raises(DataError, match="there is no column"):
        list(by_table.test_dl(table[["f"]], with_labels=True, num_workers=0))
    assert by_table.test_dl(table[["f"]]).n == 24  # without labels it needs none
    with pytest.raises(DataError, match="test_dl needs loaders made by a DataBlock"):
        DataLoaders.from_dsets([1, 2], [3]).test_dl([4])


def by_rows(bears, kind):
    "Loaders whose items are rows of a table, in each of the usual ways, and the files in order."
    files = get_image_files(bears)
    names = [f"{f.parent.name}/{f.stem}" for f in files]
    table = pd.DataFrame({"f": names, "l": [f.parent.name for f in files]})
    given = {"item_tfms": Resize(8), "seed": 1, "bs": 4, "num_workers": 0}
    if kind == "from_df":
        return ImageDataLoaders.from_df(table, bears, suff=".png", **given), files
    if kind == "from_csv":
        table.to_csv(bears / "labels.csv", index=False)
        return ImageDataLoaders.from_csv(bears, suff=".png", **given), files
    ways = {
        "ColReader": (table, ColReader("f", pref=f"{bears}/", suff=".png")),
        "function": (table, lambda row: bears / f"{row['f']}.png"),
        "dicts": (table.to_dict("records"), lambda row: bears / f"{row['f']}.png"),
        "tuples": (list(zip(names, table.l, strict=True)), lambda row: bears / f"{row[0]}.png"),
        "numbers": (list(range(24)), lambda i: files[i]),
    }
    items, get_x = ways[kind]
    block = bears_block(get_items=None, get_x=get_x, get_y=lambda row: str(id(row))[-1:])
    block = block.new(blocks=(ImageBlock, CategoryBlock(vocab=list("0123456789"))))
    return block.dataloaders(items, bs=4, num_workers=0), files


@pytest.mark.parametrize("kind", "from_df from_csv ColReader function dicts tuples numbers".split())
def test_one_way_in_for_every_form_of_a_picture(bears, kind):
    "A picture in any form begins where it is opened; a row goes through the getter, as in training."
    dls, files = by_rows(bears, kind)
    forms = {"path": Path, "text": str, "bytes": Path.read_bytes}
    forms |= {
        "bytearray": lambda file: bytearray(file.read_bytes()),
        "file": lambda f: f.open("rb"),
    }
    forms |= {"view": lambda file: memoryview(file.read_bytes()), "picture": PILImage.create}
    forms |= {"array": lambda f: np.array(Image.open(f)), "Pillow": Image.open}
    forms["tensor"] = lambda f: torch.from_numpy(np.array(Image.open(f))).permute(2, 0, 1)
    files = files[5:8]
    wanted = torch.cat([to_pixels(file) for file in files])
    for name, form in forms.items():
        found = torch.cat([batch[0] for batch in dls.test_dl([form(file) for file in files])])
        assert same(found, wanted), name
    rows = dls.train_ds._all
    rows = rows.iloc[5:8] if hasattr(rows, "iloc") else rows[5:8]
    found = torch.cat([batch[0] for batch in dls.test_dl(rows)])
    assert same(found, wanted)


def to_pixels(file):
    picture = PILImage.create(file).resize((8, 8))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255


def test_a_name_is_no_row_and_no_path(bears):
    "A text was read by its letters: column 0 of 'd/cat' was 'd'."
    dls = by_rows(bears, "from_df")[0]
    with pytest.raises(
        DataError, match=r"no file 'black/0'.*whole path.*black/0.png.*test_dl\(table"
    ):
        dls.test_dl(["black/0"]).one_batch()
    numbers = DataBlock((TransformBlock, CategoryBlock), get_x=ColReader(0), get_y=ColReader(1))
    with pytest.raises(DataError, match="there is no column 0"):
        numbers.dataloaders([(1, "a"), (2, "b")] * 4, bs=2).test_dl([5]).one_batch()


def test_items_of_the_form_of_training_are_not_taken_for_pictures(bears):
    "Where training had names, or files that stand for others, these go through the getter."
    names = [str(file.relative_to(bears)) for file in get_image_files(bears)]
    block = bears_block(get_items=None, get_x=lambda name: bears / name)
    dls = block.dataloaders(names, bs=4, num_workers=0)
    wanted = to_pixels(bears / names[9])
    assert same(dls.test_dl(names[9:10]).one_batch()[0], wanted)
    assert same(dls.test_dl([bears / names[9]]).one_batch()[0], wanted)
    other = bears_block(get_x=lambda file: file.parent / "0.png").dataloaders(bears, bs=4)
    assert same(
        other.test_dl([bears / names[9]]).one_batch()[0],
        to_pixels((bears / names[9]).parent / "0.png"),
    )
    assert same(other.test_dl([str(bears / names[9])]).one_batch()[0], wanted)  # as in fastai
    labels = dls.test_dl(names[:3], with_labels=True).one_batch()[1]
    assert labels.tolist() == [0, 0, 0]


def test_the_items_behind_the_batches(bears):
    dls = bears_block().dataloaders(bears, bs=5, num_workers=0)
    assert list(dls.items) == list(dls.train.items) == list(dls.train_ds.items)
    assert list(dls.valid.items) == list(dls.valid_ds.items) and dls.dataset is dls.train_ds
    files = get_image_files(bears)
    assert dls.test_dl(files).items is files
    table = by_rows(bears, "from_df")[0]
    assert list(table.valid.items.l) == [table.vocab[y] for _, y in table.valid_ds]
    assert DataLoader([3, 4], 2).items == [3, 4]


@pytest.mark.parametrize("workers", [0, 2])
def test_items_that_were_left_out_are_not_among_the_items(bears, workers):
    files = get_image_files(bears)
    for i in (3, 4, 20):
        files[i].write_text("no picture")
    dls = bears_block(splitter=IndexSplitter([1])).dataloaders(
        bears, bs=5, skip_broken=True, num_workers=0
    )
    loader = dls.test_dl(files, skip_broken=True, num_workers=workers)
    assert loader.kept == list(range(24))
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = sum(len(batch[0]) for batch in loader)
        assert loader.kept == [i for i in range(24) if i not in (3, 4, 20)] and rows == 21
        assert list(loader.items) == [files[i] for i in loader.kept]


def test_three_sets():
    dsets = Datasets(list("abcdef"), [[str.upper], [ord]], ([0, 1, 2], [3], [4, 5]))
    assert list(dsets.subset(2)) == [("E", 101), ("F", 102)] and len(dsets.valid) == 1
    dls = dsets.dataloaders(bs=2)
    assert len(dls) == 3 and next(iter(dls[2]))[0] == ["E", "F"]
    labelled = Datasets(list("abca"), [[str.upper], [ord, Categorize]], ([0, 1], [2], [3]))
    assert list(labelled.vocab) == [97, 98] and labelled.subset(2)[0] == ("A", 0)
    with pytest.raises(DataError, match="on both sides, number 1"):
        Datasets([1, 2, 3], splits=([0], [1], [2, 1]))
    for wrong in ([0, 1], ([0, 1],)):
        with pytest.raises(DataError, match="two lists of positions"):
            Datasets([1, 2, 3], splits=wrong)


def test_a_loader_in_order():
    x = TensorDataset(torch.arange(10))

    def seen(loader):
        return torch.cat([batch[0] for batch in loader]).tolist()

    weighted = WeightedRandomSampler([1.0] + [0.0] * 9, 30)
    for given in (
        {"shuffle": True, "drop_last": True},
        {"drop_last": True},
        {"sampler": weighted},
        {"batch_sampler": [[3, 1], [7]]},
        {"training": True},
    ):
        loader = DataLoader(x, 4, **given).ordered()
        assert seen(loader) == list(range(10)) and not loader.training
    plain = DataLoader(x, 4)
    assert plain.ordered() is plain
    some = DataLoader(x, 4, sampler=SubsetRandomSampler([7, 2, 5])).ordered()
    assert seen(some) == seen(some.ordered()) == some.kept == [2, 5, 7]


def test_new_and_to(bears):
    dls = bears_block().dataloaders(bears, bs=5, path="somewhere", num_workers=0)
    other = dls.new(bs=3, after_item=[Resize(6), ToTensor])
    assert dls.one_batch()[0].shape == (5, 3, 8, 8) and other.one_batch()[0].shape == (3, 3, 6, 6)
    assert (other.path, other.train.training, other.valid.training) == (
        Path("somewhere"),
        True,
        False,
    )
    assert dls.new([(1, 2)] * 4, bs=2).train.n == 4
    assert dls.to("meta") is dls and dls.one_batch()[0].device.type == "meta" == dls.device.type
    assert dls.cpu().one_batch()[0].device.type == "cpu"
    pair = namedtuple("Pair", "x y")(torch.ones(2), {"deep": [torch.ones(3)]})
    moved = to_device(pair, "meta")
    assert moved.x.device.type == "meta" == moved.y["deep"][0].device.type and type(moved) is type(
        pair
    )
    assert to_cpu([torch.ones(2, requires_grad=True)])[0].requires_grad is False


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(bears):
    dls = bears_block().dataloaders(bears, bs=4)
    assert all(part.is_cuda for part in dls.one_batch()) and all(x.is_cuda for x, y in dls.train)
    dls.show_batch()


# ---------------------------------------------------------------- transforms
def test_transforms_in_order():
    first, second = Resize(4), Resize(8)
    assert arrange([ToTensor, first, second])[:2] == [first, second]
    assert arrange(None) == [] and len(arrange(first)) == 1
    steps = arrange([lambda picture: picture.rotate(90)])
    parts = (Image.new("RGB", (4, 2)), "teddy")
    assert steps[0].apply(parts, ("image", "category"))[0].size == (4, 2)
    assert steps[0].apply(parts, ("image", "category"))[1] == "teddy"
    loader = DataLoader([(1, 2), (3, 4)], after_item=lambda x: -x, num_workers=0)
    assert [part.tolist() for part in loader.one_batch()] == [
        [-1, -3],
        [2, 4],
    ]  # no picture: the first part


def test_neighbours_join():
    class Add(Transform):
        def __init__(self, n):
            self.n = n

        def join(self, following):
            return Add(self.n + following.n) if isinstance(following, Add) else None

    assert [getattr(s, "n", None) for s in arrange([Add(1), Add(2), ToTensor, Add(4)])] == [7, None]


def test_datasets():
    dsets = Datasets(list("abcd"), [[str.upper], [ord]], ([0, 2], [1]))
    assert [dsets[i] for i in range(4)] == list(dsets) == [(c.upper(), ord(c)) for c in "abcd"]
    assert list(dsets.train) == [("A", 97), ("C", 99)] and dsets.valid[np.int64(0)] == ("B", 98)
    assert dsets.train[torch.tensor(1)] == ("C", 99)
    assert list(dsets.items) == list("abcd") and list(dsets.valid.items) == ["b"]
    table = pd.DataFrame({"a": range(4)})
    assert Datasets(table, splits=([3, 0], [1])).train.items["a"].tolist() == [3, 0]
    assert "4 items" in repr(dsets) and dsets.vocab is None and dsets.c is None
    with pytest.raises(DataError, match="on both sides"):
        Datasets([1, 2], splits=([0], [0]))
    assert len(Datasets([1, 2]).valid) == 0


def test_labels_that_are_files_are_not_opened_early(bears):
    "Words and numbers are looked at beforehand; a mask, which has a vocabulary too, would have to be opened."
    opened = []

    class OpensMask:
        kind, vocab = "mask", ["sky", "bear"]

        def __call__(self, file):
            opened.append(file)
            return torch.zeros(2, 2, dtype=torch.long)

    block = bears_block(blocks=(ImageBlock, TransformBlock(OpensMask())), get_y=None)
    dsets = block.datasets(bears)
    assert not opened and list(dsets.vocab) == ["sky", "bear"]
    dsets.valid[0]
    assert len(opened) == 1
    with pytest.raises(DataError, match=r"the validation item .* is no number"):
        block.new(blocks=(ImageBlock, RegressionBlock(1)), get_y=parent_label).datasets(bears)


def test_a_splitter_written_by_hand():
    table = pd.DataFrame({"x": list("abcd"), "y": list("ppqq"), "held": [False, True, False, True]})

    def splitter(df):
        valid = [i for i, held in enumerate(df["held"]) if held]
        return [i for i in range(len(df)) if i not in valid], valid

    both = (TransformBlock, CategoryBlock)
    block = DataBlock(both, splitter=splitter, get_x=ColReader("x"), get_y=ColReader("y"))
    dsets = block.datasets(table)
    assert [x for x, _ in dsets.train] == ["a", "c"] and [x for x, _ in dsets.valid] == ["b", "d"]


def test_import_is_light():
    "Neither pandas nor torchvision is imported before it is needed."
    code = "import sys, coursekit.data; print([m for m in ('pandas', 'torchvision', 'timm') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_no_worker_is_left(bears):
    if not Path("/proc").exists():
        pytest.skip("needs /proc")

    def children():
        found = set()
        for task in Path(f"/proc/{os.getpid()}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
                found |= set((task / "children").read_text().split())
        return found

    before = children()
    dls = bears_block().dataloaders(bears, bs=2, num_workers=2)
    for _ in dls.train:
        break
    next(iter(dls.valid))
    assert children() <= before
