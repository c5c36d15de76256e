"""Several labels: targets and their mistakes, metrics as elsewhere, thresholds, from pictures to words."""

import json
import warnings
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from fastcore.foundation import L
from multilabel_oracle import FIXTURE, QUESTIONS, ask, numbers
from oracle import differences
from PIL import Image
from sklearn import metrics as sk
from torch import nn

matplotlib.use("agg")
import matplotlib.pyplot as plt

import coursekit.all
import coursekit.data
import coursekit.learner
import coursekit.metrics
import coursekit.multilabel
import coursekit.training
from coursekit.blocks import DataBlock, ImageBlock, TransformBlock
from coursekit.bodies import create_body, efficientnet_lite0
from coursekit.data import ColReader, ColSplitter
from coursekit.datasets import URLs, untar_data
from coursekit.image_loaders import ImageDataLoaders
from coursekit.learner import Learner
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.losses import BCEWithLogitsLossFlat
from coursekit.measures import accuracy_multi
from coursekit.messages import DataError
from coursekit.metrics import APScoreMulti, F1ScoreMulti, Metric, PrecisionMulti, RecallMulti
from coursekit.multilabel import (
    EncodedMultiCategorize,
    MultiCategorize,
    MultiCategoryBlock,
    ThresholdCurve,
    average_precision,
    f1_multi,
    precision_multi,
    recall_multi,
    threshold_curve,
)
from coursekit.normalize import Normalize
from coursekit.pipeline import Datasets
from coursekit.resizing import Resize
from coursekit.transforms import IntToFloat, PILImage, ToTensor

RECORD = json.loads(FIXTURE.read_text())
LIB = SimpleNamespace(**vars(coursekit.all))


# ---------------------------------------------------------------- fastai
@pytest.mark.parametrize("name", QUESTIONS)
def test_same_answer_as_fastai(name):
    found = list(differences(ask(name, LIB), RECORD["answers"][name], (1e-6, 1e-9), (), (name,)))
    assert not found, "\n".join(found[:30])


# ---------------------------------------------------------------- targets
def learned(*items, **kwargs) -> MultiCategorize:
    made = MultiCategorize(**kwargs)
    made.setup(items)
    return made


@pytest.mark.parametrize(
    "kind", [list, tuple, set, frozenset, L, np.array, pd.Series, lambda labels: iter(labels)]
)
def test_labels_come_in_any_container(kind):
    made = learned(["sea", "sun"], ["tree"])
    assert made(kind(["tree", "sea"])).tolist() == [1, 0, 1]


def test_numbers_can_be_labels():
    made = learned([10, 2], np.array([7]), torch.tensor([2]))
    assert made.vocab == [2, 7, 10] and made(torch.tensor([10])).tolist() == [0, 0, 1]
    assert made.decode(torch.tensor([1.0, 0, 1])) == [2, 10]


def test_a_label_named_twice_is_there_once():
    made = learned(["sea", "sea"], ["sun"])
    assert made(["sea", "sea"]).tolist() == [1, 0]


def test_no_label_is_a_row_of_zeros_and_comes_back_as_an_empty_list():
    made = learned(["sea"], [], ["sun"])
    assert made([]).tolist() == [0, 0] and made.decode(made([])) == []


def test_true_and_false_are_decoded_too():
    assert learned(["sea", "sun"]).decode(torch.tensor([False, True])) == ["sun"]


