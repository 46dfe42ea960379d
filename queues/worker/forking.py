"""The worker of the lane `cpu`: one forked process per job. Also where suspects run, so that they die alone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection
from typing import Any

import structlog
from django.db import DatabaseError, close_old_connections, connections
from rq.job import Job as RQJob
from rq.queue import Queue

from queues.registry import RunResult
from queues.states import Outcome
from queues.worker import claim, engine
from queues.worker.claim import Claimed
from queues.worker.hand_back import hand_back
from queues.worker.lean import GRACE, LeanWorker
from queues.worker.parcel import deliveries
from queues.worker.report import HEARTBEAT, Report
from queues.worker.running import perform, timed_out
from queues.worker.settle import Ended, settle
from quotas import connection, events
from quotas.engine.types import Outcome as Upstream

log = structlog.get_logger(__name__)

PR_SET_PDEATHSIG = 1
LOOK = 0.05
"""Seconds between two looks at the child."""


class ForkingWorker(LeanWorker):
    """An RQ worker that runs each job in a process of its own. It has no threads that a fork could catch in a lock."""

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        super().bootstrap(*args, **kwargs)
        self._report = Report(self.name, self.lane, self.places)
        self._report.begin()
        self._reported = time.monotonic()
        log.info("worker.started", name=self.name, lane=self.lane, places=self.places)

    def subscribe(self) -> None:
        """RQ's command channel needs a thread; a forking worker is better without one. Signals steer it."""

    def unsubscribe(self) -> None:
        """Nothing was subscribed."""

    def ready_for_more(self) -> bool:
        self._beat(())
        return True

    def _beat(self, held: Collection[int]) -> None:
        if time.monotonic() - self._reported < HEARTBEAT:
            return
        try:
            close_old_connections()
            self._report.beat(held)
            self._reported = time.monotonic()
        except DatabaseError as error:
            log.warning("worker.no_heartbeat", error=type(error).__name__)

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        try:
            claimed = claim.claim(deliveries(job), self.name)
        except DatabaseError as error:
            # Not claimed, not lost: the rows stay on the belt in SQL, and the reconciler releases them anew.
            log.warning("worker.claim_failed", error=type(error).__name__)
            return
        self.forget(job)
        for position, item in enumerate(claimed):
            if self._stop_requested:
                hand_back(claimed[position:], self.name)
                return
            self._run_alone(item)

    def _run_alone(self, item: Claimed) -> None:
        """Fork, watch, and settle in the child's place where it could not."""
        connections.close_all()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._child(item, parent)
        self._horse_pid = pid
        ending = self._watch(pid, item)
        self._horse_pid = 0
        self._report.done += 1
        if ending is not None:
            self._report.failed += 1
            self._settle([Ended(item, ending)])

    def _child(self, item: Claimed, parent: int) -> None:
        """The job's own process; never returns."""
        code = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            os.setpgrp()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            # The parent's sockets are the parent's.
            connection.forget()
            self._settle([Ended(item, perform(item))])
            code = 0
        finally:
            events.finish_all()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _watch(self, pid: int, item: Claimed) -> RunResult | None:
        """Wait for the child; None where it has settled by itself, else how its job ended."""
        begun = looked = time.monotonic()
        stopping_since: float | None = None
        ending: RunResult | None = None
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return None if status == 0 else ending or _died(item, status)
            moment = time.monotonic()
            if ending is None and moment - begun > item.context.timeout:
                ending = timed_out(item)
                os.kill(pid, signal.SIGKILL)
            if ending is None and moment - looked >= 1.0:
                looked = moment
                if self._is_cancelled(item):
                    ending = RunResult(
                        Outcome.CANCELLED, error="Cancelled while it ran.", counted=False, upstream=Upstream("unknown")
                    )
                    os.kill(pid, signal.SIGKILL)
            if self._stop_requested and ending is None:
                stopping_since = stopping_since or moment
                if moment - stopping_since > GRACE:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    hand_back([item], self.name)
                    return None
            self._beat([item.id])
            time.sleep(LOOK if moment - begun > 1.0 else LOOK / 10)

    def _is_cancelled(self, item: Claimed) -> bool:
        try:
            return (item.id, item.delivery) in claim.cancelled(self.name)
        except DatabaseError:
            return False  # asked again in a second

    def _settle(self, ended: list[Ended]) -> None:
        engine.settle_engine(ended)
        wait = 0.1
        while True:
            try:
                close_old_connections()
                settle(ended, self.name)
                return
            except DatabaseError as error:
                log.warning("worker.sql_away", error=type(error).__name__)
                time.sleep(wait)
                wait = min(wait * 2, 2.0)

    def teardown(self) -> None:
        try:
            self._report.end()
        except DatabaseError as error:
            log.warning("worker.stop_unreported", error=type(error).__name__)
        super().teardown()
        log.info("worker.stopped", name=self.name)


def _died(item: Claimed, status: int) -> RunResult:
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
    upstream = Upstream("unknown") if item.endpoint else None
    return RunResult(
        Outcome.LOST, category="poison", error=f"Its process died ({how}).", counted=False, upstream=upstream
    )
