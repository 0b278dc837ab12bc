"""A test that starts a process must have the marker `process`.

`make test-fast` skips marked tests; unmarked tests that start processes would make it slow. The
guard fails such a test, and every unmarked test that uses a fixture which started a process, even
if another test used the fixture first.
"""

from __future__ import annotations

import functools
import multiprocessing.process
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from score.images import decoder_process

# Commands by which libraries inspect the system, once per process and within milliseconds.
_SYSTEM = frozenset({"uname", "ldconfig", "/sbin/ldconfig", "lscpu", "git", "gcc"})


def _decodes(words: Sequence[Any]) -> bool:
    """Whether it is the process that decodes large JPEG 2000, which any test may have: it takes a
    tenth of a second."""
    return decoder_process._SCRIPT in words


class ProcessGuard:
    """A pytest plugin: records the processes that each test and each fixture starts."""

    def __init__(self) -> None:
        self._started: list[str] = []
        self._of_fixtures: dict[Any, list[str]] = {}  # fixture definition → commands
        self._patch = pytest.MonkeyPatch()

    def pytest_configure(self) -> None:
        """Wraps the functions that start processes; an audit hook would be slower."""
        self._before(subprocess.Popen, "__init__", self._note_command)
        self._before(multiprocessing.process.BaseProcess, "start", self._note)
        self._before(os, "fork", self._note)
        self._before(os, "system", self._note)
        for name in ("posix_spawn", "posix_spawnp"):
            self._before(os, name, self._note_spawned)

    def pytest_unconfigure(self) -> None:
        self._patch.undo()

    def _before(self, owner: Any, name: str, note: Callable[..., None]) -> None:
        """Wraps a function so that `note` is called first, with the same arguments."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def noted(*arguments: Any, **options: Any) -> Any:
            note(*arguments, **options)
            return function(*arguments, **options)

        self._patch.setattr(owner, name, noted)

    def _note_command(self, _: object, args: Any, *rest: object, **options: object) -> None:
        words = [args] if isinstance(args, (str, bytes, os.PathLike)) else [*args]
        if os.fsdecode(words[0]) not in _SYSTEM and not _decodes(words):
            self._note(*words)

    def _note_spawned(self, path: Any, args: Any, *rest: object, **options: object) -> None:
        self._note_command(None, [path, *args[1:]])

    def _note(self, *what: object) -> None:
        self._started.append(" ".join(map(str, what))[:200] or "a fork")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Iterator[None]:
        self._started.clear()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        before = len(self._started)
        try:
            return (yield)
        finally:
            self._of_fixtures[fixturedef] = self._started[before:]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Function) -> Iterator[None]:
        result = yield
        started = [*self._started]
        for fixtures in item._fixtureinfo.name2fixturedefs.values():
            started += self._of_fixtures.get(fixtures[-1], [])
        if started and not item.get_closest_marker("process"):
            pytest.fail(f"without the marker `process`, it started {started[0]}", pytrace=False)
        return result
