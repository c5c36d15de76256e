"""Make the environment that the course runs in, from nothing but this Python and the package registry.

    python3 tools/environment.py .venv
    TORCH=keep python3 tools/environment.py .venv    # with the torch and torchvision that this Python has

Uses uv, from the PATH or fetched into `.boot` with pip. Installs what requirements.lock pins, and the
package itself in editable mode. A stamp records what was installed, so that a second call costs nothing
and a call that was killed is taken up again.
"""

from __future__ import annotations  # an older Python must reach the message below

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = "requirements.lock"


def check_python() -> None:
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "settings.ini", encoding="utf-8")
    low, high = (config["DEFAULT"][key] for key in ("min_python", "max_python"))
    low_number, high_number = (tuple(map(int, v.split("."))) for v in (low, high))
    if not low_number <= sys.version_info[:2] <= high_number:
        raise SystemExit(
            f"{sys.executable} is Python {sys.version.split()[0]}; the course needs {low} to {high}.\n"
            f"Say which one to use, for instance: python{high} course.py, or make course PYTHON=python{high}"
        )


def program(venv: Path, name: str, system: str = os.name) -> Path:
    "Where an environment keeps a program: bin/ruff, on Windows Scripts/ruff.exe."
    return venv / "Scripts" / f"{name}.exe" if system == "nt" else venv / "bin" / name


def call(*command: str | Path) -> None:
    "Run a command with its output on screen; a failure ends the program in words."
    try:
        subprocess.run([str(c) for c in command], cwd=ROOT, check=True)
    except FileNotFoundError:
        raise SystemExit(
            f"{command[0]} is not there; install it and run the command again"
        ) from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"\nThis step failed (exit status {error.returncode}): {' '.join(error.cmd)}\n"
            "Its own message stands above. With no network, a full disk or a proxy, mend that and run the\n"
            "same command again: what was fetched is kept. On a network with certificates of its own, set\n"
            "UV_SYSTEM_CERTS=true first, and those of the system are used."
        ) from None


def find_uv() -> Path:
    "uv from the PATH, or else from the package registry into .boot."
    if found := shutil.which("uv"):
        return Path(found)
    boot = ROOT / ".boot"
    uv = program(boot, "uv")
    if not uv.exists():
        print("uv is not on the PATH: fetching it into .boot", flush=True)
        call(sys.executable, "-m", "venv", boot)
        call(
            program(boot, "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "uv",
        )
    return uv


KEPT = re.compile(r"(?:torch|torchvision|triton|nvidia-[\w-]+|cuda-[\w-]+)==")


def keeps_torch() -> bool:
    "Whether this Python's own torch is to be used; any other word than `keep` is a mistake."
    word = os.environ.get("TORCH", "")
    if word not in ("", "keep"):
        raise SystemExit(
            f"TORCH={word}: say TORCH=keep to use the torch of {sys.executable}, or leave it out"
        )
    return word == "keep"


def torch_here(python: str | Path = sys.executable) -> str:
    "Versions of the torch and torchvision that a Python has; ends the program in words if they do not import."
    ask = "import torch, torchvision; print(torch.__version__, torchvision.__version__)"
    done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise SystemExit(
            f"TORCH=keep, but {python} cannot import torch and torchvision: {last}\n"
            "Name a Python that can, for instance: make course TORCH=keep PYTHON=/opt/python/bin/python;\n"
            "or leave TORCH=keep out, and both are installed."
        )
    return done.stdout.strip()


def without_torch(lock: str) -> str:
    "The lock file without torch and what only torch needs."
    kept, skipping = [], False
    for line in lock.splitlines():
        if line[:1].isalnum():  # a requirement; what is indented says who wants it
            skipping = bool(KEPT.match(line))
        if not skipping:
            kept.append(line)
    return "\n".join(kept) + "\n"


def lend_torch(python: Path) -> None:
    "Let the environment find the torch of this Python, after all packages of its own."
    ask = "import torch, pathlib; print(pathlib.Path(torch.__file__).resolve().parents[1])"
    theirs = subprocess.check_output([sys.executable, "-c", ask], text=True).strip()
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.check_output([str(python), "-c", ask], text=True).strip()
    (Path(own) / "lent_torch.pth").write_text(f"{theirs}\n", encoding="utf-8")


def install(uv: Path, python: Path, keep: bool) -> None:
    "What the lock pins, and the package itself."
    if not keep:
        print(
            "installing what requirements.lock pins (about 3 GB to fetch the first time, mostly PyTorch)",
            flush=True,
        )
        call(*(uv, "pip", "install", "--compile-bytecode", "--python", python, "-r", LOCK))
        return
    print(f"installing what requirements.lock pins, beside torch {torch_here()}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "requirements.txt"
        lock.write_text(without_torch((ROOT / LOCK).read_text("utf-8")), encoding="utf-8")
        # nothing that is not named: a requirement of torch would bring another torch
        call(uv, "pip", "install", "--no-deps", "--python", python, "-r", lock)
    lend_torch(python)
    torch_here(python)


def stamp_text() -> str:
    "What the environment depends on."
    names = ("requirements.lock", "settings.ini", "setup.py", "pyproject.toml")
    digest = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in names)).hexdigest()
    return f"{sys.version} {ROOT} {'own torch' if keeps_torch() else ''} {digest}"


def main(folder: str) -> None:
    venv = ROOT / folder
    stamp = venv / "coursekit-stamp"
    if stamp.exists() and stamp.read_text("utf-8") == stamp_text():
        return
    check_python()
    uv = find_uv()
    python = program(venv, "python")
    keep = keeps_torch()
    start = stamp_text().rpartition(" ")[0]
    if not stamp.exists() or not stamp.read_text("utf-8").startswith(f"{start} "):
        print(f"making the environment {folder} for Python {sys.version.split()[0]}", flush=True)
        call(
            uv,
            "venv",
            "--quiet",
            "--seed",
            "--clear",
            "--no-python-downloads",
            "--python",
            sys.executable,
            venv,
        )
    install(uv, python, keep)
    call(uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "-e", ".")
    stamp.write_text(stamp_text(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".venv")
