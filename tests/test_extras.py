"Seeds, smaller pictures, plain data in files, and the names that scripts use."

import io
import os
import pickle
import random
import warnings
from copy import deepcopy
from datetime import date
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import coursekit.all
from coursekit.augment import Brightness, JoinedTransforms, Rotate, Zoom
from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.data import IndexSplitter
from coursekit.events import LearnerError
from coursekit.extras import (
    IntToFloatTensor,
    apply_init,
    flatten_check,
    get_c,
    has_pool_type,
    load_pickle,
    num_features_model,
    params,
    ranger,
    resize_images,
    save_pickle,
    set_seed,
    setup_aug_tfms,
    subplots,
    to_detach,
)
from coursekit.learner import Learner
from coursekit.loaders import DataLoaders
from coursekit.losses import CrossEntropyLossFlat
from coursekit.messages import DataError
from coursekit.optimizers import SGD
from coursekit.transforms import IntToFloat, arrange

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


# ---------------------------------------------------------------- ranger
def two_layers(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 1)).to(dtype)


def looking_ahead(model, batches, groups, k, alpha, **options):
    "Lookahead as its paper writes it, over torch's own RAdam."
    opt = torch.optim.RAdam(groups, **options)
    slow = [p.detach().clone() for p in model.parameters()]
    for i, (x, y) in enumerate(batches):
        opt.zero_grad()
        F.mse_loss(model(x), y).backward()
        opt.step()
        if (i + 1) % k:
            continue
        with torch.no_grad():
            for own, p in zip(slow, model.parameters(), strict=True):
                own += alpha * (p - own)
                p.copy_(own)
    return model


def batches_of(n, dtype=torch.float64):
    torch.manual_seed(5)
    return [(torch.randn(8, 4, dtype=dtype), torch.randn(8, 1, dtype=dtype)) for _ in range(n)]


@pytest.mark.parametrize("decouple", [True, False])
def test_ranger_is_lookahead_over_radam(decouple):
    batches, own = batches_of(31), two_layers()
    opt = ranger(
        [list(own[:2].parameters()), list(own[2].parameters())],
        [0.02, 0.1],
        mom=0.8,
        wd=0.3,
        k=4,
        alpha=0.3,
        sqr_mom=0.95,
        decouple_wd=decouple,
    )
    for x, y in batches:
        F.mse_loss(own(x), y).backward()
        opt.step(lambda: None)
        opt.zero_grad()
    other = two_layers()
    groups = [{"params": other[:2].parameters(), "lr": 0.02}, {"params": other[2].parameters()}]
    options = {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.3}
    options |= {"lr": 0.1, "decoupled_weight_decay": decouple}
    looking_ahead(other, batches, groups, 4, 0.3, **options)
    for mine, right in zip(own.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-8, atol=1e-9)
    for bad in ({"k": 0}, {"k": 2.5}, {"alpha": 0}, {"alpha": 1.5}, {"lr": 0}):
        with pytest.raises(ValueError, match="="):
            ranger(own.parameters(), **{"lr": 0.1} | bad)


def test_ranger_calls_hooks_once():
    torch.optim.RAdam([nn.Parameter(torch.ones(1))])  # from now on RAdam's own step calls hooks
    p, calls = nn.Parameter(torch.ones(1)), []
    opt = ranger([p], 0.1)
    opt.register_step_post_hook(lambda *_: calls.append(1))
    p.grad = torch.ones(1)
    opt.step()
    assert calls == [1]


def ranger_learner(folder, n=10):
    data = batches_of(n)
    split = lambda m: [list(m[:2].parameters()), list(m[2:].parameters())]
    options = {"opt_func": ranger, "splitter": split, "wd": 0.1, "path": folder}
    return Learner(DataLoaders(data, data[:1]), two_layers(), F.mse_loss, **options)


def always(*_):
    return 1.0


def test_ranger_in_a_learner(tmp_path):
    learn = ranger_learner(tmp_path)
    with learn.no_logging():
        learn.fit(2, slice(0.01, 0.1))
    other = two_layers()
    plain = [other[0].bias, *other[1].parameters()]
    groups = [
        {"params": [other[0].weight], "lr": 0.01},
        {"params": plain, "lr": 0.01, "weight_decay": 0},
        {"params": [other[2].weight]},
        {"params": [other[2].bias], "weight_decay": 0},
    ]
    options = {"lr": 0.1, "betas": (0.95, 0.99), "eps": 1e-6, "weight_decay": 0.1}
    batches = batches_of(10) * 2
    looking_ahead(other, batches, groups, 6, 0.5, decoupled_weight_decay=True, **options)
    for mine, right in zip(learn.model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-8, atol=1e-9)
    assert learn.opt.hypers[0]["mom"] == 0.95 and learn.opt.hypers.itemgot("wd") == [0.1, 0.1]
    with learn.no_logging():
        learn.fit_one_cycle(1, 0.01)
        before = deepcopy(learn.opt.state_dict())
        learn.lr_find(num_it=20, show_plot=False, suggest_funcs=always)
        torch.testing.assert_close(learn.opt.state_dict(), before, rtol=0, atol=0)
        learn.fit_flat_cos(1)
        learn.fine_tune(1)