def test_unknown_labels():
    with pytest.raises(DataError, match="'lake' is not among the 1"):
        learned(["sea"])(["sea", "lake"])
    made = learned(["sea"], add_na=True)
    assert list(made.vocab) == ["#na#", "sea"] and made(["lake"]).tolist() == [1, 0]
    assert made([]).tolist() == [0, 0]  # no label is not an unknown one
    with pytest.raises(DataError, match="'lake', which is not in the vocabulary"):
        learned(["lake"], vocab=["sea"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("desert", "6 letters would be read as labels"),
        ("", "an empty list"),
        (float("nan"), "there are no labels, only nan"),
        (None, "there are no labels, only None"),
        (pd.NA, "there are no labels"),
        ([None], "an empty label, None"),
        (["sea", " "], "an empty label, ' '"),
        (3, "a list of labels is wanted, not 3"),
        ({"sea": 1}, "a list of labels is wanted"),
        ([["sea"]], "one label is wanted, this is a list"),
        (b"sea", "a list of labels is wanted"),
        (np.array("sea"), "a list of labels is wanted"),
        (torch.tensor(3), "a list of labels is wanted"),
        (["sea", 3], "is not among"),
    ],
)
def test_what_is_no_list_of_labels(labels, message):
    with pytest.raises(DataError, match=message):
        learned(["sea"])(labels)


def test_a_vocabulary_needs_labels_of_one_type_and_at_least_one():
    with pytest.raises(DataError, match="none of the 2 training items has a label"):
        learned([], [])
    with pytest.raises(DataError, match="labels of mixed type"):
        learned(["sea"], [3])
    with pytest.raises(TypeError, match="a set has no order"):
        MultiCategorize(vocab={"sea", "sun"})
    with pytest.raises(DataError, match="twice"):
        MultiCategorize(vocab=["sea", "sea"])
    assert learned([], [], vocab=["sea"])([]).tolist() == [0]  # given: nothing has to be found


def test_encoded_targets():
    made = EncodedMultiCategorize(["sea", "sun"])
    for values in (
        [1, 0],
        (True, False),
        np.array([1, 0]),
        pd.Series([1, 0]),
        torch.tensor([1, 0]),
    ):
        target = made(values)
        assert target.tolist() == [1, 0] and target.dtype == torch.float32
    assert made.decode(torch.tensor([0.0, 1])) == ["sun"]
    for values, message in (
        ([1], "1 values"),
        ([1, 2], "nothing but 0 and 1"),
        ([1, float("nan")], "nothing but 0 and 1"),
        (["sea", "sun"], "no list of 0 and 1"),
        ("10", "there are 1 values"),
        (None, "no list of 0 and 1"),
    ):
        with pytest.raises(DataError, match=message):
            made(values)
    with pytest.raises(ValueError, match="vocab="):
        MultiCategoryBlock(encoded=True)


# ---------------------------------------------------------------- metrics
PAIRS = {
    precision_multi: sk.precision_score,
    recall_multi: sk.recall_score,
    f1_multi: sk.f1_score,
}


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_scikit_learn(seed, average):
    scores, truth = numbers(seed, 50, 4), numbers(seed + 10, 50, 4) > 0.5
    for ours, theirs in PAIRS.items():
        for thresh in (0.25, 0.5, 0.7):
            said = (scores.sigmoid() > thresh).numpy()
            expected = theirs(truth.numpy(), said, average=average, zero_division=0)
            found = ours(scores, truth.float(), thresh=thresh, average=average)
            assert found.item() == pytest.approx(expected, abs=1e-9)
            found = ours(scores.sigmoid(), truth, thresh=thresh, sigmoid=False, average=average)
            assert found.item() == pytest.approx(expected, abs=1e-9)
    expected = sk.average_precision_score(truth.numpy(), scores.numpy(), average=average)
    assert average_precision(scores, truth, average).item() == pytest.approx(expected, abs=1e-9)
    assert len(scores.unique()) < scores.numel() / 1.5  # there are ties among them


def test_order_is_kept_where_the_sigmoid_is_one():
    scores, truth = torch.tensor([[40.0], [30.0], [50.0]]), torch.tensor([[0.0], [0.0], [1.0]])
    assert average_precision(scores, truth) == 1 and scores.sigmoid().unique().numel() == 1


