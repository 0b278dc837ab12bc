"""Entry scripts: whether they are there, and have the functions that Azure calls.

Azure's inference server and its batch runner call `init()` without arguments and `run()` with one;
the batch runner adds the mini-batch's context where `run()` takes two, and a parallel step's script
may do without `init()`, as several in github.com/Azure/azureml-assets do.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_CALLED = {"init": 0, "run": 1}  # function → arguments that Azure gives it
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def problems(script: Path, where: str, *, most: int, prepared: bool) -> Iterator[str]:
    """What is wrong with an entry script.

    `most`: arguments that `run()` may take. `prepared`: whether there must be an `init()`.
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
    for name, given in _CALLED.items():
        if name not in names:
            if not everything and (prepared or name != "init"):
                yield f"{where}: it has no function {name}()"
            continue
        function = names[name]
        may = range(given, (most if given else 0) + 1)
        if function and not any(_takes(function, number) for number in may):
            wanted = "no argument" if given == 0 else "one argument"
            yield f"{where}: {name}({_written(function)}): Azure calls it with {wanted}"


def _names(body: Sequence[ast.stmt]) -> tuple[Mapping[str, _Function | None], bool]:
    """Name → its function where that is in the script, and whether a `*` may bring any other."""
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
    """`run = predict`: another name for a function. What else a name is bound to is unknown."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    value = names.get(node.value.id) if isinstance(node.value, ast.Name) else None
    found = {target.id: value for target in targets if isinstance(target, ast.Name)}
    several = [one for target in targets if isinstance(target, ast.Tuple) for one in target.elts]
    return found | {one.id: None for one in several if isinstance(one, ast.Name)}


def _nested(node: ast.If | ast.Try | ast.With) -> Iterator[ast.stmt]:
    yield from node.body
    if not isinstance(node, ast.With):
        yield from node.orelse
    if isinstance(node, ast.Try):
        yield from node.finalbody
        for handler in node.handlers:
            yield from handler.body


def _takes(function: _Function, given: int) -> bool:
    """Whether it can be called with so many arguments: a decorator may change what it takes."""
    if function.decorator_list:
        return True
    arguments = function.args
    positional = len(arguments.posonlyargs) + len(arguments.args)
    needed = positional - len(arguments.defaults)
    named = sum(default is None for default in arguments.kw_defaults)
    enough = positional >= given or arguments.vararg is not None
    return needed <= given and not named and enough


def _written(function: _Function) -> str:
    return ast.unparse(function.args)
