"""The batch deploy script's twin in Python, against a client that keeps what it makes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from score import shards
from score.core.embedder import Embedder
from score.errors import AzureError
from tests.support.azure_twins import GPU, OTHER, Client
from tests.support.surfaces import ROOT

pytest_plugins = ["tests.support.azure_twins"]


def test_each_size_and_tier_has_its_cluster_and_keeps_its_limits(
    twins: Any, client: Client
) -> None:
    name = twins.batch.deploy(client, sku=OTHER)
    assert client.batch_endpoints.get(name).defaults == {"deployment_name": "cpu"}
    cluster = client.compute.get("clip-d8as-v4")
    assert (cluster.size, cluster.max_instances) == (OTHER, 4)
    assert client.batch_deployments.get("cpu").compute == "clip-d8as-v4"
    cluster.max_instances = 2
    twins.batch.deploy(client, sku=OTHER, instances=2)
    assert client.compute.get("clip-d8as-v4").max_instances == 2
    with pytest.raises(AzureError, match="clip-d8as-v4 has 2 at most"):
        twins.batch.deploy(client, sku=OTHER, instances=3)
    twins.batch.deploy(client, sku=GPU, tier="low_priority", instances=6)
    low = client.compute.get("clip-nc4as-t4-v3-lp")
    assert (low.tier, low.max_instances) == ("low_priority", 6)
    gpu = client.batch_deployments.get("gpu")
    assert gpu.compute == "clip-nc4as-t4-v3-lp"
    assert gpu.environment == "clip-gpu-batch:1"
    assert client.batch_endpoints.get(name).defaults == {"deployment_name": "cpu"}


def test_batch_leaves_what_others_made_and_asks(twins: Any, client: Client) -> None:
    name = twins.batch.deploy(client)
    client.batch_deployments.there["nocode"] = SimpleNamespace(name="nocode", tags={})
    with pytest.raises(AzureError, match="nothing was deleted"):
        twins.batch.clean(client, name, agreed=lambda question: False)
    twins.batch.clean(client, name, agreed=lambda question: True)
    assert list(client.batch_deployments.there) == ["nocode"]
    assert client.batch_endpoints.get(name).defaults == {"deployment_name": "nocode"}
    client.batch_deployments.there["cpu"] = SimpleNamespace(name="cpu", tags={})
    with pytest.raises(AzureError, match="a deployment cpu that was not made here"):
        twins.batch.deploy(client)


def test_batch_clean_asks_before_jobs_go_nowhere(twins: Any, client: Client) -> None:
    name = twins.batch.deploy(client)
    client.batch_endpoints.get(name).tags = {}
    asked: list[str] = []
    with pytest.raises(AzureError, match="nothing was deleted"):
        twins.batch.clean(client, name, agreed=asked.append)
    assert "Shall nothing take its place?" in asked[0]
    twins.batch.clean(client, name, agreed=lambda question: True)
    assert client.batch_endpoints.get(name).defaults == {"deployment_name": ""}
    assert client.batch_deployments.there == {}


def test_batch_clean_takes_down_what_was_made(twins: Any, client: Client) -> None:
    twins.batch.clean(client, twins.batch.deploy(client))
    assert client.batch_endpoints.there == {}
    assert list(client.compute.there) == ["clip-d4as-v4"]


@pytest.fixture
def out() -> Iterator[Path]:
    yield ROOT / "out/azure/job-2"
    shutil.rmtree(ROOT / "out/azure/job-2", ignore_errors=True)


def test_batch_embeds(
    twins: Any,
    client: Client,
    embedder: Embedder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    out: Path,
) -> None:
    name = twins.batch.deploy(client)
    given: list[Path] = []

    def invoke(endpoint: str, deployment_name: str, input: Any) -> Any:
        assert (endpoint, deployment_name) == (name, "cpu")
        given.extend(sorted(Path(input.path).iterdir()))
        results = out / "named-outputs/score"
        results.mkdir(parents=True)
        monkeypatch.setattr(shards, "_embedder", embedder, raising=False)
        monkeypatch.setattr(shards, "_output", results, raising=False)
        shards.run([str(file) for file in given])
        return SimpleNamespace(name="job-2")

    monkeypatch.setattr(client.batch_endpoints, "invoke", invoke, raising=False)
    jobs = SimpleNamespace(stream=lambda name: None, download=lambda *_, **__: None)
    monkeypatch.setattr(client, "jobs", jobs, raising=False)
    table = tmp_path / "in.csv"
    table.write_text("text\na\nb\nc\n")
    vectors, account = twins.batch.embed(client, name, table, rows=2, deployment="cpu")
    assert (len(given), account.rows, account.complete) == (2, 3, True)
    assert vectors.is_file()
