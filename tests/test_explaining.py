"Where a model looked: nets of which one knows it, Grad-CAM by hand, and what is refused."

import io

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.data import IndexSplitter
from coursekit.explaining import covering_costs, grad_cam, occlusion_map, show_map
from coursekit.learner import Learner
from coursekit.loaders import DataLoaders
from coursekit.losses import BCEWithLogitsLossFlat
from coursekit.messages import DataError
from coursekit.multilabel import MultiCategoryBlock
from coursekit.normalize import Normalize
from coursekit.resizing import Resize
from coursekit.vision import vision_learner

HEIGHT, WIDTH = 48, 64


def noise(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


PICTURES = [noise(seed) for seed in range(8)]


def loaders(several: bool = False, **kwargs) -> DataLoaders:
    target = MultiCategoryBlock if several else CategoryBlock
    block = DataBlock(
        (ImageBlock, target),
        splitter=IndexSplitter([6, 7]),
        get_x=lambda i: PICTURES[i],
        get_y=lambda i: ["ab"[i % 2]] if several else "ab"[i % 2],
        **kwargs,
    )
    return block.dataloaders(range(8), bs=4, num_workers=0)


class OneCorner(nn.Module):
    "A map of red in one corner, a quarter of each side; nothing else counts."

    def __init__(self, row: int, column: int):
        super().__init__()
        self.row, self.column = row, column

    def forward(self, x):
        height, width = x.shape[-2] // 4, x.shape[-1] // 4
        mask = torch.zeros_like(x[:, :1])
        rows = slice(0, height) if self.row == 0 else slice(-height, None)
        columns = slice(0, width) if self.column == 0 else slice(-width, None)
        mask[..., rows, columns] = 1
        return F.avg_pool2d(x[:, :1] * mask, 4)


class Counts(nn.Module):
    "The sum of the map for class 0, and always the same for class 1."

    def forward(self, maps):
        return torch.stack([maps.sum((1, 2, 3)), maps[:, 0, 0, 0] * 0], 1)


def looks_at(row: int, column: int, dls=None) -> Learner:
    model = nn.Sequential(nn.Sequential(OneCorner(row, column), nn.Identity()), Counts())
    return Learner(dls or loaders(), model)


def corner_mask(row: int, column: int) -> torch.Tensor:
    mask = torch.zeros(HEIGHT, WIDTH).bool()
    top, left = row * HEIGHT * 3 // 4, column * WIDTH * 3 // 4
    mask[top : top + HEIGHT // 4, left : left + WIDTH // 4] = True
    return mask


@pytest.mark.parametrize("row,column", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_net_that_looks_at_one_corner(row, column):
    learn, mask = looks_at(row, column), corner_mask(row, column)
    near = F.max_pool2d(mask.float()[None], 9, 1, 4)[0].bool()  # drawn out, it spreads by a cell
    found = grad_cam(learn, PICTURES[0], "a")
    assert found.shape == (HEIGHT, WIDTH) and found.min() == 0 and found.max() == 1
    assert found[mask].mean() > 0.3 and found[~near].max() == 0
    falls = occlusion_map(learn, PICTURES[0], "a", size=0.2, step=0.5).abs()
    assert falls[mask].mean() > 10 * falls[mask.flip(0, 1)].mean()
    # of the class that looks at nothing
    assert grad_cam(learn, PICTURES[0], "b").max() == 0
    assert occlusion_map(learn, PICTURES[0], 1).abs().max() < 1e-6


def test_what_covering_costs():
    learn, mask = looks_at(0, 0), corner_mask(0, 0)
    red = torch.tensor(np.asarray(PICTURES[0])[..., 0] / 255).float()
    expected = ((red[mask] - red.mean()).sum() / 16).item()
    costs = covering_costs(learn, PICTURES[0], torch.stack([mask, mask.flip(0, 1)]), "a")
    assert costs.tolist() == pytest.approx([expected, 0], abs=1e-4)
    assert covering_costs(learn, PICTURES[0], mask, "a").ndim == 0


def a_real_net(n_out: int = 2, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.BatchNorm2d(5), nn.ReLU(inplace=True))
    return nn.Sequential(
        body, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, n_out))
    )


@pytest.mark.parametrize("target", [0, 1])
def test_grad_cam_by_hand(target):
    learn = Learner(loaders(batch_tfms=Normalize([0.5] * 3, [0.25] * 3)), a_real_net())
    learn.model.requires_grad_(False)  # a frozen body and head have gradients of maps all the same
    x = (torch.tensor(np.asarray(PICTURES[1])).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25
    body, head = learn.model.eval()
    maps = body(x)
    # the slope of a mean through one linear layer: its weights, over the number of places
    weights = head[2].weight[target] / maps[0, 0].numel()
    by_hand = (weights[:, None, None] * maps[0]).sum(0).clamp(min=0)
    by_hand = F.interpolate(by_hand[None, None], (HEIGHT, WIDTH), mode="bilinear")[0, 0]
    expected = by_hand / by_hand.max().clamp(min=1e-12)
    learn.model.train()
    assert torch.allclose(grad_cam(learn, PICTURES[1], target), expected, atol=1e-4)
    assert learn.model.training and learn.model[0][1].training  # the modes are as they were
    assert all(p.grad is None for p in learn.model.parameters())
    assert torch.equal(learn.model[0][1].running_mean, torch.zeros(5))  # and nothing was counted


def test_the_class_that_is_said_is_asked_of():
    learn = Learner(loaders(), a_real_net())
    said = int(learn.predict(PICTURES[2])[1])
    assert torch.equal(grad_cam(learn, PICTURES[2]), grad_cam(learn, PICTURES[2], said))
    assert torch.equal(
        occlusion_map(learn, PICTURES[2]), occlusion_map(learn, PICTURES[2], "ab"[said])
    )


def test_every_pixel_is_covered_equally_often():
    "A net that sums all red: covering a pixel costs what it is redder than the mean, everywhere."

    class AllRed(nn.Module):
        def forward(self, x):
            red = x[:, 0].sum((1, 2))
            return torch.stack([red, red * 0], 1)

    learn = Learner(loaders(), AllRed())
    flat = Image.new("RGB", (WIDTH, HEIGHT), (100, 0, 0))
    assert occlusion_map(learn, flat, 0).abs().max() < 1e-2
    light = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    light[:, : WIDTH // 2] = 160
    found = occlusion_map(learn, Image.fromarray(light), 0, size=0.25)
    assert found[:, :20].min() > 0 > found[:, -20:].max()
    # one square is as wide as another at the edge and inside, so rows do not differ
    assert torch.allclose(found[HEIGHT // 2], found[HEIGHT // 2 - 1], atol=1e-2)


def png(picture: Image.Image) -> bytes:
    picture.save(data := io.BytesIO(), "png")
    return data.getvalue()


def test_grey_large_and_no_pictures(tmp_path):
    learn = looks_at(0, 0, loaders(item_tfms=Resize((HEIGHT, WIDTH))))
    grey, large = PICTURES[0].convert("L"), noise(1, 900, 1200)
    for picture in (grey, large, png(grey), np.asarray(large)):
        assert grad_cam(learn, picture, "a").shape == (HEIGHT, WIDTH)
    file = tmp_path / "letter.jpg"
    file.write_text("Dear Madam or Sir")
    huge = png(Image.new("1", (9_100, 9_100)))
    for wrong, words in ((file, "text"), (b"Dear Sir", "text"), (huge, "pixels")):
        for ask in (grad_cam, occlusion_map):
            with pytest.raises((DataError, ValueError), match=words):
                ask(learn, wrong)


def test_several_labels():
    dls = loaders(several=True)
    learn = Learner(dls, a_real_net(), BCEWithLogitsLossFlat())
    maps = [grad_cam(learn, PICTURES[0], label) for label in "ab"]
    assert all(found.shape == (HEIGHT, WIDTH) for found in maps)
    assert not torch.equal(*maps)
    assert occlusion_map(learn, PICTURES[0], "b").shape == (HEIGHT, WIDTH)


def tiny_body():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def test_a_vision_learner():
    dls = loaders(item_tfms=Resize(32))
    learn = vision_learner(dls, tiny_body, pretrained=False)
    assert grad_cam(learn, PICTURES[0]).shape == (32, 32)
    with torch.no_grad():  # in a block without gradients, too
        assert grad_cam(learn, PICTURES[0]).shape == (32, 32)
    # one channel in place of three
    model = vision_learner(dls, tiny_body, pretrained=False).model
    assert grad_cam(Learner(dls, model), PICTURES[0], layer=model[0][0]).shape == (32, 32)


def test_a_body_without_maps():
    flat = nn.Sequential(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * HEIGHT * WIDTH, 6)), nn.Linear(6, 2)
    )
    learn = Learner(loaders(), flat)
    with pytest.raises(ValueError, match=r"gives \(1, 6\).*occlusion_map"):
        grad_cam(learn, PICTURES[0])
    assert occlusion_map(learn, PICTURES[0]).shape == (HEIGHT, WIDTH)


def test_tokens_and_channels_last_are_no_maps():
    class Tokens(nn.Module):
        def forward(self, x):
            return x.flatten(2).transpose(1, 2)

    class Last(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x, 8).permute(0, 2, 3, 1)

    class Mean(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2] + x.mean()

    for body, words in ((Tokens(), "gives"), (Last(), "channels last")):
        learn = Learner(loaders(), nn.Sequential(nn.Sequential(body), Mean()))
        with pytest.raises(ValueError, match=words):
            grad_cam(learn, PICTURES[0])


def test_models_without_a_body_ask_for_a_layer():
    convolution = nn.Conv2d(3, 2, 3)
    plain = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    learn = Learner(loaders(), plain)
    with pytest.raises(ValueError, match="layer="):
        grad_cam(learn, PICTURES[0])
    assert grad_cam(learn, PICTURES[0], layer=convolution).shape == (HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="not used"):
        grad_cam(learn, PICTURES[0], layer=nn.Conv2d(3, 2, 3))


@pytest.mark.parametrize("target", ["dragon", 2, -1, 1.5])
def test_unknown_targets(target):
    for ask in (grad_cam, occlusion_map):
        with pytest.raises(ValueError, match="from 0 to 1"):
            ask(looks_at(0, 0), PICTURES[0], target)


def test_sizes_that_are_none():
    learn = looks_at(0, 0)
    for wrong in ({"size": 0}, {"size": 1.5}, {"step": 0}):
        with pytest.raises(ValueError, match="shorter side"):
            occlusion_map(learn, PICTURES[0], **wrong)
    with pytest.raises(ValueError, match="sizes must agree"):
        covering_costs(learn, PICTURES[0], torch.ones(3, 3))
    with pytest.raises(ValueError, match="sizes must agree"):
        show_map(learn, PICTURES[0], torch.ones(3, 3))


def test_pictures_are_wanted():
    dls = DataLoaders.from_dsets([(torch.randn(4), 0)] * 8, [(torch.randn(4), 1)] * 4, bs=2)
    learn = Learner(dls, nn.Sequential(nn.Linear(4, 2)), nn.CrossEntropyLoss())
    with pytest.raises(DataError, match=r"test_dl|picture"):
        occlusion_map(learn, torch.randn(4))


def test_show_map_dims_what_is_low():
    learn, where = looks_at(0, 0), torch.zeros(HEIGHT, WIDTH)
    where[:10, :10] = 1
    ax = show_map(learn, PICTURES[0], where, "a corner")
    drawn = np.asarray(ax.images[0].get_array(), float)
    if drawn.max() > 1:
        drawn = drawn / 255
    real = np.asarray(PICTURES[0]) / 255
    assert np.allclose(drawn[:10, :10], real[:10, :10], atol=0.01)
    assert np.allclose(drawn[10:], real[10:] * 0.25, atol=0.01)
    assert ax.get_title() == "a corner"
    show_map(learn, PICTURES[0], torch.zeros(HEIGHT, WIDTH))  # a map of nothing is shown, too
    plt.close("all")
