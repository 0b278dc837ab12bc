"""Vectors → an index of Azure AI Search, over its REST API, version 2024-07-01.

A document's key is made of its file's content and its place in it, and documents are merged into
those of the same key. So a push that was interrupted is repeated as a whole, and changes nothing
that is there already.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pyarrow as pa
import urllib3

from score.contract.rows import IMAGE
from score.errors import RequestError
from score.index.build import files_of, opened
from score.index.ledger import Ledger
from score.index.listing import plain
from score.index.vector_table import VectorTable
from score.type_aliases import FeatureColumn, Matrix
from score.wording.quoting import quoted

KEY_VARIABLE = "AZURE_SEARCH_KEY"
KEY = "key"
"""The field that identifies a document."""

_VERSION = "2024-07-01"
_PROFILE, _ALGORITHM = "cosine", "hnsw"
_NAME = re.compile(r"[a-z0-9](?:-?[a-z0-9]){1,127}")
_FIELD = re.compile(r"(?!azureSearch)[A-Za-z][A-Za-z0-9_]{0,127}")
_LOCAL = ("127.0.0.1", "localhost", "::1")
_DOCUMENTS = 500  # of a batch; the service takes 1,000, and 16 MB
_BYTES = 8 * 2**20
_ATTEMPTS = 7
_LONGEST_WAIT = 60.0  # seconds
_RETRIED = {429, 500, 502, 503, 504}
_RETRIED_DOCUMENTS = {409, 422, 429, 503}
_TIMEOUT = urllib3.Timeout(connect=10, read=120)


@dataclass(frozen=True, slots=True)
class Address:
    """Of an index: `https://NAME.search.windows.net/indexes/INDEX`."""

    service: str
    index: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises RequestError for what is no such URL. Without TLS the key would be readable, so
        only this machine's addresses may begin with `http:`."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            parts, host = urlsplit(""), None
        path = parts.path.rstrip("/").split("/")
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and host in _LOCAL)
        is_plain = not (parts.query or parts.fragment or "@" in parts.netloc)
        if not (host and is_safe and is_plain and len(path) == 3 and path[1] == "indexes"):
            raise RequestError(
                f"{quoted(url)} is not of the form https://NAME.search.windows.net/indexes/INDEX"
            )
        if not _NAME.fullmatch(path[2]):
            raise RequestError(
                f"{quoted(path[2])} is no name of an index: 2 to 128 lower-case letters, digits "
                "and single dashes"
            )
        return cls(f"{parts.scheme}://{parts.netloc}", path[2])


@dataclass(frozen=True, slots=True)
class Field:
    """A column as a field of documents. `value`: of a cell of `to_pylist`."""

    name: str
    kind: str
    value: Callable[[Any], Any]

    def definition(self) -> dict[str, Any]:
        """Filterable strings are limited to 32 KB, which images in base64 exceed."""
        is_filter = self.value is not _text and self.name != IMAGE
        return {"name": self.name, "type": self.kind, "searchable": False, "filterable": is_filter}


def push(
    table: str | Path | Sequence[str | Path],
    url: str,
    key: str,
    column: FeatureColumn = "image_features",
    *,
    pause: Callable[[float], object] = time.sleep,
) -> int:
    """Pushes the vectors of parquet files, and the columns beside them; returns their number.

    The index is created, or gets the fields that it lacks. `table`, `column`: as in `build_index`.
    `url`: of the index. `key`: an admin key of the service. `pause`: waits so many seconds. Raises
    RequestError for what `build_index` refuses, before anything is sent, and where the service
    refuses or does not answer.
    """
    service = _Service(Address.parse(url), key, pause)
    files = files_of(table)
    content = opened(files, column)
    fields = fields_of(content.columns, column)
    sources = Ledger(0, column, content.dimension, content.origin).changes(files).new
    by_path = {str(table.path.resolve()): table for table in content.tables}
    tables = [(by_path[source.path], source.digest) for source in sources]
    service.create(definition(service.address.index, fields, column, content.dimension))
    count = 0
    for batch in _batches(_documents(tables, content.columns, fields, column)):
        service.add(batch)
        count += len(batch)
    return count


def definition(
    name: str, fields: Mapping[str, Field], column: str, dimension: int
) -> dict[str, Any]:
    """The index's schema, as the service takes it."""
    vector = {
        "name": column,
        "type": "Collection(Edm.Single)",
        "searchable": True,
        "dimensions": dimension,
        "vectorSearchProfile": _PROFILE,
    }
    key = {"name": KEY, "type": "Edm.String", "key": True, "filterable": True}
    return {
        "name": name,
        "fields": [key, *(field.definition() for field in fields.values()), vector],
        "vectorSearch": {
            "algorithms": [
                {"name": _ALGORITHM, "kind": "hnsw", "hnswParameters": {"metric": "cosine"}}
            ],
            "profiles": [{"name": _PROFILE, "algorithm": _ALGORITHM}],
        },
    }


