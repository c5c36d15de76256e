"A learner comes back from its file as it was, as far as prediction needs it."

import importlib
import inspect
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from coursekit import (
    augment,
    batches,
    bodies,
    collab,
    data,
    export_files,
    export_parts,
    exporting,
    extras,
    heads,
    more_transforms,
    multilabel,
    points,
    ratings,
    recipes,
    vision,
)
from coursekit.augment import (
    Brightness,
    Contrast,
    Dihedral,
    Flip,
    RandomResizedCropBatch,
    Rotate,
    Warp,
    Zoom,
    aug_transforms,
)
from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock, RegressionBlock
from coursekit.data import ColReader, RandomSplitter, get_image_files, parent_label
from coursekit.events import Callback, LearnerError
from coursekit.exporting import load_learner
from coursekit.image_loaders import ImageDataLoaders
from coursekit.learner import Learner
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.losses import (
    BCELossFlat,
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    FocalLossFlat,
    MSELossFlat,
)
from coursekit.measures import accuracy
from coursekit.messages import DataError
from coursekit.normalize import Normalize, imagenet_stats
from coursekit.resizing import RandomResizedCrop, Resize
from coursekit.targets import MaskBlock, PointBlock, ScalePoints, ToMask, ToPoints
from coursekit.transforms import (
    Categorize,
    IntToFloat,
    PILImage,
    PILImageBW,
    ToNumber,
    ToTensor,
    Transform,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    "Small things are faster so, above all where other processes run too."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    "Two classes that differ in colour, six pictures each."
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for name, colour in (("blue", (30, 60, 200)), ("red", (200, 60, 30))):
        (folder / name).mkdir()
        for i in range(6):
            noise = draw.integers(-30, 30, (40, 52, 3))
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}_{i}.png")
    return folder


def small_net(n_out=2, channels=3):
    body = nn.Sequential(
        nn.Conv2d(channels, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)
    )
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, n_out)
    )
    return nn.Sequential(body, head)


def loaders(pictures, get_y=parent_label, item_tfms=None, batch_tfms=None, block=None, **kwargs):
    blocks = block or (ImageBlock, CategoryBlock)
    made = DataBlock(
        blocks,
        get_items=get_image_files,
        splitter=RandomSplitter(0.25, 1),
        get_y=get_y,
        item_tfms=item_tfms or Resize(32),
        batch_tfms=batch_tfms,
    )
    return made.dataloaders(pictures, **{"bs": 4, "num_workers": 0} | kwargs)


def learner_for(dls, model=None, **kwargs):
    torch.manual_seed(0)
    return Learner(dls, model or small_net(), **kwargs)


def there_and_back(learn, folder, **kwargs):
    return load_learner(exporting_to(learn, folder), **kwargs)


def exporting_to(learn, folder, name="export.pkl"):
    return learn.export(Path(folder) / name)


@pytest.fixture(scope="module")
def exported(pictures, tmp_path_factory):
    "A learner that was trained for an epoch, and its file."
    dls = loaders(pictures, batch_tfms=[*aug_transforms(), Normalize.from_stats(*imagenet_stats)])
    learn = learner_for(dls, metrics=accuracy)
    with learn.no_logging():
        learn.fit(1, 0.05)
    return learn, exporting_to(learn, tmp_path_factory.mktemp("export"))


# ---------------------------------------------------------------- the same learner
def test_the_same_answers(exported, pictures):
    learn, file = exported
    again = load_learner(file)
    files = get_image_files(pictures)
    dls = again.dls
    assert dls.vocab == ["blue", "red"] and dls.kinds == ("image", "category")
    assert (dls.n_inp, dls.c, dls.bs, len(dls.train_ds), len(dls.valid_ds)) == (1, 2, 4, 0, 0)
    assert str(dls.train.after_batch) == str(learn.dls.train.after_batch)
    assert str(dls.train.after_item) == str(learn.dls.train.after_item)
    said, number, probabilities = learn.predict(files[0])
    said2, number2, probabilities2 = again.predict(files[0])
    assert said == said2 and number == number2 and torch.equal(probabilities, probabilities2)
    one, two = (each.get_preds(dl=each.dls.test_dl(files))[0] for each in (learn, again))
    assert torch.equal(one, two) and not again.model.training and again.path == file.parent


def test_every_way_to_hand_over_a_picture(exported):
    learn, file = exported
    again, photo = load_learner(file), learn.dls.valid_ds.items[0]
    wanted = learn.predict(photo)[2]
    ways = [photo, str(photo), photo.read_bytes(), Image.open(photo), PILImage.create(photo)]
    ways += [np.asarray(Image.open(photo))]
    for one in ways:
        assert torch.equal(again.predict(one)[2], wanted), type(one)


def test_what_stays_behind(exported, pictures):
    "Nothing of how items were found, labelled and split, nor where, is in the file."
    text = export_files.read_export(exported[1])[0]
    for word in ("parent_label", "accuracy", "Adam", "split", str(pictures), "lr"):
        assert word not in text, word
    again = load_learner(exported[1])
    assert not again.metrics
    with pytest.raises(DataError, match="does not label items"):
        again.dls.test_dl(get_image_files(pictures), with_labels=True).one_batch()


def test_it_can_be_trained_on(exported, pictures):
    again = load_learner(exported[1])
    before = [p.clone() for p in again.model.parameters()]
    again.dls = loaders(pictures)
    again.metrics = accuracy
    with again.no_logging():
        again.fit(1, 0.05)
    assert not all(torch.equal(a, b) for a, b in zip(before, again.model.parameters(), strict=True))
    assert again.recorder.values[-1][2] is not None


