"""What the demo found, as one page of HTML that needs nothing from elsewhere, and no server."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

THUMBNAIL = 112  # pixels
# From low to high: three colours whose lightness falls all the way: it reads without colour, too.
SCALE = ((247, 249, 252), (96, 165, 214), (9, 48, 103))


class Hit(NamedTuple):
    """A picture, what its CSV says of it, and how well it answers."""

    file: Path
    caption: str
    score: float


class Story(NamedTuple):
    """What the page tells.

    model: which one; pictures: how many were embedded; failed: a sentence for each that was not;
    searches: query → hits, best first; classified: a picture, and label → probability;
    captions, files, cosines: the heat map's rows, columns and values [rows, columns].
    """

    model: str
    pictures: int
    failed: Sequence[str]
    searches: Mapping[str, Sequence[Hit]]
    classified: tuple[Path, Mapping[str, float]]
    captions: Sequence[str]
    files: Sequence[Path]
    cosines: np.ndarray


_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2.5rem 1.5rem 4rem; background: #fff;
  color: #1f2328; font: 16px/1.5 system-ui, "Segoe UI", "Noto Sans", sans-serif; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.25; }
h2 { margin: 2.75rem 0 .25rem; font-size: 1.2rem; }
h3 { margin: 1.5rem 0 .5rem; font-size: 1rem; }
p { margin: .4rem 0; max-width: 46rem; }
.quiet { color: #57606a; }
.hits { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); gap: .75rem; }
figure { margin: 0; }
figure img { display: block; width: 100%; border: 1px solid #d0d7de; border-radius: .5rem; }
figcaption { margin-top: .3rem; font-size: .8rem; line-height: 1.35; }
.first img { outline: 3px solid #1a7f37; outline-offset: 1px; }
.bar { height: .35rem; margin: .3rem 0 .15rem; border-radius: .2rem; background: #eaeef2; }
.bar i { display: block; height: 100%; border-radius: .2rem; background: #2f6fb0; }
b { font-variant-numeric: tabular-nums; }
.asked { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: center; margin-top: 1rem; }
.asked figure { width: 9rem; }
.answers { flex: 1; min-width: 16rem; border-spacing: 0 .5rem; }
.answers th { font-weight: 400; text-align: left; white-space: nowrap; padding-right: .75rem; }
.answers thead { color: #57606a; font-size: .8rem; }
.answers td:nth-child(2) { width: 100%; }
.answers td:last-child { padding-left: .75rem; text-align: right;
  font-variant-numeric: tabular-nums; }
.answers .bar { margin: 0; height: .8rem; }
.map { overflow-x: auto; margin-top: 1rem; }
.map:focus-visible { outline: 2px solid #2f6fb0; }
.map table { border-collapse: separate; border-spacing: 1px; font-size: .75rem; }
.map th { font-weight: 400; text-align: right; padding-right: .5rem; white-space: nowrap; }
.map thead th { padding: 0; }
.map img { display: block; width: 34px; height: 34px; border-radius: 4px; }
.map td { width: 34px; min-width: 34px; height: 26px; text-align: center; font-size: .75rem;
  font-variant-numeric: tabular-nums; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p class="quiet">$subtitle</p>
$body
</main>
</body>
</html>
""")


def as_html(story: Story) -> str:
    """The page; every text in it is escaped."""
    failed = f" {len(story.failed)} failed and took nobody along: " if story.failed else ""
    subtitle = f"{story.model}. {story.pictures} pictures, fetched from URLs.{failed}"
    return _PAGE.substitute(
        title="What the embedded model sees",
        subtitle=escape(subtitle + "; ".join(story.failed)),
        body="\n".join((_searches(story), _classified(*story.classified), _map(story))),
    )


def _searches(story: Story) -> str:
    found = "".join(
        f"<h3>“{escape(query)}”</h3>"
        f'<div class="hits">{"".join(_hit(hit, place) for place, hit in enumerate(hits))}</div>'
        for query, hits in story.searches.items()
    )
    about = "Each text is compared with every picture by the cosine of their vectors; best first."
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
    head = "".join(f'<th scope="col">{_image(file, 68)}</th>' for file in story.files)
    rows = "".join(
        f'<tr><th scope="row">{escape(caption)}</th>'
        + "".join(_cell(value, low, high) for value in values.tolist())
        + "</tr>"
        for caption, values in zip(story.captions, story.cosines, strict=True)
    )
    about = (
        f"Every text (rows) with every picture (columns). Cosines from {low:.2f} (pale) to "
        f"{high:.2f} (dark); a model that sees has a dark diagonal."
    )
    return (
        f'<section><h2>Who is like whom</h2><p class="quiet">{about}</p>'
        '<div class="map" tabindex="0" role="region" aria-label="Cosines of texts and pictures">'
        f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _cell(value: float, low: float, high: float) -> str:
    share = (value - low) / ((high - low) or 1)
    below, above = (SCALE[0], SCALE[1]) if share < 0.5 else (SCALE[1], SCALE[2])
    part = share * 2 % 1 if share < 1 else 1.0
    colour = [round(a + (b - a) * part) for a, b in zip(below, above, strict=True)]
    ink = "#fff" if share > 0.69 else "#000"  # a contrast of 4.5 or so all along
    red, green, blue = colour
    return f'<td style="background:rgb({red},{green},{blue});color:{ink}">{value:.2f}</td>'


def _bar(share: float) -> str:
    return f'<div class="bar"><i style="width:{max(0.0, min(1.0, share)):.1%}"></i></div>'


def _image(file: Path, size: int = 2 * THUMBNAIL) -> str:
    with Image.open(file) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGBA")
    paper = Image.new("RGB", picture.size, "white")
    paper.paste(picture, (0, 0), picture)
    square = ImageOps.fit(paper, (size, size))
    stream = io.BytesIO()
    square.save(stream, "JPEG", quality=82)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(file.stem, quote=True)}">'
