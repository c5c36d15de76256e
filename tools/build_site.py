"""Build the site from executed notebooks: `python tools/build_site.py [--nbs DIR] [--out DIR]`.

Copies of the notebooks and the generated pages (API, claims, data) are put together in `_build/site/`;
Sphinx makes a site of them in a temporary folder, which replaces the old one once it is finished. Runs
no notebook, and needs no network once the two JavaScript packages lie in `_build/js/`.
"""

import argparse
import contextlib
import functools
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
import unicodedata
import warnings
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from filelock import FileLock
from PIL import Image
from sphinx.cmd.build import build_main

import home_page
import lessons
import library_groups
from lessons import ROOT

sys.path[:0] = [str(ROOT / "docs"), str(ROOT)]
import api_pages  # noqa: E402
import speed_page  # noqa: E402
from lesson_pages import CODE, Course, claim_place, label, markdown, plain  # noqa: E402

BUILD = ROOT / "_build"
JS = BUILD / "js" / "lib"  # below `js`, so that the site serves them from `_static/lib/`
RELATIVE = r"(?:\]\(|<img [^>]*?src=\")(?:\.\./){%d}([^)\s\"#]+)"
# a picture that Sphinx has put among its own
IMAGE = re.compile(r'<img ([^>]*?src="((?:\.\./)*_images/[^"]+)")')
WIDE = 500  # pixels, above which a figure has parts with words too small for a telephone
KINDS = {"auto": "checked by code", "both": "told, and checked by code", "narrative": "told"}


class SiteError(SystemExit):
    "The site cannot be built; the message says why, and what to do."


def say(text: str) -> None:
    print(f"site: {text}", flush=True)


# ------------------------------------------------------------------------------ JavaScript
def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wanted(listing: Path = ROOT / "docs" / "javascript.txt") -> list[tuple[str, str, str, str]]:
    "Package, version, file and sha256 of each file that the site serves itself."
    rows = [x.split() for x in listing.read_text(encoding="utf-8").splitlines()]
    return [tuple(row) for row in rows if row and row[0] != "#"]


def fetch_javascript(
    folder: Path = JS, files: list[tuple[str, str, str, str]] | None = None
) -> None:
    "Put the files into `folder`, fetched from npm unless they lie there already."
    files = files if files is not None else wanted()
    missing = [f for f in files if not _is_there(folder / served_as(f[2]), f[3])]
    for name, version in dict.fromkeys(f[:2] for f in missing):
        say(f"fetching {name} {version} from npm, once")
        with tempfile.TemporaryDirectory() as temporary:
            source = unpack(name, version, Path(temporary) / "unpacked")
            for _, _, file, digest in (f for f in missing if f[:2] == (name, version)):
                _take(source / file, folder / served_as(file), digest)


def served_as(file: str) -> str:
    "Where a file of a package lies on the site: fonts in a folder, as style sheets expect them."
    return "/".join(Path(file).parts[-2 if Path(file).parent.name == "fonts" else -1 :])


def _is_there(path: Path, digest: str) -> bool:
    return path.exists() and sha256(path) == digest


def _take(source: Path, target: Path, digest: str) -> None:
    if not _is_there(source, digest):
        found = f"has sha256 {sha256(source)}, not {digest}" if source.exists() else "is not there"
        raise SiteError(f"site: {source.name} of the npm package {found}; see docs/javascript.txt")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}-{os.getpid()}")
    shutil.copyfile(source, part)
    part.replace(target)


def unpack(name: str, version: str, destination: Path) -> Path:
    "Folder with the contents of an npm package."
    from coursekit.registries import npm_package

    try:
        npm_package(name, version, destination)
    except (RuntimeError, OSError) as error:
        raise SiteError(
            f"site: cannot fetch {name} {version}: {error}\nThe site serves maths and sliders from it. "
            "With a network this is done once; the files are kept in _build/js/."
        ) from error
    inner = destination / "package"
    return inner if inner.is_dir() else destination


