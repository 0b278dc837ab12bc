"""Request errors as exceptions that MLflow's server answers with a 4xx and no stack trace."""

from __future__ import annotations

from collections.abc import Callable

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from score.contract import wire
from score.errors import (
    OutOfMemory,
    Overloaded,
    RequestError,
    RequestTimeout,
    RequestTooLarge,
)

_WITHOUT_CODE = (RequestTooLarge, Overloaded, OutOfMemory, RequestTimeout)


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
            # No name for it here: its traceback would refer to this frame, and that to it, so that
            # the request's body stayed in memory with them.
            raise _Refused.of(error) from None


class _Refused(MlflowException):  # type: ignore[misc]  # MLflow's types are not known here
    """Answered by MLflow's server with its `status`: MLflow has no error codes for most."""

    status: int = 400

    @classmethod
    def of(cls, error: RequestError) -> _Refused:
        refused = cls(str(error), error_code=INVALID_PARAMETER_VALUE, error=wire.error_body(error))
        if isinstance(error, _WITHOUT_CODE):
            refused.status = error.status
        return refused

    def get_http_status_code(self) -> int:
        return self.status
