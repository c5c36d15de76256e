"The search puts the box that explains a term first, however the term is written."

import csv
import functools
from collections import Counter
from pathlib import Path

import pytest
from docutils import nodes

import lessons
import search_terms

TABLE = Path(__file__).with_name("fixtures") / "search.csv"
WORDS = [(row["word"], row["lesson"]) for row in csv.DictReader(TABLE.open(encoding="utf-8"))]


@functools.cache
def all_entries() -> list[tuple[str, str, str]]:
    "Every entry that the boxes of the course give: the words, the term, the notebook."
    also, found = search_terms.other_words(), []
    for path in lessons.notebooks():
        for cell in lessons.read(path).cells:
            for term, text in lessons.terms_in(cell.source) if cell.cell_type == "markdown" else []:
                names = (term, *also.get(term, []))
                words = {s for name in names for s in search_terms.spellings(name, text)}
                found += [(word, term, path.name) for word in words]
    return found


@pytest.mark.parametrize(
    ("term", "text", "typed"),
    [
        ("batch normalisation", "", "batch normalization"),
        ("p-value", "", "p value"),
        ("fine-tuning", "", "finetuning"),
        ("precision and recall", "", "recall"),
        ("macro and micro average", "", "macro average"),
        ("output range (y_range)", "", "y_range"),
        ("stochastic gradient descent", "It is called SGD.", "sgd"),
        ("Grad-CAM", "", "grad-cam"),
        ("convolution", "", "convolutions"),
    ],
)
def test_a_term_is_found_however_it_is_written(term, text, typed):
    assert typed in search_terms.spellings(term, text)


def test_initials_are_those_that_the_box_names():
    assert "hl" not in search_terms.spellings("hidden layer", "A layer between two others.")
    assert "of batch norm" not in search_terms.spellings("running average (of batch norm)")


def test_other_words_lead_to_a_box_and_no_word_to_two():
    entries = all_entries()
    terms = {term for _, term, _ in entries}
    assert not set(search_terms.other_words()) - terms
    assert len(entries) > 300
    assert not [w for w, n in Counter(word for word, _, _ in entries).items() if n > 1]


@pytest.mark.parametrize(("word", "lesson"), WORDS)
def test_a_word_of_the_course_has_its_box_in_the_lesson_that_explains_it(word, lesson):
    found = [page for typed, _, page in all_entries() if typed == word.casefold()]
    assert [page[:2] for page in found] == [lesson]


def test_a_box_becomes_an_entry_of_the_search():
    place = nodes.inline("", ids=["05--term-loss"], classes=["place"])
    words = [place, nodes.strong("", "loss."), nodes.Text(" How wrong a model is.")]
    box = nodes.block_quote("", nodes.paragraph("", "", *words), classes=["term"])
    other = nodes.block_quote("", nodes.paragraph("", "", nodes.strong("", "Not a term.")))
    doctree = nodes.section("", box, other)
    search_terms.doctree_read(None, doctree)
    assert box[0]["entries"][0] == ("single", "loss", "box-05--term-loss", "main", None)
    assert box["ids"] == ["box-05--term-loss"]
    assert isinstance(other[0], nodes.paragraph)
