"""Zero-shot classification of a folder of class folders, as open_clip and CLIP_benchmark do it.

A class's vector is the mean of its prompts' vectors. Images stream through: what grows with the
data are the classes' vectors and counts.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from score.contract.params import Params
from score.contract.rows import Row
from score.core.embedder import Embedder
from score.core.pairs import embed_pairs
from score.errors import FetchFailed, RequestError
from score.evaluation.metrics import TOP, Integers, Tally, ranks
from score.evaluation.prompts import fill
from score.evaluation.results import (
    MOST_EXAMPLES,
    ClassResult,
    Failures,
    Mistake,
    Progress,
    WorstMistake,
    ZeroShot,
)
from score.evaluation.words import first_names, plural, printable
from score.jobs.image_folder_reader import ClassFolders, listed
from score.model.zeroshot import label_vectors, unit
from score.type_aliases import Matrix, Vector
from score.wording.quoting import quoted

_IMAGES_AT_ONCE = 256  # vectors that are scored together
_MOST_WORST = 12  # images that are kept as the worst mistakes


def zeroshot(
    embedder: Embedder,
    folder: ClassFolders,
    names: Sequence[str],
    templates: Sequence[str],
    progress: Progress | None = None,
) -> ZeroShot:
    """Classifies every image of a folder among its classes; `names` are those of its classes.

    Classes without images are possible answers, too. An image that fails is left out.
    Raises RequestError for a prompt that the model cannot read whole.
    """
    began = time.perf_counter()
    tally, failures = Tally(len(names)), Failures()
    worst: list[WorstMistake] = []
    distinct = list(dict.fromkeys(names))
    # Folders with the same name share its vector, so that their scores are exactly equal.
    columns = [distinct.index(name) for name in names]
    labels = class_vectors(embedder, distinct, templates, progress)
    vectors = _image_vectors(embedder, folder, failures, progress)
    while block := list(islice(vectors, _IMAGES_AT_ONCE)):
        images = unit(np.stack([vector for _, _, vector in block]))
        targets = np.array([number for number, _, _ in block], dtype=np.intp)
        scores = (images @ labels.T)[:, columns]
        tally.add(scores, targets)
        mistakes = _mistakes(folder, [file for _, file, _ in block], scores, targets)
        worst = heapq.nlargest(_MOST_WORST, [*worst, *mistakes], key=lambda mistake: mistake.margin)
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
            ClassResult(printable(name), label, count, recall)
            for name, label, count, recall in zip(
                folder.classes, names, tally.images.tolist(), tally.recall(), strict=True
            )
        ),
        mistakes=tuple(
            Mistake(printable(folder.classes[true]), printable(folder.classes[predicted]), count)
            for (true, predicted), count in tally.mistakes.most_common(MOST_EXAMPLES)
        ),
        worst=tuple(worst),
        templates=tuple(templates),
    )


def _mistakes(
    folder: ClassFolders, files: Sequence[Path], scores: Matrix, targets: Integers
) -> Iterator[WorstMistake]:
    """The mistakes among some images. `scores`: [images, classes], `targets`: [images]."""
    for number in np.flatnonzero(ranks(scores, targets)).tolist():
        file, true, predicted = files[number], int(targets[number]), int(scores[number].argmax())
        yield WorstMistake(
            image=printable(file.relative_to(folder.path).as_posix()),
            file=file,
            true=printable(folder.classes[true]),
            predicted=printable(folder.classes[predicted]),
            margin=float(scores[number, predicted] - scores[number, true]),
        )


def class_vectors(
    embedder: Embedder,
    names: Sequence[str],
    templates: Sequence[str],
    progress: Progress | None = None,
) -> Matrix:
    """Unit vectors [names, dimension]: each the mean of its prompts' unit vectors, normalised.

    Raises RequestError for a prompt that the model cannot read whole.
    """
    prompts = (Row(text=prompt) for name in names for prompt in fill(templates, name))
    records = embedder.embed(prompts, Params(truncate="error"))
    vectors = np.empty((len(names), embedder.dimension), dtype=np.float32)
    for number, name in enumerate(names):
        several = []
        for prompt, record in zip(fill(templates, name), records, strict=False):
            if record.text_features is None:
                assert record.error
                raise RequestError(f"the prompt {quoted(prompt)}: {record.error.message}")
            several.append(record.text_features)
        vectors[number] = label_vectors(np.stack(several), [len(several)])[0]
        if progress:
            progress("prompts", (number + 1) * len(templates), len(names) * len(templates))
    return vectors


def _image_vectors(
    embedder: Embedder, folder: ClassFolders, failures: Failures, progress: Progress | None
) -> Iterator[tuple[int, Path, Vector]]:
    """Class number, file and vector of each image that can be read."""
    items = (((number, file), Row(image=_cell(file))) for number, file in folder.images())
    # Links may lead anywhere, as in torchvision: class folders made of links are common. The folder
    # is the user's own, not a table from somewhere else.
    root = Path(folder.path.absolute().anchor)
    pairs = embed_pairs(embedder, items, root=root)
    for done, ((number, file), record) in enumerate(pairs, start=1):
        if progress:
            progress("images", done, len(folder))
        if record.error:
            failures.add(printable(file.relative_to(folder.path).as_posix()), record.error)
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
    counts = zip(folder.classes, tally.images, strict=True)
    without = [printable(name) for name, count in counts if not count]
    if without:
        yield (
            f"{plural(len(without), 'class', 'classes')} without images: possible answers, but "
            f"not part of the mean per-class recall ({first_names(without)})."
        )
    if len(names) < max(TOP):
        classes = plural(len(names), "class", "classes")
        yield f"With {classes}, the top {max(TOP)} are all of them."
    shared = [name for name, count in Counter(names).items() if count > 1]
    if shared:
        yield (
            f"{plural(len(shared), 'name', 'names')} shared by several class folders, of which "
            f"the first is answered ({first_names(shared)})."
        )
