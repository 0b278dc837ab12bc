"""Colour words, and the word for a colour."""

from __future__ import annotations

import colorsys

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
"""Colour word → RGB, 0…255."""


def colour_word(red: int, green: int, blue: int) -> str:
    """The key of `COLOURS` that describes a colour, whose channels are 0…255."""
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
