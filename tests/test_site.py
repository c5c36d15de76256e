"The site: notebooks as pages, the API pages, the claims index, and the builder with its errors."

import re
from pathlib import Path

import nbformat
import pytest
from fixtures.site import course
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import api_pages
import build_site
import lesson_pages
import library_groups
from lesson_pages import Course, convert, markdown

SYMBOLS = {"tensor": "coursekit.basics.tensor", "Learner.fit": "coursekit.learner.Learner.fit"}
CLAIMS = {"F004": "A `mean` is_not <half>", "F009": "Two halves"}
HERE = Course(symbols=SYMBOLS, claims=CLAIMS)
PICTURE = new_output("display_data", data={"image/png": "aGVsbG8=", "text/plain": "<Figure>"})


def shown(*cells, stem="01_waves", about=HERE, **metadata):
    return convert(new_notebook(cells=list(cells), metadata=metadata), stem, about).cells


def sources(*cells, **kwargs):
    return [c.source for c in shown(*cells, **kwargs)]


# ------------------------------------------------------------------------------ cells
@pytest.mark.parametrize(
    "directive", ["hide", "default_exp basics", "hide\n#| check: mean", " hide "]
)
def test_hidden_cells_do_not_appear(directive):
    assert sources(new_code_cell(f"#| {directive}\nsecret = 1")) == []


def test_directives_are_taken_out_and_other_comments_stay():
    assert sources(new_code_cell("#| fig-alt: a: b\n# why\nx = 1  #| not one")) == [
        "# why\nx = 1  #| not one"
    ]


def test_cell_without_code_is_dropped():
    assert sources(new_code_cell("#| headline\n"), new_code_cell("")) == []


def test_alt_text_is_the_rest_of_the_line():
    cell = shown(
        new_code_cell("#| fig-alt: Two curves: one is flat, 50% lower\nplot()", outputs=[PICTURE])
    )[0]
    assert cell.metadata.mystnb.image.alt == "Two curves: one is flat, 50% lower"


@pytest.mark.parametrize(
    "cell",
    [
        new_code_cell("plot_me()", outputs=[PICTURE]),
        new_markdown_cell("text\n\n![](../images/plot_me.png)"),
        new_markdown_cell('<img src="plot_me.png">'),
    ],
)
def test_picture_without_alt_text_is_refused(cell):
    with pytest.raises(ValueError, match=r"01_waves: a picture without alt text.*(plot_me|text)"):
        shown(cell)


@pytest.mark.parametrize(
    "cell",
    [
        new_markdown_cell("![a mark](x.png) and `![](in-code.png)`"),
        new_markdown_cell("```\n![](in-code.png)\n```"),
        new_code_cell(
            "x",
            outputs=[
                new_output("display_data", data={lesson_pages.WIDGET: {}, "image/png": "aGk="})
            ],
        ),
    ],
)
def test_alt_text_is_not_asked_for_in_code_or_in_a_widget(cell):
    assert shown(cell)


def test_claims_get_a_place_and_their_words_and_are_counted():
    cells = [
        new_code_cell("#| claim: F004 F009\nassert x"),
        new_markdown_cell("Told.\n<!-- claim: F004 -->"),
    ]
    first, code, mark, second, told = sources(*cells)
    assert first == "{.places}\n[]{#01_waves--claim-f004 .place}[]{#01_waves--claim-f009 .place}"
    assert second == "{.places}\n[]{#01_waves--claim-f004-2 .place}"
    assert code == "assert x" and told == "Told.\n"
    words = "A `mean` is\\_not \\<half\\>"
    assert mark == f"{{.marks}}\n✓ [{words}](#claims--f004) · ✓ [Two halves](#claims--f009)"


def test_hidden_cell_leaves_no_mark():
    assert sources(new_code_cell("#| hide\n#| claim: F004\nassert x")) == []


def test_exported_cell_is_shown_with_its_module():
    cells = [
        new_code_cell("#| default_exp basics"),
        new_code_cell("#| export\ndef tensor(x): ...\ndef _own(): ..."),
    ]
    code, mark = shown(*cells)
    assert code.source.startswith("def tensor") and "exported" in code.metadata.tags
    assert mark.source == (
        "{.marks}\ngoes into [coursekit.basics](api/basics.md), {py:obj}`tensor <coursekit.basics.tensor>`"
    )


