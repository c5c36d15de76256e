"Results beside a script: a table that grows run by run, so that a bench that was stopped goes on where it was."

import csv
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from coursekit.intervals import mean_interval


class Kept:
    "The table of a script, a CSV file of the same name, with lines of comment at its top."

    def __init__(self, script: str, columns: list[str]):
        self.path, self.columns = Path(script).with_suffix(".csv"), columns

    def begin(self, *about: str) -> None:
        "Write what the table is, and its columns, unless it is there."
        if not self.path.exists():
            lines = [*(f"# {line}" for line in about), ",".join(self.columns)]
            self.path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def add(self, *row) -> None:
        "Add a row, and show it; what is missing at its end stays empty."
        row = [*row, *[""] * (len(self.columns) - len(row))]
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)
        print(*row, sep="\t", flush=True)

    def rows(self) -> list[list[str]]:
        "All rows, as they are written; none if there is no table yet."
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return [row for row in csv.reader(file) if row and not row[0].startswith("#")][1:]

    def done(self, n: int) -> set[tuple[str, ...]]:
        "The first `n` columns of each row: what need not run again."
        return {tuple(row[:n]) for row in self.rows()}

    def frame(self) -> pd.DataFrame:
        return pd.read_csv(self.path, comment="#")


def versions() -> str:
    "What the numbers were made with, for the top of a table."
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return f"after commit {commit or 'unknown'}; torch {torch.__version__.partition('+')[0]}; one thread of a CPU"


def in_words(gaps: np.ndarray, digits: int = 3) -> str:
    "Mean of paired differences with its 95 % interval, by Student's t."
    mean, low, high = (f"{value:+.{digits}f}" for value in mean_interval(gaps))
    return f"{mean} ({low} to {high})"
