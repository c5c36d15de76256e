"""The race card with tiny sides: turns, ratios, sides that fail or are not there, and what is written."""

import ast
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "bench"), str(ROOT / "tools"), str(ROOT / "docs")]

import card  # noqa: E402
import predict  # noqa: E402
import prepare  # noqa: E402
import results  # noqa: E402
import rivals  # noqa: E402
import sides  # noqa: E402
from helper import Failed, Helper, in_turns, markdown_table, ratios, turned  # noqa: E402
from races import CURVES, NEEDED, OURS, RACES, Curve, Race  # noqa: E402

import speed_page  # noqa: E402

SIDE = """
import sys, time
sys.path.insert(0, {bench!r})
from helper import answer_orders
def maker(action, turn, **sizes):
    if action == "raise": raise ValueError("a side without data")
    if action == "hang": time.sleep(60)
    if action == "end": sys.exit(3)
    return lambda: {{"turn": turn, "accuracy": 0.9}}
answer_orders(maker)
"""


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "side.py"
    file.write_text(SIDE.format(bench=str(ROOT / "bench")))
    return str(file)


def steady(seconds: float, log: list | None = None, name: str = ""):
    def turn(i: int) -> dict:
        if log is not None:
            log.append((i, name))
        return {"seconds": seconds, "peak": 100 * seconds}

    return turn


# ---------------------------------------------------------------- turns
def test_sides_take_turns_and_the_first_is_not_counted():
    log = []
    sides = {name: steady(1, log, name) for name in "abc"}
    done, failed, note = in_turns(sides, 4, 60)
    assert {name: len(of) for name, of in done.items()} == {"a": 4, "b": 4, "c": 4}
    assert not failed and not note
    by_round = [[name for turn, name in log if turn == i] for i in range(-1, 4)]
    assert all(sorted(names) == ["a", "b", "c"] for names in by_round)
    assert [names[0] for names in by_round[1:]] == ["a", "b", "c", "a"]
    assert turned([], 3) == []


def test_a_side_that_fails_loses_no_other():
    def broken(turn: int) -> dict:
        if turn == 1:
            raise Failed("out of memory")
        return {"seconds": 1.0}

    def ends(turn: int) -> dict:
        raise SystemExit("did not start")

    done, failed, note = in_turns({"a": steady(1), "b": broken, "c": ends}, 3, 60)
    assert list(done) == ["a"] and len(done["a"]) == 3 and not note
    assert failed == {"b": "out of memory", "c": "did not start"}
    done, failed, note = in_turns({"c": ends}, 3, 60)
    assert done == {} and failed == {"c": "did not start"} and not note