def fields_of(columns: pa.Schema, column: str) -> dict[str, Field]:
    """Column → field. Raises RequestError for two columns of one field's name.

    Characters that names of fields cannot have become `_`.
    """
    fields: dict[str, Field] = {}
    taken = {KEY: "the key", column: "the vectors"}
    for each in columns:
        name = re.sub(r"[^A-Za-z0-9_]", "_", each.name)
        if not _FIELD.fullmatch(name):
            name = f"column_{name}"[:128]
        if name in taken:
            raise RequestError(
                f"column {quoted(each.name)} would be the field {quoted(name)}, which holds "
                f"{taken[name]}: rename it"
            )
        taken[name] = quoted(each.name)
        fields[each.name] = Field(name, *_kind(each.type))
    return fields


def _kind(kind: pa.DataType) -> tuple[str, Callable[[Any], Any]]:
    """The service's type of a column, and how its values are sent."""
    if pa.types.is_boolean(kind):
        return "Edm.Boolean", plain
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return "Edm.Int64", plain
    if pa.types.is_floating(kind):
        return "Edm.Double", plain
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "Edm.DateTimeOffset", _moment
    if _is_text(kind):
        return "Edm.String", plain
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_text(kind.value_type):
        return "Collection(Edm.String)", _texts
    return "Edm.String", _text


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _moment(value: Any) -> str | None:
    """ISO 8601 with an offset: what has none is taken for UTC."""
    if value is None:
        return None
    if not hasattr(value, "tzinfo"):
        return f"{value.isoformat()}T00:00:00Z"
    text: str = value.isoformat()
    return text if value.tzinfo else f"{text}Z"


def _texts(value: Any) -> list[str]:
    return [text for text in value or () if text is not None]


def _text(value: Any) -> str | None:
    """A value of any other type, as JSON."""
    return None if value is None else json.dumps(plain(value), ensure_ascii=False)


def _documents(
    tables: Sequence[tuple[VectorTable, str]],
    columns: pa.Schema,
    fields: Mapping[str, Field],
    column: str,
) -> Iterator[dict[str, Any]]:
    """tables: with the digests of their files."""
    first = 0
    for table, digest in tables:
        place = 0
        for batch, matrix in table.batches(first):
            rows = _without_nanoseconds(table.conformed(batch, columns)).to_pylist()
            for row, vector in zip(rows, matrix, strict=True):
                yield {
                    "@search.action": "mergeOrUpload",
                    KEY: f"{digest[:24]}-{place}",
                    **{field.name: field.value(row[name]) for name, field in fields.items()},
                    column: _numbers(vector),
                }
                place += 1
        first += table.size


