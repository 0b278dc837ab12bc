"""Reads the bodies of requests."""

from __future__ import annotations

import io

from starlette.requests import ClientDisconnect, Request

from score.core.bodies import Body
from score.errors import Cancelled


async def read(request: Request, body: Body) -> bytes:
    """The body of a request, counted while it arrives.

    Raises RequestTooLarge and Overloaded as soon as it is too large, and reads no more; Cancelled
    if the client goes away.
    """
    content = io.BytesIO()  # its `getvalue` makes no copy
    try:
        async for chunk in request.stream():
            body.add(len(chunk))
            content.write(chunk)
    except ClientDisconnect:
        raise Cancelled("the client went away before its body was complete") from None
    return content.getvalue()
