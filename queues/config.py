"""Queues, retry policies and projects in memory, for the hot paths: frozen, and half a second old at most."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from queues.models import Queue, RetryPolicy
from quotas.models import Project
from quotas.snapshot.cache import SnapshotCache


@dataclass(frozen=True, slots=True)
class RetrySpec:
    """A retry policy; seconds. Source: `RetryPolicy`."""

    name: str = "standard"
    strategy: str = "smart"
    initial: float = 1.0
    max: float = 60.0
    max_attempts: int = 5
    jitter: float = 0.1
    by_category: Mapping[str, Any] = field(default_factory=dict)
    auto_replays: int = 0
    auto_replay_after: float = 900.0


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue; `timeout` in seconds. Source: `Queue`."""

    id: int
    name: str
    max_size: int | None
    timeout: float
    retry: RetrySpec
    pool: str | None
    concurrency: int | None
    lane: str
    paused: bool
    paused_reason: str
    draining: bool
    priority_levels: int = 10


@dataclass(frozen=True, slots=True)
class ProjectSpec:
    id: int
    slug: str
    weight: int


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """All of it, by id and by name."""

    queues: Mapping[int, QueueSpec]
    queue_named: Mapping[str, QueueSpec]
    projects: Mapping[int, ProjectSpec]


def _retry_spec(policy: RetryPolicy | None) -> RetrySpec:
    if policy is None:
        return RetrySpec()
    return RetrySpec(
        name=policy.name,
        strategy=policy.strategy,
        initial=policy.initial,
        max=policy.max,
        max_attempts=policy.max_attempts,
        jitter=policy.jitter,
        by_category=policy.by_category,
        auto_replays=policy.auto_replays,
        auto_replay_after=policy.auto_replay_after,
    )


def _load() -> QueueConfig:
    queues = {
        row.pk: QueueSpec(
            id=row.pk,
            name=row.name,
            max_size=row.max_size,
            timeout=row.timeout,
            retry=_retry_spec(row.retry_policy),
            pool=row.pool.name if row.pool else None,
            concurrency=row.concurrency,
            lane=row.lane,
            paused=row.paused_at is not None,
            paused_reason=row.paused_reason,
            draining=row.draining_at is not None,
            priority_levels=row.priority_levels,
        )
        for row in Queue.objects.select_related("retry_policy", "pool")
    }
    projects = {row.pk: ProjectSpec(row.pk, row.slug, row.weight) for row in Project.objects.all()}
    return QueueConfig(queues, {spec.name: spec for spec in queues.values()}, projects)


snapshot: SnapshotCache[QueueConfig] = SnapshotCache(_load)


def current() -> QueueConfig:
    """The present configuration of the queues."""
    return snapshot.get()


_project_rows: dict[str, tuple[int, Project]] = {}
"""By slug: the version of the configuration before the row was read, and the row."""


def project_row(slug: str) -> Project | None:
    """A project as far as this process knows, read once for each version of the configuration; None if there is none. The
    statement that uses it checks it."""
    current()  # compares the version
    version = snapshot.version
    found = _project_rows.get(slug)
    if found is None or found[0] != version:
        project = Project.objects.filter(slug=slug).first()
        if project is None:
            return None
        found = _project_rows[slug] = version, project
    return copy.copy(found[1])


def correct_project_row(project: Project) -> None:
    """Remember this project for its slug, which another one had: after a restore versions are counted anew."""
    _project_rows[project.slug] = snapshot.version, copy.copy(project)
