"""XResNets, Mixup, label smoothing and test-time augmentation agree with fastai's, and do what they say.

`recipes_oracle.py` holds the questions; fastai's answers are in `fixtures/recipes_oracle.json`. Where we differ on
purpose `OTHERWISE` says so, and why.
"""

import csv
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import training_oracle
from oracle import MISSING, differences
from PIL import Image
from recipes_oracle import FIXTURE, QUESTIONS, TOLERANCE, ask
from torch import nn

import coursekit.all
import coursekit.data
import coursekit.learner
import coursekit.recipes
import coursekit.training
from coursekit.augment import Brightness, Flip, aug_transforms
from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.data import EndSplitter
from coursekit.learner import Learner
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from coursekit.measures import accuracy
from coursekit.messages import DataError
from coursekit.normalize import Normalize, imagenet_stats
from coursekit.recipes import (
    LabelSmoothingCrossEntropy,
    LabelSmoothingCrossEntropyFlat,
    MixUp,
    xresnet18,
    xresnet34,
    xresnet50,
)
from coursekit.resizing import Resize
from coursekit.transforms import IntToFloat

RECORD = json.loads(FIXTURE.read_text())
LIB = SimpleNamespace(**vars(coursekit.all))
SHAPE = "a loss for each keeps the shape of the targets"
WEIGHT = "the weights of the classes count in the share of eps too, as in PyTorch and the formula"
AXIS = "probabilities and classes along the axis of the classes, not the last"
READ = "scores of a plain loss of PyTorch are read as its name says, not left as they are"
OTHERWISE = {  # where in the answers -> why ours is different
    "label_smoothing/weight/loss": WEIGHT,
    "label_smoothing/weight/gradient": WEIGHT,
    "label_smoothing/pixels, activation": AXIS,
    "label_smoothing/flat, axis/activation": AXIS,
    "label_smoothing/flat, axis/decodes": AXIS,
    "mixup/classes/scores": READ,
    "mixup/alpha 1/scores": READ,
    "mixup/weight/scores": READ,
    "mixup/sum/scores": READ,
    "mixup/labels/scores": READ,
}


@pytest.fixture(scope="module", autouse=True)
def known():
    training_oracle.QUESTIONS |= QUESTIONS
    yield
    for name in QUESTIONS:
        del training_oracle.QUESTIONS[name]


@pytest.mark.parametrize("name", QUESTIONS)
def test_same_answer_as_fastai(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning is no part of an answer
        ours = ask(name, LIB)
    found = list(differences(ours, RECORD["answers"][name], TOLERANCE[name], OTHERWISE, (name,)))
    shown = "\n".join(found[:30])
    assert not found, f"{len(found)} differences from fastai\n{shown}"


def test_every_question_was_answered():
    assert list(RECORD["answers"]) == list(QUESTIONS)
    assert RECORD["versions"]["fastai"].startswith("2.8")


@pytest.mark.parametrize("place", OTHERWISE)
def test_exceptions_are_still_needed(place):
    name = place.split("/")[0]
    mine, theirs = {name: ask(name, LIB)}, RECORD["answers"]
    for key in place.split("/"):
        mine, theirs = mine.get(key, MISSING), theirs[key]
    assert list(differences(mine, theirs, TOLERANCE[name]))


# ---------------------------------------------------------------- architectures
@pytest.mark.parametrize("make", [xresnet18, xresnet34, xresnet50])
def test_a_block_passes_its_input_on_until_it_has_learned(make):
    model = make(n_out=2, widen=0.25, stem_szs=(4, 4, 16)).eval()
    block = model[4][1]  # the second of a stage, whose shortcut is empty
    x = torch.rand(2, block.convpath[0][0].in_channels, 5, 5)
    assert torch.equal(block(x), x)


def test_any_size_any_channels():
    model = xresnet18(c_in=5, n_out=4, widen=0.125, stem_szs=(6,)).eval()
    for height, width in ((1, 1), (32, 32), (33, 70)):
        assert model(torch.rand(2, 5, height, width)).shape == (2, 4)


def test_made_by_makes_it_again():
    model = xresnet18(c_in=1, n_out=4, p=0.2, widen=0.25, stem_szs=(4, 4, 16))
    name, arguments = json.loads(json.dumps(model.made_by))
    again = getattr(coursekit.recipes, name)(**arguments)
    again.load_state_dict(model.state_dict())
    x = torch.rand(1, 1, 32, 32)
    assert torch.equal(again.eval()(x), model.eval()(x))
    assert again.made_by == model.made_by


def test_there_are_no_weights_and_no_empty_stages():
    with pytest.raises(DataError, match=r"xresnet50\(pretrained=False\)"):
        xresnet50(pretrained=True)
    with pytest.raises(ValueError, match=r"widen=0.01"):
        xresnet18(widen=0.01)
    with pytest.raises(ValueError, match="stem_szs"):
        xresnet18(stem_szs=())


# ---------------------------------------------------------------- label smoothing
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 3.0])])
def test_smoothing_is_pytorchs(reduction, weight):
    scores, labels = torch.randn(6, 3, 4), torch.randint(3, (6, 4))
    options = {"weight": weight, "reduction": reduction}
    right = F.cross_entropy(scores, labels, label_smoothing=0.2, **options)
    torch.testing.assert_close(LabelSmoothingCrossEntropy(0.2, **options)(scores, labels), right)
    flat = LabelSmoothingCrossEntropyFlat(0.2, axis=1, **options)
    torch.testing.assert_close(flat(scores, labels), right)


