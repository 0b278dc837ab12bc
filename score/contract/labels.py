"""The labels of a zero-shot classification, and the prompts of each.

Knows nothing of vectors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from score.errors import BadParams


@dataclass(frozen=True, slots=True)
class Labels:
    """The classes among which images are classified.

    names: the labels, distinct, in the client's order.
    prompts: for each label one or more texts that describe it; the vectors of several are averaged.
    """

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, value: object) -> Labels | None:
        """Labels as a client sent them: a JSON text or decoded JSON; None for None or a blank text.

        A list of labels, each its own prompt; or an object (the ontology) of label → prompt, or
        label → list of prompts. Raises BadParams.
        """
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if isinstance(value, str):
            value = _decode(value)
        if isinstance(value, Mapping):
            return cls._of(value.items())
        if isinstance(value, (list, tuple)):
            return cls._of((label, label) for label in value)
        raise BadParams(
            "param 'labels' must be a JSON list of labels or a JSON object of label → prompt"
        )

    @classmethod
    def from_prompts(cls, ontology: Mapping[str, str]) -> Labels:
        """Labels from a mapping of prompt → label; prompts of one label are averaged."""
        prompts: dict[str, list[str]] = {}
        for prompt, label in ontology.items():
            prompts.setdefault(label, []).append(prompt)
        return cls._of(prompts.items())

    @classmethod
    def _of(cls, pairs: Iterable[tuple[object, object]]) -> Labels:
        prompts: dict[str, tuple[str, ...]] = {}
        for label, value in pairs:
            name = _text(label, "a label")
            if name in prompts:
                raise BadParams(f"param 'labels' has {name[:80]!r} twice")
            several = value if isinstance(value, (list, tuple)) else [value]
            prompts[name] = tuple(_text(prompt, f"a prompt of {name[:80]!r}") for prompt in several)
            if not prompts[name]:
                raise BadParams(f"param 'labels' has no prompt for {name[:80]!r}")
        if not prompts:
            raise BadParams("param 'labels' holds no label")
        return cls(tuple(prompts), tuple(prompts.values()))

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        """JSON, which `parse` reads."""
        ontology = {name: list(p) for name, p in zip(self.names, self.prompts, strict=True)}
        return json.dumps(ontology, ensure_ascii=False)


def _decode(text: str) -> object:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        content: dict[str, object] = {}
        for name, value in pairs:
            if name in content:
                raise BadParams(f"param 'labels' has {name[:80]!r} twice")
            content[name] = value
        return content

    try:
        decoded: object = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise BadParams(
            "param 'labels' is not JSON: send a list of labels or an object of label → prompt, "
            f"not {text[:80]!r}"
        ) from None
    return decoded


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadParams(f"param 'labels': {what} must be a text, not {value!r:.80}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadParams(
            f"param 'labels': {what} holds half a character (a lone surrogate): {value[:80]!r}"
        ) from None
    return value
