"""Callers that give up: their own deadlines and cancellations say nothing of the account."""

from __future__ import annotations

import asyncio
import concurrent.futures
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests

from quotas import pools
from tests.integration.quotas.api.test_pools import make_pool

pytestmark = [pytest.mark.usefixtures("empty"), pytest.mark.django_db(transaction=True)]


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes calls and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def account() -> tuple[float, str, dict[str, int]]:
    (state,) = pools.get("llm").states()
    known = {name: count for name, count in state.errors.items() if name != "unknown"}
    return state.health, state.state, known


UNTOUCHED: tuple[float, str, dict[str, int]] = (1.0, "available", {})


async def timeout(url: str) -> None:
    async with asyncio.timeout(0.05), httpx.AsyncClient() as client:
        await client.get(url)


async def wait_for(url: str) -> None:
    async with httpx.AsyncClient() as client:
        await asyncio.wait_for(client.get(url), 0.05)


async def cancelled(url: str) -> None:
    async with httpx.AsyncClient() as client:
        call = asyncio.ensure_future(client.get(url))
        asyncio.get_running_loop().call_later(0.05, call.cancel)
        await call


async def future(url: str) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        never = threading.Event()
        try:
            threads.submit(never.wait).result(timeout=0.05)
        finally:
            never.set()


@pytest.mark.parametrize("inside", [timeout, wait_for, cancelled, future])
@pytest.mark.parametrize("door", ["acquire", "acquire_async", "call_async"])
def test_their_own_deadlines(silent: str, inside: Callable[[str], Any], door: str) -> None:
    make_pool(accounts=1, breaker_failures=2)

    async def once() -> None:
        if door == "acquire":
            with pools.get("llm").acquire():
                await inside(silent)
        elif door == "acquire_async":
            async with pools.get("llm").acquire_async():
                await inside(silent)
        else:
            await pools.get("llm").call_async(lambda lease: inside(silent), attempts=1)

    async def main() -> None:
        for _ in range(4):
            with pytest.raises((TimeoutError, asyncio.CancelledError, concurrent.futures.TimeoutError)):
                await once()

    asyncio.run(main())
    assert account() == UNTOUCHED


@pytest.mark.parametrize("door", ["acquire_async", "call_async"])
def test_a_task_that_is_cancelled_from_outside(silent: str, door: str) -> None:
    make_pool(accounts=1, breaker_failures=2)

    async def once() -> None:
        async with httpx.AsyncClient() as client:
            if door == "acquire_async":
                async with pools.get("llm").acquire_async():
                    await client.get(silent)
            else:
                await pools.get("llm").call_async(lambda lease: client.get(silent), attempts=1)

    async def main() -> None:
        for _ in range(4):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(once(), 0.3)

    asyncio.run(main())
    assert account() == UNTOUCHED


def by_httpx(url: str) -> None:
    httpx.get(url, timeout=0.05)


def by_requests(url: str) -> None:
    requests.get(url, timeout=0.05)


def by_socket(url: str) -> None:
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=0.05)
    connection.request("GET", "/")
    connection.getresponse()


@pytest.mark.parametrize("client", [by_httpx, by_requests, by_socket])
def test_a_clients_timeout_is_the_providers(silent: str, client: Callable[[str], None]) -> None:
    make_pool(accounts=1, breaker_failures=2)
    for _ in range(2):
        with pytest.raises(Exception, match="(?i)timed out"), pools.get("llm").acquire():
            client(silent)
    health, state, errors = account()
    assert health < 1 and state == "open" and errors == {"timeout": 2}


def test_the_path_is_taken_from_the_answer_and_holds_no_credential() -> None:
    make_pool(accounts=2)
    lease = pools.get("llm").acquire()
    url = f"https://api.example.com/bot{lease.credential}/send?x=1"
    outcome = lease.settle_response(httpx.Response(401, request=httpx.Request("POST", url)))
    assert outcome.target.startswith("POST /bot") and lease.credential not in outcome.target
    other = pools.get("llm").acquire()
    url = f"https://api.example.com/bot{other.credential}/send"
    again = other.settle_response(httpx.Response(401, request=httpx.Request("POST", url)))
    assert again.target == outcome.target, "it is the same request for every account"
