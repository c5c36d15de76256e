"""Splits, labels, vocabularies, batches and pictures agree with fastai's on the same inputs.

`data_oracle.py` holds the questions; fastai's answers are in `fixtures/data_oracle.json`. Where we differ on purpose
`OTHERWISE` says so, and why.
"""

import json
from types import SimpleNamespace

import matplotlib
import pytest
from data_oracle import FIXTURE, QUESTIONS, TOLERANCE, ask, pets_folder
from oracle import differences

matplotlib.use("agg")
import matplotlib.pyplot as plt

import coursekit.all
import coursekit.augment
import coursekit.data
import coursekit.own_transforms

RECORD = json.loads(FIXTURE.read_text())
LIB = SimpleNamespace(**vars(coursekit.all))
OTHERWISE = {  # where in the answers -> why ours is different
    "categorize/a given vocab is sorted": "a vocabulary that is given keeps its order",
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_same_answer_as_fastai(name):
    tolerance = (0.0, TOLERANCE[name])
    found = list(
        differences(ask(name, LIB), RECORD["answers"][name], tolerance, OTHERWISE, (name,))
    )
    shown = "\n".join(found[:30])
    assert not found, f"{len(found)} differences from fastai\n{shown}"


def test_every_question_was_answered():
    assert list(RECORD["answers"]) == list(QUESTIONS)
    assert RECORD["versions"]["fastai"].startswith("2.8")


def test_exceptions_are_still_needed():
    "Each path of `OTHERWISE` exists in the answers."
    for path in OTHERWISE:
        answer = RECORD["answers"]
        for key in path.split("/"):
            assert key in answer, path
            answer = answer[key]


def test_a_difference_is_found():
    "The comparison itself: a number off, a type off, a key too many, a list too short."
    theirs = {"a": [1e-6, 2.0], "b": "x", "c": True}
    assert not list(differences(theirs | {"a": [1e-6, 2.0005]}, theirs, (0.001, 0.0)))
    assert not list(differences(theirs | {"a": [2e-6, 2.0]}, theirs, (0.001, 1e-5)))
    for ours in (
        {"a": [1e-6, 2.1]},
        {"a": [2e-6, 2.0]},
        {"b": "y"},
        {"c": 1},
        {"d": 0},
        {"a": [1e-6]},
        {"a": [1e-6, float("nan")]},
    ):
        assert len(list(differences(theirs | ours, theirs, (0.001, 0.0)))) == 1, ours


# ---------------------------------------------------------------- the book's own lines
@pytest.fixture
def pets(tmp_path):
    "A folder in the layout of PETS, and the book's block for it."
    block = LIB.DataBlock(
        blocks=(LIB.ImageBlock, LIB.CategoryBlock),
        get_items=LIB.get_image_files,
        splitter=LIB.RandomSplitter(seed=42),
        get_y=LIB.using_attr(LIB.RegexLabeller(r"(.+)_\d+.jpg$"), "name"),
        item_tfms=LIB.Resize(46),
        batch_tfms=LIB.aug_transforms(size=22, min_scale=0.75),
    )
    yield block, pets_folder(tmp_path / "pets") / "images"
    plt.close("all")


def titles() -> list[str]:
    return [ax.get_title() for ax in plt.gcf().axes]


def test_show_batch_as_in_the_book(pets):
    block, path = pets
    dls = block.dataloaders(path, num_workers=0, bs=12)
    dls.show_batch(max_n=9)
    assert len(titles()) == 9 and set(titles()) <= set(dls.vocab)
    dls.valid.show_batch(max_n=3, nrows=1)
    axes = plt.gcf().axes
    assert titles() == ["pug", "pug", "great_pyrenees"]  # the validation set, in its order
    assert len({round(ax.get_position().y0, 6) for ax in axes}) == 1
    dls.train.show_batch(max_n=8, nrows=2, unique=True)
    pictures = [ax.get_images()[0].get_array() for ax in plt.gcf().axes]
    assert len(pictures) == 8 and len(set(titles())) == 1
    assert any(
        (pictures[0] != each).any() for each in pictures[1:]
    )  # one item, different by chance


def test_new_and_summary_as_in_the_book(pets, capsys):
    block, path = pets
    padded = block.new(
        item_tfms=LIB.Resize(40, LIB.ResizeMethod.Pad, pad_mode="zeros"), batch_tfms=None
    )
    x, _ = padded.dataloaders(path, num_workers=0).valid.one_batch()
    assert x.shape[-2:] == (40, 40) and not x[:, :, 0].any() and x[:, :, 20].any()
    assert block.dataloaders(path, num_workers=0, bs=4).one_batch()[0].shape[-2:] == (22, 22)
    block.summary(path)
    told = capsys.readouterr().out
    assert "15 items" in told and "12 to train on, 3 to validate on" in told and "Resize" in told
    block.new(item_tfms=None).summary(path)  # pictures of unequal size: told, where and why
    assert "Resize" in capsys.readouterr().out
