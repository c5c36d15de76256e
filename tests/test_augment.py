"""Lesson 04: geometry by planted marks and closed forms, chance by its shares, errors by their words."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from coursekit import augment, one_pass, resizing
from coursekit.augment import (
    BatchTransform,
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
from coursekit.blocks import DataBlock, ImageBlock
from coursekit.data import IndexSplitter
from coursekit.geometry import map_points
from coursekit.messages import DataError
from coursekit.normalize import Normalize, imagenet_stats
from coursekit.resizing import RandomResizedCrop, Resize, ResizeMethod
from coursekit.targets import MaskBlock, PointBlock, ScalePoints, ToMask, ToPoints
from coursekit.transforms import IntToFloat, PILImage, ToTensor, arrange

ITEM = ("image", "mask", "points")
SIZES = [(200, 100), (100, 200), (128, 128), (131, 77), (57, 90)]  # width, height
SPOTS = [(0.3, 0.4), (0.7, 0.6)]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def marked(width: int, height: int, spots=SPOTS, radius: float = 5):
    "A picture with soft discs at shares of its sides, a mask that numbers them from 1, and their points in pixels."
    points = torch.tensor([(x * width, y * height) for x, y in spots])
    y, x = np.mgrid[:height, :width] + 0.5
    pixels, mask = np.full((height, width, 3), 40.0), np.zeros((height, width), "uint8")
    for number, (px, py) in enumerate(points.tolist(), 1):
        distance = np.hypot(x - px, y - py)
        share = (radius + 0.5 - distance).clip(0, 1)[..., None]
        pixels = (1 - share) * pixels + share * np.array([0, 255 if number == 2 else 0, 255])
        mask[distance < radius] = number
    return (
        PILImage.create(pixels.round().astype("uint8")),
        Image.fromarray(mask),
        points,
    )


def middle_of(weights: Tensor) -> Tensor:
    "Centre of mass `(x, y)` of `(height, width)`, in pixels from the outer edge."
    height, width = weights.shape
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    total = weights.sum()
    return torch.stack([(weights.sum(0) * x).sum() / total, (weights.sum(1) * y).sum() / total])


def blue(picture: Tensor) -> Tensor:
    "Where the discs are: `(2, height, width)`, floats."
    strength = ((picture[2] - 40 / 255) / (215 / 255)).clamp(0, 1)
    second = (picture[1] > 0.45).float()
    return torch.stack([strength * (picture[1] < 0.1), strength * second])


def as_floats(picture) -> Tensor:
    return ToTensor().image(picture).float() / 255


# ---------------------------------------------------------------- items
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "tfm",
    [
        Resize(96),
        Resize((64, 96)),
        Resize(96, "pad", "zeros"),
        Resize((64, 96), "pad", "border"),
        Resize(96, "squish"),
        Resize((61, 97), "squish"),
        RandomResizedCrop(96, min_scale=0.6),
        RandomResizedCrop((64, 96), val_xtra=0.3),
    ],
    ids=repr,
)
def test_points_and_masks_follow_the_picture(tfm, size, training):
    picture, mask, points = tfm.apply(marked(*size), ITEM, training)
    assert as_floats(picture).shape[1:] == tfm.size == np.array(mask).shape
    numbers = torch.from_numpy(np.array(mask))
    for i, point in enumerate(points):
        if not ((point > 14) & (point < torch.tensor(tfm.size[::-1]) - 14)).all():
            continue
        if (numbers == i + 1).sum() > 20:
            assert (middle_of((numbers == i + 1).float()) - point).abs().max() < 1
        seen = blue(as_floats(picture))[i]
        assert (middle_of(seen) - point).abs().max() < 1


def test_some_points_are_inside():
    "The test above looks at something."
    for size in SIZES:
        points = Resize(96, "squish").apply(marked(*size), ITEM, False)[2]
        assert torch.allclose(points, torch.tensor(SPOTS) * 96, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_crop_is_the_middle_on_validation(size):
    picture = marked(*size)[0]
    width, height = size
    short = min(size)
    left, top = (width - short) // 2, (height - short) // 2
    expected = picture.crop((left, top, left + short, top + short)).resize(
        (64, 64), Image.Resampling.BILINEAR
    )
    difference = np.abs(np.array(Resize(64)(picture), int) - np.array(expected, int))
    assert difference.max() <= 1


def test_crop_is_random_along_the_long_side_only():
    windows = [Resize(64).window(200, 100, True) for _ in range(200)]
    lefts = [w.box[0] for w in windows]
    assert {w.box[1] for w in windows} == {0} and min(lefts) < 8 and max(lefts) > 92
    assert {w.box[2] - w.box[0] for w in windows} == {100}
    assert len({Resize(64).window(200, 100, False) for _ in range(5)}) == 1


@pytest.mark.parametrize("pad_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("training", [False, True])
def test_padding_against_numpy(pad_mode, training):
    picture = PILImage.create(
        np.random.default_rng(0).integers(0, 256, (20, 60, 3)).astype("uint8")
    )
    tfm = Resize(60, "pad", pad_mode)
    torch.manual_seed(3)
    found = np.array(tfm(picture, training=training))
    torch.manual_seed(3)
    above = -tfm.window(60, 20, training).start[1]
    mode = {"zeros": "constant", "border": "edge", "reflection": "reflect"}[pad_mode]
    expected = np.pad(np.array(picture), ((above, 40 - above), (0, 0), (0, 0)), mode)
    assert np.array_equal(found, expected)
    assert training or above == 20


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [*SIZES, (2, 300), (640, 480), (96, 96)])
def test_at_once_with_to_tensor(mode, size):
    "The joined step gives what the two steps give, within a byte."
    rng = np.random.default_rng(1)
    picture = PILImage.create(Image.fromarray(rng.integers(0, 256, size[::-1]).astype("uint8")))
    picture = picture.convert(mode)
    for tfm in (
        Resize(96),
        Resize((50, 70), "pad"),
        Resize(96, "squish"),
        RandomResizedCrop(64),
        RandomResizedCrop(96, val_xtra=0),
    ):
        (joined,) = arrange([tfm, ToTensor])
        for training in (False, True):
            torch.manual_seed(5)
            one = joined(picture, training=training)
            torch.manual_seed(5)
            two = ToTensor().image(tfm(picture, training=training))
            assert one.shape == two.shape and one.dtype == torch.uint8 and one.is_contiguous()
            assert (one.int() - two.int()).abs().max() <= 1


def test_resize_of_tensors():
    picture = marked(200, 100)[0]
    one, two = ToTensor().image(Resize(64)(picture)), Resize(64)(ToTensor().image(picture))
    assert (one.int() - two.int()).abs().max() <= 1
    assert Resize(64, "pad")(torch.rand(1, 30, 50)).shape == (1, 64, 64)


def test_same_size_changes_nothing():
    picture = marked(96, 96)[0]
    for tfm in (Resize(96), Resize(96, "pad"), Resize(96, "squish")):
        assert np.array_equal(tfm(picture), picture)


def test_random_resized_crop_on_validation():
    "The whole picture at 14 % more, rounded up to a multiple of 8, and its middle."
    picture = marked(200, 100)[0]
    expected = picture.resize((256, 256), Image.Resampling.BILINEAR).crop((16, 16, 240, 240))
    found = RandomResizedCrop(224)(picture)
    assert np.array_equal(found, expected) and np.array_equal(
        found, RandomResizedCrop(224)(picture)
    )


def test_boxes():
    boxes = augment._boxes(4000, 400, 300, (0.2, 0.5), (3 / 4, 4 / 3))
    area, shape = boxes[:, 0] * boxes[:, 1] / 120000, boxes[:, 0] / boxes[:, 1]
    assert 0.199 < area.min() < 0.21 and 0.49 < area.max() < 0.501
    assert 0.749 < shape.min() < 0.76 and 1.32 < shape.max() < 1.334
    assert abs(shape.log().mean()) < 0.02 and (boxes[:, 2:].mean(0) - 0.5).abs().max() < 0.02
    assert (boxes[:, 0] <= 400).all() and (boxes[:, 1] <= 300).all()


def test_one_box_as_many():
    "The item's box is drawn from the same distribution as the batch's."
    arguments = (400, 300, (0.08, 1.0), (3 / 4, 4 / 3))
    one = torch.tensor([resizing._box(*arguments) for _ in range(4000)])
    many = augment._boxes(4000, *arguments)
    scale = torch.tensor([400, 300, 1, 1])
    for measure in (lambda x: x.mean(0), lambda x: x.std(0), lambda x: x.quantile(0.1, dim=0)):
        assert ((measure(one) - measure(many)) / scale).abs().max() < 0.03


def test_boxes_that_never_fit_are_the_middle():
    found = resizing._box(1000, 10, (0.9, 1.0), (3 / 4, 4 / 3))
    assert found == pytest.approx((10 * 4 / 3, 10, 0.5, 0.5))
    boxes = augment._boxes(5, 1000, 10, (0.9, 1.0), (3 / 4, 4 / 3))
    assert torch.allclose(boxes, torch.tensor([10 * 4 / 3, 10, 0.5, 0.5]).expand(5, 4))


def test_crops_lie_inside():
    for size in [*SIZES, (1, 1), (3, 50)]:
        for _ in range(50):
            left, top, right, bottom = RandomResizedCrop(32).window(*size, True).box
            assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]


# ---------------------------------------------------------------- batches
MAPS = {
    "flip": Flip(draw=1, p=1, pad_mode="zeros"),
    "rotate": Rotate(draw=17, p=1, pad_mode="zeros"),
    "zoom": Zoom(draw=1.2, draw_x=0.3, draw_y=0.8, p=1, pad_mode="zeros"),
    "zoom out": Zoom(0.5, 1, draw=0.8, p=1, pad_mode="zeros"),
    "warp x": Warp(draw_x=0.2, draw_y=0, p=1, pad_mode="zeros"),
    "warp both": Warp(0.3, draw_x=-0.15, draw_y=0.25, p=1, pad_mode="zeros"),
    "quarter": Dihedral(draw=4, p=1, pad_mode="zeros"),
    "three quarters": Dihedral(draw=5, p=1, pad_mode="zeros"),
    "crop": RandomResizedCropBatch((90, 70), min_scale=0.7, pad_mode="zeros"),
    "size": BatchTransform(size=(60, 80)),
}
MAPS["all"] = augment.JoinedTransforms(
    [MAPS[k] for k in ("flip", "warp both", "rotate", "zoom", "crop")]
)
MAPS["drawn"] = arrange(aug_transforms(mult=1.5, pad_mode="zeros", p_affine=1.0, max_lighting=0.0))[
    0
]


def a_batch(width: int, height: int, n: int = 3):
    picture, mask, points = marked(width, height)
    points = points * 2 / torch.tensor([width, height]) - 1
    return (
        as_floats(picture).expand(n, -1, -1, -1),
        torch.from_numpy(np.array(mask)).long().expand(n, -1, -1),
        points.expand(n, -1, -1),
    )


@pytest.mark.parametrize("size", [(120, 120), (160, 90), (91, 143)])
@pytest.mark.parametrize("name", MAPS)
def test_batch_points_and_masks_follow_the_picture(name, size):
    for way in ("each_alone", "all_together"):
        torch.manual_seed(7)
        step = MAPS[name]
        parts = a_batch(*size)
        drawn = step.draw(parts, ITEM, True)
        new = drawn.size or (size[1], size[0])
        pictures = getattr(one_pass, way)(
            parts[0],
            torch.eye(3).expand(3, 3, 3) if drawn.matrix is None else drawn.matrix,
            None,
            new,
            step.mode,
            step.pad_mode,
        )
        masks, points = step.mask(parts[1], drawn), step.points(parts[2], drawn)
        assert pictures.shape == (3, 3, *new) and masks.shape == (3, *new)
        looked = 0
        for picture, mask, places in zip(pictures, masks, points, strict=True):
            for i, place in enumerate((places + 1) / 2 * torch.tensor(new[::-1])):
                if not ((place > 10) & (place < torch.tensor(new[::-1]) - 10)).all():
                    continue
                assert (middle_of((mask == i + 1).float()) - place).abs().max() < 1
                assert (middle_of(blue(picture)[i]) - place).abs().max() < 1
                looked += 1
        assert looked or name == "drawn"


def test_composed_is_sequential_on_points():
    points = torch.rand(3, 9, 2) * 1.6 - 0.8
    parts, kinds = (torch.zeros(3, 1, 40, 60), points), ("image", "points")
    steps = [MAPS[k] for k in ("flip", "warp both", "rotate", "zoom")]
    one_by_one = parts
    for step in steps:
        one_by_one = step.apply(one_by_one, kinds, True)
    at_once = arrange(steps)
    assert len(at_once) == 1
    assert torch.allclose(at_once[0].apply(parts, kinds, True)[1], one_by_one[1], atol=1e-5)


def test_composed_is_sequential_on_pictures():
    "On a smooth picture, where interpolating twice costs nothing."
    y, x = torch.meshgrid(torch.linspace(-1, 1, 80), torch.linspace(-1, 1, 120), indexing="ij")
    batch = torch.stack([x, y, x * y])[None] / 2 + 0.5
    steps = [MAPS[k] for k in ("flip", "rotate", "zoom")]
    one_by_one = batch
    for step in steps:
        one_by_one = step(one_by_one, training=True)
    at_once = arrange(steps)[0](batch, training=True)
    assert (at_once - one_by_one)[..., 20:60, 30:90].abs().max() < 5e-3


def test_one_look_up(monkeypatch):
    calls = []
    real = F.grid_sample
    monkeypatch.setattr(F, "grid_sample", lambda *a, **k: calls.append(1) or real(*a, **k))
    (step,) = arrange(aug_transforms(p_affine=1.0))
    step(torch.rand(5, 3, 20, 20), training=True)
    assert len(calls) == 5  # one for each picture


@pytest.mark.parametrize("degrees", [10, 30, -75, 90])
def test_rotation_against_pillow(degrees):
    picture = marked(121, 81)[0]
    found = Rotate(draw=degrees, p=1, pad_mode="zeros")(as_floats(picture)[None], training=True)[0]
    expected = as_floats(picture.rotate(-degrees, Image.Resampling.BILINEAR))  # anticlockwise there
    y, x = torch.meshgrid(torch.arange(81) - 40, torch.arange(121) - 60, indexing="ij")
    inside = x**2 + y**2 < 38**2
    assert (found - expected)[:, inside].abs().max() < 0.02


@pytest.mark.parametrize("size", [(60, 60), (90, 50)])
def test_against_torchvision(size):
    from torchvision.transforms.v2 import functional as tv

    width, height = size
    batch = torch.rand(1, 3, height, width)
    batch = F.avg_pool2d(F.pad(batch, (2, 2, 2, 2), mode="reflect"), 5, 1)
    bilinear = tv.InterpolationMode.BILINEAR
    inner = (..., slice(15, height - 15), slice(15, width - 15))

    found = Rotate(draw=20, p=1)(batch, training=True)
    expected = tv.affine(batch, 20, [0, 0], 1.0, [0.0, 0.0], interpolation=bilinear)
    assert (found - expected)[inner].abs().max() < 1e-3

    found = Zoom(1, 2, draw=1.3, draw_x=0.5, draw_y=0.5, p=1)(batch, training=True)
    expected = tv.affine(batch, 0.0, [0, 0], 1.3, [0.0, 0.0], interpolation=bilinear)
    assert (found - expected)[inner].abs().max() < 1e-3

    x, y = 0.1, -0.15  # the corners move as the docstring of Warp says
    old = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    new = torch.stack([old[:, 0] * (1 - y * old[:, 1]), old[:, 1] * (1 - x * old[:, 0])], 1)
    matrix = Warp(draw_x=x, draw_y=y, p=1).where(1, height, width, True)
    assert torch.allclose(map_points(matrix, new[None])[0], old, atol=1e-5)
    pixels = [((c + 1) / 2 * torch.tensor([width, height])).tolist() for c in (old, new)]
    expected = tv.perspective(batch, *pixels, interpolation=bilinear)
    found = Warp(draw_x=x, draw_y=y, p=1)(batch, training=True)
    assert (found - expected)[inner].abs().max() < 5e-3


def test_flips_and_quarter_turns_are_exact():
    batch = torch.rand(2, 3, 16, 16)
    ways = [Dihedral(draw=k, p=1)(batch, training=True).sub(batch.new_zeros(1)) for k in range(8)]
    turned = [batch.rot90(k, (2, 3)) for k in range(4)]
    expected = turned + [each.flip(-1) for each in turned]
    for found in ways:
        assert sum(torch.allclose(found, each, atol=1e-5) for each in expected) == 1
    for each in expected:
        assert sum(torch.allclose(found, each, atol=1e-5) for found in ways) == 1
    assert torch.allclose(Flip(p=1)(batch, training=True), batch.flip(-1), atol=1e-5)


@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_nothing_drawn_changes_nothing(kind):
    batch = torch.randint(0, 256, (4, 3, 31, 47), dtype=torch.uint8)
    batch = batch if kind == "bytes" else batch / 255
    (step,) = arrange(aug_transforms(p_affine=0.0, p_lighting=0.0, do_flip=False))
    found = step(batch, training=True)
    assert torch.allclose(found, IntToFloat().image(batch), atol=1e-6)
    maps = arrange(aug_transforms(p_affine=0.0, max_lighting=0.0, do_flip=False))[0]
    assert torch.equal(maps(batch, training=True), IntToFloat().image(batch))


@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_validation_is_left_alone(kind):
    batch = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    batch = batch if kind == "bytes" else batch / 255
    (step,) = arrange(aug_transforms())
    parts = (batch, torch.zeros(4, 2, 2), torch.ones(4, 32, 32).long())
    for before, after in zip(
        parts, step.apply(parts, ("image", "points", "mask"), False), strict=True
    ):
        assert torch.equal(before / 255 if before.dtype == torch.uint8 else before, after)


def test_two_ways_to_pad_are_two_passes():
    steps = arrange(
        [Rotate(draw=30, p=1), Zoom(draw=1.2, p=1), Rotate(draw=5, p=1, pad_mode="zeros")]
    )
    assert [len(getattr(step, "steps", [step])) for step in steps] == [2, 1]
    lit = arrange([Rotate(draw=30, p=1, pad_mode="zeros"), Contrast(p=1), Zoom(pad_mode="zeros")])
    assert len(lit) == 1 and lit[0].pad_mode == "zeros"


def test_a_rectangle_keeps_proportions():
    "A circle stays one at another shape of the batch, also in validation."
    y, x = torch.meshgrid(torch.linspace(-1, 1, 300), torch.linspace(-1, 1, 300), indexing="ij")
    disc = ((x**2 + y**2) < 0.25).float().expand(1, 1, 300, 300)
    tfms = aug_transforms(
        size=(120, 160), min_scale=0.75, max_rotate=0, max_warp=0, max_zoom=1, max_lighting=0
    )
    for training in (True, False):
        (seen,) = arrange(tfms)[0](disc, training=training)[0] > 0.5
        across, down = seen.any(0).sum().item(), seen.any(1).sum().item()
        assert abs(across / down - 1) < 0.05


def test_threads_are_given_back_by_several_threads():
    import threading

    usual, found = torch.get_num_threads(), []
    (step,) = arrange(aug_transforms())

    def work():
        for _ in range(8):
            step(torch.rand(4, 3, 32, 32), training=True)
        found.append(torch.get_num_threads())

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [usual] * 6 and torch.get_num_threads() == usual


def test_a_step_on_the_wrong_side_says_where_it_belongs():
    batch, picture = torch.rand(2, 3, 8, 8), Image.new("RGB", (8, 8))
    with pytest.raises(ValueError, match="item_tfms"):
        Resize(4)(batch)
    with pytest.raises(ValueError, match="batch_tfms"):
        Rotate()(picture, training=True)
    with pytest.raises(ValueError, match="batch_tfms"):
        Normalize.from_stats(*imagenet_stats)(picture)
    with pytest.raises(TypeError):
        Normalize.from_stats(*imagenet_stats, typo=3)


@pytest.mark.parametrize("options", [{}, {"min_scale": 0.7}])
def test_size_applies_to_validation(options):
    steps = arrange([*aug_transforms(size=(24, 40), **options), IntToFloat])
    batch = torch.rand(2, 3, 48, 48)
    one, two = (steps[0](batch, training=False) for _ in range(2))
    assert one.shape == (2, 3, 24, 40) and torch.equal(one, two)
    assert steps[0](batch, training=True).shape == (2, 3, 24, 40)


def test_bytes_as_floats():
    batch = torch.randint(0, 256, (3, 3, 33, 40), dtype=torch.uint8)
    (step,) = arrange(aug_transforms())
    torch.manual_seed(1)
    one = step(batch, training=True)
    torch.manual_seed(1)
    two = step(batch / 255, training=True)
    assert one.dtype == torch.float32 and torch.allclose(one, two, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (1, 3, 7, 5), (2, 1, 1, 9), (3, 3, 1, 1)])
@pytest.mark.parametrize("pad_mode", ["zeros", "border", "reflection"])
def test_odd_shapes(shape, pad_mode):
    (step,) = arrange(aug_transforms(pad_mode=pad_mode, size=11, min_scale=0.5))
    found = step(torch.rand(shape), training=True)
    assert found.shape == (*shape[:2], 11, 11) and found.isfinite().all()
    assert 0 <= found.min() and found.max() <= 1


def test_both_ways_agree():
    batch = torch.randint(0, 256, (6, 3, 40, 50), dtype=torch.uint8)
    (step,) = arrange(aug_transforms(mult=1.5))
    drawn = step.draw((batch,), ("image",), True)
    one, two = (
        way(batch, drawn.matrix, drawn.light, (40, 50), "bilinear", "reflection")
        for way in (one_pass.each_alone, one_pass.all_together)
    )
    assert torch.allclose(one, two, atol=1e-4)


def test_half_precision():
    batch = torch.rand(2, 3, 32, 32).half()
    found = Rotate(draw=10, p=1)(batch, training=True)
    assert found.dtype == torch.float16
    assert (found.float() - Rotate(draw=10, p=1)(batch.float(), training=True)).abs().max() < 1e-3


def test_shrinking_averages():
    "A fine chequerboard becomes grey, not a pattern."
    board = (torch.arange(256)[:, None] + torch.arange(256)) % 2
    small = BatchTransform(size=32)(board.float().expand(1, 3, 256, 256), training=True)
    assert (small - 0.5).abs().max() < 0.01


def test_threads_are_given_back():
    torch.set_num_threads(2)
    Flip()(torch.rand(2, 3, 8, 8), training=True)
    assert torch.get_num_threads() == 2


def test_seed_repeats():
    (step,) = arrange(aug_transforms(size=20, min_scale=0.5))
    batch, picture = torch.rand(4, 3, 30, 30), marked(100, 60)[0]

    def run(seed):
        torch.manual_seed(seed)
        return step(batch, training=True), ToTensor().image(
            RandomResizedCrop(32)(picture, training=True)
        )

    (a, b), (c, d), (e, f) = run(0), run(0), run(1)
    assert torch.equal(a, c) and torch.equal(b, d)
    assert not torch.equal(a, e) and not torch.equal(b, f)


def test_same_for_the_whole_batch():
    batch = torch.rand(1, 3, 30, 30).expand(6, -1, -1, -1)
    (step,) = arrange(aug_transforms(batch=True, size=24, min_scale=0.5))
    found = step(batch, training=True)
    assert torch.equal(found, found[:1].expand_as(found))


# ---------------------------------------------------------------- chance
N = 4000


def matrices(step) -> Tensor:
    return step.where(N, 50, 50, True)


def test_shares_and_ranges():
    def share(matrix):
        return (matrix != torch.eye(3)).flatten(1).any(1).float().mean().item()

    assert abs(share(matrices(Flip())) - 0.5) < 0.03
    assert abs(share(matrices(Flip(p=0.2))) - 0.2) < 0.03
    assert abs(share(matrices(Dihedral())) - 0.5 * 7 / 8) < 0.03
    angles = torch.atan2(matrices(Rotate(10, 0.75))[:, 0, 1], matrices(Rotate(0.0))[:, 0, 0])
    angles = angles.rad2deg()
    assert abs((angles != 0).float().mean() - 0.75) < 0.03
    assert -10 <= angles.min() < -9.8 and 9.8 < angles.max() <= 10 and abs(angles.mean()) < 0.4
    zoom = matrices(Zoom(1, 1.5, 1.0))
    factor, room = 1 / zoom[:, 0, 0], 1 - zoom[:, 0, 0]
    assert 1 <= factor.min() < 1.01 and 1.49 < factor.max() <= 1.5
    assert abs(factor.mean() - 1.25) < 0.01
    assert ((zoom[:, :2, 2].abs() - room[:, None]) < 1e-6).all()  # stays inside
    warps = map_points(matrices(Warp(0.2, 1.0)).inverse(), torch.tensor([[[-1.0, -1]]]))
    assert 1.19 < warps.abs().max() <= 1.2001 and 0.7999 <= warps.abs().min() < 0.81


def test_lighting():
    factor, shift = Brightness(0.2).light(N, True)
    mid = shift.sigmoid()
    assert (factor == 1).all() and abs((shift != 0).float().mean() - 0.75) < 0.03
    assert 0.4 <= mid.min() < 0.41 and 0.59 < mid.max() <= 0.6
    factor, shift = Contrast(0.2, p=1.0).light(N, True)
    assert (shift == 0).all() and 0.8 <= factor.min() < 0.81 and 1.24 < factor.max() <= 1.2501
    assert abs(factor.log().mean()) < 0.01
    joined = augment.JoinedTransforms([Brightness(draw=0.6, p=1), Contrast(draw=1.2, p=1)])
    batch = torch.rand(2, 3, 5, 5)
    expected = torch.sigmoid(1.2 * (torch.logit(batch, 1e-7) + math.log(0.6 / 0.4)))
    assert torch.allclose(joined(batch, training=True), expected, atol=1e-5)
    black_and_white = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    assert torch.allclose(joined(black_and_white, training=True), black_and_white, atol=1e-4)


@pytest.mark.parametrize("magnitude", [0.2, 0.4, 0.49])
def test_warps_stay_finite(magnitude):
    corners = torch.tensor([[[-1.0, -1], [-1, 1], [1, -1], [1, 1], [0, 0]]])
    step = Warp(magnitude, p=1.0)
    there = map_points(step.where(N, 50, 50, True), corners)
    assert there.isfinite().all()


def test_rectangles_do_not_shear():
    "A turned square stays a square in a wide picture."
    corners = torch.tensor([[[-10.0, -10], [10, -10], [10, 10], [-10, 10]]])
    half = torch.tensor([80.0, 30.0])
    matrix = Rotate(draw=33, p=1).where(1, 60, 160, True)
    moved = map_points(matrix.inverse(), corners / half)[0] * half
    sides = (moved - moved.roll(1, 0)).norm(dim=1)
    assert torch.allclose(sides, torch.full((4,), 20.0), atol=1e-3)
    angle = math.radians(33)  # clockwise: the corner on the upper left moves up and right
    x, y = (
        -10 * math.cos(angle) + 10 * math.sin(angle),
        -10 * math.sin(angle) - 10 * math.cos(angle),
    )
    assert torch.allclose(moved[0], torch.tensor([x, y]), atol=1e-3)


def test_aug_transforms():
    names = [type(t).__name__ for t in aug_transforms()]
    assert names == ["Flip", "Warp", "Rotate", "Zoom", "Brightness", "Contrast"]
    assert isinstance(aug_transforms(flip_vert=True)[0], Dihedral)
    off = {"do_flip": False, "max_rotate": 0, "max_zoom": 1.0, "max_lighting": 0, "max_warp": 0}
    assert aug_transforms(**off) == []
    rotate = next(t for t in aug_transforms(mult=2) if isinstance(t, Rotate))
    assert rotate.max_deg == 20 and rotate.p == 0.75
    extra = Normalize.from_stats(*imagenet_stats)
    assert aug_transforms(xtra_tfms=extra)[-1] is extra
    assert aug_transforms(xtra_tfms=[extra])[-1] is extra


def test_joined_with_bytes_and_normalisation():
    steps = arrange([Normalize.from_stats(*imagenet_stats), IntToFloat, *aug_transforms()])
    assert len(steps) == 3 and repr(steps[-1]).startswith("Normalize")


# ---------------------------------------------------------------- points, masks, normalisation
def test_blocks_from_end_to_end():
    block = DataBlock(
        (ImageBlock, MaskBlock(["none", "one", "two"]), PointBlock(())),
        getters=[
            lambda i: marked(150, 100)[0],
            lambda i: marked(150, 100)[1],
            lambda i: marked(150, 100)[2].numpy(),
        ],
        n_inp=1,
        splitter=IndexSplitter([4, 5]),
        item_tfms=Resize(96),
        batch_tfms=[*aug_transforms(size=64, min_scale=0.8), Normalize.from_stats(*imagenet_stats)],
    )
    dls = block.dataloaders(list(range(6)), bs=2, num_workers=0)
    for loader in (dls.train, dls.valid):
        x, masks, points = loader.one_batch()
        assert (
            x.shape == (2, 3, 64, 64) and masks.shape == (2, 64, 64) and points.shape == (2, 2, 2)
        )
        assert masks.dtype == torch.int64 and set(masks.unique().tolist()) <= {0, 1, 2}
        for mask, places in zip(masks, (points + 1) * 32, strict=True):
            for i, place in enumerate(places):
                if ((place > 8) & (place < 56)).all():
                    assert (middle_of((mask == i + 1).float()) - place).abs().max() < 1
    torch.manual_seed(0)
    dls.train.show_batch(max_n=2)


def test_scale_points():
    parts = (Image.new("RGB", (200, 100)), torch.tensor([[0.0, 0], [200, 100], [100, 50]]))
    _, points = ScalePoints().apply(parts, ("image", "points"))
    assert torch.equal(points, torch.tensor([[-1.0, -1], [1, 1], [0, 0]]))


def test_to_points():
    assert ToPoints()([1, 2, 3, 4]).tolist() == [[1, 2], [3, 4]]
    assert ToPoints()([(float("nan"), 1)]).shape == (1, 2)
    for bad in ([1, 2, 3], []):
        with pytest.raises(DataError, match="pairs of x and y"):
            ToPoints()(bad)


def test_to_mask(tmp_path):
    numbers = np.arange(12, dtype="uint8").reshape(3, 4)
    palette = Image.fromarray(numbers).convert("P")
    palette.putdata(numbers.flatten().tolist())
    palette.putpalette([255 - i % 256 for i in range(768)])
    palette.save(tmp_path / "mask.png")
    for source in (
        tmp_path / "mask.png",
        numbers,
        torch.from_numpy(numbers),
        Image.fromarray(numbers),
    ):
        assert np.array_equal(np.array(ToMask()(source)), numbers)
    assert np.array(ToMask()(Image.fromarray(numbers > 5))).max() == 1
    with pytest.raises(DataError, match="mode 'RGB'"):
        ToMask()(Image.new("RGB", (3, 3)))
    with pytest.raises(DataError, match="no mask"):
        ToMask()(tmp_path / "none.png")


def test_normalize():
    mean, std = imagenet_stats
    batch = torch.rand(4, 3, 6, 6)
    expected = torch.stack([(batch[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    normalize = Normalize.from_stats(mean, std)
    assert torch.allclose(normalize(batch), expected) and torch.equal(
        normalize(batch, training=True), normalize(batch)
    )
    back = normalize.decode((expected, torch.ones(4)), ("image", "category"))
    assert torch.allclose(back[0], batch, atol=1e-6) and torch.equal(back[1], torch.ones(4))
    assert Normalize([0.5], [0.25])(batch).shape == batch.shape
    before = batch.clone()
    normalize(batch)
    assert torch.equal(before, batch)


# ---------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Resize(0), "size=0"),
        (lambda: Resize((3, -1)), r"size=\(3, -1\)"),
        (lambda: Resize(2.5), "whole number of pixels"),
        (lambda: Resize(64, "stretch"), "'stretch'.*'crop', 'pad', 'squish'"),
        (lambda: Resize(64, ResizeMethod.Pad, pad_mode="black"), "'black'.*'zeros', 'border'"),
        (lambda: RandomResizedCrop(64, min_scale=0), "min_scale=0"),
        (lambda: RandomResizedCrop(64, ratio=(2, 1)), r"ratio=\(2, 1\)"),
        (lambda: RandomResizedCrop(64, val_xtra=-1), "val_xtra=-1"),
        (lambda: aug_transforms(min_scale=0.5), "min_scale=0.5.*size=224"),
        (lambda: aug_transforms(max_warp=0.3, mult=2), "max_warp . mult is 0.6"),
        (lambda: aug_transforms(pad_mode="black"), "pad_mode='black'"),
        (lambda: aug_transforms(mode="cubic"), "mode='cubic'"),
        (lambda: Flip(p=2), "p=2"),
        (lambda: Zoom(0), "min_zoom=0"),
        (lambda: Zoom(1.2, 1.1), "min_zoom=1.2"),
        (lambda: Brightness(1.0), "max_lighting=1.0"),
        (lambda: Flip()(torch.rand(3, 8, 8), training=True), r"\(3, 8, 8\).*picture\[None\]"),
        (lambda: Normalize([1, 2], [1]), "2 means and 1 standard"),
        (lambda: Normalize([0.5], [0]), "above 0"),
        (
            lambda: Normalize.from_stats(*imagenet_stats)(torch.rand(2, 1, 4, 4)),
            "3 means.*1 channels",
        ),
    ],
)
def test_errors_say_what_to_do(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_points_need_a_picture():
    with pytest.raises(DataError, match="needs a picture"):
        Resize(10).apply((torch.zeros(2, 2),), ("points",))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    batch = torch.randint(0, 256, (8, 3, 64, 96), dtype=torch.uint8)
    (step,) = arrange(aug_transforms(size=48, min_scale=0.5))
    parts, kinds = (batch, torch.rand(8, 4, 2) - 0.5), ("image", "points")
    torch.manual_seed(0)
    there = step.apply(tuple(part.cuda() for part in parts), kinds, True)
    torch.manual_seed(0)
    here = step.apply(parts, kinds, True)
    for one, two in zip(there, here, strict=True):
        assert one.is_cuda and torch.allclose(one.cpu(), two, atol=1e-3)
    normalize = Normalize.from_stats(*imagenet_stats)
    assert torch.allclose(normalize(there[0]).cpu(), normalize(here[0]), atol=1e-2)
