"""The outage: all calls to the provider fail for 30 seconds while 5,000 jobs wait.

    python -m bench.scenarios.outage [--jobs 5000] [--rpm 3000] [--down 30]

It shows how many calls were sent into the outage, what came at the provider's return (no more than its limit), and after
how many seconds the provider was in full use again. The baseline is the limit: accounts times requests a minute.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time

import yaml

from bench.scenarios.chart import draw
from bench.scenarios.scene import CHARTS, Sampler, Watch, report, started, upstream
from tests.integration.controlplane.simulator.process import Simulator

ACCOUNTS = 4
BEFORE = 20.0
FULL = 0.9
"""A share of the limit that counts as full use."""
KEYS = {f"BENCH_KEY_{number}": f"bench-key-{number}" for number in range(1, ACCOUNTS + 1)}


def configuration(url: str, rpm: int, burst: int) -> str:
    limits = [
        {"unit": "requests", "algorithm": "token_bucket", "limit": rpm, "window": "60s", "burst": burst - burst // 6}
    ]
    accounts = [{"name": f"a{number}", "credential_env": name} for number, name in enumerate(KEYS, 1)]
    breaker = {"failures": 5, "window": "60s", "open_for": "5s", "probes": 1}
    pool = {
        "name": "llm", "provider": "sim", "strategy": "round_robin", "pause_at": None, "limits": limits,
        "breaker": breaker, "accounts": accounts,
    }  # fmt: skip
    return yaml.safe_dump(
        {
            "version": 1,
            "projects": [{"slug": "bench"}],
            "providers": [{"name": "sim", "dialect": "openai", "base_url": url}],
            "pools": [pool],
            "queues": [{"name": "batch", "pool": "llm", "timeout": "60s", "max_size": None}],
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--rpm", type=int, default=1200, help="requests a minute of each account")
    parser.add_argument("--down", type=float, default=30.0, help="seconds")
    given = parser.parse_args()
    burst = max(given.rpm // 60, 2)
    rate = ACCOUNTS * given.rpm / 60
    keys = [f"{key}:rpm={given.rpm},burst={burst}" for key in KEYS.values()]
    body = {"model": "gpt-4o-mini", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}
    line = {"type": "http.request", "payload": {"method": "POST", "path": "/v1/chat/completions", "json": body}}
    with (
        Simulator("--latency", "50", "--key", *keys) as simulator,
        started(environ=KEYS) as instance,
        tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file,
    ):
        instance.manage("apply", "-", stdin=configuration(simulator.base_url, given.rpm, burst))
        file.writelines(json.dumps({**line, "idempotency_key": f"o-{number}"}) + "\n" for number in range(given.jobs))
        file.flush()
        instance.manage("submit", file.name, "--project", "bench", "--queue", "batch")
        watch = Watch(instance)
        with (
            Sampler(lambda: float(simulator.stats()["requests"])) as calls,
            Sampler(lambda: float(simulator.stats()["succeeded"])) as answers,
        ):
            time.sleep(BEFORE)
            sent = simulator.stats()["requests"]
            down = time.monotonic() - calls.began
            simulator.faults({"status": 503})
            time.sleep(given.down)
            into = simulator.stats()["requests"] - sent
            simulator.faults()
            back = time.monotonic() - calls.began
            deadline = time.monotonic() + 300
            while (totals := watch.totals())["completed"] + totals["dead"] < given.jobs:
                if time.monotonic() > deadline:
                    raise SystemExit(f"not done: {totals}")
                time.sleep(0.25)
        seen = upstream(simulator)
    after = [value for at, value in calls.rates() if at > back]
    full = next((at - back for at, value in answers.rates() if at > back and value >= FULL * rate), None)
    report(
        f"{given.jobs:,} jobs, a provider of {rate:.0f} calls a second that fails for {given.down:.0f} s",
        {
            "completed, dead": f"{totals['completed']:,}, {totals['dead']}",
            "lost": given.jobs - totals.total(),
            "calls sent into the outage": f"{into} ({into / given.down:.1f} a second; the limit is {rate:.0f})",
            "most calls a second after its return": f"{max(after):.1f} = {max(after) / rate:.2f} × the limit",
            f"full use ({FULL:.0%}) again after": "never" if full is None else f"{full:.1f} s",
            **seen,
        },
    )
    draw(
        CHARTS / "outage.svg", f"A provider that fails for {given.down:.0f} s", "per second",
        {"calls": calls.rates(), "answered": answers.rates()}, {down: "down", back: "back"},
    )  # fmt: skip


if __name__ == "__main__":
    main()
