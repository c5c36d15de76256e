"""Ways in that people's scripts use: lists, weights, several targets, pictures made by a call."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from coursekit.batches import BatchIndices
from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock, RegressionBlock
from coursekit.data import ColReader, IndexSplitter, RandomSplitter, get_image_files
from coursekit.exporting import load_learner
from coursekit.image_loaders import ImageDataLoaders
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.messages import DataError
from coursekit.multilabel import MultiCategoryBlock  # noqa: F401 - from_lists finds it by its kind
from coursekit.pipeline import Datasets
from coursekit.resizing import Resize
from coursekit.transforms import PILImage, PILImageBW
from coursekit.vision import vision_learner


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp("lists")
    for i in range(20):
        Image.new("RGB", (12, 10), (i * 12, 0, 255 * (i % 2))).save(path / f"{i:02}.png")
    return get_image_files(path)


# ---------------------------------------------------------------- lists
def from_lists(files, labels, **changes):
    return ImageDataLoaders.from_lists(
        Path(files[0]).parent,
        files,
        labels,
        **{"item_tfms": Resize(8), "bs": 4, "seed": 1} | changes,
    )


def test_files_and_labels_in_lists(files):
    labels = ["even" if i % 2 == 0 else "odd" for i in range(20)]
    # an index of its own, as train_test_split leaves it
    column = pd.Series(labels, index=range(50, 30, -1))
    for given in (labels, tuple(labels), column, np.array(labels)):
        dls = from_lists(list(map(str, files)), given, valid_pct=0.3)
        assert list(dls.vocab) == ["even", "odd"] and len(dls.valid_ds) == 6
        for i in range(6):
            picture, label = dls.valid_ds[i]
            assert label == (picture.getpixel((0, 0))[2] == 255)
    train, valid = RandomSplitter(0.3, seed=1)(files)
    assert dls.train_ds.indices == train and dls.valid_ds.indices == valid


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([i % 2 for i in range(20)], "category"),
        ([i / 2 for i in range(20)], "regression"),
        (np.arange(20) / 2, "regression"),
        ([["a"], ["a", "b"]] * 10, "multicategory"),
    ],
)
def test_the_block_follows_from_the_labels(files, labels, kind):
    assert from_lists(files, labels).kinds == ("image", kind)


def test_other_blocks_lengths_and_none(files):
    whole = from_lists(files, list(range(20)), y_block=RegressionBlock)
    assert whole.one_batch()[1].dtype == torch.float32
    grey = from_lists(files, ["a", "b"] * 10, img_cls=PILImageBW)
    assert grey.one_batch()[0].shape == (4, 1, 8, 8)
    with pytest.raises(DataError, match="20 files and 3 labels"):
        from_lists(files, ["a", "b", "a"])
    with pytest.raises(DataError, match="holds no items"):
        ImageDataLoaders.from_lists(".", [], [])


def test_lists_go_all_the_way(files, tmp_path):
    learn = vision_learner(from_lists(files, ["a", "b"] * 10), "resnet10t", pretrained=False)
    learn.path = tmp_path
    learn.fit(1)
    learn.export("l.pkl")
    again = load_learner(tmp_path / "l.pkl")
    assert list(again.dls.vocab) == ["a", "b"]


# ---------------------------------------------------------------- weights
def test_items_are_drawn_by_weight():
    weights = [0, 1, 2, 5] * 50
    drawn = [i for batch in BatchIndices(200, 20, True, seed=0, wgts=weights) for i in batch]
    assert len(drawn) == 200
    many = BatchIndices(200, 200, True, seed=0, wgts=weights)
    counts = np.bincount([i % 4 for _ in range(100) for i in next(iter(many))], minlength=4)
    np.testing.assert_allclose(counts / 20_000, [0, 1 / 8, 2 / 8, 5 / 8], atol=0.02)
    assert counts[0] == 0
    still = BatchIndices(200, 200, False, wgts=weights)
    assert next(iter(still)) == list(range(200))


def test_weights_are_for_training_alone():
    dsets = Datasets(list(range(20)), splits=(list(range(10, 20)), list(range(10))))
    dls = dsets.weighted_dataloaders([0] * 9 + [1], bs=5, seed=0)
    assert torch.cat([x for (x,) in dls.train]).tolist() == [19] * 10
    assert torch.cat([x for (x,) in dls.valid]).tolist() == list(range(10))
    # another order or other items: as ever
    assert sorted(torch.cat([x for (x,) in dls.train.new(shuffle=False)]).tolist()) == [
        *range(10, 20)
    ]
    assert len(dls.train.new(dsets.valid)) == 2
    sampled = DataLoaders.from_dsets([1, 2, 3], [4, 5], bs=1, sampler=[2, 2, 0])
    assert torch.cat(list(sampled.train)).tolist() == [3, 3, 1]
    assert torch.cat(list(sampled.valid)).tolist() == [4, 5]


def test_a_block_takes_the_weights_of_all_items():
    block = DataBlock(splitter=IndexSplitter([0, 1]))
    wgts = pd.Series([9, 9, 0, 0, 1], index=list("abcde"))
    dls = block.weighted_dataloaders([10, 11, 12, 13, 14], wgts, bs=3)
    assert torch.cat([x for x, _ in dls.train]).tolist() == [14] * 3
    with pytest.raises(DataError, match="4 weights for 5 items"):
        block.weighted_dataloaders([10, 11, 12, 13, 14], wgts[1:])


@pytest.mark.parametrize(
    ("wgts", "said"),
    [
        ([1.0], "1 weights for 3"),
        ([0, 0, 0], "one above 0"),
        ([1, -1, 1], "-1"),
        ([1, np.nan, 1], "nan"),
    ],
)
def test_weights_that_cannot_be(wgts, said):
    with pytest.raises(DataError, match=said):
        DataLoader([1, 2, 3], shuffle=True, wgts=wgts)


# ---------------------------------------------------------------- targets
def test_several_targets_have_several_vocabularies(files):
    rows = pd.DataFrame({"f": files, "root": list("abcd") * 5, "vowel": [1, 2] * 10, "x": 0.5})
    block = DataBlock(
        (ImageBlock, CategoryBlock, CategoryBlock),
        n_inp=1,
        getters=[ColReader("f"), ColReader("root"), ColReader("vowel")],
        splitter=IndexSplitter([0, 1]),
        item_tfms=Resize(8),
    )
    dls = block.dataloaders(rows, bs=4)
    assert list(dls.c) == [4, 2] and list(map(list, dls.vocab)) == [list("abcd"), [1, 2]]
    assert dls.train_ds.decode(dls.train_ds[0])[1:] == ("c", 1)
    with pytest.raises(ValueError, match=r"targets.*\[4, 2\].*n_out="):
        vision_learner(dls, "resnet10t", pretrained=False)
    block.summary(rows)
    mixed = block.new(
        blocks=(ImageBlock, CategoryBlock, RegressionBlock),
        getters=[ColReader("f"), ColReader("root"), ColReader("x")],
    ).dataloaders(rows)
    assert list(mixed.c) == [4, 1] and list(mixed.vocab) == list("abcd")


def test_inputs_and_outputs_may_be_told(files):
    dls = from_lists(files, ["a", "b"] * 10)
    assert (dls.c, dls.n_inp) == (2, 1)
    # fastai's idiom for points
    assert dls.train.after_item.c == 2
    dls.c = dls.train.after_item.c
    dls.c, dls.n_inp = 7, 2
    assert (dls.c, dls.n_inp) == (7, 2) == (dls.new(bs=2).c, dls.new(bs=2).n_inp)


# ---------------------------------------------------------------- pictures
@pytest.mark.parametrize(("kind", "mode"), [(PILImage, "RGB"), (PILImageBW, "L")])
def test_a_picture_made_by_a_call(files, kind, mode):
    opened = Image.open(files[3])
    for source in (opened, opened.convert("L"), files[3], np.asarray(opened)):
        made = kind(source)
        assert type(made) is kind and made.mode == mode and made.shape == (10, 12)
    for same in (
        copy.copy(made),
        copy.deepcopy(made),
        pickle.loads(pickle.dumps(made)),
        made.copy(),
    ):
        assert np.array_equal(np.asarray(same), np.asarray(made))
    assert kind().size == (0, 0)
