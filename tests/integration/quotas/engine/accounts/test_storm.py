"""Accounts at a provider where everything goes wrong at once, for real: sockets, headers, Redis's own clock."""

from __future__ import annotations

import http.client
import threading
import time

from quotas.engine.accounts.accounts import Accounts
from quotas.engine.dialects import failed, read
from quotas.engine.types import AdmitRequest, BreakerSpec
from tests.integration.controlplane.simulator.process import Simulator
from tests.integration.quotas.engine.accounts.conftest import pool
from tests.support.valkey import Server, valkey, valkey_server, wait_for  # noqa: F401

POOL = pool(
    ("storm", "dead", "slow", "invalid", "fine"),
    dialect="openai",
    strategy="health",
    breaker=BreakerSpec(failures=1, window=60.0, open_for=0.5),
    cooldown_default=0.5,
)


def run_jobs(accounts: Accounts, sim: Simulator, jobs: int, transitions: list[tuple[str, str]]) -> int:
    """Call until every job has succeeded; how many attempts failed."""
    left = list(range(jobs))
    failures: list[str] = []

    def work() -> None:
        while left:
            try:
                left.pop()
            except IndexError:
                return
            done = False
            while not done:
                admission = accounts.admit(AdmitRequest(pool=POOL))
                if not admission:
                    assert not admission.disabled
                    time.sleep(min(admission.retry_after or 0.1, 0.2))
                    continue
                key = str(admission.account_id)
                try:
                    status, headers, body = sim.chat(key=key)
                    outcome = read("openai", status, headers, body, secrets=[key])
                except (http.client.HTTPException, OSError) as error:
                    outcome = failed("network", str(error), secrets=[key])
                settled = accounts.settle(str(admission.lease), outcome)
                assert settled is not None
                if settled.transition:
                    transitions.append((key, settled.transition))
                done = outcome.category == "ok"
                if not done:
                    failures.append(key)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(failures)


def test_the_others_carry_the_load_and_all_recover_but_the_invalid_one(valkey_server: Server, valkey):  # noqa: F811
    accounts = Accounts(valkey)
    transitions: list[tuple[str, str]] = []
    with Simulator() as sim:
        sim.faults(
            {"key": "storm", "status": 429, "headers": {"Retry-After": "1"}, "body": "slow down, {credential}"},
            {"key": "dead", "drop": True},
            {"key": "slow", "latency": 0.2},
            {"invalid_key": "invalid"},
        )
        wasted = run_jobs(accounts, sim, 150, transitions)
        states = {state.id: state for state in accounts.states(POOL)}
        assert wasted <= 100
        assert states["fine"].successes > states["slow"].successes
        assert states["fine"].successes + states["slow"].successes == 150
        assert states["storm"].errors.keys() == {"rate_limited"}
        assert states["dead"].errors.keys() == {"network"}
        assert (states["invalid"].state, states["invalid"].why) == ("disabled", "auth")
        assert transitions.count(("invalid", "disabled")) == 1
        assert ("dead", "opened") in transitions
        assert sim.stats()["by_key"]["invalid"]["requests"] <= 8
        sim.faults()
        wait_for(lambda: accounts.states(POOL)[0].state == "available")
        wait_for(lambda: accounts.states(POOL)[1].state in ("half_open", "available"))
        wasted, calm = 0, 0
        while not all(state.successes for state in accounts.states(POOL) if state.id != "invalid"):
            # Their health lets them have few at first: as few as there are calls side by side.
            assert (calm := calm + 1) <= 20, accounts.states(POOL)
            wasted += run_jobs(accounts, sim, 60, transitions)
        assert wasted <= 1
        states = {state.id: state for state in accounts.states(POOL)}
        assert {name for name, state in states.items() if state.state == "available"} == set(states) - {"invalid"}
        assert sum(state.in_flight for state in states.values()) == 0
    accounts.transport.close()


def test_no_credential_reaches_redis_even_when_the_provider_echoes_it(valkey_server: Server, valkey):  # noqa: F811
    secret = "sk-very-secret-key-0123456789"
    accounts = Accounts(valkey)
    spec = pool(1)
    with Simulator() as sim:
        for fault in (
            {"status": 500, "body": "key {credential} failed"},
            {"status": 401, "body": '{"error": {"message": "Incorrect API key provided: {credential}"}}'},
            {"status": 429, "headers": {"x-ratelimit-limit-requests": secret, "retry-after": secret}},
        ):
            sim.faults(fault)
            status, headers, body = sim.chat(key=secret)
            lease = accounts.admit(AdmitRequest(pool=spec, key="chat")).lease
            outcome = read("openai", status, headers, body, secrets=[secret])
            assert secret not in repr(outcome)
            settled = accounts.settle(str(lease), outcome)
            assert secret not in repr(settled)
            accounts.enable("a1")
            accounts.clear_cooldown("a1")
    dumped = b"".join(key + valkey.dump(key) for key in valkey.scan_iter("*"))
    assert dumped
    assert b"very-secret" not in dumped
    assert secret not in repr(accounts.states(spec))
    accounts.transport.close()
