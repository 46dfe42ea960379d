"""The hot path neither reads SQL nor blocks on Redis; what it knows is recent; an outage is answered as anywhere."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.db import connections
from django.utils import timezone

from quotas.models import ApiKey, Policy
from quotas.models.config_version import ConfigVersion
from quotas.services import api_keys
from tests.integration.controlplane.http.asgi import Answered, Door
from tests.integration.quotas.api.conftest import Api, api, policy
from tests.support.limiter_server import limiter_at
from tests.support.valkey import Server, run_server, valkey_binary, wait_for

CHECK = "/api/v1/limits/check"


def headers(key: Api) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {key.token}"), ("Content-Type", "application/json")]


def check(door: Door, key: Api, **body: Any) -> Answered:
    return door.request("POST", CHECK, json.dumps(body).encode(), headers(key), "lean")


@pytest.fixture
def own_redis() -> Iterator[Server]:
    """A server that may be hurt."""
    with run_server(valkey_binary()) as server, limiter_at(server.unix_url):
        yield server


def test_checks_ask_sql_nothing_and_never_on_the_loop(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    policy("users", "user", 1000)
    key = api("check", project="acme")
    check(door, key, user="u")
    asked: list[str] = []
    wrapper = type(connections["default"])
    plain = wrapper.cursor

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(threading.current_thread().name)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(wrapper, "cursor", noted)
    begun = time.monotonic()
    answers = [check(door, key, user="u") for _ in range(30)]
    looks = 2 * (1 + int((time.monotonic() - begun) / 0.25))
    assert {answer.status for answer in answers} == {200}
    assert len(asked) <= 2 * looks and all(name.startswith("front") for name in asked), asked


def test_many_at_once_are_charged_once_each(door: Door) -> None:
    policy("users", "user", 150)
    key = api("check", project="acme")

    async def burst() -> list[Answered]:
        body = b'{"user": "u"}'
        return await asyncio.gather(*(door._request("POST", CHECK, body, headers(key), "lean") for _ in range(200)))

    statuses = [answer.status for answer in door.run(burst())]
    assert (statuses.count(200), statuses.count(429)) == (150, 50)


def test_changes_are_in_force_within_a_second_also_after_a_pause(door: Door) -> None:
    row = policy("users", "user", 1000)
    key = api("check", project="acme")
    assert check(door, key, user="u").status == 200
    Policy.objects.filter(pk=row.pk).update(limit=0)
    ConfigVersion.bump()
    begun = time.monotonic()
    wait_for(lambda: check(door, key, user="u").status == 429, 10)
    assert time.monotonic() - begun < 5


def test_a_revoked_key_is_refused_in_a_process_that_got_no_notice(door: Door) -> None:
    policy("users", "user", 1000)
    key = api("check", project="acme")
    assert check(door, key).status == 200
    ApiKey.objects.update(revoked_at=timezone.now())  # as another process would do it
    wait_for(lambda: check(door, key).status == 401, 10)


def test_a_new_key_and_a_new_policy_need_no_restart(door: Door) -> None:
    assert check(door, Api("sl_nobody_x")).status == 401
    _, token = api_keys.create("late", ["check"], actor="test")
    assert check(door, Api(token)).status == 200


def test_scripts_that_the_server_forgot_are_loaded(door: Door, own_redis: Server) -> None:
    policy("users", "user", 1000)
    key = api("check", project="acme")
    with own_redis.client() as client:
        for _ in range(2):
            client.function_flush()
            assert check(door, key, user="u").status == 200


def test_a_hung_server_is_answered_for_in_time_and_comes_back(door: Door, own_redis: Server) -> None:
    policy("users", "user", 1000)
    key = api("check", project="acme")
    assert check(door, key, user="u").status == 200
    os.kill(own_redis.process.pid, signal.SIGSTOP)

    async def burst() -> list[Answered]:
        return await asyncio.gather(*(door._request("POST", CHECK, b"{}", headers(key), "lean") for _ in range(50)))

    async def burst_of_users() -> list[Answered]:
        body = b'{"user": "u"}'
        return await asyncio.gather(*(door._request("POST", CHECK, body, headers(key), "lean") for _ in range(50)))

    try:
        assert {answer.status for answer in door.run(burst())} == {200}, "no limit applies, so Redis is not called"
        refused = door.run(burst_of_users())
    finally:
        os.kill(own_redis.process.pid, signal.SIGCONT)
    assert {answer.status for answer in refused} == {503}
    assert refused[0].json()["type"] == "/problems/limiter-unavailable" and refused[0].headers["retry-after"]
    wait_for(lambda: check(door, key, user="u").status == 200)


def test_a_lost_connection_fails_one_round_at_most(door: Door, own_redis: Server) -> None:
    policy("users", "user", 1000)
    key = api("check", project="acme")
    assert check(door, key, user="u").status == 200
    with own_redis.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    wait_for(lambda: check(door, key, user="u").status == 200)


def test_waiting_callers_hold_up_nobody(door: Door, store: redis.Redis) -> None:
    policy("users", "user", 1, algorithm="token_bucket", window=1, burst=1)
    key = api("check", project="acme")
    assert check(door, key, user="u").status == 200

    async def crowd() -> tuple[Any, list[Answered]]:
        body = b'{"user": "u", "max_wait": 3}'
        waiting = [asyncio.ensure_future(door._request("POST", CHECK, body, headers(key), "lean")) for _ in range(20)]
        other = await door._request("POST", CHECK, b'{"user": "v"}', headers(key), "lean")
        early = sum(task.done() for task in waiting)
        return (other, early), await asyncio.gather(*waiting)

    (other, early), answers = door.run(crowd())
    assert other.status == 200 and early < 20, "the other one did not wait for those who wait"
    assert 1 <= [answer.status for answer in answers].count(200) <= 4
