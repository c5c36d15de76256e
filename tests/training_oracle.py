"""Questions to a library that trains with the names of fastai 2, and a way to write down the answers.

Every question below is put to fastai once, in an environment of its own, and the answers are committed:

    /path/to/fastai/bin/python tests/training_oracle.py

writes `tests/fixtures/training_oracle.json`. `test_training_oracle.py` puts the same questions to coursekit.
This file imports neither library: `lib` is a namespace that holds the names of one of them.

Everything is computed in double precision, but for the losses and metrics that fastai computes in single precision
whatever it is given. Inputs are odd numbers over 64, so that they are exact in any precision
and never zero; they are written next to the answers. A question gets them as `data`.
"""

import inspect
import json
import math
import platform
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from data_oracle import failure, written
from torch import nn

FIXTURE = Path(__file__).parent / "fixtures" / "training_oracle.json"
QUESTIONS: dict[str, Callable] = {}
TOLERANCE: dict[str, tuple[float, float]] = {}
SINGLE = {
    "share": 2e-6,
    "least": 3e-7,
}  # where fastai computes in single precision, whatever it is given


def question(share: float = 3e-7, least: float = 1e-11):
    "Register a question; numbers of its answer may differ by this `share` of them, or by `least` if that is more."

    def register(ask):
        QUESTIONS[ask.__name__], TOLERANCE[ask.__name__] = ask, (share, least)
        return ask

    return register


# ---------------------------------------------------------------- what an answer is made of
def plain(value):
    "The same thing made of what JSON knows; numbers keep ten digits."
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, torch.Tensor | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, str | Path):
        return str(value)
    return [plain(each) for each in value]


# ---------------------------------------------------------------- inputs
def integers(seed: int, n: int, most: int) -> list[int]:
    "`n` whole numbers below `most` that look drawn at random, the same everywhere for ever."
    drawn, state = [], seed * 7919 + 12345
    for _ in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        drawn.append((state >> 33) % most)
    return drawn


def values(seed: int, *shape: int, most: float = 2.0):
    "Odd numbers over 64 between `-most` and `most`, as nested lists of this shape."
    steps = int(most * 32)
    flat = [(2 * (n - steps) + 1) / 64 for n in integers(seed, math.prod(shape), 2 * steps)]
    return np.array(flat).reshape(shape).tolist()


def classes(seed: int, *shape: int, most: int = 3):
    return np.array(integers(seed, math.prod(shape), most)).reshape(shape).tolist()


def curve(seed: int, lowest: float = 3e-3, diverges: float = 0.5, noise: float = 0.02):
    "Losses over the rates of a search, from the tenth step on: flat, falling, rising."
    rates = [float(f"{1e-7 * 10 ** (8 * step / 100):.6g}") for step in range(10, 95)]
    wiggle = [noise * (n / 500 - 1) for n in integers(seed, len(rates), 1000)]
    falls = [2.3 - 1.9 / (1 + lowest / rate) + (rate / diverges) ** 2 for rate in rates]
    losses = [round(fall + extra, 6) for fall, extra in zip(falls, wiggle, strict=True)]
    return {"rates": rates, "losses": losses}


INPUTS = {
    "scores": values(1, 7, 3),
    "labels": classes(2, 7),
    "scores of pixels": values(3, 2, 3, 2, 4),
    "labels of pixels": classes(4, 2, 2, 4),
    "weight": [0.25, 1.0, 2.5],
    "positive weight": [0.5, 2.0, 4.0],
    "many labels": classes(5, 7, 3, most=2),
    "numbers": values(6, 7, 1),
    "targets": values(7, 7),
    "pairs": values(8, 7, 2),
    "targets of pairs": values(9, 7, 2),
    "parameters": {"a": values(10, 3, 2), "b": values(11, 2), "c": values(12, 4)},
    "aims": {"a": values(13, 3, 2), "b": values(14, 2), "c": values(15, 4)},
    "curves": {
        "calm": curve(16, noise=0.0),
        "noisy": curve(17),
        "very noisy": curve(18, noise=0.15),
        "early": curve(19, lowest=3e-5, diverges=0.01),
        "never diverges": curve(20, diverges=1e9),
        "flat": curve(21, lowest=1e9, diverges=1e9, noise=0.001),
    },
    "curve of a trained model": {
        "rates": curve(16)["rates"],
        "losses": [
            round(0.3 + (noise / 1e5 if step else -0.005) + (rate / 0.3) ** 2, 6)
            for step, (rate, noise) in enumerate(
                zip(curve(16)["rates"], integers(27, 85, 1000), strict=True)
            )
        ],
    },
    "train": {"x": values(22, 27, 4), "y": classes(23, 27)},
    "valid": {"x": values(24, 13, 4), "y": classes(25, 13)},
    "truth of valid": values(26, 13),
    "weights": {
        "0.0.weight": values(30, 5, 4, most=1.0),
        "0.0.bias": values(31, 5, most=1.0),
        "0.1.weight": values(32, 5, most=1.0),
        "0.1.bias": values(33, 5, most=1.0),
        "1.1.weight": values(34, 4, 5, most=1.0),
        "1.1.bias": values(35, 4, most=1.0),
        "2.weight": values(36, 3, 4, most=1.0),
        "2.bias": values(37, 3, most=1.0),
    },
}


def doubles(nested) -> torch.Tensor:
    return torch.tensor(nested if isinstance(nested, float) else list(nested), dtype=torch.float64)


def singles(nested) -> torch.Tensor:
    return torch.tensor(nested, dtype=torch.float32)


# ---------------------------------------------------------------- losses
def loss_answer(loss, scores, target, activates: bool = True):
    "Loss, its gradient, and what the loss says of the scores."
    scores = scores.clone().requires_grad_()
    value = loss(scores, target)
    value.sum().backward()
    answer = {"loss": value.detach(), "gradient": scores.grad}
    if activates:
        with torch.no_grad():
            active = loss.activation(scores)
            answer |= {"activation": active, "decodes": loss.decodes(active)}
    return answer


