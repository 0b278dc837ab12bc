"""What many tests share."""

from __future__ import annotations

import functools
import gc
import logging
import os
import signal
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from score.checkpoints import random_checkpoint, tokenizer_trial
from score.core.embedder import Embedder
from score.fetch import connections
from score.hardware import processor
from score.model import engine_choice
from score.settings import Settings
from tests.support import measuring, order, processes
from tests.support.images import SAMPLES, served
from tests.support.process_guard import ProcessGuard

# A shell starts background jobs with SIGINT ignored (`nohup make test &`), which the processes that
# tests start would inherit, those that are to be interrupted too. SIGTERM is an interrupt, so that
# a run which is ended puts away what it made.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.default_int_handler)

_MARK = processes.mark()
_WATCHER = processes.watch(_MARK)

# The tests' models are so small that threads cost them more than they bring: here, and in the
# processes that tests start, which would take three times the CPU time beside another worker.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# Tests, and modules in the processes that they start, are compiled once, not by each process anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# On a processor with bf16, too, vectors are fp32's, which are what most tests compare: here, and in
# the processes that tests start.
processor._CPUINFO = Path(os.devnull)
os.environ["SCORE_PRECISION"] = "fp32"

# Where OpenVINO is installed, too, they are PyTorch's: no test measures which engine is faster,
# except those of that choice.
engine_choice.installed = lambda: False
os.environ["SCORE_ENGINE"] = "torch"

# A tokenizer other than CLIP's is tried in a process of its own, for some seconds: in the tests of
# that alone (`tokenizers_are_tried`), and in the processes that tests start.
_try_tokenizer = tokenizer_trial._try
tokenizer_trial._try = lambda folder, context, pads: None

# Reading the certificate authorities takes 0.1 s, which every model that is loaded would do again.
_read_authorities = connections._trust


@functools.cache
def _authorities(ca_bundle: str, *state: object) -> ssl.SSLContext:
    return _read_authorities(ca_bundle)


def _trust(ca_bundle: str) -> ssl.SSLContext:
    """What was read for the same files in the same environment."""
    changed = os.path.getmtime(ca_bundle) if os.path.isfile(ca_bundle) else None
    environ = [os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")]
    return _authorities(ca_bundle, changed, *environ)


connections._trust = _trust

# Fixtures that test files load as a plugin; a file that was imported before is not rewritten.
pytest.register_assert_rewrite("tests.support.azure_twins")

_forgotten: list[str] = []  # processes that workers of pytest-xdist found left running


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    with measuring.paused_but_for_our_modules():
        return (yield)


@pytest.hookimpl(trylast=True)  # after pytest has left tests out, and sorted them by fixtures
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if (workers := order.workers()) > 1:
        items[:] = order.dealt(items, workers)


def pytest_collection_finish() -> None:
    """Each full garbage collection would look at the million objects that imports have made."""
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(ProcessGuard())
    config.pluginmanager.register(measuring.TestsAlone())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _forgotten.extend(getattr(node, "workeroutput", {}).get("forgotten", ()))


@pytest.hookimpl(trylast=True)  # after the workers, which bear this process's mark, have ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves processes behind has failed; they are ended all the same."""
    _forgotten.extend(processes.left(_MARK))
    if _forgotten:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print("\nLeft running by the tests, and killed:", *_forgotten, sep="\n  ")
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["forgotten"] = _forgotten
    processes.end(_MARK)
    assert _WATCHER.stdin
    _WATCHER.stdin.close()
    _WATCHER.wait(30)


@pytest.fixture
def tokenizers_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizers are tried as they are outside of tests."""
    monkeypatch.setattr(tokenizer_trial, "_try", _try_tokenizer)
    monkeypatch.setattr(tokenizer_trial, "_passed", set())


@pytest.fixture(autouse=True)
def _root_handlers() -> Iterator[None]:
    """Puts back the log's handlers, since a command's own would write to a stderr that is captured,
    and closed after the test; and the lowest level that commands log."""
    root, ours = logging.getLogger(), logging.getLogger("score")
    before, level = root.handlers[:], ours.level
    yield
    root.handlers[:] = before
    ours.setLevel(level)


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """The embedded model, allowed to fetch from this machine."""
    return Embedder.load(settings=Settings(allow_hosts=("127.0.0.1",), retry_wait=0.01))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint as small as the embedded one, in the transformers layout."""
    return random_checkpoint.write(tmp_path_factory.mktemp("tiny") / "c", random_checkpoint.TINY)


@pytest.fixture(scope="session")
def images_url() -> Iterator[str]:
    """Where the sample images are served."""
    with served(SAMPLES / "images") as url:
        yield url
