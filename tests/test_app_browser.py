"""The app and the cleaner in headless Chromium, through Voila and in JupyterLab.

A notebook is written for the test; its model knows red pictures from blue ones, by hand-set weights.
Requests to any other host are blocked: the page has to do without them.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from in_browser import FLAGS, PHONE, WIDE, system_browser
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

CELL = """
import torch
from PIL import Image
from torch import nn
from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.data import IndexSplitter, get_image_files
from coursekit.data import parent_label
from coursekit.learner import Learner
from coursekit.app import classifier_app
from coursekit.widgets import ImageClassifierCleaner
from pathlib import Path

for name, colour in (("blue", (20, 20, 220)), ("red", (220, 20, 20))):
    for i in range(8):
        file = Path("pictures") / name / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), colour).save(file)
sides = IndexSplitter([0, 1, 8, 9])
block = DataBlock((ImageBlock, CategoryBlock), get_image_files, sides, get_y=parent_label)
learn = Learner(block.dataloaders("pictures", bs=4, num_workers=0), nn.Sequential(
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)))
with torch.no_grad():
    learn.model[-1].weight.copy_(torch.tensor([[-4.0, 0, 4], [4, 0, -4]]))
    learn.model[-1].bias.zero_()
"""
APP = """
from time import sleep
from coursekit import app as _app
_classify = _app.classify_upload
def _slowly(learn, data, name, *more):
    if name.startswith("slow"): sleep(3)
    return _classify(learn, data, name, *more)
