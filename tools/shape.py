"""The form that lessons and library keep: one function a rule, and the exceptions that are left.

A rule yields the notebook that breaks it and a sentence. `tools/still.txt` lists, for each notebook, the
rules that it does not hold yet; an exception that is no longer needed is a fault too, so that the list
can only shrink.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nbformat import NotebookNode

from lessons import (
    CLAIM_ID,
    ROOT,
    TERM,
    all_checks_in,
    checks_in,
    claims_table,
    directives,
    is_code,
    is_lesson,
    is_library,
    is_proof,
    module_of,
    modules_imported,
    notebooks,
    only_imports,
    plain_python,
    read,
    reading_minutes,
    term_place,
    term_text,
)

COLUMNS = 92
ASSERTS_IN_A_LESSON = 20
LINES_EXPORTED, LINES_SHOWN, CELLS_SHOWN = 30, 20, 90
MINUTES = 30
LINES_IN_A_MODULE, LINES_IN_A_FUNCTION = 500, 25
PAINTERS = "drawn_"  # modules whose name begins so may be long, and their functions too
EXPORTED = {"export", "exporti", "exports"}
UNSEEN = {"hide", "default_exp", "proof", "check"}
FENCE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
COMMENT = re.compile(r"<!--.*?-->", re.S)
LIKE_A_TERM = re.compile(r"^[ >]*\**Term\b ?:.*$", re.M)

Fault = tuple[str, str]  # the notebook and what is wrong in it


def key(path: Path) -> str:
    "How a notebook is called: `05_learner`, `library/datasets`."
    return f"library/{path.stem}" if is_library(path) else path.stem


def lines_of(cell: NotebookNode) -> list[str]:
    "The lines of code of a cell, without its `#|` lines."
    return directives(cell.source)[1].strip("\n").rstrip().splitlines()


def options_of(cell: NotebookNode) -> set[str]:
    return set(directives(cell.source)[0])


def is_seen(cell: NotebookNode) -> bool:
    "Whether a reader of the page sees the code of a cell without opening anything."
    return is_code(cell) and bool(lines_of(cell)) and not UNSEEN & options_of(cell)


def begins(cell: NotebookNode) -> str:
    return f"the cell that begins {lines_of(cell)[0].strip()[:60]!r}"


@dataclass
class Course:
    "The notebooks and modules of a repository, read once."

    root: Path = ROOT

    @cached_property
    def notebooks(self) -> dict[str, NotebookNode]:
        return {key(p): read(p) for p in notebooks(self.root / "nbs")}

    @cached_property
    def lessons(self) -> dict[str, NotebookNode]:
        return {name: nb for name, nb in self.notebooks.items() if is_lesson(Path(name))}

    @cached_property
    def makers(self) -> dict[str, str]:
        "Module -> the notebook that makes it."
        found = {module_of(nb): name for name, nb in self.notebooks.items()}
        return {module: name for module, name in found.items() if module}

    @cached_property
    def modules(self) -> dict[str, str]:
        "Module -> its text."
        files = {m: self.root / "coursekit" / f"{m}.py" for m in self.makers}
        return {m: f.read_text("utf-8") for m, f in files.items() if f.exists()}

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        "Module -> the modules that it imports."
        return {m: modules_imported(t) & self.modules.keys() for m, t in self.modules.items()}

    def reached(self, start: set[str]) -> set[str]:
        "Modules that `start` imports, directly or through others; `start` only if it is among these."
        found: set[str] = set()
        todo = set().union(*(self.imports.get(m, set()) for m in start))
        while todo := todo - found:
            found |= todo
            todo = set().union(*(self.imports[m] for m in todo))
        return found

    def used_by(self, name: str) -> set[str]:
        "Modules that the cells of a notebook import."
        cells = [c for c in self.notebooks[name].cells if is_code(c)]
        return set().union(*(modules_imported(c.source) for c in cells))


# ---------------------------------------------------------------- proofs and asserts
def proof(course: Course) -> Iterator[Fault]:
    "A proof comes right after the cell that it proves, and holds a check that could fail."
    for name, nb in course.notebooks.items():
        for i, cell in enumerate(nb.cells):
            if is_proof(cell):
                yield from ((name, f"the proof [{i}] {fault}") for fault in _proof_faults(nb, i))


def _proof_faults(nb: NotebookNode, i: int) -> Iterator[str]:
    cell, before = nb.cells[i], i - 1
    while before >= 0 and (is_proof(nb.cells[before]) or _is_hidden(nb.cells[before])):
        before -= 1
    if before < 0 or not is_seen(nb.cells[before]):
        yield "does not come right after a code cell that a reader sees"
    if not checks_in(cell.source):
        yield "has no check that could fail"
    if wrong := options_of(cell) & (EXPORTED | {"hide", "exercise", "check"}):
        yield f"is also marked {', '.join(sorted(wrong))}"


def _is_hidden(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "hide" in options_of(cell)


def asserts(course: Course) -> Iterator[Fault]:
    "Checks in sight: at most one in a cell of a lesson, and at most 20 in a lesson."
    for name, nb in course.lessons.items():
        seen = [c for c in nb.cells if is_seen(c) and not EXPORTED & options_of(c)]
        counts = [(all_checks_in(c.source), c) for c in seen]
        for count, cell in counts:
            if count > 1:
                yield name, f"{count} asserts in sight in {begins(cell)}"
        if (total := sum(n for n, _ in counts)) > ASSERTS_IN_A_LESSON:
            yield name, f"{total} asserts in sight, more than {ASSERTS_IN_A_LESSON}"


# ---------------------------------------------------------------- size
def columns(course: Course) -> Iterator[Fault]:
    "Lines of code have at most 92 columns, in cells and in worked solutions."
    for name, nb in course.notebooks.items():
        for cell in nb.cells:
            code = is_code(cell)
            for line in lines_of(cell) if code else "".join(FENCE.findall(cell.source)).split("\n"):
                if len(line) > COLUMNS:
                    yield name, f"a line of {len(line)} columns: {line.strip()[:60]!r}"


def exported(course: Course) -> Iterator[Fault]:
    "A cell that a lesson exports has at most 30 lines."
    for name, nb in course.lessons.items():
        for cell in nb.cells:
            if is_code(cell) and EXPORTED & options_of(cell):
                if (count := len(lines_of(cell))) > LINES_EXPORTED:
                    yield name, f"{count} lines are exported in {begins(cell)}"


def size(course: Course) -> Iterator[Fault]:
    "A lesson shows at most 90 code cells, none above 20 lines unless it is exported, or imports."
    for name, nb in course.lessons.items():
        seen = [c for c in nb.cells if is_seen(c)]
        if len(seen) > CELLS_SHOWN:
            yield name, f"{len(seen)} code cells in sight, more than {CELLS_SHOWN}"
        for cell in seen:
            count = len(lines_of(cell))
            folded = EXPORTED & options_of(cell) or only_imports(cell.source)
            if count > LINES_SHOWN and not folded:
                yield name, f"{count} lines in {begins(cell)}"


def reading(course: Course) -> Iterator[Fault]:
    "A lesson takes at most 30 minutes to read."
    for name, nb in course.lessons.items():
        if (minutes := reading_minutes(nb)) > MINUTES:
            yield name, f"{minutes} minutes to read, more than {MINUTES}"


def module(course: Course) -> Iterator[Fault]:
    "A module has at most 500 lines, the painters apart."
    for name, text in course.modules.items():
        count = len(text.splitlines())
        if count > LINES_IN_A_MODULE and not name.startswith(PAINTERS):
            yield course.makers[name], f"coursekit.{name} has {count} lines"


def function(course: Course) -> Iterator[Fault]:
    "The body of a function in a module has at most 25 lines, the painters apart."
    for name, text in course.modules.items():
        if name.startswith(PAINTERS):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if (count := _body_lines(node, text.splitlines())) > LINES_IN_A_FUNCTION:
                    yield course.makers[name], f"coursekit.{name}.{node.name} has {count} lines"


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    "Lines of a function's body: no blank ones, no comments, no docstring."
    first = 0 if ast.get_docstring(node) is None else 1
    if len(node.body) == first:
        return 0
    body = lines[node.body[first].lineno - 1 : node.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in body)


# ---------------------------------------------------------------- imports
def private(course: Course) -> Iterator[Fault]:
    "No private name is taken from another module."
    for name, nb in course.notebooks.items():
        own = module_of(nb)
        for cell in filter(is_code, nb.cells):
            for taken in _private_names(cell.source):
                if taken.split(".")[0] != own:
                    yield name, f"{taken} is private to its module"


def _private_names(source: str) -> Iterator[str]:
    "Names such as `data._brief` that a cell imports, or reads from a module that it imports there."
    tree, known = ast.parse(plain_python(source)), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "coursekit":
            known |= {a.asname or a.name: a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("coursekit."):
            home = node.module.split(".")[1]
            yield from (f"{home}.{a.name}" for a in node.names if _is_private(a.name))
        elif isinstance(node, ast.Import):
            parts = {a.asname: a.name.split(".") for a in node.names if a.asname}
            known |= {n: p[1] for n, p in parts.items() if p[0] == "coursekit" and len(p) > 1}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in known and _is_private(node.attr):
                yield f"{known[node.value.id]}.{node.attr}"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def circle(course: Course) -> Iterator[Fault]:
    "No module needs itself, by way of others or not; an import inside a function counts."
    for name in course.modules:
        if name in course.reached({name}):
            way = [m for m in course.imports[name] if name in course.reached({m}) | {m}]
            yield course.makers[name], f"coursekit.{name} needs itself, through {', '.join(way)}"


def later(course: Course) -> Iterator[Fault]:
    "A library module imports from no lesson that comes after a lesson using it."
    exporting = [name for name in course.lessons if name in course.makers.values()]
    direct = {name: course.used_by(name) for name in exporting}
    used = {name: d | course.reached(d) for name, d in direct.items()}
    for name, home in course.makers.items():
        first = next((u for u in exporting if name in used[u]), None)
        if home in course.lessons or first is None:
            continue
        for source in sorted(course.imports.get(name, ())):
            if course.makers[source] in course.lessons and course.makers[source] > first:
                why = f"{first} uses it, and {course.makers[source]} comes later"
                yield home, f"coursekit.{name} imports coursekit.{source}: {why}"


# ---------------------------------------------------------------- words
def term(course: Course) -> Iterator[Fault]:
    "A term is explained once, in a box '> **Term: name.** Sentence.' that ends with a period."
    seen: dict[str, str] = {}
    for name, nb in course.notebooks.items():
        for cell in (c for c in nb.cells if c.cell_type == "markdown"):
            text = FENCE.sub("", cell.source)
            for match in TERM.finditer(text):
                yield from ((name, fault) for fault in _term_faults(match, name, seen))
            for left in LIKE_A_TERM.findall(TERM.sub("", text)):
                yield name, f"not of the form '> **Term: name.** Sentence.': {left[:60]!r}"


def _term_faults(match: re.Match, name: str, seen: dict[str, str]) -> Iterator[str]:
    word, text = match[1].strip(), term_text(match[2])
    place = term_place(word)
    if place in seen:
        yield f"the term {word!r} is explained in {seen[place]} already"
    seen.setdefault(place, name)
    if not re.match(r"[^\s.].*\.$", word) or not text:
        yield f"not of the form '> **Term: name.** Sentence.': {match[0][:60]!r}"
    elif not text.endswith("."):
        yield f"the box of the term {word!r} does not end with a period"


def codes(course: Course) -> Iterator[Fault]:
    "Codes of claims stand in marks only: a reader sees the claim in words."
    known = claims_table(course.root / "claims.csv").keys()
    for name, nb in course.notebooks.items():
        for cell in nb.cells:
            for code in CLAIM_ID.findall(_words_of(cell)):
                if code in known:
                    yield name, f"the code {code} is in sight, in {cell.source[:60]!r}"


def _words_of(cell: NotebookNode) -> str:
    "What a reader sees of a cell, without its outputs."
    if cell.cell_type == "markdown":
        return COMMENT.sub("", cell.source)
    code = "\n".join(lines_of(cell)) if is_seen(cell) or is_proof(cell) else ""
    return re.sub(r"# noqa: .*", "", code)


_RULES = (
    *(proof, asserts, columns, exported, size, reading, module, function),
    *(private, circle, later, term, codes),
)
RULES: dict[str, Callable[[Course], Iterator[Fault]]] = {r.__name__: r for r in _RULES}


# ---------------------------------------------------------------- exceptions
def still(root: Path = ROOT) -> dict[str, list[str]]:
    "Notebook -> the rules that it does not hold yet."
    file = root / "tools" / "still.txt"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    rows = [line.partition(":") for line in lines if line.strip() and line[0] != "#"]
    return {name.strip(): rules.split() for name, _, rules in rows}


def found(root: Path = ROOT) -> dict[str, dict[str, list[str]]]:
    "Notebook -> rule -> what is wrong."
    course, faults = Course(root), {}
    for name, rule in RULES.items():
        for notebook, fault in rule(course):
            faults.setdefault(notebook, {}).setdefault(name, []).append(fault)
    return faults


def shape(root: Path = ROOT) -> Iterator[str]:
    "Lessons and library keep their form, but for the exceptions in tools/still.txt, which are needed."
    faults, excused = found(root), still(root)
    for notebook, rules in faults.items():
        for rule in rules.keys() - set(excused.get(notebook, ())):
            yield from (f"{notebook}: {fault} (rule: {rule})" for fault in rules[rule])
    for notebook, rules in excused.items():
        for rule in rules:
            if rule not in faults.get(notebook, {}):
                yield f"tools/still.txt: {notebook}: {rule}: this exception is no longer needed: remove it"


def write_still(root: Path = ROOT) -> str:
    "Write the exceptions that are needed now; a line that says what changed."
    before, faults = still(root), found(root)
    order = [n for n in Course(root).notebooks if n in faults]
    rows = [f"{n}: {' '.join(r for r in RULES if r in faults[n])}\n" for n in order]
    head = "# Rules of tools/shape.py that a notebook does not hold yet; a check sees to it that each is needed.\n"
    (root / "tools" / "still.txt").write_text(head + "".join(rows), encoding="utf-8")
    old = {(n, r) for n, rules in before.items() for r in rules}
    new = {(n, r) for n, rules in faults.items() for r in rules}
    return (
        f"tools/still.txt: {len(new)} exceptions, {len(new - old)} added, {len(old - new)} removed"
    )
