"""URLs of cells and redirects: parsed, and shortened for messages without their secrets. Pure."""

from __future__ import annotations

import re
import urllib.parse
from contextlib import suppress
from functools import lru_cache

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from score.errors import BadUrl

_MAX_URL = 8192
_WEB = ("http", "https")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SECRET = re.compile(r"(?<=//)[^/?#]*@|[?#].*", re.DOTALL)
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]{0,63})://")
# A DNS name or an address. RFC 3986 allows more, such as percent-escapes, which a proxy might
# decode to an address that was not checked.
_HOST = re.compile(r"[a-zA-Z0-9._-]+|\[.+\]")


def is_web(cell: str) -> bool:
    """Whether a cell is an http(s) URL. Raises BadUrl for one of another scheme."""
    scheme = _SCHEME.match(cell)
    if scheme and scheme[1].lower() not in _WEB:
        raise BadUrl(f"only http and https URLs are fetched, not {scheme[1].lower()}")
    return scheme is not None


@lru_cache(maxsize=256)  # a cell's is needed three times, when it is judged, asked for and told of
def parse(url: str) -> Url:
    """An http(s) URL without its fragment. Raises BadUrl."""
    if len(url) > _MAX_URL:
        raise BadUrl(f"longer than {_MAX_URL} characters")
    try:
        target = parse_url(url)
    except (LocationParseError, UnicodeError, ValueError):
        raise BadUrl(f"cannot be read as a URL: {start(url)}") from None
    if target.auth:
        raise BadUrl("user name and password in a URL are not sent; use a signed URL")
    if not target.host:
        raise BadUrl(f"names no host: {start(url)}")
    if not _HOST.fullmatch(target.host):
        raise BadUrl(f"names neither a DNS name nor an address: {start(url)}")
    return target._replace(fragment=None)


def redirected(target: Url, location: str, where: str) -> str:
    """The URL of a `Location` header, which arrives decoded as Latin-1 and may have been UTF-8.

    `where`: what messages call the `target` that sent it. Raises BadUrl.
    """
    with suppress(UnicodeError):
        location = location.encode("latin-1").decode("utf-8")
    try:
        url = urllib.parse.urljoin(target.url, location)
    except ValueError:
        raise BadUrl(f"{where} redirects to something that is not a URL") from None
    if not (scheme := _SCHEME.match(url)) or scheme[1].lower() not in _WEB:
        raise BadUrl(f"{where} redirects to something that is not http or https")
    return url


def port(target: Url) -> int:
    """A URL's port, or its scheme's."""
    return target.port or _DEFAULT_PORTS[target.scheme or "http"]


def server(target: Url) -> str:
    """A URL's server: its host, and its port unless it is the scheme's default."""
    usual = target.port in (None, _DEFAULT_PORTS.get(target.scheme or ""))
    return f"{target.host}" if usual else f"{target.host}:{target.port}"


def where(target: Url) -> str:
    """The URL without its query, which may hold a signature."""
    path = target.path or "/"
    return start(f"{target.scheme}://{target.netloc}{path}", 120)


def start(text: str, length: int = 40) -> str:
    """How a cell or URL begins, without what may be secret: user, password, query."""
    public = _SECRET.sub("…", text[:_MAX_URL])
    shown = public if len(public) <= length else public[:length] + "…"
    if shown.isprintable():  # most are, and looking at each character takes long
        return shown
    return "".join(c if c.isprintable() else "�" for c in shown)
