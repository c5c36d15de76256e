"The cleaner and the app: choices survive, moves can be undone, and every upload gets an answer in words."

import json
import math
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import warnings
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, PngImagePlugin
from torch import nn

from coursekit import app, cleaning, widgets
from coursekit.app import classifier_app, classify_upload, open_upload, uploaded, write_app
from coursekit.blocks import (
    CategoryBlock,
    DataBlock,
    ImageBlock,
    RegressionBlock,
    TransformBlock,
)
from coursekit.cleaning import clean_files, undo_cleaning
from coursekit.data import (
    GrandparentSplitter,
    IndexSplitter,
    RandomSplitter,
    get_image_files,
    parent_label,
)
from coursekit.drawn_bears import KINDS, draw_bears
from coursekit.image_loaders import ImageDataLoaders
from coursekit.learner import Learner
from coursekit.loaders import DataLoaders
from coursekit.losses import BCEWithLogitsLossFlat
from coursekit.messages import DataError
from coursekit.resizing import RandomResizedCrop, Resize
from coursekit.widgets import (
    Choices,
    ImageClassifierCleaner,
    Judged,
    rank_by_loss,
    rank_out_of_fold,
)


def model(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, outputs))
    net[-1].weight.data.mul_(20)  # so that it has opinions, though it has learned nothing
    return net


def learner(dls) -> Learner:
    return Learner(dls, model(dls.c))


def block(**changes) -> DataBlock:
    parts = {"get_items": get_image_files, "splitter": RandomSplitter(0.25, seed=0)}
    parts |= {"get_y": parent_label, "item_tfms": Resize(24)} | changes
    return DataBlock((ImageBlock, CategoryBlock), **parts)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_bears(tmp_path_factory.mktemp("bears") / "set", n=24, size=48)


@pytest.fixture
def bears(drawn, tmp_path):
    "A folder of its own, to be moved about in."
    shutil.copytree(drawn, tmp_path / "bears", ignore=shutil.ignore_patterns(".*", "*.csv"))
    return tmp_path / "bears"


@pytest.fixture
def learn(bears):
    return learner(block().dataloaders(bears, bs=5, num_workers=0))


def tree(folder: Path) -> dict:
    "Everything below a folder: folders too, and hidden files."
    found = {}
    for place in sorted(folder.rglob("*")):
        stat = place.lstat()
        inside = (place.read_bytes(), stat.st_mtime_ns) if place.is_file() else None
        found[place.relative_to(folder).as_posix()] = inside
    return found


# ------------------------------------------------------------------------------------- the ranking
def test_ranking_equals_what_predict_says(learn, bears):
    ranked = rank_by_loss(learn)
    assert {one.file for one in ranked} == set(get_image_files(bears)) and len(ranked) == 24
    assert [one.loss for one in ranked] == sorted((one.loss for one in ranked), reverse=True)
    for one in ranked:
        said, number, probabilities = learn.predict(one.file)
        right = probabilities[learn.dls.vocab.index(one.file.parent.name)]
        assert one.loss == pytest.approx(-math.log(right), rel=1e-4, abs=1e-6)
        assert (one.said, one.label) == (said, one.file.parent.name)
        assert one.probability == pytest.approx(probabilities[number].item(), abs=1e-6)
    valid = {Path(file) for file in learn.dls.valid_ds.items}
    assert {one.file for one in ranked if one.side == "validation"} == valid
    assert rank_by_loss(learn, ds_idx=1) == [one for one in ranked if one.side == "validation"]


def test_nothing_is_random_in_the_ranking(bears):
    dls = block(item_tfms=RandomResizedCrop(24, min_scale=0.2)).dataloaders(bears, num_workers=0)
    learn = learner(dls)
    assert rank_by_loss(learn) == rank_by_loss(learn)


def test_with_workers_the_order_is_the_same(learn, bears):
    many = learner(block().dataloaders(bears, bs=5, num_workers=2))
    assert [(a.file, round(a.loss, 4)) for a in rank_by_loss(many)] == [
        (b.file, round(b.loss, 4)) for b in rank_by_loss(learn)
    ]


@pytest.mark.parametrize("skip", [True, False])
def test_files_that_cannot_be_opened_come_first(bears, skip):
    broken = [bears / "black" / "aa.jpg", bears / "teddy" / "zz.jpg"]
    broken[0].write_text("no picture")
    broken[1].write_bytes(get_image_files(bears / "teddy")[0].read_bytes()[:900])
    learn = learner(block().dataloaders(bears, bs=5, num_workers=0, skip_broken=skip))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ranked = rank_by_loss(learn)
    assert {one.file for one in ranked[:2]} == set(broken) and len(ranked) == 26
    assert all(one.loss == math.inf and one.said == "" for one in ranked[:2])
    for one in ranked[2:]:  # nothing has slipped by one
        right = learn.predict(one.file)[2][learn.dls.vocab.index(one.label)]
        assert one.loss == pytest.approx(-math.log(right), rel=1e-4, abs=1e-6)
    cleaner = ImageClassifierCleaner(learn)
    card = show(cleaner, "black", next(one.side for one in ranked if one.file == broken[0]))[0]
    assert card.one.file == broken[0] and "cannot be opened" in card.picture.value
    card.menu.index = 1
    cleaner.apply()
    assert not broken[0].exists() and (bears / ".trash" / "black" / "aa.jpg").exists()


def test_a_loss_that_is_no_number_comes_first(learn):
    with torch.no_grad():
        learn.model[-1].weight.fill_(math.nan)
    assert len(rank_by_loss(learn)) == 24
    two = [Judged(Path("a/1"), "a", "a", 0.9, 0.1, "training")]
    two.append(Judged(Path("a/2"), "a", "a", math.nan, math.nan, "training"))
    assert ImageClassifierCleaner(None, ranked=two).fns == [Path("a/2"), Path("a/1")]


def test_a_loss_without_activation(learn):
    learn.loss_func = nn.functional.cross_entropy
    assert all(0 <= one.probability <= 1 for one in rank_by_loss(learn))


