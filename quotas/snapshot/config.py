"""All configuration that decisions need, read from SQL once and kept by each process.

A change is seen within a second (`quotas.snapshot.freshness`): no caller gets a snapshot that has not been compared with
`ConfigVersion` for longer than that. Where SQL does not answer, the snapshot stays as it is. An adaptive limit that has
moved is no change of configuration: only those limits are read then.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from django.conf import settings

from quotas import clock
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
from quotas.snapshot.addresses import NetworkList
from quotas.snapshot.cache import SnapshotCache
from quotas.snapshot.index import PolicyIndex
from quotas.snapshot.patterns import Pattern, compile_pattern
from quotas.snapshot.policies import OVERRIDE_COLUMNS, CompiledPolicy, OverrideRow
from quotas.snapshot.pools import PoolConfig, read_pools
from quotas.snapshot.resolved import ResolvedLimits


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    id: int
    slug: str
    weight: int
    tier: str


@dataclass(frozen=True, slots=True)
class ConfigSnapshot:
    """Immutable, but for what is kept of it in `resolved`. `version` is that of `ConfigVersion`."""

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
    """SQL's time in Unix seconds when this was read; `started` is the process's monotonic time then."""
    moved: int = 0
    """That of `ConfigVersion`: how often adaptive limits have moved."""
    adaptive: Mapping[str, CompiledPolicy] = field(default_factory=dict)
    """The adaptive policies, by name."""
    started: float = field(default_factory=time.monotonic)
    resolved: ResolvedLimits = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolved", ResolvedLimits(self.policies.values()))

    def now(self) -> float:
        """SQL's time, estimated without a query."""
        return self.read_at + time.monotonic() - self.started


def read() -> ConfigSnapshot:
    """A new snapshot from SQL. The version is read first: what changes meanwhile makes this one old."""
    version, moved = ConfigVersion.numbers()
    limits = _moved_limits()
    overrides: dict[int, list[OverrideRow]] = defaultdict(list)
    for policy_id, *row in Override.objects.values_list("policy_id", *OVERRIDE_COLUMNS):
        overrides[policy_id].append(tuple(row))
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
    return ConfigSnapshot(
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


def with_moved_limits(snapshot: ConfigSnapshot, moved: int) -> ConfigSnapshot:
    """The snapshot with its adaptive limits where they are now: one small query, whatever else is configured."""
    limits = _moved_limits()
    changed = {name: policy.moved_to(limits) for name, policy in snapshot.adaptive.items()}
    policies = {**snapshot.policies, **changed}
    return replace(snapshot, policies=policies, index=PolicyIndex(policies.values()), moved=moved, adaptive=changed)


def _moved_limits() -> dict[int, tuple[int, int]]:
    return {
        policy: (configured, effective)
        for policy, configured, effective in AdaptiveState.objects.values_list("policy_id", "configured", "effective")
    }


configuration: SnapshotCache[ConfigSnapshot] = SnapshotCache(read, with_moved_limits)
"""The process's snapshot."""
