"""JSON ↔ rows and records: parsing of request bodies, rendering of responses.

In: Azure's `{"input_data": {"columns", "index", "data"}, "params": {…}}`, a list of records in the
same place, and MLflow's own keys with the same tables. Out: a bare list of records, or an error
body. No I/O, no web framework.
"""

from __future__ import annotations

import codecs
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from typing import Any, NotRequired, TypedDict

import numpy as np
import orjson

from score.contract import json_reader
from score.contract.json_reader import TooManyValues
from score.contract.limits import check_column_count
from score.contract.params import Params
from score.contract.rows import FEATURES, IMAGE, TEXT, Record, Row, check_columns, check_spelling
from score.errors import BadType, RequestError, RowProblem, ScoreError
from score.wording.quoting import listed, quoted

TABLES = ("input_data", "dataframe_split", "dataframe_records", "inputs", "instances")
"""The keys under which a request may put its table."""
PARAMS = "params"

VALUES_PER_ROW = 32
"""Of a row allowed: its cells, those of columns that are ignored, its place in the index."""

_BESIDE = 16_384  # values that belong to no row: labels and their prompts, params
_GZIP = b"\x1f\x8b"
_NOT_UTF8 = "the body is not UTF-8"
_LARGE = 2**20  # bytes
_one_large_body = Lock()
"""No two threads can parse at once, and each that tries takes others' turns."""
_FEW = 64  # values that are written in a turn; other threads run between two
_COMPOSED = (list, dict, np.ndarray)
_OF_ARRAYS = orjson.OPT_SERIALIZE_NUMPY
_NUMBERS = 2**15  # of an array, likewise


def _renew() -> None:
    """In a forked process: the thread that held the lock is not in it."""
    global _one_large_body
    _one_large_body = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


