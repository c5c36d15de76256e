"Every part of a learner comes back from its file, and no file can do harm."

import functools
import importlib.util
import inspect
import json
import os
import random
import re
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from coursekit import augment, data, exporting, learner, training
from coursekit.augment import (
    Brightness,
    Contrast,
    Dihedral,
    Flip,
    MaskBlock,
    Normalize,
    PointBlock,
    RandomResizedCrop,
    RandomResizedCropBatch,
    Resize,
    Rotate,
    ScalePoints,
    ToMask,
    ToPoints,
    Warp,
    Zoom,
    aug_transforms,
    imagenet_stats,
)
from coursekit.data import (
    Categorize,
    CategoryBlock,
    ColReader,
    DataBlock,
    DataLoader,
    DataLoaders,
    ImageBlock,
    ImageDataLoaders,
    IntToFloat,
    PILImage,
    PILImageBW,
    RandomSplitter,
    RegexLabeller,
    RegressionBlock,
    ToNumber,
    ToTensor,
    Transform,
    get_image_files,
    parent_label,
    using_attr,
)
from coursekit.datasets import DataError
from coursekit.exporting import load_learner
from coursekit.learner import (
    BCEWithLogitsLossFlat,
    Callback,
    CrossEntropyLossFlat,
    FocalLossFlat,
    Learner,
    LearnerError,
    Metric,
    MSELossFlat,
    accuracy,
    accuracy_multi,
    error_rate,
    rmse,
    sklearn_metric,
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
    learn = learner_for(dls, metrics=[accuracy, error_rate])
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
    one = learn.get_preds(dl=learn.dls.test_dl(files, with_labels=True), with_loss=True)
    two = again.get_preds(dl=again.dls.test_dl(files, with_labels=True), with_loss=True)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True)) and len(one) == 3
    assert torch.equal(again.get_preds(dl=again.dls.test_dl(files))[0], one[0])
    assert not again.model.training and again.path == file.parent
    assert [metric.name for metric in again.metrics] == ["accuracy", "error_rate"]


def test_it_can_be_trained_on(exported, pictures):
    again = load_learner(exported[1])
    before = [p.clone() for p in again.model.parameters()]
    again.dls = loaders(pictures)
    with again.no_logging():
        again.fit(1, 0.05)
    assert not all(torch.equal(a, b) for a, b in zip(before, again.model.parameters(), strict=True))
    assert again.recorder.values[-1][2] is not None


def test_again_from_the_loaded_one(exported, pictures, tmp_path):
    "What was loaded can be exported, and nothing has changed but the time."
    again = load_learner(exported[1])
    file = exporting_to(again, tmp_path)
    first, second = (exporting._read(each) for each in (exported[1], file))
    assert first[0] == second[0]
    assert all(torch.equal(second[1][name], tensor) for name, tensor in first[1].items())


def test_names_of_files(exported, tmp_path, monkeypatch):
    learn = exported[0]
    monkeypatch.setattr(learn, "path", tmp_path)
    assert learn.export() == tmp_path / "export.safetensors"
    assert load_learner(tmp_path / "export.pkl").dls.vocab == ["blue", "red"]
    assert learn.export("models/bears") == tmp_path / "models" / "bears.safetensors"
    assert load_learner(tmp_path / "models" / "bears").dls.vocab == ["blue", "red"]
    assert learn.export("bears.v2.learner").name == "bears.v2.learner"
    assert load_learner(str(tmp_path / "bears.v2.learner")).dls.c == 2
    (tmp_path / "export.safetensors").rename(tmp_path / "renamed.pkl")
    assert load_learner(tmp_path / "renamed.pkl").dls.c == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "bears.v2.learner",
        "models",
        "renamed.pkl",
    ]


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
def through(value, in_model=False):
    "A value written as JSON and read again."
    writer = exporting._Writer()
    text = json.dumps(writer.put(value, "here"), allow_nan=False)
    reader = exporting._Reader(writer.tensors, writer.yours)
    reader.in_model = in_model
    return reader.get(json.loads(text))


def facts(value):
    "What an object is made of, as something that can be compared."
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, functools.partial):
        return facts(value.func), facts(value.args), facts(value.keywords)
    if isinstance(value, re.Pattern):
        return value.flags, value.pattern.removeprefix("(?im)")
    if isinstance(value, tuple):
        return tuple(map(facts, value))
    if isinstance(value, dict):
        return {name: facts(inner) for name, inner in value.items()}
    if isinstance(value, list) or type(value).__name__ == "L":
        return [facts(inner) for inner in value]
    if hasattr(value, "__dict__") and not (inspect.isroutine(value) or isinstance(value, type)):
        kept = {
            key: inner
            for key, inner in vars(value).items()
            if key != "given" or not isinstance(inner, bool)
        }
        return type(value), facts(kept)
    return type(value), value


def categories(*args, labels=("b", "a", "b"), **kwargs):
    made = Categorize(*args, **kwargs)
    made.setup(list(labels))
    return made


def module_level(x):
    return x