def test_rounds_are_cut_by_the_budget_but_one_is_run(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def slow(turn: int) -> dict:
        now[0] += 10
        return {"seconds": 10.0}

    done, _, note = in_turns({"a": slow, "b": slow}, 5, 75)
    assert len(done["a"]) == len(done["b"]) == 2  # 20 s of the first turn, then 20 s each
    assert note == "cut to 2 of 5 rounds: 75 s were over"
    now[0] = 0.0
    done, _, note = in_turns({"a": slow}, 5, 1)
    assert len(done["a"]) == 1 and note.startswith("cut to 1 of 5")


def test_ratios_are_of_rounds():
    ours = [{"seconds": s} for s in (1, 2, 4)]
    theirs = [{"seconds": s} for s in (3, 4, 4)]
    assert ratios(ours, theirs) == [3, 2, 1]
    assert ratios(ours, [{}, {}, {}]) == []
    assert ratios(theirs, theirs, "busy") == []
    with pytest.raises(ValueError):
        ratios(ours, theirs[:2])


# ---------------------------------------------------------------- processes
def test_a_helper_answers_with_its_time_and_memory(script, tmp_path):
    with Helper(sys.executable, script, "a", tmp_path) as helper:
        found = helper.ask(action="go", turn=3)
    assert found["turn"] == 3 and found["accuracy"] == 0.9
    assert 0 <= found["seconds"] < 5 and 3 < found["peak"] < 500
    assert helper.process.poll() is not None


@pytest.mark.parametrize(
    ("action", "words"), [("raise", "ValueError: a side without data"), ("end", "status 3")]
)
def test_a_helper_that_ends_says_why(script, tmp_path, action, words):
    with Helper(sys.executable, script, "a", tmp_path) as helper:
        with pytest.raises(Failed, match=words):
            helper.ask(action=action, turn=0)
        with pytest.raises(Failed, match="a stopped with status"):
            helper.ask(action="go", turn=1)


def test_a_helper_that_hangs_is_ended(script, tmp_path):
    with Helper(sys.executable, script, "a", tmp_path) as helper:
        with pytest.raises(Failed, match="a: no answer in 1 s"):
            helper.ask(1, action="hang", turn=0)


# ---------------------------------------------------------------- the card
def a_card(tmp_path, rivals_found: dict, **more) -> card.Card:
    made = card.Card.__new__(card.Card)
    options = {"quick": True, "minutes": 40, "long": False, "out": tmp_path} | more
    made.options, made.folder, made.prepared = SimpleNamespace(**options), tmp_path, {}
    made.rivals, made.theirs, made.end = rivals_found, sys.executable, time.monotonic() + 2400
    return made


def test_a_missing_rival_is_not_run_and_the_others_are(tmp_path, monkeypatch, script):
    monkeypatch.setattr(card, "SIDES", script)
    race = Race("A race", "Nothing.", (OURS, "fastai", "timm"), "go", quality="accuracy")
    made = a_card(tmp_path, {"fastai": "not there: no wheel", "timm": "1.0"})
    found = card.run_race(made, "a race", race)
    assert found["missing"] == {"fastai": "not there: no wheel"}
    assert set(found["done"]) == {OURS, "timm"} and len(found["done"]["timm"]) == 2
    rows = list(results.compared(race, found))
    assert [row["other"] for row in rows] == ["timm"] and rows[0]["quality"] == (0.9, 0.9)


def test_a_curve_names_points_that_do_not_fit(tmp_path, monkeypatch, script):
    monkeypatch.setattr(card, "SIDES", script)
    sizes = lambda point: {"n": point}
    curve = Curve("A curve", "things", "go", (1, 2, 4), sizes, (1, 2), repeats=2)
    found = card.run_curve(a_card(tmp_path, {"fastai": "2.8"}, quick=False), curve)
    assert {len(each) for side in found["done"].values() for each in side.values()} == {2}
    assert card.guess({}, 5, True) == 0 and card.guess({5: 2.0}, 5, True) == 2
    assert card.guess({5: 2.0}, 50, True) == 20 and card.guess({0: 2.0}, 1, False) == 2
    monkeypatch.setattr(card, "guess", lambda took, point, grows: 0 if point < 4 else 1e9)
    found = card.run_curve(a_card(tmp_path, {"fastai": "2.8"}, quick=False), curve)
    found = json.loads(json.dumps(found))
    assert results.points_left_out(found) == ["no time for 4"]
    assert "| 2 |" in results.curve_table(curve, found)
    assert "| 4 |" not in results.curve_table(curve, found)


def test_one_failing_race_loses_no_other(tmp_path, monkeypatch):
    def fails() -> dict:
        raise SystemExit("the port is taken")

    answer = {"seconds": 1.0, "peak": 100.0, "accuracy": 0.9}
    slower = {"seconds": 2.0, "peak": 300.0, "accuracy": 0.8}
    good = {"done": {OURS: [answer] * 5, "fastai": [slower] * 5, "bare loop": [answer] * 5}}
    good |= {"missing": {}, "note": "", "data": "MNIST", "pairs": 5}
    made = a_card(tmp_path, {"timm": "1.0"})
    monkeypatch.setattr(card, "Card", lambda options, folder: made)
    monkeypatch.setattr(card, "versions", lambda made: {"commit": "abc"} | made.rivals)
    todo = {"service": fails, "digits": lambda: dict(good)}
    monkeypatch.setattr(card, "steps", lambda made: todo)
    kept = card.run_card(SimpleNamespace(out=tmp_path, quick=False), list(todo), tmp_path)
    assert kept["results"]["service"]["failed"] == "the port is taken"
    text = (tmp_path / "RESULTS.md").read_text()
    assert "- **Service, 10 clients**: the port is taken." in text
    assert "| Digits, an epoch | fastai | 1.0 s | 2.0 s | **2.00** (2.00 to 2.00)" in text
    assert "3.00: MISSED | 100, 300 | accuracy 0.900, 0.800 |" in text
    assert "2.00 times as fast as fastai (2.00 to 2.00); the goal is 3.00" in text
    assert (tmp_path / "results.png").stat().st_size > 5000
    assert results.load(tmp_path)["results"]["digits"]["date"] == kept["about"]["date"]


def test_a_run_that_is_over_says_so(tmp_path):
    made = a_card(tmp_path, {}, quick=False)
    made.end = time.monotonic() + 15
    with pytest.raises(Failed, match="the 40 minutes of the run were over"):
        made.left(60)


def test_names_are_chosen():
    known = ["digits", "loader_small", "loader_large", "import"]
    assert card.chosen("", known) == (known, [])
    assert card.chosen("import, digits", known) == (["digits", "import"], [])
    assert card.chosen("loader night", known) == (["loader_small", "loader_large"], ["night"])
    with pytest.raises(SystemExit, match="no race swimming: there are digits"):
        card.chosen("swimming", known)


# ---------------------------------------------------------------- what is written
def test_losses_are_told():
    race = Race("R", "", goals={"fastai": 4}, quality="mse")
    ours = [{"seconds": 2, "peak": 400, "mse": 0.9}] * 3
    theirs = [{"seconds": s, "peak": 300, "mse": 0.8} for s in (1, 1, 4)]
    said = list(results.faults(race, {"done": {OURS: ours, "fastai": theirs}}))
    assert said == [
        "0.50 times as fast as fastai (0.50 to 2.00); the goal is 4.00",
        "1.33 times the memory of fastai",
        "MSE 0.900, fastai 0.800: worse in 3 of 3 rounds",
    ]
    assert list(results.faults(race, {"done": {OURS: ours}})) == []


def test_results_that_are_damaged_or_absent(tmp_path):
    assert results.load(tmp_path) == {"about": {}, "results": {}}
    (tmp_path / "results.json").write_text("{")
    assert results.load(tmp_path) == {"about": {}, "results": {}}


def test_words_of_an_error_break_no_table_and_name_no_folder():
    assert results.plain("no | `x` in /home/me/a.py.") == "no / 'x' in a.py"
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |\n"


def test_the_page_with_and_without_results(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "bench").mkdir()
    (tmp_path / "docs" / "speed.md").write_text("# Speed\n")
    target = tmp_path / "site"
    assert "not run yet" in speed_page.page(target, tmp_path)
    file = tmp_path / "bench" / "RESULTS.md"
    file.write_text(
        "# Results of the race card\n\n`make bench` writes this page; so.\n\n## Races\n\n![A figure](results.png)\n"
    )
    assert "](results.png)" not in speed_page.page(target, tmp_path)
    (tmp_path / "bench" / "results.png").write_bytes(b"x")
    text = speed_page.page(target, tmp_path)
    assert "writes this page" not in text
    assert "\n## Results\n" in text and "\n### Races\n" in text and "](results.png)" in text
    assert (target / "docs" / "results.png").exists()


def test_the_home_page_counts_races_against_fastai(tmp_path):
    (tmp_path / "bench").mkdir()
    assert speed_page.sentence(tmp_path) == ""

    def done(*ratios):
        ours = [{"seconds": 2.0}] * len(ratios)
        return {"done": {"coursekit": ours, "fastai": [{"seconds": 2 * r} for r in ratios]}}

    kept = {"one": done(3, 1, 4), "two": done(0.5), "three": done(2, 2), "alone": {"failed": "x"}}
    kept |= {"curve": {"done": {"coursekit": {"10": []}, "fastai": {"10": []}}}, "none": done()}
    (tmp_path / "bench" / "results.json").write_text(json.dumps({"results": kept}))
    said = speed_page.sentence(tmp_path)
    assert "**2 of 3 races**, from 0.5 to 3 times as fast, 2 times in the middle" in said


# ---------------------------------------------------------------- the card as it is
def test_every_race_has_its_parts():
    for name, race in (RACES | CURVES).items():
        assert race.sides[0] == OURS and set(race.sides[1:]) <= {*NEEDED, "bare loop"}
        assert race.action in sides.ACTIONS or name in card.WAYS
        for made in [*race.needs, *([race.many] if name in CURVES and race.many else [])]:
            assert callable(getattr(prepare, made))
        assert set(getattr(race, "goals", {})) <= set(race.sides)
    assert all(race.pairs >= 5 for race in RACES.values())
    whole = sum(race.budget for race in (RACES | CURVES).values())
    assert whole < 60 * card.MINUTES
    assert set(NEEDED.values()) <= set(rivals.MODULES)


def test_the_service_offers_what_its_race_calls():
    names = {
        n.name
        for n in ast.parse((ROOT / "bench/service.py").read_text()).body
        if hasattr(n, "name")
    }
    assert {"running", "crowd", "as_form", "one_answer"} <= names


def test_rivals_are_pinned_apart_from_torch():
    pins = rivals.pins()
    assert any(pin.startswith("fastai==") for pin in pins)
    assert not any(pin.startswith(("torch==", "torchvision==", "nvidia-")) for pin in pins)
    told = rivals.found("/no/such/python")
    assert rivals.missing(told) == list(told)


def test_rivals_without_a_network_are_named(tmp_path, monkeypatch, capsys):
    def no_uv():
        raise SystemExit("no network")

    monkeypatch.setattr(rivals, "VENV", tmp_path)
    monkeypatch.setattr(rivals, "PYTHON", tmp_path / "python")
    monkeypatch.setattr(rivals, "find_uv", no_uv)
    told = rivals.environment()
    assert set(told) == set(rivals.MODULES) and rivals.missing(told) == list(told)
    assert "cannot be had: uv (no network)" in capsys.readouterr().out
    assert not (tmp_path / "stamp.json").exists()


def test_a_pin_that_fails_is_named_and_the_others_are_installed(tmp_path, monkeypatch):
    tried = []

    def quiet(*command):
        tried.append(command)
        bad = "implicit==1" in command
        return SimpleNamespace(returncode=int(bad), stdout="", stderr="no wheel")

    monkeypatch.setattr(rivals, "quiet", quiet)
    monkeypatch.setattr(rivals, "find_uv", lambda: "uv")
    monkeypatch.setattr(rivals, "lend_torch", lambda python: None)
    monkeypatch.setattr(rivals, "pins", lambda: ["fastai==2", "implicit==1", "timm==1"])
    assert rivals.install() == ["implicit==1"]
    assert [command[-1] for command in tried[-3:]] == ["fastai==2", "implicit==1", "timm==1"]


def test_answers_that_disagree_are_no_race():
    ours, theirs = ([{"said": "sand", "probabilities": [p, 1 - p]}] for p in (0.2, 0.21))
    assert "0.0100 apart" in predict.agreement(ours, theirs)
    with pytest.raises(Failed, match="do not agree"):
        predict.agreement(ours, [{"said": "sand", "probabilities": [0.4, 0.6]}])


def test_files_come_in_one_order_and_again(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.jpg").touch()
    files = sides.files_in(tmp_path, 10)
    assert len(files) == 10 and files[:4] == files[4:8] and len(set(files)) == 4
    assert sides.files_in(tmp_path, None) == files[:4]
    assert sides.last_fifth(240) == list(range(192, 240))
