"""What a notebook says about itself: its directives, claims, checks and exercises.

The runner, the checks and the site builder read notebooks through this module, so that they agree.
"""

import ast
import base64
import csv
import hashlib
import itertools
import re
from configparser import ConfigParser
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
DIRECTIVE = re.compile(r"^\s*#\s*\|\s*(.*?)\s*$")
CLAIM_IN_MARKDOWN = re.compile(r"<!--\s*claim:\s*(.+?)\s*-->")
CLAIM_ID = re.compile(r"\b[A-Z]\d{3}\b")
CHECK_CALL = re.compile(
    r"^(?:test_(?:eq|ne|close|fail|is|shuffled|eq_type|warns|stdout)|assert_\w+)$"
)
TERM = re.compile(r"^> \*\*Term: ?(.*?)\*\*(.*(?:\n>(?! \*\*Term:).*)*)$", re.M)
SOLUTION = re.compile(
    r"<summary>Solution[^<]*</summary>.*?^```python\n(.*?)^```", flags=re.M | re.S
)


def settings(root: Path = ROOT) -> dict[str, str]:
    "The package's metadata, from settings.ini."
    config = ConfigParser(interpolation=None)
    config.read(root / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def read(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise SystemExit(f"{path.name} is no notebook: {str(error)[:200]}") from error


def notebooks(folder: Path = ROOT / "nbs") -> list[Path]:
    "Every notebook that counts, lessons before the library: not one whose name begins with an underscore or a dot."
    found = [*sorted(folder.glob("*.ipynb")), *sorted(folder.glob("library/*.ipynb"))]
    return [p for p in found if p.name[0] not in "_."]


def is_library(path: Path) -> bool:
    return path.parent.name == "library"


def is_lesson(path: Path) -> bool:
    return path.name[0].isdigit()


def find(name: str, folder: Path = ROOT / "nbs") -> Path:
    "The notebook that `name` means: its stem, its number, or the start of its stem."
    known = notebooks(folder)
    name = name.removesuffix(".ipynb").rpartition("/")[2]
    hits = [p for p in known if p.stem == name] or [
        p for p in known if p.stem.startswith(name.zfill(2) if name.isdigit() else name)
    ]
    if len(hits) == 1:
        return hits[0]
    why = f"means several: {', '.join(p.stem for p in hits)}" if hits else "is not there"
    raise SystemExit(
        f"lesson {name!r} {why}.\nThere are: {', '.join(p.stem for p in known)}.\n"
        "Say, for instance: make lesson N=01"
    )


def title(nb: NotebookNode) -> str:
    "The text of the first heading."
    for cell in nb.cells:
        if cell.cell_type == "markdown" and (m := re.search(r"^#\s+(.+)$", cell.source, re.M)):
            return m[1].strip()
    return ""


def in_a_line(nb: NotebookNode) -> str:
    "What a notebook says about itself below its title, in a quotation."
    first = nb.cells[0].source if nb.cells and nb.cells[0].cell_type == "markdown" else ""
    quoted = re.search(r"^# .+\n+((?:>.*\n?)+)", first)
    return term_text(quoted[1]) if quoted else ""


def directives(source: str) -> tuple[dict[str, str], str]:
    "Split a code cell into its `#|` lines, as a dict, and the code below them."
    options, lines = {}, source.split("\n")
    while lines and (m := DIRECTIVE.match(lines[0])):
        lines.pop(0)
        key, _, value = re.sub(r"^([\w-]+)\s*:?", r"\1\0", m[1], count=1).partition("\0")
        options[key] = value.strip()
    return options, "\n".join(lines)


def module_of(nb: NotebookNode) -> str:
    "The module that a notebook makes, or nothing."
    options = [directives(c.source)[0] for c in nb.cells if c.cell_type == "code"]
    return next((o["default_exp"] for o in options if "default_exp" in o), "")


def is_code(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def is_proof(cell: NotebookNode) -> bool:
    "Whether a cell proves what the cell before it shows: readers see one line of it."
    return is_code(cell) and "proof" in directives(cell.source)[0]


def only_imports(code: str) -> bool:
    "Whether a cell does nothing but import and set up: in a lesson it is folded, to be seen when wanted."
    body = ast.parse(plain_python(code)).body
    return bool(body) and all(
        isinstance(node, ast.Import | ast.ImportFrom)
        or ast.unparse(node).startswith("lesson_setup(")
        for node in body
    )


def reading_minutes(nb: NotebookNode) -> int:
    "Minutes to read the words of a notebook, at 200 a minute."
    words = sum(len(c.source.split()) for c in nb.cells if c.cell_type == "markdown")
    return max(1, round(words / 200))


def term_text(quoted: str) -> str:
    "The explanation of a term in one line, without the signs of a quotation."
    return " ".join(re.sub(r"^>", "", quoted, flags=re.M).split())


def terms_in(source: str) -> list[tuple[str, str]]:
    "The terms that a Markdown cell explains in boxes, each with its explanation."
    found = TERM.findall(source)
    return [(name.strip().removesuffix("."), term_text(text)) for name, text in found]


def term_place(term: str) -> str:
    "Anchor of the box that explains a term."
    return "term-" + re.sub(r"[^a-z0-9]+", "-", term.lower()).strip("-")


def claims_of(cell: NotebookNode) -> list[str]:
    "Ids of the claims that a cell says it shows."
    if cell.cell_type == "markdown":
        return [i for m in CLAIM_IN_MARKDOWN.findall(cell.source) for i in CLAIM_ID.findall(m)]
    if cell.cell_type == "code":
        return CLAIM_ID.findall(directives(cell.source)[0].get("claim", ""))
    return []


def refuted_of(cell: NotebookNode) -> list[str]:
    "Ids of the claims that a code cell shows not to hold as they are worded."
    options = directives(cell.source)[0] if cell.cell_type == "code" else {}
    return CLAIM_ID.findall(options.get("refuted", ""))


def claims_table(path: Path = ROOT / "claims.csv") -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as f:
        return {row["id"]: row for row in csv.DictReader(f)}


def plain_python(source: str) -> str:
    "A cell with IPython's own syntax (magics, shell lines) turned into calls."
    return TransformerManager().transform_cell(directives(source)[1])


def _always_true(test: ast.expr) -> bool:
    "Whether an asserted expression can hardly be false: it shows nothing."
    if not any(isinstance(n, (ast.Name, ast.Attribute)) for n in ast.walk(test)):
        return True
    if isinstance(test, ast.Call):
        return ast.unparse(test.func) in ("isinstance", "callable", "hasattr", "len")
    if isinstance(test, ast.Compare):
        terms = [ast.dump(t) for t in (test.left, *test.comparators)]
        return any(a == b for a, b in itertools.pairwise(terms))
    return isinstance(test, ast.Name)


def _checks(source: str) -> list[ast.Assert | ast.Call]:
    "The asserts in a cell, and calls such as `test_eq(...)`, in the order of its lines."
    nodes = ast.walk(ast.parse(plain_python(source)))
    return sorted(filter(_is_check, nodes), key=lambda n: n.lineno)


def _is_check(node: ast.AST) -> bool:
    called = isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1]
    return isinstance(node, ast.Assert) or bool(called and CHECK_CALL.match(called))


def all_checks_in(source: str) -> int:
    "How many checks a cell has, whether they could fail or not."
    return len(_checks(source))


def checks_in(source: str) -> list[str]:
    "The checks in a cell that could fail."
    found = _checks(source)
    weak = [n for n in found if isinstance(n, ast.Assert) and _always_true(n.test)]
    return [ast.unparse(n) for n in found if n not in weak]


def _for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def modules_imported(source: str) -> set[str]:
    """Modules of the package that a cell, or a module of the package, imports, in whatever form.

    What only a type checker imports (`if TYPE_CHECKING:`) is no need of the module and is left out.
    """
    found = set()
    tree = ast.parse(plain_python(source))
    tree.body = [node for node in tree.body if not _for_types(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = ".".join(filter(None, ["coursekit" if node.level else "", node.module]))
            names = {f"{home}.{a.name}" for a in node.names}
            found |= names if home == "coursekit" else {home}
    return {name.split(".")[1] for name in found if name.startswith("coursekit.")}


def exercises(nb: NotebookNode) -> dict[str, dict[str, str]]:
    "Each exercise by name: the source of its check, of the learner's cell, and of its solution."
    found: dict[str, dict[str, str]] = {}
    waiting = ""
    for cell in nb.cells:
        if cell.cell_type == "code":
            options, code = directives(cell.source)
            for part in ("check", "exercise"):
                if part in options:
                    found.setdefault(options[part], {})[part] = code
            waiting = options.get("exercise", waiting)
        elif waiting and (m := SOLUTION.search(cell.source)):
            found[waiting]["solution"], waiting = m[1], ""
    return found


def pictures(nb: NotebookNode) -> dict[str, bytes]:
    "The figures of cells marked `#| picture: name.png` (or .jpg), which are kept in images/ too."
    found = {}
    for cell in filter(is_code, nb.cells):
        if name := directives(cell.source)[0].get("picture"):
            kind = "image/jpeg" if name.endswith(".jpg") else "image/png"
            shown = [o.data[kind] for o in cell.outputs if kind in o.get("data", {})]
            found[name] = base64.b64decode(shown[0]) if shown else b""
    return found


def digest(nb: NotebookNode) -> str:
    "sha256 over the sources of the code cells: the outputs belong to these."
    code = "\0".join(c.source for c in nb.cells if c.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()