@question(**SINGLE)
def cross_entropy(lib, data, _):
    scores, labels = singles(data["scores"]), torch.tensor(data["labels"])
    pixels, truth = singles(data["scores of pixels"]), torch.tensor(data["labels of pixels"])
    weight, kind = singles(data["weight"]), lib.CrossEntropyLossFlat
    ask = partial(loss_answer, activates=False)
    return {
        "default": loss_answer(kind(), scores, labels),
        "labels of a column": ask(kind(), scores, labels[:, None]),
        "small integers": ask(kind(), scores, labels.int()),
        "weight": ask(kind(weight=weight), scores, labels),
        "sum": ask(kind(reduction="sum"), scores, labels),
        "none": ask(kind(reduction="none"), scores, labels),
        "weight, none": ask(kind(weight=weight, reduction="none"), scores, labels),
        "ignore_index": ask(kind(ignore_index=1), scores, labels),
        "label_smoothing": ask(kind(label_smoothing=0.1), scores, labels),
        "axis": loss_answer(kind(axis=1), pixels, truth),
        "axis, weight": ask(kind(axis=1, weight=weight), pixels, truth),
        "last axis": loss_answer(kind(), pixels.movedim(1, -1), truth),
        "several rows": ask(kind(), scores[None], labels[None]),
    }


@question(**SINGLE)
def focal(lib, data, _):
    scores, labels = singles(data["scores"]), torch.tensor(data["labels"])
    pixels, truth = singles(data["scores of pixels"]), torch.tensor(data["labels of pixels"])
    weight, kind = singles(data["weight"]), lib.FocalLossFlat
    ask = partial(loss_answer, activates=False)
    return {
        "default": loss_answer(kind(), scores, labels),
        "gamma 0": ask(kind(gamma=0.0), scores, labels),
        "gamma 0.5": ask(kind(gamma=0.5), scores, labels),
        "gamma 5": ask(kind(gamma=5.0), scores, labels),
        "weight": ask(kind(weight=weight), scores, labels),
        "sum": ask(kind(reduction="sum"), scores, labels),
        "none": ask(kind(reduction="none"), scores, labels),
        "axis": loss_answer(kind(axis=1), pixels, truth),
    }


@question(**SINGLE)
def binary_cross_entropy(lib, data, _):
    scores, labels = singles(data["scores"]), torch.tensor(data["many labels"])
    number, one = singles(data["numbers"]), labels[:, 0]
    kind, ask = lib.BCEWithLogitsLossFlat, partial(loss_answer, activates=False)
    return {
        "default": loss_answer(kind(), scores, labels.float()),
        "whole numbers": ask(kind(), scores, labels),
        "truth values": ask(kind(), scores, labels.bool()),
        "thresh": loss_answer(kind(thresh=0.8), scores, labels.float()),
        "sum": ask(kind(reduction="sum"), scores, labels),
        "none": ask(kind(reduction="none"), scores, labels),
        "pos_weight": ask(kind(pos_weight=singles(data["positive weight"])), scores, labels),
        "a column against a row": ask(kind(), number, one.float()),
    }


@question(**SINGLE)
def mean_squared_error(lib, data, _):
    number, target = singles(data["numbers"]), singles(data["targets"])
    pairs, targets = singles(data["pairs"]), singles(data["targets of pairs"])
    kind, ask = lib.MSELossFlat, partial(loss_answer, activates=False)
    return {
        "a column against a row": ask(kind(), number, target),
        "columns": ask(kind(), number, target[:, None]),
        "pairs": ask(kind(), pairs, targets),
        "whole numbers": ask(kind(), number, torch.tensor(data["labels"])),
        "sum": ask(kind(reduction="sum"), pairs, targets),
        "none": ask(kind(reduction="none"), pairs, targets),
        "activation": kind().activation(pairs),
        "decodes": kind().decodes(pairs),
        "unequal numbers fail": failure(kind(), pairs, target),
    }


# ---------------------------------------------------------------- metrics
@question(**SINGLE)
def metrics_of_a_batch(lib, data, _):
    scores, labels = singles(data["scores"]), torch.tensor(data["labels"])
    many, truth = torch.tensor(data["many labels"]), torch.tensor(data["labels of pixels"])
    pixels, chances = singles(data["scores of pixels"]), scores.sigmoid()
    number, target = singles(data["numbers"]), singles(data["targets"])
    return {
        "accuracy": lib.accuracy(scores, labels),
        "accuracy, a column": lib.accuracy(scores, labels[:, None]),
        "accuracy, axis": lib.accuracy(pixels, truth, axis=1),
        "error_rate": lib.error_rate(scores, labels),
        "error_rate, axis": lib.error_rate(pixels, truth, axis=1),
        "top_k_accuracy 1": lib.top_k_accuracy(scores, labels, k=1),
        "top_k_accuracy 2": lib.top_k_accuracy(scores, labels, k=2),
        "all classes are a guess": failure(partial(lib.top_k_accuracy, k=3), scores, labels),
        "accuracy_multi": lib.accuracy_multi(scores, many),
        "accuracy_multi thresh": lib.accuracy_multi(scores, many, thresh=0.2),
        "accuracy_multi float": lib.accuracy_multi(scores, many.float(), thresh=0.7),
        "accuracy_multi chances": lib.accuracy_multi(chances, many, thresh=0.2, sigmoid=False),
        "mse": lib.mse(number, target),
        "mae": lib.mae(number, target),
        "rmse": float(lib.rmse(number, target)),
    }


def f1(target, predicted) -> float:
    "F1 of class 1, with the order of scikit-learn's arguments."
    both = ((target == 1) & (predicted == 1)).sum()
    return float(2 * both / ((target == 1).sum() + (predicted == 1).sum()))


def macro_f1(target, predicted) -> float:
    return float(np.mean([f1(target == each, predicted == each) for each in np.unique(target)]))


