"""The batch deploy script against a stand-in for `az ml`, which keeps what it makes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from score import shards
from score.core.embedder import Embedder
from tests.support.azure_scripts import BATCH, GPU, OTHER, Az, prepared, script
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process


@pytest.fixture
def az(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Az:
    return prepared(tmp_path, monkeypatch)


@pytest.fixture
def out() -> Iterator[Path]:
    yield ROOT / "out/azure/job-1"
    shutil.rmtree(ROOT / "out/azure/job-1", ignore_errors=True)


@pytest.fixture
def table(tmp_path: Path, embedder: Embedder, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table, and the results of a job over it."""
    (tmp_path / "urls.csv").write_text("id,text\n1,a cat\n2,\n")
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.setenv("AZ_RESULTS", str(results))
    monkeypatch.setattr(shards, "_embedder", embedder, raising=False)
    monkeypatch.setattr(shards, "_output", results, raising=False)
    (tmp_path / "urls-000000.csv").write_bytes(b"id,text\r\n1,a cat\r\n2,\r\n")
    shards.run([str(tmp_path / "urls-000000.csv")])
    return tmp_path / "urls.csv"


def batch(*arguments: str, **variables: str) -> Any:
    shutil.rmtree(ROOT / "out/azure/job-1", ignore_errors=True)
    return script("deploy-batch.sh", *arguments, **variables)


def test_batch_gets_its_rows_back(az: Az, out: Path, table: Path) -> None:
    done = script("deploy-batch.sh", "urls.csv", cwd=table.parent)
    assert done.returncode == 0, done.stderr
    assert "1 shards, 2 rows: 1 good, 1 failed (empty_row 1)" in done.stdout
    assert json.loads((out / "report.json").read_text())["complete"] is True
    assert (out / "vectors.parquet").is_file()
    created = ["model create", "compute create", "environment create", "batch-endpoint create"]
    used = ["batch-deployment create", "batch-endpoint update", "batch-endpoint invoke"]
    assert az.verbs == [*created, *used, "job stream", "job download"]
    (invoke,) = [call for call in az.asked if call[1] == "invoke"]
    assert not Path(invoke[invoke.index("--input") + 1]).exists()  # the shards are put away
    assert az.state["batch-endpoint"][BATCH]["defaults"] == {"deployment_name": "cpu"}


def test_each_size_and_tier_has_its_cluster_and_keeps_its_limits(az: Az, table: Path) -> None:
    assert batch(str(table), SKU=OTHER).returncode == 0
    deployment = az.state["batch-deployment"][f"{BATCH}/cpu"]
    assert deployment["compute"] == "azureml:clip-d8as-v4"
    assert az.state["compute"]["clip-d8as-v4"]["size"] == OTHER
    limited = az.state["compute"]["clip-d8as-v4"] | {"max_instances": 2}
    az.there(compute={"clip-d8as-v4": limited})
    assert batch(str(table), SKU=OTHER, INSTANCES="2").returncode == 0
    assert az.state["compute"] == {"clip-d8as-v4": limited}
    assert az.state["batch-deployment"][f"{BATCH}/cpu"]["resources"] == {"instance_count": 2}
    done = batch(str(table), SKU=OTHER, INSTANCES="3")
    assert "clip-d8as-v4 has 2 at most. To raise that: az ml compute update" in done.stderr
    assert batch(str(table), SKU=GPU, TIER="low_priority", INSTANCES="6").returncode == 0
    deployment = az.state["batch-deployment"][f"{BATCH}/gpu"]
    assert deployment["compute"] == "azureml:clip-nc4as-t4-v3-lp"
    assert deployment["environment"] == "azureml:clip-gpu-batch:1"
    cluster = az.state["compute"]["clip-nc4as-t4-v3-lp"]
    assert (cluster["tier"], cluster["max_instances"]) == ("low_priority", "6")


