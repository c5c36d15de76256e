"""The groups of the library: `docs/library.ini` says which notebook stands in which.

The site's menu and its page 'Library' are made from them, and a check sees to it that none is left out.
"""

import re
from collections import Counter
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

from lessons import ROOT

GROUPS = ROOT / "docs" / "library.ini"


@dataclass(frozen=True)
class Group:
    "Notebooks of the library that belong together."

    title: str
    about: str  # one line
    names: tuple[str, ...]  # of the notebooks, without `library/` and `.ipynb`

    @property
    def page(self) -> str:
        "Name of its page on the site."
        return "groups/" + re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def groups(path: Path = GROUPS) -> list[Group]:
    "The groups, in the order of the menu; none without the file."
    config = ConfigParser(interpolation=None)
    config.read(path, encoding="utf-8")
    sections = [(title, config[title]) for title in config.sections()]
    return [Group(t, s["about"], tuple(s["notebooks"].split())) for t, s in sections]


def left_out(known: list[Group], names: list[str]) -> list[str]:
    "The notebooks that stand in no group."
    return sorted(set(names) - {name for group in known for name in group.names})


def faults(known: list[Group], names: list[str]) -> Iterator[str]:
    "What does not fit between the groups and the notebooks that there are."
    for name in left_out(known, names):
        yield f"library/{name}.ipynb stands in no group of docs/library.ini"
    for name, count in Counter(name for group in known for name in group.names).items():
        if name not in names:
            yield f"docs/library.ini has {name}, and there is no library/{name}.ipynb"
        if count > 1:
            yield f"docs/library.ini has {name} {count} times"
