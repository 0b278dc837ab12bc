"""A self-contained page of HTML: head, base styles, embedded images.

Pages are responsive and follow the reader's light or dark mode. Colours are the variables at the
top of the styles, which a page's own styles use.
"""

from __future__ import annotations

import base64
import io
from html import escape
from string import Template

from PIL import Image, ImageOps

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
:root { color-scheme: light dark; --page: #fff; --ink: #1f2328; --quiet: #57606a; --line: #d0d7de;
  --faint: #eaeef2; --accent: #2f6fb0; --good: #1a7f37; --low: #b35900; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d1117; --ink: #e6edf3; --quiet: #9198a1; --line: #3d444d; --faint: #21262d;
    --accent: #4493f8; --good: #3fb950; --low: #db6d28; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2.5rem 1.5rem 4rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", "Noto Sans", sans-serif;
  overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.25; }
h2 { margin: 2.5rem 0 .5rem; font-size: 1.2rem; }
h3 { margin: 1.5rem 0 .5rem; font-size: 1rem; }
p { margin: .4rem 0; max-width: 46rem; }
b { font-variant-numeric: tabular-nums; }
.quiet { color: var(--quiet); }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr));
  gap: .75rem; margin-top: .75rem; }
figure { margin: 0; }
figure img { display: block; width: 100%; border: 1px solid var(--line); border-radius: .5rem; }
figcaption { margin-top: .3rem; font-size: .8rem; line-height: 1.35; }
.wide { overflow-x: auto; }
.wide:focus-visible { outline: 2px solid var(--accent); }
@media (max-width: 30rem) {
  body { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.4rem; }
}
$style</style>
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


def page(title: str, subtitle: str, body: str, style: str = "") -> str:
    """The whole page. `title` and `subtitle` are text, `body` is HTML, `style` is CSS."""
    return _PAGE.substitute(title=escape(title), subtitle=escape(subtitle), body=body, style=style)


def wide(label: str, content: str) -> str:
    """HTML in a container that scrolls horizontally, also with the keyboard."""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}">{content}</div>'
    )


def thumbnail(image: Image.Image, alt: str, side: int) -> str:
    """An `<img>` of a square cut from the middle of an image, as a JPEG of `side` pixels.

    Transparent parts are white.
    """
    drawn = image.convert("RGBA")
    paper = Image.new("RGB", drawn.size, "white")
    paper.paste(drawn, (0, 0), drawn)
    stream = io.BytesIO()
    ImageOps.fit(paper, (side, side)).save(stream, "JPEG", quality=82)
    source = base64.b64encode(stream.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{source}" alt="{escape(alt)}">'
