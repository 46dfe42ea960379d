"""awa: a Rust runtime with Python handlers, 50 at once in a worker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from awa import AsyncClient

from bench.durable.job import DATABASE, run_async, steadily


@dataclass
class BenchJob:
    at: float


async def prepare() -> None:
    async with AsyncClient(DATABASE) as client:
        await client.migrate()


async def fill(count: float) -> None:
    async with AsyncClient(DATABASE) as client:
        for start in range(0, int(count), 1000):
            await client.insert_many_copy([BenchJob(0.0)] * min(1000, int(count) - start))


async def steady(rate: float, seconds: float) -> None:
    async with AsyncClient(DATABASE) as client:
        await steadily(lambda at: client.insert(BenchJob(at)), rate, seconds)


async def work() -> None:
    async with AsyncClient(DATABASE) as client:

        @client.task(BenchJob, queue="default")
        async def job(job: object) -> None:
            await run_async(job.args.at)  # type: ignore[attr-defined]

        await client.start([("default", 50)])
        await asyncio.Event().wait()