def test_smoothing_speaks_like_the_others():
    loss = LabelSmoothingCrossEntropy()
    scores = torch.randn(5, 3)
    torch.testing.assert_close(loss.activation(scores), scores.softmax(1))
    assert torch.equal(loss.decodes(scores), scores.argmax(1))
    with pytest.raises(ValueError, match="eps=1"):
        LabelSmoothingCrossEntropy(eps=1)
    with pytest.raises(ValueError, match="run from 0 to 3"):
        loss(scores, torch.tensor([0, 1, 2, 3, 0]))


# ---------------------------------------------------------------- Mixup
def mixed_batches(learn, n=1):
    "What the model and the loss of a learner are given in training, after Mixup."
    seen = []

    class Watch(coursekit.events.Callback):
        order = 50

        def before_batch(self):
            if self.learn.training:
                mix = self.learn.mix_up
                seen.append((self.learn.xb, self.learn.yb, mix.lam, mix.partners, mix.yb1))

    with learn.no_logging():
        learn.fit(n, 1e-3, cbs=Watch())
    return seen


def small(y, loss, n_out=3, cbs=MixUp, x=None, **options):
    x = torch.randn(len(y), 4) if x is None else x
    torch.manual_seed(0)
    dls = DataLoaders(
        *(DataLoader(torch.utils.data.TensorDataset(x, y), bs=8, device="cpu") for _ in "tv")
    )
    return Learner(dls, nn.Linear(4, n_out), loss, cbs=cbs, **options)


def test_inputs_are_mixed_with_partners_and_classes_kept():
    x, y = torch.randn(16, 4), torch.randint(3, (16,))
    learn = small(y, CrossEntropyLossFlat(), x=x)
    for i, (xb, yb, lam, partners, others) in enumerate(mixed_batches(learn)):
        own, classes = x[8 * i : 8 * i + 8], y[8 * i : 8 * i + 8]
        assert lam.min() >= 0.5 and lam.max() <= 1 and lam.unique().numel() > 4
        assert sorted(partners.tolist()) == list(range(8))
        torch.testing.assert_close(xb[0], lam[:, None] * own + (1 - lam[:, None]) * own[partners])
        assert torch.equal(yb[0], classes) and torch.equal(others[0], classes[partners])


def test_loss_of_classes_is_that_of_mixed_rows():
    "Mixing two losses is the same as one loss with rows of shares, for any loss that is a cross-entropy."
    y = torch.randint(3, (8,))
    for kind in (CrossEntropyLossFlat, LabelSmoothingCrossEntropy, nn.CrossEntropyLoss):
        learn = small(y, kind(), opt_func=Still)
        [(xb, _, lam, partners, _)] = mixed_batches(learn)
        rows = torch.lerp(F.one_hot(y[partners], 3).float(), F.one_hot(y, 3).float(), lam[:, None])
        right = F.cross_entropy(
            learn.model(xb[0]), rows, label_smoothing=getattr(learn.loss_func, "eps", 0.0)
        )
        recorded = float(learn.recorder.values[-1][0])
        assert recorded == pytest.approx(right.item(), rel=1e-5)
        plain = learn.loss_func(learn.model(learn.dls.train.source.tensors[0]), y).item()
        assert float(learn.recorder.values[-1][1]) == pytest.approx(plain, rel=1e-5)


class Still:
    "An optimiser that leaves everything as it is."

    def __init__(self, params, lr):
        self.lr = lr

    def step(self):
        pass

    def zero_grad(self):
        pass


