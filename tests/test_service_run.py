"The service as a process of its own: slow and half requests, signals, a worker that is killed."

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from test_service import exported  # noqa: F401  (a fixture)

pytest.importorskip("uvicorn")

START = """
import json, sys
from coursekit import service_run
service_run.HEADER_SECONDS = 1.0
if __name__ == "__main__":
    from coursekit.service import ServiceConfig
    rules, port, workers = json.loads(sys.argv[1])
    service_run.serve(ServiceConfig(**rules), port=port, workers=workers)
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def running(tmp_path, model, workers=1, **rules):
    script, port = tmp_path / "start.py", free_port()
    script.write_text(START)
    rules = {"model": str(model), "runtime": "torch", "receive": 2.0, **rules}
    log = (tmp_path / "log").open("w")
    asked = [sys.executable, script, json.dumps([rules, port, workers])]
    process = subprocess.Popen(asked, stdout=log, stderr=log)
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
        yield process, port
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        log.close()


def post(port, data):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", data)
    request.add_header("Content-Type", "image/png")
    try:
        with urllib.request.urlopen(request, timeout=60) as said:
            return said.status, json.load(said)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def what_comes(port, sent, seconds=20):
    "Send these bytes, and nothing more; what comes until the connection ends."
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as one:
        one.sendall(sent)
        pieces = []
        while piece := one.recv(4096):
            pieces.append(piece)
        return b"".join(pieces)


def test_slow_and_half_requests_end(tmp_path, exported):  # noqa: F811
    data = exported[2].read_bytes()
    with running(tmp_path, exported[1]) as (_, port):
        started = time.monotonic()
        assert what_comes(port, b"") == b""  # says nothing at all
        assert what_comes(port, b"POST /predict HTTP/1.1\r\nHost: a\r\nX-Slow: ") == b""
        half = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
        half += b"Content-Length: 100000\r\n\r\n" + data[:500]
        said = what_comes(port, half)
        assert b" 408 " in said.splitlines()[0] and b"did not arrive" in said
        # a later request of a connection has no more time than the first, a byte at a time
        with socket.create_connection(("127.0.0.1", port), timeout=20) as one:
            one.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert one.recv(4096).startswith(b"HTTP/1.1 200")
            with pytest.raises(OSError):
                for _ in range(30):
                    one.sendall(b"G")
                    time.sleep(0.2)
        assert time.monotonic() - started < 20
        assert b" 400 " in what_comes(port, b"nonsense\r\n\r\n").splitlines()[0]
        many = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 60_000
        with suppress(ConnectionError):  # it may be cut off while it still sends
            assert b" 4" in what_comes(port, many).splitlines()[0]
        assert post(port, data)[0] == 200


def test_a_signal_loses_nothing_that_was_accepted(tmp_path, exported):  # noqa: F811
    data = exported[2].read_bytes()
    with running(tmp_path, exported[1], threads=1, places=100, batch=64, deadline=1.5) as (
        process,
        port,
    ):
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(post, port, data) for _ in range(12)]
            time.sleep(0.7)  # all are in, and wait for company
            process.send_signal(signal.SIGTERM)
            assert [each.result()[0] for each in asked] == [200] * 12
        assert process.wait(20) in (0, -signal.SIGTERM)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=2)


def test_a_killed_worker_is_replaced(tmp_path, exported):  # noqa: F811
    data = exported[2].read_bytes()
    with running(tmp_path, exported[1], workers=2) as (process, port):
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        if not os.path.exists(children):  # noqa: PTH110
            pytest.skip("the children of a process are read from /proc")

        def workers():
            with open(children, encoding="utf-8") as file:  # noqa: PTH123
                pids = [int(pid) for pid in file.read().split()]
            named = [pid for pid in pids if b"spawn_main" in command(pid)]
            return set(named)

        def command(pid):
            with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
                return file.read()

        started = tmp_path / "log"
        while started.read_text().count("Application startup complete") < 2:
            assert process.poll() is None
            time.sleep(0.2)
        before = workers()
        assert len(before) == 2
        os.kill(min(before), signal.SIGKILL)
        codes, until = [], time.monotonic() + 90
        while time.monotonic() < until and (len(now := workers()) < 2 or now == before):
            try:
                status, said = post(port, data)
            except OSError:
                continue  # the connection of the one that was killed
            codes.append(status)
            assert status in (200, 429, 503) and (status != 200 or said["label"] == "red")
        assert len(workers()) == 2 and workers() != before and 200 in codes
        assert post(port, data)[1]["label"] == "red"
