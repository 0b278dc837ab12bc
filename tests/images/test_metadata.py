"""Metadata is no reason to refuse an image whose pixels are sound, and costs no more than they."""

from __future__ import annotations

import io
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from score.errors import TooManyPixels, TruncatedImage
from score.images import metadata
from score.images.decode import decode
from tests.support.bad_images import FILES, chunk, encoded, whole

MAX_PIXELS = 1_000_000
NOISE = random.Random(0).randbytes(3 * 2**20)
FLAT = bytes(3 * 2**20)
MIB = 2**20


def pixels(data: bytes, **options: bool) -> bytes:
    return decode(data, MAX_PIXELS, **options).tobytes()


def beside_header(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks behind its header."""
    return data[:33] + b"".join(chunks) + data[33:]


def at_end(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks behind its pixels."""
    return data[:-12] + b"".join(chunks) + data[-12:]


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def beside_start(data: bytes, *segments: bytes) -> bytes:
    """A JPEG with more segments behind its first two bytes."""
    return data[:2] + b"".join(segments) + data[2:]


def text(content: bytes) -> bytes:
    return chunk(b"zTXt", b"name\0\0" + zlib.compress(content))


def profile(content: bytes) -> bytes:
    return chunk(b"iCCP", b"name\0\0" + zlib.compress(content))


def international(content: bytes) -> bytes:
    return chunk(b"iTXt", b"name\0\1\0\0\0" + zlib.compress(content))


PNGS: dict[str, Callable[[bytes], bytes]] = {
    "packed text": lambda png: beside_header(png, text(FLAT)),
    "packed text behind the pixels": lambda png: at_end(png, text(FLAT)),
    "packed international text": lambda png: beside_header(png, international(FLAT)),
    "colour profile": lambda png: beside_header(png, profile(NOISE)),
    "plain text": lambda png: beside_header(png, chunk(b"tEXt", b"name\0" + FLAT)),
    "text that does not unpack": lambda png: beside_header(png, chunk(b"zTXt", b"name\0\0noise")),
    "text in an unknown packing": lambda png: beside_header(png, chunk(b"zTXt", b"name\0\7abc")),
    "profile in an unknown packing": lambda png: beside_header(png, chunk(b"iCCP", b"name\0\7abc")),
    "damaged resolution": lambda png: beside_header(png, chunk(b"pHYs", b"1")),
    "damaged colours": lambda png: beside_header(png, chunk(b"cHRM", b"1"), chunk(b"gAMA", b"")),
    "wrong checksum of a text": lambda png: beside_header(png, text(b"a")[:-4] + bytes(4)),
    "1,000 texts": lambda png: beside_header(png, *[text(FLAT)] * 1000),
}

JPEGS: dict[str, Callable[[bytes], bytes]] = {
    "profile in many parts": lambda jpeg: beside_start(
        jpeg, *[segment(0xE2, b"ICC_PROFILE\0\1\1" + NOISE[:60_000])] * 60
    ),
    "profile without its count": lambda jpeg: beside_start(jpeg, segment(0xE2, b"ICC_PROFILE\0\1")),
    "Photoshop block cut short": lambda jpeg: beside_start(
        jpeg, segment(0xED, b"Photoshop 3.0\x008BIM\4\4")
    ),
    "damaged index of images": lambda jpeg: beside_start(
        jpeg, segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0\1\xb0\4\0\2\0\0\0\2\0\0\0")
    ),
    "long comment": lambda jpeg: beside_start(jpeg, segment(0xFE, NOISE[:65_000])),
    "long EXIF": lambda jpeg: beside_start(jpeg, segment(0xE1, b"Exif\0\0" + NOISE[:65_000])),
    "long XMP": lambda jpeg: beside_start(
        jpeg, *[segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + NOISE[:60_000])] * 60
    ),
}


@pytest.mark.parametrize("kind", ["PNG", "PNG palette", "PNG grey alpha", "PNG 16 bit", "APNG"])
@pytest.mark.parametrize("name", PNGS)
def test_a_png_with_any_metadata_is_its_pixels(name: str, kind: str) -> None:
    plain = FILES[kind]()
    assert pixels(PNGS[name](plain)) == pixels(plain)


