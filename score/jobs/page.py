"""An evaluation as files: JSON, and beside it a page of HTML that needs nothing from elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from score.errors import RequestError
from score.jobs import charts
from score.jobs.evaluate import Evaluation, Failures, ZeroShot
from score.jobs.metrics import RECALL_AT
from score.jobs.report import LABELS, Model, as_json, counted, labels, percent, task
from score.outputs import check_files

_ROWS = 20  # of each table


def check_output(output: Path, inputs: Iterable[Path], *, overwrite: bool = False) -> None:
    """Raises RequestError for a name that is no report's, or where none may be written."""
    if output.suffix != ".json":
        raise RequestError(f"{output.name} must end in .json")
    check_files([output, page_of(output)], overwrite=overwrite, inputs=inputs)


def page_of(output: Path) -> Path:
    """The page that stands beside a JSON file."""
    return output.with_suffix(".html")


def write(evaluation: Evaluation, model: Model, output: Path) -> None:
    """Writes the JSON to `output` and the page beside it, each complete or not at all."""
    page = as_html(evaluation, model)
    output.parent.mkdir(parents=True, exist_ok=True)
    record = json.dumps(as_json(evaluation, model), indent=1, allow_nan=False)
    for file, text in ((output, record + "\n"), (page_of(output), page)):
        part = file.with_name(file.name + ".part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, file)


_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 2.5rem 1.5rem 4rem; background: #fff;
  color: #1f2328; font: 16px/1.5 system-ui, "Segoe UI", "Noto Sans", sans-serif; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.25; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.1rem; }
p { margin: .4rem 0; }
.quiet { color: #57606a; }
.figures { display: grid; grid-template-columns: repeat(3, 1fr); gap: .75rem;
  margin: 1.75rem 0 1rem; }
.figure { border: 1px solid #d0d7de; border-radius: .6rem; padding: .8rem 1rem; }
.figure b { display: block; font-size: 1.7rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.chart svg { display: block; width: 100%; height: auto; }
.chart svg text { font-family: inherit !important; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr));
  gap: 0 2.5rem; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; }
th, td { padding: .35rem .6rem .35rem 0; border-bottom: 1px solid #eaeef2; text-align: left;
  vertical-align: top; overflow-wrap: break-word; }
th { color: #57606a; font-weight: 600; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
ul { margin: .5rem 0; padding-left: 1.2rem; }
details { margin-top: 2.5rem; }
summary { cursor: pointer; font-weight: 600; }
</style>
</head>
<body>
<h1>$title</h1>
<p class="quiet">$subtitle</p>
<div class="figures">
$figures
</div>
<p class="quiet">$counts</p>
$body
</body>
</html>
""")


def as_html(evaluation: Evaluation, model: Model) -> str:
    """A page with nothing from elsewhere in it; every name is escaped."""
    body = [_notes(evaluation.notes)]
    if isinstance(evaluation, ZeroShot):
        body += [_class_chart(evaluation), _beside(_worst(evaluation), _mistakes(evaluation))]
    elif not evaluation.empty:
        body.append(_recall_chart(evaluation))
    body.append(_failures(evaluation.failures))
    if isinstance(evaluation, ZeroShot):
        body.append(_templates(evaluation.templates))
    heading = task(evaluation)
    return _PAGE.substitute(
        title=escape(f"{heading[0].upper()}{heading[1:]} on {evaluation.data}"),
        subtitle=escape(f"Model {model}"),
        figures="\n".join(
            f'<div class="figure"><b>{percent(value)}</b>{escape(LABELS[name])}</div>'
            for name, value in evaluation.metrics.items()
        ),
        counts=escape(f"{counted(evaluation)}, in {evaluation.seconds:,.1f} s"),
        body="\n".join(filter(None, body)),
    )


def _notes(notes: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>" if notes else ""


def _class_chart(evaluation: ZeroShot) -> str:
    shown = labels(evaluation.classes)
    known = [(shown[c.folder], c.recall) for c in evaluation.classes if c.recall is not None]
    if not known:
        return ""
    names, recalls = zip(*known, strict=True)
    return _section("Recall of each class", _chart(charts.class_recalls(names, recalls)))


def _recall_chart(evaluation: Evaluation) -> str:
    ways = {
        name: [evaluation.metrics[f"{sought}_retrieval_recall@{k}"] or 0.0 for k in RECALL_AT]
        for name, sought in (("text → image", "image"), ("image → text", "text"))
    }
    return _section("Recall", _chart(charts.grouped([f"R@{k}" for k in RECALL_AT], ways)))


def _worst(evaluation: ZeroShot) -> str:
    known = [c for c in evaluation.classes if c.recall is not None]
    worst = sorted(known, key=lambda c: c.recall or 0.0)[:_ROWS]
    shown = labels(evaluation.classes)
    rows = [(shown[c.folder], f"{c.pictures:,}", percent(c.recall)) for c in worst]
    return _section("Worst classes", _table(("class", "#pictures", "#recall"), rows))


def _mistakes(evaluation: ZeroShot) -> str:
    shown = labels(evaluation.classes)
    rows = [
        (shown[m.true], shown[m.predicted], f"{m.pictures:,}") for m in evaluation.mistakes[:_ROWS]
    ]
    return _section("Most frequent mistakes", _table(("is", "was taken for", "#pictures"), rows))


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


def _chart(svg: str) -> str:
    return f'<div class="chart">{svg}</div>'


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{content}</section>" if content else ""


def _beside(*sections: str) -> str:
    return f'<div class="beside">{"".join(sections)}</div>' if any(sections) else ""
