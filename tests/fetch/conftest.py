"""Traffic of these tests goes to a hostile server on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.hostile import Network, Server


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """Resolves names, and sees to it that no other machine is contacted."""
    return Network().install(monkeypatch)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that answers as its routes say."""
    with Server() as server:
        yield server
