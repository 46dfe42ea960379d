"""IP addresses as they are counted, and the networks that are let past or refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BadAddress(ValueError):
    """Not an IPv4 or IPv6 address."""


@lru_cache(maxsize=16384)
def parse(text: str) -> Address:
    """The address; an IPv4-mapped one (`::ffff:192.0.2.1`) is the IPv4 address, and a zone (`%eth0`) is dropped."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0] if ":" in text else text)
    except ValueError:
        raise BadAddress(f"{text[:60]!r} is not an IP address") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=16384)
def subject(address: Address, ipv6_prefix: int) -> str:
    """What is counted: an IPv4 address by itself, an IPv6 one by its network, since a caller has all of that."""
    if address.version == 4 or ipv6_prefix >= 128:
        return str(address)
    return str(ipaddress.ip_network((int(address), ipv6_prefix), strict=False)) if address.version == 6 else ""


def counted(text: str, ipv6_prefix: int) -> str:
    """What is counted of an address in any of its spellings; a network, or what is no address, stays as it is."""
    try:
        return subject(parse(text), ipv6_prefix)
    except BadAddress:
        return text


class NetworkList:
    """Allow and deny entries; the longest prefix that contains an address decides, and of two equal ones `deny`."""

    def __init__(self, entries: Iterable[tuple[str, str, Iterable[str]]]) -> None:
        """`entries`: (name, action, CIDRs)."""
        self._by_length: dict[int, dict[int, dict[int, tuple[str, str]]]] = {4: {}, 6: {}}
        for name, action, cidrs in entries:
            for cidr in cidrs:
                net = ipaddress.ip_network(cidr, strict=False)
                known = self._by_length[net.version].setdefault(net.prefixlen, {})
                base = int(net.network_address)
                if known.get(base, ("allow", ""))[0] != "deny":
                    known[base] = (action, name)
        for version, lengths in self._by_length.items():
            self._by_length[version] = dict(sorted(lengths.items(), reverse=True))

    def find(self, address: Address) -> tuple[str, str]:
        """(`allow`, `deny` or empty, the entry's name)."""
        value, bits = int(address), address.max_prefixlen
        for length, known in self._by_length[address.version].items():
            base = value >> (bits - length) << (bits - length)
            if base in known:
                return known[base]
        return "", ""
