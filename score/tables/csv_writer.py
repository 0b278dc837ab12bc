"""CSV files of records."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from typing_extensions import override

from score.contract import wire
from score.contract.rows import Record
from score.tables.base_writer import Writer, error_cells, vectors_of


class CsvWriter(Writer):
    """CSV: vectors as JSON lists."""

    @override
    def _open(self, *parts: Path) -> None:
        (part,) = parts
        self._file: IO[str] = part.open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._file)
        self._csv.writerow([*self.columns, *self.reserved])

    @override
    def _write(self, kept: Sequence[object], record: Record) -> None:
        vectors = ["" if v is None else wire.dump(v.tolist()).decode() for v in vectors_of(record)]
        self._csv.writerow([*kept, *vectors, *error_cells(record)])

    @override
    def _close(self) -> None:
        self._file.close()
