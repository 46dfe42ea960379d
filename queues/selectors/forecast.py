"""When jobs will be done, what bounds them, and what a change would make of that: by simulating the dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.db.models import QuerySet

from queues import liveness
from queues.models import Batch, Job
from queues.selectors.backlog import MOST, SAMPLED, Backlog, Row, read_backlog, row_of
from queues.selectors.kinds import Kind
from queues.selectors.run_times import ASSUMED, read_run_times
from queues.selectors.scenes import Pace, Scenes
from queues.selectors.what_if import NO_CHANGE, Change
from queues.simulation.scene import Outcome, shares
from queues.simulation.simulation import simulate
from queues.states import Stage
from quotas import clock

MOST_TYPES = 5
"""Job types without a measured run time that are named at most."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What the jobs wait for, with its share of their waiting time."""

    kind: str
    name: str
    share: float


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change would make of the forecast."""

    change: Change
    done_at: datetime | None
    exhausted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A job that has not been submitted, and the jobs in SQL that it comes after."""

    job: Job
    after: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Forecast:
    """`done_at` is None if there is no such job, or if one of them never ends unless somebody acts: then `binding`
    says why."""

    jobs: int
    """Those that wait or run."""
    done_at: datetime | None = None
    earliest: datetime | None = None
    latest: datetime | None = None
    starts_at: datetime | None = None
    binding: Sequence[Bound] = ()
    exhausted_at: datetime | None = None
    what_if: Sequence[Changed] = ()
    approximate: Sequence[str] = field(default=())
    """What is not exact, in words."""


def jobs_forecast(
    covers: Callable[[Row, Kind], bool],
    what_if: Change,
    *,
    special: Batch | Job | None = None,
    more: Sequence[Planned] = (),
) -> Forecast:
    """Of the waiting and running jobs that `covers` says. `special`: the batch or job that it is about; `more`: jobs that
    have not been submitted. Raises `LimiterUnavailable`."""
    scenes = read_scenes(covers, special=special, more=more)
    return forecast_of(scenes, what_if)


def read_scenes(
    covers: Callable[[Row, Kind], bool], *, special: Batch | Job | None = None, more: Sequence[Planned] = ()
) -> Scenes:
    """Read the waiting and running jobs with their limits, pools and workers."""
    now = clock.now()
    backlog = read_backlog(_rows_of(special))
    _add(backlog, more)
    queues = {row.queue_id for row in (*backlog.waiting, *backlog.running)}
    slots: dict[str, int] = {}
    for lane, places in liveness.alive(now).values_list("lane", "places"):
        slots[lane] = slots.get(lane, 0) + places
    return Scenes(backlog, read_run_times(queues), slots, now.timestamp(), covers)


def _rows_of(special: Batch | Job | None) -> QuerySet[Job] | None:
    match special:
        case Batch():
            return Job.objects.filter(batch=special)
        case Job():
            return Job.objects.filter(pk=special.pk)
    return None


def _add(backlog: Backlog, more: Sequence[Planned]) -> None:
    """Jobs that have not been submitted come after all others. Of very many, each simulated one stands for several."""
    first = max((row.id for row in (*backlog.waiting, *backlog.running)), default=0) + 1
    chosen = min(len(more), MOST if len(more) <= MOST else SAMPLED)
    for number in range(chosen):
        begin, end = number * len(more) // chosen, (number + 1) * len(more) // chosen
        job = more[begin].job
        job.pk = first + number
        backlog.waiting.append(row_of(job, end - begin))
        if more[begin].after:
            backlog.after[job.pk] = tuple(more[begin].after)
    backlog.sampled = backlog.sampled or chosen < len(more)


def forecast_of(scenes: Scenes, what_if: Change) -> Forecast:
    """The expected end, the bounds by fast and slow runs, and the end with each of the changes."""
    rows = scenes.counted
    jobs = sum(row.size for row in rows)
    if not rows:
        return Forecast(0, what_if=[Changed(change, None) for change in what_if.each()])
    expected = _run(scenes)
    done = expected.done_at
    fast = slow = None
    if done is not None:
        fast, slow = _run(scenes, pace="fast").done_at, _run(scenes, pace="slow").done_at
    return Forecast(
        jobs=jobs,
        done_at=_moment(done),
        earliest=_moment(None if done is None or fast is None else min(fast, done)),
        latest=_moment(None if done is None or slow is None else max(slow, done)),
        starts_at=_moment(expected.starts_at),
        binding=list(_binding(scenes, expected)),
        what_if=[Changed(change, _moment(_run(scenes, change).done_at)) for change in what_if.each()],
        approximate=list(_notes(scenes)),
    )


def _run(scenes: Scenes, change: Change = NO_CHANGE, pace: Pace = "expected") -> Outcome:
    return simulate(scenes.scene(change, pace))


def _moment(time: float | None) -> datetime | None:
    return None if time is None else datetime.fromtimestamp(time, UTC)


def _binding(scenes: Scenes, outcome: Outcome) -> Iterator[Bound]:
    for cause, share in shares(outcome):
        if (rounded := round(share, 4)) > 0:
            kind = "paused" if cause.kind == "pool" and scenes.is_paused(cause.name) else cause.kind
            yield Bound(kind, cause.name, rounded)


def _notes(scenes: Scenes) -> Iterator[str]:
    if scenes.is_sampled:
        yield f"More than {MOST:,} jobs wait: each simulated one stands for several equal ones."
    unknown = dict.fromkeys(
        row.type for row in scenes.counted if row.stage != Stage.RUNNING and not scenes.run_time(row).known
    )
    if unknown:
        yield f"How long jobs of these types run is not known, {ASSUMED:g} s is assumed: {', '.join(list(unknown)[:MOST_TYPES])}."
