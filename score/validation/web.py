"""What is wrong with a User-Agent, a proxy's URL, an origin; empty for one that can be used."""

from __future__ import annotations

from urllib.parse import urlsplit


def user_agent_fault(text: str) -> str:
    """What is wrong with a User-Agent; a line break would add headers to requests."""
    if not text.strip() or len(text) > 500 or not (text.isascii() and text.isprintable()):
        return "must be one line of 1 to 500 printable ASCII characters"
    return ""


def proxy_fault(text: str) -> str:
    """What is wrong with a proxy's URL, without showing its password."""
    if not text:
        return ""
    example = "must be like http://proxy.example:3128, with user:password@ where it asks for them"
    try:
        url = urlsplit(text)
        usable = url.scheme == "http" and url.hostname and url.port != 0
    except ValueError:
        return example
    blank = not (text.isascii() and text.isprintable()) or " " in text
    if not usable or blank or url.path not in ("", "/") or url.query or url.fragment:
        return example
    return ""


def origin_fault(text: str) -> str:
    """What is wrong with a web site's origin, which browsers write without a path."""
    try:
        url = urlsplit(text)
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        usable = False
    plain = text == f"{url.scheme}://{url.netloc}".lower() if usable else text == "*"
    if not plain or "@" in text or not (text.isascii() and text.isprintable()) or " " in text:
        return "must be like https://app.example or http://app.example:8080, without a path, or *"
    return ""