def test_ranger_goes_on_where_it_was_saved(tmp_path):
    learn, other = ranger_learner(tmp_path), ranger_learner(tmp_path)
    with learn.no_logging(), other.no_logging():
        learn.fit(1, 0.1)  # 10 steps: between two returns
        learn.save("half")
        learn.fit(1, 0.1)
        other.load("half")
        other.fit(1, 0.1)
    for mine, right in zip(other.model.parameters(), learn.model.parameters(), strict=True):
        assert torch.equal(mine, right)
    other.opt_func = partial(torch.optim.RAdam, decoupled_weight_decay=True, eps=1e-6)
    other.create_opt()
    with pytest.raises(LearnerError, match="an option k"):
        other.load("half")
    with other.no_logging():
        other.fit(1)
    other.save("other")
    with pytest.raises(LearnerError, match="state of another optimiser: without slow"):
        learn.load("other")


# ---------------------------------------------------------------- batches
def test_bytes_to_floats():
    pictures = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    step = IntToFloatTensor(div=10.0, div_mask=255)
    assert torch.equal(step(pictures), pictures / 10)
    floats = torch.rand(2, 3, 2, 2)
    assert torch.equal(step(floats), floats)
    masks = torch.tensor([[[0, 255]]])
    _, mask = step.apply((pictures, masks), ("image", "mask"))
    assert mask.tolist() == [[[0, 1]]] and mask.dtype == torch.long
    assert IntToFloatTensor().apply((pictures, masks), ("image", "mask"))[1] is masks
    for bad in ({"div": 0}, {"div_mask": 0}, {"div_mask": 1.5}):
        with pytest.raises(ValueError, match="="):
            IntToFloatTensor(**bad)


@pytest.mark.parametrize("tfms", [IntToFloatTensor, [Brightness(), IntToFloatTensor(div=51.0)]])
def test_bytes_to_floats_in_a_block(tfms):
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_x=lambda i: np.full((4, 5, 3), 51, np.uint8),
        get_y=lambda i: "ab"[i % 2],
        splitter=IndexSplitter([0, 1]),
        batch_tfms=tfms,
    )
    x, _ = block.dataloaders(range(8), bs=2, num_workers=0).valid.one_batch()
    assert torch.allclose(x, torch.full_like(x, 1.0 if isinstance(tfms, list) else 0.2))


def test_bytes_to_floats_come_before_transforms_of_one_s_own():
    class Own(coursekit.all.Transform):
        order = 9

        def encodes(self, x):
            return x

    for last in (IntToFloatTensor(), IntToFloat()):
        names = [type(step).__name__ for step in arrange([last, Own()])]
        assert names == ["Own", type(last).__name__]  # fastai's is at 10


def test_transforms_as_they_will_run():
    [lighting] = setup_aug_tfms([Brightness()])
    assert isinstance(lighting, Brightness)
    steps = setup_aug_tfms([IntToFloatTensor, Rotate(), Zoom(), Brightness()])
    for made in (steps, setup_aug_tfms(steps)):
        assert [type(step) for step in made] == [JoinedTransforms, IntToFloatTensor]
        assert len(made[0].steps) == 3


def test_batches_without_gradients():
    x = torch.ones(2, requires_grad=True)
    for cpu in (True, False):
        made = to_detach({"a": [x, (x * 2, "text")], "b": None}, cpu=cpu)
        assert not made["a"][0].requires_grad and not made["a"][1][0].requires_grad
        assert made["a"][1][1] == "text" and made["b"] is None
    assert to_detach(torch.ones(2, device="meta"), cpu=False).device.type == "meta"
    inp, targ = flatten_check(torch.eye(3).T, torch.arange(9).view(9, 1))
    assert inp.shape == targ.shape == (9,) and inp.tolist() == torch.eye(3).flatten().tolist()
    with pytest.raises(ValueError, match=r"\(3, 3\) and targets \(3,\) are not one for one"):
        flatten_check(torch.eye(3), torch.ones(3))


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