def test_a_proof_is_one_line_that_opens():
    folded = {"jupyter": {"source_hidden": True}}
    cells = shown(new_code_cell("#| proof\n#| claim: F004 F009\nassert x", metadata=folded))
    places, top, code, end = (c.source for c in cells)
    assert places.count("[]{#01_waves--claim-f0") == 2 and code == "assert x"
    words = "✓ A <code>mean</code> is_not &lt;half&gt; · Two halves"
    assert top == f'<details class="proof"><summary>{words}</summary>'
    assert end == "{.marks}\n[In the list of all claims](#claims--f004)\n\n</details>"
    assert "hide-input" not in cells[2].metadata.tags


def test_a_proof_without_a_claim_says_checked():
    top, _, end = sources(new_code_cell("#| proof\nassert x > 1"))
    assert top == '<details class="proof"><summary>✓ checked</summary>' and end == "</details>"


def test_a_claim_that_does_not_hold_has_no_tick():
    source = "#| claim: F004 F009\n#| refuted: F004\nassert x"
    top = next(s for s in sources(new_code_cell(f"#| proof\n{source}")) if "summary" in s)
    words = "✓ Two halves · ✗ does not hold as worded: A <code>mean</code> is_not &lt;half&gt;"
    assert top == f'<details class="proof"><summary>{words}</summary>'
    alone = sources(new_code_cell("#| proof\n#| claim: F009\n#| refuted: F009\nassert x"))[1]
    assert "✓" not in alone and "<summary>✗ does not hold as worded: Two halves<" in alone
    mark = sources(new_code_cell(source))[-1]
    assert mark.startswith("{.marks}\n✗ does not hold as worded: [A `mean`")
    assert mark.endswith(" · ✓ [Two halves](#claims--f009)")


def test_a_library_page_folds_nothing_and_has_its_module_at_the_top():
    cells = shown(
        new_markdown_cell("# Downloads"),
        new_code_cell("#| default_exp datasets"),
        new_code_cell("#| export\ndef f(): ...", metadata={"jupyter": {"source_hidden": True}}),
        new_code_cell("#| hide\nsecret = 1"),
        stem="library/datasets",
    )
    title, code = cells
    assert "<code>coursekit.datasets</code>" in title.source and "min to read" not in title.source
    assert 'href="../_sources/library/datasets.ipynb" download' in title.source
    assert code.source == "def f(): ..." and code.metadata.tags == ["exported"]


def test_exercise_says_run_the_lesson():
    code, mark = shown(new_code_cell("#| exercise: mean\ndef mean(x): ..."))
    assert code.metadata.tags == ["exercise"] and "run the lesson" in mark.source


def test_long_output_scrolls_and_folded_source_is_folded():
    long, short = (new_output("stream", name="stdout", text="a line\n" * n) for n in (60, 5))
    folded = {"jupyter": {"source_hidden": True}}
    cells = shown(
        new_code_cell("a", outputs=[long]),
        new_code_cell("b", outputs=[short]),
        new_code_cell("c", metadata=folded),
        new_code_cell("# tools\nimport os\nfrom pathlib import Path"),
        new_code_cell("import os\nprint(os.name)"),
    )
    tags = [["scroll-output"], [], ["hide-input"], ["hide-input"], []]
    assert [c.metadata.tags for c in cells] == tags


def test_language_is_known_even_if_the_notebook_does_not_say():
    nb = convert(
        new_notebook(cells=[new_markdown_cell("# A")], metadata={"coursekit": {}}), "01_a", HERE
    )
    assert nb.metadata["language_info"] == {"name": "python"} and "coursekit" not in nb.metadata


def test_bytes_of_an_upload_that_was_emptied_are_left_out():
    paths = [["value", 0, "content"], ["value"], ["layout", "x"]]
    buffers = [{"path": path, "data": "", "encoding": "base64"} for path in paths]
    states = {"a": {"state": {"value": []}, "buffers": buffers}, "b": {"state": {}}}
    kind = "application/vnd.jupyter.widget-state+json"
    view = new_output(
        "display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}}
    )
    cells = [new_code_cell("a", outputs=[view])]
    nb = new_notebook(cells=cells, metadata={"widgets": {kind: {"state": states}}})
    found = convert(nb, "01_a", HERE).metadata.widgets[kind]["state"]
    assert [b["path"] for b in found["a"]["buffers"]] == [["value"]] and "buffers" not in found["b"]


