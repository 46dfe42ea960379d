"""What a policy would have denied in the traffic that SQL has recorded, before anybody saves it.

Checks are not recorded one by one: a denied one writes nothing, an admitted one moves counters. What is kept is the
roll-ups of each policy's use. So the traffic comes from a stored policy that counts the same subjects in the same unit,
at the resolution that is still kept, and the answer says what is approximate in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from quotas import clock
from quotas.errors import QuotaError
from quotas.models import UsageRollup
from quotas.services import traffic
from quotas.services.rollups import RETENTION, start_of
from quotas.services.traffic import Recorded
from quotas.services.usage import Selection
from quotas.snapshot import resolve
from quotas.snapshot.policies import PARTITIONED, CompiledPolicy

MOST_ROWS = 100_000
LENGTHS = {"minute": 60.0, "hour": 3600.0, "day": 86400.0}
_PERIODS = {"day": 86400.0, "week": 7 * 86400.0, "month": 31 * 86400.0}


class NothingRecorded(QuotaError):
    """No stored policy counts the same subjects in the same unit, so that nothing is known of such traffic."""


class TooMuchRecorded(QuotaError):
    """There are more roll-ups in that time than one answer can look at: choose a shorter one."""


@dataclass(frozen=True, slots=True)
class Held:
    """One subject's traffic and what came of it, in units."""

    project: str
    key: str
    limit: int | None
    demand: int
    denied: int
    recorded_denied: int
    first_denied: datetime | None


@dataclass(frozen=True, slots=True)
class Backtest:
    source: str
    """The stored policy whose roll-ups are the traffic."""
    resolution: str
    begin: datetime
    end: datetime
    subjects: list[Held]
    """Those that would have been denied most come first."""
    approximate: list[str]


def backtest(policy: CompiledPolicy, begin: datetime, end: datetime, visible_to: str | None = None) -> Backtest:
    """Apply `policy` to what was recorded from `begin` to `end`; `visible_to` as in `Selection`.

    Raises `NothingRecorded`, `TooMuchRecorded`.
    """
    source = _source(policy, visible_to)
    now = clock.now()
    begin = max(begin, now - RETENTION["day"])  # nothing older is kept
    resolution = next(name for name, age in RETENTION.items() if begin >= now - age)
    begin = start_of(resolution, begin)
    length = LENGTHS[resolution]
    counts = policy.unit == "requests"
    subjects = []
    for (project, key), rows in _recorded(policy, source, resolution, begin, end, visible_to).items():
        if not _applies(policy, project, key):
            continue
        steps = traffic.steps_of(source, rows, length, refusals=counts)
        limit = policy.limit_for(key, project, 0, begin.timestamp()).limit
        refused = list(traffic.denials(policy, limit, steps, length))
        if limit is not None and _same_short_window(policy, source, length):
            # The highest use in such a window was seen, however it was spread.
            refused = [max(units, step.peak - limit) for units, step in zip(refused, steps, strict=True)]
        counted = [
            (row, step, units)
            for row, step, units in zip(rows, steps, refused, strict=True)
            if step.start >= begin.timestamp()
        ]
        if not counted:
            continue
        first = next((step.start for _, step, units in counted if units), None)
        subjects.append(
            Held(
                project=project,
                key=key,
                limit=limit,
                demand=sum(step.demand for _, step, _ in counted),
                denied=sum(units for _, _, units in counted),
                recorded_denied=sum(row.denied for row, _, _ in counted),
                first_denied=None if first is None else datetime.fromtimestamp(first, UTC),
            )
        )
    subjects.sort(key=lambda snapshot: (-snapshot.denied, snapshot.project, snapshot.key))
    return Backtest(source.name, resolution, begin, end, subjects, list(_notes(policy, source, resolution)))


def span(policy: CompiledPolicy) -> float:
    """Seconds for which a use counts."""
    return _PERIODS[policy.period] if policy.algorithm == "calendar" else policy.window


