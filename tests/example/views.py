"""Views in each style."""

import asyncio

from django.http import HttpRequest, HttpResponse, JsonResponse
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


class Search(APIView):
    authentication_classes = ()
    permission_classes = ()
    throttle_classes = (PolicyThrottle,)
    throttle_cost = 2

    def get(self, request: Request) -> Response:
        return Response({"found": 0})
