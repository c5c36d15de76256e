"""What was looked for, where, and what was seen: messages about what is not there, and the way out."""

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader

from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.data import (
    ColReader,
    GrandparentSplitter,
    IndexSplitter,
    RandomSplitter,
    get_image_files,
    parent_label,
)
from coursekit.events import LearnerError
from coursekit.exporting import load_learner
from coursekit.image_loaders import ImageDataLoaders
from coursekit.interpretation import ClassificationInterpretation
from coursekit.learner import Learner
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.losses import CrossEntropyLossFlat
from coursekit.messages import DataError
from coursekit.multilabel import MultiCategorize
from coursekit.resizing import Resize
from coursekit.widgets import ImageClassifierCleaner


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures")
    for side in ("first", "second"):
        for shade, label in enumerate(("cat", "dog")):
            (path / side / label).mkdir(parents=True)
            for i in range(4):
                picture = Image.new("RGB", (12, 10), (shade * 200, i * 20, 9))
                picture.save(path / side / label / f"{i}.png")
    (path / "notes.txt").write_text("two sides")
    return path


def block(**parts):
    given = {
        "blocks": (ImageBlock, CategoryBlock),
        "get_items": get_image_files,
        "get_y": parent_label,
        "splitter": RandomSplitter(0.25, seed=0),
        "item_tfms": Resize(8),
    }
    return DataBlock(**given | parts)


def test_a_folder_without_the_two_sides(pictures):
    with pytest.raises(
        DataError, match=r"no folder 'train' in .* \['first', 'second'\].*valid_pct"
    ):
        ImageDataLoaders.from_folder(pictures, item_tfms=Resize(8))
    with pytest.raises(DataError, match="no folder 'valid'"):
        ImageDataLoaders.from_folder(pictures, train="first", item_tfms=Resize(8))
    dls = ImageDataLoaders.from_folder(pictures, "first", "second", item_tfms=Resize(8), bs=4)
    assert len(dls.valid_ds) == 8
    with pytest.raises(DataError, match=r"no item has 'valid' as .* \['first', 'second'\]"):
        block(splitter=GrandparentSplitter("first")).datasets(pictures)


def test_where_nothing_is_found_it_says_what_is_there(pictures, tmp_path):
    nothing = block(get_items=lambda path: [])
    with pytest.raises(
        DataError, match=r"2 folders, \['first', 'second'\].* 1 files, \['notes.txt"
    ):
        nothing.datasets(pictures)
    with pytest.raises(DataError, match=r"get_image_files found no items in .* 0 files"):
        block().datasets(tmp_path)
    with pytest.raises(DataError, match=r"no file 'labels.csv' in .*'notes.txt'"):
        ImageDataLoaders.from_csv(pictures)


def test_a_folder_that_is_not_there(pictures):
    with pytest.raises(
        DataError, match=r"no folder .*third; above it there is .*'first', 'second'"
    ):
        get_image_files(pictures / "third")
    with pytest.raises(DataError, match=r"no folder .*notes.txt; above it"):
        get_image_files(pictures / "notes.txt")


def test_more_outputs_than_labels_of_several():
    step = MultiCategorize(["a", "b"])
    assert step.decode(torch.tensor([0.0, 1.0])) == ["b"]
    for n in (1, 3):
        with pytest.raises(DataError, match=rf"{n} numbers for the 2 labels \['a', 'b'\].*dls\.c"):
            step.decode(torch.ones(n))


def test_a_label_that_training_has_not_seen(pictures):
    files = get_image_files(pictures)
    dogs = [i for i, file in enumerate(files) if parent_label(file) == "dog"]
    split = block(splitter=IndexSplitter(dogs))
    with pytest.raises(DataError, match=r"'dog' is not among the 1 .*vocab=.*splitter"):
        split.datasets(pictures)
    named = split.new(blocks=(ImageBlock, CategoryBlock(vocab=["cat", "dog"])))
    assert len(named.datasets(pictures).valid) == 8


def test_columns_that_are_not_there():
    table = pd.DataFrame({"file": ["a.png", "b.png"], "label": ["cat", "dog"]})
    for col in ("name", 2, -3):
        with pytest.raises(DataError, match=rf"no column {col!r}.*'file', 'label'"):
            ImageDataLoaders.from_df(table, valid_col=col)
        with pytest.raises(DataError, match=rf"no column {col!r}.*'file', 'label'"):
            ImageDataLoaders.from_df(table, valid_pct=0.5, label_col=col)
        with pytest.raises(DataError, match=rf"no column {col!r}.*'file', 'label'"):
            ColReader(col)(table.iloc[0])