# ------------------------------------------------------------------------------ sources
def page_of(path: Path) -> str:
    "Name of a notebook's page, from the root of the site."
    return f"library/{path.stem}" if lessons.is_library(path) else path.stem


def pages_in(folder: Path) -> list[Path]:
    "The notebooks that are pages: home first, then the lessons, then the library."
    found = [p for p in lessons.notebooks(folder) if is_page(p)]
    return sorted(found, key=lambda p: (p.stem != "index", lessons.is_library(p), p.name))


def is_page(path: Path) -> bool:
    return path.stem == "index" or lessons.is_lesson(path) or lessons.is_library(path)


def course(folder: Path) -> list[Path]:
    "The pages, if they are complete; refuses a lesson that was never run."
    found = pages_in(folder)
    if not found or found[0].stem != "index":
        raise SiteError(f"site: index.ipynb, the home page, is not in {folder}")
    for path in filter(lessons.is_lesson, found):
        code = [c for c in lessons.read(path).cells if lessons.is_code(c)]
        if code and not any(c.get("outputs") for c in code):
            raise SiteError(
                f"site: {path.name} has no outputs, so the page would show no result.\n"
                f"Run it first: .venv/bin/python tools/run.py {path.stem} --inplace"
            )
    return found


def copy_notebook(path: Path, target: Path) -> None:
    "The notebook, and the files above the notebooks' folder that its text refers to."
    page = page_of(path)
    (target / page).parent.mkdir(exist_ok=True)
    shutil.copyfile(path, target / f"{page}.ipynb")
    text = "\n".join(c.source for c in lessons.read(path).cells if c.cell_type == "markdown")
    above = RELATIVE % (page.count("/") + 1)
    for name in map(unquote, re.findall(above, CODE.sub("", text))):
        source = (ROOT / name).resolve()
        if not (source.is_file() and source.is_relative_to(ROOT)):
            raise SiteError(
                f"site: {path.name} refers to ../{name}, which is not in the repository"
            )
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target / name)


def api(target: Path, pages: list[Path]) -> list[str]:
    "What each module offers: below its library notebook, else on a page, whose names are returned."
    modules = api_pages.package()
    makers = {lessons.module_of(lessons.read(p)): p for p in pages}
    (target / "api").mkdir()
    own = []
    for name in modules:
        path = makers.get(name)
        if path and lessons.is_library(path):
            text, file = api_pages.section(name, modules), f"{page_of(path)}.txt"
        else:
            text, file = api_pages.page(name, modules, made_in(path)), f"api/{name}.md"
            own.append(name)
        (target / file).write_text(text, encoding="utf-8")
    return own


def made_in(path: Path | None) -> str:
    "Where a module comes from, with a link."
    if path is None:
        return ""
    return (
        f"Built and explained in the lesson [{lessons.title(lessons.read(path))}](../{path.name})."
    )


# ------------------------------------------------------------------------------ claims
def places(pages: Iterable[Path]) -> dict[str, list[tuple[str, int]]]:
    "For each claim the pages that show it, with the number of the place on that page."
    found: dict[str, list[tuple[str, int]]] = {}
    for path in pages:
        seen: dict[str, int] = {}
        for claim in (i for cell in lessons.read(path).cells for i in lessons.claims_of(cell)):
            seen[claim] = seen.get(claim, 0) + 1
            found.setdefault(claim, []).append((path.stem, seen[claim]))
    return found


def claim_item(row: dict[str, str], shown: list[tuple[str, int]], refuted: bool = False) -> str:
    "One statement of the index with links to the cells that show it."
    links = [
        f"[{f'again ({i})' if i > 1 else 'see it'}](#{label(stem, claim_place(row['id'], number))})"
        for i, (stem, number) in enumerate(shown, 1)
    ]
    last = ", ".join(links) or "not shown yet"
    found = "does not hold as worded" if refuted else KINDS[row["testable"]]
    small = f"{row['kind']} · {found} · {last}"
    return f"- []{{#{label('claims', row['id'])} .place}}{plain(row['claim'])}\n  [{small}]{{.small-print}}\n"


