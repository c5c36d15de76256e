"""Hold the course against its time budgets: a lesson, and the whole, on two idle cores.

    make bench

Each lesson runs alone, as `make lesson` runs it. A lesson over its budget is run once more, since a machine
is rarely idle, and the better time counts.
"""

import sys
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


def main() -> int:
    total, over = 0.0, []
    for path in filter(is_lesson, notebooks()):
        budget = BUDGETS.get(path.stem[:2], USUAL)
        seconds = timed(path)
        if seconds > budget:
            seconds = min(seconds, timed(path))
        total += seconds
        over += [path.stem] * (seconds > budget)
        print(f"{path.stem:32} {seconds:6.1f} s of {budget} s")
    over += ["the whole course"] * (total > WHOLE)
    print(f"{'the whole course':32} {total:6.1f} s of {WHOLE} s")
    print(f"over budget: {', '.join(over)}" if over else "all within budget")
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main())
