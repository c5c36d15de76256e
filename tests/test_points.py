"""Points come back to where a person sees them: planted dots, mirrors, copies turned back."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import coursekit.recipes
import coursekit.training  # noqa: F401
from coursekit.augment import Dihedral, Flip, Rotate, Warp, Zoom, aug_transforms
from coursekit.blocks import DataBlock, ImageBlock, RegressionBlock
from coursekit.data import IndexSplitter
from coursekit.exporting import load_learner
from coursekit.interpretation import Interpretation
from coursekit.learner import Learner
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.losses import CrossEntropyLossFlat, MSELossFlat
from coursekit.messages import DataError
from coursekit.normalize import Normalize, imagenet_stats
from coursekit.points import FlipPairs, Framed, in_pixels
from coursekit.resizing import RandomResizedCrop, Resize
from coursekit.targets import MaskBlock, PointBlock, ToMask
from coursekit.transforms import Transform

DOTS = ((60.5, 40.5), (130.5, 70.5))  # the first is red, the second green
SIZES = [(200, 120), (120, 160), (151, 103), (400, 300)]


def picture(size=(200, 120), dots=DOTS) -> Image.Image:
    "A black picture with a red and a green dot of 7 by 7 pixels."
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for channel, (x, y) in enumerate(dots):
        x, y = int(x), int(y)
        pixels[y - 3 : y + 4, x - 3 : x + 4, channel] = 255
    return Image.fromarray(pixels)


class Finds(nn.Module):
    "A model that sees exactly: the middle of what is red, and of what is green."

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        light = (x[:, :2] - x[:, :2].amin((2, 3), keepdim=True)) ** 2
        y, x = ((torch.arange(n) * 2 + 1) / n - 1 for n in light.shape[2:])
        total = light.sum((2, 3))
        places = (light.sum(2) @ x / total, light.sum(3) @ y / total)
        return torch.stack(places, -1).flatten(1) * self.scale


def learner(flip_pairs=(), **kwargs) -> Learner:
    block = DataBlock(
        (ImageBlock, PointBlock(flip_pairs)),
        get_x=lambda size: picture(size),
        get_y=lambda size: DOTS,
        splitter=IndexSplitter([2, 3]),
        **{"item_tfms": Resize((96, 160))} | kwargs,
    )
    dls = block.dataloaders([(200, 120)] * 4, bs=2, num_workers=0)
    return Learner(dls, Finds(), MSELossFlat())


WAYS = {
    "crop": {"item_tfms": Resize(96)},
    "pad": {"item_tfms": Resize(96, "pad", "zeros")},
    "squish": {"item_tfms": Resize((80, 120), "squish")},
    "random crop": {"item_tfms": RandomResizedCrop(96, min_scale=0.9)},
    "presized": {
        "item_tfms": Resize(128),
        "batch_tfms": [
            *aug_transforms(size=(72, 96), min_scale=0.9),
            Normalize.from_stats(*imagenet_stats),
        ],
    },
    "as they are": {"item_tfms": None},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
def test_predict_gives_pixels_of_the_picture_that_was_handed_over(way, size):
    "Whatever was cut off, padded or deformed: a planted dot is where it was planted."
    learn = learner(**WAYS[way])
    dots = ((size[0] / 2 - 9.5, size[1] / 2 - 15.5), (size[0] / 2 + 7.5, size[1] / 2 + 12.5))
    dots = tuple((int(x) + 0.5, int(y) + 0.5) for x, y in dots)
    learn.dls.train_ds.pipelines[0].steps[0] = lambda item: picture(size, dots)
    said, decoded, numbers = learn.predict((0, 0))
    assert said.shape == (2, 2) and decoded.shape == numbers.shape == (4,)
    assert (said - torch.tensor(dots)).abs().max() < 0.75
    learn.model.scale.data.zero_()  # always the middle of what it sees: the control
    assert (learn.predict((0, 0))[0] - torch.tensor(dots)).abs().max() > 5


def test_pixels_are_exact_where_the_answer_is():
    "No looking: the true points, through the pipeline and back."
    for way in WAYS.values():
        dl = learner(**way).dls.valid
        _, points = dl.one_batch()
        assert torch.allclose(in_pixels(dl, points), torch.tensor(DOTS).expand(2, 2, 2), atol=2e-3)


def test_predict_after_export(tmp_path):
    learn = learner(flip_pairs=[(0, 1)], batch_tfms=aug_transforms())
    learn.path = tmp_path
    learn.dls.train_ds.pipelines[0].steps[:] = ImageBlock().type_tfms
    learn.dls.valid_ds.pipelines[0].steps[:] = ImageBlock().type_tfms
    again = load_learner(learn.export(), allow=[Finds])
    one, two = (each.predict(picture((300, 180)))[0] for each in (learn, again))
    assert torch.equal(one, two) and (one - torch.tensor(DOTS)).abs().max() < 0.75
    (step,) = (s for s in again.dls.train.after_batch if isinstance(s, FlipPairs))
    assert step.flip_pairs == ((0, 1),)


def test_answers_that_are_no_pairs_are_told():
    learn = learner()
    learn.model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(DataError, match=r"3 numbers for each picture.*two for each point"):
        learn.predict((200, 120))


# ---------------------------------------------------------------- mirrors
MIRRORS = {
    "flip": Flip(p=1),
    "top to bottom": Dihedral(p=1, draw=2),
    "transposed": Dihedral(p=1, draw=4, pad_mode="zeros"),
}
NO_MIRRORS = {
    "half turn": Dihedral(p=1, draw=3),
    "quarter turn": Dihedral(p=1, draw=5, pad_mode="zeros"),
    "twice": [Flip(p=1), Flip(p=1, mode="nearest")],
    "rotated": [Rotate(180, p=1, pad_mode="zeros"), Warp(0.1, p=1, pad_mode="zeros")],
    "none": [],
}


class OwnMirror(Transform):
    "A user's own, on items."

    def image(self, picture, drawn=None):
        self.width = picture.width
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    def points(self, points, drawn=None):
        return points * torch.tensor([-1.0, 1]) + torch.tensor([self.width, 0])


@pytest.mark.parametrize("name", MIRRORS | NO_MIRRORS | {"own": 0})
def test_a_mirror_exchanges_pairs_and_nothing_else_does(name):
    "The model sees red and green dots; the target names the red one first, or, mirrored, last."
    tfms = (MIRRORS | NO_MIRRORS).get(name, [])
    own = {"item_tfms": [OwnMirror(), Resize((96, 160))]} if name == "own" else {}
    for pairs, order in (
        ([(0, 1)], [1, 0] if name in {**MIRRORS, "own": 0} else [0, 1]),
        ((), [0, 1]),
    ):
        x, points = learner(pairs, batch_tfms=tfms, **own).dls.train.one_batch()
        seen = Finds()(x).view(2, 2, 2).detach()
        assert (points - seen[:, order]).abs().max() < 0.05
        assert (points - seen[:, order[::-1]]).abs().max() > 0.3


def test_only_named_points_change_places():
    step = FlipPairs([(0, 2), (3, 1)])
    points = torch.arange(10.0).view(1, 5, 2).expand(2, 5, 2)
    found = step.swapped(points, torch.tensor([True, False]))
    assert torch.equal(found[0], points[0, [2, 3, 0, 1, 4]]) and torch.equal(found[1], points[1])


def test_mirrored_points_without_a_word_are_told_once():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        learn = learner(None, batch_tfms=[Flip(p=1)])
        for _ in range(3):
            learn.dls.train.one_batch()
        learner((), batch_tfms=[Flip(p=1)]).dls.train.one_batch()
        learner(None, batch_tfms=[Rotate(180, p=1)]).dls.train.one_batch()
    assert [str(w.message)[:50] for w in told] == [
        "a picture was mirrored, and its 2 points keep thei"
    ]
    assert "flip_pairs=[(0, 1)]" in str(told[0].message)


@pytest.mark.parametrize("bad", [[(0,)], [(0, 1), (1, 2)], [(0, 0)], [(-1, 1)], 3, [0, 1], "ab"])
def test_pairs_that_are_none(bad):
    with pytest.raises(ValueError, match="give pairs of numbers of points"):
        PointBlock(bad)


def test_two_blocks_agree_about_pairs():
    def block(one, other):
        return DataBlock(
            (ImageBlock, PointBlock(one), PointBlock(other)),
            getters=[picture, lambda size: DOTS, lambda size: DOTS[::-1]],
            n_inp=1,
            splitter=IndexSplitter([2, 3]),
            batch_tfms=Flip(p=1),
        ).dataloaders([(200, 120)] * 4, bs=2, num_workers=0)

    _, one, other = block([(0, 1)], [(0, 1)]).one_batch()
    assert torch.equal(one, other.flip(1)) and (one[:, 0, 0] < one[:, 1, 0]).all()
    with pytest.raises(ValueError, match="one such step for all parts"):
        block([(0, 1)], None)


def test_pairs_that_are_not_there():
    with pytest.raises(DataError, match="for 2 points, counted from 0"):
        learner([(0, 2)]).dls.train.one_batch()


# ---------------------------------------------------------------- copies turned back
ROUND = {"p": 1, "pad_mode": "zeros"}
STRONG = [Flip(pad_mode="zeros"), Rotate(15, **ROUND), Zoom(**ROUND), Warp(0.1, **ROUND)]


def test_tta_turns_points_back():
    "A model that sees exactly says the same of every copy, so the average is as exact."
    learn = learner(batch_tfms=STRONG)
    torch.manual_seed(0)
    preds, targets = learn.tta(n=6, beta=0)
    assert (preds.view(2, 2, 2) - targets).abs().max() < 0.03
    assert preds.shape == learn.get_preds()[0].shape
    # the control: without turning back they are far off
    learn.dls.valid.kinds, kinds = None, learn.dls.kinds
    copies = torch.stack(
        [learn.get_preds(dl=iter(learn.dls.valid.new(training=True)))[0] for _ in range(6)]
    )
    assert (copies.mean(0).view(2, 2, 2) - targets).abs().max() > 0.2 and kinds[-1] == "points"


class FindsLeft(Finds):
    "A model that was trained with pairs: its first point is the one on the left, of any colour."

    def forward(self, x):
        places = super().forward(x).view(-1, 2, 2)
        order = places[..., 0].argsort(1)
        return places.gather(1, order[..., None].expand_as(places)).flatten(1)


def test_tta_turns_pairs_back():
    for pairs, right in (([(0, 1)], True), ((), False)):
        learn = learner(pairs, batch_tfms=[Flip(p=1)])
        learn.model = FindsLeft()
        preds, targets = learn.tta(n=2, beta=0)
        assert ((preds.view(2, 2, 2) - targets).abs().max() < 0.03) == right


def test_tta_of_a_random_crop_of_items():
    learn = learner(item_tfms=RandomResizedCrop(96, min_scale=0.9), batch_tfms=[Flip(p=0.5)])
    torch.manual_seed(1)
    preds, targets = learn.tta(n=4, beta=0)
    assert (preds.view(2, 2, 2) - targets).abs().max() < 0.03


def test_tta_of_numbers_is_as_it_was():
    block = DataBlock(
        (ImageBlock, RegressionBlock),
        get_x=lambda size: picture(size),
        get_y=lambda size: 1.0,
        splitter=IndexSplitter([2, 3]),
        batch_tfms=[Flip(p=1)],
    )
    dls = block.dataloaders([(200, 120)] * 4, bs=2, num_workers=0)
    learn = Learner(dls, nn.Sequential(Finds(), nn.Linear(4, 1)), MSELossFlat())
    preds, _ = learn.tta(n=2, beta=0)
    mirrored = learn.get_preds(dl=iter(dls.valid.new(training=True)))[0]
    assert torch.allclose(preds, mirrored) and preds.shape == (2, 1)


class Segments(nn.Module):
    "Scores of three classes for each pixel: nothing, red, green."

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, x):
        return torch.cat([torch.full_like(x[:, :1], 0.5), x[:, :2]], 1) * self.scale


def mask_of(size):
    found = np.asarray(picture(size)) > 127
    return (found[..., 0] + 2 * found[..., 1]).astype(np.uint8)


def masks(batch_tfms) -> Learner:
    block = DataBlock(
        (ImageBlock, MaskBlock(["nothing", "red", "green"])),
        get_x=lambda size: picture(size),
        get_y=mask_of,
        splitter=IndexSplitter([2, 3]),
        item_tfms=Resize(96),
        batch_tfms=batch_tfms,
    )
    dls = block.dataloaders([(200, 120)] * 4, bs=2, num_workers=0)
    return Learner(dls, Segments(), CrossEntropyLossFlat(axis=1))


def test_tta_turns_masks_back():
    learn = masks([Flip(p=1), Rotate(20, p=1)])
    torch.manual_seed(0)
    preds, targets = learn.tta(n=4, beta=0)
    found = preds.argmax(1)
    for label in (1, 2):
        both = ((found == label) & (targets == label)).sum()
        either = ((found == label) | (targets == label)).sum()
        assert both / either > 0.7
    assert torch.allclose(preds.sum(1), torch.ones_like(preds[:, 0]), atol=1e-5)
    # the control: as they are, copies show the dots elsewhere
    copy = learn.get_preds(dl=iter(learn.dls.valid.new(training=True)))[0].argmax(1)
    assert not ((copy == 1) & (targets == 1)).any()


def test_what_a_copy_does_not_show_keeps_the_plain_answer():
    learn = masks([Zoom(2, 2, p=1, draw_x=0.0, draw_y=0.0)])  # the upper left quarter
    plain = learn.get_preds()[0]
    preds, _ = learn.tta(n=1, beta=0)
    assert torch.equal(preds[:, :, 48:, 48:], plain[:, :, 48:, 48:])
    assert not torch.equal(preds[:, :, :48, :48], plain[:, :, :48, :48])


def test_tta_refuses_in_words():
    learn = masks([Flip(p=1)])
    learn.model = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    learn.loss_func = MSELossFlat()
    with pytest.raises(DataError, match=r"tta averages scores `\(n, classes, height, width\)`"):
        learn.tta(dl=learn.dls.test_dl([(200, 120)] * 2))


def test_corners_need_a_picture():
    class Blind:
        kinds = ("regression",)

        def __len__(self):
            return 1

        def __getitem__(self, i):
            return (torch.zeros(3),)

    with pytest.raises(DataError, match="no picture to find places in"):
        list(Framed(DataLoader(Blind())))
    with pytest.raises(DataError, match="by `kinds`; this is a list"):
        learner().tta(dl=DataLoader([torch.rand(3, 8, 8)] * 2))


# ---------------------------------------------------------------- pictures
MIDDLE = np.array([79.5, 47.5])


def figure():
    found = plt.gcf()
    plt.close("all")
    return found


def test_show_results_draws_target_and_prediction():
    learn = learner()
    learn.model.scale.data.mul_(0.5)
    learn.show_results(shuffle=False)
    for i, ax in enumerate(figure().axes):
        target, predicted = (np.asarray(c.get_offsets()) for c in ax.collections)
        assert target.shape == predicted.shape == (2, 2)
        colours = [tuple(c.get_facecolor()[0]) for c in ax.collections]
        assert colours[0] != colours[1]
        # halfway to the middle of 160 by 96 pixels
        assert np.abs((target - MIDDLE) / 2 + MIDDLE - predicted).max() < 1
        names = [t.get_text() for t in ax.get_legend().get_texts()] if i == 0 else None
        assert (names == ["target", "predicted"]) if i == 0 else ax.get_legend() is None


def test_plot_top_losses_draws_points():
    learn = learner()
    learn.model.scale.data.mul_(0.5)
    found = Interpretation.from_learner(learn)
    for draw in (lambda: found.plot_top_losses(2), lambda: found.show_results([0, 1])):
        draw()
        axes = figure().axes
        assert len(axes) == 2
        for ax in axes:
            target, predicted = (np.asarray(c.get_offsets()) for c in ax.collections)
            assert np.abs((target - MIDDLE) / 2 + MIDDLE - predicted).max() < 1
    found.plot_top_losses(1)
    assert figure().axes[0].get_title() == f"loss {found.losses.max():.2g}"


def test_plot_top_losses_draws_masks():
    learn = masks([])
    found = Interpretation.from_learner(learn)
    found.plot_top_losses(1)
    (ax,) = figure().axes
    assert len(ax.images) == 3 and ax.get_title().startswith("loss")


def numbers(target) -> Learner:
    block = DataBlock(
        (ImageBlock, RegressionBlock),
        get_x=lambda size: picture(size),
        get_y=lambda size: target,
        splitter=IndexSplitter([2, 3]),
        item_tfms=Resize(32),
    )
    dls = block.dataloaders([(200, 120)] * 4, bs=2, num_workers=0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, np.size(target)))
    nn.init.zeros_(net[1].weight)
    nn.init.constant_(net[1].bias, 2.5)
    return Learner(dls, net, MSELossFlat())


def test_numbers_are_numbers():
    assert numbers(4.0).predict((200, 120))[0] == 2.5
    assert numbers([4.0, 7.0]).predict((200, 120))[0] == [2.5, 2.5]


@pytest.mark.parametrize("target, title", [(4.0, "4 · 2.5"), ([4.0, 7.0], "4; 7 · 2.5; 2.5")])
def test_show_results_shows_both_numbers(target, title):
    numbers(target).show_results()
    assert [ax.get_title() for ax in figure().axes] == [title] * 2


def test_a_mask_is_opened_as_before():
    assert np.array_equal(np.asarray(ToMask()(mask_of((200, 120)))), mask_of((200, 120)))


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_show_batch_of_many_channels(channels):
    pairs = [(torch.rand(channels, 16, 20), i) for i in range(4)]
    dls = DataLoaders.from_dsets(pairs, bs=4)
    dls.show_batch(channels=(1, 0, 1))
    axes = figure().axes
    assert len(axes) == 4
    for ax in axes:
        assert ax.get_xlabel() == f"channels 1, 0, 1 of {channels}"
        assert ax.images[0].get_array().shape == (16, 20, 3)
    dls.show_batch()
    assert figure().axes[0].get_xlabel().endswith(f"of {channels}")
