"""What the core tells whoever watches it: durations, passes and answered rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from score.contract.rows import Record
from score.core.batching import Pass

Stage = Literal["fetch", "decode", "tokenize", "encode", "render"]
"""Of an image: its download and its decoding; of a text: its tokens; of a pass: its computation; of
a request: its JSON."""

_NOTHING = nullcontext()


class Observer:
    """Ignores everything. Subclasses are called from many threads, are quick and do not raise."""

    def timed(self, stage: Stage) -> AbstractContextManager[object]:
        """A context around one stage."""
        return _NOTHING

    def encoding(self, kind: str, inputs: int) -> None:
        """A pass over some inputs begins. kind: `image` or `text`."""

    def passed(self, kind: str, done: Pass) -> None:
        """A pass computed inputs of a call. Called where the call is made. kind: as above."""

    def answered(self, records: Sequence[Record]) -> None:
        """The rows of a request have these records. Called where the request is answered."""


NOBODY = Observer()
