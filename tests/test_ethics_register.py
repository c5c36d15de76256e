"The register: killed fifty times while writing, two writers, damaged files, and who may see what."

import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coursekit.messages import DataError
from coursekit.register import Register, audit_manifest, audit_sample, content_hash, rescue

WRITE = """
import sys
from coursekit.register import Register
register = Register(sys.argv[1])
for i in range(100_000):
    number = register.decide(f"case {i}", "refused", "a reason " * 40, by=sys.argv[2], score=i / 7)
    if i % 3 == 0: register.appeal(number, "not true", by="the person")
    print(number, flush=True)
"""


def writer(path, name, tmp_path):
    out = (tmp_path / f"{name}.txt").open("w")
    return subprocess.Popen([sys.executable, "-c", WRITE, str(path), name], stdout=out)


@pytest.mark.skipif(os.name != "posix", reason="kills with SIGKILL")
def test_killed_fifty_times_while_writing(tmp_path):
    """What was confirmed is there after each kill, and the chain is whole. Processes are forked after the import, so
    that a kill falls into the writing, not into the start."""
    path, dice, confirmed = tmp_path / "register.db", random.Random(0), set()
    Register(path)
    for _ in range(50):
        reader, end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            register = Register(path)
            for i in range(100_000):
                number = register.decide(f"case {i}", "refused", "a reason " * 400, by="model")
                os.write(end, f"{number}\n".encode())
        os.close(end)
        select.select([reader], [], [], 30)  # it has written one entry at least
        time.sleep(dice.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader) as said:
            confirmed |= {int(line) for line in said.read().splitlines()}
        register = Register(path)
        assert register.verify() >= max(confirmed, default=0)
    numbers = set(register.entries().number)
    assert len(confirmed) >= 50 and confirmed <= numbers
    assert numbers == set(range(1, len(numbers) + 1))
    assert len(numbers) - len(confirmed) <= 50  # at most the one that was being written, each time


def test_two_writers_and_a_reader(tmp_path):
    path = tmp_path / "register.db"
    both = [writer(path, name, tmp_path) for name in ("one", "two")]
    until = time.monotonic() + 300  # a busy machine takes long to start two processes
    said = [tmp_path / f"{name}.txt" for name in ("one", "two")]
    while time.monotonic() < until and not all(len(p.read_text().split()) > 20 for p in said):
        time.sleep(0.1)
        if path.exists() and path.stat().st_size:
            Register(path).verify()
    for process in both:
        process.kill()
        process.wait()
    numbers = [int(x) for p in said for x in p.read_text().split()]
    assert len(numbers) > 40 and len(set(numbers)) == len(numbers)
    register = Register(path)
    log = register.entries()
    assert register.verify() == len(log) and set(numbers) <= set(log.number)
    assert {"one", "two"} <= set(log.by)


def test_threads(tmp_path):
    register = Register(tmp_path / "r.db")
    with ThreadPoolExecutor(8) as pool:
        numbers = list(
            pool.map(lambda i: register.decide(f"c{i}", "yes", "why", by="m"), range(80))
        )
    assert sorted(numbers) == list(range(1, 81)) and register.verify() == 80


@pytest.fixture
def register(tmp_path):
    register = Register(tmp_path / "r.db")
    for i in range(6):
        register.decide(f"case {i}", "refused", "too little income", by="model 1", score=i)
    return register


def test_appeal_correction_and_what_holds(register):
    register.appeal(2, "it is more", by="case 1")
    register.appeal(3, "it is more", by="case 2")
    assert register.open_appeals().index.tolist() == [2, 3]
    register.uphold(3, "looked at again", by="clerk")
    register.correct(2, "granted", "income of another", by="clerk")
    now = register.standing()
    assert now.state.tolist() == ["in force", "corrected", "upheld"] + ["in force"] * 3
    assert now.outcome[2] == "granted" and len(register.open_appeals()) == 0
    assert register.entries("case 1").outcome.tolist()[0] == "refused"  # what was said, stays
    register.appeal(2, "again", by="case 1")
    assert register.open_appeals().index.tolist() == [2]


def test_erased_is_gone_and_the_chain_is_whole(register):
    sealed = register.seal()
    register.erase("case 4", "asked for", by="clerk")
    register.erase("case 5", "asked for", by="clerk")
    assert register.verify(sealed) == 8
    assert "case 4" not in register.entries().to_string()
    assert len(register.standing()) == 4
    with pytest.raises(DataError, match="erased"):
        register.appeal(5, "why", by="somebody")
    with pytest.raises(DataError, match="nothing is recorded of 'case 4'"):
        register.erase("case 4", "again", by="clerk")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DELETE FROM chain WHERE number=3", "entry 3 is missing"),
        ("UPDATE chain SET at='2020' WHERE number=3", "entry 3 was changed"),
        ("UPDATE chain SET kind='upheld' WHERE number=6", "entry 6 was changed"),
        (
            "UPDATE content SET said=replace(said,'refused','granted') WHERE number=2",
            "what entry 2 says",
        ),
        ("UPDATE content SET subject='case 9' WHERE number=2", "what entry 2 says"),
        ("DELETE FROM content WHERE number=4", "what entry 4 said is missing"),
    ],
)
def test_tampering_is_named(register, change, words):
    db = sqlite3.connect(register.path)
    if "chain" in change:
        with pytest.raises(sqlite3.IntegrityError, match="add a correction"):
            db.execute(change)
        db.execute("DROP TRIGGER keep_chain")
        db.execute("DROP TRIGGER hold_chain")
    db.execute(change)
    db.commit()
    db.close()
    with pytest.raises(DataError, match=words):
        register.verify()


