"""What prepares a workspace for the jobs makes all that they name; where a job reads its table."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from azure.ai.ml import load_job
from azure.ai.ml.operations import _job_operations
from azure.core.exceptions import ResourceNotFoundError

from score.deploy.names import cluster_name
from score.deploy.target import SMALL
from tests.support.azure_cli import STORED
from tests.support.azure_client import Service, absent, client
from tests.support.azure_scripts import Az, prepared, script
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process

JOBS = ROOT / "samples/azure/jobs"


@pytest.fixture
def az(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Az:
    return prepared(tmp_path, monkeypatch)


def run(*arguments: str, **variables: str) -> Any:
    return script("prepare.sh", *arguments, **variables)


def made(az: Az) -> list[list[str]]:
    """Kind and name or file of each thing that was made."""
    return [[call[0], call[3]] for call in az.asked if call[1] == "create"]


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def needs(file: Path) -> Iterator[tuple[str, str]]:
    """What assets of a workspace a YAML file names, and the components that it is made of."""
    for line in file.read_text(encoding="utf-8").splitlines():
        field, _, value = line.strip().partition(": ")
        value = value.partition("  #")[0]
        if field == "component":
            yield from needs(file.parent / value)
        elif value.startswith("azureml:") and not value.startswith("azureml://"):
            kind = {"path": "model", "default_compute": "compute"}.get(field, field)
            yield kind, value.removeprefix("azureml:").removesuffix("@latest")


@pytest.mark.parametrize("job", ["embed", "package", "spark"])
def test_what_a_job_names_is_made(job: str, az: Az) -> None:
    done = run(job)
    assert done.returncode == 0, done.stderr
    names = {
        "compute": lambda name: name,
        "environment": lambda file: read(ROOT / file)["name"],
        "model": lambda file: read(ROOT / file)["name"],
    }
    there = {(kind, names[kind](which)) for kind, which in made(az)}
    assert {*needs(JOBS / f"{job}.yml")} - {("model", "clip")} <= there
    assert ("model", "clip") in there or job == "package"  # which makes one
    assert f"--file samples/azure/jobs/{job}.yml" in done.stdout


def test_all_is_made_unless_it_is_there(az: Az) -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    environments = {f"environment/{name}.yml" for name in ("cpu-batch", "package", "spark")}
    assert {which for kind, which in made(az) if kind == "environment"} == environments
    assert [kind for kind, _ in made(az) if kind != "environment"] == ["compute", "model"]
    az.log.unlink()
    done = run()
    assert {kind for kind, _ in made(az)} == {"environment"}
    assert f"inputs.model.path={STORED}/clip" in done.stdout


@pytest.mark.parametrize(
    "fails", ["environment create", "compute create", "model create", "compute list"]
)
def test_nothing_is_ready_after_a_failure(
    az: Az, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    monkeypatch.setenv("AZ_FAILS", fails)
    done = run("embed")
    assert (done.returncode != 0, done.stdout.count("Ready")) == (True, 0)
    assert f"(BadRequest) {fails}" in done.stderr


def test_an_unknown_job_or_size_is_told_before_anything_is_made(az: Az) -> None:
    done = run("embed", "train")
    assert (done.returncode, done.stderr) == (2, "embed, package or spark, not train\n")
    done = run("embed", SKU="Standard_Z9")
    assert (done.returncode != 0, "no size 'Standard_Z9'" in done.stderr) == (True, True)
    assert not az.log.exists()


@pytest.mark.parametrize("size", ["Standard_D8as_v4", "Standard_NC4as_T4_v3"])
def test_another_size_has_a_cluster_of_its_own(size: str, az: Az) -> None:
    done = run("embed", SKU=size)
    assert ["compute", cluster_name(size)] in made(az)
    assert f"settings.default_compute=azureml:{cluster_name(size)}" in done.stdout


def test_the_jobs_run_on_the_cluster_that_is_made() -> None:
    files = [JOBS / "embed.yml", JOBS / "package.yml", ROOT / "components/pipeline/deployment.yml"]
    computes = {read(file)["settings"]["default_compute"] for file in files}
    assert computes == {f"azureml:{cluster_name(SMALL['cpu'])}"}


# -- in Python ---------------------------------------------------------------------------------


class Things:
    """One kind of things of a workspace, none there at first."""

    def __init__(self, kind: str, notes: list[tuple[str, str]]) -> None:
        self._kind, self._notes, self._there = kind, notes, {}

    def get(self, name: str, label: str | None = None) -> Any:
        """Raises what the SDK does for what was not made."""
        if name not in self._there:
            raise absent(name) if label else ResourceNotFoundError(name)
        return self._there[name]

    def create_or_update(self, entity: Any) -> Any:
        """Notes it."""
        self._notes.append((self._kind, entity.name))
        self._there[entity.name] = SimpleNamespace(name=entity.name, path=STORED)
        return self._there[entity.name]

    def begin_create_or_update(self, entity: Any) -> Any:
        """The same."""
        return SimpleNamespace(result=lambda: self.create_or_update(entity))


def test_the_twin_makes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "samples/azure"))
    import prepare

    try:
        notes: list[tuple[str, str]] = []
        kinds = ("environments", "models", "compute")
        workspace: Any = SimpleNamespace(**{kind: Things(kind, notes) for kind in kinds})
        options = prepare.prepare(workspace)
        assert notes == [
            ("environments", "clip-cpu-batch"),
            ("compute", "clip-d4as-v4"),
            ("models", "clip"),
            ("environments", "clip-package"),
            ("environments", "clip-spark"),
        ]
        assert options["spark"][1] == f"inputs.model.path={STORED}"
        notes.clear()
        again = prepare.prepare(workspace, ("embed",), "Standard_D8as_v4")
        assert notes == [("environments", "clip-cpu-batch"), ("compute", "clip-d8as-v4")]
        assert again["embed"][1] == "settings.default_compute=azureml:clip-d8as-v4"
    finally:
        for name in ("prepare", "workspace"):
            sys.modules.pop(name, None)


# -- paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "read_from"),
    [
        (None, ROOT / "samples/urls.csv"),
        ("/data/my-urls.csv", Path("/data/my-urls.csv")),  # as "$PWD/my-urls.csv" is
        ("my-urls.csv", JOBS / "my-urls.csv"),  # beside the YAML: why users are told to write $PWD
    ],
)
def test_where_the_table_is_read_from(
    given: str | None, read_from: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uploaded: list[Path] = []

    def upload(scope: Any, datastores: Any, path: Any, **_: Any) -> str:
        uploaded.append(Path(path))
        return "azureml://datastores/workspaceblobstore/paths/uploaded.csv"

    monkeypatch.setattr(_job_operations, "_upload_and_generate_remote_uri", upload)
    monkeypatch.setattr(os.path, "isfile", lambda path: True)
    monkeypatch.chdir(tmp_path)
    override = [{"inputs.table.path": given}] if given else None
    job = load_job(JOBS / "embed.yml", params_override=override)
    jobs = client(Service({})).jobs
    jobs._resolve_job_inputs([job.inputs["table"]._to_job_input()], job._base_path)
    assert uploaded == [read_from]
