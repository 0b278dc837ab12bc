"""How right is this model? ImageNet's and COCO's published figures, from images on disk.

The procedure is that of open_clip and CLIP_benchmark: zero-shot classification by the mean of each
class's prompts, retrieval by R@k both ways. Metrics are named as in CLIP_benchmark's results.

Images stream through and are forgotten. What grows is: for zero-shot the classes' vectors and
counts, for retrieval one vector an image and one a text.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from score.contract.params import Params
from score.contract.rows import COLUMNS, IMAGE, TEXT, Row, Vector, is_empty
from score.core.embedder import Embedder
from score.errors import BadColumns, EmptyRow, FetchFailed, RequestError, RowError
from score.evaluation.metrics import (
    RECALL_AT,
    TOP,
    Captions,
    Integers,
    Matrix,
    Tally,
    ranks,
    ranks_of_images,
    ranks_of_texts,
    recalls,
)
from score.evaluation.prompts import fill
from score.jobs.class_folders import ClassFolders, listed
from score.model.zeroshot import label_vectors, unit
from score.tables.csv_reader import CsvTable

_IMAGES_AT_ONCE = 256  # vectors that wait for their scores
_MOST_EXAMPLES = 1000  # failures and mistakes that are kept one by one
_MOST_WORST = 12  # images that are kept as the worst mistakes
_LONGEST_KEY = 64  # characters; a longer cell, an inline image say, is remembered by its hash
_NAMED = 5  # how many classes a note names

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how far it is, and how far it goes."""


class Failure(NamedTuple):
    """An image, caption or row that is left out, and why."""

    item: str
    code: str
    message: str


@dataclass(slots=True)
class Failures:
    """What was left out: all counted, the first kept."""

    by_code: Counter[str] = field(default_factory=Counter)
    examples: list[Failure] = field(default_factory=list)

    def add(self, item: str, error: RowError) -> None:
        """Counts one."""
        self.by_code[error.code] += 1
        if len(self.examples) < _MOST_EXAMPLES:
            self.examples.append(Failure(item, error.code, error.message))

    @property
    def total(self) -> int:
        """How many."""
        return self.by_code.total()


class ClassResult(NamedTuple):
    """A class folder: its name in the prompts, its images, and the share of them recognised."""

    folder: str
    name: str
    images: int
    recall: float | None


class Mistake(NamedTuple):
    """How often images of one class folder were taken for another's."""

    true: str
    predicted: str
    images: int


