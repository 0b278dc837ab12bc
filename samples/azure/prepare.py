"""Creates what the jobs of samples/azure/jobs need, with Azure's Python SDK. Same as prepare.sh.

python samples/azure/prepare.py [embed] [package] [spark] --subscription … --group … --workspace …
  [--sku Standard_…]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from azure.ai.ml import MLClient, load_environment, load_model

sys.path.append(str(Path(__file__).parent))
from workspace import ROOT, latest_model, make_cluster

from score.deploy.target import SMALL, target
from score.errors import AzureError

ENVIRONMENTS = {"embed": "cpu-batch", "package": "package", "spark": "spark"}


def prepare(
    client: MLClient, jobs: Sequence[str] = tuple(ENVIRONMENTS), sku: str | None = None
) -> dict[str, list[str]]:
    """Creates what the jobs need. Returns the arguments of `--set` for each of them.

    Environments are registered in any case; an existing cluster or model `clip` is left unchanged.
    Raises AzureError for an unknown machine size.
    """
    machines = target(size=sku)
    on = [f"settings.default_compute=azureml:{machines.cluster}"] if sku else []
    options: dict[str, list[str]] = {}
    for job in jobs:
        file = ROOT / f"environment/{ENVIRONMENTS[job]}.yml"
        client.environments.create_or_update(load_environment(file))
        if job != "spark":
            make_cluster(client, machines, 4)
        if job == "embed":
            make_model(client)
            options[job] = ['inputs.table.path="$PWD/my-urls.csv"', *on]
        elif job == "package":
            options[job] = ["inputs.checkpoint=laion-vit-b-16", *on]
        else:
            path = make_model(client)
            options[job] = ["inputs.table.path=azureml://…", f"inputs.model.path={path}"]
    return options


def make_model(client: MLClient) -> str:
    """Registers the embedded model as `clip` if there is none. Returns the latest one's path."""
    model = latest_model(client.models)
    if model is None:
        model = client.models.create_or_update(load_model(ROOT / "components/model.yml"))
    return str(model.path)


def main() -> int:
    """The command line."""
    from azure.identity import DefaultAzureCredential  # of azure-identity

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "jobs", nargs="*", metavar="JOB", help="embed, package, spark; default: all"
    )
    for option in ("subscription", "group", "workspace"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--sku", help=f"the cluster's size of machine ({SMALL['cpu']})")
    options = parser.parse_args()
    unknown = [job for job in options.jobs if job not in ENVIRONMENTS]
    if unknown:
        parser.error(f"{', '.join(ENVIRONMENTS)}, not {unknown[0]}")
    workspace = (options.subscription, options.group, options.workspace)
    client = MLClient(DefaultAzureCredential(), *workspace)
    try:
        commands = prepare(client, options.jobs or tuple(ENVIRONMENTS), options.sku)
    except AzureError as error:
        print(error, file=sys.stderr)
        return 2
    print("Ready. To run them:")
    for job, words in commands.items():
        print(f"az ml job create --file samples/azure/jobs/{job}.yml --set", *words)
    return 0


if __name__ == "__main__":
    sys.exit(main())
