"""Schedules, the rate finder, freezing, precision, checkpoints: what they promise when things go wrong."""

import math
import subprocess
import sys
import textwrap
import time
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

import coursekit.training  # noqa: F401 - its methods
from coursekit.basics import BasicOptim
from coursekit.blocks import CategoryBlock, DataBlock, TransformBlock
from coursekit.checkpoints import Checkpoint, EarlyStoppingCallback, SaveModelCallback
from coursekit.data import RandomSplitter
from coursekit.events import Callback, LearnerError
from coursekit.finder import LRFinder, minimum, steep, valley
from coursekit.learner import Learner
from coursekit.loaders import DataLoaders
from coursekit.measures import accuracy
from coursekit.optimizers import SGD, Adam, RMSProp
from coursekit.precision import GradientAccumulation, GradientClip, MixedPrecision
from coursekit.schedules import ParamScheduler, SchedLin

N, FEATURES, CLASSES = 320, 8, 3


def data(seed=0, n=N):
    x = torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(seed))
    return x, (
        x @ torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(9))
    ).argmax(1)


def net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(FEATURES, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 16),
        nn.ReLU(),
        nn.Linear(16, CLASSES),
    )


def groups(model):
    return [list(part.parameters()) for part in (model[:3], model[3:5], model[5:])]


def learner(path=".", bs=32, seed=None, **kwargs):
    dls = DataLoaders.from_dsets(
        TensorDataset(*data(0)), TensorDataset(*data(1, 64)), bs=bs, path=path, seed=seed
    )
    learn = Learner(
        dls, net(), F.cross_entropy, **{"metrics": accuracy, "splitter": groups} | kwargs
    )
    return learn.remove_cbs(learn.progress)


def state(learn):
    return torch.cat(
        [value.detach().flatten().double() for value in learn.model.state_dict().values()]
    )


class Stop(Callback):
    def __init__(self, at, error=KeyboardInterrupt, event="before_batch"):
        self.at, self.error = at, error
        setattr(self, event, self.go)

    def go(self):
        if self.learn.training and self.learn.train_iter == self.at:
            raise self.error


class Rates(Callback):
    order = 99

    def __init__(self):
        self.seen = []

    def before_step(self):
        self.seen.append(self.learn.hyper("lr"))


# the rate finder


@pytest.mark.parametrize(
    "at, error",
    [(None, None), (0, KeyboardInterrupt), (17, KeyboardInterrupt), (17, ZeroDivisionError)],
)
@pytest.mark.parametrize("trained", [False, True])
def test_lr_find_leaves_no_trace(at, error, trained):
    learn = learner(seed=5)
    if trained:
        learn.fit_one_cycle(1, 1e-2)
    with_opt = deepcopy(learn.opt.state_dict()) if trained else None
    before, table, losses, order = (
        state(learn),
        list(learn.recorder.values),
        list(learn.recorder.losses),
        torch.get_rng_state(),
    )
    if error is None:
        learn.lr_find(show_plot=False)
    else:
        with pytest.raises(error), learn.added_cbs(Stop(at, error)):
            learn.lr_find(show_plot=False)
    assert torch.equal(state(learn).cpu(), before.cpu())  # training takes the model to the GPU
    assert learn.recorder.values == table and learn.recorder.losses == losses
    assert torch.equal(torch.get_rng_state(), order)
    assert all(p.grad is None for p in learn.model.parameters())
    if trained:
        for ours, theirs in zip(
            learn.opt.state_dict()["state"].values(), with_opt["state"].values(), strict=True
        ):
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert [g["lr"] for g in learn.opt.param_groups] == [
            g["lr"] for g in with_opt["param_groups"]
        ]
    else:
        assert learn.opt is None
    assert [repr(cb) for cb in learn.cbs] == ["Recorder"]


def test_training_after_lr_find_is_the_training_without_it():
    found = []
    for look in (False, True):
        learn = learner(seed=5)
        torch.manual_seed(2)
        if look:
            learn.lr_find(show_plot=False)
        learn.fit_one_cycle(2, 1e-2)
        found.append(state(learn))
    assert torch.equal(*found)