@question(**SINGLE)
def metrics_of_an_epoch(lib, data, folder):
    "What the learner reports of 13 items in batches of 5, 5 and 3."
    loss = lib.CrossEntropyLossFlat()
    top2, low = partial(lib.top_k_accuracy, k=2), partial(lib.accuracy_multi, thresh=0.3)

    def of_classes(learn):
        return dict(zip(("loss", *names), learn.validate(), strict=True))

    names = ("accuracy", "error_rate", "top 2", "macro F1")
    metrics = [lib.accuracy, lib.error_rate, top2, lib.sklearn_metric(macro_f1)]
    by_class = of_classes(learner(lib, data, folder, loss_func=loss, metrics=metrics))

    names = ("accuracy_multi", "thresh", "F1")
    many = [[int(label > n) for n in range(3)] for label in data["valid"]["y"]]
    metrics = [lib.accuracy_multi, low, lib.sklearn_metric(f1, wants="labels", thresh=0.4)]
    options = {"loss_func": lib.BCEWithLogitsLossFlat(), "metrics": metrics}
    by_label = of_classes(learner(lib, data, folder, y=many, **options))

    names = ("mse", "rmse", "mae")
    metrics = [lib.mse, lib.rmse, lib.mae]
    options = {"loss_func": lib.MSELossFlat(), "metrics": metrics, "outputs": 1}
    by_number = of_classes(learner(lib, data, folder, y=data["truth of valid"], **options))
    return {"classes": by_class, "labels": by_label, "numbers": by_number}


# ---------------------------------------------------------------- optimisers
MOMENTUM = ("mom", "momentum", "betas")  # what the two libraries call it in a group


def momentum_of(group: dict) -> float | None:
    found = [group[key] for key in MOMENTUM if key in group]
    return found[0][0] if found and isinstance(found[0], tuple | list) else (found or [None])[0]


def set_momentum(group: dict, value: float):
    for key in MOMENTUM:
        if key in group:
            group[key] = (value, *group[key][1:]) if key == "betas" else value


def stepped(data, make, rates=None, change=None, together: bool = False):
    """Parameters after 1, 5 and 20 steps down a hill; `rates` for each group, and at half time other
    numbers. With `together` there is one group, else three."""
    parts = {name: doubles(start).requires_grad_() for name, start in data["parameters"].items()}
    aims = {name: doubles(aim) for name, aim in data["aims"].items()}
    opt = make(list(parts.values()) if together else [[each] for each in parts.values()])

    def settle(**numbers):
        groups = opt.param_groups
        for index, group in enumerate(groups):
            if "lr" in numbers:
                group["lr"] = numbers["lr"][index]
            if "mom" in numbers:
                set_momentum(group, numbers["mom"])
        opt.param_groups = groups

    if rates:
        settle(lr=rates)
    kept = {}
    for step in range(1, 21):
        hill = sum(((parts[name] - aims[name]) ** 2).sum() for name in parts)
        hill = hill + (parts["a"] @ parts["b"]).pow(2).sum() + parts["c"].prod()
        hill.backward()
        if change and step == 11:
            settle(**change)
        opt.step()
        opt.zero_grad()
        if step in (1, 5, 20):
            kept[f"step {step}"] = {name: part.detach().clone() for name, part in parts.items()}
    return kept


@question()
def sgd(lib, data, _):
    make = lib.SGD
    moving = partial(make, lr=0.02, mom=0.9)
    return {
        "plain": stepped(data, partial(make, lr=0.02)),
        "one group": stepped(data, partial(make, lr=0.02), together=True),
        "momentum": stepped(data, moving),
        "decay": stepped(data, partial(make, lr=0.02, wd=0.1)),
        "decay in the gradient": stepped(data, partial(make, lr=0.02, wd=0.1, decouple_wd=False)),
        "momentum, decay": stepped(data, partial(moving, wd=0.1)),
        "momentum, decay in the gradient": stepped(
            data, partial(moving, wd=0.1, decouple_wd=False)
        ),
        "rates": stepped(data, partial(moving, wd=0.1), rates=[0.001, 0.01, 0.03]),
        "scheduled": stepped(
            data,
            partial(moving, wd=0.1),
            [0.001, 0.01, 0.03],
            {"lr": [0.02, 0.01, 0.0], "mom": 0.5},
        ),
    }


@question()
def rms_prop(lib, data, _):
    make = partial(lib.RMSProp, lr=0.01)
    return {
        "plain": stepped(data, make),
        "sqr_mom": stepped(data, partial(make, sqr_mom=0.9)),
        "momentum": stepped(data, partial(make, mom=0.9)),
        "decay": stepped(data, partial(make, wd=0.1)),
        "decay in the gradient": stepped(data, partial(make, wd=0.1, decouple_wd=False)),
        "momentum, decay": stepped(data, partial(make, mom=0.9, wd=0.1)),
        "rates": stepped(data, partial(make, wd=0.1), rates=[0.001, 0.01, 0.03]),
    }


@question()
def adam(lib, data, _):
    make = partial(lib.Adam, lr=0.01)
    numbers = {"mom": 0.8, "sqr_mom": 0.95, "eps": 1e-3}
    return {
        "default": stepped(data, make),
        "one group": stepped(data, make, together=True),
        "no decay": stepped(data, partial(make, wd=0.0)),
        "decay": stepped(data, partial(make, wd=0.3)),
        "decay in the gradient": stepped(data, partial(make, wd=0.3, decouple_wd=False)),
        "other numbers": stepped(data, partial(make, **numbers)),
        "rates": stepped(data, make, rates=[0.001, 0.01, 0.03]),
        "scheduled": stepped(
            data, make, [0.001, 0.01, 0.03], {"lr": [0.02, 0.01, 0.0], "mom": 0.85}
        ),
    }


@question()
def optimiser_of_a_learner(lib, data, folder):
    "Adam, and what its numbers are, when nothing is asked for."
    learn = learner(lib, data, folder)
    fit(learn, 1, 1e-3)
    group = learn.opt.param_groups[0]
    squares = group["betas"][1] if "betas" in group else group["sqr_mom"]
    return {"lr": group["lr"], "mom": momentum_of(group), "sqr_mom": squares, "eps": group["eps"]}


# ---------------------------------------------------------------- schedules
PLACES = [0.0, 0.01, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 0.99, 1.0]