def claims_page(table: dict[str, dict[str, str]], pages: list[Path]) -> str:
    "The index of what can be checked here, as MyST."
    shown = places(pages)
    false = {i for p in pages for cell in lessons.read(p).cells for i in lessons.refuted_of(cell)}
    present = {p.stem: lessons.title(lessons.read(p)) for p in pages}
    rows = list(table.values())
    later = [r["lesson"] for r in rows if r["lesson"] not in present]
    parts = [
        "# What you can check here\n",
        "Every idea that the course promises to show is listed here once, with a link to the cell that "
        "shows it. *Checked by code* means that the cell has a check which could fail. *Told* means that it "
        "is explained, and that no experiment of ours decides it. A few do not hold as they are worded: the "
        "lesson says what does.\n",
    ]
    parts.append(
        f"{len(rows) - len(later)} of the {len(rows)} statements belong to lessons that exist"
        + (", the others to [lessons still to be written](#claims--later).\n" if later else ".\n")
    )
    parts.append(filter_box("statements"))
    for path in (p for p in pages if p.stem in present):
        items = [
            claim_item(r, shown.get(r["id"], []), r["id"] in false)
            for r in rows
            if r["lesson"] == path.stem
        ]
        if items:
            heading = f"## [{present[path.stem]}]({page_of(path)}.ipynb)\n"
            parts += [heading, "{.claims .filtered}\n" + "".join(items)]
    if later:
        parts += ["[]{#claims--later .place}\n", "## Lessons still to be written\n"]
        parts += [
            f"- {lesson.replace('_', ' ')}: {later.count(lesson)}"
            for lesson in dict.fromkeys(later)
        ]
    return "\n".join(parts) + "\n"


def filter_box(what: str) -> str:
    "Where site.js puts a field that filters the lists below it; without JavaScript it stays empty."
    return f'<div class="filter-box" data-what="{what}"></div>\n'


# ------------------------------------------------------------------------------ glossary
def terms(pages: Iterable[Path]) -> list[tuple[str, str, Path]]:
    "Every term that a box explains, with its explanation and the page, in the order of the alphabet."
    found = []
    for path in pages:
        sources = [c.source for c in lessons.read(path).cells if c.cell_type == "markdown"]
        found += [(*term, path) for source in sources for term in lessons.terms_in(source)]
    return sorted(found, key=lambda x: (in_order(x[0]), x[2].name))


def in_order(term: str) -> str:
    "What a term is sorted by: its letters without accents, signs and case."
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFD", term)).casefold()


def term_item(term: str, text: str, path: Path) -> str:
    "One term of the glossary, with a link to its box."
    anchor = lessons.term_place(term)
    link = f"[{lessons.title(lessons.read(path))}](#{label(path.stem, anchor)})"
    words = markdown(text, path.stem, Course())
    here = f"[]{{#{label('glossary', anchor)} .place}}"
    return f"- {here}**{term}**. {words}\n  [{link}]{{.small-print}}\n"


def initial(term: str) -> str:
    "The letter under which a term stands."
    first = in_order(term)[:1].upper()
    return first if "A" <= first <= "Z" else "0-9"


def glossary_page(pages: list[Path]) -> str:
    "The terms of the field that the course explains, as MyST."
    groups: dict[str, list[str]] = {}
    for term, text, path in terms(pages):
        groups.setdefault(initial(term), []).append(term_item(term, text, path))
    count = sum(map(len, groups.values()))
    letters = " ".join(f"[{letter}](#glossary--{letter.lower()})" for letter in groups)
    parts = [
        "# Glossary\n",
        f"The {count} terms that the course explains, each with a link to the place where it is first "
        "needed.\n",
        filter_box("terms"),
        f"{{.letters}}\n{letters}\n" if letters else "",
    ]
    for letter, items in groups.items():
        place = f"[]{{#glossary--{letter.lower()} .place}}\n"
        parts += [place, f"## {letter}\n", "{.terms .filtered}\n" + "".join(items)]
    return "\n".join(parts) + "\n"


# ------------------------------------------------------------------------------ library
Shown = list[tuple[library_groups.Group, list[Path]]]


