"""The scripts and the reference agree on every decision, use, remaining and time; retry times are exact."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import ceil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.reference import ReferenceLimiter
from quotas.engine.types import Decision, Limit
from tests.property.arrivals import MICRO, SIZES, Clock, costs, gaps, limits
from tests.support.valkey import Server

run = itertools.count()
COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(
    params=[
        "valkey_server",
        pytest.param("redis7_server", marks=pytest.mark.long),
        pytest.param("cluster_server", marks=pytest.mark.long),
    ]
)
def server(request: pytest.FixtureRequest) -> Server:
    """Each kind of server; all of them where the long tests run."""
    found: Server = request.getfixturevalue(request.param)
    return found


def alike(mine: Decision, theirs: Decision) -> None:
    assert (mine.reservation is None) == (theirs.reservation is None)
    assert replace(mine, reservation=None) == replace(theirs, reservation=None)


@settings(COMMON, max_examples=60)
@given(st.data())
def test_scripts_and_reference_agree(server: Server, data: st.DataObject) -> None:
    clock = Clock()
    model = ReferenceLimiter(clock=clock)
    with server.client() as client:
        limiter = Limiter(client, prefix=f"agree{next(run)}", clock=clock)
        policies = [data.draw(limits(id=f"p{n}")) for n in range(data.draw(st.integers(1, 4)))]
        open_reservations: list[tuple[str, str]] = []
        for _ in range(data.draw(st.integers(1, 25))):
            match data.draw(st.sampled_from(["check"] * 6 + ["back", "settle", "change", "peek", "reset"])):
                case "check":
                    clock.now += data.draw(gaps(policies[0].window))
                    asked = [replace(p, cost=data.draw(costs(p))) for p in policies if data.draw(st.integers(0, 3))]
                    bypass = data.draw(st.integers(0, 9)) == 0
                    mine, theirs = model.check(asked, bypass=bypass), limiter.check(asked, bypass=bypass)
                    alike(mine, theirs)
                    if mine.reservation and theirs.reservation:
                        open_reservations.append((mine.reservation, theirs.reservation))
                case "back":
                    clock.now -= data.draw(st.integers(0, 5 * MICRO))
                case "settle" if open_reservations:
                    local, remote = open_reservations[data.draw(st.integers(0, len(open_reservations) - 1))]
                    if (expires := model.expires(local)) is not None and clock.now >= expires:
                        continue  # the server's records expire by its own time
                    actual = {"tokens": data.draw(st.one_of(st.integers(0, 10), st.sampled_from(SIZES)))}
                    one = model.settle(local, actual)
                    if one is None:
                        continue  # expired by the injected clock; the server's record may live on
                    other = limiter.settle(remote, actual)
                    assert other is not None
                    assert replace(one, reservation="") == replace(other, reservation="")
                case "change":
                    n = data.draw(st.integers(0, len(policies) - 1))
                    small = policies[n].algorithm == "concurrency"
                    policies[n] = replace(policies[n], limit=data.draw(st.sampled_from(SIZES[:6] if small else SIZES)))
                case "peek":
                    assert model.peek(policies) == limiter.peek(policies)
                case "reset":
                    n = data.draw(st.integers(0, len(policies) - 1))
                    model.reset([policies[n]])
                    limiter.reset([policies[n]])
        limiter.transport.close()


@settings(COMMON, max_examples=40)
@given(st.data())
def test_the_retry_time_is_exact(server: Server, data: st.DataObject) -> None:
    clock = Clock()
    with server.client() as client:
        limiter = Limiter(client, prefix=f"retry{next(run)}", clock=clock)
        policies = [
            replace(data.draw(limits(id=f"p{n}", small=True)), mode="enforce")
            for n in range(data.draw(st.integers(1, 4)))
        ]
        for _ in range(data.draw(st.integers(1, 12))):
            clock.now += data.draw(gaps(policies[0].window))
            asked = [replace(p, cost=data.draw(costs(p))) for p in policies]
            denied = limiter.check(asked)
            if denied or denied.retry_after is None:
                continue
            wait = round(denied.retry_after * MICRO)
            assert wait > 0
            now = clock.now
            clock.now = now + wait - 1
            assert not limiter.check(asked, dry_run=True)
            clock.now = now + (ceil(denied.retry_after) - 1) * MICRO  # a second before `Retry-After`
            assert not limiter.check(asked, dry_run=True)
            clock.now = now + ceil(denied.retry_after) * MICRO
            assert limiter.check(asked, dry_run=True)
            clock.now = now + wait
            assert limiter.check(asked)
        limiter.transport.close()


@settings(COMMON, max_examples=60)
@given(st.data(), limits(small=True))
def test_a_step_back_locks_nobody_out(server: Server, data: st.DataObject, limit: Limit) -> None:
    clock = Clock()
    limit = replace(limit, mode="enforce")
    with server.client() as client:
        limiter = Limiter(client, prefix=f"back{next(run)}", clock=clock)
        while limiter.check([replace(limit, cost=1)]):
            pass
        before = limiter.check([replace(limit, cost=1)]).retry_after or 0
        step = data.draw(st.integers(0, 5 * MICRO))
        clock.now -= step
        after = limiter.check([replace(limit, cost=1)])
        assert not after
        assert after.retry_after is not None and after.retry_after <= before + step / MICRO + 1e-6
        limiter.transport.close()
