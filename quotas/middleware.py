"""Django middleware that holds every request against the policies that apply.

    MIDDLEWARE = [..., "django.contrib.auth.middleware.AuthenticationMiddleware", "quotas.middleware.RateLimitMiddleware"]

Behind authentication, so that users are known. Limits are reported in the order ip, user, project, endpoint. Slots of
`concurrency` policies are given back when the answer has ended, a streamed one with its last byte, and adaptive policies
get its status and time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
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
            return self.get_response(request)  # type: ignore[return-value]
        answer = enforcement.enforce(enforcement.check_of(request))
        if isinstance(answer, enforcement.Refused):
            return answer.response
        passed = enforcement.Passed(answer)
        try:
            response: HttpResponse = self.get_response(request)  # type: ignore[assignment]
        except BaseException as error:  # a cancelled request frees its slot too
            passed.ended(error=error)
            raise
        passed.answered(response)
        enforcement.add_headers(response, answer)
        return response

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        if enforcement.is_excluded(request):
            return await self.get_response(request)  # type: ignore[misc]
        # In a thread: request.user is looked up lazily in SQL, and Redis is asked without async.
        answer = await sync_to_async(lambda: enforcement.enforce(enforcement.check_of(request)))()
        if isinstance(answer, enforcement.Refused):
            return answer.response
        passed = enforcement.Passed(answer)
        try:
            response: HttpResponse = await self.get_response(request)  # type: ignore[misc]
        except BaseException as error:  # a cancelled request frees its slot too
            await passed.ended_async(error=error)
            raise
        await passed.answered_async(response)
        enforcement.add_headers(response, answer)
        return response
