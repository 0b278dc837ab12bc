"""Pillow's warnings, ignored while this package reads an image and at no other time.

Pillow warns of damaged metadata and of large images. Damage that matters fails the decoding, and
the largest size is `max_pixels`, so the log of a server need not be filled with either.

`warnings.catch_warnings` is not for threads: it exchanges the list of filters of the whole process.
Instead one filter is added to that list when the first image is read. It matches in a thread that
is reading an image of ours, and nowhere else.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any


class _Thread(threading.local):
    reading = 0  # depth of `ignored` blocks


_thread = _Thread()


class _PillowModule:
    """Stands where the filter's pattern of module names is: `warnings` calls its `match`."""

    def match(self, module: str) -> bool:
        return _thread.reading > 0 and module.startswith("PIL.")


_FILTER: Any = ("ignore", None, Warning, _PillowModule(), 0)


class ignored:
    """A block in which this thread's warnings from Pillow are ignored."""

    def __enter__(self) -> None:
        filters: Any = warnings.filters
        # Again where the process has reset its filters. Not by `filterwarnings`, which would make
        # the process repeat every warning that it has shown once.
        if _FILTER not in filters:
            filters.insert(0, _FILTER)
        _thread.reading += 1

    def __exit__(self, *_: object) -> None:
        _thread.reading -= 1
