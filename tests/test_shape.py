"The form of lessons and library: each rule finds its fault, and exceptions can only become fewer."

import pytest
from nbformat import v4, write

import check
import shape
from lessons import terms_in

CLAIMS = "id,lesson,kind,testable,claim,suggestion,covers\nF001,00_first,fact,auto,x,,\n"


def put(root, name, *cells):
    "A notebook: what begins with '#' and a letter or '>' is Markdown, else code."
    made = [
        v4.new_markdown_cell(c) if c[:2] in ("# ", "> ", "<!", "``") else v4.new_code_cell(c)
        for c in cells
    ]
    path = root / "nbs" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(v4.new_notebook(cells=made), path)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "coursekit").mkdir()
    (tmp_path / "tools").mkdir()
    (tmp_path / "claims.csv").write_text(CLAIMS)
    return tmp_path


def faults(root, rule):
    return "\n".join(f"{name}: {fault}" for name, fault in shape.RULES[rule](shape.Course(root)))


# ------------------------------------------------------------------------------ proofs and asserts
@pytest.mark.parametrize(
    "before",
    [
        ["x = 1"],
        ["x = 1", "#| proof\nassert x == 1"],
        ["x = 1", "#| hide\ny = 1"],
        ["#| export\nx = 1"],
    ],
)
def test_a_proof_after_its_cell_is_fine(root, before):
    put(root, "00_first", *before, "#| proof\n#| claim: F001\nassert x == 1")
    assert faults(root, "proof") == ""


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["#| proof\nassert x == 1"], "the proof [0] does not come right after a code cell"),
        (["# T", "#| proof\nassert x == 1"], "[1] does not come right after"),
        (["#| hide\nx = 1", "#| proof\nassert x == 1"], "[1] does not come right after"),
        (["x = 1", "# T", "#| hide\ny", "#| proof\nassert x > 0"], "[3] does not come right after"),
        (["x = 1", "#| proof\nassert x"], "[1] has no check that could fail"),
        (["x = 1", "#| proof\n#| export\nassert x > 0"], "[1] is also marked export"),
    ],
)
def test_a_proof_that_is_none(root, cells, words):
    put(root, "library/helper", *cells)
    assert f"library/helper: the proof {words.removeprefix('the proof ')}" in faults(root, "proof")


def test_one_assert_in_sight(root):
    unseen = ["export", "proof", "hide", "hide\n#| check: double"]
    put(root, "00_first", *(f"#| {mark}\nassert x > 1\ntest_eq(x, 2)" for mark in unseen))
    assert faults(root, "asserts") == ""
    put(root, "00_first", "# two\nassert x > 1", "y = 1\nassert x\ntest_eq(x, 2)")
    put(root, "library/helper", "assert x > 1\nassert x > 2")
    assert faults(root, "asserts") == "00_first: 2 asserts in sight in the cell that begins 'y = 1'"


def test_twenty_asserts_in_sight(root):
    put(root, "00_first", *["assert x > 1"] * 20)
    assert faults(root, "asserts") == ""
    put(root, "00_first", *["assert x > 1"] * 21)
    assert faults(root, "asserts") == "00_first: 21 asserts in sight, more than 20"


# ------------------------------------------------------------------------------ size
def long(columns: int) -> str:
    return f"x = '{'a' * (columns - 6)}'"


def test_columns(root):
    fold = f"```python\n{long(92)}\n```\n\n```\n{long(120)}\n```\n{long(120)}"
    put(root, "00_first", f"#| fig-alt: {'a' * 200}\n{long(92)}", fold)
    assert faults(root, "columns") == ""
    put(root, "00_first", f"```python\n{long(93)}\n```")
    put(root, "library/helper", f"x = 1\n{long(100)}")
    found = faults(root, "columns")
    assert "00_first: a line of 93 columns: 'x = 'aaa" in found.replace('"', "'")
    assert "library/helper: a line of 100 columns" in found


def lines(count: int) -> str:
    return "\n".join(f"x{i} = {i}" for i in range(count))


