"""The life of an admitted call: sent with an account, with another one where that is safe, passed back, settled.

admission -> account -> provider ──> answer passes ──> account and caller are settled by what it used
                ^          │
                └── 429, refused credential, overloaded, not connected, or any failure that is safe to repeat
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import aiohttp
import structlog

from controlplane.gateway import fields
from controlplane.gateway.admission import UNUSED, Admissions, Refused
from controlplane.gateway.call import Call
from controlplane.gateway.refusals import of_admission
from controlplane.gateway.upstream import NotConnected, Unanswered, Upstream, parts_of, read_all
from controlplane.gateway.usage import EventMeter, Meter, meter_of
from controlplane.http.request import Send
from quotas.engine import dialects
from quotas.engine.dialects.redaction import without
from quotas.engine.types import Admission, CallOutcome, Decision
from quotas.models.encrypted import CredentialUnreadable
from quotas.rest import decisions
from quotas.rest.problems import ProblemError
from quotas.snapshot.config import ConfigSnapshot
from quotas.snapshot.pools import PoolConfig
from quotas.upstream.endpoint import Endpoint

log = structlog.get_logger(__name__)
MAX_ERROR = 1024 * 1024
"""Bytes of an error answer: such an answer is read whole, so that no credential in it is passed on."""
_ALWAYS = frozenset({429, 503, 529})
"""Statuses of calls that the provider did not execute."""
_TURNED_AWAY = frozenset({"rate_limited", "quota_exhausted", "auth"})


class Broken(Exception):
    """The answer broke off after its beginning was passed on: the caller's connection must not end properly."""


@dataclass(slots=True)
class Try:
    """One account's turn."""

    admission: Admission
    config: PoolConfig
    endpoint: Endpoint
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began


@dataclass(slots=True)
class Failure:
    """A try that another account may make up for. `answer`: what is passed on where none does."""

    outcome: CallOutcome
    answer: tuple[aiohttp.ClientResponse, bytes] | None = None
    problem: ProblemError | None = None
    waits: bool = False
    """Whether the same account may be asked again when its cooldown is over."""


