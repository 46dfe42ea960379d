"""Slow calls: one worker process keeps 1,000 or 2,000 calls of 20 seconds in flight.

    python -m bench.slow_calls [--calls 1000] [--seconds 20] [--mode threads|async] [--postgres]

`threads`: `http.request` jobs, each in a thread. `async`: tasks that are `async def` and await their call, all in one event loop.
All calls are submitted to a paused queue, which is then resumed; when all of them are in flight, it measures for some
seconds what the worker uses: memory, processor time, threads, open files. Then each call must end once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from bench.cost import cpu_seconds
from bench.drain import sql
from tests.support.instance import Instance, wait_until
from tests.support.valkey import free_port, run_server, valkey_binary

ROOT = Path(__file__).resolve().parents[1]
WATCHED_SECONDS = 8.0
RUNNING, DONE = 4, 5
"""Stages of a job, as SQL has them."""


def configuration(port: int) -> str:
    account = {"name": "a", "credential_env": "BENCH_KEY"}
    pool = {"name": "slow", "provider": "slow", "pause_at": None, "limits": [], "accounts": [account]}
    return yaml.safe_dump(
        {
            "version": 1,
            "projects": [{"slug": "bench"}],
            "providers": [{"name": "slow", "dialect": "openai", "base_url": f"http://127.0.0.1:{port}"}],
            "pools": [pool],
            "queues": [{"name": "batch", "pool": "slow", "timeout": "120s", "max_size": None}],
        }
    )


def job(mode: str, port: int, seconds: float) -> dict[str, object]:
    if mode == "async":
        return {"type": "bench.slow_call", "payload": {"port": port, "seconds": seconds}}
    headers = {"x-delay": f"{seconds:g}"}
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    return {
        "type": "http.request",
        "payload": {"method": "POST", "path": "/v1/chat/completions", "headers": headers, "json": body},
    }


@contextmanager
def provider(port: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", "bench.gateway_provider", str(port)], cwd=ROOT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def measure(instance: Instance, calls: int, seconds: float) -> None:
    (pid,) = instance.pids("worker-io")
    idle = int(status_of(pid)["VmRSS"].split()[0]) / 1024
    with instance.client() as http:
        began = time.monotonic()
        http.post("/api/v1/queues/batch/resume", json={"reason": "benchmark"}).raise_for_status()

    def stage(number: int) -> int:
        return int(instance.rows("SELECT count(*) FROM queues_job WHERE stage = ?", number)[0][0])

    most = 0
    deadline = began + seconds
    while most < calls and time.monotonic() < deadline:
        most = max(most, stage(RUNNING))
        time.sleep(0.1)
    filled = time.monotonic() - began
    used, since = cpu_seconds(pid), time.monotonic()
    time.sleep(min(WATCHED_SECONDS, max(seconds - filled - 2, 1.0)))
    share = (cpu_seconds(pid) - used) / (time.monotonic() - since)
    status = status_of(pid)
    files = len(os.listdir(f"/proc/{pid}/fd"))
    wait_until(lambda: stage(DONE) == calls, seconds * 3 + 120, lambda: f"{stage(DONE)} of {calls}")
    took = time.monotonic() - began
    ((completed, deliveries),) = instance.rows(
        "SELECT sum(CASE WHEN status = 'completed' THEN 1 ELSE 0 END), sum(delivery) FROM queues_job"
    )
    whole = cpu_seconds(pid)
    print(f"in flight at once     {most:,} of {calls:,}, after {filled:.1f} s")
    print(
        f"memory                {int(status['VmRSS'].split()[0]) / 1024:.0f} MiB resident, {idle:.0f} before the calls"
    )
    print(f"while they wait       {share:.1%} of a core, {status['Threads']} threads, {files:,} open files")
    print(f"processor time        {1e3 * (whole - used) / calls:.2f} ms a call, from all in flight to all written")
    print(
        f"all ended after       {took:.1f} s; completed {completed:,}, lost {calls - completed:,}, deliveries {deliveries:,}"
    )
    if (pid,) != tuple(instance.pids("worker-io")):
        print("the worker was restarted meanwhile")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--mode", choices=("threads", "async"), default="threads")
    parser.add_argument("--database", default=None, help="a PostgreSQL URL; by default SQLite")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of its own, started here")
    given = parser.parse_args()
    port = free_port()
    with run_server(valkey_binary()) as server, sql(given) as database, provider(port):
        environ = {
            "SLUICE_TASK_MODULES": "bench.tasks", "SLUICE_CONCURRENCY": str(given.calls), "SLUICE_LOG_LEVEL": "WARNING",
            "BENCH_REDIS_URL": server.url, "BENCH_KEY": "bench-key",
        }  # fmt: skip
        if database:
            environ |= {
                "DATABASE_URL": database, "REDIS_URL": server.url, "SLUICE_SECRET_KEY": "x" * 50,
                "SLUICE_CREDENTIAL_KEYS": "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=",
            }  # fmt: skip
        instance = Instance("--workers", "1", environ=environ).start()
        try:
            instance.manage("apply", "-", stdin=configuration(port))
            with instance.client() as http:
                http.post("/api/v1/queues/batch/pause", json={"reason": "benchmark"}).raise_for_status()
            line = {**job(given.mode, port, given.seconds), "project": "bench", "queue": "batch"}
            text = "".join(json.dumps({**line, "idempotency_key": f"s-{n}"}) + "\n" for n in range(given.calls))
            instance.manage("submit", "-", "--project", "bench", stdin=text)
            print(f"{given.calls:,} calls of {given.seconds:g} s in one worker process, {given.mode}")
            measure(instance, given.calls, given.seconds)
        finally:
            instance.remove()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"load of the machine   {load} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