def test_lines_of_a_cell(root):
    put(root, "00_first", f"#| export\n\n{lines(30)}\n\n", lines(20), f"#| proof\n{lines(60)}")
    put(root, "library/helper", f"#| export\n{lines(90)}", lines(90))
    assert faults(root, "exported") == faults(root, "size") == ""
    put(root, "00_first", f"#| export\n{lines(31)}", lines(21))
    assert (
        faults(root, "exported")
        == "00_first: 31 lines are exported in the cell that begins 'x0 = 0'"
    )
    assert faults(root, "size") == "00_first: 21 lines in the cell that begins 'x0 = 0'"
    # imports are folded on the site, and nobody reads past them
    imports = "\n".join(f"import m{i}" for i in range(21))
    put(root, "00_first", imports)
    assert faults(root, "size") == ""
    put(root, "00_first", f"{imports}\nx = 1")
    assert faults(root, "size") == "00_first: 22 lines in the cell that begins 'import m0'"


def test_cells_in_sight(root):
    put(root, "00_first", "#| default_exp first", *["x = 1"] * 90, "#| hide\nx = 1")
    assert faults(root, "size") == ""
    put(root, "00_first", *["x = 1"] * 91)
    assert faults(root, "size") == "00_first: 91 code cells in sight, more than 90"


def test_reading(root):
    put(root, "00_first", "# T" + " word" * 6000)
    assert faults(root, "reading") == ""
    put(root, "00_first", "# T" + " word" * 6200)
    assert faults(root, "reading") == "00_first: 31 minutes to read, more than 30"


def module(root, notebook, name, text="", *cells):
    put(root, notebook, f"#| default_exp {name}", *cells)
    (root / "coursekit" / f"{name}.py").write_text(text + "\n")


def test_length_of_a_module(root):
    module(root, "library/helper", "helper", lines(500))
    module(root, "library/drawn_bears", "drawn_bears", lines(900))
    assert faults(root, "module") == ""
    module(root, "library/helper", "helper", lines(501))
    assert faults(root, "module") == "library/helper: coursekit.helper has 501 lines"


def long_function(count: int) -> str:
    "A function whose body has so many lines, with a docstring, a comment and a blank line besides."
    body = "".join(f"    x = {i}\n" for i in range(count))
    return f'def paint(\n    x,\n):\n    """Two\n    lines."""\n\n    # why\n{body}'


def test_length_of_a_function(root):
    module(root, "library/helper", "helper", long_function(25) + "def done(): 'A docstring alone.'")
    module(root, "library/drawn_bears", "drawn_bears", long_function(90))
    assert faults(root, "function") == ""
    inside = long_function(26).replace("\n", "\n    ")
    module(root, "library/helper", "helper", f"class Painter:\n    {inside}")
    assert faults(root, "function") == "library/helper: coursekit.helper.paint has 26 lines"


# ------------------------------------------------------------------------------ imports
@pytest.mark.parametrize(
    "line",
    [
        "from coursekit.first import two, _half",
        "def f():\n    from coursekit.first import _half as half",
        "from coursekit import first\nfirst._half(2)",
        "import coursekit.first as f\nf._half(2)",
    ],
)
def test_private_names(root, line):
    module(root, "00_first", "first", "", "from coursekit.first import _half")
    put(root, "01_second", "from coursekit.first import two, __all__\nfrom os import _exit")
    assert faults(root, "private") == ""
    put(root, "01_second", line)
    assert faults(root, "private") == "01_second: first._half is private to its module"


def test_circles(root):
    module(root, "00_first", "first", "def f():\n    from .a import x")
    module(root, "library/a", "a", "from .b import y")
    module(root, "library/b", "b", "")
    assert faults(root, "circle") == ""
    module(root, "library/b", "b", "if TYPE_CHECKING:\n    from coursekit.first import f")
    assert faults(root, "circle") == ""  # a type checker alone needs it
    module(root, "library/b", "b", "from coursekit import first")
    found = faults(root, "circle")
    assert "00_first: coursekit.first needs itself, through a" in found
    assert "library/a: coursekit.a needs itself, through b" in found and found.count("\n") == 2


