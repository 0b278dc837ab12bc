"""Deploys a batch endpoint with Azure's Python SDK, and runs a job. Same as deploy-batch.sh.

python samples/azure/batch.py my-urls.csv --subscription … --group … --workspace …
python samples/azure/batch.py --clean --subscription … --group … --workspace …
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from azure.ai.ml import Input, MLClient, load_batch_endpoint
from azure.ai.ml.entities._load_functions import load_model_batch_deployment
from azure.core.exceptions import ResourceNotFoundError

sys.path.append(str(Path(__file__).parent))
import workspace
from workspace import (
    ROOT,
    Agreed,
    Wanted,
    add_options,
    agreed_by,
    asked,
    connected,
    endpoint_name,
    is_ours,
    make_cluster,
    must,
    write_deployment,
)

from score.deploy.cli.flags import whole
from score.errors import AzureError
from score.jobs.merge import JobReport, merge, write
from score.jobs.split import split


def deploy(client: MLClient, name: str | None = None, nodes: int = 4, **choices: Any) -> str:
    """Creates or updates model, environment, endpoint and deployment, and creates the cluster of
    the size if there is none. Returns the endpoint's name.

    `nodes`: the most machines of a new cluster; `choices`: fields of Wanted. Raises AzureError for
    choices that do not fit each other, and for a deployment that was not created by these samples.
    """
    wanted = Wanted(**choices)
    name = name or endpoint_name(client, "clip-batch")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "deployment.yml"
        write_deployment(client, "batch", wanted, file)
        deployment = load_model_batch_deployment(file)
    most = make_cluster(
        client, wanted.target, max(nodes, wanted.instances or 1), wanted.tier
    ).max_instances
    if (wanted.instances or 1) > most:  # others may use the cluster, so its limit is not raised
        raise AzureError(f"{wanted.instances} machines: {wanted.target.cluster} has {most} at most")
    _make_endpoint(client, name)
    listed = {one.name: one for one in client.batch_deployments.list(name)}
    if deployment.name in listed and not is_ours(listed[deployment.name]):
        raise AzureError(f"{name} has a deployment {deployment.name} that was not made here")
    deployment.endpoint_name = name
    client.batch_deployments.begin_create_or_update(deployment).result()
    endpoint = client.batch_endpoints.get(name)
    if not _default(endpoint):  # an existing default is kept
        endpoint.defaults = {"deployment_name": deployment.name}
        client.batch_endpoints.begin_create_or_update(endpoint).result()
    return name


def _make_endpoint(client: MLClient, name: str) -> None:
    try:
        client.batch_endpoints.get(name)
    except ResourceNotFoundError:
        endpoint = load_batch_endpoint(ROOT / "components/batch/endpoint.yml")
        endpoint.name = name
        client.batch_endpoints.begin_create_or_update(endpoint).result()


def _default(endpoint: Any) -> str | None:
    """The deployment that runs jobs which name none."""
    defaults = endpoint.defaults
    if isinstance(defaults, dict):
        return defaults.get("deployment_name")
    return getattr(defaults, "deployment_name", None)


def clean(client: MLClient, name: str, everything: bool = False, agreed: Agreed = asked) -> None:
    """Deletes what these samples created at an endpoint, as `workspace.clean` does."""

    def release(endpoint: Any, ours: list[str], others: list[str]) -> None:
        """Makes another deployment the default, if there is one."""
        default, successor = _default(endpoint), next(iter(others), "")
        if default in ours:
            question = f"Shall {successor or 'nothing'} take its place?"
            must(agreed(f"{default} is the default of {name}. {question}"))
            endpoint.defaults = {"deployment_name": successor}
            client.batch_endpoints.begin_create_or_update(endpoint).result()

    operations = (client.batch_endpoints, client.batch_deployments)
    workspace.clean(*operations, name, everything, agreed, release)


def embed(
    client: MLClient, name: str, table: Path, rows: int = 1000, deployment: str | None = None
) -> tuple[Path, JobReport]:
    """Runs a job over a CSV and waits for it. Returns the file of vectors, and a report.

    `deployment`: by default that of the endpoint.
    """
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(scratch) / "shards"
        split(table, shards, rows)
        folder = Input(type="uri_folder", path=str(shards))
        job = client.batch_endpoints.invoke(name, deployment_name=deployment, input=folder)
        client.jobs.stream(job.name)
        out = ROOT / "out" / "azure" / job.name
        client.jobs.download(job.name, output_name="score", download_path=out)
        report = merge(shards, out / "named-outputs" / "score", out / "vectors.parquet")
    write(report, out / "report.json")
    return out / "vectors.parquet", report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path, nargs="?", help="a CSV with an image or text column")
    add_options(parser, "clip-batch")
    parser.add_argument("--nodes", type=whole, default=4, help="the most of a new cluster (4)")
    parser.add_argument("--tier", choices=("dedicated", "low_priority"), help="of the cluster")
    options = parser.parse_args()
    if not options.clean and (options.table is None or not options.table.is_file()):
        parser.error(f"no such file: {options.table}")
    client, registry = connected(options)
    try:
        name = options.endpoint or endpoint_name(client, "clip-batch")
        if options.clean:
            clean(client, name, options.clean == "all", agreed_by(options))
            return 0
        names = ("device", "model", "sku", "instances", "environment", "tier", "nodes")
        choices = {key: getattr(options, key) for key in names}
        deploy(client, name, registry=registry, **choices)
        kind = Wanted(device=options.device, sku=options.sku).target.kind
        vectors, report = embed(client, name, options.table, deployment=kind)
    except AzureError as error:
        print(error, file=sys.stderr)
        return 2
    print(report)
    print(vectors)
    return 0


if __name__ == "__main__":
    sys.exit(main())
