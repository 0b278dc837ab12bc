"""One server for all dialects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.surfaces import OwnServer

MOST_ROWS, MOST_BYTES = 50, 2_000_000


@pytest.fixture(scope="session")
def server() -> Iterator[OwnServer]:
    own = OwnServer(SCORE_MAX_REQUEST_BYTES=str(MOST_BYTES), SCORE_MAX_REQUEST_ROWS=str(MOST_ROWS))
    try:
        own.wait()
        yield own
    finally:
        own.stop()


@pytest.fixture(scope="session")
def base(server: OwnServer) -> str:
    """The server's address, without a trailing slash."""
    return server.url.removesuffix("/score")


@pytest.fixture(scope="session")
def apple() -> bytes:
    from tests.support.images import SAMPLES

    return (SAMPLES / "images" / "apple.png").read_bytes()
