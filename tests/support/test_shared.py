"""Workers share the cores, and folders that one of them has completed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.support.shared import built_once, cores


def test_whoever_comes_first_builds(tmp_path_factory: pytest.TempPathFactory) -> None:
    built: list[Path] = []
    seen: list[str] = []

    def build(folder: Path) -> None:
        built.append(folder)
        time.sleep(0.1)
        (folder / "file").write_text("whole")

    def ask() -> None:
        seen.append((built_once(tmp_path_factory, "of threads", build) / "file").read_text())

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(built), seen) == (1, ["whole"] * 3)


def test_what_failed_is_built_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        built_once(tmp_path_factory, "again", fail)
    folder = built_once(tmp_path_factory, "again", lambda folder: (folder / "file").touch())
    assert [file.name for file in folder.iterdir()] == ["file"]


def test_workers_have_one_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw7")
    base = tmp_path_factory.getbasetemp()
    workers = [pytest.MonkeyPatch() for _ in "12"]
    folders = []
    for number, worker in enumerate(workers):
        (base / f"popen-gw{number}").mkdir(exist_ok=True)
        with worker.context() as patch:
            patch.setattr(tmp_path_factory, "_basetemp", base / f"popen-gw{number}")
            folders.append(built_once(tmp_path_factory, "workers", lambda folder: None))
    assert folders == [base / "shared-workers"] * 2


def test_each_worker_has_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    found = []
    for workers in ("1", "2", "9"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", workers)
        found.append(cores())
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT")
    assert (found, cores()) == ([4, 2, 1], 4)
