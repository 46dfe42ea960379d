"""What happens, as typed events, and the bus that carries them. This file is their catalogue.

Code emits an event once, where it happens; logging, metrics, audit, live streams and alerts subscribe from outside.
A subscriber runs in the emitter's thread and transaction, in the order of subscription: the audit trail relies on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quotas.engine.types import Decision


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. `project` is the slug of the project that may see it; empty: the platform only."""

    project: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class OperatorActed(Event):
    """Somebody changed or steered something. Becomes a row of the audit trail.

    `phase` is `done` where the action is in the same SQL transaction; `intent`, then `done` or `failed`, where it
    happens in Redis only.
    """

    actor: str
    verb: str
    target: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    reason: str = ""
    phase: str = "done"


@dataclass(frozen=True, slots=True)
class LimitsChecked(Event):
    """Requests were checked against limits in one call that took `seconds`. Not emitted for dry runs."""

    decisions: Sequence[Decision]
    seconds: float


@dataclass(frozen=True, slots=True)
class LimitDenied(Event):
    """A check was refused. Emitted on the hot path, also by event loops: whoever subscribes to it does not block."""

    policy: str
    scope: str
    key: str
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class LimitBypassed(Event):
    """A caller with the `bypass` scope went past a limit."""

    policy: str
    actor: str


@dataclass(frozen=True, slots=True)
class LimiterDegraded(Event):
    """Redis does not answer; limits are enforced in the process or refuse."""

    error: str


@dataclass(frozen=True, slots=True)
class LimiterRecovered(Event):
    """Redis answers again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SettlementDelayed(Event):
    """Redis did not answer when a reservation or lease was settled; it is settled later."""

    what: str
    error: str


@dataclass(frozen=True, slots=True)
class ThresholdCrossed(Event):
    """A policy's use went over a share of its limit, for the first time in its period."""

    policy: str
    key: str
    share: float
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class LimitAdapted(Event):
    """An adaptive policy's limit has moved, and why. `project` is the one that the policy is bound to."""

    policy: str
    before: int
    after: int
    why: str


@dataclass(frozen=True, slots=True)
class AccountChanged(Event):
    """An account went from one state to another, as the API names them.

    A breaker opens (`open`), lets a probe out (`half_open`) and closes (`available`); a refused credential disables
    (`disabled`, `why` is `auth`): this is worth an alert, and is emitted once.
    """

    pool: str
    account: str
    before: str
    after: str
    why: str = ""
    until: float | None = None


@dataclass(frozen=True, slots=True)
class PoolLimited(Event):
    """All of a pool is limited: its accounts share a limit, or each of them has met its own. Emitted once per time.

    `account`: whose refusal was the last. `until`: seconds until the first of them is free, None where that is open.
    """

    pool: str
    account: str
    why: str = ""
    until: float | None = None


@dataclass(frozen=True, slots=True)
class ConcurrencyChanged(Event):
    """Adaptive concurrency moved: how many calls may be in flight on an account, before and after."""

    pool: str
    account: str
    before: int
    after: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class CallEnded(Event):
    """A call through the gateway ended or was refused; nothing of its body, query and credentials is in it.

    Emitted on an event loop for each call: whoever subscribes to it does not block. `at` is Unix time; times are in
    seconds; `status` is the answer's, None where its caller went away before one; `refusal` says why it was refused.
    """

    call: str
    at: float
    pool: str
    method: str
    path: str
    model: str
    user: str
    actor: str
    account: str
    status: int | None
    outcome: str
    attempts: int
    waited: float
    seconds: float
    overhead: float
    first_byte: float | None
    is_stream: bool
    cost: Mapping[str, int]
    actual: Mapping[str, int]
    refusal: Mapping[str, Any] = field(default_factory=dict)
    trace: str = ""
    """The trace id of the caller's `traceparent`; empty where there is none."""


@dataclass(frozen=True, slots=True)
class CallRejected(Event):
    """A request to the gateway was not even a call: no key, no such pool, a bad address. `pool`: where it is known."""

    pool: str
    slug: str


@dataclass(frozen=True, slots=True)
class JobChanged(Event):
    """A job went to another status."""

    job: str
    queue: str
    type: str
    status: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class JobDied(Event):
    """A job was given up and is a dead letter now."""

    job: str
    queue: str
    type: str
    letter: str
    category: str
    severity: str


@dataclass(frozen=True, slots=True)
class QueueChanged(Event):
    """A queue was paused, resumed or drained, by an operator or by a threshold."""

    queue: str
    state: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class LeaderChanged(Event):
    """Another dispatcher leads."""

    holder: str
    token: int


@dataclass(frozen=True, slots=True)
class AlertRaised(Event):
    """Something has gone wrong, or has become worse; `subject` says what it is about."""

    alert: str
    kind: str
    subject: str
    severity: str
    summary: str
    count: int


@dataclass(frozen=True, slots=True)
class AlertResolved(Event):
    """What was wrong is over, by itself or because an operator said so."""

    alert: str
    kind: str
    subject: str
    severity: str
    summary: str
    count: int


@dataclass(frozen=True, slots=True)
class ProcessStarted(Event):
    """A process of ours begins its work, so that what belongs beside it can begin. `leads`: whether it leads now."""

    role: str
    leads: Callable[[], bool]


# How the product's own parts run. The log subscriber writes them; nothing else follows from them.