def test_again_from_the_loaded_one(exported, tmp_path):
    again = load_learner(exported[1])
    (text, first), (text2, second) = map(
        export_files.read_export, (exported[1], exporting_to(again, tmp_path))
    )
    assert text == text2 and all(torch.equal(second[name], first[name]) for name in first | second)


def test_the_name_is_the_one_given(exported, tmp_path, monkeypatch):
    learn = exported[0]
    monkeypatch.setattr(learn, "path", tmp_path)
    for name in ("export.pkl", "models/bears", "bears.v2.learner", "bears.safetensors"):
        assert learn.export(name) == tmp_path / name
        assert load_learner(str(tmp_path / name)).dls.c == 2
    assert learn.export() == tmp_path / "export.pkl"
    assert {p.name for p in tmp_path.iterdir()} == {
        "export.pkl",
        "models",
        "bears.v2.learner",
        "bears.safetensors",
    }


FRESH = """
import sys
from coursekit.exporting import load_learner
learn = load_learner(sys.argv[1])
print(*learn.predict(sys.argv[2])[2].tolist())
slow = {"torchvision", "timm", "pandas", "matplotlib", "sklearn", "IPython", "scipy"}
assert not slow & set(sys.modules), slow & set(sys.modules)
"""


def fresh(program, *args, cwd=None, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_in_a_fresh_process(exported, pictures, tmp_path):
    learn, file = exported
    picture = get_image_files(pictures)[0]
    values = [float(text) for text in fresh(FRESH, file, picture, cwd=tmp_path).split()]
    assert np.allclose(values, learn.predict(picture)[2], atol=1e-6)


# ---------------------------------------------------------------- every part
def through(thing, role="transform"):
    "A part written as JSON and read again."
    writer = exporting.Writer()
    node = writer.layer(thing) if role == "layer" else writer.part(thing, role, "here")
    reader = exporting._Reader(writer.tensors, writer.yours)
    node = json.loads(json.dumps(node, allow_nan=False))
    return reader.layer(node) if role == "layer" else reader.part(node, role)


def facts(value):
    "What an object is made of, as something that can be compared."
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, tuple | list) or type(value).__name__ == "L":
        return [facts(inner) for inner in value]
    if isinstance(value, dict):
        return {name: facts(inner) for name, inner in value.items()}
    if hasattr(value, "__dict__") and not (inspect.isroutine(value) or isinstance(value, type)):
        left = "given", "sort", "spread"  # what only training asks for
        kept = {key: x for key, x in vars(value).items() if key not in left}
        return type(value), facts(kept)
    return type(value), round(value, 9) if isinstance(value, float) else value


def categories(*args, labels=("b", "a", "b"), kind=Categorize, **kwargs):
    made = kind(*args, **kwargs)
    made.setup(list(labels))
    return made


STEPS = [
    PILImage.create,
    PILImageBW.create,
    categories(),
    categories(sort=False, labels=[2, 1]),
    categories(labels=[2.5, 1.5]),
    categories(labels=[True, False]),
    categories(labels=[np.str_("a"), np.str_("b")]),
    categories(add_na=True),
    categories(["z", "a", "b"]),
    categories(kind=multilabel.MultiCategorize, add_na=True, labels=[["a", "b"], [], ["c"]]),
    multilabel.MultiCategorize(["z", "a"]),
    multilabel.EncodedMultiCategorize(["z", "a"]),
    ToNumber(),
    ToNumber(3),
    ToPoints(),
    ToMask(),
    ToMask(["ground", "sky"]),
    ratings.ToIds("user", "film", [7, 3], ["b", "a"]),
    ratings.ToIds("user", "film", ["x"], [2.5, 1.5], ["The film", "the other"]),
    ratings._Column("rating"),
]
TRANSFORMS = [
    ToTensor(),
    IntToFloat(),
    ScalePoints(),
    Resize(32),
    Resize((32, 48), "pad", "zeros"),
    Resize(32, method="squish"),
    RandomResizedCrop((32, 48), 0.35, (0.9, 1.1), 0.2, 0.9),
    Normalize.from_stats(*imagenet_stats),
    Normalize([0.498], [0.502]),
    augment.BatchTransform(0.3, (20, 30), "bicubic", "border", True),
    Flip(0.3, mode="nearest", pad_mode="zeros", batch=True),
    Dihedral(0.4, size=32),
    Rotate(30, 0.4),
    Zoom(0.9, 1.2, 0.4, pad_mode="border"),
    Warp(0.3, 0.4),
    Brightness(0.3, 0.4),
    *(Contrast(share, 0.4, batch=True) for share in (0, 0.1, 0.2, 0.3, 1 / 3, 0.77, 0.999)),
    RandomResizedCropBatch(32, 0.4, (0.8, 1.2), 0.9, 0.95, p=0.9, batch=True),
    points.Marks(),
    points.FlipPairs(),
    points.FlipPairs(()),
    points.FlipPairs([(0, 1), (3, 2)]),
    more_transforms.Hue(0.2, 0.4, batch=True),
    more_transforms.Saturation(0.3, 0.4),
    more_transforms.RandomErasing(0.4, 0.1, 0.2, 0.5, 3),
    more_transforms.CropPad((20, 30), "border"),
    more_transforms.RatioResize(40),
    more_transforms.RatioResize(40, (Image.Resampling.BICUBIC, Image.Resampling.BOX)),
    extras.IntToFloatTensor(51.0, 3),
]
LAYERS = [
    nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Identity())),
    nn.Linear(2, 3, bias=False),
    nn.Bilinear(2, 3, 4),
    nn.Embedding(7, 3, padding_idx=1, max_norm=2.0),
    nn.Identity(),
    nn.Flatten(0, -2),
    nn.Unflatten(1, (2, 3)),
    nn.Conv1d(2, 4, 3, groups=2),
    nn.Conv2d(3, 6, (3, 1), 2, padding="valid", dilation=2, groups=3, bias=False),
    nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"),
    nn.Conv3d(1, 2, 3),
    nn.MaxPool1d(2),
    nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    nn.AvgPool1d(2),
    nn.AvgPool2d(2, count_include_pad=False),
    nn.AdaptiveAvgPool1d(2),
    nn.AdaptiveAvgPool2d((1, None)),
    nn.AdaptiveMaxPool1d(2),
    nn.AdaptiveMaxPool2d(2),
    nn.BatchNorm1d(3, eps=1e-3, momentum=None),
    nn.BatchNorm2d(3, affine=False),
    nn.BatchNorm3d(3, track_running_stats=False),
    nn.InstanceNorm2d(3, affine=True),
    nn.GroupNorm(2, 4, eps=1e-4),
    nn.LayerNorm((2, 3), bias=False),
    nn.RMSNorm(3, eps=1e-4),
    nn.Dropout(0.3),
    nn.Dropout1d(0.3),
    nn.Dropout2d(0.3, inplace=True),
    nn.ReLU(True),
    nn.ReLU6(),
    nn.LeakyReLU(0.2),
    nn.PReLU(3, 0.1),
    nn.ELU(0.5),
    nn.SELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Hardtanh(-2, 2),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Softplus(2, 10),
    nn.Softmax(1),
    nn.LogSoftmax(dim=-1),
    collab.EmbeddingDotBias(3, 4, 5),
    collab.EmbeddingDotBias(3, 4, 5, (0.5, 5.5), sparse=True),
    collab.EmbeddingNN([(4, 2), (5, 3)], [8], 0.1),
    collab.EmbeddingNN([(4, 2), (5, 3)], [8, 6], [0.1, 0.2], 0.05, (0.5, 5.5)),
    bodies.AdaptiveConcatPool2d(),
    bodies.AdaptiveConcatPool2d((2, 1)),
    bodies.SigmoidRange(-1, 5.5),
    heads.ScaleShift(3),
    bodies.create_head(8, 3, [16], y_range=(0, 1)),
    recipes.xresnet18(n_out=2, widen=0.25, stem_szs=(8, 8)),
    recipes.xresnet50(c_in=1, n_out=2, p=0.1, widen=0.125),
    bodies.create_body(bodies.resnet50, pretrained=False),
    bodies.create_body("resnet10t.c3_in1k", pretrained=False, n_in=1),
]