@question()
def schedules(lib, _, __):
    several = np.array([1e-5, 1e-3])
    made = {
        "SchedLin": lib.SchedLin(2.0, 0.5),
        "SchedCos": lib.SchedCos(2.0, 0.5),
        "SchedExp": lib.SchedExp(2.0, 0.5),
        "SchedExp rising": lib.SchedExp(1e-7, 10),
        "SchedNo": lib.SchedNo(2.0, 0.5),
        "SchedPoly": lib.SchedPoly(2.0, 0.5, 2),
        "SchedPoly root": lib.SchedPoly(0.1, 0.5, 0.5),
        "SchedCos of several": lib.SchedCos(several / 25, several),
        "SchedLin of several": lib.SchedLin(several, several / 10),
        "SchedExp of several": lib.SchedExp(several, several / 10),
        "combine_scheds": lib.combine_scheds(
            [0.3, 0.7], [lib.SchedCos(0.3, 0.6), lib.SchedCos(0.6, 0.2)]
        ),
        "combine_scheds of three": lib.combine_scheds(
            [0.25, 0.5, 0.25], [lib.SchedLin(0, 1), lib.SchedNo(1, 1), lib.SchedExp(1, 0.1)]
        ),
        "combine_scheds with none": lib.combine_scheds(
            [0.0, 1.0], [lib.SchedLin(0, 1), lib.SchedLin(5, 6)]
        ),
        "combined_cos": lib.combined_cos(0.25, 0.5, 1.0, 0.0),
        "combined_cos of several": lib.combined_cos(0.4, several / 25, several, several / 1e5),
    }
    answer = {name: [schedule(place) for place in PLACES] for name, schedule in made.items()}
    lin = lib.SchedLin(0, 1)
    return answer | {
        "shares must add up to one": failure(lib.combine_scheds, [0.3, 0.6], [lin, lin])
    }


@question()
def even_mults(lib, _, __):
    cases = [(2, 8, 3), (1e-6, 1e-4, 2), (1e-6, 1e-4, 5), (3e-3, 3e-3, 3), (1e-5, 1e-3, 1)]
    return {str(case): lib.even_mults(*case) for case in cases}


@question()
def suggestions(lib, data, _):
    "Of curves in single precision, as a search keeps them. Only the rate is asked for."
    answer = {}
    for name, stored in data["curves"].items():
        rates, losses = (torch.tensor(stored[key]).float() for key in ("rates", "losses"))
        for suggest in (lib.minimum, lib.steep, lib.valley, lib.slide):
            found = suggest(rates, losses, 100)
            found = found[0] if isinstance(found, tuple) else found
            answer[f"{name}, {suggest.__name__}"] = float(found)
    return answer


@question()
def suggestions_for_a_trained_model(lib, data, _):
    "The loss is lowest at the first rate, flat, then it explodes: there is hardly anything to suggest."
    stored = data["curve of a trained model"]
    rates, losses = (torch.tensor(stored[key]).float() for key in ("rates", "losses"))

    def suggested(suggest, n=None):
        try:
            found = suggest(rates[:n], losses[:n], 100)
        except ValueError:
            return "an error"
        return float(found[0] if isinstance(found, tuple) else found)

    return {
        "minimum": suggested(lib.minimum),
        "steep": suggested(lib.steep),
        "valley": suggested(lib.valley),
        "slide": suggested(lib.slide),
        "slide without two slopes alike": suggested(partial(lib.slide, thresh=0.0), 20),
    }


# ---------------------------------------------------------------- a small learner
def network(data, outputs: int = 3) -> nn.Sequential:
    "Three parts, one of them with a norm, from given weights."
    body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    model = nn.Sequential(body, nn.Sequential(nn.ReLU(), nn.Linear(5, 4)), nn.Linear(4, 3)).double()
    missing = model.load_state_dict(
        {name: doubles(weight) for name, weight in data["weights"].items()}, strict=False
    )
    assert not missing.unexpected_keys
    if outputs != 3:
        head = nn.Linear(4, outputs).double()
        head.load_state_dict(
            {"weight": model[2].weight[:outputs].detach(), "bias": model[2].bias[:outputs].detach()}
        )
        model[2] = head
    return model


def three_parts(model) -> list[list]:
    return [list(part.parameters()) for part in model]


def two_parts(model) -> list[list]:
    return [[*model[0].parameters(), *model[1].parameters()], list(model[2].parameters())]


def learner(lib, data, folder, bs: int = 8, y=None, outputs: int = 3, **options):
    "A learner of 27 items, in batches of 8, 8, 8 and 3, validated on 13, none of them shuffled."
    sets = [
        [(doubles(x), target) for x, target in zip(data[part]["x"], targets, strict=True)]
        for part, targets in (("train", data["train"]["y"]), ("valid", y or data["valid"]["y"]))
    ]
    if y:
        sets[1] = [
            (x, torch.tensor(target) if isinstance(target, list) else target)
            for x, target in sets[1]
        ]
    common = {"shuffle": False, "drop_last": False, "num_workers": 0}
    loaders = lib.DataLoaders(
        lib.DataLoader(sets[0], bs=bs, **common), lib.DataLoader(sets[1], bs=5, **common)
    )
    options = {"loss_func": nn.functional.cross_entropy, "path": folder} | options
    return lib.Learner(loaders, network(data, outputs), **options)


def quietly(learn, do: Callable):
    with learn.no_bar(), learn.no_logging():
        return do()


def fit(learn, *arguments, how: str = "fit", **options):
    quietly(learn, lambda: getattr(learn, how)(*arguments, **options))
    return learn


def watcher(lib, splitter):
    "A callback that writes down loss and numbers of each group as they are when a training step is taken."

    class Watcher(lib.Callback):
        order = 70

        def __init__(self):
            self.rates, self.moms, self.losses = [], [], []

        def after_loss(self):
            if not self.learn.training:
                return
            group_of = {
                id(p): group for group in self.learn.opt.param_groups for p in group["params"]
            }
            trained = [[p for p in part if p.requires_grad] for part in splitter(self.learn.model)]
            numbers = [[group_of[id(p)] for p in part] for part in trained]
            self.rates.append([one([float(each["lr"]) for each in part]) for part in numbers])
            self.moms.append([one([momentum_of(each) for each in part]) for part in numbers])
            self.losses.append(float(self.learn.loss))

    return Watcher()


def one(found: list):
    "The number that all of them are; None if there is none, all of them if they differ."
    return None if not found else found[0] if len(set(found)) == 1 else found


def weights(learn):
    return {name: part for name, part in learn.model.state_dict().items() if "num_" not in name}


