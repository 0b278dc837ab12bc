"""Backgrounds of generated images: plain, gradients, noise, patterns, strokes."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from score.training.randomness import Random, pick

TRAINING = (
    *("plain", "plain", "white", "gradient", "clouds", "checks"),
    *("shapes", "lines", "lines", "arcs", "grain"),
)
HELD_OUT = ("plain", "stripes", "rings", "waves", "patches")
"""Kinds of background. Evaluation uses HELD_OUT, of which training sees only `plain`."""


def background(random: Random, kind: str, size: int) -> Image.Image:
    """An RGB square of `size` pixels with one kind of background, from TRAINING or HELD_OUT."""
    if kind == "white":
        return Image.new("RGB", (size, size), "white")
    one, two = (tuple(random.integers(0, 256, 3).tolist()) for _ in range(2))
    if random.random() < 0.5:  # pale, as most real backgrounds are
        one, two = (tuple(255 - (255 - part) // 4 for part in colour) for colour in (one, two))
    if kind == "plain":
        return Image.new("RGB", (size, size), one)
    if kind in _STROKES:
        return _strokes(random, kind, size, one)
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
    """How two colours are mixed: uint8 [size, size]."""
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


def _strokes(random: Random, kind: str, size: int, colour: tuple[int, ...]) -> Image.Image:
    """3 to 11 random strokes of one kind on a plain colour."""
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