def test_state_of_widgets_that_nobody_sees_is_left_out():
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"a": {"state": {}}}}}
    nb = new_notebook(cells=[new_code_cell("a")], metadata={"widgets": state})
    assert "widgets" not in convert(nb, "01_a", HERE).metadata


def test_names_that_a_cell_defines():
    code = "%timeit x\nLIMIT = 1\n@patch\ndef fit(self: Learner): ...\nclass Learner: ...\ndef _own(): ..."
    assert lesson_pages.defined(code) == ["LIMIT", "Learner.fit", "Learner"]


# ------------------------------------------------------------------------------ Markdown
@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a `tensor` here", "a {py:obj}`tensor <coursekit.basics.tensor>` here"),
        ("`tensor()`", "{py:obj}`tensor() <coursekit.basics.tensor>`"),
        ("`Learner.fit`", "{py:obj}`Learner.fit <coursekit.learner.Learner.fit>`"),
        ("`unknown` and ``tensor``", "`unknown` and ``tensor``"),
        ("## About `tensor`", "## About `tensor`"),
        ("[the `tensor` call](#x)", "[the `tensor` call](#01_waves--x)"),
        (
            "<details><summary>Is `tensor` it?</summary>",
            "<details><summary>Is `tensor` it?</summary>",
        ),
        ("```python\n`tensor` [a](#b)\n```", "```python\n`tensor` [a](#b)\n```"),
        ("`[a](#b)`", "`[a](#b)`"),
        ('<a id="loss"></a>\n## Loss', "[]{#01_waves--loss .place}\n\n## Loss"),
        ("[there](02_data.ipynb#Rows)", "[there](#02_data--rows)"),
        ("[there](02_data.ipynb)", "[there](02_data.ipynb)"),
        ("[home](index.ipynb)", "[home](index.ipynb)"),
        ("[helper](library/files.ipynb)", "[helper](library/files.ipynb)"),
        ("[helper](library/files.ipynb#Rows)", "[helper](#files--rows)"),
        (
            "text\n\n> **Term: Tensor rank.** How many\n> axes.\n\nmore",
            "text\n\n\n{.term}\n> []{#01_waves--term-tensor-rank .place}**Tensor rank.** How many\n> axes.\n\nmore",
        ),
        (
            "> **Term: a.** One.\n> **Term: b.** Two.",
            "\n{.term}\n> []{#01_waves--term-a .place}**a.** One."
            "\n\n{.term}\n> []{#01_waves--term-b .place}**b.** Two.",
        ),
        ("[far](https://a.org/#x)", "[far](https://a.org/#x)"),
        ("![p](../images/p.png)", "![p](images/p.png)"),
        ('<img alt="p" src="../images/p.png">', '<img alt="p" src="images/p.png">'),
    ],
)
def test_markdown(written, expected):
    assert markdown(written, "01_waves", HERE) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[lesson](../02_data.ipynb)", "[lesson](../02_data.ipynb)"),
        ("[there](../02_data.ipynb#Rows)", "[there](#02_data--rows)"),
        ("[beside](metrics.ipynb)", "[beside](metrics.ipynb)"),
        ("[beside](metrics.ipynb#f1)", "[beside](#metrics--f1)"),
        ("[here](#f1)", "[here](#files--f1)"),
        ("![p](../../images/p.png)", "![p](../images/p.png)"),
        ('<img alt="p" src="../../images/p.png">', '<img alt="p" src="../images/p.png">'),
        ("![p](../p.png)", "![p](../p.png)"),
    ],
)
def test_markdown_of_the_library(written, expected):
    assert markdown(written, "library/files", HERE) == expected


# ------------------------------------------------------------------------------ bar
def test_bar_of_a_lesson():
    title = new_markdown_cell("# Waves\n\n" + "word " * 1000)
    text = sources(title, coursekit={"seconds": 41.6})[0]
    assert text.startswith('# Waves\n\n<p class="lesson-bar"><span>5 min to read</span>')
    assert (
        "42 s to run" in text
        and 'href="_sources/01_waves.ipynb" download' in text
        and "Colab" not in text
    )


