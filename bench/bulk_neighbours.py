#!/usr/bin/env python3
"""What a large bulk costs those who submit beside it.

    python bench/bulk_neighbours.py [--rounds 3] [--bulk 10000] [--database URL | --postgres]

Jobs are submitted one by one, first alone and then while a bulk with `unique_for` is accepted over REST: over REST,
through the same web server, and from Python, in a process of its own, which shares nothing with the bulk but the
database. Latencies p50, p95 and worst in milliseconds. The queue is paused and nothing runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.submit import instance, timed  # noqa: E402


def line(name: str, seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p50, p95 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)]
    return f"{name:34} {len(ordered):5} submits   p50 {1e3 * p50:6.1f} ms   p95 {1e3 * p95:6.1f} ms   worst {1e3 * ordered[-1]:6.1f} ms"


def beside(submit: Callable[[], object], bulk: Callable[[], float]) -> tuple[list[float], float]:
    """Latencies of single submits, one after the other, for as long as the bulk takes; and the bulk's time."""
    took: list[float] = []
    thread = threading.Thread(target=lambda: took.append(bulk()))
    seen = []
    thread.start()
    while thread.is_alive():
        seen.append(timed(submit))
        time.sleep(0.005)
    thread.join()
    return seen, took[0]


def alone(submit: Callable[[], object], count: int) -> list[float]:
    seen = []
    for _ in range(count):
        seen.append(timed(submit))
        time.sleep(0.005)
    return seen


def measure(running: Any, rounds: int, count: int) -> None:
    from queues import submit

    http, bulk_http = running.client(), running.client()
    bulk_http.timeout = 300
    number = iter(range(10**9))

    def bulk() -> Callable[[], float]:
        """A bulk that is ready to be sent: encoding it here would delay the thread that measures."""
        begin = next(number) * count
        jobs = [
            {"type": "bench.nothing", "unique_for": 600, "unique_key": f"u{begin + one}", "payload": {}}
            for one in range(count)
        ]
        body = {"batch": {"name": "bench"}, "jobs": [{**job, "project": "bench"} for job in jobs]}
        headers, content = {"Content-Type": "application/json"}, json.dumps(body).encode()
        return lambda: timed(
            lambda: bulk_http.post("/api/v1/jobs/bulk", content=content, headers=headers).raise_for_status()
        )

    ways: dict[str, Callable[[], object]] = {
        "REST": lambda: http.post(
            "/api/v1/jobs", json={"type": "bench.nothing", "project": "bench"}
        ).raise_for_status(),
        "Python": lambda: submit("bench.nothing", project="bench"),
    }
    for name, way in ways.items():
        alone(way, 20)
        print(line(f"{name}, alone", alone(way, 200)))
        seen, took = [], []
        for _ in range(rounds):
            more, seconds = beside(way, bulk())
            seen += more
            took.append(seconds)
        print(line(f"{name}, beside a bulk of {count:,}", seen), f"  (bulk: {min(took):.1f}–{max(took):.1f} s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bulk", type=int, default=10_000)
    parser.add_argument("--database", default=None, help="a PostgreSQL URL; by default SQLite")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of its own, started here")
    options = parser.parse_args()
    from bench.drain import sql
    from tests.support.valkey import run_server, valkey_binary

    with (
        run_server(valkey_binary()) as server,
        sql(options) as database,
        instance(server.url, database) as running,
    ):
        measure(running, options.rounds, options.bulk)


if __name__ == "__main__":
    main()
