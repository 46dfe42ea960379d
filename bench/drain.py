#!/usr/bin/env python3
"""How fast a full queue drains: Sluice against RQ, Huey, Dramatiq, Celery, taskiq and streaq, in turn, in the same run.

    python bench/drain.py [--jobs 2000] [--seconds 0.05] [--rounds 3] [--peers rq,huey,...] [--python PROGRAM] [--database URL]

Each contender gets two worker processes of 50 threads (RQ: two SimpleWorkers, which run one job at a time), the same
job (wait, then count itself in Redis), the same Valkey. The rate is that of the counter between its first and its
last move. Sluice keeps its jobs in SQL, admits and fences each; none of the peers does. Peers are not part of the
product: `--python` names an interpreter that has the dependency group `bench`. For queues in PostgreSQL: `python -m bench.durable`.

For Sluice also: processor time per job of the dispatcher and the workers, and on PostgreSQL that of its sessions, SQL
statements, commits and WAL. On SQLite `--count` counts statements and commits, which costs time itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import redis

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import cost  # noqa: E402
from bench.sql_counters import COUNTERS  # noqa: E402
from tests.support.instance import Instance, wait_until  # noqa: E402
from tests.support.valkey import run_server, valkey_binary  # noqa: E402

COUNTER = "bench:done"


@dataclass(frozen=True, slots=True)
class Drained:
    """What was seen between the counter's first and last move."""

    rate: float
    """Jobs a second."""
    cpu: float
    """Seconds of processor time per job, by the function that was given."""


def drained(client: redis.Redis, jobs: int, cpu: Callable[[], float] = lambda: 0.0) -> Drained:
    deadline = time.monotonic() + 300
    first: tuple[float, int, float] | None = None
    while True:
        count, now = int(client.get(COUNTER) or 0), time.monotonic()  # type: ignore[arg-type]
        if count and first is None:
            first = (now, count, cpu())
        if first is not None and count >= jobs:
            done = count - first[1]
            return Drained(done / max(now - first[0], 1e-6), (cpu() - first[2]) / max(done, 1))
        if now > deadline:
            raise TimeoutError(f"{count} of {jobs} jobs done")
        time.sleep(0.005)


def rate_of(client: redis.Redis, jobs: int) -> float:
    """Jobs a second between the counter's first and last move."""
    return drained(client, jobs).rate


