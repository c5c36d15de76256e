"""Pages of the API: what the package exports, with docments as parameter tables.

What is public is read from the modules' text, so that building a page imports nothing; signatures and
docments come from Sphinx's autodoc, which imports the package.
"""

import ast
import importlib
import inspect
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from fastcore.docments import docments

FOLDER = Path(__file__).resolve().parents[1] / "coursekit"


@dataclass(frozen=True)
class Symbol:
    "Something that a module exports; a method that it adds to a class of another module has that class as `owner`."

    module: str
    name: str
    kind: str  # a directive of autodoc: autofunction, autoclass, autodata, automethod
    owner: str = ""
    methods: tuple[str, ...] = ()
    about: str = ""  # the first sentence of its docstring


def exported(tree: ast.Module) -> list[str]:
    "The names in a module's `__all__`."
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [e.value for e in getattr(node.value, "elts", []) if isinstance(e, ast.Constant)]
    return []


def _functions(body: list[ast.stmt]) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    found = [n for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [n for n in found if not n.name.startswith("_")]


def _patched(node: ast.AST) -> str:
    "The class that a function decorated with `@patch` is added to."
    if any(ast.unparse(d).startswith("patch") for d in getattr(node, "decorator_list", [])):
        return ast.unparse(node.args.args[0].annotation)
    return ""


def _about(node: ast.AST) -> str:
    words = " ".join((ast.get_docstring(node) or "").split())
    return re.split(r"(?<=[.;:])\s", words)[0].rstrip(".;:")


def symbols_of(path: Path) -> list[Symbol]:
    "What a module exports, in the order of its text."
    tree, module = ast.parse(path.read_text(encoding="utf-8")), f"{path.parent.name}.{path.stem}"
    public, found = exported(tree), []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in public:
            methods = tuple(f.name for f in _functions(node.body))
            found.append(Symbol(module, node.name, "autoclass", "", methods, _about(node)))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if owner := _patched(node):
                found.append(Symbol(module, node.name, "automethod", owner, (), _about(node)))
            elif node.name in public:
                found.append(Symbol(module, node.name, "autofunction", about=_about(node)))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [t.id for t in targets if isinstance(t, ast.Name) and t.id in public]
            found += [Symbol(module, name, "autodata") for name in names]
    return found


def package(folder: Path = FOLDER) -> dict[str, list[Symbol]]:
    "Every public module of the package with what it exports."
    return {p.stem: symbols_of(p) for p in sorted(folder.glob("*.py")) if p.name[0] != "_"}


def links(modules: dict[str, list[Symbol]]) -> dict[str, str]:
    "Name as written in prose -> full name, where only one is meant."
    classes = {s.name: s.module for m in modules.values() for s in m if s.kind == "autoclass"}
    found: dict[str, set[str]] = {}
    for symbol in (s for m in modules.values() for s in m):
        name = f"{symbol.owner}.{symbol.name}" if symbol.owner else symbol.name
        home = classes.get(symbol.owner, symbol.module)
        for n in (name, *(f"{name}.{m}" for m in symbol.methods)):
            found.setdefault(n, set()).add(f"{home}.{n}")
    return {name: full.pop() for name, full in found.items() if len(full) == 1}


def _directive(symbol: Symbol, classes: dict[str, str]) -> str:
    name = f"{symbol.owner}.{symbol.name}" if symbol.owner else symbol.name
    lines = [f".. {symbol.kind}:: {classes.get(symbol.owner, symbol.module)}.{name}"]
    if symbol.kind == "autoclass":
        lines.append("   :members:")
    if symbol.kind == "autodata":
        lines.append("   :no-value:")
    if symbol.owner:  # its entry is with its class; this is the same text once more
        lines.append("   :no-index:")
    return "\n".join(lines)


def names_table(symbols: list[Symbol], classes: dict[str, str]) -> str:
    "All names with the first sentence of each, to be seen before the details; none for one or two."
    if len(symbols) < 3:
        return ""
    lines = [".. list-table::", "   :class: names", "   :widths: auto", ""]
    for symbol in symbols:
        name = f"{symbol.owner}.{symbol.name}" if symbol.owner else symbol.name
        home = classes.get(symbol.owner, symbol.module)
        lines += [f"   * - :py:obj:`{name} <{home}.{name}>`", f"     - {_plain(symbol.about)}"]
    return "\n".join(lines)


def entries(name: str, modules: dict[str, list[Symbol]]) -> str:
    "What one module exports, as MyST."
    classes = {s.name: s.module for m in modules.values() for s in m if s.kind == "autoclass"}
    local = {s.name for s in modules[name] if s.kind == "autoclass"}
    shown = [_directive(s, classes) for s in modules[name] if s.owner not in local or not s.owner]
    table = names_table(modules[name], classes)
    rest = "\n\n".join([f".. automodule:: {FOLDER.name}.{name}", table, *shown])
    return f"```{{eval-rst}}\n{rest}\n```\n"


def page(name: str, modules: dict[str, list[Symbol]], made_in: str) -> str:
    "The page of one module that a lesson makes."
    return f"# {FOLDER.name}.{name}\n\n{made_in}\n\n{entries(name, modules)}"


def section(name: str, modules: dict[str, list[Symbol]]) -> str:
    "The end of the page of a library notebook: all that its module offers."
    return f"## What {name} offers\n\n{entries(name, modules)}"


def _plain(text: str) -> str:
    "A sentence of a docstring as reST: backticks are code, nothing else has a meaning."
    parts = re.split(r"(`+[^`\n]+`+)", text)
    return "".join(
        f"``{p.strip('`')}``" if p.startswith("`") else re.sub(r"([\\*|_])", r"\\\1", p)
        for p in parts
    ).replace("````", "`` ``")


def _type(annotation) -> str:
    if annotation in (inspect.Parameter.empty, None):
        return ""
    plain = isinstance(annotation, type) and not hasattr(annotation, "__args__")
    text = annotation.__name__ if plain else str(annotation)
    return re.sub(r"\b(?:typing|collections\.abc|pathlib)\.", "", text)


def parameter_rows(obj) -> list[tuple[str, str, str, str]]:
    "Name, type, default and docment of each parameter of a function or class, then of what it returns."
    rows = []
    for name, p in docments(obj, full=True).items():
        doc, kind, value = (p.get("docment") or "").strip(), _type(p.get("anno")), p.get("default")
        if name == "self" or (name == "return" and not doc):
            continue
        empty = value is inspect.Parameter.empty or name == "return"
        name = "returns" if name == "return" else f"``{name}``"
        rows.append(
            (name, f"``{kind}``" if kind else "", "" if empty else f"``{value!r}``", _plain(doc))
        )
    return rows if any(r[3] for r in rows) else []


def _unwrapped(lines: list[str]) -> list[str]:
    "Paragraphs on one line each, so that what stands in backticks is not broken."
    groups = groupby((x.strip() for x in lines), key=bool)
    return [" ".join(group) if some else "" for some, group in groups]


def docment_table(app, what, name, obj, options, lines: list[str]) -> None:
    "The docstring as plain text, and below it the parameters as a table."
    lines[:] = [_plain(x) for x in _unwrapped(lines)]
    if not (inspect.isroutine(obj) or inspect.isclass(obj)):
        return
    try:
        rows = parameter_rows(obj)
    except (OSError, TypeError, ValueError):  # made at run time: there is no source to read
        return
    if rows:
        lines += ["", ".. list-table::", "   :class: docments", "   :header-rows: 1", ""]
        for row in [("parameter", "type", "default", "meaning"), *rows]:
            lines += [("   * - " if i == 0 else "     - ") + x for i, x in enumerate(row)]
        lines.append("")


def import_all(app) -> None:
    "A method added with `@patch` is there for autodoc only once its module is imported."
    for name in package():
        importlib.import_module(f"{FOLDER.name}.{name}")


def setup(app) -> dict[str, bool]:
    app.connect("builder-inited", import_all)
    app.connect("autodoc-process-docstring", docment_table)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
