"""Runs a real-time deployment's YAML on this machine, under the server that it chooses.

Where the YAML names no entry script, as Azure's no-code deployments do, `nocode_online` stands in
for Azure's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from score.deploy.simulate import client, definition
from score.deploy.simulate.folders import mounted
from score.deploy.simulate.front import Front, Limits
from score.deploy.simulate.launch import Deployment, launch
from score.deploy.simulate.machine import Machine
from score.deploy.simulate.ports import check_free, free_port
from score.errors import AzureError


class Container(NamedTuple):
    """A container that has been started. probes: the routes that must answer, in this order."""

    process: subprocess.Popen[bytes]
    port: int
    probes: tuple[str, ...]

    def wait(self) -> None:
        """Waits until its probes answer. Raises AzureError where it ends before."""
        for route in self.probes:
            client.wait(f"http://127.0.0.1:{self.port}{route}", self.process)


@contextmanager
def container(
    deployment: Deployment, *, model: Path, port: int, machine: Machine | None = None
) -> Iterator[Container]:
    """Runs a real-time deployment's container, as a process, until the context is left.

    `model`: the registered model's folder. Azure's server listens on all addresses of this machine;
    it has no option for that. Raises AzureError for unusable YAML, for a port that is in use, and
    for a model without the code that its server runs.
    """
    runs = launch(deployment, port)
    if runs.runs_model and model.is_dir() and not (model / "score" / "__main__.py").is_file():
        raise AzureError(f"{model} has no folder score/, whose code the deployment's server runs")
    command = (machine or Machine()).command(runs.workers, runs.command)
    check_free(port)
    with mounted(model) as folder:
        environment = {
            **os.environ,
            **runs.variables,
            "AZUREML_MODEL_DIR": str(folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=runs.folder,
            env=environment,
            start_new_session=True,
            stdout=sys.stderr,  # stdout is for answers alone, so that they can be piped
        )
        try:
            yield Container(process, port, runs.probes)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a container as Azure does: SIGTERM to its first process, which then answers what it has
    begun. Whatever is left of it is killed, also where the waiting is interrupted."""
    try:
        process.terminate()
        process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def endpoint(
    deployment: Deployment,
    *,
    model: Path,
    port: int,
    machine: Machine | None = None,
    key: str | None = None,
) -> Iterator[Container]:
    """Runs a deployment's container behind an endpoint's front end, which listens on `port`.

    Entered once it answers; yields the container. `key`: what clients must send, as with
    `auth_mode: key`. Raises AzureError as `container` does, and where the container does not start.
    """
    inner = free_port()
    with (
        closing(Front(port, inner, limits(deployment), key)) as front,
        container(deployment, model=model, port=inner, machine=machine) as behind,
    ):
        behind.wait()
        with front.serving():
            yield behind


def limits(deployment: Deployment) -> Limits:
    """The request limits of a real-time deployment's YAML, with Azure's defaults
    (https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-managed-online).

    Raises AzureError for numbers that are none.
    """
    file, content = deployment
    requests = definition.part(content, "request_settings", file)
    number = definition.number
    return Limits(
        seconds=number(requests, "request_timeout_ms", 5000, 1, file) / 1000,
        concurrency=number(requests, "max_concurrent_requests_per_instance", 1, 1, file),
        instances=number(content, "instance_count", 1, 1, file),
    )