def test_lr_find_suggests_with_every_function():
    found = learner().lr_find(suggest_funcs=(minimum, steep, valley), show_plot=False)
    assert found._fields == ("minimum", "steep", "valley") and all(
        1e-7 < rate < 10 for rate in found
    )
    low, high = learner().lr_find(suggest_funcs=(minimum, steep), show_plot=False)
    assert low > 0 and high > 0


@pytest.mark.parametrize("show", [True, False])
def test_lr_find_where_the_first_loss_is_no_number(show):
    learn = learner()
    learn.loss_func = lambda pred, y: F.cross_entropy(pred, y) * math.nan
    before = state(learn)
    with pytest.warns(UserWarning) as said:
        found = learn.lr_find(suggest_funcs=(valley, minimum), show_plot=show)
    assert [str(w.message)[:28] for w in said] == ["the first loss is no number,"]
    assert all(map(math.isnan, found)) and torch.equal(state(learn), before)
    assert "dls.one_batch()" in str(said[0].message) and said[0].filename == __file__


def test_lr_find_of_a_single_item():
    batches = [(torch.ones(1, 3), torch.ones(1, 1))]
    learn = Learner(DataLoaders(batches, batches), nn.Linear(3, 1), F.mse_loss)
    learn.remove_cbs(learn.progress)
    assert all(map(math.isfinite, learn.lr_find(show_plot=False)))


def test_lr_find_with_a_range_that_is_none():
    for start, end in ((0, 1), (1, 1), (1, 0.1), (-1, 1)):
        with pytest.raises(ValueError, match="start_lr"):
            LRFinder(start, end)
    learn = learner()
    before = state(learn)
    with pytest.raises(
        ValueError
    ):  # too few batches to say anything; told in words, and nothing has moved
        learn.lr_find(num_it=4, show_plot=False)
    assert torch.equal(state(learn), before)


def test_lr_find_stops_where_the_loss_explodes():
    learn = learner(opt_func=SGD)
    learn.lr_find(end_lr=1e30, show_plot=False)
    assert np.isfinite(learn.lr_finder.losses).all() and len(learn.lr_finder.losses) < 100


# schedules and groups


def test_rates_of_groups():
    learn = learner()
    learn.fit_one_cycle(1, lr_max=slice(1e-6, 1e-4), cbs=(rates := Rates()))
    highest = np.array(rates.seen).max(0)
    assert highest == pytest.approx([1e-6, 1e-5, 1e-4], rel=2e-2)
    learn.fit(1, lr=slice(1e-3), cbs=(rates := Rates()))
    assert rates.seen[0] == pytest.approx([1e-4, 1e-4, 1e-3])
    with pytest.raises(ValueError, match="2 values for 3 groups"):
        learn.fit(1, lr=[1e-3, 1e-4])


def test_momentum_is_scheduled_only_where_there_is_some():
    for opt_func, has in (
        (SGD, False),
        (lambda p, lr: SGD(p, lr, mom=0.9), True),
        (Adam, True),
        (torch.optim.SGD, False),
        (BasicOptim, False),
    ):
        learn = learner(opt_func=opt_func, splitter=lambda model: list(model.parameters()))
        learn.fit_one_cycle(1, 1e-2)
        assert ("mom" in learn.recorder.hps) == has, opt_func


def test_a_schedule_for_what_the_optimiser_has_not():
    with pytest.raises(LearnerError, match="no mom"):
        learner(opt_func=lambda p, lr: torch.optim.Adagrad(p, lr)).fit(
            1, cbs=ParamScheduler({"mom": SchedLin(0.9, 0.8)})
        )


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_share_that_is_none(share):
    for fit in ("fit_one_cycle", "fit_flat_cos"):
        with pytest.raises(ValueError, match="pct_start"):
            getattr(learner(), fit)(1, 1e-3, pct_start=share)


