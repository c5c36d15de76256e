"Pictures as tensors, each opened once, and what a body makes of them that has learned from ImageNet."

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.bodies import create_body, efficientnet_lite0
from coursekit.data import IndexSplitter, get_image_files, parent_label
from coursekit.datasets import URLs, untar_data
from coursekit.resizing import Resize

FIRST = IndexSplitter([0])  # all but one see every label


def halves(items, block=CategoryBlock, size=None, splitter=FIRST, tfms=None, **readers) -> list:
    "Pictures `(n, 3, height, width)` and targets, to train on and to validate on; bytes if `tfms` is []."
    resize = Resize(size) if size else None
    template = DataBlock((ImageBlock, block), splitter=splitter, item_tfms=resize, **readers)
    options = {"shuffle": False, "drop_last": False} | (
        {} if tfms is None else {"after_batch": tfms}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # where a picture is cut is random: the same when a bench goes on
        dls = template.dataloaders(items, bs=len(items), num_workers=0, device="cpu")
        return [dl.new(**options).one_batch() for dl in dls.loaders]


def opened(items, *how, **more) -> tuple[torch.Tensor, torch.Tensor]:
    "Both halves in one."
    return tuple(map(torch.cat, zip(*halves(items, *how, **more), strict=True)))


def of_folder(url: URLs, size: int, **more) -> tuple[torch.Tensor, torch.Tensor]:
    files = sorted(get_image_files(untar_data(url)))
    return opened(files, size=size, get_y=parent_label, **more)


def photos(size: int, **more) -> tuple[torch.Tensor, torch.Tensor]:
    "The 122 photographs of the package, in the public domain."
    return of_folder(URLs.PHOTOS, size, **more)


@cache
def frozen_body() -> nn.Module:
    "EfficientNet-Lite0 without its last layer, weights from ImageNet: 1,280 numbers of a picture."
    body = create_body(efficientnet_lite0)
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


@torch.no_grad()
def features(x: torch.Tensor, body: nn.Module | None = None) -> torch.Tensor:
    "What the body makes of pictures of floats from 0 to 1."
    body = body or frozen_body()
    return torch.cat([body((part - 0.498) / 0.502) for part in x.split(40)])


def linear_head(train_x, train_y, x, least: float = 1e-6, steps: int = 100) -> torch.Tensor:
    "Classes of `x` by logistic regression on standardised features, fitted to the end."
    mean, std = train_x.mean(0), train_x.std(0) + least
    train_x, x = (train_x - mean) / std, (x - mean) / std
    head = torch.zeros(train_x.shape[1] + 1, int(train_y.max()) + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([head], max_iter=steps)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(train_x @ head[1:] + head[0], train_y)
        value = value + 0.01 / 2 * head[1:].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return (x @ head[1:] + head[0]).argmax(1)
