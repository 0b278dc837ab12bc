"""A client of a simulated endpoint: waits until it is ready, and sends request files."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import urllib3

from score.deploy.simulate.front import STATUS
from score.errors import AzureError

_http = urllib3.PoolManager()


def ready(address: str, process: subprocess.Popen[bytes], seconds: float = 600) -> bool:
    """Polls a server's health route until it answers 200.

    False once its process has ended, or after `seconds`.
    """
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        try:
            if _http.request("GET", address, retries=False, timeout=10).status == 200:
                return True
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.2)
    return False


def wait(address: str, process: subprocess.Popen[bytes]) -> None:
    """Waits until a container is ready. Raises AzureError where `ready` returns False."""
    if not ready(address, process):
        raise AzureError("the container did not start: its log, above, says why")


class Answer(NamedTuple):
    """What an endpoint answered. `container`: the container's own status where that is a 424."""

    status: int
    body: str
    container: str | None = None

    def __str__(self) -> str:
        container = f" (the container's {self.container})" if self.container else ""
        return f"{self.status}{container} {self.body}"


def ask(address: str, request: Path, key: str | None = None) -> Answer:
    """Posts a request file. Raises AzureError for an unreadable file, and where nothing answers.

    `key`: sent as `Authorization: Bearer KEY`.
    """
    try:
        body = request.read_bytes()
    except OSError as error:
        raise AzureError(f"{request} cannot be read: {error}") from error
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    try:
        response = _http.request(
            "POST", address, body=body, headers=headers, retries=False, timeout=180
        )
    except urllib3.exceptions.HTTPError as error:
        raise AzureError(f"{address} does not answer: {error}") from error
    return Answer(response.status, response.data.decode(), response.headers.get(STATUS))
