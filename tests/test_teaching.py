"A set for a class: nothing of the answers is in it, and all of them are on the sheet."

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import lessons
import teaching

PAGE = """## Questionnaire

<details><summary>1. Why is it so?</summary>

Because of the **secret**, see [there](#x) and [here](library/tool.ipynb).
</details>
<details><summary>2. Research: is it?</summary>
Nobody knows.
</details>

## Exercises
"""
EXERCISE = "### Exercise 1 · Twice\n\nWrite `double`."
FOLDS = """<details><summary>Hint</summary>Add it to itself.</details>
<details><summary>Solution</summary>

```python
def double(x): return secret * x
```
It is short.
</details>"""


def lesson():
    cells = [
        new_markdown_cell("# 00 · First"),
        new_code_cell("x = 1"),
        new_code_cell("#| proof\nassert x == 1"),
        new_markdown_cell(PAGE),
        new_code_cell("#| hide\n#| check: double\ndef check_double(answer): ..."),
        new_markdown_cell(EXERCISE),
        new_code_cell("#| exercise: double\ndef double(x): ..."),
        new_markdown_cell(FOLDS),
        new_markdown_cell("## Go further\n\n- a book"),
    ]
    return new_notebook(cells=cells, metadata={"coursekit": {"sources": "x"}})


def test_a_class_gets_questions_hints_and_checks_and_no_answers():
    nb = teaching.for_class(lesson())
    text = "\n".join(c.source for c in nb.cells)
    for gone in ("secret", "Nobody knows", "Solution", "proof"):
        assert gone not in text
    for kept in ("1. Why is it so?\n2. Research: is it?", "Hint", "check_double", "Go further"):
        assert kept in text
    assert "coursekit" not in nb.metadata


def test_the_sheet_has_every_answer_under_its_question():
    text = teaching.sheet(lesson())
    assert "## 00 · First" in text
    assert "**1. Why is it so?**\n\nBecause of the **secret**, see" in text
    assert "**Exercise 1 · Twice**\n\n```python\ndef double(x): return secret * x" in text
    assert "Add it to itself" not in text


def test_a_name_that_only_a_proof_makes_is_found():
    code = [
        "a = 1",
        "#| proof\na, b = 2, 3\ndef c(): ...\n[d for d in range(2)]",
        "print(a, b, c, [d for d in a])",
        "b = 4\nprint(b)",
    ]
    nb = new_notebook(cells=[new_code_cell(x) for x in code])
    assert teaching.lost(nb) == {"b", "c"}
    assert [c.source for c in teaching.for_class(nb).cells] == code
    nb.cells[2].source = nb.cells[3].source = "print(a)"
    assert len(teaching.for_class(nb).cells) == 3


@pytest.mark.parametrize(
    "path", [*filter(lessons.is_lesson, lessons.notebooks())], ids=lambda p: p.stem
)
def test_lessons_do_without_their_proofs(path):
    nb = lessons.read(path)
    left = teaching.for_class(nb).cells
    kept = [c for c in left if lessons.is_proof(c)]
    made = set().union(*(teaching._names(c.source)[0] for c in left if lessons.is_code(c)))
    assert teaching.lost(nb) <= made and len(kept) <= 4
    assert len(teaching.answers("\n".join(c.source for c in nb.cells))) >= len(
        lessons.exercises(nb)
    )


def test_a_set_is_written_whole_into_a_new_folder(tmp_path):
    (tmp_path / "nbs" / "library").mkdir(parents=True)
    nbformat.write(lesson(), tmp_path / "nbs" / "00_first.ipynb")
    nbformat.write(new_notebook(), tmp_path / "nbs" / "library" / "tool.ipynb")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"png")
    said = teaching.write_class(tmp_path / "out", tmp_path / "nbs")
    assert "1 lessons for a class" in said
    made = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    wanted = {"nbs/00_first.ipynb", "nbs/library/tool.ipynb", "images/a.png", "solutions.md"}
    assert made == wanted
    solutions = (tmp_path / "out" / "solutions.md").read_text()
    assert "[there](nbs/00_first.ipynb#x) and [here](nbs/library/tool.ipynb)" in solutions
    with pytest.raises(SystemExit, match=r"out is not empty; name a new folder"):
        teaching.write_class(tmp_path / "out", tmp_path / "nbs")
    assert not list(tmp_path.glob(".out*"))


def test_slides_begin_at_headings_at_words_and_at_the_second_code_in_a_row():
    cells = [
        new_markdown_cell("# 00 · First\n\n![a](../images/a.png)"),
        new_code_cell("#| default_exp first"),
        new_code_cell("import os"),
        new_code_cell("#| export\nx = 1"),
        new_code_cell("x"),
        new_code_cell("#| proof\nassert x"),
        new_markdown_cell("words"),
        new_code_cell("y = 2"),
        new_markdown_cell('<a id="b"></a>\n## Next'),
        new_markdown_cell("## Summary\n\n1. All.\n\n## Questionnaire\n\nWhy?"),
        new_code_cell("z = 3"),
    ]
    made = teaching.as_slides(new_notebook(cells=cells)).cells
    found = [(c.source, c.metadata["slideshow"]["slide_type"]) for c in made]
    assert found == [
        ("# 00 · First\n\n![a](images/a.png)", "slide"),
        ("x = 1", "-"),
        ("x", "subslide"),
        ("words", "subslide"),
        ("y = 2", "-"),
        ('<a id="b"></a>\n## Next', "slide"),
        ("## Summary\n\n1. All.", "slide"),
    ]


def test_slides_ask_no_other_host(tmp_path):
    said = teaching.write_slides("04", tmp_path)
    page = (tmp_path / "04_augmentation.html").read_text()
    assert "04_augmentation.html; the arrow keys" in said
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=\"(?:https?:)?//", page)
    assert "import mermaid" not in page and "cdnjs" not in page
    asked = re.findall(r'(?:src|href)="(lib/[^"]+)"', page)
    assert len(asked) >= 5 and all((tmp_path / name).exists() for name in asked)
    assert "../images" not in page and 'src="images/' not in page