_app.classify_upload = _slowly
classifier_app(learn, title='Red or blue?')
"""
CLEANER = "ImageClassifierCleaner(learn, max_n=4)"  # in the same notebook: one kernel to wait for


def picture(colour, form="png", size=(60, 40), **kwargs) -> bytes:
    Image.new("RGB", size, colour).save(data := BytesIO(), form, **kwargs)
    return data.getvalue()


def upright(colour) -> bytes:
    "A picture that the camera wants turned."
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(colour, "jpeg", exif=exif)


FILES = {
    "slow.png": picture((20, 20, 220)),
    "red.jpg": picture((220, 20, 20), "jpeg"),
    "blue.png": picture((20, 20, 220)),
    "purple.png": picture((120, 20, 120)),
    "turned.jpg": upright((220, 20, 20)),
    "letter.jpg": b"Dear model, what do you see?",
    "half.jpg": picture((220, 20, 20), "jpeg", size=(600, 400))[:-700],
    "empty.jpg": b"",
    "<b>bold.jpg": b"",
}


# --------------------------------------------------------------------------------------- the server
def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def write(folder: Path, name: str, *cells: str) -> None:
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nb.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(nb, folder / name)


def serving(folder: Path, *command: str):
    "Address of a server that was started for this test alone; its processes are ended afterwards."
    port, home = free_port(), folder / "home"
    own = {f"JUPYTER_{what}_DIR": str(home / what) for what in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"HOME": str(home), "IPYTHONDIR": str(home / "ipython"), "OMP_NUM_THREADS": "1"}
    own |= {"COURSEKIT_DATA": str(home / "cache"), "JUPYTER_NO_CONFIG": "1"}
    own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", *command, f"--port={port}"],
        cwd=folder,
        env=os.environ | own,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/static/", process, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        log.close()


def wait_for(address: str, process, log: Path, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=2)
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"no server at {address}: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def chromium():
    path = system_browser()
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    write(folder, "app.ipynb", CELL, APP, CLEANER)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def voila(folder, chromium):
    options = ["--no-browser", "--Voila.ip=127.0.0.1", "--show_tracebacks=True"]
    yield from serving(folder, "voila", ".", *options)


def opened(chromium, address: str, viewport=WIDE, scheme="light") -> Page:
    "A page that reaches this machine alone."
    context = chromium.new_context(viewport=viewport, color_scheme=scheme)
    context.route(re.compile(r"^(?!http://127\.0\.0\.1:)"), lambda route: route.abort())
    page = context.new_page()
    page.exceptions = []
    page.on("pageerror", lambda error: page.exceptions.append(str(error)))
    page.on("filechooser", lambda chooser: None)  # watched from now on: a key outruns a later watch
    page.goto(address, wait_until="commit")
    return page


@pytest.fixture(scope="module")
def app(voila, chromium):
    page = opened(chromium, f"{voila}/voila/render/app.ipynb")
    expect(page.get_by_text("This model knows: blue, red.")).to_be_visible(timeout=120_000)
    yield page
    page.context.close()


def upload(page: Page, folder: Path, *names: str) -> None:
    "As a hand does it. The file input is not in the page, it belongs to the button."
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose pictures").click()
    chooser.value.set_files([folder / name for name in names])


def answer(page: Page, name: str) -> str:
    "What the page says about a file, once it says it."
    box = page.locator(".widget-html-content div", has=page.get_by_text(name, exact=True))
    words = box.get_by_role("status").first
    expect(words).to_be_visible(timeout=20_000)
    return words.inner_text()


# ---------------------------------------------------------------------------------------- the app
def test_upload_is_answered(app, folder):
    upload(app, folder, "red.jpg")
    assert answer(app, "red.jpg") == "It is: red, above 99%."
    expect(app.get_by_alt_text("The picture red.jpg")).to_be_visible()
    rows = app.get_by_role("row").all_inner_texts()
    assert [row.split() for row in rows] == [["blue", "0.2%"], ["red", "99.8%"]]


def test_while_a_new_file_is_read_the_old_answer_is_gone(app, folder):
    upload(app, folder, "red.jpg")
    answer(app, "red.jpg")
    upload(app, folder, "slow.png")
    expect(app.get_by_text("Looking at 1 file ...")).to_be_visible(timeout=2_500)
    expect(app.get_by_alt_text("The picture red.jpg")).to_have_count(0)
    assert answer(app, "slow.png") == "It is: blue, above 99%."


def test_next_upload_replaces_it_also_by_keyboard(app, folder):
    app.get_by_role("button", name="Choose pictures").focus()
    with app.expect_file_chooser() as chooser:
        app.keyboard.press("Enter")
    chooser.value.set_files([folder / "purple.png"])
    assert answer(app, "purple.png").startswith("I don't know. My best guess is ")
    expect(app.get_by_alt_text("The picture red.jpg")).to_have_count(0)


def test_same_file_can_be_sent_again(app, folder):
    for name in ("blue.png", "red.jpg", "blue.png"):
        upload(app, folder, name)
        assert answer(app, name) == f"It is: {name.split('.')[0]}, above 99%."


def test_turned_picture_stands_upright(app, folder):
    upload(app, folder, "turned.jpg")
    answer(app, "turned.jpg")
    size = "e => [e.naturalWidth, e.naturalHeight]"
    assert app.get_by_alt_text("The picture turned.jpg").evaluate(size) == [40, 60]


def test_bad_uploads_are_answered_in_words(app, folder):
    upload(app, folder, "letter.jpg", "half.jpg", "empty.jpg", "blue.png", "<b>bold.jpg")
    assert "is text, not a picture" in answer(app, "letter.jpg")
    assert "is damaged" in answer(app, "half.jpg")
    assert "is empty" in answer(app, "empty.jpg")
    assert "is empty" in answer(app, "<b>bold.jpg")
    assert answer(app, "blue.png") == "It is: blue, above 99%."
    expect(app.get_by_text("Traceback")).to_have_count(0)
    assert app.exceptions == []


def test_after_a_message_that_the_server_dropped(app, folder):
    "Tornado takes 10 MB; its answer to more is to close the connection."
    (folder / "large.jpg").write_bytes(bytes(11_000_000))
    with app.expect_event("websocket", timeout=20_000):  # the page connects anew
        upload(app, folder, "large.jpg")
    app.get_by_role("button", name="No answer?").click()
    expect(app.get_by_text("Were the files larger than 9 MB")).to_be_visible(timeout=20_000)
    upload(app, folder, "red.jpg")
    assert answer(app, "red.jpg") == "It is: red, above 99%."


def serious(page: Page, inside: str) -> list[str]:
    options = {"resultTypes": ["violations"], "preload": False}
    found = Axe().run(page, context={"include": [inside]}, options=options).response["violations"]
    bad = [v for v in found if v["impact"] in ("serious", "critical")]
    return [f"{v['id']}: {v['help']}: {v['nodes'][0]['html'][:300]}" for v in bad]


def test_app_and_cleaner_can_be_read_by_all(app, folder):
    app.set_viewport_size(PHONE)
    upload(app, folder, "red.jpg", "purple.png")
    answer(app, "purple.png")
    assert app.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert serious(app, ".widget-vbox") == []
    app.set_viewport_size(WIDE)


def test_app_can_be_read_in_the_dark(voila, chromium, folder):
    page = opened(chromium, f"{voila}/voila/render/app.ipynb?theme=dark", PHONE, "dark")
    expect(page.get_by_text("This model knows: blue, red.")).to_be_visible(timeout=120_000)
    upload(page, folder, "red.jpg", "half.jpg")
    answer(page, "half.jpg")
    paper = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    assert max(page.evaluate(paper)) < 60
    assert serious(page, ".widget-vbox") == []
    page.context.close()


# ------------------------------------------------------------------------------------ the cleaner
def test_cleaner_by_keyboard(app):
    page = app
    menus = page.get_by_role("combobox", name=re.compile(r"^\d\.png$"))
    pictures = page.get_by_alt_text(", labelled ")
    expect(menus).to_have_count(4)
    menus.first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_text("1 file to delete, 0 to give another label")).to_be_visible()
    name = pictures.first.get_attribute("alt")
    page.get_by_role("combobox", name="Class").select_option("red (6)")
    expect(pictures.first).not_to_have_attribute("alt", name)
    menus.nth(1).select_option("blue")
    expect(page.get_by_text("1 file to delete, 1 to give another label")).to_be_visible()
    page.get_by_role("button", name="Next page").click()
    expect(page.get_by_text("5 to 6 of 6")).to_be_visible()
    page.get_by_role("combobox", name="Class").select_option(index=0)
    expect(pictures.first).to_have_attribute("alt", name)
    expect(menus.first).to_have_value("Delete")
    assert page.exceptions == []


# -------------------------------------------------------------------------- a page of one's own
OPEN = """
import sys
from coursekit.app import open_app
sys.exit(open_app(sys.argv[1], port=int(sys.argv[2]), browser=False))
"""

WATCH = """() => {
  const box = document.querySelector(".coursekit-answers"); window.said = []
  new MutationObserver(() => window.said.push(box.innerText.trim()))
    .observe(box, {childList: true, subtree: true, characterData: true})
}"""


def test_exported_model_opens_as_a_page_that_asks_no_other_host(chromium, tmp_path):
    "The steps of lesson 07: export, a notebook beside it, the page."
    making = (
        CELL
        + """
