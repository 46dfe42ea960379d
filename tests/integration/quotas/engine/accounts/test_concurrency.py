"""Many processes and threads on the server's own clock: nothing is given twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

import pytest

from quotas.engine.accounts.accounts import Accounts
from quotas.engine.types import AdmitRequest, BreakerSpec, CallOutcome, Limit
from tests.integration.quotas.engine.accounts.conftest import bucket, pool
from tests.support.valkey import Server, valkey, valkey_server, wait_for  # noqa: F401

SPAWN = multiprocessing.get_context("spawn")


def ask(port, spec, requests, threads, start, answers):
    """In a process of its own: `threads` threads call `requests` times each, in all processes at once."""
    import redis

    accounts = Accounts(redis.Redis(port=port))
    granted = []

    def work():
        start.wait(60)
        for cost in requests:
            admission = accounts.admit(AdmitRequest(pool=spec, cost=cost))
            if admission:
                granted.append(admission.lease)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    answers.put(granted)


def race(server, spec, requests, processes, threads):
    start, answers = SPAWN.Barrier(processes * threads), SPAWN.Queue()
    args = (server.port, spec, requests, threads, start, answers)
    workers = [SPAWN.Process(target=ask, args=args) for _ in range(processes)]
    for worker in workers:
        worker.start()
    granted = [lease for _ in workers for lease in answers.get(timeout=60)]
    for worker in workers:
        worker.join(30)
    return granted


def test_a_token_limit_is_given_out_exactly(valkey_server: Server, valkey):  # noqa: F811
    limit = bucket(1000, "tokens", algorithm="fixed_window", window=86400.0)
    granted = race(valkey_server, pool(1, limit), [{"tokens": 100}] * 20, processes=8, threads=1)
    assert len(granted) == len(set(granted)) == 10
    accounts = Accounts(valkey)
    view = accounts.explain(AdmitRequest(pool=pool(1, limit), cost={"tokens": 1})).pools[0].accounts[0]
    assert (view.available, view.reason) == (False, "tokens")
    assert accounts.states(pool(1, limit))[0].in_flight == 10
    # The 150 that were refused have used nothing: what one call refunds is available, to the last token.
    accounts.settle(granted[0], CallOutcome("ok", usage={"tokens": 37}))
    for cost, passes in ((64, False), (63, True), (1, False)):
        admission = accounts.admit(AdmitRequest(pool=pool(1, limit), cost={"tokens": cost}))
        assert admission.allowed is passes
    oversize = accounts.admit(AdmitRequest(pool=pool(1, limit), cost={"tokens": 1001}))
    assert (oversize.impossible, oversize.retry_after) == (True, None)


def test_an_open_breaker_that_expires_lets_exactly_one_probe_through(valkey_server: Server, valkey):  # noqa: F811
    spec = pool(1, breaker=BreakerSpec(failures=1, open_for=0.2))
    accounts = Accounts(valkey)
    failed = accounts.admit(AdmitRequest(pool=spec)).lease
    assert accounts.settle(failed, CallOutcome("server", status=503)).transition == "opened"
    wait_for(lambda: accounts.states(spec)[0].state == "half_open")
    granted = race(valkey_server, spec, [{}] * 10, processes=2, threads=8)
    assert len(granted) == 1
    settled = accounts.settle(granted[0], CallOutcome("ok"))
    assert settled is not None
    assert settled.transition == "closed"


def probe_and_hang(port, spec, answers):
    import redis

    answers.put(Accounts(redis.Redis(port=port)).admit(AdmitRequest(pool=spec)).lease)
    time.sleep(600)


def test_a_killed_prober_is_followed_by_another_probe(valkey_server: Server, valkey):  # noqa: F811
    spec = pool(1, lease_ttl=1.0)
    accounts = Accounts(valkey)
    accounts.trip("a1", 0.001)
    wait_for(lambda: accounts.states(spec)[0].state == "half_open")
    answers = SPAWN.Queue()
    prober = SPAWN.Process(target=probe_and_hang, args=(valkey_server.port, spec, answers))
    prober.start()
    lost = answers.get(timeout=30)
    assert lost is not None
    os.kill(prober.pid, signal.SIGKILL)
    prober.join(10)
    taken = []
    wait_for(lambda: bool(taken.append(accounts.admit(AdmitRequest(pool=spec))) or taken[-1]), 10)
    assert taken[-1].probe
    assert not accounts.admit(AdmitRequest(pool=spec))


@pytest.mark.parametrize("token", ["", "same"])
def test_caller_and_account_stay_in_step(valkey_server: Server, valkey, token):  # noqa: F811
    mine = Limit("p", "mine", "user", "u", "fixed_window", 30, window=86400.0)
    spec = pool(2, bucket(20, algorithm="fixed_window", window=86400.0))
    accounts = [Accounts(valkey_server.client()) for _ in range(4)]
    granted = []

    def work(engine):
        for _ in range(40):
            admission = engine.admit(AdmitRequest(limits=[mine], pool=spec, token=token))
            if admission:
                granted.append(admission.lease)

    workers = [threading.Thread(target=work, args=(engine,)) for engine in accounts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    expected = 1 if token else 30
    assert len(set(granted)) == expected
    assert sum(state.in_flight for state in accounts[0].states(spec)) == expected
    for engine in accounts:
        engine.transport.close()
