"""Forecasts as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from queues.selectors.forecast import Forecast
from quotas.shapes import Shape, field


class ForecastBound(Shape):
    """What the jobs wait for."""

    kind: str = field(
        help="`policy`, `pool`, `workers` (of a lane), `queue` (its concurrency), `paused` (a queue or pool), `schedule` or `dependency`."
    )
    name: str
    share: float = field(
        help="Of the jobs' waiting time, 0 to 1. Where `done_at` is null: of the jobs that never start."
    )


class ForecastChange(Shape):
    change: dict[str, Any] = field(help="The change, as in the request.")
    done_at: datetime | None
    exhausted_at: datetime | None


class ForecastAnswer(Shape):
    jobs: int = field(help="Waiting and running jobs that the forecast is about.")
    done_at: datetime | None = field(help="Null: there is no such job, or one never ends unless somebody acts.")
    earliest: datetime | None = field(help="If all jobs ran as fast as the fastest tenth of recent ones.")
    latest: datetime | None = field(help="If all jobs ran as slowly as the slowest tenth of recent ones.")
    starts_at: datetime | None = field(
        help="Start of the first job that waits; of a single job, its start. Of a policy or pool: when it is available, now or after `exhausted_at`."
    )
    binding: list[ForecastBound] = field(help="What bounds it, the largest share first.")
    exhausted_at: datetime | None = field(
        help="Of a policy or pool: when it is used up at the present rate. Null: it will not be."
    )
    what_if: list[ForecastChange] = field(help="One for each change, and one for all of them together.")
    approximate: list[str] = field(help="What is not exact, in words.")


def forecast_answer(forecast: Forecast) -> dict[str, Any]:
    changes = [ForecastChange.of(one, change=one.change.document()) for one in forecast.what_if]
    return ForecastAnswer.of(forecast, what_if=changes)
