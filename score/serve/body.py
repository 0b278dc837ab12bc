"""The body of a request."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request


async def read(request: Request, limit: int) -> bytes | None:
    """The request's body; None if it is larger than `limit` bytes, of which no more are read."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        return None
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                return None
    except ClientDisconnect:
        raise HTTPException(400, "the client disconnected") from None
    return bytes(body)
