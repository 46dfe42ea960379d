"""A job's timeline, from its row, its transitions, its attempts and its dead letters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from queues.models import Attempt, DeadLetter, Job, Transition
from queues.selectors.wait_history import Span, spans_of
from queues.states import IN_FLIGHT_STAGES, AttemptOutcome, Stage, Status


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job's life. `state` is a status, or `failed` for an attempt."""

    at: datetime
    state: str
    reason: str


class _Entry(NamedTuple):
    """A step with its rank among steps of the same time."""

    at: datetime
    rank: int
    state: str
    reason: str


def timeline(job: Job, spans: Sequence[Span] | None = None) -> list[Step]:
    """Every step of a job's life, oldest first. `spans`: those of the job, if they are known already."""
    steps = [_Entry(job.created_at, 0, Status.PENDING, "accepted")]
    steps += [_Entry(row.at, 2, row.state, row.reason) for row in Transition.objects.filter(job=job)]
    # The last death is in the job's own row; those before a replay are in their dead letters.
    deaths = DeadLetter.objects.filter(job=job).order_by("pk").values_list("created_at", "category", "error")
    for at, category, error in list(deaths)[: -1 if job.status == Status.DEAD else None]:
        steps.append(_Entry(at, 3, Status.DEAD, f"{category}: {error}"[:500]))
    attempts = list(Attempt.objects.filter(job=job))
    waits_ended = dict(_ended_waits(_released(job, attempts), spans_of(job) if spans is None else spans))
    for attempt in attempts:
        steps += _steps_of(attempt, waits_ended)
    if job.stage == Stage.RUNNING and job.started_at is not None:
        after = _after(waits_ended, job.dispatched_at)
        steps.append(_Entry(job.started_at, 1, Status.EXECUTING, f"attempt {job.attempts_made}{after}"[:500]))
    if job.status in (Status.COMPLETED, Status.DEAD) and job.finished_at is not None:
        steps.append(_Entry(job.finished_at, 3, job.status, job.reason))
    return [Step(step.at, str(step.state), step.reason) for step in sorted(steps, key=lambda step: step[:2])]


def _released(job: Job, attempts: Sequence[Attempt]) -> list[datetime]:
    """When its deliveries were put on the belt."""
    found = [attempt.dispatched_at for attempt in attempts if attempt.dispatched_at]
    if job.stage in IN_FLIGHT_STAGES and job.dispatched_at is not None:
        found.append(job.dispatched_at)
    return found


def _steps_of(attempt: Attempt, waits_ended: Mapping[datetime, str]) -> Iterator[_Entry]:
    if attempt.started_at is not None:
        where = f" on account {attempt.account}" if attempt.account else ""
        after = _after(waits_ended, attempt.dispatched_at)
        yield _Entry(attempt.started_at, 1, Status.EXECUTING, f"attempt {attempt.number}{where}{after}"[:500])
    if attempt.outcome in (AttemptOutcome.FAILED, AttemptOutcome.LOST):
        error = f"attempt {attempt.number}: {attempt.category or attempt.outcome}: {attempt.error}"
        yield _Entry(attempt.ended_at, 1, "failed", error[:500])


def _after(waits_ended: Mapping[datetime, str], released: datetime | None) -> str:
    """What the step of a start says of the wait before it."""
    text = waits_ended.get(released) if released is not None else None
    return f"; {text}" if text else ""


NOTABLE = timedelta(milliseconds=100)
"""Shorter waits are not shown on a timeline."""


def _ended_waits(released: Sequence[datetime], spans: Sequence[Span]) -> Iterator[tuple[datetime, str]]:
    """For each release to a worker how long the job had waited since it was accepted or last ran, and for what."""
    for at in released:
        before = [span for span in spans if span.ended_at <= at]
        last_run = max((span.ended_at for span in before if not span.is_wait), default=None)
        waits = [span for span in before if span.is_wait and (last_run is None or span.began_at >= last_run)]
        if not waits or at - waits[0].began_at < NOTABLE:
            continue
        seconds: dict[str, timedelta] = {}
        for span in waits:
            seconds[span.label] = seconds.get(span.label, timedelta()) + (span.ended_at - span.began_at)
        causes = sorted(((label, time) for label, time in seconds.items() if time >= NOTABLE), key=lambda one: -one[1])
        of = ", ".join(f"{_span(time)} {label}" for label, time in causes)
        yield at, f"released after {_span(at - waits[0].began_at)}: {of}"


def _span(time: timedelta) -> str:
    """`0.4 s`, `7 s`, `18 min 23 s`, `2 h 5 min`."""
    if time < timedelta(seconds=1):
        return f"{time.total_seconds():.1f} s"
    seconds = round(time.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
