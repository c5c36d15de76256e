"""Race an epoch of the Learner against bare loops and against fastai's, and the import of everything.

    COURSEKIT_FASTAI=/path/to/python python bench/learner.py     # a Python that has fastai 2
    python bench/learner.py --rounds 15 --strict --only epoch
    python bench/learner.py --profile                            # where our own epoch spends its time

A net with 784, 50 and 10 units learns 60,000 digits of MNIST for one epoch by SGD, in batches of 64, and is validated
on 10,000. Each racer is a process of its own, with one thread as in the lessons; they take turns, who begins changes,
and the first epoch of each is not counted. A ratio is that of two epochs of the same round, so that a busy machine
slows both. Without `COURSEKIT_FASTAI` only our own side runs. A missed goal is reported; with `--strict` it is also an
error.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

BATCH, RATE, HIDDEN = 64, 0.1, 50
GOALS = {  # (racer, against): how many times as long it may take
    ("coursekit", "bare loop"): 1.3,
    ("coursekit", "fastai"): 1 / 3,
    ("coursekit, bar", "fastai, bar"): 1 / 3,
}
OTHER_RATIOS = [
    ("coursekit", "DataLoader loop"),
    ("coursekit, bar", "coursekit"),
    ("coursekit", "fastai, torch's loader"),
    ("DataLoader loop", "bare loop"),
]
IMPORT_GOAL = 1 / 3


# ---------------------------------------------------------------- what a racer does, in its own process
def digits(folder: Path):
    "Pictures as floats `(items, 784)` and labels, of both halves."
    import numpy as np
    import torch

    halves = []
    for half in ("train", "valid"):
        x, y = (np.load(folder / f"{half}_{part}.npy") for part in "xy")
        halves.append(
            (torch.from_numpy(x).float().div_(255).flatten(1), torch.from_numpy(y).long())
        )
    return halves


def network():
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))


class Shuffled:
    "Batches by one index each: what there is to do, and nothing else."

    def __init__(self, x, y, shuffle: bool):
        self.x, self.y, self.shuffle = x, y, shuffle

    def __iter__(self):
        import torch

        order = (torch.randperm if self.shuffle else torch.arange)(len(self.x))
        for indices in order.split(BATCH):
            yield self.x[indices], self.y[indices]


def torch_loaders(halves) -> list:
    from torch.utils.data import DataLoader, TensorDataset

    return [DataLoader(TensorDataset(*half), BATCH, shuffle=not i) for i, half in enumerate(halves)]


def by_hand(loaders) -> Callable:
    "An epoch without any library; what it gives back is the accuracy."
    import torch
    from torch.nn import functional as F

    model, (train, valid) = network(), loaders
    opt = torch.optim.SGD(model.parameters(), lr=RATE, fused=True)  # the fastest that there is

    def epoch() -> float:
        model.train()
        for x, y in train:
            F.cross_entropy(model(x), y).backward()
            opt.step()
            opt.zero_grad()
        model.eval()
        loss, right, seen = 0.0, 0.0, 0
        with torch.no_grad():
            for x, y in valid:
                pred = model(x)
                loss += F.cross_entropy(pred, y).item() * len(y)
                right += (pred.argmax(1) == y).sum().item()
                seen += len(y)
        return right / seen

    return epoch


def by_learner(names, loaders, bar: bool) -> Callable:
    "An epoch by a Learner of either library; they have the same names."
    learn = names.Learner(
        names.DataLoaders(*loaders),
        network(),
        loss_func=names.CrossEntropyLossFlat(),
        opt_func=names.SGD,
        metrics=names.accuracy,
    )

    def epoch() -> float:
        if bar:
            learn.fit(1, RATE)
        else:
            with learn.no_bar():
                learn.fit(1, RATE)
        return float(learn.recorder.values[-1][2])

    return epoch


def own_loaders(names, halves) -> list:
    from torch.utils.data import TensorDataset

    return [
        names.DataLoader(TensorDataset(*half), bs=BATCH, shuffle=not i, num_workers=0)
        for i, half in enumerate(halves)
    ]


def our_names():
    import coursekit.all

    return coursekit.all


def their_names():
    import fastai.vision.all

    return fastai.vision.all


def makers(racer: str) -> Callable:
    "A function of the data that makes a new epoch, model and all."
    name, _, how = racer.partition(", ")
    if name == "bare loop":
        return lambda halves: by_hand([Shuffled(*half, not i) for i, half in enumerate(halves)])
    if name == "DataLoader loop":
        return lambda halves: by_hand(torch_loaders(halves))
    names = {"coursekit": our_names, "fastai": their_names}[name]()
    if how == "torch's loader":
        return lambda halves: by_learner(names, torch_loaders(halves), False)
    return lambda halves: by_learner(names, own_loaders(names, halves), how == "bar")


def peak_memory() -> float:
    "The most memory that this process has had, in MB."
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def serve(racer: str, folder: Path) -> None:
    "An epoch for each line of the input, and a line of JSON about it."
    import torch

    torch.set_num_threads(1)
    make, halves = makers(racer), digits(folder)
    before = peak_memory()
    for _ in sys.stdin:
        epoch = make(halves)
        start, busy = time.perf_counter(), time.process_time()
        right = epoch()
        answer = {"seconds": time.perf_counter() - start, "busy": time.process_time() - busy}
        answer |= {"accuracy": right, "peak": peak_memory(), "grown": peak_memory() - before}
        print(f"\nANSWER {json.dumps(answer)}", flush=True)


# ---------------------------------------------------------------- the race
class Racer:
    "A process that waits for its turn. It has a terminal of its own on the error channel, to draw bars on."

    def __init__(self, python: str, name: str, folder: Path):
        command = [python, "-W", "ignore", __file__, "--serve", name, "--folder", str(folder)]
        screen, terminal = os.openpty()
        termios.tcsetwinsize(terminal, (24, 100))  # a bar has no width on a terminal without one
        self.name, self.screen = name, screen
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=terminal, text=True
        )
        os.close(terminal)
        self.seen = b""
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        "Read what is drawn, or the drawing would stop; the end of it is kept for an error."
        while True:
            try:
                drawn = os.read(self.screen, 65536)
            except OSError:  # Linux says so when the other end is closed
                return
            if not drawn:
                return
            self.seen = (self.seen + drawn)[-2000:]

    def run(self) -> dict:
        "One epoch; the others wait."
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                answer = json.loads(line.removeprefix("ANSWER "))
                if answer["accuracy"] < 0.88:
                    raise SystemExit(f"{self.name} learned nothing: accuracy {answer['accuracy']}")
                return answer
        raise SystemExit(
            f"{self.name} stopped with status {self.process.wait()}\n{self.seen.decode(errors='replace')}"
        )

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=30)


def racers_of(fastai: str | None) -> dict[str, str]:
    "Racers and the Python that runs each."
    ours = ["bare loop", "DataLoader loop", "coursekit", "coursekit, bar"]
    theirs = ["fastai", "fastai, bar", "fastai, torch's loader"] if fastai else []
    return dict.fromkeys(ours, sys.executable) | dict.fromkeys(theirs, fastai)


def race_epochs(pythons: dict[str, str], folder: Path, rounds: int) -> dict[str, list[dict]]:
    "What each racer did in each round."
    racers = {name: Racer(python, name, folder) for name, python in pythons.items()}
    for racer in racers.values():
        racer.run()
    done = {name: [] for name in racers}
    order = list(racers.items())
    for turn in range(rounds):
        shift = turn % len(order)
        for name, racer in order[shift:] + order[:shift]:
            done[name].append(racer.run())
    for racer in racers.values():
        racer.close()
    return done


def race_imports(pythons: dict[str, str], rounds: int) -> dict[str, list[float]]:
    "Seconds that `import *` takes in a fresh process once torch is there."
    code = "import time, torch; start = time.perf_counter()\n{}\nprint(time.perf_counter() - start)"
    lines = {"coursekit": "from coursekit.all import *"}
    if "fastai" in pythons:
        lines["fastai"] = "from fastai.vision.all import *\nfrom fastai.collab import *"
    compiled = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    took = {name: [] for name in lines}
    for turn in range(rounds + 1):
        for name, line in lines.items():
            command = [pythons[name], "-W", "ignore", "-c", code.format(line)]
            text = subprocess.run(
                command, capture_output=True, text=True, check=True, env=compiled
            ).stdout
            if turn:  # the first time files are read from the disk, and compiled
                took[name].append(float(text))
    return took


# ---------------------------------------------------------------- what is told
def spread(values: list[float], form: str = "{:,.0f}") -> str:
    return f"{form} ({form} to {form})".format(statistics.median(values), min(values), max(values))


def verdict(ratios: list[float], goal: float | None) -> tuple[str, bool]:
    "Whether the median is within the goal, in words."
    if goal is None:
        return "", False
    missed = statistics.median(ratios) > goal
    return f"   goal at most {goal:.3g}: {'MISSED' if missed else 'met'}", missed


def tell_epochs(done: dict[str, list[dict]]) -> int:
    "Print the table; return how many goals were missed."
    print("one epoch, 784-50-10, 60,000 digits, batch 64, SGD, accuracy on 10,000; one thread")
    for name, answers in done.items():
        times = spread([1000 * each["seconds"] for each in answers])
        last = answers[-1]
        print(
            f"  {name:24}{times:>26} ms   accuracy {last['accuracy']:.3f}"
            f"   memory {last['peak']:,.0f} MB at most, {last['grown']:,.0f} of them in the epochs"
        )
    missed = 0
    for (name, other), goal in (GOALS | dict.fromkeys(OTHER_RATIOS)).items():
        if name not in done or other not in done:
            continue
        pairs = list(zip(done[name], done[other], strict=True))
        wall, busy = ([a[key] / b[key] for a, b in pairs] for key in ("seconds", "busy"))
        words, over = verdict(wall, goal)
        missed += over
        print(
            f"  {name + ' : ' + other:42} x {spread(wall, '{:.2f}')}"
            f"   processor's time x {statistics.median(busy):.2f}{words}"
        )
    return missed + tell_memory(done)


def tell_memory(done: dict[str, list[dict]]) -> int:
    "Whether our process had more memory than fastai's."
    if "fastai" not in done:
        return 0
    ours, theirs = (done[name][-1]["peak"] for name in ("coursekit", "fastai"))
    words, missed = verdict([ours / theirs], 1.0)
    print(f"  {'memory, coursekit : fastai':42} x {ours / theirs:.2f}{words}")
    return int(missed)


def tell_imports(took: dict[str, list[float]]) -> int:
    for name, seconds in took.items():
        print(f"  import of everything, {name:24} {spread([1000 * each for each in seconds])} ms")
    if "fastai" not in took:
        return 0
    ratios = [ours / theirs for ours, theirs in zip(*took.values(), strict=True)]
    words, missed = verdict(ratios, IMPORT_GOAL)
    print(f"  {'coursekit : fastai':42} x {spread(ratios, '{:.2f}')}{words}")
    return int(missed)


def profile(folder: Path) -> None:
    "Where our epoch spends its time: functions by the time in themselves, then by all below them."
    import cProfile
    import pstats

    import torch

    torch.set_num_threads(1)
    make, halves = makers("coursekit"), digits(folder)
    make(halves)()
    epoch, profiler = make(halves), cProfile.Profile()
    profiler.runcall(epoch)
    for key in ("tottime", "cumulative"):
        pstats.Stats(profiler).strip_dirs().sort_stats(key).print_stats(30)


def keep_digits(folder: Path) -> None:
    "Write MNIST as arrays, for processes that know nothing of coursekit."
    import numpy as np

    from coursekit.datasets import URLs, untar_data
    from coursekit.digits import load_idx

    path = untar_data(URLs.MNIST)
    for half, part in (("train", "train"), ("valid", "t10k")):
        np.save(folder / f"{half}_x.npy", load_idx(path / f"{part}-images-idx3-ubyte"))
        np.save(folder / f"{half}_y.npy", load_idx(path / f"{part}-labels-idx1-ubyte"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--fastai", default=os.environ.get("COURSEKIT_FASTAI"), help="a Python that has fastai 2"
    )
    parser.add_argument("--rounds", type=int, default=9, help="epochs of each racer (9)")
    parser.add_argument("--only", choices=["epoch", "import"], help="one part of the race")
    parser.add_argument("--strict", action="store_true", help="a missed goal is an error")
    parser.add_argument("--profile", action="store_true", help="where our epoch spends its time")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.folder)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        if options.profile:
            keep_digits(Path(folder))
            profile(Path(folder))
            return 0
        if not options.fastai:
            print("no COURSEKIT_FASTAI: only our own side runs")
        missed = sum(parts_of(options, Path(folder)))
    load = f", {os.getloadavg()[0]:.1f} processes in the last minute"
    print(f"medians of {options.rounds} rounds; {os.cpu_count()} cores{load}")
    print(f"{missed} goals missed" if missed else "no goal missed")
    return int(options.strict and missed > 0)


def parts_of(options, folder: Path) -> Iterator[int]:
    "How many goals each part missed."
    pythons = racers_of(options.fastai)
    if options.only != "import":
        keep_digits(folder)
        yield tell_epochs(race_epochs(pythons, folder, options.rounds))
    if options.only != "epoch":
        yield tell_imports(race_imports(pythons, options.rounds))


if __name__ == "__main__":
    sys.exit(main())
