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

from functools import cache, partial
from itertools import product

import pandas as pd
import torch
import torch.nn.functional as F
from kept import Kept, main, others, show_ways, some_of_each
from pictures import features, linear_head

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
RATES, TUNED_ON, SEEDS = (3e-3, 1e-2, 3e-2), (100, 101), 5
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


def result(said, y) -> list[float]:
    "Share of right answers, and of 6 for 9 and 3 for 5 or the other way round."
    pairs = [((y == a) & (said == b)) | ((y == b) & (said == a)) for a, b in ((6, 9), (3, 5))]
    return [share.float().mean().item() for share in (said == y, *pairs)]


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


def network(*args, **options) -> torch.nn.Module:
    return simple_cnn(*args, bn=True, **options).to(memory_format=torch.channels_last)


def digits(way: str, epochs: int, rate: float, seed: int, tune: bool) -> list[float]:
    (x, y), valid, test = mnist()
    index = some_of_each(y, 20, seed)
    torch.manual_seed(seed)
    model = network((1, 12, 24, 24), n_out=10, places=4)
    change = partial(changed, WAYS["digits"][way], training=True)
    train(model, x[index], y[index], change, epochs, rate, 40)
    unseen, right = valid if tune else test
    with torch.no_grad():
        return result(model(unseen).argmax(1), right)


def photos(way: str, epochs: int, rate: float, seed: int, tune: bool) -> list[float]:
    x, y = photographs(80)
    index = some_of_each(y, 15, seed)
    rest = others(y, index)
    torch.manual_seed(seed)
    model = network((3, 16, 32, 64, 64), n_out=4)
    tfms = WAYS["photos"][way]
    train(model, x[index], y[index], partial(changed, tfms, training=True), epochs, rate, 20)
    with torch.no_grad():
        said = model(changed(tfms, x[rest], training=False)).argmax(1)
    return result(said, y[rest])[:1]


# how, how many epochs, how many while rates are chosen, and steps in an epoch
TRAININGS = {"digits": (digits, (15, 60), 15, 5), "photos": (photos, (15, 45), 15, 3)}


def best_rate(task: str, way: str) -> float:
    "Of the tuning runs."
    tuned = KEPT.frame().query("task == @task and way == @way and use == 'tune'")
    return tuned.groupby("rate").accuracy.mean().idxmax()


def from_nothing(task: str) -> None:
    action, all_epochs, middle, each = TRAININGS[task]

    def row(task, way, epochs, rate, seed, use) -> list:
        return [epochs * each, *action(way, epochs, rate, seed, use == "tune")]

    tried = product(TUNED_ON, WAYS[task], RATES)
    KEPT.fill(((task, way, middle, rate, seed, "tune") for seed, way, rate in tried), row)
    asked = product(range(SEEDS), all_epochs, WAYS[task])
    keys = ((task, way, n, best_rate(task, way), seed, "test") for seed, n, way in asked)
    KEPT.fill(keys, row)


# ---------------------------------------------------------------- a trained body
@cache
def copies(way: str, size: int = 128) -> list[torch.Tensor]:
    "Features of the photographs, changed in one way, several times."
    tfms, n = photo_ways(size)[way], 1 if way == "as they are" else COPIES
    x, _ = photographs(160)
    torch.manual_seed(0)
    pictures = [changed(tfms, x, training=n > 1) for _ in range(n)]
    return list(map(features, pictures))


@cache
def resized(way: str, size: int = 128) -> torch.Tensor:
    return features(photographs(size, way)[0] / 255)


def head_row(task: str, way: str, epochs: str, rate: str, seed: int, use: str) -> list:
    "A linear head on five of each; it is tried on unchanged pictures, or on those of its own size."
    y = photographs(160)[1]
    index = some_of_each(y, 5, seed)
    rest = others(y, index)
    learned = copies(way) if task == "frozen" else [resized(way)]
    asked = copies("as they are")[0] if task == "frozen" else resized(way)
    train_x = torch.cat([x[index] for x in learned])
    said = linear_head(train_x, y[index].repeat(len(learned)), asked[rest], least=1e-3, steps=60)
    return ["", *result(said, y[rest])[:1]]


def on_features(task: str) -> None:
    ways = list(photo_ways(128)) if task == "frozen" else ["crop", "squish", "pad"]
    keys = ((task, way, "", "", seed, "test") for seed, way in product(range(20), ways))
    KEPT.fill(keys, head_row)


# ---------------------------------------------------------------- the command
def run(task: str) -> None:
    (from_nothing if task in TRAININGS else on_features)(task)


def show(table: pd.DataFrame) -> None:
    show_ways(table.query("use == 'test'"), ["task", "epochs"], "seed", COLUMNS[7:])


ABOUT = (
    "",
    f"rates tuned on seeds {TUNED_ON}, of {RATES}; digits: 20 of each; photos: 15"
    " of each class at 64 px; frozen and sizes: 5 of each class at 128 px",
)
if __name__ == "__main__":
    main(__doc__, KEPT, ABOUT, run, [*TRAININGS, "frozen", "sizes"], show)
