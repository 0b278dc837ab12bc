"""Cells of parquet's columns as Python values, each shared string in memory once."""

from __future__ import annotations

import pyarrow as pa

_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
_BYTES = (*_BINARY, pa.types.is_fixed_size_binary)
_TEXTUAL = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, *_BINARY)


def is_textual(kind: pa.DataType) -> bool:
    """Whether a column holds strings or bytes, which may be read as a dictionary."""
    return any(is_kind(kind) for is_kind in _TEXTUAL)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds bytes."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(is_kind(kind) for is_kind in _BYTES)


def cells_of(chunk: pa.Array) -> list[object]:
    """The values of a column."""
    if not pa.types.is_dictionary(chunk.type):
        return chunk.to_pylist()  # type: ignore[no-any-return]
    indices = chunk.indices.to_pylist()
    # Of a large dictionary, few values may be in use.
    values = {at: None if at is None else chunk.dictionary[at].as_py() for at in {*indices}}
    return [values[at] for at in indices]
