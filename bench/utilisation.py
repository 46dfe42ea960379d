#!/usr/bin/env python3
"""How much of an upstream's limit jobs use: real workers, a provider that enforces, estimates that are wrong.

    python bench/utilisation.py [--jobs 2000] [--rpm 600] [--tpm 60000] [--burst 60] [--only configured|learned]

Four accounts at the simulator, requests and tokens limited. Each job is an `http.request` whose estimate of tokens is
between a third and three times of what it will use. Once with the limits configured (`pause_at: null`), once with none
at all, so that they are learned from the answers' headers. The baseline is the arithmetic time: what is left after the
provider's bursts (of tokens a tenth of a minute's), at its rate. Our own bursts are set a sixth below. Prints the share of it that was used, and how many calls the provider refused.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402

from tests.integration.controlplane.simulator.process import Simulator  # noqa: E402
from tests.support.instance import Instance  # noqa: E402

ACCOUNTS = 4
ROOM = 40
"""The most tokens of an answer."""


def configuration(url: str, limits: list[dict[str, Any]]) -> str:
    accounts = [{"name": f"a{number}", "credential_env": f"BENCH_KEY_{number}"} for number in range(1, ACCOUNTS + 1)]
    pool = {"name": "llm", "provider": "sim", "strategy": "round_robin", "pause_at": None, "limits": limits}
    queue = {"name": "batch", "pool": "llm", "timeout": "60s", "max_size": None}
    return yaml.safe_dump(
        {
            "version": 1,
            "projects": [{"slug": "bench"}],
            "providers": [{"name": "sim", "dialect": "openai", "base_url": url}],
            "pools": [{**pool, "accounts": accounts}],
            "queues": [queue],
        }
    )


def jobs_of(count: int) -> str:
    """As lines for `submit`. The estimate is wrong by up to three times, in both directions."""
    chance = random.Random(5)
    lines = []
    for number in range(count):
        prompt = "word " * chance.randint(8, 120)
        used = len(prompt) / 4 + ROOM
        estimate = max(1, round(used * 3 ** chance.uniform(-1, 1)))
        body = {"model": "gpt-4o-mini", "max_tokens": ROOM, "messages": [{"role": "user", "content": prompt}]}
        payload = {"method": "POST", "path": "/v1/chat/completions", "json": body}
        lines.append(
            json.dumps(
                {
                    "type": "http.request",
                    "payload": payload,
                    "cost": {"tokens": estimate},
                    "idempotency_key": f"u-{number}",
                }
            )
        )
    return "\n".join(lines) + "\n"


def one(name: str, jobs: int, rpm: int, tpm: int, burst: int, latency: int) -> None:
    bounds = [
        {"unit": "requests", "algorithm": "token_bucket", "limit": rpm, "window": "60s", "burst": burst - burst // 6},
        {"unit": "tokens", "algorithm": "token_bucket", "limit": tpm, "window": "60s", "burst": tpm // 12},
    ]
    token_burst = tpm // 10
    environ = {f"BENCH_KEY_{number}": f"bench-key-{number}" for number in range(1, ACCOUNTS + 1)}
    keys = [f"{key}:rpm={rpm},tpm={tpm},burst={burst},tpm_burst={token_burst}" for key in environ.values()]
    flags = ["--latency", str(latency), "--key", *keys]
    with Simulator(*flags) as sim, tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(jobs_of(jobs))
        file.flush()
        instance = Instance(environ={**environ, "SLUICE_LOG_LEVEL": "WARNING"}).start()
        try:
            document = configuration(sim.base_url, bounds if name == "configured" else [])
            instance.manage("apply", "-", stdin=document)
            with instance.client() as http:
                paused = http.post("/api/v1/queues/batch/pause", json={"reason": "benchmark"})
                paused.raise_for_status()
                batch = instance.manage("submit", file.name, "--project", "bench", "--queue", "batch").stdout
                uid = batch.split("batch ")[-1].split(":")[0].strip()
                time.sleep(1.0)
                start = time.monotonic()
                http.post("/api/v1/queues/batch/resume", json={"reason": "benchmark"}).raise_for_status()
                while True:
                    totals = http.get(f"/api/v1/batches/{uid}").json()["totals"]
                    if totals["completed"] + totals["dead"] + totals["cancelled"] >= jobs:
                        break
                    time.sleep(0.1)
                took = time.monotonic() - start
        finally:
            instance.remove()
        stats = sim.stats()
    tokens = sum(key["tokens"] for key in stats["by_key"].values())
    least = max((jobs - ACCOUNTS * burst) / (ACCOUNTS * rpm), (tokens - ACCOUNTS * token_burst) / (ACCOUNTS * tpm)) * 60
    print(
        f"{name:12}{totals['completed']:>10}{took:>9.1f}{least:>12.1f}{least / took:>9.1%}"
        f"{stats['refused']:>9}{stats['refused'] / jobs:>9.2%}{stats['duplicates']:>12}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--rpm", type=int, default=600, help="of each account")
    parser.add_argument("--tpm", type=int, default=60000, help="of each account")
    parser.add_argument("--burst", type=int, default=60, help="of requests, of each account")
    parser.add_argument("--latency", type=int, default=50, help="milliseconds of each call")
    parser.add_argument("--only", choices=["configured", "learned"])
    given = parser.parse_args()
    print(
        f"{given.jobs} jobs, {ACCOUNTS} accounts of {given.rpm} requests (burst {given.burst}) and {given.tpm} tokens a"
        f" minute, {given.latency} ms each"
    )
    print(
        f"{'limits':12}{'completed':>10}{'seconds':>9}{'arithmetic':>12}{'used':>9}{'refused':>9}{'share':>9}{'duplicates':>12}"
    )
    for name in ("configured", "learned"):
        if given.only in (None, name):
            one(name, given.jobs, given.rpm, given.tpm, given.burst, given.latency)


if __name__ == "__main__":
    main()
