"""RGB → the bytes of an image file."""

from __future__ import annotations

import io

from PIL import Image


def as_png(image: Image.Image) -> bytes:
    """A decoded image as a file, without loss."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
