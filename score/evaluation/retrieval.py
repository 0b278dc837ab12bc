"""Text-to-image and image-to-text retrieval over a table of captions, by R@k as in CLIP_benchmark.

Images stream through: what grows with the data is one vector an image and one a text.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from score.contract.rows import COLUMNS, IMAGE, TEXT, Row, is_empty
from score.core.embedder import Embedder
from score.core.pairs import embed_pairs
from score.errors import BadColumns, EmptyRow, RequestError, RowError
from score.evaluation.metrics import (
    RECALL_AT,
    Captions,
    ranks_of_images,
    ranks_of_texts,
    recalls,
)
from score.evaluation.results import Failures, Progress, Retrieval
from score.evaluation.words import plural
from score.model.zeroshot import unit
from score.tables.csv_reader import CsvTable
from score.type_aliases import Matrix, Vector

_LONGEST_KEY = 64  # characters; of a longer cell, such as an inline image, the hash is kept


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
            for sought, by_k in both_ways.items()
            for k, recall in by_k.items()
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
        """Embeds the images and texts that are new in each row. Rows count from 0, as in jobs."""

        def items() -> Iterator[tuple[tuple[str, int, int], Row]]:
            for number, line in enumerate(table):
                self.rows += 1
                if problem := _problem(line.row):
                    self.failures.add(f"row {number}", problem)
                    continue
                for column, cell in self._new(line.row):
                    row = Row(image=cell) if column == IMAGE else Row(text=cell)
                    yield (column, number, line.position), row

        for (column, number, position), record in embed_pairs(embedder, items(), root=root):
            self._vectors[column].append(
                record.image_features if column == IMAGE else record.text_features
            )
            if record.error:
                self.failures.add(f"row {number}, {column}", record.error)
            if progress:
                progress("rows", position, table.size)

    def _new(self, row: Row) -> Iterator[tuple[str, str]]:
        """Adds a row's pair, and yields those of its cells that no earlier row had."""
        pair = []
        for column, cell in ((IMAGE, str(row.image)), (TEXT, str(row.text))):
            key, known = _key(cell), self._numbers[column]
            if key not in known:
                known[key] = len(known)
                yield column, cell
            pair.append(known[key])
        self._pairs.append((pair[0], pair[1]))

    def whole(self) -> tuple[Matrix, Matrix, Captions]:
        """Unit vectors of texts and images, and the captions: the pairs of which both are good.

        An image without a good caption is left out.
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
    """A cell's key, of bounded size; blanks around the cell are ignored."""
    cell = cell.strip()
    if len(cell) <= _LONGEST_KEY:
        return cell
    return hashlib.sha256(cell.encode("utf-8", "surrogatepass")).digest()


def _retrieval_notes(rows: int, images: int, captions: Captions) -> Iterator[str]:
    if len(captions) < rows:
        yield (
            f"{plural(rows - len(captions), 'row', 'rows')} of {rows:,} left out: "
            "the row, its image or its caption failed."
        )
    for items, what in ((images, "images"), (len(captions), "captions")):
        if 0 < items <= max(RECALL_AT):
            yield f"With {items:,} {what}, the first {max(RECALL_AT)} are all of them."
    shared = len(captions) - len(np.unique(captions.text))
    if shared:
        yield (
            f"{plural(shared, 'caption', 'captions')} repeating the words of an earlier one: "
            "each is an item of its own, and the earlier stands first."
        )
