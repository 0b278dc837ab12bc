"""JSON lines files of records."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import IO, Any

from typing_extensions import override

from score.contract import wire
from score.contract.rows import FEATURES, Record
from score.tables.base_writer import Writer, error_cells, vectors_of
from score.tables.lines import cell_text


class JsonLinesWriter(Writer):
    """JSON lines: the columns and the record in one object; an error as in JSON answers."""

    reserved = (*FEATURES, "error")

    @override
    def _open(self, *parts: Path) -> None:
        (part,) = parts
        self._file: IO[str] = part.open("w", encoding="utf-8")

    @override
    def _write(self, kept: Sequence[object], record: Record) -> None:
        line: dict[str, Any] = dict(zip(self.columns, map(_value, kept), strict=True))
        for name, vector in zip(FEATURES, vectors_of(record), strict=True):
            if vector is not None:
                line[name] = vector.tolist()
        if record.error:
            code, message, retryable = error_cells(record)
            line["error"] = {"code": code, "message": message, "retryable": retryable}
        self._file.write(wire.dump(line).decode() + "\n")

    @override
    def _close(self) -> None:
        self._file.close()


def _value(cell: object) -> object:
    """A cell as JSON has it: numbers but NaN and infinity, booleans, else text."""
    is_json = isinstance(cell, (str, int)) or (isinstance(cell, float) and isfinite(cell))
    return cell if is_json else cell_text(cell)
