"""Whatever the bytes are, `decode` gives an image or a RowError, soon and in bounded memory."""

from __future__ import annotations

import base64
import contextlib
import functools
import random
import subprocess
import sys
import time
from collections import Counter

import pytest
from PIL import Image, ImageFile

from score.errors import NotAnImage, RowError, TooManyPixels, TruncatedImage
from score.images import decoder_errors
from score.images.decode import decode
from score.images.formats import FORMATS
from score.images.preprocess import Preprocessor
from tests.support import bad_images
from tests.support.bad_images import FILES, OTHER_FORMATS, encoded, patched, tiff, whole

MAX_PIXELS = 1_000_000
CLIP = Preprocessor.from_config({"size": 224, "crop_size": 224})


def failure(data: bytes, max_pixels: int = MAX_PIXELS) -> RowError:
    with pytest.raises(RowError) as caught:
        decode(data, max_pixels)
    return caught.value


# -- what is in order --------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("upright", [False, True])
def test_every_allowed_kind_of_file_is_read(name, upright):
    image = decode(FILES[name](), MAX_PIXELS, exif_orientation=upright)
    assert image.mode == "RGB"
    assert sorted(image.size) == [30, 40]
    assert CLIP.pixels(image, MAX_PIXELS).shape == (224, 224, 3)


def test_every_allowed_format_is_tried():
    def opened(name: str) -> str:
        # A phone's MPO is a JPEG with more behind it.
        return {"MPO": "JPEG", "APNG": "PNG"}.get(name.split()[0], name.split()[0])

    assert {opened(name) for name in FILES} == set(FORMATS)


def test_an_image_may_be_followed_by_anything():
    """Phones hang films and more images behind a JPEG."""
    behind = b"\x00\x02" + b"\xff\xda\x00\x02" * 5000 + random.Random(0).randbytes(1000)
    data = encoded(whole(), "JPEG")
    assert decode(data + behind, MAX_PIXELS).tobytes() == decode(data, MAX_PIXELS).tobytes()
    for name in ("PNG", "GIF", "WEBP", "BMP"):
        assert decode(FILES[name]() + behind, MAX_PIXELS).size == (40, 30)


def test_metadata_may_hold_the_bytes_of_a_scan():
    data = encoded(whole(), "JPEG", comment=b"\xff\xda" * 20_000)
    assert decode(data, MAX_PIXELS).size == (40, 30)


def test_upright_turns_by_exif_once():
    lying, standing = (40, 30), (30, 40)
    assert decode(FILES["JPEG EXIF"](), MAX_PIXELS).size == lying
    assert decode(FILES["JPEG EXIF"](), MAX_PIXELS, exif_orientation=True).size == standing
    # Pillow turns a TIFF when it loads it, for the reference too.
    assert decode(FILES["TIFF EXIF"](), MAX_PIXELS, exif_orientation=True).size == standing


# -- what is no image ------------------------------------------------------------------------


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_other_formats_are_refused(name):
    assert isinstance(failure(OTHER_FORMATS[name]()), NotAnImage)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *(("HTML", "HTML"), ("SVG", "SVG"), ("XML", "XML"), ("JSON", "JSON")),
        *(("nothing", "0 bytes"), ("zeros", "1,000 bytes"), ("EPS", "JPEG, PNG")),
    ],
)
def test_a_refusal_says_what_came(name, says):
    assert says in failure(OTHER_FORMATS[name]()).message


def test_no_format_that_is_not_allowed_is_even_tried(monkeypatch):
    files = [stranger() for stranger in OTHER_FORMATS.values()]
    Image.init()
    for name in set(Image.OPEN) - set(FORMATS):
        monkeypatch.setitem(
            Image.OPEN, name, (lambda *_: pytest.fail("opened"), lambda _: pytest.fail("tried"))
        )
    for data in files:
        assert isinstance(failure(data), NotAnImage)


# -- what breaks off or is damaged -------------------------------------------------------------

