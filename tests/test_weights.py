"""Weights from files: damaged, made to do harm, or another learner's."""

import pickle
import random
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from hostile_weights import learner as small_learner
from hostile_weights import momentum, snapshot
from torch import nn

from coursekit.messages import DataError
from coursekit.weights import fitting_opt, fitting_weights, safe_load, safe_save

HOSTILE = Path(__file__).with_name("hostile_weights.py")


@pytest.mark.parametrize(("kind", "n"), [("load", 80), ("checkpoint", 50)])
def test_nothing_hostile_ends_the_process_or_is_half_loaded(tmp_path, kind, n):
    "Of a fused optimiser: in a process of its own, which would die."
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", HOSTILE, kind, str(n), "7", tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    refused, trained = map(int, done.stdout.split())
    assert refused > n / 2 and trained > 5 and refused + trained == n


def flat(part):
    "A state as plain Python, tensors to the last bit."
    if isinstance(part, torch.Tensor):
        return str(part.dtype), part.shape, part.numpy().tobytes()
    if isinstance(part, dict):
        return [(name, flat(value)) for name, value in part.items()]
    return [flat(value) for value in part] if isinstance(part, list | tuple) else part


def test_a_flipped_byte_is_refused_or_changes_nothing(tmp_path):
    learn = small_learner(tmp_path, torch.optim.Adam)
    learn.fit(1)
    file = learn.save("good")
    whole, state, draw = file.read_bytes(), flat(safe_load(file)), random.Random(0)
    refused = 0
    for _ in range(100):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= draw.randrange(1, 256)
        file.write_bytes(flipped)
        try:
            assert flat(safe_load(file)) == state
        except DataError:
            refused += 1
    assert refused > 30


def zipped(pickled, file, **records):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        for name, content in {"version": b"3\n", **records}.items():
            archive.writestr(f"x/{name}", content)
    return file


def repacked(source, file, how=zipfile.ZIP_STORED, change=lambda name, content: content):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(file, "w", how) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file


class Called:
    def __init__(self, func, *args):
        self.call = func, args

    def __reduce__(self):
        return self.call


def endless(depth=40):
    part = []
    for _ in range(depth):
        part = [part] * 10
    return part


@pytest.mark.parametrize("claim", [b"J\x00\x00\x00\x7f", b"K\x05", b"K\x03", b"J\xff\xff\xff\xff"])
def test_a_storage_has_the_size_that_it_claims(tmp_path, claim):
    "Before PyTorch 2.10 a larger one is read, past the end of memory."
    torch.save({"w": torch.arange(4.0)}, good := tmp_path / "good.pth")

    def lie(name, content):  # the number of elements, between the place and the end of the tuple
        return content.replace(b"cpuq\x06K\x04t", b"cpuq\x06" + claim + b"t")

    bad = repacked(good, tmp_path / "bad.pth", change=lie)
    assert bad.read_bytes() != repacked(good, tmp_path / "same.pth").read_bytes()
    assert torch.equal(safe_load(tmp_path / "same.pth")["w"], torch.arange(4.0))
    with pytest.raises(DataError, match="another size"):
        safe_load(bad)


def test_few_bytes_do_not_become_many(tmp_path):
    torch.save({"w": torch.zeros(10_000_000)}, tmp_path / "large.pth")
    bombs = {
        "packed": repacked(tmp_path / "large.pth", tmp_path / "packed.pth", zipfile.ZIP_DEFLATED),
        "bytes": zipped(pickle.dumps(Called(bytearray, 10**9), 2), tmp_path / "bytes.pth"),
        "shared": zipped(pickle.dumps(endless(), 2), tmp_path / "shared.pth"),
        "deep": zipped(b"\x80\x02" + b"]" * 60 + b"a" * 59 + b".", tmp_path / "deep.pth"),
        "cycle": zipped(b"\x80\x02]q\x00h\x00a.", tmp_path / "cycle.pth"),
        "memo": zipped(b"\x80\x02]r\xff\xff\xff\x7f.", tmp_path / "memo.pth"),
    }
    for name, file in bombs.items():
        tracemalloc.start()
        if name == "memo":  # a table with one entry is no bomb
            assert safe_load(file) == []
        else:
            with pytest.raises(DataError, match=file.name):
                safe_load(file)
        assert tracemalloc.get_traced_memory()[1] < 5e6, name
        tracemalloc.stop()


@pytest.mark.parametrize("what", [print, eval, torch.load, getattr, set, torch.device])
def test_only_tensors_are_put_together(tmp_path, what):
    torch.save({"w": Called(what, "cpu")}, tmp_path / "bad.pth")
    with pytest.raises(DataError, match="could run code"):
        safe_load(tmp_path / "bad.pth")


def test_attributes_do_not_hide_the_methods_of_a_state(tmp_path):
    weights = nn.Linear(2, 3).state_dict()
    weights.keys = weights.copy = weights.values = "hidden"
    weights._metadata = [1, 2]
    torch.save(weights, tmp_path / "bad.pth")
    model = nn.Linear(2, 3)
    model.load_state_dict(fitting_weights(model, safe_load(tmp_path / "bad.pth")))
    assert torch.equal(model.weight, dict.__getitem__(weights, "weight"))


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.NAdam,
                                  torch.optim.Adafactor, torch.optim.Rprop, torch.optim.ASGD])  # fmt: skip
def test_optimisers_take_their_own_state(kind):
    "Also one that looks at values, and so takes no step without numbers."
    options = {"lr": 0.01} | ({"momentum": 0.9} if kind is torch.optim.SGD else {})
    models = [nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    opts = [kind(model.parameters(), **options) for model in models]
    x = torch.randn(5, 3)

    def step(i):
        opts[i].zero_grad()
        models[i](x).square().sum().backward()
        opts[i].step()

    step(0)
    models[1].load_state_dict(models[0].state_dict())
    opts[1].load_state_dict(fitting_opt(opts[1], opts[0].state_dict()))
    for i in (0, 1, 0, 1):
        step(i)
    assert torch.equal(models[0].weight, models[1].weight)
    for other in (torch.optim.Adagrad, torch.optim.Adadelta):
        with pytest.raises(DataError):
            fitting_opt(other(models[0].parameters()), opts[0].state_dict())


def test_comparing_leaves_the_optimiser_alone(tmp_path):
    "Hooks, a step that a scheduler put there, weights, averages, random numbers."
    learn, calls = small_learner(tmp_path, momentum), []
    learn.fit(1)
    learn.opt.register_step_pre_hook(lambda *_: calls.append("hook"))
    torch.optim.lr_scheduler.ConstantLR(learn.opt)
    state, before = learn.opt.state_dict(), snapshot(learn)
    fitting_opt(learn.opt, state)
    assert snapshot(learn) == before and not calls


def test_what_cannot_be_read_is_not_written(tmp_path):
    for part in ({1}, b"bytes", torch.zeros(2).to_sparse(), 2**64, torch.float32):
        with pytest.raises(DataError, match="not written"):
            safe_save({"a": [part]}, tmp_path / "x.pth")
    assert not list(tmp_path.iterdir())
    kinds = [torch.bool, torch.uint16, torch.bfloat16, torch.complex64]
    tensors = {str(kind): torch.zeros(3, dtype=kind) for kind in kinds}
    safe_save(tensors, tmp_path / "x.pth")
    assert [part.dtype for part in safe_load(tmp_path / "x.pth").values()] == kinds
