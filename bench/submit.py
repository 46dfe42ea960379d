#!/usr/bin/env python3
"""What accepting jobs costs: one at a time against a bare INSERT, in bulk against RQ's `enqueue_many`.

    python bench/submit.py [--rounds 20] [--single 100] [--bulk 5000] [--submitters 16] [--only together] [--database URL | --postgres]

One at a time: `queues.submit` (validation, the transaction, the wake-up), the same over REST as the answer of
a running instance, and an INSERT of one narrow row, committed, in the same database; the three in turn, p50 and p95 in
milliseconds. In bulk: `submit_specs` with 1,000 jobs a transaction, and over REST, against RQ. Together: 16 processes that
submit to one queue against one, with what the sessions of PostgreSQL wait for. While it is measured the queue is paused and
nothing runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"p50 {1e3 * statistics.median(ordered):6.2f} ms   p95 {1e3 * ordered[int(len(ordered) * 0.95)]:6.2f} ms"


def timed(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


@contextmanager
def instance(url: str, database: str | None) -> Iterator[Any]:
    """A running instance with its queue paused, and this process's Django on the same data."""
    from tests.support.instance import Instance

    environ = {"SLUICE_TASK_MODULES": "bench.tasks", "BENCH_REDIS_URL": url, "REDIS_URL": url}
    environ |= {"SLUICE_LOG_LEVEL": "WARNING"}
    if database:
        environ |= {"DATABASE_URL": database, "SLUICE_SECRET_KEY": "x" * 50}
        environ |= {"SLUICE_CREDENTIAL_KEYS": "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="}
    running = Instance(environ=environ).start()
    try:
        running.manage(
            "apply",
            "-",
            stdin="version: 1\nprojects: [{slug: bench}]\nqueues:\n"
            "  - {name: batch, max_size: 10000000}\n  - {name: unbounded, max_size: null}\n",
        )
        http = running.client()
        for queue in ("batch", "unbounded"):
            http.post(f"/api/v1/queues/{queue}/pause", json={"reason": "benchmark"}).raise_for_status()
        os.environ |= {
            **environ,
            "SLUICE_DATA_DIR": str(running.data_dir),
            "DJANGO_SETTINGS_MODULE": "controlplane.settings",
        }
        import django

        django.setup()
        yield running
    finally:
        running.remove()


def one_by_one(running: Any, rounds: int, each: int) -> None:
    from django.db import connection, transaction

    from queues import submit

    http = running.client()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_bare (id INTEGER PRIMARY KEY, what TEXT)" if connection.vendor == "sqlite"
                       else "CREATE TABLE bench_bare (id SERIAL PRIMARY KEY, what TEXT)")  # fmt: skip

    def insert() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("INSERT INTO bench_bare (what) VALUES (%s)", ["nothing"])

    def rest() -> None:
        http.post("/api/v1/jobs", json={"type": "bench.nothing", "project": "bench"}).raise_for_status()

    ways: dict[str, Callable[[], Any]] = {
        "bare INSERT": insert,
        "queues.submit": lambda: submit("bench.nothing", project="bench"),
        "POST /jobs": rest,
    }
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for call in ways.values():
        for _ in range(20):
            call()
    for _ in range(rounds):
        for name, call in ways.items():
            seen[name] += [timed(call) for _ in range(each)]
    base = sorted(seen["bare INSERT"])
    for name, seconds in seen.items():
        ratio = statistics.median(seconds) / statistics.median(base)
        p95 = sorted(seconds)[int(len(seconds) * 0.95)] / base[int(len(base) * 0.95)]
        print(f"one by one   {name:16} {spread(seconds)}   {ratio:5.2f} × the INSERT, at p95 {p95:5.2f} ×")


def in_bulk(running: Any, url: str, rounds: int, count: int) -> None:
    import redis
    import rq

    from queues.services.submit import submit_specs
    from queues.specs import read_job
    from quotas.models import Project

    project = Project.objects.get(slug="bench")
    http = running.client()
    http.timeout = 120
    line = {"type": "bench.nothing", "project": "bench"}

    def ours() -> None:
        for start in range(0, count, 1000):
            submit_specs(project, [read_job(dict(line)) for _ in range(min(1000, count - start))])

    def rest() -> None:
        http.post("/api/v1/jobs/bulk", json={"jobs": [line] * count}).raise_for_status()

    belt = rq.Queue("bench-peer", connection=redis.Redis.from_url(url))

    def theirs() -> None:
        belt.enqueue_many([rq.Queue.prepare_data("bench.peers.work", result_ttl=0) for _ in range(count)])
        belt.delete()

    rates: dict[str, list[float]] = {"rq enqueue_many": [], "submit_specs": [], "POST /jobs/bulk": []}
    for _ in range(rounds):
        rates["rq enqueue_many"].append(count / timed(theirs))
        rates["submit_specs"].append(count / timed(ours))
        rates["POST /jobs/bulk"].append(count / timed(rest))
    base = statistics.median(rates["rq enqueue_many"])
    for name, found in rates.items():
        median = statistics.median(found)
        print(f"in bulk      {name:16} {median:8,.0f} jobs/s   {median / base:5.2f} × RQ")


def resident(running: Any) -> None:
    """The memory of a worker process of the lane `io`, after it has run some jobs."""
    http = running.client()
    http.post("/api/v1/queues/batch/resume", json={"reason": "benchmark"}).raise_for_status()
    time.sleep(10)
    for pid in running.pids("worker-io"):
        status = Path(f"/proc/{pid}/status").read_text()
        kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
        pss = subprocess.run(["grep", "^Pss:", f"/proc/{pid}/smaps_rollup"], capture_output=True, text=True).stdout
        print(
            f"memory       worker-io        {kib / 1024:6.1f} MiB resident, {int(pss.split()[1]) / 1024:.1f} MiB of its own share"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--single", type=int, default=50, help="jobs one by one in each round")
    parser.add_argument("--bulk", type=int, default=5000, help="jobs in each bulk, 10,000 at most")
    parser.add_argument("--submitters", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each measurement of submitters together")
    parser.add_argument("--only", default="one,bulk,together,memory", help="the parts that are run")
    parser.add_argument("--database", default=None, help="a PostgreSQL URL; by default SQLite")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of its own, started here")
    options = parser.parse_args()
    from bench.drain import sql
    from bench.submitters import together
    from tests.support.valkey import run_server, valkey_binary

    with (
        run_server(valkey_binary()) as server,
        sql(options) as database,
        instance(server.url, database) as running,
    ):
        parts = options.only.split(",")
        if "one" in parts:
            one_by_one(running, options.rounds, options.single)
        if "bulk" in parts:
            in_bulk(running, server.url, max(options.rounds // 5, 3), options.bulk)
        if "together" in parts:
            together(running, database, options.submitters, options.seconds)
        if "memory" in parts:
            resident(running)


if __name__ == "__main__":
    main()
