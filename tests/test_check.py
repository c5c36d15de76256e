"The checks: each one finds the fault that it is there for, and is content without it."

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat import v4, write

import check
from lessons import ROOT, checks_in, digest, directives, exercises, read

END = "## Summary\n## Questionnaire\n## Exercises\n## Go further"
OUT = v4.new_output("stream", name="stdout", text="double: not answered yet\n")
CLAIMS = """id,lesson,kind,testable,claim,suggestion,covers
F001,00_first,fact,auto,One and one is two,,
F002,00_first,fact,narrative,Numbers are old,,
F003,07_unwritten,fact,auto,Later,,
"""


def code(source, outputs=()):
    return v4.new_code_cell(source, outputs=list(outputs))


def put(root: Path, name: str, *cells, record=None):
    nb = v4.new_notebook(
        cells=[v4.new_markdown_cell(c) if isinstance(c, str) else c for c in cells]
    )
    nb.metadata["coursekit"] = record or {"sources": digest(nb), "mirror": False}
    write(nb, root / "nbs" / name)


HOME = """# Home

[licence](../settings.ini)

| | lesson | what you build | level |
|---|---|---|---|
| 00 | [First](00_first.ipynb) | two | begin here |
| 01 | [Second](01_second.ipynb) | more | basics |
"""
FIRST = (
    '# 00 · First\n<!-- claim: F002 -->\n<a id="top"></a>',
    code("#| default_exp first"),
    code("#| export\ndef two(): return 2"),
    code("#| headline\ntwo()"),
    v4.new_code_cell(
        "#| proof\n#| claim: F001\nassert 1 + 1 == two()",
        metadata={"jupyter": {"source_hidden": True}},
    ),
    "> **Term: two.** The number after one.",
    code("#| hide\n#| check: double\nx = 1"),
    code("#| exercise: double\nx = 1", [OUT]),
    "<details><summary>Solution</summary>\n\n```python\nx = 2\n```\n</details>",
    END,
)
SECOND = (
    "# 01 · Second\n[back](00_first.ipynb#top)",
    v4.new_code_cell(
        "#| headline\nfrom coursekit.first import two",
        metadata={"jupyter": {"source_hidden": True}},
    ),
    *FIRST[6:],
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A small course in which nothing is wrong."
    tmp_path = tmp_path_factory.mktemp("course")
    (tmp_path / "nbs").mkdir()
    for name in ("pyproject.toml", "settings.ini", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "claims.csv").write_text(CLAIMS)
    (tmp_path / "coursekit").mkdir()
    shutil.copy(ROOT / "coursekit" / "__init__.py", tmp_path / "coursekit")
    put(tmp_path, "index.ipynb", HOME)
    put(tmp_path, "00_first.ipynb", *FIRST)
    put(tmp_path, "01_second.ipynb", *SECOND)
    (tmp_path / "README.md").write_text(check.readme_text(tmp_path))
    subprocess.run([Path(sys.executable).with_name("nbdev-export")], cwd=tmp_path, check=True)
    return tmp_path


@pytest.fixture
def root(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "course"))


def test_nothing_is_found_where_nothing_is_wrong(root):
    assert [fault for c in check.CHECKS for fault in c(root)] == []


def test_library(root):
    (root / "nbs" / "library").mkdir()
    put(root, "library/cut.ipynb", "# To cut\n\n> One way to cut.")
    put(root, "library/bare.ipynb", "# Bare\n\nNo line.")
    (root / "docs").mkdir()
    text = "[All]\nabout = It.\nnotebooks = cut gone\n"
    (root / "docs" / "library.ini").write_text(text)
    found = find(root, "library")
    assert "bare.ipynb stands in no group" in found and "there is no library/gone" in found
    assert "bare.ipynb: below the title no line" in found and "cut" not in found


def edit(path: Path, old: str, new: str):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def find(root, name):
    return "\n".join(getattr(check, name)(root))


def test_export(root):
    (root / "coursekit" / "gone.py").write_text("x = 1\n")
    edit(root / "coursekit" / "first.py", "return 2", "return 3")
    assert "first.py differs" in find(root, "export")
    assert "gone.py is made by no notebook" in find(root, "export")


def test_versions(root):
    edit(root / "coursekit" / "__init__.py", '__version__ = "', '__version__ = "9')
    edit(root / "pyproject.toml", 'name = "coursekit"', 'name = "other"')
    assert len(list(check.versions(root))) == 2


