"""Django middleware that checks every request against the policies that apply.

    MIDDLEWARE = [..., "django.contrib.auth.middleware.AuthenticationMiddleware", "quotas.middleware.RateLimitMiddleware"]

Behind authentication, so that users are known. Limits are reported in the order ip, user, project, endpoint. Slots of
`concurrency` policies are freed when the response has ended, a streamed one with its last byte, and adaptive policies get
its status and time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from quotas.web import enforcement

Next = Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class RateLimitMiddleware:
    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response
        self._async = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._async:
            return self._acall(request)
        if enforcement.is_excluded(request):
            return self.get_response(request)
        return enforcement.guard(
            request, enforcement.check_of(request), lambda: cast(HttpResponseBase, self.get_response(request))
        )

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        if enforcement.is_excluded(request):
            return await cast(Awaitable[HttpResponseBase], self.get_response(request))
        return await enforcement.guard_async(
            request, lambda: enforcement.check_of(request), lambda: self.get_response(request)
        )
