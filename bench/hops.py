#!/usr/bin/env python3
"""Where the time goes from a submit to the start of its job, hop by hop, on an idle system.

    python -m bench.hops [--jobs 100] [--pause 0.1] [--shape sqlite|postgres]

One job at a time, from Python and over REST, with a pause between two, so that all processes are asleep when it arrives;
by default on SQLite with the embedded Valkey, then on PostgreSQL (fsync on) with a Redis of its own. The times are
those of the trace points in `queues.hops`. Each line is the time from the point before. It is below zero where the next
process passes its point before the sender passes the one before; the last line is the sum.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import redis

from bench.hop_log import DIRECTORY, read_hops
from queues import hops
from tests.support.instance import Instance
from tests.support.postgres import run_postgres
from tests.support.valkey import run_server, valkey_binary

STARTED = "bench:started"
SHAPES = {"sqlite": "SQLite and the embedded Valkey", "postgres": "PostgreSQL and a separate Redis"}
SECRETS = {"SLUICE_SECRET_KEY": "x" * 50, "SLUICE_CREDENTIAL_KEYS": "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="}
Submits = dict[str, Callable[[], object]]


@contextmanager
def instance(shape: str, url: str, directory: str) -> Iterator[Submits]:
    """A running instance and the ways to submit; this process is on its database, too."""
    environ = {
        "SLUICE_TASK_MODULES": "bench.tasks", "BENCH_REDIS_URL": url, "SLUICE_LOG_LEVEL": "WARNING", DIRECTORY: directory,
    }  # fmt: skip
    with ExitStack() as stack:
        if shape == "postgres":
            database = stack.enter_context(run_postgres("fsync=on"))
            environ |= {**SECRETS, "DATABASE_URL": database, "REDIS_URL": url}
        ours = Instance(environ=environ).start()
        stack.callback(ours.remove)
        ours.manage("apply", "-", stdin="version: 1\nprojects: [{slug: bench}]\n")
        os.environ |= {**ours.environ, "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
        import django

        django.setup()
        from queues import submit

        http = ours.client()
        body = {"type": "bench.stamp", "project": "bench"}
        yield {
            "Python": lambda: submit("bench.stamp", project="bench"),
            "REST": lambda: http.post("/api/v1/jobs", json=body).raise_for_status(),
        }


def submit_each(client: redis.Redis, submit: Callable[[], object], jobs: int, pause: float) -> list[int]:
    """Submit one job after the other; the moments just before, and one after the last, in nanoseconds."""
    client.delete(STARTED)
    begun = []
    for _ in range(jobs):
        time.sleep(pause)
        begun.append(time.monotonic_ns())
        submit()
        if client.blpop([STARTED], timeout=30) is None:
            raise TimeoutError("a job did not start within 30 s")
    return [*begun, time.monotonic_ns()]


def lives(begun: Sequence[int], found: Sequence[tuple[int, str]]) -> list[list[float]]:
    """For each job the milliseconds of its hops: the first time of each point after its submit began."""
    rows = []
    for start, end in pairwise(begun):
        first: dict[str, int] = {}
        for moment, name in found:
            if start <= moment < end:
                first.setdefault(name, moment)
        if len(first) == len(hops.POINTS):
            rows.append([(b - a) / 1e6 for a, b in pairwise([start, *(first[name] for name in hops.POINTS)])])
    return rows


def show(title: str, rows: Sequence[Sequence[float]], jobs: int) -> None:
    """Print the table of one way to submit."""
    print(f"\n{title}: {len(rows)} of {jobs} jobs passed all points\n{'ms':22}{'p50':>8}{'p95':>8}")
    columns = [*zip(*rows, strict=True), [sum(row) for row in rows]]
    for name, column in zip([*hops.POINTS, "submit to start"], columns, strict=True):
        values = sorted(column)
        print(f"{name:22}{statistics.median(values):8.2f}{values[int(len(values) * 0.95)]:8.2f}")


def measure(shape: str, jobs: int, pause: float) -> None:
    """Run one shape in this process."""
    with run_server(valkey_binary()) as server, tempfile.TemporaryDirectory() as directory:
        client = redis.Redis.from_url(server.url)
        with instance(shape, server.url, directory) as submits:
            for name, submit in submits.items():
                submit_each(client, submit, 5, pause)
                begun = submit_each(client, submit, jobs, pause)
                show(f"{name}, {SHAPES[shape]}", lives(begun, read_hops(Path(directory))), jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two jobs")
    parser.add_argument("--shape", choices=SHAPES, default=None, help="by default both")
    options = parser.parse_args()
    if options.shape:
        measure(options.shape, options.jobs, options.pause)
        return
    for shape in SHAPES:  # each in a process of its own: Django has one database
        command = [sys.executable, "-m", "bench.hops", "--shape", shape]
        subprocess.run([*command, "--jobs", str(options.jobs), "--pause", str(options.pause)], check=True)


if __name__ == "__main__":
    main()