def test_bar_has_colab_once_the_repository_is_known():
    about = Course(git_url="https://github.com/someone/coursekit", branch="main")
    text = sources(new_markdown_cell("# Waves"), about=about)[0]
    path = "github/someone/coursekit/blob/main/nbs/01_waves.ipynb"
    assert f'href="https://colab.research.google.com/{path}"' in text
    assert "%pip install git+https://github.com/someone/coursekit" in text


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("See lesson 01.", "See [lesson 01](01_waves.ipynb)."),
        ("Lessons 01 and 02", "[Lessons 01](01_waves.ipynb) and [02](02_data.ipynb)"),
        ("of lessons 01, 02", "of [lessons 01](01_waves.ipynb), [02](02_data.ipynb)"),
        ("lesson 77 is not there", "lesson 77 is not there"),
        ("[lesson 01](01_waves.ipynb#x)", "[lesson 01](#01_waves--x)"),
        ("`lesson 01`", "`lesson 01`"),
        ("## After lesson 01", "## After lesson 01"),
        ("<summary>lesson 01</summary>", "<summary>lesson 01</summary>"),
        ("lesson 011", "lesson 011"),
        ("<!-- class: start -->\n[a](b.ipynb)", "{.start}\n[a](b.ipynb)"),
    ],
)
def test_lessons_that_prose_names_are_linked(written, expected):
    about = Course(lessons={"01": "01_waves", "02": "02_data"})
    assert markdown(written, "03_here", about) == expected


def test_a_lesson_does_not_link_to_itself_and_the_library_goes_up():
    about = Course(lessons={"01": "01_waves"})
    assert markdown("lesson 01", "01_waves", about) == "lesson 01"
    assert markdown("lesson 01", "library/a", about) == "[lesson 01](../01_waves.ipynb)"


def model(kind, **state):
    return {"model_name": f"{kind}Model", "state": state}


def test_widgets_that_need_a_kernel_are_switched_off():
    models = {
        "box": model("VBox", children=["IPY_MODEL_menu", "IPY_MODEL_text"]),
        "menu": model("Dropdown", disabled=False),
        "text": model("HTML", value="words"),
        "slider": model("SelectionSlider", disabled=False),
        "stack": model("Stack", selected_index=0),
        "link": model(
            "Link", source=["IPY_MODEL_slider", "index"], target=["IPY_MODEL_stack", "x"]
        ),
        "hand": model("VBox", children=["IPY_MODEL_slider", "IPY_MODEL_stack"]),
    }
    shows = {
        name: new_code_cell(
            name, outputs=[new_output("display_data", {lesson_pages.WIDGET: {"model_id": name}})]
        )
        for name in ("box", "hand")
    }
    widgets = {lesson_pages.STATE: {"state": models}}
    nb = new_notebook(cells=list(shows.values()), metadata={"widgets": widgets})
    made = convert(nb, "01_a", HERE)
    off = {
        key
        for key, each in made.metadata.widgets[lesson_pages.STATE]["state"].items()
        if each["state"].get("disabled")
    }
    assert off == {"menu"}
    assert [c.source for c in made.cells] == ["box", "{.marks}\nrun the lesson to try it", "hand"]


def test_home_page_has_no_bar():
    assert sources(new_markdown_cell("# Home"), stem="index") == ["# Home"]


# ------------------------------------------------------------------------------ API
MODULE = '''
"""A module."""
__all__ = ["Net", "shout", "LIMIT"]
LIMIT = 3
_own = 1
def shout(text: str = "a_b",  # what to say, `str`
          *, times: int = 2) -> str:  # the text in capitals
    "Says *it*."
def _helper(): ...
class Net:
    "A net."
    def forward(self): ...
    def _own(self): ...
@patch
def fit(self: Net): ...
@patch
def tune(self: Other): ...
'''


@pytest.fixture
def modules(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "one.py").write_text(MODULE)
    (tmp_path / "pack" / "two.py").write_text(
        "__all__ = ['Other', 'shout']\nclass Other: ...\ndef shout(): ...\n"
    )
    (tmp_path / "pack" / "__init__.py").write_text("")
    return api_pages.package(tmp_path / "pack")


def test_public_symbols_in_order_with_patched_methods(modules):
    found = [(s.kind, s.owner, s.name) for s in modules["one"]]
    assert found == [
        ("autodata", "", "LIMIT"),
        ("autofunction", "", "shout"),
        ("autoclass", "", "Net"),
        ("automethod", "Net", "fit"),
        ("automethod", "Other", "tune"),
    ]


