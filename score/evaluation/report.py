"""An evaluation in a few lines for the screen, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from score.core.embedder import Embedder, parts_of
from score.evaluation.metrics import RECALL_AT, TOP
from score.evaluation.results import ClassResult, Evaluation, Failures, Retrieval, ZeroShot
from score.folder.mlmodel import model_name
from score.folder.model_folder import ModelFolder
from score.jobs.summary import blocked_hint

LABELS = {
    **{f"acc{k}": f"top-{k}" for k in TOP},
    "mean_per_class_recall": "mean per-class recall",
    **{f"image_retrieval_recall@{k}": f"text → image R@{k}" for k in RECALL_AT},
    **{f"text_retrieval_recall@{k}": f"image → text R@{k}" for k in RECALL_AT},
}
"""The usual names of the metrics."""

_LINES = 5  # of mistakes and failures on the screen


class Model(NamedTuple):
    """The model that was evaluated, its settings, and when.

    name: what its package calls it, else its folder. fingerprint: `ModelFolder.fingerprint`.
    date: ISO 8601, in UTC. The others are settings as they took effect.
    """

    name: str
    fingerprint: str
    date: str
    precision: str
    engine: str
    device: str
    decoding: str
    exif_orientation: bool

    @classmethod
    def of(cls, embedder: Embedder, folder: str | Path) -> Model:
        """The model that was loaded from a folder. Raises ModelError."""
        engine, settings = parts_of(embedder).encoder.engine, embedder.settings
        opened = ModelFolder.open(folder)
        return cls(
            name=model_name(opened.path) or Path(folder).resolve().name,
            fingerprint=opened.fingerprint(),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            precision=engine.precision,
            engine=engine.name,
            device=engine.device,
            decoding=settings.decoding,
            exif_orientation=settings.exif_orientation,
        )

    @property
    def settings(self) -> dict[str, str | bool]:
        """The settings that affect the figures, by name."""
        return {name: getattr(self, name) for name in self._fields[3:]}

    def __str__(self) -> str:
        return f"{self.name}, {self.fingerprint} ({self.precision}, {self.engine}, {self.device})"


def as_text(evaluation: Evaluation, model: Model) -> str:
    """The text that the command line prints."""
    lines = [f"{task(evaluation)} on {evaluation.data}, model {model}, {model.date}"]
    lines += [
        f"  {LABELS[name]:24}{percent(value):>8}" for name, value in evaluation.metrics.items()
    ]
    lines.append(f"  {counted(evaluation)}; {evaluation.seconds:.1f} s")
    lines += _failed(evaluation.failures)
    if evaluation.empty and (hint := blocked_hint(evaluation.failures.by_code, good=0)):
        lines.append(f"  {hint}")
    lines += [f"  {note}" for note in evaluation.notes]
    if isinstance(evaluation, ZeroShot) and evaluation.mistakes:
        lines.append("  most frequent mistakes:")
        shown = labels(evaluation.classes)
        lines += [
            f"    {m.images:,} × {shown[m.true]} → {shown[m.predicted]}"
            for m in evaluation.mistakes[:_LINES]
        ]
    return "\n".join(lines)


def _failed(failures: Failures) -> list[str]:
    if not failures.total:
        return []
    codes = ", ".join(f"{code} {count:,}" for code, count in failures.by_code.most_common())
    lines = [f"  {failures.total:,} failed and left out ({codes}):"]
    lines += [f"    {f.item}: {f.message}" for f in failures.examples[:_LINES]]
    more = failures.total - _LINES
    return [*lines, f"    and {more:,} more"] if more > 0 else lines


def labels(classes: Sequence[ClassResult]) -> dict[str, str]:
    """A label for each class folder: its name, with the folder where several share the name."""
    times = Counter(c.name for c in classes)
    return {c.folder: c.name if times[c.name] == 1 else f"{c.name} ({c.folder})" for c in classes}


def task(evaluation: Evaluation) -> str:
    """The task, in words."""
    return "retrieval" if isinstance(evaluation, Retrieval) else "zero-shot classification"


def counted(evaluation: Evaluation) -> str:
    """The counts, in words."""
    return ", ".join(f"{count:,} {what}" for what, count in evaluation.counts.items())


def percent(share: float | None) -> str:
    """A share from 0 to 1 as published figures are written."""
    return "–" if share is None else f"{100 * share:.2f} %"


def as_json(evaluation: Evaluation, model: Model) -> dict[str, object]:
    """The whole evaluation; metrics by CLIP_benchmark's names, shares from 0 to 1."""
    failures = evaluation.failures
    record: dict[str, object] = {
        "task": "retrieval" if isinstance(evaluation, Retrieval) else "zeroshot",
        "data": evaluation.data,
        "date": model.date,
        "model": {"name": model.name, "fingerprint": model.fingerprint},
        "settings": model.settings,
        "metrics": evaluation.metrics,
        "counts": {**evaluation.counts, "failed": failures.total},
        "failed": {
            "by_code": dict(failures.by_code.most_common()),
            "examples": [failure._asdict() for failure in failures.examples],
        },
        "notes": list(evaluation.notes),
        "seconds": round(evaluation.seconds, 3),
    }
    if isinstance(evaluation, ZeroShot):
        record["templates"] = list(evaluation.templates)
        record["classes"] = [result._asdict() for result in evaluation.classes]
        record["mistakes"] = [mistake._asdict() for mistake in evaluation.mistakes]
        record["worst_mistakes"] = [
            {name: value for name, value in mistake._asdict().items() if name != "file"}
            for mistake in evaluation.worst
        ]
    return record
