"""Registers a package in MLflow's model registry, after logging it as a run's artifact."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow.exceptions import MlflowException

from score.errors import ModelError
from score.package.export import export

_ARTIFACT = "model"  # path of the package among the run's artifacts
_ALIAS = re.compile(r"(?!(latest|v\d+)$)[\w-]+", re.ASCII | re.IGNORECASE)


def register(
    model: str | Path,
    name: str,
    *,
    aliases: Sequence[str] = (),
    tracking_uri: str | None = None,
) -> str:
    """Registers a package as the next version of `name`, and returns `models:/NAME/VERSION`.

    `model`: a folder or URI, as in `ModelFolder.open`; only the package's own files are logged.
    `aliases`: moved to this version. `tracking_uri`: MLflow's server or database, for the rest of
    this process (`mlflow.set_tracking_uri`). Raises ModelError.
    """
    for alias in aliases:
        if not _ALIAS.fullmatch(alias):
            raise ModelError(
                f"{alias!r} cannot be an alias: letters, digits, _ and -, not 'latest' or a version"
            )
    if tracking_uri:
        mlflow.set_tracking_uri(tracking_uri)
    with TemporaryDirectory() as scratch, _mlflow_errors():
        client = mlflow.MlflowClient()
        _check_name(client, name)
        package = export(model, Path(scratch) / _ARTIFACT)
        with mlflow.start_run(run_name=f"score register {name}") as run:
            mlflow.log_artifacts(str(package), _ARTIFACT)
        version = mlflow.register_model(f"runs:/{run.info.run_id}/{_ARTIFACT}", name).version
        for alias in aliases:
            client.set_registered_model_alias(name, alias, version)
    return f"models:/{name}/{version}"


@contextmanager
def _mlflow_errors() -> Iterator[None]:
    """Turns MLflow's errors into ModelError, and sends what it prints to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except MlflowException as error:
        raise ModelError(f"MLflow refuses: {error.message}") from error


def _check_name(client: mlflow.MlflowClient, name: str) -> None:
    """Raises MlflowException for an invalid model name, before anything is uploaded."""
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
