"""The dispatcher: look, draw by fair share, admit, release; then sleep until something can have changed."""

from __future__ import annotations

import os
import socket
import threading
import time
from datetime import datetime, timedelta

import redis
import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections, transaction
from django.db.models import Min

from queues import config, connection
from queues.dispatcher import wakeups
from queues.dispatcher.admission import Admissions, Asked
from queues.dispatcher.candidate import Candidate
from queues.dispatcher.capacity import Places, count_places
from queues.dispatcher.denials import Denied, publish_group_waits, record_waits
from queues.dispatcher.fair_share import FairShare
from queues.dispatcher.group import Group
from queues.dispatcher.leader import Leader, LeadershipLost
from queues.dispatcher.release import Granted, lane_for, release
from queues.lifecycle.waiting import promote, reject
from queues.maintenance.runner import Maintenance
from queues.models import Job
from queues.ready_groups import GroupKey, groups_waiting
from queues.states import Stage
from quotas import clock
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.types import Admission
from quotas.errors import UnknownPool, UnknownProject
from quotas.snapshot import resolve

log = structlog.get_logger(__name__)

LOOK_AROUND = 2.0
"""Seconds between two looks at which groups wait, whatever was rung."""
LONGEST_SLEEP = 1.0
LONGEST_BLOCK = 5.0
"""Seconds after which a block is tried again: what frees capacity before its time need not be foreseen."""
SLOT_BLOCK = 0.25
"""Seconds for blocks by something in flight, which ends whenever it ends (and rings)."""
BUSY = 3
PACE = 0.03
"""Seconds between two cycles once one has released `BUSY` jobs."""
MAX_FAULTS = 10
"""Cycles in a row that may fail for a reason that nobody foresaw."""
PROMOTED_AT_ONCE = 2000
WINDOW = 64
"""Candidates admitted in one round trip at most."""


