"""The same job for each peer. Run as a worker by `bench/drain.py`, with BENCH_REDIS_URL and BENCH_SECONDS set."""

from __future__ import annotations

import os
import time
from functools import lru_cache

import redis

URL = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379/0")
SECONDS = float(os.environ.get("BENCH_SECONDS", "0.05"))
PEER = os.environ.get("BENCH_PEER", "")


@lru_cache(maxsize=1)
def client() -> redis.Redis:
    return redis.Redis.from_url(URL)


def work() -> None:
    if SECONDS:
        time.sleep(SECONDS)
    client().incr("bench:done")


def stamp_now() -> None:
    client().rpush("bench:started", f"{time.time():.6f}")


if PEER == "huey":
    from huey import RedisHuey

    huey = RedisHuey("bench", url=URL, results=False)
    job = huey.task()(work)
    stamp = huey.task()(stamp_now)
elif PEER == "dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    dramatiq.set_broker(RedisBroker(url=URL))
    job = dramatiq.actor(work)
elif PEER in ("taskiq", "streaq"):
    import asyncio

    import redis.asyncio

    @lru_cache(maxsize=1)
    def async_client() -> redis.asyncio.Redis:
        return redis.asyncio.Redis.from_url(URL)

    async def work_async() -> None:
        if SECONDS:
            await asyncio.sleep(SECONDS)
        await async_client().incr("bench:done")

    if PEER == "taskiq":
        from taskiq_redis import RedisStreamBroker

        broker = RedisStreamBroker(url=URL)
        job = broker.task(work_async)

        async def fill(count: int) -> None:
            await broker.startup()
            for _ in range(count):
                await job.kiq()
            await broker.shutdown()
    else:
        from streaq import Worker

        worker: Worker = Worker(redis_url=URL, concurrency=50)
        job = worker.task()(work_async)

        async def fill(count: int) -> None:
            async with worker:
                await worker.enqueue_many([job.enqueue() for _ in range(count)])
elif PEER == "celery":
    from celery import Celery

    app = Celery("bench", broker=URL)
    app.conf.worker_prefetch_multiplier = 4
    app.conf.task_ignore_result = True
    job = app.task(work)
