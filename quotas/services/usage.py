"""What has been used, from the same counters that enforce, and clearing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from django.conf import settings

from quotas.audit import recorded
from quotas.engine.keys import SHOWN
from quotas.engine.types import LimitState
from quotas.runtime.connection import limiter
from quotas.services import thresholds
from quotas.snapshot import addresses
from quotas.snapshot import resolve as policies
from quotas.snapshot.policies import PARTITIONED, CompiledPolicy


@dataclass(frozen=True, slots=True)
class Selection:
    """Which counters. None: whatever. `visible_to`: the slug of the project whose things alone may be touched."""

    policy: str | None = None
    scope: str | None = None
    key: str | None = None
    project: str | None = None
    visible_to: str | None = None

    def policies(self) -> list[CompiledPolicy]:
        """The policies that may have such counters, by name."""
        owner = self.visible_to
        return [
            policy
            for policy in policies.snapshot().policies.values()
            if self.policy in (None, policy.name)
            and self.scope in (None, policy.scope)
            and (not policy.project or owner in (None, policy.project))
            and (not policy.project or self.project in (None, policy.project))
            # Counters of the scopes ip, queue and global count for all projects: a single project may not see them.
            and (owner is None or policy.project == owner or policy.scope in PARTITIONED)
        ]

    def subject(self, scope: str) -> str | None:
        """The key as policies of that scope count it: an address may be written in several ways."""
        return addresses.counted(self.key, settings.IPV6_PREFIX) if self.key and scope == "ip" else self.key

    def covers(self, policy: CompiledPolicy, partition: str, subject: str) -> bool:
        wanted = self.subject(policy.scope)
        if wanted is not None and subject != wanted[:SHOWN]:
            return False
        if policy.scope not in PARTITIONED:
            return self.project in (None, policy.project)
        return all(wanted in (None, partition) for wanted in (self.project, self.visible_to))


def usage(selection: Selection, *, most: int = 1000) -> list[LimitState]:
    """How much recent subjects have used, by policy; with a policy and a key, that one even where it is unused."""
    chosen = selection.policies()
    if selection.policy is not None and selection.key is not None and chosen:
        exact = list(_exact(selection, chosen[0]))
        if exact:
            return exact
    return list(islice(_recent(selection, chosen), most))


def _exact(selection: Selection, policy: CompiledPolicy) -> Iterable[LimitState]:
    partition = selection.visible_to or selection.project or policy.project
    if policy.scope in PARTITIONED and not partition:
        return ()  # each project may have such a key
    now = policies.snapshot().now()
    return limiter().peek([policy.limit_for(selection.subject(policy.scope) or "", partition, 0, now)])


def _recent(selection: Selection, chosen: list[CompiledPolicy]) -> Iterator[LimitState]:
    now = policies.snapshot().now()
    for policy in chosen:
        for state in limiter().usage([policy.template()], space_of=policy.space_of):
            if not selection.covers(policy, state.partition, state.key):
                continue
            if policy.overrides and len(state.key) < SHOWN:
                own = policy.limit_for(state.key, state.partition, 0, now)
                if own.limit != policy.limit:
                    yield from limiter().peek([own])
                    continue
            yield state


def ratio(state: LimitState) -> float | None:
    """The share of what may be used at once that is used; None where nothing limits."""
    return share(state.used, capacity(state))


def capacity(state: LimitState) -> int | None:
    """The most that may be used at once: of a token bucket its burst, else the limit."""
    policy = policies.snapshot().policies.get(state.policy)
    return state.limit if policy is None else policy.capacity(state.limit)


def share(used: int, capacity: int | None) -> float | None:
    return None if capacity is None else round(used / capacity, 6) if capacity else 1.0


def reset(selection: Selection, *, actor: str, reason: str) -> int:
    """Clear the selected counters. Returns how many there were."""
    named = {
        "policy": selection.policy,
        "scope": selection.scope,
        "key": selection.key,
        "project": selection.project or selection.visible_to,
    }
    target = " ".join(f"{name}:{value}" for name, value in named.items() if value is not None) or "all"
    chosen = selection.policies()
    owners = {policy.project for policy in chosen}
    owner = selection.project or selection.visible_to or (owners.pop() if len(owners) == 1 else "")
    with recorded(actor, "limit.reset", target, reason, owner) as act:
        cleared = sum(_reset_policy(selection, policy) for policy in chosen)
        for scope in {policy.scope for policy in chosen}:
            of_scope = [policy for policy in chosen if policy.scope == scope]
            thresholds.forget(of_scope, selection.project or selection.visible_to, selection.subject(scope))
        act.after = {"reset": cleared}
    return cleared


def _reset_policy(selection: Selection, policy: CompiledPolicy) -> int:
    if selection.key is None and selection.project is None and selection.visible_to is None:
        return limiter().reset_policy(policy.id)
    partition = selection.visible_to or selection.project or policy.project
    subject = selection.subject(policy.scope)
    if subject is not None and (partition or policy.scope not in PARTITIONED):
        return limiter().reset([policy.limit_for(subject, partition, 0, 0.0)])
    return limiter().limiter.reset_where(
        policy.template(), lambda partition, subject: selection.covers(policy, partition, subject)
    )
