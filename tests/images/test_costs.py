"""No file costs much more than an honest image of its size: time and memory in a child process."""

from __future__ import annotations

import base64
import functools
import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest
from PIL import Image, ImageOps

from score.images.decode import decode
from tests.support import bad_images
from tests.support.bad_images import FILES, encoded, longs, tiff_of, whole

MAX_PIXELS = 4_000_000
MIB = 2**20

# Per file. An honest image of 4,000,000 pixels takes some tenths of a second and 50 MiB.
DEADLINE = 2.0  # seconds of processor time
MEMORY = 100  # MiB

_CHILD = """
import base64, json, resource, sys, time
from score.errors import RowError
from score.images.decode import decode

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024

resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
for line in sys.stdin:
    data = base64.b64decode(line)
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # the peak starts anew
    before, began = status("VmRSS"), time.process_time()
    try:
        decode(data, int(sys.argv[1]), exif_orientation=True)
        said = "read"
    except RowError as error:
        said = f"{error.code}: {error.message}"
    used = time.process_time() - began
    print(json.dumps([said, used, status("VmHWM") - before]), flush=True)
"""


class Cost(NamedTuple):
    """What decoding a file came to: its message, seconds of processor time, MiB at the peak."""

    said: str
    seconds: float
    memory: float


def costs(files: list[bytes]) -> list[Cost]:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(MAX_PIXELS)],
        input=b"\n".join(map(base64.b64encode, files)),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.stderr == b""
    return [Cost(*json.loads(line)) for line in done.stdout.splitlines()]


# -- what is refused ---------------------------------------------------------------------------


def extension(label: int, *blocks: bytes) -> bytes:
    """A GIF's extension."""
    return b"!" + bytes([label]) + b"".join(bytes([len(it)]) + it for it in blocks) + b"\0"


def beside_image(gif: bytes, more: bytes) -> bytes:
    """A GIF with more before its first image."""
    at = gif.index(b",\0\0\0\0")
    return gif[:at] + more + gif[at:]


def packed(side: int) -> bytes:
    return zlib.compress(bytes(side * side), 9)


_STRIPS = 200_000
_FRACTIONS = 500_000


def avif_of(size: tuple[int, int], avif: bytes) -> bytes:
    """An AVIF whose header states another size than its frames have."""
    at = avif.index(b"ispe") + 8
    return bad_images.patched(avif, at, struct.pack(">II", *size))


def avif_of_film(size: tuple[int, int]) -> bytes:
    """An AVIF film of two frames, whose header states 10×10 pixels and hides its still image."""
    frames = [Image.new("L", size, level) for level in (0, 255)]
    data = encoded(frames[0], "AVIF", speed=10, save_all=True, append_images=frames[1:])
    data = avif_of((10, 10), data).replace(b"av01Color", b"none\0    ", 1)
    width, height = size
    track = struct.pack(">II", width << 16, height << 16)
    return data.replace(track, struct.pack(">II", 10 << 16, 10 << 16))


def avif_of_frames(image: Image.Image, more: int) -> bytes:
    """An AVIF whose frame is repeated, in an item that ends with the file."""
    data = encoded(image, "AVIF", speed=10)
    start = data.index(b"mdat") + 4
    place, length = data.index(struct.pack(">II", start, len(data) - start)), len(data) - start
    frame = data[start + 4 + data[start + 3] :]  # behind a delimiter and the sequence's header
    longer = struct.pack(">II", start, length + more * len(frame))
    return bad_images.patched(data, place, longer) + more * frame


def tile_of(kind: int, count: int = 1) -> bytes:
    """A TIFF of 10×10 pixels in a tile of 20,000×20,000, whose size is told in an unusual way."""
    data = packed(6000)
    side = (kind, count, (20_000).to_bytes(8, "little") * count)
    return tiff_of(
        {259: (4, 1, 8), 322: side, 323: side, 324: (4, 1, 1024), 325: (4, 1, len(data))}, data
    )


def tiff_exif() -> bytes:
    """A TIFF whose EXIF, a directory of its own, holds half a million fractions."""
    count, start = _FRACTIONS, 1024
    exif = b"\1\0"
    exif += (0x9000).to_bytes(2, "little") + b"\5\0" + count.to_bytes(4, "little")
    exif += (start + 32).to_bytes(4, "little") + bytes(4)
    tags = {273: (4, 1, 8), 278: (4, 1, 10), 279: (4, 1, 100), 34665: (4, 1, start)}
    return tiff_of(tags, exif.ljust(32, b"\0") + b"\3\0\0\0\7\0\0\0" * count)


