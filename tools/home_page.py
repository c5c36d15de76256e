"""What the home page shows of the lessons, taken from the lessons: cards with a picture, and numbers.

The table of the lessons in `nbs/index.ipynb` says what each builds and its level; title, minutes, seconds
and picture come from the lesson itself, so that nothing of it is typed twice.
"""

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode
from PIL import Image

import lessons

ROW = re.compile(
    r"^\| (\d\d) \| \[([^\]]+)\]\(([\w-]+)\.ipynb\) \| (.+?) \| ([^|]+?) \|[ \t]*$", re.M
)
TABLE = re.compile(r"(?:^\|.*\n?)+", re.M)
PICTURE = re.compile(r"!\[[^\]]*\]\(\.\./images/([\w.-]+)\)")
WIDTH = 360  # pixels of a card's picture, for screens with two to a point


@dataclass(frozen=True)
class Row:
    "A lesson in the table of the home page."

    number: str
    title: str
    page: str
    builds: str
    level: str


def rows(index: NotebookNode) -> list[Row]:
    "The lessons that the home page lists."
    text = "\n".join(c.source for c in index.cells if c.cell_type == "markdown")
    return [Row(*found) for found in ROW.findall(text)]


def picture(nb: NotebookNode) -> str:
    "File name of the first picture that a lesson shows, in images/."
    text = "\n".join(c.source for c in nb.cells[:4] if c.cell_type == "markdown")
    found = PICTURE.search(text)
    return found[1] if found else ""


def facts(nb: NotebookNode) -> str:
    "Minutes to read and seconds to run."
    found = [f"{lessons.reading_minutes(nb)} min to read"]
    if seconds := nb.metadata.get("coursekit", {}).get("seconds"):
        found.append(f"{seconds:.0f} s to run")
    return " · ".join(found)


def card(row: Row, nb: NotebookNode) -> str:
    "One lesson: picture, number and title, what one builds, and what it takes."
    image = ""
    if picture(nb):
        image = f'<img src="_static/cards/{row.page}.webp" alt="" loading="lazy">'
    builds = html.escape(row.builds[:1].upper() + row.builds[1:])
    return (
        f'<a class="card-of-lesson" href="{row.page}.html" data-lesson="{row.page}">{image}'
        f"<strong>{html.escape(lessons.title(nb))}</strong><span>{builds}.</span>"
        f"<small>{html.escape(row.level)} · {facts(nb)}</small></a>"
    )


def cards(index: Path) -> str:
    "All lessons of the table as cards, one block of HTML; empty without a table."
    listed = [(row, index.parent / f"{row.page}.ipynb") for row in rows(lessons.read(index))]
    found = [card(row, lessons.read(path)) for row, path in listed if path.exists()]
    return f'<div class="cards-of-lessons">{"".join(found)}</div>' if found else ""


def thumbnails(pages: Iterable[Path], images: Path, out: Path) -> None:
    "The lessons' pictures, small, as `out/PAGE.webp`."
    out.mkdir(parents=True, exist_ok=True)
    for path in filter(lessons.is_lesson, pages):
        name = picture(lessons.read(path))
        if name and (images / name).exists():
            with Image.open(images / name) as image:
                small = image.convert("RGB")
                small.thumbnail((WIDTH, WIDTH))
                small.save(out / f"{path.stem}.webp", quality=62)


def numbers(pages: Iterable[Path], table: dict[str, dict[str, str]]) -> str:
    "A sentence that counts what the notebooks hold."
    read = {path: lessons.read(path) for path in pages}
    code = [c.source for nb in read.values() for c in nb.cells if lessons.is_code(c)]
    checks = sum(lessons.all_checks_in(lessons.plain_python(source)) for source in code)
    exercises = sum(len(lessons.exercises(nb)) for nb in read.values())
    shown = {i for nb in read.values() for c in nb.cells for i in lessons.claims_of(c)}
    proved = sum(i in shown and row["testable"] != "narrative" for i, row in table.items())
    return (
        f"**{len(shown & set(table))} statements** of the course are shown in cells, **{proved}** of "
        f"them checked by code that could fail. **{checks:,} checks** stand in **{len(read)} "
        f"notebooks**, and **{exercises} exercises** answer back."
    )


def described(paragraphs: Iterable[str], length: int = 200) -> str:
    "The first paragraph that says something, cut at a word."
    text = next((" ".join(p.split()) for p in paragraphs if len(p) > 40), "")
    return text if len(text) <= length else text[:length].rsplit(" ", 1)[0] + " …"
