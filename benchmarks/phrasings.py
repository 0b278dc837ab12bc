"""Ten ways in which people write what they look for: (name, colour if it has one) → text."""

from __future__ import annotations

from collections.abc import Callable

from score.training.captions import article, plural

PHRASINGS: dict[str, Callable[[str, str | None], str]] = {
    "a photo of a …": lambda name, _: f"a photo of {article(name)}",
    "a picture of the …": lambda name, _: f"a picture of the {name}",
    "a/an …": lambda name, _: article(name),
    "the …": lambda name, _: f"the {name}",
    "plural": lambda name, _: plural(name),
    "a photo of, plural": lambda name, _: f"a photo of {plural(name)}",
    "UPPER CASE": lambda name, _: name.upper(),
    "Title Case": lambda name, _: name.title(),
    "its colour before": lambda name, colour: f"{colour or 'colorful'} {name}",
    "a/an, its colour before": lambda name, colour: article(f"{colour or 'colorful'} {name}"),
}
