"""What the environments install is what the model's own `conda.yaml` says, and a little more."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from pyarrow.parquet import read_table

from score.deploy.server_choice import AZURES, READY, SERVERS, VARIABLE
from score.deploy.server_choice import OURS as OURS_SERVER
from score.deploy.simulate import dockerfile as dockerfile_steps
from score.deploy.simulate.client import ask, ready
from score.deploy.simulate.dockerfile import Image, build, size, what_runs
from score.deploy.simulate.ports import free_port
from score.deploy.skus import skus
from score.errors import AzureError
from score.hardware import drivers
from tests.support.surfaces import ROOT

FOLDER = ROOT / "environment"


def pip(file: Path) -> set[str]:
    """The pip requirements of a conda file."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    (found,) = [part["pip"] for part in content["dependencies"] if isinstance(part, dict)]
    return set(found)


OURS = pip(ROOT / "conda.yaml")
PACKAGES = {item for item in OURS if not item.startswith("--")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SERVER = set(PROJECT["optional-dependencies"]["serve"])
# What AzureML-Containers' README lists as supported (github.com/Azure/AzureML-Containers), and the
# minimal image for inference with Python 3.11 of azureml-assets.
SUPPORTED = {
    "openmpi4.1.0-ubuntu22.04",
    "openmpi5.0-ubuntu24.04",
    "openmpi5.0-cuda12.4-ubuntu22.04",
    "openmpi5.0-cuda12.5-ubuntu22.04",
    "openmpi5.0-cuda12.6-ubuntu24.04",
    "openmpi5.0-cuda12.8-ubuntu24.04",
    "openmpi5.0-cuda13.1-ubuntu24.04",
    "curated/minimal-py311-inference",
}


def without_builds(names: set[str]) -> set[str]:
    """Requirements without the suffixes by which PyTorch tells its builds apart."""
    return {re.sub(r"\+(cpu|cu\d+)$", "", name) for name in names}


def python(file: Path) -> str:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return next(part for part in content["dependencies"] if str(part).startswith("python="))


@pytest.mark.parametrize("name", ["cpu-batch.conda.yaml", "gpu-batch.conda.yaml"])
def test_conda_files_are_the_models_and_more(name: str) -> None:
    assert without_builds(pip(FOLDER / name)) > PACKAGES
    assert python(FOLDER / name) == python(ROOT / "conda.yaml")


def test_the_conda_file_for_packaging_is_the_models_and_the_extras() -> None:
    """Some bounds of the extra are higher than the model's."""
    extra = {line for line in PROJECT["optional-dependencies"]["package"] if "[" not in line}
    raised = {Requirement(line).name for line in extra}
    unchanged = {line for line in PACKAGES if Requirement(line).name not in raised}
    listed = without_builds(pip(FOLDER / "package.conda.yaml"))
    assert listed >= unchanged | extra
    assert python(FOLDER / "package.conda.yaml") == python(ROOT / "conda.yaml")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_batch_has_what_azures_runner_asks_for(device: str) -> None:
    found = pip(FOLDER / f"{device}-batch.conda.yaml")
    index = drivers.CPU_INDEX if device == "cpu" else drivers.CUDA_INDEX
    more = {re.split(r"[\[>=<]", item)[0] for item in without_builds(found) - PACKAGES}
    search = {"lancedb"} if device == "cpu" else set()  # for components/pipeline/index.yml
    assert more == {
        "azureml-core",
        "azureml-dataset-runtime",
        f"--extra-index-url {index}",
        *search,
    }


def test_packaging_has_what_the_extra_asks_for() -> None:
    extras = PROJECT["optional-dependencies"]
    extra = {*extras["package"], *extras["plan"]} - {"clip-endpoints[plan]"}
    # OpenCLIP's tokenizer, which its checkpoints are proven against. The extra leaves it out: with
    # all that it depends on, torchvision among it, it does not install everywhere.
    found = without_builds(pip(FOLDER / "package.conda.yaml"))
    index = {f"--extra-index-url {drivers.CPU_INDEX}"}
    assert found - PACKAGES == extra | index | {"open_clip_torch==3.3.0"}


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_images_install_the_same(device: str) -> None:
    lines = (FOLDER / device / "requirements.txt").read_text(encoding="utf-8").splitlines()
    torch = re.search(r'ARG TORCH="(torch==\S+) --index-url (\S+)"', dockerfile(device))
    assert torch
    listed = {line for line in lines if not line.startswith("#")}
    assert listed | {torch[1]} == PACKAGES | SERVER
    assert torch[2] == (drivers.CPU_INDEX if device == "cpu" else drivers.CUDA_INDEX)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_torch_is_of_one_build_in_both_environments_of_a_device(device: str) -> None:
    """Azure's GPU hosts need not have the driver of PyPI's build: score/hardware/drivers.py."""
    (torch,) = [item for item in pip(FOLDER / f"{device}-batch.conda.yaml") if "torch==" in item]
    build = "cpu" if device == "cpu" else f"cu{drivers.CUDA.replace('.', '')}"
    assert torch.endswith(f"+{build}")
    assert f"/whl/{build}" in dockerfile(device)


def test_no_image_is_of_docker_hub_and_each_is_one_that_azure_supports() -> None:
    found = re.findall(r"^FROM (\S+)", dockerfile("cpu") + dockerfile("gpu"), re.MULTILINE)
    for file in FOLDER.glob("*.yml"):
        found += re.findall(r"^image: (\S+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) >= 6
    for image in found:
        match = re.fullmatch(r"mcr\.microsoft\.com/azureml/(\S+):latest", image)
        assert match, image
        assert match[1] in SUPPORTED


def test_the_batch_images_own_cuda_asks_for_no_later_driver_than_torch() -> None:
    text = (FOLDER / "gpu-batch.yml").read_text(encoding="utf-8")
    (major,) = re.findall(r"-cuda(\d+)\.", text)
    assert drivers.minimum_driver(major) <= drivers.minimum_driver(drivers.CUDA)


def dockerfile(device: str) -> str:
    return (FOLDER / device / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_images_run_as_nobody_in_particular_and_tell_their_health(device: str) -> None:
    text = dockerfile(device)
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["root", "dockeruser"]
    assert text.index("USER dockeruser") > text.rindex("RUN ")
    assert "HEALTHCHECK" in text
    assert "WORKER_COUNT=1" in text


@pytest.mark.process
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_an_image_runs_the_server_that_is_chosen(device: str, tmp_path: Path) -> None:
    """The command, with stand-ins for both servers that print their arguments."""
    variables, command = what_runs(FOLDER / device / "Dockerfile")
    assert variables[VARIABLE] == AZURES
    for name in ("azmlinfsrv", "python"):
        (tmp_path / name).write_text('#!/bin/sh\necho "$(basename $PWD): $(basename $0) $*"\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "models/1/clip").mkdir(parents=True)
    (tmp_path / "models/1/clip/MLmodel").touch()
    variables |= {"PATH": f"{tmp_path}:/usr/bin:/bin", "AZUREML_MODEL_DIR": f"{tmp_path}/models/1"}

    def run(server: str) -> subprocess.CompletedProcess[str]:
        chosen = variables | {VARIABLE: server}
        return subprocess.run(command, env=chosen, cwd="/", capture_output=True, text=True)

    script = "/var/azureml-app/score/online.py"
    assert run(AZURES).stdout == f"/: azmlinfsrv --entry_script {script} --port 5001\n"
    serve = "score serve . --host 0.0.0.0 --port 5001 --without-keys --workers 1"
    assert run(OURS_SERVER).stdout == f"clip: python -m {serve}\n"
    other = run("both")
    assert other.stderr == "CLIP_SERVER is both, and must be azure or score\n"
    assert other.returncode == 2


def test_images_differ_in_torch_and_nvidias_runtime_alone() -> None:
    def plain(device: str) -> list[str]:
        text = dockerfile(device).replace("ENV NVIDIA_VISIBLE_DEVICES=all \\\n", "")
        text = text.replace("    NVIDIA_DRIVER_CAPABILITIES=compute,utility\n", "")
        return [line for line in text.splitlines() if not line.startswith(("#", "ARG TORCH="))]

    assert plain("cpu") == plain("gpu")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM python:3.9-slim\n", "made from python:3.9"),
        ("FROM ubuntu:22.04\n", "made from ubuntu:22.04"),
        ("FROM x.io/azureml/minimal-py39-inference\n", "made from x.io/azureml/minimal-py39"),
        ("ADD x /x\n", "ADD is not known here"),
        ("RUN rm -rf /\n", "cannot be done here"),
    ],
)
def test_steps_that_cannot_be_done_here_are_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    with pytest.raises(AzureError, match=said):
        build(tmp_path, tmp_path / "venv")


def test_pip_takes_from_its_cache_what_it_has_installed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(dockerfile_steps.subprocess, "run", run)
    monkeypatch.setattr(dockerfile_steps.venv, "create", lambda *folder, **options: None)
    (tmp_path / "Dockerfile").write_text(
        "FROM x.io/minimal-py311-inference\nRUN pip install --no-cache-dir six\n"
    )
    build(tmp_path, tmp_path / "venv")
    assert [command[-3:] for command in commands] == [["--quiet", "install", "six"]]


@pytest.mark.process
def test_a_context_may_be_relative_and_a_folder_of_ones_own_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "context").mkdir()
    base = "FROM x.io/minimal-py311-inference:latest\nUSER root\n"
    steps = f"{base}COPY wanted.txt /tmp/\nRUN pip install -r /tmp/wanted.txt\n"
    (tmp_path / "context/Dockerfile").write_text(steps)
    (tmp_path / "context/wanted.txt").write_text("# nothing\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AzureError, match="mine holds something else than a virtual environment"):
        build(Path("context"), Path("mine"))
    assert (tmp_path / "mine/thesis.txt").exists()
    assert build(Path("context"), Path("venv")).folder == tmp_path / "venv"
    build(Path("context"), Path("venv"))  # made anew


BUILDS = pytest.mark.skipif(
    os.environ.get("BUILD_IMAGES", "0") in ("", "0"), reason="minutes; BUILD_IMAGES=1 asks for it"
)
READY_AT = {AZURES: "", OURS_SERVER: READY[1:]}
TORCH = "torch==2.13.0"  # whichever build this machine gets of it


def installed(context: Path, folder: Path) -> Image:
    """An image's environment. pip compiles nothing: most of what is installed is never imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_COMPILE", "1")
        return build(context, folder, {"TORCH": TORCH})


@pytest.fixture(scope="module")
def cpu_image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return installed(FOLDER / "cpu", tmp_path_factory.mktemp("image") / "venv")


@pytest.mark.minutes
@pytest.mark.process
@BUILDS
@pytest.mark.parametrize("server", SERVERS)
def test_what_the_cpu_image_installs_answers(server: str, cpu_image: Image) -> None:
    """The Dockerfile's steps in a virtual environment, then its command, with either server."""
    assert size(cpu_image.folder) < 8 * 2**30  # of the 14 GiB that the smallest size has
    port = free_port()
    environment = cpu_image.environment() | {"PYTHONPATH": "", VARIABLE: server}
    environment |= {"AML_APP_ROOT": str(ROOT), "AZUREML_MODEL_DIR": str(ROOT)}
    command = [
        word.replace("5001", str(port)).replace("0.0.0.0", "127.0.0.1")
        for word in cpu_image.command
    ]
    with subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True) as process:
        try:
            assert ready(f"http://127.0.0.1:{port}/{READY_AT[server]}", process)
            answer = ask(f"http://127.0.0.1:{port}/score", ROOT / "samples/requests/both.json")
        finally:
            os.killpg(process.pid, signal.SIGTERM)
    assert answer.status == 200
    records = json.loads(answer.body)
    kinds = ("image_features", "text_features")
    assert [len(record[kind]) for record in records for kind in kinds] == [512] * 4


@pytest.mark.minutes
@pytest.mark.process
@BUILDS
def test_what_batch_installs_embeds(tmp_path: Path) -> None:
    """Azure's runner, whose packages are old and choosy, beside ours."""
    wanted = [
        item for item in pip(FOLDER / "cpu-batch.conda.yaml") if item[:5] not in ("torch", "--ext")
    ]
    listed = " ".join(f"'{item}'" for item in sorted(wanted))
    (tmp_path / "Dockerfile").write_text(f"FROM python:3.11\nRUN pip install {TORCH} {listed}\n")
    image = installed(tmp_path, tmp_path / "venv")
    code = (
        "import azureml.core, azureml.dataprep; from score.__main__ import main; sys.exit(main())"
    )
    python = [str(image.folder / "bin/python"), "-c", f"import sys; {code}"]
    deployment = "components/batch/deployment-cpu.yml"
    for words in (
        ["split", "samples/captions.csv", "--rows", "40", "--output", tmp_path / "in"],
        [
            "azure",
            "simulate",
            "batch",
            deployment,
            "--input",
            tmp_path / "in",
            "--output",
            tmp_path / "out",
        ],
        ["merge", tmp_path / "in", tmp_path / "out", "--output", tmp_path / "vectors.parquet"],
    ):
        subprocess.run([*python, *words], cwd=ROOT, env=image.environment(), check=True)
    assert len(read_table(tmp_path / "vectors.parquet").column("text_features").drop_null()) == 67


def test_the_guides_table_of_drivers_is_what_the_code_says() -> None:
    text = (ROOT / "docs/azure.md").read_text(encoding="utf-8")
    head = text.index("| what installs PyTorch |")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text[head : text.index("\n\n", head)].splitlines()[2:]
    ]
    assert len(rows) >= 4
    for _, version, cuda, driver in rows:
        assert version.split("+")[0] == TORCH.removeprefix("torch==")
        if cuda == "none":
            assert (version.endswith("+cpu"), driver) == (True, "none")
        else:
            assert driver == str(drivers.minimum_driver(cuda))
    ours = {cuda for what, _, cuda, _ in rows if "gpu" in what or "--torch cuda" in what}
    assert ours == {drivers.CUDA}


def test_the_guide_counts_the_sizes() -> None:
    allowed = [sku for sku in skus().values() if sku.allowed]
    further = len(skus()) - len(allowed)
    guide = (ROOT / "docs/azure.md").read_text(encoding="utf-8")
    assert f"has {len(skus())} sizes" in guide
    assert f"the {len(allowed)} that Azure's catalog" in guide
    assert f"and {further} further ones" in guide
    assert f"the {len(allowed)} sizes that Azure allows its CLIP on, and {further} more" in guide
