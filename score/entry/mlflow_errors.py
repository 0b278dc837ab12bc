"""Our refusals as exceptions that MLflow's server answers with a 4xx and no stack trace."""

from __future__ import annotations

from collections.abc import Callable

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from score.contract import wire
from score.errors import RequestError, RequestTooLarge


class refusing:
    """A block in which a RequestError becomes the MlflowException that the server answers."""

    def __init__(self, release: Callable[[], None] | None = None) -> None:
        """`release` is called before an exception goes on."""
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
    """A refusal that MLflow's server answers as a 413; it has no error code for one."""

    def get_http_status_code(self) -> int:
        return RequestTooLarge.status
