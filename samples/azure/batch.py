"""A batch endpoint by Azure's SDK: what deploy-batch.sh does, in Python.

python samples/azure/batch.py my-urls.csv --subscription … --group … --workspace … [--device gpu]
python samples/azure/batch.py --clean --subscription … --group … --workspace …
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from azure.ai.ml import Input, MLClient, load_batch_endpoint, load_environment
from azure.ai.ml.entities import AmlCompute
from azure.ai.ml.entities._load_functions import load_model_batch_deployment

sys.path.append(str(Path(__file__).parent))
from online import (
    ROOT,
    SIZES,
    add_options,
    connected,
    deployment_file,
    endpoint_name,
    register_model,
    there,
)

from score.jobs.merge import Account, merge, write
from score.jobs.split import split


def deploy(
    client: MLClient,
    device: str = "cpu",
    name: str | None = None,
    model: Path | None = None,
    sku: str | None = None,
) -> str:
    """Creates or updates cluster, environment, model, endpoint, deployment; the endpoint's name."""
    with tempfile.TemporaryDirectory() as scratch:
        deployment = load_model_batch_deployment(
            deployment_file("batch", device, Path(scratch), model, sku)
        )
        register_model(client, Path(scratch), model)
    name = name or endpoint_name(client, "clip-batch")
    cluster = AmlCompute(
        name=f"clip-{device}", size=sku or SIZES[device], min_instances=0, max_instances=4
    )
    client.compute.begin_create_or_update(cluster).result()
    client.environments.create_or_update(load_environment(ROOT / f"environment/{device}-batch.yml"))
    endpoint = there(client.batch_endpoints, name, load_batch_endpoint, "batch")
    deployment.endpoint_name = name
    client.batch_deployments.begin_create_or_update(deployment).result()
    endpoint.defaults = {"deployment_name": deployment.name}
    client.batch_endpoints.begin_create_or_update(endpoint).result()
    return name


def embed(client: MLClient, name: str, table: Path, rows: int = 1000) -> tuple[Path, Account]:
    """Runs a job over a CSV and waits for it; the table of vectors, and what became of each row."""
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(scratch) / "shards"
        split(table, shards, rows)
        given = Input(type="uri_folder", path=str(shards))
        job = client.batch_endpoints.invoke(name, input=given)
        client.jobs.stream(job.name)
        out = ROOT / "out" / "azure" / job.name
        client.jobs.download(job.name, output_name="score", download_path=out)
        account = merge(shards, out / "named-outputs" / "score", out / "vectors.parquet")
    write(account, out / "report.json")
    return out / "vectors.parquet", account


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path, nargs="?", help="a CSV with an image or text column")
    add_options(parser, "clip-batch")
    options = parser.parse_args()
    if not options.clean and (options.table is None or not options.table.is_file()):
        parser.error(f"no such file: {options.table}")
    client = connected(options)
    if options.clean:
        name = options.endpoint or endpoint_name(client, "clip-batch")
        client.batch_endpoints.begin_delete(name).result()
        return
    name = deploy(client, options.device, options.endpoint, options.model, options.sku)
    vectors, account = embed(client, name, options.table)
    print(account)
    print(vectors)


if __name__ == "__main__":
    main()
