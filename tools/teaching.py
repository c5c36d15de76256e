"""For those who teach with the course.

    python tools/teaching.py class OUT   notebooks without answers and proofs, and a sheet of solutions
    python tools/teaching.py slides 04   slides of a lesson, with its committed outputs, in `_slides/`

`OUT/nbs/` holds the lessons for a class, with the library that they link to, `OUT/images/` their pictures,
and `OUT/solutions.md` what was taken out. The folder must be new or empty; it is put there whole or not at
all. The checks of the exercises stay, so that they answer a class as they answer any reader.
"""

import argparse
import re
import shutil
import symtable
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

import lessons
from lessons import ROOT

DETAILS = re.compile(r"<details>\s*<summary>(.*?)</summary>(.*?)</details>[ \t]*\n*", re.S)
QUESTION = re.compile(r"\d+\. ")


def is_answer(summary: str) -> bool:
    "Whether a fold holds an answer; a hint stays."
    return summary.startswith("Solution") or bool(QUESTION.match(summary))


def without_answers(source: str) -> str:
    "A Markdown cell without solutions, its questions as a plain list."

    def keep(fold: re.Match) -> str:
        if not is_answer(fold[1]):
            return fold[0]
        return f"{fold[1]}\n" if QUESTION.match(fold[1]) else ""

    return DETAILS.sub(keep, source).rstrip()


def answers(source: str) -> list[tuple[str, str]]:
    "What `without_answers` takes out: a question or 'Solution', and the answer."
    return [(m[1].strip(), m[2].strip()) for m in DETAILS.finditer(source) if is_answer(m[1])]


def for_class(nb: NotebookNode) -> NotebookNode:
    "A copy of a lesson without answers, and without proofs but for those that later cells build on."
    nb, needed = nbformat.from_dict(nb), lost(nb)
    nb.cells = [
        c for c in nb.cells if not lessons.is_proof(c) or not needed.isdisjoint(_names(c.source)[0])
    ]
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = without_answers(cell.source)
    nb.cells = [cell for cell in nb.cells if cell.source.strip()]
    nb.metadata.pop("coursekit", None)  # the record of its sources is of other sources
    return nb


def heading_of(source: str) -> str:
    found = re.findall(r"^#{2,3} +(.+)$", source, re.M)
    return found[-1] if found else ""


def sheet(nb: NotebookNode) -> str:
    "The questions and exercises of a lesson with their answers."
    parts, heading = [f"## {lessons.title(nb)}\n"], ""
    for cell in nb.cells:
        if cell.cell_type != "markdown":
            continue
        heading = heading_of(cell.source) or heading
        for what, answer in answers(cell.source):
            asked = what if QUESTION.match(what) else heading
            parts.append(f"**{asked}**\n\n{answer}\n")
    return "\n".join(parts)


def _names(source: str) -> tuple[set[str], set[str]]:
    "Names that a cell makes for the cells after it, and those that it takes from cells before it."
    top = symtable.symtable(lessons.plain_python(source), "cell", "exec")
    made = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    used, todo = {s.get_name() for s in top.get_symbols() if s.is_referenced()}, [top]
    while todo:
        inner = todo.pop().get_children()
        todo += inner
        used |= {s.get_name() for t in inner for s in t.get_symbols() if s.is_global()}
    return made, used - made


def lost(nb: NotebookNode) -> set[str]:
    "Names that a proof makes and a later cell of the class uses: without the proof it would stop."
    only_proofs: dict[str, bool] = {}
    missing = set()
    for cell in filter(lessons.is_code, nb.cells):
        made, used = _names(cell.source)
        proof = lessons.is_proof(cell)
        if not proof:
            missing |= {name for name in used if only_proofs.get(name)}
        for name in made:
            only_proofs[name] = proof and only_proofs.get(name, True)
    return missing


