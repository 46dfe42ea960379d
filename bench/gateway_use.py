"""How much of the providers' limits is used, and whether any caller passes its own: `python -m bench.gateway use`.

Many clients, four accounts of a simulator that enforces a limit, estimates that are wrong by up to a factor of 3. Most
clients call as often as they can and wait (`Prefer: wait`). Of the others, each has a limit of its own that it reaches:

    steady     6 calls in any 60 s, waits           bursty    6 a minute, 3 at once, waits
    minutely   6 in each minute, waits              hasty     6 in any 60 s; does not wait, and sleeps for `retry-after-ms`

While they call, the gateway's recent calls are read, with the time at which each was admitted. At the end every limit is
checked against these times, each wait and each refusal must say its reason, and the figures are printed beside the
arithmetic: bursts, and the rate. It exits with an error where a call is not explained or a limit was passed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp

from bench.gateway_yard import PATH, Yard, configuration

ACCOUNTS = 4
MINUTE = 60.0
CAPACITY, BURST = 6, 3
GROUPS = {"steady": 20, "bursty": 20, "minutely": 20, "hasty": 20}
"""Clients of each limited group; all others call freely."""
POLICIES: list[dict[str, Any]] = [
    {"name": "steady", "algorithm": "sliding_window"}, {"name": "bursty", "algorithm": "token_bucket", "burst": BURST},
    {"name": "minutely", "algorithm": "fixed_window"}, {"name": "hasty", "algorithm": "sliding_window"},
]  # fmt: skip
NOISE = 0.25
"""Seconds between the script's time of an admission and the time that a recent call shows."""


