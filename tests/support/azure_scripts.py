"""Shared by the tests of the deploy scripts: the stand-in for `az` and the log of its calls."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.support import azure_cli
from tests.support.surfaces import BIN, ROOT

SCRIPTS = ROOT / "samples/azure"
# The scripts' default names.
_NUMBER = zlib.crc32(azure_cli.WORKSPACE.encode())
ENDPOINT, BATCH = f"clip-{_NUMBER}", f"clip-batch-{_NUMBER}"
GPU, OTHER = "Standard_NC4as_T4_v3", "Standard_D8as_v4"


VARIABLES = (
    *("MODEL", "SKU", "INSTANCES", "NODES", "TIER", "ENDPOINT", "MIRROR", "STEPS", "WAIT", "KEEP"),
    *("AUTH", "IDENTITY", "PRIVATE", "SECRETS", "REGISTRY", "ENVIRONMENT", "YES"),
)
"""The environment variables that the scripts read."""


class Az:
    """The stand-in: its calls and its resources."""

    def __init__(self, folder: Path) -> None:
        self.log, self.file = folder / "az.log", folder / "az.json"

    @property
    def asked(self) -> list[list[str]]:
        """The arguments of each call other than `show` and `list`."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        calls = [shlex.split(line)[1:] for line in lines]
        return [call for call in calls if call[1] not in ("show", "list")]

    @property
    def verbs(self) -> list[str]:
        return [" ".join(call[:2]) for call in self.asked]

    @property
    def state(self) -> dict[str, Any]:
        resources: dict[str, Any] = json.loads(self.file.read_text())
        return resources

    def there(self, **families: Any) -> None:
        """Adds resources to the workspace."""
        known = self.state if self.file.exists() else {}
        for family, things in families.items():
            known.setdefault(family.replace("_", "-"), {}).update(things)
        self.file.write_text(json.dumps(known))

    @property
    def deployments(self) -> list[str]:
        return sorted(key.rpartition("/")[2] for key in self.state["online-deployment"])

    @property
    def traffic(self) -> dict[str, int]:
        traffic = self.state["online-endpoint"][ENDPOINT]["traffic"]
        return {name: percent for name, percent in traffic.items() if percent}

    def serving(self, *names: str) -> None:
        """Adds an endpoint as the script creates it; the first deployment has all traffic."""
        tags = {"made_by": "clip-endpoints"}
        endpoint = {"name": ENDPOINT, "tags": tags, "auth_mode": "key", "mirror_traffic": {}}
        endpoint |= {"public_network_access": "enabled", "traffic": {names[0]: 100}}
        self.there(online_endpoint={ENDPOINT: endpoint | {"scoring_uri": "https://mine.example"}})
        for name in names:
            deployment = {"name": name, "tags": tags | {"dimension": "512"}}
            self.there(online_deployment={f"{ENDPOINT}/{name}": deployment})

    def other(self, name: str, percent: int = 0, kind: str = "online") -> None:
        """Adds a deployment that was not created by the scripts."""
        at = {"online": ENDPOINT, "batch": BATCH}[kind]
        self.there(**{f"{kind}_deployment": {f"{at}/{name}": {"name": name, "tags": {}}}})
        endpoint = self.state[f"{kind}-endpoint"][at]
        traffic = {} if percent == 100 else endpoint["traffic"]
        endpoint["traffic"] = traffic | ({name: percent} if percent else {})
        self.there(**{f"{kind}_endpoint": {at: endpoint}})


def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Az:
    """The stand-in on the PATH, with an empty workspace."""
    (tmp_path / "bin").mkdir()
    azure_cli.install(tmp_path / "bin/az")
    path = os.pathsep.join([str(tmp_path / "bin"), str(BIN), os.environ["PATH"]])
    az = Az(tmp_path)
    variables = {"PATH": path, "AZ_LOG": str(az.log), "AZ_STATE": str(az.file), "AZ_FAILS": ""}
    variables |= {
        "AZ_AFTER": "1",
        "AZ_DIMENSION": "512",
        "WAIT": "0",
        "STEPS": "100",
        "MIRROR": "0",
    }
    for name in (*VARIABLES, "AZ_EXPIRES", "AZ_STORED", "AZ_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return az


def script(name: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> Any:
    command = [str(SCRIPTS / name), *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
