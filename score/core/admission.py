"""Which requests are taken on: those that fit beside all others of the process, and soon.

Theory of operation. A request that is taken on holds a thread, memory and a share of the machine
until it is answered. Past some number of them each more makes all slower, until clients give up
and send again what is still being computed. So what does not fit is refused before any work is done
for it, with the time after which it may be sent again (429, `Retry-After`); what is taken on is
answered in about `max_wait` seconds.

Bounds. The requests under way, to all models of the process, have together at most
`max_pending_requests`, `max_pending_rows` and `max_pending_bytes` of inline images and texts. Of
the requests, three quarters may have images: downloads may take a minute, and texts find a thread
meanwhile.

Waiting time. Decoding and passes take turns by request (`concurrency.turns`, `batching`), so while
a request of n rows is served, each other request is served for at most n of its own rows; before
its first row is answered, also for n prompts of its labels, if they are not encoded yet. The wait
is the time that those take, at the pace of the latest passes. A request that would wait for longer
than `max_wait` is refused: a large one earlier than a small one, and none for its own size.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from score.concurrency.forks import renewing
from score.contract.rows import Row
from score.errors import Overloaded, RequestTooLarge
from score.settings import Settings

_LETTERS = 4  # of a token, as English has them
_LONGEST_PAUSE = 60  # seconds that a client is told to wait at most


class Paces(NamedTuple):
    """Seconds that the work for an image and for a token of a text takes now; 0: not known yet."""

    image: float
    token: float


@dataclass(eq=False, slots=True)
class Load:
    """A request: what it has, and how many of its rows are answered."""

    rows: int = 0
    size: int = 0  # bytes of inline images, characters of texts and URLs
    images: int = 0
    tokens: int = 0
    prompts: int = 0  # of labels that are to be encoded before the rows are answered
    prompt_tokens: int = 0
    answered: int = 0

    @classmethod
    def of(cls, rows: Sequence[Row], context: int, prompts: Sequence[str] = ()) -> Load:
        """`context`: tokens of the longest text."""
        load = cls(len(rows), prompts=len(prompts))
        load.prompt_tokens = sum(_tokens(len(prompt), context) for prompt in prompts)
        for row in rows:
            image, text = _length(row.image), _length(row.text)
            load.size += image + text
            load.images += image > 0
            load.tokens += _tokens(text, context) if text else 0
        return load

    def seconds(self, rows: int, paces: Paces) -> float:
        """The time that its next `rows` rows take, and as many of its prompts."""
        share = min(rows, self.rows - self.answered) / max(1, self.rows)
        seconds = share * (self.images * paces.image + self.tokens * paces.token)
        if self.prompts and not self.answered:
            share = min(rows, self.prompts) / self.prompts
            seconds += share * self.prompt_tokens * paces.token
        return seconds


def _tokens(letters: int, context: int) -> int:
    """An estimate of a text's tokens, begin and end included."""
    return min(context, 2 + letters // _LETTERS)


def _length(cell: object) -> int:
    return len(cell) if isinstance(cell, (str, bytes, bytearray, memoryview)) else 0


class UnderWay:
    """The requests under way in this process, of all its models, each with its model's paces.

    `lock` is held by whoever reads or changes `loads`.
    """

    def __init__(self) -> None:
        renewing(self._renew)

    def _renew(self) -> None:
        self.lock = threading.Lock()
        self.loads: dict[Load, Callable[[], Paces]] = {}

    def seconds(self, rows: int) -> float:
        """The time that the next `rows` rows of each request take together."""
        now = {paces: paces() for paces in set(self.loads.values())}
        return sum(load.seconds(rows, now[paces]) for load, paces in self.loads.items())


class Admission:
    """Which requests to a model are taken on. Safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        paces: Callable[[], Paces],
        context: int,
        under_way: UnderWay | None = None,
    ) -> None:
        """`context`: tokens of the longest text. `under_way`: the requests of all models, where
        the process has several."""
        self._settings, self._paces, self._context = settings, paces, context
        self._under_way = under_way or UnderWay()

    @contextmanager
    def admitted(self, rows: Sequence[Row], prompts: Sequence[str] = ()) -> Iterator[Load]:
        """A block in which a request is under way; it counts the rows that are `answered`.

        prompts: those of its labels that are not encoded yet. Raises RequestTooLarge, Overloaded.
        """
        load = Load.of(rows, self._context, prompts)
        self._check_alone(load)
        with self._under_way.lock:
            self._check_beside_others(load)
            self._under_way.loads[load] = self._paces
        try:
            yield load
        finally:
            with self._under_way.lock:
                self._under_way.loads.pop(load, None)  # a fork has forgotten it

    def _check_alone(self, load: Load) -> None:
        settings = self._settings
        for size, unit, most in (
            (load.rows, "rows", settings.max_pending_rows),
            (load.size, "bytes", settings.max_pending_bytes),
        ):
            if 0 < most < size:
                raise RequestTooLarge(
                    f"{size:,} {unit} are more than the {most:,} that all requests together may "
                    f"have (max_pending_{unit}); send fewer rows at a time"
                )

    def _check_beside_others(self, load: Load) -> None:
        wait = self._under_way.seconds(load.rows)
        if full := self._full(load):
            raise overloaded(full, wait)
        most = self._settings.max_wait
        if 0 < most < wait:
            raise overloaded(
                f"the request would wait for about {wait:.0f} s, more than max_wait, {most:g} s",
                wait - most,
            )

    def _full(self, load: Load) -> str:
        """Which bound the request does not fit in, with its setting's name; "" where it fits."""
        settings, under_way = self._settings, self._under_way.loads
        requests = settings.max_pending_requests
        if 0 < requests <= len(under_way):
            return too_many_requests(requests)
        with_images = sum(other.images > 0 for other in under_way)
        if load.images and 0 < requests <= with_images + requests // 4:
            return f"three quarters of max_pending_requests ({requests}) are requests with images"
        rows = load.rows + sum(other.rows for other in under_way)
        if 0 < settings.max_pending_rows < rows:
            return f"max_pending_rows ({settings.max_pending_rows:,}) would be exceeded"
        size = load.size + sum(other.size for other in under_way)
        if 0 < settings.max_pending_bytes < size:
            return f"max_pending_bytes ({settings.max_pending_bytes:,}) would be exceeded"
        return ""


def too_many_requests(most: int) -> str:
    """The reason of a refusal because of the setting `max_pending_requests`."""
    return f"max_pending_requests ({most}) is reached"


def overloaded(reason: str, seconds: float) -> Overloaded:
    """The error of a request that is refused. `seconds`: after which it is likely to be taken."""
    pause = max(1, min(_LONGEST_PAUSE, math.ceil(seconds)))
    return Overloaded(f"{reason}; try again in {pause} s", pause)
