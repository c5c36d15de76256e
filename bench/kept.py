"""Long trainings whose table a lesson shows: it grows run by run, so that one that was stopped goes on where it was.

A script says which keys there are and what makes a row of each; what is common to all stands here.
"""

import argparse
import csv
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from coursekit.intervals import mean_interval
from coursekit.learner import Learner
from coursekit.loaders import DataLoader, DataLoaders


class Kept:
    "The table of a script, a CSV file of the same name, with lines of comment at its top."

    def __init__(self, script: str, columns: list[str]):
        self.path, self.columns = Path(script).with_suffix(".csv"), columns

    def begin(self, *about: str, anew: bool = False) -> None:
        "Write how the table is made, what it is, and its columns, unless it is there."
        if anew or not self.path.exists():
            made = f"python bench/{self.path.stem}.py; {versions()}"
            lines = [
                f"# {line}" for line in ("; ".join(filter(None, [made, *about[:1]])), *about[1:])
            ]
            text = "\n".join([*lines, ",".join(self.columns)]) + "\n"
            self.path.write_text(text, encoding="utf-8")

    def add(self, *row) -> None:
        "Add a row, and show it; numbers have four digits, seconds one, what is missing stays empty."
        row = list(map(told, self.columns, [*row, *[""] * (len(self.columns) - len(row))]))
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)
        print(*row, sep="\t", flush=True)

    def fill(self, keys: Iterable[tuple], make: Callable[..., Iterable]) -> None:
        "Add a row for each key that has none yet: the key, and what `make` says about it."
        done = self.rows()
        for key in keys:
            words = list(map(str, key))
            if not any(row[: len(words)] == words for row in done):
                self.add(*words, *make(*key))

    def rows(self) -> list[list[str]]:
        "All rows, as they are written; none if there is no table yet."
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return [row for row in csv.reader(file) if row and not row[0].startswith("#")][1:]

    def frame(self) -> pd.DataFrame:
        return pd.read_csv(self.path, comment="#")


def told(column: str, value) -> str:
    if not isinstance(value, float | torch.Tensor):
        return str(value)
    return f"{value:.1f}" if column.endswith("seconds") else f"{value:.4f}"


def versions() -> str:
    "What the numbers were made with, for the top of a table."
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return f"after commit {commit or 'unknown'}; torch {torch.__version__.partition('+')[0]}; one thread of a CPU"


# ---------------------------------------------------------------- the command
def main(doc: str, kept: Kept, about: tuple, run: Callable, parts=(), show=None) -> None:
    "`--only` some parts, `--table` what was found; else what is missing in the table is made."
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    if parts:
        parser.add_argument("--only", choices=parts, nargs="+", help="some of the parts")
    if show:
        parser.add_argument("--table", action="store_true", help="show what was found")
    asked = vars(parser.parse_args())
    if asked.get("table"):
        return show(kept.frame())
    torch.set_num_threads(1)
    kept.begin(*about)
    for part in asked.get("only") or parts:
        run(part)
    if not parts:
        run()


def show_ways(table: pd.DataFrame, groups: list[str], over: str, values: list[str]) -> None:
    "For each group the mean and deviation of each way, and its difference from the first, in pairs."
    for group, part in table.groupby(groups, sort=False, dropna=False):
        for value in values:
            wide = part.pivot_table(index=over, columns="way", values=value, sort=False).dropna()
            print(*group, value, f"{len(wide)} of each", sep="; ")
            for way, found in wide.items():
                line = f"    {way:36} {found.mean():.4f} sd {found.std():.4f}"
                gap = found - wide.iloc[:, 0]
                print(line, in_words(gap, 4) if len(gap) > 1 and gap.any() else "")


def in_words(gaps: np.ndarray, digits: int = 3) -> str:
    "Mean of paired differences with its 95 % interval, by Student's t."
    mean, low, high = (f"{value:+.{digits}f}" for value in mean_interval(gaps))
    return f"{mean} ({low} to {high})"


# ---------------------------------------------------------------- trainings
def loaders(train, valid, bs: int, valid_bs: int = 64, valid_tfms=None, **options) -> DataLoaders:
    "Whole batches of `train` in random order, and `valid` as it is; other transforms for it if given."
    more = options if valid_tfms is None else options | {"after_batch": valid_tfms}
    return DataLoaders(
        DataLoader(train, bs=bs, shuffle=True, drop_last=True, device="cpu", **options),
        DataLoader(valid, bs=valid_bs, device="cpu", **more),
    )


def seconds_of(learn: Learner, train: Callable[[Learner], None]) -> float:
    "Seconds of the processor that a training takes; it says nothing."
    begin = time.process_time()
    with learn.no_bar(), learn.no_logging():
        train(learn)
    return time.process_time() - begin


def some_of_each(y: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    "Places of `n` of every class, drawn."
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    return torch.cat([order[y[order] == kind][:n] for kind in range(int(y.max()) + 1)])


def others(y: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    "Which are not at these places."
    rest = torch.ones(len(y), dtype=torch.bool)
    rest[places] = False
    return rest
