"""Shards, ratings in Parquet files, orders of data in pieces, and lessons as scripts: what they promise."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.cli import main
from coursekit.data import RandomSplitter, get_image_files, parent_label
from coursekit.messages import DataError
from coursekit.near_order import NearOrder, near, spans_of
from coursekit.scripts import for_script, kept_cells, lesson_file, plain_code, script_of
from coursekit.shards import (
    Shards,
    index_shards,
    shard_label,
    shard_picture,
    verify_shards,
    write_shards,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for i in range(50):
        file = folder / "abc"[i % 3] / f"{i}.{'png' if i % 2 else 'jpg'}"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(file)
    return folder


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory):
    return write_shards(photos, tmp_path_factory.mktemp("out") / "shards", megabytes=0.02)


@pytest.fixture
def shards(made, tmp_path):
    "A copy that a test may damage."
    shutil.copytree(made.folder, tmp_path / "shards")
    return Shards(tmp_path / "shards")


def block(**how):
    parts = {
        "get_items": Shards,
        "get_x": shard_picture,
        "get_y": shard_label,
        "splitter": RandomSplitter(0.2, seed=1),
    }
    return DataBlock(blocks=(ImageBlock, CategoryBlock), **parts | how)


def loaders(shards, seed=1, mix=2, workers=0, **how):
    how = {"bs": 4, "device": "cpu", "num_workers": workers} | how
    return near(block().dataloaders(shards.folder, seed=seed, **how), mix)


# ---------------------------------------------------------------- shards
def test_shards_hold_what_the_folder_held(photos, made):
    assert len(made) == 50 and len(made.shards) > 3 and made.vocab == ["a", "b", "c"]
    there = {file.read_bytes(): parent_label(file) for file in get_image_files(photos)}
    assert {item.picture: item.label for item in made} == there
    assert made[-1].picture == made[49].picture
    with pytest.raises(IndexError):
        made[50]


def test_shards_of_a_data_block(photos, tmp_path):
    of_files = DataBlock(
        (ImageBlock, CategoryBlock),
        get_image_files,
        RandomSplitter(0.2, seed=1),
        None,
        parent_label,
    ).datasets(photos)
    shards = write_shards(of_files.train, tmp_path / "train", megabytes=1)
    assert sorted(item.label for item in shards) == sorted(map(parent_label, of_files.train.items))


def test_the_library_webdataset_reads_the_same(made):
    wds = pytest.importorskip("webdataset")
    theirs = []
    for shard in sorted(made.folder.glob("*.tar")):
        for found in wds.WebDataset(str(shard), shardshuffle=False, empty_check=False):
            theirs.append((found.get("png") or found.get("jpg"), int(found["cls"])))
    assert theirs == [(item.picture, made.vocab.index(item.label)) for item in made]


def test_shards_made_by_others(made, shards, tmp_path):
    for file in [*shards.folder.glob("*.npy"), shards.folder / "index.json"]:
        file.unlink()
    with pytest.raises(DataError, match="index_shards"):
        Shards(shards.folder)
    again = index_shards(shards.folder, made.vocab)
    assert again.shards == made.shards
    assert [item.picture for item in again] == [item.picture for item in made]


def test_nothing_is_overwritten_and_nothing_found_is_named(photos, made, tmp_path):
    with pytest.raises(DataError, match="not empty"):
        write_shards(photos, made.folder)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        write_shards(tmp_path / "none", tmp_path / "out")
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match="is no picture"):
        write_shards([tmp_path / "notes.txt"], tmp_path / "out")
    with pytest.raises(DataError, match=r"no shards \(\*\.tar\)"):
        index_shards(tmp_path / "none")


def test_a_damaged_shard_is_named(shards):
    file = shards.folder / "shard-000001.tar"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"shard-000001\.tar has [\d,]+ bytes, and the index says"):
        [item.picture for item in Shards(shards.folder)]
    with pytest.raises(DataError, match=r"shard-000001\.tar (is damaged|ends in the middle)"):
        index_shards(shards.folder)
    bad = bytearray(whole)
    bad[len(bad) // 2] ^= 255
    file.write_bytes(bad)
    assert verify_shards(Shards(shards.folder)) == [
        "the shard shard-000001.tar has changed: fetch it anew"
    ]
    file.unlink()
    with pytest.raises(DataError, match=r"shard-000001\.tar cannot be read"):
        [item.picture for item in Shards(shards.folder)]


def test_a_damaged_shard_ends_a_training_in_words(shards):
    dls = loaders(shards, workers=2)
    (shards.folder / "shard-000002.tar").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"shard-000002\.tar has 7 bytes"):
        list(dls.train)


@pytest.mark.parametrize(
    "word", ['{"version": 1}', "[", '{"shards": [{"name": "../x"}], "vocab": []}']
)
def test_a_damaged_index_is_named(shards, word):
    (shards.folder / "index.json").write_text(word)
    with pytest.raises(DataError, match=r"index\.json is damaged"):
        Shards(shards.folder)


def test_places_outside_of_a_shard_are_not_read(shards):
    file = shards.folder / "shard-000000.npy"
    places = np.load(file)
    places[0, 1] = 2**40
    np.save(file, places)
    with pytest.raises(DataError, match=r"index of shard-000000\.tar is damaged at item 0"):
        Shards(shards.folder).read(0)
    np.save(file, places[:2])
    with pytest.raises(DataError, match="does not fit it"):
        Shards(shards.folder).read(0)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("../a.png", None, "no plain file inside"),
        ("/a.png", None, "no plain file inside"),
        ("a/../../b.png", None, "no plain file inside"),
        ("a.png", tarfile.SYMTYPE, "no plain file inside"),
        ("a.png", tarfile.LNKTYPE, "no plain file inside"),
        ("a.pyd", None, "could run code"),
        ("a.pkl", None, "could run code"),
        ("a.pth", None, "could run code"),
        ("a.png", None, "without its other half"),
    ],
)
def test_members_that_are_not_safe(tmp_path, name, kind, words):
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 0 if kind else 3
        if kind:
            member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member, None if kind else BytesIO(b"abc"))
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(DataError, match=words):
        index_shards(tmp_path)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_an_epoch_has_every_item_once_from_a_few_shards(made):
    dls = loaders(made, drop_last=False)
    spans = spans_of(dls.train_ds)
    shard_of = {int(i): k for k, span in enumerate(spans) for i in span}
    batches = list(dls.train.batch_sampler)
    assert sorted(i for batch in batches for i in batch) == list(range(40))
    assert all(len({shard_of[i] for i in batch}) <= 4 for batch in batches)
    assert len({shard_of[i] for batch in batches[:2] for i in batch}) <= 4 < len(spans)
    assert batches != list(dls.train.batch_sampler)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [0, 3, 10])
def test_a_pass_goes_on_in_its_middle(made, workers, done):
    whole = [y for _, y in loaders(made, workers=workers).train]
    dls = loaders(made, workers=workers)
    passing = iter(dls.train)
    first = [next(passing)[1] for _ in range(done)]
    state = dls.train.state_dict()
    assert (state["epoch"], state["batches"]) == divmod(done, 10)
    second = torch.cat([y for _, y in loaders_from(made, state, workers)])
    if done < 10:
        assert torch.equal(torch.cat([*first, second]), torch.cat(whole))
    else:  # a whole epoch was done: the next one, in another order
        assert len(second) == 40


def loaders_from(made, state, workers):
    dls = loaders(made, seed=77, workers=workers)
    dls.train.load_state_dict(json_like(state))
    return dls.train


def json_like(state):
    "The state as a file gives it back."
    kept = BytesIO()
    torch.save(state, kept)
    return torch.load(BytesIO(kept.getvalue()), weights_only=True)


def test_a_state_of_other_data_is_refused(made):
    state = loaders(made).train.state_dict()
    with pytest.raises(DataError, match="bs=4, and this loader has 8"):
        loaders(made, bs=8).train.load_state_dict(state)


def test_near_needs_pieces(photos):
    block = DataBlock((ImageBlock, CategoryBlock), get_image_files, get_y=parent_label)
    with pytest.raises(DataError, match="lie in no pieces"):
        near(block.dataloaders(photos, bs=4, device="cpu"))


def test_all_pieces_at_once_are_a_usual_shuffling():
    pieces = [range(50), range(50, 70), range(70, 100)]
    order = NearOrder(100, 10, True, False, 3, spans=pieces, mix=3)
    first, second = list(order), list(order)
    assert sorted(np.concatenate(first)) == list(range(100)) and first != second
    assert np.mean([len({i // 50 for i in batch}) for batch in first]) > 1.8


# ---------------------------------------------------------------- ratings
PARQUET = """
import resource, sys
import numpy as np, torch
import pandas
import coursekit.big_ratings
from coursekit.ratings import CollabDataLoaders
torch.set_num_threads(1)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
warm, file = sys.argv[1:]
def whole_pass(file):
    dls = CollabDataLoaders.from_parquet(file, 0.1, seed=1, bs=10_000, mix=2, device="cpu")
    total = sum(len(y) for _, y in dls.train) + sum(len(y) for _, y in dls.valid)
    return total
