"""More than 8 bits a channel: scaled to 8, clipped as the reference does, or refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil

from score.contract.rows import Record, Row
from score.core.embedder import Embedder, parts_of
from score.errors import NotAnImage
from score.images.decode import decode
from score.images.preprocess import Preprocessor
from score.settings import Settings, WidePixels
from tests.support.bad_images import FILES, chunk, encoded, tiff
from tests.support.images import SAMPLES

Values = npt.NDArray[np.generic]
MAX_PIXELS = 1_000_000

GREY = np.asarray(Image.open(SAMPLES / "images" / "apple.png").convert("L"))
LEVELS = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def png16(values: Values, *chunks: bytes) -> bytes:
    """A PNG of 16 bits; grey, grey and alpha, RGB or RGBA by the last axis."""
    channels = values.shape[2] if values.ndim == 3 else 1
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    size = struct.pack(">II", values.shape[1], values.shape[0])
    header = chunk(b"IHDR", size + bytes([16, colour, 0, 0, 0]))
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + data + chunk(b"IEND", b"")


def tiff_of(values: Values, bits: int, sample: int, photometric: int = 1) -> bytes:
    """An uncompressed little-endian grey TIFF. `sample`: 1 unsigned, 2 signed, 3 float."""
    height, width = values.shape
    data = values.tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 339: sample}
    return tiff({**tags, 273: -1, 278: height, 279: len(data)}, data)


def pgm(values: Values, white: int) -> bytes:
    head = f"P5 {values.shape[1]} {values.shape[0]} {white}\n".encode()
    return head + values.astype(">u2").tobytes()


def pfm(values: Values) -> bytes:
    head = f"Pf {values.shape[1]} {values.shape[0]}\n-1.0\n".encode()
    return head + values[::-1].astype("<f4").tobytes()


def grey(data: bytes, **options: object) -> npt.NDArray[np.int_]:
    """The levels of an image that must be grey."""
    pixels = np.asarray(decode(data, MAX_PIXELS, **options)).astype(int)  # type: ignore[arg-type]
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def nearest(values: Values, white: float) -> npt.NDArray[np.int_]:
    """The nearest of 256 levels, by whole numbers: no value lies between two of them."""
    return (values.astype(np.int64) * 255 * 2 + int(white)) // (2 * int(white))


# -- 16 bits -----------------------------------------------------------------------------------

SIXTEEN = {
    "PNG": png16,
    "TIFF I;16": lambda values: encoded(Image.fromarray(values), "TIFF"),
    "TIFF I;16, packed": lambda v: encoded(Image.fromarray(v), "TIFF", compression="tiff_lzw"),
    "TIFF I;16B": lambda values: encoded(Image.fromarray(values.astype(">u2")), "TIFF"),
    "JPEG 2000": lambda values: encoded(Image.fromarray(values), "JPEG2000", irreversible=False),
    "PGM": lambda values: pgm(values, 65535),
}


@pytest.mark.parametrize("kind", SIXTEEN)
def test_each_of_65536_levels_becomes_the_nearest_of_256(kind: str) -> None:
    np.testing.assert_array_equal(grey(SIXTEEN[kind](LEVELS)), nearest(LEVELS, 65535))


@pytest.mark.parametrize("kind", SIXTEEN)
def test_what_was_widened_to_16_bits_comes_back(kind: str) -> None:
    widened = GREY.astype(np.uint16) * 257
    np.testing.assert_array_equal(grey(SIXTEEN[kind](widened)), GREY)


def test_a_tiff_of_12_bits_has_its_own_white() -> None:
    values = np.arange(4096).reshape(64, 64)
    pairs = values.reshape(-1, 2)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1
    ).astype(np.uint8)
    tags = {256: 64, 257: 64, 258: 12, 259: 1, 273: -1, 278: 64, 279: packed.size}
    np.testing.assert_array_equal(grey(tiff(tags, packed.tobytes())), nearest(values, 4095))


@pytest.mark.parametrize("white", [256, 1000, 1023, 4095, 65534])
def test_a_pgm_says_itself_which_level_is_white(white: int) -> None:
    values = np.arange(white + 1, dtype=np.uint16)[None]
    ours = grey(pgm(values, white))[0]
    assert (ours[0], ours[-1]) == (0, 255)
    # Pillow has rounded it to 16 bits before.
    assert np.abs(ours - nearest(values, white)[0]).max() <= 1


def test_white_may_be_zero() -> None:
    """Pillow turns 8 bits the right way round, 16 bits and floats not."""
    values = np.linspace(0, 65535, 50).astype(np.uint16)[None]
    np.testing.assert_array_equal(
        grey(tiff_of(values, 16, 1, photometric=0)), 255 - nearest(values, 65535)
    )
    assert grey(tiff_of(np.array([[0, 1]], np.float32), 32, 3, photometric=0)).tolist() == [
        [255, 0]
    ]


def test_one_level_may_be_transparent() -> None:
    values = np.array([[0, 257, 300, 65535]], np.uint16)
    data = png16(values, chunk(b"tRNS", struct.pack(">H", 257)))
    assert grey(data).tolist() == [[0, 255, 1, 255]]


def test_a_narrowed_image_may_be_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.array([[0, 257, 65535]], np.uint16)
    for format in ("PNG", "TIFF"):
        data = encoded(Image.fromarray(values), format, exif=exif)
        assert grey(data, exif_orientation=True).tolist() == [[0], [1], [255]]


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colour_and_alpha_of_16_bits_are_cut_to_their_upper_byte_by_pillow(channels: int) -> None:
    """For the reference as for us; what rounding would give is at most a level brighter."""
    values = np.repeat(LEVELS[..., None], channels, axis=2)
    if channels in (2, 4):
        values[..., -1] = 65535
    data = png16(values)
    for wide in ("scale", "reference"):
        np.testing.assert_array_equal(grey(data, wide=wide), LEVELS >> 8)
    assert (nearest(LEVELS, 65535) - (LEVELS >> 8)).max() == 1


def test_colour_of_16_bits_in_a_ppm_is_scaled_by_pillow() -> None:
    values = np.repeat(LEVELS[..., None], 3, axis=2)
    data = b"P6 256 256 65535\n" + values.astype(">u2").tobytes()
    assert np.abs(grey(data) - nearest(LEVELS, 65535)).max() <= 1
    assert grey(data, wide="error").max() == 255


# -- floats ------------------------------------------------------------------------------------

FLOATS = {
    "TIFF": lambda values: encoded(Image.fromarray(values), "TIFF"),
    "TIFF, packed": lambda v: encoded(Image.fromarray(v), "TIFF", compression="tiff_deflate"),
    "PFM": pfm,
}


@pytest.mark.parametrize("kind", FLOATS)
def test_floats_from_0_to_1_become_levels(kind: str) -> None:
    np.testing.assert_array_equal(grey(FLOATS[kind](GREY.astype(np.float32) / 255)), GREY)
    slope = np.linspace(0, 1, 256 * 40, dtype=np.float32).reshape(40, 256)
    np.testing.assert_array_equal(grey(FLOATS[kind](slope)), np.rint(slope * 255))


@pytest.mark.parametrize(
    ("value", "level"),
    # The last two are what interpolation leaves of 0 and 1.
    [(0.0, 0), (0.5, 128), (1.0, 255), (1e-40, 0), (-1e-9, 0), (1.0000001, 255)],
)
def test_floats_that_are_all_the_same(value: float, level: int) -> None:
    assert set(grey(pfm(np.full((3, 4), value))).ravel()) == {level}


OUTSIDE = {
    "above 1": ([0, 0.5, 1.5], "floats from 0 to 1.5, not from 0 to 1"),
    "below 0": ([-0.25, 0.5, 1], "floats from -0.25 to 1, not from 0 to 1"),
    "of 8 bits": ([0, 128, 255], "floats from 0 to 255, not from 0 to 1"),
    "just above 1": ([0, 0.5, 1 + 2**-14], "floats from 0 to 1.00006104, not from 0 to 1"),
    "infinite": ([0, 0.5, np.inf], "floats from 0 to inf, not from 0 to 1"),
    "NaN": ([0, np.nan, 1], "floats, and some are NaN"),
    "all NaN": ([np.nan] * 3, "floats, and some are NaN"),
}


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("name", OUTSIDE)
def test_other_floats_are_a_row_error_that_says_so(name: str, kind: str) -> None:
    values, says = OUTSIDE[name]
    with pytest.raises(NotAnImage) as caught:
        grey(FLOATS[kind](np.array([values], np.float32)))
    assert says in caught.value.message


@pytest.mark.parametrize("ordered", [0.0, 1.0])
def test_floats_that_pillow_misreads_are_refused(ordered: float) -> None:
    """Big-endian and packed: 1.0 would come out as 4.6e-41, a black image."""
    packed = zlib.compress(np.full((10, 10), ordered, ">f4").tobytes())
    # (tag, type, value): a short stands in the first two of its four bytes
    entries = [(256, 3, 10), (257, 3, 10), (258, 3, 32), (259, 3, 8), (262, 3, 1)]
    entries += [(273, 4, 8 + 2 + 12 * 10 + 4), (277, 3, 1), (278, 3, 10)]
    entries += [(279, 4, len(packed)), (339, 3, 3)]
    directory = b"".join(
        struct.pack(">HHI", tag, type, 1)
        + (struct.pack(">HH", value, 0) if type == 3 else struct.pack(">I", value))
        for tag, type, value in entries
    )
    head = b"MM\0*" + struct.pack(">IH", 8, len(entries))
    with pytest.raises(NotAnImage, match="big-endian floats in a compressed TIFF"):
        grey(head + directory + bytes(4) + packed)


# -- integers that nothing says the white of ---------------------------------------------------

INTEGERS = {
    "32 bits": (np.array([[0, 5, 70000]], "<i4"), 32, 2),
    "32 bits without a sign": (np.array([[0, 5, 70000]], "<u4"), 32, 1),
    "16 bits with a sign": (np.array([[0, -5, 7000]], "<i2"), 16, 2),
    "32 bits, all small": (np.array([[0, 5, 255]], "<i4"), 32, 2),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_wide_integers_are_a_row_error_that_says_so(name: str) -> None:
    with pytest.raises(NotAnImage, match="with a sign or of 32 bits, and nothing says which"):
        grey(tiff_of(*INTEGERS[name]))


# -- the setting -------------------------------------------------------------------------------

WIDE = {
    **{name: make(np.tile(LEVELS[::16], (2, 1))) for name, make in SIXTEEN.items()},
    "float": FLOATS["TIFF"](GREY.astype(np.float32) / 255),
    "float, to 255": FLOATS["TIFF"](GREY.astype(np.float32)),
    "PFM": pfm(GREY.astype(np.float32) / 100),
    **{name: tiff_of(*values) for name, values in INTEGERS.items() if "without" not in name},
}


@pytest.mark.parametrize("name", WIDE)
def test_reference_is_the_reference(name: str) -> None:
    theirs = CLIPImageProcessorPil(do_rescale=False, do_normalize=False)(
        Image.open(io.BytesIO(WIDE[name])), return_tensors="np"
    )["pixel_values"][0]
    ours = Preprocessor.from_config({}).read(WIDE[name], MAX_PIXELS, wide="reference")
    np.testing.assert_array_equal(np.moveaxis(ours, -1, 0), theirs)


@pytest.mark.parametrize("name", WIDE)
def test_error_refuses_them_all(name: str) -> None:
    with pytest.raises(NotAnImage, match="not of 8 bits; wide_pixels=error"):
        decode(WIDE[name], MAX_PIXELS, wide="error")


@pytest.mark.parametrize("name", sorted(set(FILES) - {"PNG 16 bit", "TIFF 16 bit", "TIFF float"}))
def test_images_of_8_bits_are_the_same_whatever_the_setting(name: str) -> None:
    scaled, clipped, strict = (
        decode(FILES[name](), MAX_PIXELS, wide=wide).tobytes()  # type: ignore[arg-type]
        for wide in ("scale", "reference", "error")
    )
    assert scaled == clipped == strict


@pytest.mark.parametrize("decoding", ["exact", "fast"])
def test_a_scaled_image_has_the_vector_of_its_8_bits(embedder: Embedder, decoding: str) -> None:
    settings = Settings(decoding=decoding)  # type: ignore[arg-type]
    model = Embedder(*parts_of(embedder), settings)
    eight = encoded(Image.fromarray(GREY), "PNG")
    widened = [make(GREY.astype(np.uint16) * 257) for make in SIXTEEN.values()]
    floats = [make(GREY.astype(np.float32) / 255) for make in FLOATS.values()]
    expected = model.embed_image(eight)
    for data in (*widened, *floats):
        np.testing.assert_allclose(model.embed_image(data), expected, rtol=1e-5, atol=1e-6)


def test_the_setting_reaches_every_row(embedder: Embedder) -> None:
    def embed(wide: WidePixels) -> list[Record]:
        settings = Settings(wide_pixels=wide)
        model = Embedder(*parts_of(embedder), settings)
        return list(model.embed([Row(image=WIDE["PNG"]), Row(image=WIDE["float, to 255"])]))

    scaled, clipped, strict = map(embed, get_args(WidePixels))
    assert [record.error and record.error.code for record in scaled] == [None, "not_an_image"]
    assert [record.error for record in clipped] == [None, None]
    assert all("wide_pixels=error" in str(record.error) for record in strict)
    one, other = scaled[0].image_features, clipped[0].image_features
    assert one is not None
    assert other is not None
    assert not np.allclose(one, other)
