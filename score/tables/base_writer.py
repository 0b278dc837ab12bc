"""What all writers of records share: which of the input's columns are kept, and files that appear
under their names only when they are complete. Knows nothing of models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import ClassVar, Self

from score.contract.rows import ERRORS, FEATURES, Record, is_result
from score.errors import BadColumns, RequestError
from score.storage import atomic
from score.tables.lines import ALL_TEXT, Types
from score.type_aliases import Vector
from score.wording.quoting import quoted

STATUS, SHA256 = "row_status", "image_sha256"
"""Columns that only a job's shards have: of a table of results they are as outdated as its errors,
whatever is written."""


class Output(ABC):
    """A file of records beside the columns they came with. Use it as a context manager: leaving
    it renames the file to `path`, leaving it by an exception removes what was written."""

    reserved: tuple[str, ...] = (*FEATURES, *ERRORS)

    says_about: ClassVar[bool] = False
    """Whether its files hold the `about` of their vectors."""

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        dimension: int,
        about: Mapping[str, str] = MappingProxyType({}),
        types: Types = ALL_TEXT,
    ) -> None:
        """`dimension`: of the vectors. `about`: which model made them. `types`: of the columns.
        Raises BadColumns, RequestError, OSError."""
        dropped = replaced(columns, self.reserved)
        self._kept = [number for number, name in enumerate(columns) if name not in dropped]
        self.path = path
        self.columns = [columns[number] for number in self._kept]
        self.dimension, self.about, self.types = dimension, about, types
        path.parent.mkdir(parents=True, exist_ok=True)
        files = self.files_of(path)
        for file in files:
            if file.is_dir():
                raise RequestError(f"{file} is a folder")
        with ExitStack() as stack:
            self._open(*stack.enter_context(atomic.files(files)))
            stack.push(self._finish)
            self._stack = stack.pop_all()

    @abstractmethod
    def _open(self, *parts: Path) -> None:
        """`parts`: where to write each of `files_of(path)` until they are complete."""

    def _cells(self, kept: Sequence[object]) -> list[object]:
        """The cells of `columns`."""
        return [kept[number] for number in self._kept]

    @abstractmethod
    def _close(self) -> None: ...

    @classmethod
    def files_of(cls, path: Path) -> list[Path]:
        """Every file that may be written for an output of this name."""
        return [path]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._close()
        else:
            with suppress(Exception):  # the first error is the one to report
                self._close()


class Writer(Output):
    """An `Output` whose rows are records and nothing else."""

    def write(self, kept: Sequence[object], record: Record) -> None:
        """Adds a record beside the cells of the columns that it came with."""
        self._write(self._cells(kept), record)

    @abstractmethod
    def _write(self, kept: Sequence[object], record: Record) -> None: ...


def replaced(columns: Sequence[str], reserved: Sequence[str]) -> list[str]:
    """The columns of an input that an output leaves out, since it adds columns of those names.

    reserved: the columns that the output adds. Only a table that we wrote, recognised by its error
    columns, may have some of them. Raises BadColumns where another table has one.
    """
    if is_result(columns):
        return [name for name in columns if name in (*reserved, *ERRORS, STATUS, SHA256)]
    for name in columns:
        if name in reserved:
            raise BadColumns(
                f"the input already has a column {quoted(name)}, which the output needs for "
                "its own: rename it"
            )
    return []


def vectors_of(record: Record) -> tuple[Vector | None, Vector | None]:
    """The vectors in the order of `FEATURES`."""
    return record.image_features, record.text_features


def error_cells(record: Record) -> tuple[str | None, str | None, bool | None]:
    """A record's cells in the columns `ERRORS`."""
    error = record.error
    return (error.code, str(error), error.retryable) if error else (None, None, None)
