"""Inputs, schedules, the best epoch, fine-tuning and kept averages, each at its own best rate.

    nice python bench/steps.py                      # all parts; or --only cycle
    python bench/steps.py --table                   # rates chosen, means, paired differences

The comparisons of lessons 05 (part `inputs`) and 06 that take longer than a lesson. Within a part all ways have the
same data, the same first weights and order for a seed, and the same number of steps unless
the name of the way says otherwise. A rate is chosen on validation pictures (2,000 of MNIST's
training set, `valid`), and judged on others (its test set, `test`); for the photographs, of
which there are few, on the other folds. A row of bench/steps.csv is written as soon as its
training is over; the same command again goes on where it was stopped.
"""

from copy import deepcopy
from functools import cache
from itertools import product

import pandas as pd
import torch
import torch.nn.functional as F
from kept import Kept, main, show_ways, some_of_each
from pictures import features, photos
from torch import nn
from torch.utils.data import TensorDataset

import coursekit.training  # noqa: F401, learners get fit_one_cycle from it
from coursekit.bodies import efficientnet_lite0
from coursekit.convolutions import ConvLayer
from coursekit.datasets import URLs, untar_data
from coursekit.digits import load_mnist
from coursekit.events import Callback
from coursekit.learner import Learner
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.optimizers import SGD, Adam
from coursekit.schedules import ParamScheduler, SchedCos, SchedNo, combined_cos

COLUMNS = ["part", "way", "epochs", "rate", "seed", "steps", "valid", "test", "other"]
KEPT = Kept(__file__, COLUMNS)
SEEDS, FOLDS = 3, 5


# ---------------------------------------------------------------- data and learners
@cache
def digits() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    "6,000 digits to learn from, 2,000 to choose by, 10,000 to judge by."
    folder = untar_data(URLs.MNIST)
    x, y = load_mnist(folder, "train")
    parts = {"train": slice(0, 6000), "valid": slice(50_000, 52_000)}
    return {n: (x[s], y[s]) for n, s in parts.items()} | {"test": load_mnist(folder, "test")}


def learner(model, data, bs: int, seed: int, splitter=None, **options) -> Learner:
    "Without validation on the way: `right` is asked at the end."
    train = DataLoader(TensorDataset(*data), bs=bs, shuffle=True, seed=seed, **options)
    few = DataLoader(TensorDataset(*(part[:10] for part in data)), bs=10)
    more = {"splitter": splitter} if splitter else {}
    return Learner(DataLoaders(train, few), model, F.cross_entropy, opt_func=Adam, **more)


@torch.no_grad()
def right(model, data) -> float:
    x, y = data
    model.eval()
    return (torch.cat([model(b).argmax(1) for b in x.split(2000)]) == y).float().mean().item()


def judged(learn: Learner, *tests) -> list[float]:
    return [len(learn.recorder.losses), *(right(learn.model, test) for test in tests)]


def small_net(seed: int, opt_func=Adam) -> Learner:
    "784, 50 and 10 units, on 4,000 digits in batches of 64, as in the lesson."
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))
    learn = learner(model, [part[:4000] for part in digits()["train"]], 64, seed)
    learn.opt_func = opt_func
    return learn


# ---------------------------------------------------------------- which schedule
SCHEDULES = {
    "constant": lambda rate: SchedNo(rate, rate),
    "rise alone": lambda rate: combined_cos(0.25, rate / 25, rate, rate),
    "fall alone": lambda rate: SchedCos(rate, rate / 1e5),
    "rise and fall": lambda rate: combined_cos(0.25, rate / 25, rate, rate / 1e5),
}
CYCLE_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1)


def cycle(way: str, epochs: int, rate: float, seed: int) -> list[float]:
    learn = small_net(seed)
    with learn.no_logging():
        learn.fit(epochs, rate, cbs=ParamScheduler({"lr": SCHEDULES[way](rate)}))
    return [*judged(learn, digits()["valid"], digits()["test"]), ""]


# ---------------------------------------------------------------- which epoch
BEST = ("last epoch", "lowest loss", "highest accuracy")
BEST += tuple(f"again, {way}" for way in BEST[1:])


class Looks(Callback):
    "What `look` says after each epoch."

    def __init__(self, look):
        self.look, self.seen = look, []

    def after_epoch(self):
        self.seen.append(self.look(self.learn.model.eval()))


