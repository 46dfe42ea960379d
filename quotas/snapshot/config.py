"""All configuration that decisions need, read from SQL once and kept by each process.

A change is seen within a second (`quotas.snapshot.freshness`): no caller gets a snapshot that has not been compared with
`ConfigVersion` for longer than that. Where SQL does not answer, the snapshot stays as it is. An adaptive limit that has
moved is no change of configuration: only those limits are read then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from django.conf import settings
from django.db import DatabaseError, InterfaceError

from quotas import clock
from quotas.engine.types import Limit
from quotas.models import (
    AdaptiveState,
    ConfigVersion,
    CostRule,
    Network,
    Override,
    Policy,
    Project,
    TierUser,
)
from quotas.runtime.threads import off_loop
from quotas.snapshot.addresses import NetworkList
from quotas.snapshot.freshness import Freshness
from quotas.snapshot.index import PolicyIndex
from quotas.snapshot.patterns import Pattern, compile_pattern
from quotas.snapshot.policies import CompiledPolicy
from quotas.snapshot.pools import PoolConfig, read_pools

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    id: int
    slug: str
    weight: int
    tier: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Immutable. `version` is that of `ConfigVersion`."""

    version: int
    policies: Mapping[str, CompiledPolicy]
    """By name, enabled ones only."""
    index: PolicyIndex
    projects: Mapping[str, ProjectFacts]
    user_tiers: Mapping[str, tuple[str, ...]]
    networks: NetworkList
    cost_rules: tuple[tuple[Pattern, Mapping[str, int]], ...]
    """The most specific first."""
    pools: Mapping[str, PoolConfig]
    read_at: float
    """SQL's clock in Unix time when it was read, and `started` the process's own at that moment."""
    moved: int = 0
    """That of `ConfigVersion`: how often adaptive limits have moved."""
    adaptive: Mapping[str, CompiledPolicy] = field(default_factory=dict)
    """The adaptive policies, by name."""
    started: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        """SQL's clock, as well as it is known without asking."""
        return self.read_at + time.monotonic() - self.started

    def policy_of(self, limit: Limit) -> CompiledPolicy | None:
        return self.policies.get(limit.name)


def read() -> Snapshot:
    """A new snapshot from SQL. The version is read first: what changes meanwhile makes this one old."""
    version, moved = ConfigVersion.numbers()
    limits = _moved_limits()
    overrides: dict[int, list[Override]] = defaultdict(list)
    for row in Override.objects.select_related("project"):
        overrides[row.policy_id].append(row)
    spaces = dict(Project.objects.values_list("slug", "space"))
    compiled = [
        CompiledPolicy.of(policy, overrides[policy.pk], settings.IPV6_PREFIX, limits, spaces)
        for policy in Policy.objects.filter(enabled=True).select_related("project", "tier")
    ]
    tiers: dict[str, list[str]] = defaultdict(list)
    for user, tier in TierUser.objects.values_list("user", "tier__name"):
        tiers[user].append(tier)
    rules = sorted(
        ((compile_pattern(rule.match), rule.cost) for rule in CostRule.objects.all()),
        key=lambda rule: (-len(rule[0].prefix), not rule[0].exact, not rule[0].method, rule[0].text),
    )
    return Snapshot(
        version=version,
        policies={policy.name: policy for policy in compiled},
        index=PolicyIndex(compiled),
        projects={
            row.slug: ProjectFacts(row.pk, row.slug, row.weight, row.tier.name if row.tier else "")
            for row in Project.objects.select_related("tier")
        },
        user_tiers={user: tuple(names) for user, names in tiers.items()},
        networks=NetworkList((row.name, row.action, row.cidrs) for row in Network.objects.all()),
        cost_rules=tuple(rules),
        pools=read_pools(),
        read_at=clock.now().timestamp(),
        moved=moved,
        adaptive={policy.name: policy for policy in compiled if policy.adaptive is not None},
    )


def with_moved_limits(held: Snapshot, moved: int) -> Snapshot:
    """The snapshot with its adaptive limits where they are now: one small query, whatever else is configured."""
    limits = _moved_limits()
    changed = {name: policy.moved_to(limits) for name, policy in held.adaptive.items()}
    policies = {**held.policies, **changed}
    return replace(held, policies=policies, index=PolicyIndex(policies.values()), moved=moved, adaptive=changed)


def _moved_limits() -> dict[int, tuple[int, int]]:
    return {
        policy: (configured, effective)
        for policy, configured, effective in AdaptiveState.objects.values_list("policy_id", "configured", "effective")
    }


class Keeper:
    """The process's snapshot. Safe under threads."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._lock = threading.Lock()
        self._freshness = Freshness(lambda: off_loop(self._look), self._unanswered)

    def get(self) -> Snapshot:
        """The snapshot, less than a second behind SQL while SQL answers. Raises what SQL raises where there is none."""
        self._freshness.ensure()
        held = self._snapshot
        if held is None:
            with self._lock:
                if self._snapshot is None:
                    off_loop(self._look)
                held = self._snapshot
        assert held is not None
        return held

    def held(self) -> tuple[Snapshot | None, float]:
        """The snapshot as it is, and the seconds since it was compared with SQL; asks nobody, so an event loop may call
        it."""
        return self._snapshot, self._freshness.age

    def forget(self) -> None:
        """Read anew at the next use."""
        self._snapshot = None
        self._freshness.outdate()

    def outdate(self) -> None:
        """Look at the numbers with the next use."""
        self._freshness.outdate()

    def _look(self) -> None:
        held = self._snapshot
        version, moved = ConfigVersion.numbers()
        if held is None or version != held.version:
            self._snapshot = read()
        elif moved != held.moved:
            self._snapshot = with_moved_limits(held, moved)

    def _unanswered(self, error: Exception) -> bool:
        held = self._snapshot
        if not isinstance(error, DatabaseError | InterfaceError) or held is None:
            return False
        logger.warning("SQL does not answer; limits stay as of version %s: %s", held.version, type(error).__name__)
        return True


keeper = Keeper()
