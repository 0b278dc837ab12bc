"""What a real-time deployment's container runs: Azure's inference server, or `score serve`.

Azure's server is started as its images do, with the deployment's entry script. `score serve` is
started by the command of the environment's Dockerfile, with two changes: it listens on the port
that is asked for, and on 127.0.0.1 alone, since it asks for no keys.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from score.deploy.rules import documents
from score.deploy.rules.documents import Document, Known
from score.deploy.rules.environment_definition import EnvironmentDefinition
from score.deploy.rules.environments import used
from score.deploy.server_choice import is_ours
from score.deploy.simulate import definition, dockerfile
from score.deploy.values import at
from score.errors import AzureError
from score.folder.model_folder import EMBEDDED
from score.type_aliases import Json

KIND = "managedOnlineDeployment"
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Launch:
    """A container's command.

    variables: the environment variables of image and deployment. probes: the routes that must
    answer before requests are sent, in this order. runs_model: whether it runs the model's code.
    """

    command: list[str]
    folder: Path  # working directory
    variables: Mapping[str, str]
    workers: int
    probes: tuple[str, ...]
    runs_model: bool = False


class Deployment(NamedTuple):
    """A real-time deployment's YAML: where it is, which its paths are relative to, and what it
    holds."""

    file: Path
    content: Json


def read(file: Path) -> Deployment:
    """Reads a deployment's YAML, once: it may be edited while its container runs.

    Raises AzureError for a file that is no such deployment.
    """
    return Deployment(file, definition.read(file, KIND))


def launch(deployment: Deployment, port: int) -> Launch:
    """What a deployment's container runs on a port. Raises AzureError for unusable YAML."""
    file, content = deployment
    variables = definition.variables(content, file)
    start = _ours if is_ours(variables) else _azures
    return start(file, content, variables, port)


def check_server(deployment: Deployment, ours: bool) -> None:
    """Raises AzureError where a deployment runs another server than is asked for."""
    file, content = deployment
    if is_ours(definition.variables(content, file)) != ours:
        flag = "--server" if ours else "--no-server"
        server = "Azure's inference server" if ours else "`score serve`"
        raise AzureError(f"{file} runs {server}: write it by `score azure render online {flag}`")


def _azures(file: Path, content: Json, variables: Mapping[str, str], port: int) -> Launch:
    script = definition.script(content, file, "nocode_online.py")
    root = definition.code(content, file) or _HERE
    server = [
        str(Path(sys.executable).parent / "azmlinfsrv"),
        "--entry_script",
        str(script),
        "--port",
        str(port),
    ]
    everything = {**variables, "AML_APP_ROOT": str(root)}
    return Launch(server, root, everything, _workers(variables, file), ("/",))


def _ours(file: Path, content: Json, variables: Mapping[str, str], port: int) -> Launch:
    environment = _environment(file, content)
    if environment.dockerfile is None:
        raise AzureError(f"{file}: its environment has no Dockerfile here that shows its command")
    of_image, command = dockerfile.what_runs(environment.dockerfile)
    (inside, _), (_, live), (_, ready) = (
        _route(file, environment, name) for name in ("scoring", "liveness", "readiness")
    )
    words = [re.sub(rf"\b{inside}\b", str(port), word) for word in command]
    words = [word.replace("0.0.0.0", "127.0.0.1") for word in words]  # noqa: S104
    everything = {**of_image, **variables}
    return Launch(words, _HERE, everything, _workers(everything, file), (live, ready), True)


def _workers(variables: Mapping[str, str], file: Path) -> int:
    return definition.number(dict(variables), "WORKER_COUNT", 1, 1, file)


def _environment(file: Path, content: Json) -> EnvironmentDefinition:
    """The deployment's environment: inline, in a YAML file beside it, or in the clone."""
    folders = [*sorted(file.parent.glob("*.y*ml")), EMBEDDED.parent / "environment"]
    document = Document(file, KIND, content)
    environment = used(document, content, Known([*documents.beside(folders)]))
    if environment is None:
        raise AzureError(
            f"{file}: environment: {content.get('environment')!r} is neither in a file beside it "
            "nor in environment/ of the clone"
        )
    return environment


def _route(file: Path, environment: EnvironmentDefinition, name: str) -> tuple[int, str]:
    """Port and path of a route of the environment."""
    where = f"inference_config.{name}_route"
    route = at(environment.environment, where)
    if not isinstance(route, dict) or not {"port", "path"} <= route.keys():
        raise AzureError(f"{file}: its environment has no {where} with port and path")
    return definition.number(route, "port", 0, 1, file), str(route["path"])
