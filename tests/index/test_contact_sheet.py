"""The page of a search: what it shows, and that it loads and executes nothing."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from score.index.contact_sheet import as_html
from score.index.index import Hit
from tests.support.images import random_image

PNG = random_image(3)


class Page(HTMLParser):
    """Elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(*rows: dict[str, object], root: Path = Path()) -> str:
    return as_html("“a”", "rows", [Hit(0.5, row) for row in rows], root)


@pytest.mark.parametrize("kind", ["file", "data", "base64", "bytes"])
def test_images_that_are_here_have_thumbnails(kind: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(PNG)
    inline = base64.b64encode(PNG).decode()
    cell = {
        "file": "images/a.png",
        "data": f"data:image/png;base64,{inline}",
        "base64": inline,
        "bytes": PNG,
    }[kind]
    (image,) = Page(page({"image": cell}, root=tmp_path)).all("img")
    assert (image["src"] or "").startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize(
    "cell",
    [
        *("https://example.org/a.png", "HTTP://example.org/a.png", "../secret.png", "/etc/passwd"),
        *("link.png", "gone.png", "text.txt", "data:image/png;base64,AAAA", "data:,", "", "\0"),
        *(None, 7, b"", b"no image", "file:///etc/passwd", "data:text/html,<script>"),
    ],
)
def test_other_images_are_neither_fetched_nor_read(cell: object, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "root/text.txt").write_text("text")
    text = page({"image": cell}, root=tmp_path / "root")
    assert not Page(text).all("img")
    assert "no thumbnail" in text


def test_the_page_loads_and_executes_nothing() -> None:
    evil = "</dd><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
    text = as_html(evil, evil, [Hit(0.5, {"image": evil, evil: evil, "list": [evil]})], Path())
    content = Page(text)
    assert {tag for tag, _ in content.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "p", "div", "figure"),
        *("figcaption", "b", "dl", "dt", "dd"),
    }
    assert not re.search(r"<(script|img|link|iframe|a)\b", text)
    policies = [meta["content"] for meta in content.all("meta") if "http-equiv" in meta]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_a_page_of_nothing_says_so() -> None:
    assert "No row was found" in page()


def test_long_cells_are_cut() -> None:
    assert len(page({"image": "data:,x", "text": "x" * 10**6})) < 10_000
