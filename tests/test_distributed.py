"""One training on two processes: the same as on one, one log, one checkpoint, and an end when a process ends."""

import os
import re
import subprocess
import sys
import textwrap
import time

import pandas as pd
import pytest
import torch

pytest.importorskip("accelerate")

START = """
import os, sys, signal, time
import torch
from pathlib import Path
from torch import nn
from torch.utils.data import TensorDataset
import coursekit.training
from coursekit.callbacks import CSVLogger
from coursekit.checkpoints import Checkpoint, SaveModelCallback
from coursekit.distributed import distributed
from coursekit.events import Callback, LearnerError
from coursekit.learner import Learner
from coursekit.loaders import DataLoaders
from coursekit.measures import accuracy
from coursekit.metrics import F1Score
from coursekit.precision import GradientAccumulation

torch.set_num_threads(1)
rank, out = int(os.environ.get("RANK", 0)), Path(sys.argv[1])
draw = torch.Generator().manual_seed(0)
x = torch.randn(330, 8, generator=draw)
y = (x @ torch.randn(8, 3, generator=draw)).argmax(1)

def loaders(n=225, bs=32, seed=5, **how):
    sides = TensorDataset(x[:n], y[:n]), TensorDataset(x[n:n + 97], y[n:n + 97])
    how = {"val_bs": 32, "drop_last": False, "device": "cpu"} | how
    return DataLoaders.from_dsets(*sides, bs=bs, seed=seed, **how)

def learner(dls=None, norm=False, **how):
    torch.manual_seed(1)
    norms = [nn.BatchNorm1d(16)] if norm else []
    model = nn.Sequential(nn.Linear(8, 16), *norms, nn.ReLU(), nn.Linear(16, 3))
    how = {"loss_func": nn.CrossEntropyLoss(), "metrics": [accuracy, F1Score(average="macro")]} | how
    return Learner(dls or loaders(), model, lr=1e-2, path=out, **how)

def said(call):
    try: call()
    except LearnerError as error: return str(error)
    return "nothing"
"""

SAME = """
kept = {}
learn = learner()
with learn.distributed(timeout=60) as job:
    learn.fit_one_cycle(3, cbs=[SaveModelCallback(), CSVLogger(), Checkpoint("whole")])
    # the last batch has one item: one process has a stand-in
    kept["curve"], kept["table"] = learn.recorder.losses, [list(row) for row in learn.recorder.values]
    kept["preds"], kept["train preds"] = learn.get_preds(with_input=True, with_loss=True), learn.get_preds(0)
    kept["validate"] = list(learn.validate())
    kept["rate"] = learn.lr_find(num_it=20, show_plot=False).valley
    kept["one"] = learn.dls.one_batch()[0].shape[0]
learn.fit(1)  # afterwards each process trains alone, on all items
kept["after"] = learn.recorder.losses

sums = learner(loss_func=nn.CrossEntropyLoss(reduction="sum"))
with sums.no_logging(), sums.distributed(timeout=60):
    sums.fit(1, 1e-4)
    kept["sum"] = sums.recorder.losses

import pandas as pd
from coursekit.collab import collab_learner
from coursekit.ratings import CollabDataLoaders
pairs = torch.randperm(1500, generator=draw)[:900].numpy()
table = pd.DataFrame({"user": pairs // 30, "item": pairs % 30, "rating": pairs % 7 / 2})
of_ratings = CollabDataLoaders.from_df(table, seed=1, bs=64, device="cpu")
for sparse in (False, True):
    torch.manual_seed(0)
    sides = of_ratings.train_ds, of_ratings.valid_ds
    dls = CollabDataLoaders.from_dsets(*sides, bs=64, seed=3, device="cpu", drop_last=False)
    stars = collab_learner(dls, n_factors=4, sparse=sparse)
    with stars.no_logging(), stars.distributed(timeout=60):
        stars.fit(2, 1e-2)
        kept[f"stars {sparse}"] = stars.get_preds()[0]

norm = learner(loaders(drop_last=True), norm=True)
with norm.no_logging(), norm.distributed(timeout=60) as job:
    norm.fit(2)
    state = torch.cat([value.double().reshape(-1) for value in norm.model.state_dict().values()])
    kept["norm apart"] = max((state - other).abs().max().item() for other in job.gather(state))

half = learner()
class Stop(Callback):
    order = 200
    def after_epoch(self):
        if self.epoch == 1 and job.world > 1: raise KeyboardInterrupt
try:
    with half.no_logging(), half.distributed(timeout=60) as job:
        half.fit_one_cycle(4, cbs=[Stop(), Checkpoint("half", resume=True)])
except KeyboardInterrupt: pass
kept["resumed"] = half.recorder.losses
if "RANK" not in os.environ:
    whole = learner()
    with whole.no_logging(): whole.fit_one_cycle(4)
    kept["whole"] = whole.recorder.losses

few, other = learner(loaders(bs=1)), learner(loaders(seed=5 + rank))
split = learner(loaders(n=225 - rank))
kept["few"] = said(lambda: few.distributed(timeout=60).__enter__())
kept["seed"] = said(lambda: other.distributed(timeout=60).__enter__())
kept["split"] = said(lambda: split.distributed(timeout=60).__enter__())
counts = learner()
def gather():
    with counts.no_logging(), counts.distributed(timeout=60): counts.fit(1, cbs=GradientAccumulation(64))
kept["gather"] = said(gather)
large = learner(loaders(n=20, bs=64))
with large.no_logging(), large.distributed(timeout=60): large.fit(1)
kept["large"] = large.recorder.losses
torch.save(kept, out / f"kept{rank}.pt")
"""

