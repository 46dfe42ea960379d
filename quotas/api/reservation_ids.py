"""Ids of reservations as REST tells them: sealed with the project that they were made for.

A project's key can only settle what was made for its project; the seal says so without another look into Redis.
"""

from __future__ import annotations

import hmac

from django.utils.crypto import salted_hmac

from quotas.rest.caller import Caller

MARK = ":"
_SALT = "quotas.api.reservation_ids"


def sealed(reservation: str, project: str | None) -> str:
    """The id to tell; of no project it is the platform's, and has no seal."""
    return f"{reservation}{MARK}{_seal(reservation, project)}" if project else reservation


def opened(told: str, caller: Caller) -> str | None:
    """The reservation of an id that was told; None where it is not the caller's."""
    reservation, _, seal = told.partition(MARK)
    if caller.is_platform or hmac.compare_digest(seal.encode(), _seal(reservation, caller.project_slug).encode()):
        return reservation
    return None


def _seal(reservation: str, project: str) -> str:
    return salted_hmac(_SALT, f"{project}\n{reservation}", algorithm="sha256").hexdigest()[:20]
