"""One round of the dispatcher: draw candidates by fair share, admit them in one round trip, release the admitted ones."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import transaction

from queues import config, hops
from queues.dispatcher.admission import Admissions, Demand, Granted, lane_for, release
from queues.dispatcher.candidates import Candidate, GroupCursor
from queues.dispatcher.capacity import MAX_BATCH, PoolMemory, WorkerCapacity
from queues.dispatcher.denials import Denied, cause_of, publish_group_waits, record_waits
from queues.dispatcher.leader import Leader
from queues.dispatcher.wait_ledger import Cause, WaitLedger
from queues.fair_share import FairShare
from queues.lifecycle.waiting import reject
from queues.states import GroupKey
from quotas import clock, events
from quotas.engine.types import Admission
from quotas.errors import UnknownPool, UnknownProject
from quotas.snapshot import resolve

MAX_BLOCK = 5.0
"""Seconds after which a block is tried again, so that capacity that is free before its time need not be foreseen."""
SLOT_BLOCK = 0.25
"""Seconds for a block by calls in flight: such a call may end at any time, and its end wakes the dispatcher."""
UNKNOWN_POOL_BLOCK = 60.0
"""Seconds for a job whose pool was removed."""
UNTIL_NEXT_CYCLE = 2.0
"""Seconds for which a cause without a known end counts: the next cycle comes before and reports it again."""


@dataclass(slots=True)
class Drawn:
    """What one draw found."""

    demands: list[tuple[GroupCursor, Demand]] = field(default_factory=list)
    """Candidates with a worker slot, in turn, with the limits and the pool that they need."""
    unused: dict[GroupCursor, list[Candidate]] = field(default_factory=dict)
    """Candidates without a slot."""
    short: list[tuple[GroupCursor, Candidate]] = field(default_factory=list)
    """Of these, the ones for which the workers or the queue had no room."""


class Round:
    """The rounds of one cycle share what is left of the capacity, and the jobs that the cycle has already drawn."""

    def __init__(
        self,
        leader: Leader,
        admissions: Admissions,
        share: FairShare[GroupCursor, Candidate],
        pools: PoolMemory,
        capacity: WorkerCapacity,
        ledger: WaitLedger,
        now: datetime,
    ) -> None:
        self._leader = leader
        self._admissions = admissions
        self._share = share
        self._pools = pools
        self._capacity = capacity
        self._ledger = ledger
        self._now = now
        self._cfg = config.current()
        self.taken: set[int] = set()
        """Jobs that were drawn in this cycle and not returned."""

    def run(self, groups: Iterable[GroupCursor]) -> bool:
        """Draw, admit and release up to one batch. False if another round would release nothing more."""
        self._cfg = config.current()
        moment = time.monotonic()
        drawn = self._draw(self._open(groups, moment), moment)
        self._return_unused(drawn.unused)
        if not drawn.demands:
            self._hold_short(drawn.short)
            return False
        admissions = self._admissions.admit([demand for _, demand in drawn.demands])
        if hops.observer is not None:
            hops.observer(hops.ADMITTED)
        granted, denied = self._sort(drawn.demands, admissions)
        if granted:
            for item in release(self._leader, granted, self._capacity.workers):
                self._admissions.release_unused(item.candidate, item.admission)
                self._capacity.release(self._cfg.queues[item.candidate.queue_id], lane_for(item.candidate))
        self._hold_short(drawn.short)
        if denied:
            record_waits(denied, self._now)
            publish_group_waits(denied)
        # Also if all were denied for a while: jobs behind them may have other limits.
        return bool(granted) or any(item.seconds is None or item.seconds >= SLOT_BLOCK for item in denied)

    def _open(self, groups: Iterable[GroupCursor], moment: float) -> list[GroupCursor]:
        """Those of the groups that are not blocked and whose queues run."""
        found = []
        for group in groups:
            queue = self._cfg.queues.get(group.key.queue_id)
            group.end_blocks(moment)
            if queue is None:
                continue
            if queue.paused or queue.concurrency == 0:
                cause = ("queue_paused" if queue.paused else "queue_concurrency", queue.name)
                self._hold(group, "", cause, UNTIL_NEXT_CYCLE)
            elif not group.blocked_until:
                found.append(group)
        return found

    def _draw(self, groups: list[GroupCursor], moment: float) -> Drawn:
        """Draw candidates in turn until the batch is full."""
        drawn = Drawn()
        in_batch: dict[str, int] = {}
        for group, candidate in self._share.order(groups, self.taken, self._cfg.projects, self._now):
            queue = self._cfg.queues[candidate.queue_id]
            lane = lane_for(candidate)
            pool = candidate.pool or queue.pool or ""
            blocked_until = self._pools.blocked_until(pool, candidate.priority)
            shortage = self._capacity.shortage(queue, lane, pooled=bool(pool))
            if blocked_until > moment:
                group.blocked_until = blocked_until
                self._hold(group, "", self._pools.cause(pool, candidate.priority), blocked_until - moment)
            elif shortage is not None:
                drawn.short.append((group, candidate))
            if blocked_until > moment or shortage or in_batch.get(pool, 0) >= self._pools.batch_limit(pool):
                self._share.refund(candidate, self._cfg.projects)
                drawn.unused.setdefault(group, []).append(candidate)
                if blocked_until <= moment and not candidate.suspect:
                    # No slot, or the batch has enough of the pool: skip the group for the rest of this round.
                    group.blocked_until = moment
                continue
            demand = self._demand(group, candidate)
            if demand is None:
                self._share.refund(candidate, self._cfg.projects)
                continue
            self._capacity.reserve(queue, lane)
            in_batch[pool] = in_batch.get(pool, 0) + 1
            drawn.demands.append((group, demand))
            if len(drawn.demands) >= MAX_BATCH:
                break
        return drawn

    def _return_unused(self, unused: dict[GroupCursor, list[Candidate]]) -> None:
        for group, candidates in unused.items():
            group.return_unused(candidates)
            self.taken.difference_update(candidate.id for candidate in candidates)

    def _demand(self, group: GroupCursor, candidate: Candidate) -> Demand | None:
        """What the candidate needs; None if its pool or its project was removed."""
        try:
            return self._admissions.resolve(candidate)
        except (KeyError, UnknownPool, UnknownProject):
            # Submitted by a process that has read newer configuration than this one.
            config.snapshot.expire()
            resolve.expire()
        try:
            return self._admissions.resolve(candidate)
        except (KeyError, UnknownPool, UnknownProject) as error:
            # Only a change of configuration helps, and that unblocks. A job that names no pool may share its ordering
            # key with jobs that need none.
            events.emit(events.JobUnresolvable(candidate.uid, str(error)))
            self._hold(group, candidate.ordering_key, ("no_pool", candidate.pool), UNKNOWN_POOL_BLOCK)
            if candidate.pool:
                group.block(candidate.ordering_key, time.monotonic() + UNKNOWN_POOL_BLOCK)
            else:
                group.pass_over(candidate)
            return None

    def _sort(
        self, demands: list[tuple[GroupCursor, Demand]], admissions: list[Admission]
    ) -> tuple[list[Granted], list[Denied]]:
        """Split into granted and denied. After a denied job none with its ordering key is released."""
        granted: list[Granted] = []
        denied: list[Denied] = []
        closed: set[tuple[GroupKey, str]] = set()
        denying_pools: set[str] = set()
        unused: dict[GroupCursor, list[Candidate]] = {}
        for (group, demand), admission in zip(demands, admissions, strict=True):
            candidate = demand.candidate
            in_order = (group.key, candidate.ordering_key) not in closed
            if admission.allowed and in_order:
                self._share.confirm(candidate)
                granted.append(Granted(candidate, admission))
                # Before the denials that follow it: what they report begins now.
                if self._ledger.holds:
                    self._ledger.release(group.key, candidate.ordering_key, self._now)
                continue
            self._capacity.release(self._cfg.queues[candidate.queue_id], lane_for(candidate))
            self._share.refund(candidate, self._cfg.projects)
            if admission.impossible:
                self._reject(candidate, admission)
                continue
            unused.setdefault(group, []).append(candidate)
            if admission.allowed:
                self._admissions.release_unused(candidate, admission)
            elif in_order:
                closed.add((group.key, candidate.ordering_key))
                denied.append(Denied(candidate, admission))
                self._block(group, demand, admission)
                if admission.bound_by == "pool" and demand.pool is not None:
                    denying_pools.add(demand.pool.name)
        self._return_unused(unused)
        self._pools.learn({demand.pool.name for _, demand in demands if demand.pool is not None}, denying_pools)
        return granted, denied

    def _reject(self, candidate: Candidate, admission: Admission) -> None:
        """Give up a job whose cost is greater than a limit's whole capacity."""
        error = f"Its cost is greater than {admission.binding} ever allows, so no wait would help."
        with transaction.atomic():
            self._leader.fence()
            reject(candidate.id, error, clock.now())

    def _block(self, group: GroupCursor, demand: Demand, admission: Admission) -> None:
        """Remember until when the engine denies: the whole pool for this priority, or this ordering key."""
        seconds = MAX_BLOCK if admission.retry_after is None else min(admission.retry_after, MAX_BLOCK)
        if _by_calls_in_flight(admission):
            seconds = min(seconds, SLOT_BLOCK)
        seconds = max(seconds, 0.001)
        until = time.monotonic() + seconds
        candidate = demand.candidate
        cause = cause_of(admission, pool_paused=demand.pool is not None and demand.pool.paused)
        if admission.bound_by == "pool" and demand.pool is not None and not _by_one_key_or_model(admission):
            self._pools.block(demand.pool.name, candidate.priority, until, cause)
            group.blocked_until = until
            self._hold(group, "", cause, seconds)
        else:
            group.block(candidate.ordering_key, until)
            self._hold(group, candidate.ordering_key, cause, seconds)

    def _hold_short(self, short: list[tuple[GroupCursor, Candidate]]) -> None:
        """Report a lack of slots where there still is one: those of denied candidates are free again."""
        for group, candidate in short:
            queue = self._cfg.queues[candidate.queue_id]
            pooled = bool(candidate.pool or queue.pool)
            cause = self._capacity.shortage(queue, lane_for(candidate), pooled=pooled)
            if cause is not None:
                self._hold(group, candidate.ordering_key if candidate.suspect else "", cause, UNTIL_NEXT_CYCLE)

    def _hold(self, group: GroupCursor, ordering_key: str, cause: Cause, seconds: float) -> None:
        """Write into the ledger what the group or one ordering key of it waits for."""
        self._ledger.hold(group.key, ordering_key, cause, self._now, self._now + timedelta(seconds=seconds))


def _by_calls_in_flight(admission: Admission) -> bool:
    """Bound by slots that end with a call, so that the time to wait is an upper bound."""
    if admission.bound_by == "limit":
        return any(state.policy == admission.binding and state.algorithm == "concurrency" for state in admission.limits)
    return bool({"concurrency", "half_open", "probing"} & set(admission.reasons))


def _by_one_key_or_model(admission: Admission) -> bool:
    """Bound by one key (a chat) or one model: the pool's other work is not affected."""
    return bool(admission.reasons) and ("model" in admission.reasons or set(admission.reasons) <= {"key"})
