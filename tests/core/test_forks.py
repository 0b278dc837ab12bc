"""A process that is forked once the model is loaded, as by `gunicorn --preload`, embeds on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from score.checkpoints import random_checkpoint
from score.concurrency import forks
from score.concurrency.cancellation import Cancellation
from score.errors import Cancelled, ModelError
from score.folder.architecture import Transformer
from score.model.engines.pytorch import PyTorch
from tests.support.hostile import Server
from tests.support.surfaces import ROOT

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_forked_processes_compute_the_same(engine: str, tmp_path: Path) -> None:
    """While other threads of the parent embed; PyTorch's OpenMP threads do not survive."""
    if engine == "openvino" and not find_spec("openvino"):
        pytest.skip("OpenVINO is not installed")
    tiny = random_checkpoint.TINY
    tower = Transformer(384, 2, 6, 1536, "quick_gelu")  # too small a one uses no threads
    model = replace(tiny, vision=replace(tiny.vision, tower=tower))
    folder = random_checkpoint.write(tmp_path / "model", model)
    environ = {**os.environ, "OMP_NUM_THREADS": "2", "SCORE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "tests.support.forking_script", str(folder)]
    with Server() as server:
        done = subprocess.run(
            [*command, server.url("/good.png"), engine],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.stdout == "equal\n", done.stderr


def in_a_fork(check: object) -> int:
    """The exit code of a forked process: 0 if the check holds there."""
    process = os.fork()
    if not process:
        try:
            assert callable(check)
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_a_call_that_was_begun_before_a_fork_ends_in_the_child_alone() -> None:
    interrupted: list[int] = []
    call = Cancellation()

    def ended() -> bool:
        call.cancel()
        with pytest.raises(Cancelled, match="before this process was forked"):
            call.check()
        return not interrupted

    with call.interrupting(lambda: interrupted.append(1)):
        assert in_a_fork(ended) == 0
    call.check()


def test_a_block_that_a_fork_is_made_in_ends_in_the_child_too() -> None:
    call = Cancellation()
    block = call.interrupting(lambda: None)

    def left() -> bool:
        block.__exit__(None, None, None)
        with pytest.raises(Cancelled), call.interrupting(lambda: None):
            pytest.fail("a call that has ended")
        return True

    with block:
        assert in_a_fork(left) == 0


def test_a_fork_waits_for_a_pass() -> None:
    lock, began, passed = forks.ForkSafeLock(), threading.Event(), threading.Event()

    def compute() -> None:
        with lock:
            began.set()
            threading.Event().wait(0.3)
            passed.set()

    thread = threading.Thread(target=compute)
    thread.start()
    began.wait()
    assert in_a_fork(lambda: passed.is_set() and lock.lock.acquire(blocking=False)) == 0
    thread.join()
    assert lock.lock.acquire(blocking=False), "the parent has given it back"


def test_what_computes_where_it_is_called_does_so_on_a_new_thread() -> None:
    here = threading.get_ident()
    assert forks.on_new_thread(threading.get_ident) == here

    def elsewhere() -> bool:
        with pytest.raises(ZeroDivisionError):
            forks.on_new_thread(lambda: 1 / 0)
        return forks.on_new_thread(threading.get_ident) != threading.get_ident()

    assert in_a_fork(elsewhere) == 0


def test_a_model_on_a_gpu_says_that_it_survives_no_fork() -> None:
    engine = PyTorch.__new__(PyTorch)
    engine._device, engine._process = torch.device("cuda:0"), os.getpid() + 1
    with pytest.raises(ModelError, match=r"before this process was forked.*without --preload"):
        engine.images([])
