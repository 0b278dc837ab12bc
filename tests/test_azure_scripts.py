"""The deploy scripts against an `az` that only takes notes, their twins against such a client."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError

from score import shards
from score.embedder import Embedder
from score.jobs import checkpoint
from tests.surfaces import BIN, ROOT

SCRIPTS = ROOT / "samples/azure"

# Writes down what it is asked, and answers what the scripts go by. `show` fails unless told not to.
AZ = """#!/usr/bin/env bash
printf '%q ' "$@" >> "$AZ_LOG"; echo >> "$AZ_LOG"
case "$*" in
  "ml workspace show"*) echo /subscriptions/s/workspaces/w ;;
  *"-endpoint invoke --name clip-batch-"*) echo job-1 ;;
  "ml job download"*) target="${@: -1}/named-outputs/score"; mkdir -p "$target"
    cp "$AZ_RESULTS"/* "$target"/ ;;
  *"--query scoring_uri"*) echo https://clip.example/score ;;
  *" show "*) [ -n "$AZ_EXISTS" ] ;;
  *) echo "{}" ;;
esac
"""


@pytest.fixture
def az(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what was asked is written down, a line a call."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/az").write_text(AZ)
    (tmp_path / "bin/az").chmod(0o755)
    monkeypatch.setenv(
        "PATH", f"{tmp_path / 'bin'}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}"
    )
    monkeypatch.setenv("AZ_LOG", str(tmp_path / "az.log"))
    monkeypatch.setenv("AZ_EXISTS", "")
    return tmp_path / "az.log"


@pytest.fixture
def out() -> Iterator[Path]:
    yield ROOT / "out/azure/job-1"
    shutil.rmtree(ROOT / "out/azure/job-1", ignore_errors=True)


def asked(log: Path) -> list[list[str]]:
    return [shlex.split(line) for line in log.read_text().splitlines()]


def verbs(log: Path) -> list[str]:
    """`group verb` of each call but those that look whether something is there."""
    return [" ".join(call[1:3]) for call in asked(log) if call[2] != "show"]


def script(name: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPTS / name), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_every_file_that_is_named_is_there(az: Path) -> None:
    for device in ("cpu", "gpu"):
        done = script("deploy-online.sh", device)
        assert done.returncode == 0, done.stderr
    files = [call[call.index("--file") + 1] for call in asked(az) if "--file" in call]
    assert len(files) == 8
    assert all((ROOT / file).is_file() for file in files)


def test_online_creates_what_is_missing_and_updates_what_is_there(
    az: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert script("deploy-online.sh").returncode == 0
    created = ["online-endpoint create", "online-deployment create"]
    traffic = ["online-endpoint update", "online-endpoint invoke", "online-endpoint invoke"]
    assert verbs(az) == ["environment create", "model create", *created, *traffic]
    az.unlink()
    monkeypatch.setenv("AZ_EXISTS", "yes")
    assert script("deploy-online.sh").returncode == 0
    updated = ["online-endpoint update", "online-deployment update"]
    assert verbs(az) == ["environment create", *updated, *traffic]


def test_an_endpoint_has_a_name_of_its_own(az: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script("deploy-online.sh")
    names = {c[c.index("--name") + 1] for c in asked(az) if c[1] == "online-endpoint"}
    (name,) = names
    assert name.startswith("clip-")
    assert name.removeprefix("clip-").isdecimal()
    az.unlink()
    monkeypatch.setenv("ENDPOINT", "mine")
    script("deploy-online.sh", "clean")
    assert asked(az) == [["ml", "online-endpoint", "delete", "--name", "mine", "--yes"]]


def test_a_package_of_ones_own_is_registered(az: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL", ".")
    assert script("deploy-online.sh").returncode == 0
    (call,) = [call for call in asked(az) if call[1:3] == ["model", "create"]]
    assert call[-1].endswith("/model.yml")
    assert not Path(call[-1]).exists()  # it is put away


def test_another_size_is_rendered_and_what_does_not_fit_is_not_deployed(
    az: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKU", "Standard_D8as_v4")
    assert script("deploy-online.sh").returncode == 0
    (call,) = [call for call in asked(az) if call[1:3] == ["online-deployment", "create"]]
    assert not call[call.index("--file") + 1].startswith("components/")
    az.unlink()
    huge = checkpoint.write(tmp_path / "huge", replace(checkpoint.TINY, dimension=8))
    config = json.loads((huge / "config.json").read_text())
    config["vision_config"].update(hidden_size=9600, intermediate_size=90000, num_hidden_layers=90)
    (huge / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("MODEL", str(huge))
    done = script("deploy-online.sh")
    assert done.returncode != 0
    assert "does not fit" in done.stderr
    assert not az.exists() or "create" not in az.read_text()


def test_batch_gets_its_rows_back(
    az: Path, out: Path, tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "urls.csv").write_text("id,text\n1,a cat\n2,\n")
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.setenv("AZ_RESULTS", str(results))
    monkeypatch.setattr(shards, "_embedder", embedder, raising=False)
    monkeypatch.setattr(shards, "_output", results, raising=False)
    (tmp_path / "urls-000000.csv").write_bytes(b"id,text\r\n1,a cat\r\n2,\r\n")
    shards.run([str(tmp_path / "urls-000000.csv")])
    done = script("deploy-batch.sh", "urls.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 shards, 2 rows: 1 good, 1 failed (empty_row 1)" in done.stdout
    assert json.loads((out / "report.json").read_text())["complete"] is True
    assert (out / "vectors.parquet").is_file()
    created = ["compute create", "environment create", "model create"]
    endpoint = ["batch-endpoint create", "batch-deployment create", "batch-endpoint update"]
    job = ["batch-endpoint invoke", "job stream", "job download"]
    assert verbs(az) == [*created, *endpoint, *job]
    (invoke,) = [call for call in asked(az) if call[2] == "invoke"]
    assert not Path(invoke[invoke.index("--input") + 1]).exists()  # the shards are put away


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("deploy-online.sh", ["tpu"], "cpu, gpu or clean, not tpu"),
        ("deploy-batch.sh", [], "a CSV with an image or a text column"),
        ("deploy-batch.sh", ["gone.csv"], "gone.csv"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    az: Path, name: str, arguments: list[str], said: str
) -> None:
    done = script(name, *arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert not az.exists()


# -- in Python ---------------------------------------------------------------------------------


class Operations:
    """One of a client's kinds of things: takes notes, has nothing but what it was given."""

    def __init__(self, kind: str, notes: list[tuple[str, Any]]) -> None:
        self._kind, self._notes, self._there = kind, notes, {}

    def get(self, name: str, label: str | None = None) -> Any:
        if self._kind == "workspaces":
            return SimpleNamespace(id="/subscriptions/s/workspaces/w")
        if name not in self._there:
            raise ResourceNotFoundError(name)
        return self._there[name]

    def create_or_update(self, entity: Any) -> Any:
        self._notes.append((self._kind, getattr(entity, "traffic", None) or entity.name))
        self._there[entity.name] = entity
        return entity

    def begin_create_or_update(self, entity: Any) -> Any:
        made = self.create_or_update(entity)
        return SimpleNamespace(result=lambda: made)


class Client:
    workspace_name = "w"

    def __init__(self) -> None:
        self.notes: list[tuple[str, Any]] = []
        for kind in ("workspaces", "environments", "models", "compute", "online_endpoints"):
            setattr(self, kind, Operations(kind, self.notes))
        for kind in ("online_deployments", "batch_endpoints", "batch_deployments"):
            setattr(self, kind, Operations(kind, self.notes))


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import batch
    import online

    yield SimpleNamespace(batch=batch, online=online)
    for name in ("batch", "online"):
        sys.modules.pop(name, None)


def test_the_twin_of_online_takes_no_traffic_away(twins: Any) -> None:
    client = Client()
    name = twins.online.deploy(client, "gpu")
    assert name.startswith("clip-")
    assert client.notes == [
        ("environments", "clip-gpu"),
        ("models", "clip"),
        ("online_endpoints", name),
        ("online_deployments", "gpu"),
        ("online_endpoints", {"gpu": 100}),
    ]
    assert client.online_deployments.get("gpu").endpoint_name == name
    client.notes.clear()
    assert twins.online.deploy(client, "gpu") == name
    assert [kind for kind, _ in client.notes] == [
        "environments",
        "online_deployments",
        "online_endpoints",
    ]


def test_the_twins_agree_on_a_name(twins: Any, az: Path) -> None:
    script("deploy-online.sh", "clean")
    (call,) = [call for call in asked(az) if call[2] == "delete"]
    assert call[call.index("--name") + 1] == twins.online.endpoint_name(Client(), "clip")


def test_the_twins_take_a_package_and_a_size(twins: Any) -> None:
    client = Client()
    twins.online.deploy(client, model=ROOT, sku="Standard_D8as_v4")
    assert client.online_deployments.get("cpu").instance_type == "Standard_D8as_v4"
    assert ("models", "clip") in client.notes
    twins.batch.deploy(client, model=ROOT, sku="Standard_D8as_v4")
    assert client.compute.get("clip-cpu").size == "Standard_D8as_v4"
    with pytest.raises(subprocess.CalledProcessError):
        twins.online.deploy(client, sku="Standard_NC6s_v3")


def test_the_twin_of_batch_embeds(
    twins: Any, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: Path
) -> None:
    client = Client()
    name = twins.batch.deploy(client)
    assert client.batch_endpoints.get(name).defaults == {"deployment_name": "cpu"}
    assert client.batch_deployments.get("cpu").endpoint_name == name
    given: list[Path] = []

    def invoke(endpoint: str, input: Any) -> Any:
        assert endpoint == name
        given.extend(sorted(Path(input.path).iterdir()))
        results = out / "named-outputs/score"
        results.mkdir(parents=True)
        monkeypatch.setattr(shards, "_embedder", embedder, raising=False)
        monkeypatch.setattr(shards, "_output", results, raising=False)
        shards.run([str(file) for file in given])
        return SimpleNamespace(name="job-1")

    monkeypatch.setattr(client.batch_endpoints, "invoke", invoke, raising=False)
    jobs = SimpleNamespace(stream=lambda name: None, download=lambda *_, **__: None)
    monkeypatch.setattr(client, "jobs", jobs, raising=False)
    table = tmp_path / "in.csv"
    table.write_text("text\na\nb\nc\n")
    vectors, account = twins.batch.embed(client, name, table, rows=2)
    assert (len(given), account.rows, account.complete) == (2, 3, True)
    assert vectors.is_file()
