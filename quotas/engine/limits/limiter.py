"""The limiter: scripts on the server check requests against limits, and charge all of them or none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from quotas.engine.costs import check_amounts
from quotas.engine.errors import IdempotencyConflict, LimiterUnavailable
from quotas.engine.ids import random_id
from quotas.engine.keys import SHOWN, Keys, digest, parse_member, subject
from quotas.engine.limits import codec
from quotas.engine.limits.packed import PackedLimit
from quotas.engine.redis.scripts import EMPTY, Call, bulk, load, packed
from quotas.engine.redis.transport import Reply, Transport
from quotas.engine.types import SCOPE_ORDER, Decision, Limit, LimitState, Settlement

if TYPE_CHECKING:
    import redis as redis_py
    from redis.cluster import RedisCluster

RESERVATION_LIFE = 600.0
"""Seconds that a reservation waits to be settled, unless a concurrency lease says otherwise."""
INDEX_SIZE = 10_000
"""Recent subjects that are remembered per policy."""

_RANK = {scope: number for number, scope in enumerate(SCOPE_ORDER)}
_LAST = len(SCOPE_ORDER)
_encode = json.JSONEncoder().encode


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """One check of `check_many`: the arguments of `Limiter.check`."""

    limits: Sequence[Limit]
    dry_run: bool = False
    bypass: bool = False
    token: str = ""
    token_body: str = ""
    reserve: bool | None = None


@dataclass(slots=True)
class Prepared:
    """A check that is ready to be sent: limits in order of report, those that limit, and the call of the script."""

    limits: Sequence[Limit]
    limiting: list[Limit]
    counters: list[bytes]
    call: Call
    reservation: str | None
    bypass: bool


def in_order(limits: Sequence[Limit]) -> Sequence[Limit]:
    """The limits as they are reported: by scope (SCOPE_ORDER), else as given."""
    last = -1
    for limit in limits:
        rank = _RANK.get(limit.scope, _LAST)
        if rank < last:
            return sorted(limits, key=lambda limit: _RANK.get(limit.scope, _LAST))
        last = rank
    return limits


def wants_reservation(limits: Iterable[Limit]) -> bool:
    """True when actual use is charged later (a unit other than requests, whatever it costs ahead), or a slot must be given
    back."""
    return any(
        limit.limit is not None and (limit.cost > 0 if limit.algorithm == "concurrency" else limit.unit != "requests")
        for limit in limits
    )


class Limiter:
    """Checks, settles, shows and resets limits on one Redis or Valkey server.

    `redis` is a redis-py client; its connections are only used as a model (address, credentials, TLS). `timeout` in
    seconds for connecting and answering; None keeps the client's. `clock` returns microseconds since the epoch and
    is for tests: without it the server's own time decides.

    Every method raises LimiterUnavailable when the server can't be reached or can't answer.
    """

    def __init__(
        self,
        redis: redis_py.Redis | RedisCluster,
        *,
        prefix: str = "sl",
        clock: Callable[[], int] | None = None,
        timeout: float | None = None,
    ) -> None:
        self.keys = Keys(prefix)
        self.clock = clock
        self.transport = Transport(redis, tag=self.keys.tag, timeout=timeout)
        self._check = load("check")
        self._peek = load("check", read_only=True)
        self._settle = load("settle")
        self._ahead = 0
        """Microseconds by which the server's clock was seen ahead of ours: for calendar boundaries only."""

    # -- checking ------------------------------------------------------------------------------------------------

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
        """Hold one request against all the limits and charge them all, or none if one of them denies.

        `dry_run` decides and never charges. `bypass` never denies: what fits is charged. `token` makes the call
        idempotent: an allowed check is charged once in ten minutes and answered alike; with another `token_body`
        IdempotencyConflict is raised. `reserve` asks for a reservation to settle (None: when a limit counts a unit
        other than requests, also where it costs nothing yet, or a concurrency limit applies).
        """
        send = self.transport.send
        prepared = self._prepare(limits, dry_run, bypass, token, token_body, reserve)
        if not prepared.limiting:
            return self.decode(prepared, b"")
        reply = send(prepared.call)
        if self.is_stale(reply):
            prepared = self._prepare(limits, dry_run, bypass, token, token_body, reserve)
            reply = send(prepared.call)
        return self.decode(prepared, reply)

    def check_many(self, requests: Iterable[CheckRequest]) -> list[Decision]:
        """Many checks in one round trip, in order, each all or nothing by itself."""
        asked = list(requests)
        prepared = [self.prepare(request) for request in asked]
        sent = [place for place, one in enumerate(prepared) if one.limiting]
        replies: dict[int, Reply] = dict(
            zip(sent, self.transport.run_many([prepared[place].call for place in sent]), strict=True)
        )
        for place, reply in replies.items():
            if self.is_stale(reply):
                prepared[place] = self.prepare(asked[place])
                replies[place] = self.transport.send(prepared[place].call)
        return [self.decode(one, replies.get(place, b"")) for place, one in enumerate(prepared)]

    # A check without its round trip, for callers that send `call` themselves (unless nothing limits): prepare, send, once
    # more where the reply is stale, decode.

    def prepare(self, request: CheckRequest) -> Prepared:
        """What is to be sent for a check."""
        asked = request
        return self._prepare(asked.limits, asked.dry_run, asked.bypass, asked.token, asked.token_body, asked.reserve)

    def is_stale(self, reply: Reply) -> bool:
        """Whether nothing was done since calendar periods are not those of the server's clock; they will be next time."""
        if len(reply) != codec.STATUS.size or reply[0] != codec.STALE:
            return False
        self._ahead = int(codec.STATUS.unpack_from(reply)[1]) - time.time_ns() // 1000
        return True

    def now(self) -> int:
        """A guess at the server's time in microseconds, without asking it."""
        return self.clock() if self.clock else time.time_ns() // 1000 + self._ahead

    def _prepare(
        self, limits: Sequence[Limit], dry_run: bool, bypass: bool, token: str, token_body: str, reserve: bool | None
    ) -> Prepared:
        limits = in_order(limits)
        now = self.now()
        keys = self.keys
        limiting: list[Limit] = []
        counters: list[bytes] = []
        specs = [b""]
        parts: list[bytes] = []
        indexes: list[bytes] = []
        members: list[bytes] = []
        reserves, leases = False, []
        for limit in limits:
            if limit.limit is None:
                continue
            one = limit.packed
            if one is None or one.keys is not keys or not one.since <= now < one.until:
                one = PackedLimit.of(limit, keys, now)
            limiting.append(limit)
            counters.append(one.counter)
            parts.append(one.counter_sent)
            indexes.append(one.index_sent)
            members.append(one.member_sent)
            specs.append(one.spec)
            if one.reserves:
                reserves = True
                if one.takes_slot:
                    leases.append(limit.lease_ttl)
        count = len(limiting)
        if len(set(counters)) != count:
            raise ValueError("one check names the same counter twice")
        parts += indexes
        flags = (codec.DRY_RUN if dry_run else 0) | (codec.BYPASS if bypass else 0)
        reservation, slot, life, body = None, EMPTY, RESERVATION_LIFE, EMPTY
        if not dry_run:
            if leases:
                life = max(leases)
            if reserves if reserve is None else reserve:
                reservation = random_id()
                slot = bulk(reservation.encode())
                parts.append(bulk(keys.reservation(reservation)))
                flags |= codec.RESERVE
            elif leases:
                slot = bulk(random_id().encode())
            if token:
                parts.append(bulk(keys.token(token)))
                body = bulk(digest(token_body).encode())
                flags |= codec.TOKEN
        sent = len(parts)
        specs[0] = codec.HEAD.pack(count, flags, life * 1000, INDEX_SIZE)
        parts += (EMPTY if self.clock is None else bulk(b"%d" % now), bulk(b"".join(specs)), slot, body)
        parts += members
        script = self._peek if dry_run else self._check
        call = Call(script, (), (), packed(script, sent, 4 + count, *parts))
        return Prepared(limits, limiting, counters, call, reservation, bypass)

    def decode(self, prepared: Prepared, reply: Reply) -> Decision:
        """The decision in a reply. `reply` does not matter if nothing limits, since nothing was sent then."""
        limits = prepared.limits
        if not prepared.limiting:
            return codec.decide(
                limits, [codec.unlimited(limit) for limit in limits], [], True, bypassed=prepared.bypass
            )
        reservation = prepared.reservation
        replayed = type(reply) is list
        if replayed:
            reply, reservation, limits = self._remembered(prepared, *reply)
        status, now = codec.STATUS.unpack_from(reply)
        if status == codec.CONFLICT:
            raise IdempotencyConflict
        if status == codec.STALE:
            raise LimiterUnavailable("the server's clock is moving too fast to find a calendar period")
        states, impossible = codec.states_of(limits, reply, int(now))
        return codec.decide(
            limits,
            states,
            impossible,
            status == codec.ALLOWED,
            bypassed=prepared.bypass,
            reservation=reservation if status == codec.ALLOWED else None,
            replayed=replayed,
        )

    @staticmethod
    def _remembered(prepared: Prepared, answer: bytes, names: bytes) -> tuple[bytes, str | None, Sequence[Limit]]:
        """An earlier answer to the same token: (answer, reservation, limits that it is about)."""
        known, _, lease = names.partition(b"\n")
        counters = known.split(b" ")
        limiting = prepared.limiting
        limits = prepared.limits
        if counters != prepared.counters:
            # The policies were changed since: answer for those that are still the same.
            by_key = dict(zip(prepared.counters, limiting, strict=True))
            places = [(n, by_key[key]) for n, key in enumerate(counters) if key in by_key]
            size, start = codec.STATE.size, codec.STATUS.size
            answer = answer[:start] + b"".join(answer[start + n * size : start + (n + 1) * size] for n, _ in places)
            same = [limit for _, limit in places]
            limits = [limit for limit in limits if limit.limit is None or limit in same]
        return answer, lease.decode() or None, limits

    # -- settling ------------------------------------------------------------------------------------------------

    def settle(self, reservation: str, actual: Mapping[str, int] | None = None) -> Settlement | None:
        """Settle a reservation with its actual use by unit (units that are not named: as reserved).

        Gives back what was not used, to the windows that it was charged in and no others; charges what came on top,
        even above a limit; releases concurrency slots. Idempotent: the first call counts, later ones get its answer.
        None for an unknown or expired reservation, and nothing is changed.
        """
        steps = self.settling(reservation, actual)
        try:
            asked: Call | tuple[str, bytes] = next(steps)
            while True:
                transport = self.transport
                asked = steps.send(transport.send(asked) if isinstance(asked, Call) else transport.command(*asked))
        except StopIteration as end:
            found: Settlement | None = end.value
            return found

    def settling(
        self, reservation: str, actual: Mapping[str, int] | None, reserved: Sequence[bytes] = ()
    ) -> Generator[Call | tuple[str, bytes], Any, Settlement | None]:
        """As `settle`, without input and output: yields commands and scripts, takes their replies.

        `reserved`: the reservation's counters, where they are known; its record is not read for them then.
        """
        if not reserved:
            record = yield "GET", self.keys.reservation(reservation)
            if record is None:
                return None
            if record.startswith(b"="):
                return self._settlement(reservation, record, repeated=True)
            reserved = record.partition(b"\n")[0].split()
        actual = dict(actual or {})
        check_amounts(actual)
        note = self._note(actual, reserved)
        settled = yield self._settle_call(reservation, actual, reserved, note)
        if settled is None:
            return None
        repeated = not settled.startswith(b"=" + note.encode())
        found = self._settlement(reservation, settled, repeated=repeated)
        return found if repeated else replace(found, limits=tuple(map(self.keys.limit_of, reserved)))

    def settle_call(self, reservation: str, actual: Mapping[str, int], reserved: Sequence[bytes]) -> Call:
        """The script that settles a reservation whose counters are known, for whoever needs no answer."""
        check_amounts(actual)
        return self._settle_call(reservation, actual, reserved, self._note(actual, reserved))

    def _note(self, actual: Mapping[str, int], reserved: Sequence[bytes]) -> str:
        """What a repeated settlement is answered from: the actual use, and the unit of each counter."""
        names = {self.keys.unit(unit): unit for unit in actual}
        units = [self.keys.unit_of(counter) for counter in reserved]
        return _encode({"actual": dict(actual), "units": [names.get(unit, unit) for unit in units]})

    def _settle_call(self, reservation: str, actual: Mapping[str, int], reserved: Sequence[bytes], note: str) -> Call:
        named = {self.keys.unit(unit): used for unit, used in actual.items()}
        amounts = b"".join([codec.DOUBLE.pack(named.get(self.keys.unit_of(counter), -1)) for counter in reserved])
        return Call(
            self._settle,
            [self.keys.reservation(reservation), *reserved, *map(self.keys.index_of, reserved)],
            [b"" if self.clock is None else b"%d" % self.clock(), amounts, reservation, INDEX_SIZE, note],
        )

    def units_of(self, reservation: str) -> frozenset[str]:
        """The units of an open reservation, as keys spell them; empty for one that is settled or not known."""
        record = self.transport.command("GET", self.keys.reservation(reservation))
        if record is None or record.startswith(b"="):
            return frozenset()
        return frozenset(map(self.keys.unit_of, record.partition(b"\n")[0].split()))

    @staticmethod
    def _settlement(reservation: str, settled: bytes, *, repeated: bool) -> Settlement:
        text, _, packed = settled[1:].partition(b"\n")
        note = json.loads(text)
        refunded: dict[str, int] = {}
        for unit, (back,) in zip(note["units"], codec.DOUBLE.iter_unpack(packed), strict=True):
            if unit not in note["actual"]:
                continue
            back = int(back)
            # Of several limits in one unit, the one that moved the most gives the unit's total.
            if unit not in refunded or abs(back) > abs(refunded[unit]):
                refunded[unit] = back
        return Settlement(reservation, note["actual"], refunded, repeated)

    # -- showing and resetting -----------------------------------------------------------------------------------

    def peek(self, limits: Sequence[Limit]) -> tuple[LimitState, ...]:
        """The present state of the limits, and whether their costs would pass. Charges nothing and creates no key."""
        return self.check(limits, dry_run=True).limits

    def usage(
        self, templates: Iterable[Limit], *, page: int = 500, space_of: Callable[[str], str] | None = None
    ) -> Iterator[LimitState]:
        """Every recent subject of these policies with what it has used, newest first per policy.

        A template's own subject and partition don't matter. Subjects longer than 256 characters are shown cut.
        `space_of` gives the present space of a partition: counters of earlier ones are left out.
        """
        for template in templates:
            if template.limit is None:
                continue
            start = 0
            while members := self.transport.command(
                "ZREVRANGE", self.keys.index(template), str(start), str(start + page - 1)
            ):
                start += page
                yield from self._usage_of(template, members, space_of)

    def _usage_of(
        self, template: Limit, members: Sequence[bytes], space_of: Callable[[str], str] | None
    ) -> Iterator[LimitState]:
        shown, calls = [], []
        spec = codec.pack_spec(replace(template, cost=0), self.now())
        now = b"" if self.clock is None else b"%d" % self.clock()
        head = codec.HEAD.pack(1, codec.DRY_RUN, 0, INDEX_SIZE)
        index = self.keys.index(template)
        for member in members:
            hashed, partition, name = parse_member(member)
            # Of a name that is cut the hash can't be found again.
            if space_of and len(name) < SHOWN and hashed != subject(partition, name, space_of(partition))[0]:
                continue
            shown.append((partition, name))
            key = self.keys.counter_of(template, hashed)
            calls.append(Call(self._peek, [key, index], [now, head + spec, b"", b"", member]))
        for (partition, name), reply in zip(shown, self.transport.run_many(calls), strict=True):
            status, moment = codec.STATUS.unpack_from(reply)
            if status == codec.STALE:
                continue
            seen = replace(template, partition=partition, subject=name)
            state = codec.states_of([seen], reply, int(moment))[0][0]
            if state.used:
                yield state

    def reset(self, limits: Sequence[Limit]) -> int:
        """Clear these limits' counters. Returns how many there were."""
        if not limits:
            return 0
        return int(self.transport.command("DEL", *(self.keys.counter(limit) for limit in limits)))

    def reset_policy(self, limit_id: str) -> int:
        """Clear every counter that a policy ever had, of all generations. Returns how many there were."""
        counters, indexes = self.keys.of_policy(limit_id)
        cleared = self._clear(counters)
        self._clear(indexes)
        return cleared

    def _clear(self, pattern: str) -> int:
        cleared, cursor = 0, b"0"
        while True:
            cursor, keys = self.transport.command("SCAN", cursor, "MATCH", pattern, "COUNT", "1000")
            if keys:
                cleared += int(self.transport.command("UNLINK", *keys))
            if cursor == b"0":
                return cleared