def test_labels_and_numbers_are_mixed_themselves():
    for y, loss in (
        (torch.randint(2, (8, 3)).float(), BCEWithLogitsLossFlat()),
        (torch.randn(8, 3), MSELossFlat()),
    ):
        learn = small(y, loss)
        [(_, yb, lam, partners, _)] = mixed_batches(learn)
        torch.testing.assert_close(yb[0], lam[:, None] * y + (1 - lam[:, None]) * y[partners])


def test_mixup_leaves_validation_predictions_and_the_loss_alone():
    learn = small(torch.randint(3, (16,)), loss := CrossEntropyLossFlat(), metrics=accuracy)
    with learn.no_logging():
        learn.fit(1)
    assert learn.loss_func is loss and loss.reduction == "mean"
    preds, targets = learn.get_preds()
    x = learn.dls.valid.source.tensors[0]
    torch.testing.assert_close(preds, learn.model(x).softmax(1).detach())
    values = learn.validate()
    assert values[0] == pytest.approx(loss(learn.model(x), targets).item(), rel=1e-5)


def test_losses_without_reduction_will_do():
    def squares(pred, target):
        return F.cross_entropy(pred, target) ** 2

    y = torch.randint(3, (8,))
    learn = small(y, squares, opt_func=Still)
    [(xb, _, lam, partners, _)] = mixed_batches(learn)
    scores = learn.model(xb[0])
    own, other = (
        F.cross_entropy(scores, labels, reduction="none") ** 2 for labels in (y, y[partners])
    )
    right = (lam * own + (1 - lam) * other).mean().item()
    assert float(learn.recorder.values[-1][0]) == pytest.approx(right, rel=1e-5)


def test_mixup_with_pixels_and_with_16_bits():
    y, x = torch.randint(3, (8, 5, 6)), torch.randn(8, 2, 5, 6)
    dl = DataLoader(torch.utils.data.TensorDataset(x, y), bs=4, device="cpu")
    learn = Learner(DataLoaders(dl, dl), nn.Conv2d(2, 3, 1), CrossEntropyLossFlat(axis=1))
    learn.add_cb(MixUp)
    with learn.no_logging():
        learn.fit(1)
        learn.to_bf16(cpu=True).fit(1)
    assert all(float(row[0]) > 0 for row in learn.recorder.values)


def test_what_cannot_be_mixed_is_said():
    for alpha in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="alpha="):
            MixUp(alpha)
    x = torch.randint(255, (8, 4)).byte()
    learn = small(torch.zeros(8).long(), CrossEntropyLossFlat(), x=x)
    with learn.no_logging(), pytest.raises(DataError, match="IntToFloat"):
        learn.fit(1)


# ---------------------------------------------------------------- test-time augmentation
def pictures(tfms, n=11, model=None):
    torch.manual_seed(0)
    x, y = torch.randint(255, (n, 3, 8, 8)).byte(), torch.randint(2, (n,))
    sets = torch.utils.data.TensorDataset(x, y)
    loaders = (
        DataLoader(sets, bs=4, shuffle=shuffle, drop_last=shuffle, device="cpu", after_batch=tfms)
        for shuffle in (True, False)
    )
    model = model or nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    return Learner(DataLoaders(*loaders), model, CrossEntropyLossFlat())


def test_tta_flips_half_and_averages():
    "With a flip of chance 1 in training, copies are the mirrored pictures."
    learn = pictures([Flip(p=1.0)])
    x = learn.dls.valid.source.tensors[0].float() / 255
    plain, mirrored = (learn.model(each).softmax(1).detach() for each in (x, x.flip(-1)))
    preds, targets = learn.tta(n=2)
    torch.testing.assert_close(preds, 0.25 * plain + 0.75 * mirrored)
    assert torch.equal(targets, learn.dls.valid.source.tensors[1])
    torch.testing.assert_close(learn.tta(n=1, use_max=True)[0], torch.maximum(plain, mirrored))
    torch.testing.assert_close(learn.tta(n=0)[0], plain)
    (copies, alone), _ = learn.tta(beta=None)
    torch.testing.assert_close(copies, mirrored)
    torch.testing.assert_close(alone, plain)


def test_tta_keeps_all_items_in_order_and_the_loader_as_it_was():
    learn = pictures(aug_transforms())
    before = dict(learn.dls.valid._given)
    for dl, n in ((None, 11), (learn.dls.train, 11)):
        preds, targets = learn.tta(dl=dl)
        assert preds.shape == (n, 2) and torch.equal(targets, learn.dls.valid.source.tensors[1])
        torch.testing.assert_close(preds.sum(1), torch.ones(n))
    assert learn.tta(ds_idx=0)[0].shape == (11, 2)
    assert learn.dls.valid._given == before and not learn.dls.valid.training


