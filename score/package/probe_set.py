"""The probes of a package: the reference's vectors for a fixed set of texts and images.

The images are generated, so they need no licence, and small. Each detects a kind of mistake: fine
checkerboards a resize without antialiasing or with another filter, long images a wrong crop,
palettes, transparency and CMYK a wrong conversion to RGB.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image

from score.images.preprocess import Pixels
from score.model.probes import TOLERANCES, ImageProbe, Probes, TextProbe, sample
from score.package.reference import Reference

# The first is computed at every load: it has many tokens and does not fill the context.
TEXTS = (
    "A photo of a Red Apple (2 of 3), next to a dog's bowl & a half-empty glass!",
    "cat",
    "a diagram",
    "  tabs\tand\nlines,   and spaces  ",
    "The Chrysler Building, 405 Lexington Ave., New York, NY 10174",
    "ein Fahrrad an einer Straße in Köln – naïve façade, smørrebrød",
    "кошка спит на диване",
    "一只猫坐在窗边看雨",
    "窓辺に座る猫の写真です",
    "고양이가 창가에 앉아 있다",
    "قطة تجلس بجانب النافذة",
    "खिड़की के पास बैठी बिल्ली",
    "แมวนั่งอยู่ริมหน้าต่าง",
    "🐈‍⬛ on a 🛋️, 👩‍👩‍👧 and 🇳🇿",
    "ﬁne ½ x² ① Ａ ΑΒΓ ß",
    # What ftfy and html.unescape repair: nested entities, curly quotes, mojibake, full width.
    "Tom &amp;amp; Jerry’s “cafÃ©” – ＬＯＵＤ ﬂoors, ΟΔΟΣ &lt;b&gt; J̌",
    " ".join(["a very long description of a picture that does not fit"] * 12),
)


_MOST_TOKENS = 32  # added tokens that have a probe
_LABELS = 8  # texts that are labels, too
_LABELLED = 2  # images that are given them


def text_with(token: str) -> str:
    """A text with an added token as a word, within a word, in swapped case, and at the end."""
    return f"a {token} of x{token}y, {token.swapcase()}  {token}"


def reference_probes(reference: Reference) -> Probes:
    """The probes, with the reference's token ids, pixels and vectors."""
    return Probes(
        reference=reference.name,
        architecture=reference.architecture,
        texts=tuple(
            TextProbe(text, reference.ids(text), reference.text_vector(text))
            for text in (*TEXTS, *map(text_with, reference.added_tokens()[:_MOST_TOKENS]))
        ),
        images=tuple(
            ImageProbe(name, data, sample(reference.pixels(data)), reference.image_vector(data))
            for name, data in images().items()
        ),
        tolerances=TOLERANCES,
        probabilities=reference.probabilities(TEXTS[:_LABELS], [*images().values()][:_LABELLED]),
    )


@functools.cache
def images() -> dict[str, bytes]:
    """Name → image, each in a lossless format, the same bytes every time."""
    colours = Image.fromarray(_chequers(300, 301)).quantize(8, dither=Image.Dither.NONE)
    alpha = np.dstack([_chequers(300, 300), _ramp(300, 300)])
    noise = np.random.default_rng(20261121).integers(0, 256, (64, 65, 3), dtype=np.uint8)
    return {
        "chequers": _encoded(Image.fromarray(_chequers(840, 630)), "PNG"),
        "palette": _encoded(colours, "PNG", transparency=3),
        "alpha": _encoded(Image.fromarray(alpha), "PNG"),
        "cmyk": _encoded(Image.fromarray(_chequers(400, 400)).convert("CMYK"), "TIFF"),
        "grey, tall": _encoded(Image.fromarray(_ramp(60, 400)), "PNG"),
        "wide": _encoded(Image.fromarray(_chequers(500, 80)), "PNG"),
        "noise": _encoded(Image.fromarray(noise), "PNG"),
    }


def _chequers(width: int, height: int) -> Pixels:
    """Slanted squares of 2 to 7 pixels, in each channel of another size.

    They are full of edges, and repeat, so the files are small.
    """
    y, x = np.mgrid[0:height, 0:width]
    channels = [(x // 3 + y // 5) % 2, (x // 7 + y // 2) % 2, (x + y) // 4 % 2]
    pixels: Pixels = (np.stack(channels, axis=-1) * 200 + 30).astype(np.uint8)
    return pixels


def _ramp(width: int, height: int) -> Pixels:
    """Grey that runs from black to white along the diagonal."""
    y, x = np.mgrid[0:height, 0:width]
    pixels: Pixels = ((x + y) * 255 // (width + height - 2)).astype(np.uint8)
    return pixels


def _encoded(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    compression = {"compression": "tiff_adobe_deflate"} if format == "TIFF" else {"optimize": True}
    image.save(stream, format, **compression, **options)
    return stream.getvalue()
