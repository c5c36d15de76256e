"""Race the service against the obvious one, and see how it bears a crowd: 1, 10 and 50 clients on the same machine.

    COURSEKIT_FASTAI=/path/to/python python bench/service.py     # a Python that has fastai 2, fastapi, uvicorn
    python bench/service.py --seconds 60 --clients 50

Both sides serve the same ResNet-18 with the same weights, made for pictures of 224 x 224, and are sent the same
photograph of a telephone's size. The obvious service is what most people write first: FastAPI, `load_learner`, and
`learn.predict` in the function that answers. Only one side is asked at a time, and they take turns. A client that is
told 429 waits as long as `Retry-After` says, and asks again; that is counted. What counts is answers with status 200 a
second, and the time from the request to the answer of those. Without `COURSEKIT_FASTAI` only our own side runs. The
race card has the same race with ten clients.
"""

import argparse
import asyncio
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from helper import Failed, in_turns, proc_value, ratios, spread
from predict import exported

OURS = """
import sys
from coursekit.service_run import serve
if __name__ == "__main__":
    from coursekit.service import ServiceConfig
    serve(ServiceConfig(sys.argv[1], runtime=sys.argv[3]), port=int(sys.argv[2]))
"""
OBVIOUS = """
import sys
import uvicorn
from fastai.vision.all import PILImage, load_learner
from fastapi import FastAPI, File
learn, app = load_learner(sys.argv[1]), FastAPI()

@app.post("/predict")
async def predict(file: bytes = File()):
    with learn.no_bar():
        label, _, probabilities = learn.predict(PILImage.create(file))
    return {"label": label, "probabilities": dict(zip(learn.dls.vocab, probabilities.tolist()))}

@app.get("/health")
def health(): return {}

uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""
MEASURES = ("rate", "p50", "p95", "p99", "peak")
SERVICES = {"coursekit": (OURS, 8741), "fastai": (OBVIOUS, 8742)}


# ---------------------------------------------------------------- the services
@contextmanager
def service(python: str, script: str, folder: Path, model: str, port: int, *more: str):
    file = folder / f"{port}.py"
    file.write_text(script)
    with (folder / f"{port}.log").open("w") as log:
        command = [python, "-W", "ignore", file, folder / model, str(port), *more]
        process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log)
        try:
            asyncio.run(until_ready(process, port, folder / f"{port}.log"))
            yield process
        finally:
            process.terminate()
            process.wait(60)


async def until_ready(process, port: int, log: Path) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            raise SystemExit(f"the service on port {port} has ended:\n{log.read_text()[-2000:]}")
        try:
            (await asyncio.open_connection("127.0.0.1", port))[1].close()
            return
        except OSError:
            await asyncio.sleep(0.1)
    raise SystemExit(f"the service on port {port} did not start")


# ---------------------------------------------------------------- the crowd
def as_form(picture: bytes) -> bytes:
    edge = b"----a-boundary"
    head = b'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
    body = b"--" + edge + b"\r\n" + head + b"Content-Type: image/jpeg\r\n\r\n" + picture
    body += b"\r\n--" + edge + b"--\r\n"
    lines = [b"POST /predict HTTP/1.1", b"Host: bench", b"Content-Length: %d" % len(body)]
    lines += [b"Content-Type: multipart/form-data; boundary=" + edge, b"", b""]
    return b"\r\n".join(lines) + body


async def one_answer(reader, writer, request: bytes) -> tuple[int, dict, bytes]:
    writer.write(request)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split()[1]), headers, body


async def client(port: int, request: bytes, until: float, codes: Counter, took: list) -> None:
    reader = writer = None
    while time.monotonic() < until:
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        start = time.monotonic()
        try:
            status, headers, _ = await asyncio.wait_for(one_answer(reader, writer, request), 60)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            codes["connection"] += 1
            writer.close()
            writer = None
            continue
        codes[status] += 1
        if status == 200:
            took.append(time.monotonic() - start)
        if status == 429:
            await asyncio.sleep(float(headers["retry-after"]))
        if status != 200 or headers.get("connection") == "close":
            writer.close()
            writer = None
    if writer:
        writer.close()


async def crowd(port: int, request: bytes, clients: int, seconds: float) -> dict:
    "Answers a second, codes that came, and milliseconds until shares of the answers were there."
    codes, took = Counter(), []
    until = time.monotonic() + seconds
    await asyncio.gather(*(client(port, request, until, codes, took) for _ in range(clients)))
    ordered = sorted(took) or [float("nan")]
    at = {
        f"p{share}": 1000 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)]
        for share in (50, 95, 99)
    }
    return {"rate": len(took) / seconds, "codes": {str(k): v for k, v in codes.items()}} | at


def ask(process, port: int, request: bytes, clients: int, seconds: float) -> dict:
    "What a crowd got of one service, after a second that is not counted."
    asyncio.run(crowd(port, request, clients, 1))
    found = asyncio.run(crowd(port, request, clients, seconds))
    if not found["rate"]:
        raise Failed(f"no answer: {found['codes']}")
    peak = proc_value(process.pid, "status", "VmHWM:") if Path("/proc").exists() else 0.0
    return found | {"seconds": 1 / found["rate"], "peak": peak}


# ---------------------------------------------------------------- the race
@contextmanager
def running(
    pythons: dict[str, str], folder: Path, runtime: str = "onnx"
) -> Iterator[dict[str, Callable]]:
    "The service of each side; what is yielded asks it, with clients and seconds."
    exported(pythons, folder)
    request = as_form((folder / "photos" / "sand" / "0.jpg").read_bytes())
    with ExitStack() as stack:
        asked = {}
        for side, python in pythons.items():
            script, port = SERVICES[side]
            start = service(python, script, folder, f"{side}.pkl", port, runtime)
            asked[side] = partial(ask, stack.enter_context(start), port, request)
        yield asked


def race(asked: dict[str, Callable], clients: int, rounds: int, seconds: float) -> None:
    "Print what so many clients got of each side, and how many times as much of ours."
    turns = {side: lambda turn, ask=ask: ask(clients, seconds) for side, ask in asked.items()}
    done, failed, _ = in_turns(turns, rounds, math.inf, warm=0)
    for side, found in done.items():
        codes = sum((Counter(each["codes"]) for each in found), Counter())
        parts = [f"{key} {spread([each[key] for each in found])}" for key in MEASURES]
        print(f"  {side:10}{clients:3} clients", *parts, dict(codes), sep="; ", flush=True)
    for side, why in failed.items():
        print(f"  {side}: {why}")
    if len(done) == 2:
        for key, name in (("seconds", "times the answers"), ("p95", "times as early, p95")):
            print(f"    {spread(ratios(*done.values(), key), '{:.2f}')} {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, nargs="*", default=(1, 10, 50))
    parser.add_argument("--seconds", type=float, default=8.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtime", choices=("onnx", "torch"), default="onnx")
    options = parser.parse_args()
    pythons = {"coursekit": sys.executable}
    if other := os.environ.get("COURSEKIT_FASTAI"):
        pythons["fastai"] = other
    print("answers a second, ms until half, 95 % and 99 % were there, and MB at most")
    with tempfile.TemporaryDirectory() as folder:
        with running(pythons, Path(folder), options.runtime) as asked:
            for clients in options.clients:
                race(asked, clients, options.rounds, options.seconds)


if __name__ == "__main__":
    sys.exit(main())
