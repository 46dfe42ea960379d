"""procrastinate: async tasks, 50 at once in a worker."""

from __future__ import annotations

from procrastinate import App, PsycopgConnector

from bench.durable.job import DATABASE, run_async, steadily

app = App(connector=PsycopgConnector(conninfo=DATABASE))


@app.task
async def job(at: float) -> None:
    await run_async(at)


async def prepare() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def fill(count: float) -> None:
    async with app.open_async():
        for start in range(0, int(count), 1000):
            await job.batch_defer_async(*[{"at": 0.0}] * min(1000, int(count) - start))


async def steady(rate: float, seconds: float) -> None:
    async with app.open_async():
        await steadily(lambda at: job.defer_async(at=at), rate, seconds)


async def work() -> None:
    async with app.open_async():
        await app.run_worker_async(concurrency=50)
