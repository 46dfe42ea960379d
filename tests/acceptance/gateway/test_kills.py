"""`kill -9` of the web process amid many streams: slots come free, nothing is charged or sent twice, the next serves."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx
import pytest
import yaml

from tests.integration.controlplane.simulator.process import Simulator
from tests.support.instance import Instance, running, wait_until

STREAMS = 200
TIMEOUT = 8
LEASE = TIMEOUT + 10
"""Seconds for which a call's slot outlives its process: the provider's timeout and a margin."""
ENVIRON = {"KILL_ONE": "sk-kill-one-55d1", "KILL_TWO": "sk-kill-two-a7f2"}


def configuration(base_url: str) -> str:
    policies = [
        {"name": "requests", "scope": "project", "algorithm": "fixed_window", "limit": 100_000, "window": "1h"},
        {"name": "open", "scope": "project", "algorithm": "concurrency", "limit": STREAMS, "lease_ttl": "5s"},
        {"name": "tokens", "scope": "project", "unit": "tokens", "algorithm": "fixed_window", "limit": 10**9, "window": "1h"},
    ]  # fmt: skip
    accounts = [{"name": name.lower(), "credential_env": name} for name in ENVIRON]
    provider = {"name": "sim", "dialect": "openai", "base_url": base_url, "timeout": f"{TIMEOUT}s"}
    pool = {"name": "llm", "provider": "sim", "concurrency": {"initial": STREAMS}, "accounts": accounts}
    document = {
        "version": 1,
        "projects": [{"slug": "acme"}],
        "providers": [provider],
        "pools": [pool],
        "policies": policies,
    }
    return yaml.safe_dump(document)


def used(instance: Instance, policy: str) -> int:
    rows = instance.client().get("/api/v1/limits/usage", params={"policy": policy}).json()["results"]
    return sum(row["used"] for row in rows)


def in_flight(instance: Instance) -> int:
    return sum(row["in_flight"] for row in instance.client().get("/api/v1/accounts").json()["results"])


async def hold(url: str, key: str, outcomes: Counter[str], begun: asyncio.Event) -> None:
    """Streams until each of them ends, by whatever."""
    open_streams = 0
    body = {"model": "m", "stream": True, "max_tokens": 50, "messages": [{"role": "user", "content": "word " * 40}]}

    async def one(client: httpx.AsyncClient) -> None:
        nonlocal open_streams
        try:
            async with client.stream("POST", url, json=body, headers={"Authorization": f"Bearer {key}"}) as answer:
                outcomes[str(answer.status_code)] += 1
                async for _ in answer.aiter_raw():
                    open_streams += 1
                    if open_streams >= STREAMS:
                        begun.set()
                outcomes["whole"] += 1
        except httpx.HTTPError:
            outcomes["broken"] += 1

    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60) as client:
        await asyncio.gather(*[one(client) for _ in range(STREAMS)])


@pytest.mark.long
def test_a_killed_process_leaves_no_slot_and_charges_nothing_twice() -> None:
    with Simulator("--dialect", "openai") as simulator, running(environ=ENVIRON) as instance:
        instance.manage("apply", "-", stdin=configuration(simulator.base_url))
        made = instance.manage("apikey", "create", "--name", "k", "--project", "acme", "--scopes", "call")
        key, url = made.stdout.strip(), f"{instance.url}/gateway/llm/v1/chat/completions"
        simulator.faults({"pace": 1.0})
        outcomes: Counter[str] = Counter()

        async def kill() -> float:
            begun = asyncio.Event()
            holding = asyncio.ensure_future(hold(url, key, outcomes, begun))
            async with asyncio.timeout(60):
                # A slot is taken before the caller has the answer's head.
                while in_flight(instance) < STREAMS or outcomes["200"] < STREAMS:
                    await asyncio.sleep(0.2)
            assert used(instance, "open") == STREAMS
            instance.kill_child("web")
            killed = time.monotonic()
            await holding
            return killed

        killed = asyncio.run(kill())
        assert outcomes["200"] == STREAMS and outcomes["broken"] == STREAMS and not outcomes["whole"]
        simulator.faults()
        # The next process serves, as soon as it listens and a slot is free again.
        wait_until(lambda: _serves(url, key), LEASE + 15, lambda: f"{in_flight(instance)} in flight")
        left = LEASE + 5 - (time.monotonic() - killed)
        wait_until(lambda: in_flight(instance) == 0, max(left, 1), lambda: f"{in_flight(instance)} in flight")
        wait_until(lambda: used(instance, "open") == 0, max(left, 1), lambda: f"{used(instance, 'open')} slots taken")
        stats = simulator.stats()
        calls = stats["succeeded"] + STREAMS  # those that were cut off, and those that served
        assert used(instance, "requests") == calls
        assert stats["requests"] == calls


def _serves(url: str, key: str) -> bool:
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "again"}]}
    try:
        return httpx.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=10).status_code == 200
    except httpx.HTTPError:
        return False
