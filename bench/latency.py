#!/usr/bin/env python3
"""Enqueue to start on an idle system: Sluice from Python and over REST, against RQ and (where installed) Huey.

    python bench/latency.py [--jobs 100] [--pause 0.1] [--peers rq,huey]

One job at a time, with a pause between two, so that all processes are asleep when it arrives. The time is from just before the
call that submits it to the first line of the job, both by the same machine's clock. RQ is the baseline: its worker
forks; its SimpleWorker does not.
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

import redis

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.instance import Instance  # noqa: E402
from tests.support.valkey import run_server, valkey_binary  # noqa: E402

STARTED = "bench:started"


def spans(client: redis.Redis, jobs: int, pause: float, hand_in: Callable[[], object]) -> list[float]:
    """Milliseconds from the call to the start, job by job."""
    found = []
    client.delete(STARTED)
    for _ in range(jobs):
        time.sleep(pause)
        begun = time.time()
        hand_in()
        answer = client.blpop([STARTED], timeout=30)
        if answer is None:
            raise TimeoutError("a job did not start within 30 s")
        found.append((float(answer[1]) - begun) * 1000)  # type: ignore[index, arg-type]
    return found


@contextmanager
def ours(url: str) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    """Submitting from Python (this process, on the instance's database) and over REST."""
    environ = {"SLUICE_TASK_MODULES": "bench.tasks", "BENCH_REDIS_URL": url, "SLUICE_LOG_LEVEL": "WARNING"}
    instance = Instance(environ=environ).start()
    try:
        instance.manage("apply", "-", stdin="version: 1\nprojects: [{slug: bench}]\n")
        os.environ |= {**instance.environ, "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
        import django

        django.setup()
        from queues import submit

        http = instance.client()
        body = {"type": "bench.stamp", "project": "bench"}
        yield (
            lambda: submit("bench.stamp", project="bench"),
            lambda: http.post("/api/v1/jobs", json=body).raise_for_status(),
        )
    finally:
        instance.remove()


@contextmanager
def peer(name: str, url: str) -> Iterator[Callable[[], object]]:
    environ = {**os.environ, "BENCH_REDIS_URL": url, "BENCH_PEER": name.partition(" ")[0], "PYTHONPATH": str(ROOT)}
    os.environ |= {"BENCH_REDIS_URL": url}
    module = [sys.executable, "-m"]
    simple = [*module, "rq.cli", "worker", "--url", url, "--worker-class", "rq.SimpleWorker", "--quiet"]
    command = {
        "rq": [*module, "rq.cli", "worker", "--url", url, "--quiet"],
        "rq simple": simple,
        "huey": [
            str(Path(sys.executable).parent / "huey_consumer"),
            "bench.peers.huey",
            "-w",
            "2",
            "-k",
            "thread",
            "-q",
        ],
    }[name]
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if name == "huey":
            os.environ |= {"BENCH_PEER": "huey"}
            from bench import peers

            yield peers.stamp
        else:
            from rq import Queue

            from bench import peers

            queue = Queue(connection=redis.Redis.from_url(url))
            yield lambda: queue.enqueue(peers.stamp_now, result_ttl=0)
    finally:
        process.terminate()
        process.wait(20)


def show(name: str, found: list[float], baseline: float) -> None:
    found = sorted(found)
    p50, p95 = statistics.median(found), found[int(len(found) * 0.95)]
    print(f"{name:16} p50 {p50:7.2f} ms   p95 {p95:7.2f} ms   {p50 / baseline:5.2f} × rq")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two jobs")
    parser.add_argument("--peers", default="rq,rq simple")
    options = parser.parse_args()
    with run_server(valkey_binary()) as server:
        client = redis.Redis.from_url(server.url)
        found: dict[str, list[float]] = {}
        for name in filter(None, options.peers.split(",")):
            with peer(name, server.url) as hand_in:
                spans(client, 5, options.pause, hand_in)
                found[name] = spans(client, options.jobs, options.pause, hand_in)
        with ours(server.url) as (python, rest):
            for name, hand_in in (("sluice, Python", python), ("sluice, REST", rest)):
                spans(client, 5, options.pause, hand_in)
                found[name] = spans(client, options.jobs, options.pause, hand_in)
    baseline = statistics.median(found.get("rq") or next(iter(found.values())))
    for name, each in found.items():
        show(name, each, baseline)


if __name__ == "__main__":
    main()
