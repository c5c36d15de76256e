"""The commands of the course, on any system, from nothing but Python and the package registries.

    python course.py                  everything: environment, data, every lesson run, the site
    python course.py test             everything that is checked before a change goes in
    python course.py lesson 04        one command with its argument; `python course.py help` lists them
    python course.py test JOBS=1      settings are written as for make: N, OUT, JOBS, ONLY, VENV, TORCH
    python course.py test --dry-run   what would be run, without running it

The Makefile calls this file, so that each recipe stands in one place. It needs no package; an old Python
gets as far as the message that says which one the course needs.
"""

from __future__ import annotations  # as in tools/environment.py

import difflib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))
from environment import program  # noqa: E402

COMMANDS = {
    "course": "From nothing: environment, data, every lesson run in order, site in _site/, a summary",
    "test": "Everything that CI checks, two things at a time: {} test JOBS=2",
    "lab": "JupyterLab on your own copies of the lessons, in my/",
    "fresh": "A new copy of one lesson in my/, the old one is kept: {} fresh N=04",
    "lesson": "Export, then run one lesson alone: {} lesson N=01",
    "class": "Lessons without answers for a class, and a sheet of them: {} class OUT=our-class",
    "slides": "Slides of a lesson, in _slides/: {} slides N=04",
    "site": "Build the site into _site/ from the committed outputs",
    "bench": "Races against others, and how cost grows, 40 minutes at most: {} bench ONLY=digits",
    "experiments": "Tables of long trainings that lessons show, made again: hours",
    "environment": "Make or update .venv",
    "data": "Fetch the data of the lessons",
    "export": "Write coursekit/ and README.md from the notebooks",
    "lock": "Pin the newest versions that settings.ini allows",
    "browser": "In CI on Linux: install the Chromium of the browser tests",
    "help": "Show this list",
}
SETTINGS = {"N": "", "OUT": "", "JOBS": "2", "VENV": ".venv", "TORCH": "", "ONLY": "", "LONG": ""}
ARGUMENT = {"lesson": "N", "fresh": "N", "slides": "N", "class": "OUT"}  # what a bare word is
EXPERIMENTS = (
    "workers drawn_bears augmentation borrowed head_start fine_tune night photographs recipes "
    "recipes_photographs digits steps collab collab_parts"
).split()
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Mistake(SystemExit):
    "What was typed cannot be done; the message says what can."


class Course:
    """The recipes: each is a method that returns commands, lists of words, in order.

    `settings` are those of SETTINGS, `system` is `os.name`, `platform` is `sys.platform`.
    """

    def __init__(self, settings=None, system=os.name, platform=sys.platform, ci=False):
        self.settings = {**SETTINGS, **(settings or {})}
        self.system, self.platform, self.ci = system, platform, ci

    def tool(self, name: str, *words: str) -> list[str]:
        "A program of the environment: bin/ruff, or Scripts/ruff.exe."
        return [str(program(Path(self.settings["VENV"]), name, self.system)), *words]

    def python(self, *words: str) -> list[str]:
        return self.tool("python", *words)

    def said(self, name: str, example: str, command: str) -> str:
        "A setting that a command cannot do without."
        if self.settings[name]:
            return self.settings[name]
        what = "which lesson" if name == "N" else "where to"
        raise Mistake(f"Say {what}: {how_called()} {command} {name}={example}")

    def environment(self):
        return [[sys.executable, "tools/environment.py", self.settings["VENV"]]]

    def data(self):
        return [*self.environment(), self.tool("coursekit", "data", "fetch", "--course")]

    def course(self):
        return [
            *self.data(),
            self.python("tools/run.py", "--all"),
            self.python("tools/build_site.py", "--nbs", "_run/nbs"),
            self.python("tools/run.py", "--table"),
        ]

    def test(self):
        jobs = self.settings["JOBS"]
        if not re.fullmatch(r"[1-9]\d*", jobs):
            raise Mistake(f"JOBS={jobs}: say how many things to do at a time, for instance JOBS=2")
        return [
            *self.data(),
            *self.browser(),
            self.tool("ruff", "check"),
            self.tool("ruff", "format", "--check", "tests", "docs", "bench", "tools", "course.py"),
            self.python("tools/check.py"),
            self.python("tools/run.py", "--all", "--jobs", jobs),
            self.python("-m", "pytest", "-n", jobs, "--dist", "loadfile", "--no-loadscope-reorder"),
        ]

    def lab(self):
        here = [f"--ServerApp.root_dir={ROOT}", "--LabApp.default_url=/lab/tree/my/index.ipynb"]
        return [
            *self.environment(),
            self.python("tools/my.py"),
            self.python("-m", "jupyter", "lab", *here),
        ]

    def fresh(self):
        lesson = self.said("N", "04", "fresh")
        return [*self.environment(), self.python("tools/my.py", "--fresh", lesson)]

    def lesson(self):
        lesson = self.settings["N"] or "01"
        run = self.python("tools/run.py", lesson)
        return [*self.environment(), self.tool("nbdev-export"), run]

    def class_(self):
        folder = str(Path(self.said("OUT", "our-class", "class")).absolute())
        return [*self.environment(), self.python("tools/teaching.py", "class", folder)]

    def slides(self):
        lesson = self.said("N", "04", "slides")
        return [*self.environment(), self.python("tools/teaching.py", "slides", lesson)]

    def site(self):
        return [*self.environment(), self.python("tools/build_site.py")]

    def bench(self):
        long = ["--long"] if self.settings["LONG"] else []
        card = self.python("bench/card.py", "--only", self.settings["ONLY"], *long)
        return [*self.data(), card]

    def experiments(self):
        return [*self.data(), *(self.python(f"bench/{name}.py") for name in EXPERIMENTS)]

    def export(self):
        export, clean = self.tool("nbdev-export"), self.tool("nbdev-clean")
        return [*self.environment(), export, clean, self.python("tools/check.py", "--readme")]

    def lock(self):
        return [*self.environment(), self.python("tools/lock.py")]

    def browser(self):
        "The browser tests use the system's Chromium; elsewhere than in CI they say what to install."
        if not self.ci or self.platform != "linux" or any(map(shutil.which, BROWSERS)):
            return []
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        install = ["install", "-y", "-qq", "--no-install-recommends", "chromium"]
        return [
            [*sudo, "apt-get", "update", "-qq"],
            [
                *sudo,
                "env",
                "DEBIAN_FRONTEND=noninteractive",
                "apt-get",
                *install,
                "fonts-dejavu-core",
            ],
        ]

    def help(self):
        return []

    def recipe(self, command: str) -> list[list[str]]:
        return getattr(self, "class_" if command == "class" else command)()


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def how_called() -> str:
    "The words before a command: make says that it called this file."
    return "make" if "MAKELEVEL" in os.environ else "python course.py"


