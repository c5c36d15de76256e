"""Headless Chromium for tests: a server of a folder, visits that note faults, and what is looked at.

Any request to another host, any error in the console and any exception on a page is a fault.
"""

import functools
import http.server
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

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


def launched() -> Iterator[Browser]:
    path = system_browser()
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        found.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def serve(folder: Path) -> Iterator[str]:
    "Address of the files in `folder`."
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Visit:
    "Opens pages and remembers what they should not do."

    def __init__(self, browser: Browser):
        self.browser, self.faults, self.opened = browser, [], []

    def page(self, address: str, viewport=WIDE, scheme="light", script=True) -> Page:
        "A page in a window of its own."
        context = self.browser.new_context(
            viewport=viewport, color_scheme=scheme, java_script_enabled=script
        )
        self.opened.append(context)
        return self.open(context.new_page(), address)

    def tab(self, context: BrowserContext, address: str) -> Page:
        "A page in a window that has what other pages fetched."
        page = context.new_page()
        self.opened.append(page)
        return self.open(page, address)

    def open(self, page: Page, address: str) -> Page:
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
        for each in self.opened:
            each.close()


# ------------------------------------------------------------------------------ what is looked at
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


def sliders_that_do_nothing(page: Page) -> list[str]:
    found = []
    for slider in page.get_by_role("slider").all():
        before, last = picture(slider), slider.get_attribute("aria-valuemax")
        slider.press("ArrowLeft" if slider.get_attribute("aria-valuenow") == last else "ArrowRight")
        if picture(slider) == before:
            found.append(slider.get_attribute("aria-label"))
    return found


COLOURS = ("color-contrast", "link-in-text-block")  # the rules that another colour can break


def serious(page: Page, skip: str = "", only: tuple[str, ...] = ()) -> list[str]:
    "What axe calls serious or critical; `skip` is a selector of what it does not look at."
    options = {"resultTypes": ["violations"], "preload": False}  # no style sheets from elsewhere
    if only:
        options["runOnly"] = {"type": "rule", "values": list(only)}
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
