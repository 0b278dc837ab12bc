"""Images that are decoded in a process of their own, so that other threads run meanwhile."""

from __future__ import annotations

import io
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from score.errors import TooManyPixels, TruncatedImage
from score.images import decoder_process
from score.images.decode import decode

pytestmark = pytest.mark.process

MOST = 50_000_000
MODES = ("L", "LA", "RGB", "RGBA", "I;16", "P", "PA")


def encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG2000")
    return stream.getvalue()


def with_palette(data: bytes) -> bytes:
    """A file of one colour channel, whose numbers become those of 256 colours."""
    colours = b"".join(bytes((n, 255 - n, n * 7 % 256)) for n in range(256))
    palette = box(b"pclr", struct.pack(">HB", 256, 3) + b"\7\7\7" + colours)
    at = data.index(b"jp2h") - 4
    end = at + int.from_bytes(data[at : at + 4], "big")
    header = data[at + 8 : end].replace(b"colr\1\0\0\0\0\0\x11", b"colr\1\0\0\0\0\0\x10")
    return data[:at] + box(b"jp2h", header + palette) + data[end:]


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def noise(side: int, mode: str = "RGB") -> Image.Image:
    numbers = np.random.default_rng(0)
    if mode == "I;16":
        return Image.fromarray(numbers.integers(0, 2**16, (side, side)).astype(np.uint16))
    return Image.merge(
        mode,
        [Image.fromarray(numbers.integers(0, 256, (side, side)).astype(np.uint8)) for _ in mode],
    )


def test_a_large_file_takes_no_time_of_this_process() -> None:
    """811 bytes of one colour: a second and more in which no other thread ran."""
    data = encoded(Image.new("RGB", (7_000, 7_000), "red"))
    assert len(data) < 1_000
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, time.thread_time()
    image = decode(data, MOST)
    own, other = time.thread_time() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert image.getpixel((6_999, 6_999)) == (255, 0, 0)
    assert other - before > own


@pytest.mark.parametrize("side", [3000, 1000])
def test_the_time_of_a_file_is_bounded_by_what_it_counts(side: int) -> None:
    """A pixel of other formats takes some 15 ns. Where each counted once, these would take ten."""
    image = noise(side) if side == 1000 else Image.new("RGB", (side, side), "red")
    data, counted = encoded(image), list[int]()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    decode(data, MOST, spend=counted.append)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime - before.ru_utime) / sum(counted) < 50e-9


@pytest.mark.parametrize("mode", MODES)
def test_the_pixels_are_the_same(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise(700, mode.replace("P", "L")))
    if "P" in mode:
        data = with_palette(data)
        assert Image.open(io.BytesIO(data)).mode == mode
    started = []
    start = subprocess.Popen
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a) or start(*a, **k))
        apart = decode(data, MOST)
    assert started
    monkeypatch.setattr("score.images.jpeg2000.takes_long", lambda *_: False)
    assert apart.tobytes() == decode(data, MOST).tobytes()


def test_one_process_runs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take 1.8 GiB."""
    running: list[int] = []
    most: list[int] = []
    load = decoder_process._loaded

    def counted(*arguments: Any) -> Image.Image:
        running.append(1)
        most.append(len(running))
        image = load(*arguments)
        running.pop()
        return image

    monkeypatch.setattr(decoder_process, "_loaded", counted)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda data: decode(data, MOST), [encoded(noise(700))] * 4))
    assert most == [1] * 4


def test_a_small_file_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    assert decode(encoded(noise(64)), MOST).size == (64, 64)


def test_a_damaged_file_is_a_row_error() -> None:
    with pytest.raises(TruncatedImage, match="JPEG2000 cannot be decoded: broken data stream"):
        decode(encoded(noise(700))[:400_000], MOST)


def test_a_process_that_is_ended_is_a_row_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system ends one that takes too much memory."""
    monkeypatch.setattr(decoder_process, "_SCRIPT", "import os; os.close(0); os.abort()")
    with pytest.raises(TooManyPixels, match="700×700 does not fit in memory"):
        decode(encoded(noise(700)), MOST)


@pytest.mark.parametrize("script", ["raise SystemExit(1)", "print('{')", "print('{\"bytes\": 9}')"])
def test_where_the_process_ends_by_itself_it_is_decoded_here(
    script: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decoder_process, "_SCRIPT", script)
    assert decode(encoded(noise(700)), MOST).size == (700, 700)
    assert "decoded in this process" in caplog.text


@pytest.mark.parametrize("executable", ["true", "echo", "", None])
def test_where_the_executable_is_no_python_it_is_decoded_here(
    executable: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where Python is part of another program."""
    monkeypatch.setattr(sys, "executable", shutil.which(executable) if executable else executable)
    assert decode(encoded(noise(700)), MOST).size == (700, 700)
    assert "decoded in this process" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_does_not_end_the_process(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = decoder_process._SCRIPT.replace(
        "pixels =", f"import os; os.kill(os.getpid(), {number:d})\npixels =", 1
    )
    monkeypatch.setattr(decoder_process, "_SCRIPT", script)
    assert decode(encoded(noise(700)), MOST).size == (700, 700)
    assert not caplog.text


def test_a_fork_that_keeps_the_input_open_does_not_hold_it_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = []
    start = subprocess.Popen

    def started(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        child = start(*args, **options)
        kept.append(os.dup(child.stdin.fileno()))
        return child

    late = threading.Timer(30, lambda: os.close(kept.pop()))
    monkeypatch.setattr(subprocess, "Popen", started)
    late.start()
    decode(encoded(noise(700)), MOST)
    late.cancel()
    os.close(kept.pop())


def test_where_no_process_starts_it_is_decoded_here(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/file")
    assert decode(encoded(noise(700)), MOST).size == (700, 700)
    assert "decoded in this process" in caplog.text
