"""LanceDB's embedded table of vectors: the only module that knows Lance.

A table is a folder of immutable files and versions. Every call names the version that it means.
What Lance raises, panics of its Rust code included, becomes a RequestError of one line.

Above `EXACT` vectors an approximate index of the kind IVF-SQ is built: k-means groups the vectors,
a query looks into the groups that are nearest to it, at vectors of a byte a number, and the best of
those are compared exactly. By the measurements in docs/search.md it is built in a twentieth of the
time of IVF-PQ and IVF-HNSW, and finds as many; where rows are filtered, it has to look into more
groups.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import IvfSq

from score.errors import RequestError, ScoreError
from score.index.vector_table import VectorTable
from score.type_aliases import Matrix, Vector
from score.wording.quoting import quoted

TABLE = "vectors"
FOLDER = f"{TABLE}.lance"
"""Where the table is, below the index."""

EXACT = 100_000
"""The most vectors that are all compared with a query."""

_ANN = "ann"  # name of the approximate index
_MOST_GROUPS = 4096
_SAMPLES = 64  # vectors of a group that k-means sees
_PROBED = 0.2  # the part of the groups that a query looks into; at most `_MOST_PROBED`
_MOST_PROBED = 200
_SPREAD = 10  # so many times as many rows as are wanted are in the groups that are looked into
_REFINE = 5  # so many times as many rows as are wanted are compared exactly
_REFINE_NEAR = 2  # the same where only near-duplicates matter
_FEW = 10_000  # rows that fulfil a condition: all of them are compared
_RETRAIN = 4  # times the vectors that it was trained on: the groups become too large
_KEPT = timedelta(days=1)  # how old replaced versions become, for those who still read them
_FOREVER = timedelta(days=36_500)
_RESERVED = ("_distance", "_score", "_relevance_score", "_row")
_FILE = pa.field("_row_file", pa.int64())  # which file a row is of: the number of its first row
_BATCH = 2048  # rows of a batch
_DELETED = 1000  # files whose rows are removed at once
_AHEAD = 16_384  # rows that are read at once: Lance reads on while a batch is worked on
_WHERE_IN_RUST = re.compile(r",\s*\S*\.rs:\d+:\d+.*", re.DOTALL)
_SQL = re.compile(r"Error parsing statement: .*\((?P<what>sql parser error: .*)\)", re.DOTALL)
_KIND = re.compile(r"^(lance error: |LanceError\(\w+\): |Invalid input, |Arrow error: )+")
_SIGNED = re.compile(
    r"(?<=\S)\?[^\s?]*=[^\s)\"',]*"
)  # the query of a URL, which may hold a signature
_OF_TEXT = "could not convert to literal of type 'Utf8'"
_LONGEST = 300  # characters of a reason


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Raises RequestError, `what` with the reason, for what Lance raises."""
    try:
        yield
    except ScoreError:
        raise
    except Exception as error:
        raise RequestError(f"{what}: {reason(error)}") from error
    except BaseException as error:  # a panic in Rust is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise RequestError(f"{what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What Lance says, on one line, without the place in its source code."""
    text = _SIGNED.sub("?…", _KIND.sub("", _WHERE_IN_RUST.sub("", str(error))))
    text = _SQL.sub(lambda match: match["what"], text)
    line = " ".join(text.split())
    hint = "; a column of text becomes one of numbers by CAST(price AS double)"
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
    return line + hint if _OF_TEXT in line else line


def check_names(tables: Iterable[VectorTable]) -> None:
    """Raises RequestError for a column that Lance cannot hold under its name."""
    for table in tables:
        for name in table.columns.names:
            if not name or "." in name or "`" in name or name.startswith(_RESERVED):
                raise RequestError(
                    f"{table.path}: an index can hold no column of the name {quoted(name)}: rename "
                    "it (no dot, no backtick, not _distance, _score or _row…)"
                )


