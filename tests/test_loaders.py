"Loaders under less usual conditions: worker options, samplers, parts of datasets, other hands."

import multiprocessing
import os
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Subset, TensorDataset, WeightedRandomSampler, random_split

from coursekit.augment import aug_transforms
from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.data import (
    FuncSplitter,
    GroupSplitter,
    IndexSplitter,
    MaskSplitter,
    RandomSplitter,
    get_image_files,
    parent_label,
)
from coursekit.data_loader import megapixels
from coursekit.loaders import DataLoader, DataLoaders
from coursekit.messages import DataError
from coursekit.normalize import Normalize
from coursekit.pipeline import Datasets
from coursekit.resizing import Resize
from coursekit.targets import MaskBlock
from coursekit.transforms import PILImage, ToTensor, arrange


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("loaders")
    for label in ("a", "b"):
        (home / label).mkdir()
        for i in range(12):
            colour = (20 * i, 255 * (label == "b"), 99)
            Image.new("RGB", (20, 20), colour).save(home / label / f"{i}.png")
    return home


@pytest.fixture
def block():
    return DataBlock(
        (ImageBlock, CategoryBlock),
        get_image_files,
        RandomSplitter(seed=1),
        get_y=parent_label,
        item_tfms=Resize(16),
    )


@pytest.mark.parametrize(
    "options",
    [
        {"persistent_workers": True},
        {"prefetch_factor": 4},
        {"timeout": 30},
        {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 3},
        {"num_workers": 2, "multiprocessing_context": "spawn"},
    ],
)
def test_worker_options_survive_what_needs_no_workers(folder, block, options):
    "One batch to validate on starts no workers; one_batch and test_dl never do."
    dls = block.dataloaders(folder, bs=4, **options)
    assert dls.one_batch()[0].shape == (4, 3, 16, 16)
    files = get_image_files(folder)[:3]
    assert dls.test_dl(files).one_batch()[0].shape[0] == 3
    assert dls.c == 2
    if options.get("multiprocessing_context") != "spawn":
        assert sum(len(y) for _, y in dls.train) == 20


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    "One file of five megapixels, thirty times."
    file = tmp_path_factory.mktemp("large") / "a_page.png"
    Image.new("L", (2500, 2000)).save(file)
    return [file] * 30


def opened(files):
    return Datasets(files, [[PILImage.create], [lambda file: len(file.name)]])


def test_workers_by_default_where_pictures_are_many_or_large(folder, large, monkeypatch):
    small = opened(get_image_files(folder))
    assert megapixels(small) == pytest.approx(24 * 400 / 1e6)
    assert megapixels(opened(large)) == 150
    cores = len(os.sched_getaffinity(0))
    for data, workers in ((small, 0), (opened(large), min(8, cores)), (opened(large[:19]), 0)):
        assert DataLoader(data, 4).num_workers == min(workers, len(data))
    assert DataLoader(opened(large), 4, num_workers=0).num_workers == 0  # what was said
    assert DataLoader(opened(large), 30).num_workers == 0  # one batch leaves nothing ahead
    part = DataLoader(Subset(small, range(9)), 4)
    assert part.num_workers == 0
    monkeypatch.delattr(os, "sched_getaffinity")
    assert DataLoader(opened(large), 4).num_workers == 0  # workers would start anew there


def test_a_worker_does_not_wait_for_a_thread_that_it_has_not(folder):
    from coursekit.one_thread import ONE_THREAD

    how = {"after_item": [Resize(8), ToTensor], "num_workers": 1, "timeout": 60}
    loader = DataLoader(opened(get_image_files(folder)), 4, multiprocessing_context="fork", **how)
    with ONE_THREAD.lock:  # as if another thread were just there
        assert sum(len(y) for _, y in loader) == 24


def test_other_data_have_no_workers_by_default():
    class Slow:
        def __len__(self):
            return 10**6

        def __getitem__(self, i):
            pytest.fail("nothing is opened to decide it")

    assert DataLoader(Slow(), 4).num_workers == 0
    assert DataLoader(list(range(10**5)), 4).num_workers == 0


def test_a_damaged_picture_is_told_when_its_turn_comes(large, tmp_path):
    damaged = tmp_path / "b_damaged.png"
    damaged.write_bytes(large[0].read_bytes()[:300])
    loader = DataLoader(opened([*large, damaged]), 4, after_item=[Resize(8), ToTensor])
    assert loader.num_workers == 0
    with pytest.raises(DataError, match="b_damaged"):
        list(loader)


def test_the_default_opens_without_drawing_random_numbers(large):
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    DataLoader(opened(large), 4)
    assert torch.equal(torch.rand(2), wanted)


