"""What a server forbids by `X-Robots-Tag` headers. Pure.

A header has directives, separated by commas. A robot's name and a colon before one restrict it, and
those that follow in the same header, to that robot:

    X-Robots-Tag: noai, noimageai
    X-Robots-Tag: otherbot: noindex, nofollow
    X-Robots-Tag: unavailable_after: 25 Jun 2030 15:00:00 PST

There is no standard beyond what search engines document; `noai` and `noimageai` come from
DeviantArt, and img2dataset goes by them, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FORBIDDING = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
_WITH_VALUES = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)
_EVERYBODY = frozenset({"*", "robots"})
_PRODUCT = re.compile(r"([a-z][a-z0-9_.-]*)/")
_ROBOT = re.compile(r"\*|[a-z][a-z0-9_.-]*")


def names(user_agent: str) -> frozenset[str]:
    """The names that a `User-Agent` header answers to, in lower case: its products', and its first
    word, as in `Mozilla/5.0 (compatible; MyBot/1.0)`."""
    agent = user_agent.lower()
    return frozenset(_PRODUCT.findall(agent)) | frozenset(re.split(r"[/\s]", agent)[:1])


def forbidding(headers: Iterable[str], ours: frozenset[str]) -> str | None:
    """The first directive by which one of the `X-Robots-Tag` headers forbids an image to the robot
    of the names `ours`; None where none does."""
    for header in headers:
        is_meant = True
        for member in header.lower().split(","):
            before, colon, directive = (part.strip() for part in member.partition(":"))
            if not colon:
                directive = before
            elif _ROBOT.fullmatch(before) and before not in _WITH_VALUES:
                is_meant = before in ours | _EVERYBODY
            else:
                continue
            # A directive's value is none of those that forbid, nor is what has a second colon.
            if is_meant and directive in _FORBIDDING:
                return directive
    return None
