"""Which addresses a URL may lead to. Pure: looks nothing up, connects to nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# Public by number, private by use: Azure's host endpoint (DNS, health, agent); the IETF's and
# Oracle's metadata block; local-use NAT64; site-local IPv6, which `ipaddress` calls global.
_NEVER = [
    ipaddress.ip_network(network)
    for network in ("168.63.129.16/32", "192.0.0.0/24", "64:ff9b:1::/48", "fec0::/10")
]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")


class AddressRule:
    """Public addresses, and those that a deployment allows by host name, address or network."""

    def __init__(self, hosts: frozenset[str], networks: tuple[IPNetwork, ...]) -> None:
        self._hosts = hosts
        self._networks = networks

    @classmethod
    def of(cls, allowed: Iterable[str]) -> AddressRule:
        """The rule with exceptions: host names, addresses or CIDR ranges."""
        hosts, networks = set(), []
        for entry in allowed:
            try:
                networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                hosts.add(entry.lower().rstrip("."))
        return cls(frozenset(hosts), tuple(networks))

    def allows(self, host: str, address: str) -> bool:
        """Whether a URL naming `host` may connect to `address`."""
        ip: IPAddress = ipaddress.ip_address(address.partition("%")[0])  # without an IPv6 zone
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        if host.lower().strip("[]").rstrip(".") in self._hosts:
            return True
        if any(ip.version == network.version and ip in network for network in self._networks):
            return True
        return is_public(ip)


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
