"""The callers: 1,000 connections check limits over REST for a minute.

    python -m bench.scenarios.callers [--callers 1000] [--rate 1.0] [--seconds 60]

Each caller has a connection of its own, a user of its own, and makes `rate` checks a second, at random moments. Beside
it, this process checks limits through Python, and submits a job and reads a queue's state each second. Every refusal must
be a limit's: what a user was allowed is compared with the limit of its policy.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import threading
import time
from collections import Counter

import aiohttp

from bench.scenarios.chart import draw
from bench.scenarios.scene import CHARTS, percentile, report, started

LIMIT = 50
"""Checks a minute of one user; with the default rate a few users exceed it."""
CONFIGURATION = f"""
version: 1
projects: [{{slug: bench}}]
policies:
  - {{name: user-minute, scope: user, unit: requests, algorithm: fixed_window, limit: {LIMIT}, window: 60s}}
"""


class Load:
    """The responses that the callers got."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.at: list[tuple[float, float]] = []
        self.answers: Counter[int] = Counter()
        self.allowed: Counter[tuple[str, int]] = Counter()
        self.refused: Counter[tuple[str, int]] = Counter()
        self.errors: Counter[str] = Counter()

    async def caller(self, session: aiohttp.ClientSession, url: str, user: str, rate: float, until: float) -> None:
        chance = random.Random(user)
        body = {"project": "bench", "user": user, "cost": {"requests": 1}}
        await asyncio.sleep(chance.random() / rate)
        while time.monotonic() < until:
            begun = time.perf_counter()
            try:
                async with session.post(url, json=body) as answer:
                    await answer.read()
                    window = int(time.time() // 60)
                    self.answers[answer.status] += 1
                    if answer.status == 200:
                        self.allowed[user, window] += 1
                    elif answer.status == 429:
                        self.refused[user, window] += 1
            except aiohttp.ClientError as error:
                self.errors[type(error).__name__] += 1
            took = time.perf_counter() - begun
            self.seconds.append(took)
            self.at.append((time.monotonic(), took))
            await asyncio.sleep(chance.expovariate(rate))


async def load(url: str, key: str, callers: int, rate: float, seconds: float) -> Load:
    found = Load()
    connector = aiohttp.TCPConnector(limit=callers)
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        until = time.monotonic() + seconds
        names = [f"user-{number}" for number in range(callers)]
        await asyncio.gather(
            *(found.caller(session, f"{url}/api/v1/limits/check", name, rate, until) for name in names)
        )
    return found


class Beside:
    """A thread that uses the limiter and the queue at the same time, as other programs do."""

    def __init__(self) -> None:
        self.checks: list[float] = []
        self.operations: list[float] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Beside:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        from queues import submit
        from queues.models import Queue
        from queues.selectors.queues import queue_facts
        from quotas import limits

        begin = time.monotonic()
        while not self._ending.is_set():
            begun = time.perf_counter()
            limits.check(project="bench", user=f"beside-{len(self.checks) % 100}")
            self.checks.append(time.perf_counter() - begun)
            if time.monotonic() - begin > 0.2:
                begin = time.monotonic()
                begun = time.perf_counter()
                submit("bench.nothing", project="bench")
                self.operations.append(time.perf_counter() - begun)
                begun = time.perf_counter()
                queue_facts(Queue.objects.get(name="batch"))
                self.operations.append(time.perf_counter() - begun)
            time.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=0.75, help="checks a second of each caller")
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4 * given.callers), hard), hard))
    environ = {"SLUICE_TASK_MODULES": "bench.tasks", "BENCH_REDIS_URL": "unset"}
    with started(environ=environ) as instance:
        instance.manage("apply", "-", stdin=CONFIGURATION)
        os.environ |= {
            **environ, "SLUICE_DATA_DIR": str(instance.data_dir), "DJANGO_SETTINGS_MODULE": "controlplane.settings",
        }  # fmt: skip
        import django

        django.setup()
        with instance.client() as http:
            http.post("/api/v1/queues/batch/pause", json={"reason": "benchmark"}).raise_for_status()
        begun = time.monotonic()
        with Beside() as beside:
            found = asyncio.run(
                load(instance.url, instance.credentials["platform_key"], given.callers, given.rate, given.seconds)
            )
    wrong = [who for who, count in found.allowed.items() if count > LIMIT]
    early = [who for who in found.refused if found.allowed[who] < LIMIT - 2]
    report(
        f"{given.callers:,} callers, {given.rate:g} checks a second each, {given.seconds:g} s",
        {
            "checks a second": f"{len(found.seconds) / given.seconds:,.0f}",
            "p50, p99, worst": ", ".join(
                f"{1e3 * value:.1f}"
                for value in (percentile(found.seconds, 0.5), percentile(found.seconds, 0.99), max(found.seconds))
            ) + " ms",
            "answers": dict(found.answers),
            "errors of connections": dict(found.errors),
            "users allowed more than their limit": len(wrong),
            "users refused below their limit": len(early),
            "the limiter beside it, p50, p99": f"{1e3 * percentile(beside.checks, 0.5):.2f}, {1e3 * percentile(beside.checks, 0.99):.2f} ms",
            "operations on queues beside it, p95": f"{1e3 * percentile(beside.operations, 0.95):.1f} ms",
        },
    )  # fmt: skip
    whole = int(given.seconds)
    in_second = [[took for at, took in found.at if int(at - begun) == second] for second in range(whole)]
    lines = {
        "p50": [(float(second), 1e3 * percentile(took, 0.5)) for second, took in enumerate(in_second) if took],
        "p99": [(float(second), 1e3 * percentile(took, 0.99)) for second, took in enumerate(in_second) if took],
    }
    draw(CHARTS / "callers.svg", f"{given.callers:,} callers of REST checks", "milliseconds", lines)


if __name__ == "__main__":
    main()