def test_only_unambiguous_names_are_linked(modules):
    assert api_pages.links(modules) == {
        "LIMIT": "pack.one.LIMIT",
        "Net": "pack.one.Net",
        "Net.forward": "pack.one.Net.forward",
        "Net.fit": "pack.one.Net.fit",
        "Other": "pack.two.Other",
        "Other.tune": "pack.two.Other.tune",
    }


def test_page_has_methods_of_other_modules_classes_but_none_twice(modules):
    text = api_pages.page("one", modules, "Made somewhere.")
    assert ".. automethod:: pack.two.Other.tune\n   :no-index:" in text
    assert (
        "automethod:: pack.one.Net.fit" not in text
    )  # it is a member of Net, which is on the page


def test_docments_become_rows(tmp_path, monkeypatch):
    (tmp_path / "docmented.py").write_text(MODULE.replace("@patch", ""))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("builtins.Other", object, raising=False)
    import docmented

    assert api_pages.parameter_rows(docmented.shout) == [
        ("``text``", "``str``", "``'a_b'``", "what to say, ``str``"),
        ("``times``", "``int``", "``2``", ""),
        ("returns", "``str``", "", "the text in capitals"),
    ]
    assert api_pages.parameter_rows(docmented.Net) == []


def test_docstring_is_plain_text():
    assert api_pages._plain("A *star, `a*b` and x_") == "A \\*star, ``a*b`` and x\\_"


# ------------------------------------------------------------------------------ builder
def write(folder, **cells):
    folder.mkdir(exist_ok=True)
    for name, found in cells.items():
        nbformat.write(new_notebook(cells=found), folder / f"{name.removeprefix('n')}.ipynb")
    return folder


def test_home_page_is_asked_for(tmp_path):
    with pytest.raises(SystemExit, match=r"index\.ipynb, the home page, is not in"):
        build_site.course(write(tmp_path, n00_a=[]))


def test_notebook_that_was_never_run_is_named(tmp_path):
    folder = write(tmp_path, index=[new_markdown_cell("# A")], n03_c=[new_code_cell("x = 1")])
    with pytest.raises(
        SystemExit, match=r"03_c\.ipynb has no outputs(.|\n)*tools/run\.py 03_c --inplace"
    ):
        build_site.course(folder)


def test_the_library_comes_last_and_drafts_are_no_pages(tmp_path):
    folder = write(tmp_path, n00_a=[], index=[], _01_draft=[])
    write(tmp_path / "library", helper=[new_code_cell("never_run = 1")])
    found = build_site.course(folder)
    assert [build_site.page_of(p) for p in found] == ["index", "00_a", "library/helper"]


def test_files_that_a_text_refers_to_are_copied(tmp_path):
    text = "![m](../docs/_static/logo.svg) [l](../LICENSE) `[no](../missing)`"
    folder = write(tmp_path / "nbs", index=[new_markdown_cell(text)])
    (tmp_path / "out").mkdir()
    build_site.copy_notebook(folder / "index.ipynb", tmp_path / "out")
    copied = sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    assert copied == ["LICENSE", "docs/_static/logo.svg", "index.ipynb"]


@pytest.mark.parametrize("name", ["images/missing.png", "../../etc/passwd"])
def test_file_that_is_not_in_the_repository_is_named(tmp_path, name):
    folder = write(tmp_path / "nbs", index=[new_markdown_cell(f"![m](../{name})")])
    with pytest.raises(SystemExit, match=f"index.ipynb refers to ../{name}"):
        build_site.copy_notebook(folder / "index.ipynb", tmp_path)


def test_claims_page(tmp_path):
    nbs = course.make(tmp_path)
    table = build_site.lessons.claims_table(tmp_path / "claims.csv")
    text = build_site.claims_page(table, build_site.course(nbs))
    assert "7 of the 8 statements belong to lessons that exist" in text
    assert "A wave of rank 1 \\* 2 has `two_ends` and an \\_odd\\_ \\<name\\>" in text
    assert "[see it](#00_waves--claim-t003), [again (2)](#00_waves--claim-t003-2)" in text
    assert "[practice · told, and checked by code" in text and "- 07 unwritten: 1" in text
    assert text.index("--t001") < text.index("--t002") < text.index("--t005")
    assert "{.claims .filtered}" in text and not re.search(r"T00\d", text)


