"""Does augmentation help? Digits, and photographs with and without a trained body, over seeds.

    nice python bench/augmentation.py            # every task; or --only digits
    python bench/augmentation.py --table         # means and spreads over the seeds

digits: 200 of MNIST, tried on 2000 others. photos: 60 of the 122 photographs of the package,
a net from nothing, tried on the other 62. frozen: 20 of them, a linear head on the features
of EfficientNet-Lite0, tried on the other 102. sizes: the same head, for pictures cropped,
squished and padded. The sides of a table have the same pictures, the same number of steps,
and each the rate of three that does best on pictures (digits) or splits (photos) that are not
in the table; a head is fitted to the end, so it has no rate. A row of bench/augmentation.csv
is written as soon as its training is over; the same command again goes on where it stopped.
"""

import argparse
import sys
from functools import cache, partial
from itertools import product

import torch
import torch.nn.functional as F
from drawn_bears import frozen_body
from kept import Kept, versions

from coursekit.augment import BatchTransform, aug_transforms
from coursekit.convolutions import simple_cnn
from coursekit.data import get_image_files, parent_label
from coursekit.datasets import URLs, untar_data
from coursekit.digits import load_mnist
from coursekit.resizing import Resize
from coursekit.transforms import IntToFloat, PILImage, ToTensor, arrange

COLUMNS = ["task", "way", "epochs", "rate", "seed", "use", "steps"]
COLUMNS += ["accuracy", "six_nine", "three_five"]
KEPT = Kept(__file__, COLUMNS)
RATES, TUNED_ON = (3e-3, 1e-2, 3e-2), (100, 101)
GENTLE = {"max_rotate": 12, "max_zoom": 1.15, "min_zoom": 0.9, "max_warp": 0.15}
GENTLE |= {"max_lighting": 0, "pad_mode": "zeros"}
COPIES = 4  # changed versions of each photograph, for a head on frozen features

WAYS = {
    "digits": {
        "as they are": [],
        "gentle": aug_transforms(do_flip=False, **GENTLE),
        "mirrored": aug_transforms(**GENTLE),
        "upside down": aug_transforms(do_flip=False, **GENTLE | {"max_rotate": 180}),
    }
}


def photo_ways(size: int) -> dict[str, list]:
    "Lists of transforms that all end at `size` pixels."
    return {
        "as they are": [BatchTransform(size=size)],
        "mirrored": aug_transforms(max_rotate=0, max_zoom=1, max_warp=0, max_lighting=0, size=size),
        "usual": aug_transforms(size=size),
        "parts": aug_transforms(size=size, min_scale=0.6),
        "upside down": aug_transforms(flip_vert=True, max_rotate=180, size=size),
    }


WAYS["photos"] = photo_ways(64)


def changed(tfms: list, x: torch.Tensor, training: bool) -> torch.Tensor:
    for step in arrange([IntToFloat, *tfms]):
        x = step(x, training=training)
    return x


def train(model, x, y, change, epochs: int, rate: float, bs: int):
    "Lesson 04's loop: one cycle of AdamW, each batch changed anew."
    steps = -(-len(x) // bs)
    optimiser = torch.optim.AdamW(model.parameters(), rate, fused=True)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * steps)
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(bs):
            F.cross_entropy(model(change(x[index])), y[index]).backward()
            optimiser.step()
            optimiser.zero_grad()
            plan.step()
    return model.eval()


def result(said, y) -> list[str]:
    "Share of right answers, and of 6 for 9 and 3 for 5 or the other way round."
    pairs = [((y == a) & (said == b)) | ((y == b) & (said == a)) for a, b in ((6, 9), (3, 5))]
    return [f"{share.float().mean():.4f}" for share in (said == y, *pairs)]


def chosen(y: torch.Tensor, each: int, seed: int) -> torch.Tensor:
    "Which are trained on: `each` of every class."
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    kinds = range(int(y.max()) + 1)
    return torch.cat([order[y[order] == kind][:each] for kind in kinds])


@cache
def mnist() -> tuple:
    "Pictures and labels: to train on, to choose rates on, to try on."
    path = untar_data(URLs.MNIST)
    (x, y), (test_x, test_y) = load_mnist(path), load_mnist(path, "test")
    return (x[:50000], y[:50000]), (x[50000:52000], y[50000:52000]), (test_x[:2000], test_y[:2000])


@cache
def photographs(size: int, method: str = "crop") -> tuple[torch.Tensor, torch.Tensor]:
    "All 122 as bytes, brought to `size` by their middle, with their classes."
    files = sorted(get_image_files(untar_data(URLs.PHOTOS)))
    kinds = sorted({parent_label(file) for file in files})
    resize = Resize(size, method, "zeros")
    x = torch.stack([ToTensor().image(resize(PILImage.create(file))) for file in files])
    return x, torch.tensor([kinds.index(parent_label(file)) for file in files])


def digits(way: str, epochs: int, rate: float, seed: int, tune: bool) -> list[str]:
    (x, y), valid, test = mnist()
    index = chosen(y, 20, seed)
    torch.manual_seed(seed)
    model = simple_cnn((1, 12, 24, 24), bn=True, n_out=10, places=4)
    model = model.to(memory_format=torch.channels_last)
    change = partial(changed, WAYS["digits"][way], training=True)
    train(model, x[index], y[index], change, epochs, rate, 40)
    unseen, right = valid if tune else test
    with torch.no_grad():
        return result(model(unseen).argmax(1), right)