def whole(learn):
    "What a training leaves behind."
    recorder = learn.recorder
    return {
        "losses": [float(loss) for loss in recorder.losses],
        "lrs": [float(rate) for rate in recorder.lrs],
        "values": [[float(value) for value in row] for row in recorder.values],
        "weights": weights(learn),
    }


@question()
def plain_fit(lib, data, folder):
    make = partial(learner, lib, data, folder)
    both = [lib.accuracy, lib.error_rate]
    sgd = partial(lib.SGD, mom=0.9)
    twice = fit(make(metrics=both), 1, 0.01)
    first = whole(twice)
    fit(twice, 1, 0.002)
    again = fit(make(), 1, 0.01)
    return {
        "Adam": whole(fit(make(metrics=both), 3, 0.01)),
        "SGD with momentum": whole(fit(make(opt_func=sgd, metrics=both), 2, 0.05)),
        "rate of the learner": whole(fit(make(lr=0.03), 1)),
        "first of two": first,
        "second of two": whole(twice),
        "reset_opt": whole(fit(again, 1, 0.002, reset_opt=True)),
        "batches of 27": whole(fit(make(bs=27), 2, 0.01)),
    }


@question()
def one_cycle(lib, data, folder):
    def train(*arguments, splitter=three_parts, options=None, **more):
        watch = watcher(lib, splitter)
        learn = learner(lib, data, folder, splitter=splitter, cbs=watch, **options or {})
        fit(learn, *arguments, how="fit_one_cycle", **more)
        return {"rates": watch.rates, "moms": watch.moms, "hps": learn.recorder.hps} | whole(learn)

    def shown(*arguments, **more):
        "Rates and momentum alone."
        answer = train(*arguments, **more)
        return {key: answer[key] for key in ("rates", "moms", "lrs", "hps")}

    sgd = {"opt_func": partial(lib.SGD, mom=0.9)}
    return {
        "as in the book": train(2, lr_max=slice(1e-6, 1e-4)),
        "one rate": train(3, 3e-3),
        "rate of the learner": shown(1, options={"lr": 0.02}),
        "last rate": shown(1, slice(0.01)),
        "two parts": shown(1, slice(1e-5, 1e-3), splitter=two_parts),
        "two parts, last rate": shown(1, slice(0.01), splitter=two_parts),
        "div, div_final, pct_start": shown(2, 0.01, div=5.0, div_final=100.0, pct_start=0.6),
        "moms": shown(1, 0.01, moms=(0.9, 0.7, 0.8)),
        "moms of the learner": shown(1, 0.01, options={"moms": (0.8, 0.7, 0.9)}),
        "the last of three epochs": shown(3, 0.01, start_epoch=2),
        "SGD": train(1, 0.05, options=sgd),
        "SGD without momentum": train(1, 0.05, options={"opt_func": lib.SGD})["weights"],
        "RMSProp without momentum": train(1, 0.01, options={"opt_func": lib.RMSProp})["weights"],
        "wd": train(1, 0.05, wd=0.5),
    }


@question()
def flat_cos(lib, data, folder):
    def train(*arguments, **more):
        watch = watcher(lib, three_parts)
        learn = learner(lib, data, folder, splitter=three_parts, cbs=watch)
        fit(learn, *arguments, how="fit_flat_cos", **more)
        return {"rates": watch.rates, "moms": watch.moms} | whole(learn)

    return {
        "one rate": train(2, 0.01),
        "rates": train(1, slice(1e-4, 1e-2), pct_start=0.5, div_final=10),
    }


@question()
def fine_tune(lib, data, folder):
    "Both phases one after the other, norms of the frozen parts included."

    def train(*arguments, splitter=three_parts, train_bn=True, **more):
        watch = watcher(lib, splitter)
        options = {"splitter": splitter, "train_bn": train_bn, "cbs": watch}
        learn = fit(learner(lib, data, folder, **options), *arguments, how="fine_tune", **more)
        return {"rates": watch.rates, "moms": watch.moms, "weights": weights(learn)}

    return {
        "as in the book": train(2, base_lr=3e-3, freeze_epochs=2),
        "default": train(1),
        "two parts": train(1, 1e-2, splitter=two_parts),
        "norms frozen": train(1, 1e-2, train_bn=False),
        "other numbers": train(1, 1e-2, lr_mult=10, pct_start=0.5, div=2.0),
    }


@question()
def scheduled_by_hand(lib, data, folder):
    watch = watcher(lib, two_parts)
    learn = learner(lib, data, folder, splitter=two_parts, cbs=watch)
    lr = lib.combine_scheds([0.5, 0.5], [lib.SchedLin(0.0, 0.02), lib.SchedExp(0.02, 0.001)])
    fit(learn, 2, cbs=lib.ParamScheduler({"lr": lr, "mom": lib.SchedCos(0.9, 0.8)}))
    return {"rates": watch.rates, "moms": watch.moms} | whole(learn)


# ---------------------------------------------------------------- frozen parts, decay
@question()
def frozen(lib, data, folder):
    "Names of the parameters that are trained."

    def trained(how: str, *arguments, **options):
        learn = learner(lib, data, folder, splitter=three_parts, **options)
        if how:
            getattr(learn, how)(*arguments)
        return [name for name, part in learn.model.named_parameters() if part.requires_grad]

    def thawed():
        learn = learner(lib, data, folder, splitter=three_parts)
        learn.freeze()
        learn.unfreeze()
        return [name for name, part in learn.model.named_parameters() if part.requires_grad]

    return {
        "at first": trained(""),
        "freeze": trained("freeze"),
        "freeze, train_bn=False": trained("freeze", train_bn=False),
        "freeze_to 1": trained("freeze_to", 1),
        "freeze_to 1, train_bn=False": trained("freeze_to", 1, train_bn=False),
        "freeze_to 2": trained("freeze_to", 2),
        "freeze_to -2": trained("freeze_to", -2, train_bn=False),
        "unfreeze": thawed(),
    }


@question()
def frozen_fit(lib, data, folder):
    "Weights after one epoch with only the last part to train, and one with all."
    learn = learner(lib, data, folder, splitter=three_parts)
    learn.freeze()
    fit(learn, 1, 0.01)
    first = weights(learn)
    learn.unfreeze()
    fit(learn, 1, 0.01)
    bare = learner(lib, data, folder, splitter=three_parts, train_bn=False)
    bare.freeze()
    return {
        "frozen": first,
        "then unfrozen": weights(learn),
        "norms frozen": weights(fit(bare, 1, 0.01)),
    }


