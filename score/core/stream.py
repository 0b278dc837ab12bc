"""Rows in, records out, in order, in bounded memory.

    rows ──admit──▶ fetch ∥ decode (threads) ──▶ ready ──▶ encode (shared passes) ──▶ in order

Theory of operation. The caller's thread pulls records, and drives everything by it:

1. Admit. Rows are read from the source while there is room. A row with an image goes to a thread
   that downloads it and has it decoded; a row with a text alone is tokenized at once.
2. Collect. Rows with an image arrive in a queue in whatever order they become ready. A batch is
   what is in the queue, up to `batch_size` images, and all other rows; the thread waits 10 ms for
   each further row while any are on their way.
3. Encode. The batch's images and texts are encoded in forward passes that all calls of the
   embedder share (`encoding`, `batching`).
4. Order. Records wait until all rows before them have been handed out.

So one row that stalls holds up neither the download nor the encoding of those behind it. Of batch
jobs more rows are admitted while some wait for a host that does not answer: else its rows, one in
ten, say, would soon be all that are under way.

Memory is bounded by three numbers, none of which depends on how many rows there are: rows being
prepared (8 × `batch_size`, of which `2 × batch_size + fetch_workers` with an image, fewer while
other streams run; and 512 more for hosts that do not answer), encoded bytes being fetched and
decoded (`fetch.byte_budget`), and records that wait for an earlier row (16,384, fewer where their
vectors are longer than 512).

Errors. A row that fails is a record with an error. An exception of the source is raised once the
records of all rows before it have been handed out. An exception that is no RowError is a bug, and
ends the stream.

Cancelling. A call that is cancelled or times out (`concurrency.cancellation`) ends the stream at
once. A stream that ends early, by that, by an exception or because its caller drops it, cancels
its call: what its threads download is given up, and rows that wait for a slot or a decoder leave
the queue.
"""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass

from score.concurrency.steps import on_this_thread
from score.contract.params import Params
from score.contract.rows import Record, Row
from score.core.encoding import Encoding
from score.core.pipeline import Pipeline
from score.core.preparation import FetchOptions, Inputs
from score.errors import Cancelled, RowError
from score.type_aliases import Matrix

# Records that may wait for a slow row before them: 64 MiB of 2 × 512 floats. A row whose host does
# not answer may take `row_deadline`, 30 s; in that time a small model embeds so many others.
_WINDOW, _WINDOW_FLOATS = 16_384, 2**23
_MOST_IN_DOUBT = 512  # rows beside the others under way, each of which has a thread
_LOOK = 0.25  # seconds without a ready row after which rows in doubt are counted again
_LINGER = 0.01  # seconds that a ready row waits for the next one, while any are on their way


@dataclass(frozen=True, slots=True)
class _Ready:
    """A row that is prepared, failed (RowError), or crashed (any other exception)."""

    index: int
    image: bool
    result: Inputs | BaseException


