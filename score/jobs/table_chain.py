"""Several inputs as one table: their rows, one input after the other."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from score.contract.limits import MAX_COLUMNS
from score.contract.rows import Row
from score.errors import BadBase64, BadColumns, BadType, RequestError, UnreadableFile
from score.fetch.cells import file_below, is_data_uri
from score.jobs.image_files import image_files
from score.jobs.input_files import InputFile
from score.storage.remote import Input, RemoteFolder, size_of
from score.tables.column_types import empty, fitted, widened
from score.tables.jsonl_reader import JsonlTable
from score.tables.lines import ALL_TEXT, EmptyTable, Line, Lines, Mark, Types, distinct
from score.wording.quoting import listed, quoted

# Files whose columns are compared before the work begins, the others in their turn: a job goes on
# within seconds, however many there are. In an object store each takes several requests.
_CHECKED, _CHECKED_AFAR = 64, 4
_SCHEME = 16  # characters of a cell in which a URL has its ://


class TableChain:
    """Files with the same columns, in any order, read one after the other, one open at a time.

    A file of JSON lines may lack fields, as a line may: they are empty there. The columns are the
    fields of the first files together.

    The columns of partitions come after those of the files, unless the files have them too. Where
    a column has two types in the first files it has the one that holds both, else text; a later
    cell that does not fit fails its row. A mark is the number of a file and a mark in it. size:
    bytes of all files as they are stored (of a folder of images: images). root: the folder that all
    files are below; an image cell that names a file below its own table's folder finds it there,
    unless `root` is set to another folder. Use it as a context manager.

    An empty file has no rows. Where a file is damaged, or turns out to have other columns once
    others have been read, the rest of it is one row that fails with UnreadableFile. Raises
    BadColumns, which names two of the first files whose columns differ; RequestError where no file
    can be read, and where one cannot be read now but perhaps later.
    """

    def __init__(
        self,
        inputs: Sequence[InputFile],
        opened: Callable[[Input], Lines],
        named: Sequence[Input] = (),
    ) -> None:
        """inputs: at least one. opened: the reader of each. named: those that the user named one by
        one, of which the first ones must be readable."""
        self._inputs, self._opened, self._named = inputs, opened, named
        self.types: Types = ALL_TEXT
        self.files: list[Input] = [file.path for file in inputs]
        _check_distinct(self.files)
        sizes = [_size(file) for file in self.files]
        self._before = list(accumulate(sizes, initial=0))
        self.size = self._before[-1]
        is_afar = any(not isinstance(file, Path) for file in self.files)
        self._look_at(_CHECKED_AFAR if is_afar else _CHECKED)
        self._shared = _shared_folder(self.files)
        self.root = self._shared

    def _look_at(self, most: int) -> None:
        """Takes the columns of the first files, and of more until one can be read."""
        trouble, has_begun = None, False
        for number in range(len(self.files)):
            if number >= most and has_begun:
                break
            try:
                with self._open(number) as table:
                    if not has_begun:
                        self._begin(number, table)
                        has_begun = True
                    self._take(number, table)
            except RequestError as error:
                is_named = self.files[number] in self._named and not isinstance(error, EmptyTable)
                if is_named or not _is_of_file(error, self.files[number]):
                    raise
                trouble = trouble or error
        if trouble and not has_begun:
            raise trouble

    def _begin(self, number: int, table: Lines) -> None:
        self._first, self._own, self.types = number, table.columns, table.types
        partition = self._inputs[number].partition
        self._partition = [name for name in partition if name not in self._own]
        self.columns = distinct([*self._own, *self._partition])
        self._is_json = True  # so far

    def _take(self, number: int, table: Lines) -> None:
        """Takes the columns of one of the first files. Raises BadColumns."""
        self._is_json = self._is_json and isinstance(table, JsonlTable)
        beside = self._inputs[number].partition
        new = [name for name in table.columns if name not in self._own and name not in beside]
        if self._is_json:
            self._own = [*self._own, *new]
            self.columns = distinct([*self._own, *self._partition])
            if len(self.columns) > MAX_COLUMNS:
                raise BadColumns(
                    f"the files up to {self.files[number]} have {len(self.columns):,} fields "
                    f"together; at most {MAX_COLUMNS:,}"
                )
        self._order(number, table)
        lacking = [name for name in self._own if name not in table.columns]
        self.types = widened({**self.types, **empty(new)}, {**table.types, **empty(lacking)})

    def __enter__(self) -> TableChain:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[Line]:
        return self.after(None)

    def after(self, mark: Mark | None) -> Iterator[Line]:
        """As `Lines.after`."""
        number, *inner = mark or (0,)
        if number > len(self.files) or (number == len(self.files) and inner):
            raise RequestError(
                f"the input has {len(self.files):,} files, and its reading should go on in number "
                f"{number + 1:,}: it is not as it was read before"
            )
        return self._after(number, tuple(inner))

    def _after(self, number: int, inner: Mark) -> Iterator[Line]:
        for at in range(number, len(self.files)):
            try:
                with self._open(at) as table:
                    yield from self._lines(at, table, inner if at == number and inner else None)
            except EmptyTable:
                continue
            except RequestError as error:
                if not (isinstance(error, BadColumns) or _is_of_file(error, self.files[at])):
                    raise
                yield self._unread(at, error)

    def _unread(self, number: int, error: RequestError) -> Line:
        """The row that stands for the rest of a file."""
        row = Row(text=UnreadableFile(f"the rest of {self.files[number]} is left out: {error}"))
        beside = map(self._inputs[number].partition.get, self._partition)
        kept: list[object] = [*[None] * len(self._own), *beside]
        return Line(row, kept, self._before[number + 1], (number + 1,))

    def _open(self, number: int) -> Lines:
        path = self.files[number]
        try:
            return self._opened(path)
        except OSError as error:
            raise RequestError(f"{path} cannot be read: {error.strerror or error}") from error
        except BadColumns as error:  # which may not say of which file
            message = str(error)
            told = message.removeprefix(path.name)
            shown = f"{path}: {message}" if told == message else f"{path}{told}"
            raise type(error)(shown) from None

    def _lines(self, number: int, table: Lines, mark: Mark | None) -> Iterator[Line]:
        """The lines of a file."""
        order = self._order(number, table)
        partition = self._inputs[number].partition
        beside = [partition[name] for name in self._partition]
        before, size = self._before[number : number + 2]
        size -= before
        # Cells are read below `root`: those of a table in another folder are named from there.
        root = table.root.resolve() if table.root else None
        same = self.root != self._shared or root == self._shared
        has_types = table.types == self.types
        for line in table.after(mark):
            row = line.row if same else self._moved(line.row, root)
            kept = [None if place is None else line.kept[place] for place in order]
            misfit = None
            if not has_types:
                kept, misfit = fitted(kept, self._own, self.types)
            yield Line(
                _failed(row, f"{self.files[number]} {misfit}") if misfit else row,
                [*kept, *beside],
                before + line.position * size // max(table.size, 1),
                (number, *line.mark),
            )

    def _moved(self, row: Row, root: Path | None) -> Row:
        """A row whose image cell, if it names a file below `root`, names it from `self.root` on.

        A file elsewhere below `self.root` is none of the table's.
        """
        cell, shared = row.image, self._shared
        if (
            shared is None
            or not isinstance(cell, str)
            or "://" in cell[:_SCHEME]
            or is_data_uri(cell.strip())
        ):
            return row
        if root and (file := file_below(root, cell.strip())):
            return replace(row, image=f"./{file.relative_to(shared)}")
        if file_below(shared, cell.strip()):
            where = f"below {root}" if root else "that a table in an object store may name"
            return replace(row, image=BadBase64(f"{quoted(cell)} is no file {where}"))
        return row

    def _order(self, number: int, table: Lines) -> list[int | None]:
        """Where a file has each of the columns; None for a field that it lacks. Raises BadColumns
        where it has others."""
        own, other = {*self._own}, {*table.columns}
        beside = self._inputs[number].partition
        partition = {*beside} - own
        if isinstance(table, JsonlTable):
            other |= own - {*beside}
            if self._is_json and (new := other - own - {*beside}):
                raise BadColumns(
                    f"{self.files[number]} has fields that none of the first files has: "
                    f"{listed(sorted(new))}; add them to the first file, as null"
                )
        if own != other or partition != {*self._partition}:
            own, other = own | {*self._partition}, other | partition
            only = listed(sorted(own - other)), listed(sorted(other - own))
            raise BadColumns(
                f"{self.files[self._first]} and {self.files[number]} have different columns: only "
                f"the first has {only[0]}, only the second {only[1]}"
            )
        places = {name: place for place, name in enumerate(table.columns)}
        return [places.get(name) for name in self._own]


def _is_of_file(error: RequestError, file: Input) -> bool:
    """Whether a file itself is damaged or empty. Trouble of a disk or a store may pass."""
    if isinstance(error, BadColumns):
        return isinstance(error, EmptyTable)
    cause = error.__cause__
    if not isinstance(cause, OSError):
        return True
    # What cannot be unpacked, and Arrow's own errors, have no number; nor have those of a store.
    return cause.errno is None and (isinstance(file, Path) or cause.__cause__ is not None)


def _failed(row: Row, message: str) -> Row:
    return Row(text=BadType(message)) if row.text is not None else Row(image=BadType(message))


def _size(file: Input) -> int:
    if isinstance(file, RemoteFolder):
        return len(file.files)
    if isinstance(file, Path) and file.is_dir():
        return sum(1 for _ in image_files(file))
    return size_of(file)


def _check_distinct(files: Sequence[Input]) -> None:
    """Raises RequestError for a file that several inputs name: its rows would come twice."""
    names = (str(file.resolve() if isinstance(file, Path) else file) for file in files)
    ((name, count),) = Counter(names).most_common(1)
    if count > 1:
        raise RequestError(f"the inputs name {name} {count} times")


def _shared_folder(files: Sequence[Input]) -> Path | None:
    """The innermost folder that all files, or folders of images, are in that are here."""
    here = [file for file in files if isinstance(file, Path)]
    folders = {(file if file.is_dir() else file.parent).resolve() for file in here}
    return Path(os.path.commonpath(folders)) if folders else None
