"""How long jobs run, from those that ended last in their queue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from queues.models import Job
from queues.states import Stage, Status

SAMPLE = 300
"""Jobs that ended last, of each queue."""
LEAST = 5
"""So many of one type are enough to speak for it; fewer count with those of other types."""
FAST, SLOW = 0.1, 0.9
"""Quantiles for the earliest and the latest end."""
ASSUMED = 1.0
"""Seconds that a job runs of which nothing similar has ended yet."""


@dataclass(frozen=True, slots=True)
class RunTime:
    """Seconds that a job occupies a worker slot."""

    expected: float
    fast: float
    slow: float
    known: bool = True
    """False: nothing similar has ended yet, and `slow` is the time-out."""


@dataclass(slots=True)
class RunTimes:
    """Seconds of recent runs, by queue and type, in ascending order."""

    by_type: dict[tuple[int, str], list[float]] = field(default_factory=dict)
    by_queue: dict[int, list[float]] = field(default_factory=dict)
    handling: float = 0.0
    """Seconds between the release of a job and its start, where it does not have to wait for a slot."""
    _found: dict[tuple[int, str, float], RunTime] = field(default_factory=dict)

    def of(self, queue_id: int, type: str, timeout: float) -> RunTime:
        """Of a job that has not started. `timeout`: its own, in seconds."""
        known = self._found.get((queue_id, type, timeout))
        if known is None:
            known = self._found[queue_id, type, timeout] = self._of(self.sample(queue_id, type), timeout)
        return known

    def _of(self, sample: Sequence[float], timeout: float) -> RunTime:
        if not sample:
            return RunTime(min(ASSUMED, timeout), 0.0, timeout, known=False)
        expected, fast, slow = _mean(sample), _quantile(sample, FAST), _quantile(sample, SLOW)
        return RunTime(
            expected + self.handling, min(fast, expected) + self.handling, max(slow, expected) + self.handling
        )

    def left(self, queue_id: int, type: str, timeout: float, elapsed: float) -> RunTime:
        """Of a job that has run for `elapsed` seconds: what those that ran longer had left then, never less than 0."""
        sample = [seconds - elapsed for seconds in self.sample(queue_id, type) if seconds > elapsed]
        if sample:
            return RunTime(_mean(sample), _quantile(sample, FAST), _quantile(sample, SLOW))
        # It has run longer than all before it: it is expected to take half as long again.
        most = max(timeout - elapsed, 0.0)
        return RunTime(min(max(elapsed / 2, ASSUMED), most), 0.0, most, known=False)

    def sample(self, queue_id: int, type: str) -> Sequence[float]:
        """The seconds of the runs that are most like it: of its queue and type, else of its type, else of its queue."""
        own = self.by_type.get((queue_id, type), [])
        if len(own) >= LEAST:
            return own
        alike = [seconds for (_, name), each in self.by_type.items() if name == type for seconds in each]
        return sorted(alike) or self.by_queue.get(queue_id, [])


def read_run_times(queue_ids: Iterable[int]) -> RunTimes:
    """Of the jobs that ended last in those queues. Cancelled ones say nothing of how long a job takes; time in which
    a queue was paused is no part of a run."""
    by_type: dict[tuple[int, str], list[float]] = defaultdict(list)
    by_queue: dict[int, list[float]] = defaultdict(list)
    handling: list[float] = []
    for queue_id in queue_ids:
        ended = Job.objects.filter(queue_id=queue_id, stage=Stage.DONE, finished_at__isnull=False)
        rows = ended.order_by("-finished_at").values_list(
            "type", "status", "dispatched_at", "started_at", "finished_at"
        )
        for type, status, dispatched, started, finished in rows[:SAMPLE]:
            if started is None or finished is None or status == Status.CANCELLED:
                continue
            seconds = _between(started, finished)
            by_type[queue_id, type].append(seconds)
            by_queue[queue_id].append(seconds)
            if dispatched is not None:
                handling.append(_between(dispatched, started))
    for each in (*by_type.values(), *by_queue.values(), handling):
        each.sort()
    return RunTimes(dict(by_type), dict(by_queue), _quantile(handling, FAST) if handling else 0.0)


def _between(began: datetime, ended: datetime) -> float:
    return max((ended - began).total_seconds(), 0.0)


def _mean(sample: Sequence[float]) -> float:
    return sum(sample) / len(sample)


def _quantile(sample: Sequence[float], share: float) -> float:
    ordered = sorted(sample)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
