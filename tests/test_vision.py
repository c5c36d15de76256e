"Vision where things go wrong, and what it promises about frozen bodies, normalisation, weights and interpretation."

import csv
import math
import struct
import subprocess
import sys
import time
import warnings
import zlib
from functools import partial
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader as TorchLoader
from torch.utils.data import TensorDataset

matplotlib.use("agg")
import matplotlib.pyplot as plt

import coursekit.bodies
import coursekit.recipes
import coursekit.vision
from coursekit.app import classify_upload
from coursekit.augment import Flip, aug_transforms
from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock, RegressionBlock
from coursekit.bodies import (
    AdaptiveConcatPool2d,
    SigmoidRange,
    create_body,
    create_head,
    create_vision_model,
    default_split,
    resnet18,
)
from coursekit.data import IndexSplitter, RandomSplitter, get_image_files, parent_label
from coursekit.downloads import download_url
from coursekit.events import LearnerError
from coursekit.exporting import load_learner
from coursekit.heads import ScaleShift
from coursekit.image_loaders import ImageDataLoaders
from coursekit.interpretation import ClassificationInterpretation, Interpretation
from coursekit.loaders import DataLoaders
from coursekit.loop import trainable_params
from coursekit.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from coursekit.measures import accuracy
from coursekit.messages import DataError
from coursekit.multilabel import MultiCategoryBlock
from coursekit.normalize import Normalize, imagenet_stats
from coursekit.notebook_tools import show_images
from coursekit.resizing import Resize
from coursekit.transforms import PILImage, PILImageBW, ToNumber
from coursekit.vision import EvalFrozen, vision_learner


def small(pretrained: bool = False) -> nn.Module:
    "A network like the large ones: a body with batch norm and dropout, a pool, a classifier."
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


KINDS = {"dark": 60, "light": 190, "middle": 125}


def painted(folder: Path, each=6, side=24) -> Path:
    noise = np.random.default_rng(0)
    for kind, shade in KINDS.items():
        (folder / kind).mkdir(parents=True)
        for i in range(each):
            pixels = noise.integers(shade - 40, shade + 40, (side + i, side, 3), np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{i}.png")
    return folder


def loaders(folder: Path, **more):
    given = {"valid_pct": 0.3, "seed": 1, "item_tfms": Resize(24), "bs": 4, "num_workers": 0}
    return ImageDataLoaders.from_folder(folder, **given | more)


def learner(dls, arch=small, **more):
    learn = vision_learner(dls, arch, **{"pretrained": False, "metrics": accuracy} | more)
    learn.remove_cbs(learn.progress)
    return learn


@pytest.fixture
def folder(tmp_path):
    return painted(tmp_path / "pictures")


def state(module) -> dict:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(before: dict, after: dict) -> bool:
    return all(torch.equal(before[name], after[name]) for name in before)


# ---------------------------------------------------------------- odd pictures
def odd_pictures(folder: Path) -> Path:
    "One of each kind that people have, all of them honest pictures."
    folder.mkdir(parents=True)
    colour = Image.new("RGB", (30, 20), (200, 40, 40))
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = [Image.new("RGB", (30, 20), (60 * i, 40, 40)) for i in range(4)]
    colour.save(folder / "plain.jpg")
    Image.new("CMYK", (30, 20), (10, 90, 90, 10)).save(folder / "cmyk.jpg")
    Image.fromarray(np.full((20, 30), 40_000, np.uint16)).save(folder / "deep.png")
    colour.quantize(8).save(folder / "palette.png")
    colour.convert("RGBA").save(folder / "rgba.png")
    colour.convert("LA").save(folder / "grey_alpha.png")
    colour.save(folder / "turned.jpg", exif=turned)
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "animated.webp", save_all=True, append_images=frames[1:])
    Image.new("RGB", (1, 1), (200, 40, 40)).save(folder / "one.png")
    Image.new("RGB", (2000, 1), (200, 40, 40)).save(folder / "line.png")
    return folder


def test_pictures_of_all_kinds_go_through(folder):
    "Trained on, validated on, and predicted one by one."
    odd = odd_pictures(folder / "odd")
    dls = loaders(folder)
    learn = learner(dls)
    learn.fit(1)
    assert torch.isfinite(torch.tensor(learn.recorder.values[-1])).all()
    for file in get_image_files(odd):
        label, index, probabilities = learn.predict(file)
        assert label == dls.vocab[int(index)] and probabilities.argmax() == index, file
        assert probabilities.shape == (4,) and abs(probabilities.sum() - 1) < 1e-5, file
        assert torch.isfinite(probabilities).all(), file


