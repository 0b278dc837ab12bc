"""What the embedded model knows, by the project's own `score evaluate`, and how fast it is.

    python -m benchmarks.embedded [--model DIR] [--twemoji PACKAGE]
    python -m benchmarks.embedded --sheet tests/data/held_out.jpg

Images are drawn anew, with seeds that training never used, on backgrounds most of which it never
saw. `--twemoji` names an unpacked npm package `@twemoji/svg`: the same emoji in another style.
`--sheet` draws the small fixed set that the tests look at.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from score.console import commands
from score.contract.rows import Row
from score.core.embedder import Embedder
from score.extras import install
from score.folder.model_folder import EMBEDDED
from score.model.zeroshot import unit
from score.settings import Settings

with commands.required_imports(__name__):
    from benchmarks.phrasings import PHRASINGS
    from score.evaluation.results import Evaluation
    from score.evaluation.retrieval import retrieval
    from score.evaluation.zeroshot import zeroshot
    from score.jobs.image_folder_reader import ClassFolders
    from score.training.backgrounds import HELD_OUT
    from score.training.captions import article
    from score.training.drawing import draw
    from score.training.pictograms import FONT, Pictogram, pictograms

SEED = 77  # training draws with seeds that begin with its own
SIZE = 192  # pixels: twice what the model looks at
TILE, COLUMNS = 112, 14  # of the tests' sheet
STRENGTH = 0.6
TEMPLATES = ("{}", "a photo of a {}", "an emoji of a {}")


def held_out(things: Sequence[Pictogram], folder: Path, each: int) -> None:
    """An image folder: `each` images of everything."""
    for index, thing in enumerate(things):
        (folder / thing.code).mkdir(parents=True)
        for number in range(each):
            random = np.random.default_rng((SEED, index, number))
            image = draw(random, [thing.glyph], SIZE, strength=STRENGTH, backgrounds=HELD_OUT)
            image.save(folder / thing.code / f"{number}.jpg", quality=90)


def sheet(things: Sequence[Pictogram], file: Path) -> None:
    """Writes one held-out image each of some, side by side, and beside it a list of which."""
    places = np.random.default_rng(SEED).choice(len(things), COLUMNS * COLUMNS, replace=False)
    places.sort()
    paper = Image.new("RGB", (COLUMNS * TILE, COLUMNS * TILE))
    for number, index in enumerate(places.tolist()):
        random = np.random.default_rng((SEED, index, 0))
        tile = draw(random, [things[index].glyph], TILE, strength=STRENGTH, backgrounds=HELD_OUT)
        paper.paste(tile, (number % COLUMNS * TILE, number // COLUMNS * TILE))
    paper.save(file, quality=92)
    names = [things[index].name for index in places.tolist()]
    file.with_suffix(".json").write_text(
        json.dumps(names, indent=0, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def twemoji(things: Sequence[Pictogram], package: Path, folder: Path) -> None:
    """An image folder: Twemoji's image of everything that it has, on white."""
    import resvg_py  # of the extra `dev`

    for thing in things:
        file = package / f"{thing.code}.svg"
        if file.is_file():
            (folder / thing.code).mkdir(parents=True)
            png = resvg_py.svg_to_bytes(svg_path=str(file), width=SIZE, background="#ffffff")
            (folder / thing.code / "0.png").write_bytes(bytes(png))


def names_in(folder: ClassFolders, things: Sequence[Pictogram]) -> list[str]:
    """What the classes of a folder are called."""
    names = {thing.code: thing.name for thing in things}
    return [names[name] for name in folder.classes]


def captions(things: Sequence[Pictogram], folder: Path) -> Path:
    """A CSV of the first held-out image of everything and its caption."""
    file = folder / "captions.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["image", "text"])
        for thing in things:
            table.writerow([f"{thing.code}/0.jpg", f"a photo of {article(thing.name)}"])
    return file


