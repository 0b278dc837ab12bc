"""Request errors as exceptions that MLflow's server answers with a 4xx and no stack trace."""

from __future__ import annotations

from collections.abc import Callable

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from score.contract import wire
from score.errors import RequestError, RequestTooLarge


class mlflow_errors:
    """A context that turns a RequestError into an MlflowException."""

    def __init__(self, release: Callable[[], None] | None = None) -> None:
        """`release` is called before an exception is raised."""
        self._release = release

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error and self._release:
            self._release()
        if isinstance(error, RequestError):
            kind = _TooLarge if isinstance(error, RequestTooLarge) else MlflowException
            raise kind(
                str(error), error_code=INVALID_PARAMETER_VALUE, error=wire.error_body(error)
            ) from None


class _TooLarge(MlflowException):  # type: ignore[misc]  # MLflow's types are not known here
    """Answered by MLflow's server with status 413, for which MLflow has no error code."""

    def get_http_status_code(self) -> int:
        return RequestTooLarge.status
