"""Collaborative filtering agrees with fastai and with the mathematics, and bad tables are told in words.

`collab_oracle.py` holds the questions; fastai's answers are in `fixtures/collab_oracle.json`.
"""

import copy
import functools
import json
import os
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from collab_oracle import FIXTURE, QUESTIONS, TOLERANCE, ask, given_weights
from fastcore.foundation import L
from in_browser import FLAGS, PHONE, system_browser
from oracle import differences
from playwright.sync_api import expect, sync_playwright
from sklearn.linear_model import Ridge
from sklearn.metrics import ndcg_score, recall_score
from test_app_browser import opened, serious, serving, write
from torch import nn

matplotlib.use("agg")
import matplotlib.pyplot as plt

import coursekit.all
import coursekit.collab
import coursekit.data
import coursekit.learner
import coursekit.training
import coursekit.vision
from coursekit.blocks import CategoryBlock
from coursekit.collab import (
    Embedding,
    EmbeddingDotBias,
    EmbeddingNN,
    Module,
    collab_learner,
    get_emb_sz,
    one_hot,
)
from coursekit.data import DateSplitter, GroupSplitter
from coursekit.events import Callback, LearnerError
from coursekit.exporting import load_learner
from coursekit.measures import accuracy
from coursekit.messages import DataError
from coursekit.optimizers import LazyAdam
from coursekit.ranking import ndcg_at_k, recall_at_k
from coursekit.ratings import CollabDataLoaders, Ratings, UnknownId, ids_of
from coursekit.recommender import Recommender, recommender_app

RECORD = json.loads(FIXTURE.read_text())
LIB = SimpleNamespace(**vars(coursekit.all))
LIB.L = L
RANGE = (0.5, 5.5)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    plt.close("all")


# ---------------------------------------------------------------- fastai
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [name for name in QUESTIONS if name != "signatures"])
def test_same_answer_as_fastai(name):
    found = list(differences(ask(name, LIB), RECORD["answers"][name], TOLERANCE[name], (), (name,)))
    shown = "\n".join(found[:30])
    assert not found, f"{len(found)} differences from fastai\n{shown}"


def test_every_question_was_answered():
    assert list(RECORD["answers"]) == list(QUESTIONS)
    assert RECORD["versions"]["fastai"].startswith("2.8")


@pytest.mark.parametrize("name", RECORD["answers"]["signatures"])
def test_arguments_are_those_of_fastai_and_ours_come_later(name):
    ours, theirs = ask("signatures", LIB)[name], RECORD["answers"]["signatures"][name]
    other = {"get_emb_sz": ("to", "dls"), "pca": ("x", "self")}.get(name, ())  # by place alone
    names = [other[1] if each in other else each for each in theirs["names"]]
    assert ours["names"][: len(names)] == names
    assert {key: ours["defaults"].get(key) for key in theirs["defaults"]} == theirs["defaults"]
    assert all(each in ours["defaults"] for each in ours["names"][len(names) :])


# ---------------------------------------------------------------- tables for the tests
def table(n: int = 150, users: int = 12, movies: int = 15, seed: int = 0) -> pd.DataFrame:
    "Users from 1 on, movies from 100 on, each pair once, 1 to 5 stars that have something to learn in them."
    random = np.random.default_rng(seed)
    pairs = random.permutation(users * movies)[:n]
    user, movie = pairs // movies, pairs % movies
    taste = random.normal(size=users)[user] * random.normal(size=movies)[movie]
    stars = 3 + taste + random.normal(size=movies)[movie] + random.normal(size=n) / 2
    return pd.DataFrame(
        {
            "user": user + 1,
            "movie": movie + 100,
            "rating": stars.round().clip(1, 5).astype(int),
            "title": [f"Film {each}" for each in movie],
            "day": np.arange(n)[::-1],
        }
    )


TABLE = table()


def loaders(ratings=TABLE, **options) -> CollabDataLoaders:
    return CollabDataLoaders.from_df(ratings, **{"seed": 1, "bs": 16} | options)


def learner(ratings=TABLE, epochs: int = 2, loading=None, **options):
    torch.manual_seed(0)
    dls = loaders(ratings, **(loading or {}))
    learn = collab_learner(dls, **{"n_factors": 4, "y_range": RANGE} | options)
    if epochs:
        quiet(learn, "fit_one_cycle", epochs, 0.05)
    return learn


def quiet(learn, method: str, *arguments, **options):
    with learn.no_bar(), learn.no_logging():
        return getattr(learn, method)(*arguments, **options)


def epochs_of(learn) -> list[list]:
    return learn.recorder.values  # noqa: PD011 (no table)


NET = {"use_nn": True, "layers": [8, 5], "config": {"ps": [0.1, 0.2], "embed_p": 0.05}}
KINDS = {"dot": {}, "net": NET, "sparse": {"sparse": True}, "free": {"y_range": None}}


@pytest.fixture(scope="module", params=KINDS)
def learned(request):
    torch.set_num_threads(1)
    return learner(**KINDS[request.param])


@pytest.fixture(scope="module")
def learn():
    torch.set_num_threads(1)
    return learner(loading={"title_name": "title"})


@pytest.fixture(scope="module")
def recommender(learn):
    return Recommender(learn)


# ---------------------------------------------------------------- bad tables
def with_gap(column: str, value=None) -> pd.DataFrame:
    return TABLE.assign(**{column: TABLE[column].astype(object).where(TABLE.index != 7, value)})


