"""The embedder: rows or single images and texts in, records or vectors out.

Knows nothing of HTTP, JSON or tables. How rows flow through it: `stream`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from score.concurrency.cancellation import Cancellation
from score.concurrency.forks import on_new_thread
from score.concurrency.steps import NEEDS_A_THREAD, Steps, on_this_thread
from score.contract.labels import Labels
from score.contract.limits import check_scores
from score.contract.params import Params
from score.contract.rows import IMAGE, Record, Row, is_empty
from score.core.encoding import Encoding
from score.core.label_vectors import LabelVectors
from score.core.pipeline import Pipeline
from score.core.preparation import FetchOptions, PixelBudget
from score.core.shared import Shared
from score.core.stream import Stream
from score.errors import BadBase64, BadParams, ModelError, RowsFailed
from score.fetch.cells import looks_like_a_file_name
from score.fetch.urls import start
from score.folder.model_folder import EMBEDDED, ModelFolder
from score.images.preprocess import Preprocessor
from score.model import engine_choice
from score.model.encoder import Encoder
from score.model.probes import Probes
from score.settings import Settings
from score.texts.tokenizer import Tokenizer
from score.type_aliases import ImageInput, Matrix, OnFetched, Truncate, Vector

_FEW_ROWS = 8  # that take a millisecond or two to answer
_FEW_LETTERS, _FEW_OTHERS = 4000, 300
"""Characters that are tokenized in some milliseconds: of plain texts, and where one of the texts
has others than ASCII, or entities, which cleaning may look at many times."""


class Parts(NamedTuple):
    """What `Embedder.load` reads from a model folder."""

    encoder: Encoder
    tokenizer: Tokenizer
    preprocessor: Preprocessor


class Embedder:
    """A CLIP model that turns images and texts into vectors. Safe to share between threads.

    Made by `load`. `settings` are those it was loaded with. `name` is its package's, else its
    folder's.
    """

    name: str = ""

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        preprocessor: Preprocessor,
        settings: Settings,
        shared: Shared | None = None,
    ) -> None:
        """For `load`, which reads these parts from a model folder."""
        self._parts = Parts(encoder, tokenizer, preprocessor)
        self.settings = settings
        self._probes: Probes | None = None
        self._folder: ModelFolder | None = None
        self._fingerprint: str | None = None
        shared = shared or Shared(settings)
        self._pipeline = Pipeline(encoder, tokenizer, preprocessor, settings, shared)
        self._label_vectors = LabelVectors(self._pipeline)

    @classmethod
    def load(cls, folder: str | Path = EMBEDDED, settings: Settings | None = None) -> Embedder:
        """The model in `folder`: a package or a plain transformers folder.

        Where the folder has probes (`probes.json`), the model must compute their vectors, as far as
        `settings.verify` asks. Raises ModelError for a folder that is no usable model.
        """
        settings = settings or Settings()
        return cls._load(ModelFolder.open(folder), settings, Shared(settings))

    @classmethod
    def _load(cls, opened: ModelFolder, settings: Settings, shared: Shared) -> Embedder:
        return on_new_thread(partial(cls._loaded, opened, settings, shared))

    @classmethod
    def _loaded(cls, opened: ModelFolder, settings: Settings, shared: Shared) -> Embedder:
        # Before the weights: what is quick to refuse comes first.
        tokenizer = Tokenizer.load(opened)
        preprocessor = Preprocessor.from_config(opened.preprocessor)
        encoder = engine_choice.fastest(opened, tokenizer, preprocessor, settings)
        embedder = cls(encoder, tokenizer, preprocessor, settings, shared)
        embedder.name, embedder._folder = opened.name, opened
        if settings.verify != "off":
            embedder._probes = Probes.read(opened.path)
            embedder._verify(embedder._probes)
        return embedder

    def _verify(self, probes: Probes | None) -> None:
        if probes is None:
            return
        quick = self.settings.verify == "quick"
        findings = probes.check(*self._parts, quick=quick)
        failed = [finding for finding in findings if not finding.passed]
        if failed:
            raise ModelError(
                f"this model does not compute here what its package promises: {failed[0]}; "
                "run `score verify` on it"
            )

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return self._parts.encoder.dimension

    @property
    def precision(self) -> str:
        """What it computes in: fp32, bf16, fp16 or int8."""
        return self._parts.encoder.engine.precision

    def embed(
        self,
        rows: Iterable[Row],
        params: Params | None = None,
        *,
        root: Path | None = None,
        on_fetched: OnFetched | None = None,
    ) -> Iterator[Record]:
        """A record for each row, in the rows' order, while later rows are still being read.

        A row that fails is a record with an error, whatever `params.on_error` says. `root` is the
        folder below which an image cell may name a file; without it none may. `on_fetched` is
        called with each image cell and its bytes, before they are decoded, from several threads.
        Rows whose host has not answered several others fail with HostDown, without being tried.
        Raises BadParams for labels that cannot be encoded, and what `rows` raises.
        """
        options = FetchOptions(root, on_fetched=on_fetched, in_batch=True)
        return self._stream(params or Params(), options).records(rows)

    def answer(
        self,
        rows: Sequence[Row],
        params: Params | None = None,
        cancellation: Cancellation | None = None,
        *,
        classify_texts: bool = False,
    ) -> list[Record]:
        """All records of one request, whose downloads together have `request_deadline`.

        `cancellation` ends it early: its downloads, decoding and forward passes, too.
        `classify_texts`: `params.labels` are the classes of rows without an image, too. Raises
        RowsFailed under `on_error="raise"`, BadParams for labels that cannot be encoded,
        RequestTimeout after `request_timeout`, Cancelled; RequestTooLarge for more rows × labels
        than `max_scores`; it, or Overloaded beside others, for more than all calls of this method
        may have under way (`max_pending_rows` and others).
        """
        call = cancellation or Cancellation()
        return on_this_thread(
            self._answering(rows, params or Params(), call, classify_texts=classify_texts)
        )

    def _answering(
        self, rows: Sequence[Row], params: Params, call: Cancellation, *, classify_texts: bool
    ) -> Steps[list[Record]]:
        """`answer`. A few short texts need no thread."""
        call.limit(self.settings.request_timeout)
        call.check()
        if params.labels is not None:
            classified = sum(classify_texts or not is_empty(row.image) for row in rows)
            most = self.settings.max_scores
            check_scores(classified, params.labels, params.confidence, most)
        options = self._of_request(call)
        records: list[Record] = []
        prompts = self._label_vectors.not_kept(params.labels, params.truncate)
        with self._pipeline.admission.admitted(rows, prompts) as load:
            if params.labels is None and _is_light(rows):
                records = yield from self._of_few(rows, params, options)
            else:
                yield NEEDS_A_THREAD
                stream = self._stream(params, options, classify_texts=classify_texts)
                for record in stream.records(rows):
                    records.append(record)
                    load.answered += 1
        self._pipeline.observer.answered(records)
        failures = [(i, record.error) for i, record in enumerate(records) if record.error]
        if failures and params.on_error == "raise":
            raise RowsFailed(failures, len(records))
        return records

    def _of_few(
        self, rows: Sequence[Row], params: Params, options: FetchOptions
    ) -> Steps[list[Record]]:
        """The records of rows without images, without a stream."""
        tried = self._pipeline.preparer.tried
        prepared = {i: tried(row, params.truncate, options) for i, row in enumerate(rows)}
        encoding = Encoding(self._pipeline, params, None, options.call)
        records = yield from encoding.records(prepared)
        return [records[i] for i in range(len(rows))]

    def _of_request(self, call: Cancellation) -> FetchOptions:
        return FetchOptions(
            until=time.monotonic() + self.settings.request_deadline,
            call=call,
            pixels=PixelBudget(self.settings.max_request_pixels),
        )

    def _stream(
        self, params: Params, options: FetchOptions, *, classify_texts: bool = False
    ) -> Stream:
        labels = None
        if params.labels is not None:
            labels = self._label_vectors.of(params.labels, params.truncate, options.call)
        return Stream(self._pipeline, params, labels, options, classify_texts=classify_texts)

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
        (record,) = self._stream(params or Params(), FetchOptions()).records([row])
        if record.error:
            raise record.error
        return record

    def label_vectors(self, labels: Labels, truncate: Truncate = "end") -> Matrix:
        """Unit vectors, float32 [labels, dimension]; those of the latest label sets are kept.

        Raises BadParams for too many prompts, or one that cannot be encoded.
        """
        return self._label_vectors.of(labels, truncate, Cancellation())


def load_beside(shared: Shared, folder: ModelFolder, settings: Settings) -> Embedder:
    """As `Embedder.load`, in a process of several models, whose bounds hold for all of them. For
    this package's own modules."""
    return Embedder._load(folder, settings, shared)


