"Callbacks that write, draw and decide, and what a callback sees of its learner."

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import coursekit.callbacks
import coursekit.training
from coursekit.callbacks import CSVLogger, ReduceLROnPlateau, ShowGraphCallback
from coursekit.checkpoints import SaveModelCallback, TrackerCallback
from coursekit.events import Callback
from coursekit.hooks import ActivationStats, hook_output, hook_outputs
from coursekit.learner import Learner
from coursekit.loaders import DataLoaders
from coursekit.measures import mae
from coursekit.messages import DataError
from coursekit.precision import MixedPrecision

X = torch.linspace(-1, 1, 64)[:, None]
DATA = TensorDataset(X, 2 * X)


def learner(path=".", lr=0.1, metrics=mae, **kwargs) -> Learner:
    torch.manual_seed(0)
    dls = DataLoaders(DataLoader(DATA, 16), DataLoader(DATA, 64))
    model = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1))
    options = {"opt_func": torch.optim.SGD, "path": path, "metrics": metrics} | kwargs
    return Learner(dls, model, F.mse_loss, lr=lr, **options)


def fit(learn: Learner, *args, how="fit", **kwargs) -> Learner:
    with learn.no_logging():
        getattr(learn, how)(*args, **kwargs)
    return learn


# ---------------------------------------------------------------- the learner, from a callback
class Sees(Callback):
    def __init__(self):
        self.seen = []

    def after_batch(self):
        assert self.xb is self.learn.xb and self.yb is self.learn.yb
        assert self.pred is self.learn.pred and self.dl is self.learn.dl
        assert self.opt is self.learn.opt and self.dls is self.learn.dls
        assert self.recorder is self.learn.recorder and self.model is self.learn.model
        assert torch.equal(self.x, self.learn.xb[0]) and torch.equal(self.y, self.learn.yb[0])
        self.seen.append((self.epoch, self.training, self.iter))


def test_a_callback_sees_the_learner():
    cb = Sees()
    fit(learner(), 2, cbs=cb)
    one = [(True, i) for i in range(4)] + [(False, 0)]
    assert cb.seen == [(epoch, *rest) for epoch in range(2) for rest in one]


def test_what_is_assigned_stays_with_the_callback():
    class Sets(Callback):
        def before_fit(self):
            self.epoch = "mine"

    learn, cb = learner(), Sets()
    fit(learn, 1, cbs=cb)
    assert (cb.epoch, learn.epoch) == ("mine", 0)


def test_what_neither_has_is_told():
    cb = Callback()
    with pytest.raises(AttributeError, match="Callback has no 'epoch', and it is in no learner"):
        _ = cb.epoch
    learn = learner().add_cb(cb)
    with pytest.raises(AttributeError, match="Callback has no 'epok', and its learner has none"):
        _ = cb.epok
    del learn
    assert not hasattr(cb, "_calls") and not hasattr(cb, "after_batch")
    assert type(deepcopy(Sees())) is type(pickle.loads(pickle.dumps(Sees()))) is Sees


def test_the_recorders_log():
    class Adds(Callback):
        def after_epoch(self):
            self.learn.recorder.log.append(7)

    learn = fit(learner(), 2, cbs=Adds)
    log = learn.recorder.log
    assert log[:-1] == [1, *learn.recorder.values[-1], 7] and log[-1] == learn.recorder.times[-1]
    assert learn.recorder.metrics is learn.metrics


# ---------------------------------------------------------------- CSVLogger
def test_a_table_in_a_file(tmp_path):
    logger = CSVLogger()
    learn = fit(learner(tmp_path), 3, cbs=logger)
    table = logger.read_log()
    assert logger.file == tmp_path / "history.csv"
    assert table.columns.tolist() == learn.recorder.metric_names
    assert table.epoch.tolist() == [0, 1, 2] and table.time.tolist() == ["00:00"] * 3
    for i, name in enumerate(("train_loss", "valid_loss", "mae")):
        assert table[name].tolist() == pytest.approx([row[i] for row in learn.recorder.values])
    fit(learn, 1, cbs=logger)
    assert len(logger.read_log()) == 1  # each fit begins anew
    fit(learn, 2, how="fine_tune", cbs=CSVLogger(append=True))
    assert logger.read_log().epoch.tolist() == [0, 0, 0, 1]


