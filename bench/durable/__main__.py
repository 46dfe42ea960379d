"""Sluice beside queues that store their jobs in PostgreSQL, all on one server, in turn, in the same run.

    python -m bench.durable [--python PROGRAM] [--peers procrastinate,pgqueuer,awa,django_tasks] [--jobs 4000] [--rounds 1]

Each has two worker processes of 50 jobs at once (django-tasks: one at once), a database of its own on the same server
with fsync, and the same jobs: one that does nothing and one that waits 50 ms; each counts itself in Redis. The rate
is that of the counter between its first and its last move. The costs are those of the jobs that do nothing: processor time of the
workers (and Sluice's dispatcher) and of the SQL server, statements, commits and WAL. The latency is from the moment at which a job was due to
be submitted to its end, at a fixed rate (200 a second) for 15 seconds. `--valkey` adds peers that store nothing in SQL.

`--python`: an interpreter that has the dependency group `bench`.
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
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis

from bench import cost
from bench.drain import COUNTER, ROOT, Ours, drained, peer, processes
from bench.scenarios.scene import percentile
from tests.support.instance import wait_until
from tests.support.postgres import Cluster, run_cluster
from tests.support.valkey import run_server, valkey_binary

TOOK = "bench:took"
ONE_AT_ONCE = ("django_tasks", "rq")


@dataclass
class Row:
    """The figures of one queue; one value per round."""

    nothing: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    costs: list[str] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    """Seconds from the moment at which a job was due to be submitted to its end."""


@dataclass(frozen=True)
class Bench:
    """What all contenders share."""

    cluster: Cluster
    redis_url: str
    options: argparse.Namespace

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url)

    def database(self, name: str) -> str:
        """A new database; its URL."""
        with psycopg.connect(self.cluster.url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')  # type: ignore[arg-type]
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
        url = self.cluster.url.rpartition("/")[0] + f"/{name}"
        cost.prepare(url)
        return url

    def server_cpu(self) -> float:
        pid = int((Path(self.cluster.directory) / "data" / "postmaster.pid").read_text().split()[0])
        return cost.tree_cpu_seconds(pid)

    def steady(
        self, row: Row, command: list[str], environ: dict[str, str], unfinished: Callable[[], str] = lambda: ""
    ) -> None:
        """Run a submitter at the fixed rate, and wait for the last job."""
        jobs = round(self.options.rate * self.options.steady)
        self.client.delete(TOOK)
        subprocess.run([*command, str(self.options.rate), str(self.options.steady)], cwd=ROOT, env=environ, check=True)
        wait_until(
            lambda: self.client.llen(TOOK) >= jobs, 120, lambda: f"{self.client.llen(TOOK)} of {jobs}{unfinished()}"
        )
        row.took += map(float, self.client.lrange(TOOK, 0, -1))  # type: ignore[arg-type]


def text_of(costs: cost.Cost, jobs: int) -> str:
    """CPU of workers, of SQL, statements, commits, WAL; as the columns of the table."""
    own = 1e3 * (costs.dispatcher + costs.workers) / jobs
    return (
        f"{own:9.3f}{1e3 * costs.sql_server / jobs:9.3f}{costs.statements / jobs:8.2f}{costs.commits / jobs:9.3f}"
        f"{costs.wal_bytes / jobs / 1024:8.2f}"
    )


def durable(bench: Bench, name: str, row: Row) -> None:
    """One round of a peer."""
    options = bench.options
    jobs = options.jobs // 4 if name in ONE_AT_ONCE else options.jobs
    database = bench.database(name)
    environ = {
        **os.environ, "BENCH_REDIS_URL": bench.redis_url, "BENCH_DATABASE": database, "PYTHONPATH": str(ROOT),
        "BENCH_SECONDS": "0",
    }  # fmt: skip
    command = [options.python, "-m", "bench.durable.peer", name]

    def run(*words: str, **more: str) -> None:
        subprocess.run([*command, *words], cwd=ROOT, env={**environ, **more}, check=True, stdout=subprocess.DEVNULL)

    @contextmanager
    def workers(seconds: float) -> Iterator[list[subprocess.Popen[bytes]]]:
        with processes([[*command, "work"]] * 2, {**environ, "BENCH_SECONDS": str(seconds)}) as running:
            yield running

    run("prepare")
    for seconds in (0.0, 0.05):
        bench.client.flushall()
        run("fill", str(jobs))
        time.sleep(1.5)
        before, server = cost.read_postgres(0, 0, database), bench.server_cpu()
        with workers(seconds) as running:
            found = drained(bench.client, jobs, lambda: sum(cost.tree_cpu_seconds(one.pid) for one in running))
            time.sleep(1.5)
            after, server = cost.read_postgres(0, 0, database) - before, bench.server_cpu() - server
        if seconds:
            row.waiting.append(found.rate)
        else:
            row.nothing.append(found.rate)
            row.costs.append(
                text_of(cost.Cost(0, found.cpu * jobs, server, after.statements, after.commits, after.wal_bytes), jobs)
            )
    bench.client.flushall()
    with workers(0.0):
        run("steady", "20", "2")  # the workers have started when these are done
        wait_until(lambda: bench.client.llen(TOOK) >= 40, 60)
        bench.steady(row, [*command, "steady"], environ)


def sluice(bench: Bench, row: Row) -> None:
    """One round of this product."""
    options = bench.options
    database = bench.database("sluice")
    bench.client.flushall()
    ours = Ours(bench.redis_url, database, server_cpu=bench.server_cpu)
    try:
        row.nothing.append(ours.drain(options.jobs, 0.0))
        row.costs.append(text_of(ours.spent[-1], options.jobs))
        row.waiting.append(ours.drain(options.jobs, 0.05))
        ours.client.delete(COUNTER)
        environ = {**ours.instance.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "bench.durable.peer", "sluice", "steady"]
        subprocess.run([*command, "20", "2"], cwd=ROOT, env=environ, check=True)
        bench.steady(
            row,
            command,
            environ,
            lambda: str(
                ours.instance.rows(
                    "SELECT type, stage, status, reason, count(*) FROM queues_job GROUP BY 1, 2, 3, 4 ORDER BY 1, 2"
                )
            ),
        )
    finally:
        ours.instance.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has the peers")
    parser.add_argument("--peers", default="procrastinate,pgqueuer,awa,django_tasks")
    parser.add_argument("--valkey", default="", help="of huey,dramatiq,celery,rq,taskiq,streaq")
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=200.0, help="jobs a second for the latency")
    parser.add_argument("--steady", type=float, default=15.0, help="seconds at that rate")
    options = parser.parse_args()
    names = ["sluice", *filter(None, options.peers.split(","))]
    rows = {name: Row() for name in names}
    valkey: dict[str, list[tuple[float, float, float]]] = {}
    with (
        run_server(valkey_binary()) as server,
        run_cluster("fsync=on", "max_connections=200", *cost.POSTGRES) as cluster,
    ):
        bench = Bench(cluster, server.url, options)
        for _ in range(options.rounds):
            for name, row in rows.items():
                if name == "sluice":
                    sluice(bench, row)
                else:
                    durable(bench, name, row)
            for name in filter(None, options.valkey.split(",")):
                jobs = options.jobs // 4 if name in ONE_AT_ONCE else options.jobs
                nothing, waiting = (peer(name, server.url, jobs, seconds, options.python) for seconds in (0.0, 0.05))
                valkey.setdefault(name, []).append((nothing.rate, waiting.rate, 1e3 * nothing.cpu))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"{options.jobs} jobs, 2 × 50, median of {options.rounds}; load of the machine {load} on {os.cpu_count()} cores"
    )
    print(
        f"{'':14}{'no-op/s':>9}{'50 ms/s':>9}{'CPU ms':>9}{'SQL ms':>9}{'stmts':>8}{'commits':>9}{'WAL KiB':>8}"
        f"{'p50 ms':>9}{'p99 ms':>9}"
    )
    for name, row in rows.items():
        print(
            f"{name:14}{statistics.median(row.nothing):9,.0f}{statistics.median(row.waiting):9,.0f}{row.costs[-1]}"
            f"{1e3 * percentile(row.took, 0.5):9.1f}{1e3 * percentile(row.took, 0.99):9.1f}"
        )
    for name, found in valkey.items():
        nothing, waiting, cpu = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{name:14}{nothing:9,.0f}{waiting:9,.0f}{cpu:9.3f}   (stores its jobs in Valkey)")


if __name__ == "__main__":
    main()
