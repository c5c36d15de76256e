"The photographs inside the package, and the script that took them."

import csv
import struct
import zipfile
import zlib

import numpy as np
import pytest

from coursekit.datasets import URLs, untar_data

from take_photographs import ARCHIVE, FREE, container, free_photographs, write


def rcc(files: dict[str, bytes], packed: bool = False) -> bytes:
    "A Qt resource container: folders resource/images/<class>/<file>, as the real one has them."
    names, data = b"", b""
    tree: dict = {"resource": {"images": {}}}
    for path, contents in files.items():
        folder, name = path.split("/")
        tree["resource"]["images"].setdefault(folder, {})[name] = contents
    rows, queue = [None], [(0, tree)]
    while queue:
        i, children = queue.pop(0)
        first = len(rows)
        name_at, flags = (0, 2) if i == 0 else (rows[i][0], 2)
        rows[i] = (name_at, struct.pack(">IHII", name_at, flags, len(children), first))
        for name, value in children.items():
            at = len(names)
            names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
            rows.append((at, None))
            if isinstance(value, dict):
                queue.append((len(rows) - 1, value))
            else:
                blob = struct.pack(">I", len(value)) + zlib.compress(value) if packed else value
                rows[-1] = (at, struct.pack(">IHHHI", at, int(packed), 0, 0, len(data)))
                data += struct.pack(">I", len(blob)) + blob
    table = b"".join(row for _, row in rows)
    return (
        b"qres"
        + struct.pack(">4I", 1, 20, 20 + len(table), 20 + len(table) + len(data))
        + table
        + data
        + names
    )


README = (
    "Copyright: A\nSource: s\nLicense: CC0-1.0\nFiles:\na.webp\nabsent.webp\n\n"
    "Copyright: B\nSource: t\nLicense: GPLv2+\nFiles:\nb.webp\n"
)
PHOTOS = {
    f"{c}/{n}": b
    for c in ("fishes", "monuments", "renewable", "tools")
    for n, b in {
        "README": README.encode(),
        "a.webp": b"A" * 50,
        "b.webp": b"B",
        "c.webp": b"C",
    }.items()
}


@pytest.mark.parametrize("packed", [False, True])
def test_photographs_and_their_credits(tmp_path, packed):
    kept = free_photographs(rcc(PHOTOS, packed))
    names = ["credits.csv", "fishes/a.webp", "monuments/a.webp", "renewable/a.webp", "tools/a.webp"]
    assert sorted(kept) == names  # not the GPL one, nor one without credit
    assert kept["credits.csv"].decode().splitlines()[1] == "fishes/a.webp,A,s,CC0-1.0"
    assert kept["tools/a.webp"] == b"A" * 50
    write(kept, tmp_path / "a.zip")
    write(kept, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as made:
        assert made.read("tools/a.webp") == b"A" * 50


def test_every_damage_to_the_container_is_noticed_or_harmless():
    good = rcc(PHOTOS, packed=True)
    for length in (0, 3, 10, 21, len(good) // 2, len(good) - 1):
        with pytest.raises(ValueError):
            list(container(good[:length]))
    generator = np.random.default_rng(0)
    for _ in range(
        300
    ):  # an error of ours or a result, never another exception, and never for ever
        bad = bytearray(good)
        for at in generator.integers(0, len(bad), 3):
            bad[at] = generator.integers(0, 256)
        try:
            assert len(list(container(bytes(bad)))) <= 2**17
        except (ValueError, zlib.error):
            pass


def test_the_archive_holds_what_the_list_says():
    "Without a network and without a mirror: 122 photographs, each with its author and a free licence."
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = set(archive.namelist()) - {"credits.csv"}
        rows = list(csv.DictReader(archive.read("credits.csv").decode().splitlines()))
    assert len(names) == 122 and names == {row["file"] for row in rows}
    assert {row["licence"] for row in rows} <= set(FREE) and all(row["author"] for row in rows)


def test_they_are_had_without_a_network(cache, monkeypatch):
    monkeypatch.setattr("socket.socket", None)
    photos = untar_data(URLs.PHOTOS)
    assert not URLs.PHOTOS.problem(photos) and photos.parent == cache