ADAM = functools.partial(training.Adam, mom=0.8, sqr_mom=0.98)
PARTS = [
    RegexLabeller(r"(.+)_\d+"),
    RegexLabeller(re.compile(r"(b.+)_\d+", re.I | re.M), match=True),
    using_attr(RegexLabeller("(a)"), "name"),
    using_attr(parent_label, "parent"),
    ColReader("file", pref="pictures/", suff=".jpg"),
    ColReader([0, "labels"], label_delim=";"),
    ColReader("file", pref=Path("a") / "b"),
    categories(),
    categories(sort=False, labels=[2, 1]),
    categories(labels=[2.5, 1.5]),
    categories(labels=[True, False]),
    categories(add_na=True),
    categories(["z", "a", "b"]),
    ToNumber(),
    ToNumber(3),
    ToPoints(),
    ToMask(),
    ToMask(["ground", "sky"]),
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
    Flip(0.3, draw=1, mode="nearest", pad_mode="zeros", batch=True),
    Flip(draw=[0, 1]),
    Flip(draw=module_level),
    Dihedral(0.4, draw=3.0, size=32),
    Rotate(30, 0.4, draw=5.0),
    Zoom(0.9, 1.2, 0.4, 1.1, 0.2, 0.3, pad_mode="border"),
    Warp(0.3, 0.4, 0.1, 0.2),
    Brightness(0.3, 0.4, draw=0.6),
    *(Contrast(share, 0.4, batch=True) for share in (0, 0.1, 0.2, 0.3, 1 / 3, 0.77, 0.999)),
    RandomResizedCropBatch(32, 0.4, (0.8, 1.2), 0.9, 0.95, p=0.9, batch=True),
    CrossEntropyLossFlat(),
    CrossEntropyLossFlat(torch.tensor([1.0, 2]), axis=1, label_smoothing=0.1, reduction="sum"),
    BCEWithLogitsLossFlat(thresh=0.3, pos_weight=torch.tensor([2.0, 3])),
    MSELossFlat(reduction="sum"),
    FocalLossFlat(3.0, torch.tensor([1.0, 2]), ignore_index=-1),
    nn.CrossEntropyLoss(label_smoothing=0.2),
    nn.NLLLoss(ignore_index=3),
    nn.BCEWithLogitsLoss(),
    nn.BCELoss(),
    nn.MSELoss(),
    nn.L1Loss(reduction="sum"),
    nn.SmoothL1Loss(beta=0.5),
    nn.HuberLoss(delta=2.0),
    Metric(accuracy),
    Metric(rmse, name="off by"),
    Metric(functools.partial(accuracy_multi, thresh=0.2)),
    Metric(module_level, whole=True),
    ADAM,
]
for lesson in ("multilabel", "recipes", "collab"):
    if importlib.util.find_spec(f"coursekit.{lesson}"):
        importlib.import_module(f"coursekit.{lesson}")
if multilabel := sys.modules.get("coursekit.multilabel"):
    several = multilabel.MultiCategorize(add_na=True)
    several.setup([["a", "b"], [], ["c"]])
    PARTS += [several, multilabel.MultiCategorize(["z", "a"])]
    PARTS += [multilabel.EncodedMultiCategorize(["z", "a"]), multilabel.F1ScoreMulti(0.3)]
if recipes := sys.modules.get("coursekit.recipes"):
    PARTS += [
        recipes.LabelSmoothingCrossEntropy(0.2, torch.tensor([1.0, 2])),
        recipes.LabelSmoothingCrossEntropyFlat(0.2, axis=2),
    ]
if collab := sys.modules.get("coursekit.collab"):
    PARTS += [
        collab.ToIds("user", "film", [7, 3], ["b", "a"]),
        collab.ToIds("user", "film", ["x"], [2.5, 1.5], ["The film", "the other"]),
        collab._Column("rating"),
        functools.partial(collab.LazyAdam, mom=0.8, wd=0.1),
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
    nn.ConvTranspose1d(2, 4, 3),
    nn.ConvTranspose2d(2, 4, 3, 2, output_padding=1),
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
    nn.Upsample(scale_factor=2.0, mode="bilinear"),
    nn.Upsample((4, 5)),
    nn.PixelShuffle(2),
    nn.ZeroPad2d((1, 2, 3, 4)),
    nn.ReflectionPad2d(1),
]
if collab:
    LAYERS += [
        collab.EmbeddingDotBias(3, 4, 5),
        collab.EmbeddingDotBias(3, 4, 5, (0.5, 5.5), sparse=True),
        collab.EmbeddingNN([(4, 2), (5, 3)], [8], 0.1),
        collab.EmbeddingNN([(4, 2), (5, 3)], [8, 6], [0.1, 0.2], 0.05, (0.5, 5.5)),
    ]


def by_kind(value):
    return type(value.func if isinstance(value, functools.partial) else value).__name__


@pytest.mark.parametrize("part", PARTS, ids=by_kind)
def test_a_part_comes_back(part):
    again = through(part)
    assert again is not part and facts(again) == facts(part)
    exporting._compare(again, part, "here")


@pytest.mark.parametrize("layer", LAYERS, ids=by_kind)
def test_a_layer_comes_back(layer):
    again = through(layer, in_model=True)
    assert repr(again) == repr(layer)
    wanted, found = layer.state_dict(), again.state_dict()
    assert {n: t.shape for n, t in wanted.items()} == {n: t.shape for n, t in found.items()}
    plain = (bool, int, float, str, tuple, type(None))
    kept = [{k: v for k, v in vars(m).items() if type(v) in plain} for m in (again, layer)]
    assert kept[0] == kept[1]


NAMED = [name for name, entry in exporting._TABLE.items() if not entry.in_model]


@pytest.mark.parametrize("name", NAMED)
def test_every_name_is_tried(name):
    "A class has its example above; a function comes back as itself."
    entry = exporting._TABLE[name]
    module = name.rpartition(".")[0]
    if module in ("vision", "multilabel", "recipes", "collab"):
        if not importlib.util.find_spec(entry.module):
            pytest.skip("its lesson is not there yet")
    thing = exporting._found(entry.module, entry.name)
    if isinstance(thing, type):
        made = (part.func if isinstance(part, functools.partial) else part for part in PARTS)
        assert any(thing in (type(part), part) for part in made), f"{name} has no example in PARTS"
    else:
        assert through(thing) == thing


def test_every_layer_is_tried():
    torch_layers = {
        n for n in exporting._TABLE if n.startswith("torch.nn.") and exporting._TABLE[n].in_model
    }
    tried = {f"torch.nn.{type(layer).__name__}" for layer in LAYERS}
    assert {n for n in torch_layers if ".functional." not in n} <= tried
    if collab:
        assert {collab.EmbeddingDotBias, collab.EmbeddingNN} <= set(map(type, LAYERS))


def test_no_public_transform_is_left_out():
    "Whoever adds a transform to data or augment has to add it to the list of parts."
    steps = [
        f"{module.__name__.partition('.')[2]}.{name}"
        for module in (data, augment)
        for name in module.__all__
        if isinstance(thing := getattr(module, name), type)
        and thing not in (Transform, data.Pipeline)
        and any("__call__" in vars(kind) for kind in thing.__mro__)
    ]
    assert len(steps) > 20 and "augment.Flip" in steps and "data.Categorize" in steps
    assert not [name for name in steps if name not in exporting._TABLE]
    losses = [n for n in learner.__all__ if n.endswith("LossFlat")]
    assert not [name for name in losses if f"learner.{name}" not in exporting._TABLE]


