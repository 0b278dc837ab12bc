"""Which model is loaded, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from score import __version__
from score.core.embedder import Embedder, parts_of
from score.folder.model_folder import ModelFolder


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

    @classmethod
    def of(cls, embedder: Embedder, folder: ModelFolder) -> Self:
        """The identity of a model that was loaded from a folder. Reads the whole folder."""
        engine = parts_of(embedder).encoder.engine
        return cls(
            version=__version__,
            model=embedder.name,
            fingerprint=folder.fingerprint(),
            engine=engine.name,
            precision=engine.precision,
            device=engine.device,
        )
