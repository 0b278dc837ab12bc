"""What the benchmarks work on: images, texts, a checkpoint, and an image server."""

from __future__ import annotations

import base64
import io
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from score.console import commands
from score.folder.model_folder import ModelFolder

Cell = TypeVar("Cell")

HERE = "127.0.0.1"

# Distinct images, since what repeats is computed once; more than 64 rows repeat them.
SMALL = [(640, 480)] * 64
LARGER = [(1920, 1080)] * 21 + [(4000, 3000)] * 3
THUMBNAILS = [(320, 240)] * 64


def images(sizes: list[tuple[int, int]]) -> list[bytes]:
    """JPEGs, of a photo's size in bytes too (60 KB at 640×480): soft shapes and grain."""
    return [_jpeg(size, seed) for seed, size in enumerate(sizes)]


def _jpeg(size: tuple[int, int], seed: int) -> bytes:
    noise = np.random.default_rng(seed)
    blobs = Image.fromarray(noise.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    shapes = np.asarray(blobs.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    grain = noise.standard_normal(shapes.shape, dtype=np.float32) * 6
    file = io.BytesIO()
    Image.fromarray((shapes + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def distinct() -> Iterator[bytes]:
    """JPEGs of about 640×480 without end, no two alike."""
    drawn = [Image.open(io.BytesIO(image)) for image in images(SMALL)]
    for number, image in enumerate(cycle(drawn)):
        file = io.BytesIO()
        image.crop((number // len(drawn) % 320, 0, 640, 480)).save(file, "JPEG", quality=85)
        yield file.getvalue()


def small(cells: list[Cell], rows: int) -> list[Cell]:
    """`cells` (one for each of SMALL, then of LARGER) → as many rows of 640×480."""
    return list(islice(cycle(cells[: len(SMALL)]), rows))


def mixed(cells: list[Cell], rows: int) -> list[Cell]:
    """The same, but of every 64 rows 21 are 1920×1080 and 3 are 4000×3000, in no order."""
    pattern = cells[: len(SMALL) - len(LARGER)] + cells[len(SMALL) :]
    random.Random(0).shuffle(pattern)
    return list(islice(cycle(pattern), rows))


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def texts(count: int) -> list[str]:
    """Captions, no two alike. Most are of 5 to 15 words, a few of up to 50, as captions are."""
    words = "a photo of the red small old cat dog boat house tree near under two people in rain at"
    dice = random.Random(0)
    lengths = [min(50, 1 + round(dice.lognormvariate(2.1, 0.6))) for _ in range(count)]
    return [
        " ".join(dice.choices(words.split(), k=length)) + f" {number}"
        for number, length in enumerate(lengths)
    ]


def model(folder: Path | None, scratch: Path, *, int8: bool = False) -> Path:
    """The folder, else a ViT-B/32 with random weights: 151 M parameters, 605 MB.

    `int8`: with towers in int8, too, whatever that costs random weights.

    Another process writes it: a child's peak memory, as Linux counts it, begins at its parent's.
    """
    if folder:
        ModelFolder.open(folder)  # an unusable folder is refused before the measurement
        return folder
    folder = scratch / "vit-b-32"
    command = [
        sys.executable,
        "-m",
        "score.checkpoints.random_checkpoint",
        "ViT-B-32-quickgelu",
        str(folder),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    if int8:
        seen = scratch / "seen"
        seen.mkdir()
        for number, image in enumerate(images([(320, 240)] * 64)):
            (seen / f"{number}.jpg").write_bytes(image)
        code = "import sys; from pathlib import Path; from score.package.int8 import quantise; "
        code += "quantise(*map(Path, sys.argv[1:]), force=True, whole=True)"
        command = [sys.executable, "-c", code, str(folder), str(seen)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


@contextmanager
def image_server(
    latency: float = 0.0,
    *,
    thumbnails: bool = False,
    different: int = 0,
    crowd: int = 0,
    drip: float = 0.0,
) -> Iterator[list[str]]:
    """Serves SMALL and LARGER images, or THUMBNAILS, from a process of its own; yields their
    URLs. `different`: serves so many of `distinct()` instead. `crowd`: of more requests at a time
    than this, the rest is told to come back in 1 s. `drip`: seconds between two bytes of a body.
    """
    command = [sys.executable, "-m", __spec__.name, "--latency", str(latency)]
    command += ["--crowd", str(crowd), "--drip", str(drip)]
    command += ["--different", str(different), *(["--thumbnails"] if thumbnails else [])]
    count = different or len(THUMBNAILS if thumbnails else SMALL + LARGER)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        port = int(server.stdout.readline())
        try:
            yield [f"http://{HERE}:{port}/{number}.jpg" for number in range(count)]
        finally:
            server.terminate()


def _serve(latency: float, served: Iterable[bytes], crowd: int, drip: float) -> None:
    bodies = {f"/{number}.jpg": body for number, body in enumerate(served)}
    places = threading.Semaphore(crowd or 10**9)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections may be kept, by clients that can

        def do_GET(self) -> None:
            if not places.acquire(blocking=False):
                self._answer(429, b"", "Retry-After", "1")
                return
            time.sleep(latency)
            places.release()
            path = self.path.partition("?")[0]  # a query makes an image's URL another one
            self._answer(200, bodies[path], "Content-Type", "image/jpeg")

        def _answer(self, status: int, body: bytes, *header: str) -> None:
            self.send_response(status)
            self.send_header(*header)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(ConnectionError):  # a client has had enough of drops
                self._send(body)

        def _send(self, body: bytes) -> None:
            if not drip:
                self.wfile.write(body)
                return
            for at in range(len(body)):
                self.wfile.write(body[at : at + 1])
                time.sleep(drip)

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    with Server((HERE, 0), Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


def main() -> None:
    parser = commands.Parser(description="Serves images on a free port, which it prints.")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--crowd", type=int, default=0, help="requests it takes at a time")
    parser.add_argument("--drip", type=float, default=0.0, help="seconds between two bytes")
    parser.add_argument("--thumbnails", action="store_true", help="320×240 instead of photos")
    parser.add_argument("--different", type=int, default=0, help="so many photos, no two alike")
    options = parser.parse_args()
    served: Iterable[bytes] = islice(distinct(), options.different)
    if not options.different:
        served = images(THUMBNAILS if options.thumbnails else SMALL + LARGER)
    _serve(options.latency, served, options.crowd, options.drip)


if __name__ == "__main__":
    commands.run(main)
