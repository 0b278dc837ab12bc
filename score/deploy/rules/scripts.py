"""Entry scripts: whether they exist and have the functions that Azure calls.

Azure's inference server and its batch runner call `init()` without arguments and `run()` with one.
The batch runner passes the mini-batch's context as a second argument where `run()` takes two. A
parallel step's script may omit `init()`, as several in github.com/Azure/azureml-assets do.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_CALLED = {"init": 0, "run": 1}  # function → number of arguments that Azure passes
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def problems(script: Path, where: str, *, most: int, prepared: bool) -> Iterator[str]:
    """What is wrong with an entry script.

    `most`: the most arguments of `run()`. `prepared`: whether `init()` is required.
    """
    if not os.path.isfile(script):
        yield f"{where}: there is no such script"
        return
    try:
        tree = ast.parse(script.read_bytes())
    except (SyntaxError, ValueError, RecursionError) as error:
        yield f"{where}: no Python: {error}"
        return
    names, everything = _names(tree.body)
    for name, count in _CALLED.items():
        if name not in names:
            if not everything and (prepared or name != "init"):
                yield f"{where}: it has no function {name}()"
            continue
        function = names[name]
        allowed = range(count, (most if count else 0) + 1)
        if function and not any(_takes(function, number) for number in allowed):
            wanted = "no argument" if count == 0 else "one argument"
            yield f"{where}: {name}({_written(function)}): Azure calls it with {wanted}"


def _names(body: Sequence[ast.stmt]) -> tuple[Mapping[str, _Function | None], bool]:
    """Name → its function, or None if unknown; and whether `import *` may define other names."""
    names: dict[str, _Function | None] = {}
    everything = False
    for node in body:
        if isinstance(node, _Function):
            names[node.name] = node
        elif isinstance(node, ast.ClassDef):
            names[node.name] = None
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name: None for alias in node.names}
            everything |= any(alias.name == "*" for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            names |= _assigned(node, names)
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            inner, more = _names(list(_nested(node)))
            names |= inner
            everything |= more
    return names, everything


def _assigned(
    node: ast.Assign | ast.AnnAssign, names: Mapping[str, _Function | None]
) -> Mapping[str, _Function | None]:
    """Assigned names → the function of `run = predict`, or None for any other value."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    value = names.get(node.value.id) if isinstance(node.value, ast.Name) else None
    single = {target.id: value for target in targets if isinstance(target, ast.Name)}
    several = [one for target in targets if isinstance(target, ast.Tuple) for one in target.elts]
    return single | {one.id: None for one in several if isinstance(one, ast.Name)}


def _nested(node: ast.If | ast.Try | ast.With) -> Iterator[ast.stmt]:
    yield from node.body
    if not isinstance(node, ast.With):
        yield from node.orelse
    if isinstance(node, ast.Try):
        yield from node.finalbody
        for handler in node.handlers:
            yield from handler.body


def _takes(function: _Function, count: int) -> bool:
    """Whether it accepts `count` positional arguments. A decorated function may accept any."""
    if function.decorator_list:
        return True
    arguments = function.args
    positional = len(arguments.posonlyargs) + len(arguments.args)
    needed = positional - len(arguments.defaults)
    named = sum(default is None for default in arguments.kw_defaults)
    enough = positional >= count or arguments.vararg is not None
    return needed <= count and not named and enough


def _written(function: _Function) -> str:
    return ast.unparse(function.args)
