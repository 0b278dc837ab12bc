"""Whether the server is loading, serving or stopping."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

State = Literal["loading", "serving", "stopping"]


@dataclass(slots=True)
class Lifecycle:
    """The server's state. bodies_until: the loop's time at which unfinished bodies are given up."""

    state: State = "loading"
    bodies_until: float = math.inf

    def loaded(self) -> None:
        """The model can answer."""
        if self.state == "loading":
            self.state = "serving"

    def stop(self) -> None:
        """The server ends: not ready any more, and each answer closes its connection."""
        self.state = "stopping"