def tiff_of_jpeg(
    jpeg: bytes,
    tags: Mapping[int, tuple[int, int, int | bytes]] | None = None,
    size: int = 100_000,
) -> bytes:
    """A TIFF of 1000×1000 pixels in one strip, a JPEG that is filled up to a size in bytes."""
    sides = {256: (4, 1, 1000), 257: (4, 1, 1000), 278: (4, 1, 1000)}
    place = {259: (4, 1, 7), 273: (4, 1, 1024), 279: (4, 1, size)}
    return tiff_of({**sides, **place, **(tags or {})}, jpeg.ljust(size, b"\0"))


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "GIF, comment of small blocks": (
        lambda: beside_image(FILES["GIF"](), extension(0xFE, *[b"x"] * 500_000)),
        "the GIF has more than 100,000 blocks before its first image",
    ),
    "GIF, many comments": (
        lambda: beside_image(FILES["GIF"](), extension(0xFE, b"x") * 200_000),
        "100,000 blocks",
    ),
    "GIF, many controls": (
        lambda: beside_image(FILES["GIF"](), extension(0xF9, bytes(4)) * 100_000),
        "100,000 blocks",
    ),
    "GIF, junk": (lambda: beside_image(FILES["GIF"](), bytes(MIB)), "100,000 blocks"),
    "PPM, comments among the numbers": (
        lambda: b"P3 40 30 255 " + b"#\n" * (MIB // 2) + b"1 2 3 " * 1200,
        "the PPM has more than 10,000 comments",
    ),
    "PPM, long comment": (
        lambda: b"P6 #" + b"x" * (8 * MIB) + b"\n40 30 255 " + bytes(3600),
        "the PPM's header is longer than 65,536 bytes",
    ),
    "PPM, long blank": (lambda: b"P4 40" + b" " * (8 * MIB) + b"30 " + bytes(150), "header is"),
    "TIFF, strips": (
        lambda: tiff_of(
            {
                257: (4, 1, _STRIPS),
                256: (4, 1, 1),
                278: (4, 1, 1),
                273: longs(8, times=_STRIPS),
                279: longs(1, times=_STRIPS),
            }
        ),
        "the TIFF has 200,000 strips or tiles, more than 100,000",
    ),
    "TIFF, strips that the size asks for": (
        lambda: tiff_of(
            {
                256: (4, 1, 1),
                257: (4, 1, MAX_PIXELS),
                259: (4, 1, 32773),
                278: (4, 1, 1),
                273: (4, 1, 8),
                279: (4, 1, 100),
            }
        ),
        "the TIFF has 4,000,000 strips or tiles",
    ),
    "TIFF, tiles of a pixel": (
        lambda: tiff_of(
            {
                256: (4, 1, 500),
                257: (4, 1, 400),
                322: (4, 1, 1),
                323: (4, 1, 1),
                324: longs(8, times=_STRIPS),
                325: longs(1, times=_STRIPS),
            }
        ),
        "strips or tiles",
    ),
    "TIFF, tile size of 64 bits": (lambda: tile_of(17), "its tiles of 20000×20000"),
    "TIFF, two tile sizes": (lambda: tile_of(4, 2), "its tiles of 20000×"),
    "TIFF, strips that overlap, of reversed bits": (
        lambda: tiff_of(
            {
                256: (4, 1, 8),
                257: (4, 1, 50_000),
                258: (4, 1, 1),
                259: (4, 1, 32773),
                266: (4, 1, 2),
                278: (4, 1, 1),
                273: longs(1024, times=50_000),
                279: longs(500_000, times=50_000),
            },
            bytes(500_000),
        ),
        "the TIFF's strips are larger together than the file",
    ),
    "TIFF, EXIF of many fractions": (tiff_exif, "EXIF tags hold more than 10,000 numbers"),
    "TIFF, tags that overlap": (
        lambda: tiff_of(
            {
                273: (4, 1, 8),
                278: (4, 1, 10),
                279: (4, 1, 100),
                **{50_000 + number: (7, 900_000, 8) for number in range(60)},
            },
            bytes(900_000),
        ),
        "tags are larger together than the file",
    ),
    "TIFF, very many tags": (
        lambda: (
            b"II+\0\x08\0\0\0"
            + struct.pack("<QQ", 16, 70_000)
            + b"".join(struct.pack("<HHQQ", 40_000, 3, 1, 8) for _ in range(70_000))
        ),
        "it has 70,000 TIFF or EXIF tags, more than 65,535",
    ),
    "TIFF, JPEG of many scans": (
        lambda: tiff_of_jpeg(bad_images.jpeg_of_scans((1000, 1000), 200)),
        "painted over more than 80 times",
    ),
    "TIFF, JPEG of many scans behind the marker of an end": (
        lambda: tiff_of_jpeg(
            bad_images.jpeg_of_scans((1000, 1000), 200), {50_000: (7, 8, b"\xff\xd9" * 4)}
        ),
        "painted over more than 80 times",
    ),
    "TIFF, JPEG of many scans in a tile of which little is seen": (
        lambda: tiff_of_jpeg(
            bad_images.jpeg_of_scans((2000, 2000), 200),
            {256: (4, 1, 16), 257: (4, 1, 16), 322: (4, 1, 2000), 323: (4, 1, 2000)},
        ),
        "painted over more than 20 times",
    ),
    "TIFF, JPEGs that overlap": (
        lambda: tiff_of_jpeg(
            bad_images.jpeg_of_scans((1000, 1000), 0),
            {
                278: (4, 1, 1),
                273: longs(*range(10_000, 11_000)),
                279: longs(10**6, times=1000),
            },
            10**6,
        ),
        "the TIFF's strips are larger together than the file",
    ),
    "AVIF, frames larger than its header says": (
        lambda: avif_of((10, 10), encoded(Image.new("L", (3000, 2000)), "AVIF", speed=10)),
        "its frames of 3000×2000 are more than 4,000,000 pixels",
    ),
    "AVIF, film larger than its header says": (
        lambda: avif_of_film((3000, 2000)),
        "its frames of 3000×2000 are more than 4,000,000 pixels",
    ),
    "AVIF, frames that are not shown": (
        lambda: avif_of_frames(Image.new("L", (1000, 1000)), 40),
        "the AVIF's frames are more than 8 × 4,000,000 pixels together",
    ),
    "BMP, runs beyond the end of a row": (
        lambda: bad_images.bmp_of_runs((10, 10), b"\xff\0" * (8 * MIB)),
        "the BMP has more than two bytes for each of its 10×10 pixels",
    ),
    "JPEG, thin, of many scans": (
        lambda: bad_images.jpeg_of_scans((1, 60_000), 900),
        "painted over more than",
    ),
    "JPEG 2000, tiles of a pixel": (
        lambda: bad_images.jpeg2000_of_tiles(Image.new("RGB", (256, 255)), 1, no_jp2=True),
        "the JPEG 2000 has 65,280 tiles of 3 components, too many for 65,280 pixels",
    ),
    "JPEG 2000 in boxes, tiles of a pixel": (
        lambda: bad_images.jpeg2000_of_tiles(Image.new("RGBA", (256, 255)), 1),
        "65,280 tiles of 4 components",
    ),
    "JPEG 2000, layers": (
        lambda: bad_images.jpeg2000_of_packets(Image.new("RGB", (256, 256)), 65_535),
        "packets, too many for 65,536 pixels",
    ),
    "JPEG 2000, small precincts": (
        lambda: bad_images.jpeg2000_of_packets(Image.new("RGB", (2000, 2000)), 1, side=1),
        "packets, too many for 4,000,000 pixels",
    ),
    "JPEG 2000, boxes": (
        lambda: FILES["JPEG2000"]()[:12] + b"\0\0\0\x08free" * 100_000,
        "the file has more than 1,000 boxes",
    ),
}