def phrasings(embedder: Embedder, things: Sequence[Pictogram], folder: Path) -> dict[str, float]:
    """Phrasing → share of 200 images that it names best among 200."""
    chosen = np.random.default_rng(SEED).choice(len(things), 200, replace=False)
    some = [things[index] for index in sorted(chosen)]
    rows = [Row(image=(folder / thing.code / "0.jpg").read_bytes()) for thing in some]
    image_rows = unit(np.stack([_vector(record.image_features) for record in embedder.embed(rows)]))
    shares = {}
    for name, write in PHRASINGS.items():
        texts = (Row(text=write(thing.name, thing.colour)) for thing in some)
        said = unit(np.stack([_vector(record.text_features) for record in embedder.embed(texts)]))
        right = (image_rows @ said.T).argmax(1) == np.arange(len(some))
        shares[name] = float(right.mean())
    return shares


def _vector(features: np.ndarray | None) -> np.ndarray:
    assert features is not None
    return features


def speed(model: Path, folder: Path, things: Sequence[Pictogram]) -> Iterator[tuple[str, str]]:
    """What it manages here: medians of five turns, decoding and tokenising included."""
    loads: list[float] = []
    images: list[float] = []
    texts: list[float] = []
    image_rows = [Row(image=file.read_bytes()) for file in sorted(folder.glob("*/0.jpg"))[:1000]]
    captions = [Row(text=f"a photo of {article(thing.name)}") for thing in things]
    for _ in range(5):
        began = time.perf_counter()
        embedder = Embedder.load(model)
        loads.append(time.perf_counter() - began)
        for rows, rates in ((image_rows, images), (captions, texts)):
            began = time.perf_counter()
            done = sum(1 for record in embedder.embed(rows) if not record.error)
            rates.append(done / (time.perf_counter() - began))
    yield "loading", f"{statistics.median(loads):.2f} s"
    yield "images", f"{statistics.median(images):.0f}/s"
    yield "texts", f"{statistics.median(texts):.0f}/s"


def shown(title: str, evaluation: Evaluation) -> str:
    figures = "  ".join(
        f"{name} {value:.1%}" for name, value in evaluation.metrics.items() if value is not None
    )
    counts = ", ".join(f"{count:,} {name}" for name, count in evaluation.counts.items())
    return f"{title} ({counts}): {figures}"


def main() -> None:
    parser = commands.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=EMBEDDED)
    parser.add_argument("--font", type=Path, default=FONT)
    parser.add_argument("--each", type=int, default=2, help="images of everything")
    parser.add_argument("--twemoji", type=Path, help="an unpacked npm package @twemoji/svg")
    parser.add_argument("--mistakes", type=int, default=0, help="how many to print")
    parser.add_argument("--sheet", type=Path, help="draw the tests' images, and nothing else")
    options = parser.parse_args()
    if options.twemoji and not any(options.twemoji.glob("*.svg")):
        parser.error(f"{options.twemoji} is no unpacked package @twemoji/svg: it holds no .svg")
    if options.twemoji and not find_spec("resvg_py"):
        parser.error(f"--twemoji needs resvg_py: {install('resvg_py')}")
    measure(options)


def measure(options: argparse.Namespace) -> None:
    """Prints all figures, or draws the sheet."""
    things = pictograms(options.font)
    if options.sheet:
        sheet(things, options.sheet)
        return
    embedder = Embedder.load(options.model, Settings())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "held out"
        held_out(things, folder, options.each)
        classes = ClassFolders.open(folder)
        result = zeroshot(embedder, classes, names_in(classes, things), TEMPLATES)
        print(shown("held out, zero-shot", result), flush=True)
        for mistake in result.mistakes[: options.mistakes]:
            print("   ", mistake)
        print(shown("held out, retrieval", retrieval(embedder, captions(things, folder))))
        shares = phrasings(embedder, things, folder)
        print(f"phrasings, 200 classes: {statistics.mean(shares.values()):.1%}")
        for template, share in shares.items():
            print(f"    {template:24} {share:.1%}")
        if options.twemoji:
            other = Path(scratch) / "twemoji"
            twemoji(things, options.twemoji, other)
            classes = ClassFolders.open(other)
            result = zeroshot(embedder, classes, names_in(classes, things), TEMPLATES)
            print(shown("Twemoji, zero-shot", result), flush=True)
        for what, rate in speed(options.model, folder, things):
            print(f"{what}: {rate}")


if __name__ == "__main__":
    commands.run(main)
