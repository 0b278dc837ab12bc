"""Draws an image: glyphs, augmented in colour and shape, on a background, then degraded."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from score.training.backgrounds import TRAINING, background
from score.training.colours import COLOURS
from score.training.randomness import Random, pick


def draw(
    random: Random,
    glyphs: Sequence[Image.Image],
    size: int,
    *,
    strength: float = 1.0,
    backgrounds: Sequence[str] = TRAINING,
    tint: str | None = None,
) -> Image.Image:
    """An RGB image, `size` pixels square, of one glyph or up to four side by side.

    `strength`: of the augmentation, 0 (none) to 1. `tint`: a key of COLOURS that all glyphs are
    drawn in; None keeps their colours.
    """
    image = background(random, pick(random, backgrounds), size)
    cells = _cells(random, len(glyphs))
    for glyph, (x, y, side) in zip(glyphs, cells, strict=True):
        extent = side * size * random.uniform(0.9 - 0.5 * strength, 1.0)
        warped = _warped(random, _coloured(random, glyph, extent, strength, tint), strength)
        slack = max(0.0, side * size - extent) / 2
        left = x * size - warped.width / 2 + random.uniform(-slack, slack)
        top = y * size - warped.height / 2 + random.uniform(-slack, slack)
        image.paste(warped, (round(left), round(top)), warped)
    return _degraded(random, image, strength)


def _cells(random: Random, count: int) -> list[tuple[float, float, float]]:
    """(x, y, side) of each glyph's cell, as shares of the image's side; x and y of its centre."""
    if count == 1:
        return [(0.5, 0.5, 1.0)]
    if count == 2 and random.random() < 0.5:
        return [(0.27, 0.5, 0.5), (0.73, 0.5, 0.5)]
    if count == 2:
        return [(0.5, 0.27, 0.5), (0.5, 0.73, 0.5)]
    corners = [(0.27, 0.27, 0.48), (0.73, 0.27, 0.48), (0.27, 0.73, 0.48), (0.73, 0.73, 0.48)]
    return [corners[index] for index in random.permutation(4)[:count]]


def _coloured(
    random: Random, glyph: Image.Image, extent: float, strength: float, tint: str | None
) -> Image.Image:
    """The glyph resized to about `extent` pixels, its colours and style varied."""
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
    if style < 0.15 * strength:  # flat areas, as in other drawing styles
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
    """A random change of hue, saturation and brightness, as the 3×4 matrix of `Image.convert`."""
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
    """Rotated, sheared and bent, in one pass over a mesh of 2×2 quadrilaterals."""
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


def _degraded(random: Random, image: Image.Image, strength: float) -> Image.Image:
    """At random: blurred, noisy, compressed as JPEG."""
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