def test_a_file_with_other_columns_is_left_alone(tmp_path):
    fit(learner(tmp_path), 1, cbs=CSVLogger("sub/run.csv"))
    before = (tmp_path / "sub/run.csv").read_bytes()
    with pytest.raises(DataError, match=r"epoch,train_loss,valid_loss,mae,time, and this training"):
        fit(learner(tmp_path, metrics=None), 1, cbs=CSVLogger("sub/run.csv", append=True))
    assert (tmp_path / "sub/run.csv").read_bytes() == before


def test_the_file_is_whole_after_an_interruption(tmp_path):
    class Stop(Callback):
        def after_batch(self):
            if self.epoch == 1:
                raise KeyboardInterrupt

    logger = CSVLogger()
    with pytest.raises(KeyboardInterrupt):
        fit(learner(tmp_path), 3, cbs=[logger, Stop()])
    assert logger.read_log().epoch.tolist() == [0]


def test_a_search_for_a_rate_is_no_training(tmp_path):
    cbs = [CSVLogger(), SaveModelCallback("train_loss"), ReduceLROnPlateau("train_loss")]
    learn = learner(tmp_path, cbs=cbs)
    learn.lr_find(num_it=20, show_plot=False)
    assert not list(tmp_path.iterdir()) and all(cb in learn.cbs for cb in cbs)


# ---------------------------------------------------------------- ReduceLROnPlateau
class Plays(Callback):
    "Puts losses into the table."

    order = 51

    def __init__(self, losses):
        self.losses = losses

    def after_epoch(self):
        self.learn.recorder.values[-1][1] = self.losses[self.epoch]


def rates_of(losses, lr=0.8, **kwargs) -> list[float]:
    learn = learner(lr=lr)
    fit(learn, len(losses), cbs=[Plays(losses), ReduceLROnPlateau(**kwargs)])
    return learn.recorder.lrs[3::4]


def test_a_rate_falls_on_a_plateau(capsys):
    losses = [5.0, 4.0, 4.0, 3.0, 3.5, 3.6, 3.0, 2.0]  # as fastai's: equal is no gain
    expected = [0.8, 0.8, 0.8, 0.08, 0.08, 0.008, 8e-4, 8e-5]
    assert rates_of(losses) == pytest.approx(expected)
    assert "epoch 2: the rate is now 0.08" in capsys.readouterr().out
    assert rates_of(losses, patience=2, factor=2.0) == pytest.approx([0.8] * 6 + [0.4, 0.4])
    assert rates_of(losses, min_lr=0.05)[-1] == 0.05
    assert rates_of(losses, comp=np.greater, patience=7)[-1] == 0.8
    assert rates_of([3.0, 2.9, 2.8], min_delta=0.15) == pytest.approx([0.8, 0.8, 0.08])


def test_it_says_where_it_does_nothing():
    with pytest.warns(UserWarning, match="It goes with fit"):
        fit(learner(), 1, how="fit_one_cycle", cbs=ReduceLROnPlateau())
    with pytest.raises(ValueError, match="factor=0"):
        ReduceLROnPlateau(factor=0)
    with pytest.warns(UserWarning, match=r"factor=0\.5: .* will not fall; 2 makes them 0\.5 of"):
        ReduceLROnPlateau(factor=0.5)
    with pytest.raises(ValueError, match="the table has train_loss, valid_loss, mae"):
        fit(learner(), 1, cbs=ReduceLROnPlateau("accuracy"))


