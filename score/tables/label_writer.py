"""CSV files of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from score.contract.rows import ERRORS, Record
from score.tables.base_writer import error_cells
from score.tables.csv_writer import CsvWriter


class LabelWriter(CsvWriter):
    """CSV: the labels of each image, in place of its vectors.

    `label` and `confidence` (a probability), `label_2` and `confidence_2` and so on to `top`,
    with `has_files` also `file`, then the errors.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], top: int = 1, *, has_files: bool = False
    ) -> None:
        self.reserved = self.columns_of(top, has_files=has_files)
        self._top, self._has_files = top, has_files
        super().__init__(path, columns, dimension=0)

    @staticmethod
    def columns_of(top: int = 1, *, has_files: bool = False) -> tuple[str, ...]:
        """The columns that are added to a table's own."""
        names = ["label", "confidence"]
        for rank in range(2, top + 1):
            names += [f"label_{rank}", f"confidence_{rank}"]
        return (*names, *(["file"] if has_files else []), *ERRORS)

    def add(
        self,
        kept: Sequence[object],
        record: Record,
        confidence: float = 0.0,
        file: str | None = None,
    ) -> None:
        """Adds an image. A label below `confidence` is left out, its probability is not."""
        cells: list[object] = []
        for label, prob in zip(record.labels or (), record.probs or (), strict=True):
            cells += [label if prob >= confidence else None, prob]
        cells = [*cells, *[None] * 2 * self._top][: 2 * self._top]
        files = [file] if self._has_files else []
        self._csv.writerow([*self._cells(kept), *cells, *files, *error_cells(record)])
