"Making the environment: what goes wrong is said in words, and a finished one costs nothing."

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import environment


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 15, 0)])
def test_an_unsupported_python_is_named(monkeypatch, version):
    fake = SimpleNamespace(
        version_info=version, version=".".join(map(str, version)) + " (main)", executable="python3"
    )
    monkeypatch.setattr(environment, "sys", fake)
    with pytest.raises(SystemExit, match=r"Python 3\.1\d\.\d+; the course needs 3\.11 to 3\.14"):
        environment.check_python()


def test_an_old_python_gets_as_far_as_the_message():
    source = Path(environment.__file__).read_text("utf-8")
    assert "from __future__ import annotations" in source  # `str | Path` in a signature otherwise
    old = shutil.which("python3.9")
    if old and not subprocess.run([old, "--version"], capture_output=True).returncode:
        done = subprocess.run([old, environment.__file__], capture_output=True, text=True)
        assert "the course needs 3.11 to 3.14" in done.stderr


def test_the_present_python_is_supported():
    environment.check_python()


def test_a_failed_step_is_named():
    with pytest.raises(SystemExit, match=r"exit status 3(.|\n)*same command again"):
        environment.call(sys.executable, "-c", "raise SystemExit(3)")
    with pytest.raises(SystemExit, match=r"no-such-program is not there"):
        environment.call("no-such-program")


def test_programs_lie_where_the_system_puts_them():
    found = [environment.program(Path("v"), "uv", system) for system in ("posix", "nt")]
    assert found == [Path("v/bin/uv"), Path("v/Scripts/uv.exe")]


def test_a_finished_environment_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "find_uv", lambda: pytest.fail("nothing needs installing"))
    monkeypatch.setattr(environment, "check_python", lambda: None)
    (tmp_path / "coursekit-stamp").write_text(environment.stamp_text(), encoding="utf-8")
    environment.main(str(tmp_path))
    (tmp_path / "coursekit-stamp").write_text("another state")
    with pytest.raises(pytest.fail.Exception):
        environment.main(str(tmp_path))


def test_a_kept_torch_is_left_out_of_the_lock():
    lock = (environment.ROOT / "requirements.lock").read_text("utf-8")
    left = environment.without_torch(lock)
    names = {line.partition("==")[0] for line in left.splitlines() if line[:1].isalnum()}
    assert {"timm", "numpy", "jupyterlab"} <= names
    assert not [n for n in names if n in ("torch", "torchvision", "triton") or "nvidia" in n]
    assert len(lock.splitlines()) - len(left.splitlines()) > 10


def test_a_torch_that_is_not_there_cannot_be_kept(tmp_path, monkeypatch):
    assert environment.torch_here(sys.executable).startswith("2.")
    bare = tmp_path / "python"
    bare.write_text(
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'torch'\" >&2\nexit 1\n"
    )
    bare.chmod(0o755)
    with pytest.raises(SystemExit, match=r"cannot import torch and torchvision: ModuleNotFound"):
        environment.torch_here(bare)
    monkeypatch.setenv("TORCH", "cpu")
    with pytest.raises(SystemExit, match="TORCH=cpu: say TORCH=keep"):
        environment.keeps_torch()


def test_with_another_torch_the_environment_is_made_anew(tmp_path, monkeypatch):
    asked, lent = [], []
    monkeypatch.setattr(environment, "find_uv", lambda: "uv")
    monkeypatch.setattr(environment, "check_python", lambda: None)
    monkeypatch.setattr(environment, "call", lambda *words: asked.append([*map(str, words)]))
    monkeypatch.setattr(environment, "torch_here", lambda python=None: "2.11.0 0.26.0")
    monkeypatch.setattr(environment, "lend_torch", lent.append)
    (tmp_path / "coursekit-stamp").write_text(environment.stamp_text(), encoding="utf-8")
    monkeypatch.setenv("TORCH", "keep")
    environment.main(str(tmp_path))
    assert "--no-deps" in asked[1] and lent == [tmp_path / "bin" / "python"]
    environment.main(str(tmp_path))
    assert len(asked) == 3  # a finished one costs nothing


def test_an_environment_without_torch_finds_the_one_that_is_lent(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "own"], check=True)
    python = tmp_path / "own" / "bin" / "python"
    with pytest.raises(SystemExit, match="cannot import torch"):
        environment.torch_here(python)
    environment.lend_torch(python)  # this Python is itself in an environment
    assert environment.torch_here(python) == environment.torch_here(sys.executable)
