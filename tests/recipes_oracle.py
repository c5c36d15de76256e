"""Questions about XResNets, Mixup, label smoothing and test-time augmentation to a library with the names of fastai 2.

Every question is put to fastai once, in an environment of its own, and the answers are committed:

    /path/to/fastai/bin/python tests/recipes_oracle.py

writes `tests/fixtures/recipes_oracle.json`. `test_recipes.py` puts the same questions to coursekit. This file imports
neither library: `lib` is a namespace that holds the names of one of them. As in `training_oracle.py`, everything is
computed in double precision, and numbers are odd ones over 64.
"""

import hashlib
import json
import platform
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import training_oracle
from torch import nn
from training_oracle import (
    SINGLE,
    ask,
    compact,
    doubles,
    fit,
    integers,
    learner,
    loss_answer,
    network,
    own_defaults,
    plain,
    quietly,
    singles,
)

FIXTURE = Path(__file__).parent / "fixtures" / "recipes_oracle.json"
QUESTIONS, TOLERANCE = {}, training_oracle.TOLERANCE


def question(share: float = 3e-7, least: float = 1e-11):
    "As in `training_oracle`, but kept in a list of our own."

    def register(ask_it):
        QUESTIONS[ask_it.__name__], TOLERANCE[ask_it.__name__] = ask_it, (share, least)
        return ask_it

    return register


# ---------------------------------------------------------------- architectures
def given_weights(model) -> nn.Module:
    "The model with numbers that are the same everywhere: waves, of about the size that layers begin with."
    with torch.no_grad():
        for seed, (name, values) in enumerate(model.state_dict().items()):
            if not values.is_floating_point():
                continue
            wave = torch.sin(torch.arange(values.numel(), dtype=torch.float64) * 0.7 + seed)
            if values.ndim > 1:
                wave = wave * (3 / values[0].numel()) ** 0.5
            elif name.endswith(("running_var", "weight")):
                wave = 1 + wave / 4
            values.copy_(wave.view(values.shape))
    return model


@question(share=1e-8)
def architectures(lib, _, __):
    "Names and shapes of all tensors, which of them begin as 0, and what comes out for given weights."
    asked = {
        "18": partial(lib.xresnet18, n_out=10),
        "34": partial(lib.xresnet34, n_out=7, c_in=1),
        "50": partial(lib.xresnet50, n_out=10),
        "18, wide": partial(lib.xresnet18, n_out=5, widen=1.5),
        "18, another stem": partial(lib.xresnet18, c_in=4, n_out=5, stem_szs=(8, 24, 64)),
        "18, without arguments": lib.xresnet18,
    }
    pixels = torch.tensor(integers(50, 4 * 33 * 35, 256)).view(1, 4, 33, 35) / 128 - 1
    answer = {}
    for name, make in asked.items():
        model = make()
        state = model.state_dict()
        shapes = [(key, list(tensor.shape)) for key, tensor in state.items()]
        zero = [key for key, value in state.items() if key.endswith("norm") or not value.any()]
        channels = shapes[0][1][1]
        given_weights(model).eval()
        with torch.no_grad():
            scores = model(pixels[:, :channels].double())
        answer[name] = {
            "tensors": len(shapes),
            "parameters": sum(p.numel() for p in model.parameters()),
            "shapes": hashlib.sha256(json.dumps(shapes).encode()).hexdigest(),
            "first and last": shapes[:2] + shapes[-2:],
            "zero at the start": len(zero),
            "zero": hashlib.sha256(json.dumps(zero).encode()).hexdigest(),
            "scores": scores[:, :12],
        }
    return answer


@question(share=0.03)
def first_values(lib, _, __):
    "The spread of the weights that layers begin with, by the shape of the layer."
    torch.manual_seed(0)
    model = lib.xresnet34(n_out=1000)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    large = [m.weight for m in layers if m.weight.numel() > 9000]
    return {"spread": {str(i): weight.std() for i, weight in enumerate(large)}}


# ---------------------------------------------------------------- label smoothing
@question(**SINGLE)
def label_smoothing(lib, data, _):
    scores, labels = singles(data["scores"]), torch.tensor(data["labels"])
    pixels, truth = singles(data["scores of pixels"]), torch.tensor(data["labels of pixels"])
    weight, two, one = singles(data["weight"]), lib.LabelSmoothingCrossEntropy, partial
    flat, bare = lib.LabelSmoothingCrossEntropyFlat, one(loss_answer, activates=False)
    return {
        "default": loss_answer(two(), scores, labels),
        "eps": bare(two(eps=0.3), scores, labels),
        "eps by place": bare(two(0.3), scores, labels),
        "eps 0": bare(two(eps=0.0), scores, labels),
        "sum": bare(two(reduction="sum"), scores, labels),
        "none": bare(two(reduction="none"), scores, labels),
        "pixels": bare(two(), pixels, truth),
        "pixels, activation": two().activation(pixels.movedim(1, -1)),
        "weight": bare(two(weight=weight), scores, labels),
        "flat": loss_answer(flat(), scores, labels),
        "flat, eps": bare(flat(eps=0.3), scores, labels),
        "flat, a column of labels": bare(flat(), scores, labels[:, None]),
        "flat, axis": loss_answer(flat(axis=1), pixels, truth),
        "flat, sum": bare(flat(reduction="sum"), scores, labels),
        "flat, none": bare(flat(reduction="none"), scores, labels),
    }