def test_a_cut_or_rewritten_end_shows_against_the_seal(register):
    sealed = register.seal()
    other = Register(register.path.parent / "other.db")
    for i in range(7):
        other.decide(f"case {i}", "granted", "all is well", by="model 1")
    assert other.verify() == 7
    with pytest.raises(DataError, match="up to 6 are not those sealed"):
        other.verify(sealed)
    short = Register(register.path.parent / "short.db")
    with pytest.raises(DataError, match="0 entries, 6 were sealed"):
        short.verify(sealed)
    register.decide("case 9", "granted", "all is well", by="model 1")
    assert register.verify(sealed) == 7


def test_damaged_file_is_named_kept_and_rescued(register, tmp_path):
    for i in range(400):
        register.decide(f"more {i}", "refused", "too little income " * 20, by="model 1")
    with sqlite3.connect(register.path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    data = register.path.read_bytes()
    broken = tmp_path / "broken.db"
    broken.write_bytes(data[: len(data) // 2])
    before = content_hash(broken)
    with pytest.raises(DataError, match=r"broken.db.*damaged.*rescue"):
        Register(broken).verify()
    assert content_hash(broken) == before
    brought = rescue(broken, tmp_path / "new.db")
    assert 100 < brought < 406 and len(Register(tmp_path / "new.db")) == brought
    assert "too little income" in Register(tmp_path / "new.db").entries().reason[brought - 1]
    holed = tmp_path / "holed.db"
    holed.write_bytes(data[: len(data) // 2] + bytes(8192) + data[len(data) // 2 + 8192 :])
    assert 300 < rescue(holed, tmp_path / "of_holed.db") <= 406
    with pytest.raises(DataError, match=r"missing|changed"):
        Register(tmp_path / "of_holed.db").verify()
    with pytest.raises(DataError, match="there already"):
        rescue(broken, tmp_path / "new.db")
    text = tmp_path / "text.db"
    text.write_text("a letter " * 500)
    with pytest.raises(DataError, match=r"text.db is damaged or no register"):
        Register(text)


def test_refused(register, tmp_path):
    for action, words in (
        (lambda: register.decide("case", "no", " ", by="m"), "reason=' '.*helps nobody"),
        (lambda: register.decide("case", "no", "why", by=None), "by=None"),
        (lambda: register.appeal(99, "why", by="me"), "no entry 99"),
        (
            lambda: register.correct(7, "yes", "why", by="me"),
            "entry 7 is not a decision but: appeal",
        ),
        (lambda: register.decide("c", "no", "why", by="m", x=float("nan")), "cannot be kept"),
        (lambda: register.decide("c", "no", "why", by="m", x=object()), "cannot be kept"),
        (lambda: Register(tmp_path / "nowhere" / "r.db"), "is the folder there"),
    ):
        if "entry 7" in words:
            register.appeal(1, "why", by="me")
        with pytest.raises(DataError, match=words):
            action()
    assert register.verify() == 7  # nothing of all this was written


def test_numbers_of_numpy_are_kept(register):
    number = register.decide("c", "no", "why", by="m", score=np.float32(0.5), n=np.int64(3))
    assert register.entries().set_index("number").details[number] == {"score": 0.5, "n": 3}


def test_manifest(tmp_path):
    file = tmp_path / "data.csv"
    file.write_text("a,b\n1,2\n")

    def made(data, code=content_hash, seed=0, **parameters):
        return audit_manifest(data, code, seed, parameters)["hash"]

    assert made(file) == made(Path(file)) != made(pd.read_csv(file))
    frame = pd.read_csv(file)
    assert made(frame) == made(frame.copy()) != made(frame.rename(columns={"a": "c"}))
    hashes = {made(file), made(file, seed=1), made(file, rate=1), made(file, code=rescue)}
    file.write_text("a,b\n1,3\n")
    assert len(hashes | {made(file)}) == 5


def test_audit_sample_holds_the_truth():
    held, looked = 0, []
    for seed in range(200):
        out = audit_sample(range(5000), lambda i: i % 50 < 3, 300, seed)
        held += out["low"] <= 0.06 <= out["high"]
        looked.append(len(out["wrong"]) / out["n"] == out["share"])
    assert held >= 184 and all(looked)
    with pytest.raises(DataError, match="sample of 10 from a list of 3"):
        audit_sample([1, 2, 3], bool, 10)