def by_kind(value):
    return getattr(value, "__qualname__", type(value).__name__)


@pytest.mark.parametrize("step", STEPS, ids=by_kind)
def test_a_step_comes_back(step):
    assert facts(through(step, "step")) == facts(step)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=by_kind)
def test_a_transform_comes_back(transform):
    again = through(transform)
    assert again is not transform and facts(again) == facts(transform)
    exporting._compare(again, transform, "here")


@pytest.mark.parametrize("layer", LAYERS, ids=by_kind)
def test_a_layer_comes_back(layer):
    again = through(layer, "layer")
    assert repr(again).replace("exporting._", "") == repr(layer) or "_B" in repr(again)
    wanted, found = layer.state_dict(), again.state_dict()
    assert {n: t.shape for n, t in wanted.items()} == {n: t.shape for n, t in found.items()}
    for one, two in zip(again.modules(), layer.modules(), strict=True):
        exporting._compare(one, two, "here")


def test_every_part_of_the_table_is_tried():
    tried = {
        "step": {export_parts.name_in_table(step, "step") for step in STEPS},
        "transform": {export_parts.name_in_table(step, "transform") for step in TRANSFORMS},
        "layer": {export_parts.name_in_table(layer, "layer") for layer in LAYERS},
    }
    made_by = {
        "export_parts._of_timm",
        "export_parts._of_torchvision",
        "bodies.create_body",
        "recipes.xresnet18",
        "recipes.xresnet34",
        "recipes.xresnet50",
    }
    for role, names in tried.items():
        assert export_parts.TABLE[role] - names <= (made_by if role == "layer" else set()), role


def test_every_argument_has_a_limit():
    "Of each part of the table, all but those that say where numbers go, or what is drawn."
    left_out = "device dtype output_padding draw draw_x draw_y sort pretrained weights arch "
    left_out += "return_indices size_average reduce reduction weight ignore_index label_smoothing "
    left_out += "pos_weight min_value max_value transposed"
    for role in ("step", "transform", "layer"):
        for name in export_parts.TABLE[role]:
            thing = export_parts.part_named(name, role)
            if inspect.ismethod(thing):
                continue
            mine = inspect.signature(thing).parameters.values()
            names = {p.name for p in mine if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
            missing = names - set(export_parts.LIMITS) - set(left_out.split())
            assert not {n for n in missing if n[0] != "_"}, name


def test_no_public_transform_is_left_out():
    "Whoever adds a transform has to add it to the table."
    steps = [
        f"{module.__name__.partition('.')[2]}.{name}"
        for module in (data, augment, points, more_transforms)
        for name in module.__all__
        if isinstance(thing := getattr(module, name), type)
        and issubclass(thing, Transform)
        and thing is not Transform
    ]
    assert len(steps) > 12 and "augment.Flip" in steps
    assert not set(steps) - export_parts.TABLE["transform"]


def test_defaults_are_not_written():
    "So a file does not name an argument that another version of PyTorch has not."
    writer = exporting.Writer()
    assert writer.layer(nn.InstanceNorm2d(3))["with"] == {"num_features": 3}
    assert writer.layer(nn.BatchNorm2d(3, eps=1e-3))["with"] == {"num_features": 3, "eps": 1e-3}
    assert writer.layer(nn.Linear(2, 3, bias=False))["with"]["bias"] is False


# ---------------------------------------------------------------- losses
def own_loss(pred, target):
    return nn.functional.cross_entropy(pred, target)


class Read(nn.Module):
    "A loss that says how its scores are read."

    def __init__(self, sharp=2.0):
        super().__init__()
        self.sharp = sharp

    def forward(self, pred, target):
        return nn.functional.cross_entropy(pred * self.sharp, target)

    def activation(self, pred):
        return (pred * self.sharp).softmax(1)

    def decodes(self, pred):
        return pred.argmax(1)


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropyLossFlat(torch.tensor([1.0, 2]), axis=1, label_smoothing=0.1),
        FocalLossFlat(3.0, torch.tensor([1.0, 2])),
        recipes.LabelSmoothingCrossEntropy(0.2),
        recipes.LabelSmoothingCrossEntropyFlat(0.2),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2])),
        nn.functional.cross_entropy,
        own_loss,
        lambda pred, target: own_loss(pred, target),
    ],
    ids=by_kind,
)
def test_a_loss_counts_for_what_it_makes_of_scores(loss, pictures, tmp_path):
    learn = learner_for(loaders(pictures), loss_func=loss)
    again = there_and_back(learn, tmp_path)
    assert type(again.loss_func) is CrossEntropyLossFlat
    picture = get_image_files(pictures)[0]
    learn.loss_func = CrossEntropyLossFlat()
    assert torch.equal(learn.predict(picture)[2], again.predict(picture)[2])


