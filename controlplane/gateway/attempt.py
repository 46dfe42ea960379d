"""One account's turn at a call: sent, its answer read or passed on, and what that says of account and call."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import aiohttp

from controlplane.gateway import usage_request
from controlplane.gateway.admission import UNUSED
from controlplane.gateway.answer import AnswerSender
from controlplane.gateway.call import Call
from controlplane.gateway.encodings import Undecodable, decoded, is_plain
from controlplane.gateway.progress import Progress
from controlplane.gateway.upstream import NotConnected, Route, Unanswered, Upstream, first_part, is_bodiless, read_all
from controlplane.gateway.usage import EventMeter, Meter, cached_tokens, meter_of
from quotas.engine import dialects
from quotas.engine.categories import Category
from quotas.engine.types import Admission, CallOutcome
from quotas.models.encrypted import CredentialUnreadable
from quotas.rest.problems import ProblemError
from quotas.snapshot.pools import PoolConfig

MAX_ERROR = 1024 * 1024
"""Bytes of an error answer: such an answer is read whole, so that no credential in it is passed on."""
ENDING = 1.0
"""Seconds in which the rest of a good answer must have come that begins with an error."""
NOT_EXECUTED = frozenset({429, 503, 529})
"""Statuses of calls that the provider did not execute."""


_DATA = re.compile(rb'"data"\s*:\s*(?!null)\S')
"""An answer to a query (GraphQL) that has been executed at least in part."""


class Broken(Exception):
    """The answer broke off after its beginning was passed on: the caller's connection must not end properly."""


@dataclass(slots=True)
class Failure:
    """A try that another account may make up for. `answer`: what is passed on where none does."""

    outcome: CallOutcome
    answer: tuple[aiohttp.ClientResponse, bytes, Route] | None = None
    problem: ProblemError | None = None
    waits: bool = False
    """Whether the same account may be called again when its cooldown is over."""
    is_final: bool = False
    """Whether no other account could do better."""

    @property
    def text(self) -> bytes:
        """The error as the provider wrote it."""
        return b"" if self.answer is None else self.answer[1]


