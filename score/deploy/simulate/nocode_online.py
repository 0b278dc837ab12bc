"""Stands in for the script that Azure runs for a real-time deployment of an MLflow model without
one.

As Microsoft's `mlflow_score_script.py`, it loads the model and answers with what `predict()`
returns, as JSON; any error of `predict()` is a 500.
"""

from __future__ import annotations

import json
import os
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


def run(raw_data: str) -> Any:
    """The answer to a request body."""
    body = json.loads(raw_data)
    table = body["input_data"]
    frame = (
        pd.DataFrame(table["data"], columns=table["columns"], index=table.get("index"))
        if isinstance(table, dict)
        else pd.DataFrame(table)
    )
    answer = _model.predict(frame, params=body.get("params"))
    json.dumps(answer)  # without MLflow's encoder: NumPy scalars would fail here
    return answer
