"The package as a user gets it: built, installed elsewhere with its run-time requirements only, imported."

import subprocess
import sys
import tarfile
import zipfile

import pytest

from environment import find_uv
from lessons import ROOT, settings

USE = """
import sys
from coursekit.all import *
import coursekit
assert "site-packages" in coursekit.__file__, coursekit.__file__
for name in ("nbdev", "jupyterlab", "pytest", "sphinx", "ipycanvas"):
    assert not [m for m in sys.modules if m.split(".")[0] == name], name
image = torch.zeros(28, 28)
print(coursekit.__version__, show_image(image).get_images()[0].get_array().shape, URLs.MNIST.folder)
"""


def call(*command, cwd):
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "The sdist, and the wheel made from the sdist."
    folder = tmp_path_factory.mktemp("dist")
    call(find_uv(), "build", "--quiet", "--out-dir", folder, ROOT, cwd=ROOT)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def test_what_the_archives_hold(built):
    sdist, wheel = built
    with tarfile.open(sdist) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    assert {"settings.ini", "setup.py", "LICENSE", "README.md", "coursekit/all.py"} <= names
    assert not [n for n in names if n.startswith(("nbs/", "tests/", "tools/", "_"))]
    with zipfile.ZipFile(wheel) as archive:
        inside = archive.namelist()
        meta = archive.read(next(n for n in inside if n.endswith("METADATA"))).decode()
    files = {f"coursekit/{p.name}" for p in (ROOT / "coursekit").glob("*.py")}
    extra = "datasets.toml", "photographs.zip", "questions.toml"
    extra += "service.html", "worksheet.html"
    files |= {f"coursekit/{name}" for name in extra}
    assert {n for n in inside if n.startswith("coursekit/")} == files
    ini = settings()
    assert f"Version: {ini['version']}\n" in meta and "License-Expression: Apache-2.0" in meta
    wanted = [
        line.split(">")[0].strip() for line in ini["requirements"].split("\n") if line.strip()
    ]
    assert all(f"Requires-Dist: {name}" in meta for name in wanted)


def test_the_sdist_in_an_empty_environment(built, tmp_path):
    uv, python = find_uv(), tmp_path / "env" / "bin" / "python"
    call(uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", cwd=tmp_path)
    call(
        *(uv, "pip", "install", "--quiet", "--python", python),
        *("--constraint", ROOT / "requirements.lock", built[0]),
        cwd=tmp_path,
    )
    version, said = call(python, "-c", USE, cwd=tmp_path).split(" ", 1)
    assert (version, said.strip()) == (settings()["version"], "(28, 28) mnist")
    assert "usage: coursekit" in call(tmp_path / "env/bin/coursekit", "--help", cwd=tmp_path)
