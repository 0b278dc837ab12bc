"""An entry script of the kind that Azure's no-code deployments bring: load, predict, json.dumps."""

from __future__ import annotations

import json
import os
from typing import Any

import mlflow.pyfunc
import pandas as pd


def init() -> None:
    global model
    model = mlflow.pyfunc.load_model(os.environ["AZUREML_MODEL_DIR"])


def run(raw_data: str) -> Any:
    body = json.loads(raw_data)
    table = body["input_data"]
    frame = (
        pd.DataFrame(table["data"], columns=table["columns"], index=table.get("index"))
        if isinstance(table, dict)
        else pd.DataFrame(table)
    )
    answer = model.predict(frame, params=body.get("params"))
    json.dumps(answer)  # without MLflow's encoder: NumPy scalars would fail here
    return answer
