"""Every error this package raises on purpose, and what each one means for the caller.

    ScoreError
    ├── ModelError               a model folder that cannot be loaded or computes nonsense
    ├── SettingError             a setting with an unusable value
    ├── AzureError               a size, plan or file that Azure ML would not take
    ├── RequestError             the whole request is refused                        HTTP 400
    │   ├── BadColumns           no usable `image` / `text` column
    │   ├── BadParams            an unknown param, or one with an unusable value
    │   ├── RequestTooLarge      more bytes or rows than the limits allow            HTTP 413
    │   └── RowsFailed           `on_error="raise"` met rows that failed             HTTP 422
    └── RowError                 one row cannot be answered; its neighbours still are
        ├── EmptyRow             neither an image nor a text
        ├── BadType              a cell that is not a string (or, for images, bytes)
        ├── BadBase64            looks like base64, is not
        ├── BadUrl               a URL that cannot be fetched as written
        ├── BlockedHost          a URL that leads to an address that may not be fetched
        ├── FetchFailed          the server, the network or TLS said no
        ├── FetchTimeout         the server took too long
        ├── TooManyBytes         larger than `max_image_bytes`
        ├── NotAnImage           bytes that are no image, or one of a kind that is not read
        ├── TruncatedImage       an image that ends too early or is damaged
        ├── TooManyPixels        larger than `max_pixels`
        └── TextTooLong          longer than the model's context, under `truncate="error"`

An error knows its own consequence: `RequestError.status` is its HTTP status, `RowError.code` the
name that goes on the wire, and `RowError.retryable` whether asking again later can help.

The statuses are those of a server or container. A client of an Azure ML endpoint gets 424 for each
of them, with the same body, and the status in the header `ms-azureml-model-error-statuscode`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import ClassVar, TypedDict


class RowProblem(TypedDict):
    """A failed row as the error body lists it; `index` counts the request's rows from 0."""

    index: int
    column: str | None
    code: str
    message: str
    retryable: bool


class ScoreError(Exception):
    """Base of everything this package raises on purpose."""


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
        """The rows to blame, where single rows are."""
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
    """The refusal of a body over `most` bytes."""
    return RequestTooLarge(f"the body is larger than {most:,} bytes; send fewer rows")


def too_many_rows(most: int) -> RequestTooLarge:
    """The refusal of a table of more than `most` rows."""
    return RequestTooLarge(f"more than {most:,} rows in one request; send fewer at a time")


class RowsFailed(RequestError):
    """`on_error="raise"` met rows that failed; names every one of them."""

    code = "bad_rows"
    status = 422
    _SHOWN = 3

    def __init__(self, failures: Sequence[tuple[int, RowError]], total: int) -> None:
        """`failures` are (position in the request, what went wrong), `total` the request's rows."""
        self.failures = list(failures)
        first = "; ".join(f"row {index}, {error}" for index, error in self.failures[: self._SHOWN])
        more = len(self.failures) - self._SHOWN
        super().__init__(
            f"{len(self.failures)} of {total} rows failed: {first}"
            + (f"; and {more} more" if more > 0 else "")
        )

    @property
    def rows(self) -> list[RowProblem]:
        """Every failed row, in the request's order."""
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
    """One row cannot be answered; its neighbours still are."""

    code: ClassVar[str]
    retryable: bool = False

    def __init__(self, message: str, *, column: str | None = None, retryable: bool | None = None):
        """`column` is filled in by whoever knows it; `retryable` overrides the class's answer."""
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
    """Looks like base64, is not."""

    code = "bad_base64"


class BadUrl(RowError):
    """A URL that cannot be fetched as written."""

    code = "bad_url"


class BlockedHost(RowError):
    """A URL that leads to an address that may not be fetched."""

    code = "blocked_host"


class FetchFailed(RowError):
    """The server, the network or TLS said no."""

    code = "fetch_failed"


class FetchTimeout(RowError):
    """The server took too long."""

    code = "fetch_timeout"
    retryable = True


class TooManyBytes(RowError):
    """Larger than `max_image_bytes`."""

    code = "too_many_bytes"


class NotAnImage(RowError):
    """Bytes that no allowed image format explains, or pixels of a kind that is not read."""

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
"""The table of row codes: what a client may meet in `rows[].code`."""


def meant(word: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of a message about an unknown word: what was probably meant, or nothing.

    `prefix`: what all words begin with, which says nothing of how alike they are.
    """
    near = nearest(word, known, prefix=prefix)
    return f"; did you mean {near}?" if near else ""


def nearest(
    word: str, known: Iterable[str], *, prefix: str = "", cutoff: float = 0.6
) -> str | None:
    """The known word that is most alike, in any case; None below a `cutoff` of difflib's ratio."""
    spelled = {name.removeprefix(prefix).lower(): name for name in known}
    close = get_close_matches(word.removeprefix(prefix).lower(), spelled, n=1, cutoff=cutoff)
    return spelled[close[0]] if close else None