def stored(columns: pa.Schema, column: str, dimension: int) -> pa.Schema:
    """The table's schema: the columns, and the vectors last."""
    return columns.append(pa.field(column, pa.list_(pa.float32(), dimension)))


def as_column(matrix: Matrix) -> pa.Array:
    """Vectors [N, D] as the table holds them."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


class LanceTable:
    """A version of a table of unit vectors."""

    def __init__(self, table: Any, column: str) -> None:
        self._table, self._column = table, column

    @classmethod
    def create(cls, folder: Path, schema: pa.Schema) -> LanceTable:
        """A new, empty table below a folder. Raises RequestError."""
        with explained(f"{folder.name}: the index cannot be written"):
            table = _connected(folder).create_table(TABLE, schema=schema.append(_FILE))
        return cls(table, schema.names[-1])

    @classmethod
    def open(
        cls, folder: Path | str, column: str, version: int, *, writing: bool = False
    ) -> LanceTable:
        """A version of the table below a folder, or a URL: Lance reads object stores itself, with
        credentials of the environment. `writing`: later versions are taken back.

        Raises RequestError.
        """
        with explained(f"{folder} holds no index"):
            if isinstance(folder, Path) and not (folder / FOLDER).is_dir():
                raise ValueError(f"there is no {FOLDER}")
            table = _connected(folder).open_table(TABLE)
            if not writing or table.version != version:
                table.checkout(version)
                if writing:
                    table.restore()
            if column not in table.schema.names:
                raise ValueError(f"its table has no column {column:.80}")
        return cls(table, column)

    @property
    def version(self) -> int:
        """That of the table now."""
        return int(self._table.version)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns, and the vectors last."""
        kept = [field for field in self._stored if field.name != _FILE.name]
        return pa.schema(kept, self._stored.metadata)

    @cached_property
    def _stored(self) -> pa.Schema:
        """The columns that Lance has. Asking it takes as long as counting rows does."""
        return self._table.schema

    def __len__(self) -> int:
        with explained("the index cannot be read"):
            return int(self._table.count_rows())

    def remove(self, files: Mapping[int, int]) -> None:
        """Removes the rows of files: the number of a file's first row → how many of its rows there
        must be.

        Raises RequestError, also where an earlier version made the table, which knows no files.
        """
        again = "build it again with --overwrite"
        if files and _FILE.name not in self._stored.names:
            raise RequestError(
                f"files have changed since they were indexed ({len(files):,}), and the index, of "
                f"an earlier version, does not tell which rows are of them: {again}"
            )
        removed, firsts = 0, iter(files)
        while some := list(islice(firsts, _DELETED)):
            where = f"{_FILE.name} in ({', '.join(map(str, some))})"
            with explained("the index cannot be written"):
                removed += self._table.delete(where).num_deleted_rows
        if removed != (count := sum(files.values())):
            raise RequestError(
                f"the index holds {removed:,} rows of the files that have changed, and should hold "
                f"{count:,}: {again}"
            )

    def add(self, batches: Iterable[tuple[int, pa.RecordBatch]]) -> None:
        """Adds rows of the table's schema, all or none, each batch with the number of its file's
        first row.

        Raises RequestError, and what `batches` raises.
        """
        failures: list[BaseException] = []

        def watched() -> Iterator[pa.RecordBatch]:
            """Lance turns what an iterator raises into a text."""
            try:
                yield from (self._of_file(*batch) for batch in batches)
            except BaseException as error:
                failures.append(error)
                raise

        reader = pa.RecordBatchReader.from_batches(self._stored, watched())
        try:
            with explained("the index cannot be written"):
                self._table.add(reader)
        except RequestError:
            if failures:
                raise failures[0] from None
            raise

    def _of_file(self, first: int, batch: pa.RecordBatch) -> pa.RecordBatch:
        if _FILE.name not in self._stored.names:
            return batch
        numbers = pa.repeat(pa.scalar(first, _FILE.type), len(batch))
        return pa.record_batch([*batch.columns, numbers], self._stored)

    def train(self, trained: int) -> int:
        """Builds or extends the approximate index, where there are enough vectors for one, and
        merges small files.

        trained: the number of vectors that the present one was trained on, 0 for none. Returns that
        of the new one. Raises RequestError.
        """
        count = len(self)
        with explained("the approximate index cannot be built"):
            if count > EXACT and count >= _RETRAIN * trained:
                config = IvfSq(
                    distance_type="cosine", num_partitions=_groups(count), sample_rate=_SAMPLES
                )
                self._table.create_index(self._column, config=config, name=_ANN, replace=True)
                return count
            self._table.optimize(cleanup_older_than=_FOREVER)
        return trained

    def clean(self) -> None:
        """Removes the files of replaced versions that were created a day ago or earlier, if it can
        be done: they are not in the way.

        It goes by when a version was created, not when it was replaced: one that was the latest up
        to now is removed at once if it is that old, under whoever reads it.
        """
        with suppress(RequestError), explained("older versions cannot be removed"):
            self._table.optimize(cleanup_older_than=_KEPT)

    def nearest(
        self, direction: Vector, top: int, where: str | None, trained: int
    ) -> tuple[list[dict[str, Any]], list[float]]:
        """The `top` rows nearest to a unit vector, and their cosines, nearest first.

        where: a condition in SQL on the columns. trained: the number of vectors that the
        approximate index was trained on; 0: every vector is compared. Raises RequestError for a
        condition that cannot be used.
        """
        total = len(self)
        count = total if where is None else self.matching(where)
        top = min(top, count)  # Lance allocates as many results
        if not top:
            return [], []
        query = self._table.search(direction, vector_column_name=self._column)
        query = query.distance_type("cosine").limit(top).with_row_id(True)
        query = query.select([*self.schema.names[:-1], "_distance"])
        if where is not None:
            query = query.where(f"({where})", prefilter=True)
        with explained(_condition(where)):
            if probes := _probes(top, count, total, trained):
                found = query.nprobes(probes).refine_factor(_REFINE).to_arrow()
                if len(found) == top:
                    return _sorted(found)
            return _sorted(query.bypass_vector_index().to_arrow())

    def vectors(self, start: int = 0) -> Iterator[tuple[np.ndarray, Matrix]]:
        """All vectors from a place on in the order of the table, in batches: the rows' ids, uint64
        [N], which ascend, and unit vectors, float32 [N, D].

        Raises RequestError for one that is missing, or no direction.
        """
        for batch in self._batches([self._column], start):
            yield batch.column("_rowid").to_numpy(), self._checked(batch.column(self._column))

    def rows(self) -> Iterator[pa.RecordBatch]:
        """The columns beside the vectors in the order of the table, in batches. Raises
        RequestError."""
        names = self.schema.names[:-1]
        for batch in self._batches(names):
            yield batch.select(names)

    def vectors_at(self, places: Sequence[int] | np.ndarray) -> Matrix:
        """The vectors of some rows, which their places in the table name, in the order of these:
        float32 [N, D]. Raises RequestError."""
        return self._checked(self._taken(places, [self._column]).column(0))

    def rows_at(self, places: Sequence[int] | np.ndarray) -> pa.RecordBatch:
        """The columns beside the vectors of some rows. Raises RequestError."""
        return self._taken(places, self.schema.names[:-1])

    def neighbours(
        self, directions: Matrix, top: int, probes: int
    ) -> tuple[np.ndarray, np.ndarray, Matrix]:
        """The `top` rows nearest to each of some unit vectors [Q, D], as the approximate index
        finds them in `probes` of its groups: the number of the vector that each is near to, the
        ids of the rows, uint64 [N], and their vectors, float32 [N, D]. Raises RequestError."""
        with explained("the index cannot be searched"):
            query = self._table.search(list(directions), vector_column_name=self._column)
            query = query.distance_type("cosine").limit(top).with_row_id(True)
            query = query.select([self._column, "_distance"]).nprobes(probes)
            found = query.refine_factor(_REFINE_NEAR).to_arrow().combine_chunks()
            if "query_index" in found.schema.names:  # there is none for a single vector
                numbers = found.column("query_index").to_numpy()
            else:
                numbers = np.zeros(len(found), np.int32)
            ids = found.column("_rowid").to_numpy()
        return numbers, ids, self._checked(_one(found.column(self._column)))

    def _batches(self, names: Sequence[str], start: int = 0) -> Iterator[pa.RecordBatch]:
        """Batches of columns, with `_rowid`, from a place in the table on."""
        count = len(self)
        with explained("the index cannot be read"):
            for first in range(start, count, _AHEAD):
                query = self._table.search().select(list(names)).with_row_id(True)
                query = query.offset(first).limit(min(_AHEAD, count - first))
                for batch in query.to_batches(batch_size=_BATCH):
                    if len(batch):
                        yield batch

    def _taken(self, places: Sequence[int] | np.ndarray, names: Sequence[str]) -> pa.RecordBatch:
        """Lance gives rows in the order of the table, each once."""
        wanted, order = np.unique(np.asarray(places, np.int64), return_inverse=True)
        with explained("the index cannot be read"):
            rows = self._table.take_offsets(wanted.tolist()).select(list(names)).to_arrow()
            arrays = [_one(column).take(pa.array(order)) for column in rows.columns]
        return pa.record_batch(arrays, schema=rows.schema)

    def _checked(self, lists: pa.Array) -> Matrix:
        """Raises RequestError for a vector that `build_index` would have refused."""
        is_whole = not lists.null_count
        matrix: Matrix = lists.flatten().to_numpy(zero_copy_only=False)
        matrix = matrix.reshape(-1, lists.type.list_size)
        if not (is_whole and np.isfinite(matrix).all() and matrix.any(axis=1).all()):
            raise RequestError(
                "the index holds a vector that is missing, NaN, infinite or all zeros: build it "
                "again with `score index --overwrite`"
            )
        return matrix

    def matching(self, where: str) -> int:
        """The number of rows that fulfil a condition. Raises RequestError."""
        with explained(_condition(where)):
            return int(self._table.count_rows(f"({where})"))