def _without_nanoseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Python's times have microseconds."""
    schema = pa.schema(
        [
            pa.field(field.name, pa.timestamp("us", field.type.tz))
            if pa.types.is_timestamp(field.type)
            else field
            for field in batch.schema
        ]
    )
    columns = [
        column.cast(field.type, safe=False)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.record_batch(columns, schema=schema)


def _numbers(vector: Matrix) -> list[float]:
    """Eight digits are more than a float32 has: shorter than Python's seventeen."""
    return [round(number, 8) for number in vector.tolist()]


def _batches(documents: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for document in documents:
        length = len(json.dumps(document))
        if batch and (len(batch) >= _DOCUMENTS or size + length > _BYTES):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += length
    if batch:
        yield batch


class _Service:
    """The REST API, whose refusals are RequestErrors."""

    def __init__(self, address: Address, key: str, pause: Callable[[float], object]) -> None:
        if not key or not key.isascii() or not key.isprintable():
            raise RequestError(f"{KEY_VARIABLE} must be set to an admin key of the search service")
        self.address, self._pause = address, pause
        self._headers = {"api-key": key, "content-type": "application/json"}
        self._http = urllib3.PoolManager(retries=False, timeout=_TIMEOUT)

    def create(self, index: Mapping[str, Any]) -> None:
        """Creates the index, or updates one that is there."""
        status, said = self._ask("PUT", "", index)
        if status not in (200, 201, 204):
            raise self._refusal(status, said)

    def add(self, documents: Sequence[dict[str, Any]]) -> None:
        """Adds documents; those that the service was too busy for again."""
        left = list(documents)
        for attempt in range(_ATTEMPTS):
            status, said = self._ask("POST", "/docs/index", {"value": left})
            if status == 413 and len(left) > 1:
                self.add(left[: len(left) // 2])
                self.add(left[len(left) // 2 :])
                return
            if status not in (200, 201, 207):
                raise self._refusal(status, said)
            failed = self._failed(said)
            left = [document for document in left if document[KEY] in failed]
            if not left:
                return
            self._pause(_wait(attempt, None))
        raise RequestError(
            f"the search service did not take {len(left)} documents: it is too busy; push again"
        )

    def _failed(self, said: Any) -> set[str]:
        """Keys of documents that may be sent again. Raises RequestError for others that failed."""
        if not isinstance(said, dict) or not isinstance(said.get("value"), list):
            raise RequestError("the search service's answer is not that of Azure AI Search")
        again = set()
        for each in said["value"]:
            if not isinstance(each, dict) or each.get("status") is True:
                continue
            if each.get("statusCode") not in _RETRIED_DOCUMENTS:
                raise RequestError(
                    f"the search service refuses the document {quoted(each.get('key'))}: "
                    f"{quoted(each.get('errorMessage'), 300)}"
                )
            again.add(str(each.get("key")))
        return again

    def _ask(self, method: str, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        """Status and decoded body; tried again while the service is busy or does not answer."""
        name = self.address.index
        url = f"{self.address.service}/indexes/{name}{path}?api-version={_VERSION}"
        data = json.dumps(body, allow_nan=False).encode()
        failure = ""
        for attempt in range(_ATTEMPTS):
            asked: str | None = None
            try:
                answer = self._http.request(
                    method, url, body=data, headers=self._headers, redirect=False
                )
            except urllib3.exceptions.HTTPError as error:
                failure = f"{self.address.service} does not answer: {type(error).__name__}"
            else:
                if answer.status not in _RETRIED:
                    return answer.status, _decoded(answer.data)
                failure = f"{self.address.service} answered {answer.status}"
                asked = answer.headers.get("retry-after")
            if attempt + 1 < _ATTEMPTS:
                self._pause(_wait(attempt, asked))
        raise RequestError(f"{failure}, {_ATTEMPTS} times")

    def _refusal(self, status: int, said: Any) -> RequestError:
        if status in (401, 403):
            return RequestError(
                f"{self.address.service} refuses the key in {KEY_VARIABLE} ({status}): an admin "
                "key is needed"
            )
        inner = said.get("error") if isinstance(said, dict) else None
        message = inner.get("message") if isinstance(inner, dict) else None
        shown = f": {quoted(message, 300)}" if message else ""
        return RequestError(f"{self.address.service} answered {status}{shown}")


def _wait(attempt: int, asked: str | None) -> float:
    """Seconds before the next attempt: what the service asks for, else twice as long each time."""
    if asked and asked.isdecimal() and len(asked) < 6:
        return min(float(asked), _LONGEST_WAIT)
    return min(2.0**attempt, _LONGEST_WAIT)


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data) if data else None
    except (ValueError, RecursionError):
        return None
