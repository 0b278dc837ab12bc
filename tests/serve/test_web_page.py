"""The files of the page at `/`: their headers, and that they need nothing from elsewhere."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import requests
from starlette.applications import Starlette

from score.serve import keys, web_page
from score.serve.access import access_of, protected
from score.settings import Settings
from tests.support.asgi import listening

FOLDER = Path(web_page.__file__).with_name("page")
each = pytest.mark.parametrize("path", web_page.FILES)


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The URL of a server without keys, for this machine only."""
    app = protected(Starlette(routes=web_page.routes()), access_of("127.0.0.1", Settings()))
    with listening(app) as (host, port):
        yield f"http://{host}:{port}"


def directives(response: requests.Response) -> dict[str, list[str]]:
    """The content security policy: name → sources."""
    policy = response.headers["Content-Security-Policy"]
    found = [directive.split() for directive in policy.split(";")]
    return {name: sources for name, *sources in found}


@each
def test_a_file_is_answered_as_its_type(base: str, path: str) -> None:
    response = requests.get(base + path, timeout=10)
    file = FOLDER / web_page.FILES[path]
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    kind = kinds.get(file.suffix, "image/svg+xml")
    assert response.status_code == 200
    assert response.headers["Content-Type"].partition(";")[0] == kind
    assert kind == "image/svg+xml" or response.headers["Content-Type"].endswith("charset=utf-8")
    assert response.content == file.read_bytes()
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_all_files_of_the_folder_are_served() -> None:
    assert {file.name for file in FOLDER.iterdir()} == set(web_page.FILES.values())


@each
def test_head_has_the_headers_of_get(base: str, path: str) -> None:
    got = requests.get(base + path, timeout=10)
    head = requests.head(base + path, timeout=10)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("Content-Type", "Content-Length", "ETag", "Content-Security-Policy"):
        assert head.headers[name] == got.headers[name]


@each
def test_a_browser_loads_and_runs_only_what_this_server_sends(base: str, path: str) -> None:
    response = requests.get(base + path, timeout=10)
    policy = directives(response)
    assert policy["default-src"] == ["'none'"]
    assert policy["frame-ancestors"] == ["'none'"]
    assert policy["base-uri"] == policy["form-action"] == ["'none'"]
    assert policy["require-trusted-types-for"] == ["'script'"]
    loaded = {source for name, sources in policy.items() if "-src" in name for source in sources}
    assert loaded == {"'none'", "'self'", "blob:"}
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == ["'self'"]
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', '"other",W/{}'])
def test_what_a_browser_has_is_not_sent_again(base: str, form: str) -> None:
    first = requests.get(f"{base}/page/page.js", timeout=10)
    assert first.headers["Cache-Control"] == "no-cache"
    headers = {"If-None-Match": form.format(first.headers["ETag"])}
    again = requests.get(f"{base}/page/page.js", headers=headers, timeout=10)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    other = requests.get(f"{base}/page/page.css", headers=headers, timeout=10)
    assert other.status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/page", "/page/", "/page/index.html", "/page/../web_page.py", "/page/%2e%2e/tls.py", "//"],
)
def test_nothing_else_is_served(base: str, path: str) -> None:
    host, _, port = base.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("path", ["/", "/page/page.js"])
def test_the_page_is_read_only(base: str, path: str) -> None:
    answer = requests.post(base + path, timeout=10)
    assert (answer.status_code, "GET" in answer.headers["Allow"]) == (405, True)


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:{port}", "http://localhost:{port}", 200),
        ("[::1]:{port}", "http://[::1]:{port}", 200),
        ("localhost:{port}", "http://127.0.0.1:{port}", 403),
        ("evil.example", "http://evil.example", 421),
    ],
)
def test_a_local_server_knows_its_own_page(base: str, host: str, origin: str, status: int) -> None:
    port = base.rpartition(":")[2]
    headers = {"Host": host.format(port=port), "Origin": origin.format(port=port)}
    assert requests.get(f"{base}/page/page.js", headers=headers, timeout=10).status_code == status


def test_the_page_needs_no_key(tmp_path: Path) -> None:
    keys.new(file := tmp_path / "keys.json", "web")
    access = access_of("127.0.0.1", Settings(api_keys_file=str(file)))
    with listening(protected(Starlette(routes=web_page.routes()), access)) as (host, port):
        for path in web_page.FILES:
            assert requests.get(f"http://{host}:{port}{path}", timeout=10).status_code == 200
        assert requests.post(f"http://{host}:{port}/", timeout=10).status_code == 401


class Links(HTMLParser):
    """What the page loads or leads to, and what may not be in it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        self.inline += [name for name, _ in attrs if name == "style" or name.startswith("on")]
        self.inline += [tag] if tag == "style" or (tag == "script" and not dict(attrs)) else []


def test_links_are_relative_so_that_a_proxy_may_add_a_prefix() -> None:
    links = Links()
    links.feed((FOLDER / "index.html").read_text(encoding="utf-8"))
    assert links.inline == []
    assert {f"/{link}" for link in links.found} <= set(web_page.FILES)
    for file in FOLDER.glob("*.js"):
        text = file.read_text(encoding="utf-8")
        imported = set(re.findall(r'from "(.+)"', text))
        assert imported <= {f"./{name}" for name in web_page.FILES.values()}
        assert "https://" not in text


def test_nothing_is_inserted_as_markup() -> None:
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|localStorage|cookie"
    for file in FOLDER.glob("*.js"):
        assert not re.findall(markup, file.read_text(encoding="utf-8")), file.name