def test_freezing():
    learn = learner()
    learn.freeze()
    assert [[p.requires_grad for p in group] for group in learn.layers] == [
        [False, False, True, True],
        [False, False],
        [True, True],
    ]
    before = [p.detach().clone() for p in learn.model.parameters()]
    learn.fit(1, 1e-2)
    pairs = zip(before, learn.model.cpu().parameters(), strict=True)
    assert [not torch.equal(a, b) for a, b in pairs] == [False, False, True, True] * 2
    learn.freeze_to(1)
    assert not learn.layers[0][0].requires_grad and learn.layers[1][0].requires_grad
    learn.unfreeze()
    assert all(p.requires_grad for p in learn.model.parameters())
    for n in (3, -4):
        with pytest.raises(ValueError, match="3 groups"):
            learn.freeze_to(n)
    strict = learner(train_bn=False)
    strict.freeze()
    assert sum(p.requires_grad for p in strict.model.parameters()) == 2
    with pytest.warns(UserWarning, match="single group"):
        learner(splitter=lambda model: list(model.parameters())).freeze()


def test_fine_tune_goes_through_two_phases():
    learn = learner()
    learn.fine_tune(4, base_lr=3e-3, freeze_epochs=2, cbs=(rates := Rates()))
    seen = np.array(rates.seen)
    assert len(seen) == 6 * 10
    assert seen[:20].max(0) == pytest.approx([3e-4, 3e-4, 3e-3], rel=1e-2)
    assert seen[20:].max(0) == pytest.approx([1.5e-5, 1.5e-4, 1.5e-3], rel=1e-2)


def test_our_optimisers_are_the_defaults_of_the_learner():
    for opt_func in (None, Adam):
        learn = learner(opt_func=opt_func)
        torch.manual_seed(0)
        learn.fit(1)
        first = state(learn) if opt_func is None else first  # noqa: F821
    assert torch.allclose(first, state(learn), atol=1e-7)
    learner(opt_func=RMSProp).fit(1)


# precision, accumulation, clipping


@pytest.mark.parametrize("half", ["to_bf16", "to_fp16"])
def test_half_precision_learns_too(half):
    learn = getattr(learner(), half)(cpu=True)
    dtypes = []
    learn.model[0].register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    learn.fit_one_cycle(5, 2e-2)
    assert set(dtypes) == {torch.bfloat16 if half == "to_bf16" else torch.float16}
    assert all(p.dtype == torch.float32 for p in learn.model.parameters())
    assert learn.recorder.values[-1][2] > 0.8
    assert learn.get_preds()[0].dtype == torch.float32
    learn.to_fp32().fit(1)
    assert dtypes[-1] == torch.float32
    assert not any(isinstance(cb, MixedPrecision) for cb in learn.cbs)


def test_accumulated_batches_are_one_large_batch():
    found = []
    for bs, cbs in ((64, []), (16, [GradientAccumulation(64)])):
        learn = learner(bs=bs, opt_func=SGD)
        learn.model[1] = nn.Identity()
        learn.dls.train.batch_sampler.shuffle = False
        learn.fit(2, 0.1, cbs=cbs)
        found.append(state(learn))
    assert torch.allclose(*found, atol=1e-6)


def test_clipped_gradients():
    class Norm(Callback):
        order = 50

        def before_step(self):
            grads = [p.grad for p in self.learn.model.parameters()]
            seen.append(torch.stack([g.norm() for g in grads]).norm().item())

    for half in (False, True):
        seen = []
        learn = learner().to_fp16(cpu=True) if half else learner()
        learn.fit(1, cbs=[GradientClip(0.05), Norm])
        assert max(seen) < 0.0501


# the best epoch, the end, and going on


def test_the_best_epoch_is_kept(tmp_path):
    learn = learner(tmp_path)
    learn.fit(6, 0.1, cbs=SaveModelCallback("accuracy"))
    best = max(row[2] for row in learn.recorder.values)
    assert learn.validate()[1] == pytest.approx(best)
    learn.fit(2, 0.1, cbs=SaveModelCallback(every_epoch=True, fname="each"))
    assert (tmp_path / "models/each_0.pth").exists() and (tmp_path / "models/each_1.pth").exists()
    for cb in (SaveModelCallback, EarlyStoppingCallback):
        with pytest.raises(ValueError, match="the table has train_loss, valid_loss, accuracy"):
            learn.fit(1, cbs=cb("f1"))


