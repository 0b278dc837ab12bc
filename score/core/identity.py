"""Which model is loaded, and how."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Self

from score import __version__
from score.core.embedder import Embedder, fingerprint_of, parts_of


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells two deployments apart.

    version: of this distribution. model: what its package calls it, else its folder. fingerprint:
    `ModelFolder.fingerprint`. The others are settings as they took effect.
    """

    version: str
    model: str
    fingerprint: str
    engine: str
    precision: str
    device: str

    def metadata(self) -> dict[str, str]:
        """As the metadata of a parquet file of the model's vectors."""
        return {f"score.{name}": value for name, value in asdict(self).items()}

    @classmethod
    def of(cls, embedder: Embedder, fingerprint: str | None = None) -> Self:
        """The identity of a loaded model.

        `fingerprint`: of its folder; by default the whole folder is read for it, and a model that
        was made of parts, not of a folder, has an empty one. Raises ModelError.
        """
        if fingerprint is None:
            fingerprint = fingerprint_of(embedder)
        engine = parts_of(embedder).encoder.engine
        return cls(
            version=__version__,
            model=embedder.name,
            fingerprint=fingerprint,
            engine=engine.name,
            precision=engine.precision,
            device=engine.device,
        )
