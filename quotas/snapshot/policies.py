"""A policy in the snapshot: all that a check needs, looked up beforehand."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from quotas.engine.limits.capacity import burst_at, capacity_of
from quotas.engine.priorities import is_paused
from quotas.engine.types import Limit
from quotas.snapshot import addresses
from quotas.snapshot.adaptive_rule import AdaptiveRule
from quotas.snapshot.patterns import Endpoint, Pattern, compile_pattern

if TYPE_CHECKING:
    from quotas.models import Policy

PARTITIONED = frozenset({"user", "project", "endpoint", "custom"})
"""Scopes whose counters are kept apart by project; a queue is shared by those who use it."""

NOTHING_MOVED: Mapping[int, tuple[int, int]] = {}


OVERRIDE_COLUMNS = ("project__slug", "key", "limit", "until")
"""Of `Override`, for `CompiledPolicy.of`. There may be a hundred thousand, of which each reload makes values only."""
OverrideRow = tuple[str | None, str, int | None, datetime | None]


@dataclass(frozen=True, slots=True)
class CompiledOverride:
    limit: int | None
    until: float | None
    """Unix time by SQL's clock."""


@dataclass(frozen=True, slots=True, eq=False)
class CompiledPolicy:
    """`limit_for` makes the engine's `Limit` of it. Immutable and shared by all threads."""

    pk: int
    id: str
    name: str
    scope: str
    unit: str
    algorithm: str
    limit: int | None
    window: float
    burst: int | None
    period: str
    timezone: str
    lease_ttl: float
    mode: str
    on_redis_down: str
    generation: int
    project: str = ""
    tier: str = ""
    key_name: str = ""
    match: str = ""
    pattern: Pattern | None = None
    exempt: frozenset[str] = frozenset()
    exempt_networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    excluded: tuple[Pattern, ...] = ()
    overrides: dict[tuple[str, str], CompiledOverride] = field(default_factory=dict)
    """By (project or empty, subject)."""
    warn_at: tuple[float, ...] = ()
    pause_at: float | None = None
    pause: str = "low"
    adaptive: AdaptiveRule | None = None
    configured: int | None = None
    """The limit as it is written down; `limit` is where an adaptive one is now."""
    spaces: Mapping[str, str] = field(default_factory=dict)
    """The spaces of counters of all projects, by slug."""
    counted_since: float = 0.0
    """Unix time by SQL's clock at which the counters began anew; 0: with the policy."""

    @classmethod
    def of(
        cls,
        policy: Policy,
        overrides: Iterable[OverrideRow],
        ipv6_prefix: int,
        moved: Mapping[int, tuple[int, int]] = NOTHING_MOVED,
        spaces: Mapping[str, str] | None = None,
    ) -> CompiledPolicy:
        """`moved`: (configured, effective) limits of adaptive policies, by primary key. `spaces`: of all projects."""
        exempt, networks = _exemptions(policy, ipv6_prefix)
        adaptive = AdaptiveRule.of(policy.adaptive) if policy.adaptive and policy.limit is not None else None
        return cls(
            pk=policy.pk,
            id=f"p{policy.pk}",
            name=policy.name,
            scope=policy.scope,
            unit=policy.unit,
            algorithm=policy.algorithm,
            limit=effective(policy.pk, policy.limit, adaptive, moved),
            window=policy.window or 0.0,
            burst=policy.burst,
            period=policy.period,
            timezone=policy.timezone,
            lease_ttl=policy.lease_ttl,
            mode=policy.mode,
            on_redis_down=policy.on_redis_down,
            generation=policy.generation,
            project=policy.project.slug if policy.project else "",
            tier=policy.tier.name if policy.tier else "",
            key_name=policy.key_name,
            match=policy.match,
            pattern=compile_pattern(policy.match) if policy.scope == "endpoint" else None,
            exempt=exempt,
            exempt_networks=networks,
            excluded=tuple(compile_pattern(path) for path in policy.excluded_paths),
            overrides=_overrides(policy, overrides, ipv6_prefix),
            warn_at=tuple(sorted(policy.warn_at)),
            pause_at=policy.pause_at,
            pause=policy.pause,
            adaptive=adaptive,
            configured=policy.limit,
            spaces=spaces or {},
            counted_since=policy.counted_since.timestamp() if policy.counted_since else 0.0,
        )

    def moved_to(self, moved: Mapping[int, tuple[int, int]]) -> CompiledPolicy:
        """The policy with its limit where it is now."""
        limit = effective(self.pk, self.configured, self.adaptive, moved)
        return self if limit == self.limit else replace(self, limit=limit)

    def limit_for(self, subject: str, project: str, cost: int, now: float, priority: int | None = None) -> Limit:
        """This policy against one subject.

        `now`: SQL's clock in Unix time, for overrides that end. `priority`: a job's; from the pause threshold on,
        the priorities that the policy names find it used up, by the same counter that the others use.
        """
        limit, burst = self.limit, self.burst
        if self.overrides:
            found = self.overrides.get((project, subject)) or self.overrides.get(("", subject))
            if found is not None and (found.until is None or now < found.until):
                limit = found.limit
        if limit:
            burst = burst_at(limit, burst, self.configured)
        if self.pause_at is not None and priority is not None and limit and is_paused(self.pause, priority):
            capacity = capacity_of(self.algorithm, limit, burst) or limit
            share = max(math.floor(capacity * self.pause_at), min(cost, capacity))
            if self.algorithm == "token_bucket":
                burst = share  # the refill stays as it is
            else:
                limit = share
        return _limit(self, subject, project if self.scope in PARTITIONED else "", limit, burst, cost)

    def capacity(self, limit: int | None) -> int | None:
        """The most that may be used at once under this limit: a token bucket's burst, else the limit itself."""
        return capacity_of(self.algorithm, limit, burst_at(limit, self.burst, self.configured))

    def space_of(self, project: str) -> str:
        """The space of the project's counters, as long as it is the project that it was."""
        return self.spaces.get(project, "") if self.scope in PARTITIONED else ""

    def template(self) -> Limit:
        """The policy without a subject, to list or clear its counters by."""
        return self.limit_for("", "", 0, 0.0)

    def skips(self, subject: str, method: str | None, endpoint: Endpoint | None) -> bool:
        """Whether the policy does not apply to this subject or this path."""
        if subject in self.exempt:
            return True
        # An unknown method matches no exclusion, though it matches every limit.
        return endpoint is not None and any(endpoint.exempted_by(pattern, method or "") for pattern in self.excluded)

    def exempts_address(self, address: addresses.Address) -> bool:
        return any(address in net for net in self.exempt_networks)