def test_the_library_takes_from_no_later_lesson(root):
    module(root, "00_free", "none", "")
    put(root, "00_free", "from coursekit.late import x")  # exports nothing, and may use everything
    module(root, "01_first", "first", "from .near import y", "from coursekit.near import y")
    module(root, "02_second", "second", "")
    module(root, "library/near", "near", "from .late import x")
    module(root, "library/late", "late", "from .first import one")
    assert faults(root, "later") == ""
    module(root, "library/late", "late", "from .second import two")
    found = faults(root, "later")
    assert found == (
        "library/late: coursekit.late imports coursekit.second: "
        "01_first uses it, and 02_second comes later"
    )


# ------------------------------------------------------------------------------ words
def test_terms(root):
    put(
        root,
        "00_first",
        "> **Term: learning rate.** How far\n> one step goes.\n\nText. Term by term.",
    )
    assert faults(root, "term") == ""
    assert terms_in("> **Term: learning rate.** How far\n> one step goes.\n\nText.") == [
        ("learning rate", "How far one step goes.")
    ]


def test_two_terms_in_one_box_are_two(root):
    text = "> **Term: step.** One move.\n>\n> **Term: loss.** What it costs.\n> More.\n>"
    assert terms_in(text) == [("step", "One move."), ("loss", "What it costs. More.")]
    put(root, "00_first", text)
    assert faults(root, "term") == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("> **Term: step.** One move", "the box of the term 'step.' does not end with a period"),
        ("> **Term: step** One move.", "not of the form"),
        ("> **Term:step.**", "not of the form"),
        ("> **Term: .** One move.", "not of the form"),
        ("> Term: step. One move.", "not of the form"),
        ("# T\n\n**Term: step.** One move.", "not of the form"),
        ("> **Term: Loss.** Once.\n\n> **Term: loss.** Twice.", "explained in 00_first already"),
    ],
)
def test_terms_of_another_form(root, text, words):
    put(root, "00_first", text)
    assert words in faults(root, "term")


def test_a_term_is_explained_once_in_all_lessons(root):
    put(root, "00_first", "> **Term: loss.** Once.")
    put(root, "01_second", "> **Term: loss.** Twice.")
    assert faults(root, "term") == "01_second: the term 'loss.' is explained in 00_first already"


def test_codes_of_claims_are_out_of_sight(root):
    put(
        root,
        "00_first",
        "# T\n<!-- claim: F001 -->",
        "#| claim: F001\nx = 'F002'",
        "#| hide\n'F001'",
    )
    assert faults(root, "codes") == ""
    put(root, "00_first", "# T\nAs F001 says", "x = 1  # F001")
    assert faults(root, "codes").count("the code F001 is in sight") == 2
    put(root, "00_first", "from x import y  # noqa: F001")
    assert faults(root, "codes") == ""


# ------------------------------------------------------------------------------ exceptions
def test_an_exception_excuses_and_is_refused_once_it_is_not_needed(root):
    put(root, "00_first", long(100))
    assert "00_first: a line of 100 columns" in "\n".join(shape.shape(root))
    (root / "tools" / "still.txt").write_text("# why\n00_first: columns\n")
    assert list(shape.shape(root)) == []
    (root / "tools" / "still.txt").write_text("00_first: columns size\n09_gone: columns\n")
    left = "\n".join(shape.shape(root))
    assert "00_first: size: this exception is no longer needed: remove it" in left
    assert "09_gone: columns: this exception is no longer needed" in left


def test_exceptions_are_written(root):
    put(root, "00_first", long(100))
    put(root, "library/helper", long(100))
    assert "2 exceptions, 2 added, 0 removed" in shape.write_still(root)
    assert shape.still(root) == {"00_first": ["columns"], "library/helper": ["columns"]}
    put(root, "00_first", "x = 1")
    assert "1 exceptions, 0 added, 1 removed" in shape.write_still(root)
    assert list(shape.shape(root)) == []


def test_every_rule_is_part_of_the_checks():
    assert shape.shape in check.CHECKS and len(shape.RULES) == 13
