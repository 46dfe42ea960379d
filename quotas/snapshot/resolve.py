"""Which limits apply to a check, from the process's snapshot of the configuration: no SQL query per check."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings

from quotas.engine.types import Limit, PoolSpec
from quotas.errors import NetworkDenied, UnknownPool, UnknownProject
from quotas.snapshot import addresses
from quotas.snapshot.config import ConfigSnapshot, configuration
from quotas.snapshot.patterns import Endpoint, endpoint_of
from quotas.snapshot.pools import PoolConfig


def snapshot() -> ConfigSnapshot:
    """This process's snapshot, at most half a second behind SQL."""
    return configuration.get()


def clear() -> None:
    """Load the configuration again at the next use, since this process has just changed it."""
    configuration.clear()


def expire() -> None:
    """Compare with SQL at the next use."""
    configuration.expire()


def limits_for(
    *,
    project: str | None = None,
    user: str | None = None,
    ip: str | None = None,
    endpoint: str | Endpoint | None = None,
    method: str | None = None,
    keys: Mapping[str, str] | None = None,
    queue: str | None = None,
    cost: Mapping[str, int] | None = None,
    priority: int | None = None,
    snapshot: ConfigSnapshot | None = None,
) -> tuple[Limit, ...]:
    """The limits that apply, in the order of report: ip, user, project, endpoint, queue, custom, global.

    `endpoint`: a path as its caller writes it, or as a router has it (`patterns.routed`).
    `cost` None: what the cost rules say, else 1 request; a cost without `requests` counts 1 of them. `priority`
    (0 first, 9 last) is a job's: from a policy's pause threshold on, the priorities that it names wait. Raises
    `UnknownProject`, `NetworkDenied`, and `BadAddress` for an `ip` that is none.
    """
    config = snapshot or configuration.get()
    now = config.now()
    question = (
        project, user, ip, endpoint, method, queue, priority,
        tuple(keys.items()) if keys else None, None if cost is None else tuple(cost.items()),
    )  # fmt: skip
    known = config.resolved.find(question, now)
    if known is not None:
        return known
    path = endpoint_of(endpoint) if isinstance(endpoint, str) else endpoint
    method = method.upper() if method else None
    charged = cost_of(cost, method, path, config)
    tiers = _tiers(project, user, config)
    address, address_subject = _limited_address(ip, config) if ip is not None else (None, "")
    slug = project or ""
    by_scope: tuple[list[Limit], ...] = ([], [], [], [], [], [], [])
    for bucket in config.index.buckets(slug, tiers):
        applying = []
        if address is not None:
            applying += [(0, policy, address_subject) for policy in bucket.ip if not policy.exempts_address(address)]
        if user is not None:
            applying += [(1, policy, user) for policy in bucket.user]
        if project is not None:
            applying += [(2, policy, project) for policy in bucket.project]
        if path is not None:
            applying += [(3, policy, policy.match or "*") for policy in bucket.endpoints(method, path)]
        if queue is not None:
            applying += [(4, policy, queue) for policy in bucket.queues(queue)]
        if keys and bucket.custom:
            for name, value in keys.items():
                applying += [(5, policy, value) for policy in bucket.custom.get(name, ())]
        applying += [(6, policy, "*") for policy in bucket.everyone]
        for place, policy, subject in applying:
            if (policy.exempt or policy.excluded) and policy.skips(subject, method, path):
                continue
            by_scope[place].append(policy.limit_for(subject, slug, charged.get(policy.unit, 0), now, priority))
    return config.resolved.keep(question, tuple([limit for limits in by_scope for limit in limits]))


def _limited_address(ip: str, config: ConfigSnapshot) -> tuple[addresses.Address | None, str]:
    """The address and its subject; None for an address that is exempt. Raises `NetworkDenied`, `BadAddress`."""
    address = addresses.parse(ip)
    action, name = config.networks.find(address)
    if action == "deny":
        raise NetworkDenied(name)
    if action == "allow":
        return None, ""
    return address, addresses.subject(address, settings.IPV6_PREFIX)


def cost_of(
    cost: Mapping[str, int] | None, method: str | None, path: Endpoint | None, snapshot: ConfigSnapshot | None = None
) -> dict[str, int]:
    """What a check is charged, by unit."""
    if cost is None:
        cost = {}
        if path is not None:
            for pattern, ruled in (snapshot or configuration.get()).cost_rules:
                if path.matched_by(pattern, method):
                    cost = ruled
                    break
    return {"requests": 1, **cost}


def _tiers(project: str | None, user: str | None, config: ConfigSnapshot) -> list[str]:
    tiers = []
    if project is not None:
        facts = config.projects.get(project)
        if facts is None:
            raise UnknownProject(project[:80])
        if facts.tier:
            tiers.append(facts.tier)
    if user is not None:
        tiers += [tier for tier in config.user_tiers.get(user, ()) if tier not in tiers]
    return tiers


def resolve_job(
    *,
    project: str,
    user: str | None = None,
    keys: Mapping[str, str] | None = None,
    queue: str,
    cost: Mapping[str, int] | None = None,
    priority: int,
) -> tuple[Limit, ...]:
    """The limits that apply to a job before it starts; see `limits_for`."""
    return limits_for(project=project, user=user, keys=keys, queue=queue, cost=cost or {}, priority=priority)


def version() -> int:
    """The version of this process's configuration; another number: policies or pools were changed."""
    return configuration.get().version


def pool_names() -> frozenset[str]:
    return frozenset(configuration.get().pools)


def pool_config(name: str, project: str | None = None) -> PoolConfig:
    """The pool with its provider and sealed credentials. Raises `UnknownPool`, also where it is not for `project`."""
    found = configuration.get().pools.get(name)
    if found is None or not found.is_open_to(project):
        raise UnknownPool(name[:80])
    return found


def pool_spec(name: str, project: str | None = None) -> PoolSpec:
    """The pool as the engine sees it. Raises `UnknownPool`, also where it is not for `project`."""
    return pool_config(name, project).spec


def fallbacks_of(pool: PoolSpec, project: str | None = None) -> tuple[PoolSpec, ...]:
    """The pools to try after `pool`, in order; those that are gone or not for `project` are passed over."""
    known = configuration.get().pools
    return tuple(
        found.spec for name in pool.fallback if (found := known.get(name)) is not None and found.is_open_to(project)
    )


__all__ = [
    "ConfigSnapshot",
    "cost_of",
    "fallbacks_of",
    "clear",
    "expire",
    "pool_config",
    "pool_names",
    "pool_spec",
    "limits_for",
    "resolve_job",
    "snapshot",
    "version",
]
