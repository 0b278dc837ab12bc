"""Rows that were found, or groups of rows, as a self-contained page of HTML with thumbnails.

The page loads nothing: its Content-Security-Policy allows the images inside it alone. So thumbnails
are made of cells that hold an image, or name a file below a folder that the caller names; an image
behind a URL is named by it, and not fetched, neither now nor when the page is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from score.contract.rows import IMAGE
from score.errors import RowError
from score.fetch import cells
from score.images.decode import decode
from score.index.index import Hit
from score.index.listing import shown
from score.pages import webpage
from score.tables.base_writer import SHA256, STATUS

_SIDE = 160  # pixels of a thumbnail
_MOST_BYTES = 32 * 2**20  # of an image
_MOST_PIXELS = 50_000_000
_LONGEST = 120  # characters of a cell
_NOT_SHOWN = (STATUS, SHA256)  # columns

_STYLE = """\
.images { grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }
.none { display: grid; place-items: center; aspect-ratio: 1; border: 1px dashed var(--line);
  border-radius: .5rem; color: var(--quiet); font-size: .8rem; }
dl { margin: .2rem 0 0; } dt { color: var(--quiet); } dd { margin: 0 0 .2rem; }
"""


def as_html(title: str, subtitle: str, hits: Sequence[Hit], root: Path) -> str:
    """The page; all texts are escaped.

    root: the folder below which an image cell may name a file. An image that cannot be shown is
    left out.
    """
    figures = "\n".join(_figure(hit, root.resolve()) for hit in hits)
    body = f'<div class="images">\n{figures}\n</div>' if hits else "<p>No row was found.</p>"
    return webpage.page(title, subtitle, body, _STYLE)


@dataclass(frozen=True, slots=True)
class Section:
    """A group of rows, below a heading and a note."""

    heading: str
    note: str
    hits: Sequence[Hit]


def sections_as_html(
    title: str, subtitle: str, sections: Sequence[Section], root: Path, nothing: str
) -> str:
    """The page of several groups. nothing: what it says if there are none. The other arguments are
    those of `as_html`."""
    body = "\n".join(_section(section, root.resolve()) for section in sections)
    body = body or f"<p>{escape(nothing)}</p>"
    return webpage.page(title, subtitle, body, _STYLE)


def _section(section: Section, root: Path) -> str:
    figures = "\n".join(_figure(hit, root) for hit in section.hits)
    heading = escape(shown(section.heading, _LONGEST))
    return (
        f'<section><h2>{heading}</h2><p class="quiet">{escape(section.note)}</p>'
        f'<div class="images">\n{figures}\n</div></section>'
    )


def _figure(hit: Hit, root: Path) -> str:
    values = "".join(
        f"<dt>{escape(shown(name, _LONGEST))}</dt><dd>{escape(shown(value, _LONGEST))}</dd>"
        for name, value in hit.row.items()
        if value is not None and name not in _NOT_SHOWN
    )
    picture = _thumbnail(hit.row.get(IMAGE), root) or '<div class="none">no thumbnail</div>'
    caption = f"<b>{hit.score:.4f}</b><dl>{values}</dl>"
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _thumbnail(cell: Any, root: Path) -> str | None:
    try:
        data = _bytes(cell, root)
        image = decode(data, _MOST_PIXELS, exif_orientation=True) if data else None
    except RowError:
        return None
    return webpage.thumbnail(image, "", _SIDE) if image else None


def _bytes(cell: Any, root: Path) -> bytes | None:
    """An image cell's content; None for a URL. Raises RowError."""
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, str) or cell[:8].lower().startswith(("http://", "https://")):
        return None
    if cells.is_data_uri(cell):
        return cells.from_data_uri(cell, _MOST_BYTES)
    if file := cells.file_below(root, cell):
        return cells.from_file(file, _MOST_BYTES)
    return cells.from_base64(cell, _MOST_BYTES)
