"""Upstream accounts: one atomic step picks an account and reserves its capacity, another one settles the call.

The story of a call: `admit` checks it against its caller's limits and the pool's accounts, and answers with a
lease or with the exact earliest time; the call is made with the account's credential (which is never here); `settle`
reports its outcome, and the account's cooldown, breaker, health, learned quota and concurrency follow from that.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from quotas.engine.account_state import AccountState
from quotas.engine.accounts import outcome as accounts_outcome
from quotas.engine.accounts import packed_pool
from quotas.engine.accounts.actions import AccountActions
from quotas.engine.accounts.admission import AdmissionCalls
from quotas.engine.accounts.admission_reply import AdmissionReplies
from quotas.engine.accounts.lease_keys import LeaseKeys
from quotas.engine.accounts.packed_pool import PackedPool
from quotas.engine.accounts.view import Explanation, PoolView, state_of, views_of
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.keys import Keys
from quotas.engine.limits import codec
from quotas.engine.redis.scripts import EMPTY, Call, bulk, load, packed
from quotas.engine.redis.transport import Transport
from quotas.engine.types import Admission, AdmitRequest, CallOutcome, PoolSpec, Settled

if TYPE_CHECKING:
    import redis as redis_py
    from redis.cluster import RedisCluster


class Accounts(AccountActions):
    """Admits calls to accounts and settles them, on one Redis or Valkey server.

    `redis` is a redis-py client (its connections are used as a model), `prefix` as the limiter's, `clock` returns
    microseconds since the epoch and is for tests, as `chance` is: without it the server's own time decides. Every
    method raises LimiterUnavailable when the server can't be reached or can't answer. Threads may share an instance.
    """

    def __init__(
        self,
        redis: redis_py.Redis | RedisCluster,
        *,
        prefix: str = "sl",
        clock: Callable[[], int] | None = None,
        timeout: float | None = None,
        chance: random.Random | None = None,
    ) -> None:
        keys = Keys.of(prefix)
        super().__init__(keys, Transport(redis, tag=keys.tag, timeout=timeout), clock)
        self._settle = load("settle_lease")
        self._states = load("account_states", read_only=True)
        self._random = chance or random.Random()
        self._leases = LeaseKeys(self.keys)
        self._calls = AdmissionCalls(self.keys, self._leases, clock, self._random)
        self._replies = AdmissionReplies(self._calls)

    # -- admitting -----------------------------------------------------------------------------------------------

    def admit(self, request: AdmitRequest) -> Admission:
        """Admit one call, or say when it would pass. Both sides are charged, or neither is."""
        if not request.fallbacks and not request.limits and not request.without:
            one = self._calls.prepare(request)
            try:
                reply = self.transport.send(one.call)
            except LimiterUnavailable as error:
                error.leases = (one.lease,)
                raise
            if reply[0][0] != codec.STALE:
                answer = self._replies.decode(one, reply)
                if answer.allowed or not one.sampled:
                    return answer
        return self.admit_many([request])[0]

    def admit_many(self, requests: Iterable[AdmitRequest]) -> list[Admission]:
        """Many admissions in one round trip, in order, each all or nothing by itself.

        Those that a sample of a large pool could not take, and those with fallback pools, take another round.
        """
        asked = list(requests)
        answers = self._admit_all(asked)
        # If only the account that has refused a request is left, it is tried again.
        alone = [n for n, one in enumerate(answers) if asked[n].without and (one.disabled or one.impossible)]
        if alone:
            again = self._admit_all([replace(asked[number], without="") for number in alone])
            for number, answer in zip(alone, again, strict=True):
                answers[number] = answer
        return answers

    def _admit_all(self, asked: list[AdmitRequest]) -> list[Admission]:
        rounds = self.admitting(asked)
        try:
            calls = next(rounds)
            while True:
                try:
                    replies = self.transport.run_many(calls)
                except LimiterUnavailable as error:
                    rounds.throw(error)
                calls = rounds.send(replies)
        except StopIteration as end:
            answers: list[Admission] = end.value
            return answers

    def admitting(self, asked: list[AdmitRequest]) -> Generator[list[Call], list[Any], list[Admission]]:
        """The rounds of admissions, without input and output: yields scripts, takes their replies (or is thrown the
        LimiterUnavailable that came instead), returns answers."""
        answers: list[Admission | None] = [None] * len(asked)
        turns = [(number, request, 0, False) for number, request in enumerate(asked)]
        while turns:
            prepared = [self._calls.prepare(self._turn(request, turn), whole) for _, request, turn, whole in turns]
            try:
                replies = yield [one.call for one in prepared]
            except LimiterUnavailable as error:
                error.leases = tuple(one.lease for one in prepared)
                raise
            again = []
            for (number, request, turn, whole), one, reply in zip(turns, prepared, replies, strict=True):
                if codec.STATUS.unpack_from(reply[0])[0] == codec.STALE:
                    if self.clock is not None or whole is None:
                        raise LimiterUnavailable("no calendar period fits the server's time")
                    again.append((number, request, turn, whole))
                    continue
                answer = self._replies.decode(one, reply)
                if one.sampled and not answer and answer.bound_by == "pool":
                    again.append((number, request, turn, True))
                    continue
                answers[number] = before = _better(answers[number], answer)
                if not before and before.bound_by == "pool" and turn < len(request.fallbacks):
                    again.append((number, request, turn + 1, False))
            turns = again
        return [answer for answer in answers if answer is not None]

    def admitted(self, request: AdmitRequest) -> Admission | None:
        """What an admitted request with this token was answered; None where none was. Charges nothing."""
        one = self._calls.prepare(request, True, dry=True)
        answer = self._replies.decode(one, self.transport.send(one.call))
        return answer if answer.replayed else None

    @staticmethod
    def _turn(request: AdmitRequest, turn: int) -> AdmitRequest:
        return request if turn == 0 else replace(request, pool=request.fallbacks[turn - 1])

    def plan(self, pool: PoolSpec) -> PackedPool:
        """The pool prepared for the scripts; kept for as long as the same object is passed."""
        return self._calls.plan(pool)

    # -- settling ------------------------------------------------------------------------------------------------

    def settle(self, lease: str, outcome: CallOutcome) -> Settled | None:
        """Settle `lease` by the outcome of its call. The first settlement counts, later ones get its answer.

        None for a lease that is not known (or was settled more than an hour ago), and nothing is changed.
        """
        keys = self._leases.pop(lease)
        if keys is None:
            return self.settle_many([(lease, outcome)])[0]
        reply = self.transport.send(self._settling(lease, outcome, keys))
        return None if reply is None else accounts_outcome.settled(lease, outcome, reply)

    def settling(self, lease: str, outcome: CallOutcome) -> Generator[Call, Any, Settled | None]:
        """As `settle`, without input and output, for a lease that this process acquired: yields the script, takes its
        reply. Raises `LookupError` for any other lease."""
        keys = self._leases.pop(lease)
        if keys is None:
            raise LookupError(lease)
        reply = yield self._settling(lease, outcome, keys)
        return None if reply is None else accounts_outcome.settled(lease, outcome, reply)

    def settle_call(self, lease: str, outcome: CallOutcome) -> Call | None:
        """What `settle` sends for a lease that this process acquired; None for any other lease. Once for each lease."""
        keys = self._leases.pop(lease)
        return None if keys is None else self._settling(lease, outcome, keys)

    def settle_many(self, outcomes: Iterable[tuple[str, CallOutcome]]) -> list[Settled | None]:
        """Many settles in at most two round trips, in order."""
        given = list(outcomes)
        if not given:
            return []
        known = [self._leases.pop(lease) for lease, _ in given]
        unknown = [number for number, keys in enumerate(known) if keys is None]
        if unknown:
            records = self.transport.command("MGET", *(self._leases.key(given[number][0]) for number in unknown))
            for number, record in zip(unknown, records, strict=True):
                if record is not None:
                    known[number] = self._leases.of_record(given[number][0], record)
        calls = []
        sent = [number for number, keys in enumerate(known) if keys is not None]
        for number in sent:
            lease, outcome = given[number]
            keys = known[number]
            assert keys is not None
            calls.append(self._settling(lease, outcome, keys))
        settled: list[Settled | None] = [None] * len(given)
        for number, reply in zip(sent, self.transport.run_many(calls), strict=True):
            if reply is not None:
                settled[number] = accounts_outcome.settled(*given[number], reply)
        return settled

    def owner_of(self, lease: str, account_ids: Iterable[str]) -> str | None:
        """The account that an open lease reserves, out of `account_ids`; None for a lease that is settled or unknown."""
        record = self.transport.command("GET", self._leases.key(lease))
        state = None if record is None else self._leases.state_key_of(record)
        if state is None:
            return None
        return next((one for one in account_ids if packed_pool.account_state_key(self.keys, one) == state), None)

    def forget(self, token: str) -> None:
        """Delete the token's record, so that the next call with this token is admitted anew and not answered alike.

        Call it before the lease is settled: a process that dies in between leaves units reserved until the lease
        expires, and no unit is used without a charge.
        """
        self.transport.command("DEL", self._calls.token_key(token))

    def _settling(self, lease: str, outcome: CallOutcome, keys: tuple[int, bytes]) -> Call:
        now = EMPTY if self.clock is None else bulk(b"%d" % self.clock())
        args = accounts_outcome.pack(outcome, self._random.random(), lease.encode())
        return Call(self._settle, packed=packed(self._settle, keys[0], 10, keys[1], now, args))

    # -- showing -------------------------------------------------------------------------------------------------

    def states(self, pool: PoolSpec) -> list[AccountState]:
        """The present state of every account of the pool, in the pool's order. Writes nothing."""
        plan = self.plan(pool)
        if not plan.accounts:
            return []
        keys = [plan.state, plan.statistics, *(one.state for one in plan.accounts)]
        now = b"" if self.clock is None else b"%d" % self.clock()
        enabled = bytes(one.account.enabled for one in plan.accounts)
        args = [now, struct.pack("<dd", pool.breaker.probes, plan.initial), enabled]
        late = self._calls.prepare(AdmitRequest(pool=pool, priority=9), True, dry=True)
        reply, views = self.transport.run_many([Call(self._states, keys, args), late.call])
        moment = int(reply[0]) / 1e6
        statistics = dict(zip(reply[1][::2], reply[1][1::2], strict=True))
        rows = zip(plan.accounts, reply[2:], views_of(late, views), strict=True)
        return [state_of(pool, one, json.loads(text), view, statistics, moment) for one, text, view in rows]

    def explain(self, request: AdmitRequest) -> Explanation:
        """What `admit` would answer to the request now, and for each account why. Charges nothing.

        It is the same script, over the same pools in the same order.
        """
        turns = [replace(self._turn(request, turn), token="") for turn in range(len(request.fallbacks) + 1)]
        prepared = [self._calls.prepare(one, True, dry=True) for one in turns]
        replies = self.transport.run_many([one.call for one in prepared])
        if any(codec.STATUS.unpack_from(reply[0])[0] == codec.STALE for reply in replies):  # midnight came between
            prepared = [self._calls.prepare(one, True, dry=True) for one in turns]
            replies = self.transport.run_many([one.call for one in prepared])
        found: Admission | None = None
        shown = []
        for one, reply in zip(prepared, replies, strict=True):
            views = views_of(one, reply)
            if found is not None and (found or found.bound_by != "pool"):  # it would not be tried any more
                views = [replace(view, chosen=False) for view in views]
            else:
                found = _better(found, self._replies.decode(one, reply))
            shown.append(PoolView(one.request.pool.name if one.request.pool else "", views))
        assert found is not None
        if request.without and (found.disabled or found.impossible):
            return self.explain(replace(request, without=""))
        return Explanation(replace(found, lease=None, reservation=None), shown)


def _better(before: Admission | None, after: Admission) -> Admission:
    """Of the answers of a pool and its fallback: the admission, else the earlier time with all reasons."""
    if before is None or after:
        return after
    reasons = dict(before.reasons)
    for reason, count in after.reasons.items():
        reasons[reason] = reasons.get(reason, 0) + count
    waits = [wait for wait in (before.retry_after, after.retry_after) if wait is not None]
    return replace(
        before,
        retry_after=min(waits, default=None),
        reasons=reasons,
        impossible=before.impossible and after.impossible,
        disabled=before.disabled and after.disabled,
    )
