"""A real-time endpoint by Azure's SDK: what deploy-online.sh does, in Python.

python samples/azure/online.py --subscription … --group … --workspace … [--device gpu] [--clean]
  [--model dist/clip] [--sku Standard_…]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from azure.ai.ml import (
    MLClient,
    load_environment,
    load_model,
    load_online_deployment,
    load_online_endpoint,
)
from azure.core.exceptions import ResourceNotFoundError

ROOT = Path(__file__).resolve().parent.parent.parent
SIZES = {"cpu": "Standard_D4as_v4", "gpu": "Standard_NC4as_T4_v3"}
BODIES = (ROOT / "samples/requests/both.json", ROOT / "samples/requests/labels.json")


def endpoint_name(client: MLClient, stem: str) -> str:
    """One of a region's, which a number made of the workspace's tells from other people's."""
    workspace = client.workspaces.get(client.workspace_name)
    return f"{stem}-{zlib.crc32(str(workspace.id).encode())}"


def deployment_file(
    kind: str, device: str, folder: Path, model: Path | None = None, sku: str | None = None
) -> Path:
    """The deployment that is checked in, or one for a model or size, written into `folder`.

    Raises CalledProcessError where the model does not fit, which is told.
    """
    if not model and not sku:
        return ROOT / f"components/{kind}/deployment-{device}.yml"
    file = folder / "deployment.yml"
    options = ["--sku", sku or SIZES[device], "--name", device, "--code", str(ROOT)]
    _score("azure", "render", kind, "--model", str(model or ROOT), *options, "--output", str(file))
    return file


def _score(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "score", *words], cwd=ROOT, check=True)


def register_model(client: MLClient, folder: Path, model: Path | None = None) -> None:
    """A package as `clip`, or the embedded model where there is none yet."""
    if model:
        file, path = folder / "model.yml", str(model.resolve())
        _score("azure", "render", "model", "--model", path, "--path", path, "--output", str(file))
        client.models.create_or_update(load_model(file))
        return
    try:
        client.models.get("clip", label="latest")
    except ResourceNotFoundError:
        client.models.create_or_update(load_model(ROOT / "components/model.yml"))


def there(endpoints: Any, name: str, load: Callable[[Path], Any], kind: str) -> Any:
    """The endpoint of a name, created from `components/` where there is none yet."""
    try:
        return endpoints.get(name)
    except ResourceNotFoundError:
        endpoint = load(ROOT / f"components/{kind}/endpoint.yml")
        endpoint.name = name
        return endpoints.begin_create_or_update(endpoint).result()


def deploy(
    client: MLClient,
    device: str = "cpu",
    name: str | None = None,
    model: Path | None = None,
    sku: str | None = None,
) -> str:
    """Creates or updates everything, waits until it serves, and returns the endpoint's name."""
    with tempfile.TemporaryDirectory() as scratch:
        deployment = load_online_deployment(
            deployment_file("online", device, Path(scratch), model, sku)
        )
        client.environments.create_or_update(load_environment(ROOT / f"environment/{device}.yml"))
        register_model(client, Path(scratch), model)
    name = name or endpoint_name(client, "clip")
    endpoint = there(client.online_endpoints, name, load_online_endpoint, "online")
    deployment.endpoint_name = name
    client.online_deployments.begin_create_or_update(deployment).result()
    endpoint.traffic = {deployment.name: 100}
    client.online_endpoints.begin_create_or_update(endpoint).result()
    return name


def add_options(parser: argparse.ArgumentParser, stem: str) -> None:
    """What both twins are told; `stem`: of the endpoint's name."""
    for option in ("subscription", "group", "workspace"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--endpoint", help=f"default: {stem} and a number of the workspace's")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--model", type=Path, help="a package; default: the embedded model")
    parser.add_argument("--sku", help="a size of machine; default: a small one")
    parser.add_argument("--clean", action="store_true", help="take the endpoint down")


def connected(options: argparse.Namespace) -> MLClient:
    """A client of the workspace."""
    from azure.identity import DefaultAzureCredential  # of azure-identity

    return MLClient(
        DefaultAzureCredential(), options.subscription, options.group, options.workspace
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_options(parser, "clip")
    options = parser.parse_args()
    client = connected(options)
    if options.clean:
        name = options.endpoint or endpoint_name(client, "clip")
        client.online_endpoints.begin_delete(name).result()
        return
    name = deploy(client, options.device, options.endpoint, options.model, options.sku)
    for body in BODIES:
        answer = client.online_endpoints.invoke(name, request_file=str(body))
        print(body.name, answer[:300])
    print(client.online_endpoints.get(name).scoring_uri)


if __name__ == "__main__":
    main()
