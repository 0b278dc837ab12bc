"""Type aliases by name, as the source defines them.

Their run-time representation differs between versions of Python and NumPy.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path


@cache
def alias(name: str, module: str) -> str | None:
    """The definition of a type alias in a module or where it imports it from; None for others."""
    for node in _statements(module):
        if isinstance(node, ast.Assign) and any(_is(target, name) for target in node.targets):
            return ast.unparse(node.value)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("score"):
            original = next((a.name for a in node.names if (a.asname or a.name) == name), None)
            if original:
                return alias(original, str(node.module))
    return None


def _is(target: ast.expr, name: str) -> bool:
    return isinstance(target, ast.Name) and target.id == name


@cache
def _statements(module: str) -> list[ast.stmt]:
    """The statements of a module, including those below `if TYPE_CHECKING:`."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file:
        return []
    body = ast.parse(Path(file).read_text(encoding="utf-8")).body
    return [inner for one in body for inner in (one.body if isinstance(one, ast.If) else [one])]
