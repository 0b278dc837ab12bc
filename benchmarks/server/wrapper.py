"""The straightforward entry script of a real-time endpoint: what a user writes first.

Azure's server calls `init` once, and `run` with the body of each request.
"""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.contenders import Transformers

model: Transformers


def init() -> None:
    global model
    model = Transformers(Path(os.environ["AZUREML_MODEL_DIR"]))


def run(raw_data: str) -> list[dict[str, Any]]:
    """Of rows that have all an image, or all a text."""
    table = json.loads(raw_data)["input_data"]
    frame = pd.DataFrame(table["data"], columns=table["columns"])
    frame = frame.reindex(columns=["image", "text"], fill_value="")
    name = "image_features" if frame["image"].iloc[0] else "text_features"
    return [{name: vector} for vector in model.predict(frame).tolist()]
