"""Lesson notebooks as pages of the site: a small Sphinx extension for myst-nb.

The files on disk stay as they are, so that the page offers the real notebook for download. When Sphinx
reads one, `convert` drops what is hidden, takes the `#|` lines out of the code and adds the marks: where
a claim is shown, which module a cell goes into, and a bar at the top. Every link that it writes is
resolved by Sphinx, so a broken one fails the build.
"""

import ast
import html
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import nbformat
from docutils import nodes
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from sphinx.errors import ExtensionError
from sphinx.util import logging

import home_page
import lessons

log = logging.getLogger(__name__)

FENCE = r"^[ \t]*(?P<f>`{3,}|~{3,})[^\n]*\n.*?^[ \t]*(?P=f)[ \t]*$"
SPAN = r"(?<!`)(?P<s>`+)(?!`).+?(?<!`)(?P=s)(?!`)"
CODE = re.compile(f"{FENCE}|{SPAN}", re.M | re.S)
ANCHOR = re.compile(r'^<a id="([\w-]+)"></a>[ \t]*$', re.M)
CLASS = re.compile(r"^<!-- class: ([\w-]+) -->$", re.M)
# a lesson that prose names, but not where a link would be in a link, in a heading or in HTML
LESSON = re.compile(
    r"(\[[^\]]*\]\([^)\n]*\)|^#.*$|^<.*$)|\b([Ll]essons? )(\d\d(?:(?:, | and | or | to )\d\d)*)\b",
    re.M,
)
LINK = re.compile(r"\]\((?:(?:library/|\.\./)?([\w-]+)\.ipynb)?(?:#([\w-]+))?\)")
ABOVE = r"(\]\(|<img [^>]*?src=\")((?:\.\./){%d})\.\./"
NO_ALT = re.compile(r"!\[\s*\]\(|<img (?![^>]*alt=\"[^\"])[^>]*>")
NAME = re.compile(r"`([A-Za-z_][\w.]*)(\(\))?`")
WIDGET = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
# widgets that do something in Python when they are used, and do not always keep that they may be disabled
CONTROLS = ("ButtonModel", "FileUploadModel", "DropdownModel")
TAGS = {"exported": "export", "exercise": "exercise"}  # class on the page: what makes it
REFUTED = "✗ does not hold as worded:"
LONG_OUTPUT = 24  # lines; a longer text output scrolls inside its box


@dataclass
class Course:
    "What a page has to know about the rest of the site."

    symbols: dict[str, str] = field(
        default_factory=dict
    )  # name in prose -> full name, if unambiguous
    git_url: str = ""
    branch: str = "main"
    claims: dict[str, str] = field(default_factory=dict)  # id -> the claim in words
    lessons: dict[str, str] = field(default_factory=dict)  # number -> page
    cards: str = ""  # of the home page
    numbers: str = ""


def label(page: str, anchor: str) -> str:
    "Name of a place for Sphinx: anchors may repeat from page to page, labels may not."
    return f"{page.rpartition('/')[2]}--{anchor}".lower()


def place(page: str, anchor: str) -> str:
    "An empty inline element to jump to."
    return f"[]{{#{label(page, anchor)} .place}}"


def is_library(page: str) -> bool:
    return page.startswith("library/")


def plain(text: str) -> str:
    "Text in which only backticks have a meaning for Markdown."
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        p if p.startswith("`") else re.sub(r"([\\*_\[\]<>$#|~{}])", r"\\\1", p) for p in parts
    )


def plain_html(text: str) -> str:
    "The same text as HTML."
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


# ------------------------------------------------------------------------------ Markdown cells
def _link(match: re.Match, page: str) -> str:
    target, anchor = match.groups()
    return f"](#{label(target or page, anchor)})" if anchor else match[0]


def _lessons(match: re.Match, page: str, course: Course) -> str:
    "'Lessons 05 and 06' with a link for each number."
    if match[1]:
        return match[0]
    up, first = "../" * page.count("/"), match[2].strip()

    def one(number: re.Match) -> str:
        nonlocal first
        words = f"{first} {number[0]}".strip()
        first, target = "", course.lessons.get(number[0], page)
        return words if target == page else f"[{words}]({up}{target}.ipynb)"

    return re.sub(r"\d\d", one, match[3])


def _term(match: re.Match, page: str) -> str:
    "A block that explains a term, as a box with a place to jump to."
    name = match[1].strip().removesuffix(".")
    head = f"> {place(page, lessons.term_place(name))}**{name}.**"
    return f"\n{{.term}}\n{head}{match[2]}"


