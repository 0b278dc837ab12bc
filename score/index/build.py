"""Tables of vectors → an index: a new one, or more vectors in one that is there."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa

from score.errors import RequestError
from score.hardware import locks
from score.index import lance
from score.index.inputs import parquet_files
from score.index.lance import LanceTable
from score.index.ledger import NAME, OLD, Ledger, Source
from score.index.origin import Origin
from score.index.vector_table import NUMBER, VectorTable
from score.storage import atomic
from score.storage.outputs import check_folder, is_empty
from score.storage.remote import is_remote, upload
from score.type_aliases import FeatureColumn
from score.wording.quoting import quoted

log = logging.getLogger(__name__)


def build_index(
    table: str | Path | Sequence[str | Path],
    folder: str | Path,
    column: FeatureColumn = "image_features",
    *,
    overwrite: bool = False,
    append: bool = False,
) -> int:
    """Indexes the vectors of parquet files of `score embed` or `score merge`; returns their number.

    `table`: a file, a folder of `.parquet` files, a pattern such as `out/part-*.parquet`, or
    several of these; a content counts once. `folder`: also a URL of an object store, where nothing
    is yet; then without `overwrite` and `append`. Rows without a vector in `column` are skipped. Of
    tables of vectors alone the index keeps each row's number, from 0, as `row`. `overwrite`: the
    folder may hold an older index. `append`: only files that are not yet in the folder's index are
    indexed, and added, and those that have changed, whose old rows are removed; a folder without an
    index gets one.
    Raises RequestError for a table without vectors, for a row whose vector cannot be indexed, for
    vectors of different models, and for a folder that may not be written; nothing is written then.
    """
    names = _names(table)
    files = parquet_files(names)
    if is_remote(folder):
        return _upload(files, str(folder), column)
    folder = Path(folder)
    if append and folder.is_dir() and not is_empty(folder):
        with _held(folder, must_lock=True):
            return _append(names, files, folder, column)
    check_folder(folder, is_index, overwrite=overwrite, inputs=files)
    with _held(folder):
        check_folder(folder, is_index, overwrite=overwrite, inputs=files)  # as it is now
        return _create(files, folder, column)


def _tell_what_is_gone(ledger: Ledger, names: Sequence[str | Path]) -> None:
    """Warns of files that were in a folder when it was indexed: who begins a job anew has its old
    rows beside the new ones."""
    for folder in (Path(name).resolve() for name in names if Path(name).is_dir()):
        paths = (Path(source.path) for source in ledger.sources)
        gone = sum(path.is_relative_to(folder) and not path.exists() for path in paths)
        if gone:
            files = "1 file of the index is" if gone == 1 else f"{gone:,} files of the index are"
            way = "to drop their rows, build the index again (--overwrite)"
            log.warning("%s gone from %s; %s", files, folder, way)


@contextmanager
def _held(folder: Path, *, must_lock: bool = False) -> Iterator[None]:
    """A block in which no other process builds or extends an index in a folder, which is created,
    and removed again where the block leaves it empty.

    `must_lock`: also where the file system has no locks, this is refused. Raises RequestError.
    """
    is_new = not folder.exists()
    try:
        lock = _locked(folder)
    except locks.Held:
        raise RequestError(f"{folder} is in use: another process writes an index there") from None
    if lock is None and must_lock:
        raise RequestError(
            f"{folder} cannot be locked: its file system has no locks, so nothing can be added"
        )
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """As `locks.hold_folder`, of a folder that is created where it is missing."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = locks.hold_folder(folder.resolve())
        if lock is None:
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), folder.stat()):
                return lock
        os.close(lock)  # of a folder that the process before has removed, having failed


def _create(files: Sequence[Path], folder: Path, column: FeatureColumn) -> int:
    content = opened(files, column)
    lance.check_names(content.tables)
    ledger = Ledger(0, column, content.dimension, content.origin)
    by_path = {str(table.path.resolve()): table for table in content.tables}
    sources = [(by_path[source.path], source) for source in ledger.changes(files).new]
    with atomic.contents(folder) as new:
        schema = lance.stored(content.columns, column, content.dimension)
        store = LanceTable.create(new, schema)
        ledger = replace(ledger, sources=tuple(_add(store, sources)))
        _commit(store, ledger, new)
    return ledger.vectors


def _upload(files: Sequence[Path], url: str, column: FeatureColumn) -> int:
    """Builds an index in a temporary folder, and copies it into an object store."""
    with tempfile.TemporaryDirectory(prefix="score-index-") as folder:
        count = build_index(files, Path(folder) / "index", column)
        upload(Path(folder) / "index", url, last=NAME)
    return count


@dataclass(frozen=True, slots=True)
class Content:
    """Tables that go together: the columns that they have in common or not, the dimension of their
    vectors, each of which has been checked, and the model that made them."""

    tables: Sequence[VectorTable]
    columns: pa.Schema
    dimension: int
    origin: Origin


