"""A local image server, and small images in memory."""

from __future__ import annotations

import base64
import functools
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from score.images.preprocess import Pixels, Preprocessor

SAMPLES = Path(__file__).parents[2] / "samples"
ALBUM = Path(__file__).parents[1] / "data" / "album"
"""Six images, each in another format, with an ontology and a CSV of URLs."""


def random_image(seed: int = 0, size: tuple[int, int] = (64, 48), format: str = "PNG") -> bytes:
    """An image of random pixels, encoded."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


def as_png(image: Image.Image) -> bytes:
    """An image, encoded."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder's files; yields their base URL, without a trailing slash."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def normalised(preprocessor: Preprocessor, pixels: Pixels) -> npt.NDArray[np.float32]:
    """uint8 [..., 3] → normalised values, the input of a model's own code; channels last."""
    factors, offsets = preprocessor.normalisation()
    return (pixels * factors + offsets).astype(np.float32)
