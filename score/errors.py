"""The errors that this package raises for input it cannot use, and their consequences.

    ScoreError
    ├── ModelError               a model folder that cannot be loaded or computes other vectors
    ├── SettingError             a setting with an unusable value
    ├── AzureError               a size, plan or file that Azure ML would not take
    ├── RequestError             the whole request is refused                        HTTP 400
    │   ├── BadColumns           no usable `image` / `text` column
    │   ├── BadParams            an unknown param, or one with an unusable value
    │   ├── BadField             an unknown key of a body, or one with an unusable value
    │   ├── UnknownModel         a model that this server does not have          HTTP 404
    │   ├── UnsupportedType      a body of a type that is not read               HTTP 415
    │   ├── RequestTooLarge      more bytes, rows or labels than the limits allow    HTTP 413
    │   ├── RowsFailed           `on_error="raise"` met rows that failed             HTTP 422
    │   ├── Overloaded           other requests are ahead of it; try again later     HTTP 429
    │   ├── ModelUnavailable     its model is not loaded now; try again later        HTTP 503
    │   ├── Cancelled            its client went away before the answer              HTTP 499
    │   ├── OutOfMemory          one of its inputs alone does not fit in memory      HTTP 503
    │   └── RequestTimeout       it was not answered in time                         HTTP 504
    └── RowError                 one row cannot be answered; the other rows still are
        ├── EmptyRow             neither an image nor a text
        ├── BadType              a cell that is not a string (or, for images, bytes)
        │   └── UnreadableFile   the rest of one of a job's input files
        ├── BadBase64            neither a URL, a `data:` URI nor valid base64
        ├── BadUrl               a URL that cannot be fetched as written
        ├── BlockedHost          a URL that leads to no public address
        ├── FetchFailed          the image's server, a proxy, the network or TLS refused
        │   └── HostDown         the server did not answer other rows, and was not asked
        ├── FetchTimeout         the download did not finish in time
        ├── TooManyBytes         larger than `max_image_bytes`
        ├── NotAnImage           bytes that are no image of a supported format
        ├── TruncatedImage       an image file that ends too early or is damaged
        ├── TooManyPixels        larger than `max_pixels`
        └── TextTooLong          longer than the model's context, under `truncate="error"`

`RequestError.status` is the HTTP status, `RowError.code` the row's error code in responses, and
`RowError.retryable` whether the same request may succeed later.

The statuses are those of our server or container. A client of an Azure ML endpoint gets a 424 for
each of them, with the same body, and the status in the header `ms-azureml-model-error-statuscode`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypedDict

from score.wording.quoting import quoted


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
    """A model folder that cannot be loaded, or whose vectors differ from its probes.

    What to do: the message names the file or the probe. Complete the folder (`git lfs pull`, `score
    package --base`); for a failed probe, run `score verify`, try `--precision fp32`.
    """


class SettingError(ScoreError):
    """A setting (environment variable or flag) with an unusable value.

    What to do: the message names the setting and the values it may have; correct it.
    """


class AzureError(ScoreError):
    """A machine size, plan or file that Azure ML would not take.

    What to do: change the option or the line of YAML that the message names; `score azure check`
    checks YAML again without an Azure subscription.
    """


class RequestError(ScoreError):
    """The whole request is refused: its body is not the JSON table that is documented.

    What to do: correct the request as the message says. Sent again unchanged, it fails again.
    """

    code: ClassVar[str] = "bad_request"
    status: ClassVar[int] = 400
    field: str | None = None
    """The key of the body that is at fault, where one is."""
    retryable: ClassVar[bool] = False
    retry_after: int | None = None
    """Seconds after which it may be sent again, where known: the header `Retry-After`."""

    @property
    def rows(self) -> list[RowProblem]:
        """The rows that failed; empty where the error is not about single rows."""
        return []


class BadColumns(RequestError):
    """No usable `image` or `text` column.

    What to do: name the columns exactly `image` and `text`, in lower case and each at most once.
    Other columns are ignored.
    """

    code = "bad_columns"


class BadParams(RequestError):
    """An unknown param, or one with an unusable value.

    What to do: correct the param that the message names, or leave it out for its default.
    """

    code = "bad_params"


class BadField(RequestError):
    """A key of a request's body that is missing, unknown, or has an unusable value.

    What to do: correct the key that the message names. What a server that the client was written
    for may offer and this one does not is refused, never ignored.
    """

    code = "bad_field"

    def __init__(self, message: str, field: str | None = None) -> None:
        """`field`: the key."""
        super().__init__(message)
        self.field = field


class UnknownModel(RequestError):
    """The request names a model that this server does not have.

    What to do: name one of those that the message lists, or none: vectors of another model cannot
    be compared with this one's.
    """

    code = "model_not_found"
    status = 404
    field = "model"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        """`known`: the names of the server's models."""
        served = ", ".join(map(repr, known))
        super().__init__(f"the model {quoted(name)} does not exist here; this server has {served}")