class Exchange:
    """One call, from its admission to its settlement."""

    def __init__(
        self, call: Call, held: ConfigSnapshot, admissions: Admissions, upstream: Upstream, began: float
    ) -> None:
        self._call, self._held = call, held
        self._admissions, self._upstream = admissions, upstream
        self._began = began
        self._deadline = time.monotonic() + call.wishes.wait
        self._attempts = 0
        self._waited = 0.0
        self._provider = 0.0
        self._first: Admission | None = None
        self._tried: set[str] = set()
        self.started = False
        """Whether the answer's head was sent."""

    async def run(self, send: Send) -> None:
        """Raises a problem for a refusal, and `Broken`. Cancelled, it settles by what was seen."""
        asked = time.perf_counter()
        try:
            admission = await self._admissions.first(self._call, self._held)
        except Refused as refused:
            raise self._refusal(refused.admission) from None
        if self._call.wishes.wait:
            self._waited = time.perf_counter() - asked
        self._first = admission
        last = CallOutcome("unknown")
        actual: Mapping[str, int] = {}
        try:
            while True:
                turn = self._turn(admission)
                failure, last, actual = await self._attempt(turn, send)
                if failure is None:
                    return
                found = await self._next(failure, turn)
                if found is None:
                    await self._pass_failure(failure, turn, send)
                    return
                admission = found
        finally:
            if self._first.reservation:
                self._admissions.background(
                    self._admissions.close(self._first.reservation, self._used(last, actual), last)
                )

    # -- one try -------------------------------------------------------------------------------------------------

    def _turn(self, admission: Admission) -> Try:
        name = admission.pool or self._call.pool.spec.name
        config = self._held.pools.get(name, self._call.pool)
        self._attempts += 1
        self._tried.add(admission.account_id or "")
        return Try(admission, config, Endpoint(config, admission.account_id or "", admission.account or ""))

    async def _attempt(self, turn: Try, send: Send) -> tuple[Failure | None, CallOutcome, Mapping[str, int]]:
        """Send the call once. None in the place of a failure: the answer was passed on."""
        meter: Meter | None = None
        response: aiohttp.ClientResponse | None = None
        outcome = CallOutcome("unknown")  # what a cancelled call leaves behind
        is_whole = False
        try:
            try:
                response = await self._upstream.send(self._call, turn.endpoint)
            except NotConnected:
                outcome = dialects.failed("network", latency=turn.seconds)
                return Failure(outcome, problem=_unreachable()), outcome, {}
            except Unanswered as error:
                outcome = dialects.failed(error.word, latency=turn.seconds)
                failure = Failure(outcome, problem=_unanswered(error.word))
                if self._call.may_repeat or turn.config.repeat_unsafe:
                    return failure, outcome, {}
                assert failure.problem is not None
                raise failure.problem from None
            except CredentialUnreadable:
                outcome = UNUSED
                raise ProblemError(
                    "credential-unreadable",
                    "Credential unreadable",
                    503,
                    "The account's credential can't be decrypted.",
                ) from None
            self._provider += turn.seconds
            if response.status >= 400:
                try:
                    body = await read_all(response, MAX_ERROR)
                except Unanswered as error:
                    outcome = self._read(turn, response, b"", b"")
                    raise _unanswered(error.word) from None
                outcome = self._read(turn, response, body, b"")
                answer = Failure(outcome, (response, body), waits=outcome.category in _TURNED_AWAY)
                if not self._is_elsewhere(response.status, outcome, turn.config):
                    await self._pass_failure(answer, turn, send)
                    return None, outcome, dict(outcome.usage)
                return answer, outcome, {}
            meter = meter_of(response.headers.get("content-type", ""), hide=self._call.hides_usage)
            try:
                await self._pass(response, meter, turn, send)
                is_whole = True
            except Unanswered as error:
                outcome = dialects.failed(error.word, latency=turn.seconds)
                raise Broken from None
            finally:
                read = self._read(turn, response, *meter.seen())
                seen = self._seen(read, meter, is_whole=is_whole)
                outcome = replace(read if is_whole or outcome.category == "unknown" else outcome, usage=seen)
            return None, outcome, seen
        finally:
            if response is not None and not is_whole:
                response.close()
            lease = turn.admission.lease
            if lease is not None:
                settling = self._admissions.background(
                    self._admissions.settle(lease, outcome, turn.admission.expires_in)
                )
                if response is None or response.status >= 400:
                    await asyncio.shield(settling)  # the account cools down before another one is chosen

    def _read(self, turn: Try, response: aiohttp.ClientResponse, head: bytes, tail: bytes) -> CallOutcome:
        provider = turn.config.provider
        outcome = dialects.read(
            provider.dialect, response.status, list(response.headers.items()), head, settings=provider.settings,
            secrets=[turn.endpoint.credential], latency=turn.seconds, tail=tail,
        )  # fmt: skip
        return replace(outcome, target=f"{self._call.method} {self._call.target.path}", request=self._call.id)

    def _seen(self, read: CallOutcome, meter: Meter, *, is_whole: bool) -> dict[str, int]:
        """The use that an answer reports; where it ended early without one, the prompt and a token for each event."""
        usage = dict(read.usage)
        if not is_whole and "tokens" not in usage and "tokens" in self._call.cost and isinstance(meter, EventMeter):
            usage["tokens"] = self._call.prompt_tokens + meter.events
        return usage

    # -- another account -----------------------------------------------------------------------------------------

    def _is_elsewhere(self, status: int, outcome: CallOutcome, config: PoolConfig) -> bool:
        """Whether another account may do what this one answered with an error."""
        if not self._call.body.is_whole:
            return False
        if status in _ALWAYS or outcome.category in ("rate_limited", "quota_exhausted") or outcome.refuses_account:
            return True
        return status >= 500 and (self._call.may_repeat or config.repeat_unsafe)

    async def _next(self, failure: Failure, turn: Try) -> Admission | None:
        """Another account; None where the failure stands. Raises a problem where only waiting would help."""
        call = self._call
        if self._attempts >= call.pool.tries or not call.body.is_whole:
            return None
        left = max(0.0, self._deadline - time.monotonic()) if call.wishes.wait else 0.0
        asked = time.perf_counter()
        try:
            found = await self._admissions.another(call, self._held, turn.admission.account_id or "", left)
        except Refused as refused:
            if failure.waits:
                raise self._refusal(refused.admission) from None
            return None
        if left:
            self._waited += time.perf_counter() - asked
        if found.account_id in self._tried and not failure.waits:
            await self._admissions.give_back(found, {})
            return None
        return found

    def _refusal(self, admission: Admission) -> ProblemError:
        return of_admission(admission, self._call.target.pool, self._call.project)

    def _used(self, outcome: CallOutcome, actual: Mapping[str, int]) -> dict[str, int]:
        """What the caller is charged: nothing for a call that no account did, the request alone for a refused one."""
        units = self._call.cost
        if outcome.category in ("rate_limited", "quota_exhausted", "auth") or outcome == UNUSED:
            return dict.fromkeys([*units, "requests"], 0)
        if outcome.category == "validation":
            return {**dict.fromkeys(units.keys() - {"requests"}, 0), **actual}
        return dict(actual)

    # -- the answer ----------------------------------------------------------------------------------------------

    async def _pass(self, response: aiohttp.ClientResponse, meter: Meter, turn: Try, send: Send) -> None:
        """Pass the answer on as it comes. `send` waits while the caller is slow, and nothing is read meanwhile."""
        length = response.headers.get("content-length", "")
        headers = self._headers(response, turn)
        if length.isdigit() and not self._call.hides_usage:
            headers.append((b"content-length", length.encode()))
        await self._start(send, response.status, headers)
        async for part in parts_of(response):
            if passed := meter.feed(part):
                await send({"type": "http.response.body", "body": passed, "more_body": True})
        await send({"type": "http.response.body", "body": meter.end(), "more_body": False})

    async def _pass_failure(self, failure: Failure, turn: Try, send: Send) -> None:
        if failure.answer is None:
            assert failure.problem is not None
            raise failure.problem
        response, body = failure.answer
        text = without(body.decode("latin-1"), [turn.endpoint.credential]).encode("latin-1")
        headers = self._headers(response, turn)
        if self._call.method == "HEAD":
            headers.append((b"content-length", response.headers.get("content-length", "0").encode()))
        else:
            headers.append((b"content-length", b"%d" % len(text)))
        await self._start(send, response.status, headers)
        await send({"type": "http.response.body", "body": text, "more_body": False})

    async def _start(self, send: Send, status: int, headers: fields.Pairs) -> None:
        self.started = True
        await send({"type": "http.response.start", "status": status, "headers": headers})

    def _headers(self, response: aiohttp.ClientResponse, turn: Try) -> fields.Pairs:
        secret = turn.endpoint.credential.encode()
        passed = [
            (name, value)
            for name, value in fields.back(response.raw_headers, limits=turn.config.show_provider_limits)
            if secret not in value
        ]
        overhead = max(0.0, time.perf_counter() - self._began - self._provider - self._waited)
        assert self._first is not None
        decision = Decision(True, limits=self._first.limits)
        own = {
            "sluice-request-id": self._call.id,
            "sluice-account": turn.endpoint.account,
            "sluice-attempts": str(self._attempts),
            "sluice-waited": f"{self._waited:.6f}",
            "sluice-overhead": f"{overhead:.6f}",
            **{
                name.lower(): value
                for name, value in decisions.headers_of(decision).items()
                if name.startswith("RateLimit")
            },
        }
        if self._call.wishes.preferred:
            own["preference-applied"] = self._call.wishes.preferred
        passed = [(name, value) for name, value in passed if name.decode("latin-1") not in own]
        return [*passed, *((name.encode(), value.encode("latin-1", "replace")) for name, value in own.items())]


def _unreachable() -> ProblemError:
    return ProblemError(
        "upstream-unreachable", "Provider unreachable", 502, "No connection to the provider could be made."
    )


def _unanswered(word: str) -> ProblemError:
    if word == "timeout":
        return ProblemError("upstream-timeout", "Provider timed out", 504, "The provider did not answer in time.")
    return ProblemError(
        "upstream-broken", "Provider broke off", 502, "The provider ended the connection without an answer."
    )


async def drained(admissions: Admissions, seconds: float) -> None:
    """Wait for what is still to be settled."""
    if admissions.tasks:
        await asyncio.wait(set(admissions.tasks), timeout=seconds)
