"""Trains the embedded model: a small CLIP that knows emoji, from nothing but a font and its names.

`python -m score.training.loop FOLDER` draws the images, writes the captions, trains and leaves a
model folder. The images are the glyphs of Debian's `fonts-noto-color-emoji`, drawn by Pillow at
random size, place, rotation, colour and background; the words are the names and synonyms that the
`emoji` package carries. Nothing is read from the network. The same seed gives the same weights, on
a CPU with the same libraries and number of threads.

The recipe is CLIP's (Radford et al., 2021, https://arxiv.org/abs/2103.00020): two transformers, one
learned temperature, a contrastive loss both ways. A batch that two cores can manage is small, so
after a while it is made of hard negatives, groups of look-alikes: told apart are grapes from
blueberries, not grapes from trains (as Harwood et al., 2017, "Smart mining for deep metric
learning", https://arxiv.org/abs/1704.01285). Beside it, everything is told apart from everything
else, by one learned vector of each.
"""

from __future__ import annotations

import colorsys
import io
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps, features
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor

from score.checkpoints import canonical
from score.checkpoints.source import Source
from score.console.commands import Parser, needed, run
from score.errors import ModelError
from score.folder.architecture import Architecture, Text, Transformer, Vision
from score.hardware.processor import cores
from score.images.preprocess import CLIP_MEAN, CLIP_STD
from score.model.probes import FILE as PROBES
from score.texts.tokenizer import CLIP_BEGIN, CLIP_END, clip_tokenizer

with needed(__name__):
    import emoji
    from transformers import CLIPConfig, CLIPModel

# --- Config ---------------------------------------------------------------------------------------

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")