def _text(text: str, page: str, course: Course) -> str:
    "Anchors and links in Markdown that is not code."
    text = lessons.CLAIM_IN_MARKDOWN.sub("", text)
    text = CLASS.sub(r"{.\1}", text)
    text = LESSON.sub(lambda m: _lessons(m, page, course), text)
    text = ANCHOR.sub(lambda m: place(page, m[1]) + "\n", text)
    text = LINK.sub(lambda m: _link(m, page), text)
    return re.sub(ABOVE % page.count("/"), r"\1\2", text)


def _symbol(code: str, before: str, after: str, course: Course) -> str:
    "A name in backticks as a link into the API, except in a heading, in HTML and inside a link."
    name = NAME.fullmatch(code)
    block = before.rpartition("\n\n")[2].lstrip()
    in_link = re.match(r"[^\[\n]*\]\(", after)
    if not name or name[1] not in course.symbols or in_link or block[:1] in ("<", "#"):
        return code
    return f"{{py:obj}}`{name[1]}{name[2] or ''} <{course.symbols[name[1]]}>`"


def markdown(source: str, page: str, course: Course) -> str:
    "A Markdown cell as MyST."
    source = lessons.TERM.sub(lambda m: _term(m, page), source)
    pieces, position, done = [], 0, ""
    for match in CODE.finditer(source):
        pieces += [(source[position : match.start()], False), (match[0], True)]
        position = match.end()
    pieces.append((source[position:], False))
    for i, (piece, is_code) in enumerate(pieces):
        after = pieces[i + 1][0] if is_code else ""
        done += _symbol(piece, done, after, course) if is_code else _text(piece, page, course)
    return done


# ------------------------------------------------------------------------------ code cells
def defined(code: str) -> list[str]:
    "Public names that a cell defines; a method added with `@patch` has its class before it."
    names = []
    for node in ast.parse(lessons.plain_python(code)).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            patched = any(ast.unparse(d).startswith("patch") for d in node.decorator_list)
            owner = ast.unparse(node.args.args[0].annotation) + "." if patched else ""
            names.append(owner + node.name)
        elif isinstance(node, ast.Assign):
            names += [t.id for t in node.targets if isinstance(t, ast.Name)]
    return [n for n in names if not n.rpartition(".")[2].startswith("_")]


def sign(claim: str, refuted: list[str]) -> str:
    "What stands before a claim."
    return REFUTED if claim in refuted else "✓"


def claim_links(cell: NotebookNode, course: Course) -> str:
    "The claims in words, each with a link to its entry in the list of all of them."
    refuted, known = (
        lessons.refuted_of(cell),
        [i for i in lessons.claims_of(cell) if i in course.claims],
    )
    links = {i: f"[{plain(course.claims[i])}](#{label('claims', i)})" for i in known}
    return " · ".join(f"{sign(i, refuted)} {link}" for i, link in links.items())


def marks(cell: NotebookNode, page: str, module: str, course: Course) -> list[str]:
    "What stands in small print below a code cell: its claims in words, the module it goes into."
    if cell.cell_type != "code":
        return []
    options, code = lessons.directives(cell.source)
    found = [claim_links(cell, course)]
    if "export" in options and module and not is_library(page):
        package = f"{lessons.settings()['lib_name']}.{module}"
        full = [(n, f"{package}.{n}") for n in defined(code)]
        links = [f"{{py:obj}}`{n} <{f}>`" for n, f in full if f in course.symbols.values()]
        found.append(", ".join([f"goes into [{package}](api/{module}.md)", *links]))
    if "exercise" in options or cell.metadata.get("needs_kernel"):
        found.append("run the lesson to try it")
    return [text for text in found if text]


def _lines(output: NotebookNode) -> int:
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return 0 if "image/png" in output.get("data", {}) else text.count("\n")


def code_cell(cell: NotebookNode, fold: bool = True) -> list[NotebookNode]:
    "The code cell without its `#|` lines, or nothing when the reader is not to see it."
    options, code = lessons.directives(cell.source)
    if "hide" in options or "default_exp" in options or not code.strip():
        return []
    cell.source, tags, outputs = code, set(cell.metadata.get("tags", [])), cell.get("outputs", [])
    if sum(map(_lines, outputs)) > LONG_OUTPUT:
        tags.add("scroll-output")
    tags |= {tag for tag, option in TAGS.items() if option in options}
    if fold and (
        cell.metadata.get("jupyter", {}).get("source_hidden") or lessons.only_imports(code)
    ):
        tags.add("hide-input")
    cell.metadata = NotebookNode(tags=sorted(tags))
    if alt := options.get("fig-alt"):
        cell.metadata["mystnb"] = {"image": {"alt": alt}}
    return [cell]


