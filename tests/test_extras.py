"Seeds, smaller pictures, plain data in files, and the names that scripts use."

import io
import os
import pickle
import random
import warnings
from datetime import date
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import coursekit.all
from coursekit.data import DataLoaders
from coursekit.datasets import DataError
from coursekit.extras import (
    apply_init,
    get_c,
    has_pool_type,
    load_pickle,
    num_features_model,
    params,
    resize_images,
    save_pickle,
    set_seed,
    subplots,
)
from coursekit.learner import CrossEntropyLossFlat, Learner, LearnerError
from coursekit.training import SGD

matplotlib.use("agg")


def test_set_seed(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    found = []
    for seed, reproducible in ((2**40, False), (2**40, True), (1, False)):
        set_seed(seed, reproducible)
        assert torch.backends.cudnn.deterministic == (len(found) >= 1)
        found.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert found[0] == found[1] != found[2] and not torch.backends.cudnn.benchmark


# ---------------------------------------------------------------- resize_images
@pytest.fixture
def pictures(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name, size in (
        ("wide.jpg", (200, 50)),
        ("small.png", (20, 30)),
        ("sub/tall.png", (40, 80)),
    ):
        pixels = rng.integers(0, 255, (*size[::-1], 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def sizes(folder: Path) -> dict:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): Image.open(file).size for file in files}


def test_smaller_copies(pictures, tmp_path):
    before = {file: file.read_bytes() for file in pictures.rglob("*.*")}
    resize_images(pictures, max_size=40, dest=tmp_path / "out", recurse=True)
    assert sizes(tmp_path / "out") == {
        "wide.jpg": (40, 10),
        "small.png": (20, 30),
        "sub/tall.png": (20, 40),
    }
    expected = Image.open(pictures / "sub/tall.png").resize((20, 40), Image.Resampling.BILINEAR)
    assert np.array_equal(np.array(Image.open(tmp_path / "out/sub/tall.png")), np.array(expected))
    assert {file: file.read_bytes() for file in before} == before
    resize_images(pictures, max_size=40, dest=tmp_path / "flat", ext=".bmp", n_channels=1)
    assert sizes(tmp_path / "flat") == {"wide.bmp": (40, 10), "small.bmp": (20, 30)}
    assert Image.open(tmp_path / "flat/small.bmp").mode == "L"
    resize_images(pictures, max_size=40, dest=pictures)  # in place
    assert sizes(pictures)["wide.jpg"] == (40, 10)
    assert (pictures / "small.png").read_bytes() == before[pictures / "small.png"]


def test_going_on_and_the_settings_of_pillow(pictures, tmp_path):
    out = tmp_path / "out"
    resize_images(pictures, max_size=60, dest=out, quality=95)
    heavy = (out / "wide.jpg").stat().st_size
    resize_images(pictures, max_size=60, dest=out, quality=5, resume=True)
    assert (out / "wide.jpg").stat().st_size == heavy
    resize_images(pictures, max_size=60, dest=out, quality=5)
    assert (out / "wide.jpg").stat().st_size < heavy * 0.7
    for name, near in (("qualty", "quality"), ("max_sise", "max_size")):
        with pytest.raises(TypeError, match=f"'{name}'.*is {near} meant"):
            resize_images(pictures, dest=out, **{name: 5})
    with pytest.raises(ValueError, match="n_channels=2"):
        resize_images(pictures, dest=out, n_channels=2)
    with pytest.raises(DataError, match="there is no folder"):
        resize_images(tmp_path / "nowhere")


def test_a_broken_picture_costs_itself_alone(pictures, tmp_path):
    whole = (pictures / "wide.jpg").read_bytes()
    (pictures / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "text.png").write_text("no picture")
    with pytest.warns(UserWarning, match=r"2 of 4 pictures are left out: .*half\.jpg.*text\.png"):
        resize_images(pictures, max_size=40, dest=tmp_path / "out")
    assert set(sizes(tmp_path / "out")) == {"wide.jpg", "small.png"}
    see_through = Image.new("RGBA", (9, 9))
    see_through.save(pictures / "clear.png")
    with pytest.warns(UserWarning, match=r"1 of 1 .*clear\.png.*RGBA"):
        for file in pictures.glob("*.*"):
            if file.name != "clear.png":
                file.unlink()
        resize_images(pictures, dest=tmp_path / "clear", ext=".jpg", n_channels=4)
    assert not sizes(tmp_path / "clear")


def test_a_turned_photograph_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.new("RGB", (80, 40)).save(tmp_path / "in/a.jpg", exif=exif)
    resize_images(tmp_path / "in", max_size=20, dest=tmp_path / "out")
    assert sizes(tmp_path / "out") == {"a.jpg": (10, 20)}


# ---------------------------------------------------------------- pickles
def test_plain_data_comes_back(tmp_path):
    data = [1, 2.5, None, True, "text", b"bytes", (1, (2,)), {"a": [1]}, {1, 2}, frozenset("ab")]
    data += [3j, range(4), slice(1, 2), date(2024, 2, 29), tmp_path, bytearray(b"x"), 10**50]
    data.append(data)  # it holds itself
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(data, protocol))
        back = load_pickle(tmp_path / "a.pkl")
        assert back[:-1] == data[:-1] and back[-1] is back
    save_pickle(tmp_path / "sub/b.pkl", data[:-1])
    assert load_pickle(str(tmp_path / "sub/b.pkl")) == data[:-1]


class Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


HOSTILE = {
    "a call": pickle.dumps(Runs()),
    "deep inside": pickle.dumps({"a": [1, (Runs(),)]}),
    "eval": b"cbuiltins\neval\n(S'1'\ntR.",
    "a name with a dot": b"\x80\x04\x8c\x08builtins\x8c\x0cset.__init__\x93.",
    "getattr": b"cbuiltins\ngetattr\n(cbuiltins\nset\nS'mro'\ntR.",
    "a module of ours": b"ccoursekit.extras\nos\n.",
    "an array": pickle.dumps(np.zeros(3)),
    "a tensor": pickle.dumps(torch.zeros(3)),
    "a path's class": b"cpathlib\nPath.home\n(tR.",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_code_is_refused(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.pkl").write_bytes(HOSTILE[kind])
    with pytest.raises(DataError, match=r"x\.pkl holds .*no plain data.*np\.save"):
        load_pickle("x.pkl")
    assert not Path("ran").exists()


def test_what_would_not_open_is_not_saved(tmp_path):
    save_pickle(tmp_path / "a.pkl", [1])
    for thing, name in ((Runs(), "Runs"), (torch.zeros(2), "Tensor"), (np.zeros(2), "ndarray")):
        with pytest.raises(DataError, match=f"a {name} has .*no plain data"):
            save_pickle(tmp_path / "a.pkl", thing)
    assert load_pickle(tmp_path / "a.pkl") == [1]
    for data in (b"", b"no pickle", pickle.dumps([1, 2, 3])[:-4], b"\x80\x09."):
        (tmp_path / "b.pkl").write_bytes(data)
        with pytest.raises(DataError, match="is damaged, or no pickle"):
            load_pickle(tmp_path / "b.pkl")
    with pytest.raises(FileNotFoundError):
        load_pickle(tmp_path / "nothing.pkl")


# ---------------------------------------------------------------- models and learners
def test_questions_to_a_model():
    body = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Sequential(nn.MaxPool2d(2)), nn.Conv2d(8, 5, 3)
    )
    assert num_features_model(body) == 5 and body.training
    assert [p.shape for p in params(body)] == [p.shape for p in body.parameters()]
    assert has_pool_type(nn.AdaptiveAvgPool2d(1)) and has_pool_type(body)
    assert not has_pool_type(body[0])
    with pytest.raises(LearnerError, match="Linear has no convolution"):
        num_features_model(nn.Linear(2, 2))
    nn.init.constant_(body[1].weight, 3)
    body[3].weight.requires_grad_(False)
    frozen = body[3].weight.clone()
    apply_init(body, lambda weight: nn.init.constant_(weight, 2))
    assert (body[0].weight == 2).all() and (body[0].bias == 0).all()
    assert (body[1].weight == 3).all() and torch.equal(body[3].weight, frozen)


def test_a_grid_of_plots():
    figure, axes = subplots(2, 3)
    assert axes.shape == (2, 3) and figure.get_size_inches().tolist() == [9, 6]
    figure, axes = subplots(suptitle="both", imsize=2, sharex=True)
    assert axes.shape == (1,) and figure.get_size_inches().tolist() == [2, 2.6]
    assert figure.get_suptitle() == "both"
    assert subplots(figsize=(1, 2))[0].get_size_inches().tolist() == [1, 2]


def test_hypers():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    split = lambda m: [list(part.parameters()) for part in m]
    for opt_func, more in ((None, {"eps"}), (lambda p, lr: SGD(p, lr, mom=0.9, wd=0.01), set())):
        learn = Learner([None], model, F.mse_loss, opt_func, slice(1e-3, 1e-1), splitter=split)
        learn.create_opt()
        hypers = learn.opt.hypers
        assert hypers.itemgot("lr") == learn.hyper("lr") and len(hypers) == 2
        assert set(hypers[0]) == {"lr", "mom", "wd"} | more
        assert (hypers[0]["mom"], hypers[0]["wd"]) == (0.9, 0.01)
        for h in learn.opt.hypers:
            h["lr"] /= 10
            h["mom"] = 0.8
            h["wd"] = 0.5
        assert learn.hyper("lr") == pytest.approx([1e-4, 1e-2])
        assert learn.hyper("mom") == [0.8, 0.8]
        assert [group["weight_decay"] for group in learn.opt.param_groups] == [0.5, 0, 0.5, 0]
        learn.opt.load_state_dict(learn.opt.state_dict())
        assert learn.opt.hypers[1]["lr"] == pytest.approx(1e-2)
    plain = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.ones(1)], "lr": 3}], 2)
    assert plain.hypers.itemgot("lr") == [2, 3]