def test_files_and_labels_from_a_table(bears):
    files = get_image_files(bears)
    table = pd.DataFrame({"file": [str(f.relative_to(bears)) for f in files], "label": "bear"})
    table.loc[::2, "label"] = "animal"
    learn = learner(ImageDataLoaders.from_df(table, bears, item_tfms=Resize(24), num_workers=0))
    ranked = rank_by_loss(learn)
    assert {one.file for one in ranked} == set(files)
    assert {one.label for one in ranked} == {"bear", "animal"}
    cleaner = ImageClassifierCleaner(learn)
    cleaner.choices.delete(cleaner.fns[3])
    assert cleaner.delete() == [3]
    with pytest.raises(
        DataError, match=r"labelled '\w+', so labels do not come from folders.*table"
    ):
        cleaner.apply()
    assert cleaner.fns[3].exists() and cleaner.delete() == [3]


def test_what_cannot_be_ranked(bears, learn):
    numbers = DataBlock((ImageBlock, RegressionBlock), get_image_files, get_y=lambda f: 1.0)
    dls = numbers.new(item_tfms=Resize(24)).dataloaders(bears, num_workers=0)
    with pytest.raises(DataError, match="kind 'regression'"):
        rank_by_loss(Learner(dls, model(1)))
    pairs = [(torch.rand(3, 24, 24), i % 3) for i in range(8)]
    with pytest.raises(DataError, match="DataBlock"):
        loss = nn.functional.cross_entropy
        rank_by_loss(Learner(DataLoaders.from_dsets(pairs, pairs, bs=4), model(3), loss))
    pixels = [np.zeros((24, 24, 3), np.uint8) + i for i in range(8)]
    arrays = DataBlock((ImageBlock, CategoryBlock), get_y=lambda x: str(x[0, 0, 0] % 2))
    arrays = arrays.new(splitter=IndexSplitter([6, 7])).dataloaders(pixels, num_workers=0)
    with pytest.raises(DataError, match="no file"):
        rank_by_loss(learner(arrays))


def test_out_of_fold_nobody_judges_what_it_has_seen(bears):
    seen = []

    def train(dls):
        seen.append(({*dls.train_ds.items}, {*dls.valid_ds.items}))
        return learner(dls)

    ranked = rank_out_of_fold(train, block(), bears, folds=4, seed=3, bs=5, num_workers=0)
    files = set(get_image_files(bears))
    assert len(seen) == 4 and all(not a & b and a | b == files for a, b in seen)
    assert sorted(len(b) for _, b in seen) == [6] * 4 and set.union(*(b for _, b in seen)) == files
    assert len(ranked) == 24 and {one.file for one in ranked} == files
    for folds in (1, 25):
        with pytest.raises(ValueError, match="from 2 to 24"):
            rank_out_of_fold(train, block(), bears, folds=folds)
    assert ImageClassifierCleaner(None, ranked=ranked).vocab == ["black", "grizzly", "teddy"]


# ------------------------------------------------------------------------------------- the choices
def show(cleaner, label, side="training"):
    "The cards on the screen, once a hand has switched to a class and a side."
    _ = cleaner.widget
    cleaner._screen.side.value, cleaner._screen.label.value = side, label
    return cleaner._screen.cards[: len(cleaner._screen.grid.children)]


def test_choices_survive_classes_sides_and_pages(learn):
    cleaner = ImageClassifierCleaner(learn, max_n=3)
    show(cleaner, "grizzly")[1].menu.index = 1
    deleted = cleaner._screen.cards[1].one.file
    cleaner._screen.on.click()
    card = cleaner._screen.cards[0]
    changed = card.one.file
    assert changed != deleted and [label for label, _ in card.menu.options][2:] == [
        "black",
        "teddy",
    ]
    card.menu.index = 3
    show(cleaner, "teddy", "validation")[0].menu.index = 2
    third = cleaner._screen.cards[0].one.file
    for label in ("black", "grizzly"):
        assert [card.menu.index for card in show(cleaner, label, "validation")].count(0) == len(
            cleaner._screen.grid.children
        )
    assert [c.menu.index for c in show(cleaner, "grizzly")] == [0, 1, 0]
    cleaner._screen.on.click()
    assert cleaner._screen.cards[0].menu.index == 3
    assert [cleaner.fns[i] for i in cleaner.delete()] == [deleted]
    got = {(cleaner.fns[i], label) for i, label in cleaner.change()}
    assert got == {(changed, "teddy"), (third, "black")}
    assert "1 file to delete, 2 to give" in cleaner._screen.status.value
    cleaner._screen.cards[0].menu.index = 0
    assert [cleaner.fns[i] for i, _ in cleaner.change()] == [third]
    assert not cleaner._screen.back.disabled


def test_largest_loss_is_shown_first(learn):
    cleaner = ImageClassifierCleaner(learn, max_n=4)
    cards = show(cleaner, "black")
    losses = [card.one.loss for card in cards]
    rest = [one.loss for one in cleaner.shown("black")]
    assert len(cards) == 4 and losses == rest[:4] == sorted(rest, reverse=True)[:4]


def test_the_book_runs_unchanged(learn, bears):
    path = bears
    cleaner = ImageClassifierCleaner(learn)
    show(cleaner, "grizzly")[0].menu.index = 1
    gone = cleaner._screen.cards[0].one.file
    show(cleaner, "teddy")[1].menu.index = 2
    moved = cleaner._screen.cards[1].one.file
    for _ in range(2):  # the second time there is nothing left to do
        for idx in cleaner.delete():
            cleaner.fns[idx].unlink()
        for idx, cat in cleaner.change():
            shutil.move(str(cleaner.fns[idx]), path / cat)
    assert not gone.exists() and not moved.exists() and len(get_image_files(path)) == 23
    with pytest.raises(DataError, match=re.escape(gone.name) + ".* is not there any more"):
        cleaner.apply()


def test_last_word_counts():
    choices = Choices()
    choices.delete("a/1.jpg")
    choices.change(Path("a/1.jpg"), "b")
    assert choices.deleted == [] and choices.changed == [(Path("a/1.jpg"), "b")]
    choices.keep("a/1.jpg")
    choices.keep("a/2.jpg")
    assert len(choices) == 0 and choices.of("a/1.jpg") == ("keep",)