@question()
def weight_decay(lib, data, folder):
    "By how much each parameter shrinks in four steps when the loss has no slope."

    def flat(pred, _):
        return (pred * 0).sum()

    def shrunk(lr=0.1, wd=None, how="fit", **options):
        learn = learner(lib, data, folder, loss_func=flat, splitter=three_parts, **options)
        before = {name: part.detach().clone() for name, part in learn.model.named_parameters()}
        fit(learn, 1, lr, wd=wd, how=how)
        after = dict(learn.model.named_parameters())
        return {
            name: round(float((after[name] / before[name]).detach().mean()), 9) for name in before
        }

    return {
        "default": shrunk(),
        "wd of the optimiser": shrunk(opt_func=partial(lib.Adam, wd=0.2)),
        "wd of fit": shrunk(wd=0.5),
        "wd of fit_one_cycle": shrunk(wd=0.5, how="fit_one_cycle"),
        "bias and norm too": shrunk(wd=0.5, wd_bn_bias=True),
        "SGD": shrunk(wd=0.5, opt_func=lib.SGD),
        "RMSProp": shrunk(wd=0.5, opt_func=lib.RMSProp),
        "rates": shrunk(lr=slice(0.01, 1.0), wd=0.5),
    }


@question()
def wd_of_the_learner(lib, data, folder):
    learn = fit(learner(lib, data, folder, wd=0.3), 1, 0.05)
    both = fit(learner(lib, data, folder, wd=0.3), 1, 0.05, wd=0.0)
    return {"wd=0.3": weights(learn), "fit(wd=0)": weights(both)}


# ---------------------------------------------------------------- the search for a rate
@question()
def rate_search(lib, data, folder):
    "Rates that are tried, their losses, and what is suggested; nothing is changed by it."
    funcs = (lib.minimum, lib.steep, lib.valley, lib.slide)

    def search(learn=None, suggest_funcs=funcs, **options):
        learn = learn or learner(lib, data, folder, splitter=three_parts)
        before = {name: part.clone() for name, part in weights(learn).items()}
        watch = watcher(lib, three_parts)
        options |= {"show_plot": False, "suggest_funcs": suggest_funcs}
        learn.add_cb(watch)
        found = quietly(learn, lambda: learn.lr_find(**options))
        learn.remove_cb(watch)
        same = all(torch.equal(before[name], part) for name, part in weights(learn).items())
        return {
            "found": {name: float(rate) for name, rate in found._asdict().items()},
            "tried": len(watch.rates),
            "rates": watch.rates[::10],
            "losses": watch.losses[::10],
            "weights are restored": same,
        }

    trained = fit(learner(lib, data, folder, splitter=three_parts), 1, 0.01)
    answer = {
        "default": search(),
        "one": search(suggest_funcs=lib.valley),
        "partial": search(suggest_funcs=(lib.minimum, partial(lib.slide, thresh=0.1))),
        "to 1000": search(end_lr=1000.0),
        "no stop": search(end_lr=1000.0, stop_div=False),
        "from 1e-5 in 40": search(suggest_funcs=funcs[:3], start_lr=1e-5, end_lr=1.0, num_it=40),
        "after a fit": search(trained),
    }
    fit(trained, 1, 0.01)
    return answer | {"trained on after the search": weights(trained)}


# ---------------------------------------------------------------- what comes out
@question(**SINGLE)
def predictions(lib, data, folder):
    learn = fit(learner(lib, data, folder, metrics=lib.accuracy), 1, 0.01)
    learn.loss_func = lib.CrossEntropyLossFlat()

    def got(**options):
        return [part.tolist() for part in quietly(learn, lambda: learn.get_preds(**options))]

    other = learn.dls.valid
    probabilities, target, decoded = got(with_decoded=True)
    return {
        "probabilities": probabilities,
        "targets": target,
        "decoded": decoded,
        "losses": got(with_loss=True)[2],
        "of train": got(ds_idx=0)[0],
        "raw": got(act=lambda scores: scores)[0],
        "inputs": got(with_input=True)[0],
        "parts": [len(got()), len(got(with_input=True, with_decoded=True, with_loss=True))],
        "of a loader": got(dl=other)[0] == probabilities,
        "validate": learn.validate(),
        "validate train": learn.validate(ds_idx=0),
        "validate a loader": learn.validate(dl=other),
    }


@question(**SINGLE)
def predict(lib, data, folder):
    "One item through the pipeline of a data block."
    rows = data["train"]["x"]
    names = ["bear", "cat", "dog"]
    block = lib.DataBlock(
        blocks=(lib.TransformBlock, lib.CategoryBlock),
        get_x=lambda index: doubles(rows[index]),
        get_y=lambda index: names[data["train"]["y"][index]],
        splitter=lib.IndexSplitter(list(range(7))),
    )
    loaders = block.dataloaders(list(range(27)), bs=8, num_workers=0, shuffle=False)
    learn = lib.Learner(loaders, network(data), path=folder, metrics=lib.accuracy)
    with learn.no_bar():
        label, index, chances = learn.predict(3)
        _, *others = learn.predict(20)
    number = lib.DataBlock(
        blocks=(lib.TransformBlock, lib.RegressionBlock),
        get_x=lambda index: doubles(rows[index]),
        get_y=lambda index: float(index),
        splitter=lib.IndexSplitter([0, 1]),
    ).dataloaders(list(range(27)), bs=8, num_workers=0)
    return {
        "label": label,
        "index": int(index),
        "probabilities": chances,
        "another": [int(others[0]), others[1]],
        "loss for labels": type(learn.loss_func).__name__,
        "loss for numbers": [
            float(lib.Learner(number, network(data)).loss_func(doubles([[1.0]]), doubles([3.0])))
        ],
    }


# ---------------------------------------------------------------- callbacks
EVENTS = """before_fit before_epoch before_train before_batch after_pred after_loss before_backward before_step
after_step after_batch after_train before_validate after_validate after_epoch after_fit""".split()


