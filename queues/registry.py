"""The registered job types, by name: which payload each takes, and how its jobs are run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from queues.errors import FieldError
from quotas.engine.types import CallOutcome

if TYPE_CHECKING:
    from quotas.upstream.endpoint import AccountEndpoint


@dataclass(slots=True)
class JobContext:
    """What a running job knows about itself: the first argument of every job type."""

    id: str
    project: str
    queue: str
    user: str
    keys: Mapping[str, str]
    attempt: int
    """Number of this attempt, from 1. It is not reset by a replay."""
    max_attempts: int
    timeout: float
    """Seconds."""
    idempotency_key: str
    """To be sent with calls to a provider, so that it can recognise a repeated delivery of the same request."""
    lease: AccountEndpoint | None = None
    """The account that the job was admitted on (`base_url`, `auth_headers`, `timeout`); None if it needs no pool."""
    actual: dict[str, int] = field(default_factory=dict)
    """Set by the job if it knows its actual use: units that replace the estimate."""

    def __copy__(self) -> JobContext:
        """What `copy` makes, in a fifth of its time: each run gets one."""
        return JobContext(
            self.id, self.project, self.queue, self.user, self.keys, self.attempt, self.max_attempts, self.timeout,
            self.idempotency_key, self.lease, self.actual,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunResult:
    """How an attempt ended. `category` is empty on success; `retry_after` in seconds is the server's own hint.

    `counted` is False if the attempt met a limit or a dead account, so that it is no failure of the job.
    """

    outcome: str
    result: Any = None
    category: str = ""
    error: str = ""
    traceback: str = ""
    status: int | None = None
    retry_after: float | None = None
    counted: bool = True
    upstream: CallOutcome | None = None
    """How the call to the account's provider went; None if no account was used."""
    actual: Mapping[str, int] = field(default_factory=dict)
    returned: bool = False
    """It was not started, since this worker can't run it; another one may."""
    no_slot: bool = False
    """With `returned`: nothing but a free slot is missing."""
    final: bool = False
    """No retry helps, whatever the policy says."""


class JobType(Protocol):
    """One kind of job. Inherit from it for the defaults."""

    name: str
    queue: str | None = None
    """The queue of jobs that name none."""
    needs_pool: bool = False
    """Whether its jobs can't run without an account of a pool."""
    trusted: bool = False
    """Whether no user's code runs in it. A trusted job is not suspected at once when its worker is lost."""
    delivery: str = "at_least_once"
    """The delivery mode of jobs that name none: `at_least_once` or `at_most_once`."""
    redact: Collection[str] = ()
    """Members of the payload that no page shows."""
    settle: str | None = None
    """When a job's end is written: `in_groups`, while the next job runs in its slot, or `before_next`. None: in groups
    for jobs that run at least once, before the next for those that run at most once."""

    def validate(self, payload: Mapping[str, Any], pointer: str) -> list[FieldError]:
        """What is wrong with a payload, before it is accepted."""
        return []

    def pool(self, payload: Mapping[str, Any]) -> str | None:
        """The pool whose account the job needs; None: its queue's, if that has one."""
        return None

    def model(self, payload: Mapping[str, Any], pool: str | None = None) -> str:
        """The provider's model that the job uses through this pool; empty if it names none."""
        return ""

    def cost(self, payload: Mapping[str, Any]) -> Mapping[str, int]:
        """Estimated units of a job whose caller named no cost."""
        return {}

    def complete_cost(self, payload: Mapping[str, Any], pool: str | None, cost: Mapping[str, int]) -> dict[str, int]:
        """`cost` with the units that only the type can estimate, such as the tokens of a prompt sent through this pool."""
        return dict(cost)

    def run(self, job: JobContext, payload: Mapping[str, Any]) -> RunResult:
        """Run the job in a thread or a process of its own. What it raises becomes a failed attempt."""
        raise NotImplementedError

    def is_async(self, payload: Mapping[str, Any]) -> bool:
        """Whether a worker with an event loop is to call `run_async` there, instead of `run` in a thread."""
        return False

    async def run_async(self, job: JobContext, payload: Mapping[str, Any]) -> RunResult:
        """Run the job in an event loop that other jobs share."""
        missing = f"The job type {self.name} says that it is async, and has no run_async."
        raise NotImplementedError(missing)  # by a variable: a type checker would take the method for abstract


SETTLE = ("in_groups", "before_next")
_MEMBERS = (
    "name", "queue", "needs_pool", "trusted", "delivery", "redact", "settle",
    "validate", "pool", "model", "cost", "complete_cost", "run", "is_async", "run_async",
)  # fmt: skip
_types: dict[str, JobType] = {}


def register(job_type: JobType) -> None:
    """Add a job type; a type of the same name is replaced (a reloaded module). Raises TypeError if it is incomplete."""
    missing = [member for member in _MEMBERS if not hasattr(job_type, member)]
    if missing:
        raise TypeError(
            f"The job type {job_type!r} lacks {', '.join(missing)}. Inherit from queues.registry.JobType for the defaults."
        )
    if job_type.settle not in (None, *SETTLE):
        raise TypeError(f"settle is {job_type.settle!r}; it must be one of {', '.join(SETTLE)}, or None.")
    _types[job_type.name] = job_type


def unregister(name: str) -> JobType:
    """Remove a type from this process and return it. Raises KeyError if it is not registered."""
    return _types.pop(name)


def registered() -> dict[str, JobType]:
    """A copy of the registered types, by name."""
    return dict(_types)


def restore(types: Mapping[str, JobType]) -> None:
    """Replace all registered types by these: what `registered` returned before."""
    before = dict(types)
    _types.clear()
    _types.update(before)


def get(name: str) -> JobType | None:
    return _types.get(name)


def needs_pool(name: str) -> bool:
    """Whether jobs of the type can't run without an account; False if this process does not know the type."""
    job_type = get(name)
    return job_type is not None and job_type.needs_pool


def is_trusted(name: str) -> bool:
    """Whether no user's code runs in jobs of the type; False if this process does not know the type."""
    job_type = get(name)
    return job_type is not None and job_type.trusted


def is_async(name: str, payload: Mapping[str, Any]) -> bool:
    """Whether such a job runs in the event loop of its worker; False if this process does not know the type."""
    job_type = get(name)
    return job_type is not None and job_type.is_async(payload)


def settles_before_next(name: str, delivery_mode: str) -> bool:
    """Whether the end of such a job is written before another one takes its slot."""
    job_type = get(name)
    asked = None if job_type is None else job_type.settle
    return asked == "before_next" or (asked is None and delivery_mode == "at_most_once")


def redacted_members(name: str) -> Collection[str]:
    """Members of the type's payloads that no page shows; none if this process does not know the type."""
    job_type = get(name)
    return () if job_type is None else job_type.redact


def names() -> list[str]:
    return sorted(_types)


REDACTED = "[redacted]"


def redacted(name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The payload without the members that its type hides. If this process does not know the type, all are hidden."""
    hidden = redacted_members(name) if get(name) is not None else payload.keys()
    return {member: REDACTED if member in hidden else value for member, value in payload.items()}


MAX_LOSSES = 2
"""Lost deliveries after which even a trusted type runs alone."""


def is_suspect(name: str, losses: int) -> bool:
    """Whether a job of this type, which was lost with so many workers, may have caused their end."""
    return not is_trusted(name) or losses >= MAX_LOSSES