def test_taken_apart_it_gives_plain_batches(folder, block):
    "As a library does that builds its own loader from torch's attributes."
    loader = block.dataloaders(folder, bs=4, num_workers=0).train
    other = TorchDataLoader(
        loader.dataset, batch_sampler=loader.batch_sampler, collate_fn=loader.collate_fn
    )
    x, y = next(iter(other))
    assert x.shape == (4, 3, 16, 16) and x.dtype == torch.uint8 and y.shape == (4,)
    assert loader.finish((x, y))[0].dtype == torch.float32


def test_sampler_and_generator():
    data = [(torch.tensor(i), i) for i in range(40)]
    only_last = WeightedRandomSampler([0.0] * 39 + [1.0], 12)
    assert [y.tolist() for _, y in DataLoader(data, 5, sampler=only_last)] == [
        [39] * 5,
        [39] * 5,
        [39] * 2,
    ]

    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        return [y.tolist() for _, y in DataLoader(data, 8, shuffle=True, generator=generator)]

    assert order(0) == order(0) != order(1)


def test_many_small_batches_come_from_one_index(monkeypatch):
    fetched, select = [], torch.Tensor.index_select

    def counted(tensor, dim, rows):
        fetched.append(len(rows))
        return select(tensor, dim, rows)

    monkeypatch.setattr(torch.Tensor, "index_select", counted)
    x, y = torch.arange(2000.0).view(1000, 2), torch.arange(1000)
    loader = DataLoader(TensorDataset(x, y), bs=10, shuffle=True, seed=1, num_workers=0)
    batches = list(loader)
    assert fetched[::2] == [10, 640, 350]  # the first alone, for those who want no more
    assert [len(ys) for _, ys in batches] == [10] * 100
    assert torch.cat([ys for _, ys in batches]).sort().values.equal(y)
    assert all(xs.equal(x[ys]) for xs, ys in batches)
    fetched.clear()
    loader.one_batch()
    assert fetched == [10, 10]
    fetched.clear()
    large = TensorDataset(torch.zeros(40, 2**18))  # a MB in a row
    assert [len(xs) for (xs,) in DataLoader(large, bs=8)] == [8] * 5 == fetched
    some = DataLoader(Subset(TensorDataset(x, y), [-1, 0, 999]), bs=2)
    assert [ys.tolist() for _, ys in some] == [[999, 0], [999]]
    for place in (1000, -1001):
        beyond = DataLoader(Subset(TensorDataset(x, y), [0, place]), bs=1)
        with pytest.raises(IndexError, match=rf"place {place} of a dataset with 1,000 items"):
            list(beyond)


def test_tensors_with_gradients_and_own_ways_to_fetch_are_asked_batch_by_batch():
    weights = torch.ones(8, requires_grad=True)
    for (part,) in DataLoader(TensorDataset(weights), bs=2):
        part.sum().backward()
    assert weights.grad.tolist() == [1] * 8

    class Doubled(TensorDataset):
        def __getitem__(self, at):
            return tuple(2 * t for t in super().__getitem__(at))

    assert torch.cat([x for (x,) in DataLoader(Doubled(torch.arange(5)), bs=2)]).tolist() == [
        *range(0, 10, 2)
    ]


def test_part_of_tensors_in_memory_is_fetched_by_index(monkeypatch):
    x = torch.arange(100.0)[:, None]
    part, _ = random_split(TensorDataset(x, x[:, 0].long()), [60, 40])
    loader = DataLoader(part, 16)
    assert loader.in_memory and loader.num_workers == 0
    slow = [part[i] for i in range(60)]
    found = torch.cat([y for _, y in loader])
    assert found.tolist() == [y.item() for _, y in slow]
    monkeypatch.setattr(Subset, "__getitem__", lambda *_: pytest.fail("item by item"))
    assert sum(len(y) for _, y in loader) == 60


def test_a_dataset_that_gives_whole_batches_is_asked_for_them():
    class Batches(list):
        calls = 0

        def __getitems__(self, indices):
            self.calls += 1
            return [self[i] for i in indices]

    data = Batches(range(100))
    assert sum(len(batch) for batch in DataLoader(data, 10)) == 100 and data.calls == 10

    class Broken(list):
        def __getitems__(self, indices):
            raise RuntimeError("no batches today")

    with pytest.raises(DataError, match="no batches today"):  # though each item alone is fine
        list(DataLoader(Broken(range(100)), 10))


