"""The dispatcher's loop: lead, read what is new, run rounds; then sleep until something may have changed."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import redis
import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections, transaction

from queues import config, connection, wait_metric, wakeups
from queues.dispatcher.admission import Admissions
from queues.dispatcher.candidates import Candidate, GroupCursor
from queues.dispatcher.capacity import Pace, PoolMemory, count_capacity
from queues.dispatcher.leader import Leader, LeadershipLost
from queues.dispatcher.round import Round
from queues.dispatcher.wait_ledger import Cause, WaitLedger, take_over
from queues.fair_share import FairShare
from queues.lifecycle.waiting import first_due, promote
from queues.maintenance.runner import Maintenance
from queues.ready_groups import groups_waiting
from queues.states import GroupKey
from queues.wakeups import Wakeups
from quotas import clock, events
from quotas.engine.errors import LimiterUnavailable
from quotas.runtime.kept_connections import keep
from quotas.snapshot import resolve

log = structlog.get_logger(__name__)

GROUP_REFRESH = 2.0
"""Seconds between two reads of which groups have ready jobs, whatever the wake-ups say."""
MAX_SLEEP = 1.0
IDLE_SLEEP = 2.0
"""Seconds between two cycles at most; `IDLE_SLEEP` where no job waits and nothing has happened."""
BUSY = 3
PAUSE_PER_JOB, LONGEST_PAUSE = 0.0015, 0.03
"""Seconds between two cycles after one that drew `BUSY` jobs: for each of them, and at most."""
MAX_FAULTS = 10
"""Cycles in a row that may fail with an unexpected exception."""
PROMOTED_AT_ONCE = 2000
RENEWED, RENEWED_AT_LEAST = 1.0, 2.5
"""Seconds after which the leadership is renewed before a cycle; the second where new jobs wait for the cycle."""
CHECK_INTERVAL = 10.0
"""Seconds between two checks of the connections while wake-ups arrive."""


class Dispatcher:
    """One process's dispatcher. `cycle` is one turn of the loop; `run` repeats it until `stop`."""

    def __init__(self, admissions: Admissions, maintenance: Maintenance, name: str | None = None) -> None:
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self.leader = Leader(self.name)
        self._admissions = admissions
        self._maintenance = maintenance
        self.on_wakeup: Callable[[], None] = lambda: None
        """Called with each wake-up."""
        self._groups: dict[GroupKey, GroupCursor] = {}
        self._pools = PoolMemory()
        self._share: FairShare[GroupCursor, Candidate] = FairShare()
        self._pace = Pace()
        self._ledger = WaitLedger(self.leader)
        self._cycled_at: datetime | None = None
        self._interrupted: Cause | None = None
        self._refreshed_at = float("-inf")
        self._renewed_at = float("-inf")
        self._checked_at = float("-inf")
        self._versions: tuple[int, int] = (-1, -1)
        self._faults = 0
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End `run`, also where it waits for a wake-up. For a signal handler: it blocks nothing."""
        self._stopping.set()
        if self.leader.token is not None:
            threading.Thread(target=wakeups.notify, name="stop", daemon=True).start()

    def run(self) -> None:
        """Lead if no other dispatcher does, stand by otherwise. A fault of a cycle is logged and the next one tried."""
        keep()
        pause = 0.0
        try:
            while not self._stopping.is_set():
                pause = self._turn(pause)
        finally:
            self.leader.resign()

    def _turn(self, pause: float) -> float:
        """Wait at most `pause` seconds for a wake-up, then run one cycle. Returns the next pause."""
        try:
            woken = wakeups.wait(pause) if self.leader.token is not None else Wakeups()
            if woken.any:
                self.on_wakeup()
            self._check_connections(woken)
            if not self.lead(urgent=bool(woken.appended)):
                self._stopping.wait(1.0)
                return 0.0
            pause = self.cycle(woken)
            self._faults = 0
            return pause
        except LeadershipLost:
            events.emit(events.LeadershipEnded(self.name))
            self._follow()
            return pause
        except (DatabaseError, InterfaceError, redis.RedisError, LimiterUnavailable) as error:
            connection.drop_connections(connection.client())
            redis_failed = isinstance(error, redis.RedisError | LimiterUnavailable)
            self._interrupted = ("limiter_unavailable" if redis_failed else "no_dispatcher", "")
            events.emit(events.ServiceUnavailable("dispatcher", "a cycle", f"{type(error).__name__}: {error}"))
        except Exception:
            # One cycle that fails must not end all others; a fault that stays ends the process, loudly.
            self._faults += 1
            if self._faults >= MAX_FAULTS:
                raise
            log.exception("dispatcher.fault", name=self.name, in_a_row=self._faults)
        self.forget()
        self._checked_at = float("-inf")
        self._stopping.wait(0.5)
        return 0.0

    def _check_connections(self, woken: Wakeups) -> None:
        """Close the connections to SQL that are too old or broken; while jobs arrive only at intervals, since they wait for it."""
        if not woken.any or time.monotonic() - self._checked_at >= CHECK_INTERVAL:
            close_old_connections()
            self._checked_at = time.monotonic()

    def lead(self, *, urgent: bool = False) -> bool:
        """Renew the leadership, or take over where no other dispatcher leads. True while this one leads. `urgent`: jobs wait for
        this cycle, and their release renews the term, too."""
        since = time.monotonic() - self._renewed_at
        if self.leader.token is not None and since < (RENEWED_AT_LEAST if urgent else RENEWED):
            return True
        before = self.leader.token
        leads = self.leader.renew_or_take_over()
        self._renewed_at = time.monotonic()
        if self.leader.token != before:
            self._follow()
        if leads and self.leader.vacant_since is not None:
            take_over(self.leader, self.leader.vacant_since, clock.now())
            self.leader.vacant_since = None
        return leads

    def _follow(self) -> None:
        """Drop the state of the previous term: another dispatcher may have led since."""
        self.forget()
        self._ledger.discard()
        self._cycled_at = self._interrupted = None

    def forget(self) -> None:
        """Begin from SQL alone: the state in memory may be out of date after another leader or a fault."""
        self._groups.clear()
        self._pools.unblock()
        self._refreshed_at = float("-inf")

    def refresh_soon(self, *, groups: bool = True) -> None:
        """Renew the leadership with the next cycle, and look at all waiting groups, however recent the last time is."""
        self._renewed_at = float("-inf")
        if groups:
            self._refreshed_at = float("-inf")

    def cycle(self, woken: Wakeups) -> float:
        """One turn: recovery, maintenance, due jobs, rounds; where new jobs have arrived, the rounds come first. Returns seconds until
        the next turn, unless it is woken before."""
        recovered: set[GroupKey] = set() if woken.marked else self._maintenance.after_loss()
        woken.requeued |= recovered
        woken.unblock |= bool(recovered)
        self._apply(woken)
        now = clock.now()
        if self._interrupted is not None and self._cycled_at is not None:
            self._ledger.interrupt(self._interrupted, self._cycled_at, now)
        self._interrupted = None
        urgent = bool(woken.appended) and not (woken.unblock or woken.requeued)
        found = False
        if not urgent:
            self._look_around(now)
        drawn = self._release(now)
        if urgent:
            found = self._look_around(now)
        wait_metric.add(self._ledger.flush(now))
        self._cycled_at = now
        if drawn >= BUSY:
            # Under load it pays to let a few ends of jobs come together: fewer and fuller transactions for everyone.
            self._stopping.wait(min(PAUSE_PER_JOB * drawn, LONGEST_PAUSE))
        return 0.0 if found else self._seconds_to_sleep(now, idle=not (self._groups or woken.any))

    def _look_around(self, now: datetime) -> bool:
        """Maintenance, due jobs, groups that no wake-up has named. Whether there may be more to release then."""
        self._maintenance.run_due(now)
        promoted = self._promote(now)
        return self._refresh_groups() or promoted

    def _release(self, now: datetime) -> int:
        """Run rounds until nothing more can be released; returns how many jobs they drew."""
        capacity = count_capacity(now)
        self._pace.begin_cycle(capacity.in_flight(), time.monotonic())
        capacity.prefetch = self._pace.prefetch(capacity.slots)
        rounds = Round(self.leader, self._admissions, self._share, self._pools, capacity, self._ledger, now)
        progressed = rounds.run(self._groups.values())
        while progressed and capacity.has_room():
            progressed = rounds.run(self._groups.values())
        self._pace.end_cycle(capacity.in_flight(), time.monotonic())
        return len(rounds.taken)

    def _apply(self, woken: Wakeups) -> None:
        """Unblock and read again what the wake-ups or a change of configuration name."""
        if woken.unblock:
            config.snapshot.expire()  # a pause applies to all that was submitted after it
            resolve.expire()
        config.current()
        versions = (config.snapshot.version, resolve.snapshot().version)
        changed = versions != self._versions
        if changed or woken.unblock:
            self._versions = versions
            self._pools.unblock()
            for group in self._groups.values():
                group.unblock(changed=changed)
        for key in woken.appended | woken.requeued:
            group = self._groups.setdefault(key, GroupCursor(key))
            if key in woken.requeued:
                group.restart()
            else:
                group.read_on()

    def _promote(self, now: datetime) -> bool:
        """Make scheduled jobs ready whose time has come; False if there are none."""
        first = first_due()
        if first is None or first > now:
            return False
        with transaction.atomic():
            self.leader.fence()
            groups = promote(now, PROMOTED_AT_ONCE)
        for key in groups:
            self._groups.setdefault(key, GroupCursor(key)).restart()
        return True

    def _refresh_groups(self) -> bool:
        """Read from SQL which groups have ready jobs, at intervals. False if that was not due, or there are none."""
        if time.monotonic() - self._refreshed_at < GROUP_REFRESH:
            return False
        ready = set(groups_waiting())
        for key in ready - self._groups.keys():
            self._groups[key] = GroupCursor(key)
        for key in self._groups.keys() - ready:
            del self._groups[key]
        for group in self._groups.values():
            group.read_on()
            group.look_back()  # also where keys are blocked
        self._refreshed_at = time.monotonic()
        return bool(self._groups)

    def _seconds_to_sleep(self, now: datetime, *, idle: bool) -> float:
        moment = time.monotonic()
        pauses = [IDLE_SLEEP] if idle else [MAX_SLEEP, self._maintenance.due_in()]
        for group in self._groups.values():
            at = group.next_block_end()
            if at is not None and at > moment:
                pauses.append(at - moment)
        due = (first_due(), self._maintenance.next_tick)
        pauses += [(at - now) / timedelta(seconds=1) for at in due if at is not None]
        return max(min(pauses), 0.0)
