"The learner's copies: made when missing, never overwritten, and put anew without losing the old one."

from datetime import datetime

import pytest

import my
from lessons import ROOT

NOW = datetime(2026, 11, 29, 15, 58, 46)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "nbs" / "library").mkdir(parents=True)
    for name in ("index", "01_first", "04_fourth", "_05_draft", "library/helper"):
        (tmp_path / "nbs" / f"{name}.ipynb").write_text(f"the course's {name}")
    return tmp_path


def files(root):
    found = sorted(p for p in (root / "my").rglob("*") if p.is_file())
    return {p.relative_to(root / "my").as_posix(): p.read_text() for p in found}


def test_copies_are_made(root):
    assert my.add_missing(root) == "my/: 4 notebooks added, 0 were there and are untouched"
    names = ["01_first", "04_fourth", "index", "library/helper"]
    assert files(root) == {f"{n}.ipynb": f"the course's {n}" for n in names}
    assert my.add_missing(root).startswith("my/ has all 4 notebooks")


def test_what_the_learner_has_is_never_overwritten(root):
    my.add_missing(root)
    mine, models = root / "my" / "01_first.ipynb", root / "my" / "models"
    mine.write_text("mine")
    models.mkdir()
    (models / "best.pth").write_text("weights")
    (root / "my" / "index.ipynb").unlink()
    (root / "my" / "index.ipynb").symlink_to("nowhere")
    (root / "my" / "04_fourth.ipynb").unlink()
    (root / "nbs" / "01_first.ipynb").write_text("a newer first")
    (root / "nbs" / "06_sixth.ipynb").write_text("sixth")
    assert my.add_missing(root) == "my/: 2 notebooks added, 3 were there and are untouched"
    assert mine.read_text() == "mine" and (models / "best.pth").read_text() == "weights"
    assert (root / "my" / "index.ipynb").is_symlink()
    assert files(root)["06_sixth.ipynb"] == "sixth"
    assert files(root)["04_fourth.ipynb"] == "the course's 04_fourth"


def test_a_killed_copy_leaves_no_half_file(root, monkeypatch):
    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.rename", killed)
    with pytest.raises(KeyboardInterrupt):
        my.add_missing(root)
    monkeypatch.undo()
    assert files(root) == {}
    assert my.add_missing(root).startswith("my/: 4 notebooks added")


def test_a_lesson_is_put_anew_and_the_old_one_stays(root):
    my.add_missing(root)
    for change in ("one", "two", "three", "four"):
        (root / "my" / "04_fourth.ipynb").write_text(change)
        said = my.fresh("4", root, NOW)
    assert said.startswith(
        "my/04_fourth.ipynb is new; your old one is my/04_fourth_2026-11-29_15-58"
    )
    kept = {n: t for n, t in files(root).items() if n.startswith("04_")}
    assert kept == {
        "04_fourth.ipynb": "the course's 04_fourth",
        "04_fourth_2026-11-29.ipynb": "one",
        "04_fourth_2026-11-29_15-58-46.ipynb": "two",
        "04_fourth_2026-11-29_15-58-46-2.ipynb": "three",
        "04_fourth_2026-11-29_15-58-46-3.ipynb": "four",
    }


def test_a_copy_that_is_missing_or_unchanged_leaves_no_old_one(root):
    assert my.fresh("04", root) == "my/04_fourth.ipynb is there now"
    assert "nothing to do" in my.fresh("04_fourth", root)
    assert list(files(root)) == ["04_fourth.ipynb"]
    assert my.fresh("helper", root) == "my/library/helper.ipynb is there now"


@pytest.mark.parametrize("name", ["77", "", "0", "../x"])
def test_an_unknown_lesson_is_named_with_those_there_are(root, name):
    with pytest.raises(
        SystemExit, match=r"lesson '.*' (is not there|means several)(.|\n)*01_first"
    ):
        my.main(["--fresh", name], root)
    assert not (root / "my").exists()


def test_main_adds_what_is_missing(root, capsys):
    my.main([], root)
    assert capsys.readouterr().out.startswith("my/: 4 notebooks added")


def test_copies_are_ignored_and_see_the_same_folders():
    assert "/my/" in (ROOT / ".gitignore").read_text().splitlines()
    for path, copy in my.copies().items():
        for name in ("images", "bench"):
            up = "../../" if path.parent.name == "library" else "../"
            assert (copy.parent / f"{up}{name}").resolve() == (ROOT / name).resolve()
