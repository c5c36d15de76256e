"""A learner's own copies of the lessons, in `my/`: what is changed there touches no file of the course.

    python tools/my.py               add the notebooks that are missing; none is ever overwritten
    python tools/my.py --fresh 04    put lesson 04 anew; the old copy is kept beside it, with the date

`my/` lies beside `nbs/`, so that `../images` and `../bench` are the same folders for both.
"""

import argparse
import os
import sys
from datetime import datetime
from pathlib import Path

from lessons import ROOT, find, notebooks


def copies(root: Path = ROOT) -> dict[Path, Path]:
    "Notebook of the course -> its copy."
    nbs = root / "nbs"
    return {path: root / "my" / path.relative_to(nbs) for path in notebooks(nbs)}


def put(source: Path, target: Path) -> bool:
    "Copy in one step, unless something is there already: a killed copy leaves no half file."
    if os.path.lexists(target):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}-{os.getpid()}.part")
    try:
        part.write_bytes(source.read_bytes())
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    return True


def add_missing(root: Path = ROOT) -> str:
    "Add the notebooks that `my/` has not got; a line that says how many."
    pairs = copies(root)
    added = sum(put(source, target) for source, target in pairs.items())
    if not added:
        return f"my/ has all {len(pairs)} notebooks; what you changed there is untouched"
    return f"my/: {added} notebooks added, {len(pairs) - added} were there and are untouched"


def free_name(path: Path, now: datetime) -> Path:
    "A name beside `path` that says when it was put aside, and that nothing has yet."
    stems = [f"{path.stem}_{now:%Y-%m-%d}", f"{path.stem}_{now:%Y-%m-%d_%H-%M-%S}"]
    stems += [f"{stems[1]}-{i}" for i in range(2, 100)]
    names = [path.with_name(f"{stem}{path.suffix}") for stem in stems]
    return next(name for name in names if not os.path.lexists(name))


def fresh(name: str, root: Path = ROOT, now: datetime | None = None) -> str:
    "Put a lesson anew, its old copy aside; a line that says where both are."
    source = find(name, root / "nbs")
    target = copies(root)[source]
    here = target.relative_to(root).as_posix()
    if put(source, target):
        return f"{here} is there now"
    if target.is_file() and target.read_bytes() == source.read_bytes():
        return f"{here} is as the course has it: nothing to do"
    old = free_name(target, now or datetime.now())
    target.rename(old)
    put(source, target)
    return f"{here} is new; your old one is {old.relative_to(root).as_posix()}"


def main(argv: list[str] | None = None, root: Path = ROOT) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fresh", metavar="N", help="a lesson, by number or name")
    name = parser.parse_args(argv).fresh
    print(add_missing(root) if name is None else fresh(name, root))


if __name__ == "__main__":
    sys.exit(main())