SIGNED = [name for name in FILES if name.split()[0] not in ("BMP", "PPM")]


@pytest.mark.parametrize("name", SIGNED)
def test_a_file_cut_in_its_header_is_truncated_rather_than_no_image(name):
    assert isinstance(failure(FILES[name]()[:20]), TruncatedImage)


@pytest.mark.parametrize(
    "name",
    [
        *("JPEG", "JPEG progressive", "JPEG EXIF", "PNG", "PNG palette", "GIF", "WEBP"),
        *("WEBP lossless", "AVIF", "BMP", "TIFF", "TIFF LZW", "PPM", "PPM plain"),
    ],
)
@pytest.mark.parametrize("part", [0.5, 0.75, 0.9])
def test_a_file_that_ends_too_early_is_truncated(name, part):
    data = FILES[name]()
    assert isinstance(failure(data[: int(part * len(data))]), TruncatedImage)


def _after(name: str, mark: bytes, offset: int, damage: bytes) -> bytes:
    """A file with other bytes at some offset behind a mark in it."""
    data = FILES[name]()
    return patched(data, data.index(mark) + len(mark) + offset, damage)


DAMAGED = {
    "PNG, wrong checksum": lambda: _after("PNG", b"IDAT", 32, b"\xff\xff\xff\xff"),
    "PNG, chunk of 4 GiB": lambda: _after("PNG", b"IHDR", -8, b"\xff\xff\xff\xff"),
    "PNG, no data": lambda: bad_images.png((10, 10)),
    "PNG, empty data": lambda: bad_images.png((10, 10), bad_images.chunk(b"IDAT", b"")),
    "PNG, data that is no deflate": lambda: bad_images.png(
        (10, 10), bad_images.chunk(b"IDAT", b"not deflate at all")
    ),
    "PNG, impossible bit depth": lambda: bad_images.png((10, 10), bits=77, colour=5),
    "PNG, no pixels": lambda: bad_images.png((0, 0)),
    "GIF, broken LZW": lambda: patched(FILES["GIF"](), 800, b"\xff" * 900),
    "GIF, impossible code size": lambda: _after("GIF", b",\0\0\0\0", 5, b"\x63"),
    "WEBP, noise": lambda: patched(FILES["WEBP"](), 30, random.Random(1).randbytes(500)),
    "WEBP, size that lies": lambda: patched(FILES["WEBP"](), 4, b"\0\0\0\0"),
    "AVIF, impossible codec settings": lambda: _after("AVIF", b"av1C", 0, bytes(4)),
    "TIFF, tags at the end of the world": lambda: b"II*\0\xff\xff\xff\x7f" + bytes(50),
    "TIFF, no tags": lambda: b"II*\0\x08\0\0\0\0\0" + bytes(50),
    "TIFF, tag that is everywhere": lambda: patched(FILES["TIFF"](), 10, b"\xff" * 20),
    "TIFF, data elsewhere": lambda: tiff({273: 10**9, 278: 10, 279: 10}, b""),
    "TIFF, data that is no deflate": lambda: tiff({273: -1, 278: 10, 279: 10}, b"0123456789"),
    "JPEG, no tables": lambda: b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xd9",
    "JPEG, only its start": lambda: b"\xff\xd8\xff",
    "JPEG2000, box that lies": bad_images.jpeg2000_bomb,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_truncated_or_damaged(name):
    assert isinstance(failure(DAMAGED[name]()), TruncatedImage)


UNSUPPORTED = {
    "compression 999": lambda: tiff({259: 999, 273: -1, 279: 10}, bytes(10)),
    "bits (), sample format (1,)": lambda: tiff({277: 0, 259: 1, 273: -1, 279: 100}, bytes(100)),
    "bits (16,), sample format (3,)": lambda: tiff(
        {258: 16, 259: 1, 339: 3, 273: -1, 278: 10, 279: 200}, bytes(200)
    ),
    "bits (64,), sample format (3,)": lambda: tiff(
        {258: 64, 259: 1, 339: 3, 273: -1, 278: 10, 279: 800}, bytes(800)
    ),
    "cannot handle 12-bit layers": lambda: _after("JPEG", b"\xff\xc0", 2, b"\x0c"),
    "Unsupported BMP compression (4)": lambda: patched(FILES["BMP"](), 30, b"\4"),
}


@pytest.mark.parametrize("says", UNSUPPORTED)
def test_a_sound_file_that_nobody_decodes_is_not_called_damaged(says):
    error = failure(UNSUPPORTED[says]())
    assert isinstance(error, NotAnImage)
    assert says in error.message
    assert "cannot be read" in error.message


ENDED = "'s data end before the image does"

MESSAGES = {
    "JPEG, cut": (lambda: FILES["JPEG"]()[:-200], "the JPEG" + ENDED),
    "JPEG, cut in its header": (lambda: FILES["JPEG"]()[:60], "the JPEG" + ENDED),
    "PNG, cut": (lambda: FILES["PNG"]()[:-200], "the PNG" + ENDED),
    "PNG, empty data": (DAMAGED["PNG, empty data"], "the PNG" + ENDED),
    "PNG, no data": (DAMAGED["PNG, no data"], "the PNG holds no pixels"),
    "PNG, wrong checksum": (
        DAMAGED["PNG, wrong checksum"],
        "the PNG cannot be decoded: broken data stream when reading image file",
    ),
    "PNG, no pixels": (DAMAGED["PNG, no pixels"], "the PNG's header is damaged"),
    "GIF, cut": (lambda: FILES["GIF"]()[:60], "the GIF" + ENDED),
    "GIF, broken LZW": (
        DAMAGED["GIF, broken LZW"],
        "the GIF cannot be decoded: broken data stream when reading image file",
    ),
    "WEBP, cut": (
        lambda: FILES["WEBP"]()[:-50],
        "the WEBP cannot be decoded: could not create decoder object",
    ),
    "AVIF, cut": (lambda: FILES["AVIF"]()[:-50], "the AVIF" + ENDED),
    "BMP, cut": (lambda: FILES["BMP"]()[:-50], "the BMP" + ENDED),
    "PPM plain, cut": (lambda: FILES["PPM plain"]()[:200], "the PPM" + ENDED),
    "TIFF, cut": (lambda: FILES["TIFF"]()[:-50], "the TIFF" + ENDED),
    "TIFF, no tags": (DAMAGED["TIFF, no tags"], "the TIFF cannot be decoded: Missing dimensions"),
    "JPEG, only its start": (DAMAGED["JPEG, only its start"], "the JPEG's header is damaged"),
    "JPEG, a short table": (
        lambda: _after("JPEG", b"\xff\xc0", 0, b"\0\3"),
        "the JPEG's header is damaged",
    ),
    "PPM, words for numbers": (
        lambda: b"P6 width height 255\n",
        "the image's header is damaged",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_say_what_is_wrong(name):
    make, message = MESSAGES[name]
    error = failure(make())
    assert isinstance(error, TruncatedImage)
    assert error.message == message


@pytest.mark.parametrize("error", decoder_errors.ERRORS)
def test_every_kind_of_error_has_a_plain_message(error):
    """Python's own words, object addresses and line breaks say nothing to who sent the file."""
    for said in ("", "list index out of range", "unpack requires a buffer of 4 bytes"):
        message = decoder_errors.row_error("PNG", error(said)).message
        assert message in ("the PNG's header is damaged", "the PNG" + ENDED)
    told = decoder_errors.row_error("PNG", error("first line\nsecond line" + "x" * 500)).message
    assert "\n" not in told
    assert len(told) < 200


def test_a_damaged_image_is_never_half_of_one():
    """Pillow can be told to fill up what is missing; the vector would be of another image."""
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# -- what is too large -------------------------------------------------------------------------

BOMBS = {
    "PNG, twice Pillow's own limit": lambda: bad_images.png_bomb(20_000),
    "PNG, over Pillow's warning": lambda: bad_images.png_bomb(9_500),
    "PNG, just too large": lambda: bad_images.png_bomb(1_001),
    "GIF frame larger than its screen": bad_images.gif_bomb,
    "WEBP canvas": bad_images.webp_bomb,
    "BMP header": bad_images.bmp_bomb,
    "PPM header": lambda: b"P6 60000 60000 255\n" + bytes(100),
    "TIFF tiles larger than the image": lambda: bad_images.tiff_tile_bomb(8_000),
    "JPEG of very many scans": lambda: bad_images.jpeg_of_scans((1000, 1000), 5_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_any_pixel_is_decoded(name, monkeypatch):
    data = BOMBS[name]()
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    began = time.monotonic()
    assert isinstance(failure(data), TooManyPixels)
    assert time.monotonic() - began < 10


def test_an_image_of_exactly_the_limit_is_read():
    data = encoded(whole(size=(50, 20)), "PNG")
    assert decode(data, 1000).size == (50, 20)
    assert isinstance(failure(data, 999), TooManyPixels)


@pytest.mark.process
def test_a_limit_above_pillows_warning_is_ours_to_set():
    """What Pillow thinks large is no error where the deployment allows it."""
    script = """
import sys
from score.images.decode import decode
sys.stdout.write(str(decode(sys.stdin.buffer.read(), 100_000_000).size))
"""
    assert _outside(script, bad_images.png_bomb(9_500)) == "(9500, 9500)"


@pytest.mark.parametrize("scans", [0, 14])
def test_a_progressive_image_of_the_limit_is_read(scans):
    size = (1000, 1000)
    assert decode(bad_images.jpeg_of_scans(size, scans), MAX_PIXELS).size == size


def test_a_small_image_may_have_more_scans():
    assert decode(bad_images.jpeg_of_scans((64, 64), 500), MAX_PIXELS).size == (64, 64)
    assert isinstance(failure(bad_images.jpeg_of_scans((64, 64), 2000)), TooManyPixels)


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1), (3, 65_000)])
def test_a_strip_that_resizing_would_blow_up_is_refused(size):
    image = decode(encoded(Image.new("L", size), "PNG"), MAX_PIXELS)
    with pytest.raises(TooManyPixels, match="narrow"):
        CLIP.pixels(image, MAX_PIXELS)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 19), (19, 1), (223, 225)])