@dataclass(frozen=True)
class Config:
    """What a run is made of."""

    seed: int = 20261121
    steps: int = 7600
    batch: int = 192  # images a step, each of another pictogram
    rate: float = 3e-3  # of learning, at its highest
    warmup: int = 100  # steps until then
    decay: float = 0.1  # of weights, per unit of rate
    mixed: float = 0.2  # first share of the steps, in which a batch is of any pictograms
    group: int = 16  # look-alikes that come together in a batch after that
    keep: float = 0.5  # share of an image's patches that the tower is shown (FLIP), but at the end
    whole: float = 0.2  # last share of the steps, in which it is shown all
    image: int = 96  # pixels
    patch: int = 16
    width: int = 192
    layers: int = 3
    text_width: int = 128
    text_layers: int = 3
    vocabulary: int = 8192

    @property
    def architecture(self) -> Architecture:
        """The model's shape: CLIP's own, smaller."""

        def tower(width: int, layers: int) -> Transformer:
            return Transformer(width, layers, width // 64, 4 * width, "gelu")

        begin, end = self.vocabulary - 2, self.vocabulary - 1
        return Architecture(
            kind="clip",
            dimension=512,
            vision=Vision(tower(self.width, self.layers), image=self.image, patch=self.patch),
            text=Text(
                tower(self.text_width, self.text_layers), self.vocabulary, 77, begin, end, pad=end
            ),
        )


# --- Data: what there is to see, and what it is called --------------------------------------------

LANGUAGES = ("de", "es", "fr", "it", "pt")

GROUPS = {
    "fruit": "🍇🍈🍉🍊🍋🍌🍍🥭🍎🍏🍐🍑🍒🍓🫐🥝🍅🫒🥥",
    "vegetable": "🥑🍆🥔🥕🌽🌶️🫑🥒🥬🥦🧄🧅🫛🫚",
    "drink": "🍼🥛☕🫖🍵🍶🍾🍷🍸🍹🍺🍻🥂🥃🥤🧋🧃🧉",
    "dessert": "🍦🍧🍨🍩🍪🎂🍰🧁🥧🍫🍬🍭🍮🍯",
    "animal": (
        "🐒🦍🦧🐕🐩🐺🦊🐈🦁🐅🐆🐎🦄🦓🦌🦬🐂🐃🐄🐖🐗🐏🐑🐐🐪🐫🦙🦒🐘🦣🦏🦛🐁🐀🐹🐇🦫🦔🦇🐻🐨🐼🦥🦦🦨🦘🦡"
    ),
    "bird": "🦃🐔🐓🐣🐤🐥🐦🐧🕊️🦅🦆🦢🦉🦤🦩🦚🦜🪿",
    "sea animal": "🐳🐋🐬🦭🐟🐠🐡🦈🐙🐚🪸🪼🦀🦞🦐🦑🦪",
    "insect": "🐌🦋🐛🐜🐝🪲🐞🦗🪳🕷️🦂🦟🪰",
    "flower": "💐🌸🪷🏵️🌹🥀🌺🌻🌼🌷🪻",
    "plant": "🪴🌱🌲🌳🌴🌵🌾🌿☘️🍀🍁🍂🍃",
    "vehicle": "🚂🚃🚄🚅🚆🚇🚈🚉🚊🚝🚞🚋🚌🚍🚎🚐🚑🚒🚓🚔🚕🚖🚗🚘🚙🛻🚚🚛🚜🏎️🏍️🛵🛺🚲🛴",
    "ship": "⛵🛶🚤🛳️⛴️🛥️🚢",
    "aircraft": "✈️🛩️🛫🛬🚁🚀🛸",
    "building": "🏛️🏠🏡🏢🏣🏤🏥🏦🏨🏩🏪🏫🏬🏭🏯🏰⛪🕌🛕🕍",
    "musical instrument": "🪗🎷🎸🎹🎺🎻🪕🥁🪘🪇🪈",
    "sport": "⚽⚾🥎🏀🏐🏈🏉🎾🥏🎳🏏🏑🏒🥍🏓🏸🥊",
    "clothing": "👔👕👖🧣🧤🧥🧦👗👘🥻🩱🩲🩳👙👚👠👡🩰👢👞👟🥾🥿👒🎩🎓🧢",
    "tool": "🔨🪓⛏️⚒️🛠️🗡️🪚🔧🪛🔩🗜️🔗⛓️🪝🧰🧲🪜",
    "weather": "☀️⛅⛈️🌤️🌥️🌦️🌧️🌨️🌩️🌪️🌫️☔⚡❄️☃️⛄🌈",
}
"""The `emoji` package has no groups; these are ours, of what is a kind of something."""

COLOURS = {
    "red": (215, 40, 45),
    "orange": (245, 140, 30),
    "yellow": (250, 205, 50),
    "green": (70, 160, 65),
    "blue": (45, 110, 205),
    "purple": (130, 70, 175),
    "pink": (245, 135, 180),
    "brown": (125, 80, 50),
    "black": (35, 35, 38),
    "white": (245, 245, 245),
    "gray": (140, 145, 150),
}

_TEMPLATES = (
    "a photo of {a}",
    "a picture of {a}",
    "an image of {a}",
    "a drawing of {a}",
    "an icon of {a}",
    "an emoji of {a}",
    "a small picture of {a}",
    "a blurry photo of {a}",
    "a close-up of {a}",
    "this is {a}",
    "there is {a}",
    "{a}",
    "the {name}",
    "one {name}",
    "{name} emoji",
    "{name} icon",
    "{names}",
    "a photo of {names}",
    "a photo of the {name}",
    "my {name}",
)

_NUMBERS = ("", "one", "two", "three", "four")


@dataclass(frozen=True)
class Pictogram:
    """One emoji: its glyph, RGBA, and what it is called."""

    character: str
    name: str
    synonyms: tuple[str, ...]
    foreign: tuple[str, ...]  # its name in each of LANGUAGES, where there is one
    group: str | None
    glyph: Image.Image

    @property
    def code(self) -> str:
        """Its code points, as Twemoji names its files."""
        joined = "\u200d" in self.character
        letters = self.character if joined else self.character.replace("\ufe0f", "")
        return "-".join(f"{ord(letter):x}" for letter in letters)

    @cached_property
    def colour(self) -> str | None:
        """The word for the colour of most of it, if it has one."""
        pixels = np.asarray(self.glyph.resize((24, 24), Image.Resampling.BOX)).reshape(-1, 4)
        seen = [_colour_word(*pixel[:3]) for pixel in pixels.tolist() if pixel[3] > 127]
        commonest = max(COLOURS, key=seen.count)
        return commonest if seen.count(commonest) > 0.5 * len(seen) else None


def _colour_word(red: int, green: int, blue: int) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    if value < 0.25:
        return "black"
    if saturation < 0.15:
        return "white" if value > 0.85 else "gray"
    if value < 0.6 and hue < 0.12:
        return "brown"
    if saturation < 0.55 and value > 0.8 and (hue > 0.85 or hue < 0.02):
        return "pink"
    bounds = [(0.045, "red"), (0.105, "orange"), (0.18, "yellow"), (0.46, "green")]
    bounds += [(0.7, "blue"), (0.83, "purple"), (0.93, "pink"), (1.01, "red")]
    return next(word for bound, word in bounds if hue < bound)


def pictograms(font: Path = FONT) -> list[Pictogram]:
    """Every emoji without a skin tone that the font has a glyph of, in the order of their names."""
    if not font.is_file():
        raise ModelError(f"no font {font}: apt install fonts-noto-color-emoji")
    if not features.check("raqm"):
        raise ModelError("Pillow cannot join emoji without libraqm: apt install libfribidi0")
    for language in LANGUAGES:
        emoji.config.load_language(language)
    try:
        face = ImageFont.truetype(str(font), 109, layout_engine=ImageFont.Layout.RAQM)
    except OSError as error:
        raise ModelError(f"{font} is no font with colour glyphs of 109 pixels: {error}") from error
    groups = {
        character["emoji"]: group
        for group, characters in GROUPS.items()
        for character in emoji.emoji_list(characters)
    }
    found = []
    for character, entry in emoji.EMOJI_DATA.items():
        toned = any("\U0001f3fb" <= letter <= "\U0001f3ff" for letter in character)
        if entry["status"] != emoji.STATUS["fully_qualified"] or toned:
            continue
        box = face.getbbox(character)
        if box[2:] != (136, 128) or box[1]:  # it has no glyph, or one for each of its parts
            continue
        names = list(dict.fromkeys(_names(character, entry)))
        found.append(
            Pictogram(
                character,
                names[0],
                tuple(name for name in names[1:] if len(name) > 2),
                tuple(_words(entry[code]) for code in LANGUAGES if code in entry),
                groups.get(character),
                _glyph(face, character),
            )
        )
    if not found:
        raise ModelError(f"{font} has no emoji of 136 × 128 pixels")
    return sorted(found, key=lambda pictogram: pictogram.name)


def _names(character: str, entry: dict[str, Any]) -> Iterator[str]:
    name = _words(entry["en"])
    if "\U0001f1e6" <= character[0] <= "\U0001f1ff" or "\U000e007f" in character:
        yield f"flag of {name}"
        yield f"{name} flag"
    yield name
    for alias in entry.get("alias", ()):
        yield _words(alias)


def _words(name: str) -> str:
    words = name.strip(":").replace("_", " ").replace("’", "'").replace("“", "").replace("”", "")
    return words.removeprefix("flag for ").strip().lower()


def _glyph(face: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    """The glyph in the least square that holds it: a font's margins are no part of a thing."""
    image = Image.new("RGBA", (136, 128))
    ImageDraw.Draw(image).text((0, 0), character, font=face, embedded_color=True)
    shown = image.crop(image.getchannel("A").point(lambda alpha: 255 * (alpha > 40)).getbbox())
    side = max(shown.size)
    square = Image.new("RGBA", (side, side))
    square.paste(shown, ((side - shown.width) // 2, (side - shown.height) // 2))
    return square


# --- Data: drawing --------------------------------------------------------------------------------

TRAINING = (
    *("plain", "plain", "white", "gradient", "clouds", "checks"),
    *("shapes", "lines", "lines", "arcs", "grain"),
)
HELD_OUT = ("plain", "stripes", "rings", "waves", "patches")
"""Backgrounds; of the held-out ones, all but the plain are never trained on."""

Random = np.random.Generator
T = TypeVar("T")


def pick(random: Random, among: Sequence[T]) -> T:
    """One of them, each as likely."""
    return among[int(random.integers(len(among)))]


def draw(
    random: Random,
    glyphs: Sequence[Image.Image],
    size: int,
    *,
    strength: float = 1.0,
    backgrounds: Sequence[str] = TRAINING,
    tint: str | None = None,
) -> Image.Image:
    """One image, RGB, `size` pixels square, of one glyph or several side by side.

    `strength`: how far it may be from a clean one, 0 to 1. `tint`: the colour it is all drawn in.
    """
    image = background(random, pick(random, backgrounds), size)
    centres = _places(random, len(glyphs))
    for glyph, (x, y, room) in zip(glyphs, centres, strict=True):
        extent = room * size * random.uniform(0.9 - 0.5 * strength, 1.0)
        thing = _warped(random, _coloured(random, glyph, extent, strength, tint), strength)
        slack = max(0.0, room * size - extent) / 2
        left = x * size - thing.width / 2 + random.uniform(-slack, slack)
        top = y * size - thing.height / 2 + random.uniform(-slack, slack)
        image.paste(thing, (round(left), round(top)), thing)
    return _spoilt(random, image, strength)


def _places(random: Random, count: int) -> list[tuple[float, float, float]]:
    """Centre and room of each thing, in shares of the image's side."""
    if count == 1:
        return [(0.5, 0.5, 1.0)]
    if count == 2 and random.random() < 0.5:
        return [(0.27, 0.5, 0.5), (0.73, 0.5, 0.5)]
    if count == 2:
        return [(0.5, 0.27, 0.5), (0.5, 0.73, 0.5)]
    corners = [(0.27, 0.27, 0.48), (0.73, 0.27, 0.48), (0.27, 0.73, 0.48), (0.73, 0.73, 0.48)]
    return [corners[place] for place in random.permutation(4)[:count]]


def background(random: Random, kind: str, size: int) -> Image.Image:
    """A square of nothing in particular."""
    if kind == "white":
        return Image.new("RGB", (size, size), "white")
    one, two = (tuple(random.integers(0, 256, 3).tolist()) for _ in range(2))
    if random.random() < 0.5:  # pale, as most are
        one, two = (tuple(255 - (255 - part) // 4 for part in colour) for colour in (one, two))
    if kind == "plain":
        return Image.new("RGB", (size, size), one)
    if kind in _STROKES:
        return _scribbled(random, kind, size, one)
    if kind == "grain":
        cells = int(pick(random, (12, 24, 48, 96)))
        grain = random.normal(one, random.uniform(10, 60), (cells, cells, 3)).clip(0, 255)
        return Image.fromarray(grain.astype(np.uint8)).resize((size, size))
    if kind in ("clouds", "patches"):
        cells = int(random.integers(2, 9))
        noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        smooth = kind == "clouds"
        return noise.resize(
            (size, size), Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
        )
    mask = Image.fromarray(_pattern(random, kind, size))
    return Image.composite(
        Image.new("RGB", (size, size), one), Image.new("RGB", (size, size), two), mask
    )


def _pattern(random: Random, kind: str, size: int) -> np.ndarray:
    angle, period = random.uniform(0, math.pi), random.uniform(0.08, 0.4)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(size)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    if kind == "gradient":
        share = (along - along.min()) / (np.ptp(along) or 1)
    elif kind == "checks":
        share = (np.floor(along / period) + np.floor(across / period)) % 2
    elif kind == "stripes":
        share = np.floor(along / period) % 2
    elif kind == "rings":
        share = np.floor(np.hypot(x - random.random(), y - random.random()) / period) % 2
    else:  # waves
        share = 0.5 + 0.5 * np.sin((along + 0.1 * np.sin(across * 12)) * 2 * math.pi / period)
    pattern: np.ndarray = (share * 255).astype(np.uint8)
    return pattern


_STROKES = ("shapes", "lines", "arcs")


def _scribbled(random: Random, kind: str, size: int, colour: tuple[int, ...]) -> Image.Image:
    """A few strokes of one kind."""
    image = Image.new("RGB", (size, size), colour)
    pen = ImageDraw.Draw(image)
    for _ in range(int(random.integers(3, 12))):
        ink = tuple(random.integers(0, 256, 3).tolist())
        if kind == "lines":
            ends = random.uniform(-0.2, 1.2, 4) * size
            pen.line(ends.tolist(), ink, width=int(random.uniform(0.01, 0.1) * size))
            continue
        corner, extent = random.uniform(-0.2, 1, 2) * size, random.uniform(0.05, 0.5, 2) * size
        if kind == "arcs":
            extent, thick = 3 * extent, int(random.uniform(0.01, 0.12) * size)
            box = [*(corner - extent / 3).tolist(), *(corner + extent).tolist()]
            pen.arc(box, 0, float(random.uniform(90, 360)), ink, thick)
            continue
        shape = pick(random, (pen.ellipse, pen.rectangle))
        shape([*corner.tolist(), *(corner + extent).tolist()], fill=ink)
    return image


def _coloured(
    random: Random, glyph: Image.Image, extent: float, strength: float, tint: str | None
) -> Image.Image:
    """The glyph at its size, in other shades than its own."""
    aspect = math.exp(random.normal(0, 0.1 * strength))
    size = (max(8, round(extent * aspect)), max(8, round(extent / aspect)))
    image = glyph.resize(size, Image.Resampling.BILINEAR)
    alpha = image.getchannel("A")
    colour = image.convert("RGB")
    if tint:
        dark = tuple(part // 3 for part in COLOURS[tint])
        colour = ImageOps.colorize(colour.convert("L"), dark, "white", COLOURS[tint])
    elif random.random() < 0.7 * strength:
        colour = colour.convert("RGB", _colour_matrix(random, strength))
    style = random.random()
    if style < 0.15 * strength:  # flat, as other styles are drawn
        colour = colour.filter(ImageFilter.MedianFilter(3))
    elif style < 0.25 * strength:
        colour = ImageOps.posterize(colour, int(random.integers(2, 5)))
    elif style < 0.32 * strength:
        colour = ImageOps.autocontrast(colour)
    elif style < 0.37 * strength:
        colour = colour.convert("L").convert("RGB")
    colour.putalpha(alpha)
    return colour


def _colour_matrix(random: Random, strength: float) -> tuple[float, ...]:
    """Turned in hue, more or less saturated, brighter or darker, as `Image.convert` takes it."""
    turn = random.normal(0, 0.12 * strength)
    saturation = math.exp(random.normal(0, 0.25 * strength))
    gain = math.exp(random.normal(0, 0.15 * strength))
    offset = random.normal(0, 12 * strength)
    grey = np.full((3, 3), 1 / 3)
    u = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turned = grey + math.cos(turn) * (np.eye(3) - grey) + math.sin(turn) * u  # Rodrigues
    matrix = gain * (saturation * turned + (1 - saturation) * grey)
    return tuple(value for row in matrix.tolist() for value in (*row, offset))


def _warped(random: Random, image: Image.Image, strength: float) -> Image.Image:
    """Turned, sheared and bent, in one pass over a mesh of two by two quadrilaterals."""
    cells = 2
    angle = float(np.clip(random.normal(0, 9 * strength), -20, 20)) * math.pi / 180
    shear = random.normal(0, 0.06 * strength)
    margin = 1.0 + abs(math.sin(angle)) * 0.6 + 0.1 * strength
    width, height = round(image.width * margin), round(image.height * margin)
    xs = [round(width * step / cells) for step in range(cells + 1)]
    ys = [round(height * step / cells) for step in range(cells + 1)]
    bend = random.normal(0, 0.03 * strength, (cells + 1, cells + 1, 2)).tolist()
    sine, cosine = math.sin(angle), math.cos(angle)

    def source(column: int, row: int) -> tuple[float, float]:
        x, y = xs[column] - width / 2, ys[row] - height / 2
        x, y = x + shear * y, y
        x, y = cosine * x + sine * y, cosine * y - sine * x
        dx, dy = bend[row][column]
        return (
            image.width * (0.5 + dx) + x,
            image.height * (0.5 + dy) + y,
        )

    points = [[source(column, row) for column in range(cells + 1)] for row in range(cells + 1)]
    mesh = []
    for y in range(cells):
        for x in range(cells):
            quad = (*points[y][x], *points[y + 1][x], *points[y + 1][x + 1], *points[y][x + 1])
            mesh.append(((xs[x], ys[y], xs[x + 1], ys[y + 1]), quad))
    return image.transform((width, height), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _spoilt(random: Random, image: Image.Image, strength: float) -> Image.Image:
    """Blurred, noisy and compressed, as images are that have been about."""
    blur, noise, jpeg = random.random(3)
    if blur < 0.25 * strength:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.2)))
    if noise < 0.3 * strength:
        grain = random.standard_normal((image.height, image.width, 1), np.float32)
        values = np.asarray(image, dtype=np.float32) + random.uniform(2, 14) * grain
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if jpeg < 0.4 * strength:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=int(random.integers(25, 95)))
        image = Image.open(stream).convert("RGB")
    return image


# --- Data: captions -------------------------------------------------------------------------------


_LIKE_YOU, _LIKE_OUR = ("uni", "eu", "one", "us", "ut", "u."), ("hour", "heir", "honest")
_BEFORE = ("of", "with", "in", "and", "on", "without")  # the word that is made plural


def article(name: str) -> str:
    """The name with "a" or "an" before it."""
    vowel = name[0] in "aeiou" and not name.startswith(_LIKE_YOU)
    return f"{'an' if vowel or name.startswith(_LIKE_OUR) else 'a'} {name}"


def plural(name: str) -> str:
    """More than one of it, by the commonest rules."""
    words = name.split(" ")
    ends = [n for n, word in enumerate(words) if n and (word in _BEFORE or word[0] == "(")]
    head = (ends[0] if ends else len(words)) - 1
    word = words[head]
    if word.endswith(("s", "x", "ch", "sh", "z")):
        word += "es"
    elif word.endswith("y") and word[-2:-1] not in "aeiou":
        word = word[:-1] + "ies"
    else:
        word += "s"
    return " ".join([*words[:head], word, *words[head + 1 :]])


def phrase(template: str, name: str) -> str:
    """A template with the name in it."""
    return template.format(a=article(name), name=name, names=plural(name))


@dataclass(frozen=True)
class Sample:
    """An image, its caption, and the pictograms that the caption would be true of."""

    image: Image.Image
    caption: str
    true_of: tuple[int, ...]
    plain: bool  # it shows one pictogram as it is, and the caption says so


class Batch(NamedTuple):
    """N samples, each of another pictogram."""

    images: np.ndarray  # N × S × S × 3 bytes
    ids: np.ndarray  # N × T token ids
    classes: np.ndarray  # N places of pictograms
    unclear: np.ndarray  # N × N, symmetric: one row's caption is true of the other's image, too
    plain: np.ndarray  # N
    true_of: np.ndarray  # N × P: the caption is true of such an image of the pictogram


class Samples:
    """Batches by their number, the same on any machine."""

    def __init__(self, things: Sequence[Pictogram], config: Config, tokenizer: Tokenizer) -> None:
        if config.batch >= len(things):
            raise ModelError(f"a batch of {config.batch} needs more than {len(things)} pictograms")
        self._things, self._config, self._tokenizer = things, config, tokenizer
        self._called: dict[str, set[int]] = {}  # names, and kinds → the pictograms that have them
        self._alike: dict[bytes, set[int]] = {}  # glyphs, some of which are several pictograms'
        for place, thing in enumerate(things):
            self._alike.setdefault(thing.glyph.tobytes(), set()).add(place)
            for name in (thing.name, *thing.synonyms, *thing.foreign, thing.group or thing.name):
                self._called.setdefault(name, set()).add(place)

    def batch(self, step: int, classes: np.ndarray) -> Batch:
        """The batch of a step, of these pictograms."""
        config = self._config
        rest = np.setdiff1d(np.arange(len(self._things)), classes).tolist()
        # It begins with clean images: with spoilt ones nothing is learnt for long.
        strength = min(0.65, 0.25 + step / config.steps)
        true_of = np.zeros((len(classes), len(self._things)), dtype=bool)
        samples = []
        for row, place in enumerate(classes.tolist()):
            random = np.random.default_rng((config.seed, 2, step, row))
            sample = self.sample(random, place, pick(random, rest), strength)
            true_of[row, list(sample.true_of)] = True
            samples.append(sample)
        images = np.stack([np.asarray(sample.image) for sample in samples])
        ids = [
            encoding.ids for encoding in self._tokenizer.encode_batch([s.caption for s in samples])
        ]
        end = config.vocabulary - 1
        longest = min(config.architecture.text.context, max(map(len, ids)))
        padded = [
            row[: longest - 1] + [end] * (longest - min(len(row), longest - 1)) for row in ids
        ]
        plain = np.array([sample.plain for sample in samples])
        unclear = true_of[:, classes] & ~np.eye(len(classes), dtype=bool)
        return Batch(images, np.array(padded), classes, unclear | unclear.T, plain, true_of)

    def sample(self, random: Random, place: int, other: int, strength: float) -> Sample:
        """One sample of a pictogram; `other` is what may stand beside it."""
        thing = self._things[place]
        kind = random.random()
        glyphs, tint, plain, name = [thing.glyph], None, False, thing.name
        beside: set[int] = set()
        if kind < 0.06:
            glyphs.append(self._things[other].glyph)
            beside = {other}
            names = [thing.name, self._things[other].name]
            random.shuffle(names)
            caption = " and ".join(names if random.random() < 0.5 else map(article, names))
        elif kind < 0.11:
            count = int(random.integers(2, 5))
            glyphs = glyphs * count
            caption = f"{_NUMBERS[count]} {plural(name)}"
        elif kind < 0.16 or (kind < 0.24 and thing.colour):
            tint = pick(random, list(COLOURS)) if kind < 0.16 else None
            caption = f"{tint or thing.colour} {name}"
            caption = caption if random.random() < 0.5 else article(caption)
        elif 0.24 <= kind < 0.26 and thing.group:
            name = thing.group
            caption = phrase(pick(random, _TEMPLATES), name)
        else:
            plain = True
            name = self._name(random, thing)
            caption = self._said(random, thing, name)
        image = draw(random, glyphs, self._config.image, strength=strength, tint=tint)
        true_of = self._called[name] | self._alike[thing.glyph.tobytes()] | beside
        true_of |= self._called.get(caption, set())  # a cat tinted black is called as another is
        return Sample(image, caption, tuple(sorted(true_of)), plain)

    def _name(self, random: Random, thing: Pictogram) -> str:
        choice = random.random()
        if choice < 0.15 and thing.foreign:
            return pick(random, thing.foreign)
        return pick(random, thing.synonyms) if choice < 0.35 and thing.synonyms else thing.name

    def _said(self, random: Random, thing: Pictogram, name: str) -> str:
        if name in thing.foreign:
            return name
        caption = name if random.random() < 0.4 else phrase(pick(random, _TEMPLATES), name)
        if thing.group and random.random() < 0.08:
            caption = f"{caption}, {article(thing.group)}"
        return caption


def vocabulary(things: Sequence[Pictogram], entries: int) -> Tokenizer:
    """A byte-pair vocabulary learnt from the captions there can be, by CLIP's rules."""
    learnt = Tokenizer(BPE(end_of_word_suffix="</w>", unk_token=CLIP_END))
    plain = clip_tokenizer({CLIP_BEGIN: 0, CLIP_END: 1}, [])
    learnt.normalizer, learnt.pre_tokenizer = plain.normalizer, plain.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    endings = [symbol + "</w>" for symbol in alphabet]
    trainer = trainers.BpeTrainer(
        vocab_size=entries - 2,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        special_tokens=endings,  # given, since they would come in another order every time
        show_progress=False,
    )
    learnt.train_from_iterator(_corpus(things), trainer)
    merges = [tuple(merge) for merge in json.loads(learnt.to_str())["model"]["merges"]]
    symbols = list(dict.fromkeys([*alphabet, *endings, *("".join(merge) for merge in merges)]))
    symbols += [f"<|unused{place}|>" for place in range(entries - 2 - len(symbols))]
    table = {symbol: place for place, symbol in enumerate([*symbols, CLIP_BEGIN, CLIP_END])}
    return clip_tokenizer(table, merges)


def _corpus(things: Sequence[Pictogram]) -> Iterator[str]:
    for thing in things:
        for name in (thing.name, *thing.synonyms):
            yield from (name, name, plural(name))
        yield from thing.foreign
    for template in _TEMPLATES:
        yield from [template.format(a="a", name="", names="")] * 20
    for word in (*GROUPS, *COLOURS, *_NUMBERS):
        yield from [word] * 20


# --- Model ----------------------------------------------------------------------------------------


def build(config: Config) -> CLIPModel:
    """transformers' own CLIP, with fresh weights."""
    torch.manual_seed(config.seed)
    return CLIPModel(CLIPConfig.from_dict(config.architecture.config()))


def embed_images(model: CLIPModel, images: Tensor, keep: float) -> Tensor:
    """Unit vectors of images (N × S × S × 3 bytes).

    `keep`: the share of patches that the tower sees. Hiding half of them halves the cost of a step
    and costs little (Li et al., 2023, "FLIP", https://arxiv.org/abs/2212.00794).
    """
    return F.normalize(model.visual_projection(_see(model, images, keep)), dim=-1)


def _see(model: CLIPModel, images: Tensor, keep: float) -> Tensor:
    tower = model.vision_model
    patches = _patches(images, tower.config.patch_size)
    places = tower.embeddings.position_embedding.weight
    if keep < 1:
        count = patches.shape[1]
        shown = torch.rand(len(patches), count, device=patches.device).argsort(1)
        shown = shown[:, : round(keep * count)]
        patches = patches.gather(1, shown[..., None].expand(-1, -1, patches.shape[2]))
        # Indexing would do, but adds its gradients up in any order.
        placed = F.embedding(shown + 1, places)
    else:
        placed = places[1:].expand(len(patches), -1, -1)
    mean, std = torch.tensor([CLIP_MEAN, CLIP_STD], device=images.device)
    pixels = (patches.reshape(*patches.shape[:2], -1, 3).float() / 255 - mean) / std
    weight = tower.embeddings.patch_embedding.weight.permute(0, 2, 3, 1).flatten(1)
    first = (tower.embeddings.class_embedding + places[0]).expand(len(patches), 1, -1)
    hidden = torch.cat([first, pixels.flatten(2) @ weight.T + placed], dim=1)
    hidden = tower.encoder(inputs_embeds=tower.pre_layrnorm(hidden)).last_hidden_state
    pooled: Tensor = tower.post_layernorm(hidden[:, 0])
    return pooled


def _patches(images: Tensor, side: int) -> Tensor:
    """The bytes of each patch of images (N × S × S × 3), row by row: N × patches × bytes."""
    tiles = images.unfold(1, side, side).unfold(2, side, side)  # N × rows × columns × 3 × y × x
    return tiles.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(1, 2)


def embed_texts(model: CLIPModel, ids: Tensor) -> Tensor:
    """Unit vectors of token ids (N × T), padded with the end token.

    Short texts go with short ones: padding costs as much as words.
    """
    return F.normalize(model.text_projection(_read(model, ids)), dim=-1)


def _read(model: CLIPModel, ids: Tensor) -> Tensor:
    lengths = (ids != model.config.text_config.eos_token_id).sum(1) + 1
    order = lengths.argsort(stable=True)
    pooled = [
        model.text_model(ids[rows, : int(lengths[rows].max())]).pooler_output
        for rows in order.chunk(4)
    ]
    return torch.cat(pooled)[order.argsort()]


@torch.no_grad()
def centre(model: CLIPModel, images: Tensor, ids: Tensor) -> None:
    """Takes out what an untrained model's vectors have in common, by a bias of either tower.

    They are all but equal at first, and steps would go by until they are not. The images
    (N × S × S × 3 bytes) and token ids (N × T) are a batch's.
    """
    seen, said = _see(model, images, 1.0), _read(model, ids)
    model.vision_model.post_layernorm.bias -= seen.mean(0)
    model.text_model.final_layer_norm.bias -= said.mean(0)


# --- Training -------------------------------------------------------------------------------------

SAVE_EVERY = 500  # steps


class LookAlikes:
    """Which pictograms go into which batch: none twice, nor again before the epoch is over.

    What is left of an epoch, less than a batch, is passed over. Two are alike as their vectors are:
    of each the last image's and text's, added, so that likeness of either kind counts.
    """

    def __init__(self, count: int, config: Config) -> None:
        self._config = config
        self._vectors = np.zeros((count, config.architecture.dimension), np.float32)

    def update(self, classes: np.ndarray, vectors: np.ndarray) -> None:
        """Remembers the last vectors (N × D, unit) of pictograms (N)."""
        self._vectors[classes] = vectors

    def epoch(self, first: int) -> list[np.ndarray]:
        """The pictograms of each batch of the epoch that begins with this step."""
        config = self._config
        random = np.random.default_rng((config.seed, 1, first))
        order = random.permutation(len(self._vectors))
        if first >= config.mixed * config.steps:
            order = self._grouped(random, order)
        whole = len(order) // config.batch * config.batch
        return np.split(order[:whole], whole // config.batch)

    def _grouped(self, random: Random, order: np.ndarray) -> np.ndarray:
        """In groups: one, with the likest of those that are in no group yet."""
        alike = self._vectors @ self._vectors.T
        groups = []
        for one in order:
            if alike[one, one] == -np.inf:  # it is in a group
                continue
            alike[one, one] = np.inf  # first in its own, also where it has no vector yet
            group = np.argsort(-alike[one], kind="stable")[: self._config.group]
            group = group[alike[one, group] > -np.inf]
            alike[:, group] = -np.inf
            groups.append(group)
        random.shuffle(groups)
        return np.concatenate(groups)


def contrast(seen: Tensor, said: Tensor, unclear: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE, both ways: the loss of images and texts (N × D each) that belong together by row.

    `unclear` (N × N): the pairs of an image and a text that are neither right nor wrong answers.
    """
    logits = (scale * seen @ said.T).masked_fill(unclear, -torch.inf)
    target = torch.arange(len(seen), device=seen.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def classify(
    vectors: Tensor, targets: Tensor, also: Tensor, known: Tensor, scale: Tensor
) -> Tensor:
    """Cross-entropy of vectors (N × D) against one learned vector of everything there is (P × D).

    A batch has few wrong answers to offer; here are all of them (as proxies, Movshovitz-Attias et
    al., 2017, https://arxiv.org/abs/1703.07464). `targets` (N): which it is. `also` (N × P): which
    it may be besides, neither right nor wrong.
    """
    logits = scale * vectors @ F.normalize(known, dim=-1).T
    others = also.scatter(1, targets[:, None], False)
    return F.cross_entropy(logits.masked_fill(others, -torch.inf), targets)


def train(
    config: Config,
    things: Sequence[Pictogram],
    tokenizer: Tokenizer,
    folder: Path | None = None,
    *,
    processes: int = 0,
    device: str = "cpu",
) -> CLIPModel:
    """The trained model, its weights fp32.

    Every SAVE_EVERY steps it is left in `folder` as it is. `processes`: how many others draw the
    images. Raises ModelError for fewer pictograms than a batch needs.
    """
    model = build(config).train().to(device)
    known = 0.1 * torch.randn(len(things), config.architecture.dimension)
    known = torch.nn.Parameter(known.to(device))
    optimizers = _optimizers(model, config)
    optimizers[1].add_param_group({"params": [known], "weight_decay": 0.0})
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(config, step))
        for optimizer in optimizers
    ]
    samples, alike = Samples(things, config, tokenizer), LookAlikes(len(things), config)
    began = time.perf_counter()
    for step, batch in enumerate(batches(samples, alike, config.steps, processes)):
        images, ids, classes, unclear, plain, true_of = (
            torch.from_numpy(part).to(device) for part in batch
        )
        if step == 0:
            centre(model, images, ids)
        keep = config.keep if step < (1 - config.whole) * config.steps else 1.0
        seen, said = embed_images(model, images, keep), embed_texts(model, ids)
        scale = model.logit_scale.exp().clamp(max=100)  # CLIP's limit
        loss = contrast(seen, said, unclear, scale)
        loss = loss + classify(seen, classes, true_of, known, scale) / 2
        loss = loss + classify(said[plain], classes[plain], true_of[plain], known, scale) / 2
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        last = F.normalize(seen + said, dim=-1).detach().cpu().numpy()
        alike.update(batch.classes[batch.plain], last[batch.plain])
        if step % 50 == 49:
            _report(step + 1, config, loss, model, seen, said, began)
        if folder and (step + 1) % SAVE_EVERY == 0:
            save(model, tokenizer, config, folder)
    return model.eval()


def _report(
    done: int,
    config: Config,
    loss: Tensor,
    model: CLIPModel,
    seen: Tensor,
    said: Tensor,
    began: float,
) -> None:
    right = (seen @ said.T).argmax(1).cpu().eq(torch.arange(len(seen))).float().mean()
    rate = done / (time.perf_counter() - began)
    print(
        f"step {done}/{config.steps}  loss {loss:.3f}  scale {model.logit_scale.exp():.1f}  "
        f"right in batch {right:.1%}  {rate:.2f} steps/s",
        file=sys.stderr,
        flush=True,
    )


def batches(samples: Samples, alike: LookAlikes, steps: int, processes: int) -> Iterator[Batch]:
    """The batches of a run, drawn by so many processes, or by this one if by none.

    An epoch at a time: what goes into it depends on what the model knows by then, and drawing while
    the model is trained gains nothing where both want the same cores.
    """
    with _drawers(samples, processes) as draw_all:
        done = 0
        while done < steps:
            epoch = alike.epoch(done)[: steps - done]
            yield from draw_all(range(done, done + len(epoch)), epoch)
            done += len(epoch)


@contextmanager
def _drawers(samples: Samples, processes: int) -> Iterator[Callable[..., Iterable[Batch]]]:
    if not processes:
        yield partial(map, samples.batch)
        return
    context = multiprocessing.get_context("spawn")  # to fork beside torch's threads may hang
    with ProcessPoolExecutor(processes, context, _share, (samples,)) as pool:
        yield lambda *arguments: list(pool.map(_batch, *arguments))


_shared: Samples  # of a drawing process, so that the glyphs are sent to it once


def _share(samples: Samples) -> None:
    global _shared
    _shared = samples


def _batch(step: int, classes: np.ndarray) -> Batch:
    return _shared.batch(step, classes)


class Muon(torch.optim.Optimizer):
    """Steps along the nearest orthogonal matrix to each matrix's momentum.

    As Jordan et al., 2024 (https://kellerjordan.github.io/posts/muon), scaled to the size of
    AdamW's steps as by Liu et al., 2025 (https://arxiv.org/abs/2502.16982, section 2.2), so that
    one rate does for both. PyTorch has one too, which computes in bfloat16, slow on many CPUs.
    """

    def __init__(self, matrices: Sequence[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                by_shape.setdefault(weight.shape, []).append(weight)
            for shape, weights in by_shape.items():
                steps = [self._momentum(weight) for weight in weights]
                scale = 0.2 * math.sqrt(max(shape)) * group["lr"]
                for weight, step in zip(weights, orthogonal(torch.stack(steps)), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-scale)

    def _momentum(self, weight: Tensor) -> Tensor:
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"].lerp_(weight.grad, 0.05)
        step: Tensor = weight.grad.lerp(momentum, 0.95)  # Nesterov's
        return step


def orthogonal(matrices: Tensor) -> Tensor:
    """About the nearest orthogonal matrix to each (N × A × B), by Newton-Schulz.

    The coefficients are Jordan's: five steps bring all but the smallest singular values to between
    0.7 and 1.2.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    square, product = x @ x.mT, torch.eye(x.shape[1], device=x.device)
    for _ in range(5):  # all on the square, and on the matrix itself once: it may be long
        step = -4.7750 * square + 2.0315 * square @ square
        step.diagonal(dim1=1, dim2=2).add_(3.4445)
        square, product = step @ square @ step, step @ product
    x = product @ x
    return x.mT if tall else x


def _optimizers(model: CLIPModel, config: Config) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for all else."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    free: list[Tensor] = []
    for name, weight in model.named_parameters():
        kind = free if weight.ndim < 2 else matrices if ".layers." in name else others
        kind.append(weight)
    decay = {"weight_decay": config.decay}
    groups = [{"params": others, **decay}, {"params": free, "weight_decay": 0.0}]
    return [
        Muon(matrices, lr=config.rate, **decay),
        torch.optim.AdamW(groups, lr=config.rate, betas=(0.9, 0.98), eps=1e-6, fused=True),
    ]


def _rate(config: Config, step: int) -> float:
    """Linear warm-up, then half a cosine down to nothing."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * share))


class _Trained:
    """The weights of a model, as a source's tensors."""

    def __init__(self, model: CLIPModel) -> None:
        self._tensors: dict[str, Tensor] = {
            name: tensor.detach().cpu() for name, tensor in model.state_dict().items()
        }

    def names(self) -> list[str]:
        """As `Tensors.names`."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """As `Tensors.shape`."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        """As `Tensors.dtype`."""
        return self._tensors[name].dtype

    def read(self, name: str) -> Tensor:
        """As `Tensors.read`."""
        return self._tensors[name]


def save(model: CLIPModel, tokenizer: Tokenizer, config: Config, folder: Path) -> Path:
    """Writes a model folder, weights in half precision."""
    source = Source.own("trained", config.architecture, tokenizer.to_str(), _Trained(model))
    (folder / PROBES).unlink(missing_ok=True)  # another model's promises
    return canonical.write(source, folder, "fp16")


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m score.training.loop FOLDER`."""
    parser = Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "folder", type=Path, help="where the model goes, unfinished ones on the way; replaces"
    )
    parser.add_argument("--font", type=Path, default=FONT, help=f"default: {FONT}")
    parser.add_argument("--seed", type=int, default=Config.seed, help="of all that is random")
    parser.add_argument("--steps", type=int, default=Config.steps, help=f"default: {Config.steps}")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, not {options.steps}")
    folder, config = options.folder, Config(seed=options.seed, steps=options.steps)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        things = pictograms(options.font)
        tokenizer = vocabulary(things, config.vocabulary)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = train(config, things, tokenizer, folder, processes=cores(), device=device)
        print(save(model, tokenizer, config, folder))
    except BrokenProcessPool:
        parser.exit(1, "a process that drew pictures was killed: too little memory?\n")
    except (ModelError, OSError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    run(main)
