"""Units of cost and use: which ones this instance counts, so that a misspelt one is refused instead of ignored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from quotas.errors import UnknownUnit
from quotas.runtime.threads import off_loop
from quotas.snapshot import resolve

STANDARD = frozenset({"requests", "tokens", "money"})


def known() -> frozenset[str]:
    """The standard units, and those that a policy, a cost rule or a pool counts."""
    snapshot = off_loop(resolve.snapshot)
    units = set(STANDARD)
    units.update(policy.unit for policy in snapshot.policies.values())
    units.update(unit for _, cost in snapshot.cost_rules for unit in cost)
    units.update(limit.unit for pool in snapshot.pools.values() for limit in pool.spec.limits)
    return frozenset(units)


def check(named: Mapping[str, object] | Iterable[str], more: Iterable[str] = ()) -> None:
    """Raises `UnknownUnit` for a unit that is neither known nor one of `more`."""
    given = set(named) - STANDARD
    if not given:
        return
    units = known().union(more)
    for unit in sorted(given - units):
        raise UnknownUnit(unit, get_close_matches(unit, sorted(units), 1))
