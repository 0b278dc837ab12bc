"""OpenVINO without its telemetry."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MODULE = "openvino_telemetry"


@contextmanager
def no_telemetry() -> Iterator[None]:
    """A block whose imports do not find OpenVINO's telemetry.

    By it OpenVINO and NNCF report each import to a server on the internet, from a process that they
    start. Both work without it.
    """
    present = sys.modules.get(_MODULE)
    sys.modules[_MODULE] = None  # type: ignore[assignment]  # makes `import` raise ImportError
    try:
        yield
    finally:
        del sys.modules[_MODULE]
        if present is not None:
            sys.modules[_MODULE] = present