@lru_cache(maxsize=8192)
def _limit(
    policy: CompiledPolicy, subject: str, partition: str, limit: int | None, burst: int | None, cost: int
) -> Limit:
    """Kept, since what the limiter sends of a limit is packed once and stays with it."""
    return Limit(
        policy.id,
        policy.name,
        policy.scope,
        subject,
        policy.algorithm,
        limit,
        policy.unit,
        cost,
        partition,
        policy.window,
        burst,
        policy.period,
        policy.timezone,
        policy.mode,
        policy.on_redis_down,
        policy.generation,
        policy.lease_ttl,
        policy.space_of(partition),
    )


def effective(
    pk: int, configured: int | None, rule: AdaptiveRule | None, moved: Mapping[int, tuple[int, int]]
) -> int | None:
    """The limit in force: the configured one, or where the controller has moved it to since it was configured so."""
    if rule is None or configured is None:
        return configured
    began, now = moved.get(pk, (None, 0))
    return rule.clamp(now if began == configured else configured)


def _exemptions(
    policy: Policy, ipv6_prefix: int
) -> tuple[frozenset[str], tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]]:
    """The subjects that the policy does not limit: single ones, and networks of addresses."""
    exempt, networks = set(), []
    for subject in map(str, policy.exempt):
        if policy.scope == "ip" and "/" in subject:
            networks.append(ipaddress.ip_network(subject, strict=False))
        else:
            exempt.add(_subject(policy.scope, subject, ipv6_prefix))
    return frozenset(exempt), tuple(networks)


def _overrides(
    policy: Policy, rows: Iterable[OverrideRow], ipv6_prefix: int
) -> dict[tuple[str, str], CompiledOverride]:
    """By project and subject."""
    return {
        (slug or "", _subject(policy.scope, key, ipv6_prefix)): CompiledOverride(
            limit, until.timestamp() if until else None
        )
        for slug, key, limit, until in rows
    }


def _subject(scope: str, text: str, ipv6_prefix: int) -> str:
    if scope == "ip":
        try:
            return addresses.subject(addresses.parse(text.partition("/")[0]), ipv6_prefix)
        except addresses.BadAddress:
            return text
    return text
