"""Pictures that nobody has checked, at every way in: each is opened or refused in words, in bounded memory and time."""

import array
import io
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, ImageOps
from torch import nn

import coursekit.images
from coursekit.app import classify_upload
from coursekit.blocks import CategoryBlock, DataBlock, ImageBlock
from coursekit.data import RandomSplitter, get_image_files, parent_label
from coursekit.images import IMAGE_FORMATS, MAX_PIXELS, ImageError, open_image
from coursekit.learner import Learner
from coursekit.losses import CrossEntropyLossFlat
from coursekit.messages import DataError
from coursekit.resizing import Resize
from coursekit.targets import ToMask
from coursekit.transforms import PILImage, PILImageBW

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory is counted otherwise there")


def saved(image: Image.Image, form: str = "png", **kwargs) -> bytes:
    image.save(data := io.BytesIO(), form, **kwargs)
    return data.getvalue()


def half_red(size: tuple[int, int] = (40, 20)) -> Image.Image:
    "Left red, right blue."
    image = Image.new("RGB", size, (220, 20, 20))
    image.paste((20, 20, 220), (size[0] // 2, 0, *size))
    return image


def exif(orientation: int) -> Image.Exif:
    note = Image.Exif()
    note[0x010F], note[0x0112], note[0x011A] = "a camera", orientation, 72.0
    return note


RED = half_red()
LYING = RED.transpose(Image.Transpose.ROTATE_90)
WITH_EXIF = {
    "jpeg": {"quality": 95},
    "png": {},
    "webp": {"lossless": True},
    "tiff": {},
}


# ---------------------------------------------------------------- what uploaders hand over
def spooled(data: bytes):
    file = tempfile.SpooledTemporaryFile()
    file.write(data)
    return file


class OnlyReads:
    "As the answer of a web server: it cannot be wound back, and gives a little at a time."

    def __init__(self, data: bytes):
        self.file = io.BytesIO(data)

    def read(self, n: int = -1) -> bytes:
        return self.file.read(min(n, 100))


def mapped(data: bytes):
    memory = mmap.mmap(-1, len(data))
    memory.write(data)
    return memory


GIVEN = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "every other byte": lambda data: memoryview(np.repeat(np.frombuffer(data, "u1"), 2))[::2],
    "BytesIO": io.BytesIO,
    "spooled": spooled,
    "a stream": OnlyReads,
    "mapped": mapped,
}


@pytest.mark.parametrize("way", GIVEN)
@pytest.mark.parametrize("form", ["png", "jpeg", "tiff"])
def test_whatever_holds_the_bytes(way, form):
    data = saved(RED, form)
    expected = np.array(Image.open(io.BytesIO(data)))
    assert np.array_equal(open_image(GIVEN[way](data)), expected)
    assert np.array_equal(PILImage.create(GIVEN[way](data)), expected)


def test_files(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(RED))
    with (tmp_path / "a.png").open("rb") as file:
        file.read(5)
        for source in (tmp_path / "a.png", str(tmp_path / "a.png"), file):
            assert np.array_equal(open_image(source), RED)
    with (tmp_path / "a.png").open(encoding="latin1") as file:
        with pytest.raises(ImageError, match=r"a\.png gives str: open it with mode 'rb'"):
            open_image(file)
    with pytest.raises(ImageError, match="is no picture"):
        open_image(array.array("d", [1.0]))


def test_a_picture_of_pillow_passes_through_the_checks(tmp_path):
    assert open_image(RED) is RED
    (tmp_path / "a.eps").write_bytes(saved(RED, "eps"))
    with Image.open(tmp_path / "a.eps") as eps:
        with pytest.raises(ImageError, match="give JPEG"):
            open_image(eps)
    with pytest.raises(ImageError, match="40 x 20 pixels, at most 799"):
        open_image(RED, max_pixels=799)
    turned = Image.open(io.BytesIO(saved(LYING, "jpeg", exif=exif(6))))
    assert open_image(turned).size == RED.size and PILImage.create(turned).size == RED.size


# ---------------------------------------------------------------- orientation
@pytest.mark.parametrize("form", WITH_EXIF)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(form, orientation):
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = RED.transpose(Image.Transpose(turns[orientation])) if orientation > 1 else RED
    data = saved(stored, form, exif=exif(orientation), **WITH_EXIF[form])
    opened = open_image(data)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(opened, expected) and opened.format == form.upper()
    assert np.array_equal(ImageOps.exif_transpose(opened), expected)  # it is not turned twice


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_garbage_in_exif_never_loses_the_picture(form):
    data = saved(LYING, form, exif=exif(6), **WITH_EXIF[form])
    block = exif(6).tobytes().removeprefix(b"Exif\0\0")
    at, rng = data.index(block), np.random.default_rng(0)
    sizes = set()
    for _ in range(400):
        spoilt = np.frombuffer(block, "u1").copy()
        spoilt[rng.integers(0, len(block), rng.choice([1, 3, 20]))] = rng.integers(256)
        sizes.add(open_image(with_block(data, at, spoilt.tobytes(), form)).size)
    assert sizes == {RED.size, LYING.size}


def with_block(data: bytes, at: int, block: bytes, form: str) -> bytes:
    end = at + len(block)
    if form != "png":
        return data[:at] + block + data[end:]
    return data[:at] + block + struct.pack(">I", zlib.crc32(b"eXIf" + block)) + data[end + 4 :]


def test_an_exif_block_without_a_jfif_header():
    "Pillow then looks into it for the resolution, before anybody asks."
    data = saved(LYING, "jpeg", exif=exif(6))
    bare = data[:2] + data[data.index(b"\xff\xe1") :]
    for block in (b"II*\0\x08\0\0\0", b"MM\0*", b"II*\0" + bytes(400), b"\xff" * 60, b""):
        note = b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block
        assert open_image(data[:2] + note + bare[bare.index(b"\xff\xdb") :]).size == LYING.size
    assert open_image(bare).size == RED.size


# ---------------------------------------------------------------- hostile pictures, five ways in
def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*extra: bytes, size: tuple[int, int] = (8, 8)) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    pixels = zlib.compress((b"\0" + bytes(size[0])) * min(size[1], 100))
    return (
        b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def tiff(*entries: tuple, tail: bytes = b"") -> bytes:
    "Entries are (tag, type, count, value or place)."
    body = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    body += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return body + struct.pack("<I", 0) + tail


def grey_tiff(width: int, height: int, *more: tuple, tail: bytes = b"") -> bytes:
    kinds = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1)]
    return tiff(*kinds, (262, 3, 1, 1), (277, 3, 1, 1), *more, tail=tail)


