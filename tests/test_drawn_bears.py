"Drawn bears: the same seed draws the same bytes, the tables are true, the task is neither easy nor hopeless."

import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coursekit import drawn_bears
from coursekit.drawn_bears import KINDS, draw_bear, draw_bears, draw_scene, draw_scenes
from coursekit.image_search import verify_images
from coursekit.messages import DataError

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))
import drawn_bears as difficulty

ATTRIBUTES = ("pose", "background", "lighting", "distance", "occlusion", "facing")


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tree(folder):
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def bears(tmp_path_factory):
    "A small set with everything switched on."
    skew = {"grizzly": {"background": {"snow": 0.9}}}
    folder = tmp_path_factory.mktemp("bears") / "set"
    return draw_bears(folder, n=90, seed=5, size=96, label_noise=0.2, night=0.3, skew=skew)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return draw_scenes(tmp_path_factory.mktemp("scenes") / "set", n=80, seed=5, size=96)


# ---------------------------------------------------------------- the same seed, the same bytes
def test_a_fresh_process_draws_the_same_bytes(tmp_path):
    code = (
        "import sys; from coursekit.drawn_bears import *\n"
        "draw_bears(sys.argv[1] + '/bears', n=7, seed=3, size=64, night=0.5)\n"
        "draw_scenes(sys.argv[1] + '/scenes', n=5, seed=3, size=64)\n"
    )
    for name in ("one", "two"):
        hashed = os.environ | {"PYTHONHASHSEED": str(ord(name[0]))}
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=True, env=hashed)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert len(tree(tmp_path / "one")) == 7 + 2 + 5 + 3


def test_a_picture_depends_on_its_number_alone(tmp_path):
    few = draw_bears(tmp_path / "few", n=5, seed=3, size=64)
    many = draw_bears(tmp_path / "many", n=11, seed=3, size=64)
    few_files = {k: v for k, v in tree(few).items() if k.endswith(".jpg")}
    assert len(few_files) == 5 and few_files.items() <= tree(many).items()
    assert table(few / "attributes.csv") == table(many / "attributes.csv")[:5]


def test_other_seeds_draw_other_pictures():
    one, two, three = (np.asarray(draw_bear("black", seed)[0], float) for seed in (1, 2, (1, 1)))
    assert np.abs(one - two).mean() > 5 and np.abs(one - three).mean() > 5


def test_one_bear_is_the_one_of_the_set(bears):
    rows = table(bears / "attributes.csv")
    row = next(row for row in rows if row["kind"] != "grizzly" and row["camera"] == "day")
    image, truth = draw_bear(row["kind"], (5, int(Path(row["file"]).stem)), size=96)
    saved = np.asarray(Image.open(bears / row["file"]), float)
    assert np.abs(saved - np.asarray(image, float)).mean() < 6  # JPEG
    assert all(row[name] == str(value) for name, value in truth.items())


def test_fixing_one_attribute_leaves_the_others():
    free, fixed = draw_bear("teddy", 4)[1], draw_bear("teddy", 4, background="snow")[1]
    assert fixed["background"] == "snow"
    others = ("coat", "pose", "lighting", "distance", "facing")
    assert all(fixed[name] == free[name] for name in others)


def test_the_same_bear_on_other_ground():
    "Most pixels of its box stay exactly the same, and no column of the frame does."
    for seed in range(4):
        fixed = {"occlusion": "none", "pose": "sitting", "distance": "near", "lighting": "day"}
        pictures = [draw_bear("black", seed, background=b, **fixed) for b in ("snow", "forest")]
        one, two = (np.asarray(image, int) for image, _ in pictures)
        (_, truth), same = pictures[0], np.abs(one - two).max(2) == 0
        left, right = truth["left"], truth["right"]
        assert same[truth["top"] : truth["bottom"], left:right].mean() > 0.4
        assert same[:10].mean() < 0.1 or truth["top"] < 10


# ---------------------------------------------------------------- files and tables
def test_every_file_has_its_row_and_opens(bears):
    rows = table(bears / "attributes.csv")
    files = {p.relative_to(bears).as_posix() for p in bears.rglob("*.jpg")}
    assert files == {row["file"] for row in rows} and len(rows) == 90
    assert not verify_images([bears / file for file in files])
    assert {Image.open(bears / file).size for file in files} == {(96, 96)}
    for row in rows:
        assert row["file"].startswith(f"{row['label']}/") and row["kind"] in KINDS
        assert (row["mislabelled"] == "True") == (row["label"] != row["kind"])
    assert Counter(row["kind"] for row in rows) == dict.fromkeys(KINDS, 30)


