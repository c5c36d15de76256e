"""Questions about `coursekit.more_transforms` to a library with the names of fastai 2.

    /path/to/fastai/bin/python tests/more_transforms_oracle.py

writes the answers of fastai, `tests/fixtures/more_transforms_oracle.json`; `test_more_transforms.py` puts
the same questions to coursekit. `lib` holds the names of one of them.
"""

import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

FIXTURE = Path(__file__).parent / "fixtures" / "more_transforms_oracle.json"
DRAWS = [0.0, 0.6, 1.0, 1.5]
TURNS = [0.0, 0.09, -0.1, 0.4]
SIZES = [(75, 28), (28, 75), (48, 48), (10, 9), (333, 100)]
NAMES = ("Hue", "Saturation", "RandomErasing", "CropPad", "CutMix")


def batch() -> torch.Tensor:
    "Four small pictures; numbers that every version of torch draws alike."
    pixels = torch.arange(4 * 3 * 5 * 6).mul(7919) % 251
    return (pixels.float() / 251).view(4, 3, 5, 6) * 0.98 + 0.01


def ramp(width: int, height: int) -> Image.Image:
    return Image.fromarray((np.arange(width * height) % 251).astype("uint8").reshape(height, width))


def defaults(thing) -> dict:
    given = inspect.signature(thing).parameters.values()
    plain = (int, float, bool, str, type(None))
    return {p.name: p.default for p in given if isinstance(p.default, plain)}


def ask(lib) -> dict:
    def numbers(tensor):
        return [round(float(value), 6) for value in tensor.flatten()]

    cut = {
        f"{size} to {target}, {mode}": np.asarray(lib.crop_pad(ramp(*size), target, mode)).tolist()
        for size, target in (((6, 4), (2, 8)), ((5, 5), (3, 2)), ((4, 3), (7, 7)), ((3, 8), (5, 4)))
        for mode in ("zeros", "border")
    }
    return {
        "saturation": numbers(lib.apply(lib.Saturation(p=1.0, draw=DRAWS), batch())),
        "hue": numbers(lib.apply(lib.Hue(p=1.0, draw=TURNS), batch())),
        "crop_pad": cut,
        "ratio": [list(lib.ratio_resize(Image.new("RGB", size), 48).size) for size in SIZES],
        "defaults": {name: defaults(getattr(lib, name)) for name in NAMES},
    }


def fastai() -> SimpleNamespace:
    from fastai.callback.mixup import CutMix
    from fastai.vision import augment
    from fastai.vision.core import PILImage, PILImageBW, TensorImage

    def apply(step, x):
        if isinstance(step, augment.SpaceTfm):
            step.fs[0].draw = torch.tensor(step.fs[0].draw)
        return step(TensorImage(x.clone()), split_idx=0)

    def crop_pad(picture, size, mode):
        return augment.CropPad(size, pad_mode=mode)(PILImageBW.create(np.asarray(picture)))

    def ratio_resize(picture, most):
        return augment.RatioResize(most)(PILImage.create(np.asarray(picture)))

    kept = {name: getattr(augment, name) for name in NAMES if name != "CutMix"}
    own = SimpleNamespace(**kept, CutMix=CutMix)
    own.apply, own.crop_pad, own.ratio_resize = apply, crop_pad, ratio_resize
    return own


if __name__ == "__main__":
    FIXTURE.write_text(json.dumps(ask(fastai()), separators=(",", ":")) + "\n")
