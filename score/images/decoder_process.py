"""Decodes an image in a process of its own.

Pillow keeps the interpreter's lock while OpenJPEG decodes, which takes seconds for a large image,
in some hundred bytes if it is of one colour: no other thread would run, and no probe be answered.
So what takes long is decoded by a child process, which costs some 50 ms more.

OpenJPEG takes some 36 bytes a pixel, 1.8 GiB for the largest image: one child runs at a time.

The child runs Pillow alone, with the paths of this process and none of this package's code.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import PIL
from PIL import Image

_log = logging.getLogger(__name__)
_one_at_a_time = Lock()


def _renew() -> None:
    """In a forked process: the thread that held the lock is not in it."""
    global _one_at_a_time
    _one_at_a_time = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)

_SCRIPT = """
import io, json, signal, sys
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
sys.path[:0] = json.loads(sys.argv[1])
from PIL import Image
Image.MAX_IMAGE_PIXELS = None
pixels = b""
try:
    data = sys.stdin.buffer.read(int(sys.argv[3]))
    image = Image.open(io.BytesIO(data), formats=[sys.argv[2]])
    image.load()
    if image.mode in ("P", "PA"):
        image = image.convert("RGB" if image.mode == "P" else "RGBA")
    pixels = image.tobytes()
    said = {"mode": image.mode, "size": image.size, "bytes": len(pixels)}
except MemoryError:
    said = {"memory": True}
except Exception as error:
    said = {"error": str(error)[:500]}
sys.stdout.buffer.write(json.dumps(said).encode() + b"\\n")
sys.stdout.buffer.write(pixels)
"""
"""Signals of a terminal or a supervisor reach all processes of the group, but it is for the parent
to end this one, by SIGKILL. The length is told since a fork of the parent keeps the input open."""

_LONGEST_HEAD = 2**13  # bytes of the line before the pixels
_SIGNALS = tuple(-getattr(signal, name, 0) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
_ENDING = 10.0  # seconds until a child that has closed its output has ended, which takes none


def load(image: Image.Image, data: bytes) -> Image.Image:
    """An image that was opened from `data`, with its pixels; here, if no process can do it.

    Raises OSError for what cannot be decoded, MemoryError.
    """
    with _one_at_a_time:
        return _apart(image, data)


def _apart(image: Image.Image, data: bytes) -> Image.Image:
    paths = json.dumps([str(Path(PIL.__file__).parents[1])])
    told = [paths, str(image.format), str(len(data))]
    try:
        child = subprocess.Popen(  # noqa: S603 - our own code; what it is told are its arguments
            [sys.executable, "-I", "-X", "utf8", "-c", _SCRIPT, *told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, ValueError, TypeError) as error:  # no executable or memory, many processes
        return _loaded_here(image, str(error))
    with child:
        try:
            loaded = _loaded(image, data, child)
        finally:
            child.kill()
    if loaded is None:
        return _loaded_here(image, f"the decoder's process ended with code {child.returncode}")
    return loaded


def _loaded_here(image: Image.Image, reason: str) -> Image.Image:
    _log.warning("an image is decoded in this process, which others wait for: %s", reason)
    image.load()
    return image


def _loaded(image: Image.Image, data: bytes, child: subprocess.Popen[bytes]) -> Image.Image | None:
    """The image as the child has decoded it; None where it ended without an answer.

    Raises OSError, and MemoryError for a child that the system has ended.
    """
    assert child.stdin
    assert child.stdout
    try:
        child.stdin.write(data)
        child.stdin.close()
    except BrokenPipeError:  # it has ended; what it said is read below
        pass
    said = _said(child.stdout.readline(_LONGEST_HEAD))
    if "error" in said:
        raise OSError(said["error"])
    if "memory" in said:
        raise MemoryError
    if "bytes" not in said:
        _check_ended(child)
        return None
    # Read into place, while other threads run.
    pixels = np.empty(said["bytes"], np.uint8)
    read, part = 0, 1
    while part and read < len(pixels):
        part = child.stdout.readinto(pixels.data[read:])  # type: ignore[attr-defined]
        read += part
    if read < len(pixels):
        _check_ended(child)
        return None
    loaded = Image.frombytes(said["mode"], tuple(said["size"]), pixels.data)
    loaded.info, loaded.format = image.info, image.format
    return loaded


def _said(line: bytes) -> dict[str, Any]:
    """What the child said; nothing if it is not our own code that ran."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _check_ended(child: subprocess.Popen[bytes]) -> None:
    """Raises MemoryError for a child that the system has ended.

    One that ended by itself is no Python, or lacks Pillow; an interrupt may come before it ignores
    them.
    """
    try:
        code = child.wait(_ENDING)
    except subprocess.TimeoutExpired:
        return
    if code < 0 and code not in _SIGNALS:
        raise MemoryError
