"""Draws the sample images, and writes the request bodies, CSVs and ontology that use them.

    python samples/draw.py           # everything but the images
    python samples/draw.py --images  # the images, too; needs fonts-noto-color-emoji

Both need the extra `train`.

Most images are drawn like the embedded model's training images, with other seeds and mostly on
kinds of background that were held out from training: the model knows the objects, not the images.
Five show the bare glyph in less common formats or modes, so that the samples exercise the decoders.
`photos/` holds photographs, on which the model was not trained; see `photos/README.md`.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from score.errors import ModelError
from score.training.backgrounds import HELD_OUT, background
from score.training.drawing import draw
from score.training.pictograms import Pictogram, pictograms
from score.training.randomness import Random

HERE = Path(__file__).parent
PORT = 8800  # `demo.py` replaces it with a free port
SEED = 20261122  # not a seed of training
SIZE = 256

# Group → emoji → its name.
THINGS = {
    "fruit": {
        "🍎": "red apple",
        "🍏": "green apple",
        "🍌": "banana",
        "🍇": "grapes",
        "🍓": "strawberry",
        "🍍": "pineapple",
        "🍉": "watermelon",
        "🍋": "lemon",
        "🍒": "cherries",
    },
    "vegetable": {"🥕": "carrot", "🥦": "broccoli", "🌽": "ear of corn"},
    "food": {
        "🍕": "pizza",
        "🍔": "hamburger",
        "🍩": "doughnut",
        "🍦": "soft ice cream",
        "☕": "hot beverage",
    },
    "animal": {
        "🐘": "elephant",
        "🐢": "turtle",
        "🐼": "panda",
        "🦊": "fox",
        "🐙": "octopus",
        "🦋": "butterfly",
        "🐝": "honeybee",
        "🦉": "owl",
        "🐧": "penguin",
    },
    "vehicle": {
        "🚗": "automobile",
        "🚲": "bicycle",
        "🚌": "bus",
        "🚂": "locomotive",
        "🚁": "helicopter",
        "🚀": "rocket",
        "⛵": "sailboat",
    },
    "musical instrument": {
        "🎸": "guitar",
        "🎹": "musical keyboard",
        "🎺": "trumpet",
        "🎻": "violin",
        "🥁": "drum",
    },
    "ball": {"⚽": "soccer ball", "🏀": "basketball", "🎾": "tennis"},
    "face": {
        "😀": "grinning face",
        "😭": "loudly crying face",
        "😎": "smiling face with sunglasses",
        "😡": "enraged face",
    },
    "flag": {
        "🇫🇷": "flag of france",
        "🇯🇵": "flag of japan",
        "🇧🇷": "flag of brazil",
        "🇨🇦": "flag of canada",
    },
    "weather": {"☀️": "sun", "🌈": "rainbow", "❄️": "snowflake", "🌙": "crescent moon"},
    "building": {"🏠": "house", "🏰": "castle"},
    "plant": {
        "🌻": "sunflower",
        "🌹": "rose",
        "🌷": "tulip",
        "🌵": "cactus",
        "🌳": "deciduous tree",
    },
    "tool": {"🔨": "hammer", "🔑": "key", "✂️": "scissors"},
    "thing": {
        "⏰": "alarm clock",
        "📷": "camera",
        "💡": "light bulb",
        "⛄": "snowman without snow",
    },
}

ODD = {  # name → file, where that is not a plain JPEG of the same name
    "red apple": "apple.png",  # transparent background
    "house": "house.jpg",  # progressive
    "deciduous tree": "tree.webp",
    "sailboat": "boat.jpg",  # stored upside down, with the EXIF orientation tag
    "sun": "sun.gif",  # animated: only the first frame is decoded
    "crescent moon": "moon.png",  # greyscale
    "snowman without snow": "snowman.jpg",
}


WITHOUT_ARTICLE = ("grapes", "cherries", "broccoli", "tennis", "scissors")


def file_of(name: str) -> str:
    """The name of the image's file."""
    return ODD.get(name, name.replace(" ", "-") + ".jpg")


def names() -> Iterator[str]:
    for things in THINGS.values():
        yield from things.values()


