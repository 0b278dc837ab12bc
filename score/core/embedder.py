"""The core: rows in, records out, in order, in bounded memory.

    rows ──admit──▶ fetch ∥ decode (threads) ──▶ ready ──▶ encode (shared passes) ──▶ in order

One row that stalls holds up neither the download nor the encoding of those behind it: prepared rows
are encoded in whatever order they become ready, and only their vectors wait for their turn. Three
numbers bound the memory: rows being prepared, bytes being decoded, vectors waiting.

Knows nothing of HTTP, JSON or tables.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import os
import queue
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from score.contract.labels import Labels
from score.contract.params import Params, Truncate
from score.contract.rows import IMAGE, TEXT, Record, Row, Vector, is_empty
from score.core.batching import Batcher
from score.errors import BadParams, EmptyRow, ModelError, RowError, RowsFailed
from score.fetch.fetcher import Fetcher
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.hardware.processor import cores
from score.images.preprocess import Pixels, Preprocessor
from score.model import precision, zeroshot
from score.model.encoder import Encoder
from score.model.engines.base import Matrix
from score.model.probes import Finding, Probes
from score.settings import Settings
from score.texts.tokenizer import Ids, Tokenizer

_WINDOW = 4096  # records that may wait for a slow row before them: 16 MiB of 2 × 512 floats
_SEEN = 2**20  # floats of vectors that a stream keeps for what comes again: 4 MiB
_LABEL_SETS = 16  # whose vectors are kept: at most 16 × 2000 × 512 floats, 62 MiB, by default
_LABEL_TEXT = 2**20  # characters of a label set that is kept: their text stays in memory, too
_PASS_TOKENS = 2560  # of texts in one pass: 32 rows of 80
_LINGER = 0.01  # seconds that a ready row waits for company, while others are on their way


class Embedder:
    """A CLIP model that answers rows. Safe to share between threads."""

    def __init__(
        self, encoder: Encoder, texts: Tokenizer, preprocessor: Preprocessor, settings: Settings
    ) -> None:
        self.encoder = encoder
        self.texts = texts
        self.preprocessor = preprocessor
        self.settings = settings
        batcher = Batcher()
        # All callers' rows meet here: pixels or token ids → vectors.
        self.encode_images = batcher.shared(encoder.images, settings.batch_size, lambda _: 1)
        self.encode_texts = batcher.shared(encoder.texts, _PASS_TOKENS, len)
        self._fetcher = Fetcher(settings)
        # Few threads: what one's large images leave behind in its memory is not used by others.
        # By process, since threads do not survive a fork.
        workers = settings.decode_workers or cores()
        self._decoders = functools.cache(lambda process: ThreadPoolExecutor(workers, "decode"))
        self._kept_labels = functools.lru_cache(_LABEL_SETS)(self._encode_labels)
        self._streams: weakref.WeakSet[_Stream] = weakref.WeakSet()  # those under way

    @classmethod
    def load(cls, folder: str | Path = EMBEDDED, settings: Settings | None = None) -> Embedder:
        """The model in `folder`: a package or a plain transformers folder.

        Where the folder has probes, it must compute them, as far as `settings.verify` asks. Raises
        ModelError.
        """
        settings = settings or Settings()
        opened = ModelFolder.open(folder)
        texts = Tokenizer.load(opened)  # before the weights: what is quick to refuse comes first
        preprocessor = Preprocessor.from_config(opened.preprocessor)
        encoder = precision.fastest(opened, texts, preprocessor, settings)
        embedder = cls(encoder, texts, preprocessor, settings)
        if settings.verify != "off":
            embedder._keep_promises(Probes.read(opened.path))
        return embedder

    def _keep_promises(self, probes: Probes | None) -> None:
        quick = self.settings.verify == "quick"
        broken = [finding for finding in self.check(probes, quick=quick) if not finding.passed]
        if broken:
            raise ModelError(
                f"this model does not compute here what its package promises: {broken[0]}; "
                "run `score verify` on it"
            )

    def check(self, probes: Probes | None, *, quick: bool = False) -> list[Finding]:
        """What probes come to here. Raises ModelError for a precision they say nothing of."""
        if probes is None:
            return []
        return probes.check(self.encoder, self.texts, self.preprocessor, quick=quick)

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return self.encoder.dimension

    def fetching(self, fetcher: Fetcher) -> Embedder:
        """This very model, whose images come in by another fetcher."""
        other = copy.copy(self)
        other._fetcher = fetcher
        return other

    def embed(
        self, rows: Iterable[Row], params: Params | None = None, *, root: Path | None = None
    ) -> Iterator[Record]:
        """A record for each row, in the rows' order, while later rows are still being read.

        A row that fails is a record with an error, whatever `params.on_error` says. `root` is the
        folder below which an image cell may name a file; without it none may.
        """
        return _Stream(self, params or Params(), root, until=None).records(rows)

    def answer(self, rows: Sequence[Row], params: Params | None = None) -> list[Record]:
        """All records of one request, whose downloads together have `request_deadline`.

        Raises RowsFailed under `on_error="raise"`. How many rows a request may have is for whoever
        received it to check: a caller in this process has them in memory already.
        """
        params = params or Params()
        until = time.monotonic() + self.settings.request_deadline
        records = list(_Stream(self, params, root=None, until=until).records(rows))
        failures = [(i, record.error) for i, record in enumerate(records) if record.error]
        if failures and params.on_error == "raise":
            raise RowsFailed(failures, len(records))
        return records

    def embed_text(self, text: str) -> Vector:
        """A text's vector, float32 [dimension]. Raises RowError."""
        vector = self._one(Row(text=text)).text_features
        assert vector is not None
        return vector

    def embed_image(self, image: ImageInput) -> Vector:
        """An image's vector, float32 [dimension]. Raises RowError, OSError for a missing file."""
        vector = self._one(_row(image)).image_features
        assert vector is not None
        return vector

    def classify(
        self,
        image: ImageInput,
        labels: Labels | Iterable[str] | Mapping[str, str | Sequence[str]],
        *,
        confidence: float = 0.0,
    ) -> dict[str, float]:
        """Label → probability, the most probable first, those below `confidence` left out.

        `labels`: labels, or label → prompt (or prompts), or the JSON of either. Raises RowError,
        BadParams, OSError.
        """
        asked = labels if isinstance(labels, (Labels, Mapping, str)) else list(labels)
        chosen = asked if isinstance(asked, Labels) else Labels.parse(asked)
        if chosen is None or not 0 <= confidence <= 1:
            raise BadParams("classify needs labels, and a confidence from 0 to 1")
        record = self._one(_row(image), Params(labels=chosen, confidence=confidence))
        return dict(zip(record.labels or (), record.probs or (), strict=True))

    def _one(self, row: Row, params: Params | None = None) -> Record:
        (record,) = self.embed([row], params)
        if record.error:
            raise record.error
        return record

    def label_vectors(self, labels: Labels, truncate: Truncate) -> Matrix:
        """Unit vectors, float32 [labels, dimension]; those of the last label sets are kept.

        Raises BadParams for too many prompts, or one that cannot be encoded.
        """
        texts = [*labels.names, *(prompt for prompts in labels.prompts for prompt in prompts)]
        if sum(map(len, texts)) > _LABEL_TEXT:
            return self._encode_labels(labels, truncate)
        return self._kept_labels(labels, truncate)

    def _encode_labels(self, labels: Labels, truncate: Truncate) -> Matrix:
        counts = [len(prompts) for prompts in labels.prompts]
        if sum(counts) > self.settings.max_prompts:
            raise BadParams(
                f"param 'labels' has {sum(counts):,} prompts; at most {self.settings.max_prompts:,}"
            )
        prompts = [prompt for several in labels.prompts for prompt in several]
        encoded = []
        for prompt, ids in zip(prompts, self.texts.encode(prompts, truncate), strict=True):
            if isinstance(ids, RowError):
                raise BadParams(f"param 'labels', {prompt[:80]!r}: {ids.message}")
            encoded.append(ids)
        # Once each, so that ties are ties to the bit.
        vectors = _Seen(self.encode_texts, self.dimension, tuple).vectors(encoded)
        return zeroshot.label_vectors(vectors, counts)

    def prepare(self, row: Row, params: Params, root: Path | None, until: float | None) -> _Inputs:
        """What the encoder needs of a row. Raises RowError, which names the column."""
        if is_empty(row.image) and is_empty(row.text):
            raise EmptyRow("has neither an image nor a text")
        # The text first: it is cheap, and a row that fails needs no download.
        ids = None if is_empty(row.text) else self._ids(row.text, params)
        pixels = None if is_empty(row.image) else self._pixels(row.image, root, until)
        return _Inputs(pixels, ids)

    def _ids(self, text: object, params: Params) -> Ids:
        with _blaming(TEXT):
            if isinstance(text, RowError):
                raise text
            (ids,) = self.texts.encode([text], params.truncate)
            if isinstance(ids, RowError):
                raise ids
            return ids

    def _pixels(self, image: object, root: Path | None, until: float | None) -> Pixels:
        with _blaming(IMAGE):
            if isinstance(image, RowError):
                raise image
            # Decoded images are large; the wait here is also what slows the downloads down.
            with self._fetcher.holding():
                data = self._fetcher.fetch(image, root, until)
                return self._decoders(os.getpid()).submit(self._decode, data).result()

    def _decode(self, data: bytes) -> Pixels:
        settings = self.settings
        return self.preprocessor.read(
            data,
            settings.max_pixels,
            exif_orientation=settings.exif_orientation,
            wide=settings.wide_pixels,
            fast=settings.decoding == "fast",
        )


