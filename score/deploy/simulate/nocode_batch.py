"""Stands in for the script that Azure runs for a batch deployment of an MLflow model without one.

Each file is read into a DataFrame with the signature's types, and passed to `predict()` whole. A
result row is the row's number in its file, what `predict()` returned, and the file's name. See
https://learn.microsoft.com/azure/machine-learning/how-to-mlflow-batch

One difference is deliberate. Azure answers some files wrongly, without an error: pandas shifts the
columns of a CSV whose lines have more cells than its header, and MLflow drops a misspelt column.
This script refuses such files, so that a simulation shows the problem.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd

_model: Any


def init() -> None:
    """Loads the MLflow model of `AZUREML_MODEL_DIR`."""
    global _model
    (file,) = Path(os.environ["AZUREML_MODEL_DIR"]).glob("*/MLmodel")
    _model = mlflow.pyfunc.load_model(str(file.parent.resolve()))


def run(mini_batch: Sequence[str]) -> pd.DataFrame:
    """The result rows of all files. Raises for a file that cannot be read or predicted, as Azure's
    script does."""
    return pd.concat([_predicted(Path(file)) for file in mini_batch])


def _predicted(file: Path) -> pd.DataFrame:
    names = _model.metadata.get_input_schema().input_names()
    if file.suffix == ".csv":
        _check_csv(file)
        frame = pd.read_csv(file, dtype=dict.fromkeys(names, str))
    elif file.suffix in (".parquet", ".pqt"):
        frame = pd.read_parquet(file)
        _check_columns(file, list(frame.columns))
    else:
        raise ValueError(f"File type {file.suffix!r} is not supported.")
    answer = pd.DataFrame(_model.predict(frame))
    for name in answer:
        answer[name] = [json.dumps(value) for value in answer[name]]
    answer.insert(0, "row", range(len(answer)))
    answer["file_name"] = file.name
    return answer


# `score` is imported late: it is the code of the model, which MLflow puts on the path in `init()`.


def _check_csv(file: Path) -> None:
    """Raises ValueError for a file that Azure would answer wrongly, or fail on."""
    from score.errors import RequestError, RowError
    from score.tables.csv_reader import CsvTable

    try:
        with CsvTable(file) as table:
            cells = (cell for line in table for cell in (line.row.image, line.row.text))
            problem = next((cell for cell in cells if isinstance(cell, RowError)), None)
    except RequestError as error:
        raise ValueError(_refusal(file, error)) from None
    if problem:
        raise ValueError(_refusal(file, problem))


def _check_columns(file: Path, names: list[object]) -> None:
    from score.contract.rows import check_columns
    from score.errors import RequestError

    try:
        check_columns(names)
    except RequestError as error:
        raise ValueError(_refusal(file, error)) from None


def _refusal(file: Path, problem: Exception) -> str:
    return f"{file.name}: {problem} (Azure might answer this file, and wrongly)"
