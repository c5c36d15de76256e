"""Race the service against the obvious one, and see how it bears a crowd: 1, 10 and 50 clients on the same machine.

    COURSEKIT_FASTAI=/path/to/python python bench/service.py     # a Python that has fastai 2, fastapi, uvicorn
    python bench/service.py --seconds 60 --clients 50 --strict

Both sides serve the same ResNet-18 with the same weights, made for pictures of 224 x 224, and are sent the same
photograph of a telephone's size. The obvious service is what most people write first: FastAPI, `load_learner`, and
`learn.predict` in the function that answers. Only one side is asked at a time, and they take turns. A client that is
told 429 waits as long as `Retry-After` says, and asks again; that is counted. What counts is answers with status 200 a
second, and the time from the request to the answer of those. Without `COURSEKIT_FASTAI` only our own side runs.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from predict import draw_photos, run

GOAL = 2.0  # times the answers of the obvious service
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


def memory(process) -> float:
    "Peak memory of a process in MB, where the system tells it."
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


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
    codes, took = Counter(), []
    until = time.monotonic() + seconds
    await asyncio.gather(*(client(port, request, until, codes, took) for _ in range(clients)))
    ordered = sorted(took) or [float("nan")]
    at = {
        f"p{share}": 1000 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)]
        for share in (50, 95, 99)
    }
    return {"rate": len(took) / seconds, "codes": {str(k): v for k, v in codes.items()}} | at


# ---------------------------------------------------------------- the race
def told(name: str, clients: int, found: list[dict]) -> None:
    middle = {
        key: statistics.median(each[key] for each in found) for key in ("rate", "p50", "p95", "p99")
    }
    codes = sum((Counter(each["codes"]) for each in found), Counter())
    print(
        f"  {name:10}{clients:3} clients {middle['rate']:8.1f} a second, ms "
        f"p50 {middle['p50']:7.0f} p95 {middle['p95']:7.0f} p99 {middle['p99']:7.0f}  {dict(codes)}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, nargs="*", default=(1, 10, 50))
    parser.add_argument("--seconds", type=float, default=8.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtime", choices=("onnx", "torch"), default="onnx")
    parser.add_argument("--strict", action="store_true", help="a missed goal is an error")
    asked = parser.parse_args()
    pythons = {"coursekit": sys.executable}
    if other := os.environ.get("COURSEKIT_FASTAI"):
        pythons["fastai"] = other
    missed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw_photos(folder / "photos")
        for side, python in pythons.items():
            run(python, side, folder, "prepare")
        request = as_form((folder / "photos" / "sand" / "0.jpg").read_bytes())
        ports = {"coursekit": 8741, "fastai": 8742}
        ours = service(
            sys.executable, OURS, folder, "coursekit.pkl", ports["coursekit"], asked.runtime
        )
        theirs = (
            service(pythons["fastai"], OBVIOUS, folder, "fastai.pkl", ports["fastai"])
            if "fastai" in pythons
            else None
        )
        with ours as process:
            if theirs is None:
                missed = race(pythons, ports, request, asked)
            else:
                with theirs as other_process:
                    missed = race(pythons, ports, request, asked)
                    print(f"peak memory of the obvious one {memory(other_process):,.0f} MB")
            print(f"peak memory of ours {memory(process):,.0f} MB")
    return missed if asked.strict else 0


def race(pythons: dict, ports: dict, request: bytes, asked) -> int:
    missed = 0
    print(f"answers about a photograph of {len(request) / 1000:,.0f} kB, ResNet-18, 224 x 224")
    for clients in asked.clients:
        found = {side: [] for side in pythons}
        for turn in range(asked.rounds):
            for side in list(pythons)[:: -1 if turn % 2 else 1]:
                asyncio.run(crowd(ports[side], request, clients, 1))  # warm
                found[side].append(asyncio.run(crowd(ports[side], request, clients, asked.seconds)))
        for side in pythons:
            told(side, clients, found[side])
        if len(found) == 2:
            pairs = list(zip(found["coursekit"], found["fastai"], strict=True))
            times = [a["rate"] / b["rate"] for a, b in pairs if b["rate"]]
            late = [a["p95"] / b["p95"] for a, b in pairs]
            ratio, p95 = statistics.median(times), statistics.median(late)
            print(
                f"    {ratio:.2f} times the answers ({min(times):.2f} to {max(times):.2f}), p95 {p95:.2f} of theirs"
            )
            missed += ratio < GOAL or p95 > 1
    return missed


if __name__ == "__main__":
    sys.exit(main())