class WorstMistake(NamedTuple):
    """An image that was taken for another class's, far from its own.

    image: its path below the folder; file: where it is. true, predicted: class folders.
    margin: by how much the cosine to the predicted class is above the one to its own.
    """

    image: str
    file: Path
    true: str
    predicted: str
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What came out.

    data: the base name of what was evaluated.
    metrics: shares from 0 to 1, or None where nothing could be evaluated.
    counts: how many images, classes, captions …; those that failed are not among them.
    notes: what a reader should know of these figures, in sentences.
    """

    data: str
    metrics: dict[str, float | None]
    counts: dict[str, int]
    failures: Failures
    notes: tuple[str, ...]
    seconds: float

    @property
    def empty(self) -> bool:
        """Whether there was nothing to evaluate, everything having failed."""
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


# -- zero-shot ---------------------------------------------------------------------------------


def zeroshot(
    embedder: Embedder,
    folder: ClassFolders,
    names: Sequence[str],
    templates: Sequence[str],
    progress: Progress | None = None,
) -> ZeroShot:
    """Classifies every image of a folder among its classes; `names` are those of its classes.

    Every class can be answered, one without images too. An image that fails is left out.
    Raises RequestError for a prompt that the model cannot read whole.
    """
    began = time.perf_counter()
    tally, failures = Tally(len(names)), Failures()
    worst: list[WorstMistake] = []
    distinct = list(dict.fromkeys(names))
    # Folders of one name share its vector, so that they tie to the last bit.
    places = [distinct.index(name) for name in names]
    labels = class_vectors(embedder, distinct, templates, progress)
    vectors = _image_vectors(embedder, folder, failures, progress)
    while block := list(islice(vectors, _IMAGES_AT_ONCE)):
        images = unit(np.stack([vector for _, _, vector in block]))
        targets = np.array([number for number, _, _ in block], dtype=np.intp)
        scores = (images @ labels.T)[:, places]
        tally.add(scores, targets)
        found = _mistaken(folder, [file for _, file, _ in block], scores, targets)
        worst = heapq.nlargest(_MOST_WORST, [*worst, *found], key=lambda mistake: mistake.margin)
    return ZeroShot(
        data=folder.path.resolve().name,
        metrics={
            **{f"acc{k}": tally.accuracy(k) for k in TOP},
            "mean_per_class_recall": tally.mean_recall(),
        },
        counts={"images": int(tally.images.sum()), "classes": len(names)},
        failures=failures,
        notes=tuple(_zeroshot_notes(folder, names, tally)),
        seconds=time.perf_counter() - began,
        classes=tuple(
            ClassResult(_shown(name), label, count, recall)
            for name, label, count, recall in zip(
                folder.classes, names, tally.images.tolist(), tally.recall(), strict=True
            )
        ),
        mistakes=tuple(
            Mistake(_shown(folder.classes[true]), _shown(folder.classes[predicted]), count)
            for (true, predicted), count in tally.mistakes.most_common(_MOST_EXAMPLES)
        ),
        worst=tuple(worst),
        templates=tuple(templates),
    )


def _mistaken(
    folder: ClassFolders, files: Sequence[Path], scores: Matrix, targets: Integers
) -> Iterator[WorstMistake]:
    """Every mistake among some images. `scores`: [images, classes], `targets`: [images]."""
    for place in np.flatnonzero(ranks(scores, targets)).tolist():
        file, true, predicted = files[place], int(targets[place]), int(scores[place].argmax())
        yield WorstMistake(
            image=_shown(file.relative_to(folder.path).as_posix()),
            file=file,
            true=_shown(folder.classes[true]),
            predicted=_shown(folder.classes[predicted]),
            margin=float(scores[place, predicted] - scores[place, true]),
        )


def class_vectors(
    embedder: Embedder,
    names: Sequence[str],
    templates: Sequence[str],
    progress: Progress | None = None,
) -> Matrix:
    """Unit vectors [names, dimension]: each the mean of its prompts' unit vectors, made unit.

    Raises RequestError for a prompt that the model cannot read whole.
    """
    prompts = (Row(text=prompt) for name in names for prompt in fill(templates, name))
    records = embedder.embed(prompts, Params(truncate="error"))
    vectors = np.empty((len(names), embedder.dimension), dtype=np.float32)
    for place, name in enumerate(names):
        several = []
        for prompt, record in zip(fill(templates, name), records, strict=False):
            if record.text_features is None:
                assert record.error
                raise RequestError(f"the prompt {prompt[:80]!r}: {record.error.message}")
            several.append(record.text_features)
        vectors[place] = label_vectors(np.stack(several), [len(several)])[0]
        if progress:
            progress("prompts", (place + 1) * len(templates), len(names) * len(templates))
    return vectors


def _image_vectors(
    embedder: Embedder, folder: ClassFolders, failures: Failures, progress: Progress | None
) -> Iterator[tuple[int, Path, Vector]]:
    """Class number, file and vector of each image that can be read."""
    asked: deque[tuple[int, Path]] = deque()

    def rows() -> Iterator[Row]:
        for number, file in folder.images():
            asked.append((number, file))
            yield Row(image=_cell(file))

    # Links may lead anywhere, as in torchvision: class folders made of links are common. The folder
    # is the user's own, not a table that came from somewhere.
    root = Path(folder.path.absolute().anchor)
    for done, record in enumerate(embedder.embed(rows(), root=root), start=1):
        number, file = asked.popleft()
        if progress:
            progress("images", done, len(folder))
        if record.error:
            failures.add(_shown(file.relative_to(folder.path).as_posix()), record.error)
        elif record.image_features is not None:
            yield number, file, record.image_features


def _cell(file: Path) -> object:
    if not file.is_file():
        return FetchFailed("there is no such file; is it a link that leads nowhere?")
    return str(file.absolute())


def _zeroshot_notes(folder: ClassFolders, names: Sequence[str], tally: Tally) -> Iterator[str]:
    if folder.passed_over:
        yield (
            "Passed over, since torchvision's ImageFolder does not read them: "
            f"{listed(folder.passed_over)}."
        )
    without = [
        _shown(name) for name, count in zip(folder.classes, tally.images, strict=True) if not count
    ]
    if without:
        yield (
            f"{_so_many(len(without), 'class', 'classes')} without images: possible answers, but "
            f"not part of the mean per-class recall ({_some(without)})."
        )
    if len(names) < max(TOP):
        classes = _so_many(len(names), "class", "classes")
        yield f"With {classes}, the top {max(TOP)} are all of them."
    shared = [name for name, count in Counter(names).items() if count > 1]
    if shared:
        yield (
            f"{_so_many(len(shared), 'name', 'names')} shared by several class folders, of which "
            f"the first is answered ({_some(shared)})."
        )


# -- retrieval ---------------------------------------------------------------------------------


def retrieval(embedder: Embedder, source: Path, progress: Progress | None = None) -> Retrieval:
    """Finds each caption's image among all, and each image's captions.

    `source`: a CSV with the columns `image` and `text`. Rows with the same image cell are several
    captions of one image; cells are read as in batch jobs, texts over the model's context cut at
    their end. Each row's caption is an item of its own, also where another has the same words.

    An image or caption that fails is left out, with what depends on it. Raises RequestError for a
    file that is no such table, OSError.
    """
    began = time.perf_counter()
    pairs = _Pairs(embedder.dimension)
    with open_captions(source) as table:
        pairs.read(embedder, table, source.parent, progress)
    if not pairs.rows:
        raise RequestError(f"{source.name} has no rows")
    texts, images, captions = pairs.whole()
    both_ways = {
        "image": recalls(ranks_of_images(texts, images, captions)),
        "text": recalls(ranks_of_texts(texts, images, captions)),
    }
    return Retrieval(
        data=source.name,
        metrics={
            f"{sought}_retrieval_recall@{k}": recall
            for sought, found in both_ways.items()
            for k, recall in found.items()
        },
        counts={"images": len(images), "captions": len(captions)},
        failures=pairs.failures,
        notes=tuple(_retrieval_notes(pairs.rows, len(images), captions)),
        seconds=time.perf_counter() - began,
    )


def open_captions(source: Path) -> CsvTable:
    """A CSV of images and their captions. Raises RequestError for what is none, OSError."""
    table = CsvTable(source)
    for name in COLUMNS:
        if name not in table.columns:
            table.__exit__()
            listed = ", ".join(repr(column)[:80] for column in table.columns[:10])
            raise BadColumns(f"{source.name} has no column {name!r}; its columns are {listed}")
    return table


class _Pairs:
    """A table's distinct images and texts, as vectors, and which of them belong together."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self.rows = 0
        self.failures = Failures()
        # By column: cell → its number; the vectors by number, None where the cell failed.
        self._numbers: dict[str, dict[str | bytes, int]] = {name: {} for name in COLUMNS}
        self._vectors: dict[str, list[Vector | None]] = {name: [] for name in COLUMNS}
        self._pairs: list[tuple[int, int]] = []

    def read(
        self, embedder: Embedder, table: CsvTable, root: Path, progress: Progress | None
    ) -> None:
        """Embeds what each row brings that is new. Rows are counted from 0, as in batch jobs."""
        asked: deque[tuple[str, int, int]] = deque()

        def rows() -> Iterator[Row]:
            for number, line in enumerate(table):
                self.rows += 1
                if problem := _problem(line.row):
                    self.failures.add(f"row {number}", problem)
                    continue
                for column, cell in self._new(line.row):
                    asked.append((column, number, line.position))
                    yield Row(image=cell) if column == IMAGE else Row(text=cell)

        for record in embedder.embed(rows(), root=root):
            column, row, position = asked.popleft()
            self._vectors[column].append(
                record.image_features if column == IMAGE else record.text_features
            )
            if record.error:
                self.failures.add(f"row {row}, {column}", record.error)
            if progress:
                progress("rows", position, table.size)

    def _new(self, row: Row) -> Iterator[tuple[str, str]]:
        """Notes a row's pair, and gives those of its cells that were not seen before."""
        pair = []
        for column, cell in ((IMAGE, str(row.image)), (TEXT, str(row.text))):
            key, known = _key(cell), self._numbers[column]
            if key not in known:
                known[key] = len(known)
                yield column, cell
            pair.append(known[key])
        self._pairs.append((pair[0], pair[1]))

    def whole(self) -> tuple[Matrix, Matrix, Captions]:
        """Unit vectors of texts and images, and the captions: those pairs of which both are good.

        An image that has lost all its captions is gone with them.
        """
        pairs = np.array(
            [
                (image, text)
                for image, text in self._pairs
                if self._vectors[IMAGE][image] is not None and self._vectors[TEXT][text] is not None
            ],
            dtype=np.intp,
        ).reshape(-1, 2)
        images, image_of = np.unique(pairs[:, 0], return_inverse=True)
        texts, text_of = np.unique(pairs[:, 1], return_inverse=True)
        return (
            self._matrix(TEXT, texts.tolist()),
            self._matrix(IMAGE, images.tolist()),
            Captions(text_of, image_of),
        )

    def _matrix(self, column: str, numbers: Sequence[int]) -> Matrix:
        vectors = [self._vectors[column][number] for number in numbers]
        return unit(np.array(vectors, dtype=np.float32).reshape(len(numbers), self._dimension))