def groups_shown(pages: list[Path], known: list[library_groups.Group] | None = None) -> Shown:
    "The groups that have notebooks among the pages, with these; refuses a notebook without a group."
    known = library_groups.groups() if known is None else known
    paths = {p.stem: p for p in pages if lessons.is_library(p)}
    if missing := library_groups.left_out(known, list(paths)):
        raise SiteError(
            f"site: no group of the library has {', '.join(missing)}.\n"
            "Put each into the group where a reader would look for it: docs/library.ini"
        )
    found = [(group, [paths[n] for n in group.names if n in paths]) for group in known]
    return [(group, some) for group, some in found if some]


def notebook_item(path: Path, up: str) -> str:
    "One notebook with what it says about itself; `up` leads from the page to the root of the site."
    nb = lessons.read(path)
    words = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", lessons.in_a_line(nb))
    return f"- **[{lessons.title(nb)}]({up}{page_of(path)}.ipynb)**\n\n  {plain(words)}\n"


def group_page(group: library_groups.Group, some: list[Path]) -> str:
    "The page of a group, below which its notebooks stand in the menu."
    items = "".join(notebook_item(p, "../") for p in some)
    menu = "\n".join(f"/{page_of(p)}.ipynb" for p in some)
    return (
        f"# {group.title}\n\n{plain(group.about)}\n\n{{.terms}}\n{items}\n"
        f"```{{toctree}}\n:hidden:\n\n{menu}\n```\n"
    )


def library_page(shown: Shown) -> str:
    "All notebooks of the library, in their groups, as MyST."
    parts = [
        "# Library\n",
        f"A lesson teaches; what it uses and does not spell out is built here, in "
        f"{sum(len(some) for _, some in shown)} notebooks, each with its reasons, checks and API. "
        "Nobody has to read them to follow a lesson.\n",
        filter_box("notebooks"),
    ]
    for group, some in shown:
        items = "".join(notebook_item(p, "") for p in some)
        heading = f"## [{group.title}]({group.page}.md)\n"
        parts += [heading, f"{plain(group.about)}\n", "{.terms .filtered}\n" + items]
    return "\n".join(parts)


def library_pages(shown: Shown) -> dict[str, str]:
    "The page of the whole library and those of its groups; none without a library."
    made = {f"{group.page}.md": group_page(group, some) for group, some in shown}
    return made | ({"library.md": library_page(shown)} if made else {})


# ------------------------------------------------------------------------------ data
def size(count: int) -> str:
    "Bytes for people: 1234567 is 1.2 MB."
    for unit, scale in {"GB": 1e9, "MB": 1e6, "kB": 1e3}.items():
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


def data_item(name: str, entry) -> str:
    "One data set of the data page."
    sources = ["the cache", "a mirror folder", *map(str, entry.sources)]
    sizes = {"to download": entry.download, "on disk": entry.size}
    rows = {
        "Licence": entry.licence,
        "Cite": entry.citation,
        "Size": ", ".join(f"{size(n)} {what}" for what, n in sizes.items() if n) or "not known",
        "Sources, in order": "; ".join(sources) + ("" if entry.sources else f". {entry.advice}"),
        "Checked": f"SHA-256 of {entry.checked}" if entry.pinned else entry.checked,
        "Used in": ", ".join(f"lesson {n}" for n in entry.used_in),
    }
    about = f"{entry.title[:1].upper()}{entry.title[1:]}. {entry.about}".strip()
    lines = [f"- **{key}**: {plain(text)}" for key, text in rows.items() if text]
    return f"## {name}\n\n{plain(about)}\n\n{{.record}}\n" + "\n".join(lines) + "\n"


def data_page(urls: type | None = None) -> str:
    "The data sets of the course, from the records that the package uses to fetch them."
    if urls is None:
        from coursekit.datasets import URLs as urls  # here: it is slow to import
    entries = {n: e for n, e in vars(urls).items() if n[0] != "_" and hasattr(e, "sources")}
    head = (
        "# Data\n\n`untar_data(URLs.MNIST)` fetches a data set once, proves that it is the right one, and "
        "returns its folder. These are the sets that it knows. Nobody else's data is part of this "
        "site or of the package: each set stays under its own licence, and is to be cited when it is used.\n"
    )
    return "\n".join([head, *(data_item(n, e) for n, e in entries.items())])


