"""Questions about collaborative filtering to a library with the names of fastai 2, and a way to write down the answers.

    /path/to/fastai/bin/python tests/collab_oracle.py

writes `tests/fixtures/collab_oracle.json`; `test_collab.py` puts the same questions to coursekit. As in
`training_oracle.py`, `lib` is a namespace with the names of one library, this file imports neither, and everything is
computed in double precision. fastai's own loader of ratings draws with replacement, so both libraries train on batches
that are given.
"""

import json
import platform
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from data_oracle import failure, written
from torch import nn
from training_oracle import SINGLE, doubles, integers, own_defaults, plain, quietly, values

FIXTURE = Path(__file__).parent / "fixtures" / "collab_oracle.json"
QUESTIONS, TOLERANCE = {}, {}


def question(share: float = 3e-7, least: float = 1e-11):
    "As in `training_oracle`, but kept in a list of our own."

    def register(ask_it):
        QUESTIONS[ask_it.__name__], TOLERANCE[ask_it.__name__] = ask_it, (share, least)
        return ask_it

    return register


# ---------------------------------------------------------------- inputs
def ratings(n: int = 60, users: int = 9, movies: int = 12) -> pd.DataFrame:
    "The same table everywhere, each pair of user and movie at most once; user 999 has one rating, in a late row."
    pairs = list(dict.fromkeys(integers(1, 5 * n, users * movies)))[:n]
    table = pd.DataFrame({"user": [7 * (p // movies) % 31 + 1 for p in pairs]})
    table["movie"] = [3 * (p % movies) + 20 for p in pairs]
    table["rating"] = [stars + 1 for stars in integers(2, n, 5)]
    table["title"] = [f"Film {movie}" for movie in table["movie"]]
    table.loc[n - 2, "user"] = 999
    return table


def tables() -> dict:
    "Tables, and what is asked for with each."
    plain_one = ratings()
    return {
        "numbers": (plain_one, {}),
        "texts": (plain_one.assign(user="u" + plain_one["user"].astype(str)), {}),
        "text that looks like numbers": (plain_one.astype({"user": str, "movie": str}), {}),
        "titles": (plain_one, {"item_name": "title"}),
        "columns in another order": (
            plain_one[["title", "user", "rating", "movie"]],
            {"user_name": "user", "item_name": "movie", "rating_name": "rating"},
        ),
        "repeated rows": (pd.concat([plain_one, plain_one[:7]], ignore_index=True), {}),
        "half stars": (plain_one.assign(rating=plain_one["rating"] - 0.5), {}),
        "valid_pct": (plain_one, {"valid_pct": 0.35}),
    }


def given_weights(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    "Names and parameters of the model, which now hold waves; fastai's norm of no columns has none."
    named = [(name, p) for name, p in model.named_parameters() if p.numel()]
    with torch.no_grad():
        for seed, (_, p) in enumerate(named):
            wave = torch.sin(torch.arange(p.numel(), dtype=torch.float64) * 0.7 + seed)
            p.copy_((wave * (2 / p.shape[-1]) ** 0.5 if p.ndim > 1 else 1 + wave / 4).view(p.shape))
    return named


def asked(model: nn.Module, pairs: torch.Tensor, wanted: torch.Tensor) -> dict:
    "What comes out, and the gradients of a squared error."
    named = given_weights(model)
    out = model(pairs).reshape(-1)
    ((out - wanted) ** 2).mean().backward()
    return {"out": out.detach(), "gradients": [p.grad for _, p in named]}


PAIRS = torch.stack([torch.tensor(integers(3, 11, 5)), torch.tensor(integers(4, 11, 7))], 1)
WANTED = values(5, 11)


# ---------------------------------------------------------------- small functions
@question()
def rule(lib, _):
    sizes = [*range(1, 150), 611, 944, 1665, 9725, 31_000, 39_000, 40_000, 100_000, 10**6]
    return {"emb_sz_rule": [lib.emb_sz_rule(n) for n in sizes]}


@question()
def small_functions(lib, _):
    numbers = doubles(values(6, 9, most=4.0))
    one_hot = {
        "int": lib.one_hot(2, 5),
        "list": lib.one_hot([0, 3], 5),
        "L": lib.one_hot(lib.L(1, 3), 5),
        "tensor": lib.one_hot(torch.tensor([4, 1]), 5),
        "none": lib.one_hot([], 3),
        "too large": failure(lib.one_hot, 5, 5),
    }
    return {
        "one_hot": one_hot,
        "one_hot dtype": str(lib.one_hot(1, 2).dtype),
        "sigmoid_range": lib.sigmoid_range(numbers, 0.5, 5.5),
        "SigmoidRange": lib.SigmoidRange(-1, 3)(numbers),
    }


@question(share=1e-8, least=1e-9)
def components(lib, _):
    "Principal components; the sign of each, which is free, such that its largest value is positive."

    def signed(x):
        return x * x.gather(0, x.abs().argmax(0, keepdim=True)).sign()

    tall, wide = doubles(values(7, 20, 5)), doubles(values(8, 4, 9))
    return {
        "default": signed(tall.pca()),
        "3": signed(tall.pca(3)),
        "all": signed(tall.pca(5)),
        "1": signed(tall.pca(1)),
        "wide": signed(wide.pca(2)),
    }


# ---------------------------------------------------------------- tables
@question()
def splits_and_classes(lib, folder):
    "Which rows are on which side, ids in the order of their numbers, rows of validation as numbers."
    answer = {}
    for name, (table, options) in tables().items():
        dls = lib.CollabDataLoaders.from_df(
            table, seed=42, path=folder, bs=64, val_bs=64, **options
        )
        pairs, stars = dls.valid.one_batch()[:2]
        answer[name] = {
            "train": list(dls.train_ds.items.index),
            "valid": list(dls.valid_ds.items.index),
            "classes": {column: list(ids) for column, ids in dls.classes.items()},
            "numbers": pairs,
            "ratings": stars.reshape(-1),
            "get_emb_sz": lib.get_emb_sz(dls),
            "get_emb_sz, one given": lib.get_emb_sz(dls, {list(dls.classes)[1]: 3}),
            "batch sizes": [dls.train.bs, dls.valid.bs],
        }
    return answer


@question()
def from_a_file(lib, folder):
    ratings().to_csv(folder / "ratings.csv", index=False)
    options = {"seed": 3, "item_name": "title", "bs": 8}
    dls = lib.CollabDataLoaders.from_csv(folder / "ratings.csv", **options)
    return {"classes": {k: list(v) for k, v in dls.classes.items()}, "bs": dls.train.bs}


# ---------------------------------------------------------------- models
@question()
def dot_product(lib, _):
    answer = {}
    for name, y_range in {"free": None, "stars": (0.5, 5.5), "other": (-1, 1)}.items():
        model = lib.EmbeddingDotBias(3, 5, 7, y_range)
        answer[name] = asked(model, PAIRS, doubles(WANTED))
        answer[name]["named"] = [(key, list(p.shape)) for key, p in model.named_parameters()]
    return answer


@question(share=1e-6)
def net(lib, _):
    "In training and not, with dropout of the same draws."
    sizes, answer = [(5, 3), (7, 4)], {}
    for name, layers, options in (
        ("default", [6], {}),
        ("two layers", [6, 4], {}),
        ("no layers", [], {}),
        ("stars", [6], {"y_range": (0.5, 5.5)}),
        ("dropout", [6, 4], {"ps": 0.4}),
        ("dropout, one each", [6, 4], {"ps": [0.2, 0.5]}),
        ("dropout of the embeddings", [6], {"embed_p": 0.3, "ps": 0.1, "y_range": (0.5, 5.5)}),
    ):
        model = lib.EmbeddingNN(sizes, layers, **options)
        torch.manual_seed(4)
        trained = asked(model, PAIRS, doubles(WANTED))
        means = [b for key, b in model.named_buffers() if key.endswith("mean") and b.numel()]
        with torch.no_grad():
            out = model.eval()(PAIRS).reshape(-1)
        shapes = [list(p.shape) for p in model.parameters() if p.numel()]
        answer[name] = {"train": trained, "means": means, "eval": out, "shapes": shapes}
    return answer


@question()
def by_id(lib, _):
    "Biases and factors of movies and users."
    classes = {
        "who": ["#na#", "ann", "bob", "cy"],
        "what": ["#na#", 20, 23, 29, 31],
        "when": ["#na#", 1],
    }
    model = lib.EmbeddingDotBias.from_classes(3, classes, y_range=(0, 5))
    given_weights(model)
    turned = lib.EmbeddingDotBias.from_classes(2, classes, user="what", item="who")
    given_weights(turned)
    return {
        "bias": model.bias([31, 20]),
        "bias of users": model.bias(["cy", "ann"], is_item=False),
        "weight": model.weight([23, 23, 29]),
        "weight of users": model.weight(["bob"], is_item=False),
        "turned": turned.bias(["bob", "ann"]),
        "turned, users": turned.weight([31, 20], is_item=False),
        "detached": not model.weight([23]).requires_grad,
        "unknown": failure(model.bias, [99]),
        "sizes": [list(p.shape) for p in model.parameters()],
    }


# ---------------------------------------------------------------- training
def squared_error(out, wanted):
    return ((out.reshape(-1) - wanted.reshape(-1)) ** 2).mean()


def trained(lib, folder, how: str = "fit_one_cycle", wd: float | None = 0.1, **options) -> dict:
    "Two epochs of four batches of given rows; the first row of a table is left out, it is nobody's."
    table = ratings()[:58]
    dls = lib.CollabDataLoaders.from_df(table, seed=42, path=folder)
    options = {"y_range": (0, 5.5), "n_factors": 4, "loss_func": squared_error} | options
    learn = lib.collab_learner(dls, **options)
    named = given_weights(learn.model)
    rows = [
        (torch.tensor([user, movie]), torch.tensor(star + 1.0))
        for user, movie, star in zip(
            [n + 1 for n in integers(11, 45, 8)],
            [n + 1 for n in integers(12, 45, 11)],
            integers(13, 45, 5),
            strict=True,
        )
    ]
    same = {"bs": 8, "shuffle": False, "drop_last": False, "num_workers": 0}
    learn.dls = lib.DataLoaders(
        lib.DataLoader(rows[:32], **same), lib.DataLoader(rows[32:], **same)
    )
    quietly(learn, lambda: getattr(learn, how)(2, 5e-3, wd=wd))
    lost = learn.recorder.values  # noqa: PD011 (no table)
    return {
        "losses": [[float(each) for each in epoch] for epoch in lost],
        "weights": [p[1:] if "weight" in key and p.ndim == 2 else p for key, p in named],
        "predicted": quietly(learn, learn.get_preds)[0].reshape(-1),
    }


@question(share=2e-6, least=1e-9)
def training(lib, folder):
    return {
        "as in the book": trained(lib, folder),
        "without range": trained(lib, folder, y_range=None),
        "wd of the learner": trained(lib, folder, wd=None),
        "fit": trained(lib, folder, how="fit"),
        "fine_tune": trained(lib, folder, how="fine_tune", wd=0.2),
        "net": trained(lib, folder, use_nn=True, layers=[6, 4]),
        "net, sizes given": trained(lib, folder, use_nn=True, emb_szs={"user": 3}, layers=[5]),
    }


@question(**SINGLE)
def default_loss(lib, folder):
    "Which fastai computes in single precision."
    dls = lib.CollabDataLoaders.from_df(ratings(), seed=42, path=folder)
    learn = lib.collab_learner(dls)
    column, row = doubles(values(20, 9, 1)), doubles(values(21, 9))
    return {
        "loss": learn.loss_func(row, doubles(values(22, 9))),
        "of columns": learn.loss_func(column, row[:, None]),
        "factors": list(learn.model.u_weight.weight.shape),
        "net": [
            list(p.shape)
            for p in lib.collab_learner(dls, use_nn=True).model.parameters()
            if p.numel()
        ],
    }


# ---------------------------------------------------------------- arguments
def arguments(function) -> list[str]:
    "Names that the function itself takes, in order; the rest goes to others."
    function = function.__init__ if isinstance(function, type) else function
    code = getattr(function, "__func__", function).__code__
    return list(code.co_varnames[: code.co_argcount])


@question()
def signatures(lib, _):
    wanted = {
        "from_df": lib.CollabDataLoaders.from_df,
        "from_csv": lib.CollabDataLoaders.from_csv,
        "collab_learner": lib.collab_learner,
        "EmbeddingDotBias": lib.EmbeddingDotBias,
        "from_classes": lib.EmbeddingDotBias.from_classes,
        "bias": lib.EmbeddingDotBias.bias,
        "weight": lib.EmbeddingDotBias.weight,
        "EmbeddingNN": lib.EmbeddingNN,
        "get_emb_sz": lib.get_emb_sz,
        "emb_sz_rule": lib.emb_sz_rule,
        "Embedding": lib.Embedding,
        "one_hot": lib.one_hot,
        "sigmoid_range": lib.sigmoid_range,
        "pca": torch.Tensor.pca,
    }
    return {
        name: {
            "names": arguments(function),
            "defaults": own_defaults(getattr(function, "__func__", function)),
        }
        for name, function in wanted.items()
    }


# ---------------------------------------------------------------- asking
def ask(name: str, lib) -> dict:
    "The answer of one library, as JSON would give it back, computed in double precision by one thread."
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return json.loads(json.dumps(plain(QUESTIONS[name](lib, Path(folder)))))
    finally:
        torch.set_default_dtype(before)
        torch.set_num_threads(threads)


def main():
    import fastai
    import fastai.callback.schedule
    import fastai.collab
    import fastai.learner
    import fastai.tabular.all
    import fastcore

    for module in (fastai.learner, fastai.callback.schedule):
        module.tensor = doubles  # its `tensor` rounds doubles to single precision
    lib = SimpleNamespace(**vars(fastai.tabular.all) | vars(fastai.collab))
    lib.emb_sz_rule = fastai.tabular.model.emb_sz_rule
    answers = {}
    for name in QUESTIONS:
        print(name, flush=True)
        answers[name] = ask(name, lib)
    record = {
        "command": "python tests/collab_oracle.py, in an environment with fastai",
        "versions": {"python": platform.python_version()}
        | {module.__name__: module.__version__ for module in (fastai, fastcore, torch, np, pd)},
        "answers": answers,
    }
    FIXTURE.write_text(written(record))


if __name__ == "__main__":
    main()