class UnsupportedType(RequestError):
    """The body is of a type that this path does not read.

    What to do: send one of the types that the message lists.
    """

    code = "unsupported_media_type"
    status = 415


class RequestTooLarge(RequestError):
    """More bytes, rows or labels than the limits allow, or longer labels.

    What to do: divide the rows among several requests, or raise the setting that limits them:
    `SCORE_MAX_REQUEST_BYTES` or `_ROWS`, `SCORE_MAX_PENDING_BYTES` or `_ROWS`,
    `SCORE_MAX_SCORES`, `SCORE_MAX_ANSWER_BYTES`.
    """

    code = "too_large"
    status = 413


class RowsFailed(RequestError):
    """At least one row failed, under `on_error="raise"`; `rows` lists every failed row.

    What to do: correct or remove those rows, each by its own code, or send `on_error="report"`,
    which answers the good rows and puts an error record in place of each bad one.
    """

    code = "bad_rows"
    status = 422
    _SHOWN = 3

    def __init__(self, failures: Sequence[tuple[int, RowError]], total: int) -> None:
        """failures: (position in the request, error) pairs; total: number of rows in it."""
        self.failures = list(failures)
        first = "; ".join(
            f"row {index}, {str(error)[:300]}" for index, error in self.failures[: self._SHOWN]
        )
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


class Overloaded(RequestError):
    """The process has as many requests under way as its limits allow, or as it can answer in time.
    The request was refused before any work was done for it.

    What to do: send it again after that time. If it happens often, add replicas, or raise the limit
    that the message names: `SCORE_MAX_PENDING_REQUESTS`, `SCORE_MAX_PENDING_ROWS`,
    `SCORE_MAX_PENDING_BYTES` or `SCORE_MAX_WAIT`.
    """

    code = "overloaded"
    status = 429
    retryable = True

    def __init__(self, message: str, retry_after: int = 1) -> None:
        """retry_after: seconds."""
        super().__init__(message)
        self.retry_after = retry_after


class ModelUnavailable(RequestError):
    """The request's model is not loaded now: loading failed, or too many requests wait for it.

    What to do: send it again after `Retry-After`; the log and `/health/ready` say what is wrong.
    """

    code = "model_unavailable"
    status = 503
    retryable = True
    retry_after = 1


class Cancelled(RequestError):
    """The client closed its connection, or a program cancelled the call, before the answer. Its
    downloads, decoding and forward passes were given up. Only the server's log shows it.

    What to do: nothing; for clients that give up too early, raise their own timeout.
    """

    code = "cancelled"
    status = 499


class OutOfMemory(RequestError):
    """The device has too little memory for one input alone; larger passes are divided to fit.

    What to do: send it again later; else look for other processes on the device.
    """

    code = "out_of_memory"
    status = 503
    retryable = True
    retry_after = 10


class RequestTimeout(RequestError):
    """The request was not answered within `SCORE_REQUEST_TIMEOUT`, or its own `X-Request-Timeout`.
    What was still being downloaded, decoded or computed for it was given up.

    What to do: send fewer rows at a time, or raise the setting or the header. If single downloads
    take long, lower `SCORE_REQUEST_DEADLINE`: rows whose images are late are then errors of theirs.
    """

    code = "request_timeout"
    status = 504
    retryable = True


