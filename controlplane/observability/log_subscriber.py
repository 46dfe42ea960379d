"""Writes log lines of events: the only module that says which events are logged, and at which level.

Code emits an event where something happens and knows nothing of logging. Only unexpected exceptions are logged
elsewhere, with their traceback.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

import structlog

from quotas import events

Level = Literal["info", "warning", "error"]

LINES: dict[type[events.Event], tuple[Level, str]] = {
    events.AccountActionIncomplete: ("warning", "account.action_incomplete"),
    events.CallbackGivenUp: ("warning", "callback.given_up"),
    events.CapacityExhausted: ("error", "worker.capacity_exhausted"),
    events.ClaimsExpired: ("warning", "reconciler.claims_expired"),
    events.DeadlockRetried: ("info", "sql.deadlock_retried"),
    events.JobUnresolvable: ("warning", "dispatcher.job_unresolvable"),
    events.JobsPruned: ("info", "pruner.jobs_removed"),
    events.JobsRequeued: ("warning", "worker.jobs_requeued"),
    events.LeaderChanged: ("info", "dispatcher.leads"),
    events.LeadershipEnded: ("warning", "dispatcher.leadership_ended"),
    events.LimitAdapted: ("info", "limit.adapted"),
    events.LoginThrottled: ("warning", "login.throttled"),
    events.NoticeFailed: ("info", "alert.notice_failed"),
    events.NoticeGivenUp: ("warning", "alert.notice_given_up"),
    events.ParcelsRecovered: ("warning", "reconciler.parcels_recovered"),
    events.ParcelsRemoved: ("info", "reconciler.parcels_removed"),
    events.PoolHealthMeasured: ("info", "pool.health"),
    events.RecurringJobRefused: ("warning", "recurring.refused"),
    events.RedisStateRestored: ("warning", "redis.state_restored"),
    events.ServiceUnavailable: ("warning", "service.unavailable"),
    events.SettlementDelayed: ("warning", "settlement.delayed"),
    events.SettlementLost: ("error", "settlement.lost"),
    events.StreamEventsDropped: ("warning", "events.dropped"),
    events.LoopBlocked: ("warning", "worker.loop_blocked"),
    events.ThreadStuck: ("error", "worker.thread_stuck"),
    events.WorkerRecycling: ("info", "worker.recycling"),
    events.WorkerStarted: ("info", "worker.started"),
    events.WorkerStopped: ("info", "worker.stopped"),
}
"""Level and name of the log line of each event that is logged; its fields are those of the event."""

log = structlog.get_logger(__name__)


def write(event: events.Event) -> None:
    """Write the log line of an event. Fields that are empty are left out."""
    level, name = LINES[type(event)]
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    getattr(log, level)(name, **{key: value for key, value in values.items() if value not in ("", None)})


def connect() -> None:
    """Write a line for each event of `LINES`."""
    for kind in LINES:
        events.subscribe(kind, write)
