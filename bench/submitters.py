"""Many submitters at once to one queue, each a process of its own; and what the sessions of PostgreSQL wait for meanwhile.

Part of `python bench/submit.py`. As a program it is one submitter: `python -m bench.submitters QUEUE SECONDS`; it
prints a line when it is ready, begins when it reads one, and prints the number of its submits.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import psycopg

from bench.cost import cpu_seconds, tree_cpu_seconds

ROOT_OF_WAITS = """
    SELECT coalesce(wait_event_type || ' ' || wait_event, 'on the processor') FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND state <> 'idle' AND pid <> pg_backend_pid()
"""
"""Wait events of the sessions that run a statement or are inside a transaction."""


def together(running: Any, database: str | None, count: int, seconds: float) -> None:
    """Print the rates of one submitter and of `count` at once, for a queue with a maximum and for one without."""
    for queue in ("batch", "unbounded"):
        one, _ = _rate(running, database, queue, 1, seconds)
        many, waits = _rate(running, database, queue, count, seconds)
        print(f"together     {queue:10} 1: {one}   {count}: {many}   {many.rate / one.rate:5.2f} × one")
        total = sum(waits.values())
        for event, seen in waits.most_common(6):
            print(f"             {seen / total:6.1%} of the sessions' samples: {event}")


class Measured:
    """A rate with its processor time."""

    def __init__(self, submits: int, seconds: float, cpu: float, server: float) -> None:
        self.rate = submits / seconds
        self._submits, self._cpu, self._server = max(submits, 1), cpu, server

    def __str__(self) -> str:
        text = f"{self.rate:6,.0f}/s, CPU {1e3 * self._cpu / self._submits:.2f} ms"
        return text + (f" + SQL {1e3 * self._server / self._submits:.2f} ms" if self._server else "")


def _rate(running: Any, database: str | None, queue: str, count: int, seconds: float) -> tuple[Measured, Counter[str]]:
    command = [sys.executable, "-m", "bench.submitters", queue, str(seconds)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env=running.environ, **pipes) for _ in range(count)]
    for one in processes:
        one.stdout.readline()
    for one in processes:
        one.stdin.write("begin\n")
        one.stdin.flush()
    before, server = sum(cpu_seconds(one.pid) for one in processes), _server_cpu(database)
    waits = _waits(database, seconds * 0.9)
    cpu = (sum(cpu_seconds(one.pid) for one in processes) - before) / 0.9
    server = (_server_cpu(database) - server) / 0.9
    submits = sum(int(one.communicate()[0]) for one in processes)
    if any(one.returncode for one in processes):
        raise SystemExit("a submitter failed")
    return Measured(submits, seconds, cpu, server), waits


def _server_cpu(database: str | None) -> float:
    if database is None:
        return 0.0
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        with open(f"/proc/{row[0]}/stat") as stat:
            return tree_cpu_seconds(int(stat.read().rpartition(")")[2].split()[1]))


def _waits(database: str | None, seconds: float) -> Counter[str]:
    """Samples of what sessions wait for, 50 a second."""
    found: Counter[str] = Counter()
    until = time.monotonic() + seconds
    if database is None:
        time.sleep(seconds)
        return found
    with psycopg.connect(database, autocommit=True) as connection:
        while time.monotonic() < until:
            found.update(event for (event,) in connection.execute(ROOT_OF_WAITS))
            time.sleep(0.02)
    return found


def main() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    django.setup()
    from queues import submit

    queue, seconds = sys.argv[1], float(sys.argv[2])
    submit("bench.nothing", project="bench", queue=queue)
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.monotonic() + seconds
    count = 0
    while time.monotonic() < until:
        submit("bench.nothing", project="bench", queue=queue)
        count += 1
    print(count)


if __name__ == "__main__":
    main()