def diary(lib, cancel=None):
    "A callback that writes down each event; `cancel` is (event, training, iteration, exception)."
    log = []

    def note(self, event):
        learn = self.learn
        where = (event, getattr(learn, "training", None), getattr(learn, "iter", None))
        log.append(event)
        if cancel and where[: len(cancel) - 1] == cancel[:-1] and not self.done:
            self.done = True
            raise cancel[-1]

    def method(event):
        return lambda self: note(self, event)

    return log, type("Diary", (lib.Callback,), {e: method(e) for e in EVENTS} | {"done": False})()


@question()
def events(lib, data, folder):
    "In which order, and what follows a cancellation."

    def seen(*cancel, epochs: int = 2):
        log, callback = diary(lib, cancel)
        fit(learner(lib, data, folder, bs=14, cbs=callback), epochs, 0.01)
        return " ".join(log)

    def raised(name):
        return getattr(lib, f"Cancel{name}Exception")

    return {
        "none": seen(epochs=1),
        "batch, before it": seen("before_batch", True, 1, raised("Batch"), epochs=1),
        "batch, before the step": seen("before_step", True, 1, raised("Batch"), epochs=1),
        "batch, of validation": seen("after_pred", False, 1, raised("Batch"), epochs=1),
        "train": seen("after_batch", True, 0, raised("Train"), epochs=1),
        "validate": seen("before_validate", raised("Valid"), epochs=1),
        "validate, within": seen("after_batch", False, 0, raised("Valid"), epochs=1),
        "epoch": seen("after_loss", True, 1, raised("Epoch")),
        "epoch, of validation": seen("after_batch", False, 1, raised("Epoch")),
        "fit": seen("after_step", True, 1, raised("Fit")),
        "fit, at an epoch's end": seen("after_epoch", raised("Fit")),
    }


@question()
def counters(lib, data, folder):
    "What a learner knows of itself while it trains."
    kept = []

    class Counters(lib.Callback):
        def before_batch(self):
            learn = self.learn
            steps = [learn.epoch, learn.n_epoch, learn.iter, learn.n_iter, learn.train_iter]
            states = [learn.training, learn.model.training, torch.is_grad_enabled()]
            kept.append([*steps, float(learn.pct_train), *states, len(learn.xb), len(learn.yb)])

    metrics = [lib.accuracy, partial(lib.top_k_accuracy, k=2), lib.error_rate]
    learn = fit(learner(lib, data, folder, cbs=Counters(), metrics=metrics), 2, 0.01)
    recorder = learn.recorder
    return {"batches": kept, "iters": list(recorder.iters), "headings": recorder.metric_names}


@question()
def changed_by_callbacks(lib, data, folder):
    "Callbacks may replace the batch, the predictions, the loss and the gradients."

    class Input(lib.Callback):
        def before_batch(self):
            self.learn.xb = tuple(x * 2 for x in self.learn.xb)

    class Target(lib.Callback):
        def before_batch(self):
            self.learn.yb = tuple(2 - y for y in self.learn.yb)

    class Prediction(lib.Callback):
        def after_pred(self):
            self.learn.pred = self.learn.pred * 0.5

    class Slope(lib.Callback):
        def after_loss(self):
            self.learn.loss_grad = self.learn.loss_grad * 0.1

    class Gradient(lib.Callback):
        def before_step(self):
            for part in self.learn.model.parameters():
                part.grad.clamp_(-0.01, 0.01)

    def train(callback):
        sgd = {"opt_func": lib.SGD, "metrics": lib.accuracy}
        return whole(fit(learner(lib, data, folder, cbs=callback, **sgd), 1, 0.1))

    return {kind.__name__: train(kind) for kind in (Input, Target, Prediction, Slope, Gradient)}


@question()
def accumulation_and_clipping(lib, data, folder):
    def train(*callbacks, opt_func=lib.SGD, epochs=2, **options):
        learn = learner(lib, data, folder, opt_func=opt_func, cbs=list(callbacks), **options)
        return whole(fit(learn, epochs, 0.1))

    return {
        "16 items": train(lib.GradientAccumulation(n_acc=16)),
        "12 items in batches of 5": train(lib.GradientAccumulation(12), bs=5),
        "as many as a batch": train(lib.GradientAccumulation(n_acc=8)),
        "Adam": train(lib.GradientAccumulation(n_acc=16), opt_func=lib.Adam),
        "clipped": train(lib.GradientClip(0.1)),
        "clipped, default": train(lib.GradientClip()),
        "clipped by the largest": train(lib.GradientClip(0.05, norm_type=math.inf)),
        "both": train(lib.GradientAccumulation(n_acc=16), lib.GradientClip(0.1)),
    }


class Pushed:
    "Makes the third epoch worse than the second."

    def before_train(self):
        if self.learn.epoch in (2, 3):
            with torch.no_grad():
                self.learn.model[2].bias.add_(torch.tensor([0.5, -0.5, 0.25]).double())


@question()
def best_epoch(lib, data, folder):
    "The epoch that is kept, and the one at which training stops."

    def train(callback, epochs: int = 5):
        pushed = type("Push", (Pushed, lib.Callback), {})
        learn = learner(lib, data, folder, metrics=lib.accuracy, cbs=[pushed, callback])
        return whole(fit(learn, epochs, 0.02))

    train(lib.SaveModelCallback(fname="each", every_epoch=True), epochs=2)
    files = sorted(file.name for file in (folder / "models").iterdir())
    return {
        "files of every_epoch": files,
        "SaveModelCallback": train(lib.SaveModelCallback()),
        "SaveModelCallback, accuracy": train(lib.SaveModelCallback(monitor="accuracy")),
        "EarlyStoppingCallback": train(lib.EarlyStoppingCallback()),
        "EarlyStoppingCallback, patience": train(lib.EarlyStoppingCallback(patience=2)),
        "EarlyStoppingCallback, accuracy": train(
            lib.EarlyStoppingCallback(monitor="accuracy", min_delta=0.01, patience=2)
        ),
        "EarlyStoppingCallback, train_loss": train(
            lib.EarlyStoppingCallback(monitor="train_loss", min_delta=0.01)
        ),
    }


