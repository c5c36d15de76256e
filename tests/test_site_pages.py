"""Every page of the real site in headless Chromium, opened once; the site is built from the committed notebooks.

A page is too wide for a telephone, heavy, or broken by what stands on it, so each page is looked at for
that. Colours and names come with a kind of element. axe looks at every page of a kind of its own, and at so
many of the lessons and of the pages of the library and the API that each kind of element is among them.
"""

import re
from pathlib import Path

import pytest
from in_browser import (
    COLOURS,
    PHONE,
    WIDE,
    dark,
    serious,
    serve,
    settled,
    sliders_that_do_nothing,
    too_wide,
)
from page_kinds import chosen, dead_ends, read_site
from playwright.sync_api import expect
from test_search import WORDS

import api_pages
import build_site
import lessons
import library_groups


def is_lesson(name: str) -> bool:
    return name[:2].isdigit() and name != "404"


NOTEBOOKS = build_site.pages_in(lessons.ROOT / "nbs")
LIBRARY = {lessons.module_of(lessons.read(p)) for p in NOTEBOOKS if lessons.is_library(p)}
OWN = ["claims", "glossary", "data", "docs/teaching", "search", "404", "library"]
PAGES = [*map(build_site.page_of, NOTEBOOKS), *OWN]
PAGES += [group.page for group in library_groups.groups()]
PAGES += [f"api/{m}" for m in api_pages.package() if m not in LIBRARY]
MANY = [p for p in PAGES if ("/" in p and p not in OWN) or is_lesson(p)]  # of each kind a few do
FIRST = {"/" in p and p.split("/")[0]: p for p in reversed(MANY)}.values()
SLIDERS = (
    "01_mnist_from_scratch"  # made by a script, so that no kind in the page's text tells of them
)
ALWAYS = [p for p in PAGES if p not in MANY or p in FIRST or p == SLIDERS]

CODE = "pre, .math"  # thousands of elements, seen on the made course
WIDGET_ERROR = "Error displaying widget|Error creating widget|[Ff]ailed to load|model not found"
BROKEN = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.outerHTML)"
WEIGHED = "performance.getEntriesByType('resource').reduce((n, e) => n + e.decodedBodySize, 0)"
HEAVIEST = {"index": 1.0e6}
USUAL = 2.5e6


@pytest.fixture(scope="module")
def built() -> Path:
    return build_site.build(lessons.ROOT / "nbs", lessons.ROOT / "_site")


@pytest.fixture(scope="module")
def real(built):
    "Address of the course itself."
    yield from serve(built)


@pytest.fixture(scope="module")
def window(browser):
    "One for all pages: what they share is fetched once."
    found = browser.new_context(viewport=WIDE)
    yield found
    found.close()


@pytest.fixture(scope="module")
def read(built):
    return read_site(built)


@pytest.fixture(scope="module")
def by_axe(built, read) -> set[str]:
    "The pages that axe looks at."
    return chosen({name: read[built / f"{name}.html"].kinds for name in PAGES}, ALWAYS)


@pytest.mark.parametrize("name", PAGES)
def test_real_page(real, visit, window, by_axe, name):
    page = visit.tab(window, f"{real}/{name}.html")
    if is_lesson(name) or name == "index":
        page.wait_for_load_state("networkidle")
        own = len(page.content().encode())
        assert page.evaluate(WEIGHED) + own <= HEAVIEST.get(name, USUAL)
    settled(page)
    assert page.get_by_text(re.compile(WIDGET_ERROR)).count() == 0
    if is_lesson(name):
        assert sliders_that_do_nothing(page) == []
    if name in by_axe:
        assert not serious(page, skip=CODE)
        assert not serious(dark(page), skip=CODE, only=COLOURS)
    page.set_viewport_size(PHONE)
    assert too_wide(page) <= 0
    assert page.evaluate(BROKEN) == []


def test_every_link_and_picture_leads_somewhere(read):
    assert dead_ends(read) == []


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
