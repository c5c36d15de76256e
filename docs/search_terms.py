"""The boxes that explain terms, as entries of the search: a small Sphinx extension.

Sphinx's search knows titles, words and the entries of an index, and puts an entry that is just what was
typed before everything else. So each box gives one for its term and one for each other way to write it.
"""

import re
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

WORDS = Path(__file__).with_name("search_terms.ini")


def other_words(path: Path = WORDS) -> dict[str, list[str]]:
    "What else people call a term: the term -> those words."
    config = ConfigParser(interpolation=None, delimiters=("=",))
    config.optionxform = str
    config.read(path, encoding="utf-8")
    found: dict[str, list[str]] = {}
    for word, term in config["words"].items():
        found.setdefault(term, []).append(word)
    return found


def initials(term: str) -> str:
    "The first letters of a term's words, as in SGD."
    return "".join(word[0] for word in re.findall(r"\w+", term)).upper()


def spellings(term: str, text: str = "") -> list[str]:
    """The ways to type a term: `text` explains it, and says whether it has initials of its own.

    Words joined by 'and' are looked up one by one; -isation is -ization to half of the readers.
    Plurals, since an entry has to hold the whole of what was typed.
    """
    whole, inside = re.fullmatch(r"([^()]*?)\s*(?:\(([^()]*)\))?", term).groups()
    parts = [whole, *([inside] if inside and not inside.startswith("of ") else [])]
    if " and " in whole:
        first, second = whole.split(" and ", 1)
        noun = second.rpartition(" ")[2] if " " in second and " " not in first else ""
        parts += [f"{first} {noun}".strip(), second]
    if " " in whole and re.search(rf"\b{re.escape(initials(whole))}s?\b", text):
        parts.append(initials(whole))
    parts += [p.replace("-", " ") for p in parts] + [p.replace("-", "") for p in parts]
    parts += [re.sub(r"(?<=[a-z])is(ation|ed)\b", r"iz\1", p) for p in parts]
    parts += [f"{p}s" for p in parts if p and not p.endswith("s")]
    return list(dict.fromkeys(p.casefold() for p in parts if p))


def boxes(doctree: nodes.document) -> Iterator[tuple[nodes.block_quote, str, str]]:
    "Every box that explains a term, with the term and the place to jump to."
    for box in doctree.findall(nodes.block_quote):
        term, place = (next(box.findall(kind), None) for kind in (nodes.strong, nodes.inline))
        if "term" in box["classes"] and term and place and place["ids"]:
            yield box, term.astext().removesuffix("."), place["ids"][0]


def doctree_read(app, doctree: nodes.document) -> None:
    also = other_words()
    for box, term, place in list(boxes(doctree)):
        words = [s for name in (term, *also.get(term, [])) for s in spellings(name, box.astext())]
        box["ids"].append(f"box-{place}")  # a result shows the text of what it leads to
        entries = [("single", w.replace(";", ","), box["ids"][-1], "main", None) for w in words]
        box.insert(0, addnodes.index(entries=entries))


def setup(app) -> dict[str, bool]:
    app.connect("doctree-read", doctree_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
