"""Where completion callbacks may go: not into private networks, unless the operator lists them."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from django.conf import settings

from queues.errors import FieldError, InvalidJob


def check_url(url: str, pointer: str) -> None:
    """Refuse an address that is no http(s) URL, or whose host is written as a private address.

    A name is resolved when the call is made, and held against the same rule there: what it means now says nothing.
    """
    if not url:
        return
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise InvalidJob([FieldError(pointer, "Must be an http or https URL without a user.")])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if not allowed(address):
        raise InvalidJob([FieldError(pointer, "Must not point into a private network.")])


def allowed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether a callback may go to this address: a public one, or one in `SLUICE_CALLBACK_NETWORKS`."""
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    listed = any(address in network for network in settings.CALLBACK_NETWORKS if network.version == address.version)
    return listed or (address.is_global and not address.is_multicast)
