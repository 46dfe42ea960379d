"""Compares alerts with SQL: which problems exist, and which are over. So a lost event leaves no alert missing or open.

An alert ends when its problem has been over for `SLUICE_ALERT_CALM` seconds. An alert that an operator has resolved
opens again only after something new.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Count, Max

from controlplane.alerts import conditions, records, summaries
from controlplane.alerts.kinds import Trouble, rank
from controlplane.models import Alert
from queues.models import DeadLetter, Job, Queue
from queues.selectors.ignored_failures import without_ignored, without_ignored_deaths
from queues.selectors.queues import ready_since
from queues.states import WAITING_STAGES, Stage, Status
from quotas import clock
from quotas.engine.categories import ACCOUNT_FAILURES
from quotas.models import Account, ThresholdMark

ALERT_RETENTION = timedelta(days=90)
"""How long alerts that are over are kept."""
COUNT_EVERY = 3
"""Every third comparison counts rows."""
NEARLY_FULL, NO_LONGER = 0.8, 0.6
ERROR_RATE_SPAN = 60.0
"""Seconds over which calls are counted for the error rate."""
MIN_CALLS = 20
FAILURE_SPAN = timedelta(minutes=10)
FAILURE_READ = 1000
"""A queue's failure rate is that of its last jobs, at most so many and no older."""
FEWEST_DEAD = 10
"""With fewer there is no rate yet; the dashboard shows the dead letters."""
Place = tuple[str, str]


@dataclass(slots=True)
class Watch:
    """Compares every few seconds, in the leading process."""

    _looks: int = 0
    _counted: list[Trouble] = field(default_factory=list)
    _gone: dict[Place, float] = field(default_factory=dict)
    _calls: deque[tuple[float, dict[str, tuple[int, int]]]] = field(default_factory=deque)

    def look_at_everything(self) -> None:
        """A look that also takes what is looked at only now and then."""
        self._looks = 0
        self.look()

    def look(self) -> None:
        now = clock.now()
        known = {(alert.kind, alert.subject): alert for alert in Alert.objects.filter(resolved_at=None)}
        if fresh := self._looks % COUNT_EVERY == 0:
            self._counted = [
                *_backlogs(now, known),
                *_failures(now, known),
                *_letters(now),
                *conditions.troubles(now, known.__contains__),
            ]
            Alert.objects.filter(resolved_at__lt=now - ALERT_RETENTION).delete()
        self._looks += 1
        rows = list(Account.objects.select_related("pool").defer("credential"))
        found = [*_accounts(rows, now), *_pools(rows, now), *self._errors(rows, known), *_marks(), *self._counted]
        present = {trouble.place: trouble for trouble in found}
        counted = {trouble.place for trouble in self._counted} if fresh else set()
        for place, trouble in present.items():
            alert = known.get(place)
            if alert is None:
                if not _was_resolved_by_operator(trouble):
                    records.report(trouble)
            elif rank(trouble.severity) > rank(alert.severity):
                records.report(trouble)
            elif trouble.place in counted:
                records.refresh(alert, trouble)
        self._end(known, present)

    def _end(self, known: dict[Place, Alert], present: dict[Place, Trouble]) -> None:
        moment = time.monotonic()
        self._gone = {place: since for place, since in self._gone.items() if place in known and place not in present}
        for place, alert in known.items():
            if place in present:
                continue
            if moment - self._gone.setdefault(place, moment) >= settings.ALERT_CALM:
                records.end(alert)

    def _errors(self, rows: Iterable[Account], known: dict[Place, Alert]) -> Iterator[Trouble]:
        """Failures among the calls of the last minute. A count that went down starts anew."""
        moment = time.monotonic()
        good: Counter[str] = Counter()
        bad: Counter[str] = Counter()
        for row in rows:
            good[row.pool.name] += row.successes
            bad[row.pool.name] += sum(row.errors.get(category, 0) for category in ACCOUNT_FAILURES)
        self._calls.append((moment, {pool: (good[pool], bad[pool]) for pool in good}))
        while len(self._calls) > 2 and self._calls[1][0] <= moment - ERROR_RATE_SPAN:
            self._calls.popleft()
        since, before = self._calls[0]
        for pool in good:
            succeeded, failed = (now - then for now, then in zip(
                (good[pool], bad[pool]), before.get(pool, (good[pool], bad[pool])), strict=True
            ))  # fmt: skip
            calls = succeeded + failed
            if min(succeeded, failed) < 0 or calls < MIN_CALLS:
                continue
            trouble = summaries.error_rate(pool, failed, calls, moment - since)
            bound = settings.ALERT_ERROR_RATE / (2 if trouble.place in known else 1)
            if failed / calls > bound:
                yield trouble


