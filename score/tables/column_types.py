"""The types that the input's columns keep: numbers, booleans, dates and timestamps.

All else is text, lists and structs as JSON. A column has one type in all files of a job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from score.contract.rows import is_empty
from score.tables.lines import Types, cell_text
from score.wording.quoting import quoted

_EXACT, _LONG = 2**53, 2**63
_WORDS = {pa.int64(): "whole numbers", pa.float64(): "numbers", pa.bool_(): "booleans"}
_KEPT = (
    *(pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
    *(pa.types.is_date, pa.types.is_timestamp, pa.types.is_null),
)


def types_of(columns: Iterable[tuple[str, pa.DataType]]) -> Types:
    """The types that columns of these types keep; null for one that is empty."""
    return {name: kind for name, kind in columns if any(is_kind(kind) for is_kind in _KEPT)}


def empty(columns: Iterable[str]) -> Types:
    """The types of columns that a file lacks: null."""
    return dict.fromkeys(columns, pa.null())


def widened(one: Types, other: Types) -> Types:
    """The types that hold the columns of two files: 64 bits for 32 and 64, decimals for whole
    numbers and decimals; text for others that differ. An empty column has any type."""
    kinds = {name: _wider(one[name], other[name]) for name in one if name in other}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if one == other:
        return one
    try:
        both = [pa.schema([("cell", kind)]) for kind in (one, other)]
        return pa.unify_schemas(both, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def stored_as(name: str, types: Types) -> pa.DataType:
    """The type of a column in the files that are written."""
    kind = types.get(name)
    return pa.string() if kind is None or pa.types.is_null(kind) else kind


def fitted(
    cells: Iterable[object], names: Iterable[str], types: Types
) -> tuple[list[object], str | None]:
    """A row's cells as their columns' types hold them, and what is wrong with one that is lost,
    since it would be changed: the rest of a sentence."""
    kept: list[object] = []
    misfit = None
    for cell, name in zip(cells, names, strict=True):
        kind = stored_as(name, types)
        try:
            kept.append(cell_text(cell) if pa.types.is_string(kind) else _fitted(cell, kind))
        except (pa.ArrowException, ValueError, OverflowError):
            kept.append(None)
            misfit = misfit or (
                f"has {quoted(cell)} in {quoted(name)}, which holds {_WORDS.get(kind, kind)} in "
                "the first rows: write all its values in one type, or as texts"
            )
    return kept, misfit


def _fitted(cell: object, kind: pa.DataType) -> object:
    """Raises ValueError, OverflowError, ArrowException for a cell that does not fit."""
    if cell is None or (isinstance(cell, str) and is_empty(cell)):
        return None
    if isinstance(cell, str) or isinstance(cell, bool) != pa.types.is_boolean(kind):
        raise ValueError
    return pa.scalar(cell).cast(kind).as_py()


def json_kinds(value: object) -> set[str]:
    """What a value of a JSON object tells of its field's type; nothing where it is empty."""
    if is_empty(value) and not isinstance(value, float):
        return set()
    if isinstance(value, int) and not isinstance(value, bool):
        # Beyond this bound a double does not hold every whole number.
        return {"whole" if abs(value) <= _EXACT else "long" if -_LONG <= value < _LONG else "text"}
    return {type(value).__name__}


def json_types(fields: Mapping[str, set[str]]) -> Types:
    """The types of the fields of JSON objects, by the kinds of their values; null without any."""
    types: dict[str, pa.DataType] = {}
    for name, kinds in fields.items():
        if not kinds:
            types[name] = pa.null()
        elif kinds == {"bool"}:
            types[name] = pa.bool_()
        elif kinds <= {"whole", "long"}:
            types[name] = pa.int64()
        elif kinds <= {"whole", "float"}:
            types[name] = pa.float64()
    return types
