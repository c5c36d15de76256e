"""A frozen body with less work: the same answers, and aside where somebody might look."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.data import RandomSplitter, parent_label
from coursekit.events import Callback, CancelValidException
from coursekit.frozen import FrozenBody, repeats
from coursekit.learner import Learner
from coursekit.loaders import DataLoaders
from coursekit.measures import accuracy
from coursekit.metrics import Metric
from coursekit.mixing import MixUp
from coursekit.transforms import Transform
from coursekit.vision import EvalFrozen


class Counted(TensorDataset):
    "How many items were fetched."

    fetched = 0

    def __getitem__(self, index):
        self.fetched += torch.as_tensor(index).numel()
        return super().__getitem__(index)


def body_and_head(head=()):
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)
    )
    body[1].running_mean.normal_()
    body[1].running_var.uniform_(0.5, 2)
    pool = nn.Sequential(*head, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    return nn.Sequential(body, pool)


def learner(cbs=(), head=(), freeze=True, metrics=accuracy):
    chance = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(80, 1, 12, 12, generator=chance),
        torch.randint(0, 3, (80,), generator=chance),
    )
    dls = DataLoaders.from_dsets(Counted(x[:60], y[:60]), Counted(x[60:], y[60:]), bs=8, seed=0)
    model = body_and_head(head)

    def parts(model):
        return [list(part.parameters()) for part in model]

    how = {"splitter": parts, "train_bn": False, "metrics": metrics}
    learn = Learner(dls, model, nn.functional.cross_entropy, cbs=[EvalFrozen, *cbs], **how)
    if freeze:
        learn.freeze()
    return learn


def fitted(learn, epochs=3, cbs=None):
    torch.manual_seed(1)
    with learn.no_logging():
        learn.fit(epochs, 0.05, cbs=cbs)
    return torch.tensor(learn.recorder.values)


@pytest.mark.parametrize("head", [(), (nn.ReLU(inplace=True),), (nn.Dropout(0.3),)])
def test_the_same_numbers_and_validation_items_fetched_once(head):
    quick, plain = learner([FrozenBody], head), learner([], deepcopy(head))
    assert torch.allclose(fitted(quick), fitted(plain), atol=1e-5)
    assert quick.dls.valid_ds.fetched == 20
    assert plain.dls.valid_ds.fetched == 60
    # in the order of the first epoch, four were left over, and came in when their turn was
    assert quick.dls.train_ds.fetched == 60
    assert plain.dls.train_ds.fetched == 3 * 56
    for a, b in zip(
        quick.model.state_dict().values(), plain.model.state_dict().values(), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    "how", [{}, {"shuffle": True}, {"wgts": torch.arange(1.0, 61)}, {"drop_last": False}]
)
@pytest.mark.parametrize("head", [(), (nn.Dropout(0.3),)])
def test_training_items_in_any_order_are_fetched_once(head, how):
    "The same batches and the same chances, whoever draws them."
    made = []
    for cbs in ([FrozenBody], []):
        learn = learner(cbs, deepcopy(head))
        learn.dls.loaders[0] = learn.dls.train.new(seed=None, **how)
        made.append((fitted(learn, 4), learn))
    (quick, ours), (plain, theirs) = made
    assert torch.allclose(quick, plain, atol=1e-5)
    again = 60 if "wgts" in how else 0  # of the first epoch, in which some come twice
    assert ours.dls.train_ds.fetched <= 60 + again < theirs.dls.train_ds.fetched
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_nothing_is_left_behind_and_prediction_is_as_ever():
    learn = learner([FrozenBody])
    fitted(learn)
    assert "forward" not in vars(learn.model[0])
    batch = learn.dls.valid.one_batch()[0]
    with torch.no_grad():
        wanted = deepcopy(learn.model).eval()(batch).softmax(1)
    probabilities, _ = learn.get_preds()
    assert torch.allclose(probabilities[:8], wanted)
    fitted(learn)  # a second fit begins anew
    assert learn.dls.valid_ds.fetched == 20 + 20 + 20 + 8


class Watch(Callback):
    "Looks at each batch."

    def before_fit(self):
        self.shapes = set()

    def after_batch(self):
        self.shapes.add(tuple(self.learn.xb[0].shape[1:]))


def test_who_looks_at_batches_sees_pictures():
    learn, watch = learner([FrozenBody]), Watch()
    fitted(learn, cbs=watch)
    assert watch.shapes == {(1, 12, 12)}
    assert learn.dls.valid_ds.fetched == 60


def test_a_metric_of_ones_own_sees_pictures():
    class Bright(Metric):
        def reset(self):
            self.sizes = []

        def accumulate(self, learn):
            self.sizes.append(learn.x.shape[-1])

        @property
        def value(self):
            return float(max(self.sizes))

    values = fitted(learner([FrozenBody], metrics=Bright()))
    assert values[:, -1].tolist() == [12, 12, 12]


def test_hooks_on_the_body_fire():
    learn, seen = learner([FrozenBody]), []
    learn.model[0][0].register_forward_hook(lambda *_: seen.append(1))
    fitted(learn, 2)
    assert len(seen) == 2 * (7 + 3)


def test_mixed_pictures_are_mixed():
    def mixed(*more):
        return fitted(learner([MixUp(0.4), *more]), 2)

    assert torch.equal(mixed(FrozenBody), mixed())


def test_a_body_that_learns_is_left_alone():
    quick, plain = learner([FrozenBody], freeze=False), learner([], freeze=False)
    assert torch.equal(fitted(quick), fitted(plain))


class Thaw(Callback):
    "From the second epoch on, all of it learns."

    def before_epoch(self):
        if self.learn.epoch == 1:
            self.learn.unfreeze()


def test_a_body_that_is_unfrozen_on_the_way_learns():
    quick, plain = learner([FrozenBody, Thaw]), learner([Thaw])
    assert torch.allclose(fitted(quick), fitted(plain), atol=1e-5)
    assert torch.allclose(quick.model[0][0].weight, plain.model[0][0].weight, atol=1e-5)
    assert not torch.equal(quick.model[0][0].weight, body_and_head()[0][0].weight)


def test_a_model_used_between_the_epochs_answers_as_ever():
    class Ask(Callback):
        def after_epoch(self):
            batch = torch.ones(2, 1, 12, 12)
            with torch.no_grad():
                self.answer = self.learn.model.eval()(batch)

    quick, plain = Ask(), Ask()
    fitted(learner([FrozenBody]), cbs=quick)
    fitted(learner([]), cbs=plain)
    assert torch.allclose(quick.answer, plain.answer, atol=1e-5)


def test_a_validation_that_was_broken_off_is_not_taken_for_a_whole_one():
    class Short(EvalFrozen):  # of ours by its module, so that it may stay
        def after_loss(self):
            if not self.learn.training and self.learn.epoch == 0 and self.learn.iter == 1:
                raise CancelValidException

    Short.__module__ = "coursekit.vision"
    learn = learner([FrozenBody, Short])
    fitted(learn)
    assert learn.dls.valid_ds.fetched == 16 + 20


def test_features_that_are_too_many_are_not_kept():
    quick, plain = learner([FrozenBody(most=1000)]), learner([])
    assert torch.allclose(fitted(quick), fitted(plain), atol=1e-5)
    assert quick.dls.valid_ds.fetched == 60 and quick.dls.train_ds.fetched == 3 * 56


def test_an_error_leaves_the_body_as_it_was():
    class Fail(Callback):
        def after_epoch(self):
            raise RuntimeError("enough")

    learn = learner([FrozenBody, Fail])
    with pytest.raises(RuntimeError, match="enough"):
        fitted(learn)
    assert "forward" not in vars(learn.model[0])


def of_files(folder, seed=None, **how):
    from PIL import Image

    for i in range(12):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (20, 16), (i * 20, 0, 0)).save(folder / "ab"[i % 2] / f"{i}.png")
    from coursekit.data import get_image_files
    from coursekit.resizing import Resize

    how = {"item_tfms": [Resize(16)]} | how
    block = DataBlock(
        (ImageBlock, CategoryBlock), splitter=RandomSplitter(0.5, seed=0), get_y=parent_label, **how
    )
    return block.dataloaders(get_image_files(folder), bs=2, num_workers=0, seed=seed)


def test_which_loaders_repeat_what_they_give(tmp_path):
    dls = of_files(tmp_path)
    assert repeats(dls.valid)
    assert not repeats(dls.train)  # shuffled, and cut out at random
    assert not repeats(dls.valid.new(skip_broken=True))
    assert not repeats(list(dls.valid))
    for dl in (dls.train, dls.train.new(shuffle=False)):
        assert not repeats(dl, in_order=False)
    assert repeats(dls.valid.new(num_workers=1))


def test_photographs_that_nothing_changes_at_random_are_opened_once(tmp_path, monkeypatch):
    from PIL import Image

    from coursekit.resizing import Resize

    def rows(*cbs, **how):
        opened, usual = [], Image.open
        with monkeypatch.context() as patch:
            patch.setattr(
                Image, "open", lambda file, *a, **k: opened.append(1) or usual(file, *a, **k)
            )
            dls = of_files(tmp_path, seed=0, **how)
            model = body_and_head()
            model[0] = nn.Sequential(nn.Conv2d(3, 1, 1), model[0])
            model[0].requires_grad_(False)
            cbs = [EvalFrozen, *cbs]
            parts = {"splitter": lambda model: [list(part.parameters()) for part in model]}
            learn = Learner(dls, model, cbs=cbs, metrics=accuracy, train_bn=False, **parts)
            learn.freeze()
            opened.clear()
            return fitted(learn, 4), len(opened)

    steady = {"item_tfms": [Resize(16, "squish")]}
    quick, few = rows(FrozenBody, **steady)
    plain, many = rows(**steady)
    assert torch.allclose(quick, plain, atol=1e-5)
    assert few == 12 and many == 4 * 12
    assert rows(FrozenBody)[1] == 4 * 6 + 6  # cut out at random: only validation is kept


def test_a_function_of_ones_own_may_draw_at_random(tmp_path):
    class Noise(Transform):
        def image(self, picture, _):
            return picture

    assert not repeats(of_files(tmp_path, get_x=lambda file: file).valid)
    assert not repeats(of_files(tmp_path, batch_tfms=[Noise()]).valid)
    assert not repeats(of_files(tmp_path, batch_tfms=[lambda x: x]).valid)


class Reload(Callback):
    "Gives the body other weights after the first epoch."

    def after_epoch(self):
        if self.learn.epoch == 0:
            body = self.learn.model[0]
            body.load_state_dict({name: value * 2 for name, value in body.state_dict().items()})


def test_other_weights_are_used_from_then_on():
    quick, plain = learner([FrozenBody, Reload]), learner([Reload])
    assert torch.allclose(fitted(quick), fitted(plain), atol=1e-5)
    assert quick.dls.valid_ds.fetched == 40


def test_outside_a_fit_nothing_is_kept():
    learn = learner([FrozenBody])
    learn.get_preds()
    learn.validate()
    assert learn.dls.valid_ds.fetched == 40
    assert "forward" not in vars(learn.model[0])


def test_loaders_that_come_and_go_are_not_mixed_up():
    class Others(Callback):
        def after_epoch(self):
            self.losses = []
            for part in (0, 1, 2, 3) if self.learn.epoch == 1 else ():
                x, y = self.learn.dls.valid_ds[torch.arange(5 * part, 5 * part + 5)]
                loader = self.learn.dls.valid.new(TensorDataset(x, y))
                self.learn._one_validation(loader)
                self.losses.append(float(self.learn.loss))
                del loader

    quick, plain = Others(), Others()
    fitted(learner([FrozenBody]), 2, quick)
    fitted(learner([]), 2, plain)
    assert torch.allclose(torch.tensor(quick.losses), torch.tensor(plain.losses), atol=1e-5)
    assert len(set(quick.losses)) == 4
