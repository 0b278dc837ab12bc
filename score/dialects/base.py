"""What a dialect is made of: routes, and functions from bytes to a call and from records to an
answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from score.contract import wire
from score.contract.limits import NUMBER
from score.contract.params import Params
from score.contract.rows import Record, Row
from score.dialects.schemas import Bounds, Schema
from score.errors import RequestError, RowProblem

JSON = "application/json"
FORM = "multipart/form-data"
IMAGES = "image/*"
RED_SQUARE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGklEQVR42m"
    "O8IyfHQApgYiARjGoY1TB0NAAAjEsBOPY5fDQAAAAASUVORK5CYII="
)
"""An image for examples, of 16 × 16 pixels."""
BAD_RECORD = {"error": {"code": "bad_base64", "message": "image: …", "retryable": False}}
"""The record of a row that failed, for examples."""

_NO_LIMIT = 2**40  # rows, which no body holds


@dataclass(frozen=True, slots=True)
class Message:
    """A request as it came.

    content_type: of the body; empty for none. model: the name in the path, where the route has one.
    most_rows: the server's limit, which `core.endpoint` sets; a parser of a format with cheap rows
    stops there. most_prompts: of the labels of a request, as well. origin: the server's address as
    the request has it, for pages.
    """

    body: bytes = b""
    content_type: str = ""
    model: str | None = None
    most_rows: int = _NO_LIMIT
    most_prompts: int = _NO_LIMIT
    origin: str = "http://localhost"

    @property
    def bounds(self) -> Bounds:
        """The limits that the documentation tells."""
        return Bounds(self.most_rows, self.most_prompts)

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.content_type.partition(";")[0].strip().lower()

    def json(self, hint: str = "") -> object:
        """The content of a JSON body, as `wire.decode` gives it. Raises RequestError."""
        return wire.decode(self.body, self.most_rows, hint)


class ModelFacts(NamedTuple):
    """What answers say about a model. context: token ids that a text may have; created: Unix time
    at which it was first served; fingerprint: of its files, None until it has been loaded."""

    name: str
    dimension: int
    context: int
    created: int = 0
    fingerprint: str | None = None


Render = Callable[[Sequence[Record], ModelFacts], object]
"""The records of a call → the content of the answer, as JSON values, vectors as `wire.dump` takes
them."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for.

    model: the name of the model it asks for; None for the server's default. dimension: the length
    of vectors it asks for, by the key `dimension_field`; a model of another length refuses.
    classify_texts: `params.labels` classify texts, too; the contract's classify images only.
    number: bytes of the answer that each number of a vector takes; 0 where it has no vectors.
    """

    rows: list[Row]
    params: Params
    render: Render
    model: str | None = None
    dimension: int | None = None
    dimension_field: str = "dimensions"
    classify_texts: bool = False
    number: int = NUMBER


class Refusal(NamedTuple):
    """Why a request is not answered. field: the key of the body that is at fault, if one is."""

    status: int
    code: str
    message: str
    field: str | None = None
    rows: Sequence[RowProblem] = ()

    @classmethod
    def of(cls, error: RequestError) -> Refusal:
        """The refusal that an error stands for."""
        return cls(error.status, error.code, str(error), error.field, error.rows)


class Reply(NamedTuple):
    """An answer: its status, and its content as JSON values, or as text of another type."""

    status: int
    content: object
    kind: str = JSON


Refuse = Callable[[Refusal], Reply]


def refuse_plainly(refusal: Refusal) -> Reply:
    """`{"error": "…"}`, the shape of several dialects."""
    return Reply(refusal.status, {"error": refusal.message})


@dataclass(frozen=True, slots=True)
class Route:
    """A path that takes requests: POST.

    path: in Starlette's syntax; `{model:path}` is the model's name. parse: raises RequestError.
    refuse: the dialect's shape of errors. schema: of the JSON bodies that `parse` accepts, under
    the server's limits; form: of forms. example, answer: a request and its answer, for the
    documentation; vectors in it are cut short. also: answers of other shapes. takes: the types of
    bodies.
    """

    path: str
    summary: str
    parse: Callable[[Message], Call]
    refuse: Refuse
    schema: Callable[[Bounds], Schema]
    example: Any
    answer: Any
    also: Sequence[Any] = ()
    takes: Sequence[str] = (JSON,)
    form: Callable[[Bounds], Schema] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A path that is read: GET. content: of the server's models, or of the one that the path names;
    raises RequestError.

    probe: whether it says that the server is live, or ready: then it needs no key, and is a 503
    while the server is not.
    """

    path: str
    summary: str
    content: Callable[[Sequence[ModelFacts], Message], Reply]
    refuse: Refuse
    probe: Literal["", "live", "ready"] = ""


class ServerPage(NamedTuple):
    """A path that is read, GET, and that the server answers by itself: whatever the model, but for
    a probe also while there is none.

    answers: each status → the body's type. probe: as of a `Page`.
    """

    path: str
    summary: str
    answers: Mapping[int, str]
    probe: Literal["", "live", "ready"] = ""
