"No description of a learner, however it was changed, does anything but be read."

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from coursekit import export_files, exporting
from coursekit.learner import Learner
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.losses import CrossEntropyLossFlat
from coursekit.messages import DataError


def test_hostile_descriptions():
    "Drawn with a seed, in a process of its own that is watched; see hostile.py."
    program = Path(__file__).with_name("hostile.py")
    done = subprocess.run(
        [sys.executable, str(program), "600", "7"], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["raw"] == [] and found["events"] == [], found
    assert found["refused"] > 500 and found["loaded"] < 60
    assert found["grown_MB"] < 500 and found["longest_s"] < 30


@pytest.fixture
def craft(tmp_path):
    "A function that changes the description of a good file and signs it anew."
    pairs = [(torch.zeros(3), 1)] * 4
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 2))
    learn = Learner(DataLoaders(DataLoader(pairs, 2)), model, CrossEntropyLossFlat())
    text, tensors = export_files.read_export(learn.export(tmp_path / "good"))

    def make(change=None, more=None, raw=None):
        description = json.loads(text)
        if change:
            change(description)
        made = export_files.packed(raw or json.dumps(description), more or tensors)
        file = tmp_path / "crafted"
        file.write_bytes(b"".join(map(bytes, made)))
        return file

    return make


def refused(file, words):
    with pytest.raises(DataError, match=words) as caught:
        exporting.load_learner(file)
    assert str(file) in str(caught.value) and len(str(caught.value)) < 1000


def layers_of(layers):
    return lambda said: said["model"].update(layers=layers)


def test_the_crafter_makes_good_files(craft):
    assert exporting.load_learner(craft()).dls.bs == 2


ATTACKS = {
    "a shell": ({"part": "os.system"}, "names as layer what coursekit"),
    "a dunder": ({"part": "Linear.__init__", "with": {}}, "names as layer"),
    "another role": ({"part": "resizing.Resize", "with": {"size": 3}}, "names as layer"),
    "an import": ({"yours": "subprocess.Popen"}, "is not part of coursekit: subprocess.Popen"),
    "an object": (
        {"yours": "subprocess.Popen", "keeps": {"args": "ls"}},
        "is not part of coursekit",
    ),
    "a large layer": (
        {"part": "Linear", "with": {"in_features": 2**30, "out_features": 2**30}},
        "do not fit",
    ),
    "larger than an int": (
        {"part": "Linear", "with": {"in_features": 2**62, "out_features": 1}},
        "beyond its limits",
    ),
    "another device": (
        {"part": "Linear", "with": {"in_features": 1, "out_features": 1, "device": "cuda"}},
        "an argument that it has not",
    ),
    "padding": (
        {
            "part": "Conv2d",
            "with": {"in_channels": 1, "out_channels": 1, "kernel_size": 1, "padding": 10**9},
        },
        "padding beyond its limits",
    ),
    "an address": (
        {"part": "bodies.create_body", "with": {"arch": {"timm": "hf-hub:a/b"}}},
        "network that timm has not",
    ),
    "weights": (
        {
            "part": "bodies.create_body",
            "with": {"arch": {"part": "bodies.resnet18"}, "weights": "DEFAULT"},
        },
        "an argument that it has not",
    ),
    "a detector, which would fetch a body": (
        {"part": "export_parts._of_torchvision", "with": {"name": "maskrcnn_resnet50_fpn"}},
        "network that torchvision has not",
    ),
    "an own builder": (
        {"part": "bodies.create_body", "with": {"arch": {"part": "recipes._xresnet"}}},
        "names as architecture",
    ),
}


@pytest.mark.parametrize("what", ATTACKS)
def test_attacks(what, craft):
    node, words = ATTACKS[what]
    refused(craft(layers_of(node)), words)
    refused(craft(layers_of({"part": "Sequential", "layers": {"0": node}})), words)


def test_many_and_deep(craft):
    identity = {"part": "Identity", "with": {}}
    many = {"part": "Sequential", "layers": {str(i): identity for i in range(25_000)}}
    refused(craft(layers_of(many)), "more than 5,000 parts")
    for _ in range(200):
        identity = {"part": "Sequential", "layers": {"0": identity}}
    refused(craft(layers_of(identity)), "levels")
    refused(craft(raw="[" * 50_000 + "]" * 50_000), "damaged")
    with pytest.raises(exporting.LearnerError, match="brackets"):
        craft(raw="[" * 300_000)


def test_headers_that_lie(craft, tmp_path):
    good = craft().read_bytes()
    file = tmp_path / "lies"
    for length in (2**63, 2**64 - 1, len(good), 10**9, 9, 0):
        file.write_bytes(length.to_bytes(8, "little") + good[8:])
        refused(file, "damaged|no file of")
    for raw in (b"{", b"{}", b'{"__metadata__":[1]}', b'{"__metadata__":' + b'{"a":' * 20_000):
        file.write_bytes(len(raw).to_bytes(8, "little") + raw)
        refused(file, "damaged|no description|no file")


def test_weights_that_do_not_fit(craft):
    def weights(**changes):
        good = {"0.weight": torch.zeros(4, 3), "0.bias": torch.zeros(4)}
        good |= {"2.weight": torch.zeros(2, 4), "2.bias": torch.zeros(2)}
        good |= {name.replace("_", ".", 1): value for name, value in changes.items()}
        return {f"model.{name}": value for name, value in good.items() if value is not None}

    assert exporting.load_learner(craft(more=weights()))
    for changes in (
        {"0_weight": None},
        {"9_weight": torch.zeros(1)},
        {"0_weight": torch.zeros(3, 4)},
        {"0_weight": torch.zeros(4, 3, dtype=torch.int64)},
    ):
        refused(craft(more=weights(**changes)), r"do not fit|cannot be built")


def test_what_is_allowed_is_not_called(craft):
    called = []

    def mine(*args, **kwargs):
        called.append(args)

    mine.__qualname__ = "mine"
    file = craft(lambda said: said.update(loss={"yours": f"{__name__}.mine", "keeps": {}}))
    with pytest.raises(DataError, match="of what is no class"):
        exporting.load_learner(file, allow=[mine])
    exporting.load_learner(
        craft(lambda said: said.update(loss={"yours": f"{__name__}.mine"})), allow=[mine]
    )
    assert not called
