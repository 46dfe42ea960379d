"""Pools in the snapshot: what the engine needs, and beside it the provider and the sealed credentials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from quotas.engine.estimate import DEFAULT_OUTPUT
from quotas.engine.types import AccountSpec, BreakerSpec, ConcurrencySpec, Limit, PoolSpec
from quotas.models import Pool, PoolLimit, StickyBy
from quotas.models.encrypted import Ciphertext

LEASE_MARGIN = 10.0
"""Seconds that a lease outlives the provider's timeout."""


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    name: str
    dialect: str
    base_url: str
    auth_header: str
    timeout: float
    settings: Mapping[str, Any]
    default_output_tokens: int = DEFAULT_OUTPUT


@dataclass(frozen=True, slots=True)
class PoolConfig:
    spec: PoolSpec
    provider: ProviderFacts
    credentials: Mapping[str, Ciphertext]
    """By the account's id; sealed, so that no print of a snapshot shows one."""
    projects: frozenset[str] | None = None
    """Slugs of the projects that may use the pool; None: all."""
    tries: int = 3
    """Accounts that a call through the gateway is sent to at most."""
    repeat_unsafe: bool = False
    """Whether the gateway sends a call to another account that may have been executed."""
    show_provider_limits: bool = False
    """Whether the gateway passes on the provider's rate limit fields."""
    sticky_by_prefix: bool = False
    """Whether a call through the gateway that names no conversation is sticky by the beginning of its prompt."""

    def is_open_to(self, project: str | None) -> bool:
        """Whether the project may use the pool; None: the platform, which may use all."""
        return self.projects is None or project is None or project in self.projects


def read_pools() -> dict[str, PoolConfig]:
    """All pools by name, from SQL in four queries."""
    rows = Pool.objects.select_related("provider").prefetch_related("limits", "accounts")
    return {row.name: _config(row) for row in rows}


def _config(pool: Pool) -> PoolConfig:
    provider = pool.provider
    accounts = sorted(pool.accounts.all(), key=lambda account: account.pk)
    concurrency = None
    if pool.concurrency_initial is not None:
        initial = pool.concurrency_initial
        floor = pool.concurrency_floor if pool.concurrency_floor is not None else initial
        ceiling = pool.concurrency_ceiling if pool.concurrency_ceiling is not None else initial
        concurrency = ConcurrencySpec(initial, floor, ceiling)
    return PoolConfig(
        spec=PoolSpec(
            id=str(pool.pk),
            name=pool.name,
            dialect=provider.dialect,
            strategy=pool.strategy,
            accounts=tuple(AccountSpec(str(row.pk), row.name, row.weight, row.enabled) for row in accounts),
            limits=tuple(_limit(pool, row) for row in sorted(pool.limits.all(), key=lambda limit: limit.pk)),
            concurrency=concurrency,
            breaker=BreakerSpec(pool.breaker_failures, pool.breaker_window, pool.breaker_open_for, pool.breaker_probes),
            cooldown_default=pool.cooldown_default,
            cooldown_max=pool.cooldown_max,
            pause_at=pool.pause_at,
            pause=pool.pause,
            paused=pool.paused_at is not None,
            sticky=pool.sticky,
            fallback=tuple(pool.fallback),
            lease_ttl=provider.timeout + LEASE_MARGIN,
        ),
        provider=ProviderFacts(
            provider.name,
            provider.dialect,
            provider.base_url.rstrip("/"),
            provider.auth_header,
            provider.timeout,
            provider.settings,
            provider.default_output_tokens,
        ),
        credentials={str(row.pk): cast(Ciphertext, row.credential) for row in accounts},
        projects=None if pool.projects is None else frozenset(pool.projects),
        tries=pool.tries,
        repeat_unsafe=pool.repeat_unsafe,
        show_provider_limits=pool.show_provider_limits,
        sticky_by_prefix=pool.sticky and pool.sticky_by == StickyBy.PREFIX,
    )


def _limit(pool: Pool, row: PoolLimit) -> Limit:
    return Limit(
        id=f"a{row.pk}",
        name=f"{pool.name}:{row.unit}",
        scope="custom" if row.per_key else "account",
        subject=row.key_match,
        algorithm=row.algorithm,
        limit=row.limit,
        unit=row.unit,
        window=row.window or 0.0,
        burst=row.burst,
        period=row.period,
        timezone=row.timezone,
        generation=row.generation,
    )