@dataclass
class Run:
    """What the clients saw, and what the gateway recorded."""

    url: str
    key: str
    clients: int
    waits: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    answers: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By `Sluice-Request-Id`: status, and seconds waited."""
    recorded: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def group_of(self, number: int) -> str:
        for name, count in GROUPS.items():
            if number < count * self.clients // 200:
                return name
            number -= count * self.clients // 200
        return ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def use(options: argparse.Namespace) -> None:
    from tests.integration.controlplane.simulator.process import Simulator

    rpm = options.rpm
    with ExitStack() as stack:
        yard = Yard(stack, stack.enter_context(tempfile.TemporaryDirectory()))
        keys = [
            f"sk-bench-{number}:rpm={rpm},tpm={rpm * 100},burst={rpm // 10},tpm_burst={rpm * 10}"
            for number in range(1, ACCOUNTS + 1)
        ]
        simulator = stack.enter_context(
            Simulator("--dialect", "openai", "--latency", "50", *[part for key in keys for part in ("--key", key)])
        )
        limits = [
            {"unit": "requests", "algorithm": "token_bucket", "limit": rpm, "window": "60s", "burst": rpm // 12},
            {"unit": "tokens", "algorithm": "token_bucket", "limit": rpm * 100, "window": "60s", "burst": rpm * 8},
        ]
        policies = [
            {"scope": "custom", "key_name": one["name"], "limit": CAPACITY, "window": "60s", **one} for one in POLICIES
        ]
        document = configuration(simulator.base_url, ACCOUNTS, policies, limits=limits, pause_at=None)
        port, _, key = yard.gateway(document)
        run = Run(f"http://127.0.0.1:{port}", key, options.clients)
        stats = asyncio.run(_run(run, options.calls, simulator.stats))
        _report(run, stats, simulator.stats()["refused"], rpm)
    if run.faults:
        raise SystemExit("\n".join([f"{len(run.faults)} faults", *run.faults[:20]]))


async def _run(run: Run, count: int, stats: Callable[[], dict[str, Any]]) -> tuple[float, int]:
    """Seconds for which all clients called, and the requests that the provider got meanwhile: those that are limited
    still wait for their last call when the others have ended."""
    left = list(range(count))
    all_called: tuple[float, int] | None = None
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.perf_counter()
        work = asyncio.gather(*[_client(run, number, session, left) for number in range(run.clients)])
        while not work.done():
            await asyncio.wait([work], timeout=3.0)
            await _read_calls(run, session)
            if not left and all_called is None:
                all_called = (time.perf_counter() - began, (await asyncio.to_thread(stats))["requests"])
        await work
        assert all_called is not None
        deadline = time.perf_counter() + 30
        while run.answers.keys() - run.recorded.keys() and time.perf_counter() < deadline:
            await asyncio.sleep(1.0)
            await _read_calls(run, session)
    return all_called


async def _client(run: Run, number: int, session: aiohttp.ClientSession, left: list[int]) -> None:
    chance = random.Random(number)
    group = run.group_of(number)
    while left:
        left.pop()
        words = chance.randint(2, 40)
        used = words * 5 / 4 + 20
        headers = {
            **run.headers, "Sluice-User": f"u{number}",
            "Sluice-Cost": f"tokens={max(1, round(used * 3 ** chance.uniform(-1, 1)))}",
        }  # fmt: skip
        if group:
            headers["Sluice-Keys"] = f"{group}=c{number}"
        if group != "hasty":
            headers["Prefer"] = "wait=300"
        body = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "word " * words}]}
        patience = aiohttp.ClientTimeout(total=700)
        async with session.post(run.url + PATH, json=body, headers=headers, timeout=patience) as answer:
            text = await answer.read()
        wait = _noted(run, answer, text)
        if wait:
            await asyncio.sleep(wait)


def _noted(run: Run, answer: aiohttp.ClientResponse, text: bytes) -> float:
    """Note an answer, and what it does not explain. Returns the seconds to sleep before the next call."""
    name = answer.headers.get("sluice-request-id", "")
    waited = float(answer.headers.get("sluice-waited", "nan"))
    run.answers[name] = (answer.status, waited)
    if answer.status == 200:
        run.statuses["200"] += 1
        run.waits.append(waited)
        return 0.0
    code = json.loads(text)["error"]["code"]
    run.statuses[f"{answer.status} {code}"] += 1
    seconds, exact = answer.headers.get("retry-after"), answer.headers.get("retry-after-ms")
    if answer.status not in (429, 503) or seconds is None or exact is None:
        run.faults.append(f"{name}: {answer.status} {code} without Retry-After")
        return 1.0
    if int(seconds) != max(1, math.ceil(int(exact) / 1000)):
        run.faults.append(f"{name}: Retry-After {seconds} and retry-after-ms {exact}")
    limit = answer.headers.get("ratelimit", "")
    if code == "quota-exceeded" and f"t={seconds}" not in limit:
        run.faults.append(f"{name}: Retry-After {seconds}, RateLimit {limit}")
    return int(exact) / 1000


async def _read_calls(run: Run, session: aiohttp.ClientSession) -> None:
    """Read the recent calls that are not known yet: the newest thousand of a project are kept."""
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "500", **({"cursor": cursor} if cursor else {})}
        async with session.get(f"{run.url}/api/v1/calls", params=query, headers=run.headers) as answer:
            page = await answer.json()
        fresh = [call for call in page["results"] if call["id"] not in run.recorded]
        run.recorded.update({call["id"]: call for call in fresh})
        cursor = page["next"] if len(fresh) == len(page["results"]) else None


def _report(run: Run, all_called: tuple[float, int], refused: int, rpm: int) -> None:
    took, requests = all_called
    _check_explanations(run)
    bound = _check_limits(run)
    possible = ACCOUNTS * (rpm // 10 + rpm * took / 60)

    total = sum(run.statuses.values())
    print(
        f"{total:,} calls from {run.clients} clients in {took:.0f} s, load {os.getloadavg()[0]:.1f}: {dict(run.statuses)}"
    )
    cuts = statistics.quantiles(run.waits, n=100)
    waits = Counter(reason.split(":")[0] for call in run.recorded.values() for reason in call["waited_for"])
    print(
        f"waited: {sum(wait > 0 for wait in run.waits):,} calls; p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s, "
        f"longest {max(run.waits):.2f} s; for {dict(waits)}"
    )
    print(
        f"the provider refused {refused}; it got {requests:,} while all clients called: {requests / possible:.1%} of what it allows"
    )
    for group, (admitted, allowed) in bound.items():
        print(f"callers' limit {group}: {admitted:,} calls admitted, {admitted / allowed:.1%} of what it allows")
    print(f"calls recorded {len(run.recorded):,}; faults: {len(run.faults)}")


def _check_explanations(run: Run) -> None:
    """Each wait and each refusal has a reason among the recent calls."""
    for name, (status, waited) in run.answers.items():
        call = run.recorded.get(name)
        if call is None:
            run.faults.append(f"{name}: not among the recent calls")
        elif abs(call["waited"] - waited) > 1e-5 or call["status"] != status:
            run.faults.append(f"{name}: {status} after {waited} s, recorded {call['status']} after {call['waited']} s")
        elif waited > 0 and not call["waited_for"]:
            run.faults.append(f"{name}: waited {waited:.2f} s for no reason")
        elif status != 200 and not call["refusal"].get("code"):
            run.faults.append(f"{name}: {status} for no reason")


def _check_limits(run: Run) -> dict[str, tuple[int, float]]:
    """Check each caller's own limit. By group: how many calls were admitted, and how many its limits allow."""
    admitted: dict[str, list[float]] = defaultdict(list)
    for name, (status, _) in run.answers.items():
        call = run.recorded.get(name)
        if call is not None and status == 200:
            began = datetime.fromisoformat(call["at"]).timestamp()
            admitted[call["user"]].append(began + call["waited"])
    times = [time for one in admitted.values() for time in one]
    took = max(times) - min(times)
    found: dict[str, tuple[int, float]] = {}
    for number in range(run.clients):
        group, moments = run.group_of(number), sorted(admitted[f"u{number}"])
        if not group or not moments:
            continue
        if passed := _CHECKS[group](moments):
            run.faults.append(f"{group} of u{number} was passed: {passed}")
        count, allowed = found.get(group, (0, 0.0))
        found[group] = (count + len(moments), allowed + CAPACITY * took / MINUTE + _AT_ONCE[group])
    return found


