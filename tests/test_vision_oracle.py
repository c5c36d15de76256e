"""Heads, bodies, groups, rates, what is frozen, and interpretation agree with fastai's; and the learned weights of
EfficientNet-Lite0 give what another implementation gives.

`vision_oracle.py` holds the questions; the answers are in `fixtures/vision_oracle.json`, next to the inputs. Where we
differ on purpose `OTHERWISE` says so, and why.
"""

import contextlib
import functools
import hashlib
import json
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from oracle import MISSING, differences
from vision_oracle import (
    FIXTURE,
    INPUTS,
    LITE0,
    QUESTIONS,
    TOLERANCE,
    ask,
    fingerprint,
    lite0_inputs,
)

matplotlib.use("agg")

import coursekit.all
import coursekit.augment
import coursekit.data
import coursekit.learner
import coursekit.training
import coursekit.vision
from coursekit.datasets import URLs, untar_data
from coursekit.messages import DataError
from coursekit.transforms import PILImage

RECORD = json.loads(FIXTURE.read_text())
LIB = SimpleNamespace(**vars(coursekit.all))


@contextlib.contextmanager
def learned(weights):
    "Weights made by a function, in place of a file that a network brings."
    import torchvision

    usual = coursekit.bodies._fetched
    coursekit.bodies._fetched = lambda name, _: weights(
        getattr(torchvision.models, name)().state_dict()
    )
    try:
        yield
    finally:
        coursekit.bodies._fetched = usual


LIB.learned = learned
LIB.body = lambda arch, n_in, cut=None: LIB.create_body(arch, n_in, pretrained=False, cut=cut)

FROZEN = "a frozen body has no layer that learns, and so needs no way back through it"
STILL = "a frozen body keeps the averages that it came with"
OWN = "the loaders that were given stay as they are"
START = "a head for numbers begins at the mean of the targets; theirs around 0"
OTHERWISE = {  # where in the answers -> why ours is different
    "shares_that_do_not_fit/[0.1, 0.2, 0.3]": "an error; theirs leaves the last one out",
    "what_is_frozen/usual/at first": FROZEN,
    "what_is_frozen/usual/two groups": FROZEN,
    "what_is_frozen/usual/again": FROZEN,
    "averages_of_a_frozen_body/without/averages": STILL,
    "normalisation/learned/those given": OWN,
    "vision_defaults/vision_learner/train_bn": FROZEN,
    "parts_of_a_learner/another cut": "it is made; theirs forgets what it was told",
    "parts_of_a_learner/a range/head": START,
    "parts_of_a_learner/a range/outcome": START,
    "parts_of_a_learner/a range/loss": "a class of its own name",
    "vision_defaults/AdaptiveConcatPool2d/size": "1, which is what None means there",
}


@functools.cache
def ours(name: str) -> dict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning is no part of an answer
        return ask(name, LIB)


@pytest.mark.parametrize("name", QUESTIONS)
def test_same_answer_as_fastai(name):
    answers = RECORD["answers"][name]
    found = list(differences(ours(name), answers, TOLERANCE[name], OTHERWISE, (name,)))
    shown = "\n".join(found[:30])
    assert not found, f"{len(found)} differences from fastai\n{shown}"


def test_every_question_was_answered_about_these_inputs():
    assert list(RECORD["answers"]) == list(QUESTIONS)
    assert RECORD["inputs"] == json.loads(json.dumps(INPUTS))
    assert RECORD["versions"]["fastai"].startswith("2.8")


@pytest.mark.parametrize("place", OTHERWISE)
def test_exceptions_are_still_needed(place):
    "What is said to be different exists in the answers, and is different."
    name = place.split("/")[0]
    mine, theirs = {name: ours(name)}, RECORD["answers"]
    for key in place.split("/"):
        mine, theirs = mine.get(key, MISSING), theirs[key]
    assert list(differences(mine, theirs, TOLERANCE[name]))


# ---------------------------------------------------------------- the weights of Lite0
BEARS = {"grizzly": 294, "black": 295, "teddy": 850}  # brown bear, American black bear, teddy
USUAL = coursekit.normalize.imagenet_stats


@pytest.fixture(scope="module")
def lite0():
    try:
        return coursekit.bodies.efficientnet_lite0().eval()
    except DataError as error:
        pytest.skip(f"the weights of Lite0 cannot be had here: {error}")


def test_lite0_gives_what_another_implementation_gives(lite0):
    "To 1e-4, for noise, clouds and two drawn bears."
    record = json.loads(LITE0.read_text())
    inputs = lite0_inputs()
    assert list(inputs) == list(record["answers"])
    file = next(untar_data(URLs.EFFICIENTNET_LITE0).glob("*.pth"))
    assert hashlib.sha256(file.read_bytes()).hexdigest() == record["sha256"]
    for name, x in inputs.items():
        known = record["answers"][name]
        assert fingerprint(x) == known["picture"], f"{name} is drawn otherwise now: ask anew"
        with torch.no_grad():
            ours = lite0(x)[0]
        torch.testing.assert_close(ours, torch.tensor(known["scores"]), rtol=1e-4, atol=1e-4)
        assert ours.std() > 0.5


def test_parts_give_what_the_whole_gives(lite0):
    "The body of `create_body` and the classifier that was cut off are the whole again."
    x = lite0_inputs()["teddy"]
    body = coursekit.bodies.create_body(coursekit.bodies.efficientnet_lite0).eval()
    with torch.no_grad():
        features = body(x)
        again = lite0.classifier(lite0.global_pool(features))
        torch.testing.assert_close(again, lite0(x), rtol=1e-4, atol=1e-4)
    assert features.shape == (1, 1280, 7, 7)


def names_of_bears(model, files, mean, std) -> dict[str, float]:
    "The share of the files of each folder that are called by the name of their class of ImageNet."
    resize, right = coursekit.resizing.Resize(224), {kind: [] for kind in BEARS}
    resize.training = False
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    with torch.inference_mode():
        for batch in (files[i : i + 16] for i in range(0, len(files), 16)):
            pictures = [torch.from_numpy(np.array(resize(PILImage.create(file)))) for file in batch]
            x = torch.stack([(picture.permute(2, 0, 1) / 255 - mean) / std for picture in pictures])
            for file, label in zip(batch, model(x).argmax(1).tolist(), strict=True):
                right[file.parent.name].append(label == BEARS[file.parent.name])
    return {kind: sum(found) / len(found) for kind, found in right.items()}


def test_lite0_knows_bears_best_by_its_own_statistics(lite0, capsys):
    "On the photographs of the mirror; ImageNet's usual statistics beside its own."
    mirror = os.environ.get("COURSEKIT_MIRROR")
    folder = Path(mirror or "nowhere") / "bears"
    if not folder.is_dir():
        pytest.skip("COURSEKIT_MIRROR names no folder with bears: no photographs to try it on")
    files = [file for kind in BEARS for file in sorted((folder / kind).iterdir())[::4]]
    own = names_of_bears(lite0, files, lite0.pretrained_cfg["mean"], lite0.pretrained_cfg["std"])
    usual = names_of_bears(lite0, files, *USUAL)
    with capsys.disabled():
        for name, shares in (("its own statistics", own), ("ImageNet's usual", usual)):
            told = ", ".join(f"{kind} {share:.1%}" for kind, share in shares.items())
            print(f"\n  {name}: {told}; mean {sum(shares.values()) / 3:.1%}")
    assert sum(own.values()) > sum(usual.values())
    assert min(own.values()) > 0.5