@dataclass(frozen=True, slots=True)
class ServiceUnavailable(Event):
    """SQL or Redis did not answer `component` while it did `what`; it is tried again."""

    component: str
    what: str
    error: str


@dataclass(frozen=True, slots=True)
class LoginThrottled(Event):
    """Too many failed logins came from `address` or for one name; `limit` says which. `retry_after` is in seconds."""

    limit: str
    address: str
    retry_after: int


@dataclass(frozen=True, slots=True)
class LeadershipEnded(Event):
    """A dispatcher found that another one leads."""

    holder: str


@dataclass(frozen=True, slots=True)
class JobUnresolvable(Event):
    """A ready job needs a pool or a project that was removed."""

    job: str
    missing: str


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """A worker process takes jobs now."""

    worker: str
    lane: str
    slots: int


@dataclass(frozen=True, slots=True)
class WorkerRecycling(Event):
    """A worker takes no more jobs and will stop, to be replaced; `why`: jobs, memory or a stuck thread."""

    worker: str
    why: str


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    """A worker process has stopped."""

    worker: str


@dataclass(frozen=True, slots=True)
class JobsRequeued(Event):
    """A worker that stops returned the jobs that it could not finish."""

    worker: str
    jobs: int


@dataclass(frozen=True, slots=True)
class ThreadStuck(Event):
    """No interrupt ended a job's thread; its delivery ended without it."""

    job: str
    type: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CapacityExhausted(Event):
    """The system could start no thread or no process for a job; another worker gets it."""

    job: str
    what: str
    error: str


@dataclass(frozen=True, slots=True)
class ClaimsExpired(Event):
    """Workers were lost, and their jobs taken from them."""

    jobs: int


@dataclass(frozen=True, slots=True)
class ParcelsRecovered(Event):
    """Jobs whose parcels were on no belt were released again."""

    jobs: int


@dataclass(frozen=True, slots=True)
class ParcelsRemoved(Event):
    """Parcels that lost workers had taken were removed from Redis."""

    parcels: int


@dataclass(frozen=True, slots=True)
class JobsPruned(Event):
    """Retention deleted ended jobs."""

    jobs: int


@dataclass(frozen=True, slots=True)
class DeadlockRetried(Event):
    """The database ended a transaction to resolve a deadlock; it is repeated."""

    act: str
    attempt: int


@dataclass(frozen=True, slots=True)
class CallbackGivenUp(Event):
    """A callback was not delivered at any of its tries."""

    callback: str
    error: str


@dataclass(frozen=True, slots=True)
class RecurringJobRefused(Event):
    """A recurring job could not be submitted at its time."""

    name: str
    error: str


@dataclass(frozen=True, slots=True)
class NoticeFailed(Event):
    """An alert's notice was not delivered at this try."""

    rule: str
    notice: str
    error: str
    tries: int


@dataclass(frozen=True, slots=True)
class NoticeGivenUp(Event):
    """An alert's notice was not delivered at any of its tries."""

    rule: str
    notice: str
    error: str


@dataclass(frozen=True, slots=True)
class StreamEventsDropped(Event):
    """Live events were dropped, since Redis was away for too long."""

    events: int


@dataclass(frozen=True, slots=True)
class SettlementLost(Event):
    """A reservation or lease could not be settled in time; what was reserved counts."""

    what: str


@dataclass(frozen=True, slots=True)
class AccountActionIncomplete(Event):
    """An action on an account is in SQL, but not in Redis; `what`: what has to be done by hand."""

    account: str
    what: str
    error: str


@dataclass(frozen=True, slots=True)
class RedisStateRestored(Event):
    """Redis had lost its memory; accounts' states and the use of calendar quotas were restored from SQL."""

    accounts: int
    calendars: int


@dataclass(frozen=True, slots=True)
class PoolHealthMeasured(Event):
    """A pool's accounts by state, as words, and its lowest health score."""

    pool: str
    states: str
    lowest: float


Subscriber = Callable[[Any], None]
_subscribers: list[tuple[type[Event], Subscriber]] = []
_by_type: dict[type[Event], tuple[Subscriber, ...]] = {}
"""Who takes events of a type, worked out at the first of them."""
_finishers: list[Callable[[], object]] = []


def subscribe(kind: type[Event], subscriber: Subscriber) -> None:
    """Call `subscriber` with each event of `kind` or a kind of it; the same pair is kept once."""
    if (kind, subscriber) not in _subscribers:
        _subscribers.append((kind, subscriber))
        _by_type.clear()


def unsubscribe(kind: type[Event], subscriber: Subscriber) -> None:
    """End a subscription. Raises ValueError where there is none."""
    _subscribers.remove((kind, subscriber))
    _by_type.clear()


def emit(event: Event) -> None:
    """Hand `event` to all who subscribed. What a subscriber raises goes to the emitter."""
    found = _by_type.get(type(event))
    if found is None:
        found = tuple(subscriber for kind, subscriber in _subscribers if isinstance(event, kind))
        _by_type[type(event)] = found
    for subscriber in found:
        subscriber(event)


def emit_all(events: Iterable[Event]) -> None:
    """`emit` each of them, in order."""
    for event in events:
        emit(event)


def before_exit(finish: Callable[[], object]) -> None:
    """Have `finish` called by `finish_all`: for subscribers that collect events and hand them on later."""
    if finish not in _finishers:
        _finishers.append(finish)


def finish_all() -> None:
    """Let the subscribers hand on what they have collected. For processes that end without an interpreter's exit."""
    for finish in _finishers:
        finish()
