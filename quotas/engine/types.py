"""The engine's vocabulary: value objects that every other module speaks in.

Nothing here imports anything of ours but other value objects. Times are seconds (float) from the server's own clock, or durations in
seconds; costs and limits are whole numbers from 0 to 2**53 - 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from quotas.engine.frozen import quickly_made
from quotas.engine.learned import LearnedQuota

Mode = Literal["enforce", "shadow"]
ALGORITHMS: tuple[str, ...] = (
    "sliding_window",
    "sliding_window_counter",
    "token_bucket",
    "fixed_window",
    "calendar",
    "concurrency",
)
SCOPE_ORDER: tuple[str, ...] = ("ip", "user", "project", "endpoint", "queue", "custom", "global", "account")


@dataclass(frozen=True, slots=True)
class Limit:
    """One policy, resolved against one subject and one cost: all that a script needs to decide.

    `id` names the policy in keys and never changes; `generation` goes up when its counters must start anew
    (an algorithm, window or period was changed). `subject` is reported verbatim as `key` and only its hash is
    part of a Redis key. `partition` keeps counters apart that share a subject (the project's slug for the scopes
    user, project and endpoint; empty for ip, global and account).
    """

    id: str
    name: str
    scope: str
    subject: str
    algorithm: str
    limit: int | None
    unit: str = "requests"
    cost: int = 1
    partition: str = ""
    window: float = 0.0
    """Seconds; for `token_bucket`, `limit` per `window` is the refill."""
    burst: int | None = None
    """Capacity of a `token_bucket`; None means `limit`."""
    period: str = ""
    timezone: str = "UTC"
    mode: str = "enforce"
    on_redis_down: str = "fail_closed"
    generation: int = 0
    lease_ttl: float = 60.0
    """Seconds that a `concurrency` slot lives without being settled."""
    space: str = ""
    """Keeps counters of the same partition and subject apart: that of the partition's present owner."""
    packed: Any = field(default=None, init=False, repr=False, compare=False)
    """What the limiter sends of it, after the first use (`PackedLimit`)."""


@dataclass(frozen=True, slots=True)
class LimitState:
    """The decision of one limit, or its present state."""

    policy: str
    scope: str
    key: str
    unit: str
    algorithm: str
    limit: int | None
    remaining: int | None
    """What is left after this check; on denial what is left now; None where there is no limit."""
    reset_after: float
    """Seconds until the limit is whole again if nothing more is used."""
    mode: str
    allowed: bool
    retry_after: float | None = 0.0
    """Seconds until this cost would pass; 0 when it passes now; None when never."""
    used: int = 0
    partition: str = ""
    window: float = 0.0
    """Effective window in seconds, for the `RateLimit-Policy` field; 0 where there is none."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one check. Truthy when allowed."""

    allowed: bool
    limits: tuple[LimitState, ...] = ()
    retry_after: float | None = 0.0
    binding: str | None = None
    degraded: bool = False
    bypassed: bool = False
    reservation: str | None = None
    impossible: bool = False
    """True when the cost exceeds a capacity, so that no wait would ever help (422)."""
    replayed: bool = False
    """True when an idempotency token was already answered: nothing was charged this time."""

    def __bool__(self) -> bool:
        return self.allowed


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a settled reservation came to: units refunded (positive) or charged in addition (negative)."""

    reservation: str
    actual: Mapping[str, int]
    refunded: Mapping[str, int]
    repeated: bool = False
    limits: tuple[str, ...] = ()
    """Ids of the limits that the reservation was charged by; empty where it was settled before."""


@dataclass(frozen=True, slots=True)
class BreakerSpec:
    """Thresholds of an account's circuit breaker: opens at `failures` within `window` seconds for `open_for`."""

    failures: int = 5
    window: float = 60.0
    open_for: float = 60.0
    probes: int = 1


@dataclass(frozen=True, slots=True)
class ConcurrencySpec:
    """In-flight calls per account: where it starts and the bounds between which it adapts."""

    initial: int
    floor: int
    ceiling: int


@dataclass(frozen=True, slots=True)
class AccountSpec:
    """One API account as the engine sees it: no credential, ever."""

    id: str
    name: str
    weight: int = 1
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool as configured. `limits` are templates, counted for each account by itself.

    A template of scope `account` counts all of an account's calls. One of scope `custom` counts an account's calls
    for each key (a chat) by itself; its `subject` names the keys that it applies to as comma-separated shell patterns
    (`-*,@*`; empty: all).
    """

    id: str
    name: str
    dialect: str = "generic"
    strategy: str = "round_robin"
    accounts: tuple[AccountSpec, ...] = ()
    limits: tuple[Limit, ...] = ()
    concurrency: ConcurrencySpec | None = None
    breaker: BreakerSpec = field(default_factory=BreakerSpec)
    cooldown_default: float = 60.0
    cooldown_max: float = 3600.0
    pause_at: float | None = 0.8
    pause: str = "low"
    paused: bool = False
    sticky: bool = False
    fallback: tuple[str, ...] = ()
    lease_ttl: float = 60.0
    """Seconds a lease lives without being settled: the provider's timeout and a margin."""


