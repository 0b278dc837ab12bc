"""Embedding in Spark's Python workers: a table in storage → a table of vectors.

`main` is what the job of `components/spark/embed.yml` runs; `embed_table` is for your own session.
Settings are the executors' variables `SCORE_…`: `spark.executorEnv.SCORE_PRECISION`, say.
"""

from __future__ import annotations

import argparse
import atexit
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from score.contract.params import Params
from score.contract.rows import ERRORS, FEATURES, check_columns
from score.core.embedder import Embedder
from score.entry.model import load
from score.folder import registry
from score.tables.base_writer import error_cells
from score.tables.frames import rows_of

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import DataFrame

_ROOT = Path(__file__).resolve().parent.parent  # the folder or zip that holds `score`

_ERROR_TYPES = dict(zip(ERRORS, ("string", "string", "boolean"), strict=True))
_ADDED = ", ".join(
    f"{name} {kind}"
    for name, kind in (dict.fromkeys(FEATURES, "array<float>") | _ERROR_TYPES).items()
)


def embed_table(table: DataFrame, model: str) -> DataFrame:
    """The table with the vectors of its `image` and `text` columns, and the errors of its rows.

    Added are `image_features` and `text_features` (arrays of floats or null), `error_code`,
    `error_message` and `error_retryable`. `model`: a package's folder, on the driver's disk or at
    an address that Hadoop reads, or its name in MLflow's registry (`models:/clip/1`). Needs the
    project's dependencies on the executors, not the project. Raises BadColumns.
    """
    check_columns(table.columns)
    context = table.sparkSession.sparkContext
    schema = f"{table._jdf.schema().toDDL()}, {_ADDED}"
    return table.mapInPandas(partial(embed, model=send(context, model)), schema)


def embed(frames: Iterable[pd.DataFrame], model: str) -> Iterator[pd.DataFrame]:
    """In a worker: each frame with the columns of `embed_table`. A bad row raises nothing."""
    embedder = _loaded(model)
    for frame in frames:
        records = list(embedder.embed(rows_of(frame), Params(on_error="report")))
        errors = [error_cells(record) for record in records]
        added: dict[str, list[Any]] = {
            **{name: [getattr(record, name) for record in records] for name in FEATURES},
            **{name: [cells[number] for cells in errors] for number, name in enumerate(ERRORS)},
        }
        # dtype object: pandas 3 would make strings beside None a column with NaN.
        columns = {name: pd.Series(cells, frame.index, object) for name, cells in added.items()}
        yield frame.assign(**columns)


@cache
def _loaded(model: str) -> Embedder:
    from pyspark import SparkFiles

    return load(os.environ, SparkFiles.get(model))


def send(context: SparkContext, model: str) -> str:
    """Sends this code and a model to every executor; returns its path, for `SparkFiles.get`."""
    if not zipfile.is_zipfile(_ROOT):  # else `--py-files` has sent it to the executors
        context.addPyFile(_zipped())
    if registry.is_uri(model):
        model = str(registry.download(model))
    if not Path(model).is_dir():
        context.addFile(model, recursive=True)
        return model.rstrip("/").rpartition("/")[2]
    archive = _archive("tar", Path(model))  # Spark does not send local folders to a cluster
    context.addArchive(f"{archive}#{archive.stem}")
    return f"{archive.stem}/{Path(model).resolve().name}"


@cache
def _zipped() -> str:
    """The package's code in a zip, for workers without it. A wheel's model is left out."""
    left_out = shutil.ignore_patterns("embedded", "__pycache__")
    with tempfile.TemporaryDirectory() as scratch:
        code = shutil.copytree(_ROOT / "score", Path(scratch, "score"), ignore=left_out)
        return str(_archive("zip", code))


def _archive(kind: str, folder: Path) -> Path:
    """A folder in one file with a unique name, which is removed when this process ends."""
    scratch = Path(tempfile.mkdtemp(prefix="clip-endpoints-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)  # Spark reads it later
    name, inside = str(scratch / scratch.name), folder.resolve()
    return Path(shutil.make_archive(name, kind, inside.parent, inside.name))


def main(arguments: Sequence[str] | None = None) -> None:
    """`--table FOLDER --model FOLDER --output FOLDER`: of parquet files, a model's, of results."""
    from pyspark.sql import SparkSession

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name in ("table", "model", "output"):
        parser.add_argument(f"--{name}", required=True)
    options, _ = parser.parse_known_args(arguments)
    session = SparkSession.builder.appName("clip-endpoints").getOrCreate()
    embed_table(session.read.parquet(options.table), options.model).write.parquet(options.output)
