"""What lesson 07 says of 122 photographs and takes too long to show in it.

    nice python bench/photographs.py              # both tasks; or --only frozen
    python bench/photographs.py --table           # means, spreads, paired differences

`head`: the head alone on a frozen body, with the pictures, folds, steps and kind of head of
`photos` in bench/fine_tune.py with batches of 8, at three rates, so that the two can be set
beside each other. `frozen`: five photographs of each kind; norms that stand still in a
frozen body, against norms that learn and count, after 2, 5 and 10 epochs. A row of
bench/photographs.csv is written as soon as its training is over; the same command again
goes on where it was stopped.
"""

import argparse
import sys
import time

import torch
from fine_tune import FOLDS, loaders, photos
from kept import Kept, in_words, versions
from torch import nn

from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.bodies import (
    AdaptiveConcatPool2d,
    create_body,
    create_head,
    efficientnet_lite0,
)
from coursekit.data import IndexSplitter, get_image_files, parent_label
from coursekit.datasets import URLs, untar_data
from coursekit.events import Callback, CancelValidException
from coursekit.heads import Baseline
from coursekit.learner import Learner
from coursekit.losses import CrossEntropyLossFlat
from coursekit.measures import accuracy
from coursekit.resizing import Resize
from coursekit.vision import vision_learner

COLUMNS = ["task", "way", "epochs", "lr", "fold", "loss", "metric", "cpu_seconds"]
KEPT = Kept(__file__, COLUMNS)
SIZE, PER_KIND, SEEDS = 64, 5, 3  # of frozen


class AtTheEnd(Callback):
    "No validation while it learns: it takes time, and nothing is chosen by it."

    def before_validate(self) -> None:
        raise CancelValidException


def measured(learn: Learner, train) -> list[float]:
    begin = time.process_time()
    with learn.no_logging(), learn.added_cbs(AtTheEnd()):
        train(learn)
    seconds = time.process_time() - begin
    return [*learn.validate(), seconds]


# ---------------------------------------------------------------- head alone
@torch.no_grad()
def features() -> tuple[torch.Tensor, torch.Tensor]:
    "What the body makes of the photographs, once."
    x, y = photos(128)
    body = nn.Sequential(create_body(efficientnet_lite0), AdaptiveConcatPool2d(), nn.Flatten())
    return torch.cat([body.eval()((part - 0.498) / 0.502) for part in x.split(32)]), y


def head_alone(x, y, epochs: int, lr: float, fold: int) -> list[float]:
    torch.manual_seed(fold)
    head = create_head(x.shape[1], int(y.max()) + 1, pool=False)
    learn = Learner(loaders(x, y, fold, 8), head, CrossEntropyLossFlat(), metrics=accuracy)
    torch.manual_seed(fold)
    return measured(learn, lambda learn: learn.fit_one_cycle(epochs, lr))


# ---------------------------------------------------------------- frozen
def few_and_others(seed: int):
    files = sorted(get_image_files(untar_data(URLs.PHOTOS)))
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
    few = []
    for kind in sorted(set(map(parent_label, files))):
        few += [i for i in order if parent_label(files[i]) == kind][:PER_KIND]
    parts, others = (ImageBlock, CategoryBlock), IndexSplitter(sorted(set(order) - set(few)))
    block = DataBlock(parts, splitter=others, get_y=parent_label, item_tfms=Resize(SIZE))
    return block.dataloaders(files, bs=4, num_workers=0, seed=seed, device="cpu")


def frozen(way: str, epochs: int, lr: float, seed: int) -> list[float]:
    torch.manual_seed(seed)
    options = {"metrics": accuracy, "lin_ftrs": [], "train_bn": way == "moving"}
    learn = vision_learner(few_and_others(seed), efficientnet_lite0, **options)
    learn.remove_cbs(Baseline)
    torch.manual_seed(seed)
    return measured(learn, lambda learn: learn.fit_one_cycle(epochs, lr))


# ---------------------------------------------------------------- both
def asked(only: str | None):
    if only in (None, "head"):
        for fold in range(FOLDS):
            for lr in (1e-3, 2e-3, 5e-3):
                yield "head", "head", 5, lr, fold
    if only in (None, "frozen"):
        for seed in range(SEEDS):
            for epochs in (2, 5, 10):
                for way in ("still", "moving"):
                    yield "frozen", way, epochs, 5e-3, seed


def run(only: str | None) -> None:
    done, seen = KEPT.done(5), None
    for task, way, epochs, lr, fold in asked(only):
        key = (task, way, str(epochs), str(lr), str(fold))
        if key in done:
            continue
        if task == "head":
            seen = seen or features()
            found = head_alone(*seen, epochs, lr, fold)
        else:
            found = frozen(way, epochs, lr, fold)
        KEPT.add(*key, f"{found[0]:.4f}", f"{found[1]:.4f}", f"{found[2]:.1f}")


def table() -> None:
    for (task, epochs, lr), part in KEPT.frame().groupby(["task", "epochs", "lr"]):
        for what in ("metric", "loss"):
            wide = part.pivot_table(index="fold", columns="way", values=what).dropna()
            told = [f"{way} {x.mean():.3f} sd {x.std(ddof=1):.3f}" for way, x in wide.items()]
            if "moving" in wide:
                told.append(f"still - moving {in_words(wide.still - wide.moving)}")
            print(f"{task} {epochs:.0f} epochs at {lr:g}, {what}", *told, sep="; ")


def header() -> list[str]:
    return [
        f"python bench/photographs.py; {versions()}; photographs in the public domain",
        f"head: 128 px, folds and steps of fine_tune(4) in bench/fine_tune.csv, batches of"
        f" 8; frozen: {PER_KIND} of each kind, {SIZE} px, batches of 4, fold is a draw;"
        " loss and metric (accuracy) on the others",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=("head", "frozen"), help="one task")
    parser.add_argument("--table", action="store_true", help="show what was found")
    given = parser.parse_args()
    if given.table:
        return table()
    torch.set_num_threads(1)
    KEPT.begin(*header())
    run(given.only)


if __name__ == "__main__":
    sys.exit(main())