class Stream:
    """One call of `Embedder.embed`."""

    def __init__(
        self,
        pipeline: Pipeline,
        params: Params,
        labels: Matrix | None,
        options: FetchOptions,
        *,
        classify_texts: bool = False,
    ) -> None:
        """`labels`, `classify_texts`: as of an `Encoding`."""
        self._pipeline, self._params, self._options = pipeline, params, options
        self._call = options.call
        self._encoding = Encoding(
            pipeline, params, labels, options.call, classify_texts=classify_texts
        )
        settings = pipeline.settings
        self._batch_size = pipeline.batch_size
        self._most_rows = 8 * self._batch_size
        # Each image under way has a thread. Streams that run at the same time divide the threads,
        # each by how many there are when it begins: 200 have less than six times as many as one.
        pipeline.streams.add(self)
        images = 2 * self._batch_size + settings.fetch_workers
        self._most_images = max(1, images // len(pipeline.streams))
        self._most_in_doubt = _MOST_IN_DOUBT // len(pipeline.streams) if options.in_batch else 0
        self._window = min(_WINDOW, _WINDOW_FLOATS // pipeline.encoder.dimension)
        self._workers: ThreadPoolExecutor | None = None  # made with the first image
        self._ready: queue.Queue[_Ready]  # what they have prepared
        self._at_hand: list[_Ready] = []  # rows without an image
        self._waiting: dict[int, Record] = {}
        # Counts of rows.
        self._admitted = self._answered = self._yielded = 0
        self._images_under_way = 0
        self._exhausted = False
        self._source_error: Exception | None = None

    def records(self, rows: Iterable[Row]) -> Iterator[Record]:
        """A record for each row, in the rows' order. Call it once."""
        source = iter(rows)
        try:
            while self._admit(source):
                if batch := self._batch():
                    self._encode(batch)
                while (record := self._waiting.pop(self._yielded, None)) is not None:
                    self._yielded += 1
                    yield record
            if self._source_error is not None:
                raise self._source_error
        except BaseException:
            self._call.cancel()
            raise
        finally:
            if self._workers:
                self._workers.shutdown(wait=False, cancel_futures=True)

    def _admit(self, source: Iterator[Row]) -> bool:
        """Reads rows while there is room. Returns whether any are under way."""
        beside = self._in_doubt()
        while (
            self._admitted - self._answered < self._most_rows + beside
            and self._admitted - self._yielded < self._window
            and self._images_under_way < self._most_images + beside
            and (row := self._next(source)) is not None
        ):
            index = self._admitted
            self._admitted += 1
            if self._pipeline.preparer.is_quick(row, self._options):
                self._at_hand.append(self._prepared(index, row, image=False))
            else:
                self._images_under_way += 1
                self._submit(index, row)
        return self._admitted > self._answered

    def _submit(self, index: int, row: Row) -> None:
        """Has a row with an image prepared by a thread of its own: those that wait for a slow or
        busy host hold up no others. The fetcher limits how many download at a time."""
        if self._workers is None:
            # No SimpleQueue: its `get` may ignore its timeout on a busy machine.
            self._ready = queue.Queue()
            most = self._most_images + self._most_in_doubt
            self._workers = ThreadPoolExecutor(most, "prepare")

        def prepare() -> None:
            self._ready.put(self._prepared(index, row, image=True))

        self._workers.submit(copy_context().run, prepare)

    def _in_doubt(self) -> int:
        """Rows under way that take no room from others."""
        most = self._most_in_doubt
        return min(self._pipeline.preparer.in_doubt(), most) if most else 0

    def _next(self, source: Iterator[Row]) -> Row | None:
        """The next row, None after the last. An exception of the source is kept for the end."""
        if not self._exhausted:
            try:
                return next(source)
            except StopIteration:
                self._exhausted = True
            except Exception as error:
                self._exhausted, self._source_error = True, error
        return None

    def _prepared(self, index: int, row: Row, *, image: bool) -> _Ready:
        result: Inputs | BaseException
        try:
            result = self._pipeline.preparer.tried(row, self._params.truncate, self._options)
        except BaseException as error:
            result = error
        return _Ready(index, image, result)

    def _batch(self) -> list[_Ready]:
        """Rows that are ready: a full batch where it comes without much waiting; none where none is
        for a while.

        Raises Cancelled, RequestTimeout.
        """
        batch, self._at_hand = self._at_hand or self._first(), []
        self._call.check()
        if not batch:
            return []
        images = sum(item.image for item in batch)
        under_way = self._admitted - self._answered
        while len(batch) < under_way and images < self._batch_size:
            try:
                item = self._ready.get(timeout=_LINGER)
            except queue.Empty:
                break
            batch.append(item)
            images += item.image
        return batch

    def _first(self) -> list[_Ready]:
        """The next row that is ready, or has been, if it is before long. Raises Cancelled,
        RequestTimeout."""
        first: list[_Ready] = []
        left = self._call.left
        with self._call.interrupting(self._wake):
            try:
                first.append(self._ready.get(timeout=_LOOK if left is None else min(left, _LOOK)))
            except queue.Empty:
                if self._call.left == 0:
                    self._call.expire()
        return first

    def _wake(self) -> None:
        self._ready.put(_Ready(-1, False, Cancelled("while it waited")))

    def _encode(self, batch: list[_Ready]) -> None:
        """Puts the records of a batch where they wait for their turn."""
        prepared: dict[int, Inputs | RowError] = {}
        for item in batch:
            if not isinstance(item.result, (Inputs, RowError)):
                raise item.result
            prepared[item.index] = item.result
        self._waiting |= on_this_thread(self._encoding.records(prepared))
        self._answered += len(batch)
        self._images_under_way -= sum(item.image for item in batch)