whole_pass(warm)
before = peak()
print(whole_pass(file), peak() - before)
"""


def write_ratings(file, n, group, seed=0):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    draw = np.random.default_rng(seed)
    schema = pa.schema([("user", pa.int64()), ("item", pa.int64()), ("rating", pa.float32())])
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, n, group):
            size = min(group, n - start)
            columns = [draw.integers(5000, size=size), draw.integers(900, size=size)]
            columns.append(draw.integers(1, 6, size=size).astype(np.float32))
            table = pa.table(dict(zip(schema.names, columns, strict=True)), schema)
            writer.write_table(table, row_group_size=group)


def test_memory_does_not_grow_with_the_ratings(tmp_path):
    "Ten times as many ratings: as a table and numbers in memory they would need 130 MB."
    write_ratings(tmp_path / "small.parquet", 300_000, 100_000)
    write_ratings(tmp_path / "large.parquet", 3_000_000, 100_000)
    files = [str(tmp_path / f"{name}.parquet") for name in ("small", "large")]
    done = subprocess.run(
        [sys.executable, "-c", PARQUET, *files], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    total, grown = map(float, done.stdout.split())
    assert total == 3_000_000
    assert grown < 40, f"{grown:.0f} MB more"


def test_files_of_a_folder_are_one_table(tmp_path):
    from coursekit import big_ratings
    from coursekit.ratings import CollabDataLoaders

    for i in range(3):
        write_ratings(tmp_path / f"{i}.parquet", 250, 100, seed=i)
    dls = CollabDataLoaders.from_parquet(
        tmp_path, 0.2, seed=1, bs=32, device="cpu", drop_last=False
    )
    assert len(dls.train_ds.rows.places) == 9 and len(dls.train_ds) + len(dls.valid_ds) == 750
    rows = big_ratings.RowGroups(tmp_path)
    there = np.concatenate([np.stack(rows.read(i)[:2], 1) for i in range(9)])
    users, items = (np.array(ids.items, dtype=object) for ids in dls.classes.values())
    seen = np.concatenate([x.numpy() for x, _ in dls.train])
    back = np.stack([users[seen[:, 0]], items[seen[:, 1]]], 1).astype(np.int64)
    known = there[dls.train_ds.split.train_rows(np.arange(600))]
    assert sorted(map(tuple, back.tolist())) == sorted(map(tuple, known.tolist()))


def test_an_id_of_validation_alone_is_unknown(tmp_path):
    from coursekit.ratings import CollabDataLoaders

    write_ratings(tmp_path / "one.parquet", 300, 100)
    dls = CollabDataLoaders.from_parquet(tmp_path, 0.5, seed=3, bs=32, device="cpu")
    pairs = dls.valid_ds[torch.arange(150)][0]
    assert (pairs == 0).any() and not (dls.train_ds[torch.arange(150)][0] == 0).any()


def test_what_is_no_parquet_is_named(tmp_path):
    from coursekit.ratings import CollabDataLoaders

    pytest.importorskip("pyarrow")
    for path, words in ((tmp_path, "no files"), (tmp_path / "none.parquet", "no file")):
        with pytest.raises(DataError, match=words):
            CollabDataLoaders.from_parquet(path)
    write_ratings(tmp_path / "one.parquet", 300, 100)
    with pytest.raises(DataError, match="no column 'stars'"):
        CollabDataLoaders.from_parquet(tmp_path, rating_name="stars")
    with pytest.raises(ValueError, match=r"from 0 to 0\.5"):
        CollabDataLoaders.from_parquet(tmp_path, valid_pct=0.9)
    data = bytearray((tmp_path / "one.parquet").read_bytes())
    data[40:400] = b"?" * 360
    (tmp_path / "one.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"row group 0 of one\.parquet"):
        CollabDataLoaders.from_parquet(tmp_path)


# ---------------------------------------------------------------- scripts
LESSONS = sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_is_a_script(lesson):
    text = script_of(lesson)
    ast.parse(text)
    assert not re.search(r"^\s*#\s*\|", text, re.M) and "exercise(" not in text
    assert "accelerate launch" in text and "torchrun" in text


def notebook(folder, *cells):
    made = [
        {"cell_type": kind, "source": textwrap.dedent(text), "metadata": {}} for kind, text in cells
    ]
    file = folder / "my lesson.ipynb"
    file.write_text(json.dumps({"cells": made}))
    return file


def test_a_script_runs_and_is_never_overwritten(tmp_path, capsys):
    file = notebook(
        tmp_path,
        ("markdown", "# 99 · A lesson\n\nOne sentence. And another."),
        ("code", "%matplotlib inline\nimport numpy as np\nx = np.arange(3)"),
        ("code", "#| proof\nhelper = 5\nassert False"),
        ("code", "#| exercise: one\nprint('exercise')"),
        ("code", "#| export\nx.sum()"),
        ("code", "if True:\n    print('in words')"),
        ("code", "from pathlib import Path\nPath('here.txt').exists()"),
    )
    (tmp_path / "here.txt").write_text("")
    script = tmp_path / "out" / "one.py"
    script.parent.mkdir()
    assert main(["script", str(file), "--out", str(script)]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(script) and "accelerate launch" in err
    assert main(["script", str(file), "--out", str(script)]) == 2
    assert "not overwritten" in capsys.readouterr().err
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path.parent,
    )
    assert done.stdout.split() == ["3", "in", "words", "True"], done.stderr[-800:]
    assert "# One sentence." in script.read_text() and "another" not in script.read_text()


def test_a_cell_comes_back_where_a_later_one_needs_it():
    codes = ["a = 1", "def f(): return a", "b = 2", "f()"]
    assert kept_cells(codes, [True, True, True, False]) == [True, True, False, True]


@pytest.mark.parametrize(
    ("code", "script"),
    [
        ("learn.fit(3)", "with _on_all_processes(learn):\n    learn.fit(3)"),
        ("x = learn.fit(3)", "x = learn.fit(3)"),
        ("def f():\n    learn.fit(3)", "def f():\n    learn.fit(3)"),
        ("a\nb", "a\n_shown(b)"),
        ("b;", "b;"),
        ("print(b)", "print(b)"),
        ("f(\n    'ü',\n)  # why", "_shown(f(\n    'ü',\n))  # why"),
        ("'ü'  # why", "_shown('ü')  # why"),
    ],
)
def test_what_changes_in_a_cell(code, script):
    assert for_script(code) == script


def test_magics_become_comments():
    assert plain_code("%%time\nx") == "# %%time\n# x"
    assert ast.parse(plain_code("if x:\n    !ls")) and plain_code("a = 5 % 3") == "a = 5 % 3"


def test_lessons_are_found_by_number_and_name(tmp_path):
    assert lesson_file("7", ROOT).stem == "07_bears_classifier" == lesson_file("07", ROOT).stem
    assert lesson_file("05_learner", ROOT / "tests").stem == "05_learner"
    with pytest.raises(DataError, match=r"no lesson '77'; there are 00_first_model"):
        lesson_file("77", ROOT)
    with pytest.raises(DataError, match="no file"):
        lesson_file("none.ipynb")
    (tmp_path / "no.ipynb").write_text("{}")
    with pytest.raises(DataError, match="no notebook"):
        script_of(tmp_path / "no.ipynb")
