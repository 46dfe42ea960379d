"""Who a request of somebody's own views comes from: address and user."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from quotas.snapshot import addresses

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MAX_HOPS = 50
"""Entries of `X-Forwarded-For` that are looked at, from the right."""


def client_ip(request: HttpRequest) -> str | None:
    """The client's address; None where there is none (a unix socket without a trusted proxy's word).

    `X-Forwarded-For` is believed from the right, and only as far as each hop is one of `TRUSTED_PROXIES`: what a
    client writes in there itself is never reached. A unix socket has no address of its own; where proxies are trusted,
    who connects by it is one.
    """
    trusted: Iterable[Network] = getattr(settings, "TRUSTED_PROXIES", ())
    remote = request.META.get("REMOTE_ADDR", "")
    address = _parse(remote)
    by_socket = not remote and bool(trusted)  # only a program on this machine can have connected: the proxy
    if not by_socket and (address is None or not _is_trusted(address, trusted)):
        return str(address) if address is not None else None
    hops = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    for hop in reversed(hops[-MAX_HOPS:]):
        found = _parse(hop.strip())
        if found is None:
            break  # what a trusted proxy wrote is no address: stay with the last that is known
        address = found
        if not _is_trusted(address, trusted):
            break
    return str(address) if address is not None else None


def user_of(request: HttpRequest) -> str | None:
    """The user's primary key as text; None for anonymous ones."""
    user: Any = getattr(request, "user", None)
    if user is None or not getattr(user, "is_authenticated", False):
        return None
    key = getattr(user, "pk", None)
    return str(key) if key is not None else str(user)


def _is_trusted(address: addresses.Address, trusted: Iterable[Network]) -> bool:
    return any(address in network for network in trusted)


def _parse(text: str) -> addresses.Address | None:
    if text.startswith("[") and "]" in text:  # [2001:db8::1]:443
        text = text[1 : text.index("]")]
    elif text.count(":") == 1:  # 192.0.2.1:443
        text = text.partition(":")[0]
    try:
        return addresses.parse(text)
    except addresses.BadAddress:
        return None