def test_small_and_narrow_images_are_fine(size):
    image = decode(encoded(Image.new("L", size), "PNG"), MAX_PIXELS)
    assert CLIP.pixels(image, MAX_PIXELS).shape == (224, 224, 3)


def test_memory_that_is_not_there_is_a_row_error(monkeypatch):
    def out_of_memory(*_: object, **__: object) -> None:
        raise MemoryError

    data = FILES["PNG"]()
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", out_of_memory)
        assert isinstance(failure(data), TooManyPixels)
    monkeypatch.setattr(Image, "open", out_of_memory)
    assert isinstance(failure(data), TooManyPixels)


# -- fuzzing -----------------------------------------------------------------------------------


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Cut, or with some bytes changed, most of them near the beginning, where headers are."""
    copy = bytearray(data)
    if dice.random() < 0.7:
        for _ in range(dice.choice([1, 1, 2, 4, 16])):
            reach = min(len(copy), dice.choice([32, 128, 512, len(copy)]))
            copy[dice.randrange(reach)] = dice.choice([0, 1, 127, 128, 255, dice.randrange(256)])
    if dice.random() < 0.4:
        del copy[dice.randrange(len(copy)) :]
    return bytes(copy)


@pytest.mark.parametrize("name", FILES)
def test_no_mutation_raises_anything_else(name):
    dice = random.Random(name)
    outcomes: Counter[str] = Counter()
    data = FILES[name]()
    for number in range(150):
        try:
            image = decode(mutated(data, dice), MAX_PIXELS, exif_orientation=number % 2 == 0)
            CLIP.pixels(image, MAX_PIXELS)
            outcomes["fine"] += 1
        except RowError as error:
            outcomes[error.code] += 1
    assert set(outcomes) <= {"fine", "not_an_image", "truncated_image", "too_many_pixels"}
    assert len(outcomes) > 1, "mutations that change nothing test nothing"


# -- warnings ----------------------------------------------------------------------------------


def _outside(script: str, data: bytes) -> str:
    """What a script prints in a process where warnings are errors and filters are our own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == b""
    return done.stdout.decode()


