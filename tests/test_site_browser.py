"The site in headless Chromium: a course made for these tests; `test_site_pages.py` opens the real one."

import shutil
import sys

import in_browser
import nbformat
import pytest
from fixtures.site import course
from in_browser import (
    COLOURS,
    PHONE,
    WIDE,
    dark,
    picture,
    serious,
    serve,
    settled,
    sliders_that_do_nothing,
    system_browser,
    too_wide,
)
from page_kinds import Page, chosen, dead_ends, read_site
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def made():
    "Address of the course that is made for the tests."
    yield from serve(course.site())


def test_missing_browser_fails_in_ci_and_is_skipped_elsewhere(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(in_browser, "MAC", [])
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        system_browser()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        system_browser()


def test_search_finds_a_word_while_it_is_typed(made, visit):
    page = visit.page(f"{made}/00_waves.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("periwinkle")
    expect(page.locator("#search-results a").first).to_have_text("A course on waves")


def test_search_page(made, visit):
    page = visit.page(f"{made}/search.html?q=periwinkle")
    expect(page.locator("#search-results a").first).to_have_text("A course on waves")


def test_what_weighs_is_fetched_when_it_is_needed(made, visit):
    page = visit.page(f"{made}/01_more.html")
    fetched = "performance.getEntriesByType('resource').map(e => e.name.replace(/.*\\//, ''))"
    page.wait_for_load_state("networkidle")
    assert not {"katex.min.js", "embed.js", "searchindex.js"} & set(page.evaluate(fetched))
    page.keyboard.press("Control+k")
    page.wait_for_function(f"{fetched}.includes('searchindex.js')")
    other = visit.page(f"{made}/00_waves.html")
    other.wait_for_load_state("networkidle")
    assert {"katex.min.js", "katex.min.css"} <= {
        name.partition("?")[0] for name in other.evaluate(fetched)
    }


def test_formulas_are_drawn_from_their_tex(made, visit):
    page = settled(visit.page(f"{made}/00_waves.html"))
    assert page.locator(".katex-error").count() == 0
    assert page.locator("div.math .katex-display").count() == 1
    assert page.locator("span.math annotation").first.text_content() == "\\lambda"


def test_a_lesson_is_marked_as_done_in_this_browser(made, visit):
    page = visit.page(f"{made}/00_waves.html")
    marked = page.locator(".bd-sidebar-primary a.is-done")
    assert marked.count() == 0
    page.get_by_role("button", name="Mark this lesson as done").click()
    expect(marked).to_have_text("00 · Waves from scratch")
    page.goto(f"{made}/01_more.html")
    expect(marked).to_have_count(1)
    page.goto(f"{made}/index.html")
    expect(page.locator(".card-of-lesson .is-done")).to_have_text("00 · Waves from scratch")
    page.goto(f"{made}/00_waves.html")
    page.get_by_role("button", name="Done ✓ (press to take it back)").click()
    expect(marked).to_have_count(0)


def test_lessons_beside_this_one_are_linked_at_the_top(made, visit):
    page = visit.page(f"{made}/00_waves.html")
    page.get_by_role("navigation", name="Lessons beside this one").get_by_text("01 · More").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("More waves")


def test_slider_moves_and_the_picture_changes(made, visit):
    page = settled(visit.page(f"{made}/00_waves.html"))
    slider = page.get_by_role("slider", name="shift")
    before, pixels = picture(slider), page.locator(".widget-vbox").screenshot()
    expect(page.get_by_alt_text("A disc, 0 steps to the right")).to_be_visible()
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    expect(page.get_by_alt_text("A disc, 2 steps to the right")).to_be_visible()
    expect(page.get_by_alt_text("A disc, 0 steps to the right")).to_be_hidden()
    expect(page.locator(".widget-readout")).to_have_text("0.2")
    assert picture(slider) != before and page.locator(".widget-vbox").screenshot() != pixels


def test_slider_moves_by_mouse_too(made, visit):
    page = settled(visit.page(f"{made}/00_waves.html"))
    page.locator(".noUi-handle").hover()
    page.mouse.down()
    page.mouse.move(1390, 10)
    page.mouse.up()
    expect(page.get_by_alt_text("A disc, 5 steps to the right")).to_be_visible()


def test_dark_mode_by_choice_and_by_system(made, visit):
    paper = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    assert min(visit.page(f"{made}/index.html").evaluate(paper)) > 240
    assert max(visit.page(f"{made}/index.html", scheme="dark").evaluate(paper)) < 40
    page = visit.page(f"{made}/index.html")
    page.locator("button.theme-switch-button:visible").first.click()
    page.locator("button.theme-change-button[data-mode=dark]:visible").first.click()
    assert max(page.evaluate(paper)) < 40
    page.reload()
    assert max(page.evaluate(paper)) < 40


def test_copy_button_copies_the_code(made, visit):
    page = visit.page(f"{made}/00_waves.html")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    cell = page.locator("div.cell_input", has_text="for i in range(60)")
    cell.hover()
    cell.locator("button.copybtn").click()
    page.wait_for_function("navigator.clipboard.readText().then(t => t.length > 0)")
    assert page.evaluate("navigator.clipboard.readText()").strip() == "for i in range(60): print(i)"


def test_download_is_the_notebook_itself(made, visit):
    page = visit.page(f"{made}/00_waves.html")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the notebook").click()
    notebook = nbformat.read(download.value.path(), as_version=4)
    assert any("#| claim: T002 T003" in cell.source for cell in notebook.cells)


def test_claim_leads_to_its_cell_and_back(made, visit):
    page = visit.page(f"{made}/claims.html")
    page.locator("li", has_text="A wave of rank").get_by_role("link", name="see it").click()
    cell = page.locator("div.cell_input", has_text="assert len([1, 2]) == 2")
    expect(cell).to_be_in_viewport()
    page.get_by_role("link", name="A wave of rank").click()
    expect(page.locator("li", has_text="A wave of rank")).to_be_in_viewport()


@pytest.mark.parametrize("script", [True, False])
def test_claim_leads_to_its_proof_which_opens(made, visit, script):
    address = f"{made}/claims.html"
    page = visit.page(address, script=script)
    page.locator("li", has_text="A proof of").get_by_role("link", name="see it").click()
    line = page.locator("details.proof > summary", has_text="A proof of two_ends <opens>")
    expect(line).to_be_in_viewport()
    expect(line).to_have_text(
        "✓ A proof of two_ends <opens> to its code · And this stands beside it"
    )
    code = page.get_by_text("assert len(wide) == 90")
    expect(code).to_be_hidden()
    expect(page.get_by_text("proved")).to_be_hidden()
    line.focus()
    page.keyboard.press("Enter")
    expect(code).to_be_visible()
    expect(page.get_by_text("proved")).to_be_visible()
    page.get_by_role("link", name="In the list of all claims").click()
    expect(page.locator("li", has_text="A proof of")).to_be_in_viewport()


def test_proofs_fit_on_a_phone(made, visit):
    page = settled(visit.page(f"{made}/00_waves.html", PHONE))
    for line in page.locator("details.proof > summary").all():
        line.click()
    assert too_wide(page) <= 0
    assert not serious(page)
    assert not serious(dark(page), only=COLOURS)


def test_claims_are_filtered_by_words_and_by_lesson(made, visit):
    page = visit.page(f"{made}/claims.html")
    shown = page.locator("ul.claims > li:visible")
    expect(shown).to_have_count(7)
    page.get_by_label("Show statements with the words").fill("wave TWO_ends")
    expect(shown).to_have_count(1)
    expect(page.locator(".filter-box output")).to_have_text("1 statements")
    expect(page.get_by_role("heading", name="More waves")).to_be_hidden()
    page.get_by_label("Show statements with the words").fill("")
    page.get_by_label("Lesson").select_option("01 · More waves")
    expect(shown).to_have_count(1)
    assert not serious(page)


def test_term_leads_from_the_glossary_to_its_box(made, visit):
    page = visit.page(f"{made}/glossary.html")
    page.get_by_label("Show terms with the words").fill("crest")
    expect(page.locator("ul.terms > li:visible")).to_have_count(1)
    page.locator("p.letters").get_by_role("link", name="A").click()  # it leads to what is hidden
    expect(page.get_by_role("heading", name="A", exact=True)).to_be_in_viewport()
    expect(page.locator("ul.terms > li:visible")).to_have_count(2)
    page.get_by_role("link", name="Waves from scratch").last.click()
    box = page.locator("blockquote.term", has_text="The way from one crest")
    expect(box).to_be_in_viewport()


def test_a_group_of_the_library_opens_in_the_menu(made, visit):
    page = visit.page(f"{made}/index.html")
    menu = page.locator(".bd-sidebar-primary")
    notebook = menu.get_by_role("link", name="Downloads, looked up")
    expect(notebook).to_be_hidden()
    menu.locator("summary[aria-label='what is in: Files and data sets']").press("Enter")
    notebook.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Downloads, looked up")
    expect(menu.locator("li.current", has_text="Files and data sets").first).to_be_visible()


def test_glossary_without_javascript_is_a_plain_list(made, visit):
    page = visit.page(f"{made}/glossary.html", PHONE, script=False)
    expect(page.locator("ul.terms > li:visible")).to_have_count(2)
    expect(page.locator(".filter-box input")).to_have_count(0)


@pytest.mark.parametrize("name", ["glossary", "claims", "library", "library/datasets"])
def test_pages_to_look_up_are_accessible_in_both_colours(made, visit, name):
    page = settled(visit.page(f"{made}/{name}.html"))
    assert not serious(page)
    assert not serious(dark(page), only=COLOURS)
    page.set_viewport_size(PHONE)
    assert too_wide(page) <= 0


def test_answers_unfold_and_lead_to_their_place(made, visit):
    page = visit.page(f"{made}/00_waves.html")
    answer = page.get_by_text("The slider, see above")
    expect(answer).to_be_hidden()
    page.get_by_text("1. What moves the wave?").click()
    expect(answer).to_be_visible()
    page.get_by_role("link", name="above").click()
    expect(page.get_by_role("heading", name="A slider")).to_be_in_viewport()


def test_long_and_wide_output_scroll_in_their_box(made, visit):
    page = settled(visit.page(f"{made}/00_waves.html", PHONE))
    long = page.locator("div.cell.tag_scroll-output div.cell_output")
    assert long.evaluate("e => e.clientHeight < 500 && e.scrollHeight > 700 && e.tabIndex === 0")
    wide = page.locator("div.output", has=page.locator("table"))
    assert wide.evaluate("e => e.scrollWidth > e.clientWidth && e.tabIndex === 0")


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_lesson_is_accessible_in_both_colours(made, visit, viewport):
    page = settled(visit.page(f"{made}/00_waves.html", viewport))
    assert not serious(page)
    assert not serious(dark(page), only=COLOURS)


# ------------------------------------------------------------------------------ what every page is looked at for
def test_a_fault_is_seen_in_both_colours(made, visit):
    page = visit.page(f"{made}/01_more.html")
    assert not serious(page)
    faint = "<p style='color: #888; background: #777'>Too faint to read.</p>"
    page.evaluate(f'document.querySelector("article").insertAdjacentHTML("beforeend", "{faint}")')
    assert ["color-contrast" in fault for fault in serious(page)] == [True]
    assert ["color-contrast" in fault for fault in serious(dark(page), only=COLOURS)] == [True]


def test_a_slider_that_does_nothing_is_seen(made, visit):
    page = settled(visit.page(f"{made}/00_waves.html"))
    assert sliders_that_do_nothing(page) == []
    page.evaluate("(b => b.replaceWith(b.cloneNode(true)))(document.querySelector('.widget-vbox'))")
    assert sliders_that_do_nothing(page) == ["shift"]


def test_a_page_with_a_kind_of_its_own_is_among_those_that_axe_looks_at():
    plain, odd = (
        "<main><p>a</p><a href='x'>b</a></main>",
        "<main><p style='color: #999'>a</p></main>",
    )
    pages = {"a": Page(plain).kinds, "b": Page(plain).kinds, "c": Page(odd).kinds}
    assert chosen(pages, ["a"]) == {"a", "c"} and len(chosen(pages, [])) == 2
    unnamed = Page("<main><img></main>").kinds, Page("<main><img alt='x'></main>").kinds
    assert unnamed[0] != unnamed[1]
    assert Page("<pre><b style='color: red'></b></pre>").kinds == Page("<pre></pre>").kinds


def test_an_address_that_leads_nowhere_is_seen(tmp_path):
    (tmp_path / "sub").mkdir()
    good = "<h1 id='top'>A</h1><a href='#top'></a><a href='sub/b.html#here'></a><a href='https://a.org/x'></a>"
    bad = "<p id='here'></p><a href='../a.html#gone'></a><img src='no.png'><a href='c.html'></a>"
    (tmp_path / "a.html").write_text(good)
    (tmp_path / "sub" / "b.html").write_text(bad)
    found = dead_ends(read_site(tmp_path))
    assert found == ["b.html: ../a.html#gone", "b.html: no.png", "b.html: c.html"]
