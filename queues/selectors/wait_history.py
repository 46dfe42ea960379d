"""What a job waited for, from its acceptance until now or its end: spans that follow each other without a gap.

A job's row and its attempts say when it was in each stage: HELD, scheduled, ready, on the belt, running. For the time in
which it was ready, the intervals of the wait ledger (`queues.models.WaitInterval`) say what blocked it; where none
applies, other jobs had their turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Max, Q

from queues.models import Attempt, Batch, DeadLetter, Job, JobDependency, WaitInterval
from queues.reason_codes import REASONS
from queues.states import Stage
from quotas import clock

RUNNING = "running"
"""Not a wait: the spans of attempts, so that a whole life can be drawn."""
DEAD = "dead"
"""Not a wait: from a dead letter to its replay."""
TURN = "turn"
NOTABLE = timedelta(milliseconds=1)
"""Shorter waits are left out of lists."""


@dataclass(frozen=True, slots=True)
class Span:
    """`code` is a reason code, `running` or `dead`; `name` the policy, pool, queue or account, empty where none."""

    code: str
    name: str
    began_at: datetime
    ended_at: datetime

    @property
    def seconds(self) -> float:
        return (self.ended_at - self.began_at).total_seconds()

    @property
    def label(self) -> str:
        """What it was, in words, with the name of the policy, pool or queue."""
        words = REASONS[self.code].label if self.code in REASONS else self.code
        return f"{words} {self.name}" if self.name else words

    @property
    def is_wait(self) -> bool:
        return self.code not in (RUNNING, DEAD)


def spans_of(job: Job, now: datetime | None = None) -> list[Span]:
    """The job's whole life in spans, oldest first; the last one ends now where the job has not ended."""
    end = job.finished_at if job.stage == Stage.DONE and job.finished_at else now or clock.now()
    ready: list[tuple[datetime, datetime]] = []
    spans: list[Span] = []
    for code, name, began, ended in _phases(job, end):
        if ended <= began:
            continue
        if code == TURN:
            ready.append((began, ended))
        else:
            spans.append(Span(code, name, began, ended))
    if ready:
        intervals = _intervals(job, ready[0][0], ready[-1][1])
        for began, ended in ready:
            spans.extend(_cut(intervals, began, ended))
    return sorted(spans, key=lambda span: span.began_at)


def waits_in(spans: Iterable[Span]) -> list[Span]:
    """The waits among a job's spans: those that are long enough to be shown, without the spans in which it ran."""
    return [span for span in spans if span.is_wait and span.ended_at - span.began_at >= NOTABLE]


def seconds_by_code(spans: Iterable[Span]) -> dict[str, float]:
    """Seconds of waiting by reason code, longest first."""
    found: dict[str, float] = {}
    for span in spans:
        if span.is_wait:
            found[span.code] = found.get(span.code, 0.0) + span.seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def of_batch(batch: Batch, now: datetime | None = None) -> dict[str, float]:
    """Seconds, by reason code, in which jobs of the batch's groups waited for one cause, longest first.

    Causes that block single users or chats are left out, so that a batch of many groups reads as one.
    """
    end = batch.finished_at or now or clock.now()
    groups = (
        Job.objects.filter(batch=batch).order_by().values_list("queue_id", "priority", "project_id", "pool").distinct()
    )
    found: dict[str, float] = {}
    for queue_id, priority, project_id, pool in groups[:100]:
        rows = _overlapping(batch.created_at, end).filter(
            Q(queue_id=queue_id, priority=priority, project_id=project_id, pool=pool, ordering_key="")
            | Q(queue_id=None)
        )
        for span in _cut(list(rows), batch.created_at, end):
            if span.code != TURN:
                found[span.code] = found.get(span.code, 0.0) + span.seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


Phase = tuple[str, str, datetime, datetime]