@pytest.fixture(scope="module")
def refused() -> dict[str, Cost]:
    files = [make() for make, _ in REFUSED.values()]
    return dict(zip(REFUSED, costs(files), strict=False))


@pytest.mark.process
@pytest.mark.parametrize("name", REFUSED)
def test_a_file_of_too_many_parts_is_refused_at_once(name: str, refused: dict[str, Cost]) -> None:
    cost = refused[name]
    assert cost.said.startswith("too_many_pixels: ")
    assert REFUSED[name][1] in cost.said
    assert cost.seconds < DEADLINE
    assert cost.memory < MEMORY


# -- what is read ------------------------------------------------------------------------------


def noise(size: tuple[int, int] = (2000, 2000), mode: str = "RGB") -> Image.Image:
    """Some colours that compress well, of as many pixels as are allowed."""
    return whole(size=(size[0] // 8, size[1] // 8)).convert(mode).resize(size)


def tiff_in_rows() -> bytes:
    """A TIFF of a strip for each of its 50,000 rows."""
    height = 50_000
    tags = {256: (4, 1, 80), 257: (4, 1, height), 278: (4, 1, 1)}
    start = len(tiff_of({**tags, 273: longs(0, times=height), 279: longs(80, times=height)}))
    offsets = (4, height, struct.pack(f"<{height}I", *range(start, start + 80 * height, 80)))
    return tiff_of({**tags, 273: offsets, 279: longs(80, times=height)}, bytes(80 * height))


def gif_with_xmp() -> bytes:
    """Adobe's programs write the text as it is, whose bytes then are the blocks' lengths."""
    trailer = b"\1" + bytes(range(255, -1, -1))
    xmp = b"<x:xmpmeta>" + b"some text " * 50_000 + b"</x:xmpmeta>"
    return beside_image(FILES["GIF"](), b"!\xff\x0bXMP DataXMP" + xmp + trailer + b"\0")


HONEST: dict[str, Callable[[], bytes]] = {
    "TIFF, a strip for each row": tiff_in_rows,
    "TIFF of JPEG": lambda: encoded(noise(), "TIFF", compression="jpeg"),
    "TIFF of JPEG, pages": lambda: encoded(
        noise(), "TIFF", compression="jpeg", save_all=True, append_images=[noise()] * 29
    ),
    "TIFF of JPEG, pages of a strip": lambda: encoded(
        noise(),
        "TIFF",
        compression="jpeg",
        tiffinfo={278: 2000},
        save_all=True,
        append_images=[noise()] * 29,
    ),
    "TIFF, big": lambda: encoded(noise(), "TIFF", big_tiff=True, compression="tiff_lzw"),
    "GIF, long XMP": gif_with_xmp,
    "PPM, a comment for each row": lambda: (
        b"P3\n# made by hand\n40 30 255\n" + (b"1 2 3 " * 40 + b"# a row\n") * 30
    ),
    "PPM, pixels like blanks": lambda: b"P5 1000 1000 255\n" + b" " * 10**6,
    "PPM, pixels like comments": lambda: b"P6 1000 1000 255\n" + b"#" * 3 * 10**6,
    "JPEG 2000, small tiles": lambda: encoded(noise(), "JPEG2000", tile_size=(128, 128)),
    "JPEG 2000, small precincts": lambda: encoded(
        noise(), "JPEG2000", precinct_size=(128, 128), quality_layers=[80, 40, 20, 10, 5]
    ),
    "JPEG 2000, an icon": lambda: encoded(noise((64, 64)), "JPEG2000", tile_size=(16, 16)),
    "AVIF, transparent": lambda: encoded(noise(mode="RGBA"), "AVIF", speed=10),
    "AVIF, odd": lambda: encoded(noise((1999, 1999)), "AVIF", speed=10),
    "AVIF, film": lambda: encoded(
        whole(), "AVIF", save_all=True, append_images=[whole(number) for number in range(30)]
    ),
    "JPEG, progressive, thin": lambda: encoded(
        Image.new("RGB", (1, 60_000)), "JPEG", progressive=1
    ),
    "BMP, runs": lambda: bad_images.bmp_of_runs((100, 100), (b"\x64\7\0\0" * 100) + b"\0\1"),
}


@pytest.mark.process
@pytest.mark.parametrize("name", HONEST)
def test_an_honest_file_of_many_parts_is_read_as_pillow_reads_it(name: str) -> None:
    data = HONEST[name]()
    with Image.open(io.BytesIO(data)) as image:
        expected = image.convert("RGBA" if "A" in image.getbands() else "RGB")
    if expected.mode == "RGBA":
        white = Image.new("RGBA", expected.size, (255, 255, 255, 255))
        expected = Image.alpha_composite(white, expected).convert("RGB")
    assert decode(data, MAX_PIXELS).tobytes() == expected.tobytes()


TURNS = {
    name: functools.partial(encoded, whole(), kind, exif=bad_images.exif_of(turn))
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF")
    for turn in range(10)
    for name in [f"{kind} {turn}"]
}


@pytest.mark.parametrize("name", TURNS)
def test_images_are_turned_as_pillow_turns_them(name: str) -> None:
    data = TURNS[name]()
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image.convert("RGB") if image.mode != "RGB" else image)
    upright = decode(data, MAX_PIXELS, exif_orientation=True)
    assert (upright.size, upright.tobytes()) == (expected.size, expected.tobytes())
