"""Run lessons, each alone in a fresh kernel, and say what happened.

    python tools/run.py                 every lesson, in order
    python tools/run.py 01              one lesson, by its number or name
    python tools/run.py --all           the support notebooks too
    python tools/run.py --jobs 2        two at a time, each with its share of the cores
    python tools/run.py 01 --inplace    and refresh the outputs that are committed

A lesson fails if a cell raises, hangs, or is not run, and the failure names the cell. After its last
cell, every exercise is proved in the same kernel: the solution passes its check, the empty answer and
the listed mistakes do not. Executed copies and `results.json` go into `_run/`.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbdev.clean import clean_nb
from nbformat import NotebookNode

from kernels import ForkingManager
from lessons import (
    ROOT,
    checks_in,
    digest,
    directives,
    exercises,
    find,
    is_code,
    is_lesson,
    is_library,
    is_proof,
    notebooks,
    only_imports,
    pictures,
    read,
)

ANSI = re.compile(r"\x1b\[[0-9;]*m")
FORKING = "COURSEKIT_FORKING"  # set in the processes that run several notebooks side by side
NOT_RUN_TAGS = {"skip-execution", "raises-exception"}


class LessonFailed(Exception):
    "A lesson did not run as it must; the message names the cell."


@dataclass
class Result:
    "What one run of a lesson gave."

    lesson: str
    seconds: float = 0.0
    cells: int = 0
    checks: int = 0
    exercises: int = 0
    headline: str = ""
    failure: str = ""


class Progress:
    "One line that is rewritten on a terminal; elsewhere a line now and then."

    def __init__(self, every: float = 10.0, live: bool | None = None):
        self.live = sys.stdout.isatty() if live is None else live
        self.every, self.last = every, time.monotonic()

    def show(self, text: str) -> None:
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:width]:<{width}}", end="", flush=True)
        elif time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            print(text, flush=True)

    def clear(self) -> None:
        if self.live:
            self.show("")
            print("\r", end="")


def place(nb: NotebookNode, index: int) -> str:
    "How a failure names a cell: its number among the code cells, and its first line of code."
    number = sum(is_code(c) for c in nb.cells[: index + 1])
    total = sum(is_code(c) for c in nb.cells)
    code = directives(nb.cells[index].source)[1].strip() or nb.cells[index].source.strip()
    return f"code cell {number} of {total}, which begins with {code.splitlines()[0][:80]!r}"


def refuse_skipped(nb: NotebookNode) -> None:
    "Raise for a cell that says it should not run, or that its error should be overlooked."
    for i, cell in enumerate(nb.cells):
        if not is_code(cell):
            continue
        tags = NOT_RUN_TAGS & set(cell.metadata.get("tags", []))
        if directives(cell.source)[0].get("eval") == "false":
            tags.add("#| eval: false")
        if tags:
            raise LessonFailed(f"{place(nb, i)}, is marked {', '.join(tags)}: every cell must run")


def where_it_hangs(client: NotebookClient, cell: NotebookNode) -> str:
    "Interrupt the kernel, and read from its traceback what it was busy with."
    run_sync(client.km.interrupt_kernel)()
    for _ in range(50):  # meanwhile the client goes on collecting what the cell puts out
        run_sync(asyncio.sleep)(0.1)
        if trace := traceback_of(cell):
            return trace
    return "it does not answer an interrupt either"


def traceback_of(cell: NotebookNode) -> str:
    errors = [o for o in cell.outputs if o.output_type == "error"]
    return ANSI.sub("", "\n".join(errors[0].traceback)) if errors else ""


def execute(client: NotebookClient, index: int) -> None:
    "Run one cell; raise `LessonFailed` with its traceback if it raises, hangs or kills the kernel."
    nb = client.nb
    try:
        client.execute_cell(nb.cells[index], index)
    except CellTimeoutError:
        raise LessonFailed(
            f"{place(nb, index)}, ran longer than {client.timeout} s\n{where_it_hangs(client, nb.cells[index])}"
        ) from None
    except DeadKernelError:
        raise LessonFailed(f"{place(nb, index)}, killed the kernel (out of memory?)") from None
    except CellExecutionError:
        raise LessonFailed(f"{place(nb, index)}, raised\n{traceback_of(nb.cells[index])}") from None
    if nb.cells[index].get("execution_count") is None:
        raise LessonFailed(f"{place(nb, index)}, was not run")


def prove_exercises(client: NotebookClient) -> int:
    "Run every solution against its check, in the lesson's own kernel; the number of verdicts."
    count = 0
    for name, parts in exercises(client.nb).items():
        missing = {"check", "exercise", "solution"} - set(parts)
        if missing:
            raise LessonFailed(f"exercise {name} has no {', '.join(sorted(missing))}")
        code = f"{parts['solution']}\nprint('verdicts', check_{name}.prove({name}))"
        client.nb.cells.append(nbformat.v4.new_code_cell(code))
        try:
            execute(client, len(client.nb.cells) - 1)
            text = "".join(o.get("text", "") for o in client.nb.cells[-1].outputs)
            count += int(re.search(r"^verdicts (\d+)$", text, re.M)[1])
        except LessonFailed as error:
            raise LessonFailed(f"exercise {name}: {error}") from None
        finally:
            client.nb.cells.pop()
    return count


def own_checks(source: str) -> list[str]:
    "The checks that ran with a cell: not those inside exported functions or exercise checks."
    return [] if {"export", "exporti", "check"} & set(directives(source)[0]) else checks_in(source)


def headline(nb: NotebookNode) -> str:
    "The last line that the cell marked `#| headline` printed."
    for cell in nb.cells:
        if is_code(cell) and "headline" in directives(cell.source)[0]:
            text = "".join(o.get("text", "") for o in cell.outputs if o.output_type == "stream")
            return text.strip().splitlines()[-1] if text.strip() else ""
    return ""


def run(
    path: Path, timeout: int = 120, progress: Progress | None = None
) -> tuple[NotebookNode, Result]:
    "Execute the notebook at `path` in a fresh kernel; never raises for what the lesson does."
    nb, result, start = read(path), Result(path.stem), time.monotonic()
    progress = progress or Progress()
    todo = [i for i, cell in enumerate(nb.cells) if is_code(cell)]
    client = NotebookClient(
        nb,
        timeout=timeout,
        kernel_name="python3",
        kernel_manager_class=manager(),
        coalesce_streams=True,  # under load one print can arrive in two pieces
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        refuse_skipped(nb)
        if not todo and is_lesson(path):
            raise LessonFailed("it has no code cell: nothing was run")
        with tempfile.TemporaryDirectory() as profile:  # nobody's own IPython start-up files
            env = os.environ | {"IPYTHONDIR": profile, "COURSEKIT_RUNNER": "1"}
            client.create_kernel_manager().transport_encryption = "auto"
            with client.setup_kernel(env=env):
                for k, index in enumerate(todo, 1):
                    seconds = time.monotonic() - start
                    progress.show(f"{path.stem}  cell {k} of {len(todo)}  {seconds:.0f} s")
                    execute(client, index)
                    result.cells += 1
                    result.checks += len(own_checks(nb.cells[index].source))
                result.seconds = time.monotonic() - start
                nb = client.nb = strip(nb)
                nb.metadata["coursekit"]["seconds"] = round(result.seconds)
                result.headline = headline(nb)
                result.exercises = prove_exercises(client)
                client.set_widgets_metadata()
    except LessonFailed as error:
        result.failure = f"{path.stem}: {error}"
    except RuntimeError as error:
        result.failure = f"{path.stem}: its kernel did not start: {error}"
    result.seconds = result.seconds or time.monotonic() - start
    return nb, result


# Sets of photographs that are had by mirror only; a lesson without them goes on with drawn pictures.
BY_MIRROR = re.compile(r"\bURLs\.(BEARS|SCENES|OAKLAND)\b")


@contextmanager
def no_mirror() -> Iterator[None]:
    "As on a machine that has no mirror folder."
    before = os.environ.pop("COURSEKIT_MIRROR", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["COURSEKIT_MIRROR"] = before


def both_ways(path: Path) -> bool:
    "Does this lesson take another way where there is no mirror, so that both have to be run?"
    code = [c.source for c in read(path).cells if c.cell_type == "code"]
    mirror = bool(os.environ.get("COURSEKIT_MIRROR"))
    return mirror and is_lesson(path) and any(map(BY_MIRROR.search, code))


def fold(nb: NotebookNode) -> NotebookNode:
    "Fold proofs, imports and the setup line, so that JupyterLab shows the lesson without them."
    for cell in (c for c in nb.cells if is_proof(c) or (is_code(c) and only_imports(c.source))):
        cell.metadata.setdefault("jupyter", {})["source_hidden"] = True
    return nb


def strip(nb: NotebookNode) -> NotebookNode:
    "Clean an executed notebook as `nbdev-clean` does, and record which sources its outputs show."
    clean_nb(
        nb,
        allowed_metadata_keys=["coursekit"],
        allowed_cell_metadata_keys=["jupyter"],
        clean_ids=False,
    )
    nb = fold(nbformat.from_dict(nb))
    mirror = bool(os.environ.get("COURSEKIT_MIRROR"))
    nb.metadata["coursekit"] = {"sources": digest(nb), "mirror": mirror}
    return nb


def folder_for(path: Path, target: Path) -> Path:
    "Where in `target` a copy of the notebook goes: the library keeps its folder."
    return target / "library" if is_library(path) else target


def write(nb: NotebookNode, path: Path) -> None:
    "Write to a temporary name, then rename: a killed run leaves no half notebook."
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    nbformat.write(nb, temporary)
    temporary.replace(path)


@dataclass
class Task:
    "One run of a lesson; the executed copy goes into the folder `target`, if there is one."

    path: Path
    target: Path | None
    timeout: int
    images: Path | None = None  # where the pictures go that are kept
    mirror: bool = True  # as the environment says; else as where there is no mirror

    def carry_out(self, progress: Progress | None = None) -> Result:
        with nullcontext() if self.mirror else no_mirror():
            nb, result = run(self.path, self.timeout, progress or Progress(live=False))
        if not self.mirror:
            result.lesson += ", no mirror"
            result.failure = result.failure and f"without a mirror, {result.failure}"
        if result.failure:
            return result
        if self.target:
            write(nb, self.target / self.path.name)
        for name, png in pictures(nb).items() if self.images else ():
            (self.images / name).write_bytes(png)
        return result


def run_all(tasks: list[Task], jobs: int) -> Iterator[tuple[int, Result]]:
    "The place in the list and the result of each, as they are done; several at once have a process each."
    if jobs == 1:
        progress = Progress()
        for i, task in enumerate(tasks):
            result = task.carry_out(progress)
            progress.clear()
            yield i, result
        return
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), share_cores, (jobs,))
    try:
        waiting = {pool.submit(tasks[i].carry_out): i for i in longest_first(tasks)}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def longest_first(tasks: list[Task]) -> list[int]:
    "Places of the tasks by the seconds that their last run took: no long one is left for the end."
    return sorted(range(len(tasks)), key=lambda i: -recorded_seconds(tasks[i].path))


def recorded_seconds(path: Path) -> float:
    return read(path).metadata.get("coursekit", {}).get("seconds", 0)


def manager() -> type[AsyncKernelManager]:
    "Where many notebooks are run, their kernels are forked from a process that has PyTorch."
    return ForkingManager if os.environ.get(FORKING) else AsyncKernelManager


def share_cores(jobs: int) -> None:
    "Kernels that run side by side should not each start a thread for every core."
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    if sys.platform == "linux":
        os.environ[FORKING] = "1"


def said(result: Result) -> str:
    "What is printed of a run as soon as it is done."
    if result.failure:
        return f"FAILED {result.failure}"
    return f"{result.lesson}: {result.cells} cells, {result.checks} checks, {result.seconds:.1f} s"


def table(results: list[Result]) -> str:
    "The summary, one line a lesson."
    head = ("lesson", "seconds", "cells", "checks", "exercises", "headline")
    rows = [
        (
            r.lesson,
            f"{r.seconds:.1f}",
            str(r.cells),
            str(r.checks),
            str(r.exercises),
            "FAILED" if r.failure else r.headline,
        )
        for r in results
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    right = {1, 2, 3, 4}
    lines = [
        "  ".join(
            c.rjust(w) if i in right else c.ljust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]
    seconds, checks = sum(r.seconds for r in results), sum(r.checks for r in results)
    total = f"{len(results)} notebooks, {seconds:.0f} s, {checks} checks passed"
    return "\n".join(line.rstrip() for line in [lines[0], "-" * len(lines[0]), *lines[1:], total])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", help="lessons, by number or name; all of them if none is named"
    )
    parser.add_argument("--all", action="store_true", help="run the support notebooks too")
    parser.add_argument(
        "--inplace",
        action="store_true",
        help="write the outputs back, never with the mirror's data",
    )
    parser.add_argument(
        "--table", action="store_true", help="run nothing: print the table of the last run"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="how many to run at a time (their seconds then say less)",
    )
    parser.add_argument("--timeout", type=int, default=120, help="seconds that one cell may take")
    parser.add_argument("--nbs", type=Path, default=ROOT / "nbs", help="folder of the notebooks")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "_run",
        help="folder for executed copies and results.json",
    )
    args = parser.parse_args(argv)
    if args.table:
        if not (args.out / "results.json").exists():
            raise SystemExit("nothing has been run yet: make course")
        print(table([Result(**r) for r in json.loads((args.out / "results.json").read_text())]))
        return 0
    with no_mirror() if args.inplace else nullcontext():
        return run_these(args)


def run_these(args: argparse.Namespace) -> int:
    "Run what the command line names; 1 if something failed."
    paths = [find(name, args.nbs) for name in args.names]
    paths = paths or [p for p in notebooks(args.nbs) if args.all or is_lesson(p)]
    if not args.inplace:  # an old copy is no result of this run
        for old in paths if args.names else notebooks(args.out / "nbs"):
            (folder_for(old, args.out / "nbs") / old.name).unlink(missing_ok=True)
    target = args.nbs if args.inplace else args.out / "nbs"
    images = args.nbs.parent / "images" if args.inplace else None
    tasks = []
    for path in paths:
        tasks.append(Task(path, folder_for(path, target), args.timeout, images))
        if both_ways(path):
            tasks.append(Task(path, None, args.timeout, mirror=False))
    found: dict[int, Result] = {}
    for i, result in run_all(tasks, args.jobs):
        found[i] = result
        print(said(result), flush=True)
    results = [found[i] for i in range(len(tasks))]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps([asdict(r) for r in results], indent=1))
    print("\n" + table(results))
    return int(any(r.failure for r in results))


if __name__ == "__main__":
    sys.exit(main())
