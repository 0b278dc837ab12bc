"""What Azure runs for a batch deployment of an MLflow model that names no script, as documented.

Each file is read into a frame with the signature's types, given to `predict()` whole, and comes out
as rows: its place in the file, what `predict()` returned, the file's name. See
https://learn.microsoft.com/azure/machine-learning/how-to-mlflow-batch
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
    """Rows of all files; raises for any that it cannot read or predict, as Azure's does."""
    return pd.concat([_predicted(Path(file)) for file in mini_batch])


def _predicted(file: Path) -> pd.DataFrame:
    names = _model.metadata.get_input_schema().input_names()
    if file.suffix == ".csv":
        frame = pd.read_csv(file, dtype=dict.fromkeys(names, str))
    elif file.suffix in (".parquet", ".pqt"):
        frame = pd.read_parquet(file)
    else:
        raise ValueError(f"File type {file.suffix!r} is not supported.")
    answer = pd.DataFrame(_model.predict(frame))
    for name in answer:
        answer[name] = [json.dumps(value) for value in answer[name]]
    answer.insert(0, "row", range(len(answer)))
    answer["file_name"] = file.name
    return answer
