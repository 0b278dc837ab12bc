"""The demo's results as one HTML page, which loads no other files and needs no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from score.pages import webpage

THUMBNAIL = 112  # pixels


class Hit(NamedTuple):
    """An image, its caption in the CSV, and its cosine similarity with the query."""

    file: Path
    caption: str
    score: float


class Story(NamedTuple):
    """The content of the page.

    model: its description; images: the number of embedded images; failed: a message for each other
    image; searches: query → hits, best first; classified: an image, and label → probability;
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
# The largest share of colour in a cell at which its number stays legible (a contrast of 4.5, WCAG
# 2.1), in light and dark.
_STRONGEST = 65  # per cent


def as_html(story: Story) -> str:
    """The page; every text in it is escaped."""
    failed = f" {len(story.failed)} failed: " if story.failed else ""
    subtitle = f"{story.model}. {story.images} images, downloaded by URL.{failed}"
    body = "\n".join((_searches(story), _classified(*story.classified), _map(story)))
    return webpage.page(
        "What the embedded model sees", subtitle + "; ".join(story.failed), body, _STYLE
    )


def _searches(story: Story) -> str:
    results = "".join(
        f"<h3>“{escape(query)}”</h3>"
        f'<div class="images">{"".join(_hit(hit, rank) for rank, hit in enumerate(hits))}</div>'
        for query, hits in story.searches.items()
    )
    about = "The images with the highest cosine similarity to each text, best first."
    return f'<section><h2>Search by text</h2><p class="quiet">{about}</p>{results}</section>'


def _hit(hit: Hit, rank: int) -> str:
    first = ' class="first"' if rank == 0 else ""
    return (
        f"<figure{first}>{_image(hit.file)}{_bar(hit.score)}"
        f"<figcaption><b>{hit.score:.2f}</b> {escape(hit.caption)}</figcaption></figure>"
    )


def _classified(file: Path, answers: Mapping[str, float]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td>{_bar(share)}</td><td>{share:.1%}</td></tr>'
        for label, share in answers.items()
    )
    about = "The probability of each label, by the model (zero-shot classification)."
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
        f"Cosine similarity of captions (rows) and images (columns), from {low:.2f} to {high:.2f}. "
        "Blue: higher than expected from the averages of the row and the column; orange: lower. "
        "Each caption belongs to the image on the diagonal, so a good model has a blue diagonal."
    )
    table = (
        f'<table class="map"><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )
    return (
        f'<section><h2>Compare captions and images</h2><p class="quiet">{about}</p>'
        f"{webpage.wide('Cosine similarity of captions and images', table)}</section>"
    )


def relative(cosines: np.ndarray) -> np.ndarray:
    """Cosines [rows, columns] without their row and column means, scaled to -1 to 1.

    Some texts, and some images, have higher cosines with everything; double centring removes that.
    All zeros where the cosines differ by rows or columns alone.
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
