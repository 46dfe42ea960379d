"""Callers that wait (`max_wait`) at the front door: they take no thread, and those that hang up take no unit."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from quotas.models import Account, Override, Policy, PoolLimit
from quotas.runtime.connection import limiter
from quotas.services import limits_async
from tests.integration.controlplane.http.asgi import Answered, Door
from tests.integration.controlplane.http.test_hot_path import CHECK, headers
from tests.integration.quotas.api.conftest import api, policy
from tests.integration.quotas.api.test_pools import make_pool

ACQUIRE = "/api/v1/pools/llm/acquire"


@pytest.fixture(params=["pipeline", "threads"])
def way(request: pytest.FixtureRequest, door: Door) -> str:
    """Where TLS or a cluster rules the pipeline out, single checks run in threads."""
    door.application.fast_path.checks.threads_only = request.param == "threads"
    return str(request.param)


def ask(door: Door, key: Any, path: str = CHECK, gone: asyncio.Event | None = None, **body: Any) -> Any:
    return asyncio.ensure_future(
        door._request("POST", path, json.dumps(body).encode(), headers(key), "lean", gone=gone)
    )


async def line_of(door: Door, count: int) -> None:
    """Wait until so many calls wait for capacity."""
    deadline = time.monotonic() + 20
    while True:
        if door.application.fast_path.checks.waiting() == count:
            return
        assert time.monotonic() < deadline, f"never {count} waiting"
        await asyncio.sleep(0.01)


def tickets(store: redis.Redis) -> int:
    return sum(store.zcard(key) for key in store.scan_iter("{*}:w:~*") if not key.endswith(b":e"))


@pytest.mark.parametrize("algorithm", ["fixed_window", "token_bucket", "sliding_window", "concurrency"])
def test_a_client_that_hangs_up_leaves_the_line_and_takes_no_unit(
    door: Door, store: redis.Redis, way: str, algorithm: str
) -> None:
    if algorithm == "concurrency":
        policy("users", "user", 1, algorithm=algorithm, window=None, lease_ttl=2.0)
    else:
        policy("users", "user", 1, algorithm=algorithm, window=3.0)
    key = api("check", project="acme")

    async def story() -> list[Answered | None]:
        if algorithm == "fixed_window":
            await asyncio.sleep(3.1 - time.time() % 3.0)  # windows begin at multiples of their length
        first = await ask(door, key, user="u")
        assert first.status == 200
        gone = asyncio.Event()
        leaver = ask(door, key, gone=gone, user="u", max_wait=10)
        await line_of(door, 1)
        stayer = ask(door, key, user="u", max_wait=10)
        await line_of(door, 2)
        gone.set()
        return [await leaver, await stayer]

    left, stayed = door.run(story())
    assert left is None
    assert stayed is not None and stayed.status == 200, "the next unit went to who was still there"
    assert limiter().limiter.transport.command("PING")

    async def emptied() -> None:
        await line_of(door, 0)
        while tickets(store):
            await asyncio.sleep(0.01)

    door.run(emptied())


def test_a_unit_that_was_charged_while_its_client_left_comes_back(
    door: Door, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy("users", "user", 1, window=3600)
    key = api("check", "read", project="acme")
    decide = limits_async.AsyncChecks.decide

    async def story() -> None:
        gone = asyncio.Event()

        async def slowly(self: Any, request: Any, in_thread: Any) -> Any:
            decision = await decide(self, request, in_thread)
            if request.reserve:
                gone.set()
                await asyncio.sleep(0.1)  # charged, and the reply is in flight
            return decision

        monkeypatch.setattr(limits_async.AsyncChecks, "decide", slowly)
        assert await ask(door, key, gone=gone, user="u", max_wait=5) is None
        deadline = time.monotonic() + 10
        while (await ask(door, key, user="u", dry_run=True)).json()["limits"][0]["remaining"] != 1:
            assert time.monotonic() < deadline, "the unit of the client that left was kept"
            await asyncio.sleep(0.02)

    door.run(story())


def test_eighty_waiters_of_one_project_cost_another_nothing(door: Door, store: redis.Redis, way: str) -> None:
    policy("each", "project", 1, algorithm="fixed_window", window=3600, project=None)
    make_pool(accounts=1, concurrency_initial=1, concurrency_ceiling=1)
    crowd, other = api("check", "submit", project="acme"), api("check", "submit", project="quiet")

    async def story() -> list[Any]:
        assert (await ask(door, crowd)).status == 200
        lease = await ask(door, crowd, ACQUIRE)
        assert lease.status == 200
        gone = asyncio.Event()
        # A slot comes back when it is settled, so that these wait however long an hour is.
        policy_waiters = [ask(door, crowd, ACQUIRE, gone=gone, max_wait=60) for _ in range(80)]
        await asyncio.sleep(0.2)
        answers = []
        for _ in range(5):
            answers.append(await asyncio.wait_for(ask(door, other, max_wait=10, user="x", dry_run=True), 5))
        answers.append(await asyncio.wait_for(ask(door, other, max_wait=10), 5))
        threads = door.application.threads
        assert threads.patient._work_queue.qsize() < 80, "no waiter has a thread to itself"
        assert not any(waiter.done() for waiter in policy_waiters)
        settle = f"/api/v1/leases/{lease.json()['lease']}/settle"
        assert (await ask(door, crowd, settle, status=200)).status == 200
        await asyncio.wait(policy_waiters, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        served = [waiter.result() for waiter in policy_waiters if waiter.done()]
        assert [answer.status for answer in served] == [200], "one account for one of them"
        gone.set()
        assert [answer for answer in await asyncio.gather(*policy_waiters) if answer is not None] == served
        return answers

    assert [answer.status for answer in door.run(story())] == [200] * 6


def test_waiters_of_a_check_are_served_in_order_without_threads(door: Door, store: redis.Redis, way: str) -> None:
    policy("users", "user", 20, algorithm="token_bucket", window=1, burst=1)
    key = api("check", project="acme")

    async def story() -> list[int]:
        done: list[int] = []

        async def one(number: int) -> None:
            answer = await ask(door, key, user="u", max_wait=30)
            assert answer.status == 200
            done.append(number)

        tasks = []
        for number in range(12):
            tasks.append(asyncio.ensure_future(one(number)))
            await asyncio.sleep(0.02)
        await asyncio.gather(*tasks)
        return done

    served = door.run(story())
    assert sorted(served) == list(range(12))
    assert served[3:] == sorted(served[3:]), "in their order"


def test_an_acquire_that_hangs_up_leaves_no_account_taken(door: Door, store: redis.Redis) -> None:
    pool = make_pool(accounts=1, concurrency_initial=1, concurrency_ceiling=1)
    key = api("submit", "read", project="acme")

    async def story() -> Answered | None:
        lease = await ask(door, key, ACQUIRE)
        gone = asyncio.Event()
        waiter = ask(door, key, ACQUIRE, gone=gone, max_wait=30)
        await asyncio.sleep(0.1)
        gone.set()
        assert await waiter is None
        assert (await ask(door, key, f"/api/v1/leases/{lease.json()['lease']}/settle", status=200)).status == 200
        return await ask(door, key, ACQUIRE)  # type: ignore[no-any-return]

    answer = door.run(story())
    assert answer is not None and answer.status == 200, pool


RARELY: dict[str, Any] = {"algorithm": "sliding_window", "window": 50.0}
"""Longer than anybody waits for these tests."""


def _more(changed: Policy) -> None:
    changed.limit = 2
    changed.save()


def _override(changed: Policy) -> None:
    Override.objects.create(policy=changed, key="u", limit=5, reason="test")


def _remove(changed: Policy) -> None:
    changed.delete()


@pytest.mark.parametrize("change", [_more, _override, _remove])
def test_a_waiting_check_follows_a_change_of_its_policy(
    door: Door, store: redis.Redis, way: str, change: Callable[[Policy], None]
) -> None:
    changed = policy("users", "user", 1, **RARELY)
    key = api("check", project="acme")

    async def story() -> Any:
        assert (await ask(door, key, user="u")).status == 200
        waiter = ask(door, key, user="u", max_wait=60)
        await line_of(door, 1)
        await asyncio.to_thread(change, changed)
        return await asyncio.wait_for(waiter, 20)

    assert door.run(story()).status == 200


def test_a_waiting_check_is_refused_where_its_policy_refuses_all_from_now_on(
    door: Door, store: redis.Redis, way: str
) -> None:
    changed = policy("users", "user", 1, **RARELY)
    key = api("check", project="acme")

    async def story() -> Any:
        assert (await ask(door, key, user="u")).status == 200
        waiter = ask(door, key, user="u", max_wait=60)
        await line_of(door, 1)
        changed.limit = 0
        await asyncio.to_thread(changed.save)
        return await asyncio.wait_for(waiter, 20)

    assert door.run(story()).status == 429


@pytest.mark.parametrize("change", ["limit", "account"])
def test_a_waiting_acquire_follows_a_change_of_its_pool(door: Door, store: redis.Redis, change: str) -> None:
    pool = make_pool(accounts=1)
    limit = PoolLimit.objects.create(pool=pool, limit=1, **RARELY)
    key = api("submit", "read", project="acme")

    def alter() -> None:
        if change == "limit":
            limit.limit = 5
            limit.save()
        else:
            Account.objects.create(pool=pool, name="new", credential="another-credential")

    async def story() -> Any:
        lease = await ask(door, key, ACQUIRE)
        assert lease.status == 200
        assert (await ask(door, key, f"/api/v1/leases/{lease.json()['lease']}/settle", status=200)).status == 200
        waiter = ask(door, key, ACQUIRE, max_wait=60)
        await asyncio.sleep(0.3)
        assert not waiter.done(), "it waits"
        await asyncio.to_thread(alter)
        return await asyncio.wait_for(waiter, 20)

    assert door.run(story()).status == 200


def test_fields_that_decide_nothing_may_stand_twice(door: Door, store: redis.Redis) -> None:
    """Else a waiter could take one of Django's threads by sending a field twice."""
    policy("users", "user", 5)
    key = api("check", project="acme")
    twice = [*headers(key), ("x-tag", "a"), ("x-tag", "b")]
    assert door.request("POST", CHECK, b'{"user": "u", "max_wait": 1}', twice, "lean").status == 200
