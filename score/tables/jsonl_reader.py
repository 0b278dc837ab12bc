"""Files of a JSON object a line as a job's rows, read lazily."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from score.contract.json_shape import DEEPEST, has_more_values
from score.contract.limits import MAX_COLUMNS
from score.contract.rows import IMAGE, TEXT, Row
from score.errors import BadType, RequestError
from score.storage.byte_source import ByteSource
from score.storage.inputs import MAX_LINE, longer_than
from score.storage.remote import File, Input
from score.tables.column_types import fitted, json_kinds, json_types
from score.tables.lines import (
    NO_NAMES,
    EmptyTable,
    Line,
    Mark,
    Types,
    distinct,
    folder_of,
    is_unicode,
    kept_cells,
    places_of,
)
from score.wording.quoting import quoted

_HEAD_LINES, _HEAD_BYTES = 1_000, 2**23  # whose fields are the table's columns
_MAX_VALUES = 2**20  # of a line: before they become objects of 60 bytes each
_PIECE = 2**20

Place = tuple[int, int]
"""Bytes, unpacked, and lines up to a place."""


class JsonlTable:
    """JSON objects with an `image` field, a `text` field or both, one a line, read lazily.

    Use it as a context manager. The columns are the fields of the first 1,000 lines (of 8 MiB);
    a field that a line lacks is empty. Other fields than `image` and `text` that hold only numbers
    or booleans in the first lines keep that type; others are text, lists and objects as JSON. A
    line that is no such object, has a field that none of the first lines has, or a value that does
    not fit its field's type, or exceeds a bound fails its row. `.gz` and `.zst` are read, too.
    Marks: as of `CsvTable`. Raises BadColumns for a file without a usable field, RequestError for
    one without an object.
    """

    def __init__(self, path: File, chosen: Mapping[str, str] = NO_NAMES) -> None:
        """`chosen`: as for `places_of`."""
        self.path, self.root = path, folder_of(path)
        self.files: list[Input] = [path]
        with ExitStack() as files:
            self._source = files.enter_context(ByteSource(path))
            self.size = self._source.size
            kinds = self._fields_of_head()
            names = list(kinds)
            self._places = places_of(names, path.name, chosen)
            self._files = files.pop_all()
        self._numbers = {name: number for number, name in enumerate(names)}
        self.columns = distinct(names)
        read = {names[number] for number in self._places.values()}
        self._kinds = json_types({name: kinds[name] for name in names if name not in read})
        self.types: Types = {
            column: self._kinds[name]
            for name, column in zip(names, self.columns, strict=True)
            if name in self._kinds
        }

    def __enter__(self) -> JsonlTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def __iter__(self) -> Iterator[Line]:
        return self.after(None)

    def after(self, mark: Mark | None) -> Iterator[Line]:
        """As `Lines.after`."""
        place, lines = mark or (0, 0)
        return self._after(self._lines((place, lines)))

    def _after(self, lines: Iterator[tuple[bytes | BadType, Place]]) -> Iterator[Line]:
        for line, place in lines:
            try:
                fields = _object(line)
                error = self._unknown(fields)
            except BadType as bad:
                fields, error = {}, bad
            row = self._row(fields)
            kept, misfit = fitted(map(fields.get, self._numbers), self._numbers, self._kinds)
            if error or misfit:
                shown = BadType(f"line {place[1]} {error or misfit}")
                row = Row(**{TEXT if TEXT in self._places else IMAGE: shown})
            kept = kept_cells(kept, self._places.get(IMAGE))
            yield Line(row, kept, self._source.position(place[0]), place)

    def _row(self, fields: Mapping[str, object]) -> Row:
        cells = list(map(fields.get, self._numbers))
        return Row(**{name: _readable(cells[number]) for name, number in self._places.items()})

    def _unknown(self, fields: Mapping[str, object]) -> BadType | None:
        """The error of a line with a field that is no column: it would be lost."""
        for name in fields:
            if name not in self._numbers:
                return BadType(
                    f"has a field {quoted(name)}, which none of the first {_HEAD_LINES:,} lines "
                    "has: add it to one of them, as null"
                )
        return None

    def _fields_of_head(self) -> dict[str, set[str]]:
        """All fields of the first lines, and the kinds of their values."""
        names: dict[str, set[str]] = {}
        first: RequestError | None = None
        objects = 0
        for lines, (line, place) in enumerate(self._lines((0, 0)), 1):
            try:
                for name, value in _object(line).items():
                    names.setdefault(name, set()).update(json_kinds(value))
                objects += 1
            except BadType as error:
                first = first or RequestError(f"{self.path.name}: line {place[1]} {error}")
            if lines == _HEAD_LINES or place[0] > _HEAD_BYTES or len(names) > MAX_COLUMNS:
                break
        if not objects:
            raise first or EmptyTable(f"{self.path.name} is empty: it needs a line")
        return names

    def _lines(self, place: Place) -> Iterator[tuple[bytes | BadType, Place]]:
        """Each line that is not blank, or the error of one that is too long, and where it ends."""
        at, number = place
        try:
            stream = self._source.read_from(at)
            while line := stream.readline(MAX_LINE + 1):
                error, end = None, at + len(line)
                if len(line) > MAX_LINE:
                    error = BadType(longer_than(MAX_LINE))
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(_PIECE)
                        end += len(line)
                elif not at:
                    line = line.removeprefix(BOM_UTF8)
                at, number = end, number + 1
                if error or line.strip():
                    yield error or line, (at, number)
        except OSError as error:
            raise RequestError(f"{self.path.name} cannot be read: {error}") from error


def _object(line: bytes | BadType) -> dict[str, object]:
    """A line's fields. Raises BadType, whose message goes on after the line's number."""
    if isinstance(line, BadType):
        raise line
    try:
        text = line.decode().rstrip()
        if has_more_values(line, _MAX_VALUES):
            raise BadType(f"has more than {_MAX_VALUES:,} values")
        value = json.loads(text, object_pairs_hook=_fields)
    except UnicodeDecodeError:
        raise BadType("is not UTF-8 text; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadType(f"is no JSON: {error.msg} at character {error.pos + 1:,}") from None
    except RequestError:
        raise BadType(f"is nested more than {DEEPEST} levels deep") from None
    except ValueError:
        raise BadType("has a number of too many digits") from None
    if not isinstance(value, dict):
        raise BadType("is no JSON object")
    if len(value) > MAX_COLUMNS:
        raise BadType(f"has {len(value):,} fields; at most {MAX_COLUMNS:,}")
    if not all(map(is_unicode, value)):
        raise BadType("has a field whose name holds half a character")
    return value


def _fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object. Raises BadType for one that names a field twice: which of them is meant?"""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise BadType(f"has the field {quoted(twice)} more than once")
    return fields


def _readable(cell: object) -> object:
    if isinstance(cell, str) and not is_unicode(cell):
        return BadType("holds half a character, which is not Unicode text")
    return cell
