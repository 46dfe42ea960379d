"""The library of scripts on a server: loaded where it is missing, its versions side by side but not for ever."""

from __future__ import annotations

import threading

import pytest
import redis

from quotas.engine.accounts.accounts import Accounts
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.limits.limiter import Limiter
from quotas.engine.redis import library, scripts
from quotas.engine.redis.library import KEPT_VERSIONS, PREFIX, Library
from quotas.engine.redis.scripts import Script
from quotas.engine.types import AccountSpec, AdmitRequest, PoolSpec
from tests.integration.quotas.engine.limits.conftest import limit
from tests.support.valkey import Server


@pytest.fixture(autouse=True)
def emptied(client: redis.Redis) -> None:
    client.function_flush()


def version(digest: str) -> Script:
    """A check of another version, which answers its digest."""
    name = f"{PREFIX}check_{digest}"
    source = f"#!lua name={PREFIX}{digest}\nredis.register_function('{name}', function() return '{digest}' end)"
    return Script("check", name, Library(PREFIX + digest, source))


def libraries(client: redis.Redis) -> set[str]:
    return set(library._names(client.function_list()))


def test_two_versions_live_side_by_side(on_server: Limiter, client: redis.Redis) -> None:
    old = version("0ld")
    for _ in range(3):
        assert on_server.transport.run(old, []) == b"0ld"
        assert on_server.check([limit()])
    assert libraries(client) == {old.library.name, scripts.load("check").library.name}


def test_versions_do_not_pile_up_and_others_libraries_stay(on_server: Limiter, client: redis.Redis) -> None:
    other = Library("mine", "#!lua name=mine\nredis.register_function('mine', function() return 1 end)")
    client.function_load(other.source)
    for number in range(KEPT_VERSIONS + 5):
        assert on_server.transport.run(version(f"v{number}"), []) == f"v{number}".encode()
        assert f"{PREFIX}v{number}" in libraries(client)
    assert on_server.check([limit()])
    found = libraries(client)
    assert {other.name, scripts.load("check").library.name} < found
    assert len(found) == KEPT_VERSIONS + 1


def test_many_who_find_it_missing_at_once_charge_once_each(
    server: Server, on_server: Limiter, client: redis.Redis
) -> None:
    start = threading.Barrier(8)
    decisions: list[bool] = []

    def ask() -> None:
        with server.client() as own:
            limiter = Limiter(own, clock=on_server.clock)
            start.wait(30)
            decisions.append(bool(limiter.check([limit(limit=5)])))
            limiter.transport.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(decisions) == [False] * 3 + [True] * 5


def test_somebody_else_was_faster(on_server: Limiter) -> None:
    wanted = scripts.load("check").library
    assert on_server.transport._load(wanted) == on_server.transport._load(wanted) == []


def test_a_client_that_may_not_load_reports_it_and_uses_what_another_has_loaded(
    server: Server, on_server: Limiter, client: redis.Redis
) -> None:
    client.acl_setuser("poor", enabled=True, nopass=True, categories=["+@all"], keys=["*"], commands=["-function"])
    with redis.Redis(port=server.port, username="poor", password="x") as poor:
        limiter = Limiter(poor)
        with pytest.raises(LimiterUnavailable, match="NOPERM"):
            limiter.check([limit()])
        assert on_server.check([limit()])
        assert limiter.check([limit()]), "who may not load uses what another one has loaded"
        limiter.transport.close()
    client.acl_deluser("poor")


def test_a_full_server_still_shows_what_was_used(on_server: Limiter, server: Server, client: redis.Redis) -> None:
    one = limit(limit=2)
    spec = PoolSpec("p", "p", "openai", "health", (AccountSpec("a1", "a1"),), ())
    with server.client() as given:
        accounts = Accounts(given)
        assert on_server.check([one]) and accounts.states(spec)
        client.config_set("maxmemory", 1)
        try:
            assert on_server.peek([one])[0].used == 1
            assert next(iter(on_server.usage([one]))).used == 1
            assert accounts.states(spec)[0].state == "available"
            assert accounts.explain(AdmitRequest(pool=spec)).pools[0].accounts[0].available
            before = client.dbsize()
            with pytest.raises(LimiterUnavailable, match="OOM"):
                on_server.check([one])
            assert client.dbsize() == before
        finally:
            client.config_set("maxmemory", 0)
        assert on_server.peek([one])[0].used == 1
        accounts.transport.close()