def test_claim_without_a_cell_is_said(tmp_path):
    row = {"id": "T009", "claim": "x", "kind": "fact", "testable": "auto"}
    assert "not shown yet" in build_site.claim_item(row, [])
    assert "fact · checked by code" in build_site.claim_item(row, [("00_a", 1)])
    assert "fact · does not hold as worded" in build_site.claim_item(row, [("00_a", 1)], True)


def test_glossary(tmp_path):
    pages = build_site.course(course.make(tmp_path))
    text = build_site.glossary_page(pages)
    assert "The 2 terms" in text and "[A](#glossary--a) [W](#glossary--w)" in text
    assert (
        "**archive**. Many files in one.\n  [[Downloads, looked up](#datasets--term-archive)]"
        in text
    )
    assert "[some maths](#00_waves--maths), written $\\lambda$ or `wave_length`." in text
    assert text.index("archive") < text.index("wave length")


@pytest.mark.parametrize(
    ("term", "letter"),
    [
        ("épsilon", "E"),
        ("F-score", "F"),
        ("1cycle", "0-9"),
        ("β", "0-9"),
        ("$F_1$", "F"),
        ("`fit`", "F"),
    ],
)
def test_letter_of_a_term(term, letter):
    assert build_site.initial(term) == letter


# ------------------------------------------------------------------------------ library
def group(title, *names):
    return library_groups.Group(title, f"About {title}.", names)


def in_library(tmp_path, **texts):
    cells = {name: [new_markdown_cell(text)] for name, text in texts.items()}
    write(tmp_path / "nbs", index=[])
    folder = write(tmp_path / "nbs" / "library", **cells)
    return build_site.pages_in(folder.parent)


def test_library_in_groups(tmp_path):
    pages = in_library(
        tmp_path, cut="# To cut\n\n> One [way](b.ipynb) to\n> `cut`.\n\nMore.", b="# B"
    )
    known = [
        group("Small & large things", "cut"),
        group("Nothing yet", "later"),
        group("Rest", "b"),
    ]
    shown = build_site.groups_shown(pages, known)
    assert [g.page for g, _ in shown] == ["groups/small-large-things", "groups/rest"]
    made = build_site.library_pages(shown)
    assert set(made) == {"library.md", "groups/small-large-things.md", "groups/rest.md"}
    item = "**[To cut]({}library/cut.ipynb)**\n\n  One way to `cut`."
    assert item.format("") in made["library.md"] and "in 2 notebooks" in made["library.md"]
    page = made["groups/small-large-things.md"]
    assert item.format("../") in page and "\n/library/cut.ipynb\n" in page
    menu = build_site.toc(pages, [], shown)
    assert ":caption: Library\n\nAll of it <library.md>\ngroups/small-large-things.md\n" in menu
    assert "cut.ipynb" not in menu


def test_notebook_without_a_group_is_named(tmp_path):
    pages = in_library(tmp_path, cut="# To cut", b="# B")
    with pytest.raises(SystemExit, match=r"no group of the library has b\.\n.*docs/library\.ini"):
        build_site.groups_shown(pages, [group("One", "cut")])


def test_without_a_library_there_is_no_page_of_it(tmp_path):
    assert build_site.library_pages(build_site.groups_shown([], [])) == {}


def test_groups_and_notebooks_agree():
    known = [group("One", "a", "b"), group("Two", "b", "gone")]
    found = "\n".join(library_groups.faults(known, ["a", "b", "c"]))
    assert "library/c.ipynb stands in no group" in found and "there is no library/gone" in found
    assert "has b 2 times" in found and found.count("\n") == 2


# ------------------------------------------------------------------------------ data page
def entry(**changes):
    from coursekit.datasets import DataEntry

    return DataEntry("folder", "pictures of waves", "CC0", "A. Author, *Waves*, 2020", **changes)


def test_data_set_with_everything():
    known = entry(
        about="In `u.data`.", files={"u": (1, "0")}, download=1_234_567, size=20, used_in=("02",)
    )
    text = build_site.data_item("WAVES", known)
    for part in (
        "## WAVES\n\nPictures of waves. In `u.data`.\n",
        "- **Licence**: CC0\n",
        "\\*Waves\\*, 2020",
        "1.2 MB to download, 20 bytes on disk",
        "SHA-256 of every file",
        "lesson 02",
    ):
        assert part in text


