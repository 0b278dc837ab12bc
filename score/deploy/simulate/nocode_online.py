"""What Azure runs for a real-time deployment of an MLflow model that names no script.

Load, predict, answer as JSON, as Microsoft's `mlflow_score_script.py` does: whatever `predict()`
raises is a 500.
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
