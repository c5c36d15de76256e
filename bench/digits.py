"""Ten digits from scratch with a small convolutional net, on the processor; kept in digits.csv.

    nice python bench/digits.py             # or --ways augmented plain

50,000 digits to train on, over seeds, and 10,000 of the training set held out. Only when all nets are trained they see
the test set, once each; of several ways, those of the one that was best on the held-out digits. A row is written as
soon as its training is over; the same command again goes on where it was stopped (the nets wait in the folder for
temporary files).
"""

import argparse
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import torch
from kept import Kept, versions
from recipes import Short
from torch import nn
from torch.utils.data import TensorDataset

import coursekit.training  # noqa: F401, learners get fit_one_cycle from it
from coursekit.augment import aug_transforms
from coursekit.convolutions import simple_cnn
from coursekit.datasets import URLs, untar_data
from coursekit.digits import load_mnist
from coursekit.learner import Learner
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.losses import CrossEntropyLossFlat
from coursekit.measures import accuracy
from coursekit.normalize import Normalize

SEEDS, EPOCHS, RATE, BATCH, HELD_OUT = (0, 1, 2), 4, 1e-2, 128, 10_000
WAYS = ("augmented", "plain")
COLUMNS = ["part", "way", "seed", "accuracy", "held_out_loss", "cpu_seconds", "wrong"]
KEPT = Kept(__file__, COLUMNS)


def sets() -> dict[str, TensorDataset]:
    "Three sets: to train on, to choose by, and for the end."
    folder = untar_data(URLs.MNIST)
    x, y = load_mnist(folder, "train")
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    parts = {"valid": order[:HELD_OUT], "train": order[HELD_OUT:]}
    kept = {name: TensorDataset(x[rows], y[rows]) for name, rows in parts.items()}
    return kept | {"test": TensorDataset(*load_mnist(folder, "test"))}


def network() -> nn.Module:
    model = simple_cnn((1, 16, 32, 64, 128), (5, 3, 3, 3), bn=True, n_out=10)
    return model.to(memory_format=torch.channels_last)


def learner(data: dict, way: str, seed: int) -> Learner:
    stats = Normalize.from_stats([0.1307], [0.3081])
    change = aug_transforms(do_flip=False, max_lighting=0, max_warp=0.1, pad_mode="zeros")
    tfms = [*(change if way == "augmented" else []), stats]
    torch.manual_seed(seed)
    dls = DataLoaders(
        DataLoader(
            data["train"], bs=BATCH, shuffle=True, drop_last=True, after_batch=tfms, device="cpu"
        ),
        DataLoader(data["valid"], bs=500, after_batch=[stats], device="cpu"),
    )
    loss = CrossEntropyLossFlat()
    return Learner(dls, network(), loss, metrics=accuracy, cbs=Short())


def answers(learn: Learner, data: TensorDataset) -> tuple[float, str]:
    "The share that is right, and the places of those that are not."
    scores, targets = learn.get_preds(dl=learn.dls.valid.new(data))
    wrong = (scores.argmax(1) != targets).nonzero()[:, 0].tolist()
    return 1 - len(wrong) / len(targets), " ".join(map(str, wrong))


def net_of(way: str, seed: int) -> Path:
    return Path(tempfile.gettempdir()) / f"coursekit_digits_{way}_{seed}.pt"


def choose_and_test(data: dict) -> None:
    held_out = KEPT.frame().query("part == 'valid'").groupby("way").accuracy.mean()
    way, done = held_out.idxmax(), set(KEPT.frame().query("part == 'test'").seed)
    for seed in set(SEEDS) - done:
        learn = learner(data, way, seed)
        learn.model.load_state_dict(torch.load(net_of(way, seed), weights_only=True))
        share, wrong = answers(learn, data["test"])
        KEPT.add("test", way, seed, f"{share:.4f}", "", "", wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS[:1])
    ways = parser.parse_args().ways
    torch.set_num_threads(1)
    data = sets()
    about = f"{len(data['train']):,} digits, {EPOCHS} epochs, rate {RATE}, batches of {BATCH}"
    KEPT.begin(f"python bench/digits.py; {versions()}; {about}")
    for way, seed in product(ways, SEEDS):
        if ("valid", way, str(seed)) in KEPT.done(3):
            continue
        learn, begin = learner(data, way, seed), time.process_time()
        with learn.no_logging():
            learn.fit_one_cycle(EPOCHS, RATE)
        seconds, (share, _) = time.process_time() - begin, answers(learn, data["valid"])
        torch.save(learn.model.state_dict(), net_of(way, seed))
        loss = f"{learn.recorder.final_record[0]:.4f}"
        KEPT.add("valid", way, seed, f"{share:.4f}", loss, f"{seconds:.0f}", "")
    choose_and_test(data)


if __name__ == "__main__":
    sys.exit(main())