@quickly_made
@dataclass(frozen=True, slots=True)
class AdmitRequest:
    """One admission for both sides: the caller's limits and, where `pool` is given, one of its accounts."""

    limits: Sequence[Limit] = ()
    pool: PoolSpec | None = None
    cost: Mapping[str, int] = field(default_factory=dict)
    """Units to charge to the account: `requests` counts 1 unless given."""
    priority: int = 5
    key: str = ""
    """The sticky or per-key subject (a chat, a conversation)."""
    token: str = ""
    """Idempotency token: the same token is never charged twice while its lease lives."""
    fallbacks: Sequence[PoolSpec] = ()
    """Pools to try in this order when `pool` has no account for the call."""
    model: str = ""
    """The provider's model or resource that is requested: neither a refusal nor a quota of one model blocks another."""
    without: str = ""
    """The id of an account that has refused this request: another one is taken, as long as one is not disabled."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to an `AdmitRequest`: a lease, or the exact earliest time. Truthy when admitted."""

    allowed: bool
    lease: str | None = None
    account_id: str | None = None
    account: str | None = None
    expires_in: float = 0.0
    reservation: str | None = None
    """Set when caller's limits were charged that must be settled."""
    reserved: tuple[bytes, ...] = field(default=(), compare=False, repr=False)
    """The counters of the reservation, in order: a caller that settles with them saves a round trip."""
    retry_after: float | None = 0.0
    """Seconds until it would pass; None when waiting does not help."""
    bound_by: Literal["", "limit", "pool"] = ""
    binding: str | None = None
    """The policy's or pool's name."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """For a pool: how many accounts were passed over for each reason (`cooldown`, `breaker_open`, `requests`, ...)."""
    impossible: bool = False
    disabled: bool = False
    limits: tuple[LimitState, ...] = ()
    pool: str | None = None
    """The name of the pool that the account belongs to: one of the fallbacks' where the first had none."""
    probe: bool = False
    """True when this call decides whether a half-open breaker closes."""
    half_opened: bool = False
    """True for the first probe since the breaker half-opened (or since all earlier ones were lost)."""
    replayed: bool = False
    """True when the request's token was admitted before: the same lease, nothing was charged this time."""

    def __bool__(self) -> bool:
        return self.allowed


@quickly_made
@dataclass(frozen=True, slots=True)
class CallOutcome:
    """How a call through a lease ended, as far as the account is concerned."""

    category: str = "ok"
    """A `Category` by its name."""
    status: int | None = None
    latency: float | None = None
    retry_after: float | None = None
    """The provider's own hint in seconds, None where it gave none."""
    scope: Literal["account", "key", "pool", "model"] = "account"
    """The smallest thing that the dialect can prove to be limited."""
    usage: Mapping[str, int] = field(default_factory=dict)
    """Actual use by unit, where known."""
    learned: Mapping[str, LearnedQuota] = field(default_factory=dict)
    """Quotas that the answer states, by unit."""
    error: str = ""
    """A short redacted message."""
    rate_limit_fields: Mapping[str, str] = field(default_factory=dict)
    """The header fields about limits, redacted: to be shown, not to be decided by."""
    resource: str | None = None
    """What `learned`, and a refusal of scope `model`, belong to. None: the account as a whole; empty: the model that
    the call's lease was acquired for; else the resource or model that the answer itself names (GitHub's `search`),
    which outranks the lease's."""
    certain: bool = False
    """For category `auth`: the dialect names the account's credential as refused (a wrong, revoked or expired key, a
    suspended account), so that any other request of this account would be refused as well. False where the refusal
    may be about the request (a permission, an organization, a path that needs another kind of token)."""
    target: str = ""
    """Method and path of the request, where known: the same one refused to several accounts is no fault of theirs."""
    request: str = ""
    """Identifies the request with all of its attempts (a job's id); empty: the lease alone."""

    @property
    def refuses_account(self) -> bool:
        """Whether the provider refused the account's credential, and not only the request."""
        return self.category == "auth" and self.scope != "key"


@quickly_made
@dataclass(frozen=True, slots=True)
class Settled:
    """What settling a lease did."""

    lease: str
    outcome: str
    cooldown: float = 0.0
    learned: Mapping[str, LearnedQuota] = field(default_factory=dict)
    repeated: bool = False
    transition: str = ""
    """`opened`, `closed`, `half_open`, `disabled`, `pool_limited` or empty."""
    account_id: str = ""
    concurrency: tuple[int, int] | None = None
    """Where the account's adaptive concurrency moved: from, to."""
    concurrency_why: str = ""
    """Why it moved, in words."""
    probe: bool = False
    """True when the call was a probe."""