def test_the_names_do_not_tell_the_kind(bears):
    kinds = [row["kind"] for row in table(bears / "attributes.csv")]
    orders = {tuple(kinds[i : i + 3]) for i in range(0, 90, 3)}
    assert len(orders) == 6  # all that there are


def test_the_box_holds_the_bear():
    "Against the same picture with a bear of another coat: what changes lies in the box."
    for seed in range(6):
        fixed = {"occlusion": "none", "lighting": "day"}
        one, truth = draw_bear("teddy", seed, coat="dark", **fixed)
        two, _ = draw_bear("teddy", seed, coat="pale", **fixed)
        moved = np.abs(np.asarray(one, float) - np.asarray(two, float)).sum(2) > 60
        rows, columns = np.flatnonzero(moved.any(1)), np.flatnonzero(moved.any(0))
        assert abs(rows[0] - truth["top"]) <= 6 and abs(rows[-1] - truth["bottom"]) <= 6
        assert abs(columns[0] - truth["left"]) <= 6 and abs(columns[-1] - truth["right"]) <= 6


def test_what_stands_in_the_way_hides():
    free = [draw_bear("grizzly", seed, occlusion="none")[1]["visible"] for seed in range(12)]
    below = [draw_bear("grizzly", seed, occlusion="below")[1]["visible"] for seed in range(12)]
    assert free == [1.0] * 12 and 0.3 < np.mean(below) < 0.95


def test_scenes_are_in_the_style_of_pascal(scenes):
    rows, bears = table(scenes / "labels.csv"), table(scenes / "bears.csv")
    assert list(rows[0])[:3] == ["fname", "labels", "is_valid"]
    assert {row["fname"] for row in rows} == {p.name for p in (scenes / "images").iterdir()}
    for row in rows:
        here = [bear for bear in bears if bear["fname"] == row["fname"]]
        assert len(here) == int(row["count"]) <= 3
        seen = {bear["kind"] for bear in here if float(bear["visible"]) >= 0.2}
        assert row["labels"].split() == sorted(seen)
    counts = Counter(row["count"] for row in rows)
    assert set(counts) == set("0123") and 5 <= sum(row["is_valid"] == "True" for row in rows) <= 30
    with_many = [row for row in rows if len(row["labels"].split()) > 1]
    assert len(with_many) > 10


def test_a_scene_is_the_one_of_the_set(scenes):
    row = table(scenes / "labels.csv")[7]
    assert draw_scene((5, 7), size=96)[1]["labels"] == row["labels"]


# ---------------------------------------------------------------- what is planted, and its control
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.25, 1.0])
def test_exactly_the_share_that_was_asked_for_is_mislabelled(noise):
    kinds = [drawn_bears._kind_of(7, i) for i in range(200)]
    labels = drawn_bears._planted(kinds, noise, 7)
    wrong = [label != kind for label, kind in zip(labels, kinds, strict=True)]
    assert sum(wrong) == round(noise * 200)


def test_noise_changes_labels_and_no_picture(tmp_path):
    clean = draw_bears(tmp_path / "clean", n=12, seed=1, size=64)
    noisy = draw_bears(tmp_path / "noisy", n=12, seed=1, size=64, label_noise=0.5)
    one, two = ({p.name: p.read_bytes() for p in path.rglob("*.jpg")} for path in (clean, noisy))
    assert one == two
    assert sum(row["mislabelled"] == "True" for row in table(noisy / "attributes.csv")) == 6


def chances(n, skew=None, night=0.0, seed=11):
    "The attributes of `n` pictures, without painting them."
    dark = {"camera": {"day": 1 - night, "night": night}}
    rows = []
    for i in range(n):
        kind = drawn_bears._kind_of(seed, i)
        shares = drawn_bears._skewed(kind, dark | (skew or {}).get(kind, {}))
        stream = drawn_bears._streams(seed, i)[0]
        rows.append({"kind": kind} | drawn_bears._choose(shares, {}, stream))
    return rows


