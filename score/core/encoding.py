"""Prepared rows → records, by forward passes that all calls share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from score.concurrency.cancellation import Cancellation
from score.concurrency.steps import Steps
from score.contract.params import Params
from score.contract.rows import Record
from score.core.pipeline import Pipeline
from score.core.preparation import Inputs
from score.errors import RowError
from score.model import zeroshot
from score.type_aliases import Matrix, Vector


class Encoding:
    """Of one call. For one thread at a time. An image or text that came lately is not encoded
    again."""

    def __init__(
        self,
        pipeline: Pipeline,
        params: Params,
        labels: Matrix | None,
        call: Cancellation,
        *,
        classify_texts: bool = False,
    ) -> None:
        """`labels`: the vectors of `params.labels`, if any. `classify_texts`: they are the classes
        of rows without an image, too."""
        self._encoder, self._params = pipeline.encoder, params
        self._label_vectors, self._classify_texts = labels, classify_texts
        self._images, self._texts = pipeline.images(call), pipeline.texts(call)

    def records(self, rows: Mapping[int, Inputs | RowError]) -> Steps[dict[int, Record]]:
        """The record of each row, by the row's index. Raises Cancelled, RequestTimeout, and what a
        pass raises."""
        inputs = {i: row for i, row in rows.items() if isinstance(row, Inputs)}
        images = {i: x.pixels for i, x in inputs.items() if x.pixels is not None}
        texts = {i: x.ids for i, x in inputs.items() if x.ids is not None}
        encoded_images = yield from self._images.vectors(list(images.values()))
        encoded_texts = yield from self._texts.vectors(list(texts.values()))
        image_vectors = self._by_row(encoded_images, images)
        text_vectors = self._by_row(encoded_texts, texts)
        classes = dict(zip(images, self._classified(encoded_images), strict=False))
        if self._classify_texts:
            classes = {**dict(zip(texts, self._classified(encoded_texts), strict=False)), **classes}
        records = {i: Record(error=row) for i, row in rows.items() if isinstance(row, RowError)}
        for index in inputs:
            labels, probs = classes.get(index, (None, None))
            records[index] = Record(
                image_features=image_vectors.get(index),
                text_features=text_vectors.get(index),
                labels=labels,
                probs=probs,
                tokens=len(texts.get(index, ())),
            )
        return records

    def _classified(self, vectors: Matrix) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
        """Labels and probabilities of each vector; an empty list where no labels were sent."""
        if self._label_vectors is None or self._params.labels is None:
            return []
        names, least = self._params.labels.names, self._params.confidence
        probabilities = zeroshot.probabilities(
            vectors, self._label_vectors, self._encoder.logit_scale, self._encoder.logit_bias
        )
        return [zeroshot.ranked(names, probs, least) for probs in probabilities]

    def _by_row(self, vectors: Matrix, indices: Iterable[int]) -> dict[int, Vector]:
        """Each row's index with its own copy, so that no record keeps its batch in memory."""
        if self._params.normalize:
            vectors = zeroshot.unit(vectors)
        return {index: vector.copy() for index, vector in zip(indices, vectors, strict=True)}