@contextmanager
def processes(commands: list[list[str]], environ: dict[str, str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    running = [
        subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        yield running
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def peer(name: str, url: str, jobs: int, seconds: float, python: str = sys.executable) -> Drained:
    """Fill the peer's queue, then start its two workers. `python`: an interpreter that has the peer."""
    client = redis.Redis.from_url(url)
    client.flushall()
    environ = {
        **os.environ,
        "BENCH_REDIS_URL": url,
        "BENCH_SECONDS": str(seconds),
        "BENCH_PEER": name,
        "PYTHONPATH": str(ROOT),
    }
    fill = {
        "rq": "import redis, rq, os\nfrom bench import peers\nq = rq.Queue(connection=redis.Redis.from_url(os.environ['BENCH_REDIS_URL']))\n"
        "q.enqueue_many([rq.Queue.prepare_data(peers.work, result_ttl=0) for _ in range(N)])",
        "huey": "from bench import peers\nfor _ in range(N): peers.job()",
        "dramatiq": "from bench import peers\nfor _ in range(N): peers.job.send()",
        "celery": "from bench import peers\nfor _ in range(N): peers.job.delay()",
        "taskiq": "import asyncio\nfrom bench import peers\nasyncio.run(peers.fill(N))",
        "streaq": "import asyncio\nfrom bench import peers\nasyncio.run(peers.fill(N))",
    }[name]
    subprocess.run([python, "-c", fill.replace("N)", f"{jobs})")], cwd=ROOT, env=environ, check=True)
    module, program = [python, "-m"], Path(python).parent
    worker = {
        "rq": [*module, "rq.cli", "worker", "--url", url, "--worker-class", "rq.SimpleWorker", "--quiet"],
        "huey": [
            str(program / "huey_consumer"),
            "bench.peers.huey",
            "-w",
            "50",
            "-k",
            "thread",
            "-q",
        ],
        "dramatiq": [*module, "dramatiq", "bench.peers", "--processes", "1", "--threads", "50"],
        "celery": [*module, "celery", "-A", "bench.peers:app", "worker", "-P", "threads", "-c", "50", "-l", "ERROR"],
        "taskiq": [
            str(program / "taskiq"),
            "worker",
            "bench.peers:broker",
            "--workers",
            "1",
            "--max-async-tasks",
            "50",
        ],
        "streaq": [str(program / "streaq"), "run", "bench.peers:worker"],
    }[name]
    with processes([worker, worker], environ) as running:
        return drained(client, jobs, lambda: sum(cost.tree_cpu_seconds(one.pid) for one in running))


@contextmanager
def sql(options: argparse.Namespace) -> Iterator[str | None]:
    """The database of the run; None: SQLite."""
    if not options.postgres:
        yield options.database
        return
    from tests.support.postgres import run_postgres

    with run_postgres("fsync=on", "max_connections=200", *cost.POSTGRES) as url:
        yield url


class Ours:
    """A running instance; its queue is paused while it is filled."""

    def __init__(
        self,
        url: str,
        database: str | None,
        counters: str | None = None,
        server_cpu: Callable[[], float] | None = None,
    ) -> None:
        self.database, self.counters, self.server_cpu = database, counters, server_cpu
        self.spent: list[cost.Cost] = []
        self.costs: list[str] = []
        environ = {
            "SLUICE_TASK_MODULES": "bench.tasks",
            "BENCH_REDIS_URL": url,
            "REDIS_URL": url,
            "SLUICE_LOG_LEVEL": "WARNING",
        }
        if database:
            environ |= {
                "DATABASE_URL": database,
                "SLUICE_SECRET_KEY": "x" * 50,
                "SLUICE_CREDENTIAL_KEYS": "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=",
            }
        if counters:
            environ[COUNTERS] = counters
        self.instance = Instance(environ=environ).start()
        cost.prepare(database)
        self.http = self.instance.client()
        self.instance.manage("apply", "-", stdin="version: 1\nprojects: [{slug: bench}]\n")
        self.client = redis.Redis.from_url(url)

    def drain(self, jobs: int, seconds: float) -> float:
        self.client.delete(COUNTER)
        self._steer("pause")
        kind = {"type": "bench.sleep", "payload": {"seconds": seconds}} if seconds else {"type": "bench.nothing"}
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.write(
                "".join(json.dumps({**kind, "idempotency_key": f"{time.time_ns()}-{n}"}) + "\n" for n in range(jobs))
            )
            file.flush()
            self.instance.manage("submit", file.name, "--project", "bench")
        time.sleep(1.5)  # what followed the submit is done, and the statistics of SQL have arrived
        before = self._cost()
        self._steer("resume")
        rate = rate_of(self.client, jobs)
        unfinished = "SELECT count(*) FROM queues_job WHERE stage <> 5"
        wait_until(lambda: self.instance.rows(unfinished) == [(0,)], 60)
        time.sleep(1.5)
        self.spent.append(self._cost() - before)
        self.costs.append(self.spent[-1].per_job(jobs))
        return rate

    def _cost(self) -> cost.Cost:
        found = cost.read(self.instance, self.database, self.counters)
        return found if self.server_cpu is None else replace(found, sql_server=self.server_cpu())

    def _steer(self, verb: str) -> None:
        self.http.post(f"/api/v1/queues/batch/{verb}", json={"reason": "benchmark"}).raise_for_status()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=0.05, help="what a job waits; 0: jobs that do nothing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="rq,huey,dramatiq,celery,taskiq,streaq")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has the peers")
    parser.add_argument("--database", default=None, help="a PostgreSQL URL; by default SQLite")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of its own, started here")
    parser.add_argument("--count", action="store_true", help="count the statements and commits on SQLite")
    options = parser.parse_args()
    names = [name for name in options.peers.split(",") if name]
    costs: dict[str, str] = {}
    rates: dict[str, list[float]] = {"sluice": [], **{name: [] for name in names}}
    with (
        run_server(valkey_binary()) as server,
        run_server(valkey_binary()) as own,
        sql(options) as database,
        tempfile.TemporaryDirectory() as counters,
    ):
        ours = Ours(own.url, database, counters if options.count and not database else None)
        try:
            contenders: dict[str, Callable[[], float | Drained]] = {
                "sluice": lambda: ours.drain(options.jobs, options.seconds)
            }
            for name in names:
                # RQ runs one job at a time: a quarter of the jobs is enough to measure its rate.
                count = options.jobs // 4 if name == "rq" else options.jobs
                contenders[name] = lambda name=name, count=count: peer(  # type: ignore[misc]
                    name, server.url, count, options.seconds, options.python
                )
            for _ in range(options.rounds):
                for name, contender in contenders.items():
                    found = contender()
                    if isinstance(found, Drained):
                        costs[name] = f"CPU {1e3 * found.cpu:.3f} ms/job"
                        found = found.rate
                    rates[name].append(found)
        finally:
            ours.instance.remove()
    print(f"{options.jobs} jobs of {options.seconds * 1000:g} ms, 2 × 50 threads, median of {options.rounds}")
    mine = statistics.median(rates["sluice"])
    for name, each in rates.items():
        median = statistics.median(each)
        print(
            f"{name:10} {median:8,.0f} jobs/s   (min {min(each):,.0f}, max {max(each):,.0f})   sluice is {mine / median:5.2f} ×"
            f"   {costs.get(name, '')}"
        )
    for line in ours.costs:
        print(f"  {line}")


if __name__ == "__main__":
    main()