# ------------------------------------------------------------------------------ the rest
def toc(pages: list[Path], modules: list[str], shown: Shown) -> str:
    "The menu at the side."
    groups = {
        "Lessons": [p.name for p in pages if lessons.is_lesson(p)],
        "Library": [f"{group.page}.md" for group, _ in shown],
        "Look up": ["glossary.md", "claims.md", "data.md", "docs/teaching.md", "docs/speed.md"],
        "API": [f"{m} <api/{m}.md>" for m in modules],
    }
    if groups["Library"]:
        groups["Library"].insert(0, "All of it <library.md>")
    block = "```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```"
    return "\n\n".join(block.format(n, "\n".join(rows)) for n, rows in groups.items() if rows)


def assemble(folder: Path, target: Path, claims: Path) -> str:
    "Put everything that Sphinx reads into `target`; returns a line that says what it is."
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    pages = course(folder)
    shown = groups_shown(pages)
    for path in pages:
        copy_notebook(path, target)
    modules = api(target, pages)
    table = lessons.claims_table(claims)
    shutil.copyfile(claims, target / "claims.csv")
    known = {
        "lessons": {p.stem[:2]: p.stem for p in pages if lessons.is_lesson(p)},
        "cards": home_page.cards(pages[0]),
        "numbers": home_page.numbers(pages, table) + speed_page.sentence(),
    }
    (target / "course.json").write_text(json.dumps(known), encoding="utf-8")
    made = {
        "claims.md": claims_page(table, pages),
        "glossary.md": glossary_page(pages),
        "data.md": data_page(),
        "404.md": NOT_FOUND,
        "docs/teaching.md": with_links(TEACHING.read_text(encoding="utf-8"), pages),
        "docs/speed.md": with_links(speed_page.page(target), pages),
        "index.txt": toc(pages, modules, shown),
    }
    for folder in ("groups", "docs"):
        (target / folder).mkdir(exist_ok=True)
    for name, text in (made | library_pages(shown)).items():
        (target / name).write_text(text, encoding="utf-8")
    return f"{len(pages)} notebooks, {len(modules)} modules of lessons, {len(table)} claims"


def with_links(text: str, pages: list[Path]) -> str:
    "A text of docs/ with links to the pages of the site; a course for tests has not all lessons."
    known = {page_of(p) for p in pages}

    def link(match: re.Match) -> str:
        return f"[{match[1]}](../{match[2]}.ipynb)" if match[2] in known else match[1]

    return re.sub(r"\[([^\]]+)\]\(\.\./nbs/([\w/]+)\.ipynb\)", link, text)


TEACHING = ROOT / "docs" / "teaching.md"
NOT_FOUND = """---
orphan: true
---

# There is no such page

It may have moved. Try the search, or begin again at the [home page](index.ipynb).
"""


class Progress(io.TextIOBase):
    "Shows the lines of Sphinx that say how far it is, and keeps the rest to itself."

    def __init__(self) -> None:
        self.rest = ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text.replace("\r", "\n")).split("\n")
        for line in lines:
            if re.match(r"(reading sources|writing output)\.\.\. \[", line):
                print(f"site: {line.strip()}", file=sys.__stdout__, flush=True)
        return len(text)


def sphinx(source: Path, out: Path, doctrees: Path, builder: str = "html") -> None:
    "Run Sphinx; every warning is an error, and all of them are shown."
    quiet = ["-q"] if builder == "linkcheck" else []  # else broken links go to what is not shown
    options = [*quiet, "--no-color", "-E", "-W", "--keep-going", "-b", builder]
    places = ["-c", str(ROOT / "docs"), "-d", str(doctrees), str(source), str(out)]
    with contextlib.redirect_stdout(Progress()), warnings.catch_warnings():
        for kind in (DeprecationWarning, PendingDeprecationWarning):  # of one library about another
            warnings.simplefilter("ignore", kind)
        failed = build_main([*options, *places])
    if failed:
        raise SiteError("site: Sphinx found the faults above; the site is as it was before")


