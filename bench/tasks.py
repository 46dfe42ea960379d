"""Jobs for the benchmarks: `SLUICE_TASK_MODULES=bench.tasks`. Each counts itself in Redis, as the peers' jobs do."""

from __future__ import annotations

import asyncio
import os
import time
from functools import lru_cache

import redis

from bench.hop_log import log_hops
from bench.sql_counters import count_statements
from queues import task
from queues.registry import JobContext

COUNTER = "bench:done"
count_statements()
log_hops()


@lru_cache(maxsize=1)
def client() -> redis.Redis:
    return redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])


@task(name="bench.sleep", queue="batch")
def sleep(job: JobContext, seconds: float = 0.05) -> None:
    """An I/O-bound job: waits and returns nothing."""
    time.sleep(seconds)
    client().incr(COUNTER)


@task(name="bench.nothing", queue="batch")
def nothing(job: JobContext) -> None:
    """A job that does nothing."""
    client().incr(COUNTER)


@task(name="bench.stamp", queue="batch")
def stamp(job: JobContext) -> None:
    """Records the time of its start."""
    client().rpush("bench:started", f"{time.time():.6f}")


@task(name="bench.timed", queue="batch")
def timed(job: JobContext, at: float) -> None:
    """Records the seconds since `at`, when the job was due to be submitted."""
    client().rpush("bench:took", f"{time.time() - at:.6f}")
    client().incr(COUNTER)


@task(name="bench.slow_call", queue="batch")
async def slow_call(job: JobContext, port: int, seconds: float) -> int:
    """An HTTP call of so many seconds that is awaited; the length of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: 2\r\nx-delay: %g\r\n\r\n{}" % seconds)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return len(await reader.readexactly(length))
    finally:
        writer.close()


@task(name="bench.describe", queue="batch")
def describe(job: JobContext, name: str, description: str) -> dict[str, object]:
    """Real input, little work: a package's description in one line, and how many words it has."""
    first, _, rest = description.partition("\n")
    return {"name": name, "summary": first[:200], "words": len(rest.split())}
