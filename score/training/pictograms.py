"""What the model learns to recognise: emoji, their glyphs from a font, and their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import emoji
import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from score.errors import ModelError
from score.training.colours import COLOURS, colour_word

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")


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
"""Kind of thing → its emoji. Ours: the `emoji` package has no such groups."""


@dataclass(frozen=True)
class Pictogram:
    """One emoji: its glyph (RGBA) and its names, lower-case."""

    character: str
    name: str
    synonyms: tuple[str, ...]
    foreign: tuple[str, ...]  # its name in each of LANGUAGES that has one
    group: str | None
    glyph: Image.Image

    @property
    def code(self) -> str:
        """Its code points in hexadecimal, as Twemoji names its files: 1f34e."""
        joined = "\u200d" in self.character
        letters = self.character if joined else self.character.replace("\ufe0f", "")
        return "-".join(f"{ord(letter):x}" for letter in letters)

    @cached_property
    def colour(self) -> str | None:
        """The colour word of more than half of its opaque pixels, if there is one."""
        pixels = np.asarray(self.glyph.resize((24, 24), Image.Resampling.BOX)).reshape(-1, 4)
        words = [colour_word(*pixel[:3]) for pixel in pixels.tolist() if pixel[3] > 127]
        commonest = max(COLOURS, key=words.count)
        return commonest if words.count(commonest) > 0.5 * len(words) else None


def pictograms(font: Path = FONT) -> list[Pictogram]:
    """Every emoji without a skin tone that the font has a glyph for, sorted by name.

    Raises ModelError for a font that is missing or unsuitable, and for a Pillow without libraqm.
    """
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
    result = []
    for character, entry in emoji.EMOJI_DATA.items():
        toned = any("\U0001f3fb" <= letter <= "\U0001f3ff" for letter in character)
        if entry["status"] != emoji.STATUS["fully_qualified"] or toned:
            continue
        box = face.getbbox(character)
        if box[2:] != (136, 128) or box[1]:  # no glyph, or one for each of its code points
            continue
        names = list(dict.fromkeys(_names(character, entry)))
        result.append(
            Pictogram(
                character,
                names[0],
                tuple(name for name in names[1:] if len(name) > 2),
                tuple(_words(entry[code]) for code in LANGUAGES if code in entry),
                groups.get(character),
                _glyph(face, character),
            )
        )
    if not result:
        raise ModelError(f"{font} has no emoji of 136 × 128 pixels")
    return sorted(result, key=lambda pictogram: pictogram.name)


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
    """The glyph in the smallest square that holds it, without the font's margins."""
    image = Image.new("RGBA", (136, 128))
    ImageDraw.Draw(image).text((0, 0), character, font=face, embedded_color=True)
    cropped = image.crop(image.getchannel("A").point(lambda alpha: 255 * (alpha > 40)).getbbox())
    side = max(cropped.size)
    square = Image.new("RGBA", (side, side))
    square.paste(cropped, ((side - cropped.width) // 2, (side - cropped.height) // 2))
    return square