def test_a_loss_that_reads_scores_itself(pictures, tmp_path):
    learn = learner_for(loaders(pictures), loss_func=Read(3.0))
    file = exporting_to(learn, tmp_path)
    with pytest.raises(DataError, match=r"Read.*If you know and trust it"):
        load_learner(file)
    again = load_learner(file, allow=Read)
    assert again.loss_func.sharp == 3
    assert_same_predictions(learn, again, pictures)


def test_several_labels_keep_their_threshold(pictures, tmp_path):
    block = (ImageBlock, multilabel.MultiCategoryBlock)
    dls = loaders(pictures, get_y=lambda item: [item.parent.name], block=block)
    learn = learner_for(dls, loss_func=BCEWithLogitsLossFlat(thresh=0.3))
    again = there_and_back(learn, tmp_path)
    assert again.loss_func.thresh == 0.3
    assert_same_predictions(learn, again, pictures)


def absolute(pred, target):
    return (pred - target).abs().mean()


PLAIN = [
    ("category", nn.functional.nll_loss, CrossEntropyLossFlat),
    ("multicategory", nn.BCEWithLogitsLoss(pos_weight=torch.ones(2)), BCEWithLogitsLossFlat),
    ("multicategory", nn.BCELoss(), BCELossFlat),
    ("multicategory", absolute, BCEWithLogitsLossFlat),
    ("multicategory", nn.CrossEntropyLoss(), CrossEntropyLossFlat),
    ("regression", nn.SmoothL1Loss(), MSELossFlat),
    ("regression", absolute, MSELossFlat),
]


@pytest.mark.parametrize(("kind", "loss", "ours"), PLAIN)
def test_a_plain_loss_is_read_after_export_as_before(kind, loss, ours, pictures, tmp_path):
    target = {
        "category": (CategoryBlock, parent_label),
        "multicategory": (multilabel.MultiCategoryBlock, lambda item: [item.parent.name]),
        "regression": (RegressionBlock, lambda item: 0.5),
    }
    block, get_y = target[kind]
    ends = [nn.Sigmoid()] if isinstance(loss, nn.BCELoss) else []
    net = nn.Sequential(small_net(1 if kind == "regression" else 2), *ends)
    learn = learner_for(
        loaders(pictures, get_y=get_y, block=(ImageBlock, block)), net, loss_func=loss
    )
    again = there_and_back(learn, tmp_path)
    assert type(again.loss_func) is ours
    assert_same_predictions(learn, again, pictures)
    assert_same_predictions(learn, there_and_back(again, tmp_path), pictures)


def test_one_score_for_two_classes(pictures, tmp_path):
    learn = learner_for(loaders(pictures), small_net(1), loss_func=absolute)
    assert 0 < learn.predict(get_image_files(pictures)[0])[2].item() < 1
    assert_same_predictions(learn, there_and_back(learn, tmp_path), pictures)


# ---------------------------------------------------------------- other data, other models
def test_points(pictures, tmp_path):
    dls = loaders(
        pictures,
        get_y=lambda item: [(10, 20), (30, 4)],
        block=(ImageBlock, PointBlock),
        batch_tfms=aug_transforms(),
    )
    learn = learner_for(dls, nn.Sequential(small_net(4), nn.Unflatten(1, (2, 2))))
    assert_same_predictions(learn, there_and_back(learn, tmp_path), pictures)


def test_numbers(pictures, tmp_path):
    def brightness(item):
        return float(np.asarray(Image.open(item)).mean())

    dls = loaders(pictures, get_y=brightness, block=(ImageBlock(PILImageBW), RegressionBlock))
    learn = learner_for(dls, small_net(1, channels=1))
    again = there_and_back(learn, tmp_path)
    assert_same_predictions(learn, again, pictures)
    assert again.dls.c == 1 and isinstance(again.loss_func, MSELossFlat)


def assert_same_predictions(one, two, pictures):
    files = get_image_files(pictures)
    a = one.get_preds(dl=one.dls.test_dl(files), with_decoded=True)
    b = two.get_preds(dl=two.dls.test_dl(files), with_decoded=True)
    assert torch.equal(a[0], b[0]) and torch.equal(a[2], b[2])
    assert repr(one.predict(files[3])) == repr(two.predict(files[3]))


