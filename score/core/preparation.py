"""A row → what the encoder needs of it: decoded pixels and token ids.

Knows nothing of vectors.
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from score.contract.rows import IMAGE, TEXT, Row, is_empty
from score.core.observer import NOBODY, Observer
from score.errors import EmptyRow, RowError
from score.fetch.fetcher import Fetcher
from score.hardware.processor import cores
from score.images.preprocess import Pixels, Preprocessor
from score.settings import Settings
from score.texts.tokenizer import Ids, Tokenizer
from score.type_aliases import OnFetched, Truncate


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the encoder needs of a row; None for the cell that the row left empty."""

    pixels: Pixels | None
    ids: Ids | None


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How one call fetches images.

    root: the folder below which a cell may name a file; None allows no files. until: the
    `time.monotonic()` at which downloads give up; None leaves each image its own deadline.
    on_fetched: called from several threads at a time, before the image is decoded.
    """

    root: Path | None = None
    until: float | None = None
    on_fetched: OnFetched | None = None


class Preparer:
    """Fetches and decodes images, and tokenizes texts. Safe to share between threads."""

    def __init__(
        self, tokenizer: Tokenizer, preprocessor: Preprocessor, settings: Settings
    ) -> None:
        self._tokenizer = tokenizer
        self._preprocessor = preprocessor
        self._settings = settings
        self.observer: Observer = NOBODY
        self._fetcher = Fetcher(settings)
        # One thread a core, however many images are fetched: the allocator keeps what a thread has
        # freed for that thread. By process, since threads do not survive a fork.
        workers = settings.decode_workers or cores()
        self._decoders = functools.cache(lambda process: ThreadPoolExecutor(workers, "decode"))

    def inputs(self, row: Row, truncate: Truncate, options: FetchOptions) -> Inputs:
        """The row's pixels and token ids. Raises RowError, which names the column."""
        if is_empty(row.image) and is_empty(row.text):
            raise EmptyRow("has neither an image nor a text")
        # The text first: it is cheap, and a row that fails needs no download.
        ids = None if is_empty(row.text) else self._ids(row.text, truncate)
        pixels = None if is_empty(row.image) else self._pixels(row.image, options)
        return Inputs(pixels, ids)

    def _ids(self, text: object, truncate: Truncate) -> Ids:
        with _naming(TEXT):
            if isinstance(text, RowError):
                raise text
            with self.observer.timed("tokenize"):
                (ids,) = self._tokenizer.encode([text], truncate)
            if isinstance(ids, RowError):
                raise ids
            return ids

    def _pixels(self, image: object, options: FetchOptions) -> Pixels:
        with _naming(IMAGE):
            if isinstance(image, RowError):
                raise image
            # Decoded images are large: waiting here for a decoder also slows the downloads down.
            with self._fetcher.holding():
                with self.observer.timed("fetch"):
                    data = self._fetcher.fetch(image, options.root, options.until)
                if options.on_fetched:
                    options.on_fetched(image, data)
                return self._decoders(os.getpid()).submit(self._decode, data).result()

    def _decode(self, data: bytes) -> Pixels:
        settings = self._settings
        with self.observer.timed("decode"):
            return self._preprocessor.read(
                data,
                settings.max_pixels,
                exif_orientation=settings.exif_orientation,
                wide=settings.wide_pixels,
                fast=settings.decoding == "fast",
            )


class _naming:
    """Sets the column of a RowError that passes through and has none."""

    def __init__(self, column: str) -> None:
        self._column = column

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RowError) and error.column is None:
            error.column = self._column
