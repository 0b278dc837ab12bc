"""What coverage traces: our code, and as little else as possible.

On Python 3.11 a trace function makes all Python code take four to seven times as long, also code
that is not measured.

1. Collecting imports the libraries and rewrites the assertions of all tests. So our modules are
   imported first, traced, after the libraries that they import; the rest is not traced.
2. A test runs in much of pytest's code. So only test functions and fixtures are traced.
3. A library that our code calls for seconds is not traced where it is `untraced`.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

P = ParamSpec("P")
T = TypeVar("T")

PACKAGE = Path(__file__).parents[2] / "score"

MODULES = sorted(
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for file in PACKAGE.rglob("*.py")
)
"""The names of all our modules."""


def foreign() -> list[str]:
    """The statements by which our modules import other libraries when they are imported."""
    trees = [ast.parse(file.read_text("utf-8")) for file in PACKAGE.rglob("*.py")]
    nodes = [node for tree in trees for node in tree.body]
    imports = {ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)}
    ours = ("from score", "import score", "from __future__")
    return sorted(statement for statement in imports if not statement.startswith(ours))


@contextlib.contextmanager
def without_extras() -> Iterator[None]:
    """Leaves out what needs a library of an extra that is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("score"):
            raise


@contextlib.contextmanager
def paused_but_for_our_modules() -> Iterator[None]:
    """Coverage, where it is measured, stops for the block, and sees our modules imported."""
    coverage: Any = sys.modules.get("coverage")
    measured = coverage.Coverage.current() if coverage else None
    if measured is None:
        yield
        return
    measured.stop()
    try:
        for statement in foreign():
            with without_extras():
                exec(statement, {})
        measured.start()
        for name in MODULES:
            with without_extras():
                importlib.import_module(name)
        measured.stop()
        yield
    finally:
        measured.start()


class TestsAlone:
    """A pytest plugin: coverage traces test functions and fixtures, and not what pytest does.

    Nothing is traced where coverage is not measured, or by other means than a trace function.
    """

    __test__ = False

    def __init__(self) -> None:
        self._tracer: Any = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> None:
        """Stops tracing, which coverage begins at the start and after a test marked `no_cover`."""
        tracer = sys.gettrace()
        if type(tracer).__module__.partition(".")[0] == "coverage":
            self._tracer = tracer
            sys.settrace(None)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        is_pytests = fixturedef.func.__module__.startswith("_pytest.")  # `tmp_path` and others
        with contextlib.nullcontext() if is_pytests else self._traced():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self) -> Iterator[None]:
        with self._traced():
            return (yield)

    @contextlib.contextmanager
    def _traced(self) -> Iterator[None]:
        if self._tracer is None:
            yield
            return
        before = sys.gettrace()  # a fixture's, which asks for another one while it runs
        sys.settrace(self._tracer)
        try:
            yield
        finally:
            sys.settrace(before)


def untraced(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which is not traced, nor what it calls in its thread."""

    @functools.wraps(function)
    def called(*arguments: P.args, **options: P.kwargs) -> T:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*arguments, **options)
        finally:
            sys.settrace(tracer)

    return called