@pytest.mark.parametrize("get_x", ["column", "lambda"])
def test_getters_stay_behind(get_x, pictures, tmp_path):
    import pandas as pd

    names = [f"{kind}/{kind}_{i}" for kind in ("blue", "red") for i in range(6)]
    table = pd.DataFrame({"name": names, "label": [1, 2] * 6})
    first = ColReader("name", pref=f"{pictures}/", suff=".png")
    how = {
        "column": first,
        "lambda": lambda row: pictures / f"{row['name']}.png",
    }
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_x=how[get_x],
        get_y=ColReader("label"),
        splitter=RandomSplitter(0.25, 1),
        item_tfms=Resize(32),
    )
    learn = learner_for(block.dataloaders(table, bs=4, num_workers=0))
    again = there_and_back(learn, tmp_path)
    files = [pictures / f"{name}.png" for name in names]
    one = learn.get_preds(dl=learn.dls.test_dl(table))[0]
    assert torch.equal(one, again.get_preds(dl=again.dls.test_dl(files))[0])
    assert again.dls.vocab == [1, 2] and again.predict(files[0])[0] in ("1", "2")


def test_a_csv(pictures, tmp_path):
    import pandas as pd

    names = [f"{kind}/{kind}_{i}" for kind in ("blue", "red") for i in range(6)]
    pd.DataFrame({"name": names, "label": ["a", "b"] * 6}).to_csv(pictures / "l.csv", index=False)
    dls = ImageDataLoaders.from_csv(
        pictures, "l.csv", suff=".png", item_tfms=Resize(32), bs=4, num_workers=0
    )
    again = there_and_back(learner_for(dls), tmp_path)
    assert again.predict(pictures / "red" / "red_1.png")[0] in ("a", "b")


def test_mask(pictures, tmp_path):
    block = (ImageBlock, MaskBlock(["a", "b"]))
    zeros = np.zeros((40, 52), dtype=np.uint8)
    dls = loaders(pictures, get_y=lambda item: zeros, block=block, item_tfms=Resize(16))
    model = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1))
    learn = learner_for(dls, model, loss_func=CrossEntropyLossFlat(axis=1))
    again = there_and_back(learn, tmp_path)
    assert list(again.dls.vocab) == ["a", "b"] and again.loss_func.axis == 1
    assert_same_predictions(learn, again, pictures)


def test_tensors_in_memory(tmp_path):
    pairs = torch.utils.data.TensorDataset(torch.randn(20, 3), torch.randn(20, 1))
    plain = torch.utils.data.DataLoader(pairs, 5)
    for dls, loss in (
        (DataLoaders(DataLoader(pairs, 5, shuffle=True), DataLoader(pairs, 5)), MSELossFlat()),
        (DataLoaders(plain, plain), lambda pred, target: (pred - target).square().mean()),
    ):
        learn = learner_for(dls, nn.Sequential(nn.Linear(3, 1)), loss_func=loss)
        again = there_and_back(learn, tmp_path)
        batches = [pairs[:7]]
        assert torch.equal(learn.get_preds(dl=batches)[0], again.get_preds(dl=batches)[0])
    assert again.validate(dl=batches)[0] != again.validate(dl=batches)[0]  # not a number
    again.loss_func = nn.functional.mse_loss
    assert again.validate(dl=batches)[0] == learn.validate(dl=batches)[0]


def test_recommender(tmp_path):
    import pandas as pd

    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 20, 300), rng.integers(0, 9, 300)
    table = pd.DataFrame({"user": users, "film": items, "rating": rng.integers(1, 6, 300)})
    dls = ratings.CollabDataLoaders.from_df(table, bs=64, seed=1, duplicates="last")
    for kwargs in ({}, {"use_nn": True, "layers": [8], "config": {"ps": 0.1}}):
        learn = collab.collab_learner(dls, n_factors=4, y_range=(0, 5.5), **kwargs)
        again = there_and_back(learn, tmp_path)
        one, two = (each.get_preds(dl=each.dls.test_dl(table))[0] for each in (learn, again))
        assert torch.equal(one, two)
        assert again.dls.classes == learn.dls.classes
        if not kwargs:
            assert torch.equal(again.model.bias([3, 4]), learn.model.bias([3, 4]))
        assert again.predict({"user": 3, "film": 4})[0] == learn.predict({"user": 3, "film": 4})[0]
        labelled = again.dls.test_dl(table, with_labels=True)
        assert torch.equal(
            again.get_preds(dl=labelled)[1], torch.tensor(table.rating.values).float()
        )


def test_half_precision(pictures, tmp_path):
    learn = learner_for(loaders(pictures))
    learn.model[1].to(torch.bfloat16)
    again = there_and_back(learn, tmp_path)
    assert [p.dtype for p in again.model.parameters()] == [
        p.dtype for p in learn.model.parameters()
    ]
    assert torch.equal(again.model[1][3].weight, learn.model[1][3].weight)


def test_shared_weights(tmp_path):
    "Stored for each place; in a file that holds what prediction needs they need not be one."
    class_of = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    class_of[1].weight = class_of[0].weight
    shared = nn.Linear(5, 5)
    model = nn.Sequential(class_of, shared, nn.Tanh(), shared)
    pairs = [(torch.tensor(i % 5), i % 5) for i in range(10)]
    learn = learner_for(DataLoaders(DataLoader(pairs, 5)), model, loss_func=CrossEntropyLossFlat())
    again = there_and_back(learn, tmp_path)
    batch = [(torch.arange(5), torch.arange(5))]
    assert torch.equal(learn.get_preds(dl=batch)[0], again.get_preds(dl=batch)[0])


