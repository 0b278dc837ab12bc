"""What the demo found, as one page of HTML that needs nothing from elsewhere, and no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from score.evaluation import webpage

THUMBNAIL = 112  # pixels


class Hit(NamedTuple):
    """An image, what its CSV says of it, and how well it answers."""

    file: Path
    caption: str
    score: float


class Story(NamedTuple):
    """What the page tells.

    model: which one; images: how many were embedded; failed: a sentence for each that was not;
    searches: query → hits, best first; classified: an image, and label → probability;
    captions, files, cosines: the heat map's rows, columns and values [rows, columns].
    """

    model: str
    images: int
    failed: Sequence[str]
    searches: Mapping[str, Sequence[Hit]]
    classified: tuple[Path, Mapping[str, float]]
    captions: Sequence[str]
    files: Sequence[Path]
    cosines: np.ndarray


_STYLE = """\
.first img { outline: 3px solid var(--good); outline-offset: 1px; }
.bar { height: .35rem; margin: .3rem 0 .15rem; border-radius: .2rem; background: var(--faint); }
.bar i { display: block; height: 100%; border-radius: .2rem; background: var(--accent); }
.asked { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: center; margin-top: 1rem; }
.asked figure { width: 9rem; }
.answers { flex: 1; min-width: 16rem; border-spacing: 0 .5rem; }
.answers th { font-weight: 400; text-align: left; white-space: nowrap; padding-right: .75rem; }
.answers thead { color: var(--quiet); font-size: .8rem; }
.answers td:nth-child(2) { width: 100%; }
.answers td:last-child { padding-left: .75rem; text-align: right;
  font-variant-numeric: tabular-nums; }
.answers .bar { margin: 0; height: .8rem; }
.map { border-collapse: separate; border-spacing: 1px; margin-top: 1rem; font-size: .75rem; }
.map th { font-weight: 400; text-align: right; padding-right: .5rem; white-space: nowrap; }
.map tbody th { position: sticky; left: 0; max-width: 9rem; overflow: hidden;
  text-overflow: ellipsis; background: var(--page); }
.map thead th { padding: 0; }
.map img { display: block; width: 36px; height: 36px; border-radius: 4px; }
.map td { width: 36px; min-width: 36px; height: 28px; text-align: center;
  font-variant-numeric: tabular-nums; }
.map .above { background: color-mix(in srgb, var(--accent) var(--share), var(--page)); }
.map .below { background: color-mix(in srgb, var(--low) var(--share), var(--page)); }
"""
# Of a colour's share in a cell, the most with which numbers in the page's ink stay legible (a
# contrast of 4.5, WCAG 2.1), in light and dark.
_STRONGEST = 65  # per cent


def as_html(story: Story) -> str:
    """The page; every text in it is escaped."""
    failed = f" {len(story.failed)} failed and took nobody along: " if story.failed else ""
    subtitle = f"{story.model}. {story.images} images, fetched from URLs.{failed}"
    body = "\n".join((_searches(story), _classified(*story.classified), _map(story)))
    return webpage.page(
        "What the embedded model sees", subtitle + "; ".join(story.failed), body, _STYLE
    )


def _searches(story: Story) -> str:
    found = "".join(
        f"<h3>“{escape(query)}”</h3>"
        f'<div class="images">{"".join(_hit(hit, place) for place, hit in enumerate(hits))}</div>'
        for query, hits in story.searches.items()
    )
    about = "Each text is compared with every image by the cosine of their vectors; best first."
    return f'<section><h2>Search by text</h2><p class="quiet">{about}</p>{found}</section>'


def _hit(hit: Hit, place: int) -> str:
    first = ' class="first"' if place == 0 else ""
    return (
        f"<figure{first}>{_image(hit.file)}{_bar(hit.score)}"
        f"<figcaption><b>{hit.score:.2f}</b> {escape(hit.caption)}</figcaption></figure>"
    )


def _classified(file: Path, answers: Mapping[str, float]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td>{_bar(share)}</td><td>{share:.1%}</td></tr>'
        for label, share in answers.items()
    )
    about = "Labels given with the request, and how probable the model finds each."
    return (
        f'<section><h2>Classify by labels</h2><p class="quiet">{about}</p><div class="asked">'
        f'<figure>{_image(file)}</figure><table class="answers"><thead><tr>'
        '<th scope="col">label</th><td></td><th scope="col">probability</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _map(story: Story) -> str:
    low, high = float(story.cosines.min()), float(story.cosines.max())
    head = "".join(f'<th scope="col">{_image(file, 72)}</th>' for file in story.files)
    rows = "".join(
        f'<tr><th scope="row" title="{escape(caption)}">{escape(caption)}</th>'
        + "".join(_cell(*pair) for pair in zip(values, shares, strict=True))
        + "</tr>"
        for caption, values, shares in zip(
            story.captions, story.cosines.tolist(), relative(story.cosines).tolist(), strict=True
        )
    )
    about = (
        f"Cosines of every text (rows) with every image (columns), from {low:.2f} to {high:.2f}. "
        "Blue: closer than this text and this image are to the others on average; orange: "
        "further. A model that sees has a blue diagonal."
    )
    table = (
        f'<table class="map"><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )
    return (
        f'<section><h2>Who is like whom</h2><p class="quiet">{about}</p>'
        f"{webpage.wide('Cosines of texts and images', table)}</section>"
    )


def relative(cosines: np.ndarray) -> np.ndarray:
    """Cosines [rows, columns] without what is common to a row or a column, from -1 to 1.

    Some texts, and some images, are closer to everything than others; what is left is what this
    text and this image have with each other. Nothing is left where all are alike.
    """
    rows, columns = cosines.mean(axis=1, keepdims=True), cosines.mean(axis=0, keepdims=True)
    centred = cosines - rows - columns + cosines.mean()
    largest = np.abs(centred).max()
    return centred / largest if largest > 1e-9 else np.zeros_like(centred)


def _cell(cosine: float, share: float) -> str:
    side = "above" if share > 0 else "below"
    number = f"{round(cosine, 2) + 0.0:.2f}"  # never -0.00
    return f'<td style="--share:{_STRONGEST * abs(share):.0f}%" class="{side}">{number}</td>'


def _bar(share: float) -> str:
    return f'<div class="bar"><i style="width:{max(0.0, min(1.0, share)):.1%}"></i></div>'


def _image(file: Path, size: int = 2 * THUMBNAIL) -> str:
    with Image.open(file) as opened:
        return webpage.thumbnail(ImageOps.exif_transpose(opened), file.stem, size)
