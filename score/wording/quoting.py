"""Values of clients and files in messages and lines of the log: in quotes, and cut short.

A value may be as large as a body, or a hundred megabytes in a file. What a message shows of it is
cut before it is turned into text, so that neither costs more than a few hundred bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

LONGEST = 80
"""Characters that a message shows of one value."""

_LISTED = 10  # values of a list
_LONGEST_LISTED = 40  # characters of each
_LONGEST_INTEGER = 256  # bits; Python refuses to write some that are far longer


def quoted(value: object, most: int = LONGEST) -> str:
    """A text in quotes or a number, at most `most` characters of it; anything else by its type.

    Characters that cannot be printed are escaped, so that a value cannot forge a line of a log.
    """
    if isinstance(value, str):
        text = repr(value[: most + 1])
        return text if len(text) <= most + 2 else f"{text[:most]}…{text[-1]}"
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int) and value.bit_length() <= _LONGEST_INTEGER:
        return repr(value)
    return type(value).__name__


def shown(value: object) -> str:
    """As `quoted`, and of a list or an object its first values, of 80 characters together."""
    if isinstance(value, Mapping):
        first = islice(value.items(), _LISTED)
        text = "{" + ", ".join(f"{quoted(k)}: {quoted(v)}" for k, v in first)
        end = "}"
    elif isinstance(value, (list, tuple)):
        text, end = "[" + ", ".join(map(quoted, value[:_LISTED])), "]"
    else:
        return quoted(value)
    is_whole = len(value) <= _LISTED and len(text) <= LONGEST
    return text + end if is_whole else f"{text[:LONGEST]}…{end}"


def listed(values: Iterable[object]) -> str:
    """The first values of a list, each quoted; `none` for an empty one."""
    first = list(islice(values, _LISTED + 1))
    shown = [quoted(value, _LONGEST_LISTED) for value in first[:_LISTED]]
    return ", ".join([*shown, "…"] if len(first) > _LISTED else shown) or "none"
