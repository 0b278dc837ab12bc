"""How many values JSON has, and how deep it is, before objects are made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from score.contract import json_shape
from score.contract.json_shape import DEEPEST, has_more_values
from score.errors import RequestError

_TEXTS = st.text(alphabet='\\",[]{}:a\n漢', max_size=6)
_VALUES = st.recursive(
    st.integers() | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=30,
)


@given(value=_VALUES, piece=st.integers(1, 9), ascii_only=st.booleans())
def test_values_are_counted_outside_strings_alone(value: Any, piece: int, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_shape, "_PIECE", piece)
        assert not has_more_values(body, _counted(value))
        if _counted(value):
            assert has_more_values(body, _counted(value) - 1)


def _counted(value: Any) -> int:
    """Beginnings of lists and objects, and commas."""
    if not isinstance(value, (list, dict)):
        return 0
    inner = value if isinstance(value, list) else value.values()
    return 1 + max(0, len(value) - 1) + sum(map(_counted, inner))


@pytest.mark.parametrize("begin", ["[", '{"a":', '[{"a":['])
def test_deep_json_is_refused(begin: str) -> None:
    levels = begin.count("[") + begin.count("{")
    within = DEEPEST // levels
    end = begin.translate(str.maketrans("[{", "]}", '"a:'))[::-1]
    assert not has_more_values(f"{begin * within}0{end * within}".encode(), 1000)
    with pytest.raises(RequestError, match="nested too deeply"):
        has_more_values(f"{begin * (within + 1)}0{end * (within + 1)}".encode(), 1000)
