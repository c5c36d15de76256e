"""Transforms in fastai's form: which parts they take, on which side, in what order."""

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from coursekit.augment import aug_transforms
from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.data import RandomSplitter, get_image_files, parent_label
from coursekit.exporting import load_learner
from coursekit.learner import Learner
from coursekit.losses import CrossEntropyLossFlat
from coursekit.messages import DataError
from coursekit.normalize import Normalize
from coursekit.own_transforms import (
    DisplayedTransform,
    ItemTransform,
    RandTransform,
    TensorCategory,
    TensorImage,
    TensorMask,
)
from coursekit.pipeline import Datasets
from coursekit.resizing import Resize
from coursekit.transforms import (
    Categorize,
    IntToFloat,
    PILImage,
    PILImageBW,
    ToTensor,
    Transform,
    arrange,
)

KINDS = ("image", "category")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("own")
    for label in ("a", "b"):
        (home / label).mkdir()
        for i in range(8):
            pixels = np.full((12, 12, 3), 100, np.uint8)
            # dark on the left
            pixels[:, :6] = 10
            Image.fromarray(pixels).save(home / label / f"{i}.png")
    return home


def block(**parts):
    given = {"blocks": (ImageBlock, CategoryBlock), "get_items": get_image_files}
    given |= {"splitter": RandomSplitter(0.5, seed=0), "get_y": parent_label}
    return DataBlock(**given | parts)


# as people wrap Albumentations: see the two sides
class Wrapper(RandTransform):
    split_idx, order = None, 2

    def __init__(self, train_aug, valid_aug):
        self.train_aug, self.valid_aug = train_aug, valid_aug

    def before_call(self, b, split_idx):
        self.idx = split_idx

    def encodes(self, img: PILImage):
        aug = self.train_aug if self.idx == 0 else self.valid_aug
        return PILImage.create(np.array(aug(img)))


def mirrored(img):
    return ImageOps.mirror(img).resize((8, 8))


def plain(img):
    return img.resize((8, 8))


def test_a_wrapper_of_another_library(folder):
    dls = block(item_tfms=[Wrapper(mirrored, plain)]).dataloaders(folder, bs=8, num_workers=0)
    (x, y), (vx, _) = dls.train.one_batch(), dls.valid.one_batch()
    assert x.shape == (8, 3, 8, 8) and y.dtype == torch.long
    # dark on the right in training, on the left in validation
    assert (x[..., :3] > x[..., -3:]).all() and (vx[..., :3] < vx[..., -3:]).all()
    test = dls.test_dl(get_image_files(folder)).one_batch()[0]
    assert (test[..., :3] < test[..., -3:]).all()
    two = block(item_tfms=[Wrapper(mirrored, plain)]).dataloaders(folder, bs=8, num_workers=2)
    assert torch.equal(two.valid.one_batch()[0], vx)


class Halve(Transform):
    def encodes(self, x: TensorImage):
        return x / 2


def of(transform, part, kind, training=True):
    return transform.apply((part, torch.ones(3)), (kind, None), training)[0]


def test_the_annotation_says_the_kind():
    ones, grey = torch.ones(2, 3, 4, 4), PILImageBW.create(np.full((4, 4), 9, np.uint8))
    assert of(Halve(), ones, "image").max() == 0.5
    for kind in ("mask", "points", "category", None):
        assert of(Halve(), ones, kind) is ones
    assert of(Halve(), grey, "image") is grey

    class Names(Transform):
        def encodes(self, x: TensorMask):
            return "mask"

        def encodes(self, x: PILImageBW):  # noqa: F811
            return "grey"

        def encodes(self, x: PILImage | TensorImage):  # noqa: F811
            return "colour"

        def encodes(self, x: TensorCategory):  # noqa: F811
            return x + 1

    t = Names()
    colour = PILImage.create(np.zeros((4, 4, 3), np.uint8))
    assert of(t, ones, "mask") == "mask" and of(t, ones, "image") == "colour"
    assert of(t, colour, "image") == "colour" and of(t, 4, "category") == 5
    assert of(t, ones, "points") is ones


def test_general_types_and_none():
    class Any(Transform):
        def encodes(self, x):
            return "any"

    class Tensors(Any):
        def encodes(self, x: Tensor):
            return "tensor"

    parts = (torch.ones(1), 3)
    assert Any().apply(parts, KINDS) == ("any", "any")
    # what the parent takes stays
    assert Tensors().apply(parts, KINDS) == ("tensor", "any")
    assert Tensors()(torch.ones(1)) == "tensor" and Tensors()(parts) == ("tensor", "any")


def test_a_child_takes_the_place_of_its_parent():
    class Third(Halve):
        def encodes(self, x: TensorImage):
            return x / 3

    assert of(Third(), torch.ones(1, 3, 2, 2), "image").mean() == pytest.approx(1 / 3)
    assert of(Halve(), torch.ones(1, 3, 2, 2), "image").mean() == 0.5


@pytest.mark.parametrize(("side", "runs"), [(None, (1, 1)), (0, (1, 0)), (1, (0, 1))])
def test_the_side(side, runs):
    class Side(Halve):
        split_idx = side

    for training, run in zip((True, False), runs, strict=True):
        out = of(Side(), torch.ones(1, 3, 2, 2), "image", training)
        assert out.max() == (0.5 if run else 1)
    # called by itself without a side, as in fastai
    assert Side()(torch.ones(1, 3, 2, 2)).max() == (0.5 if side is None else 1)


