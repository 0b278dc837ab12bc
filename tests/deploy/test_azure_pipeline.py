"""The pipeline behind a batch endpoint is invoked by Azure's SDK as users would do it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.ai.ml import Input
from azure.ai.ml.entities._load_functions import load_pipeline_component_batch_deployment
from azure.core.exceptions import ResourceNotFoundError

from score.deploy.check import check
from score.deploy.rules.documents import Document
from score.deploy.rules.pipelines import problems
from tests.support.azure_client import Service, client
from tests.support.surfaces import ROOT

PIPELINE = ROOT / "components/pipeline/pipeline.yml"
INPUTS = ROOT / "samples/azure/pipeline-inputs.yml"
SCORING = "https://clip.example/jobs"


@pytest.fixture
def service() -> Service:
    """A workspace with the endpoint `clip-batch` and its deployment `pipeline`."""
    endpoint = {"name": "clip-batch", "properties": {"scoringUri": SCORING}}
    deployments = {"value": [{"name": "pipeline", "properties": {}}]}
    job = {"name": "job-1", "id": "/jobs/job-1", "properties": {}}
    return Service(
        {
            "batchEndpoints/clip-batch": endpoint,
            "batchEndpoints/clip-batch/deployments": deployments,
            SCORING: job,
        }
    )


def invoke(service: Service, inputs: Any) -> Any:
    """As `az ml batch-endpoint invoke --file` does; the body that Azure gets."""
    client(service).batch_endpoints.invoke(
        "clip-batch",
        deployment_name="pipeline",
        inputs={name: Input(**given) for name, given in inputs.items()},
    )
    ((_, _, body),) = [call for call in service.asked if call[1] == SCORING]
    return body["properties"]["inputData"]


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def test_the_sample_inputs_reach_the_endpoint(service: Service) -> None:
    given = invoke(service, read(INPUTS)["inputs"])
    assert given["table"] == {
        "jobInputType": "UriFile",
        "uri": "azureml://datastores/workspaceblobstore/paths/urls.csv",
    }
    assert given["rows"] == {"jobInputType": "Literal", "value": 1000}


def test_the_sdk_takes_a_model_for_data(service: Service) -> None:
    """Why the pipeline's step binds its model: as an input, it is looked up among data assets."""
    with pytest.raises(Exception, match="clip"):
        invoke(service, {"model": {"type": "mlflow_model", "path": "azureml:clip@latest"}})
    assert service.asked[-1][1].startswith("data/clip")


def test_the_inputs_are_the_pipelines(service: Service) -> None:
    wanted, given = read(PIPELINE)["inputs"], read(INPUTS)["inputs"]
    assert {name: port["type"] for name, port in given.items()} == {
        name: port["type"] for name, port in wanted.items()
    }


def test_the_model_of_the_step_is_looked_up_among_models(service: Service) -> None:
    deployment = load_pipeline_component_batch_deployment(PIPELINE.with_name("deployment.yml"))
    with pytest.raises(ResourceNotFoundError, match="no models/clip/versions"):
        client(service).batch_deployments.begin_create_or_update(deployment)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "right", "wrong", "said"),
    [
        (
            "pipeline.yml",
            "  rows:\n    type: integer",
            "  rows:\n    type: mlflow_model",
            "rows is a",
        ),
        (
            "pipeline.yml",
            "table:\n    type: uri_file",
            "table:\n    type: mltable",
            "table is a m",
        ),
        (
            "pipeline.yml",
            "table:\n    type: uri_folder",
            "table:\n    type: mltable",
            "outputs",
        ),
        ("pipeline.yml", "type: mlflow_model", "type: uri_file", "and a mlflow_model is wanted"),
        ("pipeline.yml", "        path: azureml:clip@latest", "        mode: download", "path: is"),
        (
            "deployment.yml",
            "./pipeline.yml",
            "./pipeline-indexed.yml",
            "inputs.model is a",
        ),
    ],
)
def test_what_an_endpoint_cannot_pass_is_seen(
    file: str, right: str, wrong: str, said: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(PIPELINE.parent, tmp_path / "components/pipeline")
    for part in ("score", "environment"):
        (tmp_path / part).symlink_to(ROOT / part)
    beside = [ROOT / "components", ROOT / "environment"]
    assert check([folder], beside) == []
    text = (folder / file).read_text(encoding="utf-8")
    assert right in text
    (folder / file).write_text(text.replace(right, wrong), encoding="utf-8")
    found = check([folder], beside)
    assert any(said in problem for problem in found), found


def deployment(component: Any, folder: Path) -> Document:
    kind = "pipelineComponentBatchDeployment"
    return Document(folder / "deployment.yml", kind, {"component": component})


def pipeline(kind: str, folder: Path) -> Any:
    """A pipeline component `p.yml` with an input of a type."""
    made = {"type": "pipeline", "name": "p", "inputs": {"one": {"type": kind}}, "jobs": {}}
    (folder / "p.yml").write_text(yaml.safe_dump(made), encoding="utf-8")
    return made


@pytest.mark.parametrize("inline", [False, True])
def test_what_an_endpoint_does_not_pass_is_refused(inline: bool, tmp_path: Path) -> None:
    made = pipeline("mlflow_model", tmp_path)
    (said,) = problems(deployment(made if inline else "p.yml", tmp_path))
    assert "inputs.one is a mlflow_model, and a batch endpoint passes uri_file" in said


def test_a_component_that_cannot_be_read_does_not_end_the_check(tmp_path: Path) -> None:
    schema = "$schema: https://azuremlschemas.azureedge.net/latest/pipelineComponent.schema.json\n"
    for text in (f"{schema}a: [", "a: ["):
        (tmp_path / "comp.yml").write_text(text, encoding="utf-8")
        assert not [*problems(deployment("comp.yml", tmp_path))]


@pytest.mark.parametrize("kind", ["uri_folder", "string", "boolean", "number", "integer"])
def test_what_an_endpoint_passes_is_let_pass(kind: str, tmp_path: Path) -> None:
    pipeline(kind, tmp_path)
    assert not [*problems(deployment("p.yml", tmp_path))]


def test_an_endpoint_passes_a_model_on_that_a_pipeline_makes(tmp_path: Path) -> None:
    made = {**pipeline("uri_file", tmp_path), "outputs": {"model": {"type": "mlflow_model"}}}
    assert not [*problems(deployment(made, tmp_path))]


@pytest.mark.parametrize("component", ["azureml:mine:1", "gone.yml"])
def test_a_component_that_lies_elsewhere_is_left_to_azure(component: str, tmp_path: Path) -> None:
    assert not [*problems(deployment(component, tmp_path))]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("- score.zip", "- scores.zip", "py_files: there is no scores.zip"),
        ("../../score.zip", "../../skore.zip", "additional_includes: there is no ../../skore.zip"),
        ("py_files:", "archives:", ""),
        ("- score.zip", "- https://example.org/score.zip", ""),
    ],
)
def test_files_that_spark_would_miss_are_seen(
    right: str, wrong: str, said: str, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "components/spark", tmp_path / "components/spark")
    (tmp_path / "score").mkdir()
    file = tmp_path / "components/spark/embed.yml"
    text = file.read_text(encoding="utf-8")
    assert right in text
    file.write_text(text.replace(right, wrong), encoding="utf-8")
    found = check([file], [ROOT / "environment"])
    assert any(said in problem for problem in found) if said else found == [], found
