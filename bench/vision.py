"""Race an epoch on photographs against fastai's, and see how well the bears are told apart.

    COURSEKIT_MIRROR=/path/to/data COURSEKIT_FASTAI=/path/to/python python bench/vision.py
    python bench/vision.py --rounds 5 --strict --only frozen
    python bench/vision.py --only lite0        # accuracy beside the time; fastai's Python needs timm
    python bench/vision.py --quality           # five splits: frozen, then all of it

ResNet-18 at 224 pixels on the 416 photographs of bears, in batches of 64, one epoch with validation: with a frozen
body, and with all of it learning. Both sides have the same files, split, sizes, steps and first weights, which are
random: a time does not depend on them. EfficientNet-Lite0 has the weights that were learned from ImageNet, so there
accuracy can be compared. Each racer is a process of its own, with the threads and workers that it takes by itself;
they take turns, who begins changes, and a first epoch on a few photographs is not counted. A ratio is that of two
epochs of the same round, so that a busy machine slows both. Where there are no photographs, bears are drawn, and the
table says so. Without `COURSEKIT_FASTAI` only our own side runs. A missed goal is reported; with `--strict` it is
also an error.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from helper import Helper
from learner import peak_memory, spread, verdict

BATCH, SIDE = 64, 224
WARM_UP = 96  # photographs
GOALS = {  # race: how many times as long as fastai's it may take
    "frozen": 1 / 4,
    "unfrozen": 1 / 1.3,
    "frozen, augmented": None,
    "unfrozen, augmented": None,
    "lite0": None,
}
LITE0_STATISTICS = [0.498] * 3, [0.502] * 3


# ---------------------------------------------------------------- what a racer does, in its own process
def their_names():
    import fastai.vision.all

    return fastai.vision.all


def our_names():
    import coursekit.all
    import coursekit.vision

    return coursekit.all, coursekit.vision


class Names:
    "The names of one library, wherever they are."

    def __init__(self, *modules):
        self.modules = modules

    def __getattr__(self, name):
        return next(getattr(module, name) for module in self.modules if hasattr(module, name))


def names_of(racer: str) -> Names:
    return Names(their_names()) if racer == "fastai" else Names(*our_names())


def files_of(folder: Path, photos: int | None, seed: int) -> tuple[list[Path], list[int]]:
    """Files in an order that is the same for both, and the places of those to validate on: a fifth, and what does not
    fill a batch, since only one of the two would train on that."""
    files = sorted((folder / "bears").rglob("*.[jp]*g"))
    random.Random(seed).shuffle(files)
    files = files[:photos]
    return files, list(range(len(files) * 4 // 5 // BATCH * BATCH, len(files)))


def loaders(lib: Names, folder: Path, augmented: bool, photos: int | None, statistics, seed=0):
    files, valid = files_of(folder, photos, seed)
    block = lib.DataBlock(
        (lib.ImageBlock, lib.CategoryBlock),
        get_y=lib.parent_label,
        splitter=lib.IndexSplitter(valid),
        item_tfms=lib.RandomResizedCrop(SIDE, min_scale=0.5),
        batch_tfms=[
            *(lib.aug_transforms() if augmented else []),
            lib.Normalize.from_stats(*statistics),
        ],
    )
    return block.dataloaders(files, bs=BATCH)


def resnet(lib: Names, folder: Path, augmented: bool, photos: int | None):
    "A learner with random weights that are the same on both sides."
    import torch

    dls = loaders(lib, folder, augmented, photos, lib.imagenet_stats)
    learn = lib.vision_learner(dls, lib.resnet18, pretrained=False, metrics=lib.accuracy)
    weights = torch.load(folder / "resnet18.pth", weights_only=True)
    body = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    for own, given in zip(learn.model[0].state_dict().values(), body.values(), strict=True):
        own.copy_(given)
    return learn


def lite0(lib: Names, folder: Path, photos: int | None, seed: int):
    "A learner with the weights learned from ImageNet, frozen."
    import torch

    dls = loaders(lib, folder, False, photos, LITE0_STATISTICS, seed)
    torch.manual_seed(seed)
    learn = lib.vision_learner(dls, "tf_efficientnet_lite0", pretrained=False, metrics=lib.accuracy)
    weights = torch.load(next(folder.glob("efficientnet*.pth")), weights_only=True)
    body = [value for name, value in weights.items() if not name.startswith("_fc.")]
    for own, given in zip(learn.model[0].state_dict().values(), body, strict=True):
        own.copy_(given)
    learn.freeze()
    return learn


def race_of(lib: Names, race: str, folder: Path, photos: int | None, seed: int) -> Callable:
    "A function that trains, and returns the accuracy."
    if race == "lite0":
        learn = lite0(lib, folder, photos, seed)
        train = lambda: learn.fine_tune(1, 2e-3)
    else:
        learn = resnet(lib, folder, "augmented" in race, photos)
        (learn.freeze if race.startswith("frozen") else learn.unfreeze)()
        train = lambda: learn.fit(1, 1e-3)

    def run() -> float:
        with learn.no_bar(), learn.no_logging():
            train()
        return float(learn.recorder.values[-1][2])

    return run


def serve(racer: str, folder: Path, photos: int | None) -> None:
    "For each line of the input, a race and a seed, an epoch and a line of JSON about it."
    lib = names_of(racer)
    for line in sys.stdin:
        order = json.loads(line)
        run = race_of(lib, order["race"], folder, order["photos"] or photos, order["seed"])
        start, busy = time.perf_counter(), busy_so_far()
        right = run()
        answer = {"seconds": time.perf_counter() - start, "busy": busy_so_far() - busy}
        print(
            f"\nANSWER {json.dumps(answer | {'accuracy': right, 'peak': peak_memory()})}",
            flush=True,
        )


def busy_so_far() -> float:
    "Seconds of the processors, with those of workers that have ended."
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


# ---------------------------------------------------------------- the race
def race(
    pythons: dict[str, str], races: list[str], folder: Path, rounds: int, photos: int | None
) -> dict[str, dict[str, list[dict]]]:
    "What each racer did in each round of each race."
    more = ["--photos", str(photos)] if photos else []
    racers = {
        name: Helper(python, __file__, name, folder, *more) for name, python in pythons.items()
    }
    done = {each: {name: [] for name in racers} for each in races}
    order = list(racers.items())
    for each in races:
        for racer in racers.values():
            racer.ask(race=each, seed=0, photos=WARM_UP)
        for turn in range(rounds):
            shift = turn % len(order)
            for name, racer in order[shift:] + order[:shift]:
                done[each][name].append(racer.ask(race=each, seed=turn, photos=None))
    for racer in racers.values():
        racer.close()
    return done


def tell(done: dict[str, dict[str, list[dict]]]) -> int:
    "Print the tables; return how many goals were missed."
    missed = 0
    for each, racers in done.items():
        what = (
            "fine_tune(1): one epoch frozen, one with all of it" if each == "lite0" else "one epoch"
        )
        print(f"{each}: {what}, with validation")
        for name, answers in racers.items():
            right = [answer["accuracy"] for answer in answers]
            shown = (
                f"   accuracy {statistics.mean(right):.3f} on the mean" if each == "lite0" else ""
            )
            times = spread([answer["seconds"] for answer in answers], "{:.1f}")
            busy = statistics.median(answer["busy"] for answer in answers)
            peak = max(answer["peak"] for answer in answers)
            print(
                f"  {name:12}{times:>24} s   processors {busy:.1f} s   memory {peak:,.0f} MB at most{shown}"
            )
        if len(racers) == 2:
            missed += tell_ratio(each, *racers.values())
    return missed


def tell_ratio(name: str, ours: list[dict], theirs: list[dict]) -> int:
    pairs = list(zip(ours, theirs, strict=True))
    wall, busy = ([a[key] / b[key] for a, b in pairs] for key in ("seconds", "busy"))
    words, missed = verdict(wall, GOALS[name])
    times = 1 / statistics.median(wall)
    print(
        f"  coursekit : fastai  x {spread(wall, '{:.2f}')}, {times:.2f} times as fast"
        f"   processors' time x {statistics.median(busy):.2f}{words}"
    )
    return int(missed)


# ---------------------------------------------------------------- quality
RECIPES = {  # name: what is done with a fresh learner
    "frozen, 2 epochs": lambda learn: learn.fit_one_cycle(2, 5e-3),
    "frozen, 4 epochs": lambda learn: learn.fit_one_cycle(4, 2e-3),
    "fine_tune(1)": lambda learn: learn.fine_tune(1, 2e-3),
    "fine_tune(1), averages kept": lambda learn: averages_kept(learn).fine_tune(1, 2e-3),
    "fine_tune(2, freeze_epochs=2)": lambda learn: learn.fine_tune(2, 2e-3, freeze_epochs=2),
}


def averages_kept(learn):
    "Batch norm of the body computes as in prediction, in the unfrozen epochs too."
    from torch import nn

    from coursekit.events import Callback

    class BodyNormsInEval(Callback):
        def before_train(self):
            for module in self.learn.model[0].modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    return learn.add_cb(BodyNormsInEval())


def quality(folder: Path, splits: int, side: int, augmented: bool, chosen: str | None) -> None:
    "Accuracy of each recipe on several splits, and the seconds that one takes."
    import torch

    import coursekit.all as ck
    from coursekit.bodies import efficientnet_lite0
    from coursekit.vision import vision_learner

    for name, recipe in RECIPES.items():
        if chosen and chosen not in name:
            continue
        right, seconds = [], []
        for split in range(splits):
            torch.manual_seed(split)
            crop = ck.RandomResizedCrop(side, min_scale=0.5) if augmented else ck.Resize(side)
            block = ck.DataBlock(
                (ck.ImageBlock, ck.CategoryBlock),
                ck.get_image_files,
                ck.RandomSplitter(seed=split),
                get_y=ck.parent_label,
                item_tfms=crop,
                batch_tfms=ck.aug_transforms() if augmented else None,
            )
            learn = vision_learner(
                block.dataloaders(folder / "bears", bs=32), efficientnet_lite0, metrics=ck.accuracy
            )
            start = time.perf_counter()
            with learn.no_bar(), learn.no_logging():
                recipe(learn)
            seconds.append(time.perf_counter() - start)
            right.append(float(learn.recorder.values[-1][2]))
            print(f"    split {split}: {right[-1]:.3f} in {seconds[-1]:.0f} s", flush=True)
        least = f"{statistics.mean(right):.4f} on the mean, {min(right):.3f} at least"
        how = f"{side} px{', augmented' if augmented else ''}"
        print(
            f"  {name:36} {how:18} {least}, {statistics.median(seconds):.0f} s a split", flush=True
        )


# ---------------------------------------------------------------- what there is to learn from
def keep_data(folder: Path) -> str:
    "Photographs, or drawings in their place, and weights, for processes that know nothing of coursekit."
    import torch
    import torchvision

    from coursekit.datasets import URLs, untar_data
    from coursekit.drawn_bears import draw_bears
    from coursekit.messages import DataError

    try:
        path, words = untar_data(URLs.BEARS), "photographs"
    except DataError:
        path, words = draw_bears(n=416, size=256), "drawings"
    for kind in ("black", "grizzly", "teddy"):
        shutil.copytree(path / kind, folder / "bears" / kind)
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), folder / "resnet18.pth")
    shutil.copy(next(untar_data(URLs.EFFICIENTNET_LITE0).glob("*.pth")), folder)
    return words


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--fastai", default=os.environ.get("COURSEKIT_FASTAI"), help="a Python that has fastai 2"
    )
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each racer (3)")
    parser.add_argument("--only", choices=GOALS, action="append", help="one race; may be repeated")
    parser.add_argument("--photos", type=int, help="how many photographs; all if left out")
    parser.add_argument("--strict", action="store_true", help="a missed goal is an error")
    parser.add_argument("--quality", action="store_true", help="accuracy on several splits")
    parser.add_argument("--splits", type=int, default=5, help="of --quality (5)")
    parser.add_argument("--side", type=int, default=SIDE, help="pixels, of --quality (224)")
    parser.add_argument("--augmented", action="store_true", help="of --quality")
    parser.add_argument("--recipe", help="of --quality: those with this in their name")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.folder, options.photos)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        words = keep_data(Path(folder))
        shown = f"{options.photos or 416} {words}"
        if options.quality:
            print(f"EfficientNet-Lite0 on {shown}")
            quality(Path(folder), options.splits, options.side, options.augmented, options.recipe)
            return 0
        if not options.fastai:
            print("no COURSEKIT_FASTAI: only our own side runs")
        pythons = {"coursekit": sys.executable} | (
            {"fastai": options.fastai} if options.fastai else {}
        )
        print(f"{shown}, {SIDE} pixels, batches of {BATCH}")
        races = options.only or ["frozen", "unfrozen"]
        missed = tell(race(pythons, races, Path(folder), options.rounds, options.photos))
    load = f", {os.getloadavg()[0]:.1f} processes in the last minute"
    print(f"medians of {options.rounds} rounds; {os.cpu_count()} cores{load}")
    print(f"{missed} goals missed" if missed else "no goal missed")
    return int(options.strict and missed > 0)


if __name__ == "__main__":
    sys.exit(main())
