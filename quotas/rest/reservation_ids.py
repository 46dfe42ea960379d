"""Ids of reservations as REST gives them out: signed with the project that they were made for.

A project's key can settle only the project's own reservations; the signature proves that without a query to Redis.
"""

from __future__ import annotations

import hmac
from functools import lru_cache
from hashlib import sha256

from django.conf import settings

from quotas.rest.caller import Caller

MARK = ":"
_SALT = "quotas.api.reservation_ids"
"""A fixed text, not the module's name: another one would make the ids invalid that callers have."""


def sign(reservation: str, project: str | None) -> str:
    """The id for the caller. A reservation of no project is the platform's, and its id has no signature."""
    return f"{reservation}{MARK}{_signature(reservation, project)}" if project else reservation


def verify(identifier: str, caller: Caller) -> str | None:
    """The reservation that a caller's id stands for; None where it is not the caller's."""
    reservation, _, signature = identifier.partition(MARK)
    expected = _signature(reservation, caller.project_slug)
    if caller.is_platform or hmac.compare_digest(signature.encode(), expected.encode()):
        return reservation
    return None


def _signature(reservation: str, project: str) -> str:
    return hmac.digest(_key(str(settings.SECRET_KEY)), f"{project}\n{reservation}".encode(), "sha256").hex()[:20]


@lru_cache(maxsize=4)
def _key(secret: str) -> bytes:
    """As `django.utils.crypto.salted_hmac` makes it, which is no longer called: it makes one for each message."""
    return sha256(_SALT.encode() + secret.encode()).digest()