# ---------------------------------------------------------------- Mixup
def mixing(lib, data, folder, alpha=None, y=None, **options):
    "Losses, shares and weights of a training with Mixup whose random numbers begin anew in each batch."

    class Seeds(lib.Callback):
        order = -20

        def before_batch(self):
            torch.manual_seed(self.learn.train_iter)

    class Watch(lib.Callback):
        order = 50

        def after_loss(self):
            if self.learn.training:
                mixed = self.learn.mix_up if hasattr(self.learn, "mix_up") else self.learn.mixup
                seen.append([float(self.learn.loss), *mixed.lam.tolist()])
                inputs.append(self.learn.xb[0].tolist())

    seen, inputs = [], []
    mix = lib.MixUp() if alpha is None else lib.MixUp(alpha)
    cbs = [Seeds(), mix, Watch()]
    learn = learner(lib, data, folder, bs=8, y=y, cbs=cbs, opt_func=lib.SGD, **options)
    fit(learn, 2, lr=0.1)
    scores, targets = quietly(learn, learn.get_preds)
    return {
        "seen": seen,
        "inputs": inputs[1],
        "weights": dict(learn.model.state_dict()),
        "valid_loss": float(learn.recorder.values[-1][-1]),
        "scores": scores,
        "targets": targets,
    }


def cross_entropy(**options):
    "PyTorch's, marked for fastai as a loss of classes; its own would compute in single precision."
    loss = nn.CrossEntropyLoss(**options)
    loss.y_int = True
    return loss


@question(share=1e-6)
def mixup(lib, data, folder):
    many = [[int(bit) for bit in f"{n % 8:03b}"] for n in range(27)]
    weight, smooth = doubles(data["weight"]), lib.LabelSmoothingCrossEntropy(eps=0.2)
    answer = {
        "classes": mixing(lib, data, folder, loss_func=cross_entropy()),
        "alpha 1": mixing(lib, data, folder, alpha=1.0, loss_func=cross_entropy()),
        "weight": mixing(lib, data, folder, loss_func=cross_entropy(weight=weight)),
        "sum": mixing(lib, data, folder, loss_func=cross_entropy(reduction="sum")),
        "smooth": mixing(lib, data, folder, loss_func=smooth),
    }
    labels = json.loads(json.dumps(data))
    for part, rows in (("train", many), ("valid", many[:13])):
        labels[part]["y"] = [doubles(row) for row in rows]
    answer["labels"] = mixing(lib, labels, folder, loss_func=nn.BCEWithLogitsLoss())
    return answer


# ---------------------------------------------------------------- test-time augmentation
class Forgetful(nn.Module):
    "Scores that differ in each pass, as they do for copies that were changed at random."

    def __init__(self, model):
        super().__init__()
        self.model, self.batches = model, 0

    def forward(self, x):
        self.batches += 1
        shift = torch.sin(torch.arange(3, dtype=torch.float64) * self.batches)
        return self.model(x) + shift


class Items(list):
    "A list that fastai can tell which side of a split it is on."

    @contextmanager
    def set_split_idx(self, _):
        yield


@question(**SINGLE)
def tta(lib, data, folder):
    sides = ("train", "valid")
    sets = [[*zip(map(doubles, data[side]["x"]), data[side]["y"], strict=True)] for side in sides]

    def asked(**options):
        loaders = [lib.DataLoader(Items(pairs), bs=5, num_workers=0) for pairs in sets]
        loss, model = lib.CrossEntropyLossFlat(), Forgetful(network(data))
        learn = lib.Learner(lib.DataLoaders(*loaders), model, loss_func=loss, path=folder)
        preds, targets = quietly(learn, partial(learn.tta, **options))
        return {"preds": preds, "targets": targets}

    return {
        "default": asked(),
        "n 1": asked(n=1),
        "n 7": asked(n=7),
        "beta 0": asked(beta=0.0),
        "beta 1": asked(beta=1.0),
        "beta None": asked(beta=None),
        "use_max": asked(use_max=True),
        "training items": asked(ds_idx=0),
    }


@question()
def recipe_defaults(lib, _, __):
    "What may be left out, and its value."
    wanted = {
        "MixUp": "alpha",
        "LabelSmoothingCrossEntropy": "eps weight reduction",
        "Learner.tta": "ds_idx dl n item_tfms batch_tfms beta use_max",
    }
    answer = {}
    for name, parameters in wanted.items():
        owner, _, method = name.partition(".")
        function = getattr(getattr(lib, owner), method) if method else getattr(lib, owner)
        own = own_defaults(function)
        answer[name] = {each: plain(own.get(each, "none given")) for each in parameters.split()}
    return answer


def main():
    import fastai
    import fastai.callback.mixup
    import fastai.callback.schedule
    import fastai.learner
    import fastai.vision.all
    import fastcore

    for module in (fastai.learner, fastai.callback.schedule, fastai.callback.mixup):
        module.tensor = doubles  # its `tensor` rounds doubles to single precision
    lib = SimpleNamespace(**vars(fastai.vision.all))
    training_oracle.QUESTIONS |= QUESTIONS
    answers = {}
    for name in QUESTIONS:
        print(name, flush=True)
        answers[name] = ask(name, lib)
    modules = (fastai, fastcore, torch, np)
    record = {
        "command": "python tests/recipes_oracle.py, in an environment with fastai",
        "versions": {"python": platform.python_version()}
        | {module.__name__: module.__version__ for module in modules},
        "answers": answers,
    }
    FIXTURE.write_text(compact(record | {"inputs": "those of training_oracle.py"}))


if __name__ == "__main__":
    main()
