"""A folder of YAML for Azure ML, with one file of each kind, for tests that change fields.

The fields are those of the reference pages, learn.microsoft.com/azure/machine-learning/
reference-yaml-…: endpoint-online, endpoint-batch, deployment-managed-online,
deployment-kubernetes-online, deployment-batch, model, environment, component-command,
job-parallel (for the component), component-pipeline, component-spark, job-command, job-pipeline,
job-spark, compute-aml.
"""

from __future__ import annotations

import copy
import functools
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.ai.ml.entities import Component

from score.deploy.check import Findings, findings
from score.deploy.rules import schemas
from tests.support.measuring import untraced


class _Gone:
    def __repr__(self) -> str:  # part of tests' names, which must be the same in every process
        return "gone"


GONE = _Gone()  # as a value: the field is removed
_SCHEMA = "https://azuremlschemas.azureedge.net/latest/{}.schema.json"
_PROBE = {
    "initial_delay": 10,
    "period": 10,
    "timeout": 2,
    "success_threshold": 1,
    "failure_threshold": 30,
}
_CONF = {
    "spark.driver.cores": 2,
    "spark.driver.memory": "8g",
    "spark.executor.cores": 4,
    "spark.executor.memory": "8g",
    "spark.executor.instances": 2,
}

DOCUMENTS: dict[str, dict[str, Any]] = {
    "managedOnlineEndpoint": {"name": "images", "auth_mode": "key", "traffic": {"blue": 100}},
    "kubernetesOnlineEndpoint": {"name": "pods", "compute": "azureml:k8s", "auth_mode": "key"},
    "batchEndpoint": {
        "name": "nightly",
        "auth_mode": "aad_token",
        "defaults": {"deployment_name": "model"},
    },
    "managedOnlineDeployment": {
        "name": "blue",
        "endpoint_name": "images",
        "model": "azureml:embedder@latest",
        "code_configuration": {"code": "code", "scoring_script": "online.py"},
        "environment": "azureml:serving@latest",
        "instance_type": "Standard_D4as_v4",
        "instance_count": 1,
        "environment_variables": {"WORKER_COUNT": "2", "SCORE_REQUEST_DEADLINE": "60"},
        "request_settings": {
            "request_timeout_ms": 90000,
            "max_concurrent_requests_per_instance": 2,
        },
        "readiness_probe": dict(_PROBE),
        "liveness_probe": dict(_PROBE),
    },
    "kubernetesOnlineDeployment": {
        "type": "kubernetes",
        "name": "pod",
        "endpoint_name": "pods",
        "model": "azureml:embedder@latest",
        "code_configuration": {"code": "code", "scoring_script": "online.py"},
        "environment": "azureml:serving@latest",
        "instance_type": "defaultinstancetype",
        "resources": {"requests": {"cpu": "0.5", "memory": "1Gi"}},
        "scale_settings": {
            "type": "target_utilization",
            "min_instances": 1,
            "max_instances": 3,
            "target_utilization_percentage": 70,
            "polling_interval": 10,
        },
    },
    "modelBatchDeployment": {
        "type": "model",
        "name": "model",
        "endpoint_name": "nightly",
        "model": "azureml:embedder@latest",
        "code_configuration": {"code": "code", "scoring_script": "batch.py"},
        "environment": "azureml:batching@latest",
        "compute": "azureml:cluster",
        "resources": {"instance_count": 2},
        "settings": {
            "max_concurrency_per_instance": 2,
            "mini_batch_size": 10,
            "output_action": "append_row",
            "output_file_name": "predictions.csv",
            "error_threshold": -1,
            "retry_settings": {"max_retries": 3, "timeout": 300},
            "logging_level": "info",
            "environment_variables": {"SCORE_BATCH_SIZE": "32"},
        },
    },
    "batchDeployment": {
        "name": "legacy",
        "endpoint_name": "nightly",
        "model": "azureml:embedder@latest",
        "compute": "azureml:cluster",
        "resources": {"instance_count": 2},
        "mini_batch_size": 2,
        "output_action": "append_row",
        "error_threshold": -1,
    },
    "pipelineComponentBatchDeployment": {
        "type": "pipeline",
        "name": "steps",
        "endpoint_name": "nightly",
        "component": "./behind.yml",
        "settings": {"default_compute": "azureml:cluster", "continue_on_step_failure": False},
    },
    "model": {"name": "embedder", "type": "mlflow_model", "path": "mlflow"},
    "data": {"name": "tables", "type": "uri_folder", "path": "tables"},
    "environment": {
        "name": "batching",
        "image": "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest",
        "conda_file": "conda.yaml",
    },
    "commandComponent": {
        "type": "command",
        "name": "prepare",
        "inputs": {
            "table": {"type": "uri_file"},
            "rows": {"type": "integer", "default": 1000, "min": 1, "max": 100000},
            "way": {"type": "string", "default": "fast", "enum": ["fast", "slow"]},
        },
        "outputs": {"shards": {"type": "uri_folder"}},
        "code": "code",
        "command": "python cut.py ${{inputs.table}} ${{inputs.rows}} ${{inputs.way}} "
        "${{outputs.shards}}",
        "environment": "azureml:batching@latest",
        "resources": {"instance_count": 1},
    },
    "parallelComponent": {
        "type": "parallel",
        "name": "embed",
        "inputs": {"shards": {"type": "uri_folder"}, "model": {"type": "mlflow_model"}},
        "outputs": {"lines": {"type": "uri_file"}},
        "input_data": "${{inputs.shards}}",
        "mini_batch_size": "1",
        "mini_batch_error_threshold": 5,
        "max_concurrency_per_instance": 2,
        "logging_level": "INFO",
        "resources": {"instance_count": 2},
        "retry_settings": {"max_retries": 2, "timeout": 60},
        "task": {
            "type": "run_function",
            "code": "code",
            "entry_script": "batch.py",
            "environment": "azureml:batching@latest",
            "program_arguments": "--model ${{inputs.model}}",
            "append_row_to": "${{outputs.lines}}",
        },
    },
    "pipelineComponent": {
        "type": "pipeline",
        "name": "embed_table",
        "inputs": {"table": {"type": "uri_file"}, "model": {"type": "mlflow_model"}},
        "outputs": {"lines": {"type": "uri_file"}},
        "jobs": {
            "cut": {
                "type": "command",
                "component": "./commandComponent.yml",
                "inputs": {"table": "${{parent.inputs.table}}", "rows": 10},
            },
            "embed": {
                "type": "parallel",
                "component": "./parallelComponent.yml",
                "inputs": {
                    "shards": "${{parent.jobs.cut.outputs.shards}}",
                    "model": "${{parent.inputs.model}}",
                },
                "outputs": {"lines": "${{parent.outputs.lines}}"},
            },
        },
    },
    "sparkComponent": {
        "type": "spark",
        "name": "embed_spark",
        "code": "code",
        "entry": {"file": "job.py"},
        "inputs": {"table": {"type": "uri_folder", "mode": "direct"}},
        "conf": dict(_CONF),
        "args": "--table ${{inputs.table}}",
    },
    "commandJob": {
        "command": "python cut.py ${{inputs.table}} ${{outputs.shards}}",
        "code": "code",
        "environment": "azureml:batching@latest",
        "compute": "azureml:cluster",
        "inputs": {"table": {"type": "uri_folder", "path": "tables"}},
        "outputs": {"shards": {"type": "uri_folder"}},
        "resources": {"instance_count": 1, "shm_size": "2g"},
        "limits": {"timeout": 3600},
        "distribution": {"type": "pytorch", "process_count_per_instance": 1},
    },
    "pipelineJob": {
        "type": "pipeline",
        "settings": {"default_compute": "azureml:cluster"},
        "inputs": {
            "table": {"type": "uri_file", "path": "tables/one.csv"},
            "model": {"type": "mlflow_model", "path": "azureml:embedder@latest"},
        },
        "outputs": {"lines": {"type": "uri_file"}},
        "jobs": {
            "embed": {
                "type": "pipeline",
                "component": "./pipelineComponent.yml",
                "inputs": {
                    "table": "${{parent.inputs.table}}",
                    "model": "${{parent.inputs.model}}",
                },
                "outputs": {"lines": "${{parent.outputs.lines}}"},
            },
            "tell": {
                "type": "command",
                "command": "echo ${{inputs.lines}}",
                "environment": "azureml:batching@latest",
                "inputs": {"lines": "${{parent.jobs.embed.outputs.lines}}"},
            },
        },
    },
    "sparkJob": {
        "type": "spark",
        "code": "code",
        "entry": {"file": "job.py"},
        "conf": dict(_CONF),
        "resources": {"instance_type": "standard_e8s_v3", "runtime_version": "3.4"},
    },
    "amlCompute": {
        "type": "amlcompute",
        "name": "cluster",
        "size": "Standard_D4as_v4",
        "tier": "dedicated",
        "min_instances": 0,
        "max_instances": 4,
        "idle_time_before_scale_down": 120,
    },
    "computeInstance": {"type": "computeinstance", "name": "desk", "size": "Standard_DS3_v2"},
}
_SERVING = {
    "name": "serving",
    "build": {"path": "docker"},
    "inference_config": {
        "liveness_route": {"port": 5001, "path": "/"},
        "readiness_route": {"port": 5001, "path": "/"},
        "scoring_route": {"port": 5001, "path": "/score"},
    },
}
FILES = {
    "code/online.py": "def init():\n    pass\n\n\ndef run(data):\n    return data\n",
    "code/batch.py": "def init():\n    pass\n\n\ndef run(mini_batch):\n    return mini_batch\n",
    "code/cut.py": "",
    "code/job.py": "",
    "tables/one.csv": "image\n",
    "mlflow/MLmodel": "flavors: {}\n",
    "docker/Dockerfile": "FROM mcr.microsoft.com/mirror/docker/library/python:3.11\n"
    "COPY requirements.txt /tmp/\nRUN pip install -r /tmp/requirements.txt\n",
    "docker/requirements.txt": "azureml-inference-server-http>=1.5\n"
    "--extra-index-url https://download.pytorch.org/whl/cpu\ntorch==2.13.0+cpu\n",
    "conda.yaml": "channels: [conda-forge]\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n"
    "      - azureml-core>=1.60\n      - azureml-dataset-runtime[fuse]>=1.60\n",
}


