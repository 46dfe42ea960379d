"""The life of an admitted call: sent with an account, with another one where that is safe, passed back, settled.

admission -> account -> provider ──> answer passes ──> account and caller are settled by what it used
                ^          │
                └── 429, refused credential, overloaded, not connected, or any failure that is safe to repeat
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace

import aiohttp

from controlplane.gateway.admission import UNUSED, Admissions, Refused
from controlplane.gateway.answer import AnswerSender
from controlplane.gateway.call import Call
from controlplane.gateway.encodings import Undecodable, decoded
from controlplane.gateway.progress import Progress
from controlplane.gateway.refusals import of_admission
from controlplane.gateway.upstream import NotConnected, Unanswered, Upstream, Way, read_all
from controlplane.gateway.usage import EventMeter, Meter, cached_tokens, meter_of
from controlplane.http.request import Send
from quotas.engine import dialects
from quotas.engine.categories import Category
from quotas.engine.types import Admission, CallOutcome
from quotas.models.encrypted import CredentialUnreadable
from quotas.rest.problems import ProblemError
from quotas.snapshot.config import ConfigSnapshot
from quotas.snapshot.pools import PoolConfig

MAX_ERROR = 1024 * 1024
"""Bytes of an error answer: such an answer is read whole, so that no credential in it is passed on."""
_ALWAYS = frozenset({429, 503, 529})
"""Statuses of calls that the provider did not execute."""


class Broken(Exception):
    """The answer broke off after its beginning was passed on: the caller's connection must not end properly."""


class NotNow(Exception):
    """The call can't be made now, and nothing of it was executed; `problem` says why."""

    def __init__(self, problem: ProblemError) -> None:
        super().__init__(problem.slug)
        self.problem = problem


@dataclass(slots=True)
class Try:
    """One account's turn."""

    admission: Admission
    config: PoolConfig
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began


@dataclass(slots=True)
class Failure:
    """A try that another account may make up for. `answer`: what is passed on where none does."""

    outcome: CallOutcome
    answer: tuple[aiohttp.ClientResponse, bytes, Way] | None = None
    problem: ProblemError | None = None
    waits: bool = False
    """Whether the same account may be called again when its cooldown is over."""
    is_final: bool = False
    """Whether no other account could do better."""