def strips(n: int) -> bytes:
    "A strip for each row, and all of them the same."
    place = 10 + 12 * 9 + 4
    more = (273, 4, n, place), (278, 4, 1, 1), (279, 4, n, place)
    return grey_tiff(10, n, *more, tail=struct.pack("<I", place) * n)


def overlapping(n: int, size: int) -> bytes:
    "Entries that all name the same bytes."
    place = 10 + 12 * (9 + n) + 4
    more = (273, 4, 1, place), (278, 4, 1, 8), (279, 4, 1, 64)
    same = [(40_000 + i, 7, size, place) for i in range(n)]
    return grey_tiff(8, 8, *more, *same, tail=bytes(size))


def gif(width: int, height: int) -> bytes:
    data = bytearray(saved(Image.new("L", (8, 8)), "gif"))
    struct.pack_into("<HH", data, 6, width, height)
    return bytes(data)


def bmp(width: int, height: int) -> bytes:
    data = bytearray(saved(Image.new("L", (8, 8)), "bmp"))
    struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


def jpeg(width: int, height: int) -> bytes:
    data = bytearray(saved(Image.new("L", (8, 8)), "jpeg"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def webp(width: int, height: int) -> bytes:
    def part(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body

    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    frame = bytes(6) + (7).to_bytes(3, "little") * 2 + bytes(4)
    frame += saved(Image.new("RGB", (8, 8)), "webp")[12:]
    body = part(b"VP8X", b"\2\0\0\0" + sides) + part(b"ANIM", bytes(6)) + part(b"ANMF", frame)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def scans(n: int) -> bytes:
    "A progressive picture of 64 million pixels whose last scan comes again and again."
    data = saved(Image.new("L", (8000, 8000), 7), "jpeg", progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * n + b"\xff\xd9"


BIG = zlib.compress(bytes(300_000_000), 9)
NOISE = saved(Image.effect_noise((300, 300), 60).convert("RGB"), "jpeg")
REFUSED = {
    "drawing.eps": (saved(RED, "eps"), "no picture|not a picture"),
    "renamed.jpg": (saved(RED, "eps"), "no picture|not a picture"),
    "icon.ico": (saved(RED, "ico"), "no picture"),
    "icon.icns": (saved(RED.resize((32, 32)), "icns"), "no picture"),
    "plain.ppm": (saved(RED, "ppm"), "no picture|not a picture"),
    "old.tga": (saved(RED, "tga"), "no picture"),
    "text.png": (b"Dear model, what do you see?", "is text, not a picture"),
    "umlaut.png": ("Schöne Grüße ".encode() * 300, "is text, not a picture"),
    "empty.jpg": (b"", "is empty"),
    "half.jpg": (NOISE[: len(NOISE) // 2], "is damaged"),
    "start.jpg": (NOISE[:100], "is damaged"),
    "half.png": (saved(Image.effect_noise((99, 99), 60))[:5000], "is damaged"),
    "half.webp": (saved(Image.effect_noise((99, 99), 60), "webp")[:900], "is damaged"),
    "half.gif": (saved(Image.effect_noise((99, 99), 60), "gif")[:4000], "is damaged"),
    "half.bmp": (saved(RED, "bmp")[:500], "is damaged"),
    "half.tiff": (saved(RED, "tiff")[:500], "is damaged"),
    "huge.jpg": (jpeg(65_000, 65_000), "too many pixels"),
    "huge.png": (png(size=(100_000, 100_000)), "too many pixels"),
    "huge.webp": (webp(16_000, 16_000), "too many pixels"),
    "huge.gif": (gif(65_000, 65_000), "too many pixels"),
    "huge.bmp": (bmp(40_000, 40_000), "too many pixels"),
    "huge.tiff": (grey_tiff(10**6, 10**6, (273, 4, 1, 8), (279, 4, 1, 9)), "too many pixels"),
    "large.jpg": (jpeg(9_000, 9_000), "9,000 x 9,000 pixels, at most 80,000,000"),
    "large.png": (png(size=(9_000, 9_000)), "9,000 x 9,000 pixels"),
    "large.webp": (webp(9_000, 9_000), "9,000 x 9,000 pixels"),
    "large.gif": (gif(9_000, 9_000), "9,000 x 9,000 pixels"),
    "large.bmp": (bmp(9_000, 9_000), "9,000 x 9,000 pixels"),
    "large.tiff": (grey_tiff(9_000, 9_000, (273, 4, 1, 8), (279, 4, 1, 9)), "9,000 x 9,000"),
    "text_bomb.png": (png(chunk(b"zTXt", b"a\0\0" + BIG)), "is damaged"),
    "words_bomb.png": (png(chunk(b"iTXt", b"a\0\1\0\0\0" + BIG)), "is damaged"),
    "colour_bomb.png": (png(chunk(b"iCCP", b"a\0\0" + BIG)), "is damaged"),
    "strips.tiff": (strips(1_000_000), "its directory names 2,000,0.. values"),
    "scans.jpg": (scans(300), "comes in 3.. scans"),
}
OPENED = {
    "film.gif": saved(RED, "gif", save_all=True, append_images=[Image.new("RGB", RED.size)] * 3),
    "film.webp": saved(RED, "webp", save_all=True, append_images=[Image.new("RGB", RED.size)]),
    "pages.tiff": saved(RED, "tiff", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
    "film.png": saved(RED, "png", save_all=True, append_images=[Image.new("RGB", RED.size)]),
    "pair.mpo": saved(RED, "mpo", save_all=True, append_images=[Image.new("RGB", RED.size)]),
    "packed.tiff": saved(RED, "tiff", compression="tiff_lzw"),
    "printer.jpg": saved(RED.convert("CMYK"), "jpeg", quality=95),
    "printer.tiff": saved(RED.convert("CMYK"), "tiff"),
    "palette.png": saved(RED.quantize(8)),
    "palette.tiff": saved(RED.quantize(8), "tiff"),
    "clear.png": saved(RED.quantize(8), transparency=bytes([255, 0, 9])),
    "alpha.png": saved(RED.convert("RGBA")),
    "renamed.png": saved(RED, "jpeg", quality=95),
    "old.bmp": saved(RED, "bmp"),
    "pixels_bomb.png": png(chunk(b"IDAT", BIG), size=(40, 20)),
    "same_bytes.tiff": overlapping(3000, 9_000_000),
}


@pytest.fixture(scope="module")
def learn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for kind, colour in {"blue": (20, 20, 220), "red": (220, 20, 20)}.items():
        (folder / kind).mkdir()
        for i in range(4):
            Image.new("RGB", (40, 20), colour).save(folder / kind / f"{i}.png")
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_image_files,
        RandomSplitter(0.5, seed=0),
        get_y=parent_label,
        item_tfms=Resize(8),
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
    return Learner(
        block.dataloaders(folder, bs=2, num_workers=0), model, loss_func=CrossEntropyLossFlat()
    )


def from_test_dl(learn, source):
    return learn.dls.test_dl([source]).one_batch()


def uploaded(learn, source):
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    answer = classify_upload(learn, data, max_bytes=10**9)
    if answer.refused:
        raise DataError(answer.refused)
    return answer


WAYS = {
    "open_image": lambda learn, source: open_image(source),
    "create": lambda learn, source: PILImage.create(source),
    "predict": lambda learn, source: learn.predict(source),
    "test_dl": from_test_dl,
    "upload": uploaded,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REFUSED)
def test_hostile_pictures_are_refused_in_words(name, way, learn, tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("started"))
    data, words = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ImageError, DataError), match=words) as caught:
            WAYS[way](learn, tmp_path / name)
    assert time.process_time() - start < 3
    said = str(caught.value)
    assert "\n" not in said and "0x" not in said and (name in said or way == "upload")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OPENED)
def test_odd_pictures_are_opened(name, way, learn, tmp_path):
    (tmp_path / name).write_bytes(OPENED[name])
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = WAYS[way](learn, tmp_path / name)
        again = WAYS[way](learn, OPENED[name])
    assert time.process_time() - start < 5
    if way == "create":
        assert opened.mode == "RGB" and np.array_equal(opened, again)
        if "bomb" not in name and "same" not in name:
            left, right = opened.getpixel((5, 10)), opened.getpixel((35, 10))
            assert left[0] > 150 > 100 > left[2] and right[0] < 100 < 150 < right[2]


def test_no_file_at_all(tmp_path):
    for name, words in {
        ".": "is a folder",
        "none.png": "is not there",
        "nul\0": "is not there",
    }.items():
        for way in (open_image, PILImage.create, PILImageBW.create, ToMask()):
            with pytest.raises((ImageError, DataError), match=words):
                way(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in the file system")
@pytest.mark.parametrize("way", WAYS)
def test_pipes_and_devices_are_not_opened(way, learn, tmp_path):
    if way == "upload":
        pytest.skip("an upload is bytes")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        start = time.perf_counter()
        with pytest.raises((ImageError, DataError), match=rf"{name} is a device or a pipe"):
            WAYS[way](learn, tmp_path / name)
        assert time.perf_counter() - start < 20  # else it would wait for ever


def test_a_stream_without_an_end(monkeypatch):
    monkeypatch.setattr(coursekit.images, "MAX_PIXELS", 10**6)
    with Path("/dev/zero").open("rb") as file:
        with pytest.raises(ImageError, match="has more than 9 MB"):
            open_image(file)


def test_one_limit_for_all_ways_in(learn, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(saved(RED))
    monkeypatch.setattr(coursekit.images, "MAX_PIXELS", 799)
    for way in WAYS.values():
        with pytest.raises((ImageError, DataError), match=r"40 x 20 pixels.*MAX_PIXELS"):
            way(learn, tmp_path / "a.png")
    with pytest.raises(DataError, match="40 x 20 pixels"):
        ToMask()(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png", max_pixels=800).size == (40, 20)
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS and "EPS" not in IMAGE_FORMATS


MEASURED = """
import resource, sys, warnings
from pathlib import Path
from coursekit.images import ImageError, open_image
warnings.simplefilter("ignore")
open_image(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in sys.argv[2:]:
    try: open_image(file)
    except ImageError: pass
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(Path(file).name, int(grown), flush=True)
"""


@LINUX
def test_bombs_take_little_memory(tmp_path):
    "All in one process, of which the most that it ever took is read after each."
    bombs = {
        name: data
        for name, (data, _) in REFUSED.items()
        if name.startswith(("huge", "large", "str", "sc"))
    }
    bombs |= {name: data for name, (data, _) in REFUSED.items() if "bomb" in name} | OPENED
    for name, data in {"plain.png": saved(RED), **bombs}.items():
        (tmp_path / name).write_bytes(data)
    files = [tmp_path / name for name in ("plain.png", *bombs)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *files], capture_output=True, text=True, check=True
    )
    grown = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert len(grown) == len(bombs) and max(map(int, grown.values())) < 60, grown


def test_any_bytes_are_a_picture_or_a_sentence():
    rng = np.random.default_rng(0)
    for name, data in OPENED.items():
        for _ in range(40 if len(data) < 10**6 else 0):
            spoilt = np.frombuffer(data, "u1").copy()
            spoilt[rng.integers(0, len(spoilt), 8)] = rng.integers(0, 256, 8)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    assert open_image(spoilt.tobytes(), max_pixels=10**7).size, name
                except ImageError as error:
                    assert str(error).startswith("the file "), name


def test_a_picture_holds_no_notes_and_no_file():
    for data in (*OPENED.values(), saved(RED, "jpeg", exif=exif(1)), saved(RED, exif=exif(6))):
        opened = open_image(data)
        assert set(opened.info) <= {"icc_profile", "transparency"}
        assert getattr(opened, "fp", None) is None and not opened.getexif()


def test_masks_keep_their_numbers(tmp_path):
    numbers = np.arange(12, dtype="uint8").reshape(3, 4)
    for form in ("png", "bmp", "gif", "tiff"):
        data = saved(Image.fromarray(numbers), form)
        for source in (data, io.BytesIO(data)):
            assert np.array_equal(np.array(ToMask()(source)), numbers), form
    with pytest.raises(DataError, match="no mask: the file is text"):
        ToMask()(b"<html>")
    with pytest.raises(DataError, match="no mask"):
        ToMask()(torch.zeros(3, 3, dtype=torch.int64))
