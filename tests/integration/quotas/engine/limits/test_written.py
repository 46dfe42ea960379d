"""What checks leave on a server: nothing on denial, nothing without an end, nothing unbounded."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.requests import CheckRequest
from quotas.engine.types import ALGORITHMS
from tests.integration.quotas.engine.limits.conftest import limit


def dump(client: redis.Redis) -> dict[bytes, tuple[bytes, int]]:
    return {key: (client.dump(key), client.pexpiretime(key)) for key in client.scan_iter(count=1000)}


def test_a_denied_check_charges_nothing_anywhere(on_server: Limiter, client: redis.Redis) -> None:
    wide = [limit(a, a, limit=100, scope="project") for a in ALGORITHMS]
    narrow = limit("narrow", "sliding_window", limit=1, scope="ip")
    assert on_server.check([narrow, *wide], reserve=False)
    before = dump(client)
    denied = on_server.check([narrow, *wide])
    assert not denied and denied.binding == "narrow" and denied.reservation is None
    assert [state.allowed for state in denied.limits] == [False] + [True] * len(wide)
    assert all(state.used == 1 for state in denied.limits)
    assert dump(client) == before


def test_peeks_and_denials_create_no_key(on_server: Limiter, client: redis.Redis) -> None:
    limits = [limit(a, a, limit=5, cost=6) for a in ALGORITHMS]
    assert on_server.check(limits).impossible
    assert on_server.check([limit("zero", limit=0)]).retry_after is None
    on_server.peek([replace(one, cost=1) for one in limits])
    on_server.check([replace(one, cost=0) for one in limits])
    assert client.dbsize() == 0


def test_every_key_has_an_end(on_server: Limiter, client: redis.Redis) -> None:
    limits = [limit(a, a, unit="tokens", cost=2) for a in ALGORITHMS]
    assert on_server.check(limits, token="t")
    keys = list(client.scan_iter())
    assert len(keys) == 2 * len(ALGORITHMS) + 2
    assert all(client.pttl(key) > 0 for key in keys)


def test_many_checks_in_one_pipeline_survive_a_script_flush(on_server: Limiter, client: redis.Redis) -> None:
    requests = [CheckRequest([limit("a", limit=3)]) for _ in range(5)] + [CheckRequest([])]
    client.function_flush()
    assert [bool(d) for d in on_server.check_many(requests)] == [True] * 3 + [False] * 2 + [True]
    client.function_flush()
    assert not on_server.check([limit("a", limit=3)])


def test_a_worker_whose_clock_is_years_off_counts_calendar_days_by_the_server(client: redis.Redis) -> None:
    limiter = Limiter(client)
    limiter._ahead = -3 * 365 * 86400 * 10**6
    day = limit("d", "calendar", limit=2)
    many = limiter.check_many([CheckRequest([day])])
    assert many[0].allowed and 0 < many[0].limits[0].reset_after <= 86400
    limiter._ahead = 3 * 365 * 86400 * 10**6
    assert limiter.check([day]) and not limiter.check([day])
    limiter.transport.close()


def test_the_index_is_bounded(on_server: Limiter, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quotas.engine.limits.limiter.INDEX_SIZE", 20)
    on_server.check_many(CheckRequest([limit("a", subject=str(n))]) for n in range(50))
    assert client.zcard(on_server.keys.index(limit("a"))) == 20
