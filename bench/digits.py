"""Ten digits from scratch with a small convolutional net, on the processor; kept in digits.csv.

    nice python bench/digits.py

50,000 digits to train on, over seeds, and 10,000 of the training set held out. Only when all nets are trained they see
the test set, once each. A row is written as soon as its training is over; the same command again goes on where it was
stopped (the nets wait in the folder for temporary files).
"""

import tempfile
from functools import cache
from pathlib import Path

import torch
from kept import Kept, loaders, main, seconds_of
from recipes import Short
from torch import nn
from torch.utils.data import TensorDataset

import coursekit.training  # noqa: F401, learners get fit_one_cycle from it
from coursekit.augment import aug_transforms
from coursekit.convolutions import simple_cnn
from coursekit.datasets import URLs, untar_data
from coursekit.digits import load_mnist
from coursekit.learner import Learner
from coursekit.losses import CrossEntropyLossFlat
from coursekit.measures import accuracy
from coursekit.normalize import Normalize

SEEDS, EPOCHS, RATE, BATCH, HELD_OUT = (0, 1, 2), 4, 1e-2, 128, 10_000
COLUMNS = ["part", "way", "seed", "accuracy", "held_out_loss", "cpu_seconds", "wrong"]
KEPT = Kept(__file__, COLUMNS)


@cache
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


def learner(seed: int) -> Learner:
    stats = [Normalize.from_stats([0.1307], [0.3081])]
    change = aug_transforms(do_flip=False, max_lighting=0, max_warp=0.1, pad_mode="zeros")
    torch.manual_seed(seed)
    tfms = {"after_batch": [*change, *stats], "valid_tfms": stats}
    dls = loaders(sets()["train"], sets()["valid"], BATCH, 500, **tfms)
    loss = CrossEntropyLossFlat()
    return Learner(dls, network(), loss, metrics=accuracy, cbs=Short())


def answers(learn: Learner, data: TensorDataset) -> tuple[float, str]:
    "The share that is right, and the places of those that are not."
    scores, targets = learn.get_preds(dl=learn.dls.valid.new(data))
    wrong = (scores.argmax(1) != targets).nonzero()[:, 0].tolist()
    return 1 - len(wrong) / len(targets), " ".join(map(str, wrong))


def row(part: str, way: str, seed: int) -> list:
    "Train and look at the held-out digits; or take the net that was trained, and look at the test set."
    learn, file = learner(seed), Path(tempfile.gettempdir()) / f"coursekit_digits_{seed}.pt"
    if part == "test":
        learn.model.load_state_dict(torch.load(file, weights_only=True))
        share, wrong = answers(learn, sets()["test"])
        return [share, "", "", wrong]
    seconds = seconds_of(learn, lambda learn: learn.fit_one_cycle(EPOCHS, RATE))
    torch.save(learn.model.state_dict(), file)
    share, _ = answers(learn, sets()["valid"])
    return [share, float(learn.recorder.final_record[0]), seconds]


def run() -> None:
    KEPT.fill(((part, "augmented", seed) for part in ("valid", "test") for seed in SEEDS), row)


ABOUT = (f"50,000 digits, {EPOCHS} epochs, rate {RATE}, batches of {BATCH}",)
if __name__ == "__main__":
    main(__doc__, KEPT, ABOUT, run)
