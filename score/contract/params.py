"""A request's `params`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_args

import numpy as np

from score.contract.labels import Labels
from score.errors import BadParams
from score.type_aliases import OnError, Truncate
from score.wording.quoting import quoted

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Params:
    """How a request's rows are answered; the defaults are the contract's.

    normalize: scale vectors to unit length.
    truncate: a text longer than the model's context is cut (`end`) or is a row error (`error`).
    on_error: `raise` fails the request if any row fails; `report` answers the other rows, and a
        row that failed with an error record.
    labels: the classes of a zero-shot classification of the images; None for no classification.
    confidence: labels whose probability is below this, from 0 to 1, are left out.
    """

    normalize: bool = False
    truncate: Truncate = "end"
    on_error: OnError = "raise"
    labels: Labels | None = None
    confidence: float = 0.0

    @classmethod
    def parse(cls, value: object, *, on_error: OnError = "raise") -> Params:
        """Params as a client sent them; `on_error` is the surface's default.

        Raises BadParams for anything that is not a mapping of known names to usable values.
        """
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise BadParams(f"params must be an object, not {_kind(value)}")
        known = [field.name for field in fields(cls)]
        for name in value:
            if name not in known:
                raise BadParams(f"unknown param {quoted(name)}; known are {', '.join(known)}")
        normalize = value.get("normalize", False)
        if not isinstance(normalize, (bool, np.bool_)):
            raise BadParams(f"param 'normalize' must be true or false, not {quoted(normalize)}")
        return cls(
            normalize=bool(normalize),
            truncate=_choice(value, "truncate", get_args(Truncate), "end"),
            on_error=_choice(value, "on_error", get_args(OnError), on_error),
            labels=Labels.parse(value.get("labels")),
            confidence=_probability(value, "confidence"),
        )

    def wire(self) -> dict[str, Any]:
        """The params as JSON values, each of the type in the MLflow signature."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "labels": str(self.labels or "")}


def _choice(params: Mapping[str, object], name: str, choices: tuple[T, ...], default: T) -> T:
    value = params.get(name, default)
    for choice in choices:
        if isinstance(value, str) and value == choice:
            return choice
    wanted = " or ".join(repr(choice) for choice in choices)
    raise BadParams(f"param {name!r} must be {wanted}, not {quoted(value)}")


def _probability(params: Mapping[str, object], name: str) -> float:
    value = params.get(name, 0.0)
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(
        value, (bool, np.bool_)
    )
    # Compared before the conversion: an int too large for a float raises OverflowError.
    if not number or not 0 <= value <= 1:  # type: ignore[operator]
        raise BadParams(f"param {name!r} must be a number from 0 to 1, not {quoted(value)}")
    return float(value)  # type: ignore[arg-type]


def _kind(value: object) -> str:
    return type(value).__name__
