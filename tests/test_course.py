"The commands of the course: the same on every system, with make and without, and mistakes are said in words."

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import course

BINS = {"posix": ("bin/", ""), "nt": ("Scripts/", ".exe")}


@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    "As a person types it, though these tests may be run by make."
    for name in ("MAKELEVEL", "MAKEFLAGS", "CI", *course.SETTINGS):
        monkeypatch.delenv(name, raising=False)


def steps(command: str, system: str = "posix", **settings: str) -> list[str]:
    made = course.Course(settings, system, "win32" if system == "nt" else "linux")
    return [" ".join(step) for step in made.recipe(command)]


@pytest.mark.parametrize("system", ["posix", "nt"])
@pytest.mark.parametrize(
    ("command", "tools"),
    [
        ("course", ["coursekit data", "run.py --all", "build_site.py --nbs", "run.py --table"]),
        (
            "test",
            ["coursekit data", "ruff check", "ruff format", "check.py", "run.py", "pytest -n 2"],
        ),
        ("lab", ["my.py", "jupyter lab"]),
        ("fresh", ["my.py --fresh 04"]),
        ("lesson", ["nbdev-export", "run.py 04"]),
        ("class", ["teaching.py class"]),
        ("slides", ["teaching.py slides 04"]),
        ("site", ["build_site.py"]),
        ("data", ["coursekit data fetch --course"]),
        ("export", ["nbdev-export", "nbdev-clean", "check.py --readme"]),
        ("lock", ["lock.py"]),
        ("environment", []),
    ],
)
def test_each_command_makes_the_environment_and_uses_it(system, command, tools):
    first, *rest = steps(command, system, N="04", OUT="our-class", VENV="ve")
    assert first == f"{sys.executable} tools/environment.py ve"
    folder, end = BINS[system]
    assert len(rest) == len(tools)
    for step, tool in zip(rest, tools, strict=True):
        program = step.split(" ")[0].replace("\\", "/")
        assert program.startswith(f"ve/{folder}") and program.endswith(end or program)
        assert tool in step.replace(".exe", "")


def test_nothing_of_the_tools_is_looked_for_that_is_not_there():
    for command in course.COMMANDS:
        for step in steps(command, N="04", OUT="x"):
            for path in re.findall(r"(?:tools|bench)/\S+\.py", step):
                assert (course.ROOT / path).exists(), path


def test_settings_reach_their_step():
    assert steps("test", JOBS="3")[-1].endswith("-n 3 --dist loadfile --no-loadscope-reorder")
    assert steps("lesson")[-1].endswith("run.py 01")
    assert Path(steps("class", OUT="x")[-1].split(" ")[-1]).is_absolute()
    assert steps("bench", ONLY="digits")[-1].endswith("bench/card.py --only digits")
    assert any("bench/steps.py" in step for step in steps("experiments"))


def test_the_browser_is_installed_in_ci_on_linux_alone(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1, raising=False)
    words = [" ".join(w) for w in course.Course(platform="linux", ci=True).browser()]
    assert words[0] == "sudo apt-get update -qq" and "install -y -qq" in words[1]
    assert not course.Course(platform="win32", ci=True).browser()
    assert not course.Course(platform="linux").browser()
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert not course.Course(platform="linux", ci=True).browser()


@pytest.mark.parametrize(
    ("words", "command", "settings"),
    [
        ([], "course", {}),
        (["test", "JOBS=1"], "test", {"JOBS": "1"}),
        (["lesson", "4"], "lesson", {"N": "4"}),
        (["class", "our class"], "class", {"OUT": "our class"}),
        (["TORCH=keep"], "course", {"TORCH": "keep"}),
        (["--help"], "help", {}),
    ],
)
def test_what_is_typed(words, command, settings):
    assert course.parsed(words, {}) == (command, settings)


def test_what_is_typed_comes_before_the_environment():
    assert course.parsed(["fresh", "N=2"], {"N": "1", "JOBS": "", "HOME": "x"})[1] == {"N": "2"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tset"], "no command 'tset'. Did you mean test"),
        (["lessons"], "Did you mean lesson"),
        (["quux"], r"no command 'quux'. All of them: python course.py help"),
        (
            ["test", "JOB=2"],
            "no setting JOB; there are N, OUT, JOBS, VENV, TORCH, ONLY, LONG. Did you mean JOBS",
        ),
        (["data", "PYTHON=python3.13"], "with that Python instead: python3.13 course.py"),
        (["site", "4"], "site takes no 4"),
        (["test", "JOBS=two"], "JOBS=two: say how many"),
        (["test", "JOBS=0"], "JOBS=0: say how many"),
        (["fresh"], "Say which lesson: python course.py fresh N=04"),
        (["slides"], "Say which lesson: python course.py slides N=04"),
        (["class"], "Say where to: python course.py class OUT=our-class"),
    ],
)
def test_a_mistake_is_said_in_words(words, said):
    with pytest.raises(SystemExit, match=said):
        course.main([*words, "--dry-run"])


def test_a_failed_step_stops_the_rest(monkeypatch, capfd):
    fail, never = [sys.executable, "-c", "raise SystemExit(3)"], ["no-such-program"]
    monkeypatch.setattr(course.Course, "recipe", lambda self, command: [fail, never])
    with pytest.raises(SystemExit) as stopped:
        course.main(["site"])
    assert stopped.value.code == 3
    assert "This step failed (exit status 3)" in capfd.readouterr().err
    monkeypatch.setattr(course.Course, "recipe", lambda self, command: [never])
    with pytest.raises(SystemExit, match="no-such-program cannot be started"):
        course.main(["site"])


def test_torch_is_kept_by_the_step_that_asks(monkeypatch, capfd):
    ask = [sys.executable, "-c", "import os; print('kept', os.environ['TORCH'])"]
    monkeypatch.setattr(course.Course, "recipe", lambda self, command: [ask])
    course.main(["environment", "TORCH=keep"])
    assert "kept keep" in capfd.readouterr().out


def make(*words: str) -> subprocess.CompletedProcess:
    if not shutil.which("make"):
        pytest.skip("no make here, and none is needed")
    words = ["make", *words, f"PYTHON={sys.executable}"]
    return subprocess.run(words, cwd=course.ROOT, capture_output=True, text=True, check=False)


def test_make_calls_this_file_and_has_every_command():
    listed = re.search(r"^COMMANDS := (.*)$", course.text_of("Makefile"), re.M)[1].split()
    assert set(listed) == set(course.COMMANDS)
    done = make("help")
    assert all(f"make {name} " in done.stdout for name in course.COMMANDS), done.stderr
    assert "course.py test" in make("-n", "test").stdout


def test_make_hands_its_settings_on():
    assert "Say which lesson: make fresh N=04" in make("fresh").stderr
    assert "JOBS=no: say how many" in make("test", "JOBS=no").stderr


def test_an_old_python_is_told_which_one_is_needed():
    old = shutil.which("python3.9")
    if not old or subprocess.run([old, "--version"], capture_output=True).returncode:
        pytest.skip("no Python 3.9 here")
    done = subprocess.run(
        [old, "course.py", "environment"], cwd=course.ROOT, capture_output=True, text=True
    )
    assert "the course needs 3.11 to" in done.stderr


def test_every_text_file_is_opened_with_its_encoding():
    "Without it, Windows reads and writes another one."
    rule = ["--isolated", "--preview", "--select", "PLW1514"]
    paths = ["coursekit", "tools", "docs", "course.py", "setup.py"]
    command = [sys.executable, "-m", "ruff", "check", *rule, *paths]
    done = subprocess.run(command, cwd=course.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
