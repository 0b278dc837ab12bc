"""Each of many mistakes, one field at a time, is refused with a sentence that names the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.azure_workspace import GONE, build, changed, checked, parse_once, write

ENDPOINT, PODS, NIGHTLY = "managedOnlineEndpoint", "kubernetesOnlineEndpoint", "batchEndpoint"
ONLINE, POD, BATCH = "managedOnlineDeployment", "kubernetesOnlineDeployment", "modelBatchDeployment"
LEGACY, STEPS = "batchDeployment", "pipelineComponentBatchDeployment"
COMMAND, PARALLEL, PIPELINE = "commandComponent", "parallelComponent", "pipelineComponent"
SPARK, JOB, PIPELINE_JOB, SPARK_JOB = "sparkComponent", "commandJob", "pipelineJob", "sparkJob"
CLUSTER, DESK = "amlCompute", "computeInstance"
_SECRET = "${{{{keyvault:https://ours.vault.azure.net/secrets/{}}}}}"
_DYNAMIC = "conf/spark.dynamicAllocation."

# Kind, field, value, and what the sentence must say.
REFUSED: list[tuple[str, str, Any, str]] = [
    # Endpoints: who may ask, and shares of the traffic.
    (ENDPOINT, "auth_mode", "password", "auth_mode"),
    (ENDPOINT, "name", "ab", "name: 'ab' must be 3 to 32"),
    (ENDPOINT, "name", "a" * 33, "must be 3 to 32"),
    (ENDPOINT, "name", "9images", "a letter first"),
    (ENDPOINT, "name", "my_images", "must be 3 to 32"),
    (ENDPOINT, "name", "my--images", "single dashes"),
    (ENDPOINT, "name", "images-", "single dashes"),
    (ENDPOINT, "traffic", {"blue": 90}, "traffic: 90 in total"),
    (ENDPOINT, "traffic", {"blue": 60, "green": 60}, "traffic"),
    (ENDPOINT, "traffic", {"blue": -100}, "traffic.blue: -100 is less than 0"),
    (ENDPOINT, "traffic", {"blue": 101}, "traffic"),
    (ENDPOINT, "traffic", {"bleu": 100}, "no deployment 'bleu'; did you mean blue?"),
    (ENDPOINT, "mirror_traffic", {"blue": 51}, "mirror_traffic.blue: 51 is too much"),
    (ENDPOINT, "mirror_traffic", {"blue": 10, "pod": 10}, "one deployment may get a copy"),
    (ENDPOINT, "mirror_traffic", {"blue": 10}, "one or the other"),
    (ENDPOINT, "mirror_traffic", {"green": 10}, "no deployment 'green'"),
    (ENDPOINT, "identity", {"type": "user_assigned"}, "identity.user_assigned_identities"),
    (ENDPOINT, "public_network_access", "maybe", "public_network_access"),
    (ENDPOINT, "compute", "azureml:cluster", "is no Kubernetes"),
    (PODS, "mirror_traffic", {"pod": 10}, "Kubernetes endpoints do not mirror"),
    (NIGHTLY, "auth_mode", "key", "auth_mode: must be one of aad_token, not 'key'"),
    (NIGHTLY, "defaults/deployment_name", "modle", "did you mean model?"),
    (NIGHTLY, "name", "nightly runs", "must be 3 to 32"),
    # Real-time deployments: instances, probes, requests, scaling.
    (ONLINE, "name", "b", "name: 'b' must be 3 to 32"),
    (ONLINE, "endpoint_name", "iamges", "did you mean 'images'?"),
    (ONLINE, "endpoint_name", "nightly", "is a batch endpoint"),
    (ONLINE, "instance_count", 0, "instance_count: 0 is less than 1"),
    (ONLINE, "instance_count", -2, "instance_count: -2 is less than 1"),
    (ONLINE, "instance_count", 1.5, "instance_count: 1.5 is not a whole number"),
    (ONLINE, "instance_count", "three", "instance_count"),
    (ONLINE, "instance_type", "Standard_D4as_v44", "did you mean Standard_D4as_v4?"),
    (ONLINE, "instance_type", "Standard_DS3v2", "did you mean Standard_DS3_v2?"),
    (ONLINE, "instance_type", "Standard_NC24ads_A10_v4", "Standard_NC24ads_A10_v4"),
    (ONLINE, "instance_type", "Standard_NC25ads_A100_v4", "Standard_NC25ads_A100_v4"),
    (ONLINE, "instance_type", "large", "Azure has no size 'large'"),
    (ONLINE, "instance_type", "Standard_NC6s_v3", "Azure retired Standard_NC6s_v3"),
    (ONLINE, "instance_type", "Standard_F4s_v4", "Azure has no size 'Standard_F4s_v4'"),
    *(
        (ONLINE, "instance_type", size, f"instance_type: Azure retired {size} on {date}")
        for size, date in (
            ("Standard_NC6", "2023-08-31"),
            ("Standard_NC6_Promo", "2023-08-31"),
            ("standard_nc6s_v2", "2023-08-31"),
            ("Standard_ND6s", "2023-08-31"),
            ("Standard_NV6", "2023-09-06"),
            ("Standard_NV12s_v3", "2026-09-30"),
            ("Standard_NV4as_v4", "2026-09-30"),
            ("Standard_A2", "2024-08-31"),
            ("Standard_HB60rs", "2024-08-31"),
            ("Standard_DC4as_cc_v5", "2026-09-01"),
        )
    ),
    (ONLINE, "instance_type", GONE, "instance_type"),
    (ONLINE, "instance_type", "Standard_NC4as_T4_v3", "PyTorch is built for CPUs alone"),
    (ONLINE, "instance_type", "Standard_NC40ads_H100_v5", "PyTorch is built for CPUs alone"),
    (ONLINE, "environment_variables/SCORE_DEVICE", "cuda", "has no GPU, and SCORE_DEVICE is cuda"),
    (ONLINE, "environment_variables/SCORE_DEVISE", "cpu", "did you mean SCORE_DEVICE?"),
    (ONLINE, "environment_variables/SCORE_BATCHSIZE", "8", "did you mean SCORE_BATCH_SIZE?"),
    (ONLINE, "environment_variables/SCORE_BATCH_SIZE", "-1", "environment_variables"),
    (ONLINE, "environment_variables/WORKER_COUNT", "0", "is no number of processes"),
    (ONLINE, "environment_variables/WORKER_COUNT", "4", "2 at once, and WORKER_COUNT: 4"),
    (ONLINE, "environment_variables/WORKER_COUNT", "1", "2 at once, and WORKER_COUNT: 1"),
    (ONLINE, "environment_variables/SCORE_REQUEST_DEADLINE", "91", "SCORE_REQUEST_DEADLINE: 91 s"),
    (ONLINE, "request_settings/request_timeout_ms", 59999, "SCORE_REQUEST_DEADLINE: 60 s"),
    (ONLINE, "request_settings/request_timeout_ms", GONE, "ends it after 5 s"),
    (ONLINE, "request_settings/request_timeout_ms", 180001, "180000 is the most"),
    (ONLINE, "request_settings/request_timeout_ms", 0, "request_timeout_ms: 0 is less than 1"),
    (ONLINE, "request_settings/max_concurrent_requests_per_instance", 0, "0 is less than 1"),
    (ONLINE, "request_settings/max_concurrent_requests_per_instance", 8, "8 at once"),
    (ONLINE, "request_settings/max_queue_wait_ms", -1, "max_queue_wait_ms: -1 is less than 0"),
    (ONLINE, "readiness_probe/initial_delay", 0, "readiness_probe.initial_delay: 0"),
    (ONLINE, "readiness_probe/period", 0, "readiness_probe.period: 0"),
    (ONLINE, "readiness_probe/timeout", 0, "readiness_probe.timeout: 0"),
    (ONLINE, "readiness_probe/success_threshold", 0, "readiness_probe.success_threshold: 0"),
    (ONLINE, "readiness_probe/failure_threshold", 0, "readiness_probe.failure_threshold: 0"),
    (ONLINE, "liveness_probe/success_threshold", 2, "liveness_probe.success_threshold: 2"),
    (ONLINE, "liveness_probe/failure_threshold", 0, "liveness_probe.failure_threshold: 0"),
    (ONLINE, "liveness_probe/timeouts", 3, "timeouts"),
    (ONLINE, "scale_settings", {"type": "target_utilization"}, "scale_settings.type"),
    (ONLINE, "egress_public_network_access", "off", "egress_public_network_access"),
    (ONLINE, "app_insights_enabled", "perhaps", "app_insights_enabled"),
    (ONLINE, "data_collector", {"sampling_rate": 2.0, "collections": {}}, "sampling_rate"),
    (ONLINE, "data_collector", {"rolling_rate": "Weekly", "collections": {}}, "rolling_rate"),
    (ONLINE, "environment", "azureml:servng@latest", "did you mean 'serving'?"),
    (ONLINE, "environment", "azureml:batching@latest", "environment: it is of the wrong kind"),
    (ONLINE, "environment", "serving", "is not azureml:NAME@latest"),
    (ONLINE, "environment", "azureml://registries/azureml/models/a/versions/1", "one of models"),
    (ONLINE, "model", "azureml:embedder", "is not azureml:NAME@latest"),
    (ONLINE, "model", {"name": "x", "path": "tables", "type": "mlflow_model"}, "no MLmodel in"),
    (ONLINE, "code_configuration/code", "cod", "there is no folder cod"),
    (ONLINE, "code_configuration/scoring_script", "onlin.py", "onlin.py: there is no such script"),
    (ONLINE, "code_configuration/scoring_script", "cut.py", "it has no function init()"),
    (ONLINE, "environment_variables/KEY", _SECRET.format("key"), "(the version is needed)"),
    (ONLINE, "environment_variables/SCORE_PROXY", _SECRET.format(""), "(the version is needed)"),
    # On Kubernetes.
    (POD, "scale_settings/target_utilization_percentage", 101, "101 is too much: 100"),
    (POD, "scale_settings/min_instances", 5, "scale_settings.min_instances: 5 is more than"),
    (POD, "scale_settings/max_instances", 0, "scale_settings.max_instances: 0"),
    (POD, "request_settings", {"request_timeout_ms": 300001}, "300000 is the most"),
    (POD, "resources/requests/cpus", "1", "cpus"),
    # Batch deployments.
    (BATCH, "compute", "my cluster", "compute"),
    (BATCH, "compute", "azureml:clustre", "did you mean 'cluster'?"),
    (BATCH, "environment", "azureml:serving@latest", "it is of the wrong kind"),
    (BATCH, "resources/instance_count", 0, "resources.instance_count: 0"),
    (BATCH, "settings/mini_batch_size", 0, "settings.mini_batch_size: 0"),
    (BATCH, "settings/mini_batch_size", "10kb", "settings.mini_batch_size"),
    (BATCH, "settings/max_concurrency_per_instance", 0, "max_concurrency_per_instance: 0"),
    (BATCH, "settings/error_threshold", -2, "settings.error_threshold: -2"),
    (BATCH, "settings/retry_settings/max_retries", -1, "max_retries: -1"),
    (BATCH, "settings/retry_settings/timeout", 0, "settings.retry_settings.timeout: 0"),
    (BATCH, "settings/retry_settings/timeout", 259201, "259201 is too much"),
    (BATCH, "settings/output_action", "append", "output_action"),
    (BATCH, "settings/logging_level", "verbose", "logging_level"),
    (BATCH, "settings/environment_variables/SCORE_PRECISON", "fp32", "SCORE_PRECISION?"),
    (BATCH, "settings/environment_variables/SCORE_DEVICE", "cuda", "SCORE_DEVICE is cuda"),
    (LEGACY, "settings", {"mini_batch_size": 2}, "settings"),
    (LEGACY, "mini_batch_size", "2mb", "is not a number of files"),
    (LEGACY, "retry_settings", {"max_retry": 1}, "max_retry"),
    (STEPS, "component", "./nowhere.yml", "there is no ./nowhere.yml"),
    (STEPS, "settings/default_computes", "azureml:cluster", "settings.default_computes"),
    # Assets.
    (CLUSTER, "name", "c" * 33, "must be 3 to 32"),
    (CLUSTER, "name", "my_cluster", "letters, digits and dashes"),
    (CLUSTER, "size", "Standard_D4as_v55", "size"),
    (CLUSTER, "size", "Standard_NC6s_v3", "Azure retired"),
    (CLUSTER, "min_instances", 5, "min_instances: 5 is more than max_instances, 4"),
    (CLUSTER, "min_instances", -1, "min_instances: -1 is less than 0"),
    (CLUSTER, "max_instances", 0, "max_instances: 0 is less than 1"),
    (CLUSTER, "idle_time_before_scale_down", -1, "idle_time_before_scale_down: -1"),
    (CLUSTER, "tier", "cheap", "tier"),
    (DESK, "name", "d" * 25, "must be 3 to 24"),
    ("model", "path", "tables", "there is no MLmodel in tables"),
    ("model", "path", "nowhere", "there is no nowhere"),
    ("model", "type", "onnx_model", "type"),
    ("model", "name", "my model", "name: 'my model'"),
    ("data", "path", "nowhere", "there is no nowhere"),
    ("environment", "image", "Python:3.11", "is no reference to an image"),
    ("environment", "image", "python:3.11 slim", "is no reference to an image"),
    ("environment", "image", "https://mcr.microsoft.com/azureml/base", "no reference"),
    ("environment", "image", "python@sha256:abc", "is no reference to an image"),
    ("environment", "image", "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.10", "no image"),
    ("environment", "image", "mcr.microsoft.com/azureml/opnmpi4.1.0-ubuntu22.04", "no image"),
    ("environment", "image", "mcr.microsoft.com/azureml/openmpi4.2.0-ubuntu22.04", "no image"),
    ("environment", "image", GONE, "image"),
    ("environment", "conda_file", "conda.yml", "there is no conda.yml"),
    ("environment", "inference_config", {"scoring_route": {"port": 0, "path": "/a"}}, "port: 0"),
    ("environment", "inference_config", {"scoring_route": {"port": 80, "path": "a"}}, "slash"),
    # Components.
    (COMMAND, "name", "Prepare-Table", "lower"),
    (COMMAND, "command", "python cut.py ${{inputs.tabel}}", "leads nowhere"),
    (COMMAND, "command", "python cut.py {{inputs.table}}", "lacks its dollar sign"),
    (COMMAND, "inputs/rows/default", "many", "'many'"),
    (COMMAND, "inputs/rows/default", 0, "inputs.rows.default: 0 is less than 1"),
    (COMMAND, "inputs/rows/default", 100001, "100001 is more than 100000"),
    (COMMAND, "inputs/way/default", "quick", "must be one of fast, slow, not 'quick'"),
    (COMMAND, "inputs/table/typ", "uri_file", "inputs.table.typ: unknown field"),
    (COMMAND, "inputs/home", {"type": "string"}, "Azure reserves this name"),
    (COMMAND, "environment", GONE, "environment"),
    (COMMAND, "resources/instance_count", 0, "resources.instance_count: 0"),
    (PARALLEL, "mini_batch_size", "0", "mini_batch_size: '0'"),
    (PARALLEL, "mini_batch_size", "10 files", "mini_batch_size"),
    (PARALLEL, "mini_batch_error_threshold", -2, "mini_batch_error_threshold: -2"),
    (PARALLEL, "max_concurrency_per_instance", 0, "max_concurrency_per_instance: 0"),
    (PARALLEL, "logging_level", "ERROR", "logging_level: must be one of"),
    (PARALLEL, "retry_settings/timeout", 0, "retry_settings.timeout: 0"),
    (PARALLEL, "retry_settings/max_retries", -1, "max_retries: -1"),
    (PARALLEL, "task/type", "run_script", "task"),
    (PARALLEL, "task/entry_script", "job.py", "it has no function run()"),
    (PARALLEL, "task/environment", "azureml:serving@latest", "task.environment"),
    (PARALLEL, "input_data", "${{inputs.shard}}", "leads nowhere"),
    # Pipelines.
    (PIPELINE, "jobs/cut/component", "./nowhere.yml", "there is no ./nowhere.yml"),
    (PIPELINE, "jobs/cut/inputs/table", GONE, "jobs.cut.inputs.table: is missing"),
    (PIPELINE, "jobs/cut/inputs/tables", 1, "its component has none of that name"),
    (PIPELINE, "jobs/cut/inputs/rows", "all", "'all' is no integer"),
    (PIPELINE, "jobs/cut/inputs/rows", 0, "jobs.cut.inputs.rows: 0 is less than 1"),
    (PIPELINE, "jobs/cut/inputs/way", "quick", "must be one of fast, slow, not 'quick'"),
    (PIPELINE, "jobs/cut/inputs/table", "${{parent.inputs.model}}", "is a mlflow_model"),
    (PIPELINE, "jobs/cut/type", "parallel", "its component is a command"),
    (PIPELINE, "jobs/cut/comput", "azureml:c", "jobs.cut.comput: unknown field"),
    (PIPELINE, "jobs/embed/inputs/shards", "${{parent.jobs.cut.outputs.shard}}", "leads nowhere"),
    (PIPELINE, "jobs/embed/outputs", GONE, "outputs.lines: no step writes it"),
    (
        PIPELINE,
        "jobs/embed/inputs/model",
        {"type": "mlflow_model", "path": "azureml:embeder@latest"},
        "jobs.embed.inputs.model.path: no model here is called 'embeder'; did you mean 'embedder'?",
    ),
    (PIPELINE_JOB, "inputs/model/path", "azureml:embeder@latest", "did you mean 'embedder'?"),
    (PIPELINE_JOB, "settings", GONE, "jobs.tell.compute: there is none"),
    (PIPELINE_JOB, "settings/default_compute", GONE, "jobs.embed.jobs.cut.compute: there is none"),
    (PIPELINE_JOB, "settings/default_compute", "cluster", "azure-ai-ml refuses it"),
    (PIPELINE_JOB, "settings/default_datestore", "azureml:a", "settings.default_datestore"),
    (PIPELINE_JOB, "inputs/table/path", "tables/two.csv", "there is no tables/two.csv"),
    (PIPELINE_JOB, "inputs/model/path", "tables", "there is no MLmodel in tables"),
    (PIPELINE_JOB, "jobs/tell/command", GONE, "jobs.tell"),
    (PIPELINE_JOB, "jobs/tell/environment", "azureml:batchng@latest", "did you mean 'batching'?"),
    (PIPELINE_JOB, "jobs/tell/resources", {"instance_count": 0}, "instance_count: 0"),
    (PIPELINE_JOB, "jobs/tell/inputs/lines", "${{parent.jobs.embd.outputs.lines}}", "nowhere"),
    # Jobs.
    (JOB, "command", "python cut.py ${{inputs.rows}}", "leads nowhere"),
    (JOB, "compte", "azureml:cluster", "compte"),
    (JOB, "compute", "azureml:clusters", "did you mean 'cluster'?"),
    (JOB, "inputs/table/path", "tabels", "there is no tabels"),
    (JOB, "limits/timeout", 0, "limits.timeout: 0 is less than 1"),
    (JOB, "resources/shm_size", "2 GB", "resources.shm_size"),
    (JOB, "resources/instance_count", 0, "resources.instance_count: 0"),
    (JOB, "distribution/process_count_per_instance", 0, "process_count_per_instance: 0"),
    (JOB, "environment", "azureml:batchin:3", "did you mean 'batching'?"),
    (JOB, "code", "cod", "cod"),
    # Spark.
    (SPARK, "conf/spark.executor.cores", 0, "conf.spark.executor.cores: 0"),
    (SPARK, "conf/spark.task.cpus", 8, "a task wants spark.task.cpus: 8"),
    (SPARK, "conf/spark.executor.memory", "lots", "is no amount of memory"),
    (SPARK, "conf/spark.executer.cores", 2, "did you mean spark.executor.cores?"),
    (SPARK, "conf/executor.cores", 2, "there is no such property"),
    (SPARK, f"{_DYNAMIC}enabled", "sometimes", "is neither true nor false"),
    (SPARK, f"{_DYNAMIC}minExecutor", 2, "did you mean spark.dynamicAllocation.minExecutors?"),
    (SPARK, "entry/file", "jobs.py", "there is no jobs.py"),
    (SPARK, "entry/files", "job.py", "entry"),
    (SPARK_JOB, "resources/runtime_version", "9.9", "must be one of 3.1"),
    (
        "pipelineComponentBatchDeployment",
        "settings/default_compute",
        GONE,
        "jobs.cut.compute: there",
    ),
    ("managedOnlineDeployment", "instance_type", "Standard_D4ads_v5", "endpoints do not have"),
    (
        "managedOnlineDeployment",
        "environment_variables/score_batch_size",
        "8",
        "in capitals: SCORE_BATCH_SIZE",
    ),
    (SPARK_JOB, "conf/spark.executor.instances", GONE, "spark.executor.instances: is missing"),
    (SPARK_JOB, f"{_DYNAMIC}enabled", True, "minExecutors: is missing"),
    (SPARK_JOB, "resources/instance_type", "Standard_D4as_v4", "must be one of standard_e4s_v3"),
    (SPARK_JOB, "conf/spark.executor.instances", 0, "spark.executor.instances: 0"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    parse_once(monkeypatch)
    build(tmp_path)
    return tmp_path


def _id(entry: tuple[str, str, Any, str]) -> str:
    kind, field, value, _ = entry
    return f"{kind}-{field}-{value}"


@pytest.mark.parametrize("entry", REFUSED, ids=_id)
def test_a_mistake_is_refused(folder: Path, entry: tuple[str, str, Any, str]) -> None:
    kind, field, value, said = entry
    write(folder, kind, changed(kind, {field: value}))
    problems = checked(folder, kind).problems
    assert any(said in problem and f"{kind}.yml: " in problem for problem in problems), problems


def test_the_mistakes_are_many() -> None:
    assert len({_id(entry) for entry in REFUSED}) == len(REFUSED) >= 60


SCRIPTS = [
    ("def init(settings): ...\ndef run(data): ...\n", "init(settings): Azure calls it with no"),
    ("def init(): ...\ndef run(): ...\n", "run(): Azure calls it with one argument"),
    ("def init(): ...\ndef run(data, how): ...\n", "run(data, how): Azure calls it with one"),
    ("def init(): ...\ndef run(*, data): ...\n", "run(*, data): Azure calls it with one"),
    ("def init(): ...\ndef predict(): ...\nrun = predict\n", "run(): Azure calls it with one"),
    ("def init(): ...\n", "it has no function run()"),
    ("def run(data): ...\n", "it has no function init()"),
    ("def init(:\n", "no Python"),
    ("\0", "no Python"),
]


@pytest.mark.parametrize(("script", "said"), SCRIPTS)
def test_an_entry_script_has_what_azure_calls(folder: Path, script: str, said: str) -> None:
    (folder / "code/online.py").write_text(script)
    problems = checked(folder, ONLINE).problems
    assert any(f"online.py: {said}" in problem for problem in problems), problems


PINS = [
    (["azureml-core", "torch==2.13.0", "torch==2.12.0"], "torch is pinned to 2.12.0 and 2.13.0"),
    (["azureml-core", "torch==2.13.0", "Torch<2.13"], "torch==2.13.0 contradicts"),
    (["azureml-core", "torch==2.13.0+cpu"], "torch==2.13.0+cpu is not at PyPI"),
    (["azureml-core", "torch=2.13.0"], "'torch=2.13.0' is no requirement"),
    (["azureml-core", "torch==two==three"], "is no requirement"),
    (["azureml-core", "-r more.txt"], "there is no more.txt"),
    (["numpy"], "it is of the wrong kind"),
]


@pytest.mark.parametrize(("lines", "said"), PINS)
def test_packages_that_cannot_be_had_are_told(folder: Path, lines: list[str], said: str) -> None:
    conda = {"dependencies": ["python=3.11", "pip", {"pip": lines}]}
    environment = {"image": "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"}
    write(folder, BATCH, changed(BATCH, {"environment": {**environment, "conda_file": conda}}))
    problems = checked(folder, BATCH).problems
    assert any(said in problem and "environment" in problem for problem in problems), problems


def test_condas_own_pins_may_contradict_each_other(folder: Path) -> None:
    (folder / "conda.yaml").write_text("dependencies: [python=3.11, python=3.12]\n")
    problems = checked(folder, "environment").problems
    assert any("conda.yaml: python is pinned to 3.11 and 3.12" in one for one in problems)


DOCKERFILES = [
    ("FROM Python:3.11\n", "FROM: 'Python:3.11' is no reference to an image"),
    ("FROM mcr.microsoft.com/azureml/openmpi4.1-ubuntu23.04\n", "Azure ML has no image"),
    ("FROM python:3.11\nCOPY nowhere.txt /tmp/\n", "COPY nowhere.txt: there is no such file"),
    ("FROM python:3.11\nCOPY requirements.txt /tmp/\n", "torch==2.13.0+cpu is not at PyPI"),
]


@pytest.mark.parametrize(("text", "said"), DOCKERFILES)
def test_a_dockerfile_is_read(folder: Path, text: str, said: str) -> None:
    (folder / "docker/Dockerfile").write_text(text)
    (folder / "docker/requirements.txt").write_text("torch==2.13.0+cpu\n")
    problems = checked(folder, "serving").problems
    assert any(said in problem for problem in problems), problems


def test_a_cluster_with_gpus_wants_another_environment(folder: Path) -> None:
    write(folder, CLUSTER, changed(CLUSTER, {"size": "Standard_NC4as_T4_v3"}))
    write(folder, BATCH, changed(BATCH, {"environment": "azureml:serving@latest"}))
    problems = checked(folder, BATCH).problems
    assert any("compute: Standard_NC4as_T4_v3 has GPUs" in problem for problem in problems)


def test_the_size_of_a_gpu_is_not_for_one_device_alone(folder: Path) -> None:
    gpu = {"instance_type": "Standard_NC4as_T4_v3", "environment_variables/SCORE_DEVICE": "cpu"}
    write(folder, ONLINE, changed(ONLINE, gpu))
    problems = checked(folder, ONLINE).problems
    assert any("SCORE_DEVICE: cpu uses none of them" in problem for problem in problems)


def test_a_model_of_ones_own_wants_a_script(folder: Path) -> None:
    custom = {"name": "embedder", "type": "custom_model", "path": "tables"}
    write(folder, "model", custom)
    bare = {"code_configuration": GONE, "environment": GONE}
    write(folder, ONLINE, changed(ONLINE, bare))
    problems = checked(folder, ONLINE).problems
    assert any("model: it is a custom_model" in problem for problem in problems), problems


def test_a_pods_name_and_its_endpoints_are_short_together(folder: Path) -> None:
    names = {"name": "n" * 31, "endpoint_name": "e" * 32}
    write(folder, POD, changed(POD, names))
    problems = checked(folder, POD).problems
    assert any("have 63 letters" in problem for problem in problems), problems


def test_a_file_that_repeats_itself_without_end_is_told(folder: Path) -> None:
    lines = ["$schema: azureml", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (folder / "laughs.yml").write_text("\n".join(lines))
    (problem,) = checked(folder, "laughs").problems
    assert "its aliases make more than" in problem