def test_tta_of_any_loader_and_of_a_plain_loss():
    "Copies change, rows stay where they are; scores of a plain loss are averaged as probabilities."
    learn = pictures([Flip(p=1.0)])
    learn.loss_func = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3]))
    source = learn.dls.valid.source
    x = source.tensors[0].float() / 255
    plain, mirrored = (learn.model(each).softmax(1).detach() for each in (x, x.flip(-1)))
    draws = torch.utils.data.WeightedRandomSampler([1.0] * 11, 30)
    loader = learn.dls.train
    for dl in (loader, loader.new(sampler=draws), loader.new(batch_sampler=[[3], [1, 2]])):
        preds, targets = learn.tta(dl=dl, n=1, beta=0.5)
        torch.testing.assert_close(preds, (plain + mirrored) / 2)
        assert torch.equal(targets, source.tensors[1])


def test_tta_takes_other_transforms():
    learn = pictures([])
    x = learn.dls.valid.source.tensors[0]
    bright = Brightness(p=1.0, draw=0.9)
    light, plain = (
        learn.model(bright(x, training=training)).softmax(1).detach() for training in (True, False)
    )
    preds, _ = learn.tta(batch_tfms=[bright], n=1, beta=0.5)
    torch.testing.assert_close(preds, (light + plain) / 2)


def test_tta_keeps_what_the_model_cannot_do_without(tmp_path):
    "Other changes take the place of those of training; tensors, floats and statistics stay."
    for i in range(8):
        pixels = torch.randint(255, (8, 9, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    norm = Normalize.from_stats(*imagenet_stats)
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=coursekit.data.get_image_files,
        get_y=lambda file: int(file.stem) % 2,
        splitter=EndSplitter(0.5),
        item_tfms=Resize(8),
        batch_tfms=[*aug_transforms(), norm],
    )
    dls = block.dataloaders(tmp_path, bs=2, num_workers=0, device="cpu")
    learn = Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), CrossEntropyLossFlat())
    x = torch.cat([x for x, _ in dls.valid])
    plain, mirrored = (learn.model(each).softmax(1).detach() for each in (x, x.flip(-1)))
    for flip in (Flip(p=1.0), [Flip(p=1.0)], [Flip(p=1.0), norm]):
        (copies, alone), _ = learn.tta(n=1, beta=None, batch_tfms=flip)
        torch.testing.assert_close(copies, mirrored)
        torch.testing.assert_close(alone, plain)
    (_, alone), _ = learn.tta(n=1, beta=None, item_tfms=Resize(8))
    torch.testing.assert_close(alone, plain)


def test_tta_warns_where_nothing_is_random_and_says_what_it_cannot():
    learn = pictures([IntToFloat()])
    with pytest.warns(UserWarning, match="all copies are alike"):
        learn.tta(n=1)
    for options, words in (({"n": -1}, "n=-1"), ({"n": 1.5}, "n=1.5"), ({"beta": 2}, "beta=2")):
        with pytest.raises(ValueError, match=words):
            learn.tta(**options)
    with pytest.raises(DataError, match="loader of coursekit"):
        learn.tta(dl=[1, 2])


# ---------------------------------------------------------------- the table
def test_the_table_says_how_it_was_made():
    kept = Path(__file__).parents[1] / "bench" / "recipes.csv"
    lines = kept.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# python bench/recipes.py; after commit ") and "seeds" in lines[0]
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    keys = [tuple(row.values())[:6] for row in rows]
    assert len(set(keys)) == len(keys)
    for seed in {row["seed"] for row in rows}:
        whole = {key for key in keys if key[5] == seed and key[0] == "xresnet18"}
        assert len(whole) == 16, f"seed {seed} has {len(whole)} of 8 recipes at two budgets"
    assert all(0.2 < float(row["accuracy"]) < 1 for row in rows)


@pytest.mark.parametrize("name", ["recipes_photographs", "digits"])
def test_the_other_tables_say_how_they_were_made(name):
    kept = Path(__file__).parents[1] / "bench" / f"{name}.csv"
    lines = kept.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"# python bench/{name}.py; after commit ")
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert all(0.2 < float(row["accuracy"]) < 1 for row in rows)
    assert len({row["seed"] for row in rows}) >= 3
