"""Deploys a real-time endpoint with Azure's Python SDK. Same as deploy-online.sh.

python samples/azure/online.py --subscription … --group … --workspace … [--sku Standard_…]
  [--model dist/clip] [--clean]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from azure.ai.ml import MLClient, load_online_deployment, load_online_endpoint
from azure.core.exceptions import ResourceNotFoundError

sys.path.append(str(Path(__file__).parent))
from rollout import Rollout, clean
from workspace import (
    Wanted,
    add_options,
    agreed_by,
    connected,
    endpoint_name,
    write_deployment,
)

from score.deploy.cli.flags import pair
from score.deploy.render import render_endpoint
from score.errors import AzureError

__all__ = ["clean", "deploy", "endpoint_name"]


def deploy(client: MLClient, name: str | None = None, **choices: Any) -> str:
    """Creates a new deployment beside the current one, and moves all requests to it in steps.
    Returns the endpoint's name. `choices`: fields of Wanted, Rollout and `make_endpoint`.

    Raises AzureError for choices that do not fit each other, before anything is created, and for
    wrong answers, after rolling back.
    """
    of_rollout = {key: choices.pop(key) for key in Rollout.__annotations__ if key in choices}
    of_endpoint = {key: choices.pop(key) for key in _ACCESS if key in choices}
    wanted = Wanted(**choices)
    name = name or endpoint_name(client, "clip")
    rollout = Rollout(client, name, **of_rollout)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "deployment.yml"
        plan = write_deployment(client, "online", wanted, file)
        deployment = load_online_deployment(file)
        make_endpoint(client, name, Path(scratch), **of_endpoint)
    chosen = {"instance_type": wanted.sku or wanted.device, "instance_count": wanted.instances}
    rollout.run(deployment, plan.dimension, [field for field, value in chosen.items() if value])
    return name


_ACCESS = ("auth", "identity", "private")


def make_endpoint(
    client: MLClient,
    name: str,
    folder: Path,
    auth: str | None = None,
    identity: str | None = None,
    private: bool = False,
) -> None:
    """Creates the endpoint if there is none. The access settings of an existing one are kept.

    Raises AzureError where those differ from the ones given.
    """
    try:
        existing = client.online_endpoints.get(name)
    except ResourceNotFoundError:
        file = folder / "endpoint.yml"
        access = {"auth": auth or "key", "identity": identity, "private": private}
        file.write_text(render_endpoint(command="endpoint", name=name, **access))  # type: ignore[arg-type]
        client.online_endpoints.begin_create_or_update(load_online_endpoint(file)).result()
        return
    has = {
        one.resource_id.lower()
        for one in getattr(existing.identity, "user_assigned_identities", None) or []
    }
    if auth and str(existing.auth_mode).lower() != auth:
        raise AzureError(f"{name} has the auth mode {existing.auth_mode}: change it yourself")
    if private and str(existing.public_network_access).lower() != "disabled":
        raise AzureError(f"{name} is open to the public network: close it yourself")
    if identity and identity.lower() not in has:
        raise AzureError(f"{name} has another identity: use another endpoint")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_options(parser, "clip")
    parser.add_argument(
        "--auth", choices=("key", "aml_token", "aad_token"), help="of clients (key)"
    )
    parser.add_argument("--identity", help="ARM id of a user-assigned identity")
    parser.add_argument("--private", action="store_true", help="closed to the public network")
    parser.add_argument("--secret", action="append", type=pair, default=[], metavar="SCORE_…=URL")
    parser.add_argument("--mirror", type=int, default=10, help="percent that is copied first (10)")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 50, 100])
    parser.add_argument("--wait", type=float, default=60, help="seconds between the steps (60)")
    parser.add_argument("--keep", action="store_true", help="delete no deployment")
    options = parser.parse_args()
    client, registry = connected(options)
    try:
        name = options.endpoint or endpoint_name(client, "clip")
        if options.clean:
            clean(client, name, options.clean == "all", agreed_by(options))
            return 0
        names = ["device", "model", "sku", "instances", "environment"]
        names += ["auth", "identity", "private", "mirror", "steps", "wait", "keep"]
        choices = {key: getattr(options, key) for key in names}
        choices |= {"secrets": dict(options.secret), "agreed": agreed_by(options)}
        deploy(client, name, registry=registry, **choices)
    except AzureError as error:
        print(error, file=sys.stderr)
        return 2
    print(client.online_endpoints.get(name).scoring_uri)
    return 0


if __name__ == "__main__":
    sys.exit(main())