@cache
def cycle_with_lies(epochs: int, rate: float, seed: int) -> tuple[int, list]:
    """One cycle on 1,000 digits, a fifth with labels drawn at random: steps, and for each
    epoch the loss and right answers on `valid` and the right answers on `test`."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(6000, generator=generator)[:1000]
    x, y = (part[chosen] for part in digits()["train"])
    drawn = torch.rand(1000, generator=generator) < 0.2
    y[drawn] = torch.randint(10, (int(drawn.sum()),), generator=generator)
    valid, test = digits()["valid"], digits()["test"]

    @torch.no_grad()
    def look(model):
        scores = model(valid[0])
        loss = F.cross_entropy(scores, valid[1]).item()
        hit = (scores.argmax(1) == valid[1]).float().mean().item()
        return loss, hit, right(model, test)

    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    learn, kept = learner(model, (x, y), 64, seed), Looks(look)
    with learn.no_logging():
        learn.fit_one_cycle(epochs, rate, cbs=kept)
    return len(learn.recorder.losses), kept.seen


def best(way: str, epochs: int, rate: float, seed: int) -> list[float]:
    "`other`: the epoch chosen, from 0."
    steps, seen = cycle_with_lies(epochs, rate, seed)
    sign, column = (-1, 0) if "loss" in way else (1, 1)
    which = max(range(epochs), key=lambda i: sign * seen[i][column])
    if way == "last epoch":
        which = epochs - 1
    if way.startswith("again"):
        more, seen = cycle_with_lies(which + 1, rate, seed)
        steps += more
    _, hit, judged_at = seen[which]
    return [steps, hit, judged_at, float(which)]


# ---------------------------------------------------------------- how the inputs come in
INPUTS = ("as they are", "standardised", "line, as they are", "line, standardised")


@cache
def brought(how: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    "20,000 digits to learn from, 10,000 to choose by, 10,000 to judge by, `(n, 784)`."
    folder = untar_data(URLs.MNIST)
    (x, y), (test_x, test_y) = (load_mnist(folder, half) for half in ("train", "test"))
    mean, sd = x[:50_000].mean(), x[:50_000].std()
    minus, over = {"as they are": (0, 1), "standardised": (mean, sd)}[how]
    parts = (x[:20_000], y[:20_000]), (x[50_000:], y[50_000:]), (test_x, test_y)
    return {
        name: ((a.flatten(1) - minus) / over, b)
        for name, (a, b) in zip(("train", "valid", "test"), parts, strict=True)
    }


def inputs(way: str, epochs: int, rate: float, seed: int) -> list[float]:
    "Plain descent; `other`: units that are on for more than 80 % of the validation digits."
    data = brought(way.removeprefix("line, "))
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))
    if way.startswith("line"):
        model = nn.Sequential(nn.Linear(784, 10))
    learn = learner(model, data["train"], 64, seed, drop_last=True)
    learn.opt_func = SGD
    with learn.no_logging():
        learn.fit(epochs, rate, wd=0)
    on = ""
    if len(model) > 1:
        with torch.no_grad():
            active = (model[:2](data["valid"][0]) > 0).float().mean(0)
        on = float((active > 0.8).sum())
    return [*judged(learn, data["valid"], data["test"]), on]


# ---------------------------------------------------------------- fifty pictures of new digits
def parts_of(model) -> list[list]:
    return [list(part.parameters()) for part in model]


def conv_net() -> nn.Sequential:
    body = [ConvLayer(a, b, stride=2) for a, b in ((1, 8), (8, 16), (16, 32))]
    return nn.Sequential(*body, nn.Sequential(nn.Flatten(), nn.Linear(512, 5)))


@cache
def tasks() -> dict[str, tuple]:
    "The digits 0 to 4 are the old task, 5 to 9 the new one."
    old = {f"old {n}": (x[y < 5], y[y < 5]) for n, (x, y) in digits().items()}
    return old | {f"new {n}": (x[y > 4], y[y > 4] - 5) for n, (x, y) in digits().items()}


@cache
def pretrained(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    learn = learner(conv_net(), tasks()["old train"], 64, 0)
    with learn.no_logging():
        learn.fit_one_cycle(2, 1e-2)
    return learn.model


def few_digits(seed: int, body: bool) -> Learner:
    x, y = tasks()["new train"]
    chosen = some_of_each(y, 10, seed)
    torch.manual_seed(seed)
    model = conv_net()
    if body:
        model[:3].load_state_dict(pretrained(seed)[:3].state_dict())
    return learner(model, (x[chosen], y[chosen]), 16, seed, splitter=parts_of)


def head_alone(learn: Learner, epochs: int, rate: float) -> None:
    learn.freeze()
    learn.fit_one_cycle(epochs, rate)


TRANSFERS = {
    "fine_tune": lambda learn, n, rate: learn.fine_tune(2 * n // 3, rate, freeze_epochs=n // 3),
    "unfreezing forgotten": head_alone,
    "one rate for all": lambda learn, n, rate: learn.fit_one_cycle(n, rate),
    "from scratch": lambda learn, n, rate: learn.fit_one_cycle(n, rate),
    "from scratch, three times the steps": lambda learn, n, rate: learn.fit_one_cycle(3 * n, rate),
}
TRANSFER_RATES = (2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2)


def transfer(way: str, epochs: int, rate: float, seed: int) -> list[float]:
    "`other`: right answers on the old task, with the old head on the body."
    learn, counted = few_digits(seed, not way.startswith("from scratch")), []
    learn.model.register_forward_hook(
        lambda model, *_: counted.append(1) if model.training else None
    )
    with learn.no_logging():
        TRANSFERS[way](learn, epochs, rate)
    found = judged(learn, tasks()["new valid"], tasks()["new test"])
    model = nn.Sequential(*learn.model[:3], pretrained(seed)[3])
    return [len(counted), *found[1:], right(model, tasks()["old test"])]


# ---------------------------------------------------------------- averages of batch norm
@cache
def photographs() -> tuple[torch.Tensor, torch.Tensor, nn.Module]:
    "What the first part of a pretrained net makes of 122 photographs, and its last part."
    x, y = photos(96)
    net = efficientnet_lite0().eval()
    early = nn.Sequential(net.conv_stem, net.bn1, *net.blocks[:6])
    late = nn.Sequential(*net.blocks[6:], net.conv_head, net.bn2, net.global_pool)
    seen = features(x, early)
    order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(0))
    return seen[order], y[order], late


@torch.no_grad()
def recount(learn: Learner) -> None:
    "Averages of the finished net over all that it was trained on, at once."
    norms = [m for m in learn.model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
    learn.model.train()
    learn.model(learn.dls.train.dataset.tensors[0])


def averages(way: str, epochs: int, rate: float, fold: int) -> list[float]:
    "`valid`: loss of the held out fold; `test`: its right answers."
    x, y, late = photographs()
    held = torch.arange(len(x)) % FOLDS == fold
    torch.manual_seed(fold)
    model = nn.Sequential(deepcopy(late), nn.Linear(1280, 4))
    learn = learner(model, (x[~held], y[~held]), 16, fold, splitter=parts_of, drop_last=True)
    learn.bn_eval = way == "kept"
    with learn.no_logging():
        learn.fine_tune(epochs, rate, freeze_epochs=2)
    if way == "counted anew, then once more":
        recount(learn)
    model.eval()
    with torch.no_grad():
        loss = F.cross_entropy(model(x[held]), y[held]).item()
    return [(epochs + 2) * len(learn.dls.train), loss, right(model, (x[held], y[held])), ""]


# ---------------------------------------------------------------- what is run
NORMS = ("kept", "counted anew", "counted anew, then once more")
PARTS = {  # what trains, its ways with their rates, epochs, seeds
    "inputs": (inputs, dict.fromkeys(INPUTS, (0.03, 0.1, 0.3, 1.0)), (1,), 4),
    "cycle": (cycle, dict.fromkeys(SCHEDULES, CYCLE_RATES), (2,), 4),
    "cycle, longer": (cycle, dict.fromkeys(SCHEDULES, CYCLE_RATES[1:]), (10,), 2),
    "best": (best, dict.fromkeys(BEST, (5e-3,)), (20,), 3),
    "transfer": (transfer, dict.fromkeys(TRANSFERS, TRANSFER_RATES), (30,), SEEDS),
    "averages": (averages, dict.fromkeys(NORMS, (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)), (4,), 3),
}


def run(part: str) -> None:
    train, ways, budgets, seeds = PARTS[part]
    # seed by seed and way by way, so that a busy hour or a stop falls on all of them
    keys = (
        (part.partition(",")[0], way, epochs, rate, seed)
        for seed, epochs, (way, rates) in product(range(seeds), budgets, ways.items())
        for rate in rates
    )
    KEPT.fill(keys, lambda part, *key: train(*key))


def show(table: pd.DataFrame) -> None:
    "Each way at the rate with the best mean of `valid`."
    sign = table.part.map(lambda part: -1 if part == "averages" else 1)
    groups = ["part", "epochs", "way"]
    by_rate = (sign * table.valid).groupby([table[key] for key in [*groups, "rate"]], sort=False)
    best = list(by_rate.mean().groupby(groups, sort=False).idxmax())
    for part, way, rate in ((key[0], *key[2:]) for key in best):
        print(f"{part}: {way} at {rate:g}")
    rows = table.set_index([*groups, "rate"]).loc[best].reset_index()
    show_ways(rows, ["part", "epochs"], "seed", ["test", "valid", "other"])


ABOUT = (
    "",
    "valid and test: share of right answers, the rate is chosen by the first; for the averages"
    " the loss and the right answers of the held out fold",
)
if __name__ == "__main__":
    main(__doc__, KEPT, ABOUT, run, PARTS, show)
