"""Check what a reader cannot see at a glance: that the parts of the repository agree with each other.

    python tools/check.py            every check; lists all that is wrong
    python tools/check.py --readme   write README.md from nbs/index.ipynb
    python tools/check.py --still    write the exceptions of tools/still.txt that are needed now

Each check is a function that yields one sentence for each fault it finds. Nothing is run here.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbconvert
from nbformat import NotebookNode
from packaging.requirements import Requirement

import home_page
import library_groups
from lessons import (
    ROOT,
    checks_in,
    claims_of,
    claims_table,
    digest,
    directives,
    exercises,
    in_a_line,
    is_code,
    is_lesson,
    is_library,
    modules_imported,
    notebooks,
    pictures,
    read,
    refuted_of,
    settings,
    title,
)
from run import strip
from shape import Course, shape, write_still

MACHINE_PATH = re.compile(r"(?<![\w.])/(?:root|home|Users|tmp|var|work|opt|private|mnt)/\w")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]*)\)")
ANCHOR = re.compile(r"<a id=\"([^\"]+)\"></a>")
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]+`", re.M | re.S)
HEADINGS = ("Summary", "Questionnaire", "Exercises", "Go further")
LARGEST = 1_000_000


# ---------------------------------------------------------------- the package
def export(root: Path = ROOT) -> Iterator[str]:
    "The modules equal a fresh export, and none is left from a notebook that is gone."
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        for path in notebooks(root / "nbs"):
            copy = fresh / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        for name in ("pyproject.toml", "settings.ini", "README.md"):
            shutil.copy(root / name, fresh)
        (fresh / "coursekit").mkdir()
        shutil.copy(root / "coursekit" / "__init__.py", fresh / "coursekit")
        command = [Path(sys.executable).with_name("nbdev-export")]
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True)
        if done.returncode:
            yield f"nbdev-export fails: {done.stderr.strip().splitlines()[-1]}"
            return
        made = {p.name: p.read_text("utf-8") for p in (fresh / "coursekit").glob("*.py")}
    kept = {p.name: p.read_text("utf-8") for p in (root / "coursekit").glob("*.py")}
    for name in sorted(made.keys() | kept.keys()):
        if name not in made:
            yield f"coursekit/{name} is made by no notebook: delete it"
        elif made[name] != kept.get(name):
            yield f"coursekit/{name} differs from a fresh export: run make export"


def versions(root: Path = ROOT) -> Iterator[str]:
    "settings.ini and the package name the same version, and pyproject.toml the same package."
    ini = settings(root)
    text = (root / "coursekit" / "__init__.py").read_text("utf-8")
    if f'__version__ = "{ini["version"]}"' not in text:
        yield f"settings.ini has version {ini['version']}, coursekit/__init__.py has {text.strip()}"
    if f'name = "{ini["lib_name"]}"' not in (root / "pyproject.toml").read_text("utf-8"):
        yield "settings.ini and pyproject.toml name different packages"


def lock(root: Path = ROOT) -> Iterator[str]:
    "Every requirement of settings.ini has a pin in the lock file that satisfies it."
    ini, pins = settings(root), {}
    for line in (root / "requirements.lock").read_text("utf-8").splitlines():
        if m := re.match(r"([\w.-]+)==([\w.+]+)", line):
            pins.setdefault(m[1].lower().replace("_", "-"), set()).add(m[2])
    for line in "\n".join(ini[key] for key in ini if key.endswith("requirements")).split("\n"):
        if not line.strip():
            continue
        wanted = Requirement(line.strip())
        found = pins.get(wanted.name.lower(), set())
        if not found or not all(wanted.specifier.contains(v) for v in found):
            yield f"requirements.lock has {sorted(found) or 'no pin'} for {line.strip()}: run make lock"


def imports(root: Path = ROOT) -> Iterator[str]:
    "A lesson that exports takes from earlier lessons and the library; what it makes is used by others."
    course = Course(root)
    used = {name: course.used_by(name) for name in course.notebooks}
    for name in (n for n in course.lessons if n in course.makers.values()):
        if "all" in used[name]:
            yield f"{name} imports coursekit.all, which holds what later lessons make: import by name"
        for module in sorted(used[name] & course.makers.keys()):
            maker = course.makers[module]
            if maker in course.lessons and maker >= name:
                yield f"{name} imports coursekit.{module}, which {maker} makes: only earlier lessons may be used"
    last = max(course.lessons, default="")
    benches = {m for p in root.glob("bench/*.py") for m in modules_imported(p.read_text("utf-8"))}
    for module, maker in course.makers.items():
        others = [n for n in used if (n > maker or n not in course.lessons) and n != "library/all"]
        seen = module in benches or any(module in used[n] for n in others)
        if maker in course.lessons and maker != last and not seen:
            yield f"coursekit.{module} is used by no later lesson, nor in bench/"


# ---------------------------------------------------------------- the lessons
def claims(root: Path = ROOT) -> Iterator[str]:
    "Each claim of a lesson that exists has a cell, and an assert that could fail where one is asked."
    table = claims_table(root / "claims.csv")
    shown: dict[str, set[str]] = {}
    ticked, refuted = set(), set()
    for path in notebooks(root / "nbs"):
        for i, cell in enumerate(read(path).cells):
            ids = claims_of(cell)
            if unknown := [k for k in ids if k not in table]:
                yield f"{path.name} [{i}] marks {', '.join(unknown)}: not in claims.csv"
            if len(ids) > 4:
                yield f"{path.name} [{i}] marks {len(ids)} claims; a cell shows at most 4"
            asked = [k for k in ids if k in table and table[k]["testable"] in ("auto", "both")]
            found = len(checks_in(cell.source)) if is_code(cell) else 0
            if len(asked) > found:
                yield f"{path.name} [{i}] marks {' '.join(asked)} and has {found} checks that could fail"
            options = directives(cell.source)[0] if is_code(cell) else {}
            false = refuted_of(cell)
            if "refuted" in options and (not false or set(false) - set(ids)):
                yield f"{path.name} [{i}] refutes {options['refuted'] or 'nothing'}: name claims that the cell marks"
            refuted, ticked = refuted | set(false), ticked | set(ids) - set(false)
            for k in ids:
                shown.setdefault(k, set()).add(path.stem)
    for k in sorted(refuted & ticked):
        yield f"claim {k} is refuted in one cell and has a plain tick in another"
    present = {p.stem for p in notebooks(root / "nbs")}
    for k, row in table.items():
        if row["lesson"] in present and k not in shown:
            yield f"claim {k} of {row['lesson']} has no cell: {row['claim']}"


def outputs(root: Path = ROOT) -> Iterator[str]:
    "Committed outputs come from the present sources and from data that may be shown, and are clean."
    for path in notebooks(root / "nbs"):
        nb, name = read(path), path.name
        record = nb.metadata.get("coursekit", {})
        if record.get("sources") != digest(nb):
            yield f"{name}: the outputs are not from the present sources: python tools/run.py {path.stem} --inplace"
        if record.get("mirror"):
            yield f"{name}: it was run with the mirror's data, which must not be shown"
        if path.stat().st_size > LARGEST:
            yield f"{name}: {path.stat().st_size / 1e6:.2f} MB, more than {LARGEST / 1e6:.0f} MB"
        for picture, png in pictures(nb).items():
            file = root / "images" / picture
            if not png or not file.exists() or file.read_bytes() != png:
                yield f"{name}: images/{picture} is not the figure of its cell: run it --inplace"
        if strip(read(path)).cells != nb.cells:
            yield f"{name}: not clean, or a proof is not folded: python tools/run.py {path.stem} --inplace"
        for i, cell in enumerate(nb.cells):
            yield from (f"{name} [{i}]: {fault}" for fault in output_faults(cell))


def output_faults(cell: NotebookNode) -> Iterator[str]:
    for out in cell.get("outputs", []):
        text = out.get("text", "") + str(
            {k: v for k, v in out.get("data", {}).items() if k.startswith("text")}
        )
        if out.output_type == "error":
            yield f"an error in the output: {out.ename}"
        if out.get("name") == "stderr" or re.search(r"\bWarning:|[a-z]Warning:", text):
            yield "a warning or a progress bar in the output"
        if m := MACHINE_PATH.search(text):
            yield f"a path of a machine in the output: {text[m.start() : m.start() + 40]!r}"
        picture = {"image/png", "image/jpeg", "image/svg+xml"} & set(out.get("data", {}))
        if picture and not directives(cell.source)[0].get("fig-alt"):
            yield "a figure without #| fig-alt"


def form(root: Path = ROOT) -> Iterator[str]:
    "A lesson ends as every lesson does, its exercises are whole and unanswered, it has a headline."
    for path in filter(is_lesson, notebooks(root / "nbs")):
        nb = read(path)
        text = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
        for heading in HEADINGS:
            if not re.search(rf"^## {heading}$", text, re.M):
                yield f"{path.name}: no heading '## {heading}'"
        if not any("headline" in directives(c.source)[0] for c in nb.cells if is_code(c)):
            yield f"{path.name}: no cell is marked #| headline"
        for line in re.findall(r"^<details>.*`.*$", text, re.M):
            yield f"{path.name}: backticks stay as they are in a line that begins with <details>: {line[:70]}"
        if not (found := exercises(nb)):
            yield f"{path.name}: no exercise"
        for name, parts in found.items():
            if missing := {"check", "exercise", "solution"} - set(parts):
                yield f"{path.name}: exercise {name} has no {', '.join(sorted(missing))}"
        for cell in nb.cells:
            options = directives(cell.source)[0] if is_code(cell) else {}
            said = "".join(o.get("text", "") for o in cell.get("outputs", []))
            if "exercise" in options and "not answered yet" not in said:
                yield f"{path.name}: the cell of exercise {options['exercise']} does not say 'not answered yet'"
            if "check" in options and "hide" not in options:
                yield f"{path.name}: the check of exercise {options['check']} is not hidden"


# ---------------------------------------------------------------- words and links
def links(root: Path = ROOT) -> Iterator[str]:
    "Every link inside the repository leads to a file and an anchor that are there; pictures have alt text."
    pages = {
        p: [c.source for c in read(p).cells if c.cell_type == "markdown"]
        for p in notebooks(root / "nbs")
    }
    pages |= {p: [p.read_text("utf-8")] for p in [*root.glob("*.md"), *root.glob("docs/*.md")]}
    anchors = {p: set(ANCHOR.findall("\n".join(texts))) for p, texts in pages.items()}
    for page, texts in pages.items():
        for text in texts:
            text = CODE.sub("", text)
            if re.search(r"<img(?![^>]*alt=\"[^\"]+)", text):
                yield f"{page.name}: <img> without alt text"
            for bang, words, target in LINK.findall(text):
                if bang and not words.strip():
                    yield f"{page.name}: picture {target} without alt text"
                if re.match(r"[a-z]+:", target):
                    continue
                file, _, anchor = target.partition("#")
                other = (page.parent / file).resolve() if file else page
                if not other.exists():
                    yield f"{page.name}: link to {target}, which is not there"
                elif anchor and anchor not in anchors.get(other, set()):
                    yield f"{page.name}: link to {target}, but no such anchor"


def library(root: Path = ROOT) -> Iterator[str]:
    "Every notebook of the library stands in one group of the site's menu, and says in a line what it is."
    paths = list(filter(is_library, notebooks(root / "nbs")))
    known = library_groups.groups(root / "docs" / "library.ini")
    yield from library_groups.faults(known, [p.stem for p in paths])
    for path in paths:
        if not in_a_line(read(path)):
            yield f"library/{path.name}: below the title no line that says what it is: > One sentence."


def titles(root: Path = ROOT) -> Iterator[str]:
    "A lesson's title begins with its number, and the home page calls every lesson by its title."
    found = {p.stem: title(read(p)) for p in filter(is_lesson, notebooks(root / "nbs"))}
    for page, words in found.items():
        if not words.startswith(f"{page[:2]} · "):
            yield f"{page}.ipynb: the title {words!r} does not begin with '{page[:2]} · '"
    index = root / "nbs" / "index.ipynb"
    listed = {row.page: f"{row.number} · {row.title}" for row in home_page.rows(read(index))}
    for page in sorted(found.keys() | listed.keys()):
        if found.get(page) != listed.get(page):
            yield f"index.ipynb calls {page} {listed.get(page)!r}, and it is {found.get(page)!r}"


def readme_text(root: Path = ROOT) -> str:
    "README.md as nbconvert makes it from the index, with links that start at the root."
    body, _ = nbconvert.MarkdownExporter().from_filename(str(root / "nbs" / "index.ipynb"))
    body = re.sub(r"<!--\s*(?:claim:.*?|class:.*?|numbers)\s*-->\n?", "", body)
    body = LINK.sub(
        lambda m: (
            m[0]
            if re.match(r"[a-z]+:|#", m[3])
            else m[0].replace(f"]({m[3]}", f"]({from_root(m[3])}")
        ),
        body,
    )
    return re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"


def from_root(target: str) -> str:
    return target.removeprefix("../") if target.startswith("../") else f"nbs/{target}"


def readme(root: Path = ROOT) -> Iterator[str]:
    "README.md is what nbs/index.ipynb gives."
    if (root / "README.md").read_text("utf-8") != readme_text(root):
        yield "README.md is not what nbs/index.ipynb gives: run make export"


CHECKS = (
    export,
    versions,
    lock,
    imports,
    claims,
    outputs,
    form,
    shape,
    library,
    links,
    titles,
    readme,
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readme", action="store_true", help="write README.md")
    parser.add_argument("--still", action="store_true", help="write tools/still.txt")
    args = parser.parse_args(argv)
    if args.still:
        print(write_still())
        return 0
    if args.readme:
        (ROOT / "README.md").write_text(readme_text(), encoding="utf-8")
        return 0
    faults = 0
    for check in CHECKS:
        found = list(check())
        faults += len(found)
        print(f"{'ok  ' if not found else 'FAIL'} {check.__name__}: {check.__doc__}", flush=True)
        for fault in found:
            print(f"       {fault}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
