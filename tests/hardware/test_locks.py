"""Locks on files and folders. Each `open` counts by itself, also within a process."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from score.hardware.locks import lock_file, lock_folder, wait_for_file


@pytest.mark.parametrize("lock", [lock_file, lock_folder])
def test_a_lock_is_held_once(lock: Callable[[Path], int | None], tmp_path: Path) -> None:
    path = tmp_path / "file" if lock is lock_file else tmp_path
    first = lock(path)
    assert first is not None
    assert lock(path) is None
    os.close(first)
    second = lock(path)
    assert second is not None
    os.close(second)


def test_links_and_missing_folders_are_not_locked(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert lock_file(tmp_path / "link") is None
    assert lock_folder(tmp_path / "missing") is None
    assert lock_folder(tmp_path / "target") is None
    assert not (tmp_path / "missing").exists()


def test_a_new_lock_file_is_the_users_own(tmp_path: Path) -> None:
    descriptor = lock_file(tmp_path / "file")
    assert descriptor is not None
    assert os.fstat(descriptor).st_mode & 0o777 == 0o600
    os.close(descriptor)


def test_a_lock_that_another_holds_is_waited_for(tmp_path: Path) -> None:
    held = lock_file(tmp_path / "file")
    assert held is not None
    assert wait_for_file(tmp_path / "file", 0.2) is None
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(wait_for_file, tmp_path / "file", 60)
        os.close(held)
        descriptor = waiting.result()
    assert descriptor is not None
    os.close(descriptor)


def test_a_file_that_cannot_be_locked_is_not_waited_for(tmp_path: Path) -> None:
    assert wait_for_file(tmp_path / "missing" / "file", 1e9) is None
