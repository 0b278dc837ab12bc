"""TSV files as a job's rows: cells between tabs, otherwise as in CSV."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from score.tables.csv_reader import CsvTable


class TsvTable(CsvTable):
    """A TSV file (`.gz` and `.zst`, too), read as `CsvTable` reads a CSV, quotes included."""

    delimiter: ClassVar[str] = "\t"

    @classmethod
    @override
    def _check_name(cls, name: str) -> None: ...