def _connected(folder: Path | str) -> Any:
    if isinstance(folder, Path):
        return lancedb.connect(str(folder.absolute()))
    # A server without TLS is one that the environment names, as for the other files of a store.
    return lancedb.connect(folder, storage_options={"allow_http": "true"})


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    return pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)


def _groups(vectors: int) -> int:
    """How many groups so many vectors are divided into."""
    return min(_MOST_GROUPS, math.isqrt(vectors))


def _probes(top: int, count: int, total: int, trained: int) -> int:
    """How many groups a query looks into; 0 for a query that is compared with every vector.

    top, count, total: so many rows are wanted of so many that fulfil a condition, of all. The fewer
    these are, and the more are wanted, the more groups the nearest of them are spread over.
    """
    if not trained or (count < total and count <= _FEW):
        return 0
    groups = _groups(trained)
    probes = min(_MOST_PROBED, math.ceil(groups * _PROBED)) * total / count
    wanted = groups * _SPREAD * top / count
    return min(groups, math.ceil(max(probes, wanted)))


def _condition(where: str | None) -> str:
    if where is None:
        return "the index cannot be searched"
    return f"the condition {quoted(where)} cannot be used"


def _sorted(found: pa.Table) -> tuple[list[dict[str, Any]], list[float]]:
    """By cosine, then in the order of the table. A distance that is NaN is no result."""
    distances = found.column("_distance").to_pylist()
    numbers = found.column("_rowid").to_pylist()
    order = sorted(
        (n for n, distance in enumerate(distances) if distance == distance),
        key=lambda n: (distances[n], numbers[n]),
    )
    rows = found.drop_columns(["_distance", "_rowid"]).take(pa.array(order, pa.int64())).to_pylist()
    return rows, [max(-1.0, min(1.0, 1.0 - distances[n])) for n in order]  # but for rounding
