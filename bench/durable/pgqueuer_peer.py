"""pgqueuer: async jobs, 50 at once in a worker, 25 in a batch."""

from __future__ import annotations

import asyncpg
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, PgQueuer, Queries
from pgqueuer.models import Job

from bench.durable.job import DATABASE, SUBMITTERS, run_async, steadily


async def prepare() -> None:
    connection = await asyncpg.connect(DATABASE)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


async def fill(count: float) -> None:
    connection = await asyncpg.connect(DATABASE)
    many = int(count)
    await Queries(AsyncpgDriver(connection)).enqueue(["job"] * many, [b"0"] * many, [0] * many)
    await connection.close()


async def steady(rate: float, seconds: float) -> None:
    async with asyncpg.create_pool(DATABASE, min_size=SUBMITTERS, max_size=SUBMITTERS) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        await steadily(lambda at: queries.enqueue("job", repr(at).encode()), rate, seconds)


async def work() -> None:
    connection = await asyncpg.connect(DATABASE)
    queuer = PgQueuer(AsyncpgDriver(connection))

    @queuer.entrypoint("job")
    async def job(job: Job) -> None:
        await run_async(float(job.payload or b"0"))

    await queuer.run(batch_size=25, max_concurrent_tasks=50)
