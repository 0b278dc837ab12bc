"""The sizes that a parquet file states, checked before pyarrow spends memory on them.

pyarrow allocates what the header of a page says, up to 2 GiB for some bytes of a file, and descends
into nested columns by recursion. Neither can be limited there, and the sizes in the file's footer,
which pyarrow shows, need not be those of its pages. So the headers are read here: structs of
Thrift's compact protocol, of which only the few numbers that matter are kept.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import IO

import pyarrow.parquet as pq

from score.errors import RequestError
from score.wording.quoting import quoted

MAX_PAGE = 512 * 2**20
"""Bytes of a page, unpacked."""

_LARGEST_PAGE = 2 * 2**30  # bytes of one that the file holds: what pyarrow can allocate
_TIMES_PACKED = 4  # pyarrow writes a thousand photos into a page, which do not shrink when packed

_MAX_FOOTER = 64 * 2**20  # bytes
_MAX_DEPTH = 64  # levels of nesting; a list takes two
_MAX_ELEMENTS = 2**16  # columns and levels of all columns
_HEADERS = (2**10, 2**24)  # bytes read for a page's header: at first, and at most
_FIXED = {3: 1, 7: 8}  # bytes of the types of fixed length: byte, double
_DEEPEST = 16  # structs in structs; parquet's are nested less deeply
_SCHEMA, _CHILDREN = 2, 5  # fields of FileMetaData and SchemaElement
_UNPACKED, _PACKED = 2, 3  # fields of PageHeader


def check_schema(source: IO[bytes], name: str) -> None:
    """Raises RequestError for columns that are nested too deeply or too many.

    name: of the file, in messages. What is no parquet passes: pyarrow says what is wrong with it.
    """
    end = source.seek(0, io.SEEK_END)
    source.seek(max(0, end - 8))
    length, mark = source.read(4), source.read(4)
    size = int.from_bytes(length, "little")
    if mark != b"PAR1" or size > end - 8:
        return
    if size > _MAX_FOOTER:
        raise RequestError(f"{name} has a footer of {size:,} bytes; at most {_MAX_FOOTER:,}")
    source.seek(end - 8 - size)
    try:
        reason = _nesting(_Thrift(source.read(size)))
    except IndexError:
        return
    if reason:
        raise RequestError(f"{name} has columns that {reason}")


def check_pages(
    source: IO[bytes],
    name: str,
    metadata: pq.FileMetaData,
    group: int,
    columns: Sequence[int],
    most: int = MAX_PAGE,
    *,
    times_packed: int = _TIMES_PACKED,
) -> None:
    """Raises RequestError for a page of more than `most` bytes, unpacked.

    name: of the file, in messages. group, columns: the row group and the columns, as leaves of the
    schema, that are to be read. times_packed: a page may also be so many times as large as it is
    packed, up to 2 GiB; 0 for requests.
    """
    row_group = metadata.row_group(group)
    file_end = source.seek(0, io.SEEK_END)
    for number in columns:
        chunk = row_group.column(number)
        start, at = chunk.dictionary_page_offset or 0, chunk.data_page_offset
        start = start if 0 < start < at else at
        for packed, size in _pages(source, start, start + chunk.total_compressed_size):
            where = f"{name}, row group {group}, column {quoted(chunk.path_in_schema)}"
            if size < 0:
                raise RequestError(f"{where} has a damaged page header")
            bound = max(most, min(_LARGEST_PAGE, times_packed * min(packed, file_end)))
            if size > bound:
                raise RequestError(
                    f"{where}: a page has {size:,} bytes, unpacked; at most {bound:,}: write the "
                    "file with smaller pages (pyarrow's write_batch_size, the rows of a page)"
                )


def _nesting(footer: _Thrift) -> str | None:
    """What is wrong with the columns, if anything."""
    open_levels = [1]  # elements that are still to come at each level; the root is one
    for number, element in enumerate(footer.structs(_SCHEMA)):
        if number >= _MAX_ELEMENTS:
            return f"have more than {_MAX_ELEMENTS:,} parts"
        while open_levels and not open_levels[-1]:
            open_levels.pop()
        if not open_levels:
            break
        open_levels[-1] -= 1
        if children := element.get(_CHILDREN, 0):
            open_levels.append(children)
        if len(open_levels) > _MAX_DEPTH:
            return f"are nested more than {_MAX_DEPTH} levels deep"
    return None


def _pages(source: IO[bytes], at: int, end: int) -> Iterator[tuple[int, int]]:
    """The packed and unpacked size of each page between two places of a file, as far as they can be
    read; -1 for a size that is missing."""
    while at < end:
        for most in _HEADERS:
            source.seek(at)
            header = _Thrift(source.read(most))
            try:
                fields = header.struct()
                break
            except IndexError:
                continue
        else:
            return
        packed = fields.get(_PACKED, -1)
        yield packed, fields.get(_UNPACKED, -1)
        if packed < 0:
            return
        at += header.at + packed


class _Thrift:
    """Bytes in Thrift's compact protocol. Raises IndexError where they end too soon."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def structs(self, field: int) -> Iterator[dict[int, int]]:
        """Each of the structs in a list, which is a field of the struct that begins here."""
        number = 0
        while found := self._field(number):
            number, kind = found
            if (number, kind) != (field, 9):
                self._skip(kind)
                continue
            count, _ = self._list()
            for _ in range(count):
                yield self.struct()
            return

    def struct(self, depth: int = 0) -> dict[int, int]:
        """The whole numbers of a struct by the ids of their fields."""
        if depth > _DEEPEST:
            raise IndexError
        fields: dict[int, int] = {}
        number = 0
        while found := self._field(number):
            number, kind = found
            if kind in (4, 5, 6):
                value = self._varint()
                fields[number] = (value >> 1) ^ -(value & 1)
            else:
                self._skip(kind, depth)
        return fields

    def _field(self, before: int) -> tuple[int, int] | None:
        """The next field's id and type; None at the end of the struct."""
        byte = self._byte()
        if not byte:
            return None
        if byte >> 4:
            return before + (byte >> 4), byte & 15
        value = self._varint()
        return (value >> 1) ^ -(value & 1), byte & 15

    def _skip(self, kind: int, depth: int = 0) -> None:
        if kind in _FIXED:
            self._forward(_FIXED[kind])
        elif kind in (4, 5, 6):
            self._varint()
        elif kind == 8:
            self._forward(self._varint())
        elif kind in (9, 10) and depth < _DEEPEST:
            count, inner = self._list()
            for _ in range(count):
                if inner in (1, 2):
                    self._forward(1)
                else:
                    self._skip(inner, depth + 1)
        elif kind == 12:
            self.struct(depth + 1)
        elif kind not in (1, 2):  # booleans are their type; parquet has no maps
            raise IndexError

    def _list(self) -> tuple[int, int]:
        byte = self._byte()
        return (byte >> 4 if byte >> 4 < 15 else self._varint()), byte & 15

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise IndexError
        return value | byte << shift

    def _byte(self) -> int:
        byte = self._data[self.at]
        self.at += 1
        return byte

    def _forward(self, count: int) -> None:
        self.at += count
        if self.at > len(self._data):
            raise IndexError
