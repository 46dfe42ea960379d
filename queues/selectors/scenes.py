"""Scenes for the simulation: the waiting jobs with their limits and pools, as they are or with changes to try.

SQL and Redis are read once; each scene is then made of what was read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Literal

from queues import config
from queues.selectors.backlog import Backlog, Row
from queues.selectors.counter_uses import counter_key, read_uses
from queues.selectors.kinds import Kind, Kinds
from queues.selectors.pool_uses import PoolUse, read_pool_uses
from queues.selectors.run_times import RunTime, RunTimes
from queues.selectors.what_if import NO_CHANGE, Change
from queues.simulation.accounts import Account, SimulatedPool
from queues.simulation.counters import NOTHING, Counter, Use, counter_of
from queues.simulation.groups import Charge, Running, SimulatedJob
from queues.simulation.scene import Scene
from queues.states import GroupKey, Stage
from queues.transactions import in_turns
from quotas.engine.limits.capacity import capacity_of
from quotas.engine.types import Limit
from quotas.snapshot import resolve

Pace = Literal["expected", "fast", "slow"]
LAST = 20
"""A job that comes after jobs which are not simulated one by one comes after so many of the last ones instead."""


class Scenes:
    """Makes scenes of a backlog. `counts`: whether the forecast is about a job of this row and kind."""

    def __init__(
        self,
        backlog: Backlog,
        times: RunTimes,
        slots: Mapping[str, int],
        now: float,
        counts: Callable[[Row, Kind], bool],
    ) -> None:
        self._backlog, self._times, self._slots = backlog, times, slots
        self._counts = counts
        self.now = now
        self.kinds = Kinds()

    @property
    def is_sampled(self) -> bool:
        """Whether rows stand for several jobs."""
        return self._backlog.sampled

    @cached_property
    def counted(self) -> list[Row]:
        """The rows that the forecast is about, of waiting and of running jobs."""
        return [
            row for row in (*self._backlog.running, *self._backlog.waiting) if self._counts(row, self.kinds.of(row))
        ]

    @cached_property
    def _numbers(self) -> set[int]:
        return {row.id for row in self.counted}

    @cached_property
    def _uses(self) -> dict[str, Use]:
        rows = (*self._backlog.running, *self._backlog.waiting)
        limits = {counter_key(limit): limit for row in rows for limit, _ in self.kinds.of(row).limits}
        return read_uses(limits, self.now)

    @cached_property
    def _pools(self) -> dict[str, PoolUse]:
        rows = (*self._backlog.running, *self._backlog.waiting)
        needs = [need for row in rows if (need := self.kinds.of(row).need) is not None]
        names = dict.fromkeys(name for need in needs for name in need.pools)
        return read_pool_uses([resolve.snapshot().pools[name].spec for name in names], self.now)

    def run_time(self, row: Row) -> RunTime:
        """Of a job, or what is left of it where it runs."""
        queue = config.current().queues.get(row.queue_id)
        timeout = row.timeout or (queue.timeout if queue is not None else 600.0)
        if row.stage == Stage.RUNNING and row.started_at is not None:
            elapsed = max(self.now - row.started_at.timestamp(), 0.0)
            return self._times.left(row.queue_id, row.type, timeout, elapsed)
        return self._times.of(row.queue_id, row.type, timeout)

    def scene(self, change: Change = NO_CHANGE, pace: Pace = "expected") -> Scene:
        """A scene with its own counters and pools, which a simulation may change."""
        cfg = config.current()
        kinds = Kinds(change.limits) if change.limits else self.kinds
        pools = {name: self._pool(use, change) for name, use in self._pools.items()}
        counters: dict[str, Counter] = {}
        self._add_counters(counters, kinds)
        simulated = {row.id for row in (*self._backlog.running, *self._backlog.waiting)}
        return Scene(
            now=self.now,
            jobs=[self._job(row, kinds.of(row), pace, simulated) for row in in_turns(self._backlog.waiting)],
            running=[self._running(row, kinds.of(row), pace, counters, pools) for row in self._backlog.running],
            counters=counters,
            pools=pools,
            slots=self._slots,
            concurrency={queue.id: (queue.name, queue.concurrency) for queue in cfg.queues.values()},
            projects=cfg.projects,
        )

    def _add_counters(self, counters: dict[str, Counter], kinds: Kinds) -> None:
        in_flight: dict[str, int] = {}
        for row in self._backlog.running:
            for limit, own in kinds.of(row).limits:
                if limit.algorithm == "concurrency":
                    key = counter_key(limit)
                    in_flight[key] = in_flight.get(key, 0) + own.cost
        for row in (*self._backlog.running, *self._backlog.waiting):
            for limit, _ in kinds.of(row).limits:
                key = counter_key(limit)
                if key in counters:
                    continue
                use, mine = self._uses.get(key, NOTHING), in_flight.get(key, 0)
                if limit.algorithm == "concurrency":
                    mine = min(mine, int(use.units))
                    use = Use(tuple((at, units - mine) for at, units in use.releases if units > mine))
                counters[key] = counter_of(limit, use, self.now, in_flight=mine)

    def _job(self, row: Row, kind: Kind, pace: Pace, simulated: set[int]) -> SimulatedJob:
        timed = row.stage in (Stage.SCHEDULED, Stage.HELD) and row.not_before is not None
        ready_at = row.not_before.timestamp() if timed and row.not_before is not None else 0.0
        return SimulatedJob(
            id=row.id,
            group=GroupKey(row.queue_id, row.priority, row.project_id, row.pool),
            created_at=row.created_at,
            lane=self._lane(row),
            seconds=getattr(self.run_time(row), pace),
            size=row.size,
            ordering_key=row.ordering_key,
            ready_at=ready_at,
            after=self._after(row, simulated) if row.stage == Stage.HELD else (),
            charges=tuple(_charge(limit, own) for limit, own in kind.limits),
            need=kind.need,
            stopped=kind.stopped,
            counts=row.id in self._numbers,
        )

    def _lane(self, row: Row) -> str:
        queue = config.current().queues.get(row.queue_id)
        return "cpu" if row.suspect else queue.lane if queue is not None else "io"

    def _after(self, row: Row, simulated: set[int]) -> tuple[int, ...]:
        others = self._backlog.after.get(row.id, ())
        found = tuple(other for other in others if other in simulated)
        if found or not others:
            return found
        own = [one.id for one in self._backlog.waiting if one.project_id == row.project_id and one.stage != Stage.HELD]
        return tuple(own[-LAST:])

    def _running(
        self, row: Row, kind: Kind, pace: Pace, counters: Mapping[str, Counter], pools: Mapping[str, SimulatedPool]
    ) -> Running:
        job = self._job(row, kind, pace, set())
        pool, account = self._account_of(row, kind, pools)
        slots = tuple(
            (counter_key(limit), counters[counter_key(limit)], float(own.cost))
            for limit, own in kind.limits
            if limit.algorithm == "concurrency"
        )
        return Running(job, self.now + job.seconds, pool, account, slots)

    def _account_of(
        self, row: Row, kind: Kind, pools: Mapping[str, SimulatedPool]
    ) -> tuple[SimulatedPool | None, Account | None]:
        for name in kind.need.pools if kind.need is not None and row.account_id is not None else ():
            pool = pools[name]
            for spec, account in zip(pool.spec.accounts, pool.accounts, strict=False):
                if spec.id == str(row.account_id):
                    account.busy += 1
                    if account.others:
                        account.others.pop()
                    return pool, account
        return None, None

    def _pool(self, use: PoolUse, change: Change) -> SimulatedPool:
        spec = use.spec
        if spec.name in change.pause_at:
            spec = replace(spec, pause_at=change.pause_at[spec.name])
        accounts = use.accounts(self.now)
        more = change.accounts.get(spec.name, 0)
        if more < 0:
            accounts = _without(accounts, -more)
        accounts += [use.another(self.now) for _ in range(more)]
        if spec.paused:
            for account in accounts:
                account.free_from = math.inf
        return SimulatedPool(spec, accounts)

    def is_paused(self, pool: str) -> bool:
        """Whether an operator has paused the pool."""
        use = self._pools.get(pool)
        return use is not None and use.spec.paused


def _without(accounts: list[Account], fewer: int) -> list[Account]:
    """Without so many of those that can take calls, the last ones first; those that can't are no loss."""
    usable = [account for account in accounts if account.free_from < math.inf]
    gone = {id(account) for account in usable[max(len(usable) - fewer, 0) :]}
    return [account for account in accounts if id(account) not in gone]


def _charge(limit: Limit, own: Limit) -> Charge:
    capacity = capacity_of(own.algorithm, own.limit, own.burst) or 0
    return Charge(limit.name, counter_key(limit), own.cost, float(capacity if own.limit else 0))
