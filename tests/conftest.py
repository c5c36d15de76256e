"""Fixtures: a local server with bad habits, a cache of its own for each test, a browser.

And what is said meanwhile: a failure at once, and at the end which files took longest. Those begin first, so that
two workers end at about the same time.
"""

import os
import re
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # side by side, each has one core; torch reads this once
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# In this order, so that no long file is left for the end; the others follow by name.
LONGEST = """site_pages drawn_bears training exporting run site site_browser app_browser multilabel vision
learner weights recipes""".split()


def pytest_collection_modifyitems(items):
    places = {f"test_{name}.py": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # of several processes the one that reports
        config.pluginmanager.register(Said())


class Said:
    "What stands on the screen besides dots."

    def __init__(self):
        self.seconds = Counter()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid.partition("::")[0]] += report.duration
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = f": {crash.message.splitlines()[0][:150]}" if crash and crash.message else ""
            self.screen.write_line(f"\nFAILED {report.nodeid} ({report.when}){why}", red=True)

    def pytest_sessionstart(self, session):
        self.screen = session.config.pluginmanager.get_plugin("terminalreporter")

    def pytest_terminal_summary(self):
        if len(self.seconds) > 1:
            self.screen.section("longest files")
            for file, seconds in self.seconds.most_common(12):
                self.screen.write_line(f"{seconds:6.1f} s  {file}")


class HostileHandler(BaseHTTPRequestHandler):
    """Serves `server.files` (path -> bytes); the first part of a path names the bad habit."""

    protocol_version = "HTTP/1.0"  # one request a connection: its end is the end of the body

    def log_message(self, *args):
        pass

    def reply(self, status, body=b"", promised=None, **headers):
        self.send_response(status)
        if promised != "nothing":
            self.send_header("Content-Length", str(len(body) if promised is None else promised))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        for at in range(0, len(body), 20_000):
            self.wfile.write(body[at : at + 20_000])
            if self.server.pause:
                time.sleep(self.server.pause)

    def do_GET(self):
        self.server.seen[self.path] += 1
        count = self.server.seen[self.path]
        self.server.requests.append((self.path, dict(self.headers)))
        habit, _, name = self.path.strip("/").partition("/")
        body = self.server.files.get(name.split("?")[0])
        if habit == "loop":
            return self.reply(302, Location=self.path)
        if body is None:
            return self.reply(404, b"<html>not here</html>")
        getattr(self, f"do_{habit}")(body, count, name)

    def do_good(self, body, count, name):
        self.reply(200, body)

    def do_ranges(self, body, count, name, tag='"1"', upto=None):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not asked or self.headers.get("If-Range") != tag:
            return self.reply(200, body[:upto], len(body), ETag=tag)
        start = int(asked[1])
        if start >= len(body):
            return self.reply(416, ETag=tag)
        where = f"bytes {start}-{len(body) - 1}/{len(body)}"
        rest = body[start : start + upto] if upto else body[start:]
        self.reply(206, rest, len(body) - start, ETag=tag, Content_Range=where)

    def do_breaks(self, body, count, name):
        self.do_ranges(body, count, name, upto=len(body) // 3 + 1)

    def do_ignores(self, body, count, name):
        upto = len(body) // 2 if count == 1 else None
        self.reply(200, body[:upto], len(body), ETag='"1"')

    def do_changes(self, body, count, name):
        "The first version breaks off; from then on there is another version."
        if count == 1:
            return self.reply(200, b"x" * (len(body) // 2), len(body), ETag='"old"')
        self.do_ranges(body, count, name, tag='"new"')

    def do_misplaces(self, body, count, name):
        "Answers 206 with a part that was not asked for."
        if "Range" not in self.headers:
            upto = len(body) // 2 if count == 1 else None
            return self.reply(200, body[:upto], len(body), ETag='"1"')
        self.reply(206, body[3:], ETag='"1"', Content_Range=f"bytes 3-{len(body) - 1}/{len(body)}")

    def do_truncates(self, body, count, name):
        self.reply(200, body[: len(body) // 2], len(body))

    def do_understates(self, body, count, name):
        self.reply(200, body, len(body) // 2)

    def do_silent(self, body, count, name):
        "No Content-Length at all."
        self.reply(200, body, "nothing")

    def do_endless(self, body, count, name):
        self.reply(200, body * 50, "nothing")

    def do_stalls(self, body, count, name):
        self.reply(200, body[:10], len(body))
        self.server.over.wait(20)

    def do_trickles(self, body, count, name):
        self.reply(200, body[:10], len(body))
        for byte in body[10:]:
            self.wfile.write(bytes([byte]))
            if self.server.over.wait(0.05):
                return

    def do_busy(self, body, count, name):
        if count < 4:
            return self.reply(503, Retry_After="0")
        self.reply(200, body)

    def do_page(self, body, count, name):
        self.reply(200, b"<!DOCTYPE html><title>Log in</title>")

    def do_moved(self, body, count, name):
        self.reply(302, Location=f"/good/{name}")


class HostileServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HostileHandler)
        self.files, self.seen, self.requests, self.pause = {}, Counter(), [], 0.0
        self.over = threading.Event()

    def handle_error(self, request, client_address):
        "A client that hangs up is what these tests are about."

    def url(self, habit, name):
        return f"http://127.0.0.1:{self.server_port}/{habit}/{name}"


@pytest.fixture
def server():
    server = HostileServer()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    "An empty cache and no mirror, for this process and those that it starts."
    monkeypatch.setenv("COURSEKIT_DATA", str(tmp_path / "cache"))
    monkeypatch.delenv("COURSEKIT_MIRROR", raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def browser():
    from in_browser import launched

    yield from launched()


@pytest.fixture
def visit(browser):
    "Opens pages; what a page should not do fails the test that met it."
    from in_browser import Visit

    visit = Visit(browser)
    yield visit
    visit.close()
    assert not visit.faults, visit.faults


def _without_signature(thing) -> None:
    "A signature with a default of Sphinx's own goes; one that a function was given (a metric's) stays."
    for owner in (thing, *(vars(thing).values() if isinstance(thing, type) else ())):
        owner = getattr(owner, "__func__", owner)
        known = getattr(owner, "__dict__", {}).get("__signature__")
        if known is not None and not isinstance(owner, type):
            kinds = [type(p.default).__module__ for p in known.parameters.values()]
            if any(kind.startswith("sphinx.") for kind in kinds):
                del owner.__signature__


@pytest.fixture(scope="module", autouse=True)
def signatures_as_they_were():
    "The site's builder leaves its own form of default values on functions of this process."
    yield
    if "sphinx" in sys.modules:
        for name, module in list(sys.modules.items()):
            if name.startswith("coursekit."):
                for thing in list(vars(module).values()):
                    _without_signature(thing)
