"""Which addresses and ports a URL may lead to. Pure: looks nothing up, connects to nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from score.validation.hosts import EVERY_PORT, host_and_port

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# Public by number, private by use: Azure's host endpoint (DNS, health, agent); the IETF's and
# Oracle's metadata block; the former relays of 6to4; local-use NAT64; and what `ipaddress`, some
# versions of it, calls global: site-local IPv6, and the second block for documentation.
_NEVER = [
    ipaddress.ip_network(network)
    for network in (
        *("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24"),
        *("64:ff9b:1::/48", "fec0::/10", "3fff::/20"),
    )
]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")


class Verdict(Enum):
    """What a URL that leads to an address and a port is."""

    PUBLIC = "allowed: on the public internet"
    INSIDE = "allowed by the deployment, and not on the public internet"
    PORT = "refused: public, at a port that is not fetched from"
    PRIVATE = "refused: not on the public internet"

    @property
    def is_allowed(self) -> bool:
        """Whether it may be connected to."""
        return self in (Verdict.PUBLIC, Verdict.INSIDE)


class _Exception(NamedTuple):
    """What a deployment allows: a host name or a network, at one port or (None) at all."""

    host: str | IPNetwork
    port: int | None

    @classmethod
    def of(cls, entry: str) -> _Exception:
        host, port = host_and_port(entry)
        try:
            return cls(ipaddress.ip_network(host, strict=False), port)
        except ValueError:
            return cls(host.lower().rstrip("."), port)

    def covers(self, host: str, ip: IPAddress, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if isinstance(self.host, str):
            return self.host == host
        return ip.version == self.host.version and ip in self.host


class AddressRule:
    """Public addresses at some ports, and what a deployment allows by name, address or network."""

    def __init__(self, allowed: Iterable[str] = (), ports: Iterable[str] = (EVERY_PORT,)) -> None:
        """`allowed`, `ports`: as the settings `allow_hosts` and `fetch_ports`."""
        self._exceptions = [_Exception.of(entry) for entry in allowed]
        ports = set(ports)
        self._ports = None if EVERY_PORT in ports else {int(port) for port in ports}

    def judge(self, host: str, address: str, port: int) -> Verdict:
        """Of a URL that names `host` and would be fetched from `address`."""
        ip: IPAddress = ipaddress.ip_address(address.partition("%")[0])  # without an IPv6 zone
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        host = _plain(host)
        if any(exception.covers(host, ip, port) for exception in self._exceptions):
            return Verdict.PUBLIC if is_public(ip) else Verdict.INSIDE
        if not is_public(ip):
            return Verdict.PRIVATE
        return Verdict.PUBLIC if self.has_port(port) else Verdict.PORT

    def names(self, host: str, port: int) -> bool:
        """Whether the deployment allows a host by its name, wherever that leads."""
        allowed = [exception for exception in self._exceptions if exception.host == _plain(host)]
        return any(exception.port in (None, port) for exception in allowed)

    def may_reach(self, host: str, port: int) -> bool:
        """Whether a port is fetched from at a name, if that leads to a public address."""
        return self.has_port(port) or self.names(host, port)

    def has_port(self, port: int) -> bool:
        """Whether a port is fetched from, at any public host."""
        return self._ports is None or port in self._ports


def _plain(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")


@lru_cache(maxsize=1024)
def is_public(ip: IPAddress) -> bool:
    """Whether an address, and any IPv4 address embedded in it, is on the public internet."""
    if any(ip.version == network.version and ip in network for network in _NEVER):
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast and not ip.is_reserved
    if ip in _NAT64:  # the low 32 bits are the IPv4 address it leads to (RFC 6052)
        return is_public(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if ip.sixtofour:
        return is_public(ip.sixtofour)
    return ip in _GLOBAL_IPV6 and ip.is_global and not ip.is_multicast