class Exchange:
    """One call, from its admission to its settlement."""

    def __init__(
        self, call: Call, held: ConfigSnapshot, admissions: Admissions, upstream: Upstream, progress: Progress
    ) -> None:
        self._call, self._held = call, held
        self._admissions, self._upstream = admissions, upstream
        self._progress = progress
        self._deadline = time.monotonic() + call.wishes.wait
        self._first: Admission | None = None
        self._tried: set[str] = set()
        self._open: tuple[str, CallOutcome, float] | None = None
        """The last account's lease, where it is still to be settled: its outcome, its life."""
        self._is_ended = False
        self._last = UNUSED
        """How the last try ended; until a provider was reached, the call was not made."""

    async def run(self, send: Send) -> None:
        """Raises `NotNow`, a problem for other refusals, and `Broken`. Cancelled, it settles by what was seen."""
        asked = time.perf_counter()
        try:
            admission = await self._admissions.first(self._call, self._held, self._progress)
        except Refused as refused:
            raise self._refusal(refused.admission) from None
        finally:
            if self._progress.waited_for:  # else it was admitted at once, and its admission is overhead
                self._progress.waited = time.perf_counter() - asked
        self._first = admission
        sender = AnswerSender(self._call, self._progress, admission.limits, send)
        try:
            while True:
                turn = self._turn(admission)
                failure = await self._attempt(turn, sender)
                if failure is None:
                    return
                found = None if failure.is_final else await self._next(failure, turn)
                if found is None:
                    await self._pass_failure(failure, turn, sender)
                    return
                admission = found
        finally:
            self._end()

    def _end(self) -> list[asyncio.Future[None]]:
        """Settle what is still open, once for each call: the last account, and the caller by what was used.

        Both are sent to Redis together, and are settled to the end wherever the call itself is cancelled.
        """
        if self._is_ended or self._first is None:
            return []
        self._is_ended = True
        used = self._used()
        self._progress.actual = {**used, **self._progress.actual}
        admissions, held = self._admissions, self._held
        ending = []
        if self._open is not None:
            ending.append(admissions.background(admissions.settle(*self._open, held)))
        if self._first.reservation:
            ending.append(admissions.background(admissions.close(self._first, used, self._last, held)))
        return ending

    async def _end_first(self, turn: Try) -> None:
        """Settle before the caller has the whole answer, where the call has a slot: its next call must find it free."""
        assert self._first is not None
        has_slot = turn.config.spec.concurrency is not None or any(
            limit.algorithm == "concurrency" for limit in self._first.limits
        )
        ending = self._end() if has_slot else []
        if ending:
            await asyncio.wait(ending)

    # -- one try -------------------------------------------------------------------------------------------------

    def _turn(self, admission: Admission) -> Try:
        name = admission.pool or self._call.pool.spec.name
        config = self._held.pools.get(name, self._call.pool)
        self._progress.attempts += 1
        self._progress.account = admission.account or ""
        self._tried.add(admission.account_id or "")
        return Try(admission, config)

    async def _attempt(self, turn: Try, sender: AnswerSender) -> Failure | None:
        """Send the call once. Returns the failure; None if the answer was passed on."""
        meter: Meter | None = None
        response: aiohttp.ClientResponse | None = None
        outcome = CallOutcome("unknown")  # what a cancelled call leaves behind
        is_whole, made = False, True
        try:
            try:
                admitted = turn.admission
                way = self._upstream.way_to(turn.config, admitted.account_id or "", admitted.account or "")
                response = await self._upstream.send(self._call, way)
            except NotConnected:
                outcome = dialects.failed("network", latency=turn.seconds)
                made = False
                return Failure(outcome, problem=_unreachable())
            except Unanswered as error:
                if self._call.body.fault is not None:
                    raise self._call.body.fault from None
                outcome = dialects.failed(error.word, latency=turn.seconds)
                failure = Failure(outcome, problem=_unanswered(error.word))
                if self._call.may_repeat or turn.config.repeat_unsafe:
                    return failure
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
            self._progress.provider += turn.seconds
            if response.status >= 400:
                try:
                    body = await read_all(response, MAX_ERROR)
                except Unanswered as error:
                    outcome = self._read(turn, way, response, b"", b"")
                    raise _unanswered(error.word) from None
                # What can't be read may contain the credential, and is not passed on.
                body = decoded(body, response.headers.get("content-encoding", ""), MAX_ERROR) or b""
                outcome = self._read(turn, way, response, body, b"")
                answer = Failure(outcome, (response, body, way), waits=Category.of(outcome.category).refuses_caller)
                answer.is_final = not self._is_elsewhere(response.status, outcome, turn.config)
                return answer
            meter = meter_of(response.headers.get("content-type", ""), hide=self._call.hides_usage)
            found, seen = response, meter

            async def ended() -> None:
                """The provider has sent all of its answer, and the caller has not got its last bytes yet."""
                nonlocal outcome, is_whole
                is_whole = True
                outcome = self._last = self._conclude(turn, way, found, seen, is_whole=True)
                self._open = self._lease_of(turn, outcome)
                await self._end_first(turn)

            try:
                await sender.stream(response, meter, way, ended)
            except (Unanswered, Undecodable) as error:
                word = error.word if isinstance(error, Unanswered) else "network"
                outcome = dialects.failed(word, latency=turn.seconds)
                raise Broken from None
            finally:
                if not is_whole:
                    read = self._conclude(turn, way, response, meter, is_whole=False)
                    outcome = read if outcome.category == "unknown" else replace(outcome, usage=read.usage)
            return None
        finally:
            self._last = outcome if made else UNUSED
            if response is not None and not is_whole:
                response.close()
            self._open = self._lease_of(turn, outcome)
            if self._open is not None and (response is None or response.status >= 400):
                # The account cools down before another one is chosen.
                settling = self._admissions.settle(*self._open, self._held)
                self._open = None
                await asyncio.shield(self._admissions.background(settling))

    def _lease_of(self, turn: Try, outcome: CallOutcome) -> tuple[str, CallOutcome, float] | None:
        """What is still to be settled of a try; None where that was done."""
        lease = turn.admission.lease
        return None if lease is None or self._is_ended else (lease, outcome, turn.admission.expires_in)

    def _conclude(
        self, turn: Try, way: Way, response: aiohttp.ClientResponse, meter: Meter, *, is_whole: bool
    ) -> CallOutcome:
        """What an answer that was passed on says of the call and of its use."""
        head, tail = meter.seen()
        read = self._read(turn, way, response, head, tail)
        self._progress.outcome = read.category
        if (cached := cached_tokens(head, tail)) is not None:
            self._progress.actual = {"cached_tokens": cached}
        seen = self._seen(read, meter, is_whole=is_whole)
        return read if seen == read.usage else replace(read, usage=seen)

    def _read(self, turn: Try, way: Way, response: aiohttp.ClientResponse, head: bytes, tail: bytes) -> CallOutcome:
        provider = turn.config.provider
        outcome = dialects.read(
            provider.dialect, response.status, list(response.headers.items()), head, settings=provider.settings,
            secrets=[way.credential], latency=turn.seconds, tail=tail,
        )  # fmt: skip
        if outcome.category == "ok":
            return outcome
        # What is wrong with a request is said in words of the request, and says nothing of the account.
        error = "" if outcome.category == Category.VALIDATION else outcome.error
        target = f"{self._call.method} {self._call.target.path}"
        return replace(outcome, error=error, target=target, request=self._call.id)

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
        if status in _ALWAYS or Category.of(outcome.category).is_limit or outcome.refuses_account:
            return True
        return status >= 500 and (self._call.may_repeat or config.repeat_unsafe)

    async def _next(self, failure: Failure, turn: Try) -> Admission | None:
        """Another account; None where the failure stands. Raises a problem where only waiting would help."""
        call = self._call
        if self._progress.attempts >= call.pool.tries or not call.body.is_whole:
            return None
        left = max(0.0, self._deadline - time.monotonic()) if call.wishes.wait else 0.0
        asked = time.perf_counter()
        try:
            refused_by = turn.admission.account_id or ""
            found = await self._admissions.another(call, self._held, self._progress, refused_by, left)
        except Refused as refused:
            if failure.waits:
                raise self._refusal(refused.admission) from None
            return None
        finally:
            if left:
                self._progress.waited += time.perf_counter() - asked
        if found.account_id in self._tried and not failure.waits:
            await self._admissions.give_back(found, {}, self._held)
            return None
        return found

    def _refusal(self, admission: Admission) -> Exception:
        problem = of_admission(admission, self._call.target.pool, self._call.project)
        return problem if admission.impossible else NotNow(problem)

    def _used(self) -> dict[str, int]:
        """What the caller is charged: nothing where no account did the call, the request where it was answered by an
        error, what was used where that is known, and else what was reserved."""
        last, units = self._last, self._call.cost
        if last == UNUSED or Category.of(last.category).refuses_caller or last.status in _ALWAYS:
            return dict.fromkeys([*units, "requests"], 0)
        if last.status is not None and last.status >= 400:
            return {**dict.fromkeys(units.keys() - {"requests"}, 0), **last.usage}
        return dict(last.usage)

    async def _pass_failure(self, failure: Failure, turn: Try, sender: AnswerSender) -> None:
        self._progress.outcome = failure.outcome.category
        if failure.answer is None:
            assert failure.problem is not None
            raise failure.problem
        if failure.waits and self._call.wishes.may_defer:
            raise NotNow(
                ProblemError("no-account-available", "No account available", 429, "Each account refused the call.")
            )
        await self._end_first(turn)
        await sender.error(*failure.answer)


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
