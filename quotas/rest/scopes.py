"""What a caller may do: each view says the scope that each of its methods needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from quotas.rest.caller import Caller

if TYPE_CHECKING:
    from rest_framework.views import APIView


def refusal(needed: str | None) -> str:
    """The detail of the refusal for a caller without the scope."""
    return f"This needs the scope {needed!r}."


class HasScope(BasePermission):
    """A view has `scopes = {"GET": "read", "POST": "submit"}`; a method that it does not list is refused."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        method = "GET" if request.method == "HEAD" else request.method or ""
        if not isinstance(request.auth, Caller):
            return False  # DRF makes this a 401, since the request is not authenticated
        if not hasattr(view, method.lower()):
            return True  # the view answers 405
        needed = getattr(view, "scopes", {}).get(method)
        self.message = refusal(needed)
        if method == "OPTIONS":
            return True
        if needed is None or not request.auth.may(needed):
            return False
        self.message = "Your roles don't include seeing this."
        return request.auth.has_all(getattr(view, "session_needs", frozenset()))
