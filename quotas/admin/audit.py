"""What is changed on a page, for the audit trail."""

from __future__ import annotations

from typing import Any

from django.db.models import Model
from django.http import HttpRequest

from quotas.services import row_facts
from quotas.services.membership import PERSON
from quotas.services.row_facts import changes as changes
from quotas.services.row_facts import facts as facts


def actor_of(request: HttpRequest) -> str:
    """The name of the signed-in person in the audit trail, as the API writes it too."""
    return f"{PERSON}{request.user.get_username()}"


def record(
    request: HttpRequest,
    verb: str,
    row: Model,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    reason: str,
) -> None:
    """One entry, with what differs; inside the transaction of the change itself."""
    row_facts.record(actor_of(request), verb, row, before, after, reason)