def dependence(rows, name):
    "Pearson's statistic for kind against an attribute, less its degrees of freedom, in standard deviations."
    values, pairs = (
        sorted({row[name] for row in rows}),
        Counter((row["kind"], row[name]) for row in rows),
    )
    counts = np.array([[pairs[kind, value] for value in values] for kind in KINDS])
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    freedom = (len(KINDS) - 1) * (len(values) - 1)
    return (((counts - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5


def test_circumstances_tell_nothing_of_the_kind_unless_skewed():
    rows = chances(3000)
    assert all(abs(dependence(rows, name)) < 3.5 for name in ATTRIBUTES)
    assert dependence(rows, "coat") > 50  # the control: coats do differ
    skewed = chances(3000, {"grizzly": {"background": {"snow": 0.9}}})
    assert dependence(skewed, "background") > 50
    assert all(abs(dependence(skewed, name)) < 3.5 for name in ATTRIBUTES if name != "background")


def snowy(rows, kind):
    return np.mean([row["background"] == "snow" for row in rows if row["kind"] == kind])


def test_skew_gives_the_share_that_was_asked_for(bears):
    rows = chances(3000, {"grizzly": {"background": {"snow": 0.9}}})
    shares = {kind: snowy(rows, kind) for kind in KINDS}
    assert abs(shares["grizzly"] - 0.9) < 0.03
    assert abs(shares["black"] - 0.15) < 0.04 and abs(shares["teddy"] - 0.15) < 0.04
    assert snowy(table(bears / "attributes.csv"), "grizzly") > 0.7


def test_night_pictures_are_grey_with_the_share_asked_for(bears):
    rows = table(bears / "attributes.csv")
    for row in rows:
        pixels = np.asarray(Image.open(bears / row["file"]).convert("RGB"), float)
        assert (np.ptp(pixels, axis=2).max() < 8) == (row["camera"] == "night")
        assert (row["lighting"] == "flash") == (row["camera"] == "night")
    assert 0.15 < np.mean([row["camera"] == "night" for row in rows]) < 0.45
    assert abs(np.mean([row["camera"] == "night" for row in chances(2000, night=0.3)]) - 0.3) < 0.04


# ---------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "n must be a whole number from 1 to 1,000,000, it is 0"),
        ({"n": 2.5}, "it is 2.5"),
        ({"size": 8}, "size must be a whole number from 32"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"label_noise": 1.5}, "label_noise is a share, from 0 to 1; it is 1.5"),
        ({"label_noise": float("nan")}, "it is nan"),
        ({"night": "some"}, "night is a share, from 0 to 1; it is 'some'"),
        ({"skew": {"panda": {}}}, "no kind of bear 'panda'; choose from grizzly, black, teddy"),
        ({"skew": {"black": {"rain": {"much": 1}}}}, "no attribute 'rain'; choose from coat, pose"),
        (
            {"skew": {"black": {"background": {"sea": 1}}}},
            "no background 'sea'; choose from forest",
        ),
        ({"skew": {"black": {"background": {"snow": 2}}}}, "background=snow of black in skew is"),
        ({"skew": {"black": {"background": {"snow": 0.7, "room": 0.7}}}}, "sum to 1.4"),
        ({"skew": {"black": {"facing": {"left": 0.2, "right": 0.2}}}}, "sum to 0.4"),
        ({"skew": {"black": {"coat": {"bright": 0.5}}}}, "no coat 'bright'; choose from dark"),
        ({"skew": {"black": {"background": "snow"}}}, "a dictionary of shares"),
    ],
)
def test_bad_options_are_named(tmp_path, options, words):
    with pytest.raises(ValueError) as error:
        draw_bears(tmp_path / "set", **({"n": 3, "size": 32} | options))
    assert words in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: draw_bear("panda"), "no kind of bear 'panda'"),
        (lambda: draw_bear("black", 1, pose="flying"), "no pose 'flying'; choose from walking"),
        (lambda: draw_bear("black", 1, mood="sad"), "no attribute 'mood'"),
        (lambda: draw_bear("black", "one"), "seed must be a whole number"),
        (lambda: draw_scene(1, size=5000), "size must be a whole number"),
    ],
)
def test_bad_wishes_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# ---------------------------------------------------------------- one call, one folder
def test_the_same_call_reuses_the_folder(tmp_path):
    folder = draw_bears(tmp_path / "set", n=3, size=32)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    (folder / "grizzly").rename(folder / "seen")  # a learner's change is kept
    assert draw_bears(tmp_path / "set", n=3, size=32) == folder
    assert (folder / "seen").exists() and len(before) == len(list(folder.rglob("*")))


