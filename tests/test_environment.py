"Making the environment: what goes wrong is said in words, and a finished one costs nothing."

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import environment


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 14, 0)])
def test_an_unsupported_python_is_named(monkeypatch, version):
    fake = SimpleNamespace(
        version_info=version, version=".".join(map(str, version)) + " (main)", executable="python3"
    )
    monkeypatch.setattr(environment, "sys", fake)
    with pytest.raises(SystemExit, match=r"Python 3\.1\d\.\d+; the course needs 3\.11 to 3\.13"):
        environment.check_python()


def test_an_old_python_gets_as_far_as_the_message():
    source = Path(environment.__file__).read_text()
    assert "from __future__ import annotations" in source  # `str | Path` in a signature otherwise
    old = shutil.which("python3.9")
    if old and not subprocess.run([old, "--version"], capture_output=True).returncode:
        done = subprocess.run([old, environment.__file__], capture_output=True, text=True)
        assert "the course needs 3.11 to 3.13" in done.stderr


def test_the_present_python_is_supported():
    environment.check_python()


def test_a_failed_step_is_named():
    with pytest.raises(SystemExit, match=r"exit status 3(.|\n)*same command again"):
        environment.call(sys.executable, "-c", "raise SystemExit(3)")
    with pytest.raises(SystemExit, match=r"no-such-program is not there"):
        environment.call("no-such-program")


def test_a_finished_environment_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "find_uv", lambda: pytest.fail("nothing needs installing"))
    monkeypatch.setattr(environment, "check_python", lambda: None)
    (tmp_path / "coursekit-stamp").write_text(environment.stamp_text())
    environment.main(str(tmp_path))
    (tmp_path / "coursekit-stamp").write_text("another state")
    with pytest.raises(pytest.fail.Exception):
        environment.main(str(tmp_path))