def test_plain_values_come_back():
    values = [
        None,
        True,
        3,
        2.5,
        "ä\u2028\ud83d",
        [1, (2, [3])],
        {"a": 1, 2: (None,)},
        slice(1e-6, 1e-3),
    ]
    values += [float("inf"), torch.bfloat16, 10**30, (), {}]
    for value in values:
        again = through(value)
        assert again == value and type(again) is type(value)
    assert through(np.float32(0.1)) == float(np.float32(0.1)) and through(np.str_("a")) == "a"
    assert type(through(True)) is bool and type(through(1)) is int and type(through(1.0)) is float


def test_paths_of_the_other_system():
    assert through(PureWindowsPath(r"C:\data\bears")) == Path("C:/data/bears")
    assert through(PurePosixPath("data/bears")) == Path("data/bears")
    again = through(ColReader("file", pref=PureWindowsPath(r"data\bears"), suff=".png"))
    assert again({"file": "1"}) == Path("data/bears/1.png")


def test_metric_of_sklearn():
    pred, target = torch.randn(20, 3), torch.randint(3, (20,))
    for metric in (
        sklearn_metric("f1_score", average="macro"),
        sklearn_metric("roc_auc_score", wants="probabilities", multi_class="ovr", name="area"),
    ):
        again = through(metric)
        assert again.name == metric.name and again.whole
        assert again.func(pred, target) == metric.func(pred, target)
        twice = through(again)
        assert twice.func(pred, target) == metric.func(pred, target)


# ---------------------------------------------------------------- other data, other models
def test_points(pictures, tmp_path):
    dls = loaders(
        pictures, get_y=two_points, block=(ImageBlock, PointBlock), batch_tfms=aug_transforms()
    )
    learn = learner_for(dls, nn.Sequential(small_net(4), nn.Unflatten(1, (2, 2))))
    assert_same_predictions(learn, there_and_back(learn, tmp_path, allow=[two_points]), pictures)


def two_points(item):
    return [(10, 20), (30, 4)]


def brightness(item):
    return float(np.asarray(Image.open(item)).mean())


def test_numbers(pictures, tmp_path):
    dls = loaders(pictures, get_y=brightness, block=(ImageBlock(PILImageBW), RegressionBlock))
    learn = learner_for(dls, small_net(1, channels=1), metrics=rmse)
    again = there_and_back(learn, tmp_path, allow=brightness)
    assert_same_predictions(learn, again, pictures)
    assert again.dls.c == 1 and isinstance(again.loss_func, MSELossFlat)


def assert_same_predictions(one, two, pictures):
    files = get_image_files(pictures)
    a = one.get_preds(dl=one.dls.test_dl(files), with_decoded=True)
    b = two.get_preds(dl=two.dls.test_dl(files), with_decoded=True)
    assert torch.equal(a[0], b[0]) and torch.equal(a[2], b[2])
    assert repr(one.predict(files[3])) == repr(two.predict(files[3]))


def test_a_table(pictures, tmp_path):
    import pandas as pd

    table = pd.DataFrame(
        {"name": [f"{kind}/{kind}_{i}" for kind in ("blue", "red") for i in range(6)]}
    )
    table["label"] = [1, 2] * 6
    dls = ImageDataLoaders.from_df(table, pictures, suff=".png", item_tfms=Resize(32), bs=4)
    learn = learner_for(dls)
    again = there_and_back(learn, tmp_path)
    one, two = (x.get_preds(dl=x.dls.test_dl(table, with_labels=True)) for x in (learn, again))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert again.dls.vocab == [1, 2] and again.predict(table.iloc[0])[0] in (1, 2)


def test_mask(pictures, tmp_path):
    block = (ImageBlock, MaskBlock(["a", "b"]))
    dls = loaders(pictures, get_y=small_mask, block=block, item_tfms=Resize(16))
    model = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1))
    learn = learner_for(dls, model, loss_func=CrossEntropyLossFlat(axis=1))
    again = there_and_back(learn, tmp_path, allow=[small_mask])
    batch = again.dls.test_dl(get_image_files(pictures), with_labels=True).one_batch()
    assert batch[1].dtype == torch.int64 and again.dls.vocab == ["a", "b"]
    assert again.loss_func.axis == 1


def small_mask(item):
    return np.zeros((40, 52), dtype=np.uint8)


def test_tensors_in_memory(tmp_path):
    pairs = torch.utils.data.TensorDataset(torch.randn(20, 3), torch.randn(20, 1))
    dls = DataLoaders(DataLoader(pairs, 5, shuffle=True), DataLoader(pairs, 5))
    learn = learner_for(dls, nn.Sequential(nn.Linear(3, 1)), loss_func=nn.functional.mse_loss)
    again = there_and_back(learn, tmp_path)
    batches = [pairs[:7]]
    assert torch.equal(learn.get_preds(dl=batches)[0], again.get_preds(dl=batches)[0])
    with pytest.raises(DataError, match="test_dl needs loaders"):
        again.predict(torch.zeros(3))
    plain = torch.utils.data.DataLoader(pairs, 5)
    again = there_and_back(
        learner_for(DataLoaders(plain, plain), learn.model, loss_func=MSELossFlat()), tmp_path
    )
    assert torch.equal(learn.get_preds(dl=batches)[0], again.get_preds(dl=batches)[0])


def test_all_that_training_needs(pictures, tmp_path):
    from coursekit.training import SGD

    learn = learner_for(
        loaders(pictures),
        opt_func=ADAM,
        lr=slice(1e-5, 1e-3),
        wd=0.02,
        moms=(0.9, 0.8, 0.9),
        train_bn=False,
        wd_bn_bias=True,
        splitter=two_groups,
        loss_func=CrossEntropyLossFlat(weight=torch.tensor([1.0, 2.0])),
    )
    for p in learn.model[0].parameters():
        p.requires_grad_(False)
    again = there_and_back(learn, tmp_path, allow=[two_groups])
    for name in ("lr", "wd", "moms", "train_bn", "wd_bn_bias", "splitter"):
        assert getattr(again, name) == getattr(learn, name), name
    assert again.opt_func.func is training.Adam and again.opt_func.keywords["mom"] == 0.8
    assert again.loss_func.weight.tolist() == [1, 2]
    frozen = [[p.requires_grad for p in x.model.parameters()] for x in (learn, again)]
    assert frozen[0] == frozen[1] and len(set(frozen[0])) == 2
    again.dls = loaders(pictures)
    again.unfreeze()
    with again.no_logging():
        again.fit_one_cycle(1)
    learn = learner_for(loaders(pictures), opt_func=SGD)
    assert there_and_back(learn, tmp_path).opt_func is SGD