ImageInput = bytes | str | Path
"""An image in Python: its bytes, its file as a Path, or a string as a request spells it."""


def _row(image: ImageInput) -> Row:
    return Row(image=image.read_bytes() if isinstance(image, Path) else image)


@dataclass(frozen=True, slots=True)
class _Inputs:
    pixels: Pixels | None
    ids: Ids | None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A row on its way out: prepared, failed, or (a bug of ours) crashed."""

    index: int
    image: bool
    result: _Inputs | BaseException


class _Stream:
    """One call of `embed`."""

    def __init__(
        self, embedder: Embedder, params: Params, root: Path | None, until: float | None
    ) -> None:
        self._embedder = embedder
        self._params = params
        self._labels: Matrix | None = None
        if params.labels is not None:
            self._labels = embedder.label_vectors(params.labels, params.truncate)
        self._seen_images = _Seen(embedder.encode_images, embedder.dimension, _digest)
        self._seen_texts = _Seen(embedder.encode_texts, embedder.dimension, tuple)
        self._root, self._until = root, until
        settings = embedder.settings
        self._most_rows = 8 * settings.batch_size
        # Each has a thread. What many requests at a time get together grows much more slowly than
        # their number: for 40 of them eight times as much as for one, by the defaults.
        embedder._streams.add(self)
        images = 2 * settings.batch_size + settings.fetch_workers
        self._most_images = max(settings.batch_size, images // len(embedder._streams))
        self._batch_size = settings.batch_size
        # No SimpleQueue, whose `get` may forget its timeout on a machine that is busy.
        self._ready: queue.Queue[_Ready] = queue.Queue()
        self._waiting: dict[int, Record] = {}
        # Rows let in, answered, and handed out; images being prepared.
        self._admitted = self._answered = self._yielded = 0
        self._images = 0
        self._exhausted = False
        self._broken: Exception | None = None  # what the source raised

    def records(self, rows: Iterable[Row]) -> Iterator[Record]:
        source = iter(rows)
        # A thread for each image that is let in: those that wait for a slow or busy host hold up
        # no others. How many download at a time, the fetcher says.
        workers = ThreadPoolExecutor(self._most_images, "prepare")
        try:
            while self._admit(source, workers):
                self._encode(self._take())
                while (record := self._waiting.pop(self._yielded, None)) is not None:
                    self._yielded += 1
                    yield record
            if self._broken is not None:
                raise self._broken
        finally:
            workers.shutdown(wait=False, cancel_futures=True)

    def _admit(self, source: Iterator[Row], workers: ThreadPoolExecutor) -> bool:
        """Lets rows in while there is room. Whether any are under way."""
        while (
            self._admitted - self._answered < self._most_rows
            and self._admitted - self._yielded < _WINDOW
            and self._images < self._most_images
            and (row := self._next(source)) is not None
        ):
            index = self._admitted
            self._admitted += 1
            if is_empty(row.image):
                self._prepare(index, row, image=False)
            else:
                self._images += 1
                workers.submit(self._prepare, index, row, image=True)
        return self._admitted > self._answered

    def _next(self, source: Iterator[Row]) -> Row | None:
        """The next row. A source that breaks has first all that it gave answered."""
        if not self._exhausted:
            try:
                return next(source)
            except StopIteration:
                self._exhausted = True
            except Exception as error:
                self._exhausted, self._broken = True, error
        return None

    def _prepare(self, index: int, row: Row, *, image: bool) -> None:
        result: _Inputs | BaseException
        try:
            result = self._embedder.prepare(row, self._params, self._root, self._until)
        except RowError as error:
            # The record outlives this call; its trace would keep the row's bytes alive with it.
            error.__traceback__ = error.__cause__ = error.__context__ = None
            result = error
        except BaseException as error:
            result = error
        self._ready.put(_Ready(index, image, result))

    def _take(self) -> list[_Ready]:
        """Rows that are ready, at least one; a full batch where it comes without much waiting."""
        taken = [self._ready.get()]
        under_way = self._admitted - self._answered
        while len(taken) < under_way and sum(item.image for item in taken) < self._batch_size:
            try:
                taken.append(self._ready.get(timeout=_LINGER))
            except queue.Empty:
                break
        return taken

    def _encode(self, batch: list[_Ready]) -> None:
        inputs: dict[int, _Inputs] = {}
        for item in batch:
            if isinstance(item.result, _Inputs):
                inputs[item.index] = item.result
            elif isinstance(item.result, RowError):
                self._waiting[item.index] = Record(error=item.result)
            else:
                raise item.result
        images = {i: x.pixels for i, x in inputs.items() if x.pixels is not None}
        texts = {i: x.ids for i, x in inputs.items() if x.ids is not None}
        encoded = self._seen_images.vectors(list(images.values()))
        image_vectors = self._rows_of(encoded, images)
        text_vectors = self._rows_of(self._seen_texts.vectors(list(texts.values())), texts)
        verdicts = dict(zip(images, self._classified(encoded), strict=False))
        for index in inputs:
            self._waiting[index] = Record(
                image_vectors.get(index),
                text_vectors.get(index),
                None,
                *verdicts.get(index, (None, None)),
            )
        self._answered += len(batch)
        self._images -= sum(item.image for item in batch)

    def _classified(self, vectors: Matrix) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
        """Labels and probabilities of each image; nothing where none were asked for."""
        if self._labels is None or self._params.labels is None:
            return []
        names = self._params.labels.names
        scale = self._embedder.encoder.logit_scale
        verdicts = []
        for probs in zeroshot.probabilities(vectors, self._labels, scale):
            order = np.argsort(-probs, kind="stable")
            kept = order[probs[order] >= self._params.confidence]
            verdicts.append((tuple(names[place] for place in kept), tuple(probs[kept].tolist())))
        return verdicts

    def _rows_of(self, vectors: Matrix, indices: Iterable[int]) -> dict[int, Vector]:
        """Each index with its own copy, so that no record keeps its whole batch alive."""
        if self._params.normalize:
            vectors = zeroshot.unit(vectors)
        return {index: vector.copy() for index, vector in zip(indices, vectors, strict=True)}


class _Seen:
    """Vectors of what came lately in a stream: what comes again is not computed again."""

    def __init__(
        self,
        compute: Callable[[Sequence[Any]], Matrix],
        dimension: int,
        key: Callable[[Any], Hashable],
    ) -> None:
        self._compute, self._key, self._dimension = compute, key, dimension
        self._vectors: dict[Hashable, Vector] = {}
        self._most = _SEEN // dimension

    def vectors(self, inputs: Sequence[Any]) -> Matrix:
        """The vector of each input, [inputs, dimension]."""
        keys = [self._key(value) for value in inputs]
        new = {
            key: value for key, value in zip(keys, inputs, strict=True) if key not in self._vectors
        }
        self._vectors |= zip(new, self._compute(list(new.values())), strict=True)
        found = [self._vectors[key] for key in keys]
        for key in list(islice(self._vectors, max(0, len(self._vectors) - self._most))):
            del self._vectors[key]
        return np.array(found, np.float32).reshape(len(keys), self._dimension)


def _digest(pixels: Pixels) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()


class _blaming:
    """Names the column in a RowError that passes through."""

    def __init__(self, column: str) -> None:
        self._column = column

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RowError) and error.column is None:
            error.column = self._column
