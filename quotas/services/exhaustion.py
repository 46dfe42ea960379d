"""When a quota is used up if use continues at its present rate, and when it is available again after that."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from quotas.engine.limits.capacity import capacity_of
from quotas.engine.limits.periods import boundaries
from quotas.engine.types import Limit
from quotas.models import UsageRollup
from quotas.runtime.connection import limiter
from quotas.services import traffic
from quotas.services.backtest import LENGTHS, span
from quotas.services.traffic import Recorded
from quotas.snapshot.policies import PARTITIONED, CompiledPolicy

DAY = 86_400.0
LEAST = 3600.0
"""Seconds over which a rate is measured at least."""
PARTS = 60
"""Parts of a sliding window in which its units come back."""


@dataclass(frozen=True, slots=True)
class Exhaustion:
    """Unix times. `at` is None if it will not be used up; `again_at` if it is never available again by itself."""

    at: float | None
    again_at: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """The use of one or several equal counters now. `capacity`: the most that may be used at once, of all together.

    `refill`: units a second that come back, of a token bucket. `ends_at`: where the present window or period ends.
    """

    used: float
    capacity: float
    rate: float
    """Units a second that are used."""
    window: float
    ends_at: float
    algorithm: str
    refill: float = 0.0


def exhaustion_of(standing: Standing, now: float) -> Exhaustion:
    """By arithmetic: what is left, divided by the rate less what comes back meanwhile."""
    left = standing.capacity - standing.used
    if left < 1:
        return Exhaustion(now, standing.ends_at if standing.capacity >= 1 else None)
    if standing.rate <= 0 or standing.algorithm == "concurrency":
        return Exhaustion(None, now)
    if standing.algorithm == "token_bucket":
        more = standing.rate - standing.refill
        at = now + left / more if more > 0 else None
        return Exhaustion(at, now if at is None else at + (1 / standing.refill if standing.refill else DAY))
    if standing.algorithm.startswith("sliding_window"):
        more = standing.rate - standing.used / standing.window
        at = now + left / more if more > 0 and standing.rate * standing.window > standing.capacity else None
        return Exhaustion(at, now if at is None else at + standing.window / PARTS)
    at = now + left / standing.rate
    if at < standing.ends_at:
        return Exhaustion(at, standing.ends_at)
    if standing.rate * standing.window > standing.capacity:  # in the next one
        return Exhaustion(standing.ends_at + standing.capacity / standing.rate, standing.ends_at + standing.window)
    return Exhaustion(None, now)


def of_policy(
    policy: CompiledPolicy, subject: str, partition: str, now: datetime, recorded: CompiledPolicy | None = None
) -> Exhaustion:
    """Of one subject's counter. `recorded`: the policy as it is stored, where `policy` is it with another limit. Raises
    `LimiterUnavailable`."""
    moment = now.timestamp()
    limit = policy.limit_for(subject, partition, 1, moment)
    capacity = capacity_of(limit.algorithm, limit.limit, limit.burst)
    if limit.limit is None or capacity is None:
        return Exhaustion(None, moment)
    (state,) = limiter().peek([limit])
    if not state.allowed:
        return Exhaustion(moment, None if state.retry_after is None else moment + state.retry_after)
    return exhaustion_of(
        Standing(
            used=state.used,
            capacity=capacity,
            rate=_rate(recorded or policy, subject, partition, state.used, now),
            window=span(policy) if policy.algorithm != "concurrency" else 0.0,
            ends_at=end_of(limit, moment) or moment + state.reset_after,
            algorithm=policy.algorithm,
            refill=limit.limit / policy.window if policy.window else 0.0,
        ),
        moment,
    )


def end_of(limit: Limit, moment: float) -> float | None:
    """Where the present fixed window or calendar period of a limit ends; None for other algorithms."""
    if limit.algorithm == "calendar":
        return boundaries(limit.period, limit.timezone, int(moment * 1e6))[2] / 1e6
    if limit.algorithm == "fixed_window":
        return (moment // limit.window + 1) * limit.window
    return None


def _rate(policy: CompiledPolicy, subject: str, partition: str, used: int, now: datetime) -> float:
    """Units a second today: since midnight in the policy's time zone, or the last hour where the window is shorter than
    a day or the day is young."""
    zone = ZoneInfo(policy.timezone or "UTC")
    begin = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)
    window = span(policy)
    if window < DAY or now - begin < timedelta(seconds=LEAST):
        begin = now - timedelta(seconds=LEAST)
    admitted = _admitted(policy, subject, partition, begin, now)
    if policy.algorithm not in ("token_bucket", "concurrency"):
        periodic = policy.algorithm in ("fixed_window", "calendar")
        counted_since = traffic.begin_of(policy, now.timestamp()) if periodic else now.timestamp() - window
        if counted_since >= begin.timestamp():
            admitted = max(admitted, used)  # also what has not been sampled yet
    return admitted / (now - begin).total_seconds()


def _admitted(policy: CompiledPolicy, subject: str, partition: str, begin: datetime, now: datetime) -> int:
    """Units that were admitted from `begin` to `now`, from the roll-ups of each minute."""
    rows = UsageRollup.objects.filter(policy_id=policy.pk, key=subject, start__lt=now)
    if policy.scope in PARTITIONED:
        rows = rows.filter(project=partition)
    # What was used before counts as well: the minutes of one window, and one hour before that.
    earlier = begin - timedelta(seconds=min(span(policy), DAY))
    columns = ("start", "used", "denied")
    before = rows.filter(resolution="hour", start__lt=earlier).order_by("-start").values_list(*columns)[:1]
    minutes = rows.filter(resolution="minute", start__gte=earlier).order_by("start").values_list(*columns)
    recorded = [Recorded(start.timestamp(), level, denied) for start, level, denied in (*before, *minutes)]
    steps = traffic.steps_of(policy, recorded, LENGTHS["minute"], refusals=False)
    return sum(step.admitted for step in steps if step.start >= begin.timestamp())