@pytest.mark.parametrize("kind", [DataLoader, TorchDataLoader])
def test_a_loader_without_a_batch(kind):
    empty = DataLoaders(kind([(1.0, 2.0)] * 3, batch_size=4, drop_last=True))
    with pytest.raises(DataError, match="items 3, batch size 4, drop_last=True"):
        empty.one_batch()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("batch_tfms", r"part of the DataBlock.*block.new\(batch_tfms"),
        ("item_tfms", "part of the DataBlock"),
        ("batch_ftms", r"DataBlock\(\.\.\.\) has 'batch_tfms'"),
        ("batchsize", r"DataLoader\(\.\.\.\) has 'batch_size'"),
        ("valid_prct", r"from_folder\(\.\.\.\) has 'valid_pct'"),
        ("zzz", "no argument 'zzz'$"),
    ],
)
def test_arguments_that_no_loader_takes(pictures, name, said):
    with pytest.raises(TypeError, match=said):
        block().dataloaders(pictures, **{name: None})
    with pytest.raises(TypeError, match=f"no argument '{name}'"):
        DataLoader([1, 2], **{name: None})


def test_splitters_that_are_asked_for_no_validation(pictures):
    for splitter in (IndexSplitter([]), RandomSplitter(0), RandomSplitter(valid_pct=0.0)):
        dls = block(splitter=splitter).dataloaders(pictures, bs=4)
        assert len(dls) == 1 and len(dls.train_ds) == 16
        with pytest.raises(DataError, match="no validation loader"):
            _ = dls.valid
    with pytest.raises(DataError, match="validation set is empty: of 16 items RandomSplitter"):
        block(splitter=RandomSplitter(0.01)).dataloaders(pictures)


def test_a_class_beyond_the_vocabulary(pictures):
    dsets = block().datasets(pictures)
    assert dsets.pipelines[1].decode(torch.tensor(1)) == "dog"
    for number in (2, -1):
        with pytest.raises(
            DataError, match=rf"number {number}: the vocabulary has 2, \['cat', 'dog'"
        ):
            dsets.pipelines[1].decode(torch.tensor(number))


# ---------------------------------------------------------------- files of models
@pytest.fixture
def learn(pictures, tmp_path):
    dls = block().dataloaders(pictures, path=tmp_path, bs=4, num_workers=0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    return Learner(dls, net, loss_func=CrossEntropyLossFlat())


def test_a_file_of_the_other_kind(learn, tmp_path):
    weights = learn.save("weights")
    learn.export("learner.pkl")
    with pytest.raises(DataError, match=r"weights without a learner.*its load\(\.\.\.\)"):
        load_learner(weights)
    for name in ("learner.pkl", tmp_path / "learner.pkl", str(tmp_path / "learner.pkl")):
        with pytest.raises(DataError, match=r"file of learn\.export, .*load_learner reads it"):
            learn.load(name)
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=r"file of safetensors: .*load_file"):
        learn.load("a.safetensors")
    with pytest.raises(DataError, match=r"in its folder there is learner\.pkl"):
        load_learner(tmp_path / "model.pkl")
    with pytest.raises(FileNotFoundError, match=r"in its folder there is weights\.pth"):
        learn.load("weight")


def test_weights_with_another_suffix(learn, tmp_path):
    learn.save("weights").rename(tmp_path / "weights.pt")
    kept = learn.model[1].bias.detach().clone()
    with torch.no_grad():
        learn.model[1].bias.zero_()
    learn.load("weights.pt")
    assert torch.equal(learn.model[1].bias, kept)


def test_a_model_with_more_outputs_than_labels(learn, pictures):
    learn.model[1] = nn.Linear(192, 5)
    with torch.no_grad():
        learn.model[1].bias[4] = 1e4
    with pytest.raises(DataError, match=r"number 4: the vocabulary has 2, .*dls\.c"):
        learn.predict(get_image_files(pictures)[0])
    with pytest.raises(DataError, match="number 4: the vocabulary has 2"):
        ImageClassifierCleaner(learn)
    found = ClassificationInterpretation.from_learner(learn)
    assert list(found.vocab) == ["cat", "dog", 2, 3, 4]
    assert found.confusion_matrix()[:, 4].sum() == 4
    with torch.no_grad():
        learn.model[1].bias[2:] = -1e4
    # as in fastai: outputs that are never said do not show
    assert ClassificationInterpretation.from_learner(learn).confusion_matrix().shape == (2, 2)


def test_training_and_predicting_without_a_batch(learn):
    full = learn.dls
    learn.dls = full.new(bs=32, drop_last=True)
    with pytest.raises(LearnerError, match="items 12, batch size 32, drop_last=True"):
        learn.fit(1)
    assert len(learn.get_preds(dl=learn.dls.valid)[0]) == 4  # it is read whole