def test_memory_that_is_shared_in_part(tmp_path):
    "Views of one piece of memory are stored each for itself; so is a piece of something larger."
    flat, model = torch.randn(100), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    model[0].weight = nn.Parameter(flat[:12].view(4, 3))
    model[1].weight = nn.Parameter(flat[10:26].view(4, 4).t())
    dls = DataLoaders(DataLoader([(torch.zeros(3), 1)] * 4, 2))
    learn = learner_for(dls, model, loss_func=CrossEntropyLossFlat())
    file = exporting_to(learn, tmp_path)
    again = load_learner(file)
    assert torch.equal(again.model[0].weight, model[0].weight)
    assert torch.equal(again.model[1].weight, model[1].weight)
    assert file.stat().st_size < 4000


def test_channels_last(pictures, tmp_path):
    learn = learner_for(loaders(pictures))
    learn.model.to(memory_format=torch.channels_last)
    again = there_and_back(learn, tmp_path)
    assert again.model[0][0].weight.stride() == learn.model[0][0].weight.stride()
    assert_same_predictions(learn, again, pictures)


@pytest.mark.parametrize("block", ["BasicBlock", "Bottleneck"])
def test_a_network_of_torchvision(block, pictures, tmp_path):
    "Its blocks come back without torchvision, and give the same numbers."
    from torchvision.models import resnet

    whole = resnet.ResNet(getattr(resnet, block), [2, 1, 1, 1], num_classes=2)
    learn = learner_for(loaders(pictures), whole)
    again = there_and_back(learn, tmp_path)
    assert_same_predictions(learn, again, pictures)
    assert {type(m).__module__.partition(".")[0] for m in again.model.modules()} == {
        "torch",
        "coursekit",
    }
    x = torch.randn(2, 3, 40, 40)
    for model in (learn.model.train(), again.model.train()):
        model.zero_grad()
        model(x).square().sum().backward()
    pairs = zip(learn.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs)
    assert repr(there_and_back(again, tmp_path).model) == repr(again.model)


@pytest.mark.parametrize(
    "arch",
    ["resnet18", "resnet34", "efficientnet_lite0", "squeezenet1_1", "text", "torchvision", "own"],
)
def test_a_vision_learner(arch, pictures, tmp_path):
    "Body by its layers or by the name of its network, head by its layers; nothing is fetched."
    import torchvision

    which = {"text": "resnet10t", "torchvision": torchvision.models.squeezenet1_1, "own": narrow}
    which = which.get(arch) or getattr(bodies, arch)
    learn = vision.vision_learner(loaders(pictures), which, pretrained=False, lin_ftrs=[16])
    allow = [narrow] if arch == "own" else []
    again = there_and_back(learn, tmp_path, allow=allow)
    assert_same_predictions(learn, again, pictures)
    strides = [[p.stride() for p in x.model.parameters()] for x in (learn, again)]
    assert strides[0] == strides[1]
    if arch == "resnet18":
        again.dls = loaders(pictures)
        with again.no_logging():
            again.fit_one_cycle(1)
        assert there_and_back(again, tmp_path).dls.vocab == ["blue", "red"]


def narrow(pretrained=True):
    return recipes.xresnet18(widen=0.25)


def test_an_xresnet(pictures, tmp_path):
    learn = learner_for(loaders(pictures), recipes.xresnet18(n_out=2, widen=0.25))
    assert_same_predictions(learn, there_and_back(learn, tmp_path), pictures)


def test_on_a_gpu(exported, pictures):
    learn, file = exported
    again = load_learner(file, cpu=False)
    device = batches.default_device()
    assert again.dls.device == device and again.device == device
    assert {p.device.type for p in again.model.parameters()} == {device.type}
    picture = get_image_files(pictures)[0]
    assert torch.allclose(again.predict(picture)[2], learn.predict(picture)[2], atol=1e-4)


# ---------------------------------------------------------------- what belongs to the user
class Darker(Transform):
    def __init__(self, by):
        self.by = by

    def image(self, picture, drawn):
        return picture.point(lambda value: int(value * self.by))


class MyPicture(PILImage):
    pass


class MyNet(nn.Module):
    def __init__(self, body, n_out, act=nn.functional.relu, width=8):
        super().__init__()
        self.body, self.n_out, self.act, self.width = body, n_out, act, width
        self.last = nn.Linear(width, n_out)
        self.scale = torch.ones(1) * 2  # no buffer: has to be made again

    def forward(self, x):
        return self.last(self.act(self.body(x).mean((2, 3)))) * self.scale


class Swish(nn.Module):
    def forward(self, x):
        return x * x.sigmoid()


def brighter(picture):
    return picture.point(lambda value: min(255, 2 * value))


def test_functions_of_the_user(pictures, tmp_path):
    learn = learner_for(loaders(pictures, item_tfms=[Resize(32), brighter]))
    file = exporting_to(learn, tmp_path)
    path = f"{__name__}.brighter"
    for allow in ((), [Darker], "os.system", [os.getcwd], ["tests"]):
        with pytest.raises(
            DataError, match=rf"uses what is not part of coursekit: {path}.*allow=\[brighter\]"
        ):
            load_learner(file, allow=allow)
    for allow in ([brighter], brighter, (brighter, Darker), [path], path):
        assert_same_predictions(learn, load_learner(file, allow=allow), pictures)


def test_classes_of_the_user(pictures, tmp_path):
    block = (ImageBlock(MyPicture), CategoryBlock)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Swish())
    dls = loaders(pictures, block=block, item_tfms=[Darker(0.5), Resize(32)])
    learn = learner_for(dls, MyNet(body, 2, act=nn.functional.gelu))
    file = exporting_to(learn, tmp_path)
    with pytest.raises(DataError) as caught:
        load_learner(file)
    for name in ("Darker", "MyPicture.create", "MyNet", "Swish"):
        assert f"{__name__}.{name}" in str(caught.value)
    again = load_learner(file, allow=[Darker, MyPicture.create, MyNet, Swish])
    assert_same_predictions(learn, again, pictures)
    assert type(again.model) is MyNet and again.model.act is nn.functional.gelu
    assert type(again.dls.test_dl(get_image_files(pictures)).source[0][0]) is MyPicture


