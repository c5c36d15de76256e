"""Large JPEG files are decoded no further than is needed, and never where places count."""

import numpy as np
import pytest
import torch
from PIL import Image

from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock, RegressionBlock
from coursekit.data import IndexSplitter, get_image_files, parent_label
from coursekit.images import enough_pixels, open_image
from coursekit.more_transforms import CropPad, RatioResize
from coursekit.resizing import RandomResizedCrop, Resize
from coursekit.targets import PointBlock
from coursekit.transforms import PILImage


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "Two photographs of 1600 x 1200 pixels, one of them lying on its side by a note."
    folder, chance = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    small = chance.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((1600, 1200), Image.Resampling.BICUBIC)
    note = Image.Exif()
    note[0x0112] = 6
    for name, more in (("a", {}), ("b", {"exif": note})):
        (folder / name).mkdir()
        for i in range(2):
            picture.save(folder / name / f"{i}.jpg", quality=90, **more)
    return sorted(get_image_files(folder))


def fetcher(photos, *item_tfms, target=CategoryBlock, get_y=parent_label, **how):
    block = DataBlock(
        (ImageBlock, target),
        splitter=IndexSplitter([1, 3]),
        get_y=get_y,
        item_tfms=item_tfms,
        **how,
    )
    return block.dataloaders(photos, bs=1, num_workers=0).valid.dataset


@pytest.mark.parametrize(
    "step", [Resize(64), Resize((40, 64), "squish"), Resize(64, "pad", "zeros")]
)
def test_the_same_picture_to_the_eye(photos, step):
    quick = fetcher(photos, step)
    for i in range(2):
        x, y = quick[i]
        side, quick.enough = quick.enough, None
        wanted, label = quick[i]
        quick.enough = side
        difference = (x.float() - wanted.float()).abs()
        assert x.shape == wanted.shape
        assert y == label
        assert difference.mean() < 1
        assert difference.max() < 12


def test_never_less_than_enough(photos):
    sizes = {}
    for side in (150, 151, 300, 301, 600, 601, 1300):
        with enough_pixels(side):
            sizes[side] = {min(open_image(file).size) for file in photos}
    assert sizes == {
        150: {150},
        151: {300},
        300: {300},
        301: {600},
        600: {600},
        601: {1200},
        1300: {1200},
    }
    assert {min(open_image(file).size) for file in photos} == {1200}


def test_a_picture_that_lies_on_its_side_stands_upright(photos):
    with enough_pixels(150):
        assert open_image(next(f for f in photos if f.parent.name == "b")).size == (150, 200)


def test_how_much_is_enough():
    assert Resize(224).enough == 448
    assert Resize((100, 30)).enough == 200
    assert RandomResizedCrop(100, min_scale=1, ratio=(1, 1)).enough == 200
    # a part of .25 of the area, three times as high as wide, has .29 of the side
    assert RandomResizedCrop(100, min_scale=0.25, ratio=(1 / 3, 3)).enough == 693
    assert CropPad(100).enough is None
    assert RatioResize(100).enough is None


class OwnResize(Resize):
    "Takes pixels as they are."

    def window(self, width, height, training):
        return super().window(width, height, training)._replace(box=(0, 0, *self.size))


def points(file):
    return torch.tensor([[800.0, 600.0]])


def looks_itself(file):
    return float(PILImage.create(file).size[0])


def test_whole_pictures_where_somebody_counts_pixels(photos):
    assert fetcher(photos, Resize(64)).enough == 128
    assert fetcher(photos, OwnResize(64)).enough is None
    assert fetcher(photos, lambda picture: picture, Resize(64)).enough is None
    assert fetcher(photos, CropPad(64)).enough is None
    placed = fetcher(photos, Resize(64), target=PointBlock, get_y=points)
    assert placed.enough is None
    # a target that opens the file itself sees all of it
    measured = fetcher(photos, Resize(64), target=RegressionBlock, get_y=looks_itself)
    assert measured.enough == 128
    assert {float(measured[i][1]) for i in range(2)} <= {1600.0, 1200.0}


def test_a_step_after_the_opener_sees_the_whole_picture(photos):
    seen = []

    class Watched(PILImage):
        @classmethod
        def create(cls, source):
            seen.append(super().create(source).size)
            return super().create(source)

    fetcher(photos, Resize(64))[0]
    items = fetcher(photos, Resize(64))
    items.dataset.pipelines[0].steps[-1] = Watched.create
    items[0]
    assert seen[0] in ((1600, 1200), (1200, 1600))