def proof(cell: NotebookNode, course: Course) -> list[NotebookNode]:
    """A proof as one line, a tick and the claims in words, which opens to the code and its output;
    claims that it refutes come last, under a sign of their own."""
    ids, refuted = (
        [i for i in lessons.claims_of(cell) if i in course.claims],
        lessons.refuted_of(cell),
    )
    parts = []
    for mark in ("✓", REFUTED):
        words = [plain_html(course.claims[i]) for i in ids if sign(i, refuted) == mark]
        parts += [f"{mark} {' · '.join(words)}"] if words else []
    top = f'<details class="proof"><summary>{" · ".join(parts) or "✓ checked"}</summary>'
    more = f"{{.marks}}\n[In the list of all claims](#{label('claims', ids[0])})\n\n" if ids else ""
    return [
        new_markdown_cell(top),
        *code_cell(cell, fold=False),
        new_markdown_cell(more + "</details>"),
    ]


def missing_alt(cell: NotebookNode) -> bool:
    "Whether the cell shows a picture without a word for those who do not see it."
    if cell.cell_type != "code":
        return bool(NO_ALT.search(CODE.sub("", cell.source)))
    shown = [o.get("data", {}) for o in cell.get("outputs", [])]
    images = [d for d in shown if WIDGET not in d and any(k.startswith("image/") for k in d)]
    return bool(images) and not lessons.directives(cell.source)[0].get("fig-alt")


def _has_place(state, path: list) -> bool:
    "Whether a widget's state has the part that `path` names."
    try:
        for key in path[:-1]:
            state = state[key]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def drop_lost_buffers(nb: NotebookNode) -> None:
    "Leave out what an upload once held: the emptied widget has no place for it, and the page would stumble."
    saved = nb.metadata.get("widgets", {}).get(STATE, {})
    for model in saved.get("state", {}).values():
        if buffers := model.get("buffers"):
            model["buffers"] = [b for b in buffers if _has_place(model["state"], b["path"])]


def disable_what_needs_a_kernel(nb: NotebookNode) -> None:
    "On the page nobody answers a button or a menu: what is not linked to another widget is switched off."
    saved = nb.metadata.get("widgets", {}).get(STATE, {})
    models = saved.get("state", {})
    linked = {
        str(end[0]).removeprefix("IPY_MODEL_")
        for model in models.values()
        for end in (model["state"].get("source"), model["state"].get("target"))
        if isinstance(end, list) and end
    }
    for key, model in models.items():
        if key not in linked and (
            model.get("model_name") in CONTROLS or "disabled" in model["state"]
        ):
            model["state"]["disabled"] = True


def needs_kernel(cell: NotebookNode, models: dict) -> bool:
    "Whether a widget that the cell shows holds one that was switched off."
    shown = [o.get("data", {}).get(WIDGET, {}).get("model_id") for o in cell.get("outputs", [])]
    todo, seen = [key for key in shown if key], set()
    while todo:
        key = todo.pop()
        if key in seen or key not in models:
            continue
        seen.add(key)
        state = models[key]["state"]
        if state.get("disabled"):
            return True
        todo += re.findall(r"IPY_MODEL_(\w+)", json.dumps(state))
    return False


# ------------------------------------------------------------------------------ the page
def bar(nb: NotebookNode, page: str, module: str, course: Course) -> str:
    "The line under the title: time to read, time to run, the notebook itself, Colab."
    parts = [f"{lessons.reading_minutes(nb)} min to read"]
    if seconds := nb.metadata.get("coursekit", {}).get("seconds"):
        parts.append(f"{seconds:.0f} s to run on 2 CPU cores")
    if is_library(page):
        parts = [f"<code>{lessons.settings()['lib_name']}.{module}</code>"] if module else []
    up = "../" * page.count("/")
    parts.append(f'<a href="{up}_sources/{page}.ipynb" download>Download the notebook</a>')
    if course.git_url:
        path = f"{course.git_url.removeprefix('https://')}/blob/{course.branch}/nbs/{page}.ipynb"
        colab = path.replace("github.com/", "https://colab.research.google.com/github/", 1)
        install = f"%pip install git+{course.git_url}"
        parts.append(f'<a href="{colab}">Open in Colab</a>, first run <code>{install}</code> there')
    return '<p class="lesson-bar">' + "".join(f"<span>{p}</span>" for p in parts) + "</p>"


def claim_place(claim: str, number: int) -> str:
    "Anchor of the cell that shows a claim, the `number`-th on its page."
    return f"claim-{claim}" if number == 1 else f"claim-{claim}-{number}"


def as_shown(cell: NotebookNode, page: str, course: Course) -> list[NotebookNode]:
    "The cell as the reader sees it, or nothing."
    if cell.cell_type == "markdown":
        return [new_markdown_cell(markdown(cell.source, page, course))]
    if lessons.is_proof(cell):
        return proof(cell, course)
    return code_cell(cell, fold=not is_library(page))