@untraced
def build(folder: Path) -> None:
    """Writes every document and the files that they refer to."""
    for name, text in _texts().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@functools.cache
def _texts() -> dict[str, str]:
    """Name → text of each file."""
    documents = {f"{kind}.yml": _dumped(kind, content) for kind, content in DOCUMENTS.items()}
    documents["serving.yml"] = _dumped("environment", _SERVING)
    documents["behind.yml"] = _dumped("pipelineComponent", _behind())
    return {**FILES, **documents}


_parsed: dict[str | bytes, bytes] = {}


def parse_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches parsed YAML that many tests read; each call returns a new copy. Azure's SDK, in which
    a check spends most of its time, is not traced for coverage.

    Parsed by libyaml where it is: ten times as fast. What it refuses is parsed again by the parser
    that is replaced, for its words.
    """

    def load(stream: Any) -> Any:
        text = stream.read() if hasattr(stream, "read") else stream
        if text not in _parsed:
            if text is not stream:
                stream.seek(0)
            try:
                content = yaml.load(text, _LOADER)
            except (yaml.YAMLError, RecursionError):
                content = parse(stream)
            _parsed[text] = pickle.dumps(content)  # read back faster than a deep copy is made
        return pickle.loads(_parsed[text])

    parse = yaml.safe_load
    monkeypatch.setattr(yaml, "safe_load", load)
    loaders = {kind: untraced(loader) for kind, loader in schemas._LOADERS.items()}
    monkeypatch.setattr(schemas, "_LOADERS", loaders)
    monkeypatch.setattr(Component, "_validate", untraced(Component._validate))


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _behind() -> dict[str, Any]:
    """The pipeline of a batch endpoint; its step names the model, which endpoints do not pass."""
    changes = {
        "inputs": {"table": {"type": "uri_file"}},
        "jobs/embed/inputs/model": {"type": "mlflow_model", "path": "azureml:embedder@latest"},
    }
    return changed("pipelineComponent", changes)


def write(folder: Path, kind: str, content: dict[str, Any]) -> None:
    """Writes one document under its kind's name."""
    (folder / f"{kind}.yml").write_text(_dumped(kind, content), encoding="utf-8")


def changed(kind: str, changes: dict[str, Any]) -> dict[str, Any]:
    """A document with changed values: `settings/retry_settings/timeout` → value, or GONE."""
    content = copy.deepcopy(DOCUMENTS[kind])
    for path, value in changes.items():
        *steps, last = path.split("/")
        parent = content
        for step in steps:
            parent = parent.setdefault(step, {})
        if value is GONE:
            del parent[last]
        else:
            parent[last] = value
    return content


def checked(folder: Path, kind: str) -> Findings:
    """The findings in one document, with the others in its folder."""
    return findings([folder / f"{kind}.yml"], [folder])


def _dumped(kind: str, content: dict[str, Any]) -> str:
    return yaml.dump({"$schema": _SCHEMA.format(kind), **content}, Dumper=_DUMPER, sort_keys=False)
