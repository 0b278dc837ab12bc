"""What an evaluation returns: metrics, counts, failures, and the mistakes of a classification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from score.errors import RowError

MOST_EXAMPLES = 1000
"""Failures, and kinds of mistakes, that are kept one by one."""

Progress = Callable[[str, int, int], None]
"""Called with the stage, the items done, and the items in all."""


class Failure(NamedTuple):
    """An image, caption or row that was left out, and its error."""

    item: str
    code: str
    message: str


@dataclass(slots=True)
class Failures:
    """What was left out: all are counted, the first `MOST_EXAMPLES` kept."""

    by_code: Counter[str] = field(default_factory=Counter)
    examples: list[Failure] = field(default_factory=list)

    def add(self, item: str, error: RowError) -> None:
        """Adds an item and its error."""
        self.by_code[error.code] += 1
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(Failure(item, error.code, error.message))

    @property
    def total(self) -> int:
        """The number of failures."""
        return self.by_code.total()


class ClassResult(NamedTuple):
    """A class folder: its name in the prompts, its number of images, their recall (0 to 1)."""

    folder: str
    name: str
    images: int
    recall: float | None


class Mistake(NamedTuple):
    """How many images of one class folder were classified as another."""

    true: str
    predicted: str
    images: int


class WorstMistake(NamedTuple):
    """An image classified as another class by a large margin.

    image: its path below the folder; file: where it is. true, predicted: class folders.
    margin: the cosine to the predicted class minus that to its own.
    """

    image: str
    file: Path
    true: str
    predicted: str
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The result of an evaluation.

    data: the base name of the folder or table.
    metrics: from 0 to 1, or None where nothing could be evaluated.
    counts: of images, classes, captions …, without those that failed.
    notes: sentences on how to read the figures.
    """

    data: str
    metrics: dict[str, float | None]
    counts: dict[str, int]
    failures: Failures
    notes: tuple[str, ...]
    seconds: float

    @property
    def empty(self) -> bool:
        """Whether everything failed, so that nothing could be evaluated."""
        return None in self.metrics.values()


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShot(Evaluation):
    """Zero-shot classification: `acc1`, `acc5`, `mean_per_class_recall`."""

    classes: tuple[ClassResult, ...]
    mistakes: tuple[Mistake, ...]
    worst: tuple[WorstMistake, ...] = ()
    templates: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval(Evaluation):
    """Retrieval: `image_retrieval_recall@k` (text → image), `text_retrieval_recall@k`."""