class Dispatcher:
    """One process's dispatcher. `cycle` is one round; `run` goes on until `stop`."""

    def __init__(self, admissions: Admissions, maintenance: Maintenance, name: str | None = None) -> None:
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self.leader = Leader(self.name)
        self._admissions = admissions
        self._maintenance = maintenance
        self._groups: dict[GroupKey, Group] = {}
        self._pools: dict[tuple[str, int], float] = {}
        self._window: dict[str, int] = {}
        self._share = FairShare()
        self._looked = float("-inf")
        self._renewed = float("-inf")
        self._versions: tuple[int, int] = (-1, -1)
        self._faults = 0
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        """Lead where nobody else does, stand by otherwise. A fault of a cycle is logged and the next one tried."""
        pause = 0.0
        try:
            while not self._stopping.is_set():
                try:
                    rings = wakeups.listen(pause) if self.leader.token is not None else wakeups.Rings()
                    close_old_connections()
                    if not self._lead():
                        pause = 0.0
                        self._stopping.wait(1.0)
                        continue
                    pause = self.cycle(rings)
                    self._faults = 0
                except LeadershipLost:
                    log.warning("dispatcher.leadership_lost", name=self.name)
                    self._forget()
                except (DatabaseError, InterfaceError, redis.RedisError, LimiterUnavailable) as error:
                    pause = 0.0
                    connection.drop_connections(connection.client())
                    log.warning("dispatcher.waiting", error=f"{type(error).__name__}: {error}")
                    self._forget()
                    self._stopping.wait(0.5)
                except Exception:
                    # One cycle that fails must not end all others; a fault that stays ends the process, loudly.
                    self._faults += 1
                    if self._faults >= MAX_FAULTS:
                        raise
                    log.exception("dispatcher.fault", name=self.name, in_a_row=self._faults)
                    self._forget()
                    self._stopping.wait(0.5)
        finally:
            self.leader.resign()

    def _lead(self) -> bool:
        if time.monotonic() - self._renewed < 1.0 and self.leader.token is not None:
            return True
        led = self.leader.token
        held = self.leader.hold()
        self._renewed = time.monotonic()
        if held and self.leader.token != led:
            self._forget()
            log.info("dispatcher.leads", name=self.name, token=self.leader.token)
        return held

    def _forget(self) -> None:
        """Begin from SQL alone: another leader or a fault may have changed what is in memory."""
        self._groups.clear()
        self._pools.clear()
        self._looked = float("-inf")

    def cycle(self, rings: wakeups.Rings) -> float:
        """One round. Returns seconds until the next one is due, unless somebody rings before."""
        back = self._maintenance.after_loss()
        rings.again |= back
        rings.unblock |= bool(back)
        self._hear(rings)
        now = clock.now()
        self._maintenance.run_due(now)
        self._promote(now)
        self._look_around()
        places = count_places(now)
        taken: set[int] = set()
        progressed = self._round(places, taken, now)
        while progressed and places.any():
            progressed = self._round(places, taken, now)
        if len(taken) >= BUSY:
            # Under load it pays to let a few ends of jobs come together: fewer and fuller transactions for everyone.
            self._stopping.wait(PACE)
        return self._sleep(now)

    def _hear(self, rings: wakeups.Rings) -> None:
        if rings.unblock:
            config.snapshot.expire()  # a pause holds for all that was submitted behind it
            resolve.expire()
        config.current()
        versions = (config.snapshot.version, resolve.snapshot().version)
        changed = versions != self._versions
        if changed or rings.unblock:
            self._versions = versions
            self._pools.clear()
            for group in self._groups.values():
                group.unblock(changed=changed)
        for key in rings.grew | rings.again:
            group = self._groups.setdefault(key, Group(key))
            if key in rings.again:
                group.restart()
            else:
                group.grew()

    def _promote(self, now: datetime) -> None:
        """Make scheduled jobs ready whose time has come."""
        if not Job.objects.filter(stage=Stage.SCHEDULED, not_before__lte=now).exists():
            return
        with transaction.atomic():
            self.leader.fence()
            groups = promote(now, PROMOTED_AT_ONCE)
        for key in groups:
            self._groups.setdefault(key, Group(key)).restart()

    def _look_around(self) -> None:
        if time.monotonic() - self._looked < LOOK_AROUND:
            return
        waiting = set(groups_waiting())
        for key in waiting - self._groups.keys():
            self._groups[key] = Group(key)
        for key in self._groups.keys() - waiting:
            del self._groups[key]
        for group in self._groups.values():
            group.grew()
        self._looked = time.monotonic()

    def _round(self, places: Places, taken: set[int], now: datetime) -> bool:
        """Draw up to a window of candidates, admit them, release what was granted. False when nothing was."""
        cfg = config.current()
        moment = time.monotonic()
        open_groups = []
        for key, group in self._groups.items():
            queue = cfg.queues.get(key[0])
            group.open_lanes(moment)
            if group.held_until and group.held_until <= moment:
                group.held_until = 0.0
            if queue is None or queue.paused or queue.concurrency == 0 or group.held_until:
                continue
            open_groups.append(group)
        drawn, returned = self._draw(open_groups, places, taken, cfg, now, moment)
        for group, candidates in returned.items():
            group.put_back(candidates)
            taken.difference_update(candidate.id for candidate in candidates)
        if not drawn:
            return False
        answers = self._admissions.admit([asked for _, asked in drawn])
        granted, denied = self._sort(drawn, answers, places, taken, cfg)
        if granted:
            for item in release(self.leader, granted, places.workers):
                self._admissions.give_back(item.candidate, item.admission)
                places.give(cfg.queues[item.candidate.queue_id], lane_for(item.candidate))
        record_waits(denied, now)
        publish_group_waits(denied)
        # Also where all were denied for a while: behind them others may wait that nothing holds back.
        return bool(granted) or any(item.seconds is None or item.seconds >= SLOT_BLOCK for item in denied)

    def _draw(
        self,
        groups: list[Group],
        places: Places,
        taken: set[int],
        cfg: config.QueueConfig,
        now: datetime,
        moment: float,
    ) -> tuple[list[tuple[Group, Asked]], dict[Group, list[Candidate]]]:
        """Candidates in turn for which there are places, and what was drawn and found no place."""
        drawn: list[tuple[Group, Asked]] = []
        returned: dict[Group, list[Candidate]] = {}
        asked_of: dict[str, int] = {}
        for group, candidate in self._share.order(groups, taken, cfg.projects, now):
            queue = cfg.queues[candidate.queue_id]
            lane = lane_for(candidate)
            pool = candidate.pool or queue.pool or ""
            window = self._window.get(pool, WINDOW) if pool else WINDOW
            blocked_until = self._pools.get((pool, candidate.priority), 0.0) if pool else 0.0
            if blocked_until > moment:
                group.held_until = blocked_until
            if (
                blocked_until > moment
                or not places.allows(queue, lane, pooled=bool(pool))
                or asked_of.get(pool, 0) >= window
            ):
                self._share.refund(candidate, cfg.projects)
                returned.setdefault(group, []).append(candidate)
                if blocked_until <= moment and not candidate.suspect:
                    # No place, or this round asks enough of the pool: the group sits out the rest of the round.
                    group.held_until = moment
                continue
            asked = self._resolve(group, candidate)
            if asked is None:
                self._share.refund(candidate, cfg.projects)
                continue
            places.take(queue, lane)
            asked_of[pool] = asked_of.get(pool, 0) + 1
            drawn.append((group, asked))
            if len(drawn) >= WINDOW:
                break
        return drawn, returned

    def _resolve(self, group: Group, candidate: Candidate) -> Asked | None:
        try:
            return self._admissions.resolve(candidate)
        except (KeyError, UnknownPool, UnknownProject):
            # Submitted by a process that has read newer configuration than this one.
            config.snapshot.expire()
            resolve.expire()
        try:
            return self._admissions.resolve(candidate)
        except (KeyError, UnknownPool, UnknownProject) as error:
            # Its pool or project was removed: nothing but a change of configuration helps, and that unblocks. Jobs that
            # name no pool share their lane with jobs that need none.
            log.warning("dispatcher.unresolvable", job=candidate.uid, missing=str(error))
            if candidate.pool:
                group.block(candidate.lane, time.monotonic() + 60.0)
            else:
                group.pass_over()
            return None

    def _sort(
        self,
        drawn: list[tuple[Group, Asked]],
        answers: list[Admission],
        places: Places,
        taken: set[int],
        cfg: config.QueueConfig,
    ) -> tuple[list[Granted], list[Denied]]:
        """Grants and denials, with order kept inside each lane: behind a denied job none of its lane goes on."""
        granted: list[Granted] = []
        denied: list[Denied] = []
        closed: set[tuple[GroupKey, str]] = set()
        refused_pools: set[str] = set()
        back: dict[Group, list[Candidate]] = {}
        for (group, asked), answer in zip(drawn, answers, strict=True):
            candidate = asked.candidate
            queue = cfg.queues[candidate.queue_id]
            if answer.allowed and (group.key, candidate.lane) not in closed:
                self._share.confirm(candidate)
                granted.append(Granted(candidate, answer))
                continue
            places.give(queue, lane_for(candidate))
            self._share.refund(candidate, cfg.projects)
            if answer.allowed:
                self._admissions.give_back(candidate, answer)
                back.setdefault(group, []).append(candidate)
                continue
            if answer.impossible:
                self._reject(candidate, answer)
                continue
            back.setdefault(group, []).append(candidate)
            if (group.key, candidate.lane) in closed:
                continue
            closed.add((group.key, candidate.lane))
            denied.append(Denied(candidate, answer))
            self._block(group, candidate, asked, answer)
            if answer.bound_by == "pool" and asked.pool is not None:
                refused_pools.add(asked.pool.name)
        for group, candidates in back.items():
            group.put_back(candidates)
            taken.difference_update(candidate.id for candidate in candidates)
        self._learn_windows(drawn, refused_pools)
        return granted, denied

    def _reject(self, candidate: Candidate, admission: Admission) -> None:
        """Give up a job whose cost is greater than a limit's whole capacity."""
        error = f"Its cost is greater than {admission.binding} ever allows, so no wait would help."
        with transaction.atomic():
            self.leader.fence()
            reject(candidate.id, error, clock.now())

    def _block(self, group: Group, candidate: Candidate, asked: Asked, answer: Admission) -> None:
        seconds = LONGEST_BLOCK if answer.retry_after is None else min(answer.retry_after, LONGEST_BLOCK)
        if _by_something_in_flight(answer):
            seconds = min(seconds, SLOT_BLOCK)
        until = time.monotonic() + max(seconds, 0.001)
        if answer.bound_by == "pool" and asked.pool is not None and not _by_part_only(answer):
            self._pools[asked.pool.name, candidate.priority] = until
            group.held_until = until
        else:
            group.block(candidate.lane, until)

    def _learn_windows(self, drawn: list[tuple[Group, Asked]], refused: set[str]) -> None:
        """A pool that refused is asked for one next time, and for twice as many each time it grants all."""
        for name in {asked.pool.name for _, asked in drawn if asked.pool is not None}:
            self._window[name] = 1 if name in refused else min(self._window.get(name, 1) * 2, WINDOW)

    def _sleep(self, now: datetime) -> float:
        moment = time.monotonic()
        wakes = [LONGEST_SLEEP, self._maintenance.due_in()]
        for group in self._groups.values():
            at = group.wakes_at()
            if at is not None and at > moment:
                wakes.append(at - moment)
        first = Job.objects.filter(stage=Stage.SCHEDULED).aggregate(first=Min("not_before"))["first"]
        if first is not None:
            wakes.append((first - now) / timedelta(seconds=1))
        return max(min(wakes), 0.0)


def _by_something_in_flight(answer: Admission) -> bool:
    """Bound by slots that end with a call, so that the time to wait is a bound and no forecast."""
    if answer.bound_by == "limit":
        return any(state.policy == answer.binding and state.algorithm == "concurrency" for state in answer.limits)
    return bool({"concurrency", "half_open", "probing"} & set(answer.reasons))


def _by_part_only(answer: Admission) -> bool:
    """Bound by one key (a chat) or one model, which says nothing of the pool's other work."""
    return bool(answer.reasons) and ("model" in answer.reasons or set(answer.reasons) <= {"key"})