def test_stopping_early(tmp_path):
    learn = learner(tmp_path)
    learn.model[1] = nn.Identity()  # its averages would move, whatever the rate
    learn.fit(50, 1e-9, cbs=EarlyStoppingCallback("accuracy", patience=2))
    assert len(learn.recorder.values) == 3


def interrupted(make, **kwargs):
    learn = make()
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle(4, 1e-2, cbs=[Checkpoint("run", resume=False), Stop(25)], **kwargs)
    return learn


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("half", [None, "to_bf16", "to_fp16"])
def test_a_run_goes_on_to_the_same_weights(tmp_path, seed, half):
    def make():
        learn = learner(tmp_path, seed=seed)
        if half:
            getattr(learn, half)(cpu=True)
        torch.manual_seed(4)
        return learn.add_cbs(
            [GradientAccumulation(100), GradientClip(0.5), SaveModelCallback("accuracy")]
        )

    whole = make()
    whole.fit_one_cycle(4, 1e-2, cbs=Checkpoint("whole"))
    interrupted(make)
    torch.manual_seed(99)
    learn = make()
    torch.manual_seed(98)
    learn.fit_one_cycle(4, 1e-2, cbs=Checkpoint("run", resume=True))
    assert torch.equal(state(learn), state(whole))
    assert (
        learn.recorder.values == whole.recorder.values
        and learn.recorder.losses == whole.recorder.losses
    )
    assert learn.recorder.hps == whole.recorder.hps
    again = make()  # it had ended: the weights at once, no more training
    again.fit_one_cycle(4, 1e-2, cbs=[Checkpoint("run", resume=True), Stop(0)])
    assert torch.equal(state(again), state(whole))


def test_a_run_goes_on_with_the_averages_it_keeps(tmp_path):
    def make():
        return learner(tmp_path, seed=3, bn_eval=True)

    whole, again = make(), make()
    whole.fit_one_cycle(4, 1e-2, cbs=Checkpoint("whole"))
    interrupted(make)
    again.fit_one_cycle(4, 1e-2, cbs=Checkpoint("run", resume=True))
    assert torch.equal(state(again), state(whole))
    assert again.model[1].num_batches_tracked == 0 and not again.model[1].running_mean.any()
    with pytest.raises(LearnerError, match=r"bn_eval=True, this learner has False"):
        learner(tmp_path, seed=3).fit_one_cycle(4, 1e-2, cbs=Checkpoint("run", resume=True))


def test_a_checkpoint_is_neither_lost_nor_taken_by_mistake(tmp_path):
    interrupted(lambda: learner(tmp_path))
    with pytest.raises(LearnerError, match=r"2 of 4 epochs.*resume=True"):
        learner(tmp_path).fit_one_cycle(4, 1e-2, cbs=Checkpoint("run"))
    with pytest.raises(LearnerError, match="trains for 9"):
        learner(tmp_path).fit_one_cycle(9, 1e-2, cbs=Checkpoint("run", resume=True))
    with pytest.raises(LearnerError, match="other callbacks"):
        learner(tmp_path).fit(4, 1e-2, cbs=Checkpoint("run", resume=True))
    other = learner(tmp_path)
    other.save("weights")
    with pytest.raises(Exception, match="no checkpoint"):
        other.fit(1, cbs=Checkpoint("weights", resume=True))
    learner(tmp_path).fit_one_cycle(4, 1e-2, cbs=Checkpoint("run", resume=False))
    learner(tmp_path).fit_one_cycle(
        4, 1e-2, cbs=Checkpoint("run")
    )  # the run had ended: a new one may begin


def test_what_was_gathered_goes_on(tmp_path):
    "The first epoch ends between two steps: 32 of 96 items are there."

    def cbs(name, *more):
        return [GradientAccumulation(96), Checkpoint(name, resume=True), *more]

    whole, cut, again = (learner(tmp_path, seed=2) for _ in range(3))
    whole.fit_one_cycle(3, 1e-2, cbs=cbs("whole"))
    with pytest.raises(KeyboardInterrupt):
        cut.fit_one_cycle(3, 1e-2, cbs=cbs("run", Stop(15)))
    again.fit_one_cycle(3, 1e-2, cbs=cbs("run"))
    assert torch.equal(state(again), state(whole))


