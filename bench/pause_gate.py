#!/usr/bin/env python3
"""Real input under a quota with a threshold pause, and the leading dispatcher killed while paused.

    python bench/pause_gate.py [--jobs 42888] [--rate 400] [--window 60]

Descriptions of Debian's packages (`apt-cache dumpavail`, from the start again where there are fewer) become jobs of one
project. Two policies limit it: a token bucket of `rate` a second, and a fixed window that pauses everything from 80 % on,
which the bucket reaches at 80 % of each window. At the first pause the leader is killed with -9; a standby takes over.

The baseline is the arithmetic time of both policies from the first start on. It also prints: deliveries per job (1.0 means
that no release was in vain), and that the states add up whenever they are looked at.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.package_jobs import packages  # noqa: E402
from controlplane import parent_death  # noqa: E402
from tests.support.instance import Instance  # noqa: E402

PAUSE_AT = 0.8
CONFIG = """
version: 1
projects: [{{slug: bench}}]
policies:
  - {{name: gate, scope: project, project: bench, unit: requests, algorithm: token_bucket, limit: {rate}, window: 1s, burst: {burst}}}
  - {{name: budget, scope: project, project: bench, unit: requests, algorithm: fixed_window, limit: {limit}, window: {window}s, pause_at: {pause_at}, pause: all}}
"""


def real_jobs(count: int) -> list[str]:
    """Lines for `manage.py submit`."""
    listing = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, errors="replace", check=True)
    known = list(packages(listing.stdout.splitlines(keepends=True)))
    lines = []
    for number, package in zip(range(count), itertools.cycle(known), strict=False):
        payload = {"name": package["name"], "description": package["description"].replace("\x00", "")}
        lines.append(json.dumps({"type": "bench.describe", "payload": payload, "idempotency_key": f"real-{number}"}))
    return lines


def arithmetic(jobs: int, rate: float, burst: int, window: float, allowed: int, begun: float) -> float:
    """Seconds that both policies need at least, from `begun` on: windows are aligned to 1970."""
    at, left = begun, float(jobs)
    while True:
        end = (at // window + 1) * window
        here = min(left, allowed, rate * (end - at) + burst)
        left -= here
        if left <= 0:
            return at + max(here - burst, 0) / rate - begun
        at = end


class Watch:
    """Reads SQL with one statement each time, so that all values are of one moment."""

    def __init__(self, instance: Instance) -> None:
        self.sql = sqlite3.connect(f"file:{instance.data_dir}/sluice.sqlite3?mode=ro", uri=True, timeout=30)
        self.looks = 0

    def totals(self, jobs: int) -> dict[str, int]:
        found = dict(self.sql.execute("SELECT status, count(*) FROM queues_job GROUP BY status").fetchall())
        self.looks += 1
        if sum(found.values()) != jobs:
            raise SystemExit(f"the states don't add up: {found}")
        return found

    def leader(self) -> int:
        ((holder,),) = self.sql.execute("SELECT holder FROM queues_leadership").fetchall()
        return int(holder.rpartition("-")[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=42_888)
    parser.add_argument("--rate", type=int, default=400, help="jobs a second")
    parser.add_argument("--window", type=int, default=60, help="seconds of the budget's window")
    options = parser.parse_args()
    burst, limit = max(options.rate // 10, 1), options.rate * options.window
    environ = {"SLUICE_TASK_MODULES": "bench.tasks", "BENCH_REDIS_URL": "unset", "SLUICE_LOG_LEVEL": "WARNING"}
    instance = Instance(environ=environ).start()
    standby = subprocess.Popen(
        [sys.executable, "manage.py", "dispatch"], cwd=ROOT, env=instance.environ, preexec_fn=parent_death.in_child()
    )
    try:
        config = CONFIG.format(rate=options.rate, burst=burst, limit=limit, window=options.window, pause_at=PAUSE_AT)
        instance.manage("apply", "-", stdin=config)
        with instance.client() as http, tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.write("\n".join(real_jobs(options.jobs)))
            file.flush()
            http.post("/api/v1/queues/batch/pause", json={"reason": "benchmark"}).raise_for_status()
            done = subprocess.run(
                [sys.executable, "manage.py", "submit", file.name, "--project", "bench"], cwd=ROOT,
                env=instance.environ, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(done.stderr)
            http.post("/api/v1/queues/batch/resume", json={"reason": "benchmark"}).raise_for_status()
        follow(instance, options.jobs, options.rate, burst, options.window, round(limit * PAUSE_AT))
    finally:
        standby.kill()
        standby.wait()
        instance.remove()


def follow(instance: Instance, jobs: int, rate: int, burst: int, window: int, allowed: int) -> None:
    watch, killed = Watch(instance), ""
    last, since = 0, time.monotonic()
    while True:
        totals = watch.totals(jobs)
        completed = totals.get("completed", 0)
        if completed == jobs:
            break
        if completed != last:
            last, since = completed, time.monotonic()
        elif not killed and completed and time.monotonic() - since > 2.0:
            leader = watch.leader()
            os.kill(leader, signal.SIGKILL)
            killed = f"leader {leader} killed at {completed:,} completed, while paused"
            print(killed, flush=True)
        if time.monotonic() - since > 300:
            raise SystemExit(f"nothing has ended for five minutes: {totals}")
        time.sleep(0.25)
    first, last_end, deliveries, attempts = watch.sql.execute(
        "SELECT min((julianday(first_started_at) - 2440587.5) * 86400), max((julianday(finished_at) - 2440587.5) * 86400),"
        " sum(delivery), sum(attempts_made) FROM queues_job"
    ).fetchone()
    took = last_end - first
    baseline = arithmetic(jobs, rate, burst, window, allowed, first)
    print(f"{jobs:,} jobs of real input under {rate}/s, paused from {allowed:,} of each {window} s on")
    print(f"took {took:.1f} s: {took / baseline:.3f} × the arithmetic time of {baseline:.1f} s")
    print(
        f"{deliveries / jobs:.4f} deliveries per job, {attempts / jobs:.4f} attempts; {watch.looks} looks, each added up"
    )
    if not killed:
        print("it was never paused, so no process was killed: choose a lower rate or a shorter window")


if __name__ == "__main__":
    main()
