"""The batch: real documents through four accounts with request and token limits, paused at a threshold, with kills.

    python -m bench.scenarios.batch [--jobs 42888] [--rpm 4500]

Descriptions of Debian's packages (`apt-cache dumpavail`, from the start again where there are fewer) become chat
completions at a local provider that enforces its limits per key. A policy of the project pauses everything from 80 % of
each minute's budget on. A worker is killed with -9 in the middle, the leading dispatcher while everything is paused.
The baseline is the arithmetic: the accounts' rate and bursts, and what the policy allows of each minute.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from bench.package_jobs import ANSWER_TOKENS, job, packages
from bench.pause_gate import arithmetic
from bench.scenarios.chart import draw
from bench.scenarios.scene import CHARTS, Sampler, Watch, report, started, upstream
from controlplane import parent_death
from tests.integration.controlplane.simulator.process import Simulator
from tests.support.instance import Instance

ROOT = Path(__file__).resolve().parents[2]
ACCOUNTS = 4
PAUSE_AT = 0.8
WINDOW = 60
KEYS = {f"BENCH_KEY_{number}": f"bench-key-{number}" for number in range(1, ACCOUNTS + 1)}


def configuration(url: str, rpm: int, tpm: int, burst: int, budget: int) -> str:
    limits = [
        {"unit": "requests", "algorithm": "token_bucket", "limit": rpm, "window": "60s", "burst": burst - burst // 6},
        {"unit": "tokens", "algorithm": "token_bucket", "limit": tpm, "window": "60s", "burst": tpm // 12},
    ]
    accounts = [{"name": f"a{number}", "credential_env": name} for number, name in enumerate(KEYS, 1)]
    pool = {"name": "llm", "provider": "sim", "strategy": "round_robin", "pause_at": None, "limits": limits}
    policy = {
        "name": "budget", "scope": "project", "project": "bench", "unit": "requests", "algorithm": "fixed_window",
        "limit": budget, "window": f"{WINDOW}s", "pause_at": PAUSE_AT, "pause": "all",
    }  # fmt: skip
    return yaml.safe_dump(
        {
            "version": 1,
            "projects": [{"slug": "bench"}],
            "providers": [{"name": "sim", "dialect": "openai", "base_url": url}],
            "pools": [{**pool, "accounts": accounts}],
            "queues": [{"name": "batch", "pool": "llm", "timeout": "60s", "max_size": None}],
            "policies": [policy],
        }
    )


def documents(count: int) -> str:
    """Lines for `manage.py submit`."""
    listing = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, errors="replace", check=True)
    known = [job(package, "llm", "gpt-4o-mini") for package in packages(listing.stdout.splitlines(keepends=True))]
    lines = []
    for number, one in zip(range(count), itertools.cycle(known), strict=False):
        lines.append(json.dumps({**one, "idempotency_key": f"real-{number}"}).replace("\\u0000", ""))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=42_888)
    parser.add_argument("--rpm", type=int, default=3600, help="requests a minute of each account")
    given = parser.parse_args()
    burst, tpm = given.rpm // 10, given.rpm * 600
    rate = ACCOUNTS * given.rpm / 60
    budget = round(rate * WINDOW)
    keys = [f"{key}:rpm={given.rpm},tpm={tpm},burst={burst},tpm_burst={tpm // 10}" for key in KEYS.values()]
    text = documents(given.jobs)
    with (
        Simulator("--latency", "50", "--key", *keys) as simulator,
        started(environ=KEYS) as instance,
        tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file,
    ):
        instance.manage("apply", "-", stdin=configuration(simulator.base_url, given.rpm, tpm, burst, budget))
        standby = subprocess.Popen(
            [sys.executable, "manage.py", "dispatch"],
            cwd=ROOT,
            env=instance.environ,
            preexec_fn=parent_death.in_child(),
        )
        try:
            file.write(text)
            file.flush()
            with instance.client() as http:
                http.post("/api/v1/queues/batch/pause", json={"reason": "benchmark"}).raise_for_status()
                submitted = time.monotonic()
                subprocess.run(
                    [sys.executable, "manage.py", "submit", file.name, "--project", "bench", "--queue", "batch"],
                    cwd=ROOT, env=instance.environ, check=True, capture_output=True,
                )  # fmt: skip
                submitted = time.monotonic() - submitted
                http.post("/api/v1/queues/batch/resume", json={"reason": "benchmark"}).raise_for_status()
            follow(instance, simulator, given.jobs, rate, burst, budget, submitted)
        finally:
            standby.kill()
            standby.wait()


def follow(
    instance: Instance, simulator: Simulator, jobs: int, rate: float, burst: int, budget: int, submitted: float
) -> None:
    watch = Watch(instance)
    marks: dict[float, str] = {}
    looks, last = 0, 0
    with Sampler(lambda: float(simulator.stats()["succeeded"])) as sampler:
        since = time.monotonic()
        while True:
            totals = watch.totals()
            looks += 1
            if totals.total() != jobs:
                raise SystemExit(f"the states don't add up: {totals}")
            ended = totals["completed"] + totals["dead"] + totals["cancelled"]
            if ended == jobs:
                break
            at = time.monotonic() - sampler.began
            if ended != last:
                last, since = ended, time.monotonic()
            if "worker" not in str(marks) and ended > jobs // 10:
                marks[at] = "worker killed"
                instance.kill_child("worker-io")
            if "leader" not in str(marks) and ended and time.monotonic() - since > 2.0:
                marks[at] = "leader killed, paused"
                os.kill(watch.leader(), signal.SIGKILL)
            if time.monotonic() - since > 300:
                raise SystemExit(f"nothing has ended for five minutes: {totals}")
            time.sleep(0.25)
    ((first, end, deliveries, attempts),) = watch.rows(
        "SELECT min((julianday(first_started_at) - 2440587.5) * 86400), max((julianday(finished_at) - 2440587.5) * 86400),"
        " sum(delivery), sum(attempts_made) FROM queues_job"
    )
    least = arithmetic(jobs, rate, ACCOUNTS * burst, WINDOW, round(budget * PAUSE_AT), first)
    ((doubled,),) = watch.rows(
        "SELECT count(*) FROM (SELECT job_id FROM queues_attempt WHERE outcome = 'succeeded' GROUP BY job_id HAVING count(*) > 1)"
    )
    report(
        f"{jobs:,} documents, {ACCOUNTS} accounts of {rate * 60 / ACCOUNTS:.0f} requests a minute, {ANSWER_TOKENS} tokens an answer",
        {
            "accepted in": f"{submitted:.1f} s ({jobs / submitted:,.0f} a second)",
            "took": f"{end - first:.1f} s = {(end - first) / least:.3f} × the arithmetic {least:.1f} s",
            "completed, dead": f"{totals['completed']:,}, {totals['dead']}",
            "lost": jobs - totals.total(),
            "counted twice": doubled,
            "deliveries, attempts per job": f"{deliveries / jobs:.4f}, {attempts / jobs:.4f}",
            "looks at the states, each added up": looks,
            **upstream(simulator),
        },
    )
    draw(
        CHARTS / "batch.svg",
        f"{jobs:,} documents through {ACCOUNTS} accounts",
        "calls a second",
        {"answered": sampler.rates()},
        marks,
    )


if __name__ == "__main__":
    main()