# ---------------------------------------------------------------- ShowGraphCallback
def test_a_graph_is_drawn_where_somebody_looks(monkeypatch):
    shown = []

    class Handle:
        def update(self, figure):
            shown.append(figure)

    def display(figure, display_id):
        shown.append(figure)
        return Handle()

    fit(learner(), 2, cbs=ShowGraphCallback)
    assert not shown
    monkeypatch.setattr(coursekit.callbacks, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    fit(learner(), 3, cbs=ShowGraphCallback)
    lines = [figure.axes[0].lines for figure in shown]
    assert [[len(line.get_xdata()) for line in pair] for pair in lines] == [[4, 1], [8, 2], [12, 3]]
    assert [figure.axes[0].get_xlim() for figure in shown] == [(0, 12)] * 3


# ---------------------------------------------------------------- the best of two phases
def test_the_best_of_both_phases(tmp_path):
    def best(reset: bool) -> list[float]:
        learn = learner(tmp_path, splitter=lambda m: [list(p.parameters()) for p in (m[0], m[2])])
        saver = SaveModelCallback(fname=f"best_{reset}", reset_on_fit=reset)
        order = iter([1.0, 3.0, 2.0])  # the frozen epoch is the best

        class Loss(Callback):
            order = 51

            def after_epoch(self):
                self.learn.recorder.values[-1][1] = next(self.losses)
                kept.append([p.detach().clone() for p in self.learn.model.parameters()])

        cb, kept = Loss(), []
        cb.losses = order
        fit(learn, 2, how="fine_tune", freeze_epochs=1, cbs=[cb, saver])
        assert saver.best == (2.0 if reset else 1.0)
        same = [
            all(torch.equal(a, b) for a, b in zip(k, learn.model.parameters(), strict=True))
            for k in kept
        ]
        return same

    assert best(False) == [True, False, False] and best(True) == [False, False, True]


def test_saving_the_end(tmp_path):
    learn = learner(tmp_path)
    fit(learn, 3, cbs=[Plays([1.0, 2.0, 3.0]), SaveModelCallback(at_end=True)])
    end = [p.detach().clone() for p in learn.model.parameters()]
    fit(learn, 1)
    learn.load("model")
    assert all(torch.equal(a, b) for a, b in zip(end, learn.model.parameters(), strict=True))
    with pytest.raises(ValueError, match="every_epoch and at_end"):
        SaveModelCallback(every_epoch=True, at_end=True)
    fit(learn, 4, cbs=SaveModelCallback(every_epoch=3, fname="each"))
    found = {file.name for file in (tmp_path / "models").glob("each*")}
    assert found == {"each_0.pth", "each_3.pth"}
    assert TrackerCallback().best is None


# ---------------------------------------------------------------- hooks
def test_a_hook_without_with():
    learn = learner()
    hook, hooks = hook_output(learn.model[0]), hook_outputs(learn.model)
    assert hook.stored is None
    expected = learn.model(X)
    assert torch.equal(hook.stored, learn.model[0](X).detach())
    assert torch.equal(hooks.stored[2], expected.detach()) and hooks[2] is hooks.stored[2]
    hook.remove()
    hooks.remove()
    learn.model(X * 0)
    assert torch.equal(hooks.stored[2], expected.detach())
    with hook_output(learn.model[2], detach=False) as hook:
        assert learn.model(X) is hook.stored and hook.stored.requires_grad


def test_histograms_of_activations():
    stats = ActivationStats(with_hist=True)
    learn = fit(learner(), 1, cbs=stats)
    counts = stats.hist(1)
    assert counts.shape == (40, 4) and (counts.sum(0) == 16 * 4).all()
    assert len(stats.hists) == len(learn.model)
    with pytest.raises(ValueError, match="with_hist=True"):
        fit(learner(), 1, cbs=(plain := ActivationStats()))
        plain.hist(0)


# ---------------------------------------------------------------- 16 bits
@pytest.mark.parametrize("half", ["to_fp16", "to_bf16"])
def test_on_a_cpu_a_learner_stays_in_32_bits(half):
    learn, seen = learner(), []
    with pytest.warns(UserWarning, match="stays in 32 bits") as said:
        assert getattr(learn, half)() is learn
    assert len(said) == 1 and said[0].filename == __file__
    learn.model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    fit(learn, 1)
    assert set(seen) == {torch.float32}
    assert not any(isinstance(cb, MixedPrecision) for cb in learn.cbs)
    fit(getattr(learn, half)(cpu=True), 1)
    assert seen[-1] == {"to_fp16": torch.float16, "to_bf16": torch.bfloat16}[half]