ENDS = """
class End(Callback):
    def after_batch(self):
        if not (rank == 1 and self.epoch == 1 and self.iter == 3): return
        if sys.argv[2] == "kill": os.kill(os.getpid(), signal.SIGKILL)
        print("hangs at", time.time(), file=sys.stderr, flush=True)
        time.sleep(600)
learn = learner()
try:
    with learn.distributed(timeout=5): learn.fit(3, cbs=[End(), Checkpoint("ended")])
except LearnerError:
    print("known at", time.time(), file=sys.stderr, flush=True)
    raise
"""
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
ACCELERATE += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]


def run(folder, script, *words, launcher=(), ok=True):
    "Run the script, by a launcher or alone; what it printed and what it complained of."
    folder.mkdir(exist_ok=True)
    file = folder / "train.py"
    file.write_text(textwrap.dedent(START + script))
    done = subprocess.run(
        [sys.executable, *launcher, str(file), str(folder), *words],
        capture_output=True,
        text=True,
        timeout=400,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    "The same script alone, and on two processes: folders and what they printed."
    alone, pair = (tmp_path_factory.mktemp(name) for name in ("alone", "pair"))
    printed = run(pair, SAME, launcher=TORCHRUN).stdout
    # a run that two processes have begun goes on in one
    (alone / "models").mkdir()
    (alone / "models" / "half.pth").write_bytes((pair / "models" / "half.pth").read_bytes())
    return alone, pair, run(alone, SAME).stdout, printed


@pytest.fixture(scope="module")
def kept(both):
    alone, pair, *_ = both
    files = alone / "kept0.pt", pair / "kept0.pt", pair / "kept1.pt"
    return [torch.load(file) for file in files]


def test_the_curve_is_that_of_one_process(kept):
    one, *two = kept
    for each in two:
        assert torch.allclose(torch.tensor(one["curve"]), torch.tensor(each["curve"]), atol=1e-6)
        assert torch.allclose(torch.tensor(one["table"]), torch.tensor(each["table"]), atol=1e-6)
        assert torch.allclose(torch.tensor(one["sum"]), torch.tensor(each["sum"]), rtol=1e-6)
        assert one["rate"] == pytest.approx(each["rate"], rel=1e-6)


def test_metrics_and_predictions_in_order_with_an_uneven_last_batch(kept):
    one, *two = kept
    assert [len(part) for part in one["preds"]] == [97] * 4  # batches of 32: the last has one item
    for each in two:
        assert one["validate"] == pytest.approx(each["validate"], abs=1e-6)
        for name in ("preds", "train preds"):
            for a, b in zip(one[name], each[name], strict=True):
                assert torch.allclose(a, b, atol=1e-6)
        assert torch.equal(one["preds"][2], each["preds"][2])


def test_one_log_and_one_checkpoint(both):
    alone, pair, printed, by_two = both
    # afterwards, outside of the block, both print
    rows = [[line.split()[:-1] for line in text.splitlines()] for text in (printed, by_two)]
    assert rows[0][:4] == rows[1][:4] and [len(text) for text in rows] == [6, 8]
    files = [{p.name for p in (f / "models").iterdir()} for f in (alone, pair)]
    assert files[0] == files[1] == {"model.pth", "whole.pth", "half.pth"}
    kept = [pd.read_csv(f / "history.csv").drop(columns="time") for f in (alone, pair)]
    assert len(kept[0]) == 3 and (kept[0] - kept[1]).abs().to_numpy().max() < 1e-6


@pytest.mark.parametrize("sparse", [False, True])
def test_a_recommender_with_dense_and_with_sparse_gradients(kept, sparse):
    one, *two = kept
    assert all(torch.allclose(one[f"stars {sparse}"], e[f"stars {sparse}"], atol=1e-5) for e in two)


def test_batch_norm_has_the_same_averages_everywhere(kept):
    assert all(each["norm apart"] == 0 for each in kept)


def test_a_run_goes_on_with_another_number_of_processes(kept):
    one, first, _ = kept
    assert len(first["resumed"]) == 16 and len(one["resumed"]) == len(one["whole"]) == 32
    assert torch.allclose(torch.tensor(one["resumed"]), torch.tensor(one["whole"]), atol=1e-6)


def test_afterwards_all_is_as_it_was(kept):
    assert [each["one"] for each in kept] == [32, 16, 16]
    assert all(len(each["after"]) == 8 for each in kept)


def test_what_cannot_be_right_is_named_by_all(kept):
    one, *two = kept
    assert one["few"] == one["seed"] == one["split"] == "nothing"
    for each in two:
        assert (
            "items of a batch are 1, for 2 processes: process 1 would have no data" in each["few"]
        )
        assert "disagree on seed (training)" in each["seed"]
        assert "disagree on number of items (training)" in each["split"]
        assert "GradientAccumulation counts the items of one process" in each["gather"]


def test_a_batch_larger_than_all_items_is_shared(kept):
    one, *two = kept
    assert all(one["large"] == pytest.approx(each["large"], abs=1e-6) for each in two)


def test_a_killed_process_ends_the_job(tmp_path):
    done = run(tmp_path / "kill", ENDS, "kill", launcher=ACCELERATE, ok=False)
    words = done.stderr
    # the launcher may end the other process before it has said what it waited for
    assert "known at" not in words or "Another process has ended" in words
    assert "exitcode  : -9" in words or "SIGKILL" in words
    assert [p.name for p in (tmp_path / "kill" / "models").iterdir()] == ["ended.pth"]


def test_a_process_that_hangs_is_waited_for_as_long_as_was_said(tmp_path):
    started = time.monotonic()
    words = run(tmp_path / "hang", ENDS, "hang", launcher=TORCHRUN, ok=False).stderr
    assert "did not answer within 5 s" in words
    hung, known = (
        float(re.search(rf"{what} at ([\d.]+)", words)[1]) for what in ("hangs", "known")
    )
    assert 4 < known - hung < 30 and time.monotonic() - started < 300
