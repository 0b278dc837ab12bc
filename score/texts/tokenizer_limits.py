"""What a tokenizer may do: how much longer its normalizer makes a text, which ids it adds.

Read from the parts of a loaded tokenizer, as JSON. Which texts take it long is not seen here;
`checkpoints.tokenizer_trial` tries it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

from score.errors import ModelError
from score.texts import charsmap

_MOST_GROWTH = 20  # times; NFKC, the largest known, makes 18 characters of one
_LONGEST_ADDED = 64  # characters before a text
_MOST_STEPS = 64  # normalizers one after the other


# A charsmap as it is usually spelled; to parse the whole file for it would take seconds.
_CHARSMAP = re.compile(rb'"precompiled_charsmap"\s*:\s*"([A-Za-z0-9+/=]*)"')
_SPELLED_OTHERWISE = re.compile(rb"\\u00[2-7]")  # a plain letter of a key as its code


def check_charsmaps(data: bytes) -> None:
    """Raises ModelError for a `tokenizer.json` with a damaged charsmap, ValueError for no JSON.

    It is looked for before the file is loaded, since loading it may abort the process.
    """
    usual = _CHARSMAP.findall(data)
    steps = [{"precompiled_charsmap": table.decode()} for table in usual]
    if data.count(b"precompiled_charsmap") != len(usual) or _SPELLED_OTHERWISE.search(data):
        found = _steps(json.loads(data).get("normalizer"))
        steps = [step for step in found if step.get("type") == "Precompiled"]
    for step in steps:
        _charsmap(step)


def check_growth(tokenizer: Tokenizer) -> None:
    """Raises ModelError for a normalizer that may make a text much longer."""
    steps = list(_steps(_part(tokenizer.normalizer)))
    if len(steps) > _MOST_STEPS:
        raise ModelError(f"the normalizer has {len(steps)} steps, over {_MOST_STEPS}")
    growth = 1.0
    for step in steps:
        if step.get("type") == "Replace":
            growth *= max(1, _replaced(step))
        elif step.get("type") == "Precompiled":
            growth *= max(1, _charsmap(step))
        elif step.get("type") == "Prepend" and len(step.get("prepend", "")) > _LONGEST_ADDED:
            raise ModelError("the normalizer (Prepend) adds a long text to every text")
    if growth > _MOST_GROWTH:
        raise ModelError(
            f"the normalizer (Replace) may make a text {growth:,.0f} times as long, over "
            f"{_MOST_GROWTH} times"
        )


def added_ids(tokenizer: Tokenizer) -> Iterator[int]:
    """The ids that the post-processor adds to texts, whether the vocabulary has them or not."""
    waiting = [_part(tokenizer.post_processor)]
    while waiting:
        part = waiting.pop()
        waiting += part.get("processors") or []
        for token in (part.get("special_tokens") or {}).values():
            yield from token.get("ids") or []
        for name in ("sep", "cls"):
            if name in part:
                yield part[name][1]


def expressions(tokenizer: Tokenizer) -> str:
    """The patterns of a tokenizer's normalizer and pre-tokenizer, one after the other."""
    waiting: list[Any] = [_part(tokenizer.normalizer), _part(tokenizer.pre_tokenizer)]
    found: list[str] = []
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += part.values()
            pattern = part.get("pattern")
            found += map(str, pattern.values()) if isinstance(pattern, dict) else []
        elif isinstance(part, list):
            waiting += part
    return "".join(found)


def _part(part: Any) -> dict[str, Any]:
    """A normalizer or post-processor as JSON; empty for None."""
    return json.loads(part.__getstate__()) if part is not None else {}


def _steps(normalizer: Any) -> Iterator[dict[str, Any]]:
    """The normalizers of a normalizer, those within sequences too."""
    waiting = [normalizer]
    while waiting:
        step = waiting.pop()
        if isinstance(step, dict):
            yield step
            nested = step.get("normalizers")
            waiting += nested if isinstance(nested, list) else []


def _replaced(step: dict[str, Any]) -> float:
    """The characters that a replacement makes of one."""
    pattern, content = step.get("pattern") or {}, step.get("content", "")
    exact = pattern.get("String")
    if exact == "":
        raise ModelError("the normalizer (Replace) replaces the empty text")
    return len(content) / len(exact) if exact else len(content)


def _charsmap(step: dict[str, Any]) -> int:
    try:
        table = base64.b64decode(step["precompiled_charsmap"], validate=True)
    except (ValueError, TypeError, KeyError):
        raise ModelError("the table of replacements (charsmap) is no base64") from None
    return charsmap.check(table)
