"""What happens while the limiter's server is unavailable: each policy's own answer, never unlimited, never a pile-up.

    hung or gone -> one call pays the timeout (50 to 100 ms) -> the breaker opens: no other call waits for the server
    while open   -> policies that fail open are enforced by this process alone, at limit / processes; as soon as one
                    policy of a check fails closed, the check is refused
    probing      -> one thread at a time writes a key of its own, every `probe_every` seconds; the first success closes

A server that answers with an error (its memory is full, it is loading, it has become a replica) is as away as one that does
not answer. Such a server may answer PING, and even reads: so the probe writes.

Nothing is repeated: a check that timed out may have been charged, so it is answered like any other check in an outage.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from quotas.engine.errors import LimiterUnavailable, NotAsked
from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.reference import ReferenceLimiter
from quotas.engine.limits.requests import CheckRequest
from quotas.engine.redis.transport import Transport
from quotas.engine.types import Decision, Limit, LimitState, Settlement

T = TypeVar("T")
Event = Callable[[str, str], None]
"""Called with `unavailable` or `recovered`, and why. Called once per change, by the thread that noticed it."""


class ServerBreaker:
    """Whether to call the server. Open after the first failure, closed again by the first answered probe."""

    def __init__(
        self, probe: Callable[[], object], *, probe_every: float = 0.25, on_event: Event | None = None
    ) -> None:
        self._probe = probe
        self._probe_every = probe_every
        self._on_event = on_event or (lambda kind, why: None)
        self._lock = threading.Lock()
        self._probing = threading.Lock()
        self._open = False
        self._opened_at = 0.0
        self._next_probe = 0.0

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def is_probe_due(self) -> bool:
        """Whether `allows` would call the server, and so may block."""
        return time.monotonic() >= self._next_probe and not self._probing.locked()

    def seconds_open(self) -> float:
        """For how long the server has not answered; 0 while it does."""
        return time.monotonic() - self._opened_at if self._open else 0.0

    def allows(self) -> bool:
        """True when the server may be called; while open, one caller at a time finds out whether it is back."""
        if not self._open:
            return True
        if time.monotonic() < self._next_probe or not self._probing.acquire(blocking=False):
            return False
        try:
            self._probe()
        except LimiterUnavailable:
            self._next_probe = time.monotonic() + self._probe_every
            return False
        else:
            self._change(False, "the server answers again")
            return True
        finally:
            self._probing.release()

    def failed(self, why: str) -> None:
        """The server did not answer."""
        self._next_probe = time.monotonic() + self._probe_every
        self._change(True, why)

    def _change(self, opened: bool, why: str) -> None:
        with self._lock:
            if self._open == opened:
                return
            self._open = opened
            self._opened_at = time.monotonic()
        self._on_event("unavailable" if opened else "recovered", why)


class ResilientLimiter:
    """A Limiter that answers when its server can't. Same methods, same shapes; `degraded` says which decisions.

    `processes` returns how many processes share the limits: each one enforces its share alone during an outage. The
    wrapped limiter should have a timeout of 0.05 to 0.1 s.
    """

    def __init__(
        self,
        limiter: Limiter,
        *,
        processes: Callable[[], int] = lambda: 1,
        probe_every: float = 0.25,
        on_event: Event | None = None,
        local: ReferenceLimiter | None = None,
    ) -> None:
        self.limiter = limiter
        self.local = local or ReferenceLimiter()
        self._processes = processes
        self.breaker = ServerBreaker(
            lambda: limiter.transport.command("SET", limiter.keys.key("probe"), "1", "PX", "1000"),
            probe_every=probe_every,
            on_event=on_event,
        )

    def check(
        self,
        limits: Sequence[Limit],
        *,
        dry_run: bool = False,
        bypass: bool = False,
        token: str = "",
        token_body: str = "",
        reserve: bool | None = None,
    ) -> Decision:
        """As Limiter.check. Raises LimiterUnavailable in an outage if one of the limits fails closed."""
        asks = self.breaker.allows()
        if asks:
            try:
                return self.limiter.check(
                    limits, dry_run=dry_run, bypass=bypass, token=token, token_body=token_body, reserve=reserve
                )
            except LimiterUnavailable as error:
                self.breaker.failed(str(error))
        return self._locally(CheckRequest(limits, dry_run, bypass, token, token_body, reserve), was_asked=asks)

    def check_many(self, requests: Iterable[CheckRequest]) -> list[Decision | LimiterUnavailable]:
        """As Limiter.check_many; in an outage, those that fail closed are answered with the exception itself."""
        asked = list(requests)
        asks = self.breaker.allows()
        if asks:
            try:
                return list(self.limiter.check_many(asked))
            except LimiterUnavailable as error:
                self.breaker.failed(str(error))
        answers: list[Decision | LimiterUnavailable] = []
        for request in asked:
            try:
                answers.append(self._locally(request, was_asked=asks))
            except LimiterUnavailable as error:
                answers.append(error)
        return answers

    def unanswered(self, request: CheckRequest, why: str) -> Decision:
        """The decision without the server, for a caller whose own request to it failed. Raises as `check` does."""
        self.breaker.failed(why)
        return self._locally(request, was_asked=True)

    def _locally(self, request: CheckRequest, *, was_asked: bool) -> Decision:
        """Check the request against this process's share of its limits. `was_asked`: whether the server may have run it."""
        closed = [
            limit.name
            for limit in request.limits
            if limit.on_redis_down != "fail_open" and limit.mode != "shadow" and limit.limit is not None
        ]
        if closed and not request.bypass:
            raise (LimiterUnavailable if was_asked else NotAsked)(", ".join(closed))
        share = max(1, self._processes())
        decision = self.local.check(
            [self._share(limit, share) for limit in request.limits],
            dry_run=request.dry_run,
            bypass=request.bypass,
            token=request.token,
            token_body=request.token_body,
            reserve=request.reserve,
        )
        return replace(decision, degraded=True)

    @staticmethod
    def _share(limit: Limit, processes: int) -> Limit:
        """The limit divided among the processes, rounded down but at least 1: never more than the policy's own."""
        if not limit.limit or processes == 1:
            return limit
        burst = limit.burst if limit.burst is None else max(1, limit.burst // processes)
        return replace(limit, limit=max(1, limit.limit // processes), burst=burst)

    def settle(self, reservation: str, actual: Mapping[str, int] | None = None) -> Settlement | None:
        """As Limiter.settle; reservations that were made during an outage are settled where they were made."""
        settled = self.local.settle(reservation, actual)
        if settled is not None:
            return settled
        return self._asked(lambda: self.limiter.settle(reservation, actual))

    def charged(self, limits: Sequence[Limit], token: str) -> Decision | None:
        """As Limiter.charged."""
        return self._asked(lambda: self.limiter.charged(limits, token))

    def units_of(self, reservation: str) -> frozenset[str]:
        """As Limiter.units_of."""
        return self._asked(lambda: self.limiter.units_of(reservation))

    def peek(self, limits: Sequence[Limit]) -> tuple[LimitState, ...]:
        """As Limiter.peek; during an outage, this process's own counters where the limits fail open."""
        return self.check(limits, dry_run=True).limits

    def usage(
        self, templates: Iterable[Limit], *, space_of: Callable[[str], str] | None = None
    ) -> Iterator[LimitState]:
        """As Limiter.usage."""
        return iter(self._asked(lambda: list(self.limiter.usage(templates, space_of=space_of))))

    def reset(self, limits: Sequence[Limit]) -> int:
        """As Limiter.reset; clears this process's own counters too."""
        self.local.reset(limits)
        return self._asked(lambda: self.limiter.reset(limits))

    def reset_policy(self, limit_id: str) -> int:
        """As Limiter.reset_policy; clears this process's own counters too."""
        self.local.reset_policy(limit_id)
        return self._asked(lambda: self.limiter.reset_policy(limit_id))

    def ask(self, ask: Callable[[Transport], T]) -> T:
        """The result of `ask` with the transport to the server. Raises LimiterUnavailable, at once while the server is unavailable."""
        return self._asked(lambda: ask(self.limiter.transport))

    def _asked(self, ask: Callable[[], T]) -> T:
        if not self.breaker.allows():
            raise NotAsked
        try:
            return ask()
        except LimiterUnavailable as error:
            self.breaker.failed(str(error))
            raise