def write_class(target: Path, nbs: Path = ROOT / "nbs") -> str:
    "Write the set for a class; a line that says what it is."
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SystemExit(f"{target} is not empty; name a new folder: make class OUT=our-class")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        whole = Path(temporary) / "class"
        sheets = []
        for path in lessons.notebooks(nbs):
            nb, copy = lessons.read(path), whole / "nbs" / path.relative_to(nbs)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if lessons.is_lesson(path):
                links = re.sub(r"\]\(#", f"](nbs/{path.name}#", sheet(nb))
                sheets.append(re.sub(r"\]\((?=[\w/]+\.ipynb)(?!nbs/)", "](nbs/", links))
                nb = for_class(nb)
            nbformat.write(nb, copy)
        for name in ("images", "bench"):  # lessons show pictures, and tables of long runs
            if (nbs.parent / name).is_dir():
                skip = shutil.ignore_patterns("__pycache__")
                shutil.copytree(nbs.parent / name, whole / name, ignore=skip)
        head = "# Solutions\n\nFor the teacher: what was taken out of the notebooks of the class.\n"
        (whole / "solutions.md").write_text("\n".join([head, *sheets]), encoding="utf-8")
        if target.exists():
            target.rmdir()
        whole.rename(target)
    return f"{target}: {len(sheets)} lessons for a class; their answers are in solutions.md"


# ---------------------------------------------------------------- slides
ENDS = re.compile(r"^## Questionnaire$", re.M)


def as_slides(nb: NotebookNode) -> NotebookNode:
    "A copy whose cells say where a slide begins: at a heading, at words, at the second code in a row."
    nb, last = nbformat.from_dict(nb), ""
    nb.cells = [c for c in nb.cells if is_shown(c)]
    for i, cell in enumerate(nb.cells):
        cell.source = cell.source.replace("](../images/", "](images/")  # seen from the root
        if cell.cell_type == "markdown" and (end := ENDS.search(cell.source)):
            cell.source = lessons.CLAIM_IN_MARKDOWN.sub("", cell.source[: end.start()]).rstrip()
            del nb.cells[i + 1 :]
        heading = re.match(r"(?:<[^>]+>\s*)*#{1,2} ", cell.source)
        begins = cell.cell_type == "markdown" or last == "code"
        kind = "slide" if heading or i == 0 else "subslide" if begins else "-"
        cell.metadata["slideshow"] = {"slide_type": kind}
        last = cell.cell_type
        if cell.cell_type == "code":
            cell.source = lessons.directives(cell.source)[1]
            for output in cell.outputs:  # a widget needs a kernel; its picture stays
                output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    nb.metadata.pop("widgets", None)
    return nb


def is_shown(cell: NotebookNode) -> bool:
    "Whether a cell has a place on a slide."
    if cell.cell_type == "markdown":
        return bool(cell.source.strip())
    options, code = lessons.directives(cell.source)
    out = {"hide", "proof", "default_exp", "check", "exercise"} & set(options)
    return bool(code.strip()) and not out and not lessons.only_imports(code)


def write_slides(name: str, out: Path = ROOT / "_slides", nbs: Path = ROOT / "nbs") -> str:
    "Slides of one lesson as `out/NAME.html`, with all that they need beside them."
    from nbconvert import SlidesExporter

    from build_site import JS, fetch_javascript

    path = lessons.find(name, nbs)
    fetch_javascript()
    exporter = SlidesExporter(
        extra_template_basedirs=[str(ROOT / "docs")],
        template_name="slides",
        reveal_url_prefix="lib",
        reveal_theme="course",
        embed_images=True,
    )
    about = {"metadata": {"path": str(nbs.parent), "name": path.stem}}
    page, _ = exporter.from_notebook_node(as_slides(lessons.read(path)), about)
    style = out / "lib" / "dist" / "theme" / "course.css"
    style.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / "docs" / "slides" / "course.css", style)
    for file in ("reveal.js", "reveal.css"):
        shutil.copyfile(JS / file, out / "lib" / "dist" / file)
    for file in ("katex.min.js", "katex.min.css", "auto-render.min.js"):
        shutil.copyfile(JS / file, out / "lib" / file)
    shutil.copytree(JS / "fonts", out / "lib" / "fonts", dirs_exist_ok=True)
    (out / f"{path.stem}.html").write_text(page, encoding="utf-8")
    return f"open {out / path.stem}.html; the arrow keys lead through it, F fills the screen"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("class", help="notebooks for a class, and a sheet of solutions")
    command.add_argument("out", type=Path)
    command.set_defaults(run=lambda args: write_class(args.out.absolute()))
    command = commands.add_parser("slides", help="slides of a lesson")
    command.add_argument("lesson")
    command.set_defaults(run=lambda args: write_slides(args.lesson))
    args = parser.parse_args(argv)
    print(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
