"""Labels a data set: images and an ontology in, a class for each image out.

The class is the zero-shot one, `Embedder.classify`'s; the result a CSV, or the images themselves
sorted into a folder for each label, ready to train a small model on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from score.contract.labels import LONGEST_JSON, Labels
from score.contract.params import Params
from score.contract.rows import Record, Row
from score.core.embedder import Embedder
from score.core.pairs import embed_pairs
from score.errors import BadParams, RequestError, RequestTooLarge
from score.jobs import image_folder_writer
from score.jobs.image_folder_writer import ImageFolder
from score.jobs.image_source import SourceImage, SourceImages
from score.jobs.summary import Summary, count
from score.storage.outputs import check_files
from score.tables.label_writer import LabelWriter

_PARAM = "param 'labels'"  # the start of errors about labels
_SHOWN = 50  # labels in a summary


@dataclass
class LabelSummary(Summary):
    """How a labelling went.

    labels: images of each label. unlabelled: images that got none. converted: images converted to
    PNG, since torchvision does not read their format.
    """

    labels: Counter[str] = field(default_factory=Counter)
    unlabelled: int = 0
    converted: int = 0

    def __str__(self) -> str:
        counts = self.labels.most_common()
        lines = [f"{count:9,}  {_printable(label)}" for label, count in counts[:_SHOWN]]
        if more := counts[_SHOWN:]:
            lines.append(f"{sum(count for _, count in more):9,}  in {len(more):,} more labels")
        if self.unlabelled:
            lines.append(f"{self.unlabelled:9,}  below the confidence asked for, unlabelled")
        if self.converted:
            lines.append(f"{self.converted:9,}  converted to PNG, for torchvision's ImageFolder")
        return "\n".join([super().__str__(), *lines])


def read_ontology(file: Path, most: int | None = None) -> Labels:
    """The labels in a JSON file: a list, or an object of label → prompt, or → prompts.

    most: the limit of prompts, if any. Raises BadParams, RequestTooLarge, which name the file.
    """
    with _naming(file):
        try:
            with file.open(encoding="utf-8-sig") as text:
                labels = Labels.parse(text.read(LONGEST_JSON + 1))
        except UnicodeDecodeError:
            raise BadParams(f"{_PARAM} is not UTF-8 text") from None
        if labels is None:
            raise BadParams(f"{_PARAM} is empty: it needs a JSON list or object")
        count = sum(map(len, labels.prompts))
        if most is not None and count > most:
            raise BadParams(f"{_PARAM} has {count:,} prompts; at most {most:,}")
    return labels


def encode_ontology(labels: Labels, file: Path, embedder: Embedder) -> None:
    """Computes the labels' vectors, which the embedder caches.

    Raises BadParams, which names the file, for a prompt that the model cannot encode.
    """
    with _naming(file):
        embedder.label_vectors(labels, Params().truncate)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    try:
        yield
    except (BadParams, RequestTooLarge) as error:
        raise type(error)(str(error).replace(_PARAM, str(file), 1)) from None


def check_output(output: Path, source: Path, *, overwrite: bool = False) -> None:
    """Raises RequestError unless a labelling of `source` may be written to `output`."""
    if output.suffix == ".csv":
        check_files([output], overwrite=overwrite, inputs=[source])
    elif output.suffix and not output.is_dir():
        raise RequestError(f"{output.name} must end in .csv, or have no ending and be a folder")
    elif source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise RequestError(f"{output} lies in {source}, and would be labelled the next time")
    else:
        image_folder_writer.check(output, overwrite=overwrite, inputs=[source])


def columns_of(output: Path, top: int) -> tuple[str, ...]:
    """The columns that a labelling adds to those of its input."""
    return LabelWriter.columns_of(top, has_files=output.suffix != ".csv")


def label(
    embedder: Embedder,
    images: SourceImages,
    labels: Labels,
    output: Path,
    *,
    confidence: float = 0.0,
    top: int = 1,
    overwrite: bool = False,
    progress: Callable[[LabelSummary], None] | None = None,
    summary: LabelSummary | None = None,
) -> LabelSummary:
    """Labels every image, into a CSV where `output` ends in .csv, else into an image folder.

    confidence: a probability from 0 to 1; an image whose best label is below it gets none.
    top: labels a line. `progress` is called after each image; `summary`: an object that is updated
    while the job runs. A CSV that exists is replaced; an image folder only with `overwrite`.
    Raises BadColumns for a column with the name of one that is added, RequestError for a folder
    that must not be replaced.
    """
    summary = summary or LabelSummary()
    summary.labels.update(dict.fromkeys(labels.names, 0))
    began = time.perf_counter()
    with ExitStack() as files:
        folder: ImageFolder | None = None
        table = output
        if output.suffix != ".csv":
            folder = files.enter_context(
                ImageFolder(output, labels.names, embedder.settings, overwrite=overwrite)
            )
            table = folder.path / image_folder_writer.TABLE
        writer = files.enter_context(
            LabelWriter(table, images.columns, top, has_files=folder is not None)
        )
        for (number, image), record in _labelled(embedder, images, labels, folder):
            best = _best(record, confidence)
            file = _placed(folder, number, image, best) if folder else None
            summary.converted = folder.converted if folder else 0
            writer.add(image.kept, record, confidence, file)
            count(summary, record, image.position, time.perf_counter() - began)
            _count(summary, record, best)
            if progress:
                progress(summary)
    return summary


def _labelled(
    embedder: Embedder, images: SourceImages, labels: Labels, folder: ImageFolder | None
) -> Iterator[tuple[tuple[int, SourceImage], Record]]:
    """Each image, without its cell, with its number and record."""

    def items() -> Iterator[tuple[tuple[int, SourceImage], Row]]:
        for number, image in enumerate(images):
            cell = folder.stage(number, image.cell) if folder else image.cell
            yield (number, replace(image, cell=None)), Row(image=cell)

    params = Params(on_error="report", labels=labels)
    on_fetched = image_folder_writer.keep if folder else None
    return embed_pairs(embedder, items(), params, root=images.root, on_fetched=on_fetched)


def _best(record: Record, confidence: float) -> str | None:
    """The label that an image gets; None where it failed or none is probable enough."""
    if record.labels and record.probs and record.probs[0] >= confidence:
        return record.labels[0]
    return None


def _placed(folder: ImageFolder, number: int, image: SourceImage, best: str | None) -> str | None:
    if best is not None:
        return folder.place(number, image.name, best)
    folder.drop(number)
    return None


def _count(summary: LabelSummary, record: Record, best: str | None) -> None:
    if record.error:
        return
    if best is None:
        summary.unlabelled += 1
    else:
        summary.labels[best] += 1


def _printable(label: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in label[:80])
