"""What a request may cost, whatever it holds: memory, time, and the probes meanwhile."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

from fuzz.requests import EXAMPLES, WORST, run
from fuzz.watched import KEPT, MIB, PROBE, TIMES, Watched, watched
from tests.support.surfaces import ROOT

ROOM = 20.0  # other tests run beside these, and probes that hang wait for many seconds

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def watch() -> Iterator[Watched]:
    with watched(EXAMPLES.values(), ROOM) as watch:
        yield watch


@pytest.mark.parametrize("name", WORST)
def test_the_costliest_requests_are_cheap(name: str, watch: Watched) -> None:
    watch.check(WORST[name])


def test_generated_requests_are_cheap(watch: Watched) -> None:
    """Ten thousand of them: `python -m fuzz.requests`."""
    run(watch, 100, repeatable=True)


def test_the_documentation_names_the_bounds_that_are_asserted() -> None:
    page = " ".join((ROOT / "docs/security.md").read_text(encoding="utf-8").split())
    assert f"or {TIMES} times its size where that is more" in page
    assert f"keeps at most {KEPT // MIB} MiB more than at its start" in page
    assert f"probes are answered within {PROBE * 1000:.0f} ms" in page
    assert inspect.signature(watched).parameters["room"].default == 1
