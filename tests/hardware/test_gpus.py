"""Which GPU a process takes: files and processes are real, GPUs are not needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from score.errors import ModelError
from score.hardware import gpus
from score.model.engines.pytorch import Placement
from score.settings import Settings
from tests.support.surfaces import ROOT

pytestmark = pytest.mark.process

CODE = (
    "import sys; from pathlib import Path; from score.hardware.gpus import take;"
    "one, two = (take('abc', Path(sys.argv[1])) for _ in range(2)); assert one == two;"
    "print(one, flush=True); sys.stdin.read()"
)

Process = subprocess.Popen[str]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Process]]:
    processes: list[Process] = []
    yield processes
    for process in processes:
        with process:  # closes its pipes
            process.kill()


def start(processes: list[Process], folder: Path) -> int:
    """Starts a process that takes a GPU and keeps it; its number."""
    command = [sys.executable, "-c", CODE, str(folder)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    processes.append(process)
    assert process.stdout
    return int(process.stdout.readline())


def test_each_process_has_its_own_and_a_dead_ones_is_free(
    started: list[Process], tmp_path: Path
) -> None:
    assert [start(started, tmp_path) for _ in range(3)] == [0, 1, 2]
    assert start(started, tmp_path) in (0, 1, 2)  # shared: there is none left
    started[1].kill()
    started[1].wait()
    assert start(started, tmp_path) == 1


def test_a_lock_that_cannot_be_had_is_no_error(tmp_path: Path) -> None:
    code = CODE.replace("take('abc', Path", "take('ab', Path")
    command = [sys.executable, "-c", code, str(tmp_path / "nowhere")]
    done = subprocess.run(command, cwd=ROOT, input="", capture_output=True, text=True, check=True)
    assert int(done.stdout) in (0, 1)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_process_asks_for_one_of_several(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    properties = SimpleNamespace(uuid="0815")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: properties)
    monkeypatch.setattr(gpus, "take", lambda names: asked.append(names) or 2)
    with pytest.raises(ModelError, match=f"no device '{name}'"):  # there is none, after all
        Placement.of(Settings(device=name))
    assert asked == [["0815"] * 3]
