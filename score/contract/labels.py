"""The labels of a zero-shot question, and the prompts that stand for each.

Knows nothing of vectors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from score.errors import BadParams


@dataclass(frozen=True, slots=True)
class Labels:
    """What an image may be called.

    names: the labels, each once, in the order given.
    prompts: for each label the texts that describe it, one or more. Several are averaged.
    """

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, given: object) -> Labels | None:
        """Labels as a client sent them: JSON, or what JSON stands for; None where there are none.

        A list of labels, each its own prompt; or an object (the ontology) of label → prompt, or
        label → list of prompts. Raises BadParams.
        """
        if given is None or (isinstance(given, str) and not given.strip()):
            return None
        if isinstance(given, str):
            given = _decode(given)
        if isinstance(given, Mapping):
            return cls._of(given.items())
        if isinstance(given, (list, tuple)):
            return cls._of((label, label) for label in given)
        raise BadParams(
            "param 'labels' must be a JSON list of labels or a JSON object of label → prompt"
        )

    @classmethod
    def from_prompts(cls, ontology: Mapping[str, str]) -> Labels:
        """Labels from prompt → label, the other way round; prompts of one label are averaged."""
        prompts: dict[str, list[str]] = {}
        for prompt, label in ontology.items():
            prompts.setdefault(label, []).append(prompt)
        return cls._of(prompts.items())

    @classmethod
    def _of(cls, pairs: Iterable[tuple[object, object]]) -> Labels:
        prompts: dict[str, tuple[str, ...]] = {}
        for label, given in pairs:
            name = _text(label, "a label")
            if name in prompts:
                raise BadParams(f"param 'labels' has {name[:80]!r} twice")
            several = given if isinstance(given, (list, tuple)) else [given]
            prompts[name] = tuple(_text(prompt, f"a prompt of {name[:80]!r}") for prompt in several)
            if not prompts[name]:
                raise BadParams(f"param 'labels' has no prompt for {name[:80]!r}")
        if not prompts:
            raise BadParams("param 'labels' holds no label")
        return cls(tuple(prompts), tuple(prompts.values()))

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        """The JSON that `parse` reads back."""
        ontology = {name: list(p) for name, p in zip(self.names, self.prompts, strict=True)}
        return json.dumps(ontology, ensure_ascii=False)


def _decode(text: str) -> object:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in pairs:
            if name in found:
                raise BadParams(f"param 'labels' has {name[:80]!r} twice")
            found[name] = value
        return found

    try:
        decoded: object = json.loads(text, object_pairs_hook=once)
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