def files_of(table: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that the argument of `build_index` stands for."""
    return parquet_files(_names(table))


def _names(table: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    return [table] if isinstance(table, str | Path) else table


def opened(files: Sequence[Path], column: str) -> Content:
    """Opens and checks files. Raises RequestError where they do not go together."""
    tables = [VectorTable.open(file, column) for file in files]
    return Content(tables, _columns(tables), _dimension(tables), _origin(tables))


def is_index(content: Sequence[Path]) -> bool:
    """Whether a folder's content is an index, also one of an earlier version, or an export."""
    return {entry.name for entry in content} in ({NAME, lance.FOLDER}, set(OLD))


def _append(names: Sequence[str | Path], files: Sequence[Path], folder: Path, column: str) -> int:
    ledger = Ledger.read(folder)
    _tell_what_is_gone(ledger, names)
    if column != ledger.column:
        raise RequestError(f"{folder} indexes {ledger.column}, not {column}")
    changes = ledger.changes(files)
    tables = [VectorTable.open(Path(source.path), column) for source in changes.new]
    for table in tables:
        _check_same(table, ledger.origin, f"the index {folder}")
    store = LanceTable.open(folder, column, ledger.version, writing=True)
    _check_columns(tables, store.schema)
    for table in tables:
        _check_dimension(table, ledger.dimension)
    if not changes.new and not changes.replaced:
        return 0
    before = {source.path: source for source in changes.replaced}
    for path, source in before.items():
        count = f"{source.vectors:,}"
        log.info("%s has changed: its %s vectors in the index are replaced", path, count)
    # The first row of a file without vectors may be another file's, too.
    store.remove({each.first: each.vectors for each in before.values() if each.vectors})
    kept = tuple(source for source in ledger.sources if source.path not in before)
    added = _add(store, list(zip(tables, changes.new, strict=True)), ledger.end, before)
    _commit(store, replace(ledger, sources=(*kept, *added)), folder)
    store.clean()
    return sum(source.vectors for source in added)


def _commit(store: LanceTable, ledger: Ledger, folder: Path) -> None:
    """Builds or extends the approximate index, and writes the ledger for the table as it is now."""
    trained = store.train(ledger.trained)
    replace(ledger, version=store.version, trained=trained).write(folder)


def _add(
    store: LanceTable,
    tables: Sequence[tuple[VectorTable, Source]],
    end: int = 0,
    replaced: Mapping[str, Source] = MappingProxyType({}),
) -> list[Source]:
    """Adds the vectors of some files; returns the files with the numbers of their rows.

    end: the first number for them. replaced: what the index had of them, by their paths: a file
    that has as many rows as before keeps its numbers.
    """
    numbered = []
    for table, source in tables:
        before = replaced.get(source.path)
        is_as_long = before is not None and before.rows == table.size
        first = before.first if before and is_as_long else end
        end = max(end, first + table.size)
        numbered.append((table, replace(source, rows=table.size, first=first)))
    counts = {source.digest: 0 for _, source in numbered}

    def batches() -> Iterator[tuple[int, pa.RecordBatch]]:
        columns = pa.schema(list(store.schema)[:-1])
        for table, source in numbered:
            for batch, matrix in table.batches(source.first):
                counts[source.digest] += len(matrix)
                rows = table.conformed(batch, columns)
                arrays = [*rows.columns, lance.as_column(matrix)]
                yield source.first, pa.record_batch(arrays, store.schema)

    if numbered:
        store.add(batches())
    return [replace(source, vectors=counts[source.digest]) for _, source in numbered]


def _columns(tables: Sequence[VectorTable]) -> pa.Schema:
    """The columns of all files; for files of vectors alone the rows' numbers."""
    schema = pa.schema([])
    for table in tables:
        try:
            schema = pa.unify_schemas([schema, table.columns], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise RequestError(
                f"{table.path}: its columns are not those of the files before it: {error}"
            ) from error
    if any(table.columns.names for table in tables):
        if bare := [table for table in tables if not table.columns.names]:
            raise RequestError(f"{bare[0].path} has no columns but vectors, other files have")
        return schema.remove_metadata()
    return pa.schema([(NUMBER, pa.int64())])


def _check_columns(tables: Sequence[VectorTable], schema: pa.Schema) -> None:
    """Raises RequestError for a column that the index lacks."""
    known = set(schema.names[:-1])
    for table in tables:
        names = table.columns.names or [NUMBER]
        if other := [name for name in names if name not in known]:
            raise RequestError(
                f"{table.path} has a column {quoted(other[0])}, which the index lacks: build the "
                "index again with --overwrite"
            )


def _origin(tables: Sequence[VectorTable]) -> Origin:
    """The model of all vectors. Raises RequestError where there are several."""
    first = tables[0]
    for table in tables[1:]:
        _check_same(table, first.origin, str(first.path))
    return first.origin


def _check_same(table: VectorTable, origin: Origin, holder: str) -> None:
    if table.origin.fingerprint != origin.fingerprint:
        raise RequestError(
            f"the vectors of {table.path} are of {table.origin}, those of {holder} of {origin}: "
            "vectors of two models cannot be compared"
        )


def _dimension(tables: Sequence[VectorTable]) -> int:
    """The dimension of all vectors, each of which is checked. Raises RequestError."""
    dimension = 0
    for table in tables:
        dimension = _check_dimension(table, dimension)
    if not dimension:
        first = tables[0]
        raise RequestError(f"{first.path} has no row with {first.column}")
    return dimension


def _check_dimension(table: VectorTable, wanted: int) -> int:
    """The dimension of a table's vectors; `wanted` if it has none, or 0 is wanted."""
    _, dimension = table.extent()
    if wanted and dimension not in (0, wanted):
        raise RequestError(
            f"{table.path} has vectors of {dimension} numbers, the files before it of {wanted}"
        )
    return dimension or wanted
