"""The labels of a zero-shot classification, and the prompts of each.

Knows nothing of vectors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from score.contract import json_reader
from score.contract.json_reader import RepeatedKey, TooManyValues
from score.errors import BadParams, RequestError, RequestTooLarge
from score.wording.quoting import quoted

LONGEST_PROMPT = 4_000
"""Characters of the longest prompt, and of the longest label, which may be its own prompt: twice
what the longest context of a published CLIP holds."""

_MOST_CHARACTERS = 4 * 2**20  # of the labels and prompts of a set
LONGEST_JSON = 2 * _MOST_CHARACTERS
"""Characters of the longest JSON text of labels."""

_MOST_VALUES = 2**18  # of that text: lists, labels, prompts


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
        label → list of prompts. Raises BadParams; RequestTooLarge for a label or prompt of
        more than 4,000 characters, or too many of them together.
        """
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if isinstance(value, str):
            value = _decode(value)
        if isinstance(value, Mapping):
            return labels_of(value.items())
        if isinstance(value, (list, tuple)):
            return labels_of((label, label) for label in value)
        raise BadParams(
            "param 'labels' must be a JSON list of labels or a JSON object of label → prompt"
        )

    @classmethod
    def from_prompts(cls, ontology: Mapping[str, str]) -> Labels:
        """Labels from a mapping of prompt → label; prompts of one label are averaged."""
        prompts: dict[str, list[str]] = {}
        for prompt, label in ontology.items():
            prompts.setdefault(label, []).append(prompt)
        return labels_of(prompts.items())

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        """JSON, which `parse` reads."""
        ontology = {name: list(p) for name, p in zip(self.names, self.prompts, strict=True)}
        return json.dumps(ontology, ensure_ascii=False)


def labels_of(pairs: Iterable[tuple[object, object]]) -> Labels:
    """Labels of pairs of a label and its prompt or list of prompts, which may be made one by one.

    Raises BadParams, RequestTooLarge.
    """
    prompts: dict[str, tuple[str, ...]] = {}
    left = _MOST_CHARACTERS
    for label, value in pairs:
        name = _text(label, "a label")
        if name in prompts:
            raise BadParams(f"param 'labels' has {quoted(name)} twice")
        several = value if isinstance(value, (list, tuple)) else [value]
        what = f"a prompt of {quoted(name)}"
        prompts[name] = tuple(_text(prompt, what) for prompt in several)
        if not prompts[name]:
            raise BadParams(f"param 'labels' has no prompt for {quoted(name)}")
        left -= len(name) + sum(map(len, prompts[name]))
        if left < 0:
            raise _too_long("its labels and prompts together", _MOST_CHARACTERS)
    if not prompts:
        raise BadParams("param 'labels' holds no label")
    return Labels(tuple(prompts), tuple(prompts.values()))


def _decode(text: str) -> object:
    if len(text) > LONGEST_JSON:
        raise _too_long("its JSON", LONGEST_JSON)
    try:
        return json_reader.read(
            text.encode(errors="surrogatepass"), _MOST_VALUES, errors="surrogatepass"
        )
    except RepeatedKey as error:
        raise BadParams(f"param 'labels' has {quoted(error.key)} twice") from None
    except TooManyValues:
        raise RequestTooLarge(f"param 'labels' may hold {_MOST_VALUES:,} values at most") from None
    except RequestTooLarge:  # a key or a text
        raise _too_long("a label or a prompt", LONGEST_PROMPT) from None
    except (ValueError, RequestError):
        raise BadParams(
            "param 'labels' is not JSON: send a list of labels or an object of label → prompt, "
            f"not {quoted(text)}"
        ) from None


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadParams(f"param 'labels': {what} must be a text, not {quoted(value)}")
    if len(value) > LONGEST_PROMPT:
        raise _too_long(what, LONGEST_PROMPT)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadParams(
            f"param 'labels': {what} holds half a character (a lone surrogate): {quoted(value)}"
        ) from None
    return value


def _too_long(what: str, most: int) -> RequestTooLarge:
    return RequestTooLarge(f"param 'labels': {what} may have {most:,} characters at most")
