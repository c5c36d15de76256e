"""The site in headless Chromium: a course made for this test, and then every page of the real one.

The page is served from this machine. Any request to another host, any error in the console and any
exception on a page fails the test that met it.
"""

import functools
import http.server
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from fixtures.site import course
from playwright.sync_api import Browser, Page, expect, sync_playwright
from test_search import WORDS

import build_site
import lessons
import library_groups

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
MAC = [f"/Applications/{n}.app/Contents/MacOS/{n}" for n in ("Google Chrome", "Chromium")]
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


# ------------------------------------------------------------------------------ browser and server
def system_browser() -> str:
    "Path of the browser that the system has."
    found = [*filter(None, map(shutil.which, NAMES)), *(p for p in MAC if Path(p).exists())]
    if not found:
        linux = sys.platform.startswith("linux")
        say = "apt-get install chromium" if linux else "brew install --cask chromium"
        stop = pytest.fail if os.environ.get("CI") and linux else pytest.skip
        stop(f"no Chromium or Chrome to test the site with; install one: {say}")
    return found[0]


def test_missing_browser_fails_in_ci_and_is_skipped_elsewhere(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys.modules[__name__], "MAC", [])
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        system_browser()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        system_browser()


@pytest.fixture(scope="module")
def browser():
    path = system_browser()
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        found.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def serve(folder: Path):
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def made():
    "Address of the course that is made for the tests."
    yield from serve(course.site())


@pytest.fixture(scope="module")
def real():
    "Address of the course itself, built from the committed notebooks."
    yield from serve(build_site.build(lessons.ROOT / "nbs", lessons.ROOT / "_site"))