class Attempt:
    """`outcome` is how it ended; until that is known, what a cancelled call leaves behind."""

    __slots__ = (
        "_began", "_call", "_first", "_progress", "_upstream", "_route", "admission", "config", "is_error", "is_made",
        "is_whole", "outcome", "response",
    )  # fmt: skip

    def __init__(
        self, call: Call, admission: Admission, config: PoolConfig, upstream: Upstream, progress: Progress
    ) -> None:
        self.admission, self.config = admission, config
        self.outcome = CallOutcome("unknown")
        self.is_made = True
        """Whether the provider may have got the call."""
        self.is_whole = False
        """Whether all of the answer has come."""
        self.response: aiohttp.ClientResponse | None = None
        self.is_error = True
        """Whether there is no answer, or one that is an error."""
        self._first: bytes | None = None
        """The beginning of a good answer; None where it has not been read."""
        self._call, self._upstream, self._progress = call, upstream, progress
        self._route: Route | None = None
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    async def send(self) -> Failure | None:
        """Send the call. Returns the failure; None where `pass_on` can pass the answer on. Raises a problem where no
        other account may be tried."""
        admitted = self.admission
        try:
            route = self._route = self._upstream.route_to(
                self.config, admitted.account_id or "", admitted.account or ""
            )
            self._progress.ends_by = self._began + route.timeout
            response = self.response = await self._upstream.send(self._call, route)
            if response.status < 400 and not is_bodiless(self._call.method, response.status):
                self._first = await first_part(response)
        except NotConnected:
            self.outcome = dialects.failed("network", latency=self.seconds)
            self.is_made = False
            return Failure(self.outcome, problem=_unreachable())
        except Unanswered as error:
            return self._unanswered(error)
        except CredentialUnreadable:
            self.outcome = UNUSED
            raise ProblemError(
                "credential-unreadable", "Credential unreadable", 503, "The account's credential can't be decrypted."
            ) from None
        self._progress.provider += self.seconds
        failure = (
            await self._refused(response, route) if response.status >= 400 else await self._inside(response, route)
        )
        if failure is None:
            self.is_error = False
        elif self._call.hides_usage and usage_request.is_refused(response.status, failure.text):
            return await self._send_as_written()
        return failure

    async def _send_as_written(self) -> Failure | None:
        """Send the call once more, without the request for its use, which the provider has refused."""
        self.close()
        self._call.withdraw_usage_request()
        self._began = time.perf_counter()
        return await self.send()

    async def pass_on(self, sender: AnswerSender, ended: Callable[[], Awaitable[None]]) -> None:
        """Pass a good answer on. `ended` is awaited when the provider has sent all of it, and the caller has not got its
        last bytes yet. Raises `Broken`."""
        response, route = self.response, self._route
        assert response is not None and route is not None
        meter = meter_of(response.headers.get("content-type", ""), hide=self._call.hides_usage)

        async def concluded() -> None:
            self.is_whole = True
            self.outcome = self._conclude(response, route, meter)
            await ended()

        try:
            await sender.stream(response, meter, route, concluded, self._taken())
        except (Unanswered, Undecodable) as error:
            word = error.word if isinstance(error, Unanswered) else "network"
            self.outcome = dialects.failed(word, latency=self.seconds)
            if not self._progress.started:
                raise _no_answer(word) from None
            raise Broken from None
        finally:
            if not self.is_whole:
                read = self._conclude(response, route, meter)
                is_unknown = self.outcome.category == "unknown"
                self.outcome = read if is_unknown else replace(self.outcome, usage=read.usage)

    def _taken(self) -> bytes | None:
        """The beginning of the answer, which is not kept for as long as the rest takes."""
        first, self._first = self._first, None
        return first

    def close(self) -> None:
        """Close the connection, unless it can be used again."""
        if self.response is not None and not self.is_whole:
            self.response.close()

    # -- what an answer says -------------------------------------------------------------------------------------

    def _unanswered(self, error: Unanswered) -> Failure:
        if self._call.body.fault is not None:
            raise self._call.body.fault from None
        self.outcome = dialects.failed(error.word, latency=self.seconds)
        problem = _no_answer(error.word)
        if self._call.may_repeat or self.config.repeat_unsafe:
            return Failure(self.outcome, problem=problem)
        raise problem from None

    async def _refused(self, response: aiohttp.ClientResponse, route: Route) -> Failure:
        """The provider's error, read whole."""
        try:
            body = await read_all(response, MAX_ERROR)
        except Unanswered as error:
            self.outcome = self._read(response, route, b"", b"")
            raise _no_answer(error.word) from None
        # What can't be read may contain the credential, and is not passed on.
        body = decoded(body, _encoding_of(response), MAX_ERROR) or b""
        outcome = self.outcome = self._read(response, route, body, b"")
        waits = Category.of(outcome.category).refuses_caller
        return Failure(
            outcome, (response, body, route), waits=waits, is_final=not self._is_elsewhere(response.status, outcome)
        )

    async def _inside(self, response: aiohttp.ClientResponse, route: Route) -> Failure | None:
        """The refusal that a good answer begins with, where another account, or a wait, may make up for it: the caller has
        nothing of it yet. None for any other answer."""
        first = self._first
        if not first or not dialects.may_refuse(first) or _DATA.search(first) or not is_plain(_encoding_of(response)):
            return None
        read = self._read(response, route, first, b"")
        if read.category == "ok":
            return None
        status = dialects.status_inside(
            self.config.provider.dialect, response.status, list(response.headers.items()), first
        )
        outcome = replace(read, status=status)
        if not self._is_elsewhere(status, outcome):
            return None
        self.outcome = outcome
        try:
            body = first + await read_all(response, MAX_ERROR, ENDING)
        except Unanswered:
            body = first  # the error is known, and what would follow it says no more
        return Failure(outcome, (response, body, route), waits=Category.of(outcome.category).refuses_caller)

    def _is_elsewhere(self, status: int, outcome: CallOutcome) -> bool:
        """Whether another account may do what this one answered with an error."""
        if not self._call.body.is_whole:
            return False
        if status in NOT_EXECUTED or Category.of(outcome.category).is_limit or outcome.refuses_account:
            return True
        return status >= 500 and (self._call.may_repeat or self.config.repeat_unsafe)

    def _conclude(self, response: aiohttp.ClientResponse, route: Route, meter: Meter) -> CallOutcome:
        """What an answer that was passed on says of the call and of its use."""
        head, tail = meter.seen()
        read = self._read(response, route, head, tail)
        self._progress.outcome = read.category
        if (cached := cached_tokens(head, tail)) is not None:
            self._progress.actual = {"cached_tokens": cached}
        seen = self._seen(read, meter)
        return read if seen == read.usage else replace(read, usage=seen)

    def _read(self, response: aiohttp.ClientResponse, route: Route, head: bytes, tail: bytes) -> CallOutcome:
        provider = self.config.provider
        outcome = dialects.read(
            provider.dialect, response.status, list(response.headers.items()), head, settings=provider.settings,
            secrets=[route.credential], latency=self.seconds, tail=tail,
        )  # fmt: skip
        if outcome.category == "ok":
            return outcome
        # What is wrong with a request is said in words of the request, and says nothing of the account.
        error = "" if outcome.category == Category.VALIDATION else outcome.error
        target = f"{self._call.method} {self._call.target.path}"
        return replace(outcome, error=error, target=target, request=self._call.id)

    def _seen(self, read: CallOutcome, meter: Meter) -> dict[str, int]:
        """The use that an answer reports; of a stream that ended early or in an error without one, the prompt and a token for
        each event."""
        usage = dict(read.usage)
        is_early = isinstance(meter, EventMeter) and (not self.is_whole or read.category != "ok")
        if is_early and "tokens" not in usage and "tokens" in self._call.cost:
            usage["tokens"] = self._call.prompt_tokens + meter.events
        return usage


def _encoding_of(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("content-encoding", "")


def _unreachable() -> ProblemError:
    return ProblemError(
        "upstream-unreachable", "Provider unreachable", 502, "No connection to the provider could be made."
    )


def _no_answer(word: str) -> ProblemError:
    if word == "timeout":
        return ProblemError("upstream-timeout", "Provider timed out", 504, "The provider did not answer in time.")
    return ProblemError(
        "upstream-broken", "Provider broke off", 502, "The provider ended the connection without an answer."
    )
