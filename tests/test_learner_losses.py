"""Losses and metrics at their edges: what they refuse, in which words, and what they must not mix up."""

import math
import pickle
from copy import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from coursekit.losses import (
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    FocalLossFlat,
    MSELossFlat,
)
from coursekit.measures import accuracy, accuracy_multi, mae, mse, rmse, top_k_accuracy
from coursekit.metrics import Metric, sklearn_metric


@pytest.fixture
def scores():
    return torch.randn(12, 4, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def classes():
    return torch.arange(12) % 4


@pytest.mark.parametrize(
    ("target", "kind", "words"),
    [
        (torch.arange(12).float() % 4, TypeError, "target.long()"),
        (torch.arange(12) % 4 + 1, ValueError, "from 1 to 4, and the model has 4 outputs"),
        (torch.arange(12) % 4 - 1, ValueError, "from -1 to 2"),
        (F.one_hot(torch.arange(12) % 4), ValueError, "argmax(-1)"),
        (torch.arange(13) % 4, ValueError, "(13,)"),
        (torch.arange(24).reshape(12, 2) % 4, ValueError, "(12, 2)"),
        (["a"] * 12, TypeError, "the targets are a list"),
    ],
)
@pytest.mark.parametrize("loss", [CrossEntropyLossFlat, FocalLossFlat])
def test_targets_that_are_no_classes(scores, target, kind, words, loss):
    with pytest.raises(kind) as error:
        loss()(scores, target)
    assert words in str(error.value)
    assert loss.__name__ in str(error.value)


def test_a_number_is_not_learned_with_cross_entropy(scores):
    with pytest.raises(TypeError, match=r"one output.*MSELossFlat"):
        CrossEntropyLossFlat()(scores[:, :1], scores[:, 0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int16])
def test_whole_numbers_of_any_kind_and_shape_are_classes(scores, classes, dtype):
    expected = F.cross_entropy(scores, classes)
    for target in (classes, classes[:, None], classes.reshape(1, 12)):
        assert CrossEntropyLossFlat()(scores, target.to(dtype)) == expected
    in_rows = CrossEntropyLossFlat()(scores.reshape(3, 4, 4), classes.reshape(3, 4))
    assert torch.isclose(in_rows, expected)


def test_a_mask_turned_on_its_side_is_refused():
    pred, mask = torch.randn(2, 3, 5, 4), torch.zeros(2, 5, 4, dtype=torch.long)
    assert CrossEntropyLossFlat(axis=1)(pred, mask) > 0
    with pytest.raises(ValueError, match=r"\(2, 5, 4\).*\(2, 4, 5\)"):
        CrossEntropyLossFlat(axis=1)(pred, mask.transpose(1, 2))


@pytest.mark.parametrize("axis", [1, -1, 2])
def test_distributions_as_targets_lie_along_the_axis_of_the_classes(axis):
    pred, truth = torch.randn(2, 5, 4, 3), torch.randn(2, 5, 4, 3)
    truth = truth.softmax(axis)
    expected = -(truth * pred.log_softmax(axis)).sum(axis)
    loss = CrossEntropyLossFlat(axis=axis, reduction="none")(pred, truth)
    assert torch.allclose(loss, expected, atol=1e-6)


@pytest.mark.parametrize("loss", [CrossEntropyLossFlat, partial(FocalLossFlat, gamma=0)])
def test_ignored_targets_do_not_count(scores, classes, loss):
    some = classes.clone()
    some[::3] = -100
    expected = F.cross_entropy(scores, some)
    assert torch.isclose(loss()(scores, some), expected)
    assert torch.isclose(
        loss(ignore_index=0)(scores, classes), F.cross_entropy(scores, classes, ignore_index=0)
    )
    wrong = some.clone()
    wrong[1] = 7
    with pytest.raises(ValueError, match=r"from 0 to 7|from 1 to 7"):
        loss()(scores, wrong)


def test_away_from_the_cpu_the_first_targets_are_looked_at(scores, classes):
    loss = CrossEntropyLossFlat()
    with pytest.raises(ValueError, match="from 0 to 9"):
        loss._look(scores, torch.arange(10))
    assert not loss._looked
    loss._look(scores, torch.where(classes == 1, -100, classes))
    assert loss._looked


def test_focal_loss_weighs_each_item_by_what_it_lacks(scores, classes):
    p = scores.softmax(1)[range(12), classes]
    for gamma in (0, 0.5, 1, 2, 5):
        expected = -((1 - p) ** gamma) * p.log()
        assert torch.allclose(
            FocalLossFlat(gamma, reduction="none")(scores, classes), expected, rtol=1e-4
        )
    weight = torch.tensor([1.0, 2, 3, 0.5])
    expected = -(weight[classes] * (1 - p) ** 2 * p.log()).mean()
    assert torch.isclose(FocalLossFlat(weight=weight)(scores, classes), expected, rtol=1e-4)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_focal_loss_has_a_gradient_where_an_item_is_perfect(gamma):
    scores = torch.tensor([[200.0, 0], [0, 1]], requires_grad=True)
    FocalLossFlat(gamma)(scores, torch.tensor([0, 0])).backward()
    assert scores.grad.isfinite().all()
    assert scores.grad[1].abs().sum() > 0


def test_focal_loss_refuses_what_it_cannot_weigh(scores):
    with pytest.raises(TypeError, match="one class for each item"):
        FocalLossFlat()(scores, scores.softmax(1))
    with pytest.raises(ValueError, match="gamma=-1"):
        FocalLossFlat(-1)


@pytest.mark.parametrize("loss", [BCEWithLogitsLossFlat, MSELossFlat])
def test_one_output_and_one_number_are_not_compared_all_with_all(loss):
    pred, target = torch.randn(6, 1), torch.tensor([0.0, 1, 1, 0, 1, 0])
    expected = loss()(pred[:, 0], target)
    for p, t in ((pred, target), (pred[:, 0], target[:, None]), (pred, target[:, None].long())):
        assert torch.isclose(loss()(p, t), expected)
    each = loss(reduction="none")(pred, target)
    assert each.shape == (6,)
    assert torch.isclose(each.mean(), expected)
    with pytest.raises(ValueError, match="not one for one"):
        loss()(torch.randn(6, 2), target)
    with pytest.raises(ValueError, match="not one for one"):
        loss()(torch.randn(2, 3), torch.ones(3, 2))
    with pytest.raises(TypeError, match="the targets are a tuple"):
        loss()(pred, (target,))


def test_labels_outside_0_to_1_are_refused_in_the_first_batch():
    pred = torch.randn(3, 2)
    for bad in (torch.full((3, 2), 2), torch.full((3, 2), -1), torch.full((3, 2), math.nan)):
        with pytest.raises(ValueError, match="each should be 0 or 1"):
            BCEWithLogitsLossFlat()(pred, bad)
    assert BCEWithLogitsLossFlat()(pred, torch.full((3, 2), 0.3)).isfinite()


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropyLossFlat(axis=1),
        FocalLossFlat(3.0),
        BCEWithLogitsLossFlat(thresh=0.2),
        MSELossFlat(),
    ],
)
def test_a_loss_can_be_copied_changed_and_kept(scores, classes, loss):
    target = classes if isinstance(loss, CrossEntropyLossFlat) else (scores > 0).float()
    each = copy(loss)
    each.reduction = "none"
    assert each(scores, target).shape == target.shape
    assert loss(scores, target).ndim == 0
    assert torch.isclose(each(scores, target).mean(), loss(scores, target))
    assert pickle.loads(pickle.dumps(loss))(scores, target) == loss(scores, target)


