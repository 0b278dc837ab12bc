"""What a threshold of `score dedupe` means, and what the command takes.

    python -m benchmarks.duplicates [--model DIR] [--images samples/images]    # edited images
    python -m benchmarks.duplicates --vectors 100000 [--dimension 512]    # time, memory, recall

The first prints for each edit the cosine of images with their edited selves, and for each threshold
the share of edited images that it finds, and of pairs of different images that it takes for
copies. The second plants near-copies of random vectors: of every twentieth one, with a cosine from
0.9 to 1.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.machine import described
from benchmarks.memory import measured
from score.console import commands
from score.core.embedder import Embedder
from score.folder.model_folder import EMBEDDED
from score.index import duplicates, lance
from score.index.build import build_index
from score.index.index import Index, table_of

THRESHOLDS = (0.8, 0.85, 0.9, 0.95, 0.97, 0.99)
EVERY = 20
BATCH = 8192


def cropped(image: Image.Image, part: float) -> Image.Image:
    width, height = image.size
    left, top = round(width * part / 2), round(height * part / 2)
    return image.crop((left, top, width - left, height - top))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 90": lambda image: jpeg(image, 90),
    "JPEG, quality 30": lambda image: jpeg(image, 30),
    "half as large": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter by 20 %": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "a border of 5 %": lambda image: ImageOps.expand(image, image.width // 20, "white"),
    "cut by 5 %": lambda image: cropped(image, 0.05),
    "cut by 20 %": lambda image: cropped(image, 0.2),
    "mirrored": ImageOps.mirror,
    "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "turned by 10°": lambda image: image.rotate(10, fillcolor="white"),
}


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def unit(vectors: list[np.ndarray]) -> np.ndarray:
    matrix = np.stack(vectors).astype(np.float64)
    scaled: np.ndarray = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return scaled


def edits(model: str, folder: Path) -> None:
    """Prints the cosines of images with their edited selves, and of different images."""
    embedder = Embedder.load(model)
    images = []
    for file in sorted(folder.iterdir()):
        if file.suffix in (".jpg", ".png", ".webp", ".gif"):
            with Image.open(file) as image:
                paper = Image.new("RGBA", image.size, "white")
                paper.alpha_composite(image.convert("RGBA"))
                images.append(paper.convert("RGB"))
    whole = unit([embedder.embed_image(png(image)) for image in images])
    different = (whole @ whole.T)[np.triu_indices(len(whole), 1)]
    found = {}
    for name, edit in EDITS.items():
        edited = unit([embedder.embed_image(png(edit(image))) for image in images])
        found[name] = (whole * edited).sum(axis=1)
        low, middle = np.quantile(found[name], (0.1, 0.5))
        shares = "  ".join(f"{(found[name] >= t).mean():5.0%}" for t in THRESHOLDS)
        print(f"{name:>18}: median {middle:.3f}, a tenth below {low:.3f}   {shares}")
    near = np.quantile(different, 0.99)
    shares = "  ".join(f"{(different >= t).mean():5.1%}" for t in THRESHOLDS)
    print(
        f"{len(images)} images, {len(different):,} pairs of different ones: median "
        f"{np.median(different):.3f}, 1 % above {near:.3f}, highest {different.max():.3f}   "
        f"{shares}"
    )
    print(f"thresholds: {'  '.join(map(str, THRESHOLDS))}")


def planted(count: int, dimension: int, file: Path) -> set[tuple[int, int]]:
    """Writes random vectors around centres, and near-copies of some; returns the pairs of rows with
    a cosine of 0.95 or more."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((max(1, count // 100), dimension), np.float32)
    kind = pa.list_(pa.float32(), dimension)
    schema = pa.schema([("id", pa.int64()), ("image_features", kind)])
    pairs: set[tuple[int, int]] = set()
    with pq.ParquetWriter(file, schema, use_dictionary=False) as writer:
        for start in range(0, count, BATCH):
            size = min(BATCH, count - start)
            vectors = centres[random.integers(0, len(centres), size)]
            vectors = vectors + 0.75 * random.standard_normal((size, dimension), np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            copies = np.arange(EVERY - 1, size, EVERY)
            sources = copies - random.integers(1, EVERY, len(copies))
            cosines = random.uniform(0.9, 1, (len(copies), 1)).astype(np.float32)
            noise = random.standard_normal((len(copies), dimension), np.float32)
            noise -= (noise * vectors[sources]).sum(axis=1, keepdims=True) * vectors[sources]
            noise /= np.linalg.norm(noise, axis=1, keepdims=True)
            vectors[copies] = cosines * vectors[sources] + np.sqrt(1 - cosines**2) * noise
            near = cosines[:, 0] >= 0.95
            pairs |= {
                (start + int(one), start + int(other))
                for one, other in zip(sources[near], copies[near], strict=True)
            }
            lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=kind)
            ids = pa.array(np.arange(start, start + size))
            writer.write_batch(pa.record_batch([ids, lists], schema))
    return pairs


def looked_up(count: int, dimension: int) -> None:
    """The same of an approximate index whose neighbours are looked up, whatever its size."""
    lance.EXACT = duplicates.MOST_COMPARED = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = planted(count, dimension, folder / "in.parquet")
        build_index(folder / "in.parquet", folder / "index")
        table, trained = table_of(Index(folder / "index"))
        began, used = time.perf_counter(), time.process_time()
        groups = duplicates.find_groups(table, 0.95, trained)
        seconds, used = time.perf_counter() - began, time.process_time() - used
        group = dict(zip(groups.places.tolist(), groups.numbers.tolist(), strict=True))
        found = sum(group.get(one, -1) == group.get(other, -2) for one, other in pairs)
        print(
            f"{count:,} vectors of {dimension} numbers, looked up: {seconds:.0f} s, processor "
            f"{1000 * used / count:.1f} ms a vector; {found:,} of {len(pairs):,} planted pairs "
            f"found ({found / len(pairs):.1%})"
        )


def taken(count: int, dimension: int) -> None:
    """Prints what the command takes, and how many of the planted pairs it finds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = planted(count, dimension, folder / "in.parquet")
        build_index(folder / "in.parquet", folder / "index")
        output = folder / "groups.parquet"
        command = [sys.executable, "-m", "score", "dedupe", str(folder / "index")]
        peak, seconds = measured([*command, "--output", str(output)])
        rows = pq.read_table(output)
        group = dict(
            zip(rows.column("id").to_pylist(), rows.column("group").to_pylist(), strict=True)
        )
        found = sum(group.get(one, -1) == group.get(other, -2) for one, other in pairs)
        print(
            f"{count:,} vectors of {dimension} numbers: {seconds:.0f} s, peak {peak / 2**20:,.0f} "
            f"MiB; {found:,} of {len(pairs):,} planted pairs found ({found / len(pairs):.1%})"
        )


def main() -> None:
    parser = commands.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=str(EMBEDDED))
    parser.add_argument("--images", default="samples/images")
    parser.add_argument("--vectors", type=int)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--approximate", action="store_true", help="look neighbours up")
    options = parser.parse_args()
    machine = described()
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']:.1f}")
    if options.vectors:
        make = looked_up if options.approximate else taken
        make(options.vectors, options.dimension)
    else:
        edits(options.model, Path(options.images))


if __name__ == "__main__":
    commands.run(main)