def with_marks(
    cell: NotebookNode, page: str, module: str, course: Course, seen: Counter
) -> list[NotebookNode]:
    "A cell as shown, between the places to jump to and its small print; counts the claims it has seen."
    ids = lessons.claims_of(cell)
    found = [] if lessons.is_proof(cell) else marks(cell, page, module, course)
    shown = as_shown(cell, page, course)
    seen.update(ids)
    if shown and ids:
        places = "".join(place(page, claim_place(i, seen[i])) for i in ids)
        shown.insert(0, new_markdown_cell("{.places}\n" + places))
    if shown and found:
        shown.append(new_markdown_cell("{.marks}\n" + " · ".join(found)))
    return shown


def with_bar(nb: NotebookNode, page: str, module: str, course: Course) -> None:
    "Put the bar under the title, except on the home page."
    is_page = is_library(page) or lessons.is_lesson(Path(page))
    if is_page and nb.cells and nb.cells[0].cell_type == "markdown":
        top = f"\\1\n\n{bar(nb, page, module, course)}\n"
        nb.cells[0].source = re.sub(r"^(# .+)$", top, nb.cells[0].source, count=1, flags=re.M)


def home(nb: NotebookNode, course: Course) -> None:
    "Put the cards in the place of the table of lessons, and the numbers in theirs."
    for cell in nb.cells:
        if home_page.ROW.search(cell.source) and course.cards:
            cell.source = home_page.TABLE.sub(lambda _: course.cards + "\n", cell.source, count=1)
        cell.source = cell.source.replace("<!-- numbers -->", course.numbers)


def convert(nb: NotebookNode, page: str, course: Course) -> NotebookNode:
    "The notebook as myst-nb is to show it; raises `ValueError` for a picture without alt text."
    if bad := [c for c in nb.cells if missing_alt(c)]:
        first = next((x for x in bad[0].source.split("\n") if x.strip()), "")
        raise ValueError(
            f"{page}: a picture without alt text, in the cell that begins {first[:60]!r}"
        )
    module = lessons.module_of(nb)
    if page == "index":
        home(nb, course)
    with_bar(nb, page, module, course)
    drop_lost_buffers(nb)
    disable_what_needs_a_kernel(nb)
    models = nb.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    for cell in nb.cells:
        if needs_kernel(cell, models):
            cell.metadata["needs_kernel"] = True
    seen: Counter = Counter()
    nb.cells = [x for c in nb.cells for x in with_marks(c, page, module, course, seen)]
    nb.metadata.setdefault("language_info", {"name": "python"})  # else myst-nb asks which lexer
    nb.metadata.pop("coursekit", None)
    if not any(WIDGET in o.get("data", {}) for c in nb.cells for o in c.get("outputs", [])):
        nb.metadata.pop(
            "widgets", None
        )  # of widgets that nobody sees; their scripts are not loaded
    return nb


def about(app) -> Course:
    "What the pages have to know: from the configuration, and from the claims beside the sources."
    table = lessons.claims_table(app.srcdir / "claims.csv")
    known = json.loads((app.srcdir / "course.json").read_text("utf-8"))
    return Course(
        **app.config.lesson_pages, **known, claims={i: r["claim"] for i, r in table.items()}
    )


def source_read(app, docname: str, source: list[str]) -> None:
    if app.env.doc2path(docname).suffix != ".ipynb":
        return
    nb = nbformat.reads(source[0], as_version=4)
    try:
        nb = convert(nb, docname, about(app))
    except ValueError as error:
        raise ExtensionError(str(error)) from error
    below = app.srcdir / f"{docname}.txt"  # the menu on the home page, the API of a library module
    if below.exists():
        nb.cells.append(new_markdown_cell(below.read_text(encoding="utf-8")))
    # without it a cell is said to begin at ten thousand times its number, and Sphinx reads as many empty lines
    lengths = [c.source.count("\n") + 1 for c in nb.cells]
    nb.metadata["source_map"] = [0, *accumulate(lengths)][: len(lengths)]
    source[0] = nbformat.writes(nb)


def page_context(app, page: str, template: str, context: dict, doctree) -> None:
    "What others show of a page when they link to it."
    if doctree is None:
        return
    words = home_page.described(p.astext() for p in doctree.findall(nodes.paragraph))
    about = {"og:title": context["title"], "og:type": "article", "og:description": words}
    if app.config.html_baseurl:
        about["og:url"] = f"{app.config.html_baseurl}{page}.html"
        about["og:image"] = f"{app.config.html_baseurl}_static/cards/00_first_model.webp"
    tags = [f'<meta property="{k}" content="{html.escape(v)}">' for k, v in about.items() if v]
    context["metatags"] = "\n".join(
        [
            context.get("metatags", ""),
            f'<meta name="description" content="{html.escape(words)}">',
            *tags,
        ]
    )


def setup(app) -> dict[str, bool]:
    app.add_config_value("lesson_pages", {}, "env")
    app.connect("source-read", source_read)
    app.connect("html-page-context", page_context)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
