"""One policy's use over time, from the same roll-ups that `GET /api/v1/limits/usage/history` shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Max, QuerySet, Sum

from quotas.models import Policy, UsageRollup
from quotas.services import traffic, usage
from quotas.services.backtest import LENGTHS
from quotas.services.traffic import Recorded
from quotas.snapshot import resolve
from quotas.snapshot.policies import PARTITIONED

CANDIDATES = 40
"""Subjects with the highest use whose volume is computed."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """One subject in a time: the units that were admitted at least, its highest use, and how often it was refused."""

    project: str
    key: str
    used: int
    peak: int
    limit: int | None
    denied: int


@dataclass(frozen=True, slots=True)
class Point:
    """One roll-up's time: the highest share of its limit that a subject used, and the refusals of all."""

    start: datetime
    used: int
    share: float | None
    denied: int


def rows_of(
    policy: Policy, resolution: str, begin: datetime, projects: Collection[str] | None = None
) -> QuerySet[UsageRollup]:
    """A policy's roll-ups since `begin`, as far as who sees only these projects (slugs; None: all) may see them.

    Counters that count for all projects together belong to the policy's own project, or to nobody's.
    """
    rows = UsageRollup.objects.filter(policy=policy, resolution=resolution, start__gte=begin).order_by()
    if projects is None:
        return rows
    if policy.scope in PARTITIONED:
        return rows.filter(project__in=projects)
    return rows if policy.project is not None and policy.project.slug in projects else rows.none()


def points(policy: Policy, rows: QuerySet[UsageRollup]) -> list[Point]:
    """One point for each time that has roll-ups, in the order of time."""
    grouped = rows.values("start", "limit").annotate(most=Max("used"), refused=Sum("denied")).order_by("start")
    found: dict[datetime, list[tuple[int, int | None, int]]] = defaultdict(list)
    for row in grouped:
        found[row["start"]].append((row["most"], row["limit"], row["refused"]))
    return [
        Point(
            start,
            max(used for used, _, _ in each),
            max(
                (share for used, limit, _ in each if (share := _share(used, policy.capacity(limit))) is not None),
                default=None,
            ),
            sum(denied for _, _, denied in each),
        )
        for start, each in found.items()
    ]


def _share(used: int, capacity: int | None) -> float | None:
    return None if not used else usage.share(used, capacity)


def by_denials(rows: QuerySet[UsageRollup], count: int) -> list[Consumer]:
    """The subjects that were refused most often."""
    grouped = rows.values("project", "key").annotate(peak=Max("used"), most=Max("limit"), refused=Sum("denied"))
    return [
        Consumer(one["project"], one["key"], 0, one["peak"], one["most"], one["refused"])
        for one in grouped.filter(refused__gt=0).order_by("-refused", "key")[:count]
    ]


def by_use(policy: Policy, rows: QuerySet[UsageRollup], resolution: str, count: int) -> list[Consumer]:
    """The subjects that used most units. Of each time only the highest use is recorded, so it is the least that they
    can have used; only the subjects with the highest use are looked at."""
    compiled = resolve.snapshot().policies.get(policy.name)
    if compiled is None:
        return []
    named = rows.exclude(key="").values("project", "key")
    grouped = named.annotate(peak=Max("used"), most=Max("limit"), refused=Sum("denied"))
    chosen = {(one["project"], one["key"]): one for one in grouped.order_by("-peak", "key")[:CANDIDATES] if one["peak"]}
    recorded: dict[tuple[str, str], list[Recorded]] = defaultdict(list)
    keys = {key for _, key in chosen}
    for project, key, start, used, denied in (
        rows.filter(key__in=keys).order_by("start").values_list("project", "key", "start", "used", "denied")
    ):
        if (project, key) in chosen:
            recorded[project, key].append(Recorded(start.timestamp(), used, denied))
    found = []
    for (project, key), one in chosen.items():
        steps = traffic.steps_of(compiled, recorded[project, key], LENGTHS[resolution], refusals=False)
        used = sum(step.admitted for step in steps)
        found.append(Consumer(project, key, used, one["peak"], one["most"], one["refused"]))
    return sorted(found, key=lambda consumer: (-consumer.used, consumer.key))[:count]