@pytest.mark.process
def test_damaged_metadata_is_no_reason_to_refuse_or_to_warn():
    """Pillow warns of it, into the log of whoever serves us; the image itself is in order."""
    data = FILES["JPEG EXIF"]()
    at = data.index(b"Exif\0\0") + 6
    files = [
        patched(data, at + 8, b"\xff\xff"),  # 65,535 entries
        patched(data, at + 4, b"\xff\xff\xff\x00"),  # that begin behind the end
        patched(data, at + 10, b"\xff" * 12),
    ]
    script = """
import base64, sys
from score.images.decode import decode
for line in sys.stdin:
    print(decode(base64.b64decode(line), 10_000, exif_orientation=True).width)
"""
    lines = b"\n".join(base64.b64encode(file) for file in files)
    assert set(_outside(script, lines).split()) <= {"40", "30"}


def test_a_warning_that_a_process_makes_an_error_is_a_row_error(monkeypatch):
    def warned(*_: object, **__: object) -> None:
        raise UserWarning("Truncated File Read")

    data = FILES["PNG"]()
    monkeypatch.setattr(ImageFile.ImageFile, "load", warned)
    assert isinstance(failure(data), TruncatedImage)


# -- what decoders write to stderr -------------------------------------------------------------

COMPRESSIONS = (
    *("group3", "group4", "tiff_ccitt", "packbits", "tiff_lzw", "tiff_adobe_deflate"),
    *("jpeg", "zstd", "lzma"),
)