def _phases(job: Job, end: datetime) -> Iterator[Phase]:
    """The stages of the job as its rows have them; time in which it was ready has the code `turn`."""
    attempts = list(Attempt.objects.filter(job=job).order_by("number"))
    deaths = list(DeadLetter.objects.filter(job=job).order_by("pk").values_list("created_at", flat=True))
    since = job.created_at
    for number, attempt in enumerate(attempts):
        released = attempt.dispatched_at or attempt.started_at or attempt.ended_at
        yield from _before(job, since, attempt.ready_at, released, deaths, first=number == 0)
        started = attempt.started_at or attempt.ended_at
        yield "worker_slot", "", released, started
        yield RUNNING, attempt.account, started, attempt.ended_at
        since = attempt.ended_at
    if job.stage == Stage.DONE:
        # Cancelled while it waited, or dead without an attempt.
        yield from _before(job, since, None, end, deaths, first=not attempts, ended=True)
    elif job.stage in (Stage.BELT, Stage.RUNNING) and job.dispatched_at is not None:
        yield from _before(job, since, job.not_before, job.dispatched_at, deaths, first=not attempts)
        started = job.started_at if job.stage == Stage.RUNNING and job.started_at else end
        yield "worker_slot", "", job.dispatched_at, started
        yield RUNNING, "", started, end
    elif job.stage == Stage.READY:
        yield from _before(job, since, job.not_before, end, deaths, first=not attempts)
    else:
        yield from _before(job, since, end, end, deaths, first=not attempts)


def _before(
    job: Job,
    since: datetime,
    ready: datetime | None,
    released: datetime,
    deaths: Sequence[datetime],
    *,
    first: bool,
    ended: bool = False,
) -> Iterator[Phase]:
    """From acceptance or the end of an attempt until the next release, or the end of the job."""
    ready = min(max(ready or since, since), released)
    if first:
        depended = _depended_until(job, since, ready)
        yield "dependency", "", since, depended
        yield "scheduled", "", depended, ready
    else:
        died = any(since <= death <= released for death in deaths)
        yield (DEAD if died else "retry_backoff"), "", since, ready
        if ended and died:
            return
    yield TURN, "", ready, released


def _depended_until(job: Job, since: datetime, ready: datetime) -> datetime:
    """When the last job or batch had ended that the job came after; `since` where it came after none."""
    if ready == since:
        return since
    if job.stage == Stage.HELD:
        return ready
    after = JobDependency.objects.filter(job=job).aggregate(last=Max("after__finished_at"))["last"]
    batch = Batch.objects.filter(then=job).values_list("finished_at", flat=True).first()
    ends = [end for end in (after, batch) if end is not None]
    return min(max([since, *ends]), ready)


def _overlapping(began: datetime, ended: datetime):  # type: ignore[no-untyped-def]
    return WaitInterval.objects.filter(Q(ended_at=None) | Q(ended_at__gt=began), began_at__lt=ended)


def _intervals(job: Job, began: datetime, ended: datetime) -> list[WaitInterval]:
    mine = Q(queue_id=job.queue_id, priority=job.priority, project_id=job.project_id, pool=job.pool)
    rows = _overlapping(began, ended).filter((mine & Q(ordering_key__in=("", job.ordering_key))) | Q(queue_id=None))
    return list(rows)


def _cut(intervals: Sequence[WaitInterval], began: datetime, ended: datetime) -> list[Span]:
    """Cover [began, ended] without overlap. What blocks all groups counts first, then what blocks the ordering key itself,
    then what blocks the group; the rest is `turn`."""
    rows = sorted((row for row in intervals if row.began_at < ended), key=lambda row: row.began_at)
    edges = {began, ended}
    for row in rows:
        edges.update(edge for edge in (row.began_at, row.ended_at) if edge is not None and began < edge < ended)
    ordered = sorted(edges)
    spans: list[Span] = []
    active: list[WaitInterval] = []
    next_row = 0
    for left, right in zip(ordered, ordered[1:], strict=False):
        while next_row < len(rows) and rows[next_row].began_at <= left:
            active.append(rows[next_row])
            next_row += 1
        active = [row for row in active if row.ended_at is None or row.ended_at > left]
        holder = min(active, key=_breadth, default=None)
        code, name = (holder.code, holder.name) if holder is not None else (TURN, "")
        if spans and (spans[-1].code, spans[-1].name) == (code, name):
            spans[-1] = Span(code, name, spans[-1].began_at, right)
        else:
            spans.append(Span(code, name, left, right))
    return spans


def _breadth(row: WaitInterval) -> tuple[bool, bool]:
    return row.queue_id is not None, row.ordering_key == ""
