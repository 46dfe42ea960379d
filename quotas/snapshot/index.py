"""Finds the policies that apply to a check without looking at those that can't.

Policies lie in buckets by the project and the tier that they are bound to; in a bucket by their scope; those of the
scope endpoint further by their pattern. A check opens at most four buckets for each tier of its caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from quotas.snapshot.patterns import Endpoint
from quotas.snapshot.policies import CompiledPolicy

REMEMBERED = 4096
"""Endpoints whose matching policies each bucket remembers."""


@dataclass(slots=True)
class Bucket:
    """The policies of one (project, tier), both possibly empty."""

    ip: list[CompiledPolicy] = field(default_factory=list)
    user: list[CompiledPolicy] = field(default_factory=list)
    project: list[CompiledPolicy] = field(default_factory=list)
    everyone: list[CompiledPolicy] = field(default_factory=list)
    custom: dict[str, list[CompiledPolicy]] = field(default_factory=dict)
    queue: dict[str, list[CompiledPolicy]] = field(default_factory=dict)
    """By the queue's name; empty for each queue."""
    exact: dict[str, list[CompiledPolicy]] = field(default_factory=dict)
    wild: WildPolicies = field(default_factory=lambda: WildPolicies())
    _matched: dict[tuple[str | None, tuple[str, ...]], list[CompiledPolicy]] = field(default_factory=dict)

    def add(self, policy: CompiledPolicy) -> None:
        match policy.scope:
            case "ip":
                self.ip.append(policy)
            case "user":
                self.user.append(policy)
            case "project":
                self.project.append(policy)
            case "custom":
                self.custom.setdefault(policy.key_name, []).append(policy)
            case "queue":
                self.queue.setdefault(policy.match, []).append(policy)
            case "endpoint":
                assert policy.pattern is not None
                if policy.pattern.exact:
                    self.exact.setdefault(policy.pattern.prefix, []).append(policy)
                else:
                    self.wild.add(policy)
            case _:
                self.everyone.append(policy)

    def endpoints(self, method: str | None, endpoint: Endpoint) -> list[CompiledPolicy]:
        """Those of scope endpoint that match."""
        if not self.exact and not self.wild:
            return []
        known = (method, endpoint.readings)
        found = self._matched.get(known)
        if found is None:
            exact = (policy for path in endpoint.readings for policy in self.exact.get(path, ()))
            candidates = [*exact, *self.wild.candidates(endpoint)]
            found = [policy for policy in candidates if policy.pattern and endpoint.matched_by(policy.pattern, method)]
            if len(self._matched) >= REMEMBERED:
                self._matched.clear()
            self._matched[known] = found
        return found

    def queues(self, name: str) -> Iterator[CompiledPolicy]:
        yield from self.queue.get("", ())
        yield from self.queue.get(name, ())


class WildPolicies:
    """Policies of patterns with a `*`, by what stands before it. A path looks up its own beginnings, of each length that
    any of the patterns has, so that the time does not grow with the number of patterns."""

    def __init__(self) -> None:
        self._by_prefix: dict[str, list[tuple[int, CompiledPolicy]]] = {}
        self._lengths: list[int] = []
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, policy: CompiledPolicy) -> None:
        assert policy.pattern is not None
        prefix = policy.pattern.prefix
        self._by_prefix.setdefault(prefix, []).append((self._count, policy))
        self._count += 1
        if len(prefix) not in self._lengths:
            self._lengths = sorted([*self._lengths, len(prefix)])

    def candidates(self, endpoint: Endpoint) -> list[CompiledPolicy]:
        """Those with which a reading of the path begins, each once, in the order in which they were added."""
        found: dict[int, CompiledPolicy] = {}
        for path in endpoint.readings:
            for length in self._lengths:
                if length > len(path):
                    break
                found.update(self._by_prefix.get(path[:length], ()))
        return [found[position] for position in sorted(found)]


class PolicyIndex:
    def __init__(self, policies: Iterable[CompiledPolicy]) -> None:
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self.counts_users = False
        """Whether one of the policies is of the scope user."""
        for policy in sorted(policies, key=lambda policy: policy.name):
            self._buckets.setdefault((policy.project, policy.tier), Bucket()).add(policy)
            self.counts_users = self.counts_users or policy.scope == "user"

    def buckets(self, project: str, tiers: Iterable[str]) -> list[Bucket]:
        """The buckets that apply to a caller of this project (empty: none) and of these tiers."""
        wanted = [("", "")]
        if project:
            wanted.append((project, ""))
        for tier in tiers:
            wanted.append(("", tier))
            if project:
                wanted.append((project, tier))
        return [bucket for key in wanted if (bucket := self._buckets.get(key)) is not None]