def test_data_set_of_which_little_is_known():
    text = build_site.data_item("WAVES", entry(advice="draw them"))
    assert "the cache; a mirror folder. draw them" in text
    assert (
        "**Size**: not known" in text
        and "**Checked**: the publisher's checksum of the archive" in text
        and "Used in" not in text
    )


def test_every_data_set_of_the_package_is_on_the_page():
    text = build_site.data_page()
    assert all(
        f"## {name}\n" in text for name in ("MNIST", "MNIST_SAMPLE", "BEARS", "ML_100k", "PETS")
    )


# ------------------------------------------------------------------------------ JavaScript
def test_every_script_is_pinned():
    assert {Path(f[2]).suffix for f in build_site.wanted()} == {".js", ".css", ".woff2"}
    assert all(len(f[3]) == 64 for f in build_site.wanted())


def test_scripts_are_fetched_once_and_checked(tmp_path, monkeypatch):
    asked = []

    def unpack(name, version, destination):
        asked.append(name)
        destination.mkdir()
        (destination / "a.js").write_text("1")
        return destination

    monkeypatch.setattr(build_site, "unpack", unpack)
    digest = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    for _ in range(2):
        build_site.fetch_javascript(tmp_path / "lib", [("pack", "1.0", "a.js", digest)])
    assert asked == ["pack"] and [p.name for p in (tmp_path / "lib").iterdir()] == ["a.js"]
    with pytest.raises(SystemExit, match=r"a\.js of the npm package has sha256 6b86"):
        build_site.fetch_javascript(tmp_path / "other", [("pack", "1.0", "a.js", "0" * 64)])
    with pytest.raises(SystemExit, match=r"b\.js of the npm package is not there"):
        build_site.fetch_javascript(tmp_path / "other", [("pack", "1.0", "b.js", digest)])
    assert not (tmp_path / "other").exists() or not list((tmp_path / "other").iterdir())


def test_fonts_lie_in_a_folder_beside_their_style_sheet():
    assert build_site.served_as("dist/fonts/Main.woff2") == "fonts/Main.woff2"
    assert build_site.served_as("dist/katex.min.css") == "katex.min.css"


def test_npm_that_fails_is_named(tmp_path, monkeypatch):
    def npm_package(name, version, destination):
        raise RuntimeError("npm is not there")

    monkeypatch.setattr("coursekit.registries.npm_package", npm_package, raising=False)
    with pytest.raises(SystemExit, match=r"cannot fetch pack 1\.0: npm is not there"):
        build_site.unpack("pack", "1.0", tmp_path)


# ------------------------------------------------------------------------------ whole builds
@pytest.fixture
def few_modules():
    with course.few_modules():
        yield


def test_site_has_every_page_and_the_real_notebook():
    site = course.site()
    names = {str(p.relative_to(site)) for p in site.rglob("*.html")}
    wanted = "index 00_waves 01_more claims data glossary docs/teaching search 404 api/exercises library/datasets"
    wanted += " library groups/files-and-data-sets"
    assert {f"{n}.html" for n in wanted.split()} <= names
    assert "secret_of_the_check" in (site / "_sources/00_waves.ipynb").read_text()
    assert not list(site.parent.glob(".site*"))  # nothing half done is left


def test_lesson_page():
    text = (course.site() / "00_waves.html").read_text()
    assert "secret_of_the_check" not in text and "hidden words" not in text and "#|" not in text
    assert 'alt="A disc: it stands at the left"' in text
    assert 'href="api/exercises.html#coursekit.exercises.exercise"' in text
    assert 'href="claims.html#claims-t002"' in text
    assert not re.search(r"\bT00\d", re.sub("<[^>]*>", "", text))
    assert 'href="library/datasets.html' in (course.site() / "01_more.html").read_text()


def test_home_page_has_cards_and_numbers():
    text = (course.site() / "index.html").read_text()
    assert text.count('class="card-of-lesson"') == 2 and "<table" not in text
    assert "A wave &amp; its crest." in text and "7 s to run" in text
    assert "begin here" in text and "<strong>01 · More waves</strong>" in text
    said = re.search(r"<strong>(\d+) statements</strong>.*?<strong>(\d+)</strong> of", text, re.S)
    assert said.groups() == ("7", "5")
    assert '<p class="start">' in text and "<!-- class" not in text


