"""What object stores and web servers raise, as one sentence without what was signed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from score.errors import RequestError

_DENIED, _MISSING = (401, 403), (404, 410)


@contextmanager
def as_os_error() -> Iterator[None]:
    """Makes an OSError of whatever a store's library raises.

    Their messages may hold what was signed, and headers: only the kind of the error is told.
    """
    try:
        yield
    except (ImportError, RequestError):
        raise
    except Exception as error:
        raise _translated(error) from None


def _translated(error: Exception) -> OSError:
    chain = [*_causes(error)]
    status = next(filter(None, map(_status, chain)), 0)
    kinds = [type(one).__name__ for one in chain]
    if status in _DENIED or isinstance(error, PermissionError):
        return PermissionError("access is denied: are the credentials those of this store?")
    if any("Credential" in kind or "Auth" in kind for kind in kinds):
        return OSError(f"the store cannot be read ({kinds[0]}); are credentials missing?")
    if any("Certificate" in kind or "SSL" in kind for kind in kinds):
        return OSError("its certificate is not trusted; SSL_CERT_FILE may name an authority's file")
    if any("Timeout" in kind for kind in kinds):
        return TimeoutError("the server does not answer in time")
    if any("Connect" in kind or kind == "ServiceRequestError" for kind in kinds):
        return ConnectionError("the server does not answer: is its address right?")
    if isinstance(error, FileNotFoundError) and (status in _MISSING or not status):
        return FileNotFoundError("there is no such file, container or bucket")
    if status:
        return OSError(f"the server answers {status}")
    return OSError(f"the store cannot be read ({kinds[0]})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it came of."""
    found: BaseException | None = error
    for _ in range(10):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__


def _status(error: BaseException) -> int:
    """The HTTP status that an error tells; 0 for none."""
    answer = getattr(error, "response", None)
    told = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}  # botocore's
    code = told.get("HTTPStatusCode")
    for name in ("status_code", "status", "code"):
        if code is None:
            code = getattr(error, name, None)
    return code if isinstance(code, int) and 400 <= code < 600 else 0
