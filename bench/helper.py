"""What all benches share: processes that wait for their turn, a clock, memory, turns in pairs, and ratios.

Nothing here needs anything but Python, so that a rival's process can use it too.
"""

import contextlib
import json
import os
import queue
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path


class Failed(RuntimeError):
    "A side cannot go on; the message says why."


# ---------------------------------------------------------------- memory and time, in MB and seconds
def peak_memory() -> float:
    "The most memory that this process has had."
    with contextlib.suppress(OSError):  # unlike `ru_maxrss` without what its parent had
        return proc_value(os.getpid(), "status", "VmHWM:")
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def proc_value(pid: int, file: str, name: str) -> float:
    "A number of kB from the system's table of a process; 0 if it has none."
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next((int(x.split()[1]) * 1024 / 1e6 for x in lines if x.startswith(name)), 0.0)


def family(pid: int) -> Iterator[int]:
    "A process and all that it has started, where the system tells it."
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def family_memory(pid: int) -> float:
    "Memory of a process and its workers now; what they share is counted once. 0 if nobody tells."
    total = 0.0
    for each in family(pid):
        with contextlib.suppress(OSError):  # it may have ended
            total += proc_value(each, "smaps_rollup", "Pss:")
    return total


def busy_so_far() -> float:
    "Seconds of the processors, with those of workers that have ended."
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


def clocked(action: Callable[[], dict | None]) -> dict:
    "What an action says, with its seconds and those of the processors."
    start, busy = time.perf_counter(), busy_so_far()
    found = action() or {}
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "busy": busy_so_far() - busy, "peak": peak_memory()} | found


def answer_orders(maker: Callable[..., Callable[[], dict | None]]) -> None:
    "For each order, a line of JSON: make the action, clock it alone, and say what it took."
    for line in sys.stdin:
        print(f"\nANSWER {json.dumps(clocked(maker(**json.loads(line))))}", flush=True)


# ---------------------------------------------------------------- a process that runs once
def last_line(done: subprocess.CompletedProcess) -> str:
    "What a program said last."
    return next(reversed((done.stderr.strip() or done.stdout.strip()).splitlines()), "no word")


def printed(*command, what: str = "", timeout: float | None = 300, **options) -> str:
    "What a program has written; `Failed` with its last line, after `what`, if it ends badly."
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)
    if done.returncode:
        raise Failed(": ".join(filter(None, (what, last_line(done)))))
    return done.stdout


# ---------------------------------------------------------------- a process that waits
class Helper:
    "A process that answers orders, one at a time, with a line of JSON each."

    def __init__(
        self, python: str, script: str, name: str, folder: Path, *more: str, **environment
    ):
        command = [python, "-W", "ignore", script, "--serve", name, "--folder", str(folder), *more]
        self.name, self.errors = name, tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=os.environ | environment,
            start_new_session=True,  # so that its workers end with it
        )
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def ask(self, limit: float = 900, **order) -> dict:
        "The answer; `Failed` if the process ends or takes more than `limit` seconds."
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise Failed(self.last_words()) from None
        end, pause, most = time.monotonic() + limit, 0.3, 0.0
        while True:
            try:
                line = self.lines.get(timeout=pause)
            except queue.Empty:
                if time.monotonic() > end:
                    self.kill()
                    raise Failed(f"{self.name}: no answer in {limit:.0f} s") from None
                most, pause = max(most, family_memory(self.process.pid)), 2.0
                continue
            if line is None:
                raise Failed(self.last_words())
            if line.startswith("ANSWER "):
                found = json.loads(line.removeprefix("ANSWER "))
                return found | ({"peak": max(found["peak"], most)} if "peak" in found else {})

    def last_words(self) -> str:
        status = self.process.wait(30)
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines()[-1:] or ["no word"]
        return f"{self.name} stopped with status {status}: {said[0]}"

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=30)
        self.kill()  # whatever it has left
        self.process.wait()
        self.errors.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---------------------------------------------------------------- turns
def in_turns(
    sides: dict[str, Callable[[int], dict]],
    pairs: int,
    budget: float,
    warm: int = 1,
) -> tuple[dict[str, list[dict]], dict[str, str], str]:
    """Answers of each side, why a side has none, and a note if rounds were cut.

    In a round each side has one turn, and the one that begins changes. Turns below 0 are not
    counted. A side that fails leaves the race with its words. No round begins that would end
    more than `budget` seconds after the start, by the length of the longest before it."""
    done: dict[str, list[dict]] = {name: [] for name in sides}
    failed: dict[str, str] = {}
    start, longest, turn = time.monotonic(), 0.0, -warm
    while turn < pairs and len(failed) < len(sides):
        begun = time.monotonic()
        if turn > 0 and begun - start + longest > budget:
            break
        for name in turned(list(done), turn):
            try:
                answer = sides[name](turn)
            except (Exception, SystemExit) as error:
                failed[name] = str(error).strip() or type(error).__name__
                del done[name]
                continue
            if turn >= 0:
                done[name].append(answer)
        if turn >= 0:
            longest = max(longest, time.monotonic() - begun)
        turn += 1
    rounds = max(turn, 0)
    cut = rounds < pairs and bool(done)
    note = f"cut to {rounds} of {pairs} rounds: {budget:.0f} s were over" if cut else ""
    return done, failed, note


def turned(names: list[str], turn: int) -> list[str]:
    "The names in an order that begins with another one each turn."
    shift = turn % len(names) if names else 0
    return names[shift:] + names[:shift]


# ---------------------------------------------------------------- numbers
def ratios(ours: list[dict], theirs: list[dict], key: str = "seconds") -> list[float]:
    "How many times as much the others took, round by round."
    pairs = zip(ours, theirs, strict=True)
    return [other[key] / own[key] for own, other in pairs if own.get(key) and other.get(key)]


def spread(values: list[float], form: str = "{:,.0f}") -> str:
    "Median, least and most."
    return f"{form} ({form} to {form})".format(statistics.median(values), min(values), max(values))


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    "A table of Markdown; the first column stands at the left, numbers at the right."
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, marks, *rows]) + "\n"
