"""What a request may ask for beside its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from score.contract.labels import Labels
from score.errors import BadParams

Truncate = Literal["end", "error"]
OnError = Literal["raise", "report"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Params:
    """The request's `params`; the defaults are the contract's.

    normalize: answer with unit length vectors.
    truncate: what to do with a text over the model's context: cut its `end`, or call it an `error`.
    on_error: `raise` fails the request if any row fails; `report` answers the good rows and puts
        an error record in the place of each bad one.
    labels: what images may be called; None asks for no classification.
    confidence: labels less probable than this, from 0 to 1, are left out.
    """

    normalize: bool = False
    truncate: Truncate = "end"
    on_error: OnError = "raise"
    labels: Labels | None = None
    confidence: float = 0.0

    @classmethod
    def parse(cls, given: object, *, on_error: OnError = "raise") -> Params:
        """Params as a client sent them; `on_error` is the surface's default.

        Raises BadParams for anything that is not a mapping of known names to usable values.
        """
        if given is None:
            given = {}
        if not isinstance(given, Mapping):
            raise BadParams(f"params must be an object, not {_kind(given)}")
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise BadParams(f"unknown param {name!r}; known are {', '.join(known)}")
        normalize = given.get("normalize", False)
        if not isinstance(normalize, (bool, np.bool_)):
            raise BadParams(f"param 'normalize' must be true or false, not {_shown(normalize)}")
        return cls(
            normalize=bool(normalize),
            truncate=_choice(given, "truncate", get_args(Truncate), "end"),
            on_error=_choice(given, "on_error", get_args(OnError), on_error),
            labels=Labels.parse(given.get("labels")),
            confidence=_probability(given, "confidence"),
        )

    def wire(self) -> dict[str, Any]:
        """The params as a request spells them, each in the type that MLflow's signature has."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**given, "labels": str(self.labels or "")}


def _choice(given: Mapping[str, object], name: str, choices: tuple[T, ...], default: T) -> T:
    value = given.get(name, default)
    for choice in choices:
        if isinstance(value, str) and value == choice:
            return choice
    wanted = " or ".join(repr(choice) for choice in choices)
    raise BadParams(f"param {name!r} must be {wanted}, not {_shown(value)}")


def _probability(given: Mapping[str, object], name: str) -> float:
    value = given.get(name, 0.0)
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(
        value, (bool, np.bool_)
    )
    # Compared before it is a float: some whole numbers are too large to become one.
    if not number or not 0 <= value <= 1:  # type: ignore[operator]
        raise BadParams(f"param {name!r} must be a number from 0 to 1, not {_shown(value)}")
    return float(value)  # type: ignore[arg-type]


def _shown(value: object) -> str:
    return repr(value)[:80] if isinstance(value, (str, int, float)) else _kind(value)


def _kind(value: object) -> str:
    return type(value).__name__
