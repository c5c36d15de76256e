"""Hue, Saturation, RandomErasing, CropPad, RatioResize, CutMix, and Normalize from the data: against fastai's
answers (`more_transforms_oracle.py`), torchvision and closed forms."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from more_transforms_oracle import FIXTURE, SIZES, TURNS, ask, batch, defaults
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import functional as tv

from coursekit import more_transforms, recipes
from coursekit.augment import Flip, aug_transforms
from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock, RegressionBlock
from coursekit.data import IndexSplitter
from coursekit.events import Callback
from coursekit.exporting import load_learner
from coursekit.learner import Learner
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.losses import CrossEntropyLossFlat, MSELossFlat
from coursekit.messages import DataError
from coursekit.more_transforms import (
    CropPad,
    Hue,
    RandomErasing,
    RatioResize,
    Saturation,
)
from coursekit.normalize import Normalize
from coursekit.recipes import CutMix, MixUp
from coursekit.resizing import Resize
from coursekit.targets import PointBlock
from coursekit.transforms import IntToFloat, PILImageBW, ToTensor, arrange

FASTAI = json.loads(FIXTURE.read_text())


def ours() -> SimpleNamespace:
    names = {name: getattr(more_transforms, name) for name in more_transforms.__all__}
    return SimpleNamespace(
        **names,
        CutMix=CutMix,
        apply=lambda step, x: step(x, training=True),
        crop_pad=lambda picture, size, mode: CropPad(size, mode)(picture),
        ratio_resize=lambda picture, most: RatioResize(most)(picture),
    )


def test_as_in_fastai():
    answers = ask(ours())
    for name in ("saturation", "hue"):
        assert np.abs(np.subtract(answers[name], FASTAI[name])).max() < 2e-5, name
    for name in ("crop_pad", "ratio", "defaults"):
        assert answers[name] == FASTAI[name], name


# ---------------------------------------------------------------- colours
def test_hue_is_torchvision_s():
    found = Hue(p=1, draw=TURNS)(batch(), training=True)
    for picture, turned, by in zip(batch(), found, TURNS, strict=True):
        assert torch.allclose(turned, tv.adjust_hue(picture, by), atol=1e-6)


def test_saturation_goes_the_way_of_torchvision_s():
    "There the colours themselves are blended with grey, here their logits: the same at the ends."
    for factor in (0.0, 0.5, 1.0):
        mine = Saturation(p=1, draw=factor)(batch(), training=True)
        theirs = tv.adjust_saturation(batch(), factor)
        assert (mine - theirs).abs().max() < (1e-5 if factor == 1 else 0.25)
        spread = (mine.amax(1) - mine.amin(1)).max()
        assert (spread < 1e-5) == (factor == 0)


@pytest.mark.parametrize("step", [Hue(p=0.5), Saturation(p=0.5), RandomErasing(p=0.5, sl=0.05)])
def test_a_chance_for_each_picture(step):
    pictures = batch()[:1].expand(600, 3, 5, 6)
    torch.manual_seed(0)
    changed = (step(pictures, training=True) - pictures).abs().flatten(1).amax(1) > 1e-5
    assert 0.4 < changed.float().mean() < 0.6
    assert torch.equal(step(pictures), pictures)


def test_draws_stay_within_what_was_asked():
    torch.manual_seed(0)
    turns = Hue(0.1, p=1).numbers(4000)
    factors = Saturation(0.2, p=1).numbers(4000)
    assert -0.1 <= turns.min() < -0.09 and 0.09 < turns.max() <= 0.1
    assert 0.8 <= factors.min() < 0.81 and 1.24 < factors.max() <= 1.25
    assert Saturation(p=1, batch=True).numbers(9).unique().numel() == 1
    assert Hue(p=1, batch=True).numbers(9).unique().numel() == 1


@pytest.mark.parametrize("step", [Hue, Saturation])
def test_colours_of_what_has_none(step):
    with pytest.raises(ValueError, match=r"colour pictures .*batch_tfms"):
        step()(torch.rand(2, 1, 4, 4), training=True)


def test_colours_come_after_the_one_map():
    "They do not part the maps, which are joined; and they see floats."
    steps = arrange([Flip(), Hue(), Saturation(), *aug_transforms(do_flip=False), IntToFloat()])
    assert len(steps) == 4 and repr(steps[0]).startswith("Flip")
    assert [type(s) for s in steps[1:]] == [IntToFloat, Hue, Saturation]
    x = (batch() * 255).byte()
    for step in steps:
        (x,) = step.apply((x,), ("image",), True)
    assert x.is_floating_point() and 0 <= x.min() and x.max() <= 1
    alone = Hue(p=1, draw=0.0)((batch() * 255).byte(), training=True)
    assert torch.allclose(alone, (batch() * 255).byte() / 255)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Hue(0.6),
        lambda: Saturation(1.0),
        lambda: Hue(p=2),
        lambda: RandomErasing(p=-1),
        lambda: RandomErasing(sl=0.5),
        lambda: RandomErasing(min_aspect=0),
        lambda: RandomErasing(max_count=0),
        lambda: CropPad(0),
        lambda: CropPad(3, "mirror"),
        lambda: RatioResize(0),
        lambda: RatioResize(9, resamples=Image.Resampling.BICUBIC),
        lambda: RatioResize(9, resamples=(9, 0)),
        lambda: RatioResize(9, resamples=(2, 0, 1)),
        lambda: CutMix(0),
    ],
)
def test_arguments_that_mean_nothing(make):
    with pytest.raises(ValueError, match="="):
        make()


# ---------------------------------------------------------------- holes
def test_erasing_is_torchvision_s_erase():
    torch.manual_seed(0)
    step, pictures = RandomErasing(p=1, sl=0.1), torch.full((30, 3, 20, 24), 9.0)
    found = step(pictures, training=True)
    for picture, holed in zip(pictures, found, strict=True):
        rows, columns = (holed[0] != 9).any(1).nonzero(), (holed[0] != 9).any(0).nonzero()
        top, left = int(rows.min()), int(columns.min())
        high, wide = int(rows.max()) + 1 - top, int(columns.max()) + 1 - left
        noise = holed[:, top : top + high, left : left + wide]
        assert torch.equal(holed, tv.erase(picture, top, left, high, wide, noise))


def test_holes_have_the_area_and_shape_that_were_asked():
    torch.manual_seed(0)
    boxes = [
        RandomErasing(p=1, sl=0.1, sh=0.2, min_aspect=0.5)._box(200, 300, 60000.0)
        for _ in range(900)
    ]
    sides = [(bottom - top, right - left) for top, bottom, left, right in boxes]
    assert all(0 <= t and b <= 200 and 0 <= le and r <= 300 for t, b, le, r in boxes)
    areas = [high * wide / 60000 for high, wide in sides]
    shapes = [high / wide for high, wide in sides]
    assert 0.099 < min(areas) < 0.105 and 0.195 < max(areas) < 0.201
    assert 0.49 < min(shapes) < 0.52 and 1.9 < max(shapes) < 2.05
    assert {box[0] for box in boxes} >= {0} and max(box[3] for box in boxes) == 300


def test_several_holes_share_the_area():
    torch.manual_seed(0)
    counts = [len(RandomErasing(max_count=3).boxes(40, 40)) for _ in range(300)]
    assert set(counts) == {1, 2, 3}
    assert RandomErasing().order > Normalize([0.5], [0.5]).order


# ---------------------------------------------------------------- sizes
def test_sizes_run_in_the_order_in_which_they_are_written():
    "In fastai CropPad always comes first, whatever was written."
    picture = Image.new("RGB", (100, 60))
    for steps, size in (
        ([Resize(56), CropPad(48)], (48, 48)),
        ([CropPad(48), Resize(56)], (56, 56)),
    ):
        shown = picture
        for step in arrange(steps):
            shown = step(shown)
        assert shown.size == size


def test_sizes_move_masks_and_points():
    mask = Image.fromarray(np.eye(6, 10, dtype=np.uint8))
    parts, kinds = (mask, torch.tensor([[5.0, 3.0]])), ("mask", "points")
    cut, points = CropPad((4, 12)).apply(parts, kinds)
    assert np.array_equal(np.asarray(cut), np.pad(np.eye(6, 10)[1:5], ((0, 0), (1, 1))))
    assert points.tolist() == [[6.0, 2.0]]
    small, points = RatioResize(5).apply(parts, kinds)
    assert small.size == (5, 3) and points.tolist() == [[2.5, 1.5]]


@pytest.mark.parametrize("size", SIZES)
def test_ratio_resize_of_tensors(size):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    step = RatioResize(24)
    assert step(pixels).shape == (3, *step(picture).size[::-1])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", Image.Resampling)
def test_ratio_resize_finds_pixels_as_it_is_told(size, way):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), np.uint8))
    mask = Image.fromarray(rng.integers(0, 9, size[::-1], np.uint8))
    step = RatioResize(24, resamples=(way, Image.Resampling.BOX))
    shown, found = step.apply((picture, mask), ("image", "mask"))
    to = RatioResize(24)(picture).size
    assert np.array_equal(np.asarray(shown), np.asarray(picture.resize(to, way)))
    assert np.array_equal(np.asarray(found), np.asarray(mask.resize(to, Image.Resampling.BOX)))
    for other in arrange([step, ToTensor()]):
        shown = other(shown if isinstance(other, ToTensor) else picture)
    assert np.array_equal(shown.permute(1, 2, 0).numpy(), np.asarray(picture.resize(to, way)))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    if way in (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
        assert (step(pixels).int() - shown.int()).abs().float().mean() < 1
    else:
        with pytest.raises(ValueError, match=f"no {way.name}: choose NEAREST"):
            step(pixels)
    assert way.name in repr(step) and repr(RatioResize(24)) == "RatioResize(24)"


# ---------------------------------------------------------------- CutMix
class Watch(Callback):
    order = 50

    def before_batch(self):
        if self.learn.training:
            self.x, self.y = self.learn.x.clone(), self.learn.y

    def after_loss(self):
        if self.learn.training:
            self.scores, self.loss = self.learn.pred.detach(), self.learn.loss.item()


def cut(targets, loss, alpha=1.0):
    "A learner that has seen one batch of numbered pictures."
    n = len(targets)
    pictures = torch.arange(float(n)).view(n, 1, 1, 1).expand(n, 3, 12, 16)
    dls = DataLoaders.from_dsets(list(zip(pictures, targets, strict=True)), bs=n, shuffle=False)
    watch, mix = Watch(), CutMix(alpha)
    learn = Learner(dls, nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), loss, cbs=[mix, watch])
    torch.manual_seed(0)
    with learn.no_logging():
        learn.fit(1, 1e-3)
    return pictures, mix, watch


def test_cutmix_pastes_one_rectangle_and_counts_it():
    targets = torch.arange(64) % 3
    pictures, mix, watch = cut(targets, CrossEntropyLossFlat())
    other = pictures[mix.partners]
    pasted = watch.x != pictures
    assert torch.equal(watch.x, torch.where(pasted, other, pictures))
    rows, columns = pasted.any((1, 3)), pasted.any((1, 2))
    assert torch.equal(
        pasted, (rows[:, None, :, None] & columns[:, None, None, :]).expand_as(pasted)
    )
    moved = mix.partners != torch.arange(64)
    assert torch.allclose(1 - pasted.float().mean((1, 2, 3))[moved], mix.lam[moved])
    one_hot = nn.functional.one_hot(targets, 3).float()
    mixed = torch.lerp(one_hot[mix.partners], one_hot, mix.lam[:, None])
    assert math.isclose(
        watch.loss, nn.functional.cross_entropy(watch.scores, mixed).item(), rel_tol=1e-5
    )


def test_cutmix_of_numbers_and_shares():
    targets = torch.rand(64, 3)
    _, mix, watch = cut(targets, MSELossFlat())
    assert torch.allclose(watch.y, torch.lerp(targets[mix.partners], targets, mix.lam[:, None]))
    few, many = (cut(targets, MSELossFlat(), alpha)[1].lam for alpha in (0.05, 50.0))
    assert many.std() < 0.2 < few.std() and isinstance(mix, MixUp)


def test_cutmix_needs_pictures():
    dls = DataLoaders.from_dsets([(torch.rand(5), 0), (torch.rand(5), 1)], bs=2)
    learn = Learner(dls, nn.Linear(5, 2), CrossEntropyLossFlat(), cbs=CutMix)
    with learn.no_logging(), pytest.raises(DataError, match="MixUp mixes any numbers"):
        learn.fit(1)


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_points_are_not_mixed(kind):
    data = DataBlock(
        (ImageBlock, PointBlock),
        get_x=lambda i: np.zeros((12, 12, 3), np.uint8),
        get_y=lambda i: [(i, 3.0)],
        splitter=IndexSplitter([0, 1]),
    )
    dls = data.dataloaders(range(8), bs=2, num_workers=0)
    learn = Learner(dls, nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), MSELossFlat(), cbs=kind)
    match = f"{kind.__name__} mixes .* points .*train without {kind.__name__}"
    with learn.no_logging(), pytest.raises(DataError, match=match):
        learn.fit(1)
    with learn.no_logging(), learn.removed_cbs(kind):
        learn.fit(1)


# ---------------------------------------------------------------- Normalize from the data
def grey(i):
    "Pictures that differ: red, green and blue have each a mean and a spread of their own."
    rng = np.random.default_rng(i)
    pixels = rng.normal([60, 120, 200], [5, 20, 30], (20, 24, 3)).clip(0, 255)
    return pixels.astype(np.uint8)


def loaders(normalize, n=40, block=ImageBlock, **kwargs):
    data = DataBlock(
        (block, CategoryBlock),
        get_x=grey,
        get_y=lambda i: "ab"[i % 2],
        splitter=IndexSplitter(list(range(32, n))),
        batch_tfms=normalize,
        **kwargs,
    )
    return data.dataloaders(list(range(n)), bs=32, num_workers=0)


@pytest.mark.parametrize("how", [Normalize(), Normalize, [*aug_transforms(), Normalize()]])
def test_normalize_takes_what_the_data_have(how):
    dls = loaders(how)
    x, _ = dls.new(training=False).train.one_batch()
    assert x.mean((0, 2, 3)).abs().max() < 0.01 and (x.std((0, 2, 3)) - 1).abs().max() < 0.01
    own = [
        step for loader in dls.loaders for step in loader.after_batch if isinstance(step, Normalize)
    ]
    means = [step.mean.flatten() * 255 for step in own]
    assert torch.equal(*means) and (means[0] - torch.tensor([60.0, 120, 199])).abs().max() < 2
    x, _ = dls.valid.one_batch()
    assert 0 < x.mean().abs() < 0.05  # of the training pictures, not of these


def test_normalize_of_grey_pictures_and_of_bytes():
    dls = loaders(Normalize(), block=ImageBlock(PILImageBW))
    assert dls.train.after_batch[-1].mean.shape == (1, 1, 1)
    pairs = torch.utils.data.TensorDataset(
        torch.randint(256, (30, 2, 8, 8)).byte(), torch.zeros(30)
    )
    dls = DataLoaders(DataLoader(pairs, 30, after_batch=Normalize(), shuffle=True, device="cpu"))
    x, _ = dls.one_batch()
    assert x.mean().abs() < 0.01 and (x.std() - 1).abs() < 0.01


def test_the_same_numbers_each_time_and_nothing_else_is_moved():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two = (loaders(Normalize()).train.after_batch[-1] for _ in range(2))
    assert torch.equal(one.mean, two.mean) and torch.equal(before, torch.get_rng_state())


def test_a_template_keeps_no_numbers_of_other_data():
    "The same Normalize() object serves data of another kind with their own numbers."
    shared = Normalize()
    one = loaders(shared).train.after_batch[-1]
    block = ImageBlock(PILImageBW)
    two = loaders(shared, block=block).train.after_batch[-1]
    assert shared.mean is None and repr(shared) == "Normalize()"
    assert len(one.mean) == 3 and len(two.mean) == 1


def test_normalize_in_the_summary(capsys):
    data = DataBlock(
        (ImageBlock, CategoryBlock), get_x=grey, get_y=lambda i: "ab"[i % 2], batch_tfms=Normalize()
    )
    data.summary(list(range(40)))
    assert "All steps work" in capsys.readouterr().out


def test_normalize_without_loaders_is_told():
    with pytest.raises(ValueError, match="takes mean and standard deviation from a first batch"):
        Normalize()(torch.rand(2, 3, 4, 4))
    with pytest.raises(ValueError, match="give both"):
        Normalize([0.5] * 3)
    with pytest.raises(DataError, match="from a first batch"):
        DataLoader([(torch.rand(3, 8, 8), 1)] * 4, 2, after_batch=Normalize()).one_batch()


def test_numbers_that_were_found_are_exported(tmp_path):
    dls = loaders([Hue(), Saturation(), RandomErasing(), Normalize()], item_tfms=CropPad((18, 22)))
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    learn = Learner(dls, model, path=tmp_path)
    again = load_learner(learn.export())
    one, two = (each.dls.train.after_batch for each in (learn, again))
    assert list(map(repr, one)) == list(map(repr, two)) and torch.equal(one[-2].mean, two[-2].mean)
    assert torch.equal(learn.predict(1)[2], again.predict(grey(1))[2])


def test_a_learner_of_numbers_with_ratio_resize():
    data = DataBlock(
        (ImageBlock, RegressionBlock),
        get_x=grey,
        get_y=float,
        item_tfms=RatioResize(12),
        batch_tfms=Normalize(),
    )
    dls = data.dataloaders(list(range(20)), bs=4, num_workers=0)
    assert dls.one_batch()[0].shape == (4, 3, 10, 12)
    assert defaults(Normalize) == {"mean": None, "std": None}
    assert recipes.CutMix is CutMix