def _any_minute(moments: list[float]) -> str:
    """Where more than the capacity was admitted within 60 s."""
    return next(
        (f"{CAPACITY + 1} in {last - first:.2f} s" for first, last in _pairs(moments, CAPACITY) if last - first < MINUTE - NOISE),
        "",
    )  # fmt: skip


def _each_minute(moments: list[float]) -> str:
    """Where more was admitted between two whole minutes; those near the border may belong to either."""
    inside = Counter(moment // MINUTE for moment in moments if NOISE < moment % MINUTE < MINUTE - NOISE)
    return next((f"{count} in one minute" for count in inside.values() if count > CAPACITY), "")


def _bucket(moments: list[float]) -> str:
    """Where more was admitted than the burst and the refill of the time between the first and the last."""
    for start, first in enumerate(moments):
        for count, last in enumerate(moments[start:], 1):
            if count > BURST + (last - first + NOISE) * CAPACITY / MINUTE:
                return f"{count} in {last - first:.2f} s"
    return ""


def _pairs(moments: list[float], distance: int) -> Iterable[tuple[float, float]]:
    return zip(moments, moments[distance:], strict=False)


_CHECKS: dict[str, Callable[[list[float]], str]] = {
    "steady": _any_minute, "hasty": _any_minute, "minutely": _each_minute, "bursty": _bucket,
}  # fmt: skip
_AT_ONCE = {"steady": CAPACITY, "hasty": CAPACITY, "minutely": CAPACITY, "bursty": BURST}
"""What a limit allows on top of its rate in a run."""
