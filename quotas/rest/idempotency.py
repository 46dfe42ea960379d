"""The request header `Idempotency-Key`."""

from __future__ import annotations

import re

from rest_framework.request import Request

from quotas.rest.problems import InvalidRequest, ProblemError

_FORM = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


def idempotency_key(request: Request) -> str | None:
    """The header's value: 1 to 255 visible ASCII characters; None where it is not sent. 400 for anything else."""
    value = request.headers.get("Idempotency-Key")
    return None if value is None else validated(value, "Idempotency-Key")


def validated(value: str, place: str) -> str:
    """`value` itself where it has the form of a key. `place` is the header's or member's name, for the error."""
    if not _FORM.fullmatch(value):
        raise InvalidRequest.at(place, "must be 1 to 255 visible ASCII characters")
    return value


class IdempotencyMismatch(ProblemError):
    """The idempotency key was used with another body (409)."""

    def __init__(self) -> None:
        super().__init__("idempotency-conflict", "Idempotency conflict", 409, str(self.__doc__))
