"""A request ends with the end of its answer, and nothing of our book-keeping costs that answer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory

from quotas import limited, limits
from quotas.middleware import RateLimitMiddleware
from quotas.models import Project
from quotas.services.deferred_settlement import late
from quotas.services.usage import Selection, usage
from quotas.snapshot import resolve
from tests.integration.quotas.api.conftest import empty, policy
from tests.integration.quotas.web.test_example import MIDDLEWARE, held, shop
from tests.support.limiter_server import limiter_at
from tests.support.valkey import Server, run_server, valkey_binary, wait_for

__all__ = ["empty", "held", "shop"]


def slots(name: str = "slots") -> int:
    return sum(state.used for state in usage(Selection(policy=name)))


@pytest.fixture
def one_slot() -> None:
    policy("slots", "project", 1, algorithm="concurrency", window=None)
    resolve.clear()


@pytest.mark.parametrize("path", ["/stream/plain", "/decorated-stream", "/search-stream"])
def test_a_streamed_answer_keeps_its_slot_until_its_end(settings: Any, one_slot: None, path: str) -> None:
    if path.startswith("/stream"):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, MIDDLEWARE]
    answer: Any = Client().get(path)
    assert answer.status_code == 200 and slots() == 1
    body = iter(answer.streaming_content)
    assert next(body) == b"one " and slots() == 1
    assert Client().get(path).status_code == 429, "the slot is in use"
    assert b"".join(body) == b"two"
    assert slots() == 0
    assert Client().get(path).status_code == 200


def test_the_end_of_the_body_needs_no_close(one_slot: None) -> None:
    middleware = RateLimitMiddleware(lambda request: StreamingHttpResponse(iter([b"a", b"b"])))
    answer: Any = middleware(RequestFactory().get("/plain"))
    assert slots() == 1
    assert b"".join(answer) == b"ab" and slots() == 0


def test_a_client_that_leaves_a_stream_gives_the_slot_back(held: None, one_slot: None) -> None:
    answer: Any = Client().get("/stream/plain")
    next(iter(answer.streaming_content))
    answer.close()  # what a server does where its client is gone
    assert slots() == 0


@pytest.mark.parametrize("kind", ["plain", "file", "broken"])
def test_an_answer_without_a_body_gives_the_slot_back(held: None, one_slot: None, kind: str) -> None:
    answer: Any = Client().head(f"/stream/{kind}")
    answer.close()
    assert slots() == 0


def test_a_file_keeps_the_slot_until_it_is_closed(one_slot: None) -> None:
    middleware = RateLimitMiddleware(lambda request: FileResponse(BytesIO(b"one two")))
    answer: Any = middleware(RequestFactory().get("/plain"))
    assert slots() == 1
    assert answer.file_to_stream is not None, "a server may still send the file itself"
    assert b"".join(answer.streaming_content) == b"one two"
    answer.close()
    assert slots() == 0


def test_an_error_in_the_body_gives_the_slot_back(held: None, one_slot: None) -> None:
    answer: Any = Client().get("/stream/broken")
    with pytest.raises(RuntimeError):
        list(answer.streaming_content)
    assert slots() == 0


@pytest.mark.parametrize("path", ["/search", "/search-broken", "/plain", "/broken"])
def test_each_view_gives_its_slot_back(settings: Any, one_slot: None, path: str) -> None:
    if not path.startswith("/search"):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, MIDDLEWARE]
    resolve.clear()
    from quotas.models import Policy

    Policy.objects.filter(name="slots").update(limit=2)  # a search takes two
    client = Client(raise_request_exception=False)
    assert client.get(path).status_code in (200, 500)
    assert slots() == 0


def test_a_template_is_part_of_its_answer(one_slot: None) -> None:
    from django.template.response import SimpleTemplateResponse

    class Late(SimpleTemplateResponse):
        def resolve_template(self, template: Any) -> Any:
            return self

        def render(self, *args: Any) -> Any:  # type: ignore[override]
            if args:
                return f"{slots()} in use"
            return super().render()

    answer: Any = limited()(lambda request: Late("a template"))(RequestFactory().get("/plain"))
    assert slots() == 1
    assert answer.render().content == b"1 in use" and slots() == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("ending", ["read", "left"])
def test_async_streams(held: None, one_slot: None, ending: str) -> None:
    async def main() -> None:
        answer: Any = await AsyncClient().get("/stream/async")
        body = answer.streaming_content
        assert await anext(body) == b"one "
        assert (await AsyncClient().get("/plain-async")).status_code == 429
        if ending == "read":
            assert [part async for part in body] == [b"two"]
        else:
            await body.aclose()
            await asyncio.to_thread(answer.close)
        assert (await AsyncClient().get("/plain-async")).status_code == 200

    asyncio.run(main())
    assert slots() == 0


# -- Redis that freezes while the work is done ---------------------------------------------------------------------


@pytest.fixture
def own_redis() -> Iterator[Server]:
    """A server of this test's own, which it may stop, and a limiter without patience."""
    with run_server(valkey_binary()) as server, limiter_at(server.url, LIMITER_TIMEOUT=0.1):
        yield server