@pytest.mark.parametrize("kind", ["JPEG", "JPEG CMYK", "JPEG progressive", "MPO"])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_with_any_metadata_is_its_pixels(name: str, kind: str) -> None:
    plain = FILES[kind]()
    assert pixels(JPEGS[name](plain)) == pixels(plain)


@pytest.mark.parametrize("format", ["WEBP", "AVIF", "TIFF", "JPEG"])
def test_large_profiles_in_other_formats(format: str) -> None:
    plain, large = encoded(whole(), format), encoded(whole(), format, icc_profile=NOISE)
    assert len(large) > len(NOISE)
    assert pixels(large) == pixels(plain)


@pytest.mark.parametrize("field", ["exif", "xmp"])
def test_large_metadata_in_webp(field: str) -> None:
    large = encoded(whole(), "WEBP", **{field: NOISE})
    assert pixels(large) == pixels(encoded(whole(), "WEBP"))


@pytest.mark.parametrize("packed", [text, profile, international])
def test_a_bomb_in_the_metadata_is_never_unpacked(packed: Callable[[bytes], bytes]) -> None:
    """Each packs 64 MiB a thousandfold."""
    plain = FILES["PNG"]()
    bomb = beside_header(plain, *[packed(bytes(64 * MIB))] * 4)
    tracemalloc.start()
    try:
        assert pixels(bomb) == pixels(plain)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(bomb)
    finally:
        tracemalloc.stop()


def test_exif_segments_without_number_are_read_in_linear_time() -> None:
    """Pillow alone joins them one by one: 20,000 cost it 200 MB of copies, 1,400,000 a terabyte."""
    many = beside_start(FILES["JPEG"](), *[segment(0xE1, b"Exif\0\0abcd")] * 20_000)
    assert pixels(many) == pixels(FILES["JPEG"]())
    assert len(metadata.without(many)) < len(FILES["JPEG"]()) + 20
    image = Image.open(io.BytesIO(metadata.without(many)))
    assert len(image.info["exif"]) == 10


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff" * 100,
        b"\xff\x00" * 50,
        b"\xff\xd0\xff\xd7" * 50,
        b"neither" * 50,
        b"x\xff\x00y\xff\xff\xff\xd3",
    ],
)
def test_what_decoders_skip_between_segments_is_skipped(junk: bytes) -> None:
    clean = FILES["JPEG"]()
    assert clean[20] == 0xFF, "APP0 ends here"
    data = clean[:2] + b"\xff" + clean[2:20] + junk + clean[20:]
    assert metadata.without(data) == clean
    assert Image.open(io.BytesIO(data)).tobytes() == pixels(clean)


@pytest.mark.parametrize(
    "filler",
    [
        b"\xff",
        b"\xff\x00",
        b"\xff\xd0",
        b"\xff\xd8",
        b"\xff\xd9",
        b"\xff\xd0 ",
    ],
)
def test_a_header_without_end_does_not_keep_the_decoder_busy(filler: bytes) -> None:
    """Pillow reads on byte by byte: 20 MB of these keep it, and every other thread, for minutes."""
    data = b"\xff\xd8\xff" + filler * 400_000
    assert len(metadata.without(data)) <= 5
    with pytest.raises(TruncatedImage, match="header is damaged"):
        decode(data, MAX_PIXELS)


@pytest.mark.parametrize(
    ("filler", "says"),
    [
        (b"\xff\xfe\0\2", "more than 100,000 segments before its pixels"),
        (b"\xff\xe1\0\x0cExif\0\0abcd", "more than 100,000 segments before its pixels"),
        (b"\xff\xe0\0\2", "more than 1,000 tables before its pixels"),
        (b"\xff\xdb\0\x43" + bytes(65), "more than 1,000 tables before its pixels"),
    ],
)
def test_a_header_of_too_many_segments_is_refused_at_once(filler: bytes, says: str) -> None:
    """Pillow takes seconds, and on some of them square time."""
    began = time.process_time()
    with pytest.raises(TooManyPixels, match=says):
        decode(b"\xff\xd8\xff" + filler[1:] + filler * 300_000, MAX_PIXELS)
    assert time.process_time() - began < 8


