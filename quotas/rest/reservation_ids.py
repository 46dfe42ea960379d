"""Ids of reservations as REST gives them out: signed with the project that they were made for.

A project's key can settle only the project's own reservations; the signature proves that without a query to Redis.
"""

from __future__ import annotations

import hmac

from django.utils.crypto import salted_hmac

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
    return salted_hmac(_SALT, f"{project}\n{reservation}", algorithm="sha256").hexdigest()[:20]