from coursekit.exporting import load_learner  # noqa: F401, learners get export from it
from coursekit.app import write_app
write_app(learn.export(Path.cwd() / "red_or_blue.safetensors"), "Red or blue, really?")
"""
    )
    subprocess.run([sys.executable, "-c", making], cwd=tmp_path, check=True, timeout=120)
    (tmp_path / "red.jpg").write_bytes(FILES["red.jpg"])
    port, log = free_port(), (tmp_path / "server.log").open("w")
    command = [sys.executable, "-c", OPEN, str(tmp_path / "app.ipynb"), str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/static/", process, tmp_path / "server.log")
        asked = []
        page = chromium.new_context().new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
        expect(page.get_by_text("This model knows: blue, red.")).to_be_visible(timeout=120_000)
        assert page.title() == "Red or blue, really?"
        upload(page, tmp_path, "red.jpg")
        assert answer(page, "red.jpg") == "It is: red, above 99%."
        page.evaluate(WATCH)
        (tmp_path / "large.jpg").write_bytes(b"no picture" * 800_000)
        upload(page, tmp_path, "large.jpg")
        assert "not a picture" in answer(page, "large.jpg")
        said = page.evaluate("window.said")  # the old answer goes before the file has arrived
        assert next(words for words in said if words) == "Sending ..."
        assert [url for url in asked if "//127.0.0.1:" not in url and url[:5] != "data:"] == []
        page.context.close()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
        log.close()
