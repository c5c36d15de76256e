"""Files of weights and checkpoints with something wrong in them, drawn with a seed.

    python tests/hostile_weights.py load 300 0 FOLDER

Each is loaded; where it is refused, the learner must be what it was, and where it is not, it must
train. Prints how many were refused and how many trained. Run in a process of its own, since what
is looked for may end it.
"""

import io
import math
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

import coursekit.training  # noqa: F401 - its methods
from coursekit.checkpoints import Checkpoint, EarlyStoppingCallback
from coursekit.events import LearnerError
from coursekit.learner import Learner
from coursekit.loaders import DataLoaders
from coursekit.measures import accuracy
from coursekit.messages import DataError
from coursekit.optimizers import SGD, Adam
from coursekit.precision import GradientAccumulation

FEATURES, CLASSES = 6, 3


def learner(folder, draw):
    torch.manual_seed(0)
    x = torch.randn(24, FEATURES)
    data = TensorDataset(x, x[:, :CLASSES].argmax(1))
    dls = DataLoaders.from_dsets(data, data, bs=8, path=folder, seed=1)
    model = nn.Sequential(
        nn.Linear(FEATURES, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, CLASSES)
    )
    made = Learner(dls, model, F.cross_entropy, opt_func=draw, metrics=accuracy, lr=1e-2)
    return made.remove_cbs(made.progress)


def momentum(params, lr):
    return SGD(params, lr, mom=0.9, wd=0.01)


OPTIMISERS = {"adam": Adam, "momentum": momentum, "radam": torch.optim.RAdam}


def aliens(draw, old):
    "What may stand in the place of `old`."
    deep = []
    for _ in range(draw.choice((3, 60, 150))):
        deep = [deep]
    plain = [None, True, -1, 0, 7, 2**63, 2**100, -(2**70), 1e308, 5e-324, math.nan, math.inf]
    plain += ["", "text", "$x$", [], {}, (), [0.5], {"a": 1}, deep, [[]] * 50, -1.0, 1.0, 1e5]
    tensors = [torch.zeros(()), torch.zeros(0), torch.randn(2, 3), torch.tensor(math.nan)]
    tensors += [torch.tensor(-1.0), torch.zeros(1).expand(10**6), torch.zeros(4, dtype=torch.long)]
    tensors += [torch.zeros(2).to_sparse(), torch.zeros(3, device="meta"), torch.zeros(2).to(1j)]
    tensors += [torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)]
    if isinstance(old, torch.Tensor) and old.numel():
        one, flat = old.flatten()[:1], old.numel()
        like = [one.expand(flat).as_strided(old.shape, [0] * old.ndim), old[None], old.double()]
        like += [old.to(torch.complex64), old.to(torch.int32), old.flatten()[1:], old.bool()]
        like += [torch.full_like(old, 255), old.to_sparse(), nn.Parameter(old.float())]
        tensors += 2 * [part for part in like if part is not None]
    return draw.choice(tensors if draw.random() < 0.6 else plain)


def places(part, path=()):
    "The way to each part of a state."
    yield path
    if not isinstance(part, dict | list | tuple):
        return
    inner = part.items() if isinstance(part, dict) else enumerate(part)
    for name, value in list(inner)[:40]:
        yield from places(value, (*path, name))


def changed(draw, part, path):
    "A copy with something wrong at the end of the path."
    if not path:
        return aliens(draw, part)
    name, *rest = path
    copy = dict(part) if isinstance(part, dict) else list(part)
    action = draw.random()
    if rest or action < 0.6:
        copy[name] = changed(draw, part[name], rest)
    elif action < 0.75:
        del copy[name]
    elif action < 0.85 and isinstance(copy, dict):
        other = draw.choice(list(copy))
        copy[name], copy[other] = copy[other], copy[name]
    elif isinstance(copy, dict):
        copy[draw.choice(("new", 7, "learn", "params", "step", None))] = aliens(draw, None)
    else:
        copy.append(aliens(draw, copy[0]))
    return copy if isinstance(part, dict) else type(part)(copy)


def snapshot(learn):
    "All that a file may change, as bytes."
    out = io.BytesIO()
    numpy_state = np.random.get_state()  # noqa: NPY002
    kept = [learn.model.state_dict(), [p.grad for p in learn.model.parameters()]]
    kept += [learn.opt and learn.opt.state_dict()["state"], learn.opt is None, len(learn.layers)]
    kept += [torch.get_rng_state(), numpy_state[1].tolist(), *numpy_state[2:], random.getstate()]
    torch.save([*kept, learn.recorder.losses, list(learn.recorder.values)], out)
    return out.getvalue()


def callbacks(**options):
    return [
        GradientAccumulation(12),
        EarlyStoppingCallback(patience=9),
        Checkpoint("run", **options),
    ]


def try_load(folder, opt, state):
    learn = learner(folder, opt)
    before = snapshot(learn)
    torch.save(state, folder / "models/bad.pth")
    try:
        learn.load("bad")
    except (DataError, LearnerError) as error:
        assert "bad.pth" in str(error) or "bad " in str(error), error
        assert len(str(error)) < 1500, error
        assert snapshot(learn) == before
        return "refused"
    return trained(lambda: learn.fit(1))


def try_checkpoint(folder, opt, state):
    learn = learner(folder, opt)
    learn.create_opt()
    before = snapshot(learn)
    torch.save(state, folder / "models/run.pth")
    try:
        learn.fit_one_cycle(3, 1e-2, cbs=callbacks(resume=True))
    except (DataError, LearnerError) as error:
        if "run.pth" not in str(error):
            return "trained"  # and the loss was no number
        assert len(str(error)) < 1500, error
        assert snapshot(learn) == before
        return "refused"
    return trained(lambda: learn.fit(1) or str(learn.recorder.table))


def trained(run):
    try:
        run()
    except LearnerError as error:
        assert "loss is" in str(error), error
    return "trained"


def good(folder, opt, kind):
    "A state as it should be."
    learn = learner(folder, opt)
    if kind == "load":
        learn.fit(2)
        return torch.load(learn.save("good"))

    learn.fit_one_cycle(3, 1e-2, cbs=callbacks(resume=False))
    state = torch.load(folder / "models/run.pth", weights_only=True)
    return state | {"done": 2}


def main(kind, n, seed, folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder, draw = Path(folder), random.Random(seed)
    (folder / "models").mkdir(parents=True, exist_ok=True)
    found = {"refused": 0, "trained": 0}
    attempt = {"load": try_load, "checkpoint": try_checkpoint}[kind]
    states = {name: good(folder, opt, kind) for name, opt in OPTIMISERS.items()}
    for name, state in states.items():
        assert attempt(folder, OPTIMISERS[name], state) == "trained", name  # as it should be
    for i in range(n):
        name = draw.choice(list(states))
        path = draw.choice(list(places(states[name])))
        bad = changed(draw, states[name], path)
        try:
            found[attempt(folder, OPTIMISERS[name], bad)] += 1
        except Exception as error:
            error.add_note(f"file {i} of seed {seed}, {name}, changed at {path}")
            raise
    print(*found.values())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