class ErrorBody(TypedDict):
    """The value of `"error"` in the response to a refused request."""

    code: str
    message: str
    rows: NotRequired[list[RowProblem]]


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed request."""

    rows: list[Row]
    params: Params


def parse(body: bytes | str, most_rows: int) -> Request:
    """A JSON body → rows and params. Raises RequestError; RequestTooLarge before objects are made
    of more values than `most_rows` rows can have."""
    return request_of(decode(body, most_rows, " (CSV and parquet are for MLflow's server)"))


def request_of(content: object) -> Request:
    """Decoded JSON → rows and params. Raises RequestError."""
    if not isinstance(content, dict):
        raise RequestError(f"the body must be a JSON object, not {kind(content)}")
    keys = [key for key in TABLES if key in content]
    if len(keys) > 1:
        raise RequestError(f"the body has several tables: {', '.join(map(repr, keys))}")
    if not keys:
        raise RequestError(f"the body needs the key 'input_data'; its keys are {listed(content)}")
    unknown = [key for key in content if key not in (keys[0], PARAMS)]
    if unknown:
        raise RequestError(f"unknown key {quoted(unknown[0])} beside {keys[0]!r}")
    params = Params.parse(content.get(PARAMS))
    return Request(parse_table(content[keys[0]], keys[0]), params)


def parse_table(table: object, key: str = "input_data") -> list[Row]:
    """A table in one of three layouts → rows. Raises RequestError.

    Split (`{"columns", "data"}`, with or without `"index"`), a list of records, or an object of
    columns (`{"image": […], "text": […]}`), which is one row where its values are no lists.
    """
    if isinstance(table, list):
        return _from_records(table, key)
    if not isinstance(table, dict):
        raise RequestError(f"{key!r} must be an object or a list of records, not {kind(table)}")
    if "data" in table or "columns" in table:
        return _from_split(table, key)
    return _from_columns(table, key)


def render(record: Record) -> dict[str, Any]:
    """A record as JSON values: vectors as lists of floats; only what the row has."""
    answer = content(record)
    lists = {name: answer[name].tolist() for name in FEATURES if name in answer}
    return answer | lists


def content(record: Record) -> dict[str, Any]:
    """As `render`, with vectors as they are, for `dump`: their floats as Python's would take 32
    bytes each, and for an answer of many rows a long time to be freed."""
    if record.error is not None:
        error = record.error
        return {"error": {"code": error.code, "message": str(error), "retryable": error.retryable}}
    answer: dict[str, Any] = {}
    if record.image_features is not None:
        answer["image_features"] = record.image_features
    if record.text_features is not None:
        answer["text_features"] = record.text_features
    if record.labels is not None and record.probs is not None:
        answer |= {"labels": [*record.labels], "probs": [*record.probs]}
    return answer


def blank(params: Params) -> dict[str, Any]:
    """A record with all the keys that a record under `params` may have, each None.

    Tables need the same keys in every record; HTTP responses leave keys without a value out.
    """
    labels = ("labels", "probs") if params.labels else ()
    error = ("error",) if params.on_error == "report" else ()
    return dict.fromkeys(("image_features", "text_features", *labels, *error))


def error_body(error: ScoreError) -> ErrorBody:
    """The error body of a refused request."""
    if isinstance(error, RequestError):
        return {"code": error.code, "message": str(error), "rows": error.rows}
    return {"code": "internal_error", "message": str(error)}


def dump(payload: object) -> bytes:
    """A payload of Python's own types, and of arrays of floats [numbers], as JSON. Numbers are read
    back as the same floats.

    Raises ValueError for NaN or infinity, which JSON does not have.
    """
    if not _finite(payload):
        raise ValueError("JSON has neither NaN nor infinity")
    return b"".join(_written(payload))


def _written(payload: object) -> Iterator[bytes]:
    """JSON piece by piece: while a piece is written no other thread runs."""
    if isinstance(payload, dict) and any(isinstance(x, _COMPOSED) for x in payload.values()):
        before = b"{"
        for key, value in payload.items():
            yield before + _piece(key) + b":"
            yield from _written(value)
            before = b","
        yield b"}"
    elif isinstance(payload, list) and payload and isinstance(payload[0], _COMPOSED):
        yield from _parts(payload, _FEW) if len(payload) > _FEW else _each(payload)
    elif isinstance(payload, np.ndarray) and len(payload) > _NUMBERS:
        yield from _parts(payload, _NUMBERS)
    else:
        yield _piece(payload)


def _each(values: list[object]) -> Iterator[bytes]:
    """A list of few values, which may be large."""
    before = b"["
    for value in values:
        yield before
        yield from _written(value)
        before = b","
    yield b"]"


def _parts(values: Any, few: int) -> Iterator[bytes]:
    """A list or an array, so many values at a time."""
    for begin in range(0, len(values), few):
        yield b"," if begin else b"["
        yield _piece(values[begin : begin + few])[1:-1]
    yield b"]"


def _piece(value: object) -> bytes:
    try:
        return orjson.dumps(value, default=_array)
    except TypeError:  # lone surrogates, which UTF-8 does not have either, and very large integers
        if isinstance(value, list):
            return b"[%s]" % b",".join(map(_piece, value))
        return json.dumps(value, default=np.ndarray.tolist).encode()


def _array(values: object) -> orjson.Fragment:
    """An array's numbers as those of Python's floats: float32 would be written shorter, and be read
    back as other numbers."""
    if not isinstance(values, np.ndarray):
        raise TypeError
    return orjson.Fragment(orjson.dumps(values.astype(np.float64), option=_OF_ARRAYS))


def decode(body: bytes | str, most_rows: int, hint: str = "") -> object:
    """The content of a JSON body. Raises RequestError, also for a key that is repeated;
    RequestTooLarge before objects are made of more values than `most_rows` rows can have.

    hint: the end of the message about what is no JSON.
    """
    with _one_large_body if len(body) > _LARGE else nullcontext():
        return _decoded(body, most_rows, hint)


def _decoded(body: bytes | str, most_rows: int, hint: str) -> object:
    most = _BESIDE + VALUES_PER_ROW * most_rows
    if isinstance(body, bytes):
        _check_encoding(body)
    try:
        return json_reader.read(body.encode() if isinstance(body, str) else body, most)
    except TooManyValues:
        raise TooManyValues(
            f"the body holds more than {most:,} values, {VALUES_PER_ROW} for each of "
            f"{most_rows:,} rows and some more; send fewer rows, without other columns"
        ) from None
    except ValueError as error:
        if isinstance(error, UnicodeError):
            raise RequestError(_NOT_UTF8) from None
        raise RequestError(f"the body is not JSON: {error}{hint}") from None


def _check_encoding(body: bytes) -> None:
    """Raises RequestError for what would be no JSON at its first byte, for a reason of its own."""
    if body.startswith(_GZIP):
        raise RequestError("the body is compressed with gzip; send it as it is")
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in body[:4]:
        raise RequestError(_NOT_UTF8)


def _finite(value: object) -> bool:
    """Whether all numbers are; orjson would write null for those that are not."""
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, np.ndarray):
        return bool(np.isfinite(value).all())
    if not isinstance(value, (list, tuple)):
        return not isinstance(value, float) or math.isfinite(value)
    if set(map(type, value)) != {float}:
        return all(map(_finite, value))
    # A sum is finite only if all are, and much faster; it may overflow nevertheless.
    return math.isfinite(sum(value)) or all(map(math.isfinite, value))


def _from_split(table: Mapping[str, Any], key: str) -> list[Row]:
    columns, data, index = table.get("columns"), table.get("data"), table.get("index")
    unknown = [name for name in table if name not in ("columns", "data", "index")]
    if unknown:
        raise RequestError(f"{key!r} has an unknown key {quoted(unknown[0])}")
    if not isinstance(columns, list):
        raise RequestError(f"{key}.columns must be a list of names, not {kind(columns)}")
    if not isinstance(data, list):
        raise RequestError(f"{key}.data must be a list of rows, not {kind(data)}")
    if index is not None and (not isinstance(index, list) or len(index) != len(data)):
        raise RequestError(f"{key}.index must be a list with one entry for each row of data")
    check_column_count(len(columns), key)
    check_columns(columns)
    positions = {name: columns.index(name) for name in (IMAGE, TEXT) if name in columns}
    rows = []
    for number, cells in enumerate(data):
        if not isinstance(cells, list):
            raise RequestError(f"{key}.data: row {number} must be a list, not {kind(cells)}")
        if len(cells) != len(columns):
            raise RequestError(
                f"{key}.data: row {number} has {len(cells)} cells for {len(columns)} columns"
            )
        rows.append(Row(**{name: cells[position] for name, position in positions.items()}))
    return rows


def _from_records(records: Sequence[object], key: str) -> list[Row]:
    headers: dict[tuple[str, ...], None] = {}
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise RequestError(f"{key}: record {number} must be an object, not {kind(record)}")
        headers[tuple(record)] = None
    if records:
        names = list(dict.fromkeys(chain(*headers)))
        check_column_count(len(names), key)
        for header in headers:
            check_spelling(header)
        check_columns(names)
    return [_row(record) for record in records if isinstance(record, dict)]


def _from_columns(table: Mapping[str, Any], key: str) -> list[Row]:
    check_column_count(len(table), key)
    check_columns(list(table))
    columns = {name: table[name] for name in (IMAGE, TEXT) if name in table}
    if any(isinstance(cells, list) for cells in columns.values()):
        columns = {name: cells for name, cells in columns.items() if cells is not None}
    if not any(isinstance(cells, (list, dict)) for cells in columns.values()):
        return [Row(**columns)]
    for name, cells in columns.items():
        if not isinstance(cells, list):
            raise RequestError(f"{key}.{name} must be a list, not {kind(cells)}")
    if len({len(cells) for cells in columns.values()}) > 1:
        raise RequestError(f"{key}: the columns are of different length")
    return [
        Row(**dict(zip(columns, cells, strict=True)))
        for cells in zip(*columns.values(), strict=True)
    ]


def _row(cells: Mapping[str, object]) -> Row:
    return Row(image=cells.get(IMAGE), text=cells.get(TEXT))


def kind(value: object) -> str:
    """A value's type, in JSON's words."""
    if value is None:
        return "null"
    if isinstance(value, BadType):
        return f"a text that {value}"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")