def test_chance_is_drawn_once_for_all_parts():
    class Both(RandTransform):
        def encodes(self, x: TensorImage):
            return x + 1

        def encodes(self, x: TensorMask):  # noqa: F811
            return x + 1

    random.seed(3)
    picture, mask = torch.zeros(3, 2, 2), torch.zeros(2, 2)
    t = Both(p=0.25)
    drawn = [t.apply((picture, mask), ("image", "mask"), True) for _ in range(1000)]
    changed = [bool(x.max()) for x, _ in drawn]
    assert changed == [bool(m.max()) for _, m in drawn]
    assert 0.2 < np.mean(changed) < 0.3
    assert all(t.apply((picture,), ("image",), False)[0] is picture for _ in range(50))
    never = Both(before_call=lambda b, split_idx: setattr(never, "do", False))
    assert never.apply((picture, mask), ("image", "mask"), True)[0] is picture


def test_the_whole_item():
    class Swap(ItemTransform):
        def encodes(self, xy):
            x, y = xy
            return y, x

    assert Swap().apply((1, 2), KINDS) == (2, 1)
    assert DisplayedTransform is Transform


# fastai: ToTensor 5, IntToFloatTensor 10, warping 30, lighting 40, Normalize 99
@pytest.mark.parametrize(
    ("order", "kind", "high"),
    [(0, torch.uint8, 255), (9, torch.uint8, 255), (11, torch.float32, 1), (98, torch.float32, 1)],
)
def test_order_in_a_batch(folder, order, kind, high):
    seen = []

    class Look(Transform):
        def encodes(self, x: TensorImage):
            seen.append((x.dtype, x.max().item()))
            return x

    Look.order = order
    stats = Normalize([0.4] * 3, [0.01] * 3)
    tfms = [stats, Look(), *aug_transforms(size=8)]
    dls = block(item_tfms=Resize(12), batch_tfms=tfms).dataloaders(folder, bs=8, num_workers=0)
    dls.valid.one_batch()
    assert seen[0][0] == kind and seen[0][1] <= high
    Look.order = 100
    dls = block(item_tfms=Resize(12), batch_tfms=tfms).dataloaders(folder, bs=8, num_workers=0)
    dls.valid.one_batch()
    # normalised: far below 0
    assert dls.valid.after_batch[-1] is tfms[1]


def test_order_of_an_item():
    class Look(Transform):
        def encodes(self, x):
            return x

    before, after = Look(), Look()
    before.order, after.order = 2, 6
    steps = arrange([after, ToTensor, before, Resize(8)])
    assert [type(step).__name__ for step in steps] == ["Resize", "Look", "ToTensor", "Look"]
    assert steps[1] is before and steps[3] is after
    batch = arrange([IntToFloat, before])
    assert batch[0] is before


def test_a_step_of_datasets_with_its_way_back(folder):
    class Shout(Transform):
        def setups(self, items):
            self.n = len(items)

        def encodes(self, label: str):
            return label.upper()

        def decodes(self, label: str):
            return label.lower()

    files = get_image_files(folder)
    dsets = Datasets(files, [[PILImage.create], [parent_label, Shout(), Categorize()]])
    assert list(dsets.vocab) == ["A", "B"] and dsets.pipelines[1].steps[1].n == 16
    assert dsets.decode(dsets[0])[1] == "a"


def test_undone_for_eyes(folder):
    class Scale(Transform):
        order = 50

        def encodes(self, x: TensorImage):
            return x * 100

        def decodes(self, x: TensorImage):
            return x / 100

    dls = block(batch_tfms=Scale()).dataloaders(folder, bs=4, num_workers=0)
    batch = dls.train.one_batch()
    assert batch[0].max() > 30
    assert dls.train.decode_batch(batch)[0].max() < 0.4
    dls.show_batch()


def test_training_with_it(folder, tmp_path):
    dls = block(item_tfms=Wrapper(mirrored, plain)).dataloaders(folder, path=tmp_path, bs=4)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    learn = Learner(dls, net, loss_func=CrossEntropyLossFlat())
    learn.fit(1)
    assert learn.predict(get_image_files(folder)[0])[0] in ("a", "b")


# without super().__init__, as many write it
class Darker(RandTransform):
    split_idx, order = None, 2

    def __init__(self, by):
        self.by = by

    def encodes(self, img: PILImage):
        return PILImage.create(np.array(img) // self.by)


def test_there_and_back_in_a_file(folder, tmp_path):
    dls = block(item_tfms=[Resize(8), Darker(by=2)]).dataloaders(folder, path=tmp_path, bs=4)
    assert dls.valid.one_batch()[0].max() == pytest.approx(50 / 255)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    learn = Learner(dls, net, loss_func=CrossEntropyLossFlat())
    learn.export("own.pkl")
    with pytest.raises(DataError, match=r"Darker.*allow="):
        load_learner(tmp_path / "own.pkl")
    again = load_learner(tmp_path / "own.pkl", allow=[Darker])
    file = get_image_files(folder)[0]
    assert torch.equal(again.predict(file)[2], learn.predict(file)[2])
