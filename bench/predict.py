"""Race the first answer of an application against fastai: import, load an exported learner, name one photograph.

    COURSEKIT_FASTAI=/path/to/python python bench/predict.py     # a Python that has fastai 2
    python bench/predict.py --rounds 9 --strict
    python bench/predict.py --profile                            # what our own side imports, and how long that takes

Both sides export a learner with a ResNet-18, two classes and the same random weights, made for pictures of 224 x 224.
Then each answer is a process of its own, from the start of Python to its end; the two take turns, who begins changes,
and the first answer of each is not counted. A ratio is that of two answers of the same round, so that a busy machine
slows both. That both sides do the same work is checked: their probabilities have to agree. Without `COURSEKIT_FASTAI`
only our own side runs. A missed goal is reported; with `--strict` it is also an error.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GOAL = 0.5  # of fastai's time
SIZE, PARTS = 224, ("import", "load", "predict")


# ---------------------------------------------------------------- what is prepared
def draw_photos(folder: Path) -> None:
    "Pictures of the size that a telephone sends: sky above, and a hill of one of two colours."
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(0)
    y, x = np.mgrid[0:960, 0:1280]
    for name, colour in (("grass", (70, 140, 60)), ("sand", (200, 170, 110))):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            hill = y > 500 + 150 * np.sin(x / chance.uniform(100, 300) + i)
            picture = np.where(hill[..., None], colour, (120, 160, 220))
            noise = chance.normal(0, 12, (960, 1280, 1))
            pixels = (picture + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg", quality=90)


def prepare(side: str, folder: Path) -> None:
    "Export a learner; fastai's gets the weights of ours, so that the two must agree."
    import torch

    weights = folder / "weights.pth"
    if side == "coursekit":
        import coursekit.exporting  # noqa: F401  adds `export`
        from coursekit.bodies import resnet18
        from coursekit.image_loaders import ImageDataLoaders
        from coursekit.resizing import Resize
        from coursekit.vision import vision_learner
    else:
        from fastai.vision.all import ImageDataLoaders, Resize, resnet18, vision_learner
    dls = ImageDataLoaders.from_folder(
        folder / "photos", valid_pct=0.3, item_tfms=Resize(SIZE), bs=4, num_workers=0, device="cpu"
    )
    torch.manual_seed(0)
    learn = vision_learner(dls, resnet18, pretrained=False, path=folder)
    if side == "coursekit":
        torch.save(learn.model.state_dict(), weights)
    else:
        learn.model.load_state_dict(torch.load(weights))
    learn.model.eval()
    learn.export(f"{side}.pkl")


# ---------------------------------------------------------------- what is raced
def answer(side: str, folder: Path) -> None:
    "What an application does until it has its first answer; a line of JSON about it."
    start = time.perf_counter()
    if side == "coursekit":
        from coursekit.exporting import load_learner
    else:
        from fastai.vision.all import load_learner
    imported = time.perf_counter()
    learn = load_learner(folder / f"{side}.pkl")
    loaded = time.perf_counter()
    with learn.no_bar():
        said, _, probabilities = learn.predict(folder / "photos" / "sand" / "0.jpg")
    done = time.perf_counter()
    seconds = dict(zip(PARTS, (imported - start, loaded - imported, done - loaded), strict=True))
    print(f"ANSWER {json.dumps([str(said), probabilities.tolist(), seconds])}")


def run(python: str, side: str, folder: Path, step: str = "answer", *options: str) -> dict:
    "One process, and what it took: wall and processor's seconds of all of it, and of its parts."
    command = [python, "-W", "ignore", *options, __file__, "--step", step, "--side", side]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*command, "--folder", str(folder)], capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{side} failed at: {step}\n{done.stderr[-2000:]}")
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {"whole": wall, "busy": busy, "errors": done.stderr}
    if step == "answer":
        line = next(line for line in done.stdout.splitlines() if line.startswith("ANSWER "))
        found["said"], found["probabilities"], seconds = json.loads(line.removeprefix("ANSWER "))
        found |= seconds
    return found


def race(pythons: dict[str, str], folder: Path, rounds: int) -> dict[str, list[dict]]:
    took = {side: [] for side in pythons}
    for turn in range(rounds + 1):
        order = list(pythons.items())
        for side, python in order[:: -1 if turn % 2 else 1]:
            found = run(python, side, folder)
            if turn:  # the first time files are read from the disk, and compiled
                took[side].append(found)
    return took


# ---------------------------------------------------------------- what is told
def spread(values: list[float], form: str = "{:,.0f}") -> str:
    return f"{form} ({form} to {form})".format(statistics.median(values), min(values), max(values))


def tell(took: dict[str, list[dict]]) -> int:
    "Print the table; return how many goals were missed."
    print(
        f"import, load and predict one photograph, ResNet-18, {SIZE} x {SIZE}, a fresh process, ms"
    )
    for side, answers in took.items():
        parts = ", ".join(
            f"{part} {1000 * statistics.median(each[part] for each in answers):,.0f}"
            for part in PARTS
        )
        print(
            f"  {side:12}{spread([1000 * each['whole'] for each in answers]):>26}   of that {parts}"
        )
    if len(took) < 2:
        return 0
    pairs = list(zip(took["coursekit"], took["fastai"], strict=True))
    for a, b in pairs:
        apart = max(abs(p - q) for p, q in zip(a["probabilities"], b["probabilities"], strict=True))
        if apart > 0.02 or a["said"] != b["said"]:
            raise SystemExit(f"they do not agree: {a['probabilities']} and {b['probabilities']}")
    print(f"  their probabilities differ by {apart:.4f} at most")
    wall, busy = ([a[key] / b[key] for a, b in pairs] for key in ("whole", "busy"))
    missed = statistics.median(wall) > GOAL
    print(
        f"  coursekit : fastai   x {spread(wall, '{:.2f}')}   processor's time x {spread(busy, '{:.2f}')}"
        f"   goal at most {GOAL:.3g}: {'MISSED' if missed else 'met'}"
    )
    return int(missed)


def profile(folder: Path, least: int = 20_000) -> None:
    "The modules that take longest to import, with all below them, in milliseconds."
    lines = run(sys.executable, "coursekit", folder, "answer", "-X", "importtime")["errors"]
    rows = [
        line.partition(":")[2].split("|") for line in lines.splitlines() if line.count("|") == 2
    ]
    rows = [(int(total), name) for _, total, name in rows if total.strip().isdigit()]
    for total, name in sorted(rows, reverse=True):
        if total > least and (len(name) - len(name.lstrip())) <= 5:
            print(f"  {total / 1000:8,.0f}  {name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--fastai", default=os.environ.get("COURSEKIT_FASTAI"), help="a Python that has fastai 2"
    )
    parser.add_argument("--rounds", type=int, default=7, help="answers of each side (7)")
    parser.add_argument("--strict", action="store_true", help="a missed goal is an error")
    parser.add_argument("--profile", action="store_true", help="what our side imports")
    parser.add_argument("--step", choices=["prepare", "answer"], help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        {"prepare": prepare, "answer": answer}[options.step](options.side, options.folder)
        return 0
    pythons = {"coursekit": sys.executable}
    if options.fastai and not options.profile:
        pythons["fastai"] = options.fastai
    elif not options.profile:
        print("no COURSEKIT_FASTAI: only our own side runs")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_photos(folder / "photos")
        for side, python in pythons.items():
            run(python, side, folder, "prepare")
        if options.profile:
            profile(folder)
            return 0
        missed = tell(race(pythons, folder, options.rounds))
    load = f", {os.getloadavg()[0]:.1f} processes in the last minute"
    print(f"medians of {options.rounds} rounds; {os.cpu_count()} cores{load}")
    print(f"{missed} goals missed" if missed else "no goal missed")
    return int(options.strict and missed > 0)


if __name__ == "__main__":
    sys.exit(main())