class Visit:
    "Opens pages and remembers what they should not do."

    def __init__(self, browser: Browser):
        self.browser, self.faults, self.contexts = browser, [], []

    def page(self, address: str, viewport=WIDE, scheme="light") -> Page:
        context = self.browser.new_context(viewport=viewport, color_scheme=scheme)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", self.heard)
        page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        page.on("request", lambda r: self.asked(r.url))
        page.on("response", lambda r: r.status >= 400 and self.faults.append(f"{r.status} {r.url}"))
        page.goto(address)
        return page

    def heard(self, message) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.faults.append(f"console: {message.text}")

    def asked(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.faults.append(f"request to another host: {url}")

    def close(self) -> None:
        for context in self.contexts:
            context.close()


@pytest.fixture
def visit(browser):
    visit = Visit(browser)
    yield visit
    visit.close()
    assert not visit.faults, visit.faults


# ------------------------------------------------------------------------------ what is looked at
WIDGET_ERROR = "Error displaying widget|Error creating widget|[Ff]ailed to load|model not found"
SETTLED = """() => document.readyState === 'complete'
  && [...document.querySelectorAll('.math')].every(m => m.querySelector('.katex'))
  && document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]').length
     <= document.querySelectorAll('.widget-subarea').length"""


def settled(page: Page) -> Page:
    "Wait until maths and widgets are drawn; the player of widgets comes when one is near."
    first = "document.querySelector(\"script[type='application/vnd.jupyter.widget-view+json']\")"
    page.evaluate(f"{first}?.parentElement.scrollIntoView()")
    page.wait_for_function(SETTLED)
    page.evaluate("window.scrollTo(0, 0)")
    return page


def picture(slider) -> str:
    "Source of the picture that stands with a slider."
    box = slider.locator("xpath=ancestor::*[contains(@class, 'widget-vbox')][1]")
    return box.locator("img:visible").first.get_attribute("src")


def serious(page: Page, skip: str = "") -> list[str]:
    "What axe calls serious or critical; `skip` is a selector of what it does not look at."
    options = {
        "resultTypes": ["violations"],
        "preload": False,
    }  # it would look for style sheets elsewhere
    context = {"exclude": [skip]} if skip else None
    found = Axe().run(page, context=context, options=options).response["violations"]
    bad = [v for v in found if v["impact"] in ("serious", "critical")]
    return [f"{v['id']}: {v['help']}: {v['nodes'][0]['html'][:200]}" for v in bad]


def dark(page: Page) -> Page:
    "The same page once the system has gone dark."
    page.add_style_tag(content="* { transition: none !important }")  # no colour half way
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    return page


def too_wide(page: Page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


# ------------------------------------------------------------------------------ the made course
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


def no_script(visit, address: str, viewport=WIDE) -> Page:
    context = visit.browser.new_context(viewport=viewport, java_script_enabled=False)
    visit.contexts.append(context)
    page = context.new_page()
    page.goto(address)
    return page


@pytest.mark.parametrize("script", [True, False])
def test_claim_leads_to_its_proof_which_opens(made, visit, script):
    address = f"{made}/claims.html"
    page = visit.page(address) if script else no_script(visit, address)
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
    assert not serious(dark(page))


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
    page = no_script(visit, f"{made}/glossary.html", PHONE)
    expect(page.locator("ul.terms > li:visible")).to_have_count(2)
    expect(page.locator(".filter-box input")).to_have_count(0)


@pytest.mark.parametrize("name", ["glossary", "claims", "library", "library/datasets"])
def test_pages_to_look_up_are_accessible_in_both_colours(made, visit, name):
    page = settled(visit.page(f"{made}/{name}.html"))
    assert not serious(page)
    assert not serious(dark(page))
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
    assert not serious(dark(page))


# ------------------------------------------------------------------------------ every real page
NOTEBOOKS = build_site.pages_in(lessons.ROOT / "nbs")
LIBRARY = {lessons.module_of(lessons.read(p)) for p in NOTEBOOKS if lessons.is_library(p)}
PAGES = [
    *map(build_site.page_of, NOTEBOOKS),
    "claims",
    "glossary",
    "data",
    "docs/teaching",
    "search",
    "404",
]
PAGES += ["library", *(group.page for group in library_groups.groups())]
PAGES += [f"api/{m}" for m in build_site.api_pages.package() if m not in LIBRARY]


@pytest.mark.parametrize("name", PAGES)
def test_real_page(real, visit, name):
    page = settled(visit.page(f"{real}/{name}.html", PHONE))
    assert too_wide(page) <= 0
    assert page.get_by_text(re.compile(WIDGET_ERROR)).count() == 0
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.outerHTML)"
    assert page.evaluate(broken) == []
    page.set_viewport_size(WIDE)
    code = "pre, .math"  # thousands of elements, seen on the made course
    assert not serious(page, skip=code)
    assert not serious(dark(page), skip=code)


@pytest.mark.parametrize("name", [p for p in PAGES if p[0].isdigit()])
def test_real_sliders_change_their_picture(real, visit, name):
    page = settled(visit.page(f"{real}/{name}.html"))
    for slider in page.get_by_role("slider").all():
        before, last = picture(slider), slider.get_attribute("aria-valuemax")
        slider.press("ArrowLeft" if slider.get_attribute("aria-valuenow") == last else "ArrowRight")
        assert picture(slider) != before, slider.get_attribute("aria-label")


HEAVIEST = {"index": 1.0e6}
USUAL = 2.5e6


@pytest.mark.parametrize("name", [p for p in PAGES if p[0].isdigit() or p == "index"])
def test_real_page_is_light(real, visit, name):
    page = visit.page(f"{real}/{name}.html")
    page.wait_for_load_state("networkidle")
    weighed = "performance.getEntriesByType('resource').reduce((n, e) => n + e.decodedBodySize, 0)"
    own = len(page.content().encode())
    assert page.evaluate(weighed) + own <= HEAVIEST.get(name, USUAL)


def test_real_search(real, visit):
    page = visit.page(f"{real}/search.html?q=untar_data")
    expect(page.locator("#search-results a").first).to_be_visible()
    ask = "w => Search._performSearch(...Search._parseQuery(w)).at(-1).slice(0, 3)"
    first = {word: page.evaluate(ask, word) for word, _ in WORDS}
    assert not {w: first[w] for w, lesson in WORDS if not first[w][0].startswith(lesson)}
    assert all(place.startswith("#box-") for _, _, place in first.values())


def test_real_search_leads_to_the_box(real, visit):
    page = visit.page(f"{real}/search.html?q=convolution")
    page.locator("#search-results a").first.click()
    expect(page.locator("blockquote.term", has_text="convolution.").first).to_be_in_viewport()
