"""The writer of a file of records, by the ending of its name."""

from __future__ import annotations

from pathlib import Path

from score.errors import RequestError
from score.tables.base_writer import Writer
from score.tables.csv_writer import CsvWriter
from score.tables.jsonl_writer import JsonLinesWriter
from score.tables.npy_writer import NumpyWriter
from score.tables.parquet_writer import ParquetWriter

WRITERS: dict[str, type[Writer]] = {
    ".parquet": ParquetWriter,
    ".csv": CsvWriter,
    ".jsonl": JsonLinesWriter,
    ".npy": NumpyWriter,
}
"""The writer of each file name ending."""


def writer_for(path: Path) -> type[Writer]:
    """The writer for a file name. Raises RequestError for an ending that none knows."""
    try:
        return WRITERS[path.suffix]
    except KeyError:
        raise RequestError(
            f"{path.name} must end in {', '.join(WRITERS)}; `score embed` writes into a folder of "
            f"that name where a slash follows it: {path.name}/"
        ) from None