def test_accuracy_says_what_is_wrong(scores, classes):
    assert accuracy(scores, classes[:, None]) == accuracy(scores, classes)
    for target, words in ((F.one_hot(classes), "argmax"), (classes[:5], r"\(5,\)")):
        with pytest.raises(ValueError, match=words):
            accuracy(scores, target)
    with pytest.raises(ValueError, match="accuracy_multi"):
        accuracy(scores[:, :1], classes)
    for k in (0, 4, 5):
        with pytest.raises(ValueError, match=f"k={k}"):
            top_k_accuracy(scores, classes, k=k)
    for metric in (accuracy_multi, mse, mae, rmse):
        with pytest.raises(ValueError, match="not one for one"):
            metric(scores, classes)


def test_accuracy_along_another_axis():
    pred = torch.randn(2, 3, 5, 4)
    mask = pred.argmax(1)
    mask[0, 0] = (mask[0, 0] + 1) % 3
    assert torch.isclose(accuracy(pred, mask, axis=1), torch.tensor(36 / 40))
    assert top_k_accuracy(pred, mask, k=2, axis=1) >= accuracy(pred, mask, axis=1)


def batches(metric, pred, target, size):
    metric.reset()
    for index in torch.arange(len(target)).split(size):
        metric.update(pred[index], target[index])
    return metric.value


