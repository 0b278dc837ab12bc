"""Parquet files as a job's rows, read a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from score.contract.rows import FEATURES, IMAGE, Row, is_result
from score.errors import RequestError
from score.storage.remote import File, Input
from score.tables.checked_parquet import open_parquet
from score.tables.column_types import types_of
from score.tables.lines import (
    NO_NAMES,
    Line,
    Mark,
    cell_text,
    distinct,
    folder_of,
    kept_cells,
    places_of,
)
from score.tables.parquet_cells import cells_of, is_bytes, is_textual
from score.tables.parquet_sizes import check_pages, check_schema

SUFFIXES = (".parquet", ".pqt")

_BATCH = 64  # rows in memory at a time: their images may be inline
_NO_TIME = (OverflowError, KeyError)  # of years beyond 9999, of a time zone that is none
_BUFFER = 2**20  # bytes of a column that are read at a time: else all of a row group


class ParquetTable:
    """A parquet file with an `image` column, a `text` column or both, read lazily.

    Use it as a context manager. The other columns keep their types, as of `types_of`; those of
    bytes are left out, and the vectors of a table that `score embed` wrote are not read. Its marks
    are numbers of rows; of the row groups before a mark nothing is read. Raises BadColumns for a
    file without a usable column, RequestError for what is no parquet.
    """

    def __init__(self, path: File, chosen: Mapping[str, str] = NO_NAMES) -> None:
        """`chosen`: as for `places_of`."""
        self.path, self.root = path, folder_of(path)
        self.files: list[Input] = [path]
        with ExitStack() as files:
            try:
                self._raw = files.enter_context(_opened(path))
                check_schema(self._raw, path.name)
                # A file here is opened by pyarrow, which then reads it without Python's lock.
                source = path if isinstance(path, Path) else files.enter_context(_opened(path))
                schema = pq.read_schema(source)
                textual = [field.name for field in schema if is_textual(field.type)]
                # As a dictionary, a string that many rows share is in memory once.
                file = open_parquet(source, read_dictionary=textual, buffer_size=_BUFFER)
                self._file = files.enter_context(file)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise RequestError(f"{path.name} is no readable parquet table: {error}") from error
            self._names = self._file.schema_arrow.names
            self._places = places_of(self._names, path.name, chosen)
            self._files = files.pop_all()
        kinds = list(zip(distinct(self._names), schema.types, strict=True))
        read = self._places.values()
        self._kept = [n for n, (_, kind) in enumerate(kinds) if n in read or not is_bytes(kind)]
        self.columns = [kinds[number][0] for number in self._kept]
        self.types = types_of(kinds[number] for number in self._kept if number not in read)
        self.size = self._file.metadata.num_rows

    def __enter__(self) -> ParquetTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def __iter__(self) -> Iterator[Line]:
        return self.after(None)

    def after(self, mark: Mark | None) -> Iterator[Line]:
        """As `Lines.after`."""
        (rows,) = mark or (0,)
        if rows > self.size:
            raise RequestError(
                f"{self.path.name} has {self.size:,} rows, and its reading should go on after "
                f"{rows:,}: it is not the file that was read before"
            )
        return self._after(rows)

    def _after(self, skipped: int) -> Iterator[Line]:
        image = self._kept.index(self._places[IMAGE]) if IMAGE in self._places else None
        for position, cells in enumerate(self._rows(skipped), skipped + 1):
            row = Row(**{name: cells[number] for name, number in self._places.items()})
            kept = [
                cells.get(number) if name in self.types else cell_text(cells.get(number))
                for number, name in zip(self._kept, self.columns, strict=True)
            ]
            yield Line(row, kept_cells(kept, image), position, (position,))

    def _rows(self, skipped: int) -> Iterator[dict[int, object]]:
        """Each row's cells by the number of their column, without the first rows."""
        numbers, names = self._wanted()
        wanted = None if names is None else {*names}
        metadata = self._file.metadata
        leaves = [
            number
            for number in range(metadata.num_columns)
            if wanted is None or metadata.schema.column(number).path.split(".")[0] in wanted
        ]
        try:
            for group in range(metadata.num_row_groups):
                rows = metadata.row_group(group).num_rows
                if skipped >= rows:
                    skipped -= rows
                    continue
                check_pages(self._raw, self.path.name, metadata, group, leaves)
                for batch in self._batches(group, names, rows):
                    unread = batch.slice(min(skipped, batch.num_rows))
                    skipped -= batch.num_rows - unread.num_rows
                    for cells in zip(*map(cells_of, unread.columns), strict=True):
                        yield dict(zip(numbers, cells, strict=True))
        except (pa.ArrowException, OSError, ValueError, *_NO_TIME) as error:
            raise RequestError(f"{self.path.name} cannot be read: {error}") from error

    def _batches(self, group: int, names: list[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
        """A row group. Raises RequestError where it has other than so many rows."""
        read = 0
        for batch in self._file.iter_batches(_BATCH, row_groups=[group], columns=names):
            read += batch.num_rows
            yield batch
        if read != rows:
            raise RequestError(
                f"{self.path.name}, row group {group}, has {read:,} rows, not {rows:,} as the "
                "file's footer says"
            )

    def _wanted(self) -> tuple[list[int], list[str] | None]:
        """The numbers and names of the columns that are read; no names where all of them are.

        By names pyarrow reads each column of a name, for each time that it is named, and below `a`
        a column `a.b`, too.
        """
        names = self._names
        left_out = FEATURES if is_result(names) else ()
        numbers = [number for number in self._kept if names[number] not in left_out]
        is_clear = len({*names}) == len(names) and not any("." in name for name in names)
        if len(numbers) == len(names) or not is_clear:
            return list(range(len(names))), None
        return numbers, [names[number] for number in numbers]


def _opened(path: File) -> IO[bytes]:
    return path.open("rb") if isinstance(path, Path) else path.open()
