"""The YAML of a deployment or component → the same run on this machine, as Azure would run it.

Real-time deployments run under Azure's own inference server, batch deployments and parallel
components under the stand-in of `simulate`. Where the YAML names no entry script, as Azure's
no-code deployments do, ours of the same kind takes its place (`nocode_online`, `nocode_batch`).
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import urllib3
import yaml

from score.deploy.front import STATUS, Front, Limits
from score.deploy.simulate import Job, Report, files_of, run
from score.deploy.skus import Sku
from score.deploy.values import BINDING, Json, whole
from score.errors import AzureError
from score.package.contents import IGNORE, PARTS
from score.storage.outputs import is_empty

_HERE = Path(__file__).resolve().parent
_http = urllib3.PoolManager()

_LITERALS = ("string", "integer", "number", "boolean")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node may use; None is all there is."""

    cores: int | None = None
    memory: int | None = None  # bytes

    @classmethod
    def like(cls, sku: Sku) -> Machine:
        """One of a size, as far as there are as many cores here."""
        return cls(sku.vcpus, sku.memory_gib * 2**30)

    def command(self, processes: int, command: Sequence[str]) -> list[str]:
        """A command that keeps to this, where so many of its processes share a node."""
        if self.cores is None or self.memory is None:
            return list(command)
        limits = [str(self.cores), str(self.memory // processes)]
        return [sys.executable, str(_HERE / "limits.py"), *limits, *command]


def batch(
    file: Path,
    inputs: Path,
    output: Path,
    *,
    model: Path,
    nodes: int | None = None,
    machine: Machine | None = None,
) -> Report:
    """Runs a batch deployment over the files of a folder, as `az ml batch-endpoint invoke` does.

    `model`: the folder that is registered. `nodes`: other than the YAML says. Raises AzureError for
    what is no such deployment, and for an output that is there already.
    """
    content = _read(file, "modelBatchDeployment", "batchDeployment")
    # The older schema, which Azure's examples name, has the settings at the top, too.
    settings = {**content, **_part(content, "settings", file)}
    retry = _part(settings, "retry_settings", file)
    append = settings.get("output_action", "append_row") == "append_row"
    table = settings.get("output_file_name", "predictions.csv")
    processes = _number(settings, "max_concurrency_per_instance", 1, 1, file)
    with _mounted(model) as mounted:
        job = Job(
            script=_script(content, file, "nocode_batch.py"),
            arguments=(),
            environment={
                **_variables(settings, file),
                "AZUREML_MODEL_DIR": str(mounted),
                "AZUREML_BI_OUTPUT_PATH": str(_new(output)),
            },
            nodes=nodes or _number(_part(content, "resources", file), "instance_count", 1, 1, file),
            processes=processes,
            mini_batch=_number(settings, "mini_batch_size", 10, 1, file),
            retries=_number(retry, "max_retries", 3, 0, file),
            timeout=_number(retry, "timeout", 30, 1, file),
            error_threshold=_number(settings, "error_threshold", -1, -1, file),
            append_to=output / table if append else None,
            prefix=(machine or Machine()).command(processes, ()),
            folder=_code(content, file),
        )
        return run(job, _files(inputs))


def parallel(
    file: Path,
    inputs: Mapping[str, str],
    output: Path,
    *,
    nodes: int | None = None,
    machine: Machine | None = None,
) -> Report:
    """Runs a parallel component. Its outputs are `output/NAME` each.

    `inputs`: its inputs by name, paths or values. Raises AzureError as `batch` does, and for inputs
    that are missing or not its own.
    """
    content = _read(file, "parallelComponent")
    wanted: Json = content.get("inputs") or {}
    optional = {name for name, kind in wanted.items() if kind.get("optional")}
    values = {name: str(kind["default"]) for name, kind in wanted.items() if "default" in kind}
    values |= inputs
    _names(set(values) | optional, set(wanted), file)
    folder = _new(output)
    for name, value in values.items():  # processes do not start in this folder
        if wanted[name]["type"] not in _LITERALS:
            values[name] = str(Path(value).resolve())
    given = {f"inputs.{name}": value for name, value in values.items()}
    for name, kind in (content.get("outputs") or {}).items():
        given[f"outputs.{name}"] = str(folder / name)
        if kind["type"] == "uri_folder":
            (folder / name).mkdir(parents=True)

    def bound(text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1].strip()
            if name not in given:
                raise AzureError(f"{file}: {match[0]} leads nowhere")
            return given[name]

        return BINDING.sub(value, text)

    task = _part(content, "task", file)
    retry = _part(content, "retry_settings", file)
    append = task.get("append_row_to")
    processes = _number(content, "max_concurrency_per_instance", 1, 1, file)
    arguments = [bound(word) for word in shlex.split(task.get("program_arguments", ""))]
    job = Job(
        script=_script(task, file, None),
        arguments=tuple(arguments),
        environment=_variables(content, file),
        nodes=nodes or _number(_part(content, "resources", file), "instance_count", 1, 1, file),
        processes=processes,
        mini_batch=_number(content, "mini_batch_size", 1, 1, file),
        retries=_number(retry, "max_retries", 2, 0, file),
        timeout=_number(retry, "timeout", 60, 1, file),
        error_threshold=_error_threshold(arguments, content, file),
        batch_error_threshold=_number(content, "mini_batch_error_threshold", -1, -1, file),
        append_to=Path(bound(append)) if append else None,
        prefix=(machine or Machine()).command(processes, ()),
        folder=_code(task, file),
    )
    return run(job, _files(Path(bound(content["input_data"]))))


@contextmanager
def online(
    file: Path, *, model: Path, port: int, machine: Machine | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a real-time deployment under Azure's inference server until left.

    That server listens on all of the machine's addresses, and cannot be told otherwise. Raises
    AzureError for what is no such deployment, and for a port that is taken.
    """
    content = _read(file, "managedOnlineDeployment")
    script = _script(content, file, "nocode_online.py")
    root = _code(content, file) or _HERE
    variables = _variables(content, file)
    workers = _number(variables, "WORKER_COUNT", 1, 1, file)
    server = [str(Path(sys.executable).parent / "azmlinfsrv"), "--entry_script", str(script)]
    command = (machine or Machine()).command(workers, [*server, "--port", str(port)])
    _must_be_free(port)
    with _mounted(model) as mounted:
        environment = {
            **os.environ,
            **variables,
            "AZUREML_MODEL_DIR": str(mounted),
            "AML_APP_ROOT": str(root),
        }
        process = subprocess.Popen(  # noqa: S603
            # Its log beside ours, so that what it answered can be read from a pipe.
            command,
            cwd=root,
            env=environment,
            start_new_session=True,
            stdout=sys.stderr,
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
    """Runs a real-time deployment as `online` does, behind the front end of an endpoint, which
    holds the port; entered once it answers, with the container's process.

    `key`: what clients must send, as `auth_mode: key` asks them to. Raises AzureError as `online`
    does, and where the container does not start.
    """
    container = free_port()
    with (
        closing(Front(port, container, limits(file), key)) as front,
        online(file, model=model, port=container, machine=machine) as process,
    ):
        wait(f"http://127.0.0.1:{container}", process)
        with front.serving():
            yield process


def limits(file: Path) -> Limits:
    """What a real-time deployment's YAML says of its requests, else Azure's defaults
    (https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-managed-online).

    Raises AzureError as `online` does.
    """
    content = _read(file, "managedOnlineDeployment")
    requests = _part(content, "request_settings", file)
    return Limits(
        seconds=_number(requests, "request_timeout_ms", 5000, 1, file) / 1000,
        concurrency=_number(requests, "max_concurrent_requests_per_instance", 1, 1, file),
        instances=_number(content, "instance_count", 1, 1, file),
    )


def free_port() -> int:
    """A port of this machine that nobody has. Raises AzureError.

    Not one of those that the system hands out to connections (from 32768 on, on Linux): one of them
    might take it before the server that it is for has started.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with suppress(AzureError):
            _must_be_free(port)
            return port
    raise AzureError("no port is free")


def _must_be_free(port: int) -> None:
    with socket.socket() as wanted:
        wanted.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            wanted.bind(("0.0.0.0", port))  # noqa: S104  # as Azure's server will
        except OSError as error:
            raise AzureError(f"port {port}: {error.strerror}") from None


def ready(address: str, process: subprocess.Popen[bytes], seconds: float = 600) -> bool:
    """Waits for a server's health route; false if its process ends, or is not ready by then."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        try:
            if _http.request("GET", address, retries=False, timeout=10).status == 200:
                return True
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.2)
    return False


def wait(address: str, process: subprocess.Popen[bytes]) -> None:
    """Waits until a container is ready. Raises AzureError where it ends before, or never is."""
    if not ready(address, process):
        raise AzureError("the container did not start: its log, above, says why")


class Answer(NamedTuple):
    """What a deployment answered. `container`: its own status, where a front end says 424."""

    status: int
    body: str
    container: str | None = None

    def __str__(self) -> str:
        said = f" (the container's {self.container})" if self.container else ""
        return f"{self.status}{said} {self.body}"


def ask(address: str, request: Path, key: str | None = None) -> Answer:
    """The answer to a request file. Raises AzureError for none."""
    try:
        body = request.read_bytes()
    except OSError as error:
        raise AzureError(f"{request} cannot be read: {error}") from error
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    try:
        answer = _http.request(
            "POST", address, body=body, headers=headers, retries=False, timeout=180
        )
    except urllib3.exceptions.HTTPError as error:
        raise AzureError(f"{address} does not answer: {error}") from error
    return Answer(answer.status, answer.data.decode(), answer.headers.get(STATUS))


def _read(file: Path, *kinds: str) -> Json:
    """A file of one of these schemas; one that names none is taken at its word."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise AzureError(f"{file} cannot be read: {error}") from error
    said = str(content.get("$schema", "")) if isinstance(content, dict) else "none"
    if said and not any(f"/{kind}.schema.json" in said for kind in kinds):
        raise AzureError(f"{file} is no {kinds[0]}")
    return content  # type: ignore[no-any-return]


def _code(content: Json, file: Path) -> Path | None:
    code = (content.get("code_configuration") or {}).get("code", content.get("code"))
    return None if code is None else (file.parent / code).resolve()


def _script(content: Json, file: Path, nocode: str | None) -> Path:
    configured: Json = content.get("code_configuration") or {}
    name = configured.get("scoring_script", content.get("entry_script"))
    code = _code(content, file)
    if code is not None and name:
        script: Path = code / name
    elif nocode:
        script = _HERE / nocode
    else:
        raise AzureError(f"{file} names no entry script")
    if not script.is_file():
        raise AzureError(f"{file}: there is no {script}")
    return script


def _variables(content: Json, file: Path) -> dict[str, str]:
    given = _part(content, "environment_variables", file)
    return {name: str(value) for name, value in given.items()}


def _part(content: Json, name: str, file: Path) -> Json:
    """A mapping within another, empty where it is not there."""
    part = content.get(name) or {}
    if not isinstance(part, dict):
        raise AzureError(f"{file}: {name}: {part!r} is no mapping")
    return part


def _number(given: Json, name: str, default: int, least: int, file: Path) -> int:
    return whole(f"{file}: {name}", given.get(name, default), least)


@contextmanager
def _mounted(model: Path) -> Iterator[Path]:
    """What Azure names in AZUREML_MODEL_DIR: a folder that holds the model's own."""
    if not model.is_dir():
        raise AzureError(f"there is no model folder {model}")
    with TemporaryDirectory(prefix="azureml-models-") as folder:
        version = Path(folder) / "clip" / "1"
        version.mkdir(parents=True)
        _copy(model.resolve(), version / model.resolve().name)
        yield version


def _copy(model: Path, target: Path) -> None:
    """What Azure would have uploaded, in real folders: MLflow refuses paths that links lead out of.

    Of a package of ours or a clone that is its parts, of other models all there is.
    """
    parts = [model / name for name in PARTS] if (model / IGNORE).is_file() else model.iterdir()
    target.mkdir()
    for part in parts:
        if part.is_dir():
            shutil.copytree(part, target / part.name, copy_function=_link)
        elif part.is_file():
            _link(str(part), str(target / part.name))


def _link(file: str, target: str) -> None:
    """A hard link, since weights are large, or a copy where the two are on different disks."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _files(folder: Path) -> list[Path]:
    found = [file.resolve() for file in files_of(folder)] if folder.is_dir() else []
    if not found:
        raise AzureError(f"{folder} is no folder with files in it")
    return found


def _new(output: Path) -> Path:
    """Azure gives each job a folder of its own, so none is overwritten."""
    if output.exists() and (not output.is_dir() or not is_empty(output)):
        raise AzureError(f"{output} is there already: name another output")
    output.mkdir(parents=True, exist_ok=True)
    return output.resolve()


def _names(given: set[str], wanted: set[str], file: Path) -> None:
    for name in sorted(wanted - given):
        raise AzureError(f"{file}: input {name!r} is missing")
    for name in sorted(given - wanted):
        raise AzureError(f"{file} has no input {name!r}, only: {', '.join(sorted(wanted))}")


def _error_threshold(arguments: Sequence[str], content: Json, file: Path) -> int:
    """As Azure's runner is told: by an argument of the program, else by the component."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--error_threshold", default=content.get("error_threshold", -1))
    given = vars(parser.parse_known_args(arguments)[0])
    return _number(given, "error_threshold", -1, -1, file)
