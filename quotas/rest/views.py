"""What every view of the API shares."""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from quotas.rest.caller import Caller, caller_of
from quotas.rest.problems import NotFound, ProblemError
from quotas.rest.serializers import QuerySerializer, StrictSerializer, body_of, query_of


class ApiView(APIView):
    """A view with scopes. Its methods read the body by `self.body(Kind)`, the query by `self.query(Kind)`."""

    scopes: ClassVar[dict[str, str]] = {}
    session_needs: ClassVar[frozenset[str]] = frozenset()
    """Permissions that a person needs for a GET with the admin's session; empty: sessions are refused."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if any("\x00" in str(part) for part in kwargs.values()):
            raise NotFound("There is no such thing.")  # PostgreSQL refuses such a parameter
        # WSGI treats an unknown length as no body at all, and a check without a body is a valid one.
        if request.META.get("HTTP_TRANSFER_ENCODING") and not request.META.get("CONTENT_LENGTH"):
            raise ProblemError("length-required", "Length required", 411, "Send the body with Content-Length.")

    def problem(self, error: Exception) -> Exception:
        """The problem that an error of the view's methods is; the error itself where every view answers it alike."""
        return error

    def handle_exception(self, exc: Exception) -> Response:
        return super().handle_exception(self.problem(exc))

    @property
    def caller(self) -> Caller:
        return caller_of(self.request)

    def body(self, kind: type[StrictSerializer], **kwargs: Any) -> dict[str, Any]:
        return body_of(self.request, kind, **kwargs)

    def query(self, kind: type[QuerySerializer] = QuerySerializer) -> dict[str, Any]:
        return query_of(self.request, kind)
