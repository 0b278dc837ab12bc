"""Types of the flags of `score azure`: numbers, pairs. Each raises ArgumentTypeError."""

from __future__ import annotations

import argparse


def count(text: str) -> float:
    """A number of rows, such as 100e6 or 1,000."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        value = 0.0
    if not 1 <= value < 1e15:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows")
    return value


def whole(text: str) -> int:
    """A number of machines, from 1 to 1000."""
    if not text.isdecimal() or not 0 < int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1000")
    return int(text)


def pair(text: str) -> tuple[str, str]:
    """NAME=VALUE as a tuple."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