def test_head_says_what_the_page_is():
    text = (course.site() / "00_waves.html").read_text()
    words = "At the end you will have moved a wave by hand."
    assert f'<meta name="description" content="{words}' in text
    assert '<meta property="og:title" content="00 · Waves from scratch">' in text
    assert "fontawesome.js" not in text and "searchindex.js" not in text


def test_pictures_wait_and_hold_their_place():
    text = (course.site() / "00_waves.html").read_text()
    image = re.search(r'<img [^>]*alt="A disc: it stands at the left"[^>]*>', text)[0]
    assert 'loading="lazy" width="320" height="120"' in image and "data-wide" not in image


def test_a_published_site_has_a_map(tmp_path, monkeypatch, few_modules):
    known = build_site.lessons.settings() | {"site_url": "https://a.org/course/"}
    monkeypatch.setattr(build_site.lessons, "settings", lambda: known)
    build_site.build(
        course.make(tmp_path), tmp_path / "site", tmp_path / "claims.csv", tmp_path / "work"
    )
    found = (tmp_path / "site" / "sitemap.xml").read_text()
    assert "<loc>https://a.org/course/00_waves.html</loc>" in found and "404" not in found
    assert "https://a.org/course/sitemap.xml" in (tmp_path / "site" / "robots.txt").read_text()
    page = (tmp_path / "site" / "00_waves.html").read_text()
    assert '<link rel="canonical" href="https://a.org/course/00_waves.html"' in page
    assert not (course.site() / "sitemap.xml").exists()


def test_a_module_begins_with_a_table_of_its_names(modules):
    assert api_pages.names_table(modules["one"][:2], {}) == ""
    table = api_pages.names_table(modules["one"], {})
    assert ":py:obj:`shout <pack.one.shout>`" in table and "Says \\*it\\*" in table


def test_library_page_has_prose_code_and_api():
    text = (course.site() / "library" / "datasets.html").read_text()
    assert not (course.site() / "api" / "datasets.html").exists()
    assert (course.site() / "_sources" / "library" / "datasets.ipynb").exists()
    assert "hidden_in_the_library" not in text and "What is whole" in text
    assert 'id="coursekit.datasets.untar_data"' in text and "docments" in text
    assert 'href="../00_waves.html#waves-slider"' in text


def test_repository_is_linked_once_its_address_is_known(tmp_path, monkeypatch, few_modules):
    address = "https://github.com/someone/coursekit"
    known = build_site.lessons.settings() | {"git_url": address}
    monkeypatch.setattr(build_site.lessons, "settings", lambda: known)
    build_site.build(
        course.make(tmp_path), tmp_path / "site", tmp_path / "claims.csv", tmp_path / "work"
    )
    found = (tmp_path / "site" / "00_waves.html").read_text()
    for link in (
        f"{address}/issues",
        f'"{address}"',
        "colab.research.google.com/github/someone/coursekit/blob/main",
    ):
        assert link in found
    without = (course.site() / "00_waves.html").read_text()
    assert "github.com" not in without and "colab" not in without


def test_broken_link_stops_the_build_and_the_old_site_stays(tmp_path, capfd, few_modules):
    folder = write(tmp_path / "nbs", index=[new_markdown_cell("# Home\n\n[gone](#nowhere-at-all)")])
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "old.html").touch()
    with pytest.raises(SystemExit, match="faults above; the site is as it was"):
        build_site.build(folder, tmp_path / "site", work=tmp_path / "work")
    assert "nowhere-at-all" in capfd.readouterr().err
    assert [p.name for p in (tmp_path / "site").iterdir()] == ["old.html"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nbs", "site", "work"]


def test_picture_without_alt_text_stops_the_build(tmp_path, capfd, few_modules):
    folder = write(
        tmp_path / "nbs", index=[new_markdown_cell("# Home\n\n![](../docs/_static/logo.svg)")]
    )
    with pytest.raises(SystemExit, match="faults above"):
        build_site.build(folder, tmp_path / "site", work=tmp_path / "work")
    assert (
        "index: a picture without alt text" in capfd.readouterr().err
        and not (tmp_path / "site").exists()
    )