def test_ten_thousand_pictures_make_thirty_thumbnails(learn, bears, monkeypatch):
    real, made = get_image_files(bears / "teddy")[0], []
    monkeypatch.setattr(widgets, "_thumbnail", lambda file, *size: made.append(file) or "data:,")
    kinds = [f"kind {i}" for i in range(50)]
    ranked = [
        Judged(
            real.parent.parent / kinds[i % 50] / f"{i}.jpg", kinds[i % 50], "x", 0.5, i, "training"
        )
        for i in range(10_000)
    ]
    start = time.process_time()
    cleaner = ImageClassifierCleaner(None, ranked=ranked)
    cards = show(cleaner, "kind 7")
    assert len(cards) == 30 and cards[0].one.loss == 9957
    assert len(made) == 60  # of the class shown at first, and of this one
    show(cleaner, "kind 8")
    show(cleaner, "kind 7")
    assert len(made) == 90 and len(cleaner._screen.cards) == 30
    assert time.process_time() - start < 10


def test_cards_have_words_for_those_who_cannot_see(learn):
    cleaner = ImageClassifierCleaner(learn, opts=["panda"])
    card = show(cleaner, "grizzly")[0]
    assert f'alt="{card.one.file.name}, labelled grizzly"' in card.picture.value
    assert f"loss {card.one.loss:.2f}" in card.picture.value and card.one.said in card.picture.value
    assert card.menu.description == card.one.file.name
    assert [name for name, _ in card.menu.options] == ["Keep", "Delete", "black", "teddy", "panda"]


def test_names_are_no_html(tmp_path):
    odd = tmp_path / "<b>x" / '"><script>1.jpg'
    ranked = [Judged(odd, odd.parent.name, "<i>", 0.5, 1.0, "training")]
    cleaner = ImageClassifierCleaner(None, ranked=ranked)
    html = show(cleaner, "<b>x")[0].picture.value
    assert "<script>" not in html and "<b>" not in html and "<i>" not in html


def test_a_class_may_be_called_delete(bears):
    (bears / "teddy").rename(bears / "Delete")
    cleaner = ImageClassifierCleaner(learner(block().dataloaders(bears, num_workers=0)))
    card = show(cleaner, "black")[0]
    card.menu.index = 2
    assert cleaner.delete() == [] and cleaner.change() == [
        (cleaner.fns.index(card.one.file), "Delete")
    ]
    assert cleaner.apply().changed[0][1].parent.name == "Delete"


def test_wrong_calls(learn):
    with pytest.raises(ValueError, match="max_n=0"):
        ImageClassifierCleaner(learn, max_n=0)
    one = Judged(Path("a/1.jpg"), "a", "a", 0.5, 1.0, "training")
    with pytest.raises(DataError, match="more than once"):
        ImageClassifierCleaner(None, ranked=[one, one])
    with pytest.raises(DataError, match="no pictures"):
        ImageClassifierCleaner(None, ranked=[])


