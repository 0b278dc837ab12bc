"""The check of Azure's YAML passes what is checked in, and sees each of many planted mistakes."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path

import pytest
import yaml

from score.__main__ import _parser, main
from score.deploy.check import check, findings
from score.deploy.rules.environment_definition import EnvironmentDefinition
from score.deploy.skus import lookup
from score.errors import AzureError
from tests.support.azure_workspace import parse_once
from tests.support.surfaces import ROOT

FOLDERS = ("components", "environment", "samples/azure")

# File, what it says, what it says by mistake, and what the complaint must mention.
MISTAKES = [
    # Real-time deployments and endpoints.
    (
        "components/online/deployment-cpu.yml",
        "instance_count: 1",
        "instance_count: one",
        "instance",
    ),
    (
        "components/online/deployment-cpu.yml",
        "request_timeout_ms",
        "request_timeout",
        "request_tim",
    ),
    ("components/online/deployment-cpu.yml", "readiness_probe:", "readyness_probe:", "readyness_p"),
    ("components/online/deployment-cpu.yml", "failure_threshold: 60", "failures: 60", "failures"),
    ("components/online/deployment-cpu.yml", "initial_delay: 10", "initial_delay: soon", "initial"),
    ("components/online/deployment-cpu.yml", "_D4as_v4\n", "_D4as_v44\n", "Standard_D4as_v44"),
    ("components/online/deployment-cpu.yml", "score/online.py", "score/onlin.py", "onlin.py"),
    ("components/online/deployment-cpu.yml", "code: ../..", "code: ../../nowhere", "../../nowhere"),
    ("components/online/deployment-cpu.yml", "clip-cpu@latest", "clip-cpus@latest", "clip-cpus"),
    ("components/online/deployment-cpu.yml", "azureml:clip@latest", "azureml:klip@latest", "klip"),
    ("components/online/deployment-cpu.yml", "azureml:clip@latest", "azureml:clip", "@latest"),
    ("components/online/deployment-cpu.yml", "endpoint_name: clip", "endpoint_name: clap", "clap"),
    ("components/online/deployment-cpu.yml", "name: cpu", "name: [cpu", "no YAML"),
    ("components/online/deployment-gpu.yml", "OnlineDeployment", "OnlineDeploy", "$schema"),
    ("components/online/deployment-gpu.yml", "liveness_probe:", "livenessProbe:", "livenessProbe"),
    ("components/online/deployment-nocode.yml", "_D4as_v4", "_D4asv4", "did you mean"),
    ("components/online/endpoint.yml", "auth_mode: key", "auth_mode: keys", "auth_mode"),
    ("components/online/endpoint.yml", "name: clip", "nam: clip", "nam"),
    (
        "components/online/deployment-cpu.yml",
        "endpoint_name: clip",
        "endpoint_name: clip-batch",
        "clip-b",
    ),
    ("components/online/deployment-cpu.yml", "ms: 90000", "ms: 190000", "180000 is the most"),
    # Batch deployments and endpoints.
    ("components/batch/deployment-cpu.yml", "summary_only", "summary", "output_action"),
    (
        "components/batch/deployment-cpu.yml",
        "batch_size: 1 ",
        "batch_size: many ",
        "mini_batch_size",
    ),
    ("components/batch/deployment-cpu.yml", "max_retries: 3", "retries: 3", "retries"),
    (
        "components/batch/deployment-cpu.yml",
        "error_threshold: 0",
        "error_threshold: -2",
        "error_th",
    ),
    (
        "components/batch/deployment-cpu.yml",
        "max_concurrency_per",
        "concurrency_per",
        "concurrency",
    ),
    ("components/batch/deployment-cpu.yml", "settings:", "setting:", "setting"),
    ("components/batch/deployment-cpu.yml", "type: model", "type: modell", "modell"),
    ("components/batch/deployment-cpu.yml", "level: info", "level: loud", "logging_level"),
    ("components/batch/deployment-cpu.yml", "instance_count: 1", "instances: 1", "instances"),
    ("components/batch/deployment-cpu.yml", "score/shards.py", "score/errors.py", "init()"),
    ("components/batch/deployment-nocode.yml", "output_file_name", "output_file", "output_file"),
    ("components/batch/deployment-nocode.yml", "compute:", "computer:", "computer"),
    ("components/batch/endpoint.yml", "auth_mode:", "auth:", "auth"),
    # The model and the environments.
    ("components/model.yml", "type: mlflow_model", "type: mlflow", "type"),
    ("components/model.yml", "path: ..", "path: ../nowhere", "../nowhere"),
    ("components/model.yml", "tags:", "tag:", "tag"),
    ("environment/cpu.yml", "path: cpu", "path: cpus", "cpus"),
    ("environment/cpu.yml", "port: 5001, path: /score", "prt: 5001, path: /score", "scoring_route"),
    ("environment/cpu-batch.yml", "batch.conda.yaml", "bach.conda.yaml", "bach.conda.yaml"),
    ("environment/gpu-batch.yml", "image:", "img:", "img"),
    # The parallel component.
    ("components/pipeline/embed.yml", 'mini_batch_size: "1"', 'mini_batches: "1"', "mini_batch"),
    ("components/pipeline/embed.yml", "entry_script:", "entry_skript:", "entry_skript"),
    ("components/pipeline/embed.yml", "type: run_function", "type: run_funktion", "task"),
    ("components/pipeline/embed.yml", "score/shards.py", "score/shard.py", "shard.py"),
    ("components/pipeline/embed.yml", "inputs.model}}", "inputs.modell}}", "modell"),
    ("components/pipeline/embed.yml", "{{outputs.lines}}", "{{outputs.line}}", "outputs.line"),
    ("components/pipeline/embed.yml", "{{inputs.shards}}", "{{inputs.shard}}", "inputs.shard"),
    ("components/pipeline/embed.yml", "--model ${{inputs.model}} ", "", "inputs.model"),
    ("components/pipeline/embed.yml", "timeout: 3600", "time: 3600", "retry_settings.time"),
    ("components/pipeline/embed.yml", "max_retries: 3", "max_retries: lots", "retry_settings"),
    ("components/pipeline/embed.yml", "instance_count: 2", "nodes: 2", "resources.nodes"),
    (
        "components/pipeline/embed.yml",
        "clip-cpu-batch@latest",
        "clip-cpu-bach@latest",
        "clip-cpu-bach",
    ),
    # Pipelines and what they bind.
    ("components/pipeline/pipeline.yml", "./embed.yml", "./embd.yml", "embd.yml"),
    ("components/pipeline/pipeline.yml", "prepare.outputs.shards", "prepare.outputs.s", "nowhere"),
    ("components/pipeline/pipeline.yml", "jobs.embed.outputs", "jobs.embd.outputs", "nowhere"),
    ("components/pipeline/pipeline.yml", "parent.inputs.rows", "parent.input.rows", "nowhere"),
    (
        "components/pipeline/pipeline-indexed.yml",
        "table: ${{parent.inputs.table",
        "table: ${{parent.inputs.model",
        "uri_file is",
    ),
    (
        "components/pipeline/pipeline-indexed.yml",
        "      model: ${{parent.inputs.model}}\n",
        "",
        "missing",
    ),
    ("components/pipeline/pipeline.yml", "type: parallel", "type: command", "is a parallel"),
    ("components/pipeline/pipeline.yml", "      vectors:", "      vektors:", "vektors"),
    ("components/pipeline/deployment.yml", "./pipeline.yml", "./pipelin.yml", "pipelin.yml"),
    ("components/pipeline/deployment.yml", "default_compute:", "compute:", "compute"),
    (
        "components/pipeline/pipeline.yml",
        "    outputs:\n      table",
        "    outputz:\n      table",
        "outputz",
    ),
    (
        "components/pipeline/pipeline-indexed.yml",
        "      index: ${{parent.outputs.index}}",
        "",
        "index",
    ),
    # Command and Spark components.
    ("components/pipeline/prepare.yml", "{{inputs.rows}}", "{{inputs.row}}", "inputs.row"),
    ("components/pipeline/prepare.yml", "-m score", "-m skore", "skore"),
    ("components/pipeline/prepare.yml", "type: integer", "type: whole", "whole"),
    ("components/pipeline/merge.yml", "command: >-", "comand: >-", "command"),
    ("components/package.yml", "clip-package@latest", "clip-pakage@latest", "clip-pakage"),
    ("components/spark/embed.yml", "file: embed.py", "file: embd.py", "no embd.py"),
    ("components/spark/embed.yml", "{{inputs.table}}", "{{inputs.tabel}}", "inputs.tabel"),
    # Command lines.
    ("components/pipeline/prepare.yml", " split ", " splitt ", "score has no 'splitt'"),
    ("components/pipeline/prepare.yml", "--rows", "--row", "did you mean --rows?"),
    ("components/pipeline/embed.yml", "--output", "--outptu", "there is no --outptu"),
    ("components/pipeline/embed.yml", "overhead_timeout 600", "overhead_timeout 0", "0 is less"),
    ("components/spark/embed.yml", "--table", "--tabel", "there is no --tabel"),
    # Values that every schema takes.
    ("components/model.yml", "'Standard_DS2_v2', ", "'Standard_DS2_v9', ", "Standard_DS2_v9"),
    ("components/model.yml", "spec: 2|0|7|14", "spec: 2|0|7", "inference-min-sku-spec"),
    ("components/online/deployment-cpu.yml", "count: 1", "count: 0", "instance_count: 0 is less"),
    ("components/online/deployment-cpu.yml", 'WORKER_COUNT: "1"', "WORKER_COUNT: x", "WORKER_COUN"),
    (
        "components/online/deployment-cpu.yml",
        "SCORE_BATCH_SIZE",
        "SCORE_BACH_SIZE",
        "no such setting",
    ),
    (
        "components/online/deployment-cpu.yml",
        "DEVICE:",
        "PRECISION: fp23\n  SCORE_DEVICE:",
        "'fp23'",
    ),
    (
        "components/online/deployment-cpu.yml",
        "name: cpu",
        "name: my cpu!",
        "'my cpu!' must be",
    ),
    ("components/online/deployment-cpu.yml", "  timeout: 10", "  timeout: -5", "-5 is less than 1"),
    ("components/online/deployment-cpu.yml", "_D4as_v4\n", "_NC6s_v3\n", "Azure retired"),
    ("components/batch/deployment-cpu.yml", "mini_batch_size: 1", "mini_batch_size: -1", "is less"),
    (
        "components/batch/deployment-cpu.yml",
        "azureml:clip-d4as-v4\n",
        "azureml:clip_cpu\n",
        "compute",
    ),
    ("components/online/deployment-cpu.yml", "_D4as_v4\n", "_NC4as_T4_v3\n", "has GPUs"),
    ("components/online/deployment-gpu.yml", "clip-gpu@", "clip-cpu@", "built for CPUs alone"),
    ("components/online/deployment-nocode.yml", "_D4as_v4\n", "_NC4as_T4_v3\n", "for CPUs alone"),
    ("components/batch/deployment-cpu.yml", "clip-cpu-batch@", "clip-cpu@", "wrong kind"),
    ("components/spark/embed.yml", "task.cpus: 4", "task.cpus: 8", "a task wants"),
    ("components/online/deployment-cpu.yml", "ms: 90000", "ms: 50000", "REQUEST_DEADLINE: 60 s"),
    ("components/online/deployment-cpu.yml", "instance: 1\n", "instance: 4\n", "must be equal"),
    (
        "samples/azure/jobs/embed.yml",
        "default_compute: azureml:clip-d4as-v4",
        "{}",
        "compute: there is",
    ),
    ("components/pipeline/prepare.yml", "default: 1000", "default: 0.5", "0.5 is no integer"),
    (
        "components/spark/embed.yml",
        "spark.executor.instances: 2",
        "spark.executor.instances: two",
        "'two' is not a whole number",
    ),
    ("components/spark/embed.yml", "spark.executor.memory:", "spark.executor.memroy:", "memroy"),
    ("environment/cpu-batch.conda.yaml", "dependencies:", "dependancies:", "dependancies"),
    (
        "environment/cpu/Dockerfile",
        "COPY requirements.txt",
        "COPY requirement.txt",
        "requirement.t",
    ),
    (
        "samples/azure/jobs/embed.yml",
        "../../urls.csv",
        "../../url.csv",
        "there is no ../../url",
    ),
    ("samples/azure/jobs/embed.yml", "rows: 1000", "rows: many", "'many' is no integer"),
    ("components/model.yml", "path: ..", "path: ../samples", "there is no MLmodel in ../samples"),
]

# The YAML of which the complaint is, where the mistake is in a file that it names.
YML = {
    "environment/cpu-batch.conda.yaml": "environment/cpu-batch.yml",
    "environment/cpu/Dockerfile": "environment/cpu.yml",
}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the YAML refers to, to be changed."""
    parse_once(monkeypatch)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for file in ("MLmodel", "conda.yaml", "samples/urls.csv"):
        shutil.copyfile(ROOT / file, tmp_path / file)
    shutil.copytree(
        ROOT / "score", tmp_path / "score", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def problems(clone: Path) -> list[str]:
    return check([clone / folder for folder in FOLDERS])


@pytest.mark.slow
def test_what_is_checked_in_is_right(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = findings([clone / folder for folder in FOLDERS])
    assert (found.problems, found.notes) == ([], [])
    assert main(["azure", "check"]) == 0
    assert f"no problems in {found.files} files" in capsys.readouterr().err


@pytest.mark.parametrize(("file", "right", "wrong", "said"), MISTAKES)
def test_a_mistake_is_seen(clone: Path, file: str, right: str, wrong: str, said: str) -> None:
    text = (clone / file).read_text(encoding="utf-8")
    assert right in text
    (clone / file).write_text(text.replace(right, wrong), encoding="utf-8")
    yml = clone / YML.get(file, file)
    found = check([yml], [clone / folder for folder in FOLDERS])
    assert any(said in problem and yml.name in problem for problem in found), found


@pytest.mark.parametrize(
    ("image", "serves"),
    [
        ("mcr.microsoft.com/azureml/curated/minimal-py311-inference:latest", True),
        ("mcr.microsoft.com/azureml/minimal-ubuntu22.04-py310-cpu-inference", True),
        ("python:3.11-slim", False),
    ],
)
def test_azures_images_for_inference_have_its_server(
    image: str, serves: bool, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nRUN pip install numpy\n")
    packages = EnvironmentDefinition({"build": {"path": "."}}, tmp_path).packages()
    assert packages == {"numpy"} | ({"azureml-inference-server-http"} if serves else set())


def test_the_mistakes_are_many_and_each_another() -> None:
    assert len(MISTAKES) >= 40
    assert len({mistake[:3] for mistake in MISTAKES}) == len(MISTAKES)


def test_nothing_to_check_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()  # one that is missing is told apart
    assert main(["azure", "check", str(tmp_path / "empty")]) == 2
    assert "no YAML for Azure in" in capsys.readouterr().err


def test_ones_own_folder_may_go_by_the_clones_names(tmp_path: Path) -> None:
    command = ["azure", "render", "online", "--model", "openai-vit-b-32", "--code", str(ROOT)]
    file = tmp_path / "mine.yml"
    assert main([*command, "--sku", "Standard_D8as_v4", "--output", str(file)]) == 0
    assert main(["azure", "check", str(tmp_path)]) == 0
    assert main(["azure", "check", str(ROOT / "components/online")]) == 0
    file.write_text(file.read_text().replace("clip-cpu@latest", "clip-cpus@latest"))
    assert main(["azure", "check", str(tmp_path)]) == 1


def test_a_script_that_is_no_python_is_told(clone: Path) -> None:
    (clone / "score/online.py").write_text("def init(:\n")
    assert any("score/online.py: no Python" in problem for problem in problems(clone))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("description: made by {{ tool }}\n", "{{ tool }} makes it a template"),
        ("---\nname: other\n", "it holds several documents"),
    ],
)
def test_a_file_that_is_not_checked_is_told(
    clone: Path, capsys: pytest.CaptureFixture[str], more: str, said: str
) -> None:
    file = clone / "components/online/deployment-cpu.yml"
    text = file.read_text().replace("instance_count: 1", "instance_count: 0")
    for skipped in (False, True):
        file.write_text(text + more * skipped)
        assert main(["azure", "check", str(file.parent)]) == int(not skipped)
        told = capsys.readouterr().err
        assert (f"note: {file}: not checked: {said}" in told) == skipped
        count = len([*file.parent.glob("*.yml")]) - skipped
        assert f"{'no problems' if skipped else '1 problem'} in {count} files" in told


def test_a_template_in_a_comment_makes_no_template(clone: Path) -> None:
    file = clone / "components/online/deployment-cpu.yml"
    text = file.read_text().replace("instance_count: 1", "instance_count: 0  # {{ of a template }}")
    file.write_text("# {{ one more }}\n" + text)
    assert any("instance_count: 0" in problem for problem in problems(clone))


def test_assets_of_a_registry_are_left_to_it(clone: Path) -> None:
    file = clone / "components/online/deployment-cpu.yml"
    registry = "azureml://registries/azureml/models/clip/versions/1.0.0"
    file.write_text(file.read_text().replace("azureml:clip@latest", registry))
    assert problems(clone) == []


def test_the_command_line_says_what_is_wrong(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = clone / "components/model.yml"
    file.write_text(file.read_text().replace("path: ..", "path: ../nowhere"))
    assert main(["azure", "check", str(clone / "components"), str(clone / "environment")]) == 1
    said = capsys.readouterr()
    assert "model.yml: path: there is no ../nowhere" in said.out
    assert re.search(r"^1 problem in \d+ files$", said.err, re.MULTILINE)


COMMANDS = {
    file.name: content["command"].split(" && ")[0].split()
    for file in sorted((ROOT / "components").rglob("*.yml"))
    if "command" in (content := yaml.safe_load(file.read_text(encoding="utf-8")))
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_ones_that_this_project_has(name: str) -> None:
    words = COMMANDS[name]
    assert words[:3] == ["python", "-m", "score"]
    values = {"rows": "1000", "precision": "fp32", "column": "image_features"}
    arguments = [
        values.get(word.removeprefix("${{inputs.").removesuffix("}}"), word) for word in words[3:]
    ]
    _parser({words[3]: importlib.import_module(f"score.cli.{words[3]}")}).parse_args(arguments)


def test_what_is_missing_or_broken_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, broken = tmp_path / "missing", tmp_path / "broken.yml"
    broken.write_text(": [", encoding="utf-8")
    for path, said in ((missing, f"there is no {missing}"), (broken, f"{broken}: no YAML: ")):
        assert main(["azure", "check", str(path)]) != 0
        printed = capsys.readouterr()
        assert said in printed.out + printed.err


@pytest.mark.parametrize(
    ("name", "meant"),
    [("Standard_NC4as_T4v3", "Standard_NC4as_T4_v3"), ("Standard_Foo", ""), ("Standard_X9000", "")],
)
def test_a_size_is_not_taken_for_another_by_what_all_begin_with(name: str, meant: str) -> None:
    with pytest.raises(AzureError) as error:
        lookup(name)
    _, _, hint = str(error.value).partition("; did you mean ")
    assert hint == (f"{meant}?" if meant else "")