def test_labels_that_no_item_has_are_left_out_and_named():
    scores, truth = numbers(1, 30, 3), (numbers(2, 30, 3) > 0).float()
    truth[:, 1] = 0
    for metric in (precision_multi, recall_multi, f1_multi, average_precision):
        for average in ("macro", "weighted"):
            with pytest.warns(UserWarning, match="no item has label 1 of the vocabulary"):
                found = metric(scores, truth, average=average)
            assert found == metric(scores[:, [0, 2]], truth[:, [0, 2]], average=average)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            metric(scores, truth, average="micro")  # of all labels together nothing is missing
    with pytest.warns(UserWarning, match="label 0, 1, 2"):
        assert f1_multi(scores, torch.zeros(30, 3)).isnan()
    with pytest.warns(UserWarning, match="no item has any label"):
        assert f1_multi(scores, torch.zeros(30, 3), average="micro").isnan()


def test_a_score_that_is_nan_has_no_place_in_the_order():
    scores, truth = numbers(1, 30, 3), (numbers(2, 30, 3) > 0).float()
    scores[4, 1] = torch.nan
    assert average_precision(scores, truth).isnan()
    assert not average_precision(scores[:, [0, 2]], truth[:, [0, 2]]).isnan()


def test_a_model_that_says_nothing():
    truth = (numbers(3, 100, 6) > 0.7).float()
    nothing = torch.full((100, 6), -9.0)
    assert f1_multi(nothing, truth) == precision_multi(nothing, truth) == 0
    assert accuracy_multi(nothing, truth) == pytest.approx(1 - truth.mean().item())
    assert average_precision(nothing, truth).item() == pytest.approx(truth.mean().item())


def test_metrics_refuse_what_they_cannot_judge():
    scores, truth = numbers(1, 8, 3), torch.zeros(8, 3)
    with pytest.raises(ValueError, match="not one for one"):
        f1_multi(scores, truth[:, :2])
    with pytest.raises(ValueError, match="a row for each item"):
        f1_multi(scores[:, 0], truth[:, 0])
    with pytest.raises(ValueError, match="probabilities are wanted"):
        f1_multi(scores, truth, sigmoid=False)
    with pytest.raises(ValueError, match="average='samples'"):
        f1_multi(scores, truth, average="samples")


def test_in_a_learner_they_are_computed_on_the_whole():
    for metric in (PrecisionMulti(), RecallMulti(), F1ScoreMulti(), APScoreMulti()):
        assert metric.whole
    for function in (precision_multi, recall_multi, f1_multi, average_precision):
        assert Metric(function).whole
    scores, truth = numbers(5, 40, 3), (numbers(6, 40, 3) > 0).float()
    metric = F1ScoreMulti(thresh=0.4)
    for part in torch.arange(40).split(16):
        metric.update(scores[part], truth[part])
    assert metric.value == pytest.approx(f1_multi(scores, truth, thresh=0.4).item())


# ---------------------------------------------------------------- thresholds
def test_a_threshold_curve_is_the_metric_at_each_threshold():
    probability, truth = numbers(7, 60, 4).sigmoid(), (numbers(8, 60, 4) > 0).float()
    for metric in (accuracy_multi, f1_multi, recall_multi):
        curve = threshold_curve(probability, truth, metric)
        assert len(curve.thresholds) == 91 and curve.thresholds[[0, -1]].tolist() == [
            pytest.approx(0.05),
            pytest.approx(0.95),
        ]
        for i in (0, 30, 90):
            thresh = curve.thresholds[i].item()
            expected = metric(probability, truth, thresh=thresh, sigmoid=False)
            assert curve.results[i].item() == pytest.approx(expected.item(), abs=1e-6)
        assert metric(probability, truth, thresh=curve.best, sigmoid=False) == pytest.approx(
            curve.results.max().item(), abs=1e-6
        )
    recall = threshold_curve(probability, truth, recall_multi).results
    assert (recall.diff() <= 0).all()  # a higher threshold never finds more