def records_of(
    embedder: Embedder,
    rows: Sequence[Row],
    params: Params,
    call: Cancellation,
    *,
    classify_texts: bool = False,
) -> Steps[list[Record]]:
    """`Embedder.answer` in steps. For this package's own modules, which serve by an event loop."""
    return embedder._answering(rows, params, call, classify_texts=classify_texts)


def parts_of(embedder: Embedder) -> Parts:
    """What an embedder is made of. For this package's own modules: the parts are not public."""
    return embedder._parts


def pipeline_of(embedder: Embedder) -> Pipeline:
    """What an embedder's calls share. For this package's own modules, which watch it."""
    return embedder._pipeline


def fingerprint_of(embedder: Embedder) -> str:
    """Of the folder that it was loaded from, which is read the first time; empty for an embedder
    that was made of parts. Raises ModelError."""
    if embedder._fingerprint is None:
        embedder._fingerprint = embedder._folder.fingerprint() if embedder._folder else ""
    return embedder._fingerprint


def probes_of(embedder: Embedder) -> Probes | None:
    """The probes of the folder it was loaded from; None if that has none, or `verify` is off."""
    return embedder._probes


def _is_light(rows: Sequence[Row]) -> bool:
    """Whether rows are few, have no image, and are tokenized within some milliseconds."""
    if len(rows) > _FEW_ROWS or not all(is_empty(row.image) for row in rows):
        return False
    texts = [row.text for row in rows if isinstance(row.text, str)]
    plain = all(text.isascii() and "&" not in text for text in texts)
    return sum(map(len, texts)) <= (_FEW_LETTERS if plain else _FEW_OTHERS)


def _row(image: ImageInput) -> Row:
    """Raises BadBase64 for a file's name that is no Path, OSError for a file that is missing."""
    if isinstance(image, str) and looks_like_a_file_name(image):
        raise BadBase64(
            f"{start(image)!r} is neither an http(s) URL, a data: URI nor base64; "
            f"a file must be a pathlib.Path, as in Path({start(image)!r})",
            column=IMAGE,
        )
    return Row(image=image.read_bytes() if isinstance(image, Path) else image)
