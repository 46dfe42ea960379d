"""A throttle for Django REST framework that checks requests against the policies.

    REST_FRAMEWORK = {"DEFAULT_THROTTLE_CLASSES": ["quotas.throttling.PolicyThrottle"]}

A view may name what it costs: `throttle_cost = {"requests": 5}`. DRF runs throttles behind authentication, so that
users of tokens are known too. Slots of `concurrency` policies are freed when the view's response has ended.
"""

from __future__ import annotations

from typing import Any, NoReturn

from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from quotas.web import enforcement


class PolicyThrottle(BaseThrottle):
    """DRF answers 429 with `Retry-After` where a policy denies; 403 and 503 where it can't be decided."""

    retry_after: float | None = None

    def allow_request(self, request: Request, view: APIView) -> bool:
        cost: Any = getattr(view, "throttle_cost", None)
        named = {"cost": cost} if cost is not None else {}
        plain = request._request
        asked = enforcement.check_of(plain, **named)
        if asked.user is None and enforcement.counts_users() and getattr(request.user, "is_authenticated", False):
            key = getattr(request.user, "pk", None)
            asked = enforcement.check_of(plain, user=str(request.user if key is None else key), **named)
        answer = enforcement.enforce(asked)
        if not isinstance(answer, enforcement.Refused):
            _follow(view, enforcement.Passed(answer))
            return True
        self.retry_after = answer.retry_after
        if answer.response.status_code == 429:
            return False
        refused = APIException(detail=answer.response.reason_phrase)
        refused.status_code = answer.response.status_code
        raise refused

    def wait(self) -> float | None:
        return self.retry_after


def _follow(view: APIView, passed: enforcement.Passed) -> None:
    """End the request with the view's answer. DRF calls no throttle then, but methods of this one request's view."""
    finalize, uncaught = view.finalize_response, view.raise_uncaught_exception

    def finalized(*args: Any, **kwargs: Any) -> Any:
        response = finalize(*args, **kwargs)
        passed.answered(response)
        return response

    def raised(error: Exception) -> NoReturn:
        passed.ended(error=error)
        uncaught(error)

    view.finalize_response = finalized  # type: ignore[method-assign]
    view.raise_uncaught_exception = raised  # type: ignore[method-assign,assignment]
