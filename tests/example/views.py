"""Views in each style."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from io import BytesIO

from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import method_decorator
from django.views import View
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from quotas import limited
from quotas.throttling import PolicyThrottle


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("as views do now and then")


async def plain_async(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse("ok")


@limited(cost={"requests": 5})
def export(request: HttpRequest) -> HttpResponse:
    return HttpResponse("a long table")


@limited(keys=lambda request, chat: {"chat": chat})
async def send(request: HttpRequest, chat: str) -> JsonResponse:
    return JsonResponse({"sent": chat})


@method_decorator(limited(user=lambda request: request.headers.get("X-Customer")), name="dispatch")
class Orders(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("orders")


@method_decorator(limited(keys=lambda request, room: {"chat": room}), name="dispatch")
class Room(View):
    """Async handlers behind a decorated `dispatch`, and one that costs more by itself."""

    async def get(self, request: HttpRequest, room: str) -> HttpResponse:
        await asyncio.sleep(0)
        return HttpResponse("room")

    @method_decorator(limited(cost=2))
    async def post(self, request: HttpRequest, room: str) -> HttpResponse:
        await asyncio.sleep(0)
        return HttpResponse("said")


class Search(APIView):
    authentication_classes = ()
    permission_classes = ()
    throttle_classes = (PolicyThrottle,)
    throttle_cost = 2

    def get(self, request: Request) -> Response:
        return Response({"found": 0})


def chat(request: HttpRequest, room: str) -> HttpResponse:
    return HttpResponse(room)


def stream(request: HttpRequest, kind: str) -> HttpResponseBase:
    def parts() -> Iterator[bytes]:
        yield b"one "
        if kind == "broken":
            raise RuntimeError("in the middle of the body")
        yield b"two"

    async def parts_async() -> AsyncIterator[bytes]:
        for part in parts():
            await asyncio.sleep(0)
            yield part

    if kind == "file":
        return FileResponse(BytesIO(b"one two"))
    return StreamingHttpResponse(parts_async() if kind == "async" else parts())


@limited()
def decorated_stream(request: HttpRequest) -> HttpResponseBase:
    return stream(request, "plain")


class SearchStream(Search):
    throttle_cost = 1

    def get(self, request: Request) -> HttpResponseBase:  # type: ignore[override]
        return stream(request._request, "plain")


class SearchBroken(Search):
    throttle_cost = 1

    def get(self, request: Request) -> Response:
        raise RuntimeError("as views do now and then")
