"""What an error of urllib3 was caused by. Pure."""

from __future__ import annotations

from collections.abc import Iterator


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, its causes and contexts."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def proxy_refusal(error: BaseException) -> str:
    """The status line with which a proxy refused a tunnel; empty where that is not the error."""
    for cause in causes(error):
        if type(cause) is OSError:  # http.client's, which has no class of its own for it
            _, prefix, status = str(cause).partition("Tunnel connection failed: ")
            if prefix:
                return status[:80]
    return ""
