"""Hold the course against its time budgets: a lesson, and the whole, on two idle cores.

    make bench

Each lesson runs alone, as `make lesson` runs it. A lesson over its budget is run once more, since a machine
is rarely idle, and the better time counts.
"""

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from lessons import is_lesson, notebooks  # noqa: E402
from run import run  # noqa: E402

BUDGETS = {"01": 75, "02": 75, "07": 75, "10": 75, "12": 90}
USUAL, WHOLE = 60, 900


def timed(path: Path) -> float:
    "Seconds that a lesson takes; one that fails is no measurement."
    result = run(path)[1]
    if result.failure:
        raise SystemExit(f"FAILED {result.failure}")
    return result.seconds


def rows(seconds: float = math.inf) -> Iterator[tuple[str, float, int]]:
    "Each lesson, and the whole course at the end: name, seconds, budget; nothing that could take too long."
    end, total = time.monotonic() + seconds, 0.0
    for path in filter(is_lesson, notebooks()):
        budget = BUDGETS.get(path.stem[:2], USUAL)
        if time.monotonic() + 2 * budget > end:
            return
        took = timed(path)
        if took > budget:
            took = min(took, timed(path))
        total += took
        yield path.stem, took, budget
    yield "the whole course", total, WHOLE


def main() -> int:
    over = []
    for name, took, budget in rows():
        print(f"{name:32} {took:6.1f} s of {budget} s", flush=True)
        over += [name] * (took > budget)
    print(f"over budget: {', '.join(over)}" if over else "all within budget")
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main())
