"""A shard that is complete: which of its rows may be tried again, and the same with new ones."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from score.contract.rows import ERRORS, FEATURES, IMAGE, Record
from score.errors import HostDown
from score.fetch.host_times import HostTimes
from score.job_folder.ledger import Entry
from score.job_folder.rows import Item
from score.job_folder.shard import counted_hosts, counted_statuses, slowest_hosts
from score.storage import atomic
from score.storage.digest import sha256_of
from score.tables.checked_parquet import read_parquet
from score.tables.parquet_writer import parquet_writer
from score.tables.shard_writer import COMPUTED, ROW, computed

_CODE, _MESSAGE, _RETRYABLE = ERRORS

New = Sequence[tuple[Item, Record]]
"""What was computed anew of some rows, in the order of their numbers."""


class Damaged(Exception):
    """A shard that cannot be read."""


def retryable(file: Path) -> set[int]:
    """The numbers of a shard's rows that may succeed another time. Raises Damaged."""
    table = _read(file, [ROW, _RETRYABLE])
    return set(table.filter(pc.field(_RETRYABLE))[ROW].to_pylist())


def rewrite(
    file: Path, target: Path, entry: Entry, new: New, times: HostTimes, image: str = IMAGE
) -> Entry:
    """Writes a shard with some rows replaced to another name, or its own; returns the ledger's line
    for it, which is as `entry` in all that does not change. times: of the requests for those rows.
    image: what the input calls its column of images. Raises Damaged, OSError."""
    table = _read(file)
    if new:
        table = _replaced(table, new)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic.file(target) as part, parquet_writer(part, table.schema) as writer:
        writer.write_table(table)
    unasked = sum(isinstance(record.error, HostDown) for _, record in new)
    slowest = slowest_hosts(times, entry.slowest)
    return replace(_recounted(entry, table, target, image), unasked=unasked, slowest=slowest)


def _read(file: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return read_parquet(file, columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
            raise  # the machine's trouble, which passes; Arrow's own errors have no number
        raise Damaged(str(error)) from error


def _replaced(table: pa.Table, new: New) -> pa.Table:
    """A shard with some rows computed anew."""
    schema = table.schema
    kind = np.dtype(schema.field(FEATURES[0]).type.value_type.to_pandas_dtype())
    numbers = pa.array([item.number for item, _ in new], pa.int64())
    is_new = pc.is_in(table[ROW], value_set=numbers)
    cells = zip(*(computed(record, item.digest.sha256, kind) for item, record in new), strict=True)
    changed = table.filter(is_new)
    for name, column in zip(COMPUTED, cells, strict=True):
        place = schema.get_field_index(name)
        array = pa.array(list(column), type=schema.field(name).type)
        changed = changed.set_column(place, schema.field(name), array)
    kept = table.filter(pc.invert(is_new))
    return pa.concat_tables([kept, changed]).sort_by(ROW)


def _recounted(entry: Entry, table: pa.Table, file: Path, image: str) -> Entry:
    """A ledger's line for a shard that was written again."""
    failed = table.filter(pc.is_valid(table[_CODE]))
    about_image = pc.starts_with(failed[_MESSAGE], f"{IMAGE}: ")
    images = failed.filter(about_image)[image].to_pylist() if image in table.column_names else []
    return replace(
        entry,
        bytes=file.stat().st_size,
        sha256=sha256_of(file),
        failed=Counter(failed[_CODE].to_pylist()),
        hosts=counted_hosts(images),
        statuses=counted_statuses(failed[_MESSAGE].to_pylist()),
        retryable=pc.sum(failed[_RETRYABLE]).as_py() or 0,
    )
