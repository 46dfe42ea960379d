#!/usr/bin/env python3
"""Jobs under a quota against the arithmetic time, and how often each was delivered.

    python bench/gate.py [--jobs 6000] [--rate 200] [--rounds 1]

A project's policy admits `rate` jobs a second (token bucket, burst of a tenth of a second). The baseline is the arithmetic
time: (jobs - burst) / rate. One delivery per job means that no attempt was spent on a known limit.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.instance import Instance  # noqa: E402
from tests.support.valkey import run_server, valkey_binary  # noqa: E402

CONFIG = """
version: 1
projects: [{{slug: bench}}]
policies:
  - {{name: gate, scope: project, project: bench, unit: requests, algorithm: token_bucket, limit: {rate}, window: 1s, burst: {burst}}}
"""


def one_round(instance: Instance, jobs: int, rate: int, burst: int) -> tuple[float, float, float]:
    """Ratio to the arithmetic time, deliveries per job, seconds."""
    http = instance.client()
    http.post("/api/v1/queues/batch/pause", json={"reason": "benchmark"}).raise_for_status()
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(
            "".join(
                json.dumps({"type": "bench.nothing", "idempotency_key": f"{time.time_ns()}-{n}"}) + "\n"
                for n in range(jobs)
            )
        )
        file.flush()
        batch = instance.manage("submit", file.name, "--project", "bench").stdout.split("batch ")[-1].split(":")[0]
    time.sleep(1.0)
    http.post("/api/v1/queues/batch/resume", json={"reason": "benchmark"}).raise_for_status()
    with sqlite3.connect(instance.data_dir / "sluice.sqlite3", timeout=20) as sql:
        where = "WHERE batch_id = (SELECT id FROM queues_batch WHERE uid = ?)"
        while sql.execute(f"SELECT count(*) FROM queues_job {where} AND stage <> 5", (batch,)).fetchone()[0]:  # noqa: S608
            time.sleep(0.1)
        first, last, deliveries = sql.execute(
            f"SELECT min(julianday(first_started_at)), max(julianday(finished_at)), sum(delivery) FROM queues_job {where}",  # noqa: S608
            (batch,),
        ).fetchone()
    seconds = (last - first) * 86400
    return seconds / ((jobs - burst) / rate), deliveries / jobs, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=6000)
    parser.add_argument("--rate", type=int, default=200, help="jobs a second")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    burst = max(options.rate // 10, 1)
    with run_server(valkey_binary()) as server:
        environ = {"SLUICE_TASK_MODULES": "bench.tasks", "BENCH_REDIS_URL": server.url, "SLUICE_LOG_LEVEL": "WARNING"}
        instance = Instance(environ=environ).start()
        try:
            instance.manage("apply", "-", stdin=CONFIG.format(rate=options.rate, burst=burst))
            print(
                f"{options.jobs} jobs under {options.rate}/s; arithmetic: {(options.jobs - burst) / options.rate:.1f} s"
            )
            for _ in range(options.rounds):
                ratio, deliveries, seconds = one_round(instance, options.jobs, options.rate, burst)
                print(f"took {seconds:.1f} s: {ratio:.3f} × the arithmetic time, {deliveries:.3f} deliveries per job")
        finally:
            instance.remove()


if __name__ == "__main__":
    main()