def _tiff(compression: str) -> bytes:
    fax = compression in ("group3", "group4", "tiff_ccitt")
    return encoded(whole().convert("1" if fax else "RGB"), "TIFF", compression=compression)


STDERR = {
    **FILES,
    **{f"TIFF {name}": functools.partial(_tiff, name) for name in COMPRESSIONS},
    "TIFF of damaged rows": functools.partial(bad_images.fax_of_damaged_rows, 100_000),
}


@pytest.mark.parametrize("name", STDERR)
def test_decoders_write_nothing_to_stderr(name, capfd):
    """libtiff would write a line for every damaged row, hundreds of megabytes for a kilobyte."""
    data, dice = STDERR[name](), random.Random(name)
    for _ in range(100):
        damaged = mutated(data, dice)
        at = dice.randrange(len(data))
        for file in (data, damaged, patched(data, at, dice.randbytes(min(20, len(data) - at)))):
            with contextlib.suppress(RowError):
                decode(file, MAX_PIXELS, exif_orientation=True)
    written = capfd.readouterr()
    if name == "AVIF":  # of Pillow 12 writes a line about an image, and no more
        assert set(written.err.splitlines()) <= {"Error parsing OBU data"}
        assert written.err.count("\n") <= 300
    else:
        assert written == ("", "")


@pytest.mark.process
def test_what_others_write_to_stderr_meanwhile_is_not_lost():
    script = """
import os, sys, threading
from score.images.decode import decode
data, wanted = sys.stdin.buffer.read(), threading.Event()
def decodes():
    while not wanted.is_set():
        decode(data, 1_000_000)
threads = [threading.Thread(target=decodes) for _ in range(3)]
for thread in threads:
    thread.start()
for number in range(2_000):
    os.write(2, b"%d\\n" % number)
wanted.set()
for thread in threads:
    thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=bad_images.fax_of_damaged_rows(100_000),
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert done.stderr.split() == [b"%d" % number for number in range(2_000)]