def test_a_text_named_jpg(folder):
    "The error names the file; `skip_broken` goes on without it."
    (folder / "dark" / "page.jpg").write_text("<html>not found</html>")
    learn = learner(loaders(folder, valid_pct=0.2))
    files = [str(item) for part in (learn.dls.train_ds, learn.dls.valid_ds) for item in part.items]
    assert any(name.endswith("page.jpg") for name in files)
    with pytest.raises(DataError, match=r"page\.jpg.*not a picture.*skip_broken"):
        learn.fit(1)
    with pytest.raises(DataError, match=r"page\.jpg"):
        learn.predict(folder / "dark" / "page.jpg")
    with pytest.raises(DataError, match="is not there"):
        learn.predict(folder / "nowhere.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learner(loaders(folder, valid_pct=0.2, skip_broken=True)).fit(1)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def large_png(side: int) -> bytes:
    "A whole picture, black, of a few bytes for each row."
    squeeze = zlib.compressobj(9)
    rows = [squeeze.compress(bytes(1 + side // 8)) for _ in range(side)]
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = b"".join(rows) + squeeze.flush()
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def large_jpeg(side: int) -> bytes:
    "A header, and nothing after it."
    frame = struct.pack(">HBHHB", 17, 8, side, side, 3) + bytes([1, 34, 0, 2, 17, 1, 3, 17, 1])
    return b"\xff\xd8\xff\xc0" + frame + b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00"


TRIES_IT = """
import resource, sys
from coursekit.transforms import PILImage
from coursekit.messages import DataError
PILImage.create(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    PILImage.create(sys.argv[1])
except DataError as error:
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{grown:.0f} MB|{error}")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted otherwise there")
@pytest.mark.parametrize(("name", "make"), [("a.png", large_png), ("a.jpg", large_jpeg)])
def test_twenty_thousand_by_twenty_thousand(folder, name, make):
    "Refused by its header: 400 million pixels would take 1,200 MB."
    (folder / "dark" / name).write_bytes(make(20_000))
    asked = subprocess.run(
        [sys.executable, "-c", TRIES_IT, folder / "dark" / name, folder / "dark" / "0.png"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    grown, _, said = asked.stdout.partition("|")
    assert name in said and "too many pixels" in said and "smaller" in said
    assert int(grown.split()[0]) < 20
    learn = learner(loaders(folder))
    with pytest.raises(DataError, match=rf"{name}.*too many pixels"):
        learn.predict(folder / "dark" / name)
    with pytest.raises(DataError, match=rf"{name}.*too many pixels"):
        learn.fit(1)


# ---------------------------------------------------------------- classes
def test_a_class_with_one_picture(folder):
    "In training it is a class like others; in validation alone it is an error that says so."
    (folder / "single").mkdir()
    Image.new("RGB", (24, 24), (250, 10, 10)).save(folder / "single" / "0.png")
    files = get_image_files(folder)
    place = next(i for i, file in enumerate(files) if file.parent.name == "single")
    block = DataBlock(
        (ImageBlock, CategoryBlock), get_y=parent_label, item_tfms=Resize(24), splitter=None
    )
    others = [i for i in range(0, len(files), 3) if i != place]
    dls = block.new(splitter=IndexSplitter(others)).dataloaders(files, bs=4, num_workers=0)
    learn = learner(dls)
    learn.fit(1)
    found = ClassificationInterpretation.from_learner(learn)
    matrix = found.confusion_matrix()
    assert matrix.shape == (4, 4) and matrix.sum() == len(others)
    assert matrix[list(dls.vocab).index("single")].sum() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.plot_confusion_matrix(normalize=True)  # a row of nothing is no division by nought
        found.print_classification_report()
    plt.close("all")
    with pytest.raises(DataError, match="single"):
        block.new(splitter=IndexSplitter([*others, place])).dataloaders(files, num_workers=0)


def test_all_of_one_class(tmp_path):
    painted(tmp_path)
    with pytest.raises(DataError, match="one label"):
        block = DataBlock((ImageBlock, CategoryBlock), get_image_files, RandomSplitter(seed=0))
        block.new(get_y=parent_label).dataloaders(tmp_path / "dark")


# ---------------------------------------------------------------- architectures and weights
def no_pool() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))


WRONG = {
    "a number": (18, TypeError, "int"),
    "nothing": (None, TypeError, "NoneType"),
    "a slip": ("resnet19", ValueError, "resnet18"),
    "a word": ("bear", ValueError, "no model 'bear'"),
    "no pool": (no_pool, LearnerError, "cut="),
}


@pytest.mark.parametrize(("arch", "kind", "words"), WRONG.values(), ids=WRONG)
def test_wrong_architectures(folder, arch, kind, words):
    with pytest.raises(kind, match=words):
        vision_learner(loaders(folder), arch, pretrained=False)


def test_wrong_arguments(folder):
    dls = loaders(folder)
    with pytest.raises(TypeError, match="no argument dropout"):
        vision_learner(dls, small, pretrained=False, dropout=0.5)
    with pytest.raises(ValueError, match="torchvision"):
        vision_learner(dls, small, weights="DEFAULT")
    with pytest.raises(ValueError, match="3 shares for 2"):
        create_head(6, 3, ps=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="lowest"):
        SigmoidRange(5, 0)
    with pytest.raises(ValueError, match="lowest"):
        create_head(6, 3, y_range=(1, 1))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    "Every download fails at once, and nothing was kept from before."
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    asked = []

    def download(url, dest, **more):
        asked.append((url, more))
        raise DataError("tried 2 times: no connection")

    monkeypatch.setattr(coursekit.bodies, "download_url", download)
    return asked


def test_weights_that_nobody_has(folder, no_network):
    with pytest.raises(ValueError, match="resnet18 has no weights 'V9'; it has IMAGENET1K_V1"):
        vision_learner(loaders(folder), resnet18, weights="V9")


def test_without_weights_and_without_network(folder, no_network):
    "An error in bounded time that names what can be done; never a model without what was asked for."
    start = time.perf_counter()
    with pytest.raises(DataError, match=r"resnet18.*no connection.*efficientnet_lite0.*pretrained"):
        vision_learner(loaders(folder), resnet18)
    assert time.perf_counter() - start < 120
    assert no_network[0][1]["tries"] <= 3


def test_weights_of_timm_without_network(folder, monkeypatch):
    import timm

    def no_connection(*args, **kwargs):
        raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", no_connection)
    with pytest.raises(DataError, match=r"resnet10t.*no connection.*efficientnet_lite0"):
        vision_learner(loaders(folder), "resnet10t")


def test_weights_are_fetched_once_and_checked(monkeypatch, tmp_path, server, cache):
    "From the place that torchvision names, into the place where torch looks; by the hash in their name."
    import hashlib
    import io

    import torchvision

    torch.manual_seed(5)
    model = torchvision.models.resnet18()
    torch.save(model.state_dict(), out := io.BytesIO())
    name = f"resnet18-{hashlib.sha256(out.getvalue()).hexdigest()[:8]}.pth"
    server.files[name] = out.getvalue()

    class Known:
        url = server.url("good", name)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(
        torchvision.models,
        "get_model_weights",
        lambda _: type("Weights", (), {"DEFAULT": Known}),
    )
    assert coursekit.bodies.download_url is download_url
    for _ in range(2):
        body = create_body(resnet18)
        assert torch.equal(body[0].weight, model.conv1.weight)
    assert server.seen[f"/good/{name}"] == 1
    assert body.pretrained_cfg == {"mean": imagenet_stats[0], "std": imagenet_stats[1]}
    kept = tmp_path / "hub" / "checkpoints" / name
    data = bytearray(kept.read_bytes())
    data[-2000] ^= 1
    kept.write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}.*(damaged|changed)"):
        create_body(resnet18)


# ---------------------------------------------------------------- channels
def test_grey_pictures_need_to_be_asked_for(folder):
    dls = loaders(folder, img_cls=PILImageBW)
    with pytest.raises(LearnerError, match="channel"):
        learner(dls).fit(1)
    learn = learner(dls, n_in=1)
    learn.fit(1)
    assert learn.predict(folder / "dark" / "0.png")[2].shape == (3,)


def test_colour_pictures_for_a_model_of_other_channels(folder):
    for n_in in (1, 4):
        with pytest.raises(LearnerError, match="channel"):
            learner(loaders(folder), n_in=n_in).fit(1)


def test_one_grey_channel_answers_as_three_equal_ones():
    "What the learned filters said of a grey picture in three channels they say of it in one."
    grey = torch.randn(2, 1, 32, 32)
    one, three = (create_body(small, n_in=n, pretrained=True).eval() for n in (1, 3))
    with torch.no_grad():
        torch.testing.assert_close(one(grey), three(grey.expand(-1, 3, -1, -1)))
        more = create_body(small, n_in=5, pretrained=True).eval()
        colours = torch.randn(2, 5, 32, 32)
        torch.testing.assert_close(more(colours), three(colours[:, :3]))


# ---------------------------------------------------------------- plain loaders
def test_loaders_of_torch(tmp_path):
    "They train, with the number of outputs given; what needs words and pictures says so."
    torch.manual_seed(0)
    x, y = torch.rand(20, 3, 24, 24), torch.randint(0, 3, (20,))
    dls = DataLoaders(*(TorchLoader(TensorDataset(x, y), batch_size=5) for _ in range(2)))
    with pytest.raises((DataError, AttributeError, ValueError, LearnerError)) as told:
        learner(dls)
    assert "n_out" in str(told.value) or "c" in str(told.value)
    learn = learner(dls, n_out=3, loss_func=nn.CrossEntropyLoss(), path=tmp_path)
    learn.fit(1)
    assert learn.get_preds()[0].shape == (20, 3)
    with pytest.raises(DataError, match="loaders of coursekit"):
        ClassificationInterpretation.from_learner(learn)
    with_weights = learner(dls, n_out=3, pretrained=True, loss_func=nn.CrossEntropyLoss())
    assert with_weights.dls is dls


# ---------------------------------------------------------------- normalisation
def normalisations(dls) -> list:
    return [step for step in dls.train.after_batch if isinstance(step, Normalize)]


@pytest.fixture
def learned(monkeypatch):
    "A ResNet-18 whose weights come from here, and statistics with them."
    import torchvision

    torch.manual_seed(0)
    weights = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(coursekit.bodies, "_fetched", lambda name, _: weights)


def test_normalisation_is_the_learners_own(folder, learned):
    "The loaders that were given stay as they are; asked twice, it is there once."
    dls = loaders(folder)
    learn = vision_learner(dls, resnet18)
    assert not normalisations(dls) and len(normalisations(learn.dls)) == 1
    assert len(normalisations(vision_learner(learn.dls, resnet18).dls)) == 1
    assert learn.dls.vocab == dls.vocab
    raw, own = (each.valid.one_batch()[0] for each in (dls, learn.dls))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in imagenet_stats)
    torch.testing.assert_close(own, (raw - mean) / std)
    assert not normalisations(vision_learner(dls, resnet18, normalize=False).dls)
    assert not normalisations(vision_learner(dls, resnet18, pretrained=False).dls)


def test_other_statistics_are_kept_and_told(folder, learned):
    own = Normalize.from_stats([0.5] * 3, [0.5] * 3)
    dls = loaders(folder, batch_tfms=[own])
    with pytest.warns(UserWarning, match=r"Normalize.*leave Normalize out"):
        learn = vision_learner(dls, resnet18)
    assert len(normalisations(learn.dls)) == 1
    assert torch.allclose(normalisations(learn.dls)[0].mean, torch.tensor(0.5))
    usual = loaders(folder, batch_tfms=[Normalize.from_stats(*imagenet_stats)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vision_learner(usual, resnet18)
        vision_learner(dls, resnet18, normalize=False)
        vision_learner(dls, resnet18, pretrained=False)


# ---------------------------------------------------------------- a frozen body
def test_a_frozen_body_stays_as_it_is(folder):
    "Weights and averages to the last bit; the head learns; after `unfreeze` all of it does."
    torch.manual_seed(0)
    learn = learner(loaders(folder), pretrained=True)
    body, head = state(learn.model[0]), state(learn.model[1])
    learn.fit(2)
    assert same(body, state(learn.model[0]))
    assert not same(head, state(learn.model[1]))
    assert all(param.grad is None for param in learn.model[0].parameters())
    learn.unfreeze()
    learn.fit(1)
    after = state(learn.model[0])
    stands = {name for name in body if torch.equal(body[name], after[name])}
    assert stands == {name for name in body if name.endswith(AVERAGES)}


AVERAGES = ("running_mean", "running_var", "num_batches_tracked")


def averages(module) -> dict:
    return {name: value for name, value in state(module).items() if name.endswith(AVERAGES)}


@pytest.mark.parametrize("way", ["fine_tune", "unfreeze", "lr_find"])
def test_a_pretrained_body_keeps_its_averages(folder, way):
    "To the last bit, while its weights learn and the head counts."
    learn = learner(loaders(folder), pretrained=True)
    body, head = averages(learn.model[0]), averages(learn.model[1])
    learn.unfreeze()
    if way == "lr_find":
        learn.lr_find(num_it=10, show_plot=False)
    with learn.no_logging():
        learn.fine_tune(1) if way == "fine_tune" else learn.fit_one_cycle(1)
    assert same(body, averages(learn.model[0]))
    assert not same(head, averages(learn.model[1]))


@pytest.mark.parametrize(
    "given", [{"bn_eval": False}, {"train_bn": True}, {"pretrained": False}, {"arch": small}]
)
def test_averages_are_counted_where_that_is_asked(folder, given):
    "As in fastai: with `train_bn`, and without learned weights; or only after unfreezing."
    if "arch" in given:
        model = create_vision_model(small, 3)
        learn = coursekit.vision.Learner(loaders(folder), model, splitter=default_split)
    else:
        learn = learner(loaders(folder), **{"pretrained": True} | given)
    body = averages(learn.model[0])
    learn.unfreeze()
    with learn.no_logging():
        learn.fit(1)
    assert not same(body, averages(learn.model[0]))


def test_a_model_of_ones_own_keeps_its_averages_if_asked(folder):
    "Before the last group of layers; a single group has none before it."
    model = create_vision_model(small, 3)
    learn = coursekit.vision.Learner(loaders(folder), model, splitter=default_split, bn_eval=True)
    body = averages(model[0])
    with learn.no_logging():
        learn.fit(1)
        assert same(body, averages(model[0]))
        coursekit.vision.Learner(loaders(folder), model, bn_eval=True).fit(1)
    assert not same(body, averages(model[0]))


def test_with_train_bn_batch_norm_learns(folder):
    learn = learner(loaders(folder), pretrained=True, train_bn=True)
    body = state(learn.model[0])
    learn.fit(1)
    moved = {
        name
        for name, value in learn.model[0].state_dict().items()
        if not torch.equal(value, body[name])
    }
    assert {"1.weight", "1.bias", "1.running_mean", "4.running_var"} <= moved
    assert not {"0.weight", "3.weight"} & moved


class Watch(coursekit.vision.Callback):
    "What the body gives in training, for the same picture, and which parts of it are in training."

    def after_pred(self):
        if self.learn.training:
            self.modes = [part.training for part in self.learn.model[0]]
            self.head = self.learn.model[1].training
            self.way_back = self.learn.model[0](self.learn.x).requires_grad
            again = [self.learn.model[0](self.learn.x) for _ in range(2)]
            self.steady = torch.equal(*again)


def test_a_frozen_body_computes_as_in_prediction(folder):
    "No dropout, no statistics of the batch, and no way back through it; the head has its dropout."
    watch = Watch()
    learn = learner(loaders(folder), pretrained=True, cbs=watch)
    learn.fit(1)
    assert watch.steady and not watch.way_back and watch.head
    assert not any(
        mode
        for mode, part in zip(watch.modes, learn.model[0], strict=True)
        if list(part.parameters())
    )
    learn.unfreeze()
    learn.fit(1)
    assert not watch.steady and watch.way_back
    still = [isinstance(part, nn.BatchNorm2d) for part in learn.model[0]]
    assert [not mode for mode in watch.modes] == still and watch.head
    learn.freeze()
    learn.fit(1)
    assert watch.steady and not watch.way_back


def test_half_frozen(folder):
    "With three groups `freeze_to(-2)` lets the second and the third learn."
    torch.manual_seed(0)

    def split(model):
        return [list(part.parameters()) for part in (model[0][:3], model[0][3:], model[1])]

    learn = learner(loaders(folder), pretrained=True, splitter=split)
    learn.freeze_to(-2)
    before = state(learn.model[0])
    learn.fit(1)
    after = learn.model[0].state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"3.weight", "4.weight"} <= moved
    assert not {"0.weight", "1.weight", "1.running_mean", "4.running_mean"} & moved


@pytest.mark.parametrize("name", ["squeezenet1_1", "torchvision"])
def test_squeezenet(folder, name, monkeypatch):
    "Cut before its classifier and split before its sixth layer, as in fastai; weights are torchvision's."
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    known = squeezenet1_1()
    asked = []
    monkeypatch.setattr(
        coursekit.bodies, "_fetched", lambda *given: asked.append(given) or known.state_dict()
    )
    arch = squeezenet1_1 if name == "torchvision" else getattr(coursekit.bodies, name)
    learn = learner(loaders(folder), arch, pretrained=True)
    assert asked == [("squeezenet1_1", None)]
    body, head = learn.model
    assert repr(body[0]) == repr(known.features) and len(body) == 1
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(body.eval()(x), known.eval().features(x))
    assert next(m for m in head if isinstance(m, nn.Linear)).in_features == 2 * 512
    early, late = body[0][:5], body[0][5:]
    wanted = [list(part.parameters()) for part in (early, late, head)]
    for group, right in zip(learn.layers, wanted, strict=True):
        assert {id(p) for p in group} == {id(p) for p in right}
    assert [p.requires_grad for group in wanted for p in group[:1]] == [False, False, True]
    learn.freeze_to(-2)
    assert [p.requires_grad for group in wanted for p in group[:1]] == [False, True, True]
    learn.fine_tune(1)
    other = learner(loaders(folder), arch, cut=lambda model: model.features)
    other.create_opt()
    assert len(other.layers) == 2  # a body of another form


def test_not_learned_is_not_frozen(folder):
    learn = learner(loaders(folder))
    assert all(param.requires_grad for param in learn.model.parameters())
    assert EvalFrozen in map(type, learn.cbs)


def test_own_model_without_frozen_parts_is_left_alone(folder):
    "What has no parameters, dropout of the head say, is never switched off by itself."
    watch = Watch()
    learn = learner(loaders(folder), cbs=watch)
    learn.fit(1)
    assert all(watch.modes) and watch.head


# ---------------------------------------------------------------- parts
def test_body_and_head_are_two():
    model = create_vision_model(resnet18, 3, pretrained=False)
    assert len(model) == 2 and len(model[0]) == 8
    assert model[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(model[1][0], AdaptiveConcatPool2d)
    assert model(torch.rand(2, 3, 64, 48)).shape == (2, 3)


def test_a_model_of_ones_own_gives_a_body():
    body = create_body(small())
    assert body(torch.rand(2, 3, 24, 24)).shape[1] == 8
    assert len(create_body(small, cut=2, pretrained=False)) == 2
    assert not hasattr(body, "made_by")  # nobody knows how to make it again


def test_a_transformer_has_no_maps_to_pool(folder):
    model = create_vision_model("vit_tiny_patch16_224", 3, pretrained=False)
    assert not any(isinstance(part, AdaptiveConcatPool2d) for part in model[1])
    assert model(torch.rand(2, 3, 224, 224)).shape == (2, 3)


# ---------------------------------------------------------------- interpretation
@pytest.fixture
def trained(folder):
    torch.manual_seed(0)
    learn = learner(loaders(folder), lr=1e-2)
    learn.fit(2)
    return learn


def test_interpretation_is_of_the_validation_items_in_order(trained):
    found = ClassificationInterpretation.from_learner(trained)
    preds, targets = trained.get_preds()
    torch.testing.assert_close(found.preds, preds)
    assert torch.equal(found.targets, targets)
    losses, places, items = found.top_losses(items=True)
    assert len(losses) == len(trained.dls.valid_ds) == len(items)
    assert sorted(places.tolist()) == list(range(len(places)))
    expected = nn.functional.cross_entropy(preds.log(), targets, reduction="none")
    torch.testing.assert_close(losses, expected[places], rtol=1e-4, atol=1e-4)
    for place, item in zip(places.tolist(), items, strict=True):
        assert item.parent.name == trained.dls.vocab[int(targets[place])]
    least, _ = found.top_losses(2, largest=False)
    assert torch.equal(least, losses.flip(0)[:2])


def test_pictures_of_the_worst(trained):
    found = ClassificationInterpretation.from_learner(trained)
    found.plot_top_losses(3)
    titles = [ax.get_title() for ax in plt.gcf().axes]
    losses, places = found.top_losses(3)
    assert len(titles) == 3
    for title, loss, place in zip(titles, losses, places, strict=True):
        assert f"loss {loss:.2f}" in title
        assert title.split("\n")[1] == f"is {trained.dls.vocab[int(found.targets[place])]}"
        assert title.startswith(trained.dls.vocab[int(found.decoded[place])])
    found.plot_top_losses([0, 2], largest=False)
    found.plot_top_losses(100)
    assert len(plt.gcf().axes) == len(trained.dls.valid_ds)
    found.show_results([1, 0])
    found.plot_confusion_matrix()
    shown = [text.get_text() for text in plt.gcf().axes[0].texts]
    assert shown == [str(n) for n in found.confusion_matrix().flatten()]
    plt.close("all")


def test_names_of_classes_are_no_formulas_in_figures(folder):
    r"Matplotlib would set $x$ as a formula, and stop at $\frac$."
    names = [r"$\frac$", "a$b$", "<script>alert(1)$x$</script>".replace("/", ":")]
    for kind, name in zip(KINDS, names, strict=True):
        (folder / kind).rename(folder / name)
    learn = learner(loaders(folder))
    found = ClassificationInterpretation.from_learner(learn)
    assert sorted(names) == list(learn.dls.vocab)
    for show in (
        learn.dls.show_batch,
        learn.show_results,
        lambda: found.plot_top_losses(4),
        lambda: found.show_results(range(4)),
        found.plot_confusion_matrix,
        lambda: show_images([torch.zeros(3, 3)], titles=names[:1]),
    ):
        show()
        plt.gcf().canvas.draw()
        texts = plt.gcf().findobj(lambda one: isinstance(one, plt.Text) and "$" in one.get_text())
        assert texts and not any(text.get_parse_math() for text in texts)
        plt.close("all")
    ax = found.plot_confusion_matrix()
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert [label.get_text() for label in labels] == sorted(names)
    plt.close("all")


def test_report_is_that_of_scikit_learn(trained, capsys):
    from sklearn.metrics import accuracy_score, confusion_matrix

    found = ClassificationInterpretation.from_learner(trained)
    found.print_classification_report()
    said = capsys.readouterr().out
    assert f"{accuracy_score(found.targets, found.decoded):.2f}" in said
    assert all(kind in said for kind in KINDS)
    assert np.array_equal(
        found.confusion_matrix(), confusion_matrix(found.targets, found.decoded, labels=range(3))
    )


def test_numbers_have_no_confusion_matrix(folder):
    block = DataBlock(
        (ImageBlock, RegressionBlock),
        get_image_files,
        RandomSplitter(seed=0),
        get_y=lambda file: float(KINDS[file.parent.name]),
        item_tfms=Resize(24),
    )
    learn = learner(block.dataloaders(folder, bs=4, num_workers=0), metrics=None, y_range=(0, 255))
    learn.fit(1)
    with pytest.raises(DataError, match="one class for each item"):
        ClassificationInterpretation.from_learner(learn)
    found = Interpretation.from_learner(learn)
    found.plot_top_losses(2)
    plt.close("all")
    assert found.preds.min() >= 0 and found.preds.max() <= 255


def test_saved_and_loaded(folder, tmp_path, trained):
    file = trained.save("vision")
    again = learner(loaders(folder)).load(file)
    picture = folder / "light" / "1.png"
    assert torch.equal(again.predict(picture)[2], trained.predict(picture)[2])


# ------------------------------------------------------- where a head begins, and the floor
def of_tensors(target, bs=16) -> DataLoaders:
    x = torch.rand(len(target), 3, 24, 24, generator=torch.Generator().manual_seed(0))
    half = len(target) // 2
    sides = slice(half), slice(half, None)
    parts = [TensorDataset(x[side], target[side]) for side in sides]
    return DataLoaders.from_dsets(*parts, bs=bs, device="cpu")


def drawn(*shape) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


WIDTHS, POINTS, MARKS = drawn(64) * 42 + 108, drawn(64, 2, 2) * 0.1 + 0.3, drawn(64, 3) > 1
LABELS = BCEWithLogitsLossFlat


def starts(target, loss_func, n_out, **more) -> torch.Tensor:
    "The first answers of a learner of these targets."
    given = {"n_out": n_out, "loss_func": loss_func, "metrics": None}
    learn = learner(of_tensors(target), **given | more)
    return learn.get_preds()[0]


@pytest.mark.parametrize("more", [{}, {"lin_ftrs": []}, {"bn_final": True}])
def test_a_head_begins_at_the_mean(more):
    "In the unit of the targets, so that it is near them from the start."
    for loss_func in (MSELossFlat(), nn.L1Loss(), F.mse_loss):
        answers = starts(WIDTHS[:, None], loss_func, 1, **more)
        assert (answers.mean() - WIDTHS[:32].mean()).abs() < 42 and answers.std() < 42
    answers = starts(POINTS, MSELossFlat(), 4, **more)
    assert (answers.mean() - POINTS[:32].mean()).abs() < 0.1 and answers.std() < 0.1
    answers = starts(MARKS.float(), LABELS(), 3, **more)
    assert (answers.mean() - MARKS[:32].float().mean()).abs() < 0.1


def test_a_head_begins_at_the_mean_within_its_range():
    answers = starts(WIDTHS, MSELossFlat(), 1, y_range=(0, 500))
    assert (answers.mean() - WIDTHS[:32].mean()).abs() < 42 and answers.min() > 0
    weighted = starts(MARKS.float(), LABELS(pos_weight=torch.tensor([5.0])), 3)
    assert weighted.mean() > starts(MARKS.float(), LABELS(), 3).mean()


def test_one_target_for_all():
    "Its deviation is nought, and one that was found from one item is too."
    assert starts(torch.full((64,), 7.0), MSELossFlat(), 1).isfinite().all()
    assert starts(torch.full((2, 1), 7.0), MSELossFlat(), 1).isfinite().all()


@pytest.mark.parametrize(
    "arch", [{"custom_head": nn.Sequential(nn.Flatten(), nn.LazyLinear(1))}, {}]
)
def test_other_heads_are_left_alone(folder, arch):
    dls = of_tensors(WIDTHS) if arch else loaders(folder)
    given = {"init": None, "n_out": 1, "loss_func": MSELossFlat()} | arch if arch else {}
    learn = learner(dls, metrics=None, **given)
    assert not any(isinstance(part, ScaleShift) for part in learn.model.modules())


def of_table(folder, block, values) -> DataLoaders:
    files = sorted(get_image_files(folder))
    known = dict(zip(files, values, strict=False))
    block = DataBlock((ImageBlock, block), get_y=known.get, item_tfms=Resize(24))
    return block.dataloaders(files, bs=4, num_workers=0)


def test_the_mean_is_that_of_all_training_items(folder):
    "Not of a batch; and no picture is opened for it."
    dls = of_table(folder, RegressionBlock, [float(i) for i in range(18)])
    for file in get_image_files(folder):
        file.write_text("no picture any more")
    learn = learner(dls, metrics=None)
    train = torch.stack(list(map(dls.train_ds.pipelines[1], dls.train_ds.items)))
    start = learn.model[1][-1]
    assert torch.allclose(start.shift, train.mean()) and len(train) > 10
    assert torch.allclose(start.scale, train.std(correction=0))


@pytest.mark.parametrize("encoded", [False, True])
def test_the_shares_of_labels_are_those_of_all_training_items(folder, encoded):
    names = [["a"] * (i % 2) + ["b"] * (i % 3 > 0) for i in range(18)]
    values = [["a" in some, "b" in some] for some in names] if encoded else names
    block = MultiCategoryBlock(encoded, vocab=["a", "b"] if encoded else None)
    dls = of_table(folder, block, values)
    targets = torch.stack([dls.train_ds[i][1] for i in range(len(dls.train_ds))])
    start = learner(dls, metrics=None).model[1][-1]
    assert torch.allclose(start.shift.sigmoid(), targets.mean(0), atol=1e-5)
    assert targets.mean(0)[0] != targets.mean(0)[1]


def test_what_a_step_makes_of_values_that_are_no_numbers():
    step = ToNumber()
    step.setup(["many", "few"])
    assert step.spread is None
    step.setup([1.0, 3.0, math.inf])
    assert [float(each) for each in step.spread] == [2.0, 1.0]
    ToNumber(c=1).setup([])


KINDS_OF = MARKS[:, 0].long()
CASES = {
    "a number": (WIDTHS, MSELossFlat(), 1),
    "points": (POINTS, MSELossFlat(), 4),
    "a plain function": (WIDTHS[:, None], F.l1_loss, 1),
    "labels": (MARKS.float(), LABELS(), 3),
    "weighted labels": (MARKS.float(), LABELS(pos_weight=torch.tensor([5.0])), 3),
    "weighted classes": (KINDS_OF, nn.CrossEntropyLoss(torch.tensor([1.0, 9.0])), 2),
    "classes": (KINDS_OF, F.cross_entropy, 2),
}


class Says(nn.Module):
    "The given answers, one after the other, whatever the picture."

    def __init__(self, answers):
        super().__init__()
        self.answers, self.weight = answers, nn.Parameter(torch.ones(1))

    def forward(self, x):
        if self.training:
            return self.answers[: len(x)] * self.weight
        now, self.answers = self.answers[: len(x)], self.answers[len(x) :]
        return now * self.weight


def told_after(target, loss_func, n_out, answers) -> list[str]:
    "What is said after a training that ends with these answers for the second half."
    learn = learner(of_tensors(target), n_out=n_out, loss_func=loss_func, metrics=None)
    learn.model, learn.splitter = Says(answers), trainable_params
    learn.create_opt()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        learn.fit(1, 1e-12)
    return [str(warning.message) for warning in told]


@pytest.mark.parametrize("case", CASES)
def test_a_training_that_has_learned_nothing_is_told(case):
    "With the way out; a model that knows more than the mean is left in peace."
    target, loss_func, n_out = CASES[case]
    rows = target[32:].reshape(32, -1).float()
    truth = F.one_hot(target[32:], 2) * 4.0 if n_out == 2 else rows
    if n_out == 3:
        truth = rows * 8 - 4
    floor = truth.mean(0).expand(32, -1)
    noise = truth[drawn(32).argsort()] * 3
    (said,) = told_after(target, loss_func, n_out, noise)
    assert "same for all items" in said and "lr_find" in said and "show_batch" in said
    assert ("y_range" in said) == (case in ("a number", "points", "a plain function"))
    better = truth * 0.7 + floor * 0.3
    assert told_after(target, loss_func, n_out, better) == []


def test_sure_and_mostly_right_is_no_reason_to_warn():
    "Wrong once, and very sure of it: the loss is above that of one answer for all."
    for case in ("labels", "classes"):
        target, loss_func, n_out = CASES[case]
        truth = F.one_hot(target[32:], 2).float() if n_out == 2 else target[32:]
        answers = truth * 200 - 100
        answers[0] *= -1
        assert loss_func(answers, target[32:]) > 2
        assert told_after(target, loss_func, n_out, answers) == []


def test_fine_tune_warns_once():
    learn = learner(of_tensors(WIDTHS), pretrained=True, n_out=1, loss_func=MSELossFlat())
    learn.metrics = []
    with pytest.warns(UserWarning, match="same for all items") as told:
        learn.fine_tune(1, 0.5)
    assert len(told) == 1


def test_a_head_of_numbers_comes_back_from_a_file(folder):
    dls = of_table(folder, RegressionBlock, [50.0 + i for i in range(18)])
    learn = learner(dls, metrics=None, path=folder)
    loaded = load_learner(learn.export(), allow=[small])
    file = get_image_files(folder)[0]
    assert loaded.predict(file)[0] == pytest.approx(learn.predict(file)[0])
    assert isinstance(loaded.model[1][-1], ScaleShift)
    assert loaded.predict(file)[1].mean() > 20


# ---------------------------------------------------------------- what was measured
def measured(name: str) -> tuple[str, list[dict]]:
    kept = Path(__file__).parents[1] / "bench" / f"{name}.csv"
    lines = kept.read_text(encoding="utf-8").splitlines()
    return lines[0], list(csv.DictReader(line for line in lines if not line.startswith("#")))


@pytest.mark.parametrize(("name", "keys"), [("fine_tune", 4), ("head_start", 3)])
def test_the_tables_say_how_they_were_made(name, keys):
    first, rows = measured(name)
    assert first.startswith(f"# python bench/{name}.py; after commit ")
    found = [tuple(row.values())[:keys] for row in rows]
    assert len(set(found)) == len(found) > 5


def test_the_docstring_says_what_was_measured():
    "All four batch sizes of the photographs over five folds, both ways."
    rows = [row for row in measured("fine_tune")[1] if row["task"] == "photos"]
    by_way = {way: [row for row in rows if row["way"] == way] for way in ("keep", "anew")}
    for kept in by_way.values():
        pairs = {(row["batch"], row["fold"]) for row in kept}
        assert pairs == set(product(("8", "16", "32", "64"), "01234"))
    said = coursekit.learner.Learner.fine_tune.__doc__
    for way in ("keep", "fastai"):
        right = [float(row["metric"]) for row in rows if (row["way"], row["batch"]) == (way, "16")]
        assert len(right) == 5 and f"{np.mean(right):.0%}".replace("%", " %") in said


# ---------------------------------------------------------------- one way in, one way out
def by_table(folder, **more):
    import pandas as pd

    files = get_image_files(folder)
    table = pd.DataFrame({"f": [str(f.relative_to(folder)) for f in files]})
    table["l"] = [f.parent.name for f in files]
    given = {"item_tfms": Resize(24), "bs": 4, "seed": 1, "num_workers": 0}
    return ImageDataLoaders.from_df(table, folder, **given | more)


def test_predict_takes_every_form_before_and_after_export(folder, tmp_path):
    learn, file = learner(by_table(folder)), folder / "light" / "1.png"
    wanted = learn.get_preds(dl=learn.dls.test_dl(learn.dls.train_ds._all))[0]
    wanted = wanted[get_image_files(folder).index(file)]
    forms = [file, str(file), file.read_bytes(), Image.open(file), file.open("rb")]
    forms += [np.array(Image.open(file)), PILImage.create(file)]
    for one in (learn, load_learner(learn.export(tmp_path / "export.pkl"))):
        for form in forms:
            torch.testing.assert_close(one.predict(form)[2], wanted)
        assert one.get_preds(dl=one.dls.test_dl(get_image_files(folder)))[0].shape == (18, 3)
    assert classify_upload(learn, file.read_bytes()).probabilities == pytest.approx(
        dict(zip(KINDS, wanted.tolist(), strict=True))
    )


def own_loss(pred, target):
    return nn.functional.cross_entropy(pred, target)


PLAIN = [
    nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3])),
    nn.functional.cross_entropy,
    partial(nn.functional.cross_entropy, weight=torch.tensor([1.0, 2, 3])),
    own_loss,
]


@pytest.mark.parametrize("loss", PLAIN, ids=range(4))
def test_a_plain_loss_is_read_as_the_one_made_for_it(loss, folder, tmp_path):
    "Training, prediction, pictures, interpretation, tta and the file, against the loss of ours."
    dls = loaders(folder, batch_tfms=Flip())
    learn = learner(dls, loss_func=loss)
    learn.fit(1)
    preds, targets, decoded = learn.get_preds(with_decoded=True)
    said, number, probabilities = learn.predict(dls.valid_ds.items[0])
    found = ClassificationInterpretation.from_learner(learn)
    learn.show_results()
    found.plot_top_losses(2)
    plt.close("all")
    averaged = learn.tta(n=2)[0]
    again = load_learner(learn.export(tmp_path / "export.pkl"))
    weight = None if loss in (own_loss, PLAIN[1]) else torch.tensor([1.0, 2, 3])
    learn.loss_func = CrossEntropyLossFlat()
    torch.testing.assert_close(preds, learn.get_preds()[0])
    assert torch.equal(decoded, preds.argmax(1)) and torch.equal(found.decoded, decoded)
    assert torch.equal(again.predict(dls.valid_ds.items[0])[2], probabilities)
    assert said == dls.vocab[number] and probabilities.sum() == pytest.approx(1)
    torch.testing.assert_close(averaged.sum(1), torch.ones(len(averaged)))
    each = nn.functional.nll_loss(preds.log(), targets, weight, reduction="none")
    torch.testing.assert_close(found.losses, each)
    assert found.confusion_matrix().trace() == (preds.argmax(1) == targets).sum()


def test_several_labels_with_a_plain_loss(folder):
    dls = DataBlock(
        (ImageBlock, MultiCategoryBlock),
        get_image_files,
        RandomSplitter(seed=0),
        get_y=lambda file: [file.parent.name, "all"],
        item_tfms=Resize(24),
    ).dataloaders(folder, bs=4, num_workers=0)
    learn = learner(dls, loss_func=nn.BCEWithLogitsLoss(pos_weight=torch.ones(4)), metrics=None)
    learn.fit(1)
    preds, _, decoded = learn.get_preds(with_decoded=True)
    said, chosen, probabilities = learn.predict(dls.valid_ds.items[0])
    assert said == [dls.vocab[i] for i in range(4) if probabilities[i] > 0.5]
    assert torch.equal(decoded, preds > 0.5) and chosen.dtype == torch.bool
    learn.loss_func = BCEWithLogitsLossFlat()
    torch.testing.assert_close(learn.get_preds()[0], preds)


def test_a_label_that_is_a_number_is_said_as_text(folder):
    block = DataBlock((ImageBlock, CategoryBlock), get_image_files, RandomSplitter(seed=0))
    dls = block.new(get_y=lambda f: KINDS[f.parent.name], item_tfms=Resize(24)).dataloaders(
        folder, bs=4
    )
    said, number, _ = learner(dls).predict(folder / "dark" / "0.png")
    assert said == str(dls.vocab[number]) and said in ("60", "125", "190")


def test_after_broken_files_all_positions_agree(folder):
    "Rows of predictions, items, losses and pictures are those of the files that could be opened."
    files = get_image_files(folder)
    valid = [i for i in range(18) if i not in (5, 11, 17)]
    for i in (0, 7, 8):
        files[i].write_text("no picture")
    dls = DataBlock(
        (ImageBlock, CategoryBlock),
        splitter=IndexSplitter(valid),
        get_y=parent_label,
        item_tfms=Resize(24),
    ).dataloaders(files, bs=5, num_workers=0, skip_broken=True)
    learn, good = learner(dls), [files[i] for i in valid if i not in (0, 7, 8)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = Interpretation.from_learner(learn)
        preds, targets = learn.get_preds()
        assert list(dls.valid.items) == good and len(preds) == 12
        test_dl = dls.test_dl(files, skip_broken=True)
        of_test = learn.get_preds(dl=test_dl)[0]
    assert list(test_dl.items) == [f for f in files if f not in (files[0], files[7], files[8])]
    for file, row, target in zip(good, preds, targets, strict=True):
        torch.testing.assert_close(row, learn.predict(file)[2])
        assert dls.vocab[target] == file.parent.name
    torch.testing.assert_close(of_test[:4], preds[:4])
    losses, order, items = found.top_losses(items=True)
    assert [good[i] for i in order] == list(items) and len(losses) == 12
    found.plot_top_losses(12)
    for ax, file, loss in zip(plt.gcf().axes, items, losses, strict=True):
        shown = PILImage.create(file).resize((24, 24))
        assert f"is {file.parent.name}" in ax.get_title() and f"loss {loss:.2f}" in ax.get_title()
        assert abs(ax.images[0].get_array().mean() * 255 - np.asarray(shown).mean()) < 3
    plt.close("all")


def test_interpretation_of_a_training_loader(folder):
    learn = learner(loaders(folder, batch_tfms=aug_transforms()))
    one, two = (
        Interpretation.from_learner(learn, **how)
        for how in ({"ds_idx": 0}, {"dl": learn.dls.train})
    )
    assert torch.equal(one.targets, two.targets) and len(one.preds) == learn.dls.train.n
    torch.testing.assert_close(one.preds, two.preds)
    assert [learn.dls.vocab[t] for t in one.targets] == [
        f.parent.name for f in learn.dls.train.items
    ]