def two_groups(model):
    return [list(model[0].parameters()), list(model[1].parameters())]


def test_half_precision(pictures, tmp_path):
    learn = learner_for(loaders(pictures))
    learn.model[1].to(torch.bfloat16)
    again = there_and_back(learn, tmp_path)
    assert [p.dtype for p in again.model.parameters()] == [
        p.dtype for p in learn.model.parameters()
    ]
    assert torch.equal(again.model[1][3].weight, learn.model[1][3].weight)
    learn = learner_for(loaders(pictures)).to_bf16()
    again = there_and_back(learn, tmp_path)
    assert_same_predictions(learn, again, pictures)
    assert again.autocast.fast_dtype is torch.bfloat16
    again.to_fp32()


def test_shared_weights(tmp_path):
    class_of = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    class_of[1].weight = class_of[0].weight
    shared = nn.Linear(5, 5)
    model = nn.Sequential(class_of, shared, nn.Tanh(), shared)
    pairs = [(torch.tensor(i % 5), i % 5) for i in range(10)]
    learn = learner_for(DataLoaders(DataLoader(pairs, 5)), model, loss_func=CrossEntropyLossFlat())
    again = there_and_back(learn, tmp_path)
    batch = [(torch.arange(5), torch.arange(5))]
    assert torch.equal(learn.get_preds(dl=batch)[0], again.get_preds(dl=batch)[0])
    assert again.model[0][0].weight is again.model[0][1].weight
    assert (
        again.model[1].weight is again.model[3].weight
        and again.model[1].bias is again.model[3].bias
    )
    assert len(list(again.model.parameters())) == len(list(model.parameters())) == 3
    again.dls = learn.dls
    with again.no_logging():
        again.fit(1, 0.1)
    assert torch.equal(again.model[0][0].weight, again.model[0][1].weight)


def test_memory_that_is_shared_in_part(pictures, tmp_path):
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


@pytest.mark.parametrize("arch", ["resnet18", "efficientnet_lite0", "text"])
def test_a_vision_learner(arch, pictures, tmp_path):
    "Body by its layers or by how it was made, head by its layers; nothing is fetched."
    vision = pytest.importorskip("coursekit.vision")
    which = "resnet10t" if arch == "text" else getattr(vision, arch)
    learn = vision.vision_learner(
        loaders(pictures), which, pretrained=False, metrics=error_rate, lin_ftrs=[16]
    )
    again = there_and_back(learn, tmp_path)
    assert_same_predictions(learn, again, pictures)
    assert again.splitter is learn.splitter
    groups = [list(map(len, x.splitter(x.model))) for x in (learn, again)]
    assert groups[0] == groups[1]
    strides = [[p.stride() for p in x.model.parameters()] for x in (learn, again)]
    assert strides[0] == strides[1]
    if arch == "resnet18":
        again.dls = loaders(pictures)
        with again.no_logging():
            again.fine_tune(1)
        assert there_and_back(again, tmp_path).dls.vocab == ["blue", "red"]


def test_an_xresnet(pictures, tmp_path):
    recipes = pytest.importorskip("coursekit.recipes")
    model = recipes.xresnet18(n_out=2, widen=0.25)
    learn = learner_for(loaders(pictures), model)
    assert_same_predictions(learn, there_and_back(learn, tmp_path), pictures)


def test_on_a_gpu(exported, pictures):
    learn, file = exported
    again = load_learner(file, cpu=False)
    device = data.default_device()
    assert again.dls.device == device and again.device == device
    assert {p.device.type for p in again.model.parameters()} == {device.type}
    picture = get_image_files(pictures)[0]
    assert torch.allclose(again.predict(picture)[2], learn.predict(picture)[2], atol=1e-4)


# ---------------------------------------------------------------- what belongs to the user
def label_of(item):
    return Path(item).parent.name


class Shout:
    "A getter with an argument, which it keeps."

    def __init__(self, loud=True):
        self.loud = loud

    def __call__(self, item):
        name = Path(item).parent.name
        return name.upper() if self.loud else name

    def method(self, item):
        return self(item)


class Forgets(Shout):
    def __init__(self, volume):
        self.loud = volume > 3


class Learns(Shout):
    def setup(self, items):
        self.seen = len(items)


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


lambda_with_a_name = lambda item: "a"


def test_functions_of_the_user(pictures, tmp_path):
    learn = learner_for(loaders(pictures, get_y=label_of))
    file = exporting_to(learn, tmp_path)
    path = f"{__name__}.label_of"
    for allow in ((), [Shout], "os.system", [os.getcwd], ["tests"]):
        with pytest.raises(
            DataError, match=rf"uses what is not part of coursekit: {path}.*allow=\[label_of\]"
        ):
            load_learner(file, allow=allow)
    for allow in ([label_of], label_of, (label_of, Shout), [path], path):
        assert_same_predictions(learn, load_learner(file, allow=allow), pictures)


def test_classes_of_the_user(pictures, tmp_path):
    block = (ImageBlock(MyPicture), CategoryBlock)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    dls = loaders(pictures, get_y=Shout(False), block=block, item_tfms=[Darker(0.5), Resize(32)])
    learn = learner_for(dls, MyNet(body, 2, act=nn.functional.gelu), metrics=my_metric)
    file = exporting_to(learn, tmp_path)
    with pytest.raises(DataError) as caught:
        load_learner(file)
    for name in ("Shout", "Darker", "MyPicture.create", "MyNet", "my_metric", "gelu"):
        assert (f"{__name__}.{name}" in str(caught.value)) == (name != "gelu")
    again = load_learner(file, allow=[Shout, Darker, MyPicture.create, MyNet, my_metric])
    assert_same_predictions(learn, again, pictures)
    assert type(again.model) is MyNet and again.model.act is nn.functional.gelu
    assert type(again.dls.test_dl(get_image_files(pictures)).source[0][0]) is MyPicture
    assert again.metrics[0].func is my_metric


def my_metric(pred, target):
    return (pred.argmax(1) != target).float().sum() / len(pred)