def _source(policy: CompiledPolicy, visible_to: str | None) -> CompiledPolicy:
    """The stored policy that recorded most of the same traffic: the one of that name, else the longest window."""
    alike = [
        stored
        for stored in Selection(visible_to=visible_to).policies()
        if (stored.scope, stored.key_name, stored.match, stored.unit)
        == (policy.scope, policy.key_name, policy.match, policy.unit)
        and (stored.name == policy.name or stored.project in ("", policy.project))
        and stored.limit is not None
        and (stored.algorithm == "concurrency") == (policy.algorithm == "concurrency")
    ]
    if not alike:
        raise NothingRecorded(policy.name)
    return max(alike, key=lambda stored: (stored.name == policy.name, not stored.tier, span(stored)))


def _recorded(
    policy: CompiledPolicy,
    source: CompiledPolicy,
    resolution: str,
    begin: datetime,
    end: datetime,
    visible_to: str | None,
) -> dict[tuple[str, str], list[Recorded]]:
    """Roll-ups by subject in the order of time; from one window before `begin` on, since what was used then counts."""
    earlier = timedelta(seconds=max(span(policy), span(source), LENGTHS[resolution]))
    rows = UsageRollup.objects.filter(
        policy_id=source.pk, resolution=resolution, start__gte=begin - earlier, start__lt=end
    ).exclude(key="")
    for slug in (policy.project, visible_to):
        if slug and source.scope in PARTITIONED:
            rows = rows.filter(project=slug)
    found: dict[tuple[str, str], list[Recorded]] = defaultdict(list)
    recorded = rows.order_by("start").values_list("project", "key", "start", "used", "denied")[: MOST_ROWS + 1]
    for place, (project, key, start, used, denied) in enumerate(recorded):
        if place == MOST_ROWS:
            raise TooMuchRecorded(f"more than {MOST_ROWS}")
        found[project, key].append(Recorded(start.timestamp(), used, denied))
    return found


def _applies(policy: CompiledPolicy, project: str, key: str) -> bool:
    if policy.skips(key, None, None):
        return False
    if not policy.tier:
        return True
    snapshot = resolve.snapshot()
    facts = snapshot.projects.get(project)
    of_project = facts is not None and facts.tier == policy.tier
    return of_project or (policy.scope == "user" and policy.tier in snapshot.user_tiers.get(key, ()))


def _same_short_window(policy: CompiledPolicy, source: CompiledPolicy, length: float) -> bool:
    windows = ("fixed_window", "sliding_window", "sliding_window_counter")
    return policy.algorithm in windows and source.algorithm in windows and policy.window == source.window <= length


def _notes(policy: CompiledPolicy, source: CompiledPolicy, resolution: str) -> Iterator[str]:
    length = LENGTHS[resolution]
    yield f"Traffic is known per {resolution}, and counts as evenly spread within it: shorter bursts are not seen."
    yield "Counters are sampled every few seconds; what other policies refused is not in this traffic."
    if policy.algorithm == "concurrency":
        yield "The highest number in flight is known, not how many calls there were: one per excess slot is counted."
    elif source.algorithm == "token_bucket":
        yield f"{source.name!r} is a bucket that drains: the traffic is what its level rose by at least."
    elif source.algorithm != "calendar" and source.window < length:
        yield (
            f"{source.name!r} counts in windows shorter than a {resolution}, and only the highest use in each "
            "is known: there may have been more traffic, and more denials."
        )
    elif source.algorithm.startswith("sliding_window"):
        yield (
            f"The window of {source.name!r} rolls: where one {resolution} ends and the next begins, some units may be "
            + ("counted in both." if source.window == length else "missing.")
        )
    if policy.unit == "requests":
        yield "A check that was refused counts as one request."
    else:
        yield "What refused checks would have cost is not known: they are counted, but are not in the traffic."
    if policy.project and policy.scope not in PARTITIONED:
        yield "These counters are not kept apart by project: the traffic is all projects' together."
    if policy.excluded or source.excluded:
        yield "Excluded paths can't be distinguished: the recorded policy's own exclusions apply."
