"""What the jobs of samples/azure/jobs need, by Azure's SDK: what prepare.sh does, in Python.

python samples/azure/prepare.py [embed] [package] [spark] --subscription … --group … --workspace …
  [--sku Standard_…]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from azure.ai.ml import MLClient, load_environment, load_model
from azure.ai.ml.entities import AmlCompute
from azure.core.exceptions import ResourceNotFoundError

from score.deploy.names import cluster_name

ROOT = Path(__file__).resolve().parent.parent.parent
SIZE = "Standard_D4as_v4"
ENVIRONMENTS = {"embed": "cpu-batch", "package": "package", "spark": "spark"}


def prepare(
    client: MLClient, jobs: Sequence[str] = tuple(ENVIRONMENTS), sku: str = SIZE
) -> dict[str, list[str]]:
    """Makes what the jobs need and is not there yet; what to give `--set` for each of them.

    Environments are registered as they are here. A cluster or a model `clip` stays as it is. Raises
    AzureError for a size of machine that makes no name of a cluster.
    """
    cluster = cluster_name(sku)
    on = [] if sku == SIZE else [f"settings.default_compute=azureml:{cluster}"]
    options: dict[str, list[str]] = {}
    for job in jobs:
        file = ROOT / f"environment/{ENVIRONMENTS[job]}.yml"
        client.environments.create_or_update(load_environment(file))
        if job != "spark":
            make_cluster(client, cluster, sku)
        if job == "embed":
            make_model(client)
            options[job] = ['inputs.table.path="$PWD/my-urls.csv"', *on]
        elif job == "package":
            options[job] = ["inputs.checkpoint=laion-vit-b-16", *on]
        else:
            path = make_model(client)
            options[job] = ["inputs.table.path=azureml://…", f"inputs.model.path={path}"]
    return options


def make_cluster(client: MLClient, name: str, size: str) -> None:
    """A cluster of 0 to 4 machines, where there is none of that name."""
    try:
        client.compute.get(name)
    except ResourceNotFoundError:
        cluster = AmlCompute(name=name, size=size, min_instances=0, max_instances=4)
        client.compute.begin_create_or_update(cluster).result()


def make_model(client: MLClient) -> str:
    """The embedded model as `clip`, where there is no `clip` yet; where the latest one is kept."""
    try:
        return str(client.models.get("clip", label="latest").path)
    except ResourceNotFoundError:
        return str(client.models.create_or_update(load_model(ROOT / "components/model.yml")).path)


def main() -> None:
    """The command line."""
    from azure.identity import DefaultAzureCredential  # of azure-identity

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "jobs", nargs="*", metavar="JOB", help="embed, package, spark; default: all"
    )
    for option in ("subscription", "group", "workspace"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--sku", default=SIZE, help="the cluster's size of machine")
    options = parser.parse_args()
    unknown = [job for job in options.jobs if job not in ENVIRONMENTS]
    if unknown:
        parser.error(f"{', '.join(ENVIRONMENTS)}, not {unknown[0]}")
    workspace = (options.subscription, options.group, options.workspace)
    client = MLClient(DefaultAzureCredential(), *workspace)
    print("Ready. To run them:")
    for job, words in prepare(client, options.jobs or tuple(ENVIRONMENTS), options.sku).items():
        print(f"az ml job create --file samples/azure/jobs/{job}.yml --set", *words)


if __name__ == "__main__":
    main()