def test_a_damaged_checkpoint_says_how_to_begin_anew(tmp_path):
    interrupted(lambda: learner(tmp_path))
    file = tmp_path / "models/run.pth"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(LearnerError, match=r"run.pth is damaged.*resume=False"):
        learner(tmp_path).fit_one_cycle(4, 1e-2, cbs=Checkpoint("run", resume=True))
    with pytest.raises(LearnerError, match=r"torch.optim, not a BasicOptim"):
        learner(tmp_path, opt_func=BasicOptim, splitter=nn.Module.parameters).fit(
            1, cbs=Checkpoint("run")
        )


KILLED = """
    import os, sys, torch
    from torch import nn
    import torch.nn.functional as F
    from torch.utils.data import TensorDataset
    from coursekit.all import *
    import time
    class Slow(Callback):
        def after_batch(self): time.sleep(float(sys.argv[2]))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(320, 8), torch.randint(0, 3, (320,)))
    dls = DataLoaders.from_dsets(data, data, bs=32, path=sys.argv[1])
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    def body_and_head(m): return [list(m[:3].parameters()), list(m[3:].parameters())]
    learn = Learner(dls, model, F.cross_entropy, splitter=body_and_head, metrics=accuracy, cbs=Slow)
    with learn.no_logging(): learn.fine_tune(3, 1e-2, cbs=Checkpoint("run", resume=True))
    print(repr(torch.cat([v.detach().flatten().double() for v in learn.model.state_dict().values()]).tolist()))
    """


def test_killed_in_both_phases_of_fine_tune(tmp_path):
    "SIGKILL in the middle of the epoch after a checkpoint; the third run ends with the weights of a run left alone."
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(KILLED))

    def start(folder, pause):
        return subprocess.Popen(
            [sys.executable, script, folder, str(pause)], stdout=subprocess.PIPE, text=True
        )

    def killed_after(file, old=None):
        process = start(tmp_path / "killed", 0.05)
        deadline = time.monotonic() + 300
        while not file.exists() or (old and file.stat().st_mtime_ns == old):
            assert process.poll() is None and time.monotonic() < deadline, (
                "it ended, or hung, before it was killed"
            )
            time.sleep(0.02)
        time.sleep(0.3)  # into the next epoch
        process.kill()
        process.wait()
        assert process.returncode != 0

    models = tmp_path / "killed" / "models"
    killed_after(models / "run_frozen.pth")
    killed_after(models / "run.pth")
    whole = start(tmp_path / "whole", 0).communicate(timeout=300)[0]
    resumed = start(tmp_path / "killed", 0).communicate(timeout=300)[0]
    assert whole == resumed and len(whole) > 100


def items(seed):
    "Items with a split that is drawn: its own in each process if there is no seed."
    block = DataBlock(
        (TransformBlock, CategoryBlock),
        get_x=lambda i: data()[0][i],
        get_y=lambda i: int(data()[1][i]),
        splitter=RandomSplitter(0.3, seed=seed),
    )
    return block


@pytest.mark.parametrize("change", ["split", "batch size", "seeded shuffling"])
def test_a_checkpoint_of_other_data_is_refused(tmp_path, change):
    def make(split=1, bs=32, seed=None):
        dls = items(split).dataloaders(range(N), path=tmp_path, bs=bs, seed=seed, num_workers=0)
        learn = Learner(dls, net(), splitter=groups)
        return learn.remove_cbs(learn.progress)

    other = {"split": {"split": 2}, "batch size": {"bs": 30}, "seeded shuffling": {"seed": 3}}[
        change
    ]
    learn = make()
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle(4, 1e-2, cbs=[Checkpoint("run", resume=False), Stop(12)])
    with pytest.raises(LearnerError, match=change):
        make(**other).fit_one_cycle(4, 1e-2, cbs=Checkpoint("run", resume=True))
