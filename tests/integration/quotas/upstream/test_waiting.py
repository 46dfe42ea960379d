"""A waiting call is decided by the configuration in force at its next try, not by that of its arrival."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection as sql

from quotas import limits, pools
from quotas.errors import LimitExceeded, UnknownProject
from quotas.models import Account, Override, Policy, Pool, PoolLimit, Project
from quotas.services import account_actions
from quotas.snapshot import resolve
from tests.integration.quotas.api.conftest import policy
from tests.integration.quotas.api.test_pools import make_pool
from tests.integration.quotas.upstream.clients import Answer

pytestmark = pytest.mark.django_db(transaction=True)
LONG = 600
SLOW = {"algorithm": "token_bucket", "window": LONG - 60}
"""Seconds: a call that waits by the configuration of its arrival does not come to an end in a test."""


def _check(**more: Any) -> Any:
    return limits.check(user="u", max_wait=LONG, **more)


def _reserve() -> Any:
    with limits.reserve(user="u", max_wait=LONG) as reserved:
        return reserved.decision


async def _reserve_async() -> Any:
    async with limits.reserve_async(user="u", max_wait=LONG) as reserved:
        return reserved.decision


DOORS: dict[str, Callable[[], Any]] = {
    "check": _check,
    "check_async": lambda: asyncio.run(limits.check_async(user="u", max_wait=LONG)),
    "reserve": _reserve,
    "reserve_async": lambda: asyncio.run(_reserve_async()),
}


def _acquire() -> str:
    with pools.get("llm").acquire(max_wait=LONG) as lease:
        return lease.account


async def _acquire_async() -> str:
    async with pools.get("llm").acquire_async(max_wait=LONG) as lease:
        return lease.account


async def _answer(lease: Any) -> Answer:
    return Answer(200, {})


POOL_DOORS: dict[str, Callable[[], Any]] = {
    "acquire": _acquire,
    "acquire_async": lambda: asyncio.run(_acquire_async()),
    "call": lambda: pools.get("llm").call(lambda lease: Answer(200, {}), max_wait=LONG),
    "call_async": lambda: asyncio.run(pools.get("llm").call_async(_answer, max_wait=LONG)),
}


class Waiter:
    """A caller in a thread, which waits until the test resumes it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.found: Any = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()
        time.sleep(0.3)
        assert self._thread.is_alive(), f"it did not wait: {self.found}"

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self.found = call()
        except Exception as error:  # noqa: BLE001 - the test compares it
            self.found = error
        finally:
            sql.close()

    def result(self) -> Any:
        self._thread.join(20)
        assert not self._thread.is_alive(), "it still waits by what was in force before"
        return self.found


def _raise(changed: Policy) -> None:
    changed.limit = 2
    changed.save()


def _remove(changed: Policy) -> None:
    changed.delete()


def _shadow(changed: Policy) -> None:
    changed.mode = "shadow"
    changed.save()


def _override(changed: Policy) -> None:
    Override.objects.create(policy=changed, key="u", limit=5, reason="test")


def _disable(changed: Policy) -> None:
    changed.limit = None
    changed.save()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("change", [_raise, _remove, _shadow, _override, _disable])
def test_a_waiting_check_follows_a_change_of_its_policy(door: str, change: Callable[[Policy], None]) -> None:
    changed = policy("users", "user", 1, **SLOW)
    assert limits.check(user="u")
    waiter = Waiter(DOORS[door])
    change(changed)
    assert waiter.result().allowed


@pytest.mark.parametrize("door", DOORS)
def test_a_waiting_check_is_denied_where_its_policy_refuses_all_from_now_on(door: str) -> None:
    changed = policy("users", "user", 1, **SLOW)
    assert limits.check(user="u")
    waiter = Waiter(DOORS[door])
    changed.limit = 0
    changed.save()
    found = waiter.result()
    assert isinstance(found, LimitExceeded) or (not found.allowed and found.retry_after is None)


def test_a_waiting_check_goes_to_the_line_of_a_policy_that_is_new(valkey: Any) -> None:
    first = policy("users", "user", 1, **SLOW)
    assert limits.check(user="u")
    waiter = Waiter(DOORS["check"])
    everyone = policy("everyone", "global", 1, **SLOW)
    resolve.expire()
    time.sleep(0.6)
    assert limits.check(user="another").allowed
    first.delete()
    time.sleep(1.2)
    assert waiter.found is None, "the new policy refuses it as well"
    everyone.delete()
    assert waiter.result().allowed


def test_a_waiting_check_of_a_project_that_is_removed_ends() -> None:
    project = Project.objects.create(slug="acme")
    policy("each", "project", 1, **SLOW)
    assert limits.check(project="acme")
    waiter = Waiter(lambda: limits.check(project="acme", max_wait=LONG))
    project.delete()
    assert isinstance(waiter.result(), UnknownProject)


def _another_account(pool: Pool) -> None:
    Account.objects.create(pool=pool, name="new", credential="another-credential")


def _greater_limit(pool: Pool) -> None:
    for limit in pool.limits.all():
        limit.limit = 100
        limit.save()


@pytest.mark.parametrize("door", POOL_DOORS)
@pytest.mark.parametrize("change", [_another_account, _greater_limit])
def test_who_waits_for_an_account_follows_a_change_of_the_pool(door: str, change: Callable[[Pool], None]) -> None:
    pool = make_pool(accounts=1)
    PoolLimit.objects.create(pool=pool, limit=1, **SLOW)
    with pools.get("llm").acquire():
        pass
    waiter = Waiter(POOL_DOORS[door])
    change(pool)
    found = waiter.result()
    assert not isinstance(found, Exception), found


@pytest.mark.parametrize("door", POOL_DOORS)
def test_who_waits_for_a_cooldown_follows_the_operator_who_ends_it(door: str) -> None:
    make_pool(accounts=1)
    with pools.get("llm").acquire() as lease:
        lease.settle_response(Answer(429, {"Retry-After": "300"}))
    waiter = Waiter(POOL_DOORS[door])
    account_actions.clear_cooldown(Account.objects.get(), actor="test", reason="test")
    found = waiter.result()
    assert not isinstance(found, Exception), found


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    sql.close()