def caption(name: str) -> str:
    """An image's text in the CSVs: its name with an article."""
    if name in WITHOUT_ARTICLE:
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def known_emoji(file: Path, things: Sequence[Pictogram]) -> None:
    """Writes the emoji that the embedded model was trained on."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["emoji", "code", "name", "colour", "group"])
        for thing in things:
            row = (thing.character, thing.code, thing.name, thing.colour, thing.group)
            table.writerow([cell or "" for cell in row])


def images(folder: Path, things: Sequence[Pictogram]) -> None:
    """Draws all images."""
    folder.mkdir(parents=True, exist_ok=True)
    glyphs = {thing.character: thing.glyph for thing in things}
    odd = {
        "red apple": apple,
        "crescent moon": moon,
        "sun": sun,
        "sailboat": sailboat,
        "house": partial(plain, progressive=True),
    }
    wanted = [pair for group in THINGS.values() for pair in group.items()]
    for number, (character, name) in enumerate(wanted):
        random = np.random.default_rng((SEED, number))
        odd.get(name, plain)(random, glyphs[character], folder / file_of(name))


def plain(random: Random, glyph: Image.Image, file: Path, *, progressive: bool = False) -> None:
    image = draw(random, [glyph], SIZE, strength=0.5, backgrounds=HELD_OUT)
    image.save(file, quality=88, progressive=progressive)


def apple(random: Random, glyph: Image.Image, file: Path) -> None:
    glyph.save(file, optimize=True)


def moon(random: Random, glyph: Image.Image, file: Path) -> None:
    night = Image.new("L", (240, 240), 24)
    night.paste(glyph.convert("L"), (52, 56), glyph)
    night.save(file, optimize=True)


def sun(random: Random, glyph: Image.Image, file: Path) -> None:
    frames = []
    for step in range(4):
        frame = Image.new("RGB", (SIZE, SIZE), "#9fd3ff")
        frame.paste(glyph, (16 + 32 * step, 64), glyph)
        frames.append(frame.quantize(32))
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=300, loop=0)


def sailboat(random: Random, glyph: Image.Image, file: Path) -> None:
    sea = background(random, "waves", SIZE)
    sea.paste(glyph, (60, 64), glyph)
    exif = Image.Exif()
    exif[0x0112] = 3  # Orientation: rotated by 180°
    sea.rotate(180).save(file, quality=88, exif=exif)


def requests(folder: Path) -> None:
    """The three kinds of request that Azure documents, with base64 images; a mixed one; labels.

    Those with images set `on_error: report`: otherwise one bad image fails the whole request, which
    an Azure endpoint answers with a 424.
    """
    report = {"on_error": "report"}
    folder.mkdir(parents=True, exist_ok=True)
    apple, house = (_thumbnail(name) for name in ("apple.png", "house.jpg"))
    _request(folder / "image.json", [[apple, ""], [house, ""]], report)
    _request(folder / "text.json", [["", "a red apple"], ["", "a house"]])
    _request(folder / "both.json", [[apple, "a red apple"], [house, "a house"]], report)
    url = f"http://127.0.0.1:{PORT}/tree.webp"
    mixed = [[apple, ""], ["", "a red apple"], [url, "a tree"], ["", ""], ["%%%", ""]]
    _request(folder / "mixed.json", mixed, report | {"normalize": True})
    # A string, as in MLflow's signature, so that every interface accepts it.
    labels = json.dumps({"apple": "a red apple", "house": ["a house", "a picture of a house"]})
    _request(folder / "labels.json", [[apple, ""], [house, ""]], report | {"labels": labels})


def _thumbnail(name: str) -> str:
    image = Image.open(HERE / "images" / name).convert("RGBA")
    image.thumbnail((64, 64))
    paper = Image.new("RGB", image.size, "white")
    paper.paste(image, (0, 0), image)
    stream = io.BytesIO()
    paper.save(stream, "JPEG", quality=80)
    return base64.b64encode(stream.getvalue()).decode()


def _request(file: Path, rows: list[list[str]], params: dict[str, object] | None = None) -> None:
    table = {"columns": ["image", "text"], "index": list(range(len(rows))), "data": rows}
    body = {"input_data": table, **({"params": params} if params else {})}
    file.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def ontology(file: Path) -> None:
    """Writes the ontology of `score label`: label → prompt, or list of prompts."""
    prompts: dict[str, str | list[str]] = {name: caption(name) for name in names()}
    prompts["red apple"] = ["a red apple", "a photo of a red apple"]
    text = json.dumps(prompts, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def tables(folder: Path) -> None:
    with (folder / "urls.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["id", "image", "text"])
        for number, name in enumerate(names()):
            url = f"http://127.0.0.1:{PORT}/{file_of(name)}"
            writer.writerow([f"image-{number}", url, caption(name)])
        writer.writerow(["gone", f"http://127.0.0.1:{PORT}/gone.jpg", ""])
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([["text"], *([caption(name)] for name in names())])
    with (folder / "paths.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", "text"])
        writer.writerows([f"images/{file_of(name)}", caption(name)] for name in names())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", action="store_true", help="draw the images, too")
    if parser.parse_args().images:
        try:
            things = pictograms()
        except ModelError as error:
            parser.exit(2, f"{error}\n")
        known_emoji(HERE / "emoji.csv", things)
        images(HERE / "images", things)
    requests(HERE / "requests")
    tables(HERE)
    ontology(HERE / "ontology.json")


if __name__ == "__main__":
    main()
