"""Race the data path against fastai's and against a bare loop.

    COURSEKIT_FASTAI=/path/to/python python bench/data.py        # a Python that has fastai 2
    python bench/data.py --pairs 9 --strict --only images

Each library works in a process of its own, and the two take turns: one pass each, as often as `--pairs` says, after a
pass that is not counted. The ratio is that of each pair, so that a busy machine slows both. Without `COURSEKIT_FASTAI`
only our own side runs. A missed goal is reported; with `--strict` it is also an error.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TRAIN, VALID, LONG_SIDE = 512, 16, 320
DIGITS, PIXELS, BATCH = 60_000, 784, 64
FASTER_THAN_FASTAI, SLOWER_THAN_BARE = 3.0, 1.3


# ---------------------------------------------------------------- what one library does, in its own process
def names_of(library: str):
    "The names that both libraries share."
    if library == "fastai":
        import fastai.vision.all as names

        return names
    from types import SimpleNamespace

    import coursekit.augment
    import coursekit.data

    return SimpleNamespace(**vars(coursekit.data) | vars(coursekit.augment))


def image_loader(names, folder: str, workers: int | None, item: str, batch: bool):
    tfm = {"random crop": names.RandomResizedCrop, "resize": names.Resize}[item](224)
    block = names.DataBlock(
        blocks=(names.ImageBlock, names.CategoryBlock),
        get_items=names.get_image_files,
        get_y=names.parent_label,
        splitter=names.FuncSplitter(lambda file: int(file.stem) >= TRAIN),
        item_tfms=tfm,
        batch_tfms=names.aug_transforms() if batch else None,
    )
    return block.dataloaders(folder, bs=BATCH, num_workers=workers).train


def tensors():
    import torch

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(DIGITS, PIXELS, generator=generator)
    return x, torch.randint(10, (DIGITS,), generator=generator)


class BareLoop:
    "Batches by one index each, over a new order: what there is to do, and nothing else."

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __iter__(self):
        import torch

        for indices in torch.randperm(len(self.x)).split(BATCH):
            yield self.x[indices], self.y[indices]


def memory_loader(names, kind: str):
    import torch
    from torch.utils.data import TensorDataset

    torch.set_num_threads(1)  # as the lessons on tensors of this size do
    x, y = tensors()
    if kind == "bare":
        return BareLoop(x, y)
    if kind == "torch":
        return torch.utils.data.DataLoader(TensorDataset(x, y), BATCH, shuffle=True)
    pairs = list(zip(x, y, strict=True)) if kind == "pairs" else TensorDataset(x, y)
    return names.DataLoader(pairs, bs=BATCH, shuffle=True, num_workers=0)


def one_pass(loader) -> int:
    "Items that came; the steps are empty."
    return sum(len(batch[0]) for batch in loader)


def processor_seconds() -> float:
    "What this process and the workers that have ended have used."
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def serve(library: str) -> None:
    "Answer requests, a line of JSON each, with the seconds and the items of one pass; loaders are kept."
    names, loaders = names_of(library), {}
    makers = {"image": image_loader, "memory": memory_loader}
    for line in sys.stdin:
        if line not in loaders:
            request = json.loads(line)
            loaders[line] = makers[request.pop("loader")](names, **request)
        start, busy = time.perf_counter(), processor_seconds()
        items = one_pass(loaders[line])
        answer = {"items": items, "seconds": time.perf_counter() - start}
        answer["busy"] = processor_seconds() - busy
        print("ANSWER", json.dumps(answer), flush=True)


# ---------------------------------------------------------------- the race
class Runner:
    "A library in a process of its own."

    def __init__(self, python: str, library: str):
        command = [python, "-W", "ignore", __file__, "--serve", library]
        self.library = library
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def run(self, request: dict) -> tuple[float, float]:
        "Seconds of one pass, and of processors' time; the process works only now."
        self.process.stdin.write(json.dumps(request) + "\n")
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                answer = json.loads(line.removeprefix("ANSWER "))
                wanted = TRAIN if request["loader"] == "image" else DIGITS
                if answer["items"] != wanted:
                    raise SystemExit(f"{self.library}: {answer['items']} items and not {wanted}")
                return answer["seconds"], answer["busy"]
        raise SystemExit(f"{self.library} stopped with status {self.process.wait()}")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=30)


@dataclass
class Row:
    "Times of several runners for one thing, in pairs: ours first, what it is compared with last."

    what: str
    unit: str  # "/s" counts items a second, and the ratio says how much faster we are; else how much slower
    items: int
    times: dict[str, list[tuple[float, float]]]  # seconds, and of processors' time
    goal: float | None = None

    def value(self, name: str) -> str:
        seconds = statistics.median(wall for wall, _ in self.times[name])
        if self.unit == "/s":
            return f"{name} {self.items / seconds:,.0f} /s"
        return f"{name} {seconds * 1000:,.0f} ms"

    def ratios(self, which: int = 0) -> list[float]:
        ours, other = ([time[which] for time in times] for times in self.times.values())
        faster = [theirs / mine for mine, theirs in zip(ours, other, strict=True)]
        return faster if self.unit == "/s" else [1 / ratio for ratio in faster]

    def met(self) -> bool | None:
        if self.goal is None or len(self.times) < 2:
            return None
        ratio = statistics.median(self.ratios())
        return ratio >= self.goal if self.unit == "/s" else ratio <= self.goal

    def processors(self) -> str:
        "Processors' time, which a busy machine disturbs less."
        shown = [
            1000 * statistics.median(busy for _, busy in times) / self.items
            for times in self.times.values()
        ]
        text = (
            "   processors " + " and ".join(f"{milliseconds:.1f}" for milliseconds in shown) + " ms"
        )
        return text + (f", x {statistics.median(self.ratios(1)):.2f}" if len(shown) > 1 else "")

    def __str__(self):
        text = f"{self.what:50}" + "".join(f"{self.value(name):>24}" for name in self.times)
        if len(self.times) > 1:
            ratios = self.ratios()
            text += f"   x {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        if self.met() is not None:
            sign, word = (
                "at least" if self.unit == "/s" else "at most",
                "met" if self.met() else "MISSED",
            )
            text += f"   goal {sign} {self.goal:g}: {word}"
        return text + (self.processors() if self.unit == "/s" else "")


def race(runners: dict, requests: dict, pairs: int) -> dict[str, list[tuple[float, float]]]:
    "Times of each request, taking turns; who begins changes, and the first pass of each is not counted."
    for runner, request in requests.values():
        runners[runner].run(request)
    times = {name: [] for name in requests}
    for turn in range(pairs):
        for name, (runner, request) in list(requests.items())[:: 1 if turn % 2 else -1]:
            times[name].append(runners[runner].run(request))
    return times


def race_images(runners: dict, folder: Path, pairs: int):
    "Rows for training pictures, and for reading them alone."
    settings = [("its own workers", None), ("no workers", 0), ("2 workers", 2)]
    whole = {"loader": "image", "folder": str(folder), "item": "random crop", "batch": True}
    alone = whole | {"batch": False}
    passes = {"training pictures": whole, "decode and random crop alone": alone}
    passes["decode and resize alone"] = alone | {"item": "resize"}
    for words, request in passes.items():
        for how, workers in settings if request is whole else settings[:2]:
            requests = {name: (name, request | {"workers": workers}) for name in runners}
            # of the row with equal workers: left alone, fastai starts some and we for few small pictures none
            goal = FASTER_THAN_FASTAI if request is whole and workers == 2 else None
            yield Row(f"{words}, {how}", "/s", TRAIN, race(runners, requests, pairs), goal)


def race_memory(runners: dict, pairs: int):
    "Rows for an epoch of empty steps over digits in memory, each against a bare loop."
    bare = {"loader": "memory", "kind": "bare"}
    rows = [("coursekit", "torch")] + [
        (name, kind) for name in runners for kind in ("loader", "pairs")
    ]
    for name, kind in rows:
        asked, shown = {"loader": "memory", "kind": kind}, "torch" if kind == "torch" else name
        requests = {shown: (name, asked), "bare loop": ("coursekit", bare)}
        goal = SLOWER_THAN_BARE if (name, kind) == ("coursekit", "loader") else None
        what = f"{DIGITS:,} digits, " + (
            "pairs in a list" if "pairs" in kind else "a TensorDataset"
        )
        yield Row(what, "ms", DIGITS, race(runners, requests, pairs), goal)


def race_imports(pythons: dict[str, str], pairs: int):
    "A row for the seconds that an import takes once torch is there."
    code = "import time, torch; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    modules = {"coursekit": "coursekit.data", "fastai": "fastai.vision.all"}
    compiled = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    times = {name: [] for name in pythons}
    for turn in range(pairs + 1):
        for name, python in pythons.items():
            command = [python, "-W", "ignore", "-c", code.format(modules[name])]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=compiled)
            took = float(done.stdout)
            if turn:
                times[name].append((took, took))
    yield Row("import of coursekit.data, fastai.vision.all", "ms", 1, times)


# ---------------------------------------------------------------- pictures
def draw_photos(folder: Path) -> float:
    "Write pictures that are as hard to decode as photographs: soft shapes, texture, grain. Mean size in kB."
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    sizes = [(LONG_SIDE, LONG_SIDE * 3 // 4), (LONG_SIDE * 3 // 4, LONG_SIDE)]
    grain = [
        octave(rng, (LONG_SIDE, LONG_SIDE), cells) for cells in (40, 80, 160, 320) for _ in range(4)
    ]
    for index in range(TRAIN + VALID):
        width, height = sizes[index % 2]
        image = (
            128
            + 50 * octave(rng, (LONG_SIDE, LONG_SIDE), 3)
            + 30 * octave(rng, (LONG_SIDE, LONG_SIDE), 12)
        )
        for level, strength in enumerate((14, 11, 9, 6)):
            texture = grain[4 * level + index % 4]
            image = image + strength * np.roll(texture, (int(rng.integers(99)), index), axis=(0, 1))
        file = folder / "ab"[index // 2 % 2] / f"{index:04}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(image.clip(0, 255).astype("uint8")[:height, :width]).save(file, quality=90)
    return statistics.mean(file.stat().st_size for file in folder.glob("*/*.jpg")) / 1000


def octave(rng, size: tuple[int, int], cells: int):
    "Smooth noise with `cells` bumps across, `(height, width, 3)`, mostly between -1 and 1."
    import numpy as np
    from PIL import Image

    small = rng.normal(size=(cells, cells, 3)).clip(-2.5, 2.5)
    image = Image.fromarray(((small + 2.5) * 51).astype("uint8")).resize(
        size, Image.Resampling.BICUBIC
    )
    return np.asarray(image, dtype="float32") / 51 - 2.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--fastai", default=os.environ.get("COURSEKIT_FASTAI"), help="a Python that has fastai 2"
    )
    parser.add_argument("--pairs", type=int, default=5, help="passes of each side (5)")
    parser.add_argument(
        "--only", choices=["images", "memory", "import"], help="one part of the race"
    )
    parser.add_argument("--strict", action="store_true", help="a missed goal is an error")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    pythons = {"coursekit": sys.executable} | ({"fastai": options.fastai} if options.fastai else {})
    if not options.fastai:
        print("no COURSEKIT_FASTAI: only our own side runs")
    missed = 0
    for row in rows_of(options.only or "images memory import", pythons, options.pairs):
        print(row, flush=True)
        missed += row.met() is False
    load = f", {os.getloadavg()[0]:.1f} processes in the last minute" if os.name == "posix" else ""
    print(f"medians of {options.pairs} passes; {os.cpu_count()} cores{load}")
    print(f"{missed} goals missed" if missed else "no goal missed")
    return int(options.strict and missed > 0)


def rows_of(parts: str, pythons: dict[str, str], pairs: int):
    "The races in `parts`, one after another; both libraries are kept running."
    if "import" in parts:
        yield from race_imports(pythons, pairs)
    if parts == "import":
        return
    with tempfile.TemporaryDirectory() as folder:
        runners = {name: Runner(python, name) for name, python in pythons.items()}
        if "images" in parts:
            size = draw_photos(Path(folder))
            print(f"{TRAIN} pictures of {LONG_SIDE} px, {size:.0f} kB each", flush=True)
            yield from race_images(runners, Path(folder), pairs)
        if "memory" in parts:
            yield from race_memory(runners, pairs)
        for runner in runners.values():
            runner.close()


if __name__ == "__main__":
    sys.exit(main())
