"""Hosts and ports as they are configured: what an entry means, and what is wrong with one."""

from __future__ import annotations

import ipaddress
import re

from score.wording.quoting import quoted

EVERY_PORT = "*"
_PORT = re.compile(r"[1-9][0-9]{0,4}")


def host_and_port(entry: str) -> tuple[str, int | None]:
    """An entry of `allow_hosts`: its host name, address or range, and its port, if it has one.

    IPv6 with a port is in brackets, as in URLs. Raises ValueError for what is no port.
    """
    host, colon, port = entry.rpartition(":")
    if not colon or entry.endswith("]") or (":" in host and not host.endswith("]")):
        return entry.strip("[]"), None
    if not _is_port(port):
        raise ValueError(f"no port: {port}")
    return host.strip("[]"), int(port)


def _is_port(text: str) -> bool:
    return _PORT.fullmatch(text) is not None and int(text) < 2**16


def port_fault(text: str) -> str:
    """What is wrong with an entry of `fetch_ports`."""
    if text == EVERY_PORT or _is_port(text):
        return ""
    return f"must hold ports from 1 to 65535, or be {EVERY_PORT} for all, not {quoted(text)}"


def host_fault(text: str) -> str:
    """What is wrong with a host name, an address or a range of addresses, or with its port."""
    fault = (
        f"must hold host names, addresses or CIDR ranges, with or without :port, not {quoted(text)}"
    )
    try:
        host, _ = host_and_port(text)
    except ValueError:
        return fault
    try:
        ipaddress.ip_network(host, strict=False)
    except ValueError:
        return fault if not host or not host.isascii() or set(host) & set("/*:@[] ") else ""
    return ""
