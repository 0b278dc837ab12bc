"""What Azure takes, the check takes too; and what is nothing of Azure's it passes over."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from score.deploy.check import check, findings
from score.errors import AzureError
from tests.support.azure_workspace import (
    DOCUMENTS,
    GONE,
    build,
    changed,
    checked,
    parse_once,
    write,
)
from tests.support.surfaces import ROOT

ENDPOINT, PODS, NIGHTLY = "managedOnlineEndpoint", "kubernetesOnlineEndpoint", "batchEndpoint"
ONLINE, POD, BATCH = "managedOnlineDeployment", "kubernetesOnlineDeployment", "modelBatchDeployment"
LEGACY, STEPS = "batchDeployment", "pipelineComponentBatchDeployment"
COMMAND, PARALLEL, PIPELINE = "commandComponent", "parallelComponent", "pipelineComponent"
SPARK, JOB, PIPELINE_JOB, SPARK_JOB = "sparkComponent", "commandJob", "pipelineJob", "sparkJob"
CLUSTER = "amlCompute"
_WORKSPACE = (
    "/subscriptions/0/resourceGroups/ours/providers/Microsoft.MachineLearningServices/workspaces/w"
)
_CURATED = "azureml://registries/azureml/environments/sklearn-1.5/labels/latest"
_INLINE = {
    "image": "mcr.microsoft.com/azureml/minimal-py312-inference:latest",
    "conda_file": {"dependencies": ["pip", {"pip": ["azureml-inference-server-http"]}]},
}
_COLLECTED = {
    "sampling_rate": 0.5,
    "rolling_rate": "Hour",
    "collections": {"request": {"enabled": "True"}, "model_inputs": {"enabled": "True"}},
}
_GPU = {"environment": _CURATED, "instance_type": "Standard_NC40ads_H100_v5"}
_CONF = (("spark.executorEnv.SCORE_PRECISION", "fp32"), ("spark.hadoop.aml.enable_cache", True))
_SECRETS = (
    "keyvault:https://ours.vault.azure.net/secrets/key/0f1e2d",
    "azureml://connections/ours",
    "azureml://connections/ours/credentials/key",
)
_DYNAMIC = {
    "conf/spark.dynamicAllocation.enabled": True,
    "conf/spark.dynamicAllocation.minExecutors": 1,
    "conf/spark.dynamicAllocation.maxExecutors": 4,
    "conf/spark.executor.instances": GONE,
}

# Kind, and the fields that are other than in the example: nothing is to be refused.
ACCEPTED: list[tuple[str, Mapping[str, Any]]] = [
    *((kind, {}) for kind in DOCUMENTS),
    # Endpoints.
    (ENDPOINT, {"auth_mode": "aml_token"}),
    (ENDPOINT, {"auth_mode": "aad_token"}),
    (ENDPOINT, {"traffic": GONE}),
    (ENDPOINT, {"traffic": {}}),
    (ENDPOINT, {"traffic": {"blue": 0}}),
    (ENDPOINT, {"traffic": {"blue": 0}, "mirror_traffic": {"blue": 50}}),
    (ENDPOINT, {"name": "elsewhere", "traffic": {"green": 90, "blue": 10}}),
    (ENDPOINT, {"public_network_access": "disabled"}),
    (ENDPOINT, {"identity": {"type": "system_assigned"}}),
    (
        ENDPOINT,
        {
            "identity": {
                "type": "user_assigned",
                "user_assigned_identities": [{"resource_id": f"{_WORKSPACE}/identity"}],
            }
        },
    ),
    (ENDPOINT, {"name": "my-images-2"}),
    (NIGHTLY, {"auth_mode": GONE, "defaults": GONE}),
    # Sizes, whether score/deploy/skus.yml has them or not.
    (ONLINE, {"instance_type": "STANDARD_D4AS_V4"}),
    (ONLINE, {"instance_type": "Standard_D4as_v5"}),
    (ONLINE, {"instance_type": "Standard_DS3_v2"}),
    (ONLINE, {"instance_type": "Standard_D2ads_v6"}),
    (ONLINE, {"instance_type": "Standard_F2s_v2"}),
    (ONLINE, {"instance_type": "Standard_E4-2ds_v5"}),
    (ONLINE, {"instance_type": "Standard_E4s_v3"}),
    (ONLINE, {"instance_type": "Standard_L8s_v3"}),
    (ONLINE, {"instance_type": "Standard_L8as_v5"}),
    (ONLINE, {"instance_type": "Standard_M96bds_v4"}),
    (ONLINE, {"instance_type": "Standard_E2bds_v5"}),
    (ONLINE, {"instance_type": "Standard_A2m_v2"}),
    (ONLINE, {"instance_type": "Standard_DC4as_v5"}),
    (ONLINE, {"instance_type": "Standard_NM16ads_MA35D"}),
    (ONLINE, {**_GPU, "instance_type": "Standard_ND40rs_v2"}),
    (ONLINE, {**_GPU, "instance_type": "Standard_ND96isrf_H100_v5"}),
    (ONLINE, {**_GPU, "instance_type": "Standard_NC128lds_xl_RTXPRO6000BSE_v6"}),
    (ONLINE, _GPU),
    (ONLINE, {**_GPU, "instance_type": "Standard_NC80adis_H100_v5"}),
    (ONLINE, {**_GPU, "instance_type": "Standard_ND96isr_H100_v5"}),
    (ONLINE, {**_GPU, "instance_type": "Standard_ND96isr_H200_v5"}),
    (ONLINE, {**_GPU, "instance_type": "Standard_NV6ads_A10_v5"}),
    (ONLINE, {**_GPU, "instance_type": "Standard_NV36adms_A10_v5"}),
    (ONLINE, {**_GPU, "environment_variables/SCORE_DEVICE": "cuda"}),
    (ONLINE, {**_GPU, "environment_variables/SCORE_DEVICE": "auto"}),
    (CLUSTER, {"size": "Standard_NC24ads_A100_v4", "tier": "low_priority"}),
    (CLUSTER, {"size": GONE, "min_instances": 2, "max_instances": 2}),
    # References.
    (ONLINE, {"environment": _CURATED}),
    (ONLINE, {"environment": "azureml://registries/azureml/environments/acpt/versions/9"}),
    (ONLINE, {"environment": f"azureml:{_WORKSPACE}/environments/serving/versions/3"}),
    (ONLINE, {"environment": "azureml:AzureML-sklearn-1.5@latest"}),
    (ONLINE, {"environment": "azureml:of-the-workspace:12"}),
    (ONLINE, {"environment": _INLINE}),
    (ONLINE, {"environment": {"image": "ours.azurecr.io/team/server:v1.2"}}),
    (ONLINE, {"model": "azureml://registries/azureml/models/clip/versions/1"}),
    (ONLINE, {"model": f"azureml:{_WORKSPACE}/models/clip/versions/1"}),
    (ONLINE, {"model": {"name": "mine", "path": "mlflow", "type": "mlflow_model"}}),
    (ONLINE, {"model": "azureml:embedder:4"}),
    (ONLINE, {"endpoint_name": GONE}),
    (ONLINE, {"endpoint_name": "of-the-workspace"}),
    (ONLINE, {"code_configuration": GONE, "environment": GONE}),
    *((ONLINE, {"environment_variables/KEY": f"${{{{{secret}}}}}"}) for secret in _SECRETS),
    (PIPELINE_JOB, {"inputs/model/path": "azureml:embedder:3"}),
    (PIPELINE_JOB, {"inputs/model/path": "azureml:images:3"}),  # as an endpoint is called
    (PIPELINE_JOB, {"inputs/model/path": "azureml:of-the-workspace@latest"}),
    # Deployments.
    (ONLINE, {"instance_count": 20}),
    (ONLINE, {"scale_settings": {"type": "default"}}),
    (ONLINE, {"app_insights_enabled": True, "data_collector": _COLLECTED}),
    (ONLINE, {"egress_public_network_access": "disabled"}),
    (ONLINE, {"request_settings/request_timeout_ms": 180000}),
    (ONLINE, {"environment_variables/SCORE_REQUEST_DEADLINE": "90"}),
    (ONLINE, {"environment_variables": {"SCORE_THRESHOLD": "0.5", "SCORE_PROFILE_NAME": "a"}}),
    (ONLINE, {"environment_variables": GONE}),
    (ONLINE, {"readiness_probe": GONE, "liveness_probe": GONE}),
    (ONLINE, {"readiness_probe/success_threshold": 3}),
    (POD, {"scale_settings": {"type": "default"}, "instance_count": 2}),
    (POD, {"instance_type": GONE, "resources/limits": {"nvidia.com/gpu": "1"}}),
    (POD, {"request_settings": {"request_timeout_ms": 300000}}),
    (BATCH, {"compute": "cluster"}),
    (BATCH, {"compute": "azureml:of-the-workspace"}),
    (BATCH, {"compute": f"azureml:{_WORKSPACE}/computes/cluster"}),
    (BATCH, {"compute": GONE, "endpoint_name": GONE}),
    (BATCH, {"code_configuration": GONE, "environment": GONE}),
    (BATCH, {"settings/retry_settings": GONE, "settings/logging_level": "debug"}),
    (LEGACY, {"mini_batch_size": 5, "retry_settings": {"max_retries": 3, "timeout": 30}}),
    (
        LEGACY,
        {
            "type": "model",
            "settings": {"mini_batch_size": 1},
            **dict.fromkeys(("mini_batch_size", "output_action", "error_threshold"), GONE),
        },
    ),
    (STEPS, {"settings/default_compute": "cluster"}),
    (STEPS, {"component": "azureml:embed_table@latest"}),
    (STEPS, {"component": "azureml://registries/azureml/components/a/versions/1"}),
    # Assets.
    ("model", {"type": "custom_model", "path": "tables"}),
    ("model", {"path": "azureml://datastores/workspaceblobstore/paths/clip"}),
    ("model", {"path": "azureml://jobs/one/outputs/artifacts/paths/model"}),
    ("data", {"path": "https://example.com/images.csv", "type": "uri_file"}),
    ("environment", {"image": "docker.io/library/python:3.11-slim", "conda_file": GONE}),
    ("environment", {"image": "mcr.microsoft.com/azureml/curated/acpt-pytorch-2.8-cuda12.6:1"}),
    ("environment", {"image": "mcr.microsoft.com/azureml/openmpi5.0-cuda12.6-ubuntu24.04"}),
    *(
        ("environment", {"image": f"mcr.microsoft.com/azureml/{name}:latest"})
        for name in (  # those that Microsoft's documentation, catalog and examples name
            "base",
            "inference-base-2204",
            "inference-base-cuda12.4-ubuntu22.04",
            "minimal-ubuntu22.04-py39-cpu-inference",
            "minimal-ubuntu22.04-py39-cuda11.8-gpu-inference",
            "mlflow-ubuntu20.04-py38-cpu-inference",
            "o16n-base/python-assets",
            "openmpi3.1.2-ubuntu18.04",
            "openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04",
            "openmpi5.0-cuda13.1-ubuntu24.04",
            "promptflow/promptflow-runtime",
        )
    ),
    ("environment", {"image": f"localhost:5000/mine@sha256:{'0' * 64}"}),
    ("environment", {"conda_file": {"dependencies": ["python=3.11", "pip"]}}),
    ("environment", {"build": {"path": "docker"}, "image": GONE, "conda_file": GONE}),
    # Components and pipelines.
    (PARALLEL, {"mini_batch_size": "10kb"}),
    (PARALLEL, {"mini_batch_size": "100MB"}),
    (PARALLEL, {"mini_batch_size": "20"}),
    (PARALLEL, {"logging_level": "DEBUG", "retry_settings/timeout": 259200}),
    (PARALLEL, {"task/environment": _CURATED}),
    (COMMAND, {"environment": _CURATED}),
    (COMMAND, {"inputs/note": {"type": "string", "optional": True}}),
    (COMMAND, {"command": "python -m torch.distributed.run cut.py"}),
    (COMMAND, {"inputs/rows/default": "500"}),
    (PIPELINE, {"jobs/cut/compute": "azureml:other", "jobs/cut/inputs/rows": "20"}),
    (PIPELINE, {"jobs/cut/component": "azureml:prepare@latest"}),
    (PIPELINE, {"jobs/cut/component": "file:./commandComponent.yml"}),
    (PIPELINE, {"jobs/cut/component": DOCUMENTS[COMMAND]}),
    (PIPELINE, {"jobs/tell": {"command": "echo", "environment": _CURATED}}),
    (PIPELINE_JOB, {"settings/default_compute": "azureml:serverless"}),
    (PIPELINE_JOB, {"settings/force_rerun": True}),
    (PIPELINE_JOB, {"settings": GONE, "compute": "azureml:cluster"}),
    (PIPELINE_JOB, {"jobs/tell/resources": {"instance_count": 2}}),
    (PIPELINE_JOB, {"jobs/tell/inputs/lines": "${{ parent.jobs.embed.outputs.lines }}"}),
    (PIPELINE_JOB, {"inputs/table/path": "azureml:tables@latest"}),
    (PIPELINE_JOB, {"inputs/table/path": "wasbs://c@a.blob.core.windows.net/one.csv"}),
    # Jobs.
    (JOB, {"type": "command", "compute": "cluster"}),
    (JOB, {"compute": f"{_WORKSPACE}/computes/cluster"}),
    (JOB, {"compute": GONE, "resources/instance_type": "Standard_NC40ads_H100_v5"}),
    (JOB, {"environment": _CURATED, "queue_settings": {"job_tier": "spot"}}),
    (JOB, {"environment": {"image": "library/python:latest"}, "identity": {"type": "managed"}}),
    (JOB, {"environment_variables": {"SCORE_CARD": "a", "HF_HOME": "/tmp"}}),
    (JOB, {"experiment_name": "images", "services": {"lab": {"type": "jupyter_lab"}}}),
    # Spark.
    (SPARK_JOB, _DYNAMIC),
    (SPARK, _DYNAMIC),
    (SPARK, {"conf": {"executor_cores": 2, "driver_cores": 1, "executor_instances": 2}}),
    (SPARK, {"conf/spark.sql.shuffle.partitions": 200, "conf/spark.yarn.maxAppAttempts": 1}),
    (SPARK, {"conf/spark.executor.memoryOverhead": "12g", "conf/spark.task.cpus": 4}),
    (SPARK, {"conf": GONE}),
    *((kind, {f"conf/{name}": value}) for kind in (SPARK, SPARK_JOB) for name, value in _CONF),
    (SPARK_JOB, {"resources": GONE, "compute": "pool"}),
    (SPARK_JOB, {"py_files": ["utils.zip"], "identity": {"type": "user_identity"}}),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    parse_once(monkeypatch)
    build(tmp_path)
    return tmp_path


def _id(entry: tuple[str, Mapping[str, Any]]) -> str:
    return f"{entry[0]}-{'+'.join(f'{k}={v}' for k, v in entry[1].items())}"[:90]


@pytest.mark.parametrize("entry", ACCEPTED, ids=_id)
def test_what_azure_takes_is_taken(folder: Path, entry: tuple[str, Mapping[str, Any]]) -> None:
    kind, changes = entry
    write(folder, kind, changed(kind, dict(changes)))
    assert checked(folder, kind).problems == []


def test_what_is_accepted_is_much() -> None:
    assert len(ACCEPTED) >= 60 + len(DOCUMENTS)


@pytest.mark.slow
def test_the_folder_as_it_is_has_nothing_to_note(folder: Path) -> None:
    found = findings([folder])
    assert (found.problems, found.notes) == ([], [])


@pytest.mark.parametrize("kind", sorted(set(DOCUMENTS) - {PODS, NIGHTLY, "data", "environment"}))
def test_without_schema_a_document_is_what_its_fields_say(folder: Path, kind: str) -> None:
    bare = folder / "bare"
    bare.mkdir()
    (bare / "one.yml").write_text(yaml.safe_dump(DOCUMENTS[kind]))
    (bare / "code").symlink_to(folder / "code")
    for name in ("mlflow", "tables"):
        (bare / name).symlink_to(folder / name)
    for component in (COMMAND, PARALLEL, PIPELINE, "behind"):
        (bare / f"{component}.yml").symlink_to(folder / f"{component}.yml")
    assert findings([bare / "one.yml"], [folder]).problems == []
    wrong = {**DOCUMENTS[kind], "name": "§"}
    (bare / "one.yml").write_text(yaml.safe_dump(wrong))
    if kind not in (JOB, PIPELINE_JOB, SPARK_JOB):  # whose names Azure does not look at here
        assert any("name" in problem for problem in check([bare / "one.yml"], [folder]))


# -- entry scripts ---------------------------------------------------------------------------------

SCRIPTS = [
    "from lib import init, predict as run\n",
    "def init(): ...\ndef predict(data): ...\nrun = predict\n",
    "def init(): ...\nrun = lambda data: data\n",
    "from lib import *\n",
    "import lib\ninit, run = lib.init, lib.run\n",
    "def init(): ...\nasync def run(data): ...\n",
    "def init(): ...\ndef run(data, how='fast'): ...\n",
    "def init(): ...\ndef run(*data): ...\n",
    "def init(how=None): ...\ndef run(data): ...\n",
    "def init(): ...\n@input_schema('a', 1)\n@input_schema('b', 2)\ndef run(a, b): ...\n",
    "try:\n    from lib import init, run\nexcept ImportError:\n    init = run = print\n",
    "if True:\n    def init(): ...\n    def run(data): ...\n",
    "class Run:\n    def __call__(self, data): ...\nrun = Run()\ndef init(): ...\n",
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_functions_may_come_by_any_way(folder: Path, script: str) -> None:
    (folder / "code/online.py").write_text(script)
    assert checked(folder, ONLINE).problems == []


def test_the_batch_runner_may_give_the_mini_batchs_context(folder: Path) -> None:
    (folder / "code/batch.py").write_text("def run(mini_batch, context): ...\n")
    assert checked(folder, PARALLEL).problems == []


# -- packages --------------------------------------------------------------------------------------

PACKAGES = [
    ["torch==2.13.0", "torch>=2.6"],
    ["torch==2.13.0", "torch==2.13"],
    ["torch==2.13.*", "torch!=2.13.1"],
    ["--extra-index-url https://download.pytorch.org/whl/cpu", "torch==2.13.0+cpu"],
    ["torch @ https://example.com/torch-2.13.0+cpu-py3-none-any.whl"],
    ["numpy==1.26 ; python_version < '3.12'", "numpy==2.1 ; python_version >= '3.12'"],
    ["git+https://github.com/openai/CLIP.git", "./wheels/mine.whl", "# a remark"],
    ["azureml-dataset-runtime[fuse]>=1.60  # of batch"],
]


@pytest.mark.parametrize("lines", PACKAGES)
def test_packages_may_be_asked_for_by_any_way(folder: Path, lines: list[str]) -> None:
    conda = {"dependencies": ["python=3.11", "pip", {"pip": ["azureml-core", *lines]}]}
    write(folder, "environment", changed("environment", {"conda_file": conda}))
    assert checked(folder, "environment").problems == []


# -- what is noted and not refused -----------------------------------------------------------------

NOTES = [
    (ONLINE, {"environment": "azureml:of-the-workspace:1"}, "it must be in the workspace"),
    ("modelBatchDeployment", {"model": GONE}, "model: is not here"),
    (ONLINE, {"endpoint_name": GONE}, "endpoint_name: is not here: give it on the command line"),
    (ONLINE, {"instance_count": GONE}, "instance_count: is not here"),
    (ONLINE, {"instance_count": 60}, "50 instances, and more on request"),
    (ONLINE, {"environment_variables/WORKER_COUNT": GONE}, "they should be equal"),
    (BATCH, {"compute": GONE}, "compute: is not here: give it on the command line"),
    (COMMAND, {"inputs/note": {"type": "string"}}, "inputs.note: nothing uses it"),
    (SPARK, {"conf/spark.executor.instances": GONE}, "spark.executor.instances: is missing"),
]


@pytest.mark.parametrize(("kind", "changes", "said"), NOTES)
def test_what_only_a_workspace_shows_is_noted(
    folder: Path, kind: str, changes: dict[str, Any], said: str
) -> None:
    write(folder, kind, changed(kind, changes))
    found = checked(folder, kind)
    assert found.problems == []
    assert any(said in note for note in found.notes), found.notes


# -- what is nothing of Azure's --------------------------------------------------------------------

_SCHEMAS = "https://azuremlschemas.azureedge.net/latest"
FOREIGN = {
    "docker-compose.yml": "services:\n  web:\n    image: nginx\n    command: serve\n"
    "    environment: {A: b}\n",
    "workflow.yml": "name: ci\non: [push]\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n"
    "      - run: az ml job create\n        env: {A: '${{ secrets.A }}'}\n",
    "kubernetes.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {}\n",
    "several.yaml": "apiVersion: v1\nkind: Service\n---\napiVersion: v1\nkind: Pod\n",
    "several-azureml.yaml": "name: azureml\n---\nname: azureml-2\n",
    "helm.yaml": '{{- if .Values.on }}\nkind: Pod\n{{ include "x" . | indent 2 }}\n{{- end }}\n',
    "helm-azureml.yaml": "image: {{ .Values.azureml }}\n",
    "jinja.yml": "{% for one in all %}\n- azureml: {{ one }}\n{% endfor %}\n",
    "list.yml": "- hosts: all\n  tasks: []\n",
    "text.yml": "just words\n",
    "empty.yml": "",
    "null.yml": "~\n",
    "number.yml": "1.5\n",
    "gitlab.yml": "image: python:3.11\nstages: [test]\ntest:\n  script: [make]\n",
    "pre-commit.yaml": "repos:\n  - repo: local\n    hooks: []\n",
    "mkdocs.yml": "site_name: x\nmarkdown_extensions:\n  - x: !!python/name:y.z\n",
    "openapi.yaml": "openapi: 3.0.0\ninfo: {title: x, version: '1'}\npaths: {}\n",
    "cloudformation.yml": "Resources:\n  A: {Type: AWS, Value: !Ref B}\n",
    "conda.yaml": "name: x\nchannels: [conda-forge]\ndependencies: [python]\n",
    "cff.yml": "cff-version: 1.2.0\ntype: software\ntitle: x\n",
    "pipelines.yml": "trigger: [main]\npool: {vmImage: ubuntu-latest}\nsteps: [{script: make}]\n",
    "ansible.yml": "type: command\nname: x\ncommand: [a, b]\n",
    "schema.yml": "$schema: https://json.schemastore.org/package\ntype: command\ncommand: a\n",
    "workspace.yml": f"$schema: {_SCHEMAS}/workspace.schema.json\nname: w\n",
    "flow.yml": f"$schema: {_SCHEMAS}/prompt.schema.json\nname: w\n",
    "broken.yml": "a: [b\n",
    "date.yml": "a: 2026-99-99\n",
    "itself.yml": "&a [*a]\n",
    "keys.yml": "? [a, b]\n: c\n",
    "deep.yml": "[" * 5000,
    "octal.yml": "1: 2\ntrue: 3\nnull: 4\n",
}


def test_the_templates_of_render_are_passed_over() -> None:
    good = ROOT / "components/online/endpoint.yml"
    assert check([good, ROOT / "score/deploy/templates"]) == []


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_yaml_is_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FOREIGN[name])
    with pytest.raises(AzureError, match="no YAML for Azure in"):
        check([tmp_path])


def test_foreign_bytes_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "one.yml").write_bytes(b"\xff\xfe\x00\xd8 not text")
    (tmp_path / "two.yml").mkdir()
    (tmp_path / "three.yml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(AzureError, match="no YAML for Azure in"):
        check([tmp_path])


# -- no crash --------------------------------------------------------------------------------------

ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    "",
    "${{",
    "a" * 300,
    [],
    {},
    [[]],
    [1],
    {"a": 1},
    {1: 2},
    "azureml:",
]


def _odd(content: Any, chance: random.Random) -> Any:
    """A value with one part of it replaced by something odd."""
    if isinstance(content, dict) and content and chance.random() < 0.85:
        key = chance.choice(list(content))
        return {**content, key: _odd(content[key], chance)}
    if isinstance(content, list) and content and chance.random() < 0.85:
        return [_odd(content[0], chance), *content[1:]]
    return chance.choice(ODD)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_no_value_anywhere_ends_the_check(folder: Path, kind: str) -> None:
    chance = random.Random(kind)
    for _ in range(6):
        content = _odd(_odd(DOCUMENTS[kind], chance), chance)
        if isinstance(content, dict):
            write(folder, kind, content)
            checked(folder, kind)


def _with(content: Any, odd: object) -> Iterator[Any]:
    """The value, each time with another part of it replaced by `odd`."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in pairs:
        inner = [odd, *(_with(value, odd) if isinstance(value, (dict, list)) else ())]
        for other in inner:
            copied = content.copy()
            copied[key] = other
            yield copied


LONG = "a" * 5000  # no file system has such a name
_LISTS = ("py_files", "jars", "files", "archives", "additional_includes")


@pytest.mark.slow
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_long_text_in_any_field_does_not_end_the_check(folder: Path, kind: str) -> None:
    documents = [*_with(DOCUMENTS[kind], LONG)]
    documents += [{**DOCUMENTS[kind], name: [LONG]} for name in _LISTS]
    every = folder / "every"
    every.mkdir()
    for number, content in enumerate(documents):
        write(every, kind, content)
        (every / f"{kind}.yml").rename(every / f"{number}.yml")
    assert len({problem.partition(":")[0] for problem in check([every], [folder])}) > len(_LISTS)
