"""What tests of the server share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.hostile import Server


@pytest.fixture
def images() -> Iterator[Server]:
    with Server() as server:
        yield server
