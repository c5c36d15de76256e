"""Make the environment of the rivals, `.venv-rivals`, from bench/rivals.lock; torch is lent by the course's own.

    python bench/rivals.py            # make or update it, and say what it has
    python bench/rivals.py --lock     # pin the newest versions of what bench/rivals.txt names

What cannot be had is named, and its races say 'not run'.
"""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from helper import last_line  # noqa: E402

from environment import find_uv, lend_torch, without_torch  # noqa: E402

LISTED, LOCK = (ROOT / "bench" / f"rivals.{end}" for end in ("txt", "lock"))
PATIENCE = 300  # seconds for pins one by one, say without a network
VENV = ROOT / ".venv-rivals"
PYTHON = VENV / "bin" / "python"
MODULES = {
    "fastai": "fastai.vision.all",
    "timm": "timm",
    "scikit-surprise": "surprise",
    "implicit": "implicit.als",
    "fastapi": "fastapi, uvicorn, multipart",
}


def quiet(*command: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def lock() -> None:
    "Pins for this Python; what torch needs is left to the course's own lock."
    command = (find_uv(), "pip", "compile", "--quiet", "--no-header", "--no-emit-index-url")
    done = quiet(*command, "--universal", "--python-version", "3.11", LISTED, "-o", LOCK)
    if done.returncode:
        raise SystemExit(f"rivals.lock cannot be made: {last_line(done)}")


def pins() -> list[str]:
    "Each requirement of the lock, without torch and what only torch needs."
    kept = without_torch(LOCK.read_text("utf-8")).splitlines()
    return [line.split(" #")[0].strip() for line in kept if line[:1].isalnum()]


def install() -> list[str]:
    "Install all pins at once, or one by one where that fails; says which cannot be had."
    try:
        uv = find_uv()
    except SystemExit as error:
        return [f"uv ({error})"]
    done = quiet(uv, "venv", "--quiet", "--clear", "--python", sys.executable, VENV)
    if done.returncode:
        return [f"an environment ({last_line(done)})"]
    lend_torch(PYTHON)
    # nothing that is not named: a requirement of torch would bring another torch
    more = ("--quiet", "--no-deps", "--compile-bytecode", "--python", PYTHON)
    command = (uv, "pip", "install", *more)
    if quiet(*command, *pins()).returncode == 0:
        return []
    end = time.monotonic() + PATIENCE
    return [pin for pin in pins() if time.monotonic() > end or quiet(*command, pin).returncode]


def found(python: str | Path) -> dict[str, str]:
    "For each rival its version, or why it is not there: 'not there: ...'."
    told = {}
    for name, modules in MODULES.items():
        code = f"import {modules}; from importlib.metadata import version; print(version('{name}'))"
        done = quiet(python, "-W", "ignore", "-c", code) if Path(python).exists() else None
        if done and done.returncode == 0:
            told[name] = done.stdout.split()[-1]
        else:
            told[name] = f"not there: {last_line(done) if done else 'no environment'}"
    return told


def environment() -> dict[str, str]:
    "Make the environment unless it is there, and say what it has; never raises for a rival."
    stamp, digest = VENV / "stamp.json", hashlib.sha256(LOCK.read_bytes()).hexdigest()
    made_from, kept = [sys.version, digest], {}
    if stamp.exists():
        kept = json.loads(stamp.read_text())
    if kept.get("made_from") == made_from:
        return kept["found"]
    print("making the environment of the rivals (a few minutes, once)", flush=True)
    if lost := install():
        print(f"  cannot be had: {', '.join(lost)}", flush=True)
    told = found(PYTHON)
    if not missing(told):
        stamp.write_text(json.dumps({"made_from": made_from, "found": told}))
    return told


def missing(told: dict[str, str]) -> list[str]:
    return [name for name, words in told.items() if words.startswith("not there")]


if __name__ == "__main__":
    if "--lock" in sys.argv:
        lock()
    for rival, words in environment().items():
        print(f"{rival:16} {words}")
