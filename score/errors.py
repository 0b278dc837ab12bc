"""The errors that this package raises for input it cannot use, and their consequences.

    ScoreError
    ├── ModelError               a model folder that cannot be loaded or computes nonsense
    ├── SettingError             a setting with an unusable value
    ├── AzureError               a size, plan or file that Azure ML would not take
    ├── RequestError             the whole request is refused                        HTTP 400
    │   ├── BadColumns           no usable `image` / `text` column
    │   ├── BadParams            an unknown param, or one with an unusable value
    │   ├── RequestTooLarge      more bytes or rows than the limits allow            HTTP 413
    │   └── RowsFailed           `on_error="raise"` met rows that failed             HTTP 422
    └── RowError                 one row cannot be answered; the others still are
        ├── EmptyRow             neither an image nor a text
        ├── BadType              a cell that is not a string (or, for images, bytes)
        ├── BadBase64            neither a URL nor valid base64
        ├── BadUrl               a URL that cannot be fetched as written
        ├── BlockedHost          a URL that leads to an address that may not be fetched
        ├── FetchFailed          the server, the network or TLS failed the download
        ├── FetchTimeout         the server took too long
        ├── TooManyBytes         larger than `max_image_bytes`
        ├── NotAnImage           bytes in no supported image format
        ├── TruncatedImage       an image that ends too early or is damaged
        ├── TooManyPixels        larger than `max_pixels`
        └── TextTooLong          longer than the model's context, under `truncate="error"`

`RequestError.status` is the HTTP status, `RowError.code` the row's error code in responses, and
`RowError.retryable` whether the same request may succeed later.

The statuses are those of our server or container. A client of an Azure ML endpoint gets a 424 for
each of them, with the same body, and the status in the header `ms-azureml-model-error-statuscode`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import ClassVar, TypedDict


class RowProblem(TypedDict):
    """A failed row in an error body; `index` is its position in the request, from 0."""

    index: int
    column: str | None
    code: str
    message: str
    retryable: bool


class ScoreError(Exception):
    """Base class of this package's errors."""


class ModelError(ScoreError):
    """A model folder that cannot be loaded or computes nonsense."""


class SettingError(ScoreError):
    """A setting (environment variable or flag) with an unusable value."""


class AzureError(ScoreError):
    """A size, plan or file that Azure ML would not take."""


class RequestError(ScoreError):
    """The whole request is refused."""

    code: ClassVar[str] = "bad_request"
    status: ClassVar[int] = 400

    @property
    def rows(self) -> list[RowProblem]:
        """The rows that failed; empty where the error is not about single rows."""
        return []


class BadColumns(RequestError):
    """No usable `image` / `text` column."""

    code = "bad_columns"


class BadParams(RequestError):
    """An unknown param, or one with an unusable value."""

    code = "bad_params"


class RequestTooLarge(RequestError):
    """More bytes or rows than the limits allow."""

    code = "too_large"
    status = 413


def body_too_large(most: int) -> RequestTooLarge:
    """The error for a body of more than `most` bytes."""
    return RequestTooLarge(f"the body is larger than {most:,} bytes; send fewer rows")


def too_many_rows(most: int) -> RequestTooLarge:
    """The error for a table of more than `most` rows."""
    return RequestTooLarge(f"more than {most:,} rows in one request; send fewer at a time")


class RowsFailed(RequestError):
    """Rows failed under `on_error="raise"`; `rows` lists all of them."""

    code = "bad_rows"
    status = 422
    _SHOWN = 3

    def __init__(self, failures: Sequence[tuple[int, RowError]], total: int) -> None:
        """failures: (position in the request, error) pairs; total: number of rows in it."""
        self.failures = list(failures)
        first = "; ".join(f"row {index}, {error}" for index, error in self.failures[: self._SHOWN])
        more = len(self.failures) - self._SHOWN
        super().__init__(
            f"{len(self.failures)} of {total} rows failed: {first}"
            + (f"; and {more} more" if more > 0 else "")
        )

    @property
    def rows(self) -> list[RowProblem]:
        """All failed rows, in the request's order."""
        return [
            RowProblem(
                index=index,
                column=error.column,
                code=error.code,
                message=error.message,
                retryable=error.retryable,
            )
            for index, error in self.failures
        ]


class RowError(ScoreError):
    """One row cannot be answered; the others still are."""

    code: ClassVar[str]
    retryable: bool = False

    def __init__(self, message: str, *, column: str | None = None, retryable: bool | None = None):
        """column: `image` or `text`, may be set later; retryable: overrides the class's value."""
        super().__init__(message)
        self.message = message
        self.column = column
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.column}: {self.message}" if self.column else self.message


class EmptyRow(RowError):
    """Neither an image nor a text."""

    code = "empty_row"


class BadType(RowError):
    """A cell that is not a string (or, for images, bytes)."""

    code = "bad_type"


class BadBase64(RowError):
    """A cell that is neither a URL nor valid base64."""

    code = "bad_base64"


class BadUrl(RowError):
    """A URL that cannot be fetched as written."""

    code = "bad_url"


class BlockedHost(RowError):
    """A URL that leads to an address that may not be fetched."""

    code = "blocked_host"


class FetchFailed(RowError):
    """The server, the network or TLS failed the download."""

    code = "fetch_failed"


class FetchTimeout(RowError):
    """The server took too long."""

    code = "fetch_timeout"
    retryable = True


class TooManyBytes(RowError):
    """Larger than `max_image_bytes`."""

    code = "too_many_bytes"


class NotAnImage(RowError):
    """Bytes in none of the supported image formats, or with pixels of an unsupported type."""

    code = "not_an_image"


class TruncatedImage(RowError):
    """An image that ends too early or is damaged."""

    code = "truncated_image"


class TooManyPixels(RowError):
    """Larger than `max_pixels`."""

    code = "too_many_pixels"


class TextTooLong(RowError):
    """Longer than the model's context, under `truncate="error"`."""

    code = "text_too_long"


ROW_CODES: dict[str, type[RowError]] = {
    error.code: error
    for error in (
        EmptyRow,
        BadType,
        BadBase64,
        BadUrl,
        BlockedHost,
        FetchFailed,
        FetchTimeout,
        TooManyBytes,
        NotAnImage,
        TruncatedImage,
        TooManyPixels,
        TextTooLong,
    )
}
"""All row codes: the values of `rows[].code` in responses, and of `error_code` in tables."""


def meant(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`; did you mean …?` for the end of a message about an unknown word; empty for none alike.

    prefix: what all words begin with, left out of the comparison.
    """
    near = nearest(word, known, prefix=prefix)
    return f"; did you mean {near}?" if near else ""


def nearest(
    word: str, known: Iterable[str], *, prefix: str = "", cutoff: float = 0.6
) -> str | None:
    """The most similar known word, ignoring case; None below `cutoff`, a ratio of difflib's."""
    spelled = {name.removeprefix(prefix).lower(): name for name in known}
    close = get_close_matches(word.removeprefix(prefix).lower(), spelled, n=1, cutoff=cutoff)
    return spelled[close[0]] if close else None