def _problem(row: Row) -> RowError | None:
    """Why a row is no pair of an image and a caption."""
    cells = {IMAGE: row.image, TEXT: row.text}
    for cell in cells.values():
        if isinstance(cell, RowError):
            return cell
    for column, cell in cells.items():
        if is_empty(cell):
            return EmptyRow(f"has no {column}")
    return None


def _key(cell: str) -> str | bytes:
    """What tells cells apart, of bounded size; blanks around them mean nothing."""
    cell = cell.strip()
    if len(cell) <= _LONGEST_KEY:
        return cell
    return hashlib.sha256(cell.encode("utf-8", "surrogatepass")).digest()


def _retrieval_notes(rows: int, images: int, captions: Captions) -> Iterator[str]:
    if len(captions) < rows:
        yield (
            f"{_so_many(rows - len(captions), 'row', 'rows')} of {rows:,} left out: "
            "the row, its image or its caption failed."
        )
    for items, what in ((images, "images"), (len(captions), "captions")):
        if 0 < items <= max(RECALL_AT):
            yield f"With {items:,} {what}, the first {max(RECALL_AT)} are all of them."
    shared = len(captions) - len(np.unique(captions.text))
    if shared:
        yield (
            f"{_so_many(shared, 'caption', 'captions')} repeating the words of an earlier one: "
            "each is an item of its own, and the earlier stands first."
        )


# -- words -------------------------------------------------------------------------------------


def _so_many(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def _shown(name: str) -> str:
    """A file's name as text that can be written anywhere: names need not be UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")
