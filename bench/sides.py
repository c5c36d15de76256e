"""What one side of a race does, in a process of its own: `python sides.py --serve SIDE --folder FOLDER`.

coursekit and fastai have the same names, so that most races are written once. Each function makes an
action for one turn; only the action is timed. `n` says how much of the data is taken, for a first turn
that is not counted, or for a quick look.
"""

import argparse
import functools
import math
import random
import sys
from pathlib import Path

from helper import answer_orders

BATCH, SIDE = 64, 224
Y_RANGE = (0, 5.5)
CLASS_ROWS, FEATURES = 10_240, 512
LITE0_STATISTICS = [0.498] * 3, [0.502] * 3


# ---------------------------------------------------------------- names
class Names:
    "The names of one library, wherever they are."

    def __init__(self, *modules):
        self.modules = modules

    def __getattr__(self, name):
        return next(getattr(module, name) for module in self.modules if hasattr(module, name))


@functools.cache
def names_of(side: str) -> Names:
    if side == "fastai":
        import fastai.collab
        import fastai.vision.all

        return Names(fastai.vision.all, fastai.collab)
    import coursekit.all
    import coursekit.exporting
    import coursekit.tta
    import coursekit.vision

    return Names(coursekit.all, coursekit.vision)


def quietly(learn, train, measure: str = "accuracy") -> dict:
    "Train without a bar and a table, and say how good it was: `mse` is the loss on what is held out."
    with learn.no_bar(), learn.no_logging():
        train()
    return {measure: float(learn.recorder.values[-1][1 if measure == "mse" else 2])}


# ---------------------------------------------------------------- digits
def halves_of(folder: Path, n: int | None):
    "Pictures as floats `(items, 784)` and labels, of both halves."
    import numpy as np
    import torch

    for half in ("train", "valid"):
        x, y = (torch.from_numpy(np.load(folder / f"{half}_{part}.npy")[:n]) for part in "xy")
        yield x.float().div_(255).flatten(1), y.long()


def digits(side: str, folder: Path, turn: int, n: int | None = None):
    "An epoch of 784-50-10 by SGD with validation, one thread."
    import torch
    from torch import nn

    torch.set_num_threads(1)
    halves = list(halves_of(folder, n))
    torch.manual_seed(turn + 1)
    model = nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))
    if side == "bare loop":
        return bare_epoch(model, *halves)
    return fitted(names_of(side), halves, model)


def fitted(lib: Names, halves: list, model, rate: float = 0.1, bs: int = BATCH):
    "An epoch of a learner of either library, by SGD."
    from torch.utils.data import TensorDataset

    loaders = [
        lib.DataLoader(TensorDataset(*half), bs=bs, shuffle=not i, num_workers=0)
        for i, half in enumerate(halves)
    ]
    dls, loss = lib.DataLoaders(*loaders), lib.CrossEntropyLossFlat()
    learn = lib.Learner(dls, model, loss, opt_func=lib.SGD, metrics=lib.accuracy)
    return lambda: quietly(learn, lambda: learn.fit(1, rate))


def bare_epoch(model, train: tuple, valid: tuple, rate: float = 0.1, bs: int = BATCH):
    "An epoch without any library but PyTorch: batches by one index each, the fastest optimizer."
    import torch
    from torch.nn import functional as F

    opt = torch.optim.SGD(model.parameters(), lr=rate, fused=True)

    def epoch() -> dict:
        for rows in torch.randperm(len(train[0])).split(bs):
            F.cross_entropy(model(train[0][rows]), train[1][rows]).backward()
            opt.step()
            opt.zero_grad()
        with torch.no_grad():
            parts = zip(valid[0].split(bs), valid[1].split(bs), strict=True)
            right = sum((model(x).argmax(1) == y).sum().item() for x, y in parts)
        return {"accuracy": right / len(valid[0])}

    return epoch


