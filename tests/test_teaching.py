"A set for a class: nothing of the answers is in it, and all of them are on the sheet."

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