def photos(way: str, epochs: int, rate: float, seed: int, tune: bool) -> list[str]:
    x, y = photographs(80)
    index = chosen(y, 15, seed)
    rest = torch.ones(len(y), dtype=torch.bool)
    rest[index] = False
    torch.manual_seed(seed)
    model = simple_cnn((3, 16, 32, 64, 64), bn=True, n_out=4)
    model = model.to(memory_format=torch.channels_last)
    tfms = WAYS["photos"][way]
    train(model, x[index], y[index], partial(changed, tfms, training=True), epochs, rate, 20)
    with torch.no_grad():
        said = model(changed(tfms, x[rest], training=False)).argmax(1)
    return result(said, y[rest])[:1]


# how, how many epochs, how many while rates are chosen, and steps in an epoch
TRAININGS = {"digits": (digits, (15, 60), 15, 5), "photos": (photos, (15, 45), 15, 3)}


@cache
def body():
    return frozen_body()


@torch.no_grad()
def features(x: torch.Tensor) -> torch.Tensor:
    "What the trained body makes of floats from 0 to 1, `(n, 1280)`."
    return torch.cat([body()((part - 0.498) / 0.502) for part in x.split(40)])


def head_accuracy(train_x, train_y, x, y, decay: float = 0.01) -> list[str]:
    "Of a linear head, fitted to the end, on standardised features."
    mean, std = train_x.mean(0), train_x.std(0) + 1e-3
    train_x, x = (train_x - mean) / std, (x - mean) / std
    head = torch.zeros(train_x.shape[1] + 1, 4, requires_grad=True)
    optimiser = torch.optim.LBFGS([head], max_iter=60)

    def loss():
        optimiser.zero_grad()
        value = F.cross_entropy(train_x @ head[1:] + head[0], train_y)
        value = value + decay / 2 * head[1:].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return result((x @ head[1:] + head[0]).argmax(1), y)[:1]


def frozen_rows(size: int = 128, each: int = 5, seeds: int = 20):
    "Heads on features of changed photographs; of unchanged ones; of other ways to one size."
    x, y = photographs(160)
    bank = {}
    for name, tfms in photo_ways(size).items():
        torch.manual_seed(0)
        copies = 1 if name == "as they are" else COPIES
        bank[name] = [features(changed(tfms, x, training=copies > 1)) for _ in range(copies)]
        print("features:", name, flush=True)
    plain = bank["as they are"][0]
    sizes = {way: features(photographs(size, way)[0] / 255) for way in ("crop", "squish", "pad")}
    for seed in range(seeds):
        index = chosen(y, each, seed)
        rest = torch.ones(len(y), dtype=torch.bool)
        rest[index] = False
        for way, versions_of in bank.items():
            train_x = torch.cat([each[index] for each in versions_of])
            train_y = y[index].repeat(len(versions_of))
            yield "frozen", way, seed, head_accuracy(train_x, train_y, plain[rest], y[rest])
        for way, found in sizes.items():
            yield "sizes", way, seed, head_accuracy(found[index], y[index], found[rest], y[rest])


def best_rate(task: str, way: str) -> float:
    "Of the tuning runs."
    table = KEPT.frame()
    mine = table[(table.task == task) & (table.way == way) & (table.use == "tune")]
    return mine.groupby("rate").accuracy.mean().idxmax()


def run(task: str, seeds: int) -> None:
    action, all_epochs, middle, each = TRAININGS[task]
    table = KEPT.frame()
    done = set(table[["task", "way", "epochs", "rate", "seed"]].itertuples(index=False, name=None))
    for seed, way, rate in product(TUNED_ON, WAYS[task], RATES):
        if (task, way, middle, rate, seed) not in done:
            found = action(way, middle, rate, seed, True)
            KEPT.add(task, way, middle, rate, seed, "tune", middle * each, *found)
    for seed, epochs, way in product(range(seeds), all_epochs, WAYS[task]):
        rate = best_rate(task, way)
        if (task, way, epochs, rate, seed) not in done:
            found = action(way, epochs, rate, seed, False)
            KEPT.add(task, way, epochs, rate, seed, "test", epochs * each, *found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=[*TRAININGS, "frozen"], help="one task")
    parser.add_argument("--seeds", type=int, default=5, help="of a training from nothing")
    parser.add_argument("--table", action="store_true", help="show what was found")
    asked = parser.parse_args()
    if asked.table:
        test = KEPT.frame().query("use == 'test'").groupby(["task", "epochs", "way"], dropna=False)
        print(test[COLUMNS[7:]].agg(["mean", "std", "count"]).round(4).to_string())
        return
    torch.set_num_threads(1)
    KEPT.begin(
        f"python bench/augmentation.py; {versions()}",
        f"rates tuned on seeds {TUNED_ON}, of {RATES}; digits: 20 of each; photos: 15"
        " of each class at 64 px; frozen and sizes: 5 of each class at 128 px",
    )
    for task in TRAININGS:
        if asked.only in (None, task):
            run(task, asked.seeds)
    if asked.only in (None, "frozen") and not KEPT.frame().task.isin(["frozen"]).any():
        for task, way, seed, found in list(frozen_rows()):
            KEPT.add(task, way, "", "", seed, "test", "", *found)


if __name__ == "__main__":
    sys.exit(main())
