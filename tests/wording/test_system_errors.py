"""A full disk in words, whichever library has written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from score.console.commands import UNUSABLE, exit_code_of
from score.storage import atomic


@pytest.mark.parametrize("named", [None, "temporary"])
@pytest.mark.parametrize("output", [atomic.file, atomic.folder, atomic.contents])
def test_a_full_disk_is_told_with_the_outputs_name(
    output: Callable[[Path], AbstractContextManager[Path]],
    named: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def write() -> None:
        with output(tmp_path / "out") as temporary:
            raise OSError(errno.ENOSPC, "Error writing bytes", named and str(temporary))

    assert exit_code_of(write) == UNUSABLE
    said = capsys.readouterr().err
    assert said.startswith(f"score: {tmp_path / 'out'}")
    assert ".part" not in said
    assert f" cannot be written: {os.strerror(errno.ENOSPC)}; free some, or name an" in said
    assert not list(tmp_path.glob("**/*.part"))


def test_other_errors_are_as_the_system_tells_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write() -> None:
        with atomic.file(tmp_path / "out"):
            raise OSError(errno.EIO, "gone", "/other")

    assert exit_code_of(write) == UNUSABLE
    assert capsys.readouterr().err == "score: [Errno 5] gone: '/other'\n"