# ------------------------------------------------------------------------------ moving and undoing
@pytest.fixture
def box(tmp_path):
    root = tmp_path / "box"
    for name in ("a/1.jpg", "a/2.jpg", "a/3.jpg", "b/2.jpg", "b/2-2.jpg", "b/4.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"this is {name}")
    return root


def clean(root):
    "Two deletions, and two changes of which one meets two names that are taken."
    delete = [root / "a/1.jpg", root / "b/4.jpg"]
    return clean_files(root, delete, [(root / "a/2.jpg", "b"), (root / "a/3.jpg", "new")])


def test_nothing_is_overwritten_and_all_comes_back(box):
    before = tree(box)
    done = clean(box)
    assert (box / "b/2-3.jpg").read_text() == "this is a/2.jpg"
    assert (box / "b/2.jpg").read_text() == "this is b/2.jpg"
    assert (box / ".trash/a/1.jpg").read_text() == "this is a/1.jpg"
    assert {file.name for file in get_image_files(box)} == {"2.jpg", "2-2.jpg", "2-3.jpg", "3.jpg"}
    assert "2 files moved to .trash, 2 to another class" in repr(done)
    assert str(box) not in repr(done)  # it may stand in a committed notebook
    journal = json.loads((box / ".trash/journal.json").read_text())
    assert [move["to"] for move in journal["rounds"][0]["moves"]] == [
        ".trash/a/1.jpg",
        ".trash/b/4.jpg",
        "b/2-3.jpg",
        "new/3.jpg",
    ]
    back = undo_cleaning(box)
    assert len(back.restored) == 4 and tree(box) == before
    with pytest.raises(DataError, match="nothing to undo"):
        undo_cleaning(box)


def test_rounds_are_undone_one_by_one(box):
    stages = [tree(box)]
    clean_files(box, change=[(box / "a/1.jpg", "b")])
    stages.append(tree(box))
    clean_files(box, delete=[box / "b/1.jpg"])
    (box / "a/1.jpg").write_text("another one")
    stages.append(tree(box))
    clean_files(box, delete=[box / "a/1.jpg"])
    assert undo_cleaning(box).rounds_left == 2
    (box / "a/1.jpg").unlink()
    undo_cleaning(box)
    undo_cleaning(box)
    assert tree(box) == stages[0]


def test_two_of_one_name_in_the_trash(box):
    before = tree(box)
    clean_files(box, delete=[box / "a/1.jpg"])
    (box / "a/1.jpg").write_text("second")
    clean_files(box, delete=[box / "a/1.jpg"])
    assert (box / ".trash/a/1-2.jpg").read_text() == "second"
    undo_cleaning(box)
    (box / "a/1.jpg").unlink()
    undo_cleaning(box)
    assert tree(box) == before


def test_two_files_that_want_one_name(box):
    (box / "c").mkdir()
    (box / "c/1.jpg").write_text("of c")
    before = tree(box)
    done = clean_files(box, change=[(box / "a/1.jpg", "b"), (box / "c/1.jpg", "b")])
    assert [target.name for _, target in done.changed] == ["1.jpg", "1-2.jpg"]
    undo_cleaning(box)
    assert tree(box) == before


def dies(root: Path, function: str, at: int) -> None:
    "Clean in a process of its own that is killed when it calls a function for the `at`-th time."
    child = os.fork()
    if child == 0:
        real, calls = getattr(os, function), []

        def killed(*args, **kwargs):
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            calls.append(1)
            return real(*args, **kwargs)

        with suppress(BaseException), mock.patch.object(os, function, killed):
            clean(root)
        os._exit(0)
    assert os.waitpid(child, 0)[1] in (0, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test forks")
@pytest.mark.parametrize("function", ["link", "unlink", "replace"])
@pytest.mark.parametrize("at", range(5))
def test_killed_between_moves(box, function, at):
    before = tree(box)
    dies(box, function, at)
    if (box / ".trash/journal.json").exists():
        undo_cleaning(box)
    else:  # killed before the journal was there: nothing was moved
        with cleaning._alone(box):  # the next one sweeps
            pass
    assert tree(box) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test forks")
def test_killed_while_undoing_and_then_cleaned_again(box):
    before = tree(box)
    dies(box, "link", 3)
    with mock.patch.object(
        os, "link", side_effect=[mock.DEFAULT, KeyboardInterrupt], wraps=os.link
    ):
        with pytest.raises(KeyboardInterrupt):
            undo_cleaning(box)
    assert (box / "a/2.jpg").exists() and not (box / "b/4.jpg").exists()  # half undone
    clean_files(box, delete=[box / "a/2.jpg"])
    undo_cleaning(box)
    undo_cleaning(box)
    assert tree(box) == before


def test_another_process_undoes(box):
    before = tree(box)
    clean(box)
    code = "import sys; from coursekit.cleaning import undo_cleaning; print(undo_cleaning(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, box], capture_output=True, text=True)
    assert done.stdout == "4 files back in place\n", done.stderr
    assert tree(box) == before


def test_another_place_for_the_whole_folder(box):
    before = tree(box)
    clean(box)
    moved = box.rename(box.with_name("elsewhere"))
    undo_cleaning(moved)
    assert tree(moved) == before


def test_a_file_that_took_the_place_is_not_overwritten(box):
    before = tree(box)
    clean(box)
    (box / "a/1.jpg").write_text("a new one")
    with pytest.raises(DataError, match=r"3 files went back, 1 cannot: .*a/1\.jpg: another file"):
        undo_cleaning(box)
    assert (box / "a/1.jpg").read_text() == "a new one"
    (box / "a/1.jpg").unlink()
    assert len(undo_cleaning(box).restored) == 1
    assert tree(box) == before


def test_a_file_that_is_gone_is_named(box):
    clean(box)
    (box / ".trash/a/1.jpg").unlink()
    with pytest.raises(DataError, match=r"a/1\.jpg: the file is gone from both places"):
        undo_cleaning(box)
    assert (box / "a/2.jpg").exists() and (box / "b/4.jpg").exists()


def test_all_or_nothing(box):
    before = tree(box)
    with pytest.raises(DataError, match=r"none\.jpg is not there any more, so nothing was moved"):
        clean_files(box, [box / "a/1.jpg", box / "a/none.jpg"])
    assert tree(box) == before
    no_more = [mock.DEFAULT, mock.DEFAULT, PermissionError(1, "no"), *[mock.DEFAULT] * 9]
    refused = mock.patch.object(Path, "rename", side_effect=OSError(18, "another disk"))
    with mock.patch.object(os, "link", side_effect=no_more, wraps=os.link), refused:
        with pytest.raises(DataError, match=r"a/2\.jpg cannot be moved to .*another disk"):
            clean(box)
    assert tree(box) == before


def test_where_files_cannot_have_two_names(box):
    before = tree(box)
    with mock.patch.object(os, "link", side_effect=PermissionError(1, "no links here")):
        clean(box)
        assert (box / "b/2-3.jpg").exists()
        with pytest.raises(FileExistsError):
            cleaning._move(box / "b/2.jpg", box / "b/2-2.jpg")
        undo_cleaning(box)
    assert tree(box) == before


def test_a_file_that_comes_while_we_move_is_not_overwritten(box):
    with mock.patch.object(cleaning, "_free", lambda target, taken: target):
        with pytest.raises(DataError, match=r"cannot be moved"):
            clean_files(box, change=[(box / "a/2.jpg", "b")])
    assert (box / "b/2.jpg").read_text() == "this is b/2.jpg" and (box / "a/2.jpg").exists()


@pytest.mark.parametrize(
    ("journal", "words"),
    [
        ("{", "cannot be used"),
        ('{"format": "coursekit cleaning 9", "rounds": []}', "format is 'coursekit cleaning 9'"),
        ("../../up.jpg", "outside the folder"),
        ("/etc/passwd", "outside the folder"),
        ('{"format": "coursekit cleaning 1", "rounds": []}', "does not say what was moved"),
        ('{"format": "coursekit cleaning 1", "rounds": [3]}', "cannot be used"),
        ('{"a":' * 100_000, "cannot be used"),
    ],
    ids=lambda text: text[:30],
)
def test_a_journal_that_cannot_be_trusted(box, journal, words):
    clean(box)
    file = box / ".trash/journal.json"
    good = json.loads(file.read_text())
    good["rounds"][0]["moves"][1]["from"] = journal
    file.write_text(journal if journal.startswith("{") else json.dumps(good))
    before = tree(box)
    with pytest.raises(DataError, match=words):
        undo_cleaning(box)
    assert tree(box) == before


@pytest.mark.parametrize("key", ["made", "size", "from"])
def test_a_journal_that_lacks_something(box, key):
    clean(box)
    file = box / ".trash/journal.json"
    found = json.loads(file.read_text())
    one = found["rounds"][0]
    del (one if key == "made" else one["moves"][0])[key]
    file.write_text(json.dumps(found))
    with pytest.raises(DataError, match="cannot be used"):
        undo_cleaning(box)
    assert (box / ".trash/a/1.jpg").exists()
    one["made"] = ["../elsewhere"]
    (box.parent / "elsewhere").mkdir()
    file.write_text(json.dumps(found))
    with pytest.raises(DataError, match="cannot be used"):
        undo_cleaning(box)
    assert (box.parent / "elsewhere").exists()


@pytest.mark.parametrize("label", ["", ".", "..", "../up", "x/y", "x\\y", "x\0y", ".trash"])
def test_labels_that_are_no_folders(box, label):
    with pytest.raises(ValueError, match="cannot be the name of a folder"):
        clean_files(box, change=[(box / "a/1.jpg", label)])


def test_a_file_elsewhere_and_a_file_named_twice(box, tmp_path):
    (tmp_path / "x.jpg").touch()
    with pytest.raises(DataError, match="does not lie in"):
        clean_files(box, delete=[tmp_path / "x.jpg"])
    with pytest.raises(ValueError, match="named twice"):
        clean_files(box, [box / "a/1.jpg"], [(box / "a/1.jpg", "b")])
    assert repr(clean_files(box)) == "nothing to do" and not (box / ".trash").exists()


@pytest.mark.parametrize("place", ["b/../a/1.jpg", "../other/1.jpg", "b/../../other/1.jpg"])
def test_no_way_round_by_dots(box, place):
    "It would be moved beside the trash, and the journal could not be read again."
    before = tree(box)
    (box.parent / "other").mkdir()
    (box.parent / "other" / "1.jpg").write_text("not ours")
    with pytest.raises(DataError, match="does not lie in"):
        clean_files(box, delete=[box / place])
    assert tree(box) == before and (box.parent / "other" / "1.jpg").exists()


def test_a_folder_that_is_reached_by_dots(box, monkeypatch):
    monkeypatch.chdir(box / "a")
    before = tree(box)
    clean_files("..", delete=["../a/1.jpg"], change=[("../a/2.jpg", "b")])
    assert not (box / "a" / "1.jpg").exists()
    undo_cleaning("..")
    assert tree(box) == before


def test_the_label_that_it_has(box):
    before = tree(box)
    assert repr(clean_files(box, change=[(box / "a/1.jpg", "a")])) == "nothing to do"
    assert tree(box) == before


def test_a_file_outside_of_any_class(box):
    (box / "top.jpg").write_text("top")
    with pytest.raises(DataError, match="in no folder of a class"):
        clean_files(box, change=[(box / "top.jpg", "b")])
    clean_files(box, delete=[box / "top.jpg"])
    undo_cleaning(box)
    assert (box / "top.jpg").read_text() == "top" and not (box / ".trash").exists()


def test_swept_before_the_lock_is_given_up(box):
    "Afterwards the files could be those of the next process."
    from filelock import FileLock

    class Watched(FileLock):
        def release(self, force=False):
            left.append((box / ".trash" / ".lock").exists())
            super().release(force)

    left = []
    with mock.patch("filelock.FileLock", Watched):
        clean_files(box, delete=[box / "a/1.jpg"])
        assert left[0]
        left.clear()
        undo_cleaning(box)
    assert not left[0] and not (box / ".trash").exists()


def test_labels_chosen_by_program_are_shown(learn):
    cleaner = ImageClassifierCleaner(learn)
    one = cleaner.ranked[0]
    for label in ("polar", one.label):
        cleaner.choices.change(one.file, label)
        card = widgets._Card(lambda *chosen: None, 100)
        card.fill(one, "", cleaner.vocab, cleaner.choices.of(one.file), 100)
        shown = {i: words for words, i in card.menu.options}[card.menu.value]
        assert shown == ("polar" if label == "polar" else "Keep")


def test_two_processes_do_not_clean_at_once(box):
    with cleaning._alone(box), mock.patch("filelock.FileLock.acquire", side_effect=timed_out()):
        with pytest.raises(DataError, match="another process is cleaning"):
            clean(box)


def timed_out():
    from filelock import Timeout

    return Timeout("lock")


def test_cleaner_applies_and_another_one_undoes(learn, bears):
    before = tree(bears)
    cleaner = ImageClassifierCleaner(learn, max_n=4)
    card = show(cleaner, "grizzly")[0]
    first, shown = card.one.file, len(cleaner.shown("grizzly"))
    card.menu.index = 1
    cleaner.choices.change(cleaner.shown("teddy", "validation")[0].file, "black")
    done = cleaner.apply()
    assert (len(done.deleted), len(done.changed)) == (1, 1)
    assert cleaner._screen.cards[0].one.file != first and len(cleaner.shown("grizzly")) == shown - 1
    assert cleaner.delete() == cleaner.change() == [] and len(get_image_files(bears)) == 23
    ImageClassifierCleaner(learner(block().dataloaders(bears, num_workers=0))).undo()
    assert tree(bears) == before
    with pytest.raises(DataError, match="nothing to undo"):
        cleaner.undo()


def test_after_undo_pictures_are_shown_again(learn):
    cleaner = ImageClassifierCleaner(learn)
    show(cleaner, "black")[2].menu.index = 1
    was = [card.one.file for card in show(cleaner, "black")]
    cleaner.apply()
    assert len(show(cleaner, "black")) == len(was) - 1
    cleaner.undo()
    assert [card.one.file for card in show(cleaner, "black")] == was
    assert cleaner._screen.cards[2].menu.index == 0


def test_all_of_a_class_may_go(learn, bears):
    before = tree(bears)
    cleaner = ImageClassifierCleaner(learn)
    for side in ("training", "validation"):
        for one in cleaner.shown("teddy", side):
            cleaner.choices.delete(one.file)
    _ = cleaner.widget
    cleaner.apply()
    assert not show(cleaner, "teddy") and "no pictures" in cleaner._screen.where.value
    cleaner.undo()
    assert tree(bears) == before


def test_sides_in_folders_of_their_own(bears):
    for i, file in enumerate(get_image_files(bears)):
        target = bears / ("valid" if i % 4 == 0 else "train") / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    for kind in KINDS:
        (bears / kind).rmdir()
    before = tree(bears)
    sides = block(splitter=GrandparentSplitter())
    cleaner = ImageClassifierCleaner(learner(sides.dataloaders(bears, num_workers=0)))
    one, two = cleaner.shown("black", "validation")[0], cleaner.shown("teddy", "training")[0]
    cleaner.choices.change(one.file, "teddy")
    cleaner.choices.delete(two.file)
    done = cleaner.apply()
    assert done.changed[0][1] == bears / "valid" / "teddy" / one.file.name
    assert done.deleted[0][1] == bears / ".trash" / "train" / "teddy" / two.file.name
    assert len(get_image_files(bears)) == 23
    cleaner.undo()
    assert tree(bears) == before


# -------------------------------------------------------------------------------- what is uploaded
def saved(image, form="png", **kwargs) -> bytes:
    image.save(data := BytesIO(), form, **kwargs)
    return data.getvalue()


def half_red(size=(40, 20)) -> Image.Image:
    "Left red, right blue."
    image = Image.new("RGB", size, (220, 20, 20))
    image.paste((20, 20, 220), (size[0] // 2, 0, *size))
    return image


def turned(by: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = by
    return exif


RED = half_red()
GOOD = {
    "plain.jpg": saved(RED, "jpeg", quality=95),
    "cmyk.jpg": saved(RED.convert("CMYK"), "jpeg", quality=95),
    "palette.png": saved(RED.quantize(8)),
    "clear.png": saved(RED.convert("RGBA")),
    "film.gif": saved(RED, "gif", save_all=True, append_images=[Image.new("RGB", RED.size)] * 3),
    "film.webp": saved(RED, "webp", save_all=True, append_images=[Image.new("RGB", RED.size)]),
    "turned.jpg": saved(RED.rotate(90, expand=True), "jpeg", quality=95, exif=turned(6)),
    "print.tiff": saved(RED, "tiff"),
    "old.bmp": saved(RED, "bmp"),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_pictures_keep_their_colours(name):
    picture = open_upload(GOOD[name])
    assert picture.size == (40, 20) and picture.mode == "RGB"
    left, right = picture.getpixel((5, 10)), picture.getpixel((35, 10))
    assert left[0] > 150 and left[2] < 100 and right[0] < 100 and right[2] > 150, (left, right)


def test_sixteen_bits_one_pixel_and_grey():
    deep = Image.fromarray(np.full((6, 5), 30_000, np.uint16))
    assert open_upload(saved(deep)).getpixel((0, 0)) == (117, 117, 117)
    assert open_upload(saved(Image.new("RGB", (1, 1), "red"))).size == (1, 1)
    assert open_upload(saved(Image.new("L", (3, 2), 7))).getpixel((0, 0)) == (7, 7, 7)
    assert open_upload(saved(Image.new("1", (3, 2), 1))).getpixel((0, 0)) == (255, 255, 255)


def see_through(mode: str) -> bytes:
    "Left clear over black, right half clear over black."
    picture = Image.new("LA", (40, 20), (0, 0))
    picture.paste((0, 128), (20, 0, 40, 20))
    if mode == "P":
        picture = Image.new("P", (40, 20))
        picture.putpalette([0, 0, 0, 127, 127, 127])
        picture.paste(1, (20, 0, 40, 20))
        return saved(picture, transparency=0)
    if mode == "webp":
        return saved(picture.convert("RGBA"), "webp", lossless=True, exact=True)
    return saved(picture.convert(mode))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "webp"])
def test_what_is_clear_is_white(mode, learn):
    picture = open_upload(see_through(mode))
    assert picture.mode == "RGB" and picture.getpixel((5, 10)) == (255, 255, 255)
    assert picture.getpixel((35, 10)) == pytest.approx((127, 127, 127), abs=1)
    # the model sees what the visitor sees
    onto_white = classify_upload(learn, saved(picture)).probabilities
    assert classify_upload(learn, see_through(mode)).probabilities == pytest.approx(onto_white)


def test_sixteen_clear_bits_are_not_cut():
    deep = Image.fromarray(np.full((6, 5), 30_000, np.uint16))
    assert open_upload(saved(deep, transparency=0)).getpixel((0, 0)) == (117, 117, 117)


def white(width: int, height: int) -> bytes:
    "A PNG of any size, made without making the picture."

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    row = b"\0" + b"\xff" * ((width + 7) // 8)
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + chunk(b"IDAT", zlib.compress(row * height))
        + chunk(b"IEND", b"")
    )


PHOTO = saved(Image.effect_noise((200, 200), 60).convert("RGB"), "jpeg")
BAD = {
    "text.jpg": (b"Dear model, what do you see?\nYours", "is text, not a picture"),
    "umlaut.jpg": ("Schöne Grüße ".encode() * 300, "is text, not a picture"),
    "page.jpg": (b"<!DOCTYPE html><title>Log in</title>", "is text, not a picture"),
    "drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    "half.jpg": (PHOTO[: len(PHOTO) // 2], "is damaged"),
    "start.jpg": (PHOTO[:100], "is damaged"),
    "half.png": (saved(Image.effect_noise((200, 200), 60))[:9000], "is damaged"),
    "start.png": (GOOD["clear.png"][:20], "is damaged"),
    "half.webp": (saved(Image.effect_noise((99, 99), 60), "webp")[:900], "is damaged"),
    "empty.jpg": (b"", "is empty"),
    "huge.png": (white(20_000, 20_000), "too many pixels"),
    "large.png": (white(9_000, 9_000), "has 9,000 x 9,000 pixels, at most 80,000,000"),
    "heavy.jpg": (bytes(200_000_000), "has 200.0 MB, and at most 10 MB"),
    "noise.jpg": (bytes(range(256)) * 9, "no picture that is opened"),
    "floats.tiff": (saved(Image.fromarray(np.ones((4, 4), np.float32)), "tiff"), "floats"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_uploads_are_refused_in_words(name):
    data, words = BAD[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=words):
            open_upload(data)


@pytest.mark.parametrize("name", ["huge.png", "large.png"])
def test_too_many_pixels_are_never_decoded(name, monkeypatch):
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match="pixels"):
        open_upload(BAD[name][0])


def test_limits_are_ours_to_set():
    with pytest.raises(DataError, match="at most 0 MB"):
        open_upload(GOOD["plain.jpg"], max_bytes=100)
    with pytest.raises(DataError, match="40 x 20 pixels"):
        open_upload(GOOD["plain.jpg"], max_pixels=799)
    assert open_upload(GOOD["plain.jpg"], max_pixels=800).size == (40, 20)


def test_a_spoilt_note_of_the_camera_is_no_crash():
    data = bytearray(GOOD["turned.jpg"])
    at = data.index(b"Exif\0\0") + 6
    data[at : at + 12] = b"\xff" * 12
    with suppress(DataError):
        assert open_upload(bytes(data)).mode == "RGB"


def test_any_bytes_are_answered_or_refused():
    rng = np.random.default_rng(0)
    for name, data in GOOD.items():
        for _ in range(25):
            spoilt = bytearray(data)
            for at in rng.integers(0, len(spoilt), 8):
                spoilt[at] = rng.integers(256)
            try:
                open_upload(bytes(spoilt), max_pixels=10_000_000)
            except DataError as error:
                assert str(error), name


# --------------------------------------------------------------------------------------- the answer
def test_answer_is_that_of_predict(learn):
    file = learn.dls.valid_ds.items[0]
    said, number, probabilities = learn.predict(file)
    answer = classify_upload(learn, Path(file).read_bytes(), "a.jpg", threshold=0)
    assert list(answer.probabilities) == list(learn.dls.vocab) and answer.name == "a.jpg"
    assert np.allclose(list(answer.probabilities.values()), probabilities, atol=1e-5)
    assert answer.label == said and answer.labels == (said,) and not answer.refused
    assert answer.probability == pytest.approx(probabilities[number].item(), abs=1e-5)
    assert answer.words.startswith(f"It is: {said}")


def fixed(learn, *scores):
    "Let the model always say the same."
    with torch.no_grad():
        learn.model[-1].weight.zero_()
        learn.model[-1].bias.copy_(torch.tensor(scores))
    return learn


def test_below_the_threshold_it_does_not_know(learn):
    fixed(learn, 0.0, 1.0, 0.0)  # 21, 58 and 21 %
    answer = classify_upload(learn, GOOD["plain.jpg"])
    assert answer.labels == () and answer.label == "grizzly" and answer.probability < 0.6
    assert (
        answer.words
        == "I don't know. My best guess is grizzly, 58%, and I want to be at least 70% sure."
    )
    assert classify_upload(learn, GOOD["plain.jpg"], threshold=0.5).labels == ("grizzly",)
    each = {"grizzly": 0.5, "black": 0.9, "teddy": 0.9}
    assert classify_upload(learn, GOOD["plain.jpg"], threshold=each).labels == ("grizzly",)
    assert classify_upload(learn, GOOD["plain.jpg"], threshold=[0.5, 0.9, 0.5]).labels == ()


@pytest.mark.parametrize("threshold", [70, -0.1, [0.5, 0.5], math.nan, {"black": 0.5}])
def test_a_threshold_that_is_none(learn, threshold):
    with pytest.raises(ValueError, match="a probability from 0 to 1"):
        classifier_app(learn, threshold=threshold)


class Labels:
    "Several labels as zeros and ones."

    kind, vocab = "multicategory", ["grizzly", "black", "teddy"]

    def __call__(self, labels):
        return torch.tensor([float(label in labels) for label in self.vocab])


@pytest.fixture
def multi(bears):
    several = DataBlock(
        (ImageBlock, TransformBlock(Labels())),
        get_image_files,
        get_y=lambda file: [file.parent.name],
        item_tfms=Resize(24),
    )
    return Learner(
        several.dataloaders(bears, num_workers=0), model(3), BCEWithLogitsLossFlat(thresh=0.6)
    )


def test_several_labels_and_none_of_these(multi):
    fixed(multi, 2.0, 0.3, 1.0)  # 88, 57 and 73 %
    answer = classify_upload(multi, GOOD["plain.jpg"])
    assert (
        answer.labels == ("grizzly", "teddy")
        and answer.words == "I see: grizzly (88%), teddy (73%)."
    )
    assert sum(answer.probabilities.values()) > 2
    assert classify_upload(multi, GOOD["plain.jpg"], threshold=[0.9, 0.5, 0.9]).labels == ("black",)
    none = classify_upload(fixed(multi, -2.0, -1.0, -3.0), GOOD["plain.jpg"])
    assert none.labels == () and none.words == "None of these. The nearest is black, 27%."


def test_uploads_to_a_learner_that_read_a_table(bears):
    files = [str(file.relative_to(bears)) for file in get_image_files(bears)]
    table = pd.DataFrame({"file": files, "label": [name.split("/")[0] for name in files]})
    learn = learner(ImageDataLoaders.from_df(table, bears, item_tfms=Resize(24), num_workers=0))
    whole = {
        label: p.item()
        for label, p in zip(learn.dls.vocab, learn.predict(table.iloc[0])[2], strict=True)
    }
    answer = classify_upload(learn, (bears / files[0]).read_bytes())
    assert answer.probabilities == pytest.approx(whole, abs=1e-5)


def test_a_model_that_fails_is_no_traceback(learn):
    learn.model = nn.Sequential(nn.Flatten(), nn.Linear(7, 3))
    answer = classify_upload(learn, GOOD["plain.jpg"])
    assert answer.words.startswith("No answer: the model failed") and "no fault" in answer.words
    assert answer.picture.size == (40, 20)


# ------------------------------------------------------------------------------------------ the app
def send(app, files: dict) -> str:
    when = datetime(2024, 1, 1, tzinfo=UTC)
    app.children[1].children[0].value = [
        {
            "name": name,
            "type": "",
            "size": len(data),
            "content": memoryview(data),
            "last_modified": when,
        }
        for name, data in files.items()
    ]
    assert app.children[1].children[0].value == ()
    return app.children[2].value


def test_app_answers_each_of_several_files(learn):
    page = send(
        classifier_app(learn),
        {"a.jpg": GOOD["plain.jpg"]}
        | {k: v[0] for k, v in BAD.items() if len(v[0]) < 9e6 and k < "i"},
    )
    assert (
        page.count("<img") == 1 and page.count("<table") == 1 and 'alt="The picture a.jpg"' in page
    )
    assert page.count('role="status"') > 5 and "Traceback" not in page
    assert (
        all(f">{kind}</th>" in page for kind in KINDS) and len(re.findall(r">\d+\.\d%<", page)) == 3
    )


def test_app_replaces_the_last_answer_and_looks_at_ten(learn):
    app = classifier_app(learn, max_files=2)
    page = send(app, {f"{i}.png": GOOD["palette.png"] for i in range(5)})
    assert page.count("<img") == 2 and "3 files more were not looked at: send at most 2" in page
    assert send(app, {"x.png": b""}).count("<img") == 0


def test_while_a_file_is_read_the_old_answer_is_gone(learn):
    page, during = classifier_app(learn), []
    send(page, {"old.png": GOOD["palette.png"]})
    assert "old.png" in page.children[2].value
    real = app.classify_upload

    def watched(*args, **kwargs):
        during.append(page.children[2].value)
        return real(*args, **kwargs)

    with mock.patch.object(app, "classify_upload", watched):
        send(page, {"new.png": GOOD["palette.png"], "more.png": GOOD["palette.png"]})
    assert len(during) == 2 and all("Looking at 2 files" in words for words in during)
    assert not any("old.png" in words or "<img" in words for words in during)


def test_app_writes_names_as_text(learn):
    page = send(classifier_app(learn, title="<i>"), {'"><script>x.jpg': GOOD["plain.jpg"]})
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_names_of_classes_are_text(bears):
    (bears / "teddy").rename(bears / "<b>$x$")
    learn = learner(block().dataloaders(bears, num_workers=0))
    app = classifier_app(learn)
    page = send(app, {"a.jpg": GOOD["plain.jpg"]})
    for html in (page, app.children[0].value):
        assert "&lt;b&gt;$x$" in html and "<b>" not in html
    cleaner = ImageClassifierCleaner(learn)
    cards = show(cleaner, "<b>$x$")
    assert cards and all("<b>" not in card.picture.value for card in cards)


def test_app_shows_the_picture_small_and_upright(learn):
    large = saved(half_red((2000, 1000)).rotate(90, expand=True), "jpeg", exif=turned(6))
    answer = classify_upload(learn, large)
    assert answer.picture.size == (400, 200)
    assert len(send(classifier_app(learn), {"a.jpg": large})) < 60_000


def test_app_with_many_labels_shows_some(learn):
    answer = app.Answer("a", "b", "1", 0.5, (), {str(i): i / 4950 for i in range(100)})
    page = app._bars(answer)
    assert page.count("<tr") == 12 and ">99<" in page and "and 88 other labels" in page


def test_both_forms_of_ipywidgets():
    new = ({"name": "a.jpg", "type": "", "size": 3, "content": memoryview(b"abc")},)
    old = {"a.jpg": {"metadata": {"name": "a.jpg", "size": 3}, "content": b"abc"}}
    assert uploaded(new) == uploaded(old) == [("a.jpg", b"abc")]
    assert uploaded(()) == uploaded({}) == []


def test_app_after_a_message_that_was_lost(learn):
    app = classifier_app(learn)
    old, again = app.children[1].children
    send(app, {"a.jpg": GOOD["plain.jpg"]})
    again.click()
    assert app.children[1].children[0] is not old
    assert "Nothing has arrived" in app.children[2].value and "<img" not in app.children[2].value
    assert "<img" in send(app, {"a.jpg": GOOD["plain.jpg"]})


def test_app_with_a_learner_that_was_exported(learn, tmp_path):
    exporting = pytest.importorskip("coursekit.exporting")
    answers = []
    torch.manual_seed(0)
    learn.model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 3))
    learn.export(tmp_path / "app")
    for one in (learn, exporting.load_learner(tmp_path / "app")):
        answers.append(classify_upload(one, GOOD["plain.jpg"], threshold=0).probabilities)
        assert "<img" in send(classifier_app(one), {"a.jpg": GOOD["plain.jpg"]})
    assert answers[0] == pytest.approx(answers[1], abs=1e-5) and set(answers[1]) == set(KINDS)


# ------------------------------------------------------------------------- the app as a notebook
@pytest.fixture
def exported(learn, tmp_path):
    torch.manual_seed(0)
    learn.model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 3))
    return learn.export(tmp_path / "which_bear.safetensors")


def test_notebook_of_an_app_has_the_title_of_its_model(exported, monkeypatch):
    import nbformat

    found = write_app(exported, threshold=dict.fromkeys(KINDS, 0.5))
    assert found == exported.with_name("app.ipynb")
    book = nbformat.read(found, as_version=4)
    nbformat.validate(book)
    assert book.metadata.title == "Which bear"
    monkeypatch.chdir(exported.parent)
    scope = {}
    code = book.cells[0].source.splitlines()
    exec("\n".join([*code[:-1], "made = " + code[-1]]), scope)
    assert "Which bear" in scope["made"].children[0].value


def test_notebook_elsewhere_names_its_model_whole(exported, tmp_path):
    found = write_app(exported, "Bär 'x' \"y\" <b>", notebook=tmp_path / "deep" / "my.ipynb")
    written = json.loads(found.read_text("utf-8"))
    source = "".join(written["cells"][0]["source"])
    assert repr(str(exported.absolute())) in source
    assert written["metadata"]["title"] == "Bär 'x' \"y\" <b>"
    compile(source, "cell", "exec")


def test_changed_notebook_is_never_written_over(exported):
    found = write_app(exported)
    found.write_text("mine")
    assert write_app(exported, "Another").read_text() == "mine"


def test_no_notebook_for_what_is_no_model(exported, tmp_path):
    (tmp_path / "no.safetensors").write_bytes(b"no")
    for wrong, error in (
        ({"model": tmp_path / "no.safetensors"}, DataError),
        ({"model": tmp_path / "missing.safetensors"}, DataError),
        ({"model": exported, "threshold": 70}, ValueError),
    ):
        with pytest.raises(error):
            write_app(**wrong)
    assert not (tmp_path / "app.ipynb").exists()


def test_voila_is_not_started_in_vain(exported, monkeypatch):
    book = write_app(exported)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DataError, match=f"port {port} .* another port"):
            app.voila_command(book, port)
    with pytest.raises(DataError, match="port 0: a number from 1 to 65535"):
        app.voila_command(book, 0)
    with pytest.raises(DataError, match="is not there"):
        app.voila_command(exported.with_name("none.ipynb"), port)
    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install coursekit\[app\]"):
        app.voila_command(book, port)