@pytest.mark.parametrize("size", [1, 5, 7, 12, 100])
def test_a_metric_does_not_depend_on_the_batches(scores, classes, size):
    for func in (accuracy, partial(top_k_accuracy, k=2)):
        assert math.isclose(
            batches(Metric(func), scores, classes, size), func(scores, classes), rel_tol=1e-6
        )
    for func in (mse, mae, rmse, partial(rmse)):
        found = batches(Metric(func), scores[:, 0], scores[:, 1], size)
        assert math.isclose(found, func(scores[:, 0], scores[:, 1]), rel_tol=1e-5)


def test_a_metric_has_the_name_of_its_function():
    class Own:
        def __call__(self, pred, target):
            return 1.0

    named = [Metric(f).name for f in (accuracy, partial(partial(accuracy), axis=1), Own())]
    assert named == ["accuracy", "accuracy", "Own"]
    assert Metric(accuracy, name="right").name == "right"


def test_a_metric_takes_several_targets_and_plain_numbers():
    def gap(pred, low, high):
        return ((pred >= low) & (pred <= high)).sum().item() / len(pred)

    for whole in (False, True):
        metric = Metric(gap, whole=whole)
        for n, high in ((4, 10.0), (2, -10.0)):
            metric.update(torch.zeros(n), torch.full((n,), -1.0), torch.full((n,), high))
        assert math.isclose(metric.value, 4 / 6)


def test_a_metric_of_each_item_is_no_metric(scores, classes):
    for whole in (False, True):
        metric = Metric(lambda pred, target: pred.argmax(1) == target, whole=whole, name="hits")
        with pytest.raises(ValueError, match="hits returned shape"):
            batches(metric, scores, classes, 5)


def test_any_metric_of_scikit_learn(scores, classes):
    metrics = pytest.importorskip("sklearn.metrics")
    truth, p = classes.numpy(), scores.softmax(1).numpy()
    found = batches(sklearn_metric("f1_score", average="macro"), scores, classes, 5)
    assert math.isclose(found, metrics.f1_score(truth, p.argmax(1), average="macro"))
    found = batches(
        sklearn_metric(metrics.roc_auc_score, "probabilities", multi_class="ovr"),
        scores,
        classes,
        5,
    )
    assert math.isclose(found, metrics.roc_auc_score(truth, p, multi_class="ovr"))
    two, yes = scores[:, :2], classes % 2
    found = batches(sklearn_metric("roc_auc_score", "probabilities"), two, yes, 5)
    assert math.isclose(found, metrics.roc_auc_score(yes, two.softmax(1)[:, 1]))
    with pytest.raises(ValueError, match="no_such_score"):
        sklearn_metric("no_such_score")


def test_scikit_learn_is_asked_for_by_name_only(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        sklearn_metric("f1_score")
    assert sklearn_metric(lambda target, pred: 0.5, name="half").name == "half"
