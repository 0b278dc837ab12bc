"""The parquet files of a divided job → one report, and optionally one table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from score.contract.rows import ERRORS
from score.errors import RequestError
from score.jobs.shard_names import result_name
from score.jobs.summary import blocked_hint
from score.storage import atomic
from score.tables.checked_parquet import read_parquet
from score.tables.csv_reader import CsvTable
from score.tables.parquet_writer import parquet_writer

_ROW_GROUP = 16_384


@dataclass
class JobReport:
    """The result of a divided job, compared with its input."""

    shards: int = 0
    rows: int = 0
    good: int = 0
    failed: dict[str, int] = field(default_factory=dict)  # error code → rows
    missing: list[str] = field(default_factory=list)  # shards without a whole result
    unreadable: dict[str, str] = field(default_factory=dict)  # shards that are no tables → why

    def __str__(self) -> str:
        failed = ", ".join(f"{code} {count:,}" for code, count in self.failed.items())
        lines = [
            f"{self.shards:,} shards, {self.rows:,} rows: {self.good:,} good, "
            f"{self.rows - self.good:,} failed" + (f" ({failed})" if failed else "")
        ]
        lines += [f"  no whole result of {name}" for name in self.missing]
        lines += [f"  {name} is no table: {reason}" for name, reason in self.unreadable.items()]
        return "\n".join([*lines, *([self.hint] if self.hint else [])])

    @property
    def hint(self) -> str:
        """As `Summary.hint`."""
        return blocked_hint(Counter(self.failed), self.good)

    @property
    def complete(self) -> bool:
        """Whether each row of the input is in the results."""
        return not self.missing and not self.unreadable


def merge(shards: Path, results: Path, table: Path | None = None) -> JobReport:
    """Compares each file of a folder with the result that `score/shards.py` wrote for it.

    A result belongs to a file by name and content, so that older results in the same folder are
    ignored. `table`: a .parquet file for the rows of all results, in order, with the columns of all
    of them. Raises RequestError for folders that hold no files, for a table of another ending, and
    for shards whose columns have different types.
    """
    if table:
        check_table(table)
    inputs = _shards_in(shards)
    if not inputs:
        raise RequestError(f"{shards} holds no shards")
    report, codes = JobReport(shards=len(inputs)), Counter[str]()
    complete: list[Path] = []
    for shard in inputs:
        try:
            rows = _count(shard)
        except RequestError as error:
            report.unreadable[shard.name] = str(error)
            continue
        result = results / f"{result_name(shard)}.parquet"
        shard_codes = _codes(result)
        if shard_codes is None or len(shard_codes) != rows:
            report.missing.append(shard.name)
            continue
        complete.append(result)
        report.rows += rows
        codes.update(code or "" for code in shard_codes)
    report.good = codes.pop("", 0)
    report.failed = dict(codes.most_common())
    if table:
        _concatenate(complete, table)
    return report


def inputs_of(shards: Path, results: Path) -> list[Path]:
    """All that `merge` may read."""
    return [*_shards_in(shards), *results.glob(f"*-{'[0-9a-f]' * 12}.parquet")]


def _shards_in(folder: Path) -> list[Path]:
    """A job's input: all files in the folder that are not hidden, whatever their ending."""
    return sorted(file for file in folder.glob("[!.]*") if file.is_file())


def check_table(table: Path) -> None:
    """Raises RequestError for a name of the merged table that does not end in .parquet."""
    if table.suffix != ".parquet":
        raise RequestError(f"{table}: the table is a .parquet file")


def write(report: JobReport, file: Path) -> None:
    """Writes the report as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**asdict(report), "complete": report.complete}, indent=2)
    with atomic.file(file) as part:
        part.write_text(text + "\n", encoding="utf-8")


def _count(shard: Path) -> int:
    with CsvTable(shard) as table:
        return sum(1 for _ in table)


def _codes(result: Path) -> list[str | None] | None:
    """Each row's error code; None where there is no complete result."""
    try:
        codes: list[str | None] = read_parquet(result, [ERRORS[0]])[ERRORS[0]].to_pylist()
    except (OSError, KeyError, pa.ArrowInvalid):
        return None
    return codes


def _concatenate(results: Sequence[Path], table: Path) -> None:
    if not results:
        raise RequestError("no shard has a result: there is no table to write")
    table.parent.mkdir(parents=True, exist_ok=True)
    schema = _schema(results)
    with atomic.file(table) as part, parquet_writer(part, schema) as writer:
        for rows in _groups(results, schema):
            writer.write_table(rows)


def _schema(results: Sequence[Path]) -> pa.Schema:
    """The columns of all results: one may have columns that another lacks."""
    schema = pq.read_schema(results[0])
    for result in results[1:]:
        try:
            schema = pa.unify_schemas(
                [schema, pq.read_schema(result)], promote_options="permissive"
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise RequestError(
                f"{result.name}: its columns are not those of the files before it: {error}"
            ) from error
    # Which model made the vectors, where all were made by one.
    about = [pq.read_schema(result).metadata for result in results]
    return schema.with_metadata(about[0] if all(one == about[0] for one in about) else None)


def _conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _read(result: Path) -> pa.Table:
    """Raises RequestError for a result that is damaged."""
    try:
        return read_parquet(result)
    except (pa.ArrowException, OSError) as error:
        raise RequestError(f"{result} cannot be read: {error}") from error


def _groups(results: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of all, in tables of some thousand rows: small row groups are slow to read."""
    held: list[pa.Table] = []
    for result in results:
        held.append(_conformed(_read(result), schema))
        if sum(len(rows) for rows in held) >= _ROW_GROUP:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)