MIXED = TABLE.assign(user=[str(u) if i % 2 else u for i, u in enumerate(TABLE["user"])])
ID = "and an id is a number or a text"
DAYS = pd.Timestamp("2020-01-01") + pd.to_timedelta(TABLE["day"], "D")
BAD = {  # what is wrong -> table, options, what the error says
    "no user": (with_gap("user"), {}, "1 of 150 rows have no 'user', the first is row 7.*dropna"),
    "no movie": (with_gap("movie", np.nan), {}, "1 of 150 rows have no 'movie'"),
    "no rating": (with_gap("rating", pd.NA), {}, "1 of 150 rows have no 'rating'"),
    "mixed ids": (MIXED, {}, r"'user' has ids of several types.*a number.*text.*astype\(str\)"),
    "words": (with_gap("rating", "good"), {}, "the rating 'good' in row 7 is no finite number"),
    "infinite": (with_gap("rating", np.inf), {}, "the rating inf in row 7 is no finite number"),
    "empty": (TABLE[:0], {}, "the table of ratings is empty"),
    "two columns": (TABLE[["user", "movie"]], {}, "at least three columns"),
    "misspelt": (TABLE, {"item_name": "film"}, "no column 'film' among .*'movie'"),
    "misspelt user": (TABLE, {"user_name": "usr"}, "no column 'usr'"),
    "misspelt rating": (TABLE, {"rating_name": "stars"}, "no column 'stars'"),
    "misspelt title": (TABLE, {"title_name": "name"}, "no column 'name' for the titles"),
    "a column twice": (TABLE, {"item_name": "user"}, "three columns, and these are"),
    "two of one name": (
        TABLE.set_axis(["user", "movie", "rating", "user", "day"], axis=1),
        {},
        "a name of a column stands twice in .*'user'",
    ),
    "lists for users": (TABLE.assign(user=[[u] for u in TABLE["user"]]), {}, ID),
    "lists for movies": (TABLE.assign(movie=[[m] for m in TABLE["movie"]]), {}, ID),
    "the id #na#": (
        TABLE.astype({"movie": str}).replace({"movie": {"103": "#na#"}}),
        {},
        "'movie' has the id '#na#', which stands for unknown ids",
    ),
    "dates": (TABLE.assign(rating=DAYS), {}, "the ratings are datetime64.*numbers are wanted"),
    "spans": (TABLE.assign(rating=DAYS - DAYS[0]), {}, "the ratings are timedelta64"),
    "complex": (TABLE.assign(rating=TABLE["rating"] + 1j), {}, "the ratings are complex128"),
    "mean of words": (
        pd.concat([TABLE, TABLE[:1]]).assign(rating="good"),
        {"duplicates": "mean"},
        "the rating 'good' in row 0 is no finite number",
    ),
    "nothing to train on": (TABLE, {"valid_pct": 1}, "valid_pct=1 leaves none of 150"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_bad_table_is_told_in_words(wrong):
    ratings, options, words = BAD[wrong]
    with pytest.raises(DataError, match=words):
        loaders(ratings, **options)


@pytest.mark.parametrize("given", [[(1, 2, 3)], {"user": [1]}, Path("ratings.csv"), "x", None])
def test_only_tables_are_taken(given):
    kind = type(given).__name__
    with pytest.raises(TypeError, match=f"takes a table of pandas, not a {kind}; from_csv"):
        loaders(given)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_share_lies_between_0_and_1(share):
    with pytest.raises(ValueError, match=r"valid_pct=.*between 0 and 1"):
        loaders(valid_pct=share)


def test_without_validation():
    learn = learner(loading={"valid_pct": 0}, epochs=1)
    assert len(learn.dls.train_ds) == len(TABLE) and len(learn.dls) == 1


def test_table_smaller_than_a_batch():
    pairs, stars = loaders(bs=1000).one_batch()
    assert pairs.shape == (120, 2) and stars.shape == (120,)


@pytest.mark.parametrize("y_range", [(1.5, 5.5), (0.5, 4.5)])
@pytest.mark.parametrize("use_nn", [False, True])
def test_rating_outside_the_range(y_range, use_nn):
    for options in ({"y_range": y_range}, {"config": {"y_range": y_range}}):
        with pytest.raises(ValueError, match="ratings from 1 to 5"):
            collab_learner(loaders(), use_nn=use_nn, **options)


@pytest.mark.parametrize(
    "y_range",
    [
        5,
        (),
        (0, 3, 5.5),
        (5.5, 0.5),
        (1, 1),
        (0, np.nan),
        "05",
        (0, "5"),
        (0, None),
    ],
)
def test_range_is_two_rising_numbers(y_range):
    refused = pytest.raises(ValueError, match=r"y_range=.*the lowest and the highest prediction")
    for use_nn in (False, True):
        with refused:
            collab_learner(loaders(), use_nn=use_nn, y_range=y_range)
    with refused:
        EmbeddingDotBias(3, 4, 5, y_range)
    with refused:
        EmbeddingNN([(4, 2), (5, 2)], [3], y_range=y_range)


@pytest.mark.parametrize("use_nn", [False, True])
def test_range_in_config_is_kept(use_nn):
    config = {"y_range": [0.5, 5.5]}
    model = collab_learner(loaders(), use_nn=use_nn, config=config).model.eval()
    assert model.y_range == RANGE and config == {"y_range": [0.5, 5.5]}
    with torch.no_grad():
        for layer in (model.layers[-2].bias,) if use_nn else (model.i_bias.weight,):
            layer.fill_(1e4)
        assert model(torch.tensor([[1, 1]])).item() == 5.5


ONCE = {"last": [1, 2, 5], "mean": [2, 2.5, 4]}


def test_duplicates():
    again = TABLE[:3].assign(rating=[1, 2, 5])
    twice = pd.concat([TABLE.assign(rating=3), again])
    with pytest.warns(UserWarning, match="6 rows rate what the same user.*duplicates='last'"):
        dls = loaders(twice)
    assert sum(map(len, (dls.train_ds, dls.valid_ds))) == 153
    same = [(kind, *each) for kind in (int, str, "category") for each in ONCE.items()]
    for kind, how, stars in same:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dls = loaders(twice.astype({"rating": kind}), duplicates=how, valid_pct=0)
        assert len(dls.train_ds) == 150
        found = {tuple(pair): star for pair, star in zip(*by_name(dls), strict=True)}
        assert [found[pair] for pair in zip(again["user"], again["movie"], strict=True)] == stars
    with pytest.raises(ValueError, match="'keep', 'last' or 'mean'"):
        loaders(duplicates="first")


def by_name(dls) -> tuple[list, list]:
    "Pairs of ids, and ratings, of the training rows."
    (numbers, stars), vocabs = dls.train_ds.tensors, list(dls.classes.values())
    pairs = [[vocab[i] for vocab, i in zip(vocabs, row, strict=True)] for row in numbers.tolist()]
    return pairs, stars.tolist()


IDS = {
    "numbers": lambda user: user,
    "text": lambda user: user.astype(str),
    "text of pandas": lambda user: user.astype("string"),
    "numbers with gaps": lambda user: user.astype("Int64"),
    "small numbers": lambda user: user.astype(np.int8),
    "large numbers": lambda user: user.astype("uint64") + 2**63,
    "very large numbers": lambda user: user.astype(object) + 2**70,
    "below nought": lambda user: -user,
    "fractions": lambda user: user / 4,
    "category": lambda user: user.astype("category"),
    "ordered": lambda user: pd.Series(
        pd.Categorical(user, categories=range(40, -1, -1), ordered=True)
    ),
    "category of text": lambda user: user.astype(str).astype("category"),
    "dates": lambda user: pd.Timestamp("2020-01-01") + pd.to_timedelta(user, "D"),
    "numpy's": lambda user: pd.Series([np.int64(each) for each in user], dtype=object),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_many_types(kind):
    ids = IDS[kind](TABLE["user"])
    dls = loaders(TABLE.assign(user=ids))
    known = sorted(pd.unique(ids.iloc[dls.train_ds.indices]))
    assert list(dls.classes["user"]) == ["#na#", *known]
    number = dict(zip(known, range(1, 99), strict=False))
    assert dls.train_ds.tensors[0][:, 0].tolist() == [
        number[each] for each in ids.iloc[dls.train_ds.indices]
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = dls.test_dl(TABLE.assign(user=ids)[:16])
    assert asked.one_batch()[0][:, 0].tolist() == [number[each] for each in ids[:16]]


def test_ratings_as_text_or_category():
    wanted = loaders().train_ds.tensors[1]
    for kind in (str, "string", "category", "Int64", np.float16):
        assert loaders(TABLE.astype({"rating": kind})).train_ds.tensors[1].equal(wanted)


@pytest.mark.parametrize("index", [np.zeros(150, int), np.arange(150)[::-1], list("abc" * 50)])
def test_index_of_the_table_does_not_matter(index):
    ours, other = loaders(title_name="title"), loaders(TABLE.set_axis(index), title_name="title")
    for one, two in zip(ours.loaders, other.loaders, strict=True):
        pairs = zip(one.dataset.tensors, two.dataset.tensors, strict=True)
        assert all(a.equal(b) for a, b in pairs)
    assert ours.ids.titles == other.ids.titles


def test_columns_without_names():
    dls = loaders(TABLE.set_axis(range(5), axis=1))
    assert list(dls.classes) == [0, 1] and dls.valid.one_batch()[0].shape[1] == 2


# ---------------------------------------------------------------- splits
def test_splits_of_ones_own():
    dls = loaders(splitter=DateSplitter("day", 0.2))
    days = [TABLE["day"].iloc[side.indices] for side in (dls.train_ds, dls.valid_ds)]
    assert days[0].max() < days[1].min() and len(days[1]) == 30
    dls = loaders(splitter=GroupSplitter("user", 0.25, seed=3))
    users = [set(TABLE["user"].iloc[side.indices]) for side in (dls.train_ds, dls.valid_ds)]
    assert not users[0] & users[1]
    assert list(dls.classes["user"]) == ["#na#", *sorted(users[0])]
    assert not dls.valid_ds.tensors[0][:, 0].any()  # all of them unknown


HALF = np.arange(150) < 75


@pytest.mark.parametrize(
    "sides, words",
    [
        (([], range(150)), "the splitter leaves no rating to train on"),
        ((np.array([], int), np.arange(150)), "the splitter leaves no rating to train on"),
        ((HALF, ~HALF), "gave true and false, positions are wanted"),
        ((HALF.tolist(), (~HALF).tolist()), "gave true and false, positions are wanted"),
        ((pd.Series(HALF), pd.Series(~HALF)), "gave true and false, positions are wanted"),
        (HALF, "must give two lists of positions"),
        (range(150), "must give two lists of positions"),
        (None, "must give two lists of positions"),
        ((range(100), range(99, 150)), "put 1 items on both sides, number 99 for one"),
        (([3, 3], [4]), "names item 3 more than once"),
        ((range(100), range(100, 151)), "gave the index 150 for 150 items"),
        (([0, -1], [5]), "gave the index -1 for 150 items"),
        (([0.5], [1]), "0.5 is no position"),
        ((["a"], ["b"]), "'a' is no position"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_splits_that_cannot_be(sides, words):
    with pytest.raises(DataError, match=words):
        loaders(splitter=lambda ratings: sides)


@pytest.mark.parametrize("splitter", [0.2, "random", ([1], [2]), HALF])
def test_splitter_is_a_function(splitter):
    with pytest.raises(TypeError, match=r"(?s)splitter=.*a function of the table is wanted"):
        loaders(splitter=splitter)


def test_splitter_may_leave_no_validation():
    dls = loaders(splitter=lambda ratings: (torch.arange(150), []))
    assert len(dls) == 1 and len(dls.train_ds) == 150


def test_same_seed_same_split_and_without_one_another():
    assert loaders().valid_ds.indices.tolist() == loaders().valid_ds.indices.tolist()
    assert loaders(seed=2).valid_ds.indices.tolist() != loaders().valid_ds.indices.tolist()
    assert (
        loaders(seed=None).valid_ds.indices.tolist() != loaders(seed=None).valid_ds.indices.tolist()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_reproducible(kind):
    runs = [learner(**KINDS[kind]) for _ in range(2)]
    first, second = (epochs_of(run) for run in runs)
    assert first == second
    states = [run.model.state_dict() for run in runs]
    assert all(states[0][key].equal(states[1][key]) for key in states[0])
    assert first[-1][0] < first[0][0]  # it learns


# ---------------------------------------------------------------- prediction
def test_prediction_in_all_forms(learned):
    row = TABLE.iloc[0]
    wanted = learned.predict({"user": row["user"], "movie": row["movie"]})
    assert wanted[0] == wanted[1] == wanted[2]
    user, movie = int(row["user"]), int(row["movie"])
    for form in (
        row,
        (user, movie),
        [user, movie],
        (np.int64(user), np.int16(movie)),
        torch.tensor([user, movie]),
        (torch.tensor(user), torch.tensor(movie)),
        {"movie": movie, "user": user, "more": "x"},
        next(TABLE.itertuples()),
    ):
        assert learned.predict(form)[0] == wanted[0]
    with torch.no_grad():
        number = [learned.dls.classes[name].o2i[row[name]] for name in ("user", "movie")]
        assert learned.model.eval()(torch.tensor([number]))[0] == pytest.approx(wanted[0])


def test_prediction_without_a_column(learned):
    with pytest.raises(DataError, match="no column 'movie'"):
        learned.predict({"user": 1, "film": 100})
    with pytest.raises(DataError, match=r"a row is \(user, movie\), and \(1,\) is too short"):
        learned.predict((1,))
    with pytest.raises(DataError, match="no column 'user', which the model was trained with"):
        learned.dls.test_dl(TABLE.rename(columns={"user": "usr"}))


@pytest.mark.parametrize(
    "user, movie, named",
    [
        (999, 100, ["'user'.*999"]),
        (1, 999, ["'movie'.*999"]),
        (999, 888, ["'user'.*999", "'movie'.*888"]),
        ("1", 100, ["'user'.*'1'.*here an id is text, in training it was a number"]),
        (None, 100, ["'user'.*None"]),
    ],
)
def test_unknown_ids_are_the_mean_and_named(learned, user, movie, named):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found = learned.predict((user, movie))[0]
    assert [each.category for each in heard] == [UnknownId] * len(named)
    for warning, words in zip(heard, named, strict=True):
        assert re.search(words, str(warning.message))
    model = copy.deepcopy(learned.model).eval()
    tables = [layer.weight for layer in model.modules() if isinstance(layer, Embedding)]
    with torch.no_grad():
        for weight in tables:
            weight[0] = weight[1:].mean(0)
        classes = learned.dls.classes
        numbers = [
            vocab.o2i.get(i, 0) for vocab, i in zip(classes.values(), (user, movie), strict=True)
        ]
        assert found == pytest.approx(model(torch.tensor([numbers])).item(), abs=1e-6)


def test_loss_of_users_that_training_never_saw():
    learn = learner(loading={"splitter": GroupSplitter("user", 0.25, seed=3)}, epochs=1)
    model, rows = learn.model, learn.dls.valid_ds.tensors
    person, bias = model.u_weight.weight[1:].mean(0), model.u_bias.weight[1:].mean()
    items = rows[0][:, 1]
    scores = model.i_weight(items) @ person + bias + model.i_bias(items)[:, 0]
    stars = torch.sigmoid(scores) * 5 + 0.5
    loss = F.mse_loss(stars, rows[1]).item()
    assert learn.validate()[0] == pytest.approx(loss) == epochs_of(learn)[-1][1]


@pytest.mark.parametrize("kind", ["dot", "sparse", "net"])
def test_mean_row_is_there_whenever_the_model_is_asked(kind):
    def is_mean():
        layers = [m.weight for m in learn.model.modules() if isinstance(m, Embedding)]
        return [torch.allclose(weight[0], weight[1:].mean(0)) for weight in layers]

    class Stop(Callback):
        def before_batch(self):
            if self.learn.training and self.learn.iter == 3:
                raise KeyboardInterrupt

    learn = learner(epochs=0, **KINDS[kind])
    assert not any(is_mean())
    learn.predict((1, 100))
    assert all(is_mean())
    with pytest.raises(KeyboardInterrupt):
        quiet(learn, "fit", 1, 0.1, cbs=Stop())
    assert all(is_mean())
    quiet(learn, "lr_find", show_plot=False)
    assert all(is_mean())


@pytest.mark.parametrize("labels", [False, True])
def test_tables_to_predict(learned, labels):
    rows = TABLE.iloc[[5, 3, 77, 3]]
    preds, targets = learned.get_preds(dl=learned.dls.test_dl(rows, with_labels=labels))
    assert preds.tolist() == pytest.approx(
        [learned.predict(rows.iloc[i])[0] for i in range(4)], abs=1e-6
    )
    if labels:
        assert targets.tolist() == rows["rating"].tolist()
        loss = learned.validate(dl=learned.dls.test_dl(rows, with_labels=True))[0]
        assert loss == pytest.approx(F.mse_loss(preds, targets).item())
    else:
        assert targets is None


def test_tables_to_predict_in_other_forms(learned):
    rows = TABLE.iloc[[5, 3, 77]]
    wanted = learned.get_preds(dl=learned.dls.test_dl(rows))[0]
    pairs = list(zip(rows["user"], rows["movie"], strict=True))
    dicts = [{"movie": movie, "user": user} for user, movie in pairs]
    for form in (pairs, dicts, rows[["movie", "user"]], rows.astype({"user": "category"})):
        assert learned.get_preds(dl=learned.dls.test_dl(form))[0].equal(wanted)
    with pytest.warns(UnknownId, match="2 in number, 77 for one"):
        learned.dls.test_dl(rows.assign(user=[77, 78, 77]))
    with pytest.raises(DataError, match="no column 'rating'"):
        learned.dls.test_dl(rows[["user", "movie"]], with_labels=True)
    for nothing in (rows[:0], []):
        for labels in (False, True):
            with pytest.raises(DataError, match="there is nothing to predict"):
                learned.dls.test_dl(nothing, with_labels=labels)
    assert learned.dls.test_dl(rows, bs=2).one_batch()[0].shape == (2, 2)


@pytest.mark.parametrize("form", ["dicts", "tuples", "lists", "itertuples", "series", "text"])
def test_ratings_to_compare_with_in_other_forms(learned, form):
    rows = TABLE.iloc[[5, 3, 77]]
    plain = rows[["user", "movie", "rating"]]
    wanted = learned.dls.test_dl(rows, with_labels=True).one_batch()
    given = {
        "dicts": plain[["rating", "movie", "user"]].to_dict("records"),
        "tuples": list(plain.itertuples(index=False, name=None)),
        "lists": plain.to_numpy().tolist(),
        "itertuples": list(rows.itertuples()),
        "series": [rows.iloc[i] for i in range(3)],
        "text": plain.astype({"rating": str}),
    }[form]
    found = learned.dls.test_dl(given, with_labels=True).one_batch()
    assert all(one.equal(two) for one, two in zip(found, wanted, strict=True))
    assert learned.dls.test_dl(given).one_batch()[0].equal(wanted[0])


@pytest.mark.parametrize(
    "rows, words",
    [
        ([(1, 100)], r"a row is \(user, movie, rating\), and \(1, 100\) is too short"),
        ([{"user": 1, "movie": 100}], "no column 'rating'"),
        ([(1, 100, None)], "the rating None in row 0 is no finite number"),
        ([(1, 100, 3), (1, 100, "good")], "the rating 'good' in row 1 is no finite number"),
        ("ratings.csv", "test_dl takes several items"),
    ],
)
def test_ratings_to_compare_with_are_told_if_bad(learned, rows, words):
    with pytest.raises(DataError, match=words):
        learned.dls.test_dl(rows, with_labels=True)


# ---------------------------------------------------------------- export, save, copy
FRESH = """
import json, sys, warnings
import pandas as pd
from coursekit.exporting import load_learner
found = []
for file in sys.argv[2:]:
    learn = load_learner(file)
    rows = pd.read_csv(sys.argv[1])
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        unknown = learn.predict((999, "no such film"))[0]
    preds = learn.get_preds(dl=learn.dls.test_dl(rows))[0]
    found.append([preds.tolist(), unknown, [w.category.__name__ for w in heard]])
print(json.dumps(found))
"""


def test_export_to_a_fresh_process(tmp_path):
    options = KINDS | {"titles": {}}
    made = [
        learner(**kind, loading={"title_name": "title"} if name == "titles" else None)
        for name, kind in options.items()
    ]
    files = [learn.export(tmp_path / f"{i}") for i, learn in enumerate(made)]
    TABLE[:20].to_csv(tmp_path / "rows.csv", index=False)
    run = subprocess.run(
        [sys.executable, "-c", FRESH, tmp_path / "rows.csv", *files],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    for learn, (preds, unknown, heard) in zip(made, json.loads(run.stdout), strict=True):
        assert preds == learn.get_preds(dl=learn.dls.test_dl(TABLE[:20]))[0].tolist()
        with pytest.warns(UnknownId):
            assert unknown == learn.predict((999, "no such film"))[0]
        assert heard == ["UnknownId", "UnknownId"]


def test_loaded_learner_knows_ids_and_titles(learn, tmp_path):
    loaded = load_learner(learn.export(tmp_path / "model"))
    ids = ids_of(loaded.dls)
    assert ids.classes == learn.dls.classes and ids.titles == learn.dls.ids.titles
    assert get_emb_sz(loaded.dls) == get_emb_sz(learn.dls)
    with pytest.raises(DataError, match="noise is not known"):
        Recommender(loaded)
    ours, theirs = Recommender(learn, noise=0.9), Recommender(loaded, noise=0.9)
    answers = {100: 5, 104: 1}
    pd.testing.assert_frame_equal(ours.suggest(answers), theirs.suggest(answers))
    for ask_it in (theirs.questions, lambda: theirs.ratings_of(1)):
        with pytest.raises(DataError, match="ratings"):
            ask_it()


def test_loaded_learner_takes_a_table_at_once(learn, tmp_path):
    loaded = load_learner(learn.export(tmp_path / "model"))
    sides = [loaded.dls.train_ds, loaded.dls.valid_ds]
    assert [type(side) for side in sides] == [Ratings] * 2 and not any(map(len, sides))
    many = pd.concat([TABLE] * 20, ignore_index=True)
    loader = loaded.dls.test_dl(many)
    assert type(loader.source) is Ratings and len(loader.source) == 3000
    assert loader.one_batch()[0].shape == (3000, 2)  # in large batches, as for validation
    wanted = learn.get_preds(dl=learn.dls.test_dl(many))[0]
    assert loaded.get_preds(dl=loader)[0].equal(wanted)
    with pytest.warns(UnknownId, match="3000 in number, 1000 for one") as heard:
        loaded.dls.test_dl(many.assign(user=range(1000, 4000)))
    assert len(heard) == 1


@pytest.mark.parametrize("gap", [None, np.nan, pd.NA])
def test_missing_title_is_the_id(gap, tmp_path):
    titles = TABLE["title"].astype(object).where(TABLE["movie"] != 103, gap)
    learn = learner(TABLE.assign(title=titles), epochs=0, loading={"title_name": "title"})
    wanted = [f"Film {i}" for i in range(15)]
    wanted[3] = "103"
    loaded = load_learner(learn.export(tmp_path / "model"))
    for made in (learn, loaded):
        assert ids_of(made.dls).titles == wanted
        found = Recommender(made, noise=0.9).suggest({100: 5}, n=99)
        assert set(found["title"]) == set(wanted) - {"Film 0"}


def test_column_of_items_may_be_the_titles():
    assert loaders(title_name="movie").ids.titles == [str(i) for i in range(100, 115)]


def test_save_and_load(tmp_path):
    for kind in KINDS.values():
        learn = learner(**kind, epochs=1, loading={"path": tmp_path})
        before = learn.predict((1, 100))[0]
        learn.save("model")
        quiet(learn, "fit", 1, 0.1)
        assert learn.predict((1, 100))[0] != before
        assert learn.load("model").predict((1, 100))[0] == before
        quiet(learn, "fit", 1, 0.1)


def test_copies(learned):
    state = learned.model.state_dict()
    for other in (copy.deepcopy(learned.model), pickle.loads(pickle.dumps(learned.model))):
        assert all(state[key].equal(value) for key, value in other.state_dict().items())
        assert not {p.data_ptr() for p in other.parameters()} & {
            p.data_ptr() for p in learned.model.parameters()
        }
    again = pickle.loads(pickle.dumps(learned))
    assert again.predict((1, 100))[0] == learned.predict((1, 100))[0]


class Pair(Module):
    def __init__(self, n=2):
        self.first, self.n = nn.Linear(n, n), n


class Three(Pair):
    def __init__(self):
        super().__init__(3)
        self.register_buffer("seen", torch.zeros(2))
        self.own = nn.Parameter(torch.ones(2))


class Old(Module):
    def __init__(self):
        nn.Module.__init__(self)
        super().__init__()
        self.own = nn.Parameter(torch.ones(2))


def test_module_needs_no_super():
    assert len(list(Pair().parameters())) == 2 and isinstance(Pair(), nn.Module)
    assert list(Three().state_dict()) == ["own", "seen", "first.weight", "first.bias"]
    assert len(list(Old().parameters())) == 1
    for made in (Pair(5), Three(), Old()):
        for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert str(other) == str(made) and other.training
            assert all(other.state_dict()[k].equal(v) for k, v in made.state_dict().items())
    with pytest.raises(TypeError):
        Module(1)


def test_loaders_on_a_device(learned):
    assert {batch.device.type for batch in learned.dls.cpu().one_batch()} == {"cpu"}
    assert learned.dls.new(bs=5).train.one_batch()[0].shape == (5, 2)
    assert loaders(device="cpu", val_bs=3).valid.one_batch()[0].shape == (3, 2)


# ---------------------------------------------------------------- the book
def test_chapter_1(tmp_path, capsys):
    space = {}
    exec("from coursekit.all import *", space)
    TABLE[["user", "movie", "rating"]].to_csv(tmp_path / "ratings.csv", index=False)
    space["path"] = tmp_path
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*single group of layers")
        exec(
            "dls = CollabDataLoaders.from_csv(path/'ratings.csv')\n"
            "learn = collab_learner(dls, y_range=(0.5,5.5))\n"
            "learn.fine_tune(2)\n"
            "learn.show_results()\n",
            space,
        )
    shown = capsys.readouterr().out
    assert "valid_loss" in shown and "predicted" in shown and "movie" in shown


CHAPTER_8 = """
ratings = pd.read_csv(path/'u.data', delimiter='\\t', header=None,
                      names=['user','movie','rating','timestamp'])
ratings.head()
last_skywalker = np.array([0.98,0.9,-0.9])
movies = pd.read_csv(path/'u.item',  delimiter='|', encoding='latin-1',
                     usecols=(0,1), names=('movie','title'), header=None)
ratings = ratings.merge(movies)
dls = CollabDataLoaders.from_df(ratings, item_name='title', bs=64)
dls.show_batch()
n_users  = len(dls.classes['user'])
n_movies = len(dls.classes['title'])
n_factors = 5
user_factors = torch.randn(n_users, n_factors)
movie_factors = torch.randn(n_movies, n_factors)
one_hot_3 = one_hot(3, n_users).float()
assert torch.allclose(user_factors.t() @ one_hot_3, user_factors[3])

class DotProduct(Module):
    def __init__(self, n_users, n_movies, n_factors):
        self.user_factors = Embedding(n_users, n_factors)
        self.movie_factors = Embedding(n_movies, n_factors)
    def forward(self, x):
        users = self.user_factors(x[:,0])
        movies = self.movie_factors(x[:,1])
        return (users * movies).sum(dim=1)

x,y = dls.one_batch()
assert x.shape == (64, 2)
model = DotProduct(n_users, n_movies, 50)
learn = Learner(dls, model, loss_func=MSELossFlat())
learn.fit_one_cycle(1, 5e-3)

class DotProductBias(Module):
    def __init__(self, n_users, n_movies, n_factors, y_range=(0,5.5)):
        self.user_factors = Embedding(n_users, n_factors)
        self.user_bias = Embedding(n_users, 1)
        self.movie_factors = Embedding(n_movies, n_factors)
        self.movie_bias = Embedding(n_movies, 1)
        self.y_range = y_range
    def forward(self, x):
        users = self.user_factors(x[:,0])
        movies = self.movie_factors(x[:,1])
        res = (users * movies).sum(dim=1, keepdim=True)
        res += self.user_bias(x[:,0]) + self.movie_bias(x[:,1])
        return sigmoid_range(res, *self.y_range)

model = DotProductBias(n_users, n_movies, 50)
learn = Learner(dls, model, loss_func=MSELossFlat())
learn.fit_one_cycle(1, 5e-3, wd=0.1)

class T(Module):
    def __init__(self): self.a = torch.ones(3)
assert list(L(T().parameters())) == []
class T(Module):
    def __init__(self): self.a = nn.Parameter(torch.ones(3))
assert len(L(T().parameters())) == 1
class T(Module):
    def __init__(self): self.a = nn.Linear(1, 3, bias=False)
t = T()
assert len(L(t.parameters())) == 1 and type(t.a.weight) is nn.Parameter

def create_params(size):
    return nn.Parameter(torch.zeros(*size).normal_(0, 0.01))

class DotProductBias(Module):
    def __init__(self, n_users, n_movies, n_factors, y_range=(0,5.5)):
        self.user_factors = create_params([n_users, n_factors])
        self.user_bias = create_params([n_users])
        self.movie_factors = create_params([n_movies, n_factors])
        self.movie_bias = create_params([n_movies])
        self.y_range = y_range
    def forward(self, x):
        users = self.user_factors[x[:,0]]
        movies = self.movie_factors[x[:,1]]
        res = (users*movies).sum(dim=1)
        res += self.user_bias[x[:,0]] + self.movie_bias[x[:,1]]
        return sigmoid_range(res, *self.y_range)

model = DotProductBias(n_users, n_movies, 50)
learn = Learner(dls, model, loss_func=MSELossFlat())
learn.fit_one_cycle(1, 5e-3, wd=0.1)

movie_bias = learn.model.movie_bias.squeeze()
idxs = movie_bias.argsort()[:5]
assert all(isinstance(dls.classes['title'][i], str) for i in idxs)
idxs = movie_bias.argsort(descending=True)[:5]
[dls.classes['title'][i] for i in idxs]
g = ratings.groupby('title')['rating'].count()
top_movies = g.sort_values(ascending=False).index.values[:1000]
top_idxs = tensor([learn.dls.classes['title'].o2i[m] for m in top_movies])
movie_w = learn.model.movie_factors[top_idxs].cpu().detach()
movie_pca = movie_w.pca(3)
fac0,fac1,fac2 = movie_pca.t()
idxs = list(range(15))
X = fac0[idxs]
Y = fac2[idxs]
plt.figure(figsize=(12,12))
plt.scatter(X, Y)
for i, x, y in zip(top_movies[idxs], X, Y):
    plt.text(x,y,i, color=np.random.rand(3)*0.7, fontsize=11)
plt.show()

learn = collab_learner(dls, n_factors=50, y_range=(0, 5.5))
learn.fit_one_cycle(1, 5e-3, wd=0.1)
learn.model
movie_bias = learn.model.i_bias.weight.squeeze()
idxs = movie_bias.argsort(descending=True)[:5]
[dls.classes['title'][i] for i in idxs]
movie_factors = learn.model.i_weight.weight
idx = dls.classes['title'].o2i['Film 3 (1991)']
distances = nn.CosineSimilarity(dim=1)(movie_factors, movie_factors[idx][None])
idx = distances.argsort(descending=True)[1]
assert dls.classes['title'][idx] != 'Film 3 (1991)'

embs = get_emb_sz(dls)
class CollabNN(Module):
    def __init__(self, user_sz, item_sz, y_range=(0,5.5), n_act=100):
        self.user_factors = Embedding(*user_sz)
        self.item_factors = Embedding(*item_sz)
        self.layers = nn.Sequential(
            nn.Linear(user_sz[1]+item_sz[1], n_act),
            nn.ReLU(),
            nn.Linear(n_act, 1))
        self.y_range = y_range
    def forward(self, x):
        embs = self.user_factors(x[:,0]),self.item_factors(x[:,1])
        x = self.layers(torch.cat(embs, dim=1))
        return sigmoid_range(x, *self.y_range)

model = CollabNN(*embs)
learn = Learner(dls, model, loss_func=MSELossFlat())
learn.fit_one_cycle(1, 5e-3, wd=0.01)
learn = collab_learner(dls, use_nn=True, y_range=(0, 5.5), layers=[100,50])
learn.fit_one_cycle(1, 5e-3, wd=0.1)
"""


def test_chapter_8(tmp_path):
    "All its lines, but for one epoch instead of five; only the import is ours."
    TABLE[["user", "movie", "rating", "day"]].to_csv(
        tmp_path / "u.data", sep="\t", header=False, index=False
    )
    movies = [f"{100 + i}|Film {i} (1991)|01-Jan-1991||é" for i in range(15)]
    (tmp_path / "u.item").write_text("\n".join(movies), encoding="latin-1")
    space = {"__name__": "chapter"}
    exec("from coursekit.all import *", space)
    space["path"] = tmp_path
    exec(CHAPTER_8, space)


def test_a_table_is_shown(capsys):
    loaders(title_name="title").show_batch(max_n=3)
    shown = capsys.readouterr().out
    assert "Film " in shown and len(shown.strip().splitlines()) == 4


def test_rate_is_found():
    assert 1e-6 < quiet(learner(epochs=0), "lr_find", show_plot=False).valley < 10


# ---------------------------------------------------------------- models by the formula
def test_embedding_is_a_one_hot_product():
    layer, numbers = Embedding(6, 3), [4, 0, 4]
    hot = torch.stack([one_hot(i, 6) for i in numbers]).float()
    assert layer(torch.tensor(numbers)).allclose(hot @ layer.weight)
    assert 0 < layer.weight.abs().max() <= 0.02
    assert 0.4 < Embedding(300, 40, std=0.5).weight.std() / 0.88 < 0.6  # cut at two deviations


def test_sparse_gradients_are_the_dense_ones():
    pairs = torch.tensor([[1, 2], [1, 3], [0, 2], [1, 2]])
    found = []
    for sparse in (False, True):
        model = EmbeddingDotBias(3, 5, 6, RANGE, sparse=sparse)
        given_weights(model)
        (model(pairs) ** 2).mean().backward()
        found.append([p.grad for p in model.parameters()])
    assert all(grad.is_sparse for grad in found[1])
    for dense, sparse in zip(*found, strict=True):
        assert sparse.to_dense().allclose(dense, atol=1e-7)


def test_bias_and_weight_of_a_learner(learn):
    number = learn.dls.classes["movie"].o2i[104]
    assert learn.model.bias([104])[0] == learn.model.i_bias.weight[number, 0]
    assert learn.model.weight([104]).equal(learn.model.i_weight.weight[[number]].detach())
    assert learn.model.bias([1, 2, 2], is_item=False).shape == (3,)
    with pytest.raises(DataError, match="movie 999 is not among the 15"):
        learn.model.bias([104, 999])
    with pytest.raises(LearnerError, match="does not know the ids"):
        EmbeddingDotBias(3, 4, 5).bias([1])


@pytest.mark.parametrize("is_item", [False, True])
def test_bias_and_weight_of_ids_in_many_forms(learn, is_item):
    first = 100 if is_item else 1
    bias, weight = (
        functools.partial(f, is_item=is_item) for f in (learn.model.bias, learn.model.weight)
    )
    for nothing in ([], (), range(0), torch.tensor([], dtype=torch.long)):
        assert bias(nothing).shape == (0,) and weight(nothing).shape == (0, 4)
    for one in (
        first,
        np.int64(first),
        [torch.tensor(first)],
        [np.int64(first)],
        torch.tensor([first]),
    ):
        assert bias(one).equal(bias([first])) and weight(one).equal(weight([first]))
    two = [first, first + 1]
    for some in (torch.tensor(two), np.array(two), pd.Series(two), iter(two)):
        assert bias(some).equal(bias(two))


@pytest.mark.parametrize("one", [torch.tensor(100), np.array(100)])
def test_bias_of_a_number_without_dimension(learn, one):
    assert learn.model.bias(one).equal(learn.model.bias([100]))


@pytest.mark.parametrize("use_nn", [False, True])
@pytest.mark.parametrize("n_factors", [0, -1, 2.5, "3", None])
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_number_of_factors_is_a_whole_number(n_factors, use_nn):
    words = re.escape(f"n_factors={n_factors!r}: a whole number, at least 1")
    with pytest.raises(ValueError, match=words):
        collab_learner(loaders(), n_factors=n_factors, use_nn=use_nn)
    with pytest.raises(ValueError, match=words):
        EmbeddingDotBias(n_factors, 4, 5)


def test_options_of_the_net():
    model = learner(**NET, emb_szs={"user": 3}, epochs=0).model
    assert isinstance(model, EmbeddingNN) and model.emb_szs == [(13, 3), (16, 8)]
    with pytest.raises(ValueError, match="names 'usr', and the columns are 'user', 'movie'"):
        learner(use_nn=True, emb_szs={"usr": 3})
    with pytest.raises(ValueError, match="sparse=True goes with the dot product"):
        learner(use_nn=True, sparse=True)


@pytest.mark.parametrize("name", ["emb_szs", "layers", "config"])
def test_options_of_the_net_without_a_net_are_told(name):
    given = {"emb_szs": {"user": 3}, "layers": [4], "config": {"ps": 0.1}}[name]
    with pytest.warns(UserWarning, match=f"^{name} shape a net.*use_nn=True") as said:
        collab_learner(loaders(), 4, y_range=RANGE, **{name: given})
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collab_learner(loaders(), 4, config={"y_range": RANGE})


def test_other_loaders_are_refused():
    other = coursekit.loaders.DataLoaders(coursekit.loaders.DataLoader([(1, 2)]))
    for ask_it in (collab_learner, get_emb_sz, ids_of):
        with pytest.raises(TypeError, match="not made from ratings"):
            ask_it(other)


def test_components_need_rows_and_columns():
    for k in (0, 4):
        with pytest.raises(ValueError, match=rf"pca\({k}\) of a tensor of shape \(9, 3\)"):
            torch.rand(9, 3).pca(k)


# ---------------------------------------------------------------- LazyAdam
def steps(optimiser, weight: nn.Parameter, rows: list[list[int]], sparse: bool) -> torch.Tensor:
    aim = torch.sin(torch.arange(weight.numel(), dtype=weight.dtype)).view(weight.shape)
    for chosen in rows:
        optimiser.zero_grad()
        chosen = torch.tensor(chosen)
        found = F.embedding(chosen, weight, sparse=sparse)
        ((found - aim[chosen]) ** 2).sum().backward()
        optimiser.step()
    return weight.detach()


def weight() -> nn.Parameter:
    return nn.Parameter(torch.cos(torch.arange(21, dtype=torch.float64)).view(7, 3))


SOME = [[0, 2], [2, 2, 5], [1], [0, 0, 0, 6], [5, 1, 2], [0]] * 3
ALL = [[*range(7)], [3, *range(7), 3]] * 5


def test_lazy_adam_is_sparse_adam_without_decay():
    ours, theirs = weight(), weight()
    steps(LazyAdam([ours], 0.05, mom=0.8, sqr_mom=0.95, eps=1e-12, wd=0), ours, SOME, True)
    steps(torch.optim.SparseAdam([theirs], 0.05, (0.8, 0.95), eps=1e-12), theirs, SOME, True)
    assert ours.allclose(theirs, rtol=0, atol=1e-9)
    assert ours[[3, 4]].equal(weight()[[3, 4]])  # nobody asked for them


@pytest.mark.parametrize("sparse, rows", [(True, ALL), (False, ALL), (False, SOME)])
def test_lazy_adam_is_adamw_where_all_rows_move(sparse, rows):
    ours, theirs = weight(), weight()
    options = {"lr": 0.05, "eps": 1e-3}
    steps(LazyAdam([ours], mom=0.8, sqr_mom=0.95, wd=0.3, **options), ours, rows, sparse)
    adamw = torch.optim.AdamW([theirs], betas=(0.8, 0.95), weight_decay=0.3, **options)
    steps(adamw, theirs, rows, False)
    assert ours.allclose(theirs, rtol=0, atol=1e-12)


def test_lazy_adam_decays_only_rows_of_the_batch():
    ours = weight()
    steps(LazyAdam([ours], 0.05, wd=0.5), ours, [[1], [1, 4]], True)
    assert [i for i in range(7) if not ours[i].equal(weight()[i])] == [1, 4]


def test_lazy_adam_continues_from_its_state():
    ours, other = weight(), weight()
    steps(LazyAdam([ours], 0.05), ours, SOME, True)
    first = LazyAdam([other], 0.05)
    steps(first, other, SOME[:7], True)
    second = LazyAdam([other], 0.9)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert steps(second, other, SOME[7:], True).equal(ours)
    with pytest.raises(ValueError, match="lr=0: a learning rate is a number above 0"):
        LazyAdam([ours], lr=0)


# ---------------------------------------------------------------- recommender
def linear(people: torch.Tensor, noise: float = 0.7) -> Recommender:
    "Of a model without range, whose users are these: factors, and the bias in the last column."
    learn = learner(epochs=0, y_range=None, loading={"valid_pct": 0})
    model = learn.model
    with torch.no_grad():
        given_weights(model)
        model.u_weight.weight[1:], model.u_bias.weight[1:] = people[:, :-1], people[:, -1:]
    return Recommender(learn, noise=noise)


def rows_of(recommender: Recommender, answers: dict) -> tuple[np.ndarray, np.ndarray]:
    "Factors of the items that were answered, and what is left of the stars when the items' bias is gone."
    numbers = [recommender.ids.classes["movie"].o2i[item] for item in answers]
    left = np.array(list(answers.values()), float) - recommender.bias.numpy()[numbers]
    return recommender.items.numpy()[numbers], left


ANSWERS = {100: 5, 103: 1.5, 104: 4, 109: 2, 112: 3, 114: 5}


def test_person_is_the_normal_distribution_given_the_answers():
    "By the other form of the formula, from precisions; ours has gains."
    people = torch.from_numpy(np.random.default_rng(1).normal(0.3, 1, (12, 5)))
    found = linear(people)
    x, left = rows_of(found, ANSWERS)
    mean, precision = people.numpy().mean(0), np.linalg.inv(np.cov(people.numpy().T))
    person = np.linalg.solve(precision + x.T @ x / 0.49, precision @ mean + x.T @ left / 0.49)
    wanted = found.items.numpy() @ person + found.bias.numpy()
    np.testing.assert_allclose(found.expect(ANSWERS).numpy(), wanted, rtol=1e-4, atol=1e-5)
    empty = found.items.numpy() @ mean + found.bias.numpy()
    np.testing.assert_allclose(found.expect({}).numpy(), empty, rtol=1e-4, atol=1e-5)


def test_person_is_ridge_regression_where_users_are_round():
    people = torch.zeros(12, 5, dtype=torch.float64)
    people[range(5), range(5)], people[range(5, 10), range(5)] = 2.0, -2.0
    found = linear(people)
    x, left = rows_of(found, ANSWERS)
    ridge = Ridge(alpha=0.49 / (8 / 11), fit_intercept=False).fit(x, left)
    wanted = ridge.predict(found.items.numpy()) + found.bias.numpy()
    np.testing.assert_allclose(found.expect(ANSWERS).numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_with_a_range_it_is_one_step_of_newton_from_the_mean_person(recommender):
    answers = {100: 5, 104: 1.0}
    numbers = [recommender.ids.classes["movie"].o2i[item] for item in answers]
    x = recommender.items[numbers].clone()
    person = recommender.mean.clone().requires_grad_()
    stars = torch.sigmoid(x @ person + recommender.bias[numbers]) * 5 + 0.5
    slopes = torch.stack([torch.autograd.grad(s, person, retain_graph=True)[0] for s in stars])
    left = torch.tensor([5, 1.0], dtype=torch.float64) - stars.detach()
    precision = torch.linalg.inv(recommender.cov) + slopes.T @ slopes / recommender.noise**2
    new = recommender.mean + torch.linalg.solve(precision, slopes.T @ left / recommender.noise**2)
    wanted = torch.sigmoid(recommender.items @ new + recommender.bias) * 5 + 0.5
    assert recommender.expect(answers).allclose(wanted, atol=1e-5)


@pytest.mark.parametrize("loss_func", [None, nn.L1Loss(), F.l1_loss, nn.HuberLoss()])
def test_noise_is_the_deviation_of_the_training_ratings(loss_func):
    learn = learner(loss_func=loss_func)
    pairs, stars = learn.dls.train_ds.tensors
    with torch.no_grad():
        loss = F.mse_loss(learn.model.eval()(pairs), stars).item()
    assert Recommender(learn).noise == pytest.approx(loss**0.5, rel=1e-5)


@pytest.mark.parametrize("noise", [0, -1, 0.0, float("nan")])
def test_noise_is_above_nought(learn, noise):
    with pytest.raises(ValueError, match=f"noise={noise}.*a number above 0"):
        Recommender(learn, noise=noise)


def test_one_user_is_not_enough():
    def one(ratings):
        return np.flatnonzero(ratings["user"] == 3), np.flatnonzero(ratings["user"] != 3)

    with pytest.raises(DataError, match="with one user there is nothing to learn about people"):
        Recommender(learner(epochs=0, loading={"splitter": one}), noise=1.0)


@pytest.mark.parametrize("bias", [40.0, -40.0, 400.0, -1e4])
def test_no_nan_with_huge_biases(bias):
    learn = learner()
    with torch.no_grad():
        learn.model.i_bias.weight.fill_(bias)
    found = Recommender(learn)
    assert 0 < found.noise < 6
    for answers in ({}, {100: 5, 101: 1}, {100: 0.5, 101: 5.5}):
        assert found.expect(answers).isfinite().all()
        suggested = found.suggest(answers, n=99, reasons=99)
        assert len(suggested) == 15 - len(answers) and suggested["expected"].between(*RANGE).all()
        assert all(np.isfinite(much) for because in suggested["because"] for _, much in because)
    assert sorted(found.questions(99)) == list(range(100, 115))


@pytest.mark.parametrize("kind", ["free", "dot"])
def test_reasons_add_up(kind):
    found = Recommender(learner(**KINDS[kind]))
    scores = {"free": torch.clone, "dot": lambda stars: torch.logit((stars - 0.5) / 5)}[kind]
    whole = 0
    for answers in ({100: 5}, {100: 5, 105: 5}, ANSWERS):
        before, after = scores(found.expect({})), scores(found.expect(answers))
        for row in found.suggest(answers, n=99, reasons=99).itertuples():
            i = found.ids.classes["movie"].o2i[row.item]
            assert row.expected == pytest.approx(found.expect(answers)[i].item())
            assert all(much > 0 for _, much in row.because)
            assert [m for _, m in row.because] == sorted((m for _, m in row.because), reverse=True)
            if len(row.because) == len(answers):  # nothing speaks against it
                share = (row.expected - 0.5) / 5
                slope = 1 if kind == "free" else share * (1 - share) * 5
                added = ((after[i] - before[i]) * slope).item()
                assert sum(much for _, much in row.because) == pytest.approx(added, rel=1e-6)
                whole += 1
    assert whole > 5


def test_suggestions(recommender):
    found = recommender.suggest(ANSWERS, n=4)
    assert list(found.columns) == ["item", "title", "expected", "because"] and len(found) == 4
    assert found["expected"].is_monotonic_decreasing and not set(found["item"]) & set(ANSWERS)
    assert list(found["title"]) == [f"Film {item - 100}" for item in found["item"]]
    wanted = recommender.expect(ANSWERS)[1:].numpy().copy()
    wanted[[item - 100 for item in ANSWERS]] = -1
    assert list(found["item"]) == (np.argsort(-wanted)[:4] + 100).tolist()
    assert len(recommender.suggest(ANSWERS, n=99)) == 9
    assert not len(recommender.suggest(dict.fromkeys(range(100, 115), 4)))
    assert not len(recommender.suggest({}, min_ratings=1000))
    assert all(len(because) <= 1 for because in recommender.suggest(ANSWERS, reasons=1)["because"])
    assert not any(recommender.suggest({})["because"])
    few = recommender.suggest({}, n=99, min_ratings=9)
    counts = TABLE.iloc[recommender_rows()]["movie"].value_counts()
    assert 0 < len(few) < 15 and (counts[few["item"]] >= 9).all()


def recommender_rows() -> list[int]:
    return loaders().train_ds.indices.tolist()


@pytest.mark.parametrize(
    "answers, words",
    [
        ({999: 5}, "movie 999 is not among the 15"),
        ({"100": 5}, "movie '100' is not among"),
        ({"#na#": 5}, "movie '#na#' is not among"),
        ({100: 7}, "answers from 7 to 7, and the ratings of this model lie between 0.5 and 5.5"),
        ({100: float("nan")}, "no finite number"),
        ({100: None}, "an answer is a rating, a number: {100: None}"),
        ({100: pd.NA}, "an answer is a rating, a number"),
        ({100: "good"}, "an answer is a rating, a number: {100: 'good'}"),
        ({100: [4]}, "an answer is a rating, a number"),
        ([(100, 5), (104, None)], "an answer is a rating, a number"),
        (pd.Series({100: 5.0, 104: np.nan}), "no finite number"),
        ({None: 4}, "movie None is not among"),
        (None, "answer"),
        ("good", "answer"),
        ([100, 104], "answer"),
    ],
)
def test_answers_that_cannot_be(recommender, answers, words):
    for ask_it in (recommender.suggest, recommender.expect):
        with pytest.raises(DataError, match=words):
            ask_it(answers)


@pytest.mark.parametrize(
    "answers",
    [
        pd.Series({100: 5.0, 104: 1.0}),
        [(100, 5), (104, 1)],
        L((100, 5), (104, 1)),
        {100: "5", 104: torch.tensor(1.0)},
        {np.int64(100): np.float32(5), 104.0: 1},
    ],
)
def test_answers_in_other_forms(recommender, answers):
    wanted = recommender.suggest({100: 5, 104: 1})
    pd.testing.assert_frame_equal(recommender.suggest(answers), wanted)


@pytest.mark.parametrize("nothing", [{}, [], (), pd.Series(dtype=float)])
def test_no_answers_in_other_forms(recommender, nothing):
    pd.testing.assert_frame_equal(recommender.suggest(nothing), recommender.suggest({}))


@pytest.mark.parametrize("n", [0, -1, -99])
def test_lists_without_length_are_empty(recommender, n):
    columns = ["item", "title", "expected", "because"]
    assert not len(found := recommender.suggest({100: 5}, n=n)) and list(found) == columns
    assert not len(found := recommender.similar(100, n=n)) and list(found) == [
        *columns[:2],
        "cosine",
    ]
    assert recommender.questions(n) == []


def test_recommender_needs_a_dot_product():
    with pytest.raises(TypeError, match="the model is a EmbeddingNN"):
        Recommender(learner(**NET, epochs=0))


def test_questions_never_repeat(recommender):
    asked = recommender.questions(99)
    assert sorted(asked) == list(range(100, 115)) and recommender.questions(4) == asked[:4]
    assert recommender.questions(0) == []


def test_questions_prefer_what_is_known():
    learn = learner(epochs=0, loading={"valid_pct": 0})
    with torch.no_grad():
        given_weights(learn.model)
        learn.model.i_weight.weight[:], learn.model.i_bias.weight[:] = 0.5, 0.0
    asked = Recommender(learn, noise=1.0).questions(15)
    counts = TABLE["movie"].value_counts()
    assert counts[asked].is_monotonic_decreasing and counts.nunique() > 3


def test_questions_do_not_ask_the_same_in_other_words():
    learn = learner(table(180), epochs=0, y_range=None, loading={"valid_pct": 0})
    model, other = learn.model, learn.dls.classes["movie"].o2i[107]  # everybody knows all movies
    with torch.no_grad():
        given_weights(model)
        model.i_weight.weight[:] = torch.tensor([2.0, 0, 0, 0])
        model.i_weight.weight[other] = torch.tensor([0, 2.0, 0, 0])
    asked = Recommender(learn, noise=0.05).questions(3)
    assert 107 == asked[1]


def test_similar_has_itself_first(recommender):
    for item in range(100, 115):
        found = recommender.similar(item, n=5)
        assert found["item"][0] == item and found["cosine"][0] == pytest.approx(1)
        assert found["cosine"].is_monotonic_decreasing and found["item"].nunique() == 5
    factors = recommender.items[:, :-1].numpy()
    wanted = factors @ factors[3] / np.linalg.norm(factors, axis=1) / np.linalg.norm(factors[3])
    cosine = recommender.similar(102, n=99).set_index("item")["cosine"]
    assert len(cosine) == 15
    np.testing.assert_allclose(cosine[range(100, 115)], wanted[1:], atol=1e-9)
    assert list(recommender.similar(102, min_ratings=1000)["item"]) == [102]
    with pytest.raises(DataError, match="movie 1 is not among"):
        recommender.similar(1)


@pytest.mark.parametrize("length", [0.0, 1.0])
def test_similar_has_itself_first_where_all_are_alike(length):
    learn = learner(epochs=0)
    with torch.no_grad():  # all point the same way, or nowhere
        sizes = length * torch.arange(1.0, 17)[:, None]
        learn.model.i_weight.weight[:] = sizes * torch.tensor([[1.0, 2, 3, 4]])
    found = Recommender(learn, noise=0.9)
    for item in range(100, 115):
        same = found.similar(item, n=4)
        assert same["item"][0] == item and same["item"].nunique() == 4
        np.testing.assert_allclose(same["cosine"], length, atol=1e-9)
        assert list(found.similar(item, n=1, min_ratings=1000)["item"]) == [item]


def test_ratings_of_a_known_user(recommender):
    own = TABLE.iloc[recommender_rows()].query("user == 3")
    wanted = dict(zip(own["movie"], own["rating"].astype(float), strict=True))
    assert recommender.ratings_of(3) == wanted
    with pytest.raises(DataError, match="no ratings of user 99"):
        recommender.ratings_of(99)
    assert not set(recommender.suggest(recommender.ratings_of(3))["item"]) & set(wanted)


# ---------------------------------------------------------------- lists
def lists(users: int = 40, items: int = 25, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    scores = random.permutation(users * items).reshape(users, items).astype(float)  # no ties
    return torch.from_numpy(scores), torch.from_numpy(random.random((users, items)) < 0.08)


@pytest.mark.parametrize("k", [1, 5, 10, 25])
def test_measures_of_lists_are_those_of_sklearn(k):
    scores, relevant = lists()
    some = relevant.any(1)
    assert not some.all()  # users without anything to find do not count
    wanted = ndcg_score(relevant[some], scores[some], k=k)
    assert ndcg_at_k(scores, relevant, k) == pytest.approx(wanted, abs=1e-6)
    chosen = torch.zeros_like(relevant).scatter(1, scores.topk(k).indices, True)
    few = relevant[(relevant.sum(1) <= k) & some], chosen[(relevant.sum(1) <= k) & some]
    recall = recall_score(*(part.int().numpy() for part in few), average="samples", zero_division=0)
    enough = (relevant.sum(1) <= k) & some
    assert recall_at_k(scores[enough], relevant[enough], k) == pytest.approx(recall, abs=1e-6)


def test_measures_of_lists_by_hand():
    scores = torch.tensor([[5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]])
    relevant = torch.tensor([[1, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    assert recall_at_k(scores, relevant, 2) == pytest.approx((1 / 2 + 0) / 2)
    assert recall_at_k(scores, relevant, 1) == pytest.approx((1 + 0) / 2)  # one has room for one
    first = (1 + 1 / np.log2(4)) / (1 + 1 / np.log2(3))
    assert ndcg_at_k(scores, relevant, 3) == pytest.approx(first / 2)
    assert ndcg_at_k(scores, relevant, 5) == pytest.approx((first + 1 / np.log2(6)) / 2)
    perfect = relevant.float()
    for measure in (recall_at_k, ndcg_at_k):
        assert measure(perfect, relevant, 2) == 1
        assert measure(scores, relevant, 4) == measure(scores.exp() * 3, relevant, 4)


def test_ties_within_a_list_or_beyond_it_do_not_matter():
    relevant = torch.tensor([[True, True, False, False]])
    assert recall_at_k(torch.tensor([[1.0, 1, 0, 0]]), relevant, 2) == 1
    assert ndcg_at_k(torch.tensor([[1.0, 1, 0, 0]]), relevant, 3) == 1
    assert recall_at_k(torch.tensor([[0.0, 0, 1, 1]]), relevant, 2) == 0


@pytest.mark.parametrize("measure", [recall_at_k, ndcg_at_k])
@pytest.mark.parametrize("k", [1, 3, 25])
def test_degrees_of_relevance_are_yes_or_no(measure, k):
    scores, relevant = lists()
    grades = relevant * torch.from_numpy(np.random.default_rng(1).choice([0.5, 1, 5], (40, 25)))
    assert measure(scores, grades, k) == measure(scores, relevant, k) <= 1
    assert measure(scores, relevant.int() * 3, k) == measure(scores, relevant, k)


@pytest.mark.parametrize("measure", [recall_at_k, ndcg_at_k])
def test_what_must_not_be_on_the_list_is_never_found(measure):
    scores = torch.tensor([[1.0, 0, -torch.inf, -torch.inf]])
    for relevant in ([0, 0, 1, 0], [0, 0, 1, 1]):
        assert all(measure(scores, torch.tensor([relevant]), k) == 0 for k in (1, 2, 3, 4))
    assert recall_at_k(scores, torch.tensor([[1, 0, 1, 1]]), 4) == pytest.approx(1 / 3)
    assert ndcg_at_k(scores, torch.tensor([[1, 0, 1, 0]]), 4) == pytest.approx(
        1 / (1 + 1 / np.log2(3))
    )


def test_measures_of_lists_refuse():
    scores, relevant = lists()
    for measure in (recall_at_k, ndcg_at_k):
        for k in (0, 26):
            with pytest.raises(ValueError, match=f"k={k}: a list of 1 to 25 items"):
                measure(scores, relevant, k)
        with pytest.raises(ValueError, match="tables of the same shape"):
            measure(scores, relevant[:, 1:], 3)
        with pytest.raises(ValueError, match="nothing to find"):
            measure(scores, relevant & False, 3)
        with pytest.raises(ValueError, match="some scores are nan"):
            measure(scores.where(scores != 7, torch.nan), relevant, 3)


# ---------------------------------------------------------------- the app
def parts(app) -> tuple:
    head, *menus, button, answer = app.children
    return head, menus, button, answer


def test_app_by_its_widgets(recommender):
    head, menus, button, answer = parts(
        recommender_app(recommender, 3, 4, min_ratings=0, title="<i>Which?")
    )
    asked = recommender.questions(3)
    assert "&lt;i&gt;Which?" in head.value and "<h2" in head.value and answer.value == ""
    assert [menu.description for menu in menus] == [f"Film {item - 100}" for item in asked]
    button.click()
    assert "You have rated nothing" in answer.value and answer.value.count("<tr>") == 5
    menus[0].value, menus[2].value = 5, 1
    button.click()
    assert "rated nothing" not in answer.value
    found = recommender.suggest({asked[0]: 5, asked[2]: 1}, 4)
    for row in found.itertuples():
        assert f">{row.title}</td>" in answer.value and f">{row.expected:.1f}</td>" in answer.value
        for name, much in row.because:
            assert f"{name} (+{much:.2f})" in answer.value
    menus[0].label = menus[2].label = "not seen"
    button.click()
    assert "You have rated nothing" in answer.value


def test_app_escapes_titles():
    titles = TABLE.assign(title="<b>x" + TABLE["movie"].astype(str))
    made = Recommender(learner(titles, loading={"title_name": "title"}))
    _, menus, button, answer = parts(recommender_app(made, 2, min_ratings=0))
    menus[0].value = 5
    button.click()
    assert "<b>" not in answer.value and "&lt;b&gt;x1" in answer.value


def test_app_with_questions_and_ratings_of_ones_own(recommender):
    head, menus, button, answer = parts(
        recommender_app(recommender, questions=[103], ratings=(1, 2.5), title="", min_ratings=1000)
    )
    assert "<h2" not in head.value
    assert [name for name, _ in menus[0].options] == ["not seen", "1", "2.5"]
    button.click()
    assert "There is nothing to suggest: no other item has 1000 ratings." in answer.value
    with pytest.raises(DataError, match="movie 1 is not among"):
        recommender_app(recommender, questions=[1])


@pytest.mark.parametrize("ratings", [(1, 6), (0,), (1, float("nan")), [-1, 3]])
def test_app_refuses_ratings_that_the_model_cannot_give(recommender, ratings):
    with pytest.raises(ValueError, match=r"ratings=.*those of this model lie between 0\.5 and"):
        recommender_app(recommender, 2, ratings=ratings)


def test_app_asks_once(recommender):
    asked = [104, 103, 104, np.int64(103), 103.0]
    menus = parts(recommender_app(recommender, questions=asked))[1]
    assert [menu.description for menu in menus] == ["Film 4", "Film 3"]


STARS = {  # how the ratings are -> ratings, range, what can be chosen
    "few": (TABLE["rating"], RANGE, [1, 2, 3, 4, 5]),
    "thumbs": (TABLE["rating"] > 3, (-0.5, 1.5), [0, 1]),
    "halves": (np.arange(150) % 10 / 2 + 0.5, RANGE, [i / 2 for i in range(1, 11)]),
    "many": (np.arange(150) % 11 / 2 + 0.5, (0, 6), [0.5, 1.75, 3, 4.25, 5.5]),
}


@pytest.mark.parametrize("kind", STARS)
def test_app_offers_the_ratings_of_the_table(kind):
    stars, y_range, wanted = STARS[kind]
    everything = {"valid_pct": 0}
    learn = learner(TABLE.assign(rating=stars), epochs=0, y_range=y_range, loading=everything)
    found = Recommender(learn)
    assert found.choices() == wanted
    menu = parts(recommender_app(found, 1))[1][0]
    assert [value for _, value in menu.options] == ["", *wanted]
    assert [name for name, _ in menu.options] == ["not seen", *(f"{value:g}" for value in wanted)]


CELL = """
import numpy as np, pandas as pd, torch
from coursekit.collab import collab_learner
from coursekit.ratings import CollabDataLoaders
from coursekit.recommender import Recommender, recommender_app
torch.set_num_threads(1)
pairs = np.random.default_rng(0).permutation(180)[:150]
ratings = pd.DataFrame({"user": pairs // 15, "movie": pairs % 15, "rating": pairs % 5 + 1})
name = "A film with a long name, and then some more of it "
ratings["title"] = [f"<b>{name}{movie}" for movie in ratings["movie"]]
dls = CollabDataLoaders.from_df(ratings, seed=1, title_name="title")
learn = collab_learner(dls, n_factors=4, y_range=(0.5, 5.5))
with learn.no_bar(), learn.no_logging():
    learn.fit(1, 0.1)
recommender_app(Recommender(learn), n_questions=3, n=4, min_ratings=0)
"""


def test_app_in_a_browser(tmp_path):
    write(tmp_path, "app.ipynb", CELL)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=system_browser(), args=FLAGS)
        server = serving(tmp_path, "voila", ".", "--no-browser", "--Voila.ip=127.0.0.1")
        page = opened(chromium, f"{next(server)}/voila/render/app.ipynb", PHONE)
        button = page.get_by_role("button", name="Suggest")
        expect(button).to_be_visible(timeout=120_000)
        menus = page.get_by_role("combobox")
        expect(menus).to_have_count(3)
        menus.first.select_option("5")
        button.click()
        expect(page.get_by_role("status")).to_contain_text("you would rate these highest")
        expect(page.get_by_role("row")).to_have_count(5)
        assert page.get_by_role("cell").first.inner_text().startswith("<b>A film")
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        assert serious(page, ".widget-vbox") == []
        assert page.exceptions == []
        chromium.close()
        server.close()


# ---------------------------------------------------------------- one user, classes
@pytest.mark.parametrize(("column", "what"), [("user", "user"), ("movie", "item")])
def test_a_single_user_or_item_is_a_warning(column, what):
    table = TABLE.assign(**{column: 3})
    with pytest.warns(UserWarning, match=f"same {what} in the column '{column}', 3: there is"):
        dls = loaders(table, valid_pct=0.0, shuffle_train=False, duplicates="last")
    assert len(dls) == 1 and torch.equal(dls.train.one_batch()[0], next(iter(dls.train))[0])
    learn = collab_learner(dls, n_factors=3, y_range=(0, 5.5))
    before = learn.validate(0)[0]
    learn.fit(5, 0.1)
    assert learn.validate(0)[0] < before / 2


def test_ratings_as_classes(tmp_path):
    words = TABLE.assign(rating=np.where(TABLE["movie"] % 2 == 0, "good", "bad"))
    dls = loaders(words, y_block=CategoryBlock, seed=1)
    assert dls.kinds == ("ids", "category") and list(dls.vocab) == ["bad", "good"] and dls.c == 2
    x, y = dls.one_batch()
    assert y.dtype == torch.long
    movie = torch.tensor([int(dls.classes["movie"][i]) % 2 for i in x[:, 1].tolist()])
    assert torch.equal(y, 1 - movie)
    with pytest.raises(ValueError, match="use_nn=True"):
        collab_learner(dls)
    with pytest.warns(UserWarning, match="y_range=.* is left out"):
        learn = collab_learner(dls, use_nn=True, layers=[10], y_range=(0, 1), metrics=accuracy)
    learn.path = tmp_path
    learn.fit(20, 0.03)
    assert learn.validate()[1] > 0.9
    even = next(int(movie) for movie in words["movie"] if movie % 2 == 0)
    assert learn.predict({"user": words["user"][0], "movie": even})[0] == "good"
    _, targets = learn.get_preds(dl=dls.test_dl(words, with_labels=True))
    assert targets.tolist() == (words["rating"] == "good").astype(int).tolist()
    learn.export("classes.pkl")
    again = load_learner(tmp_path / "classes.pkl")
    assert again.predict({"user": words["user"][0], "movie": even})[0] == "good"
    with pytest.raises(ValueError, match="duplicates='mean' is for"):
        loaders(words, y_block=CategoryBlock, duplicates="mean")


# ---------------------------------------------------------------- what was measured
def test_the_table_of_parts_says_how_it_was_made():
    "Every way has five splits with the settings that were best where it looked for them."
    kept = Path(__file__).parents[1] / "bench" / "collab_parts.csv"
    lines = kept.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# python bench/collab_parts.py; after commit ")
    rows = pd.read_csv(kept, comment="#")
    assert not rows.duplicated(list(rows.columns[:8])).any()
    for _, way in rows.groupby("way"):
        tried, found = (way[way.stage == stage] for stage in ("choice", "result"))
        assert sorted(found.split) == [0, 1, 2, 3, 4]
        settings = ["lr", "wd", "epochs", "factors"]
        assert len(found[settings].drop_duplicates()) == 1
        chosen = tried.merge(found[settings].drop_duplicates(), on=settings)
        assert chosen.rmse.item() <= tried.rmse.min() + 5e-4
