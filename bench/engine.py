"""The same service under an engine for many machines, Ray Serve, here with one and with two replicas on this machine.

    pip install coursekit[serve] "ray[serve]"
    python bench/engine.py                    # about four minutes
    python bench/engine.py --model bears.safetensors --picture bear.jpg

What is checked: `POST /predict` answers as `learn.predict` does, whichever replica is asked; a replica that is killed
while many ask comes back, and no answer is wrong meanwhile. What is measured: answers a second with one replica and
with two, by turns, 10 clients. Without a model of your own it is a ResNet-18 with random weights for 224 x 224 pixels.
Each replica is the application of `coursekit serve`, with one picture at work at a time, so that two need two cores.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from predict import exported
from service import as_form, crowd, one_answer

try:
    import ray
    from ray import serve
except ImportError:
    sys.exit('this needs Ray Serve: run `pip install "ray[serve]"`, in an environment of its own')

PORT, CLIENTS = 8751, 10


# ---------------------------------------------------------------- the engine
@contextmanager
def engine(folder: Path):
    "A Ray of our own on this machine, which ends with us; others that run here are left alone."
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    # on a busy machine its parts take long to begin; with ports of their own nobody waits for them
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "240")
    where = f"--temp-dir={folder / 'ray'}", "--node-ip-address=127.0.0.1", f"--port={PORT + 1}"
    parts = "metrics-export-port", "dashboard-agent-grpc-port", "dashboard-agent-listen-port"
    ports = [
        f"--{name}={PORT + 2 + i}" for i, name in enumerate((*parts, "runtime-env-agent-port"))
    ]
    how = "--num-cpus=4", "--include-dashboard=false", f"--object-store-memory={2**27}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    with (folder / "engine.log").open("w") as log:
        process = subprocess.Popen([*command, *where, *ports, *how], stdout=log, stderr=log)
    try:
        until(process, PORT + 1, folder / "engine.log")
        ray.init(address=f"127.0.0.1:{PORT + 1}", log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": PORT})
        yield
        serve.shutdown()
        ray.shutdown()
    finally:
        process.terminate()
        process.wait(60)


def until(process, port: int, log: Path, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if "Ray runtime started" in log.read_text():
            return
        time.sleep(0.5)
    raise SystemExit(f"Ray did not start at port {port}:\n{log.read_text()[-2000:]}")


# ---------------------------------------------------------------- the service, as the engine sees it
def application(model: str, converted: str):
    "What makes the application in each replica."

    def build():
        import torch

        from coursekit.service import ServiceConfig, service_app

        torch.set_num_threads(1)
        app = service_app(ServiceConfig(model, threads=1, converted=converted))
        app.get("/process")(os.getpid)
        return app

    @serve.deployment(max_ongoing_requests=100, health_check_period_s=1)
    @serve.ingress(build)
    class Replica:
        pass

    return Replica


def deploy(replica, n: int) -> None:
    serve.run(replica.options(num_replicas=n).bind(), name="coursekit", route_prefix="/")
    wait_for(n)


def asked(path: str):
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=30) as said:
        return json.load(said)


def processes() -> set[int]:
    "Those that answer now; twenty questions, since the engine chooses who is asked."
    found = set()
    for _ in range(20):
        try:
            found.add(asked("/process"))
        except OSError:
            time.sleep(0.05)
    return found


def wait_for(n: int, gone: int = 0, seconds: float = 600) -> set[int]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = processes()
        if len(found) == n and gone not in found:
            return found
    raise SystemExit(f"{n} replicas were wanted, and after {seconds:.0f} s {len(found)} answer")


# ---------------------------------------------------------------- what is shown
def same_answers(model: str, files: list[Path]) -> float:
    "The largest difference of a probability from what `learn.predict` says."
    from coursekit.exporting import load_learner

    learn, apart = load_learner(model), 0.0
    for file in files:
        wanted = learn.predict(file)[2].tolist()
        for _ in range(4):  # several times, so that each replica is asked
            got = asyncio.run(once(as_form(file.read_bytes())))["probabilities"]
            pairs = zip(learn.dls.vocab, wanted, strict=True)
            apart = max(apart, *(abs(got[str(label)] - p) for label, p in pairs))
    return apart


async def once(request: bytes) -> dict:
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    status, _, body = await one_answer(reader, writer, request)
    writer.close()
    if status != 200:
        raise SystemExit(f"status {status}: {body[:200]}")
    return json.loads(body)


async def killed(request: bytes, pid: int, seconds: float) -> tuple[Counter, set]:
    "Kill a replica while clients ask; the codes that came, and the different answers."
    codes, answers, end = Counter(), set(), time.monotonic() + seconds

    async def client():
        while time.monotonic() < end:
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
            try:
                status, _, body = await asyncio.wait_for(one_answer(reader, writer, request), 60)
                codes[status] += 1
                if status == 200:
                    said = json.loads(body)["probabilities"]
                    answers.add(tuple(round(p, 3) for p in said.values()))
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                codes["connection"] += 1
            finally:
                writer.close()

    async def kill():
        await asyncio.sleep(seconds / 4)
        os.kill(pid, signal.SIGKILL)

    await asyncio.gather(kill(), *(client() for _ in range(4)))
    return codes, answers


def show(model: str, files: list[Path], converted: str, rounds: int, seconds: float) -> None:
    replica, request = application(model, converted), as_form(files[0].read_bytes())
    rates = {1: [], 2: []}
    for turn in range(rounds):
        for n in (1, 2)[:: -1 if turn % 2 else 1]:
            deploy(replica, n)
            asyncio.run(crowd(PORT, request, CLIENTS, 2))  # warm
            rates[n].append(asyncio.run(crowd(PORT, request, CLIENTS, seconds)))
    for n, found in rates.items():
        rate, p95 = (statistics.median(each[key] for each in found) for key in ("rate", "p95"))
        print(f"{n} replicas: {rate:6.1f} answers a second, p95 {p95:,.0f} ms, {CLIENTS} clients")
    ratio = [two["rate"] / one["rate"] for one, two in zip(rates[1], rates[2], strict=True)]
    print(f"two against one: {statistics.median(ratio):.2f} times the answers")
    deploy(replica, 2)
    print(f"apart from learn.predict by at most {same_answers(model, files[:4]):.1e}")
    before = wait_for(2)
    started = time.monotonic()
    codes, answers = asyncio.run(killed(request, min(before), 8))
    after = wait_for(2, gone=min(before))
    took = time.monotonic() - started - 2
    print(
        f"one of {len(before)} replicas killed: {dict(codes)}, {len(answers)} different answers, "
        f"{len(after)} replicas again within {took:.0f} s"
    )
    if len(answers) != 1 or min(before) in after:
        raise SystemExit("a wrong answer came, or the replica did not come back")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", help="a file of learn.export")
    parser.add_argument("--picture", type=Path, nargs="*", help="pictures to ask about")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the engine ends too
    with tempfile.TemporaryDirectory() as temporary:
        folder, model, files = Path(temporary), given.model, given.picture
        if not model:
            exported({"coursekit": sys.executable}, folder)
            model = str(folder / "coursekit.pkl")
            files = sorted((folder / "photos").rglob("*.jpg"))
        with engine(folder):
            show(str(Path(model).resolve()), files, temporary, given.rounds, given.seconds)


if __name__ == "__main__":
    main()
