"""The job that each queue runs, and the submitter at a fixed rate. Jobs count themselves in Redis, as in `bench.peers`.

Environment: `BENCH_REDIS_URL`; `BENCH_DATABASE`, the PostgreSQL URL of the queue; `BENCH_SECONDS`, what a job waits.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import redis
import redis.asyncio

DONE = "bench:done"
TOOK = "bench:took"
"""A list: seconds from the moment at which a job was due to be submitted to its end."""
DATABASE = os.environ.get("BENCH_DATABASE", "")
SECONDS = float(os.environ.get("BENCH_SECONDS", "0"))
SUBMITTERS = 8
"""Submits at the same time at a fixed rate, so that a slow commit does not lower the rate."""


@lru_cache(maxsize=1)
def _client() -> redis.Redis:
    return redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])


@lru_cache(maxsize=1)
def _async_client() -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(os.environ["BENCH_REDIS_URL"])


def run(at: float) -> None:
    """The job in a thread. `at`: when it was due to be submitted; 0: not measured."""
    if SECONDS:
        time.sleep(SECONDS)
    if at:
        _client().rpush(TOOK, f"{time.time() - at:.6f}")
    _client().incr(DONE)


async def run_async(at: float) -> None:
    """The job on an event loop."""
    if SECONDS:
        await asyncio.sleep(SECONDS)
    if at:
        await _async_client().rpush(TOOK, f"{time.time() - at:.6f}")
    await _async_client().incr(DONE)


async def steadily(submit: Callable[[float], Awaitable[object]], rate: float, seconds: float) -> None:
    """Submit `rate` jobs a second from an event loop."""
    free = asyncio.Semaphore(SUBMITTERS)

    async def one(at: float) -> None:
        async with free:
            await submit(at)

    begun = time.time()
    async with asyncio.TaskGroup() as group:
        for number in range(round(rate * seconds)):
            at = begun + number / rate
            await asyncio.sleep(max(at - time.time(), 0))
            group.create_task(one(at))


def steadily_in_threads(submit: Callable[[float], object], rate: float, seconds: float) -> None:
    """Submit `rate` jobs a second from threads."""
    begun = time.time()
    with ThreadPoolExecutor(SUBMITTERS) as pool:
        sent = []
        for number in range(round(rate * seconds)):
            at = begun + number / rate
            time.sleep(max(at - time.time(), 0))
            sent.append(pool.submit(submit, at))
        for one in sent:
            one.result()


def in_threads(submit: Callable[[float], object], count: int) -> None:
    """Submit `count` jobs from threads as fast as they go."""
    with ThreadPoolExecutor(SUBMITTERS) as pool:
        list(pool.map(submit, [0.0] * count))


def until_terminated() -> None:
    threading.Event().wait()
