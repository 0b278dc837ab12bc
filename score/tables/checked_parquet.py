"""Opens parquet files whose pages are compared with their checksums, where they have some: the
files that this package writes do (`parquet_writer`). So a byte that a disk has changed is an error,
not another answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq


def open_parquet(source: Path | IO[bytes], **options: Any) -> pq.ParquetFile:
    """options: of `pq.ParquetFile`. Raises OSError, also where a page is read that is damaged;
    pa.ArrowException."""
    return pq.ParquetFile(source, page_checksum_verification=True, **options)


def read_parquet(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole file, or some of its columns. Raises as `open_parquet`."""
    return pq.read_table(file, columns=columns, page_checksum_verification=True)