def helped() -> str:
    call = how_called()
    rows = [f"  {call} {name:12} {words.format(call)}" for name, words in COMMANDS.items()]
    return "\n".join(rows)


def near(word: str, known) -> str:
    "A question that names what looks like a word, or nothing."
    found = difflib.get_close_matches(word, known, n=2)
    return f" Did you mean {' or '.join(found)}?" if found else ""


def setting(word: str, settings: dict[str, str]) -> None:
    "Take NAME=value."
    name, _, value = word.partition("=")
    if name == "PYTHON":
        raise Mistake(f"Start it with that Python instead: {value or 'python3'} course.py")
    if name not in SETTINGS:
        known = ", ".join(SETTINGS)
        raise Mistake(f"There is no setting {name}; there are {known}.{near(name, SETTINGS)}")
    settings[name] = value


def parsed(words: list[str], environ: dict[str, str]) -> tuple[str, dict[str, str]]:
    "The command and the settings that somebody typed; what is not typed comes from the environment."
    settings = {name: environ[name] for name in SETTINGS if environ.get(name)}
    bare = []
    for word in words:
        if re.match(r"[A-Z]+=", word):
            setting(word, settings)
        else:
            bare.append(word)
    command, *rest = bare or ["course"]
    command = "help" if command in ("-h", "--help") else command
    if command not in COMMANDS:
        listed = f"All of them: {how_called()} help"
        raise Mistake(f"There is no command {command!r}.{near(command, COMMANDS)} {listed}")
    if rest and command in ARGUMENT and not rest[0].startswith("-"):
        settings[ARGUMENT[command]] = rest.pop(0)
    if rest:
        raise Mistake(f"{command} takes no {' '.join(rest)}. See: {how_called()} help")
    return command, settings


def shown(command: list[str]) -> str:
    return " ".join(f'"{word}"' if " " in word else word for word in command)


def run(command: list[str], environ: dict[str, str]) -> None:
    "Run one command to its end, an interrupt included: it is told of it as well, and may ask first."
    first, *words = command
    if Path(first).parent != Path():  # Windows would look for it where the user is
        first = str(ROOT / first)
    try:
        process = subprocess.Popen([first, *words], cwd=ROOT, env=environ)
    except OSError as error:
        raise Mistake(f"{command[0]} cannot be started: {error.strerror}") from None
    while True:
        try:
            status = process.wait()
            break
        except KeyboardInterrupt:
            continue
    if status:
        if "tools/environment.py" in command:  # which has said all there is to say
            raise SystemExit(status)
        print(f"\nThis step failed (exit status {status}): {shown(command)}", file=sys.stderr)
        raise SystemExit(status if status > 0 else 128 - status)


def main(words: list[str] | None = None) -> None:
    words = list(sys.argv[1:] if words is None else words)
    dry = "--dry-run" in words
    command, settings = parsed([w for w in words if w != "--dry-run"], dict(os.environ))
    course = Course(settings, ci=bool(os.environ.get("CI")))
    if command == "help":
        print(helped())
    environ = {**os.environ, "TORCH": course.settings["TORCH"]}
    if os.name == "nt":  # files and pipes are UTF-8 there too
        environ["PYTHONUTF8"] = "1"
    for step in course.recipe(command):
        if dry or "tools/environment.py" not in step:  # which is silent when it has nothing to do
            print(shown(step), flush=True)
        if not dry:
            run(step, environ)
    if command == "course" and not dry:
        print(f"Read the course: open _site/index.html, or run: {how_called()} lab")


if __name__ == "__main__":
    main()
