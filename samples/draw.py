"""Draws the sample pictures and writes the request bodies and CSVs around them.

Each picture is in another format or mode, so that trying the samples tries the decoders too.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).parent
PORT = 8800  # where `demo.py` serves the pictures
SKY, GRASS, RED, YELLOW, BROWN = "#9fd3ff", "#5aa84f", "#d7263d", "#ffd23f", "#7a4a21"


def scene() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (320, 240), SKY)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 170, 320, 240), fill=GRASS)
    return image, draw


def sun(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float) -> None:
    for ray in range(12):
        angle = ray * math.pi / 6
        end = (x + 1.6 * radius * math.cos(angle), y + 1.6 * radius * math.sin(angle))
        draw.line((x, y, *end), fill=YELLOW, width=4)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=YELLOW)


def apple() -> Image.Image:
    """A red apple, transparent around."""
    image = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.ellipse((48, 72, 148, 216), fill=RED)
    draw.ellipse((108, 72, 208, 216), fill=RED)
    draw.line((128, 84, 136, 40), fill=BROWN, width=8)
    draw.ellipse((138, 36, 184, 62), fill=GRASS)
    return image


def house() -> Image.Image:
    image, draw = scene()
    draw.rectangle((100, 110, 220, 200), fill="#f3e9dc")
    draw.polygon(((90, 110), (160, 60), (230, 110)), fill=RED)
    draw.rectangle((146, 150, 174, 200), fill=BROWN)
    sun(draw, 270, 46, 20)
    return image


def tree() -> Image.Image:
    image, draw = scene()
    draw.rectangle((148, 130, 172, 200), fill=BROWN)
    draw.ellipse((100, 40, 220, 150), fill="#2f7d32")
    return image


def sea() -> Image.Image:
    """A boat; stored upside down, with the EXIF tag that says so."""
    image, draw = scene()
    draw.rectangle((0, 150, 320, 240), fill="#2b6cb0")
    draw.polygon(((90, 160), (230, 160), (200, 190), (120, 190)), fill=BROWN)
    draw.polygon(((160, 60), (160, 152), (220, 152)), fill="white")
    return image.rotate(180)


def turning() -> list[Image.Image]:
    """A sun that wanders; only the first frame counts."""
    frames = []
    for step in range(4):
        image, draw = scene()
        sun(draw, 60 + 60 * step, 80, 34)
        frames.append(image.quantize(32))
    return frames


def moon() -> Image.Image:
    image = Image.new("L", (240, 240), 24)
    draw = ImageDraw.Draw(image)
    draw.ellipse((60, 50, 180, 170), fill=235)
    draw.ellipse((96, 40, 206, 150), fill=24)
    return image


def draw(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    apple().save(folder / "apple.png", optimize=True)
    house().save(folder / "house.jpg", quality=88, progressive=True)
    tree().save(folder / "tree.webp", quality=88)
    exif = Image.Exif()
    exif[0x0112] = 3  # Orientation: rotated by 180°
    sea().save(folder / "boat.jpg", quality=88, exif=exif)
    first, *rest = turning()
    first.save(folder / "sun.gif", save_all=True, append_images=rest, duration=300, loop=0)
    moon().save(folder / "moon.png", optimize=True)


CAPTIONS = {
    "apple.png": "a red apple",
    "house.jpg": "a house with a red roof",
    "tree.webp": "a green tree",
    "boat.jpg": "a sailing boat",
    "sun.gif": "the sun over a meadow",
    "moon.png": "the moon at night",
}


def requests(folder: Path) -> None:
    """The three cases that Azure documents, with base64 for any place; a mix; labels."""
    folder.mkdir(parents=True, exist_ok=True)
    apple, house = (_thumbnail(name) for name in ("apple.png", "house.jpg"))
    _request(folder / "image.json", [[apple, ""], [house, ""]])
    _request(folder / "text.json", [["", "a red apple"], ["", "a house with a red roof"]])
    _request(folder / "both.json", [[apple, "a red apple"], [house, "a house with a red roof"]])
    url = f"http://127.0.0.1:{PORT}/tree.webp"
    mixed = [[apple, ""], ["", "a red apple"], [url, "a green tree"], ["", ""], ["%%%", ""]]
    _request(folder / "mixed.json", mixed, {"on_error": "report", "normalize": True})
    # A string, as MLflow's signature has it, so that every surface takes it.
    labels = json.dumps({"apple": "a red apple", "house": ["a house", "a house with a red roof"]})
    _request(folder / "labels.json", [[apple, ""], [house, ""]], {"labels": labels})


def _thumbnail(name: str) -> str:
    image = Image.open(HERE / "images" / name).convert("RGB")
    image.thumbnail((64, 64))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return base64.b64encode(stream.getvalue()).decode()


def _request(file: Path, rows: list[list[str]], params: dict[str, object] | None = None) -> None:
    table = {"columns": ["image", "text"], "index": list(range(len(rows))), "data": rows}
    body = {"input_data": table, **({"params": params} if params else {})}
    file.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def ontology(file: Path) -> None:
    """For `score label`: label → prompt, or prompts."""
    labels: dict[str, str | list[str]] = {
        name.partition(".")[0]: caption for name, caption in CAPTIONS.items()
    }
    labels["apple"] = ["a red apple", "a drawing of an apple"]
    file.write_text(json.dumps(labels, indent=2) + "\n", encoding="utf-8")


def tables(folder: Path) -> None:
    with (folder / "urls.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["id", "image", "text"])
        for number, (name, caption) in enumerate(CAPTIONS.items()):
            writer.writerow([f"picture-{number}", f"http://127.0.0.1:{PORT}/{name}", caption])
        writer.writerow(["gone", f"http://127.0.0.1:{PORT}/gone.jpg", ""])
    with (folder / "paths.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", "text"])
        writer.writerows([f"images/{name}", caption] for name, caption in CAPTIONS.items())


if __name__ == "__main__":
    draw(HERE / "images")
    requests(HERE / "requests")
    tables(HERE)
    ontology(HERE / "ontology.json")