@pytest.fixture
def frozen(own_redis: Server) -> Iterator[Any]:
    """Freezes the server, and resumes it at the end."""
    pid = own_redis.process.pid
    try:
        yield lambda: os.kill(pid, signal.SIGSTOP)
    finally:
        os.kill(pid, signal.SIGCONT)


def thawed(server: Server) -> None:
    os.kill(server.process.pid, signal.SIGCONT)


def all_settled() -> None:
    wait_for(lambda: len(late) == 0, 20)
    wait_for(lambda: slots() == 0, 20)


@pytest.fixture
def slot_policy() -> None:
    policy("slots", "project", 1, algorithm="concurrency", window=None, on_redis_down="fail_open", lease_ttl=600)
    resolve.clear()


def test_a_finished_answer_is_sent(own_redis: Server, frozen: Any, slot_policy: None) -> None:
    def view(request: Any) -> HttpResponse:
        frozen()
        return HttpResponse("the work is done")

    request = RequestFactory().get("/plain")
    for run in (RateLimitMiddleware(view), limited()(view)):
        assert run(request).content == b"the work is done"  # type: ignore[union-attr,operator]
        thawed(own_redis)
        all_settled()


def test_the_views_own_error_is_the_one_that_is_raised(own_redis: Server, frozen: Any, slot_policy: None) -> None:
    def view(request: Any) -> HttpResponse:
        frozen()
        raise KeyError("of the view")

    with pytest.raises(KeyError, match="of the view"):
        RateLimitMiddleware(view)(RequestFactory().get("/plain"))
    thawed(own_redis)
    all_settled()


@pytest.mark.django_db(transaction=True)
def test_a_finished_answer_of_a_coroutine_is_sent(own_redis: Server, frozen: Any, slot_policy: None) -> None:
    async def view(request: Any) -> HttpResponse:
        frozen()
        return HttpResponse("the work is done")

    async def main() -> list[bytes]:
        request = RequestFactory().get("/plain")
        middleware: Any = RateLimitMiddleware(view)
        first = await middleware(request)
        thawed(own_redis)
        return [first.content]

    assert asyncio.run(main()) == [b"the work is done"]
    all_settled()


def test_a_throttled_view_answers(own_redis: Server, frozen: Any, monkeypatch: Any) -> None:
    from tests.example import views

    policy("slots", "project", 2, algorithm="concurrency", window=None, on_redis_down="fail_open", lease_ttl=600)
    resolve.clear()
    plain = views.Search.get

    def get(self: Any, request: Any) -> Any:
        frozen()
        return plain(self, request)

    monkeypatch.setattr(views.Search, "get", get)
    assert Client().get("/search").status_code == 200
    thawed(own_redis)
    all_settled()


@pytest.mark.parametrize("settled", [True, False])
def test_a_reservations_block_raises_nothing(own_redis: Server, frozen: Any, settled: bool) -> None:
    policy("tokens", "project", 1000, unit="tokens", on_redis_down="fail_open")
    Project.objects.get_or_create(slug="shop")
    resolve.clear()
    with limits.reserve(project="shop", cost={"tokens": 800}) as reservation:
        frozen()
        if settled:
            assert reservation.settle(tokens=500) is None, "it is settled later"
    thawed(own_redis)
    wait_for(lambda: len(late) == 0, 20)
    wait_for(lambda: usage(Selection(policy="tokens"))[0].used == (500 if settled else 800), 20)


@pytest.mark.django_db(transaction=True)
def test_an_async_reservations_block_raises_nothing(own_redis: Server, frozen: Any) -> None:
    policy("tokens", "project", 1000, unit="tokens", on_redis_down="fail_open")
    resolve.clear()

    async def main() -> str:
        async with limits.reserve_async(project="shop", cost={"tokens": 800}) as reservation:
            frozen()
            reservation.settle(tokens=500)
        thawed(own_redis)
        return "done"

    assert asyncio.run(main()) == "done"
    wait_for(lambda: len(late) == 0, 20)
    wait_for(lambda: usage(Selection(policy="tokens"))[0].used == 500, 20)


def test_a_lease_of_units_is_closed(own_redis: Server, frozen: Any) -> None:
    policy("all", "project", 100, on_redis_down="fail_open")
    resolve.clear()
    with limits.lease(project="shop", units=50) as lease:
        assert lease.spend()
        frozen()
    thawed(own_redis)
    wait_for(lambda: len(late) == 0, 20)
    wait_for(lambda: usage(Selection(policy="all"))[0].used == 1, 20)