def test_another_call_into_the_folder_says_what_to_do(tmp_path):
    draw_bears(tmp_path / "set", n=3, size=32)
    with pytest.raises(DataError, match=r"drawn with n=3 instead of 4; give another folder"):
        draw_bears(tmp_path / "set", n=4, size=32)
    with pytest.raises(DataError, match="drawn='drawn_bears' instead of 'drawn_scenes'"):
        draw_scenes(tmp_path / "set", n=3, size=32)
    assert len(tree(tmp_path / "set")) == 5


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="were not drawn here"):
        draw_bears(tmp_path, n=3, size=32)
    with pytest.raises(DataError, match="were not drawn here"):
        draw_bears(tmp_path / "mine.txt", n=3, size=32)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_without_a_path_it_goes_to_the_cache(cache):
    one, two = draw_bears(n=3, size=32), draw_bears(n=3, size=32, seed=1)
    assert one.parent == two.parent == cache and one != two
    assert draw_bears(n=3, size=32) == one
    assert json.loads((one / "drawn.json").read_text())["n"] == 3


def test_an_error_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    painted, compose = [], drawn_bears._compose

    def breaks(*args):
        painted.append(1)
        if len(painted) == 4:
            raise KeyboardInterrupt
        return compose(*args)

    monkeypatch.setattr(drawn_bears, "_compose", breaks)
    with pytest.raises(KeyboardInterrupt):
        draw_bears(tmp_path / "set", n=6, size=32)
    assert not [p for p in tmp_path.iterdir() if not p.name.endswith(".lock")]
    monkeypatch.setattr(drawn_bears, "_compose", compose)
    assert len(table(draw_bears(tmp_path / "set", n=6, size=32) / "attributes.csv")) == 6


def test_a_kill_in_the_middle_leaves_nothing_that_looks_finished(tmp_path):
    code = "import sys; from coursekit.drawn_bears import draw_bears; draw_bears(sys.argv[1], n=4000, size=64)"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "set"])
    stop = time.monotonic() + 300
    while len(list(tmp_path.rglob("*.jpg"))) < 5 and time.monotonic() < stop:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (tmp_path / "set").exists() and list(tmp_path.glob(".set.*.unfinished"))
    draw_bears(tmp_path / "set", n=3, size=32)
    assert not list(tmp_path.glob(".set.*.unfinished"))


def test_where_nothing_can_be_written_it_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write in"):
        draw_bears(tmp_path / "file" / "set", n=3, size=32)


# ---------------------------------------------------------------- neither easy nor hopeless
def fair(pixels, features):
    "The painters were tuned while looking at seeds 0 to 2 only; the others were drawn when that was done."
    return pixels < 0.6 and 0.85 <= features <= 0.99


def test_pixels_fail_and_features_do_well(tmp_path):
    "600 pictures, 480 to train and 120 held out: one picture is 0.8 %. The first seed; the bench has them all."
    began = time.process_time()
    folder = draw_bears(tmp_path / "set", n=600, seed=difficulty.TESTING[0])
    seconds = time.process_time() - began
    pixels, features = difficulty.accuracies(folder, difficulty.frozen_body())
    print(f"nearest mean {pixels:.1%}, linear head {features:.1%}, {seconds:.1f} s")
    assert fair(pixels, features)
    assert seconds < 90  # 17 to 25 of one core were measured, beside other work
    kept = measured()[difficulty.TESTING[0]]  # a picture or two may fall otherwise elsewhere
    assert abs(pixels - kept[0]) < 0.03 and abs(features - kept[1]) < 0.03


def measured():
    "What the bench found for each seed: nearest mean in pixels, linear head on features."
    lines = difficulty.KEPT.path.read_text().splitlines()
    return {int(row[0]): (float(row[2]), float(row[3])) for row in csv.reader(lines[2:])}


def test_the_kept_measurements_are_of_these_painters():
    assert difficulty.versions() in difficulty.KEPT.path.read_text().splitlines()[0]
    assert all(fair(*measured()[seed]) for seed in difficulty.TESTING)


def test_hashes_are_spread(bears):
    "No two pictures are the same."
    hashes = [hashlib.sha256(p.read_bytes()).hexdigest() for p in bears.rglob("*.jpg")]
    assert len(set(hashes)) == len(hashes)
