"""How an error says with which status a server has answered, and that status again.

Jobs count statuses: that an image is gone (404) asks for something else than that the job is not
let in (403, 429). An output has an error's message alone.
"""

from __future__ import annotations

import http.client
import re

_SAID = re.compile(r"(?:image: )?\S+ answered (\d{3})\b")


def named(status: int) -> str:
    """A status with its name, where it has one: `404 Not Found`."""
    return f"{status} {http.client.responses.get(status, '')}".rstrip()


def said(where: str, status: int) -> str:
    """A message. where: the URL, without blanks."""
    return f"{where} answered {named(status)}"


def status_in(message: str) -> str:
    """The status that a row's message says, in digits; empty where it says none."""
    match = _SAID.match(message)
    return match[1] if match else ""