def test_from_loaders_and_to_a_device():
    data = [(torch.zeros(3, 2), torch.zeros(3, dtype=torch.long))]
    dls = DataLoaders(data, data)
    with pytest.raises(ValueError, match="give the learner a loss_func"):
        _ = dls.loss_func

    class OfClasses(DataLoaders):
        kinds = ("image", "category")
        c = 5

    assert isinstance(OfClasses(data, data).loss_func, CrossEntropyLossFlat)
    assert get_c(OfClasses(data, data)) == 5
    learn = Learner(DataLoaders(data, data), nn.Linear(2, 3), F.cross_entropy)
    assert learn.to("meta") is learn
    assert {p.device.type for p in learn.model.parameters()} == {"meta"}


# ---------------------------------------------------------------- names
def test_the_ordinary_names():
    names = coursekit.all.__all__
    assert len(names) == len(set(names))
    said = vars(coursekit.all)
    modules = "collections csv functools glob inspect io itertools json math mimetypes operator os"
    modules += " pickle random re shutil sys tempfile time typing warnings zipfile"
    for name in modules.split():
        assert name in names and said[name] is __import__(name)
    assert said["datetime"].now() and said["copy"]([1]) == [1] and said["array"] is np.array
    assert isinstance(said["Flatten"](), nn.Module) and said["Tensor"] is torch.Tensor
    assert isinstance(said["sequential"](nn.ReLU()), nn.Sequential)
    assert said["models"].resnet18.__module__ == "torchvision.models.resnet"
    assert said["matplotlib"].__version__ == matplotlib.__version__
    assert said["widgets"].VBox is said["VBox"]._real()


def test_a_stand_in_for_a_class():
    import decimal

    stand_in = coursekit.all._LaterClass("decimal", "Decimal")
    assert stand_in("1.5") == decimal.Decimal("1.5") and stand_in.from_float(0.5) == stand_in("0.5")
    assert isinstance(stand_in(1), stand_in) and not isinstance(1, stand_in)
    assert pickle.loads(pickle.dumps(stand_in)) is decimal.Decimal

    class Own(stand_in):
        pass

    assert issubclass(Own, decimal.Decimal)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert io.StringIO(str(Own(2))).read() == "2"
