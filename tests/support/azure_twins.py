"""Fixtures for the tests of the Python twins of the scripts: the modules and a stand-in client.

A test file uses them with `pytest_plugins = ["tests.support.azure_twins"]`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)

from tests.support.azure_client import absent
from tests.support.surfaces import ROOT

SCRIPTS = ROOT / "samples/azure"
MODULES = ("batch", "online", "rollout", "workspace")
GPU, OTHER = "Standard_NC4as_T4_v3", "Standard_D8as_v4"


class Operations:
    """A client's operations on one kind of resource."""

    def __init__(self, client: Client, kind: str) -> None:
        self._client, self._kind, self.there = client, kind, {}

    def _note(self, verb: str, name: str, entity: Any = None) -> None:
        note = f"{self._kind} {verb} {name}"
        self._client.check()
        self._client.notes.append(note)
        if note == self._client.fails and self._client.notes.count(note) > self._client.passes:
            if self._client.stores:
                self.there[name] = entity
            raise HttpResponseError(note)

    def get(self, name: str, version: str | None = None, label: str | None = None) -> Any:
        self._client.check()
        entity = self.there.get(name)
        if self._kind == "models":
            assert bool(version) != bool(label)
            if label and (label != "latest" or not entity):
                raise absent(name)
            if version and entity and entity.version != version:
                entity = None
        if not entity:
            raise ResourceNotFoundError(name)
        return entity

    def list(self, endpoint: str) -> list[Any]:
        self._client.check()
        return list(self.there.values())

    def create_or_update(self, entity: Any) -> Any:
        if hasattr(entity, "traffic"):
            entity.traffic = {
                name: share for name, share in (entity.traffic or {}).items() if share
            }
            mirrored = entity.mirror_traffic or {}
            entity.mirror_traffic = {name: share for name, share in mirrored.items() if share}
            shares = sorted(entity.traffic.items())
            self._note("has", f"{shares} {sorted(entity.mirror_traffic.items())}")
            assert sum(entity.traffic.values()) in (0, 100)
            assert not entity.mirror_traffic.keys() & entity.traffic.keys()
        else:
            self._note("gets", entity.name, entity)
        if self._kind in ("models", "environments"):
            entity.version = "1"
        self.there[entity.name] = entity
        return entity

    def begin_create_or_update(self, entity: Any) -> Any:
        created = self.create_or_update(entity)
        return SimpleNamespace(result=lambda: created)

    def begin_delete(self, name: str, endpoint: str | None = None) -> Any:
        self._note("loses", name)
        if endpoint and self._kind == "online_deployments":
            assert name not in (self._client.online_endpoints.get(endpoint).traffic or {})
        del self.there[name]
        return SimpleNamespace(result=lambda: None)

    def get_logs(self, name: str, endpoint: str, lines: int, container_type: str) -> str:
        self._client.check()
        assert name in self.there
        return f"the log of {container_type}"

    def download(self, name: str, version: str, download_path: str) -> None:
        self._note("downloads", f"{name}:{version}")
        shutil.copytree(self._client.package, Path(download_path) / name / "package")

    def invoke(self, name: str, request_file: str, deployment_name: str | None = None) -> str:
        self._note("asks", deployment_name or "all")
        table = json.loads(Path(request_file).read_text())["input_data"]
        vector = [0.5] * self._client.dimension
        features = {"image": "image_features", "text": "text_features"}
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        records = [{features[one]: vector for one, cell in row.items() if cell} for row in rows]
        return json.dumps(records)


class Client:
    """A stand-in for MLClient.

    `fails`: a note of an operation that fails after `passes` times; `stores`: whether the resource
    is created anyway, as at Azure; `expires`: the note of the last operation before the login ends.
    """

    workspace_name = "w"

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.fails, self.passes, self.dimension, self.package = "", 0, 512, ROOT
        self.stores, self.expires = False, ""
        self.workspaces = SimpleNamespace(
            get=lambda name: SimpleNamespace(id="/subscriptions/s/workspaces/w")
        )
        kinds = ("environments", "models", "compute", "online_endpoints", "online_deployments")
        for kind in (*kinds, "batch_endpoints", "batch_deployments"):
            setattr(self, kind, Operations(self, kind))

    def __getattr__(self, kind: str) -> Operations:
        raise AttributeError(kind)

    def check(self) -> None:
        if self.expires in self.notes:
            raise ClientAuthenticationError("the login has ended")

    @property
    def traffic(self) -> dict[str, int]:
        (endpoint,) = self.online_endpoints.there.values()
        traffic: dict[str, int] = endpoint.traffic
        return traffic


@pytest.fixture
def client() -> Client:
    """A client of an empty workspace."""
    return Client()


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The twins as modules, which are unloaded afterwards."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in MODULES:
        sys.modules.pop(name, None)
    import batch
    import online
    import rollout
    import workspace

    yield SimpleNamespace(batch=batch, online=online, rollout=rollout, workspace=workspace)
    for name in MODULES:
        sys.modules.pop(name, None)
