"""One policy's use over time, from the same roll-ups that `GET /api/v1/limits/usage/history` shows."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
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

    Counters that count for all projects together belong to the policy's own project, or to no project.
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


def consumers(rows: QuerySet[UsageRollup]) -> list[Consumer]:
    """All subjects of these roll-ups, without the units that they used, in one reading."""
    grouped = rows.values_list("project", "key").annotate(Max("used"), Max("limit"), Sum("denied"))
    return [
        Consumer(project, key, 0, peak, limit, denied)
        for project, key, peak, limit, denied in grouped.iterator(chunk_size=2_000)
    ]


def by_denials(found: Iterable[Consumer]) -> list[Consumer]:
    """Those of `found` that were refused, the most often refused first."""
    return sorted((one for one in found if one.denied), key=lambda one: (-one.denied, one.key))


def by_use(
    policy: Policy, rows: QuerySet[UsageRollup], found: Iterable[Consumer], resolution: str, count: int
) -> list[Consumer]:
    """Those of `found` that used most units. Of each time only the highest use is recorded, so it is the least that they
    can have used; only the subjects with the highest use are looked at."""
    compiled = resolve.snapshot().policies.get(policy.name)
    if compiled is None:
        return []
    used = [one for one in found if one.peak and one.key]
    chosen = {
        (one.project, one.key): one for one in heapq.nsmallest(CANDIDATES, used, key=lambda one: (-one.peak, one.key))
    }
    recorded: dict[tuple[str, str], list[Recorded]] = defaultdict(list)
    keys = {key for _, key in chosen}
    for project, key, start, level, denied in (
        rows.filter(key__in=keys).order_by("start").values_list("project", "key", "start", "used", "denied")
    ):
        if (project, key) in chosen:
            recorded[project, key].append(Recorded(start.timestamp(), level, denied))
    return sorted(
        (
            replace(one, used=sum(step.admitted for step in traffic.steps_of(
                compiled, recorded[place], LENGTHS[resolution], refusals=False
            )))
            for place, one in chosen.items()
        ),
        key=lambda one: (-one.used, one.key),
    )[:count]  # fmt: skip
