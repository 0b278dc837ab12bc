"""One server for all dialects, in the tests' process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from score.core.embedder import Embedder
from score.settings import Settings
from tests.support.images import SAMPLES
from tests.support.in_process import Running, serving

MOST_ROWS, MOST_BYTES = 50, 2_000_000


@pytest.fixture(scope="session")
def server_of_dialects() -> Iterator[Running]:
    settings = Settings(
        allow_hosts=("127.0.0.1",),
        retry_wait=0.01,
        max_request_rows=MOST_ROWS,
        max_request_bytes=MOST_BYTES,
    )
    with serving(Embedder.load(settings=settings)) as server:
        yield server


@pytest.fixture(scope="session")
def base(server_of_dialects: Running) -> str:
    """The server's address, without a trailing slash."""
    return server_of_dialects.url


@pytest.fixture(scope="session")
def apple() -> bytes:
    return (SAMPLES / "images" / "apple.png").read_bytes()
