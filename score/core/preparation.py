"""A row → what the encoder needs of it: decoded pixels and token ids.

Knows nothing of vectors.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from score.concurrency.cancellation import Cancellation
from score.contract.rows import IMAGE, TEXT, Row, is_empty
from score.core.observer import NOBODY, Observer
from score.core.pace import Pace
from score.core.shared import Shared
from score.errors import EmptyRow, NotAnImage, RowError, TooManyPixels
from score.fetch.cells import is_short_base64
from score.images.preprocess import Pixels, Preprocessor
from score.settings import Settings
from score.texts.tokenizer import Ids, Tokenizer
from score.type_aliases import OnFetched, Truncate


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the encoder needs of a row; None for the cell that the row left empty."""

    pixels: Pixels | None
    ids: Ids | None


class PixelBudget:
    """The pixels that the images of one request may have together. Safe to share by threads."""

    def __init__(self, most: int) -> None:
        """`most`: 0 for no limit."""
        self._most = self._left = most
        self._lock = threading.Lock()

    def spend(self, pixels: int) -> None:
        """Takes an image's pixels. Raises TooManyPixels where fewer are left: those stay."""
        with self._lock:
            if self._most and pixels > self._left:
                raise TooManyPixels(
                    f"its {pixels:,} pixels are more than are left of the {self._most:,} that all "
                    "images of a request may have together (max_request_pixels; those of a JPEG "
                    "2000 count sixfold); send fewer at a time"
                )
            self._left -= pixels


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How one call fetches images.

    root: the folder below which a cell may name a file; None allows no files. until: the
    `time.monotonic()` at which downloads give up; None leaves each image its own deadline.
    on_fetched: called from several threads at a time, before the image is decoded. call: ends what
    is under way for it, and is what others take turns with. pixels: of all its images. in_batch:
    rows fail at once where their host has not answered others.
    """

    root: Path | None = None
    until: float | None = None
    on_fetched: OnFetched | None = None
    call: Cancellation = field(default_factory=Cancellation)
    pixels: PixelBudget | None = None
    in_batch: bool = False


class Preparer:
    """Fetches and decodes images, and tokenizes texts. Safe to share between threads."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        preprocessor: Preprocessor,
        settings: Settings,
        shared: Shared | None = None,
    ) -> None:
        """`shared`: with the other models of the process."""
        self._tokenizer = tokenizer
        self._preprocessor = preprocessor
        self._settings = settings
        self.observer: Observer = NOBODY
        self._shared = shared or Shared(settings)
        self.pace = Pace()  # of decoding an image, on one thread

    def in_doubt(self) -> int:
        """Rows, of all calls, that wait for hosts that have not answered for a second."""
        return self._shared.fetcher.in_doubt()

    def inputs(self, row: Row, truncate: Truncate, options: FetchOptions) -> Inputs:
        """The row's pixels and token ids.

        Raises RowError, which names the column; Cancelled or RequestTimeout after the call's end.
        """
        options.call.check()
        if is_empty(row.image) and is_empty(row.text):
            raise EmptyRow("has neither an image nor a text")
        # The text first: it is cheap, and a row that fails needs no download.
        ids = None if is_empty(row.text) else self._ids(row.text, truncate)
        pixels = None if is_empty(row.image) else self._pixels(row.image, options)
        return Inputs(pixels, ids)

    def tried(self, row: Row, truncate: Truncate, options: FetchOptions) -> Inputs | RowError:
        """As `inputs`; a RowError is returned. It outlives the call, so that its traceback, which
        would keep the row's bytes in memory, is dropped."""
        try:
            return self.inputs(row, truncate, options)
        except RowError as error:
            error.__traceback__ = error.__cause__ = error.__context__ = None
            return error

    def is_quick(self, row: Row, options: FetchOptions) -> bool:
        """Whether a row waits for nothing: it has no image, or one that is refused at once."""
        if is_empty(row.image):
            return True
        return self._shared.fetcher.is_quick(row.image, options.root)

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
            fetcher = self._shared.fetcher
            with fetcher.holding():
                with self.observer.timed("fetch"):
                    data = fetcher.fetch(
                        image,
                        options.root,
                        options.until,
                        options.call,
                        in_batch=options.in_batch,
                    )
                if options.on_fetched:
                    options.on_fetched(image, data)
                decode = partial(copy_context().run, self._decode, data, options)
                decoded = self._shared.decoders.submit(options.call, decode)
                try:
                    with options.call.interrupting(decoded.cancel):
                        return decoded.result()
                except NotAnImage as error:
                    raise _explained(error, image, options.root) from None

    def _decode(self, data: bytes, options: FetchOptions) -> Pixels:
        options.call.check()  # it may have ended between the download and this turn
        settings = self._settings
        with self.observer.timed("decode"), self.pace.measuring():
            return self._preprocessor.read(
                data,
                settings.max_pixels,
                exif_orientation=settings.exif_orientation,
                wide=settings.wide_pixels,
                fast=settings.decoding == "fast",
                spend=options.pixels.spend if options.pixels else None,
            )


def _explained(error: NotAnImage, image: object, root: Path | None) -> NotAnImage:
    """The error of a cell that was perhaps meant as a file's path, but happens to be base64."""
    if root is None or not is_short_base64(image, root):
        return error
    return NotAnImage(
        f"{error.message}; the cell was read as base64, since no file below {root.resolve()} has "
        "that name"
    )


class _naming:
    """Sets the column of a RowError that passes through and has none."""

    def __init__(self, column: str) -> None:
        self._column = column

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RowError) and error.column is None:
            error.column = self._column