def test_a_batch_of_three_is_no_picture():
    grey = TensorDataset(torch.full((7, 28, 28), 0.5), torch.arange(7))
    means = [x.mean().item() for x, _ in DataLoader(grey, 4, after_batch=Normalize([0.25], [0.25]))]
    assert means == [0.5, 0.5]
    pictures = TensorDataset(torch.full((7, 1, 28, 28), 0.5), torch.arange(7))
    means = [
        x.mean().item() for x, _ in DataLoader(pictures, 4, after_batch=Normalize([0.25], [0.25]))
    ]
    assert means == [1.0, 1.0]


def test_bytes_in_memory_are_floats_on_both_sides():
    data = TensorDataset(torch.full((8, 1, 8, 8), 255, dtype=torch.uint8), torch.arange(8))
    dls = DataLoaders.from_dsets(data, data, bs=4, after_batch=aug_transforms())
    for loader in (dls.train, dls.valid):
        x, _ = loader.one_batch()
        assert x.dtype == torch.float32 and x.max() <= 1


# ---------------------------------------------------------------- splits
def test_positions_not_masks_and_none_twice():
    with pytest.raises(ValueError, match="MaskSplitter takes a mask"):
        IndexSplitter(np.arange(10) % 5 == 0)
    for splitter, said in (
        (IndexSplitter([0, 0, 1]), "names item 0 more than once"),
        (lambda items: ([2, 2, 3], [0, 1]), "names item 2 more than once"),
        (IndexSplitter([2.7]), "2.7 is no position"),
    ):
        with pytest.raises(DataError, match=said):
            DataBlock(splitter=splitter).datasets(list(range(10)))


@pytest.mark.parametrize(
    "splitter",
    [
        GroupSplitter(lambda i: float("nan") if i == 3 else i % 2),
        FuncSplitter(lambda i: None if i == 3 else i > 6),
        MaskSplitter([False] * 3 + [float("nan")] + [True] * 6),
        MaskSplitter(["False"] * 10),
    ],
)
def test_what_is_not_known_is_on_no_side(splitter):
    with pytest.raises(DataError, match=r"item 3|neither true nor false"):
        DataBlock(splitter=splitter).datasets(list(range(10)))


# ---------------------------------------------------------------- blocks and labels
def test_slips_in_the_template_are_named():
    with pytest.raises(ValueError, match="all 1 blocks are inputs"):
        DataBlock(ImageBlock, get_items=get_image_files, get_y=parent_label)
    with pytest.raises(TypeError, match="put the blocks into brackets"):
        DataBlock(ImageBlock, CategoryBlock, get_image_files)


def test_numpy_labels_are_plain_ones():
    rows = [(0, value) for value in np.array([True, False] * 5)]
    dsets = DataBlock(
        (ImageBlock, CategoryBlock), get_y=lambda row: row[1], splitter=IndexSplitter([0, 1])
    ).datasets(rows)
    assert list(dsets.vocab) == [False, True] and all(type(v) is bool for v in dsets.vocab)
    with pytest.raises(DataError, match="one label is wanted"):
        DataBlock(
            (ImageBlock, CategoryBlock),
            get_y=lambda row: torch.zeros(2),
            splitter=IndexSplitter([0]),
        ).datasets(rows)


def test_masks_are_not_opened_to_check_labels(folder):
    opened = []

    def mask_of(file):
        opened.append(file)
        return np.zeros((20, 20), np.uint8)

    block = DataBlock((ImageBlock, MaskBlock(["nothing"])), get_image_files, get_y=mask_of)
    block.datasets(folder)
    assert not opened


def test_lists_in_a_list_of_transforms():
    assert len(arrange([Resize(8), [Normalize([0.5], [0.5])], None or []])) == 2


def test_one_file_is_not_a_list_of_files(folder, block):
    dls = block.dataloaders(folder, bs=4)
    for one in (str(folder / "a" / "1.png"), folder / "a" / "1.png"):
        with pytest.raises(DataError, match="put it into a list"):
            dls.test_dl(one)


# ---------------------------------------------------------------- pictures
def test_whole_numbers_of_32_bits():
    values = np.full((4, 4), 200, np.int32)
    for source in (values, torch.from_numpy(values)):
        assert np.array(PILImage.create(source)).max() == 200
    with pytest.raises(DataError, match="from -5 to 200"):
        PILImage.create(np.array([[200, -5]], np.int32))


