"""Which model made a table's vectors, as `score embed` writes it into the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from score.wording.quoting import quoted

_MODEL, _FINGERPRINT = b"score.model", b"score.fingerprint"


@dataclass(frozen=True, slots=True)
class Origin:
    """A model's name and fingerprint (`ModelFolder.fingerprint`); both empty where it is unknown.

    Two models are the same if their fingerprints are, whatever their names.
    """

    model: str = ""
    fingerprint: str = ""

    @classmethod
    def of(cls, metadata: Mapping[bytes, bytes]) -> Self:
        """Of a parquet file's key-value metadata."""
        model, fingerprint = (
            metadata.get(key, b"").decode(errors="replace") for key in (_MODEL, _FINGERPRINT)
        )
        return cls(model, fingerprint) if fingerprint else cls()

    def __str__(self) -> str:
        if not self.fingerprint:
            return "an unknown model"
        return f"the model {quoted(self.model)} (fingerprint {self.fingerprint:.40})"