def test_the_best_is_the_middle_of_the_first_plateau():
    places = torch.linspace(0.1, 0.9, 9)
    for results, best in (
        ([0, 1, 1, 1, 0, 0, 0, 0, 0], 0.3),
        ([0, 1, 0, 0, 1, 1, 1, 1, 1], 0.2),
        ([0, 0, 0, 0, 0, 0, 0, 0, 2], 0.9),
        ([3, 0, 0, 0, 0, 0, 0, 0, 0], 0.1),
        ([1] * 9, 0.5),
    ):
        assert ThresholdCurve(places, torch.tensor(results).float()).best == pytest.approx(best)


def test_a_curve_without_numbers_has_no_best():
    probability = numbers(7, 20, 2).sigmoid()
    with pytest.warns(UserWarning, match="no item has"):
        curve = threshold_curve(probability, torch.zeros(20, 2), f1_multi)
    with pytest.raises(ValueError, match="has any item a label"):
        curve.best  # noqa: B018
    with pytest.raises(ValueError, match="thresholds is empty"):
        threshold_curve(probability, torch.zeros(20, 2), thresholds=[])


def test_a_threshold_curve_wants_probabilities_and_can_be_drawn():
    probability, truth = numbers(7, 20, 2).sigmoid(), torch.zeros(20, 2)
    with pytest.raises(ValueError, match="probabilities are wanted"):
        threshold_curve(numbers(7, 20, 2), truth)
    curve = threshold_curve(probability, truth, thresholds=[0.2, 0.5, 0.8])
    ax = curve.plot(label="accuracy")
    assert ax.get_xlabel() == "threshold" and ax.lines[0].get_xdata().tolist() == pytest.approx(
        [0.2, 0.5, 0.8]
    )
    plt.close("all")


# ---------------------------------------------------------------- from pictures to words
COLOURS = {"red": 0, "green": 1, "blue": 2}
SETS = [
    [],
    ["red"],
    ["green"],
    ["blue"],
    ["red", "green"],
    ["red", "blue"],
    ["red", "green", "blue"],
]


@pytest.fixture
def coloured(tmp_path):
    "Pictures whose channels are dark or bright, and the table that says which: the truth is planted."
    rng, rows = np.random.default_rng(0), []
    for i in range(70):
        labels = SETS[i % len(SETS)]
        level = np.array([200 if name in labels else 60 for name in COLOURS])
        pixels = rng.integers(-40, 40, (8, 8, 3)) + level
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{i}.png")
        rows.append({"fname": f"{i}.png", "labels": ";".join(labels), "is_valid": i >= 49})
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path, table


def mean_colours() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 3))


def test_from_pictures_to_words(coloured):
    path, table = coloured
    block = DataBlock(
        (ImageBlock, MultiCategoryBlock),
        splitter=ColSplitter("is_valid"),
        get_x=ColReader("fname", pref=path),
        get_y=ColReader("labels", label_delim=";"),
        item_tfms=Resize(8),
    )
    dls = block.dataloaders(table, bs=7, num_workers=0, seed=0)
    assert dls.c == 3 and dls.kinds == ("image", "multicategory")
    y = dls.one_batch()[1]
    assert y.shape == (7, 3) and y.dtype == torch.float32
    torch.manual_seed(0)
    learn = Learner(dls, mean_colours(), metrics=[accuracy_multi, F1ScoreMulti(), APScoreMulti()])
    assert type(learn.loss_func) is BCEWithLogitsLossFlat
    with learn.no_logging():
        learn.fit(8, 0.1)
    # the truth was planted, so all of it is found
    assert list(learn.recorder.final_record[1:]) == pytest.approx([1, 1, 1])

    for i in range(7):
        words, there, probability = learn.predict(table.iloc[i])
        assert words == sorted(SETS[i]) and there.dtype == torch.bool
        assert there.tolist() == (probability > 0.5).tolist() and probability.shape == (3,)
    learn.loss_func.thresh = 1.0
    assert learn.predict(table.iloc[6])[0] == []  # its threshold is used
    learn.loss_func.thresh = 0.5

    learn.show_results(max_n=7, shuffle=False)
    titles = [ax.get_title() for ax in plt.gcf().axes]
    assert titles[0] == "none · none" and titles[4] == "green; red · green; red"
    assert {ax.title.get_color() for ax in plt.gcf().axes} == {"tab:green"}
    dls.show_batch(max_n=4)
    plt.close("all")