def test_a_script_of_the_user(pictures, tmp_path):
    "What was `__main__` in the notebook is given by name in the application."
    (tmp_path / "train.py").write_text(
        """
import sys
from coursekit.all import *
def get_label(file): return file.parent.name[:2]
parts = ImageBlock, CategoryBlock
block = DataBlock(parts, get_image_files, RandomSplitter(.2, 1), get_y=get_label, item_tfms=Resize(32))
dls = block.dataloaders(sys.argv[1], bs=4, num_workers=0)
from coursekit.exporting import load_learner
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
learn = Learner(dls, model, path=".")
learn.export()
print(*learn.predict(get_image_files(sys.argv[1])[0])[2].tolist())
"""
    )
    (tmp_path / "labels.py").write_text("def get_label(file): return 'x'\n")
    command = [sys.executable, "train.py", str(pictures)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    app = """
import sys
from coursekit.exporting import load_learner
from coursekit.datasets import DataError
from labels import get_label
try: load_learner("export.pkl")
except DataError as error: assert "__main__.get_label" in str(error), error
else: raise SystemExit("loaded without being asked")
learn = load_learner("export.pkl", allow=[get_label])
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
    module.write_text("def get_label(item): return item.parent.name\n")
    monkeypatch.syspath_prepend(tmp_path)
    labels = importlib.import_module("labels_of_mine")
    file = exporting_to(learner_for(loaders(pictures, get_y=labels.get_label)), tmp_path)
    del sys.modules["labels_of_mine"]
    with pytest.raises(DataError, match=r"labels_of_mine\.get_label"):
        load_learner(file, allow=["labels_of_mine.other"])
    assert "labels_of_mine" not in sys.modules
    assert load_learner(file, allow=["labels_of_mine.get_label"]).dls.c == 2
    assert "labels_of_mine" in sys.modules
    module.unlink()
    del sys.modules["labels_of_mine"]
    importlib.invalidate_caches()
    with pytest.raises(DataError, match="there is no such thing to import"):
        load_learner(file, allow=["labels_of_mine.get_label"])


def refused(pictures, tmp_path, words, model=None, get_y=None, **kwargs):
    item_tfms = kwargs.pop("item_tfms", None)
    dls = loaders(pictures, get_y=get_y or parent_label, item_tfms=item_tfms)
    learn = learner_for(dls, model, **kwargs)
    with pytest.raises(LearnerError, match=words) as caught:
        learn.export(tmp_path / "never.pkl")
    assert not list(tmp_path.glob("*never*"))
    return str(caught.value)


def test_lambdas_are_refused_by_name(pictures, tmp_path):
    def inside(item):
        return item.parent.name

    def hidden_loss(pred, target):
        return pred.sum()

    said = refused(pictures, tmp_path, "there is a lambda", get_y=lambda item: item.parent.name)
    assert (
        "what makes the target (get_y)" in said
        and "test_exporting.py" in said
        and "def get_y(...)" in said
    )
    refused(pictures, tmp_path, "inside is defined inside test_lambdas", get_y=inside)
    refused(pictures, tmp_path, r"loss_func: hidden_loss is defined inside", loss_func=hidden_loss)
    refused(
        pictures, tmp_path, r"metrics, func of Metric: there is a lambda", metrics=lambda a, b: 1.0
    )
    refused(
        pictures, tmp_path, "splitter: there is a lambda", splitter=lambda m: list(m.parameters())
    )
    refused(pictures, tmp_path, "Shout.method is a method of an object", get_y=Shout().method)
    refused(
        pictures, tmp_path, "transforms of an item: .*lambda", item_tfms=[Resize(8), lambda x: x]
    )
    partly = functools.partial(accuracy, axis=lambda: 1)
    refused(pictures, tmp_path, "metrics, .*lambda", metrics=partly)


def test_a_lambda_with_a_name(tmp_path, pictures):
    picture = Flip(draw=lambda_with_a_name)
    said = r"lambda_with_a_name is a lambda.*def lambda_with_a_name\("
    with pytest.raises(LearnerError, match=said):
        through(picture)


def test_what_does_not_say_how_it_was_made(pictures, tmp_path):
    said = refused(pictures, tmp_path, "made with 'volume' and does not keep it", get_y=Forgets(5))
    assert "self.volume = volume" in said
    refused(pictures, tmp_path, "seen of Learns: 9 would come back as 0", get_y=Learns())
    changed = small_net()
    changed[0].forward = changed[0].forward
    refused(pictures, tmp_path, "the layer 0 has a forward of its own", model=changed)
    counted = MyNet(nn.Conv2d(3, 8, 3), 2)
    counted.calls = 5
    refused(pictures, tmp_path, "the model: MyNet keeps 'calls'", model=counted)

    class Local(nn.Module):
        pass

    refused(
        pictures, tmp_path, "Local is defined inside", model=nn.Sequential(small_net(), Local())
    )
    weight_normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    refused(pictures, tmp_path, "the model", model=weight_normed)
    step = Resize(8)
    step.order = 5
    refused(pictures, tmp_path, "Resize keeps 'order'", item_tfms=[step])
    learn = learner_for(loaders(pictures))
    learn.loss_func = os.system
    file = exporting_to(learn, tmp_path)  # it is theirs to say so, and nobody has to believe it
    with pytest.raises(DataError, match=r"\bsystem\b.*If you know and trust it"):
        load_learner(file)


def test_a_function_that_was_replaced(pictures, tmp_path, monkeypatch):
    learn = learner_for(loaders(pictures, get_y=label_of))
    monkeypatch.setattr(sys.modules[__name__], "label_of", Shout())
    with pytest.raises(LearnerError, match="label_of is not what it was"):
        learn.export(tmp_path / "x")


def test_labels_that_json_does_not_know():
    with pytest.raises(LearnerError, match="vocab of Categorize"):
        through(categories(labels=[b"a", b"b"]))
    with pytest.raises(LearnerError, match="vocab of Categorize"):
        through(categories([1 + 2j, 3], labels=[3]))


def test_callbacks_and_hooks_are_named(pictures, tmp_path):
    class Mine(Callback):
        pass

    learn = learner_for(loaders(pictures), cbs=Mine())
    with pytest.warns(UserWarning, match="callbacks are not exported: Mine"):
        learn.export(tmp_path / "a.pkl")
    learn = learner_for(loaders(pictures))
    learn.model[0].register_forward_hook(lambda *args: None)
    with pytest.warns(UserWarning, match="hooks are not exported: 0"):
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

    with pytest.raises(DataError, match=r"there is no file .*export\.safetensors"):
        load_learner(tmp_path / "export.pkl")
    with pytest.raises(DataError, match="it is a folder"):
        load_learner(tmp_path)
    with pytest.raises(DataError, match=r"no file of learn\.export"):
        load_learner(get_image_files(pictures)[0])
    for name, content in (("a.pkl", pickle.dumps({"x": 1})), ("b.pkl", pickle.dumps(Shout(), 2))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="is a pickle, which is a small program"):
            load_learner(tmp_path / name)
    torch.save(nn.Linear(2, 2), tmp_path / "c.pkl")
    with pytest.raises(DataError, match="is a pickle"):
        load_learner(tmp_path / "c.pkl")
    save_file({"weight": torch.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="no description of a learner"):
        load_learner(tmp_path / "weights.safetensors")
    exporting_to(exported[0], tmp_path, "a.pkl")  # beside a pickle of that name
    assert load_learner(tmp_path / "a.pkl").dls.c == 2


# ---------------------------------------------------------------- attacks
def crafted(file, description, tensors=None, form="1", more=None):
    "A file with a right sum, as an attacker would make it."
    from safetensors.torch import save

    text = description if isinstance(description, str) else json.dumps(description)
    made = save(tensors or {}, {"coursekit.format": form, "coursekit": text, "sha256": "0" * 64})
    size = 8 + int.from_bytes(made[:8], "little")
    header, body = made[:size], made[size:]
    return signed(file, header, body)


def signed(file, header, body):
    total = exporting._sum(header, memoryview(body))
    file.write_bytes(exporting._SUM.sub(b'"sha256":"' + total + b'"', header) + body)
    return file


@pytest.fixture
def craft(exported, tmp_path):
    "A function that changes the description of a good file."

    def make(*path_and_value, **more):
        description, tensors = exporting._read(exported[1])
        *path, last, value = path_and_value
        inner = description
        for key in path:
            inner = inner[key]
        inner[last] = value
        return crafted(tmp_path / "crafted.safetensors", description, tensors, **more)

    return make


def harmless(file, words="", seconds=2.0, megabytes=60):
    "It is a DataError, and soon, and there was no memory for it."
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=words or None) as caught:
            load_learner(file)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert type(caught.value) is DataError and str(file) in str(caught.value)
    assert time.perf_counter() - start < seconds * 5 and peak < megabytes * 1e6
    assert len(str(caught.value)) < 1000


LAST = ("model", "layers", "with", "1", "with", "3", "with")
EVIL = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "posix.system",
    "data.os.system",
    "data.patch",
    "data.TorchDataLoader",
    "data.Categorize.__init__",
    "data.__builtins__",
    "learner.safe_load",
    "learner.Learner",
    "learner.pickle.loads",
    "datasets.untar_data",
    "exporting._imported",
    "exporting.importlib.import_module",
    "training.torch.load",
    "vision.nonsense",
    "torch.nn.Module",
    "torch.load",
    "torch.nn.functional.torch.load",
    "torchvision.models.os",
    "torchvision.models.get_model",
    "coursekit.data.parent_label",
    "__main__.x",
    "",
    ".",
    "data.",
    "cli.main",
    "data\n",
]


def test_the_crafter_makes_good_files(craft):
    assert load_learner(craft("dls", "n_inp", 1)).dls.c == 2


@pytest.mark.parametrize("name", EVIL)
def test_no_name_outside_of_the_list(name, craft):
    harmless(craft("learner", "loss_func", {"name": name}), "does not know|outside of the model")
    harmless(
        craft("dls", "parts", 1, "steps", 0, {"make": name, "with": {}}), "does not know|outside of"
    )
    harmless(craft("model", "layers", {"make": name, "with": {}}), "does not know")
    harmless(
        craft("learner", "opt_func", {"partial": [{"name": name}, ["id"], {"dict": []}]}),
        "does not know|outside",
    )
    if name:
        harmless(
            craft("learner", "opt_func", {"yours": name}), "uses what is not part of coursekit"
        )


@pytest.mark.parametrize(
    "node",
    [
        {},
        {"make": "data.Resize"},
        {"make": "data.Resize", "with": {}, "and": 1},
        {"make": ["augment.Resize"], "with": {"size": 8}},
        {"make": "augment.Resize", "with": [8]},
        {"make": "augment.Resize", "with": {"size": 8, "__class__": 1}},
        {"make": "augment.Resize", "with": {"self": 1}},
        {"make": "augment.Resize", "with": {"size": -1}},
        {"make": "augment.Resize", "with": {"breadth": 8}},
        {"make": "augment.Normalize", "with": {"mean": [1], "std": [0]}},
        {"make": "data.parent_label", "with": {"item": "a/b"}},
        {"make": "data.PILImage.create", "with": {"source": "/etc/passwd"}},
        {"make": "data.Categorize", "with": {"vocab": ["a", "a"]}},
        {"make": "data.using_attr", "with": {"f": {"name": "data.parent_label"}}},
        {"make": "data.RegexLabeller", "with": {"pat": "(("}},
        {"make": "learner._adamw", "with": {"params": [], "lr": 1}},
        {"make": "torch.nn.Linear", "with": {"in_features": 10**9, "out_features": 10**9}},
        {"name": "torch.nn.Linear"},
        {"name": "vision.create_body"},
        {"name": 3},
        {"name": {"name": "data.parent_label"}},
        {"yours": ["a"]},
        {"call": "data.parent_label"},
        {"tensor": "model.0.0.weight"},
        {"tensor": "nothing"},
        {"tensor": ["given.0"]},
        {"dtype": "load"},
        {"dtype": "nn"},
        {"float": "much"},
        {"path": 3},
        {"tuple": 3},
        {"dict": [[1]]},
        {"dict": [[[], 1]]},
        {"slice": [1, 2, 3, 4]},
        {"partial": [3, [], {}]},
        {"partial": [{"name": "data.parent_label"}]},
        [[[{"name": "os.system"}]]],
        7,
        "os.system",
        None,
    ],
    ids=repr,
)
def test_nodes_that_mean_nothing(node, craft):
    harmless(craft("learner", "loss_func", node))
    harmless(craft("learner", "metrics", [node]))
    harmless(craft("dls", "parts", 0, "steps", 0, node))
    harmless(craft("dls", "loaders", 0, "after_item", 0, node))
    harmless(craft("model", "layers", node))


def test_attributes_with_underscores(craft):
    f = {"name": "data.parent_label"}
    harmless(
        craft(
            "dls",
            "parts",
            1,
            "steps",
            0,
            {"make": "data.using_attr", "with": {"f": f, "attr": "__class__"}},
        ),
        "__class__",
    )


@pytest.mark.parametrize("key", ["model", "dls", "learner", "half", "coursekit"])
def test_parts_of_the_description(key, craft, tmp_path, exported):
    for value in ({}, [], 7, "x", {"layers": 1}, [1, 2]):
        if key != "coursekit" and not (key == "half" and value in ({}, [], [1, 2])):
            harmless(craft(key, value))
    description, tensors = exporting._read(exported[1])
    del description[key]
    if key != "coursekit":
        harmless(crafted(tmp_path / "less", description, tensors))
    for whole in (7, [], {}, "x", None, "[" * 10, ""):
        harmless(
            crafted(
                tmp_path / "whole", whole if isinstance(whole, str) else json.dumps(whole), tensors
            )
        )


def test_a_layer_larger_than_the_world(craft):
    for n, k in (
        (10**9, 10**9),
        (50_000, 60_000),
        (10**30, 2),
        (2**62, 2**3),
        (-1, 3),
        (2.5, 2),
        ("9", 2),
    ):
        for more in ({}, {"bias": False}):
            harmless(craft(*LAST[:-1], "with", {"in_features": n, "out_features": k, **more}))
    for device in ("cpu", "meta", "cuda"):
        harmless(
            craft(
                *LAST[:-1],
                "with",
                {"in_features": 50_000, "out_features": 60_000, "device": device},
            ),
            "device",
        )
    huge = {"make": "torch.nn.Embedding", "with": {"num_embeddings": 10**12, "embedding_dim": 100}}
    harmless(craft("model", "layers", huge), "do not fit")
    for spot in (("learner", "loss_func"), ("dls", "collate_fn")):
        harmless(craft(*spot, huge), "outside of the model") if spot[0] == "learner" else None


def test_a_large_layer_in_hiding(craft):
    "It is no part of the model, so its size would be compared with nothing."
    large = {"in_features": 50_000, "out_features": 60_000}
    hidden = {"tuple": [{"make": "torch.nn.Linear", "with": large}]}
    flat = {"make": "torch.nn.Flatten", "with": {"start_dim": hidden}}
    harmless(craft(*LAST[:-2], "1", flat), "in no place of the model")
    head = {"make": "vision.create_head", "with": {"nf": 8, "n_out": 2, "ps": hidden}}
    if importlib.util.find_spec("coursekit.vision"):
        harmless(craft(*LAST[:-2], "1", head))


def test_many_and_deep(craft, exported, tmp_path):
    node = {"make": "torch.nn.Identity", "with": {}}
    many = {"make": "exporting._in_order", "with": {str(i): node for i in range(25_000)}}
    harmless(craft("model", "layers", many), "more than", seconds=20, megabytes=200)
    for _ in range(200):
        node = {"make": "exporting._in_order", "with": {"0": node}}
    harmless(craft("model", "layers", node), "levels")
    description, tensors = exporting._read(exported[1])
    text = json.dumps(description)
    for deep in ("[" * 10_000 + "]" * 10_000, '{"tuple":[' * 10_000 + "]}" * 10_000):
        bad = text.replace('"loss_func": {', f'"loss_func": {deep}, "more": {{', 1)
        assert bad != text
        harmless(crafted(tmp_path / "deep", bad, tensors))
    header = b'{"__metadata__":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001
    harmless(signed_raw(tmp_path / "deep", header))


def signed_raw(file, header, body=b"", length=None):
    header = struct.pack("<Q", len(header) if length is None else length) + header
    file.write_bytes(header + body)
    return file


def test_json_that_is_not_strict(exported, tmp_path):
    description, tensors = exporting._read(exported[1])
    text = json.dumps(description)
    for old, new in (
        ('"n_inp": 1', '"n_inp": 1, "n_inp": 2'),
        ('"n_inp": 1', '"n_inp": NaN'),
        ('"n_inp": 1', '"n_inp": -Infinity'),
        ('"n_inp": 1', '"n_inp": 1e999'),
        ('"n_inp": 1', f'"n_inp": {"9" * 5000}'),
        ('"p": 0.2', '"p": NaN'),
        ('"p": 0.2', '"p": 1e999'),
        ('"p": 0.2', '"p": 0.2, "p": 0.2'),
    ):
        assert old in text
        harmless(crafted(tmp_path / "loose", text.replace(old, new, 1), tensors))
    name, header = "model.0.0.weight", {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    one = json.dumps(header)
    for raw in (
        f'{{"{name}":{one},"{name}":{one}}}',
        f'{{"__metadata__":{{"coursekit":"1","coursekit":"2"}},"{name}":{one}}}',
        '{"__metadata__":{"coursekit":1}}',
        '{"__metadata__":[1]}',
        '{"__metadata__":{"coursekit":"{}","coursekit.format":"1"}}',
        "{}",
        "{",
    ):
        harmless(signed_raw(tmp_path / "raw", raw.encode(), b"\0" * 4))


def test_headers_that_lie(exported, tmp_path):
    good = exported[1].read_bytes()
    size = 8 + int.from_bytes(good[:8], "little")
    header = json.loads(good[8:size])
    file = tmp_path / "lies"
    for length in (2**63, 2**64 - 1, len(good), 10**9, size + 10**6):
        file.write_bytes(struct.pack("<Q", length) + good[8:])
        harmless(file, "cut off or damaged|damaged")

    def lying(name, **changes):
        changed = json.loads(json.dumps(header))
        changed[name] |= changes
        text = json.dumps(changed, separators=(",", ":")).encode()
        return signed(file, struct.pack("<Q", len(text)) + text, good[size:])

    name = "model.0.0.weight"
    signed(
        file,
        struct.pack("<Q", size - 8)
        + json.dumps(header, separators=(",", ":")).encode().ljust(size - 8),
        good[size:],
    )
    load_learner(file)  # the crafting itself is right
    harmless(lying(name, shape=[50_000, 50_000], data_offsets=[0, 10_000_000_000]))
    harmless(lying(name, shape=[50_000, 50_000]))
    harmless(lying(name, shape=[2**40, 2**40]))
    harmless(lying(name, shape=[-1, 3]))
    harmless(lying(name, dtype="F7"))
    harmless(lying(name, dtype="I32"))
    harmless(lying(name, data_offsets=[0, 2**63]))
    harmless(lying(name, data_offsets=[8, 0]))
    harmless(
        lying(
            "model.0.1.running_mean", data_offsets=header["model.0.1.running_var"]["data_offsets"]
        )
    )


def test_weights_that_do_not_fit(exported, tmp_path):
    description, tensors = exporting._read(exported[1])
    file, name = tmp_path / "misfit", "model.0.0.weight"
    harmless(
        crafted(file, description, {k: v for k, v in tensors.items() if k != name}),
        "the file lacks 0.0.weight",
    )
    harmless(
        crafted(file, description, tensors | {"model.9.weight": torch.zeros(1)}),
        "the model lacks 9.weight",
    )
    harmless(
        crafted(file, description, tensors | {name: torch.zeros(8, 3, 3, 2)}),
        r"has shape \(8, 3, 3, 2\) in the file",
    )
    harmless(crafted(file, description, tensors | {name: tensors[name].long()}), "do not fit")
    for key in ("same", "channels_last", "frozen"):
        values = ["nothing"], [3], 7, ["0.0"]
        if key == "same":
            values += {"0.0.weight": "nothing"}, {"x.y": "0.0.weight"}
        for value in values:
            changed = json.loads(json.dumps(description))
            changed["model"][key] = value
            harmless(crafted(file, changed, tensors))


@pytest.mark.parametrize("form", ["2", "999", "0", "", "x", "1.0", "-1", " 1"])
def test_other_formats(form, craft):
    words = "update coursekit" if form in ("2", "999") else "export it again|does not say which"
    harmless(craft("coursekit", "9.9", form=form), words)
    if form == "2":
        harmless(craft("coursekit", "9.9", form=form), r"written by coursekit 9\.9 in format 2")


def test_builders_fetch_nothing(craft):
    if not importlib.util.find_spec("coursekit.vision"):
        pytest.skip("its lesson is not there yet")
    for arch in ("hf-hub:someone/something", "local-dir:/tmp", "../x", "http://x", "nonsense"):
        body = {"make": "vision.create_body", "with": {"arch": arch, "n_in": 3, "cut": None}}
        harmless(craft("model", "layers", body), seconds=60, megabytes=500)
    for name in ("pretrained", "weights"):
        body = {
            "make": "vision.create_body",
            "with": {"arch": {"name": "vision.resnet18"}, name: True},
        }
        harmless(craft("model", "layers", body), f"no argument '{name}'")
        made = {"make": "vision.resnet18", "with": {name: "DEFAULT"}}
        harmless(craft("model", "layers", made), f"no argument '{name}'")


def partial_of(name, *args, **kwargs):
    return {"partial": [{"name": name}, list(args), {"dict": list(map(list, kwargs.items()))}]}


@pytest.mark.parametrize(
    "arguments",
    [
        {"arch": partial_of("vision.efficientnet_lite0", checkpoint_path="x.pth")},
        {"arch": partial_of("vision.create_body", arch="hf-hub:someone/something")},
        {"arch": partial_of("vision.resnet18", weights="DEFAULT")},
        {"arch": partial_of("torchvision.models.vgg11", "DEFAULT")},
        {"arch": {"name": "vision.resnet18"}, "cut": {"name": "vision.resnet18"}},
        {"arch": {"name": "vision.resnet18"}, "cut": partial_of("vision.efficientnet_lite0", True)},
    ],
    ids=repr,
)
def test_no_builder_with_arguments_of_the_file(arguments, craft, monkeypatch):
    "It could fetch weights, or read them from the disk."

    def fetches(*args, **kwargs):
        raise AssertionError("it asks the network")

    monkeypatch.setattr("socket.getaddrinfo", fetches)
    body = {"make": "vision.create_body", "with": arguments}
    harmless(craft("model", "layers", body), "hands on", seconds=60, megabytes=500)


def dropping(pretrained=True):
    from coursekit.vision import efficientnet_lite0

    return efficientnet_lite0(pretrained, drop_rate=0.1)


def test_a_builder_with_arguments_needs_a_function(pictures, tmp_path):
    from coursekit.vision import efficientnet_lite0, vision_learner

    dls = loaders(pictures)
    short = vision_learner(
        dls, functools.partial(efficientnet_lite0, drop_rate=0.1), pretrained=False
    )
    with pytest.raises(LearnerError, match="in the place of a partial, write a function"):
        short.export(tmp_path / "short")
    named = vision_learner(dls, dropping, pretrained=False)
    again = load_learner(named.export(tmp_path / "named"), allow=[dropping])
    assert again.model[0].model.drop_rate == 0.1


def test_a_short_text_for_many_layers(craft):
    head = {"make": "vision.create_head", "with": {"nf": 8, "n_out": 2, "lin_ftrs": [1] * 500_000}}
    harmless(craft("model", "layers", head), "more than 20,000 parts", seconds=20, megabytes=200)


def test_no_processes(craft):
    harmless(craft("dls", "loaders", 1, "num_workers", 64), "processes of its own")


def test_an_allowed_function_is_not_called_on_load(craft):
    called = []

    def get_y(**kwargs):
        called.append(kwargs)

    get_y.__qualname__ = "get_y"
    node = {"yours": f"{__name__}.get_y", "with": {"a": 1}}
    file = craft("learner", "loss_func", node)
    with pytest.raises(DataError, match="as a function to use"):
        load_learner(file, allow=[get_y])
    assert not called


def test_a_file_larger_than_the_memory(craft, monkeypatch):
    file = craft("dls", "n_inp", 1)
    real = open

    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

        def read(self, n=None):
            if n is None:
                raise MemoryError
            return self.file.read(n)

    monkeypatch.setattr(type(file), "open", lambda self, mode: Full(real(self, mode)))
    harmless(file, "more than fits into the memory")
