"""Azure's own examples for its CLIP (image-text-embeddings), under the simulator.

Their deployments, request bodies, CSVs and sizes, as
https://github.com/Azure/azureml-examples has them under
`cli/foundation-models/system/inference/image-text-embeddings` and, as notebooks, under
`sdk/python/foundation-models/system/inference/image-text-embeddings`. What comes out is read as the
notebooks read it.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from score.__main__ import main
from score.deploy.simulate.batch import batch
from score.deploy.simulate.ports import free_port
from score.deploy.skus import lookup
from tests.support.images import SAMPLES
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process

SCHEMAS = "https://azuremlschemas.azureedge.net/latest"

# The CLI's; endpoint, model and compute are given by `--set`.
ONLINE: dict[str, Any] = {
    "$schema": f"{SCHEMAS}/managedOnlineDeployment.schema.json",
    "name": "demo",
    "instance_type": "Standard_DS3_v2",
    "instance_count": 1,
    "liveness_probe": {
        "initial_delay": 180,
        "period": 180,
        "failure_threshold": 49,
        "timeout": 299,
    },
    "request_settings": {"request_timeout_ms": 90000},
}
BATCH: dict[str, Any] = {
    "$schema": f"{SCHEMAS}/batchDeployment.schema.json",
    "name": "demo",
    "description": "Batch endpoint for image and text embeddings task",
    "type": "model",
    "resources": {"instance_count": 1},
    "settings": {"mini_batch_size": 1},
}
# The notebook's, in which the settings are the deployment's own.
NOTEBOOKS_BATCH: dict[str, Any] = {
    "$schema": f"{SCHEMAS}/batchDeployment.schema.json",
    "name": "embed-clip-vit-base-patch32",
    "compute": "azureml:cpu-cluster",
    "error_threshold": 0,
    "resources": {"instance_count": 1},
    "logging_level": "info",
    "max_concurrency_per_instance": 1,
    "mini_batch_size": 2,
    "output_file_name": "predictions.csv",
    "retry_settings": {"max_retries": 3, "timeout": 600},
}
CODE = {"code_configuration": {"code": str(ROOT), "scoring_script": "score/online.py"}}
LABELS = ("milk_bottle", "can")


def written(folder: Path, content: dict[str, Any]) -> Path:
    file = folder / "deployment.yml"
    file.write_text(yaml.safe_dump(content))
    return file


def wrapped(name: str) -> str:
    """Base64 with line breaks, as `base64.encodebytes` writes it."""
    return base64.encodebytes((SAMPLES / "images" / name).read_bytes()).decode("utf-8")


IMAGES = (wrapped("apple.png"), wrapped("boat.jpg"))
TEXTS = tuple(f"a photo of a {label}" for label in LABELS)


def requests() -> list[tuple[dict[str, Any], set[str]]]:
    """Of images, of texts, of both; the retrieval notebook's leave `index` out."""
    kinds = (
        ([[image, ""] for image in IMAGES], {"image_features"}),
        ([["", text] for text in TEXTS], {"text_features"}),
        (
            [list(pair) for pair in zip(IMAGES, TEXTS, strict=True)],
            {"image_features", "text_features"},
        ),
    )
    columns = ["image", "text"]
    return [
        ({"input_data": {"columns": columns, **index, "data": data}}, keys)
        for data, keys in kinds
        for index in ({"index": [0, 1]}, {})
    ]


@pytest.mark.parametrize("code", [{}, CODE], ids=["no code", "entry script"])
def test_online(code: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = requests()
    command = ["azure", "simulate", "online", str(written(tmp_path, ONLINE | code))]
    command += ["--port", str(free_port()), "--sku", "Standard_DS3_v2"]
    for number, (body, _) in enumerate(asked):
        file = tmp_path / f"{number}_request_data.json"
        file.write_text(json.dumps(body))
        command += ["--request", str(file)]
    assert main(command) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if "_request_data.json: " in line]
    assert len(lines) == len(asked)
    for line, (_, keys) in zip(lines, asked, strict=True):
        response = json.loads(line.partition(": 200 ")[2])
        assert [set(record) for record in response] == [keys] * 2
        assert all(len(vector) == 512 for record in response for vector in record.values())


def shards(folder: Path, rows: list[list[str]]) -> Path:
    """CSVs of ten rows with pandas' index."""
    folder.mkdir()
    frame = pd.DataFrame(rows, columns=["image", "text"])
    for start in range(0, len(frame), 10):
        frame[start : start + 10].to_csv(folder / f"{start}batch_input.csv")
    return folder


@pytest.mark.parametrize("deployment", [BATCH, NOTEBOOKS_BATCH], ids=["cli", "notebook"])
@pytest.mark.parametrize("kind", ["image", "text", "image_text"])
def test_embed(kind: str, deployment: dict[str, Any], tmp_path: Path) -> None:
    images, texts = list(IMAGES) * 6, list(TEXTS) * 6
    cells = {
        "image": [[image, ""] for image in images],
        "text": [["", text] for text in texts],
        "image_text": [list(pair) for pair in zip(images, texts, strict=True)],
    }[kind]
    given, output = shards(tmp_path / f"{kind}_batch", cells), tmp_path / "score"
    file = written(tmp_path, deployment)
    report = batch(file, given, output, model=ROOT)
    assert (report.succeeded, report.failed) == (2, 0)
    # Where the notebooks' model leaves out the column that nothing asked for, ours is `null`.
    names = ["row_number_per_file", "image_features", "text_features", "file_name"]
    score_df = pd.read_csv(output / "predictions.csv", header=None, names=names)
    score_df = score_df.sort_values(["file_name", "row_number_per_file"])
    assert score_df["file_name"].tolist() == ["0batch_input.csv"] * 10 + ["10batch_input.csv"] * 2
    assert score_df["row_number_per_file"].tolist() == [*range(10), *range(2)]
    for column, wanted in (("image_features", "image"), ("text_features", "text")):
        if wanted in kind:
            assert all(len(json.loads(vector)) == 512 for vector in score_df[column])
        else:
            assert score_df[column].isna().all()


@pytest.mark.parametrize(
    "size", ["Standard_DS3_v2", "Standard_DS3_V2", "STANDARD_NC4AS_T4_V3"], ids=str
)
def test_their_sizes_are_known(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["azure", "plan", "--sku", size, "--model", "openai-vit-b-32"]) == 0
    assert lookup(size).name in capsys.readouterr().out