def classes(side: str, folder: Path, turn: int, n: int, rows: int = CLASS_ROWS):
    "An epoch of one layer from 512 numbers to `n` classes, batches of 256."
    import torch
    from torch import nn

    chance = torch.Generator().manual_seed(0)
    x = torch.randn(rows, FEATURES, generator=chance)
    half = x, torch.randint(n, (rows,), generator=chance)
    small = half[0][: rows // 10], half[1][: rows // 10]
    model = nn.Linear(FEATURES, n)
    if side == "bare loop":
        return bare_epoch(model, half, small, bs=256)
    return fitted(names_of(side), [half, small], model, bs=256)


# ---------------------------------------------------------------- pictures
def loaders_of(lib, files, valid, side=SIDE, augmented=False, stats=None, workers=None, bs=BATCH):
    "Loaders of files, those at the places `valid` to validate on."
    change = lib.aug_transforms() if augmented else []
    normal = [lib.Normalize.from_stats(*(stats or lib.imagenet_stats))]
    block = lib.DataBlock(
        (lib.ImageBlock, lib.CategoryBlock),
        get_y=lib.parent_label,
        splitter=lib.IndexSplitter(valid),
        item_tfms=lib.RandomResizedCrop(side, min_scale=0.5),
        batch_tfms=[*change, *normal],
    )
    return block.dataloaders(files, bs=bs, num_workers=workers)


def files_in(folder: Path, n: int | None, seed: int = 0) -> list[Path]:
    "The first `n` files in an order that is the same for all; again from the start if there are fewer."
    files = sorted(folder.rglob("*.[jp]*g"))
    random.Random(seed).shuffle(files)
    n = n or len(files)
    return (files * math.ceil(n / len(files)))[:n]


def last_fifth(n: int) -> list[int]:
    "Places to validate on: a fifth, and what does not fill a batch, since only one side would train on that."
    return list(range(n * 4 // 5 // BATCH * BATCH, n))


@functools.cache
def kept_loader(side: str, folder: Path, n: int, workers: int | None, bs: int):
    files, valid = files_in(folder, n + 16), list(range(n, n + 16))
    lib, more = names_of(side), {"augmented": True, "workers": workers, "bs": bs}
    return loaders_of(lib, files, valid, **more).train


def loader(side: str, folder: Path, turn: int, n: int, kind: str, workers=None, bs: int = BATCH):
    "One pass over training pictures: open, random crop to 224, change, normalise; the steps are empty."
    batches = kept_loader(side, folder / kind, n, workers, bs)

    def run() -> dict:
        items = sum(len(x) for x, _ in batches)
        if items != n:
            raise ValueError(f"{items} items came, and not {n}")
        return {"items": items}

    return run


def resnet(side: str, folder: Path, n: int | None, pixels: int = SIDE, augmented=False, seed=0):
    "A learner with random weights that are the same on both sides."
    import torch

    lib, files = names_of(side), files_in(folder / "bears", n, seed)
    dls = loaders_of(lib, files, last_fifth(len(files)), pixels, augmented)
    learn = lib.vision_learner(dls, lib.resnet18, pretrained=False, metrics=lib.accuracy)
    weights = torch.load(folder / "resnet18.pth", weights_only=True)
    copy_body(learn, [v for name, v in weights.items() if not name.startswith("fc.")])
    return learn, files


def copy_body(learn, weights: list) -> None:
    for own, given in zip(learn.model[0].state_dict().values(), weights, strict=True):
        own.copy_(given)


def frozen(side: str, folder: Path, turn: int, n=None, pixels: int = SIDE, freeze: bool = True):
    "An epoch with validation, of the head alone or of all."
    if side == "timm":
        return timm_epoch(files_in(folder / "bears", n, turn), pixels, freeze)
    learn, _ = resnet(side, folder, n, pixels, seed=turn)
    (learn.freeze if freeze else learn.unfreeze)()
    return lambda: quietly(learn, lambda: learn.fit(1, 1e-3))


unfrozen = functools.partial(frozen, freeze=False)


class Labelled:
    "Files as timm wants them: an opened picture, changed, and the number of its folder."

    def __init__(self, files: list[Path]):
        self.files, self.transform = files, None
        self.kinds = sorted({file.parent.name for file in files})

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int):
        from PIL import Image

        file = self.files[i]
        picture = Image.open(file).convert("RGB")
        return self.transform(picture), self.kinds.index(file.parent.name)


def timm_epoch(files: list[Path], pixels: int, freeze: bool):
    "The same epoch with the loader, model and optimizer of timm, in the order of its training script."
    import timm
    import torch
    from timm.data import create_loader
    from timm.optim import create_optimizer_v2

    cut = last_fifth(len(files))[0]
    more = {"use_prefetcher": False, "num_workers": 2, "device": torch.device("cpu")}
    size = (3, pixels, pixels)
    train, valid = (
        create_loader(Labelled(part), size, BATCH, is_training=not i, scale=(0.5, 1), **more)
        for i, part in enumerate((files[:cut], files[cut:]))
    )
    model = timm.create_model("resnet18", num_classes=3)
    if freeze:
        model.requires_grad_(False).get_classifier().requires_grad_(True)
    loss = torch.nn.CrossEntropyLoss()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3)

    def epoch() -> dict:
        model.train(not freeze)
        for x, y in train:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            right = sum((model(x).argmax(1) == y).sum().item() for x, y in valid)
        return {"accuracy": right / len(valid.dataset)}

    return epoch


def lite0(side: str, folder: Path, turn: int, n=None, pixels: int = SIDE):
    "`fine_tune(1)` of an EfficientNet-Lite0 that has learned from ImageNet: frozen, then all of it."
    import torch

    lib, files = names_of(side), files_in(folder / "bears", n, turn)
    dls = loaders_of(lib, files, last_fifth(len(files)), pixels, stats=LITE0_STATISTICS)
    torch.manual_seed(turn + 1)
    learn = lib.vision_learner(dls, "tf_efficientnet_lite0", pretrained=False, metrics=lib.accuracy)
    weights = torch.load(next(folder.glob("efficientnet*.pth")), weights_only=True)
    copy_body(learn, [v for name, v in weights.items() if not name.startswith("_fc.")])
    learn.freeze()
    return lambda: quietly(learn, lambda: learn.fine_tune(1, 2e-3))


@functools.cache
def kept_learner(side: str, folder: Path, n: int, pixels: int):
    learn, _ = resnet(side, folder, 80, pixels, augmented=True)
    return learn, learn.dls.test_dl(files_in(folder / "bears", n), with_labels=True)


def predictions(side: str, folder: Path, turn: int, n: int, pixels: int = SIDE, looks: int = 0):
    "`get_preds` of all files, or `tta` with so many looks."
    learn, dl = kept_learner(side, folder, n, pixels)

    def run() -> dict:
        with learn.no_bar():
            found = learn.tta(dl=dl, n=looks) if looks else learn.get_preds(dl=dl)
        if len(found[0]) != n:
            raise ValueError(f"{len(found[0])} predictions came, and not {n}")
        return {}

    return run


get_preds, tta = predictions, functools.partial(predictions, looks=4)


def export(side: str, folder: Path, turn: int, n: int):
    "Write a learner with its way of data to a file."
    learn, _ = kept_learner(side, folder, n, SIDE)
    learn.path, name = folder, f"raced-{side}.pkl"
    return lambda: learn.export(name) and None


# ---------------------------------------------------------------- ratings
def table_in(folder: Path, n: int | None, name: str = "ratings"):
    import numpy as np
    import pandas as pd

    return pd.DataFrame(dict(np.load(folder / f"{name}.npz"))).head(n or sys.maxsize)


def recommender(side: str, folder: Path, turn: int, n=None, *, bs, epochs, rate, wd, factors):
    "One-cycle epochs of the dot product with biases, by each side's own learner."
    table = table_in(folder, n)
    if side in ("surprise", "implicit", "bare loop"):
        make = {"surprise": surprise, "implicit": implicit, "bare loop": bare_ratings}[side]
        return make(table, turn, epochs=epochs, rate=rate, wd=wd, factors=factors, bs=bs)
    lib = names_of(side)
    dls = lib.CollabDataLoaders.from_df(table, seed=turn + 1, bs=bs, device="cpu")
    lib_seed(side, turn + 1)
    learn = lib.collab_learner(dls, n_factors=factors, y_range=Y_RANGE)
    return lambda: quietly(learn, lambda: learn.fit_one_cycle(epochs, rate, wd=wd), "mse")


def distinct(side: str, folder: Path, turn: int):
    "The share of the training ratings that comes in an epoch of fastai's loader."
    from fastai.collab import CollabDataLoaders

    dls = CollabDataLoaders.from_df(table_in(folder, None), seed=turn + 1, device="cpu")
    drawn = dls.train.get_idxs()
    return lambda: {"distinct": len(set(drawn)) / len(drawn)}


def lib_seed(side: str, seed: int) -> None:
    import torch

    if side == "fastai":
        from fastai.torch_core import set_seed

        set_seed(seed)
    torch.manual_seed(seed)


def many_ratings(side: str, folder: Path, turn: int, n: int):
    "The loaders of a table and one epoch, batches of 8,192."
    table, lib = table_in(folder, None, f"ratings_{n}"), names_of(side)

    def run() -> dict:
        dls = lib.CollabDataLoaders.from_df(table, 0.05, seed=0, bs=8192, device="cpu")
        learn = lib.collab_learner(dls, n_factors=50, y_range=Y_RANGE)
        return quietly(learn, lambda: learn.fit_one_cycle(1, 5e-3, wd=0.1), "mse")

    return run


def halves_of_ratings(table, seed: int):
    "Places of users and films from 1 on (0: not in training), stars, and the rows of both halves."
    import numpy as np
    import pandas as pd
    import torch

    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
    cut = int(0.2 * len(table))
    train, valid = order[cut:], order[:cut]
    columns = [table[name].to_numpy() for name in ("user", "movie")]
    known = [np.unique(column[train]) for column in columns]
    pairs = zip(known, columns, strict=True)
    places = [torch.from_numpy(pd.Index(k).get_indexer(c) + 1) for k, c in pairs]
    return places, torch.from_numpy(table.rating.to_numpy(np.float32)), train, valid, known


def one_cycle(at: float, rate: float) -> tuple[float, float]:
    "Rate and momentum at a share of the way."

    def cosine(start: float, end: float, at: float) -> float:
        return start + (end - start) * (1 - math.cos(math.pi * at)) / 2

    if at < 0.25:
        return cosine(rate / 25, rate, at / 0.25), cosine(0.95, 0.85, at / 0.25)
    at = (at - 0.25) / 0.75
    return cosine(rate, rate / 1e5, at), cosine(0.85, 0.95, at)


def bare_ratings(table, seed: int, *, epochs, rate, wd, factors, bs):
    "The same without any library but PyTorch: the least that there is to do."
    import torch
    from torch import nn
    from torch.nn import functional as F

    (users, movies), stars, train, valid, known = halves_of_ratings(table, seed + 1)
    torch.manual_seed(seed + 1)
    tables = [nn.Embedding(len(ids) + 1, width) for width in (factors, 1) for ids in known]
    for each in tables:
        nn.init.trunc_normal_(each.weight, std=0.01, a=-0.02, b=0.02)
    u_factors, m_factors, u_bias, m_bias = tables
    low, high = Y_RANGE

    def model(rows):
        u, m = users[rows], movies[rows]
        scores = (u_factors(u) * m_factors(m)).sum(1) + (u_bias(u) + m_bias(m))[:, 0]
        return scores.sigmoid() * (high - low) + low

    params = [each.weight for each in tables]
    opt = torch.optim.AdamW(params, rate, betas=(0.95, 0.99), eps=1e-5, weight_decay=wd, fused=True)
    (group,), steps = opt.param_groups, epochs * (len(train) // bs)

    def run() -> dict:
        done = 0
        for _ in range(epochs):
            order = train[torch.randperm(len(train))]
            for rows in order[: len(train) // bs * bs].split(bs):
                group["lr"], beta = one_cycle(done / steps, rate)
                group["betas"], done = (beta, 0.99), done + 1
                F.mse_loss(model(rows), stars[rows]).backward()
                opt.step()
                opt.zero_grad()
        with torch.no_grad():
            for weight in params:  # what training has not seen is like the mean
                weight[0] = weight[1:].mean(0)
            return {"mse": F.mse_loss(model(valid), stars[valid]).item()}

    return run


def surprise(table, seed: int, *, epochs, factors, **_):
    "SVD of scikit-surprise: the same sum and product, its own SGD, as many epochs and factors."
    from surprise import SVD, Dataset, Reader
    from surprise.model_selection import train_test_split

    data = Dataset.load_from_df(table[["user", "movie", "rating"]], Reader(rating_scale=(1, 5)))
    train, valid = train_test_split(data, 0.2, random_state=seed + 1)
    model = SVD(n_factors=factors, n_epochs=epochs, random_state=seed + 1)

    def run() -> dict:
        model.fit(train)
        wrong = [(found.est - found.r_ui) ** 2 for found in model.test(valid)]
        return {"mse": sum(wrong) / len(wrong)}

    return run


def implicit(table, seed: int, *, epochs, factors, **_):
    "Alternating least squares of implicit: other model, as many passes and factors; it ranks, so no MSE."
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    (users, movies), stars, train, _, known = halves_of_ratings(table, seed + 1)
    places = users[train].numpy(), movies[train].numpy()
    shape = [len(ids) + 1 for ids in known]
    matrix = csr_matrix((stars[train].numpy(), places), shape)
    settings = {"iterations": epochs, "random_state": seed + 1, "num_threads": 1}
    model = AlternatingLeastSquares(factors, **settings)
    return lambda: model.fit(matrix, show_progress=False)


# ---------------------------------------------------------------- orders
ACTIONS = {
    "digits": digits,
    "loader": loader,
    "frozen": frozen,
    "unfrozen": unfrozen,
    "lite0": lite0,
    "get_preds": get_preds,
    "tta": tta,
    "export": export,
    "recommender": recommender,
    "distinct": distinct,
    "ratings": many_ratings,
    "classes": classes,
}


def profiled(action) -> None:
    "Run an action, and say in which functions its time goes."
    import cProfile
    import pstats

    profiler = cProfile.Profile()
    profiler.runcall(action)
    for key in ("tottime", "cumulative"):
        pstats.Stats(profiler).strip_dirs().sort_stats(key).print_stats(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", required=True, help="the side")
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()

    def maker(action: str, turn: int, **sizes):
        return ACTIONS[action](options.serve, options.folder, turn, **sizes)

    answer_orders(maker)


if __name__ == "__main__":
    main()
