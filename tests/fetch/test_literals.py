"""Hosts that are addresses, told from names without a look-up."""

from __future__ import annotations

import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from score.fetch import look_up

HOSTS = (
    *(
        "10.0.0.1",
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "1",
        "0",
        "256.1.1.1",
        "1.2.3.4.5",
    ),
    *("::1", "fe80::1", "::ffff:10.0.0.1", "1:2", "::g", "a", "example.org", "0x", "08.0.0.1", ""),
    *("10.0.0.1x", "0xg", "1..2", ".", "1.", "99999999999"),
)


def _numeric(host: str) -> set[str]:
    """What the system's look-up takes for an address."""
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST) if host else []
    except (OSError, ValueError):
        return set()
    return {str(address[0]) for *_, address in found}


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_an_address_as_it_is_for_a_look_up(host: str) -> None:
    assert {look_up.literal(host)} - {None} == _numeric(host)


@given(st.text("0123456789abcdefxX.:", max_size=20))
@example("1.0x10.3")
def test_so_it_is_in_any_spelling(host: str) -> None:
    assert {look_up.literal(host)} - {None} == _numeric(host)


def test_a_zone_is_left_out() -> None:
    assert look_up.literal("fe80::1%no-such-interface") == "fe80::1"
