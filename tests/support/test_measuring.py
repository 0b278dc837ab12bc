from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import measuring


class Measured:
    """Stands in for a `Coverage` that is running."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    measured = Measured()
    coverage = SimpleNamespace(Coverage=SimpleNamespace(current=lambda: measured))
    monkeypatch.setitem(sys.modules, "coverage", coverage)
    return measured


def test_coverage_sees_our_modules_imported_and_stops_for_the_block(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = SimpleNamespace(import_module=measured.calls.append)
    monkeypatch.setattr(measuring, "importlib", recorder)
    with measuring.paused_but_for_our_modules():
        assert measured.calls == ["stop", "start", *measuring.MODULES, "stop"]
    assert measured.calls[-1] == "start"
    assert "score.core.embedder" in measuring.MODULES


def test_coverage_goes_on_after_a_block_that_fails(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "MODULES", [])
    monkeypatch.setattr(measuring, "foreign", list)
    with pytest.raises(KeyError), measuring.paused_but_for_our_modules():
        raise KeyError
    assert measured.calls == ["stop", "start", "stop", "start"]


def test_without_coverage_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "coverage", raising=False)
    monkeypatch.setattr(measuring, "foreign", lambda: pytest.fail("libraries were imported"))
    with measuring.paused_but_for_our_modules():
        pass


Tracer = type("Tracer", (), {"__module__": "coverage", "__call__": lambda self, *event: None})


@contextmanager
def tracing(tracer: Any) -> Iterator[None]:
    """Sets the trace function for the block. A fixture could not: it is traced by itself."""
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        yield
    finally:
        sys.settrace(before)


def test_coverage_traces_tests_and_fixtures_alone() -> None:
    plugin, tracer = measuring.TestsAlone(), Tracer()
    ours, pytests = (SimpleNamespace(func=made) for made in (measuring.foreign, pytest.raises))
    hooks = (
        plugin.pytest_fixture_setup(ours),
        plugin.pytest_fixture_setup(pytests),
        plugin.pytest_pyfunc_call(),
    )
    seen = []
    with tracing(tracer):
        plugin.pytest_runtest_protocol()
        seen.append(sys.gettrace())
        for hook in hooks:
            next(hook)
            seen.append(sys.gettrace())
            with suppress(StopIteration):
                next(hook)
            seen.append(sys.gettrace())
    assert seen == [None, tracer, None, None, None, tracer, None]


def test_a_fixture_that_asks_for_another_is_traced_to_its_end() -> None:
    plugin, tracer = measuring.TestsAlone(), Tracer()
    with tracing(tracer):
        plugin.pytest_runtest_protocol()
        with plugin._traced():
            with plugin._traced():
                pass
            seen = sys.gettrace()
    assert seen is tracer


def test_another_trace_function_is_left_alone() -> None:
    plugin, debugger = measuring.TestsAlone(), lambda *event: None
    with tracing(debugger):
        plugin.pytest_runtest_protocol()
        with plugin._traced():
            seen = sys.gettrace()
    assert seen is debugger


def test_what_is_untraced_is_traced_again_afterwards() -> None:
    @measuring.untraced
    def function(value: int, *, more: int) -> tuple[object, int]:
        return sys.gettrace(), value + more

    tracer = Tracer()
    with tracing(tracer):
        result = function(1, more=2)
        with suppress(ZeroDivisionError):
            measuring.untraced(lambda: 1 / 0)()
        seen = sys.gettrace()
    assert result == (None, 3)
    assert seen is tracer