def test_a_script_of_the_user(pictures, tmp_path):
    "What was `__main__` in the notebook is given by name in the application."
    (tmp_path / "train.py").write_text(
        """
import sys
from coursekit.all import *
def is_blue(file): return file.parent.name[0] == "b"
class Head(nn.Module):
    def forward(self, x): return x.mean((2, 3))
parts = ImageBlock, CategoryBlock
block = DataBlock(parts, get_image_files, RandomSplitter(.2, 1), get_y=is_blue, item_tfms=Resize(32))
dls = block.dataloaders(sys.argv[1], bs=4, num_workers=0)
learn = Learner(dls, nn.Sequential(nn.Conv2d(3, 2, 3), Head()), path=".")
learn.export()
print(*learn.predict(get_image_files(sys.argv[1])[0])[2].tolist())
"""
    )
    (tmp_path / "heads.py").write_text(
        "from torch import nn\nclass Head(nn.Module):\n    def forward(self, x): return x.mean((2, 3))\n"
    )
    command = [sys.executable, "train.py", str(pictures)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    app = """
import sys
from coursekit.exporting import load_learner
from coursekit.messages import DataError
from heads import Head
try: load_learner("export.pkl")
except DataError as error: assert "__main__.Head" in str(error), error
else: raise SystemExit("loaded without being asked")
learn = load_learner("export.pkl", allow=[Head])
print(*learn.predict(sys.argv[1])[2].tolist())
"""
    picture = get_image_files(pictures)[0]
    assert np.allclose(
        [float(x) for x in fresh(app, picture, cwd=tmp_path).split()],
        [float(x) for x in done.stdout.split()[-2:]],
        atol=1e-6,
    )


def test_allowed_text_is_imported_only_then(pictures, tmp_path, monkeypatch):
    module = tmp_path / "labels_of_mine.py"
    module.write_text("def darker(picture): return picture.point(lambda v: v // 2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    labels = importlib.import_module("labels_of_mine")
    file = exporting_to(
        learner_for(loaders(pictures, item_tfms=[Resize(8), labels.darker])), tmp_path
    )
    del sys.modules["labels_of_mine"]
    with pytest.raises(DataError, match=r"labels_of_mine\.darker"):
        load_learner(file, allow=["labels_of_mine.other"])
    assert "labels_of_mine" not in sys.modules
    assert load_learner(file, allow=["labels_of_mine.darker"]).dls.c == 2
    assert "labels_of_mine" in sys.modules
    module.unlink()
    del sys.modules["labels_of_mine"]
    importlib.invalidate_caches()
    with pytest.raises(DataError, match="allow names what cannot be imported"):
        load_learner(file, allow=["labels_of_mine.darker"])


def refused(pictures, tmp_path, words, model=None, **kwargs):
    item_tfms = kwargs.pop("item_tfms", None)
    learn = learner_for(loaders(pictures, item_tfms=item_tfms), model, **kwargs)
    with pytest.raises(LearnerError, match=words) as caught:
        learn.export(tmp_path / "never.pkl")
    assert not list(tmp_path.glob("*never*"))
    return str(caught.value)


def test_what_has_no_name_is_refused_by_name(pictures, tmp_path):
    def inside(picture):
        return picture

    class Local(nn.Module):
        pass

    for step, name in ((lambda x: x, "<lambda> .line"), (inside, "inside .line")):
        said = refused(pictures, tmp_path, name, item_tfms=[Resize(8), step])
        assert "test_exporting.py" in said and "the transforms after_item" in said
    refused(pictures, tmp_path, "Local has no name", model=nn.Sequential(small_net(), Local()))
    refused(
        pictures,
        tmp_path,
        "act of MyNet: <lambda>",
        model=MyNet(nn.Conv2d(3, 8, 3), 2, lambda x: x),
    )


def test_what_cannot_come_back_as_it_is(pictures, tmp_path):
    changed = small_net()
    changed[0].forward = changed[0].forward
    refused(pictures, tmp_path, "the layer 0, a Sequential, was changed", model=changed)
    weight_normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    refused(pictures, tmp_path, "Linear", model=weight_normed)
    step = Resize(8)
    step.order = 5
    refused(pictures, tmp_path, "Resize keeps order=5", item_tfms=[step])
    cut = bodies.create_body(bodies.efficientnet_lite0, pretrained=False)
    cut.model.conv_stem = nn.Identity()
    refused(pictures, tmp_path, "conv_stem", model=nn.Sequential(cut))
    odd = MyNet(nn.Conv2d(3, 8, 3), 2, {"lr": {1, 2}})
    refused(pictures, tmp_path, "act of MyNet: .* is a set", model=odd)


def test_a_class_need_not_keep_its_arguments(pictures, tmp_path):
    "It comes back with what it keeps: numbers, lists, dicts, layers, weights, loose tensors."
    learn = learner_for(loaders(pictures), LeNet(2))
    learn.model.calls = {"many": [1, (2, 3)]}
    again = there_and_back(learn, tmp_path, allow=[LeNet])
    assert_same_predictions(learn, again, pictures)
    assert again.model.calls == {"many": [1, (2, 3)]} and again.model.named is None
    assert [*again.model.state_dict()] == [*learn.model.state_dict()]
    again.dls = learn.dls
    with again.no_logging():
        again.fit(1, 0.05)
    assert not torch.equal(again.model.scale, learn.model.scale)


class LeNet(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.features = nn.ModuleList([nn.Conv2d(3, 4, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(3)])
        self.ends = nn.ModuleDict({"last": nn.Linear(36, num_classes)})
        self.scale = nn.Parameter(torch.rand(num_classes))
        self.register_buffer("shift", torch.rand(num_classes))
        self.register_buffer("loose", torch.rand(1), persistent=False)
        self.named = None

    def forward(self, x):
        for layer in self.features:
            x = layer(x)
        return self.ends["last"](x.flatten(1)) * self.scale + self.shift + self.loose


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_whole_network_of_a_library(library, pictures, tmp_path):
    import timm
    import torchvision

    if library == "timm":
        model = timm.create_model("mobilenetv3_small_050", num_classes=2, in_chans=3)
    else:
        model = torchvision.models.mobilenet_v3_small(num_classes=2)
    learn = learner_for(loaders(pictures), model)
    assert_same_predictions(learn, there_and_back(learn, tmp_path), pictures)
    last = model.classifier if library == "timm" else model.classifier[3]
    last.extra = nn.Identity()
    with pytest.raises(LearnerError, match=r"was changed|as they are"):
        learn.export(tmp_path / "changed")


def test_a_partial_as_architecture_needs_a_function(pictures, tmp_path):
    import functools

    short = functools.partial(bodies.efficientnet_lite0, drop_rate=0.1)
    learn = vision.vision_learner(loaders(pictures), short, pretrained=False)
    with pytest.raises(LearnerError, match="in its place write a function with def"):
        learn.export(tmp_path / "short")


def test_a_class_that_was_replaced(pictures, tmp_path, monkeypatch):
    learn = learner_for(loaders(pictures), MyNet(nn.Conv2d(3, 8, 3), 2))
    monkeypatch.setattr(sys.modules[__name__], "MyNet", Swish)
    with pytest.raises(LearnerError, match="MyNet is not what it was"):
        learn.export(tmp_path / "x")


def test_labels_that_json_does_not_know():
    for labels in ([b"a", b"b"], [1 + 2j, 3]):
        with pytest.raises(LearnerError, match="vocab of Categorize"):
            through(categories(labels, labels=labels), "step")


def test_what_else_stays_behind_is_named(pictures, tmp_path):
    class Mine(Callback):
        pass

    learn = learner_for(loaders(pictures), cbs=Mine())
    learn.model[0].register_forward_hook(lambda *args: None)
    with pytest.warns(UserWarning, match="not exported: Mine, the hooks of layer 0"):
        learn.export(tmp_path / "a.pkl")


# ---------------------------------------------------------------- the file
def test_the_old_file_or_the_new_one(exported, tmp_path, monkeypatch):
    "An export that fails half way leaves what was there."
    learn = exported[0]
    file = exporting_to(learn, tmp_path)
    before = file.read_bytes()

    def breaks(*args):
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", breaks)
        with pytest.raises(OSError, match="full"):
            exporting_to(learn, tmp_path)
    assert file.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [file.name]
    assert learn.export(tmp_path / "new" / "deep" / "export.pkl").exists()


def test_every_changed_byte_is_found(exported, tmp_path):
    good = exported[1].read_bytes()
    length = int.from_bytes(good[:8], "little")
    draw = random.Random(0)
    places = {*range(12), *range(length - 6, length + 14), len(good) - 1}
    places |= {draw.randrange(8, 8 + length) for _ in range(300)}
    places |= {draw.randrange(8 + length, len(good)) for _ in range(200)}
    places |= set(range(good.index(b'"sha256"'), good.index(b'"sha256"') + 78))
    file = tmp_path / "changed.safetensors"
    for place in places:
        for change in (1, 0x20, 0x80):
            bad = bytearray(good)
            bad[place] ^= change
            file.write_bytes(bad)
            with pytest.raises(DataError) as caught:
                load_learner(file)
            assert str(file) in str(caught.value), place
    file.write_bytes(good)
    load_learner(file)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 100, 2000, -1, -100])
def test_cut_off(n, exported, tmp_path):
    file = tmp_path / "cut.safetensors"
    file.write_bytes(exported[1].read_bytes()[:n])
    with pytest.raises(DataError, match=r"cut\.safetensors"):
        load_learner(file)
    file.write_bytes(exported[1].read_bytes() + b"more")
    with pytest.raises(DataError, match="damaged"):
        load_learner(file)


def test_other_files(exported, pictures, tmp_path):
    import pickle

    from safetensors.torch import save_file

    with pytest.raises(DataError, match="there is no file of that name"):
        load_learner(tmp_path / "export.pkl")
    with pytest.raises(DataError, match="it is a folder"):
        load_learner(tmp_path)
    with pytest.raises(DataError, match=r"no file of learn\.export"):
        load_learner(get_image_files(pictures)[0])
    for name, content in (("a.pkl", pickle.dumps({"x": 1})), ("b.pkl", pickle.dumps(Swish(), 2))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="is a pickle"):
            load_learner(tmp_path / name)
    torch.save(nn.Linear(2, 2), tmp_path / "c.pkl")
    with pytest.raises(DataError, match="is a pickle"):
        load_learner(tmp_path / "c.pkl")
    save_file({"weight": torch.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="no description of a learner"):
        load_learner(tmp_path / "weights.safetensors")
    made = exported[1].read_bytes().replace(b'"coursekit.format":"2"', b'"coursekit.format":"1"')
    (tmp_path / "old.pkl").write_bytes(made)
    with pytest.raises(DataError, match=r"format is '1'.*export the learner again"):
        load_learner(tmp_path / "old.pkl")
    with (tmp_path / "sparse").open("wb") as f:
        f.truncate(2**30)
    with pytest.raises(DataError, match="no holes"):
        load_learner(tmp_path / "sparse")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="no file"):
        load_learner(tmp_path / "pipe")