def test_lock(root):
    edit(root / "settings.ini", "torch>=2.6", "torch>=99")
    edit(root / "settings.ini", "tqdm>=4.66", "no-such-package>=1")
    assert "torch>=99" in find(root, "lock") and "no pin" in find(root, "lock")


def test_imports(root):
    put(root, "01_second.ipynb", "# Second", code("x = 1"))
    assert "coursekit.first is used by no later lesson" in find(root, "imports")
    later = [code("#| default_exp second"), code("#| export\nfrom coursekit.first import two")]
    put(root, "01_second.ipynb", *later)
    put(root, "00_first.ipynb", *FIRST, code("from coursekit.second import two"))
    assert "00_first imports coursekit.second" in find(root, "imports")


@pytest.mark.parametrize(
    "line",
    [
        "from coursekit import exercises, second",
        "import coursekit.second as s",
        "import os, coursekit.second",
        "if True: from coursekit.second import two",
        "from coursekit.all import *",
    ],
)
def test_imports_in_whatever_form(root, line):
    put(
        root,
        "01_second.ipynb",
        code("#| default_exp second"),
        code("from coursekit.first import two"),
    )
    put(root, "00_first.ipynb", *FIRST, code(line))
    assert "00_first imports coursekit." in find(root, "imports")


def test_a_lesson_that_exports_nothing_may_use_everything(root):
    put(root, "00_first.ipynb", *FIRST[0:1], code("from coursekit.second import three"))
    second = [code("#| default_exp second"), code("from coursekit.all import *")]
    put(root, "01_second.ipynb", *second)
    assert "00_first" not in find(root, "imports")
    assert "01_second imports coursekit.all" in find(root, "imports")


def test_a_module_that_the_library_uses_is_used(root):
    put(root, "01_second.ipynb", "# Second", code("x = 1"))
    (root / "nbs" / "library").mkdir()
    put(root, "library/all.ipynb", code("from coursekit.first import two"))
    assert "coursekit.first is used by no later lesson" in find(root, "imports")
    put(root, "library/helper.ipynb", code("from coursekit.first import two"))
    assert find(root, "imports") == ""


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("x = 1", "claim F001 of 00_first has no cell"),
        ("#| claim: F001\nx = 1", "has 0 checks"),
        ("#| claim: F001\nassert True", "has 0 checks"),
        ("#| claim: F001 F003\nassert x == 1", "has 1 checks"),
        ("#| claim: F001 F999\nassert x == 1", "F999: not in claims.csv"),
        ("#| claim: F001 F002 F003 F001 F002\nassert x", "at most 4"),
        ("#| claim: F001\n#| refuted: F003\nassert x == 1", "refutes F003: name claims"),
        ("#| claim: F001\n#| refuted:\nassert x == 1", "refutes nothing: name claims"),
    ],
)
def test_claims(root, cell, words):
    put(root, "00_first.ipynb", "<!-- claim: F002 -->", code(cell))
    assert words in find(root, "claims")


def test_a_claim_is_refuted_everywhere_or_nowhere(root):
    one = code("#| claim: F001\n#| refuted: F001\nassert x == 1")
    put(root, "00_first.ipynb", "<!-- claim: F002 -->", one)
    assert find(root, "claims") == ""
    put(root, "00_first.ipynb", "<!-- claim: F002 -->", one, code("#| claim: F001\nassert x == 2"))
    assert "claim F001 is refuted in one cell" in find(root, "claims")


def test_claims_told_must_be_there_too(root):
    put(root, "00_first.ipynb", code("#| claim: F001\nassert x == 1"))
    assert "claim F002 of 00_first has no cell" in find(root, "claims")


PNG = v4.new_output("display_data", data={"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"})


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (v4.new_output("stream", name="stderr", text="50%|#####"), "warning or a progress bar"),
        (v4.new_output("stream", text="a.py:1: UserWarning: x"), "warning or a progress bar"),
        (v4.new_output("stream", text="saved in /home/ann/data"), "a path of a machine"),
        (v4.new_output("error", ename="ValueError", evalue="", traceback=[]), "an error"),
        (PNG, "fig-alt"),
    ],
)
def test_outputs(root, out, words):
    put(root, "00_first.ipynb", code("x = 1", [out]))
    assert words in find(root, "outputs")