def test_batch_leaves_what_others_made(az: Az, table: Path) -> None:
    assert batch(str(table)).returncode == 0
    az.other("nocode", kind="batch")
    defaults = {"defaults": {"deployment_name": "nocode"}}
    endpoint = az.state["batch-endpoint"][BATCH]
    az.there(batch_endpoint={BATCH: endpoint | defaults})
    assert batch(str(table)).returncode == 0
    assert az.state["batch-endpoint"][BATCH]["defaults"] == {"deployment_name": "nocode"}
    assert batch("clean").returncode == 0
    assert list(az.state["batch-deployment"]) == [f"{BATCH}/nocode"]
    az.other("cpu", kind="batch")
    assert "that this script did not make" in batch(str(table)).stderr


def test_clean_asks_before_batch_jobs_go_elsewhere(az: Az, table: Path) -> None:
    assert batch(str(table)).returncode == 0
    az.other("nocode", kind="batch")
    done = batch("clean")
    assert "Shall nocode take its place? Nobody is here to ask" in done.stderr
    assert batch("clean", "--yes").returncode == 0
    assert az.state["batch-endpoint"][BATCH]["defaults"] == {"deployment_name": "nocode"}
    assert list(az.state["batch-deployment"]) == [f"{BATCH}/nocode"]
    assert batch("clean", "all", YES="1").returncode == 0
    assert az.state["batch-endpoint"] == {}
    assert az.state["compute"] != {}


def test_clean_of_an_endpoint_of_others_asks_before_jobs_go_nowhere(az: Az, table: Path) -> None:
    assert batch(str(table)).returncode == 0
    az.there(batch_endpoint={BATCH: az.state["batch-endpoint"][BATCH] | {"tags": {}}})
    assert "Shall nothing take its place? Nobody is here to ask" in batch("clean").stderr
    assert list(az.state["batch-deployment"]) == [f"{BATCH}/cpu"]
    done = batch("clean", "--yes")
    assert done.returncode == 0, done.stderr
    assert az.state["batch-deployment"] == {}
    assert az.state["batch-endpoint"][BATCH]["defaults"] == {"deployment_name": ""}


@pytest.mark.parametrize("fails", ["compute list", "batch-endpoint list"])
def test_what_cannot_be_asked_is_not_made(
    az: Az, table: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    monkeypatch.setenv("AZ_FAILS", fails)
    done = batch(str(table))
    assert (done.returncode, f"ERROR: (BadRequest) {fails}" in done.stderr) == (2, True)
    assert fails.replace("list", "create") not in az.verbs


def test_one_machine_that_may_be_taken_away_is_warned_of(az: Az, table: Path) -> None:
    assert "set INSTANCES=2 or more" in batch(str(table), TIER="low_priority").stderr
    done = batch(str(table), TIER="low_priority", INSTANCES="2")
    assert "set INSTANCES" not in done.stderr


def test_a_package_is_named_from_where_the_caller_is(az: Az, table: Path) -> None:
    (table.parent / "mine").symlink_to(ROOT)
    done = script("deploy-batch.sh", "urls.csv", cwd=table.parent, MODEL="mine")
    assert done.returncode == 0, done.stderr
    assert "model create" in az.verbs


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ([], {}, "a CSV with an image or a text column"),
        (["gone.csv"], {}, "gone.csv"),
        (["samples/urls.csv", "tpu"], {}, "cpu or gpu, not tpu"),
        (["samples/urls.csv", "cpu"], {"SKU": GPU}, "has a GPU, and cpu was asked for"),
        (["samples/urls.csv"], {"TIER": "spot"}, "dedicated or low_priority"),
        (["samples/urls.csv"], {"INSTANCES": "all"}, "INSTANCES=all"),
        (["samples/urls.csv"], {"NODES": "many"}, "NODES=many"),
        (["samples/urls.csv"], {"SECRETS": "A=b"}, "real-time deployments alone"),
    ],
)
def test_what_is_wrong_with_batch_is_said_before_anything_is_asked(
    az: Az, arguments: list[str], variables: dict[str, str], said: str
) -> None:
    done = script("deploy-batch.sh", *arguments, **variables)
    assert done.returncode != 0
    assert said in done.stderr
    assert az.asked == []
