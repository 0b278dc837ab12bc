"""What reports are made of: headings, tables, figures, charts. Every text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from score.pages.webpage import wide

STYLE = """\
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem;
  margin: 1.75rem 0 1rem; }
.figure { border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem; }
.figure b { display: block; font-size: 1.7rem; line-height: 1.3; white-space: nowrap; }
@media (max-width: 30rem) { .figure b { font-size: 1.4rem; } }
.chart svg { display: block; width: 100%; min-width: 22rem; height: auto; }
.chart svg text { font-family: inherit !important; fill: var(--ink) !important; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr));
  gap: 0 2.5rem; }
.beside > * { min-width: 0; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; }
th, td { padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--faint); text-align: left;
  vertical-align: top; }
th { color: var(--quiet); font-weight: 600; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.about { max-width: 46rem; }
.about td:first-child { width: 12rem; color: var(--quiet); }
ul { margin: .5rem 0; padding-left: 1.2rem; }
details { margin-top: 2.5rem; }
summary { cursor: pointer; font-weight: 600; }
"""
"""The CSS of the parts."""


def figures(values: Iterable[tuple[str, str]]) -> str:
    """The numbers that matter most, large: of each the number and its label."""
    boxes = "\n".join(
        f'<div class="figure"><b>{escape(value)}</b>{escape(label)}</div>'
        for value, label in values
    )
    return f'<div class="figures">\n{boxes}\n</div>'


def section(heading: str, content: str) -> str:
    """HTML below a heading; nothing where it is empty."""
    return f"<section><h2>{escape(heading)}</h2>{content}</section>" if content else ""


def quiet(text: str) -> str:
    """A paragraph of less weight; nothing for an empty text."""
    return f'<p class="quiet">{escape(text)}</p>' if text else ""


def chart(heading: str, svg: str) -> str:
    """An SVG below a heading; on a narrow screen it scrolls."""
    return section(heading, wide(heading, f'<div class="chart">{svg}</div>'))


def beside(*sections: str) -> str:
    """Sections that stand beside each other where there is room."""
    return f'<div class="beside">{"".join(sections)}</div>' if any(sections) else ""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, nothing where it has no rows; heads with `#` before them are of numbers."""
    if not rows:
        return ""
    kinds = [' class="number"' if head.startswith("#") else "" for head in heads]

    def line(cells: Iterable[str], tag: str) -> str:
        return "".join(
            f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True)
        )

    top = line((head.removeprefix("#") for head in heads), "th")
    return (
        f"<table><tr>{top}</tr>" + "".join(f"<tr>{line(r, 'td')}</tr>" for r in rows) + "</table>"
    )


def about(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and what they are."""
    cells = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows
    )
    return f'<table class="about">{cells}</table>'
