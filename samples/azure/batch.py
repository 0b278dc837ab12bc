"""A batch endpoint by Azure's SDK: what deploy-batch.sh does, in Python.

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
from azure.ai.ml.entities import AmlCompute
from azure.ai.ml.entities._load_functions import load_model_batch_deployment
from azure.core.exceptions import ResourceNotFoundError

sys.path.append(str(Path(__file__).parent))
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
    write_deployment,
)

from score.errors import AzureError
from score.jobs.merge import Account, merge, write
from score.jobs.split import split


def deploy(client: MLClient, name: str | None = None, nodes: int = 4, **choices: Any) -> str:
    """Creates or updates model, environment, endpoint and deployment, and the cluster of the size
    where there is none; returns the endpoint's name.

    `nodes`: the most machines of a new cluster; `choices`: fields of Wanted. Raises AzureError for
    what does not fit or go together, and for a deployment that others made.
    """
    wanted = Wanted(**choices)
    name = name or endpoint_name(client, "clip-batch")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "deployment.yml"
        write_deployment(client, "batch", wanted, file)
        deployment = load_model_batch_deployment(file)
    make_cluster(client, wanted, nodes)
    _make_endpoint(client, name)
    there = {one.name: one for one in client.batch_deployments.list(name)}
    if deployment.name in there and not is_ours(there[deployment.name]):
        raise AzureError(f"{name} has a deployment {deployment.name} that was not made here")
    deployment.endpoint_name = name
    client.batch_deployments.begin_create_or_update(deployment).result()
    endpoint = client.batch_endpoints.get(name)
    if not _default(endpoint):  # somebody's default stays what it is
        endpoint.defaults = {"deployment_name": deployment.name}
        client.batch_endpoints.begin_create_or_update(endpoint).result()
    return name


def make_cluster(client: MLClient, wanted: Wanted, nodes: int) -> None:
    """The cluster of a size, where there is none. One that is there keeps its limits: others use
    it, too. Raises AzureError where those are too low."""
    cluster = wanted.target.cluster
    try:
        most = client.compute.get(cluster).max_instances
    except ResourceNotFoundError:
        made = AmlCompute(
            name=cluster,
            size=wanted.target.size,
            min_instances=0,
            max_instances=max(nodes, wanted.instances),
            tier=wanted.tier or "dedicated",
        )
        client.compute.begin_create_or_update(made).result()
        return
    if wanted.instances > most:
        raise AzureError(f"{wanted.instances} machines: {cluster} has {most} at most")


def _make_endpoint(client: MLClient, name: str) -> None:
    try:
        client.batch_endpoints.get(name)
    except ResourceNotFoundError:
        endpoint = load_batch_endpoint(ROOT / "components/batch/endpoint.yml")
        endpoint.name = name
        client.batch_endpoints.begin_create_or_update(endpoint).result()


def _default(endpoint: Any) -> str | None:
    """The deployment of jobs that name none."""
    defaults = endpoint.defaults
    if isinstance(defaults, dict):
        return defaults.get("deployment_name")
    return getattr(defaults, "deployment_name", None)


def clean(client: MLClient, name: str, everything: bool = False, agreed: Agreed = asked) -> None:
    """Takes down what these samples made at an endpoint, and the endpoint where nothing else is on
    it; with `everything` all of it, after a question. Raises AzureError where the answer is no."""
    endpoint = client.batch_endpoints.get(name)
    deployments = list(client.batch_deployments.list(name))
    ours = [one.name for one in deployments if is_ours(one)]
    others = [one.name for one in deployments if not is_ours(one)]
    if everything and not agreed(f"Delete {name} with all on it ({' '.join(ours + others)})?"):
        raise AzureError("nothing was deleted")
    if everything or (not others and is_ours(endpoint)):
        client.batch_endpoints.begin_delete(name).result()
        return
    default = _default(endpoint)
    if default in ours and others:
        if not agreed(f"{default} is the default of {name}. Shall {others[0]} take its place?"):
            raise AzureError("nothing was deleted")
        endpoint.defaults = {"deployment_name": others[0]}
        client.batch_endpoints.begin_create_or_update(endpoint).result()
    for one in ours:
        client.batch_deployments.begin_delete(one, name).result()


def embed(
    client: MLClient, name: str, table: Path, rows: int = 1000, deployment: str | None = None
) -> tuple[Path, Account]:
    """Runs a job over a CSV and waits for it; the table of vectors, and what became of each row.
    `deployment`: by default the endpoint's own default."""
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(scratch) / "shards"
        split(table, shards, rows)
        given = Input(type="uri_folder", path=str(shards))
        job = client.batch_endpoints.invoke(name, deployment_name=deployment, input=given)
        client.jobs.stream(job.name)
        out = ROOT / "out" / "azure" / job.name
        client.jobs.download(job.name, output_name="score", download_path=out)
        account = merge(shards, out / "named-outputs" / "score", out / "vectors.parquet")
    write(account, out / "report.json")
    return out / "vectors.parquet", account


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path, nargs="?", help="a CSV with an image or text column")
    add_options(parser, "clip-batch")
    parser.add_argument("--nodes", type=int, default=4, help="the most of a new cluster (4)")
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
        vectors, account = embed(client, name, options.table, deployment=kind)
    except AzureError as error:
        print(error, file=sys.stderr)
        return 2
    print(account)
    print(vectors)
    return 0


if __name__ == "__main__":
    sys.exit(main())
