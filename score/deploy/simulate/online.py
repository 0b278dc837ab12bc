"""Runs a real-time deployment's YAML on this machine, under Azure's own inference server.

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

from score.deploy.simulate import client, definition
from score.deploy.simulate.folders import mounted
from score.deploy.simulate.front import Front, Limits
from score.deploy.simulate.machine import Machine
from score.deploy.simulate.ports import check_free, free_port

_KIND = "managedOnlineDeployment"
_HERE = Path(__file__).resolve().parent


@contextmanager
def container(
    file: Path, *, model: Path, port: int, machine: Machine | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a real-time deployment's container, as a process, until the context is left.

    `model`: the registered model's folder. Azure's server listens on all addresses of this machine;
    it has no option for that. Raises AzureError for YAML that is no such deployment, and for a port
    that is in use.
    """
    content = definition.read(file, _KIND)
    script = definition.script(content, file, "nocode_online.py")
    root = definition.code(content, file) or _HERE
    variables = definition.variables(content, file)
    workers = definition.number(variables, "WORKER_COUNT", 1, 1, file)
    server = [str(Path(sys.executable).parent / "azmlinfsrv"), "--entry_script", str(script)]
    command = (machine or Machine()).command(workers, [*server, "--port", str(port)])
    check_free(port)
    with mounted(model) as folder:
        environment = {
            **os.environ,
            **variables,
            "AZUREML_MODEL_DIR": str(folder),
            "AML_APP_ROOT": str(root),
        }
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=root,
            env=environment,
            start_new_session=True,
            stdout=sys.stderr,  # stdout is for answers alone, so that they can be piped
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


@contextmanager
def endpoint(
    file: Path, *, model: Path, port: int, machine: Machine | None = None, key: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a deployment's container behind an endpoint's front end, which listens on `port`.

    Entered once it answers; yields the container's process. `key`: what clients must send, as with
    `auth_mode: key`. Raises AzureError as `container` does, and where the container does not start.
    """
    inner = free_port()
    with (
        closing(Front(port, inner, limits(file), key)) as front,
        container(file, model=model, port=inner, machine=machine) as process,
    ):
        client.wait(f"http://127.0.0.1:{inner}", process)
        with front.serving():
            yield process


def limits(file: Path) -> Limits:
    """The request limits of a real-time deployment's YAML, with Azure's defaults
    (https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-managed-online).

    Raises AzureError as `container` does.
    """
    content = definition.read(file, _KIND)
    requests = definition.part(content, "request_settings", file)
    number = definition.number
    return Limits(
        seconds=number(requests, "request_timeout_ms", 5000, 1, file) / 1000,
        concurrency=number(requests, "max_concurrent_requests_per_instance", 1, 1, file),
        instances=number(content, "instance_count", 1, 1, file),
    )
