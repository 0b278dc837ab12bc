"""The same pipeline in each of Spark's Python workers: a table in storage → a table of vectors.

Entry script of `components/spark/embed.yml`; `embed_table` is for one's own Spark session.
"""

from __future__ import annotations

import argparse
import atexit
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Spark runs this file by its path. A user's score.py further on is not taken for this package.
_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

import pandas as pd  # noqa: E402

from score import registry  # noqa: E402
from score.embedder import Embedder  # noqa: E402
from score.frames import rows_of  # noqa: E402
from score.params import Params  # noqa: E402
from score.rows import check_columns  # noqa: E402
from score.tables import ERRORS, FEATURES, error_cells  # noqa: E402

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_ERROR_TYPES = dict(zip(ERRORS, ("string", "string", "boolean"), strict=True))
_ADDED = ", ".join(
    f"{name} {kind}"
    for name, kind in (dict.fromkeys(FEATURES, "array<float>") | _ERROR_TYPES).items()
)


def embed_table(table: DataFrame, model: str) -> DataFrame:
    """The table with the vectors of its `image` and `text` columns, and what was wrong with a row.

    Added are `image_features` and `text_features` (arrays of floats or null), `error_code`,
    `error_message` and `error_retryable`. `model`: a package's folder, local or at an address that
    Hadoop reads, or its name in MLflow's registry (`models:/clip/1`). Needs the project's
    dependencies on the executors, not the project. Raises BadColumns.
    """
    check_columns(table.columns)
    context = table.sparkSession.sparkContext
    context.addPyFile(_zipped())
    if registry.is_uri(model):
        model = str(registry.download(model))
    context.addFile(model, recursive=True)
    name = model.rstrip("/").rpartition("/")[2]
    schema = f"{table._jdf.schema().toDDL()}, {_ADDED}"
    return table.mapInPandas(partial(embed, model=name), schema)


def embed(frames: Iterable[pd.DataFrame], model: str) -> Iterator[pd.DataFrame]:
    """A worker's share: each frame with the columns of `embed_table`. A bad row is no exception."""
    embedder = _loaded(model)
    for frame in frames:
        records = list(embedder.embed(rows_of(frame), Params(on_error="report")))
        errors = [error_cells(record) for record in records]
        added: dict[str, list[Any]] = {
            **{name: [getattr(record, name) for record in records] for name in FEATURES},
            **{name: [cells[place] for cells in errors] for place, name in enumerate(ERRORS)},
        }
        yield frame.assign(**added)


@cache
def _loaded(model: str) -> Embedder:
    from pyspark import SparkFiles

    return Embedder.load(SparkFiles.get(model))


def _zipped() -> str:
    """The package as Spark sends it to its workers."""
    folder = tempfile.mkdtemp(prefix="clip-endpoints-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # Spark reads it when it likes
    return shutil.make_archive(f"{folder}/score", "zip", _ROOT, "score")


def main(arguments: Sequence[str] | None = None) -> None:
    """`score/spark.py --table FOLDER --model FOLDER --output FOLDER`, of parquet files."""
    from pyspark.sql import SparkSession

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name in ("table", "model", "output"):
        parser.add_argument(f"--{name}", required=True)
    options, _ = parser.parse_known_args(arguments)
    session = SparkSession.builder.appName("clip-endpoints").getOrCreate()
    embed_table(session.read.parquet(options.table), options.model).write.parquet(options.output)


if __name__ == "__main__":
    from score import spark  # as the workers know it; they know no `__main__`

    spark.main()