def test_open_app_makes_a_page_for_the_while(exported, monkeypatch, tmp_path):
    seen = {}

    class Voila:
        def __init__(self, command, env):
            page = Path(env["JUPYTER_PATH"].split(os.pathsep)[0])
            template = page / "voila" / "templates" / "coursekit" / "index.html.j2"
            seen.update(notebook=command[3], text=Path(command[3]).read_text("utf-8"))
            seen.update(template=template.read_text())

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def wait(self):
            return 0

    monkeypatch.setattr(app.subprocess, "Popen", Voila)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert app.open_app(exported, "Bears", port=port) == 0
    assert '"title": "Bears"' in seen["text"] and str(exported.absolute()) in seen["text"]
    assert "https://" in seen["template"] and not Path(seen["notebook"]).exists()
    assert not exported.with_name("app.ipynb").exists()
    # what lies beside the model, perhaps changed by hand, is what is shown
    written = write_app(exported)
    app.open_app(exported, port=port)
    assert seen["notebook"] == str(written)


def test_a_folder_opens_what_lies_in_it(exported, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(exported, alone / "m.safetensors")
    made = app._notebook_for(alone, tmp_path, None, None)
    assert made == tmp_path / "app.ipynb" and "m.safetensors" in made.read_text("utf-8")
    own = app.write_app(alone / "m.safetensors")
    assert app._notebook_for(alone, tmp_path, None, None) == own
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="it is a folder"):
        app._notebook_for(tmp_path / "empty", tmp_path / "alone" / "x", None, None)
