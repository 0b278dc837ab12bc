"""The bodies of requests: bounded each, and all together."""

from __future__ import annotations

import io
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from score.core.admission import overloaded
from score.errors import Cancelled, body_too_large
from score.settings import Settings


class Bodies:
    """The memory of all bodies that are arriving or being answered. For one event loop."""

    def __init__(self, settings: Settings) -> None:
        """By `max_request_bytes` and `max_pending_bytes`."""
        self._most_of_one = settings.max_request_bytes
        self._most = settings.max_pending_bytes or math.inf
        self._bytes = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request; it counts until the block ends.

        Raises RequestTooLarge and Overloaded as soon as the body, or what its header says of it, is
        too large, and reads no more; Cancelled if the client goes away.
        """
        declared = request.headers.get("content-length", "")
        self._check(0, int(declared) if declared.isdecimal() else 0)
        body = io.BytesIO()  # its `getvalue` makes no copy
        size = 0
        try:
            async for chunk in request.stream():
                self._check(size, size + len(chunk))
                size += body.write(chunk)
                self._bytes += len(chunk)
            yield body.getvalue()
        except ClientDisconnect:
            raise Cancelled("the client went away before its body was complete") from None
        finally:
            self._bytes -= size

    def _check(self, counted: int, size: int) -> None:
        """Whether a body of `size` bytes, of which some are counted already, may be read."""
        if size > self._most_of_one:
            raise body_too_large(self._most_of_one)
        others = self._bytes - counted
        if others and others + size > self._most:
            raise overloaded("the bodies of the requests under way fill max_pending_bytes", 1)
