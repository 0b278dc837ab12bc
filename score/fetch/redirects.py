"""Where redirects lead, and how many are followed. Each target is judged like a cell's own URL."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from urllib3.response import BaseHTTPResponse
from urllib3.util import Url

from score.errors import FetchFailed
from score.fetch import urls
from score.fetch.deadline import Deadline

STATUSES = frozenset({300, 301, 302, 303, 307, 308})


class Redirect(NamedTuple):
    """An answer that leads to another `url`, to be requested after `pause` seconds."""

    url: str
    pause: float


def follow(
    url: str, request: Callable[[Url], bytes | Redirect], most: int, deadline: Deadline
) -> bytes:
    """The body at the end of at most `most` redirects.

    `request` sends one request. Raises BadUrl, FetchFailed, and what `request` raises.
    """
    for _ in range(most + 1):
        target = urls.parse(url)
        answer = request(target)
        if isinstance(answer, bytes):
            return answer
        if answer.pause >= deadline.left():
            raise FetchFailed(
                f"{urls.where(target)} redirects after {answer.pause:.0f} s", retryable=True
            )
        if answer.pause:
            deadline.cancellation.sleep(answer.pause)
        url = answer.url
    raise FetchFailed(f"more than {most} redirects")


def location(answer: BaseHTTPResponse, target: Url, where: str) -> str:
    """The URL that the `Location` of an answer from `target` names. `where`: what messages call it.

    Raises FetchFailed, BadUrl.
    """
    locations = set(answer.headers.getlist("Location"))
    if len(locations) > 1:
        raise FetchFailed(f"{where} redirects to several places")
    (url,) = locations
    if not url:
        raise FetchFailed(f"{where} redirects to nowhere")
    return urls.redirected(target, url, where)
