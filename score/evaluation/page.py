"""An evaluation as files: JSON, and beside it a self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from score.errors import RequestError, RowError
from score.evaluation import charts, webpage
from score.evaluation.metrics import RECALL_AT
from score.evaluation.report import LABELS, Model, as_json, counted, labels, percent, task
from score.evaluation.results import Evaluation, Failures, ZeroShot
from score.images import decode
from score.storage import atomic
from score.storage.outputs import check_files

_ROWS = 20  # of each table
_THUMBNAIL = 160  # pixels, of 4 to 10 KB each
_MOST_PIXELS = 50_000_000  # of an image that is shown


def check_output(output: Path, inputs: Iterable[Path], *, overwrite: bool = False) -> None:
    """Raises RequestError unless `output` ends in .json, and both files may be written."""
    if output.suffix != ".json":
        raise RequestError(f"{output.name} must end in .json")
    check_files([output, page_of(output)], overwrite=overwrite, inputs=inputs)


def page_of(output: Path) -> Path:
    """The page that stands beside a JSON file."""
    return output.with_suffix(".html")


def write(evaluation: Evaluation, model: Model, output: Path) -> None:
    """Writes the JSON to `output` and the page beside it."""
    page = as_html(evaluation, model)
    output.parent.mkdir(parents=True, exist_ok=True)
    record = json.dumps(as_json(evaluation, model), indent=1, allow_nan=False)
    for file, text in ((output, record + "\n"), (page_of(output), page)):
        with atomic.file(file) as part:
            part.write_text(text, encoding="utf-8")


_STYLE = """\
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


def as_html(evaluation: Evaluation, model: Model) -> str:
    """A self-contained page; every name is escaped.

    Images of the worst mistakes are read again; those that cannot be read are left out.
    """
    body = [_figures(evaluation), _notes(evaluation.notes)]
    if isinstance(evaluation, ZeroShot):
        body += [
            _class_chart(evaluation),
            _beside(_worst_classes(evaluation), _mistakes(evaluation)),
            _worst_mistakes(evaluation),
        ]
    elif not evaluation.empty:
        body.append(_recall_chart(evaluation))
    body += [_failures(evaluation.failures), _about(model)]
    if isinstance(evaluation, ZeroShot):
        body.append(_templates(evaluation.templates))
    heading = task(evaluation)
    return webpage.page(
        f"{heading[0].upper()}{heading[1:]} on {evaluation.data}",
        f"{model.name}, {model.date[:10]}",
        "\n".join(filter(None, body)),
        _STYLE,
    )


def _figures(evaluation: Evaluation) -> str:
    figures = "\n".join(
        f'<div class="figure"><b>{percent(value)}</b>{escape(LABELS[name])}</div>'
        for name, value in evaluation.metrics.items()
    )
    counts = escape(f"{counted(evaluation)}, in {evaluation.seconds:,.1f} s")
    return f'<div class="figures">\n{figures}\n</div>\n<p class="quiet">{counts}</p>'


def _about(model: Model) -> str:
    rows = [("model", model.name), ("fingerprint", model.fingerprint), ("date", model.date)]
    rows += [
        (name.replace("_", " "), str(value).lower() if isinstance(value, bool) else value)
        for name, value in model.settings.items()
    ]
    cells = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows
    )
    return _section("How it was measured", f'<table class="about">{cells}</table>')


def _notes(notes: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>" if notes else ""


def _class_chart(evaluation: ZeroShot) -> str:
    shown = labels(evaluation.classes)
    known = [(shown[c.folder], c.recall) for c in evaluation.classes if c.recall is not None]
    if not known:
        return ""
    names, recalls = zip(*known, strict=True)
    return _chart("Recall of each class", charts.class_recalls(names, recalls))


def _recall_chart(evaluation: Evaluation) -> str:
    ways = {
        name: [evaluation.metrics[f"{sought}_retrieval_recall@{k}"] or 0.0 for k in RECALL_AT]
        for name, sought in (("text → image", "image"), ("image → text", "text"))
    }
    return _chart("Recall", charts.grouped([f"R@{k}" for k in RECALL_AT], ways))


def _worst_classes(evaluation: ZeroShot) -> str:
    """The classes with the lowest recall, below 1."""
    known = [(c.recall, c) for c in evaluation.classes if c.recall is not None and c.recall < 1]
    worst = sorted(known, key=lambda pair: pair[0])[:_ROWS]
    shown = labels(evaluation.classes)
    rows = [(shown[c.folder], f"{c.images:,}", percent(recall)) for recall, c in worst]
    return _section("Worst classes", _table(("class", "#images", "#recall"), rows))


def _worst_mistakes(evaluation: ZeroShot) -> str:
    shown = labels(evaluation.classes)
    figures = [
        f"<figure>{image}<figcaption>{escape(shown[mistake.true])}, taken for "
        f"{escape(shown[mistake.predicted])} (+{mistake.margin:.3f})</figcaption></figure>"
        for mistake in evaluation.worst
        if (image := _thumbnail(mistake.file, mistake.image))
    ]
    if not figures:
        return ""
    about = (
        "Images that are furthest from their own class, by how much the cosine to the answer "
        "is above the one to the truth."
    )
    return _section(
        "Worst mistakes",
        f'<p class="quiet">{about}</p><div class="images">{"".join(figures)}</div>',
    )


def _thumbnail(file: Path, name: str) -> str:
    try:
        image = decode.decode(file.read_bytes(), _MOST_PIXELS)
    except (OSError, RowError):  # removed or replaced since it was evaluated
        return ""
    return webpage.thumbnail(image, name, _THUMBNAIL)


def _mistakes(evaluation: ZeroShot) -> str:
    shown = labels(evaluation.classes)
    rows = [
        (shown[m.true], shown[m.predicted], f"{m.images:,}") for m in evaluation.mistakes[:_ROWS]
    ]
    return _section("Most frequent mistakes", _table(("is", "was taken for", "#images"), rows))


def _failures(failures: Failures) -> str:
    shown = failures.examples[:_ROWS]
    heading = f"{failures.total:,} failed and left out"
    if failures.total > len(shown):
        heading += f", the first {len(shown)}"
    return _section(heading, _table(("what", "code", "why"), shown))


def _templates(templates: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(template)}</li>" for template in templates)
    count = f"{len(templates)} template{'s' if len(templates) > 1 else ''}"
    return f"<details><summary>{count}</summary><ul>{items}</ul></details>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
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


def _chart(heading: str, svg: str) -> str:
    return _section(heading, webpage.wide(heading, f'<div class="chart">{svg}</div>'))


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{content}</section>" if content else ""


def _beside(*sections: str) -> str:
    return f'<div class="beside">{"".join(sections)}</div>' if any(sections) else ""
