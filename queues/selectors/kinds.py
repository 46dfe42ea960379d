"""What equal jobs need: policies' limits and a pool, each kind resolved once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from queues import config, registry
from queues.selectors.backlog import Row
from queues.selectors.counter_uses import counter_key
from queues.simulation.accounts import Need
from queues.simulation.waits import Cause
from quotas.engine.types import Limit
from quotas.errors import UnknownPool, UnknownProject
from quotas.snapshot import resolve
from quotas.snapshot.policies import CompiledPolicy


@dataclass(frozen=True, slots=True)
class Kind:
    """What equal jobs need: `limits` as they are counted, each with the limit that applies to the jobs' priority."""

    limits: tuple[tuple[Limit, Limit], ...] = ()
    need: Need | None = None
    stopped: Cause | None = None

    @property
    def counters(self) -> frozenset[str]:
        return frozenset(counter_key(limit) for limit, _ in self.limits)


@dataclass(slots=True)
class Kinds:
    """The kinds of jobs, each resolved once, with limits of policies as they are or as they are to be tried."""

    limits: Mapping[str, int | None] = field(default_factory=dict)
    _snapshot: resolve.ConfigSnapshot = field(default_factory=lambda: replace(resolve.snapshot()))
    """A copy, so that thousands of kinds do not displace what checks have resolved."""
    _changed: dict[str, CompiledPolicy] = field(default_factory=dict)
    _found: dict[tuple[object, ...], Kind] = field(default_factory=dict)

    def of(self, row: Row) -> Kind:
        key = (
            row.project_id, row.queue_id, row.priority, row.user, row.pool, registry.needs_pool(row.type),
            tuple(row.keys.items()), tuple(row.cost.items()),
        )  # fmt: skip
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._resolve(row)
        return found

    def _resolve(self, row: Row) -> Kind:
        cfg = config.current()
        queue, project = cfg.queues.get(row.queue_id), cfg.projects.get(row.project_id)
        if queue is None or project is None:
            return Kind(stopped=Cause("queue"))
        stopped = None
        if queue.paused:
            stopped = Cause("paused", queue.name)
        elif queue.concurrency == 0:
            stopped = Cause("queue", queue.name)
        name = row.pool or queue.pool or ""
        need = None
        try:
            if name:
                pool = resolve.pool_spec(name, project.slug)
                names = (pool.name, *(spec.name for spec in resolve.fallbacks_of(pool, project.slug)))
                need = Need(names, row.cost, row.priority, next(iter(row.keys.values()), ""))
            elif registry.needs_pool(row.type):
                stopped = stopped or Cause("pool")
            return Kind(self._limits(row, project.slug, queue.name), need, stopped)
        except UnknownPool:
            return Kind(stopped=stopped or Cause("pool", name))
        except UnknownProject:
            return Kind(stopped=stopped or Cause("turn"))

    def _limits(self, row: Row, project: str, queue: str) -> tuple[tuple[Limit, Limit], ...]:
        def resolved(priority: int | None) -> tuple[Limit, ...]:
            return resolve.limits_for(
                project=project,
                user=row.user or None,
                keys=row.keys,
                queue=queue,
                cost=row.cost,
                priority=priority,
                snapshot=self._snapshot,
            )

        found = []
        for whole, own in zip(resolved(None), resolved(row.priority), strict=True):
            if whole.mode == "shadow":
                continue
            if whole.name in self.limits:
                whole, own = self._tried(whole, None), self._tried(whole, row.priority)
            if whole.limit is not None and own.cost:
                found.append((whole, own))
        return tuple(found)

    def _tried(self, limit: Limit, priority: int | None) -> Limit:
        """The limit with the amount that is to be tried instead of the policy's; an override of the subject stays."""
        changed = self._changed.get(limit.name)
        if changed is None:
            changed = replace(self._snapshot.policies[limit.name], limit=self.limits[limit.name])
            self._changed[limit.name] = changed
        return changed.limit_for(limit.subject, limit.partition, limit.cost, self._snapshot.now(), priority)