def _was_resolved_by_operator(trouble: Trouble) -> bool:
    """Whether an operator has resolved the last one of its kind and subject."""
    last = Alert.objects.filter(kind=trouble.kind, subject=trouble.subject[:300]).order_by("-pk").first()
    return last is not None and last.resolved_at is not None and last.resolved_by != ""


def _accounts(rows: Iterable[Account], now: datetime) -> Iterator[Trouble]:
    for row in rows:
        if row.state in ("open", "half_open"):
            yield summaries.breaker_opened(row.pool.name, row.name, row.why)
        elif row.state == "disabled" and row.why == "auth" and row.enabled:
            yield summaries.auth_failed(row.pool.name, row.name)
        elif (
            row.state == "cooling_down"
            and row.why == "quota_exhausted"
            and row.enabled
            and row.until
            and row.until > now
        ):
            yield summaries.quota_exhausted(row.pool.name, row.name)


def _pools(rows: Iterable[Account], now: datetime) -> Iterator[Trouble]:
    pools: dict[str, list[Account]] = {}
    for row in rows:
        if row.enabled:
            pools.setdefault(row.pool.name, []).append(row)
    for name, accounts in pools.items():
        states = Counter(row.state for row in accounts if not _is_over(row, now))
        free = len(accounts) - states["cooling_down"] - states["open"] - states["half_open"] - states["disabled"]
        if not free and states["cooling_down"] + states["open"]:
            ends = [(row.until - now) / timedelta(seconds=1) for row in accounts if row.until and row.until > now]
            summary = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in sorted(states.items()))
            yield summaries.pool_limited(name, summary, min(ends, default=None))


def _is_over(row: Account, now: datetime) -> bool:
    return row.state == "cooling_down" and row.until is not None and row.until <= now


def _marks() -> Iterator[Trouble]:
    for mark in ThresholdMark.objects.select_related("policy"):
        if not summaries.is_alerted(mark.policy.scope, mark.policy.warn_at):
            continue
        yield summaries.threshold(mark.policy.name, mark.project, mark.key, mark.share)


def _backlogs(now: datetime, known: dict[Place, Alert]) -> Iterator[Trouble]:
    """Queues that are nearly full, or whose oldest job could have run long ago."""
    waiting = Job.objects.filter(stage__in=WAITING_STAGES).order_by()
    counts = dict(waiting.values_list("queue").annotate(count=Count("*")))
    since = ready_since(Job.objects.all())
    for queue in Queue.objects.all():
        count = counts.get(queue.pk, 0)
        age = (now - since[queue.pk]) / timedelta(seconds=1) if queue.pk in since and not queue.paused_at else 0.0
        trouble = summaries.backlog(queue.name, count, queue.max_size, age)
        is_open = trouble.place in known
        share = NO_LONGER if is_open else NEARLY_FULL
        patience = settings.ALERT_BACKLOG_AGE / (2 if is_open else 1)
        if age > patience or (queue.max_size and count >= share * queue.max_size):
            yield trouble


def _failures(now: datetime, known: dict[Place, Alert]) -> Iterator[Trouble]:
    """Queues in which many of the last jobs died."""
    counted = without_ignored_deaths(Job.objects.exclude(status=Status.CANCELLED), now)
    for queue in Queue.objects.all():
        rows = counted.filter(queue=queue, stage=Stage.DONE, finished_at__gt=now - FAILURE_SPAN)
        latest = rows.order_by("-finished_at")
        ended = Counter(latest.values_list("status", flat=True)[:FAILURE_READ])
        total, died = ended.total(), ended[Status.DEAD]
        if not total:
            continue
        trouble = summaries.failure_rate(queue.name, died, total)
        is_open = trouble.place in known
        share = settings.ALERT_FAILURE_RATE / (2 if is_open else 1)
        if died >= (1 if is_open else FEWEST_DEAD) and died / total > share:
            yield trouble


def _letters(now: datetime) -> Iterator[Trouble]:
    rows = without_ignored(DeadLetter.objects.filter(handled_at=None, severity="critical"), now).order_by()
    for project, queue, count, last in rows.values_list("project__slug", "queue__name").annotate(
        Count("id"), Max("id")
    ):
        letter = DeadLetter.objects.only("category", "type").get(pk=last)
        yield summaries.letters(project, queue, letter.category, letter.type, count)