@question()
def saved(lib, data, folder):
    "A learner that is saved, trained on and loaded again goes on as before."
    learn = fit(learner(lib, data, folder), 1, 0.02)
    file = learn.save("here")
    first = weights(fit(learn, 1, 0.02))
    learn.load("here")
    second = weights(fit(learn, 1, 0.02))
    fresh = learner(lib, data, folder)
    fresh.load("here", with_opt=False)
    return {
        "file": Path(file).relative_to(folder),
        "the same again": all(torch.allclose(first[name], second[name]) for name in first),
        "second": second,
        "without the optimiser": weights(fit(fresh, 1, 0.02)),
    }


@question()
def hand_written(lib, data, folder):
    "Loaders, loss and metric as in the fourth chapter of the book: any two functions."

    def loss(pred, target):
        pred = pred.sigmoid()
        return torch.where(target == 1, 1 - pred, pred).mean()

    def batch_accuracy(pred, target):
        return ((pred.sigmoid() > 0.5) == target).float().mean()

    sets = [
        [
            (doubles(x), torch.tensor([int(y > 0)]))
            for x, y in zip(data[part]["x"], data[part]["y"], strict=True)
        ]
        for part in ("train", "valid")
    ]
    loaders = lib.DataLoaders(
        lib.DataLoader(sets[0], batch_size=9), lib.DataLoader(sets[1], batch_size=9)
    )
    model = nn.Linear(4, 1).double()
    with torch.no_grad():
        model.weight.copy_(doubles(data["weights"]["0.0.weight"])[:1])
        model.bias.fill_(0.125)
    options = {"opt_func": lib.SGD, "loss_func": loss, "metrics": batch_accuracy}
    learn = fit(lib.Learner(loaders, model, **options), 4, lr=1.0)
    return {"all": whole(learn), "last": float(learn.recorder.values[-1][2])}


@question()
def training_defaults(lib, _, __):
    "What may be left out, and its value."
    wanted = {
        "Learner": "lr wd wd_bn_bias train_bn moms model_dir metrics cbs loss_func",
        "SGD": "mom wd decouple_wd",
        "RMSProp": "mom sqr_mom eps wd decouple_wd",
        "Adam": "mom sqr_mom eps wd decouple_wd",
        "Learner.fit": "lr wd cbs reset_opt start_epoch",
        "Learner.fit_one_cycle": "lr_max div div_final pct_start wd moms cbs reset_opt start_epoch",
        "Learner.fit_flat_cos": "lr div_final pct_start wd cbs reset_opt start_epoch",
        "Learner.fine_tune": "base_lr freeze_epochs lr_mult pct_start div",
        "Learner.lr_find": "start_lr end_lr num_it stop_div show_plot",
        "Learner.get_preds": "ds_idx dl with_input with_decoded with_loss act reorder cbs",
        "Learner.validate": "ds_idx dl cbs",
        "Learner.save": "with_opt",
        "Learner.load": "with_opt strict",
        "GradientAccumulation": "n_acc",
        "GradientClip": "max_norm norm_type",
        "SaveModelCallback": "monitor comp min_delta fname every_epoch at_end with_opt reset_on_fit",
        "EarlyStoppingCallback": "monitor comp min_delta patience reset_on_fit",
        "CrossEntropyLossFlat": "axis",
        "FocalLossFlat": "gamma axis",
        "BCEWithLogitsLossFlat": "thresh",
        "accuracy": "axis",
        "accuracy_multi": "thresh sigmoid",
        "top_k_accuracy": "k axis",
        "slide": "lr_diff thresh adjust_value",
    }
    answer = {}
    for name, parameters in wanted.items():
        owner, _, method = name.partition(".")
        asked = getattr(lib, owner)
        function = getattr(asked, method) if method else asked
        signature, own = inspect.signature(function).parameters, own_defaults(function)
        answer[name] = {
            each: plain(own.get(each, signature[each].default))
            for each in parameters.split()
            if each in signature
        }
    return answer


def own_defaults(function) -> dict:
    "Defaults as Python keeps them: the builder of API pages, if it ran in this process, has left signatures of words."
    function = function.__init__ if isinstance(function, type) else function
    code, given = getattr(function, "__code__", None), getattr(function, "__defaults__", None) or ()
    if code is None:
        return {}
    names = code.co_varnames[: code.co_argcount]
    by_place = zip(names[len(names) - len(given) :], given, strict=True)
    return dict(by_place) | (function.__kwdefaults__ or {})


# ---------------------------------------------------------------- asking
def ask(name: str, lib) -> dict:
    "The answer of one library, as JSON would give it back, computed in double precision."
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return json.loads(json.dumps(plain(QUESTIONS[name](lib, INPUTS, Path(folder)))))
    finally:
        torch.set_default_dtype(before)
        torch.set_num_threads(threads)


def main():
    import fastai
    import fastai.callback.schedule
    import fastai.learner
    import fastai.vision.all
    import fastcore
    import sklearn.metrics

    # Its `tensor` rounds doubles to single precision. Here is all that has to know more digits.
    fastai.learner.tensor = fastai.callback.schedule.tensor = doubles
    lib = SimpleNamespace(**vars(fastai.vision.all))
    lib.sklearn_metric = lambda func, wants="classes", **more: lib.skm_to_fastai(func, **more)
    target, guess = np.array(classes(40, 50)), np.array(classes(41, 50))
    assert (
        abs(macro_f1(target, guess) - sklearn.metrics.f1_score(target, guess, average="macro"))
        < 1e-9
    )
    assert abs(f1(target > 1, guess > 1) - sklearn.metrics.f1_score(target > 1, guess > 1)) < 1e-9
    answers = {}
    for name in QUESTIONS:
        print(name, flush=True)
        answers[name] = ask(name, lib)
    record = {
        "command": "python tests/training_oracle.py, in an environment with fastai",
        "versions": {"python": platform.python_version()}
        | {
            module.__name__: module.__version__ for module in (fastai, fastcore, torch, sklearn, np)
        },
        "inputs": INPUTS,
        "answers": answers,
    }
    FIXTURE.write_text(compact(record))


def compact(record: dict) -> str:
    "JSON with a line for each answer to a part of a question; inputs are on one line."
    text = written(record | {"inputs": "INPUTS"})
    return text.replace('"INPUTS"', json.dumps(record["inputs"]), 1)


if __name__ == "__main__":
    main()