@pytest.mark.parametrize("kind", [b"IDAT", b"PLTE", b"tEXt", b"fdAT"])
@pytest.mark.parametrize("place", [beside_header, at_end])
def test_a_png_of_too_many_chunks_is_refused_at_once(
    kind: bytes, place: Callable[..., bytes]
) -> None:
    data = place(FILES["PNG"](), chunk(kind, b"") * 300_000)
    began = time.process_time()
    with pytest.raises(TooManyPixels, match="the PNG has more than 100,000 chunks"):
        decode(data, MAX_PIXELS)
    assert time.process_time() - began < 8


@pytest.mark.parametrize("name", FILES)
def test_a_cut_leaves_what_pillow_reads_of_the_image(name: str) -> None:
    data = FILES[name]()
    cut = metadata.without(data)
    assert Image.open(io.BytesIO(cut)).convert("RGB").tobytes() == (
        Image.open(io.BytesIO(data)).convert("RGB").tobytes()
    )
    assert metadata.without(cut) == cut


@pytest.mark.parametrize("name", ["BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG", "PNG"])
def test_a_file_without_any_is_not_copied(name: str) -> None:
    data = FILES[name]()
    assert metadata.without(data) is data


def xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta tiff:Orientation="{orientation}"/>'.encode()


def raw_exif(kind: bytes) -> bytes:
    """A PNG's EXIF as ImageMagick wrote it before there was a chunk for it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    written = f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n".encode()
    packed = b"\0" + zlib.compress(written) if kind == b"zTXt" else written
    return chunk(kind, b"Raw profile type exif\0" + packed)


@pytest.mark.parametrize(
    "data",
    [
        FILES["JPEG EXIF"](),
        beside_start(FILES["JPEG EXIF"](), *[segment(0xFE, b"comment")] * 5000),
        beside_start(FILES["JPEG"](), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(6))),
        encoded(whole(), "PNG", exif=Image.open(io.BytesIO(FILES["JPEG EXIF"]())).getexif()),
        beside_header(FILES["PNG"](), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6))),
        beside_header(FILES["PNG"](), raw_exif(b"tEXt")),
        beside_header(FILES["PNG"](), raw_exif(b"zTXt"), text(NOISE)),
    ],
    ids=["EXIF", "EXIF among comments", "XMP", "PNG EXIF", "PNG XMP", "PNG text", "packed text"],
)
def test_which_way_is_up_is_kept(data: bytes) -> None:
    assert decode(data, MAX_PIXELS).size == (40, 30)
    assert decode(data, MAX_PIXELS, exif_orientation=True).size == (30, 40)


@pytest.mark.parametrize("content", [FLAT, NOISE], ids=["bomb", "noise"])
@pytest.mark.parametrize("method", [b"\0", b"\1"])
def test_exif_in_a_text_that_pillow_does_not_read(content: bytes, method: bytes) -> None:
    raw = chunk(b"zTXt", b"Raw profile type exif\0" + method + zlib.compress(content))
    data = beside_header(FILES["PNG"](), raw)
    assert metadata.without(data) == FILES["PNG"]()
    assert pixels(data, exif_orientation=True) == pixels(FILES["PNG"]())


def test_a_long_exif_text_is_cut_out() -> None:
    """Pillow takes thirty times its size."""
    raw = chunk(b"tEXt", b"Raw profile type exif\0\n\n\n" + b"00\n" * MIB)
    data = beside_header(FILES["PNG"](), raw)
    assert metadata.without(data) == FILES["PNG"]()
    assert pixels(data, exif_orientation=True) == pixels(FILES["PNG"]())


def test_what_breaks_off_is_left_for_the_decoder() -> None:
    png, jpeg = FILES["PNG"](), FILES["JPEG"]()
    for broken in (
        png[:33] + text(NOISE)[:1000],
        png[:33] + b"\xff\xff\xff\xffzTXt" + png[33:],
        jpeg[:2] + segment(0xE2, NOISE[:60_000])[:1000],
        jpeg[:2] + b"\xff\xe2\xff",
    ):
        assert metadata.without(broken) == broken
        with pytest.raises(TruncatedImage):
            decode(broken, MAX_PIXELS)


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_any_bytes_whatever_come_to_an_end(start: bytes) -> None:
    dice = random.Random(start)
    for _ in range(500):
        noise = bytes(
            dice.choices(b"\xff\xd8\xd9\xda\xe1\xe2\xfe\0\1zTXtIDAT", k=dice.randrange(200))
        )
        assert len(metadata.without(start + noise)) <= len(start + noise)
    assert metadata.without(start) == start