class RowError(ScoreError):
    """One row cannot be answered; the other rows still are.

    What to do: see the row's own code. If `retryable` is true, sending the row again later may
    succeed; otherwise the row or a setting has to change first.
    """

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
    """The row has neither an image nor a text.

    What to do: fill the `image` cell, the `text` cell or both, or remove the row. Blank strings,
    `null` and NaN count as empty.
    """

    code = "empty_row"


class BadType(RowError):
    """A cell that is not a string (or, for images in Python and Spark, bytes).

    What to do: send the cell as a string: numbers as text, an image's bytes as base64.
    """

    code = "bad_type"


class UnreadableFile(BadType):
    """The rest of one of a job's files, which is damaged or has other columns: one row, left out.

    What to do: mend the file that the message names, and embed it by itself.
    """

    code = "unreadable_file"


class BadBase64(RowError):
    """An image cell that is neither an http(s) URL, a `data:` URI nor valid base64.

    What to do: check that the string is complete and is base64 of the image file itself. Paths of
    files work only in jobs over tables, below the table's folder or that of `score embed --root`;
    in Python, give `embed_image` and `classify` a file as a `pathlib.Path`.
    """

    code = "bad_base64"


class BadUrl(RowError):
    """A URL that cannot be fetched as written.

    What to do: use `http://` or `https://` with a host name and without `user:password@`; send a
    signed URL for private storage.
    """

    code = "bad_url"


class BlockedHost(RowError):
    """A URL that leads to no public address, or to a port that `SCORE_FETCH_PORTS` does not name.

    What to do: correct the URL; the log says where it leads. Add a host that is yours to
    `SCORE_ALLOW_HOSTS`.
    """

    code = "blocked_host"


class FetchFailed(RowError):
    """The image's server, the network, a proxy or TLS refused the download.

    Retryable where another attempt may succeed: connection errors, truncated answers, status 408,
    425, 429, 500, 502, 503 and 504. `SCORE_MAX_RETRIES` further attempts failed, as time allowed.

    What to do: read the status in the message. 401, 403 and 404 need another URL (an expired
    signature, say), TLS errors of a private authority need `SCORE_CA_BUNDLE`; send the row again
    later if `retryable` is true.
    """

    code = "fetch_failed"


class HostDown(FetchFailed):
    """In a batch job: the image's server has not answered several rows in a row, and was not asked
    for this one.

    What to do: embed the row again once the server is up.
    """

    retryable = True


class FetchTimeout(RowError):
    """The download did not finish in time.

    What to do: send the row again later, or raise `SCORE_ROW_DEADLINE`, `SCORE_READ_TIMEOUT`,
    `SCORE_CONNECT_TIMEOUT` or `SCORE_REQUEST_DEADLINE`.
    """

    code = "fetch_timeout"
    retryable = True


class TooManyBytes(RowError):
    """The encoded image is larger than `SCORE_MAX_IMAGE_BYTES`.

    What to do: send a smaller image (the model sees some hundred pixels a side), or raise that.
    """

    code = "too_many_bytes"


class NotAnImage(RowError):
    """Bytes that are no image of a supported format, or whose kind of pixels is not supported.

    What to do: open the URL in a browser: it often shows an HTML page. Convert other formats.
    """

    code = "not_an_image"


class TruncatedImage(RowError):
    """An image file that ends too early or is damaged.

    What to do: copy the file again. Half an image would have another vector, so none is decoded.
    """

    code = "truncated_image"


class TooManyPixels(RowError):
    """The image has more pixels (width × height) than `SCORE_MAX_PIXELS`, than are left of the
    request's `SCORE_MAX_REQUEST_PIXELS`, or more parts than their decoding could be worth.

    What to do: send a smaller image, or fewer in one request, or raise the limit that is named.
    """

    code = "too_many_pixels"


class TextTooLong(RowError):
    """The text has more tokens than the model's context, under `truncate="error"`.

    What to do: shorten the text, or use the default `truncate="end"`, which cuts it.
    """

    code = "text_too_long"


ROW_CODES: dict[str, type[RowError]] = {error.code: error for error in RowError.__subclasses__()}
"""All row codes: the values of `rows[].code` in responses, and of `error_code` in tables."""
