"""An evaluation as files: JSON, and beside it a self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from score.errors import RequestError, RowError
from score.evaluation import charts
from score.evaluation.metrics import RECALL_AT
from score.evaluation.report import LABELS, Model, as_json, counted, labels, percent, task
from score.evaluation.results import Evaluation, Failures, ZeroShot
from score.images import decode
from score.pages import webpage
from score.pages.parts import STYLE, about, beside, chart, figures, quiet, section, table
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


def as_html(evaluation: Evaluation, model: Model) -> str:
    """A self-contained page; every name is escaped.

    Images of the worst mistakes are read again; those that cannot be read are left out.
    """
    body = [_figures(evaluation), _notes(evaluation.notes)]
    if isinstance(evaluation, ZeroShot):
        body += [
            _class_chart(evaluation),
            beside(_worst_classes(evaluation), _mistakes(evaluation)),
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
        STYLE,
    )


def _figures(evaluation: Evaluation) -> str:
    metrics = [(percent(value), LABELS[name]) for name, value in evaluation.metrics.items()]
    counts = f"{counted(evaluation)}, in {evaluation.seconds:,.1f} s"
    return f"{figures(metrics)}\n{quiet(counts)}"


def _about(model: Model) -> str:
    rows = [("model", model.name), ("fingerprint", model.fingerprint), ("date", model.date)]
    rows += [
        (name.replace("_", " "), str(value).lower() if isinstance(value, bool) else value)
        for name, value in model.settings.items()
    ]
    return section("How it was measured", about(rows))


def _notes(notes: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>" if notes else ""


def _class_chart(evaluation: ZeroShot) -> str:
    shown = labels(evaluation.classes)
    known = [(shown[c.folder], c.recall) for c in evaluation.classes if c.recall is not None]
    if not known:
        return ""
    names, recalls = zip(*known, strict=True)
    return chart("Recall of each class", charts.class_recalls(names, recalls))


def _recall_chart(evaluation: Evaluation) -> str:
    ways = {
        name: [evaluation.metrics[f"{sought}_retrieval_recall@{k}"] or 0.0 for k in RECALL_AT]
        for name, sought in (("text → image", "image"), ("image → text", "text"))
    }
    return chart("Recall", charts.grouped([f"R@{k}" for k in RECALL_AT], ways))


def _worst_classes(evaluation: ZeroShot) -> str:
    """The classes with the lowest recall, below 1."""
    known = [(c.recall, c) for c in evaluation.classes if c.recall is not None and c.recall < 1]
    worst = sorted(known, key=lambda pair: pair[0])[:_ROWS]
    shown = labels(evaluation.classes)
    rows = [(shown[c.folder], f"{c.images:,}", percent(recall)) for recall, c in worst]
    return section("Worst classes", table(("class", "#images", "#recall"), rows))


def _worst_mistakes(evaluation: ZeroShot) -> str:
    shown = labels(evaluation.classes)
    shots = [
        f"<figure>{image}<figcaption>{escape(shown[mistake.true])}, taken for "
        f"{escape(shown[mistake.predicted])} (+{mistake.margin:.3f})</figcaption></figure>"
        for mistake in evaluation.worst
        if (image := _thumbnail(mistake.file, mistake.image))
    ]
    if not shots:
        return ""
    order = (
        "Images that are furthest from their own class, by how much the cosine to the answer "
        "is above the one to the truth."
    )
    return section(
        "Worst mistakes",
        f'{quiet(order)}<div class="images">{"".join(shots)}</div>',
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
    return section("Most frequent mistakes", table(("is", "was taken for", "#images"), rows))


def _failures(failures: Failures) -> str:
    shown = failures.examples[:_ROWS]
    heading = f"{failures.total:,} failed and left out"
    if failures.total > len(shown):
        heading += f", the first {len(shown)}"
    return section(heading, table(("what", "code", "why"), shown))


def _templates(templates: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(template)}</li>" for template in templates)
    count = f"{len(templates)} template{'s' if len(templates) > 1 else ''}"
    return f"<details><summary>{count}</summary><ul>{items}</ul></details>"
