"""How the photographs inside the package were taken: `python tools/take_photographs.py`, on Debian or Ubuntu.

Fetches the package of Debian that carries them, reads the container in which they lie, keeps those that
their authors have given away (public domain or CC0) in four classes, and writes them with `credits.csv`
into coursekit/photographs.zip. Run once; it stays so that anybody can see, and do it again.
"""

import csv
import hashlib
import io
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PACKAGE, VERSION = "gcompris-qt-data", "3.1-2"
SHA256 = "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f"
INSIDE = "usr/share/gcompris-qt/rcc/categorization.rcc"
CLASSES = ("fishes", "monuments", "renewable", "tools")
FREE = ("Public Domain", "CC0-1.0")
ARCHIVE = Path(__file__).resolve().parents[1] / "coursekit" / "photographs.zip"


# ---------------------------------------------------------------- a container of the Qt toolkit
def field(data: bytes, form: str, at: int) -> tuple:
    if at < 0 or at + struct.calcsize(form) > len(data):
        raise ValueError(f"it points to byte {at:,} of {len(data):,}")
    return struct.unpack_from(form, data, at)


def container(data: bytes, most: int = 2**28) -> Iterator[tuple[str, bytes]]:
    "Name and contents of each file in a Qt resource container; `ValueError` if damaged."
    if data[:4] != b"qres":
        raise ValueError("it is no Qt resource container")
    version, tree, contents, names = field(data, ">4I", 4)
    step, todo = 22 if version >= 2 else 14, [(0, "")]
    while todo:
        i, parent = todo.pop()
        name_at, flags = field(data, ">IH", tree + i * step)
        path = f"{parent}/{name(data, names + name_at)}" if i else ""
        if flags & 2:
            count, first = field(data, ">2I", tree + i * step + 6)
            if first <= i or count > 2**16:
                raise ValueError("its folders run in circles")
            todo += [(child, path) for child in reversed(range(first, first + count))]
        else:
            at = contents + field(data, ">I", tree + i * step + 10)[0]
            yield path.lstrip("/"), unpacked(data, at, flags, most)


def name(data: bytes, at: int) -> str:
    length = field(data, ">H", at)[0]
    return field(data, f">{2 * length}s", at + 6)[0].decode("utf-16-be")


def unpacked(data: bytes, at: int, flags: int, most: int) -> bytes:
    length = field(data, ">I", at)[0]
    packed = field(data, f">{length}s", at + 4)[0]
    if flags & 4:
        raise ValueError("it is packed in a way that is not supported (zstd)")
    if not flags & 1:
        return packed
    size = field(packed, ">I", 0)[0]
    if size > most:
        raise ValueError(f"a file says that it unpacks to {size:,} bytes")
    whole = zlib.decompressobj().decompress(packed[4:], size + 1)
    if len(whole) != size:
        raise ValueError(f"a file does not unpack to its {size:,} bytes")
    return whole


# ---------------------------------------------------------------- what may be shown
def credits_of(readme: str) -> Iterator[tuple[str, str, str, str]]:
    "File, author, source and licence, for each file in the credits of a folder."
    for block in readme.replace("\r", "").split("\n\n"):
        lines = [line.strip() for line in block.strip().split("\n")]
        known = dict(line.split(": ", 1) for line in lines if ": " in line)
        for file in lines[lines.index("Files:") + 1 :] if "Files:" in lines else []:
            file = {"screDriver.webp": "screwDriver.webp"}.get(file, file)  # a slip in the credits
            yield file, *(known.get(key, "") for key in ("Copyright", "Source", "License"))


def free_photographs(data: bytes, classes: tuple[str, ...] = CLASSES) -> dict[str, bytes]:
    "The photographs that are free, by `class/file`, and `credits.csv`."
    files = {path.split("/images/")[-1]: body for path, body in container(data)}
    kept, rows = {}, [("file", "author", "source", "licence")]
    for kind in classes:
        for file, *credit in credits_of(files[f"{kind}/README"].decode("utf-8", "replace")):
            there = f"{kind}/{file}" in files and file == PurePosixPath(file).name != ".."
            if there and credit[-1] in FREE:
                kept[f"{kind}/{file}"] = files[f"{kind}/{file}"]
                rows.append((f"{kind}/{file}", *credit))
    csv.writer(table := io.StringIO(), lineterminator="\n").writerows(rows)
    return kept | {"credits.csv": table.getvalue().encode()}


def write(photographs: dict[str, bytes], archive: Path) -> None:
    "A zip with the same bytes each time; the pictures are packed already."
    with zipfile.ZipFile(archive, "w") as out:
        for path, body in sorted(photographs.items()):
            out.writestr(zipfile.ZipInfo(path), body)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", f"{PACKAGE}={VERSION}"], cwd=folder, check=True)
        (found,) = Path(folder).glob("*.deb")
        if hashlib.sha256(found.read_bytes()).hexdigest() != SHA256:
            raise SystemExit(f"{found.name} is not the file that was looked at")
        subprocess.run(["dpkg-deb", "-x", found.name, "new"], cwd=folder, check=True)
        write(free_photographs((Path(folder) / "new" / INSIDE).read_bytes()), ARCHIVE)
    print(f"{ARCHIVE.name}: {ARCHIVE.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
