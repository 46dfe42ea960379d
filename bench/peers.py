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
elif PEER == "celery":
    from celery import Celery

    app = Celery("bench", broker=URL)
    app.conf.worker_prefetch_multiplier = 4
    app.conf.task_ignore_result = True
    job = app.task(work)
