"""Worksheet, datasheet and model card: what is written comes back, from Python and from a browser without it; and the
planted worlds of the lesson on data ethics over twenty seeds."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from huggingface_hub import DatasetCard
from huggingface_hub import ModelCard as HubCard
from in_browser import PHONE, WIDE
from playwright.sync_api import expect
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import nn

from coursekit.cards import Datasheet, ModelCard
from coursekit.ethics import FAULTS, REMEDIES, SOURCE_OF, diagnose_bias, planted_gap
from coursekit.group_errors import error_rates_by_group
from coursekit.learner import Learner
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.messages import DataError
from coursekit.worksheet import QuestionSheet, Worksheet, question_parts, questions_of

ODD = [
    "plain",
    "two\n\nparagraphs with *stars*",
    "# a heading\n## another",
    "<!-- end -->\n<!-- answer: team -->\nnot mine\n<!-- end -->",
    "a < b & c > d &lt; &amp;lt; \\n",
    "*(not answered)* is what it said",
    "| a | b |\n|---|---|\n<script>alert(1)</script>",
    "Ünïcödé, 中文, 🐻",
]


# ---------------------------------------------------------------- worksheet
def test_every_question_is_asked_once_and_answered_in_the_example():
    keys = [q["key"] for part in question_parts("worksheet") for q in part["questions"]]
    assert len(keys) == len(set(keys)) == 39
    tools = [p["title"] for p in question_parts("worksheet") if p["title"].startswith("Tool")]
    assert [t.split(":")[0] for t in tools] == [f"Tool {i}" for i in range(1, 8)]
    example = Worksheet.example()
    assert example.unanswered == [] and all(len(a) > 20 for a in example.answers.values())


@pytest.mark.parametrize("text", ODD)
def test_any_answer_comes_back(text, tmp_path):
    sheet = Worksheet("A & B <i>", {"should-we": text, "team": "Three."})
    read = Worksheet.load(sheet.save(tmp_path / "ethics.md"))
    assert read.answers == {"should-we": text.strip(), "team": "Three."}
    assert read.title == sheet.title


def test_windows_line_ends_and_an_editor(tmp_path):
    path = Worksheet("x", {"team": "One.\nTwo."}).save(tmp_path / "a.md")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert Worksheet.load(path).answers == {"team": "One.\nTwo."}
    path.write_text("Before.\n\n" + path.read_text().replace("One.", "Four."))
    assert Worksheet.load(path).answers == {"team": "Four.\nTwo."}


def test_refused(tmp_path):
    with pytest.raises(DataError, match=r"no question 'teams' in a worksheet: should-we"):
        Worksheet("x", teams="us")
    with pytest.raises(DataError, match=r"answer to 'team' is 3"):
        Worksheet("x", team=3)
    path = tmp_path / "letter.md"
    path.write_text("# A letter\n\nDear all,")
    with pytest.raises(DataError, match=r"letter.md is no worksheet"):
        Worksheet.load(path)
    Worksheet("x", {"team": "We."}).save(path)
    path.write_text(path.read_text().replace("answer: team", "answer: teem"))
    with pytest.raises(DataError, match="answers 'teem', which is no question"):
        Worksheet.load(path)


def test_widget_writes_answers():
    sheet = Worksheet("x", {"team": "We."})
    parts = sheet.widget().children[0].children
    boxes = [box for part in parts for question in part.children for box in question.children]
    areas = [box for box in boxes if hasattr(box, "rows")]
    assert [a.value for a in areas].count("We.") == 1
    asked = [q["ask"] for q in questions_of("worksheet").values()]
    assert [a.tooltip for a in areas] == asked  # each box has a name to be read aloud
    areas[0].value = "No."
    assert sheet.answers == {"team": "We.", "should-we": "No."}


# ---------------------------------------------------------------- the form in a browser
@pytest.fixture
def page(browser, tmp_path):
    path = Worksheet("A lending model", {"should-we": ODD[3]}).form().save(tmp_path / "form.html")
    context = browser.new_context(viewport=WIDE, accept_downloads=True, offline=True)
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(path.as_uri())
    yield page
    assert page.errors == []
    context.close()


def download(page, path):
    with page.expect_download() as found:
        page.get_by_role("button", name="Save as Markdown").click()
    found.value.save_as(path)
    return Worksheet.load(path)


def test_filled_saved_and_opened_without_python(page, tmp_path):
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    answers = {"should-we": ODD[3]}
    for text, key in zip(ODD, list(questions_of("worksheet"))[5:], strict=False):
        page.get_by_label(questions_of("worksheet")[key]["ask"], exact=True).fill(text)
        answers[key] = text.strip()
    page.get_by_label("Title").fill("My own & other <project>")
    sheet = download(page, tmp_path / "a.md")
    assert sheet.answers == answers and sheet.title == "My own & other <project>"
    page.reload()  # the draft is kept in the browser
    assert download(page, tmp_path / "b.md") == sheet
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Empty it").click()
    expect(page.locator("textarea").first).to_have_value("")
    ours = Worksheet.example().save(tmp_path / "c.md")  # what Python wrote, opened in the browser
    page.get_by_label("Open a sheet").set_input_files(ours)
    expect(page.locator(".sheet-note")).to_have_text("Opened c.md.")
    assert download(page, tmp_path / "d.md") == Worksheet.example()
    (tmp_path / "letter.txt").write_text("Dear all")
    page.get_by_label("Open a sheet").set_input_files(tmp_path / "letter.txt")
    expect(page.locator(".sheet-note")).to_contain_text("holds no answers")


def test_prints_with_all_answers_and_fits_a_phone(page):
    long = "a long answer " * 60
    page.locator("textarea").nth(2).fill(long)
    page.evaluate(
        "window.print = () => { window.seen = [...document.querySelectorAll('textarea')]"
        ".every(a => a.clientHeight >= a.scrollHeight - 2 && a.closest('details').open) }"
    )
    page.get_by_role("button", name="Print").click()
    assert page.evaluate("window.seen") is True
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    unnamed = page.locator("textarea").evaluate_all("all => all.filter(a => !a.labels.length)")
    assert unnamed == []


def test_of_two_sheets_on_a_page_one_is_printed(page, tmp_path):
    other = Worksheet("Another").form().html
    path = tmp_path / "two.html"
    one = Worksheet("One", {"team": "We."}).form().save(path).read_text(encoding="utf-8")
    path.write_text(one.replace("</body>", other + "</body>"), encoding="utf-8")
    page.goto(path.as_uri())
    page.emulate_media(media="print")
    page.evaluate(
        "window.print = () => { window.seen = [...document.querySelectorAll('.sheet-title')]"
        ".filter(t => t.checkVisibility({visibilityProperty: true})).map(t => t.value) }"
    )
    page.locator(".sheet-print").first.evaluate("button => button.click()")
    assert page.evaluate("window.seen") == ["One"]
    assert page.locator(".sheet-printed").count() == 0


def tab_to(page, wanted):
    "Press Tab until the thing that has the focus is of this class or kind."
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("w => document.activeElement.matches(w)", wanted):
            return
    raise AssertionError(f"no Tab leads to {wanted}")


def test_by_keyboard_alone_on_a_phone(page, tmp_path):
    page.set_viewport_size(PHONE)
    tab_to(page, ".sheet-title")
    page.keyboard.press("Control+A")
    page.keyboard.type("By keyboard")
    tab_to(page, "details:nth-of-type(2) > summary")
    page.keyboard.press("Enter")
    tab_to(page, "textarea[data-key=affected]")
    page.keyboard.type("Everybody.")
    seen = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert seen == "solid"  # one sees where one is
    tab_to(page, ".sheet-save")
    with page.expect_download() as found:
        page.keyboard.press("Enter")
    found.value.save_as(tmp_path / "a.md")
    sheet = Worksheet.load(tmp_path / "a.md")
    assert sheet.title == "By keyboard" and sheet.answers["affected"] == "Everybody."
    tab_to(page, ".sheet-open")
    box = page.locator(".sheet-file").bounding_box()
    assert box["x"] + box["width"] <= 390
    tab_to(page, ".sheet-clear")
    page.on("dialog", lambda dialog: dialog.accept())
    page.keyboard.press("Enter")
    expect(page.locator(".sheet-note")).to_have_text("Emptied.")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_form_has_no_fault_that_axe_knows(page):
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    faults = Axe().run(page, ".coursekit-sheet").response["violations"]
    assert [fault["id"] for fault in faults] == []


# ---------------------------------------------------------------- datasheet and model card
@pytest.fixture
def people():
    rng = np.random.default_rng(0)
    place = rng.choice(["hill", "shore", None], 400, p=[0.6, 0.3, 0.1])
    return pd.DataFrame({"x": rng.normal(size=400), "place": place, "paid": rng.random(400) < 0.3})


def test_datasheet_counts_and_the_hub_reads_it(people, tmp_path):
    people.loc[3:12, "x"] = np.nan
    sheet = Datasheet.from_table(people, "People", ["place"], "paid", licence="cc-by-4.0")
    text = sheet.save(tmp_path / "README.md").read_text()
    assert "400 rows, 3 columns" in text and "| x | 10 | 2.5% |" in text
    n, paid = people.place.isna().sum(), people.paid[people.place.isna()].mean()
    assert re.search(rf"place \| \(missing\) \| {n} \| .*True: {paid:.1%}", text)
    assert len(re.findall(r"^## ", text, re.M)) == 7
    card = DatasetCard.load(tmp_path / "README.md")
    assert card.data.license == "cc-by-4.0" and card.data.size_categories == ["n<1K"]
    assert Datasheet.load(tmp_path / "README.md").answers == {}
    with pytest.raises(DataError, match="no column 'town'"):
        Datasheet.from_table(people, "People", "town")


def test_model_card_numbers_are_those_of_the_data(people, tmp_path):
    said = people.x.fillna(0) > 0.5
    card = ModelCard.from_predictions(
        "Who paid", people.paid, said, people[["place"]], use="None.", model=LogisticRegression()
    )
    path = card.save(tmp_path / "README.md")
    hub = {r.metric_name: r.metric_value for r in HubCard.load(path).data.eval_results}
    hill = people.place == "hill"
    fpr = said[hill & ~people.paid].mean()
    assert hub["false positive rate, place: hill"] == pytest.approx(fpr, abs=1e-6)
    table = error_rates_by_group(people.paid, said, people[["place"]])
    assert (
        len(hub)
        == table.rate.notna().sum()
        == card.check_numbers(people.paid, said, people[["place"]])
    )
    assert "LogisticRegression" in path.read_text() and ModelCard.load(path).answers["use"]
    with pytest.raises(DataError, match=r"error, all: all: .* in the card, .* computed now"):
        card.check_numbers(people.paid, ~said, people[["place"]])
    with pytest.raises(DataError, match="the card has it, these data do not"):
        renamed = people[["place"]].replace("hill", "mountain")
        card.check_numbers(people.paid, said, renamed)
    with pytest.raises(DataError, match="has no numbers"):
        ModelCard("x").check_numbers(people.paid, said, people.place)


def test_model_card_of_a_learner():
    items = torch.utils.data.TensorDataset(torch.randn(40, 3), torch.randint(2, (40,)))
    dls = DataLoaders(DataLoader(items, bs=8), DataLoader(items, bs=8))
    learn = Learner(dls, nn.Linear(3, 2), nn.CrossEntropyLoss())
    with learn.no_bar():
        learn.fit(2)
    truth = torch.stack([y for _, y in items]).numpy()
    said = learn.model(torch.stack([x for x, _ in items])).argmax(1).numpy()
    card = ModelCard.from_predictions("Tiny", truth, said, np.arange(40) % 2, model=learn)
    text = card.to_markdown()
    assert "`Linear`, 8 parameters; loss `CrossEntropyLoss`; 2 epochs" in text
    assert "40 items to train, 40 kept back to validate." in text


def test_a_sheet_of_another_kind_is_refused(tmp_path):
    path = Worksheet("x", {"team": "We."}).save(tmp_path / "a.md")
    with pytest.raises(DataError, match="no question of a datasheet"):
        Datasheet.load(path)
    assert Worksheet("x") != QuestionSheet("x")


# ---------------------------------------------------------------- the planted worlds
FITS = {
    "historical": "equal selection",
    "representation": "more of B",
    "measured cues": "measure B better",
    "measured label": "true label",
    "aggregation": "slopes for B",
    "learning": "weaker penalty",
}


def test_one_remedy_for_each_fault_over_twenty_other_seeds():
    with threadpool_limits(1):  # several threads wait for each other
        check_worlds()


def check_worlds():
    def gaps(fault, remedy):
        which = fault == "historical"
        return np.array([planted_gap(fault, remedy, seed)[which] for seed in range(100, 120)])

    for fault, fit in FITS.items():
        nothing = gaps(fault, "nothing")
        assert abs(nothing.mean()) > 0.12 and nothing.min() > 0.05, (fault, nothing)
        assert abs(gaps(fault, fit).mean()) < 0.03, (fault, fit)
    assert all(abs(gap) < 0.04 for gap in gaps("none", "nothing"))
    assert set(FAULTS) == {"none", *FITS} and set(REMEDIES) == {"nothing", *SOURCE_OF}


def test_diagnose_bias():
    assert diagnose_bias(0.01, {}).startswith("no gap")
    assert diagnose_bias(0.2, {"more of B": 0.2, "true label": -0.01}) == SOURCE_OF["true label"]
    both = {"true label": 0.0, "equal selection": 0.0}
    assert diagnose_bias(0.2, both) == SOURCE_OF["true label"]
    assert diagnose_bias(0.2, {"more of B": 0.1}).startswith("none closes it (more of B)")
    several = diagnose_bias(0.2, {"more of B": 0.0, "true label": 0.0})
    assert several.startswith("several close")
    with pytest.raises(DataError, match="no remedy 'prayer': more of B"):
        diagnose_bias(0.2, {"prayer": 0.0})
