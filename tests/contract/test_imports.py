"""Importing `score`, or any module of it, changes nothing in the process that imports it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.measuring import MODULES, foreign

ROOT = Path(__file__).parents[2]

# Prints what modules might change, before and after those of the second list are imported. The
# first list is of import statements of other libraries, which may change what they like.
SCRIPT = r"""
import csv, gc, importlib, json, locale, logging, os, random, signal, socket, sys, threading
import warnings
import numpy as np
import torch
from PIL import Image, ImageFile

def loggers():
    known = {"": logging.getLogger(), **logging.Logger.manager.loggerDict}
    for name, log in sorted(known.items()):
        if isinstance(log, logging.Logger):
            state = [log.level, log.handlers, log.filters, log.propagate, log.disabled]
            # A new logger counts where it is not as `getLogger` makes it.
            if name == "" or state != [0, [], [], True, False]:
                yield f"log {name}", repr(state)

def torch_settings():
    yield "torch threads", torch.get_num_threads()
    yield "torch interop threads", torch.get_num_interop_threads()
    yield "torch dtype", str(torch.get_default_dtype())
    yield "torch grad", torch.is_grad_enabled()
    yield "torch seed", torch.initial_seed()
    yield "torch matmul", torch.get_float32_matmul_precision()
    yield "torch deterministic", torch.are_deterministic_algorithms_enabled()
    yield "torch mkldnn", torch.backends.mkldnn.enabled
    yield "torch cudnn", (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark)

def others():
    yield "csv", csv.field_size_limit()
    yield "random", hash(random.getstate())
    yield "numpy errors", repr(np.geterr())
    yield "numpy random", repr(np.random.get_state()[1][:5])
    yield "pillow", (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, sorted(Image.OPEN))

def state():
    yield "warnings", repr(warnings.filters)
    yield "showwarning", repr(warnings.showwarning)
    yield from loggers()
    yield "environ", dict(os.environ)
    yield "path", list(sys.path)
    for number in signal.valid_signals():
        yield f"signal {int(number)}", repr(signal.getsignal(number))
    yield "threads", sorted(thread.name for thread in threading.enumerate())
    yield "hooks", repr([sys.excepthook, threading.excepthook, sys.displayhook])
    yield "socket", socket.getdefaulttimeout()
    yield "gc", [gc.isenabled(), *gc.get_threshold()]
    yield "recursion", sys.getrecursionlimit()
    yield "locale", locale.setlocale(locale.LC_ALL)
    yield "cwd", os.getcwd()
    yield "streams", [repr(stream) for stream in (sys.stdin, sys.stdout, sys.stderr)]
    yield from others()
    yield from torch_settings()

def load(how, what):
    try:
        how(what)
    except ModuleNotFoundError as error:  # of an extra that is not installed
        if not error.name or error.name.startswith("score"):
            raise

foreign, ours = json.load(sys.stdin)
for statement in foreign:
    load(exec, statement)
before = dict(state())
for name in ours:
    load(importlib.import_module, name)
print("\n", json.dumps([before, dict(state())]))
"""


def states(statements: list[str], ours: list[str]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What a process is like before and after it imports our modules."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([statements, ours]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout.splitlines()[-1])
    return before, after


@pytest.mark.process
def test_importing_every_module_changes_nothing() -> None:
    before, after = states(foreign(), MODULES)
    assert len(before) > 80  # signals, among others
    for name in before.keys() | after.keys():
        assert before.get(name) == after.get(name), name


@pytest.mark.process
def test_a_change_would_be_seen() -> None:
    before, after = states(["import tests"], ["tests.support.changing"])
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    wanted = {"warnings", "log urllib3.connection", "environ", "path", "threads", "csv", "gc"}
    assert changed == wanted | {"torch grad", f"signal {int(signal.SIGUSR1)}"}


@pytest.mark.process
def test_reading_an_image_leaves_the_warnings_of_others_alone() -> None:
    """Our filter lets pass what Pillow says to others, and what others say."""
    script = """
import sys, threading, warnings
from score.images import pillow_warnings
before = list(warnings.filters)
warnings.simplefilter("error")

def warned(module):
    try:
        warnings.warn_explicit("text", UserWarning, "file.py", 1, module=module)
    except UserWarning:
        return True
    return False

with pillow_warnings.ignored():
    assert not warned("PIL.TiffImagePlugin")
    assert warned("PILE.Image") and warned("score.images")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(warned("PIL.Image")))
    thread.start()
    thread.join()
    assert answers == [True], "another thread is not ours"
    with pillow_warnings.ignored():
        assert not warned("PIL.Image")
    assert not warned("PIL.Image")
assert warned("PIL.Image")
warnings.resetwarnings()
warnings.simplefilter("error")
with pillow_warnings.ignored():
    assert not warned("PIL.Image"), "the filter is back"
for _ in range(10):
    with pillow_warnings.ignored():
        pass
assert len(warnings.filters) == 2
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=60)
