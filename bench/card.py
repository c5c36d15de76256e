"""The race card: every race in pairs within one run, how cost grows, and the lessons against their budgets.

    make bench                                    # at most 40 minutes on two cores
    make bench ONLY=digits,import                 # these alone; results of the others stay
    python bench/card.py --only loader --quick    # tiny sizes, to see that it works; written to _run/bench/
    python bench/card.py --profile digits         # where our side spends its time

Makes the environment of the rivals first (bench/rivals.py), or takes the Python that COURSEKIT_FASTAI names. Each
side is a process of its own, sides take turns, the one that begins changes, and a first turn is not counted. A ratio
is that of two turns of one round, so that a busy machine slows both. A race that fails says why and loses no other;
bench/results.json, with every single time, and bench/RESULTS.md are written after each. A name that is no race, say
ONLY=night, is a script of this folder.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import results
import rivals
from helper import Failed, Helper, in_turns, printed, turned
from predict import agreement, exported, run
from races import CURVES, NEEDED, OURS, RACES, Curve, Race

BENCH = Path(__file__).resolve().parent
SIDES = str(BENCH / "sides.py")
MINUTES, LEAST = 40, 20  # of a run; seconds that a race needs at least
REST = 0.25  # seconds before a turn, until the threads of the one before have gone to sleep
LOST = (Exception, SystemExit)  # what may end a race, but not the card


# ---------------------------------------------------------------- what stands around a race
class Card:
    "A run: pythons of the sides, a folder of data, the time that is left."

    def __init__(self, options, folder: Path):
        self.options, self.folder, self.prepared = options, folder, {}
        own = os.environ.get("COURSEKIT_FASTAI")
        self.rivals = rivals.found(own) if own else rivals.environment()
        self.theirs = own or str(rivals.PYTHON)
        self.end = time.monotonic() + 60 * options.minutes

    def python(self, side: str) -> str:
        return self.theirs if side in NEEDED else sys.executable

    def present(self, sides: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
        "Sides that can run, and why the others cannot."
        said = {side: self.rivals.get(NEEDED.get(side, ""), "") for side in sides}
        missing = {side: words for side, words in said.items() if words.startswith("not there")}
        return [side for side in sides if side not in missing], missing

    def left(self, budget: float) -> float:
        "Seconds for a race; `Failed` if there are too few."
        left = min(budget, self.end - time.monotonic() - 10)
        if left < LEAST and not self.options.quick:
            raise Failed(f"the {self.options.minutes:.0f} minutes of the run were over")
        return left

    def prepare(self, name: str, n: int) -> str:
        "Have a function of prepare.py write its data, in a process of its own, once."
        if (name, n) not in self.prepared:
            code = "import sys; from pathlib import Path; import prepare; print()\n"
            code += f"print(prepare.{name}(Path(sys.argv[1]), {n}))"
            command = [sys.executable, "-W", "ignore", "-c", code, self.folder]
            paths = os.pathsep.join([str(BENCH), os.environ.get("PYTHONPATH", "")])
            env = os.environ | {"PYTHONPATH": paths}
            said = printed(*command, what="its data cannot be had", timeout=None, env=env)
            self.prepared[name, n] = said.strip().splitlines()[-1]
        return self.prepared[name, n]

    def data_of(self, needs: dict) -> str:
        which = int(self.options.quick)
        return "; ".join(self.prepare(name, sizes[which]) for name, sizes in needs.items())


@contextmanager
def waiting(card: Card, sides: list[str], threads: int | None) -> Iterator[dict[str, Helper]]:
    "A process for each side, of which one works at a time."
    few = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"} if threads else {}
    with ExitStack() as stack:
        yield {
            side: stack.enter_context(Helper(card.python(side), SIDES, side, card.folder, **few))
            for side in sides
        }


# ---------------------------------------------------------------- races: a function of the turn for each side
@contextmanager
def by_orders(card: Card, race: Race, sides: list[str]):
    "The races of sides.py."
    sizes = race.sizes | (race.quick if card.options.quick else {})
    first = sizes if card.options.quick else sizes | race.warm
    limit = 120 + 2 * race.budget

    def of(helper: Helper) -> Callable[[int], dict]:
        def turn_of(turn: int) -> dict:
            time.sleep(REST)
            order = {"action": race.action, "turn": turn} | (sizes if turn >= 0 else first)
            return helper.ask(limit, **order)

        return turn_of

    with waiting(card, sides, race.threads) as helpers:
        yield {side: of(helper) for side, helper in helpers.items()}


@contextmanager
def first_answers(card: Card, race: Race, sides: list[str]):
    pythons = {side: card.python(side) for side in sides}
    exported(pythons, card.folder)
    yield {
        side: lambda turn, side=side, python=python: run(python, side, card.folder)
        for side, python in pythons.items()
    }


@contextmanager
def imports(card: Card, race: Race, sides: list[str]):
    lines = {OURS: "from coursekit.all import *"}
    lines["fastai"] = "from fastai.vision.all import *\nfrom fastai.collab import *"
    code = "import sys, time, torch\nsys.path.insert(0, {!r})\nimport helper\n"
    code += "start = time.perf_counter()\n{}\nseconds = time.perf_counter() - start\n"
    code += "import json\nprint(json.dumps([seconds, helper.peak_memory()]))"
    compiled = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def once(side: str) -> dict:
        text = code.format(str(BENCH), lines[side])
        said = printed(card.python(side), "-W", "ignore", "-c", text, env=compiled)
        return dict(zip(("seconds", "peak"), json.loads(said), strict=True))

    yield {side: lambda turn, side=side: once(side) for side in sides}


@contextmanager
def services(card: Card, race: Race, sides: list[str], clients: int = 10):
    "Both services run, one is asked at a time; a turn's seconds are those of an answer."
    import service

    pythons, long = {side: card.python(side) for side in sides}, 1 if card.options.quick else 5
    with service.running(pythons, card.folder) as asked:
        yield {side: lambda turn, ask=ask: ask(clients, long) for side, ask in asked.items()}


WAYS = {"predict": first_answers, "import": imports, "service": services}


def run_race(card: Card, name: str, race: Race) -> dict:
    "What is kept of a race."
    sides, missing = card.present(race.sides)
    if name == "service" and card.rivals.get("fastapi", "").startswith("not there"):
        sides, missing = [OURS], {"fastai": card.rivals["fastapi"]}
    pairs = 2 if card.options.quick else race.pairs
    kept = {"data": card.data_of(race.needs), "pairs": pairs}
    budget = card.left(race.budget)
    with WAYS.get(name, by_orders)(card, race, sides) as turns:
        done, failed, note = in_turns(turns, pairs, budget)
    if name == "predict" and len(done) == 2:
        kept["data"] = agreement(done[OURS], done["fastai"])
    return kept | {"done": done, "missing": missing | failed, "note": note}


# ---------------------------------------------------------------- curves
def run_curve(card: Card, curve: Curve) -> dict:
    "Answers of each side for each point; a point that would take longer than is left is not run."
    points = curve.quick if card.options.quick else curve.points
    points += curve.more if card.options.long and not card.options.quick else ()
    sides, missing = card.present(curve.sides)
    data = card.data_of(curve.needs)
    longer = 10 if card.options.long else 1
    budget = card.left(curve.budget * longer)
    done = {side: {point: [] for point in points} for side in sides}
    start, took, turn = time.monotonic(), {}, 0
    with waiting(card, sides, curve.threads) as helpers:
        repeats = 1 if card.options.quick else curve.repeats
        for repeat in range(-1, repeats):
            for point in points[:1] if repeat < 0 else points:
                if time.monotonic() - start + guess(took, point, curve.grows) > budget:
                    break
                if curve.many:
                    data = card.prepare(curve.many, point)
                begun, turn = time.monotonic(), turn + 1
                for side in [side for side in turned(sides, turn) if side not in missing]:
                    order = {"action": curve.action, "turn": repeat} | curve.sizes(point)
                    try:
                        answer = helpers[side].ask(2 * budget + 120, **order)
                    except LOST as error:
                        missing[side] = str(error)
                        continue
                    if repeat >= 0:
                        done[side][point].append(answer)
                took[point] = time.monotonic() - begun
    return {"done": done, "points": list(points), "missing": missing, "data": data}


def guess(took: dict[int, float], point: int, grows: bool) -> float:
    "Seconds that a point will take, by what it or the one before took."
    if point in took or not took:
        return took.get(point, 0.0)
    last = max(took)
    return took[last] * (point / last if grows and last else 1)


# ---------------------------------------------------------------- the lessons
def run_budgets(card: Card) -> dict:
    "Lessons against their time budgets, as many as there is time for."
    import budgets

    seconds = card.left(60 * 30)
    rows = list(budgets.rows(seconds))
    whole = bool(rows) and rows[-1][0] == "the whole course"
    return {"rows": rows, "note": "" if whole else f"cut: {seconds:.0f} s would have been over"}


# ---------------------------------------------------------------- the machine
def machine() -> dict:
    "What the numbers were made with."
    name, memory = platform.processor() or platform.machine(), 0.0
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
        name = found[1] if found else name
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": name,
        "cores": cores,
        "memory GB": round(memory),
        "load at start": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def versions(card: Card) -> dict:
    asked = ["git", "-C", str(BENCH), "describe", "--always", "--dirty"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    code = "import coursekit, torch, torchvision, PIL; from importlib.metadata import version\n"
    code += (
        "print(coursekit.__version__, torch.__version__, torchvision.__version__, PIL.__version__)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    names = ("coursekit", "torch", "torchvision", "pillow")
    own = dict(zip(names, said.stdout.split(), strict=False))
    return own | {"commit": commit or "unknown"} | card.rivals


# ---------------------------------------------------------------- the card
def steps(card: Card) -> dict[str, Callable[[], dict]]:
    "All that the card can run, by name."
    races = {name: lambda n=name, r=race: run_race(card, n, r) for name, race in RACES.items()}
    curves = {name: lambda c=curve: run_curve(card, c) for name, curve in CURVES.items()}
    return races | curves | {"budgets": lambda: run_budgets(card)}


def chosen(only: str, known: list[str]) -> tuple[list[str], list[str]]:
    "Names of the card, and scripts of this folder; a name stands for all that begin with it."
    if not only:
        return known, []
    wanted, scripts = set(), []
    for word in filter(None, re.split(r"[\s,]+", only)):
        found = [word] if word in known else [name for name in known if name.startswith(word)]
        if not found and (BENCH / f"{word}.py").exists():
            scripts.append(word)
        elif not found:
            raise SystemExit(f"no race {word}: there are {', '.join(known)}, and scripts of bench/")
        wanted.update(found)
    return [name for name in known if name in wanted], scripts


def run_card(options, names: list[str], folder: Path) -> dict:
    "Run these, keep and write down what they said after each."
    card, kept = Card(options, folder), results.load(options.out)
    kept["about"] = about = {"machine": machine(), "versions": versions(card)}
    about |= {"date": time.strftime("%Y-%m-%d %H:%M"), "quick": options.quick}
    todo = steps(card)
    for name in names:
        print(f"{time.strftime('%H:%M:%S')}  {name}", flush=True)
        begun = time.monotonic()
        try:
            found = todo[name]()
        except LOST as error:
            found = {"failed": str(error).strip() or type(error).__name__}
        found |= {"date": about["date"], "commit": about["versions"]["commit"]}
        found["wall"] = round(time.monotonic() - begun)
        kept["results"][name] = found
        print(results.in_short(name, found), flush=True)
        results.write(kept, options.out)
    return kept


def profile(name: str) -> None:
    "Where our side of a race spends its time."
    from types import SimpleNamespace

    import sides

    race = RACES[name]
    with tempfile.TemporaryDirectory() as folder:
        card = Card.__new__(Card)
        card.options, card.folder = SimpleNamespace(quick=False), Path(folder)
        card.prepared = {}
        card.data_of(race.needs)
        make = sides.ACTIONS[race.action]
        make(OURS, Path(folder), -1, **race.sizes | race.warm)()
        sides.profiled(make(OURS, Path(folder), 0, **race.sizes))


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="names with commas between them")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"of the run ({MINUTES})")
    parser.add_argument("--long", action="store_true", help="20 million ratings too, no limit")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, two rounds")
    parser.add_argument("--profile", choices=[n for n, race in RACES.items() if race.action])
    parser.add_argument("--out", type=Path, help="folder of the results (bench/)")
    options = parser.parse_args(arguments)
    options.out = options.out or (BENCH.parent / "_run" / "bench" if options.quick else BENCH)
    options.minutes = 24 * 60 if options.long else options.minutes
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    if options.profile:
        profile(options.profile)
        return 0
    names, scripts = chosen(options.only, [*RACES, *CURVES, "budgets"])
    failed = 0
    if names:
        with tempfile.TemporaryDirectory() as folder:
            kept = run_card(options, names, Path(folder))
        failed = sum("failed" in kept["results"][name] for name in names)
        print(f"written: {options.out / 'RESULTS.md'}; {failed} of {len(names)} failed")
    for script in scripts:
        failed += subprocess.run([sys.executable, str(BENCH / f"{script}.py")]).returncode != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
