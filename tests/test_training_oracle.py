"""Losses, metrics, steps, schedules, rates, what is recorded and what comes out agree with fastai's.

`training_oracle.py` holds the questions; fastai's answers are in `fixtures/training_oracle.json`, next to the inputs.
Where we differ on purpose `OTHERWISE` says so, and why.
"""

import json
import warnings
from types import SimpleNamespace

import matplotlib
import pytest
from oracle import MISSING, differences
from training_oracle import FIXTURE, INPUTS, QUESTIONS, TOLERANCE, ask

matplotlib.use("agg")

import coursekit.all
import coursekit.data
import coursekit.learner
import coursekit.training

RECORD = json.loads(FIXTURE.read_text())
LIB = SimpleNamespace(**vars(coursekit.all))
SHAPE = "a loss for each keeps the shape of the targets"
NOTHING = "an error in words where there is nothing to suggest; lr_find makes it nan and a warning"
OTHERWISE = {  # where in the answers -> why ours is different
    "focal/weight": "the factor (1 - p) is of the model's own p, as in the paper; theirs is of p to the weight",
    "binary_cross_entropy/none/loss": SHAPE,
    "mean_squared_error/none/loss": SHAPE,
    "metrics_of_a_batch/all classes are a guess": "that is always right, and so an error",
    "even_mults/(1e-05, 0.001, 1)": "an array for one group too",
    "suggestions_for_a_trained_model/minimum": NOTHING,
    "suggestions_for_a_trained_model/steep": NOTHING,
    "suggestions_for_a_trained_model/valley": NOTHING,
    "suggestions_for_a_trained_model/slide": NOTHING,
    "suggestions_for_a_trained_model/slide without two slopes alike": NOTHING,
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_same_answer_as_fastai(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning is no part of an answer
        ours = ask(name, LIB)
    found = list(differences(ours, RECORD["answers"][name], TOLERANCE[name], OTHERWISE, (name,)))
    shown = "\n".join(found[:30])
    assert not found, f"{len(found)} differences from fastai\n{shown}"


def test_every_question_was_answered_about_these_inputs():
    assert list(RECORD["answers"]) == list(QUESTIONS)
    assert RECORD["inputs"] == json.loads(json.dumps(INPUTS))
    assert RECORD["versions"]["fastai"].startswith("2.8")


@pytest.mark.parametrize("place", OTHERWISE)
def test_exceptions_are_still_needed(place):
    "What is said to be different exists in the answers, and is different."
    name = place.split("/")[0]
    mine, theirs = {name: ask(name, LIB)}, RECORD["answers"]
    for key in place.split("/"):
        mine, theirs = mine.get(key, MISSING), theirs[key]
    assert list(differences(mine, theirs, TOLERANCE[name]))