def test_a_table_with_an_empty_cell_as_pandas_reads_it(coloured):
    path, _ = coloured
    table = pd.read_csv(path / "labels.csv")  # empty cells are nan now
    block = DataBlock(
        (TransformBlock, MultiCategoryBlock),
        get_x=ColReader("fname"),
        get_y=ColReader("labels", label_delim=";"),
    )
    with pytest.raises(DataError, match="fillna"):
        block.datasets(table)
    assert block.datasets(table.fillna("")).vocab == sorted(COLOURS)


def test_the_ready_made_loaders_know_delimiters(coloured):
    path, table = coloured
    settings = {"label_delim": ";", "valid_col": "is_valid", "bs": 7, "num_workers": 0}
    for dls in (
        ImageDataLoaders.from_df(table, path, **settings),
        ImageDataLoaders.from_df(table, path, y_block=MultiCategoryBlock, **settings),
    ):
        assert list(dls.vocab) == sorted(COLOURS) and dls.kinds[-1] == "multicategory"


def test_summary_shows_labels_and_targets(coloured, capsys):
    path, table = coloured
    DataBlock(
        (ImageBlock, MultiCategoryBlock),
        get_x=ColReader("fname", pref=path),
        get_y=ColReader("labels", label_delim=";"),
    ).summary(table)
    said = capsys.readouterr().out
    assert "vocabulary" in said and "MultiCategorize" in said and "float32 tensor (3,)" in said
    assert "All steps work" in said


# ---------------------------------------------------------------- real photographs
@pytest.fixture
def one_thread():
    "Two are slower than one where anything else runs."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_natural_scenes(one_thread):
    "What a frozen body and a linear layer reach on every third of 2,000 scenes, on the mean of three splits."
    try:
        folder = untar_data(URLs.SCENES)
    except DataError:
        pytest.skip("there is no mirror with the photographs")
    body = nn.Sequential(create_body(efficientnet_lite0), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    shown = Normalize(body[0].pretrained_cfg["mean"], body[0].pretrained_cfg["std"])
    table = pd.read_csv(folder / "labels.csv", keep_default_na=False)[::3]
    files = [folder / "images" / name for name in table.fname]
    dl = DataLoader(
        Datasets(files, [[PILImage.create]]),
        bs=50,
        after_item=[Resize(128), ToTensor()],
        after_batch=[IntToFloat(), shown],
        num_workers=0,
        device="cpu",
    )
    with torch.no_grad():
        x = torch.cat([body.eval()(x) for (x,) in dl])
    encode, labels = MultiCategorize(), table.labels.str.split().tolist()
    encode.setup(labels)
    y = torch.stack([encode(each) for each in labels])
    found = []
    for seed in range(3):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        train, test = order.split([len(x) * 4 // 5, len(x) - len(x) * 4 // 5])
        sets = [torch.utils.data.TensorDataset(x[rows], y[rows]) for rows in (train, test)]
        torch.manual_seed(seed)
        learn = Learner(
            DataLoaders.from_dsets(*sets, bs=32), nn.Linear(1280, 5), BCEWithLogitsLossFlat()
        )
        with learn.no_logging():
            learn.fit_one_cycle(8, 3e-3)
            scores, truth = learn.get_preds(act=lambda scores: scores)
        silence = accuracy_multi(torch.full_like(scores, -9), truth)
        found.append([accuracy_multi(scores, truth), average_precision(scores, truth), silence])
    accuracy, precision, silence = torch.tensor(found).mean(0).tolist()
    print(f"accuracy_multi {accuracy:.3f}, mAP {precision:.3f}; of silence {silence:.3f}")
    # 0.752, 0.903 and 0.887 were measured
    assert silence < 0.8 and accuracy >= 0.89 and precision >= 0.87
