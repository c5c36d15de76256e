"""The learner where things go wrong, and what it promises about order, memory, files and the screen."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import textwrap
import weakref
from functools import partial

import matplotlib
import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nbclient import NotebookClient
from torch import nn
from torch.utils.data import DataLoader as TorchLoader
from torch.utils.data import SubsetRandomSampler, TensorDataset, WeightedRandomSampler

matplotlib.use("agg")
import matplotlib.pyplot as plt

import coursekit.training  # noqa: F401  fit_one_cycle and fine_tune come with it
from coursekit.basics import BasicOptim
from coursekit.blocks import DataBlock, RegressionBlock, TransformBlock
from coursekit.events import (
    EVENTS,
    Callback,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelTrainException,
    CancelValidException,
    LearnerError,
)
from coursekit.hooks import ActivationStats, hook_outputs, total_params
from coursekit.learner import Learner
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.losses import (
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    MSELossFlat,
    reading,
)
from coursekit.measures import accuracy
from coursekit.messages import DataError
from coursekit.metrics import Metric
from coursekit.recorder import Recorder
from coursekit.transforms import Transform

N, FEATURES, CLASSES = 200, 8, 3


def data(seed=0, n=N):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, FEATURES, generator=generator)
    return x, (
        x @ torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(9))
    ).argmax(1)


def loaders(path=".", bs=32, **kwargs):
    return DataLoaders.from_dsets(
        TensorDataset(*data(0)), TensorDataset(*data(1, 70)), bs=bs, path=path, **kwargs
    )


def net(out=CLASSES, norm=False):
    torch.manual_seed(1)
    layers = [
        nn.Linear(FEATURES, 16),
        *([nn.BatchNorm1d(16)] if norm else []),
        nn.ReLU(),
        nn.Linear(16, out),
    ]
    return nn.Sequential(*layers)


def learner(path=".", dls=None, model=None, loss_func=F.cross_entropy, **kwargs):
    made = Learner(
        dls or loaders(path),
        net() if model is None else model,
        loss_func,
        **{"metrics": accuracy, "lr": 1e-2} | kwargs,
    )
    made.remove_cbs(made.progress)
    return made


@pytest.mark.parametrize(
    "use",
    [
        lambda learn: learn.fit(1),
        lambda learn: learn.fit_one_cycle(1),
        lambda learn: learn.lr_find(show_plot=False),
        lambda learn: learn.get_preds(),
        lambda learn: learn.validate(),
        lambda learn: learn.summary(),
    ],
)
def test_with_the_name_of_a_learner_its_memory_goes(use):
    "Not when Python next looks for circles: a model and its data may be all that fits."
    learn = learner()
    gc.collect()
    gc.disable()
    try:
        use(learn)
        left = [weakref.ref(part) for part in (learn, learn.model, learn.dls.train.source)]
        del learn
        assert [part() for part in left] == [None] * 3
    finally:
        gc.enable()


def test_a_copied_learner_has_callbacks_of_its_own(tmp_path):
    first = learner(tmp_path)
    first.fit(1)
    for again in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert again.recorder is not first.recorder and again.recorder.learn is again
        again.fit(1)
        assert len(again.recorder.values) == 1 == len(first.recorder.values)
        assert first.recorder.learn is first
        assert not torch.equal(weights(again), weights(first))


def test_a_callback_says_that_its_learner_is_gone():
    learn = learner()
    learn.fit(1)
    recorder = learn.recorder
    del learn
    assert len(recorder.table) == 1 and "accuracy" in recorder.table
    recorder.plot_loss()
    plt.close()
    with pytest.raises(AttributeError, match="its learner is gone: keep a name for it"):
        recorder.learn  # noqa: B018


def weights(learn):
    return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


def pairs(x, y, bs=32):
    return DataLoaders(
        TorchLoader(TensorDataset(x, y), batch_size=bs),
        TorchLoader(TensorDataset(x, y), batch_size=bs),
    )


class Raises(Callback):
    def __init__(self, event, error, at=0):
        self.error, self.at = error, at
        setattr(self, event, self.go)

    def go(self):
        if self.learn.train_iter >= self.at:
            raise self.error


# what does not fit, at the first batch


class Elsewhere(nn.Module):
    "A tensor that is neither parameter nor buffer stays where it was made."

    def __init__(self):
        super().__init__()
        self.linear, self.table = nn.Linear(FEATURES, CLASSES), torch.randn(FEATURES, device="meta")

    def forward(self, x):
        return self.linear(x + self.table)


X, Y = data()
MISFITS = {
    "float targets for classes": (net(), F.cross_entropy, X, Y.double(), "number of a class"),
    "one-column float targets": (net(), F.cross_entropy, X, Y[:, None].float(), "float32 (32, 1)"),
    "a class too many": (net(2), F.cross_entropy, X, Y, "classes go from 0 to 1"),
    "a class too many, ours": (net(2), CrossEntropyLossFlat(), X, Y, "0 to 1"),
    "whole numbers for binary cross-entropy": (
        net(),
        F.binary_cross_entropy_with_logits,
        X,
        F.one_hot(Y, CLASSES),
        "floats",
    ),
    "shapes that would broadcast": (net(1), F.mse_loss, X, Y.float(), "differ in shape"),
    "shapes that would broadcast, a class": (net(1), nn.L1Loss(), X, Y.float(), "differ in shape"),
    "too few numbers for the model": (
        net(),
        F.cross_entropy,
        X[:, :5],
        Y,
        "takes 8 numbers an item",
    ),
    "pictures for a linear layer": (net(), F.cross_entropy, X.view(-1, 2, 4), Y, "nn.Flatten()"),
    "bytes for a model": (net(), F.cross_entropy, X.byte(), Y, "uint8"),
    "another device": (Elsewhere(), F.cross_entropy, X, Y, "register_buffer"),
    "a metric as loss": (net(), accuracy, X, Y, "metric is no loss"),
    "one loss for each item": (net(), nn.CrossEntropyLoss(reduction="none"), X, Y, "shape (32,)"),
    "a plain number": (net(), lambda p, t: F.cross_entropy(p, t).item(), X, Y, "float"),
    "nan in the inputs": (
        net(),
        F.cross_entropy,
        X.clone().fill_(torch.nan),
        Y,
        "the inputs hold nan",
    ),
    "nan in the targets": (
        net(1),
        MSELossFlat(),
        X,
        Y.float().fill_(torch.nan),
        "the targets hold nan",
    ),
    "channels": (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()),
        F.cross_entropy,
        X.view(-1, 1, 2, 4),
        Y,
        "3 channels",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_misfit_is_named_at_the_first_batch(case):
    model, loss, x, y, words = MISFITS[case]
    learn = learner(dls=pairs(x, y), model=model, loss_func=loss, metrics=None)
    with pytest.raises(LearnerError) as caught:
        learn.fit(1)
    assert words in str(caught.value), caught.value
    assert learn.train_iter == 0


def test_validation_is_looked_at_too():
    learn = learner(dls=pairs(X, Y.double()))
    with pytest.raises(LearnerError, match="validation batch 0"):
        learn.validate()


def test_a_rate_far_too_high_is_named():
    learn = learner(opt_func=torch.optim.SGD)
    with pytest.raises(LearnerError, match="learning rate was 1e\\+3"):
        learn.fit(2, lr=1e30)


@pytest.mark.parametrize(
    "lr", [0, -1e-3, float("nan"), float("inf"), slice(0, 0), slice(1e-3, None)]
)
def test_a_rate_that_is_none(lr):
    learn = learner()
    before = weights(learn)
    with pytest.raises(ValueError, match="lr="):
        learn.fit(1, lr=lr)
    assert torch.equal(weights(learn), before)


@pytest.mark.parametrize("n", [-1, 1.5, "2"])
def test_epochs_are_counted_in_whole_numbers(n):
    with pytest.raises(ValueError, match="n_epoch"):
        learner().fit(n)


def test_batch_norm_and_a_batch_of_one():
    x, y = data(n=33)
    learn = learner(dls=pairs(x, y), model=net(norm=True))
    with pytest.raises(LearnerError, match="drop_last=True"):
        learn.fit(1)
    dls = DataLoaders.from_dsets(TensorDataset(x, y), TensorDataset(x, y), bs=32)
    learner(dls=dls, model=net(norm=True)).fit(
        1
    )  # ours leaves the single item out of training, and counts it in validation


def test_no_batch_at_all():
    dls = DataLoaders(
        DataLoader(TensorDataset(*data(n=5)), bs=8, drop_last=True),
        DataLoader(TensorDataset(*data(n=5))),
    )
    with pytest.raises(LearnerError, match="no batch"):
        learner(dls=dls).fit(1)


def test_all_frozen():
    model = net()
    learn = learner(model=model)
    model.requires_grad_(False)
    with pytest.raises(LearnerError, match="frozen"):
        learn.fit(1)
    learn = learner(model=nn.Sequential(nn.Linear(FEATURES, CLASSES), nn.ReLU()))
    learn.fit(1)
    learn.model.requires_grad_(False)
    with pytest.raises(LearnerError, match="frozen"):
        learn.fit(1)


def test_things_that_are_no_model_and_no_loss():
    with pytest.raises(TypeError, match="a class was given"):
        Learner(loaders(), nn.ReLU, F.cross_entropy)
    with pytest.raises(TypeError, match=r"nn.Module"):
        Learner(loaders(), lambda x: x, F.cross_entropy)
    with pytest.raises(ValueError, match="loss_func"):
        Learner(loaders(), net())


# callbacks


class Log(Callback):
    order = -99

    def __init__(self):
        self.seen = []

    def __getattribute__(self, name):
        if name in EVENTS:
            return lambda: object.__getattribute__(self, "seen").append(name)
        return object.__getattribute__(self, name)


def log_of(*cbs, n=2):
    log = Log()
    dls = DataLoaders(
        DataLoader(TensorDataset(*data(n=16)), bs=8), DataLoader(TensorDataset(*data(n=8)), bs=8)
    )
    learner(dls=dls).fit(n, cbs=[log, *cbs])
    return log.seen


ONE = [
    "before_batch",
    "after_pred",
    "after_loss",
    "before_backward",
    "before_step",
    "after_step",
    "after_batch",
]
CHECK = [
    "before_validate",
    "before_batch",
    "after_pred",
    "after_loss",
    "after_batch",
    "after_validate",
]
EPOCH = ["before_epoch", "before_train", *ONE, *ONE, "after_train", *CHECK, "after_epoch"]


def test_the_order_of_events():
    assert log_of() == ["before_fit", *EPOCH, *EPOCH, "after_fit"]
    assert set(EVENTS) == set(log_of())


def test_each_cancel_leaves_its_own_part():
    assert log_of(Raises("after_pred", CancelFitException())) == [
        "before_fit",
        *EPOCH[:4],
        "after_fit",
    ]
    assert log_of(Raises("before_epoch", CancelEpochException()), n=1) == [
        "before_fit",
        "before_epoch",
        "after_epoch",
        "after_fit",
    ]
    got = log_of(Raises("before_train", CancelTrainException()), n=1)
    assert got == [
        "before_fit",
        "before_epoch",
        "before_train",
        "after_train",
        *CHECK,
        "after_epoch",
        "after_fit",
    ]
    got = log_of(Raises("before_validate", CancelValidException()), n=1)
    assert got[-5:] == [
        "after_train",
        "before_validate",
        "after_validate",
        "after_epoch",
        "after_fit",
    ]
    short = ["before_batch", "after_pred", "after_batch"]
    got = log_of(Raises("after_pred", CancelBatchException()), n=1)
    assert got == [
        *got[:3],
        *short,
        *short,
        "after_train",
        "before_validate",
        *short,
        "after_validate",
        "after_epoch",
        "after_fit",
    ]


def test_a_callback_that_raises_is_named_and_cleaned_up():
    learn, stats = learner(), ActivationStats()
    with pytest.raises(ZeroDivisionError) as caught:
        learn.fit(2, cbs=[Raises("after_loss", ZeroDivisionError("oh"), at=3), stats])
    assert "Raises in after_loss, training batch 3 of epoch 0" in caught.value.__notes__[0]
    assert [type(cb) for cb in learn.cbs] == [Recorder]
    assert not any(module._forward_hooks for module in learn.model.modules())
    learn.fit(1)
    assert len(learn.recorder.values) == 1


def test_a_method_that_is_no_event():
    class Typo(Callback):
        def after_bacth(self): ...

    with pytest.raises(ValueError, match="is after_batch meant"):
        learner(cbs=Typo)
    with pytest.raises(TypeError, match="no Callback"):
        learner(cbs=print)


def test_an_interrupted_fit_leaves_a_defined_state():
    learn, before = learner(), None
    with pytest.raises(KeyboardInterrupt):
        learn.fit(3, cbs=Raises("before_batch", KeyboardInterrupt(), at=9))
    assert len(learn.recorder.losses) == 9 and len(learn.recorder.values) == 1
    assert [type(cb) for cb in learn.cbs] == [Recorder]
    before = weights(learn)
    assert len(learn.validate()) == 2 and torch.equal(weights(learn), before)
    learn.fit(1)
    assert not torch.equal(weights(learn), before)


# data in other forms


def test_single_tensors_dictionaries_and_many_parts():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(FEATURES, CLASSES)

        def forward(self, a, b):
            return self.linear(a + b)

    class Parts(torch.utils.data.Dataset):
        n_inp = 2

        def __len__(self):
            return N

        def __getitem__(self, i):
            return X[i], X[i], Y[i]

    learn = learner(dls=DataLoaders.from_dsets(Parts(), Parts(), bs=32, num_workers=0), model=Two())
    learn.fit(1)
    (a, b), preds, targets = learn.get_preds(with_input=True)
    assert torch.equal(a, X) and torch.equal(b, X) and torch.equal(targets, Y) and len(preds) == N

    alone = DataLoaders(TorchLoader(X, batch_size=32), TorchLoader(X, batch_size=32))
    preds, targets = learner(dls=alone).get_preds()
    assert targets is None and preds.shape == (N, CLASSES)


def test_a_hand_written_optimiser_loss_and_metric():
    x, y = data()
    dls = pairs(x, (y == 0).float()[:, None])

    def loss(predictions, targets):
        predictions = predictions.sigmoid()
        return torch.where(targets == 1, 1 - predictions, predictions).mean()

    def batch_accuracy(predictions, targets):
        return ((predictions.sigmoid() > 0.5) == targets).float().mean()

    learn = Learner(dls, nn.Linear(FEATURES, 1), loss, BasicOptim, metrics=batch_accuracy)
    with learn.no_logging():
        learn.fit(10, lr=1.0)
    assert learn.recorder.values[-1][2] > 0.8
    assert list(learn.recorder.table.columns) == [
        "train_loss",
        "valid_loss",
        "batch_accuracy",
        "time",
    ]


def test_predictions_come_in_the_order_of_the_items():
    learn = learner()
    learn.fit(1)
    preds, targets = learn.get_preds(ds_idx=0)
    assert len(preds) == N and torch.equal(
        targets, data()[1]
    )  # shuffled, with the last batch left out, in training
    with torch.no_grad():
        assert torch.allclose(preds, learn.model(data()[0]).softmax(1))


def test_losses_of_each_item():
    for loss in (
        CrossEntropyLossFlat(),
        F.cross_entropy,
        nn.CrossEntropyLoss(),
        lambda p, t: F.cross_entropy(p, t),
    ):
        learn = learner(loss_func=loss)
        preds, targets, each = learn.get_preds(with_loss=True, act=lambda scores: scores)
        assert torch.allclose(each, F.cross_entropy(preds, targets, reduction="none"), atol=1e-6)
        assert each.mean().item() == pytest.approx(learn.validate()[0], abs=1e-6)


# ---------------------------------------------------------------- plain losses, any loader
def wrapped(loss):
    class Own(nn.Module):
        def forward(self, pred, target):
            return loss(pred, target)

    return Own()


def mine(pred, target):
    return (pred.float().mean() - target.float().mean()) ** 2


WEIGHT = torch.tensor([0.5, 2, 1])
SOFTMAX = (lambda x: x.softmax(1), lambda p: p.argmax(1))
SIGMOID = (torch.sigmoid, lambda p: p > 0.5)
NOTHING = (lambda x: x, lambda p: p)
READINGS = [
    (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1), None, SOFTMAX),
    (nn.CrossEntropyLoss(reduction="sum"), "category", SOFTMAX),
    (F.cross_entropy, None, SOFTMAX),
    (partial(F.cross_entropy, weight=WEIGHT), None, SOFTMAX),
    (partial(partial(F.cross_entropy, weight=WEIGHT), label_smoothing=0.1), None, SOFTMAX),
    (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), None, SIGMOID),
    (partial(F.binary_cross_entropy_with_logits, pos_weight=WEIGHT), "multicategory", SIGMOID),
    (nn.BCELoss(), None, (lambda x: x, lambda p: p > 0.5)),
    (nn.MSELoss(), None, NOTHING),
    (nn.SmoothL1Loss(), "regression", NOTHING),
    (F.l1_loss, "points", NOTHING),
    (mine, "category", SOFTMAX),
    (wrapped(F.cross_entropy), "category", SOFTMAX),
    (partial(mine), "multicategory", SIGMOID),
    (lambda pred, target: mine(pred, target), "regression", NOTHING),
    (mine, "points", NOTHING),
    (mine, "mask", SOFTMAX),
    (mine, None, NOTHING),
    (BCEWithLogitsLossFlat(thresh=0.3), "category", (torch.sigmoid, lambda p: p > 0.3)),
]


@pytest.mark.parametrize(("loss", "kind", "wanted"), READINGS)
def test_scores_are_read_by_the_loss_or_else_by_the_kind_of_the_targets(loss, kind, wanted):
    for shape in [(6, 3)] if kind == "category" else [(6, 3), (6, 3, 4, 5)]:
        scores = torch.randn(shape)
        act, decodes = reading(loss, kind, scores)
        assert torch.equal(act(scores), wanted[0](scores))
        assert torch.equal(decodes(act(scores)), wanted[1](wanted[0](scores)))


def test_what_a_loss_says_itself_goes_before_everything():
    class Says(nn.CrossEntropyLoss):
        def decodes(self, pred):
            return pred.topk(2).indices

    scores = torch.randn(5, 3)
    act, decodes = reading(Says(), "category", scores)
    assert torch.equal(act(scores), scores.softmax(1)) and decodes(scores).shape == (5, 2)


def test_one_score_is_yes_or_no():
    "The softmax of a single score is 1, whatever it is."
    for scores in (torch.randn(6, 1), torch.randn(6)):
        act, decodes = reading(mine, "category", scores)
        assert torch.equal(act(scores), scores.sigmoid())
        assert torch.equal(decodes(act(scores)), scores > 0)
    parts = (torch.randn(6, 3), torch.randn(6, 2))  # several heads: only the author knows
    assert reading(mine, "category", parts)[0](parts) is parts


def test_one_label_is_chosen_of_several():
    scores = torch.randn(5, 3)
    act, decodes = reading(nn.CrossEntropyLoss(), "multicategory", scores)
    assert torch.equal(decodes(act(scores)), F.one_hot(scores.argmax(1), 3))


def test_the_loss_of_each_item_of_any_loss():
    x, y = data()
    scores = net()(x).detach()

    class Stubborn(nn.Module):  # has a reduction, and does not look at it
        reduction = "mean"

        def forward(self, pred, target):
            return F.cross_entropy(pred, target) ** 2

    each = F.cross_entropy(scores, y, reduction="none")
    weighted = F.cross_entropy(scores, y, WEIGHT, reduction="none")
    for loss, wanted in (
        (nn.CrossEntropyLoss(weight=WEIGHT), weighted),
        (partial(F.cross_entropy, weight=WEIGHT), weighted),
        (nn.CrossEntropyLoss(reduction="sum"), each),
        (Stubborn(), each**2),
        (wrapped(nn.CrossEntropyLoss()), each),
    ):
        found = learner(dls=pairs(x, y), loss_func=loss).get_preds(with_loss=True)[-1]
        torch.testing.assert_close(found, wanted)


def shuffled_loaders(x, y):
    "Loaders that do not give the items in order, of coursekit and of torch alone."
    items, weights = TensorDataset(x, y), torch.linspace(0, 1, len(x))
    draws = WeightedRandomSampler(weights, len(x) * 2)

    class Own(TorchLoader):
        pass

    for kind in (DataLoader, TorchLoader, Own):
        yield kind(items, batch_size=32, shuffle=True)
        yield kind(items, batch_size=32, shuffle=True, drop_last=True)
        yield kind(items, batch_size=32, drop_last=True)
        yield kind(items, batch_size=32, sampler=draws)
    yield DataLoader(items, 32, batch_sampler=[[3, 1], [0]])
    yield DataLoader(items, 32, training=True, after_batch=[Noise()])
    yield TorchLoader(items, batch_size=32, shuffle=True, num_workers=1, persistent_workers=True)


class Noise(Transform):
    def draw(self, parts, kinds, training):
        return training

    def apply(self, parts, kinds, training=False):
        return (parts[0] + training, *parts[1:])


def test_any_loader_is_read_whole_and_in_order():
    x, y = data()
    learn = learner()
    wanted = learn.model(x).softmax(1).detach()
    for dl in shuffled_loaders(x, y):
        for _ in range(2):
            preds, targets = learn.get_preds(dl=dl)
            assert torch.equal(targets, y)
            torch.testing.assert_close(preds, wanted)
        loss, share = learn.validate(dl=dl)
        assert loss == pytest.approx(F.cross_entropy(learn.model(x), y).item(), rel=1e-5)
        assert share == pytest.approx((wanted.argmax(1) == y).float().mean().item())
    for kind in (DataLoader, TorchLoader):  # the sampler says which items there are
        some = kind(TensorDataset(x, y), batch_size=4, sampler=SubsetRandomSampler([9, 2, 5, 7, 1]))
        assert torch.equal(learn.get_preds(dl=some)[1], y[[1, 2, 5, 7, 9]])
        assert len(list(some)) == 2


def test_batches_in_a_list_are_taken_as_they_are():
    x, y = data()
    assert torch.equal(learner().get_preds(dl=[(x[[5, 4]], y[[5, 4]])])[1], y[[5, 4]])
    assert torch.equal(learner().get_preds(1, reorder=False)[1], data(1, 70)[1])


def test_a_third_loader():
    x, y = data(3, 50)
    dls = loaders()
    dls = DataLoaders(*dls.loaders, DataLoader(TensorDataset(x, y), 8, shuffle=True))
    learn = learner(dls=dls)
    assert torch.equal(learn.get_preds(ds_idx=2)[1], y)
    assert learn.validate(2)[0] == pytest.approx(
        F.cross_entropy(learn.model(x), y).item(), rel=1e-5
    )


def test_decoded_predictions_use_the_threshold_on_probabilities():
    x, y = data()
    learn = learner(
        dls=pairs(x, F.one_hot(y, CLASSES).float()),
        loss_func=BCEWithLogitsLossFlat(thresh=0.4),
        metrics=None,
    )
    preds, _, decoded = learn.get_preds(with_decoded=True)
    assert preds.min() >= 0 and torch.equal(decoded.bool(), preds > 0.4)


def test_metrics_are_weighted_by_batch_size():
    learn = learner(
        dls=DataLoaders(
            DataLoader(TensorDataset(*data())), DataLoader(TensorDataset(*data(1, 70)), bs=64)
        )
    )
    loss, share = learn.validate()
    x, y = data(1, 70)
    with torch.no_grad():
        scores = learn.model(x)
    assert loss == pytest.approx(F.cross_entropy(scores, y).item(), abs=1e-6)
    assert share == pytest.approx((scores.argmax(1) == y).float().mean().item(), abs=1e-6)


def test_nothing_of_the_last_batch_stays_in_memory():
    learn = learner()
    kept = []

    class Watch(Callback):
        def after_pred(self):
            kept[:] = [weakref.ref(self.learn.pred), weakref.ref(self.learn.xb[0])]

    learn.fit(1, cbs=Watch)
    gc.collect()
    assert [ref() for ref in kept] == [None, None]


def test_weight_decay_leaves_biases_and_norms_alone():
    learn = learner(model=net(norm=True), wd=0.1)
    learn.create_opt()
    decayed = {
        id(p) for group in learn.opt.param_groups if group["weight_decay"] for p in group["params"]
    }
    assert decayed == {id(learn.model[0].weight), id(learn.model[3].weight)}
    assert learn.hyper("wd") == [0.1]
    learn = learner(model=net(norm=True), wd=0.1, wd_bn_bias=True)
    learn.create_opt()
    assert [group["weight_decay"] for group in learn.opt.param_groups] == [0.1]


# files


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    learn = learner(tmp_path)
    learn.fit(1)
    file = learn.save("good")
    before = file.read_bytes()

    def half(content, f):
        f.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError):
        learn.save("good")
    assert file.read_bytes() == before and [p.name for p in file.parent.iterdir()] == ["good.pth"]


def test_save_and_load_give_the_same_training(tmp_path):
    torch.manual_seed(3)
    learn = learner(tmp_path)
    learn.fit(1)
    learn.save("here")
    other = learner(tmp_path).load("here")
    assert torch.equal(weights(learn), weights(other))
    for one in (learn, other):
        torch.manual_seed(4)
        one.fit(1)
    assert torch.equal(weights(learn), weights(other))  # the averages of the optimiser came along


def test_a_file_that_runs_code_is_refused(tmp_path):
    learn = learner(tmp_path)
    (tmp_path / "models").mkdir()

    class Attack:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'owned'}",))

    torch.save({"model": Attack()}, tmp_path / "models" / "bad.pth")
    with pytest.raises(DataError, match="run code"):
        learn.load("bad")
    assert not (tmp_path / "owned").exists()


def test_files_that_do_not_fit(tmp_path):
    learn = learner(tmp_path)
    learn.save("one")
    with pytest.raises(FileNotFoundError, match=r"one.pth"):
        learn.load("two")
    with pytest.raises(LearnerError, match=r"2.weight is \(3, 16\) in the file and \(5, 16\)"):
        learner(tmp_path, model=net(5)).load("one")
    with pytest.raises(LearnerError, match="lacks"):
        learner(tmp_path, model=net(norm=True)).load("one")
    whole = (tmp_path / "models" / "one.pth").read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"hello"):
        (tmp_path / "models" / "broken.pth").write_bytes(broken)
        with pytest.raises(DataError, match=r"broken.pth"):
            learn.load("broken")


def test_a_refused_file_changes_nothing(tmp_path):
    "Not even the optimiser, which load would have made."
    learn = learner(tmp_path)
    learn.fit(1)
    file = learn.save("good")
    state = torch.load(file)
    state["opt"]["state"][0]["exp_avg"] = torch.zeros(2, 3)
    torch.save(state, file)
    other = learner(tmp_path)
    before = weights(other)
    with pytest.raises(LearnerError, match=r"exp_avg of parameter 0 is \(2, 3\).*with_opt=False"):
        other.load("good")
    assert other.opt is None and other.layers == [] and torch.equal(weights(other), before)
    assert torch.equal(weights(other.load("good", with_opt=False)), weights(learn))
    torch.save(learn.model.state_dict(), file)  # without our names around it
    assert torch.equal(weights(learner(tmp_path).load("good")), weights(learn))


# the screen


def test_names_are_no_markup():
    from IPython.display import HTML

    from coursekit.recorder import _NotebookScreen

    shown = []
    screen = object.__new__(_NotebookScreen)
    screen._html, screen._table = HTML, ""
    screen._handle = type("Handle", (), {"update": lambda self, html: shown.append(html.data)})()
    screen.row(["<script>x</script>", "a&b"], ["1", "<b>2"])
    assert "<script>" not in shown[-1] and "<b>" not in shown[-1] and "a&amp;b" in shown[-1]
    learn = learner(metrics=[Metric(accuracy, name="cost $\\frac$")])
    learn.model.add_module("$_$", nn.Identity())
    stats = ActivationStats()
    learn.fit(1, cbs=stats)
    learn.recorder.plot_metrics()[0, 1].figure.canvas.draw()  # raises for bad mathematics
    stats.plot()[0].figure.canvas.draw()
    plt.close("all")


def test_plain_lines_outside_a_notebook(capsys):
    learn = Learner(loaders(), net(), F.cross_entropy, metrics=accuracy)
    learn.fit(2)
    out, err = capsys.readouterr()
    lines = out.strip().splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "0", "1"] and "accuracy" in lines[0]
    assert err == ""
    with learn.no_logging():
        learn.fit(1)
    assert capsys.readouterr().out == ""
    learn.fit(1)
    assert capsys.readouterr().out.count("\n") == 2


def test_a_notebook_keeps_the_table_and_nothing_else():
    code = """
        import time, torch
        from torch import nn
        import torch.nn.functional as F
        from torch.utils.data import TensorDataset
        from coursekit.loaders import DataLoaders
        from coursekit.events import Callback
        from coursekit.learner import Learner
        from coursekit.measures import accuracy
        class Slow(Callback):
            def after_batch(self): time.sleep(0.1)
        data = TensorDataset(torch.randn(64, 4), torch.randint(0, 2, (64,)))
        learn = Learner(DataLoaders.from_dsets(data, data, bs=8), nn.Linear(4, 2), F.cross_entropy, metrics=accuracy)
        learn.fit(2, cbs=Slow)
        """
    more = "learn.validate()", "with learn.no_bar(): learn.fit(1)", "raise_it = learn.get_preds()"
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in (code, *more)]
    book = NotebookClient(
        nbformat.v4.new_notebook(cells=cells), timeout=120, kernel_name="python3"
    ).execute()
    first, second, third, fourth = (cell.outputs for cell in book.cells)
    assert len(first) == 1 and first[0].output_type == "display_data"
    html = first[0].data["text/html"]
    assert html.count("<tr>") == 3 and "<progress" not in html and "valid_loss" in html
    assert [output.output_type for output in second] == ["execute_result"]
    assert "".join(output.get("text", "") for output in third).count("\n") == 2
    assert not fourth


def test_summary_says_what_there_is():
    learn = learner(model=net(norm=True))
    text = learn.summary()
    assert "32 x 16" in text and f"{total_params(learn.model)[0]:,} parameters" in text
    assert not any(module._forward_hooks for module in learn.model.modules())
    assert str(text) == repr(text)


def test_hooks_are_gone_after_an_error():
    model = net()
    with pytest.raises(RuntimeError), hook_outputs([model[0]]) as stored:
        model(torch.randn(2, FEATURES))
        raise RuntimeError
    assert stored[0].shape == (2, 16) and not model[0]._forward_hooks


def test_dead_units_are_found():
    model = net()
    with torch.no_grad():
        model[0].bias[[3, 7]] = -1e3
    learn, stats = learner(model=model, opt_func=torch.optim.SGD, lr=1e-3), ActivationStats()
    learn.fit(1, cbs=stats)
    x = data()[0]
    never = ((model[0](x) > 0).sum(0) == 0).nonzero().flatten().tolist()
    assert stats.dead_units(1) == never == [3, 7] and stats.dead_units(0) == []
    assert stats.layer_stats(0).shape == (3, 6)


def test_a_metric_alone():
    metric = Metric(accuracy)
    assert metric.value is None
    metric.update(torch.eye(3), torch.tensor([0, 1, 2]))
    metric.update(torch.eye(3)[:1], torch.tensor([2]))
    assert metric.value == pytest.approx(0.75)


def test_the_loop_does_not_disturb_random_numbers():
    "The same order and weights as the bare loop that it replaces."
    x, y = data()
    learn = learner(opt_func=torch.optim.SGD, lr=0.1)
    torch.manual_seed(7)
    learn.fit(2)
    model = net()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(7)
    for _ in range(2):
        order = torch.randperm(N)
        for i in range(0, N - 31, 32):
            F.cross_entropy(model(x[order[i : i + 32]]), y[order[i : i + 32]]).backward()
            optimiser.step()
            optimiser.zero_grad()
    ours, bare = weights(learn), torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.equal(ours, bare)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    learn = learner(dls=loaders(device="cuda"))
    learn.fit(2)
    assert next(learn.model.parameters()).is_cuda and np.isfinite(learn.recorder.losses).all()
    assert not learn.get_preds()[0].is_cuda


def test_importing_the_learner_leaves_the_big_ones_out():
    big = ("pandas", "matplotlib.pyplot", "sklearn", "IPython", "torchvision")
    code = f"import sys, coursekit.learner; print([m for m in {big} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_an_optimiser_of_another_model():
    learn = learner()
    learn.fit(1)
    learn.model = net(norm=True)
    with pytest.raises(LearnerError, match="reset_opt=True"):
        learn.fit(1)
    learn.fit(1, reset_opt=True)


# ---------------------------------------------------------------- what a person is shown
class Pictures(TensorDataset):
    kinds = ("image", "category")


def test_results_in_the_rows_and_columns_that_were_asked_for():
    dls = DataLoaders.from_dsets(*[Pictures(torch.rand(20, 3, 8, 8), torch.arange(20) % 2)] * 2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    learn = Learner(dls, model, CrossEntropyLossFlat())
    for sizes, rows, columns, shown in (
        ({"ds_idx": 1, "nrows": 3, "figsize": (6, 8)}, 3, 3, 9),  # as in chapter 6 of the book
        ({"nrows": 1, "max_n": 4}, 1, 4, 4),
        ({"ncols": 2, "max_n": 5}, 3, 2, 5),
        ({"nrows": 2, "ncols": 2}, 2, 2, 4),
        ({"nrows": 4, "ncols": 4}, 4, 4, 9),  # `max_n` still says how many at most
        ({}, 3, 3, 9),
    ):
        learn.show_results(**sizes)
        axes = plt.gcf().axes
        grid = axes[0].get_gridspec()
        assert (grid.nrows, grid.ncols, len(axes)) == (rows, columns, shown), sizes
        assert {ax.title.get_color() for ax in axes} <= {"tab:green", "tab:red"}
        plt.close("all")


class Rating:
    "A film and who saw it, as numbers for the model and as names for a person."

    def __call__(self, row):
        return torch.tensor([row["user"], row["film"]])

    def decode(self, numbers):
        return {"user": int(numbers[0]), "title": ["Kolya", "Fargo"][numbers[1]]}


class Always(nn.Module):
    def __init__(self):
        super().__init__()
        self.stars = nn.Parameter(torch.tensor(3.5))

    def forward(self, x):
        return self.stars.expand(len(x), 1)


def test_inputs_with_names_are_columns_of_a_table(monkeypatch):
    tables = []
    monkeypatch.setattr("IPython.display.display", tables.append)
    rows = [{"user": 196, "film": 0, "stars": 3.0}, {"user": 22, "film": 1, "stars": 5.0}] * 2
    block = DataBlock(
        (TransformBlock(Rating()), RegressionBlock()),
        get_y=lambda row: row["stars"],
        splitter=lambda items: ([0, 1], [2, 3]),
    )
    dls = block.dataloaders(rows, bs=2, num_workers=0)
    dls.valid.show_batch()
    assert list(tables[-1]) == ["user", "title", "target"]
    assert tables[-1].to_numpy().tolist() == [["196", "Kolya", "3"], ["22", "Fargo", "5"]]
    Learner(dls, Always(), MSELossFlat()).show_results(shuffle=False)
    assert list(tables[-1]) == ["user", "title", "target", "predicted"]
    assert tables[-1].to_numpy().tolist()[0] == ["196", "Kolya", "3", "3.5"]

    loaders().show_batch(max_n=2)
    assert list(tables[-1]) == [0, 1]  # nobody said what these are


def test_a_table_of_classes_leaves_no_empty_figure_behind(monkeypatch):
    tables = []
    monkeypatch.setattr("IPython.display.display", tables.append)
    Labelled = type("Labelled", (TensorDataset,), {"kinds": (None, "category")})
    dls = DataLoaders.from_dsets(Labelled(*data(0)), Labelled(*data(1)), bs=32)
    plt.close("all")
    Learner(dls, nn.Linear(FEATURES, CLASSES), CrossEntropyLossFlat()).show_results()
    assert len(tables[-1]) == 9 and not plt.get_fignums()


@pytest.mark.parametrize("method", ["fit", "fit_one_cycle", "fit_flat_cos"])
def test_no_epochs_are_none(method):
    learn, events = learner(), []
    cb = type("Told", (Callback,), {"before_fit": lambda self: events.append(1)})
    before = weights(learn)
    getattr(learn, method)(0, cbs=cb)
    assert torch.equal(weights(learn), before) and not events
    assert not learn.recorder.values and not learn.recorder.losses
    getattr(learn, method)(1, cbs=cb)
    assert events == [1] and len(learn.recorder.values) == 1
    getattr(learn, method)(0)
    assert len(learn.recorder.values) == 1
    with pytest.raises(ValueError, match="n_epoch=-1: a whole number of epochs, 0 or more"):
        getattr(learn, method)(-1)


def test_a_phase_of_fine_tune_without_epochs():
    split = lambda model: [list(part.parameters()) for part in (model[0], model[2])]
    for epochs, frozen in ((0, 1), (1, 0)):
        learn = learner(splitter=split)
        body, head = (learn.model[i].weight.detach().clone() for i in (0, 2))
        learn.fine_tune(epochs, freeze_epochs=frozen)
        assert torch.equal(learn.model[0].weight, body) == (epochs == 0)
        assert not torch.equal(learn.model[2].weight, head)
        assert len(learn.recorder.values) == 1


def test_what_a_callback_sees_before_a_batch():
    seen = {}

    def look(event):
        def note(self):
            seen.setdefault(event, []).append((self.dl, self.n_iter))

        return note

    early = ("before_fit", "before_train", "before_validate")
    learn = learner(cbs=type("Looks", (Callback,), {event: look(event) for event in early}))
    learn.fit(2)
    train, valid = ((dl, len(dl)) for dl in (learn.dls.train, learn.dls.valid))
    assert seen == {
        "before_fit": [train],
        "before_train": [train] * 2,
        "before_validate": [valid] * 2,
    }
    looks = {
        "xb": lambda self: self.xb[0],
        "yb": lambda self: self.yb[0],
        "x": lambda self: self.x,
        "y": lambda self: self.learn.y,
    }
    for fitted in (False, True):
        for name, reads in looks.items():
            learn = learner()
            if fitted:
                learn.fit(1)
            with pytest.raises(LearnerError, match=r"no batch is at hand: .* from before_batch"):
                learn.fit(1, cbs=type("Early", (Callback,), {"before_fit": reads}))
            assert name and not learn.xb and len(learn.yb) == 0


def test_gradients_are_forgotten_after_each_step_by_any_optimizer():
    cleared = []

    class Own(torch.optim.SGD):
        def zero_grad(self, set_to_none=True):
            cleared.append(set_to_none)
            super().zero_grad(set_to_none)

    for kind in (torch.optim.SGD, Own):
        x = torch.ones(8, 2)
        rows = torch.utils.data.TensorDataset(x, x[:, :1])
        dls = DataLoaders(*(DataLoader(rows, bs=4, num_workers=0) for _ in range(2)))
        learn = Learner(dls, nn.Linear(2, 1), nn.functional.mse_loss, opt_func=kind)
        with learn.no_logging():
            learn.fit(1, 0.1)
        assert all(p.grad is None for p in learn.model.parameters())
    assert len(cleared) >= 2
