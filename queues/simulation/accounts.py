"""Pools of accounts in a simulation: which account takes a call, or how long all of them are busy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from queues.simulation.counters import NOTHING, Counter, counter_of
from quotas.engine.accounts.packed_pool import holds_for, waits_early
from quotas.engine.limits.capacity import capacity_of
from quotas.engine.types import Limit, PoolSpec


@dataclass(frozen=True, slots=True)
class Need:
    """What a job needs of its pool or, in this order, of a pool that it falls back to."""

    pools: tuple[str, ...]
    cost: Mapping[str, int]
    priority: int
    key: str = ""


@dataclass(slots=True)
class Account:
    """One account. `free_from`: until then it takes no call (a cooldown, an open breaker); infinite if it is disabled."""

    free_from: float
    counters: dict[str, Counter]
    """By the limit's id; those of keys are made when a key first occurs."""
    most: int | None = None
    """Calls in flight at most."""
    busy: int = 0
    others: list[float] = field(default_factory=list)
    """When calls that are no jobs probably end."""
    learned: list[tuple[str, Counter, float]] = field(default_factory=list)
    """Quotas that the provider states, of units that no limit counts: unit, counter, capacity."""


class Found(NamedTuple):
    """The account that takes a call now; else the seconds to wait, infinite where time alone does not help."""

    account: Account | None
    wait: float = 0.0
    by_ends: bool = False
    """Whether the end of a job may help earlier."""
    by_key: bool = False
    """Whether only limits of the job's own key (a chat) refuse it: the pool's other work is not affected."""


class SimulatedPool:
    """A pool whose accounts are charged as jobs start."""

    def __init__(self, spec: PoolSpec, accounts: Sequence[Account]) -> None:
        self.spec = spec
        self.accounts = list(accounts)
        self._next = 0
        self._charges: dict[int, list[tuple[Limit, int, float]]] = {}
        """By the need's identity: jobs of one kind share it."""

    def find(self, now: float, need: Need) -> Found:
        """The next account in turn that has capacity."""
        wait, by_ends, by_key = math.inf, False, True
        charges = self.charges(need)
        for step in range(len(self.accounts)):
            account = self.accounts[(self._next + step) % len(self.accounts)]
            found = self._wait_of(account, now, need, charges)
            if not found.wait:
                self._next = (self._next + step + 1) % len(self.accounts)
                return Found(account)
            wait, by_ends = min(wait, found.wait), by_ends or found.by_ends
            by_key = by_key and found.by_key
        return Found(None, wait, by_ends, by_key and bool(self.accounts))

    def charges(self, need: Need) -> list[tuple[Limit, int, float]]:
        """The limits that apply to a call, with its cost and the capacity that counts for its priority."""
        known = self._charges.get(id(need))
        if known is None:
            known = self._charges[id(need)] = self._charges_of(need)
        return known

    def _charges_of(self, need: Need) -> list[tuple[Limit, int, float]]:
        cost = {"requests": 1, **need.cost}
        early = waits_early(self.spec, need.priority)
        found = []
        for limit in self.spec.limits:
            keyed = limit.scope == "custom"
            whole = capacity_of(limit.algorithm, limit.limit, limit.burst)
            if whole is None or (keyed and not (need.key and holds_for(limit, need.key))):
                continue
            units = 1 if limit.algorithm == "concurrency" else cost.get(limit.unit, 0)
            capacity = float(whole)
            if early and not keyed and limit.algorithm != "concurrency" and whole:
                capacity = float(max(1, int(whole * (self.spec.pause_at or 1.0))))
                units = min(units, int(capacity))
            found.append((limit, units, capacity))
        return found

    def _wait_of(self, account: Account, now: float, need: Need, charges: Sequence[tuple[Limit, int, float]]) -> Found:
        wait, of_key, by_ends = max(account.free_from - now, 0.0), 0.0, False
        account.others = [end for end in account.others if end > now]
        if account.most is not None and account.busy + len(account.others) >= account.most:
            by_ends = account.busy > 0
            wait = max(wait, min(account.others) - now if account.others else math.inf)
        for limit, units, capacity in charges:
            counter = self._counter(account, limit, need, now)
            # What states no cost for a unit waits while nothing is left of it.
            more = counter.wait(now, max(units, 1), capacity)
            by_ends = by_ends or (more > 0 and counter.by_ends)
            if limit.scope == "custom":
                of_key = max(of_key, more)
            else:
                wait = max(wait, more)
        for unit, counter, capacity in account.learned:
            wait = max(wait, counter.wait(now, min(_cost_of(need, unit), capacity), capacity))
        return Found(None, max(wait, of_key), by_ends, by_key=not wait and of_key > 0)

    def _counter(self, account: Account, limit: Limit, need: Need, now: float) -> Counter:
        name = f"{limit.id}\n{need.key}" if limit.scope == "custom" else limit.id
        known = account.counters.get(name)
        if known is None:
            known = account.counters[name] = counter_of(limit, NOTHING, now)
        return known

    def charge(self, account: Account, now: float, need: Need, size: int) -> float:
        """Charge an account for so many equal calls; seconds until the last of them has passed its limits."""
        account.busy += 1
        last = 0.0
        for limit, units, capacity in self.charges(need):
            many = units if limit.algorithm == "concurrency" else units * size
            last = max(last, self._counter(account, limit, need, now).charge(now, many, capacity))
        for unit, counter, capacity in account.learned:
            last = max(last, counter.charge(now, _cost_of(need, unit) * size, capacity))
        return last

    def release(self, account: Account, need: Need, now: float) -> None:
        """A call of a job has ended."""
        account.busy = max(account.busy - 1, 0)
        for limit, units, _ in self.charges(need):
            if limit.algorithm == "concurrency":
                self._counter(account, limit, need, now).release(units)


def _cost_of(need: Need, unit: str) -> int:
    return need.cost.get(unit, 1 if unit == "requests" else 0)