def test_pictures_of_several_frames_are_closed(tmp_path):
    frames = [Image.new("RGB", (9, 9), (i, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / "x.tiff", save_all=True, append_images=frames[1:])
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("open files are counted on Linux only")
    before = len(list(open_files.iterdir()))
    kept = [PILImage.create(tmp_path / "x.tiff") for _ in range(20)]
    assert len(list(open_files.iterdir())) <= before + 1 and kept[0].size == (9, 9)


def test_thumbnails(tmp_path):
    picture = PILImage.create(np.zeros((40, 80, 3), np.uint8))
    assert picture.to_thumb(20).size == (20, 10) and picture.size == (80, 40)
    picture.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").to_thumb(256, 256).size == (80, 40)


# ---------------------------------------------------------------- errors out of workers
@pytest.mark.parametrize("workers", [0, 2])
def test_the_line_that_failed_is_told(folder, workers):
    def slip(file):
        return {}["nokey"] if file.stem == "7" else parent_label(file)

    class Late:
        "Labels that fail only when an item is made."

        def __len__(self):
            return 12

        def __getitem__(self, i):
            return i, slip(get_image_files(folder)[i])

    with pytest.raises(DataError) as caught:
        list(DataLoader(Late(), 4, num_workers=workers))
    told = "".join(traceback.format_exception(caught.value))
    assert "KeyError" in str(caught.value) and 'return {}["nokey"]' in told


def test_a_set_smaller_than_a_batch_gives_none_where_the_last_is_left_out():
    data = TensorDataset(torch.arange(5), torch.arange(5))
    assert len(list(DataLoader(data, bs=8, drop_last=True))) == 0
    assert len(list(DataLoader(list(data), bs=8, drop_last=True, num_workers=0))) == 0
    assert len(list(DataLoader(data, bs=8))) == 1


def test_a_batch_is_decoded_with_a_prediction_beside_it():
    pictures = torch.rand(6, 3, 4, 4)
    normalize = Normalize.from_stats([0.5] * 3, [0.25] * 3)
    loader = DataLoader(TensorDataset(pictures, torch.arange(6)), bs=6, after_batch=normalize)
    x, y = loader.one_batch()
    back, target, guess = loader.decode_batch((x, y, y + 1), ("image", "category", "category"))
    assert torch.allclose(back, pictures, atol=1e-6) and torch.equal(guess, target + 1)


@pytest.mark.parametrize("bs", ["8", 0, -1, 2.5, [4]])
def test_a_batch_size_that_is_none(bs):
    pairs = [(torch.zeros(2), 0)] * 10
    with pytest.raises(ValueError, match=r"bs=.*a whole number, at least 1"):
        DataLoaders.from_dsets(pairs, pairs, bs=bs)
    assert DataLoaders.from_dsets(pairs, pairs, bs=None).train.bs == 64


# ---------------------------------------------------------------- workers that start empty
STARTS = [m for m in ("forkserver", "spawn") if m in multiprocessing.get_all_start_methods()]


@pytest.mark.parametrize("how", STARTS)
def test_workers_that_start_empty_give_the_same_pictures(folder, block, how):
    still = {"bs": 4, "shuffle": False, "device": "cpu"}
    here = block.dataloaders(folder, **still)
    there = block.dataloaders(folder, num_workers=2, multiprocessing_context=how, **still)
    for (x, y), (x2, y2) in zip(here.valid, there.valid.new(bs=2), strict=False):
        assert torch.equal(x[:2], x2) and torch.equal(y[:2], y2)
    assert sum(len(y) for _, y in there.train) == 20


@pytest.mark.parametrize("how", STARTS)
def test_functions_that_cannot_be_sent_are_named_before_a_worker_starts(folder, block, how):
    def label_here(file):
        return file.parent.name

    for get_y, why in (
        (label_here, "label_here was made inside"),
        (lambda f: f.parent.name, "a lambda"),
    ):
        made = block.new(get_y=get_y)
        dls = made.dataloaders(folder, bs=4, num_workers=2, multiprocessing_context=how)
        assert dls.one_batch()[0].shape[0] == 4  # nothing is sent anywhere
        with pytest.raises(DataError, match=f"start by {how} cannot be sent.*{why}.*num_workers=0"):
            next(iter(dls.train))


def test_where_processes_start_empty_none_start_by_default(large, monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none=False: None)
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["forkserver", "fork"])
    assert DataLoader(opened(large), 4).num_workers == 0
    with pytest.raises(DataError, match="start by forkserver"):
        next(iter(DataLoader(opened(large), 4, num_workers=2)))


def test_asking_how_workers_start_does_not_settle_it():
    ask = "from coursekit.workers import start_method; import multiprocessing as m; start_method()"
    done = subprocess.run([sys.executable, "-c", f"{ask}; m.set_start_method('spawn')"])
    assert done.returncode == 0