def test_a_proof_is_folded(root):
    proof = code("#| proof\nassert x == 1")
    put(root, "00_first.ipynb", code("x = 1"), proof)
    assert "a proof is not folded: python tools/run.py 00_first --inplace" in find(root, "outputs")
    proof.metadata["jupyter"] = {"source_hidden": True}
    put(root, "00_first.ipynb", code("x = 1"), proof)
    assert find(root, "outputs") == ""


def test_a_figure_with_alt_text_and_a_relative_path_are_fine(root):
    plain = v4.new_output("stream", text="saved in data/home/x.png, 3/4 done, 10 km/h")
    put(root, "00_first.ipynb", code("#| fig-alt: a: b\nx = 1", [PNG, plain]))
    assert find(root, "outputs") == ""


def test_outputs_of_other_sources_or_of_the_mirror(root):
    put(root, "00_first.ipynb", code("x = 1"), record={"sources": "0", "mirror": True})
    assert "not from the present sources" in find(root, "outputs")
    assert "mirror's data" in find(root, "outputs")
    put(root, "00_first.ipynb", code("x = 1", [v4.new_output("stream", text="a" * 1_100_000)]))
    assert "1.10 MB" in find(root, "outputs")


def test_a_picture_at_the_top_is_the_figure_of_its_cell(root):
    put(root, "00_first.ipynb", code("#| picture: a.png\n#| fig-alt: a\nx = 1", [PNG]))
    assert "images/a.png is not the figure of its cell" in find(root, "outputs")
    (root / "images").mkdir()
    (root / "images" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert find(root, "outputs") == ""
    (root / "images" / "a.png").write_bytes(b"another")
    assert "images/a.png is not the figure of its cell" in find(root, "outputs")


def test_titles(root):
    put(root, "index.ipynb", HOME.replace("[First]", "[Last]"))
    assert "calls 00_first '00 · Last', and it is '00 · First'" in find(root, "titles")
    put(root, "00_first.ipynb", "# First")
    assert "does not begin with '00 · '" in find(root, "titles")


def test_form(root):
    put(
        root,
        "00_first.ipynb",
        "# T\n## Summary\n<details><summary>Hint</summary>`zip` it.</details>",
        code("#| exercise: double\nx = 1"),
        code("#| check: a\nx"),
    )
    found = find(root, "form")
    for words in (
        "'## Questionnaire'",
        "#| headline",
        "exercise double has no check, solution",
        "does not say 'not answered yet'",
        "check of exercise a is not hidden",
        "backticks stay as they are in a line that begins with <details>",
    ):
        assert words in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[x](gone.ipynb)", "gone.ipynb, which is not there"),
        ("[x](00_first.ipynb#gone)", "no such anchor"),
        ("[x](#gone)", "no such anchor"),
        ("![](../settings.ini)", "without alt text"),
        ('<img src="x.png">', "without alt text"),
    ],
)
def test_links(root, text, words):
    put(root, "01_second.ipynb", text)
    assert words in find(root, "links")
    put(root, "01_second.ipynb", f"`{text}`\n\n```\n{text}\n```\n\n[out](https://a.example/x)")
    assert find(root, "links") == ""


def test_readme(root):
    assert "[licence](settings.ini)\n\n| | lesson" in (root / "README.md").read_text()
    put(root, "index.ipynb", "# Another home")
    assert "make export" in find(root, "readme")


def test_an_assert_that_cannot_fail_is_no_check():
    weak = [
        "assert True",
        "assert 1 == 1",
        "assert x == x",
        "assert isinstance(x, int)",
        "assert x",
    ]
    assert [checks_in(w) for w in weak] == [[]] * len(weak)
    strong = "assert x > 1\ntest_eq(a, b)\nassert torch.allclose(a, b)\n%timeit f(x)\n"
    assert len(checks_in(strong)) == 3


def test_directives_take_the_rest_of_the_line():
    options, rest = directives("#| claim: F001 F002\n#|fig-alt: a: b, 50 %\n#| hide\n\nx = 1")
    assert options == {"claim": "F001 F002", "fig-alt": "a: b, 50 %", "hide": ""}
    assert rest.strip() == "x = 1"


def test_exercises_are_put_together(root):
    assert exercises(read(root / "nbs" / "00_first.ipynb")) == {
        "double": {"check": "x = 1", "exercise": "x = 1", "solution": "x = 2\n"}
    }