def replace(new: Path, out: Path) -> None:
    "Put `new` in the place of `out` by renaming, so that nobody sees half a site."
    old = out.with_name(f".{out.name}-old-{os.getpid()}")
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def build(
    folder: Path, out: Path, claims: Path = ROOT / "claims.csv", work: Path = BUILD / "site"
) -> Path:
    "The whole site from the notebooks in `folder`, in `out`."
    began = time.monotonic()
    fetch_javascript()
    BUILD.mkdir(exist_ok=True)
    with FileLock(BUILD / "lock"):  # one at a time
        _build(folder, out, claims, work)
    count = sum(1 for _ in out.rglob("*.html"))
    say(f"{count} pages in {time.monotonic() - began:.0f} s; open {out / 'index.html'}")
    return out


def _build(folder: Path, out: Path, claims: Path, work: Path) -> None:
    say(assemble(folder, work, claims))
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in out.parent.glob(f".{out.name}-*"):  # of builds that were killed
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        temporary.chmod(0o755)
        sphinx(work, temporary / "html", temporary / "doctrees")
        finish(pages_in(folder), temporary / "html")
        replace(temporary / "html", out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def light_images(html: Path) -> None:
    "Pictures wait until they are near, hold their place until then, and wide ones say so."

    @functools.cache
    def size_of(path: Path) -> tuple[int, int]:
        with Image.open(path) as image:
            return image.size

    for page in html.rglob("*.html"):

        def put(match: re.Match, page: Path = page) -> str:
            path = page.parent / unquote(match[2])
            if path.suffix == ".svg" or "loading=" in match[0]:
                return match[0]
            width, height = size_of(path.resolve())
            wide = " data-wide" if width > WIDE else ""
            size = "" if "width" in match[1] else f' width="{width}" height="{height}"'
            return f'<img{wide} loading="lazy"{size} {match[1]}'

        text = page.read_text(encoding="utf-8")
        page.write_text(IMAGE.sub(put, text), encoding="utf-8")


def finish(pages: list[Path], html: Path) -> None:
    "What Sphinx does not make: the cards' pictures, and a map for search engines."
    (html / ".nojekyll").touch()
    light_images(html)
    home_page.thumbnails(pages, ROOT / "images", html / "_static" / "cards")
    (html / "_static" / "scripts" / "fontawesome.js").unlink(missing_ok=True)  # see layout.html
    if site := lessons.settings().get("site_url", "").rstrip("/"):
        names = sorted(str(p.relative_to(html)) for p in html.rglob("*.html"))
        found = "".join(f"<url><loc>{site}/{n}</loc></url>\n" for n in names if n != "404.html")
        head = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
        (html / "sitemap.xml").write_text(f"{head}\n{found}</urlset>\n", encoding="utf-8")
        robots = f"User-agent: *\nAllow: /\nSitemap: {site}/sitemap.xml\n"
        (html / "robots.txt").write_text(robots, encoding="utf-8")


def check_links(folder: Path) -> None:
    "Ask every address outside the site whether it is still there; needs a network."
    fetch_javascript()
    with FileLock(BUILD / "lock"), tempfile.TemporaryDirectory() as temporary:
        say(assemble(folder, BUILD / "site", ROOT / "claims.csv"))
        places = Path(temporary)
        sphinx(BUILD / "site", places / "links", places / "doctrees", "linkcheck")
    say("every link to another site leads somewhere")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--nbs", type=Path, default=ROOT / "nbs", help="folder of executed notebooks"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "_site", help="where the site goes")
    parser.add_argument("--linkcheck", action="store_true", help="check links to other sites")
    options = parser.parse_args(arguments)
    if options.linkcheck:
        return check_links(options.nbs.resolve())
    build(options.nbs.resolve(), options.out.resolve())


if __name__ == "__main__":
    main()
