"""NumPy arrays of vectors, and a CSV of what came with them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from typing_extensions import override

from score.contract.rows import ERRORS, FEATURES, Record
from score.tables.base_writer import Writer, error_cells, vectors_of


class NumpyWriter(Writer):
    """`out.npy` stands for three files: `out.image_features.npy` and `out.text_features.npy`,
    float32 [rows, dimension] with NaN where a row has no vector, and `out.rows.csv` with the
    columns and the errors. A kind of vector that no row asked for has no file."""

    @override
    def _open(self, *parts: Path) -> None:
        *arrays, table = parts
        self._arrays = dict(zip(FEATURES, arrays, strict=True))
        self._matrices = {name: part.open("wb") for name, part in self._arrays.items()}
        self._used: set[str] = set()
        self._count = 0
        self._no_vector = np.full(self.dimension, np.nan, dtype="<f4").tobytes()
        self._write_headers()
        self._table = table.open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._table)
        self._csv.writerow([*self.columns, *ERRORS])

    def _write_headers(self) -> None:
        # NumPy pads the header so that the length may grow, and the header can be rewritten.
        for file in self._matrices.values():
            file.seek(0)
            shape = (self._count, self.dimension)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)

    @override
    def _write(self, kept: Sequence[object], record: Record) -> None:
        for (name, file), vector in zip(self._matrices.items(), vectors_of(record), strict=True):
            if vector is not None:
                self._used.add(name)
            file.write(self._no_vector if vector is None else vector.astype("<f4").tobytes())
        self._csv.writerow([*kept, *error_cells(record)])
        self._count += 1

    @override
    def _close(self) -> None:
        self._write_headers()
        for name, file in self._matrices.items():
            file.close()
            if name not in self._used:
                self._arrays[name].unlink()
        self._table.close()

    @override
    @classmethod
    def files_of(cls, path: Path) -> list[Path]:
        return [*(path.with_suffix(f".{name}.npy") for name in FEATURES), cls.table_of(path)]

    @staticmethod
    def table_of(path: Path) -> Path:
        """The file of columns and errors beside the arrays."""
        return path.with_suffix(".rows.csv")
