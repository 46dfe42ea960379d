"""The limiter: scripts on the server check requests against limits, and charge all of them or none."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quotas.engine.errors import IdempotencyConflict, LimiterUnavailable
from quotas.engine.ids import random_id
from quotas.engine.keys import Keys, digest
from quotas.engine.limits import codec, settlement
from quotas.engine.limits.counters import Counters
from quotas.engine.limits.packed import PackedLimits
from quotas.engine.limits.requests import INDEX_SIZE, RESERVATION_LIFE, CheckRequest
from quotas.engine.redis.scripts import EMPTY, Call, bulk, load, packed
from quotas.engine.redis.transport import Reply, Transport
from quotas.engine.types import Decision, Limit, LimitState, Settlement

if TYPE_CHECKING:
    import redis as redis_py
    from redis.cluster import RedisCluster


@dataclass(slots=True)
class Prepared:
    """A check that is ready to be sent: limits in order of report, those that limit, and the call of the script."""

    limits: Sequence[Limit]
    limiting: list[Limit]
    counters: tuple[bytes, ...]
    call: Call
    reservation: str | None
    bypass: bool


class Limiter(Counters):
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
        keys = Keys.of(prefix)
        super().__init__(Transport(redis, tag=keys.tag, timeout=timeout), keys, clock)
        self._check = load("check")
        self._settle = load("settle")

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
        """Check one request against all limits: charge them all, or none if one of them denies.

        `dry_run` decides and never charges. `bypass` never denies: what fits is charged. `token` makes the call
        idempotent: an allowed check is charged once in ten minutes and answered alike; with another `token_body`
        IdempotencyConflict is raised. `reserve` makes a reservation to settle (None: when a limit counts a unit
        other than requests, also where it costs nothing yet, or a concurrency limit applies).
        """
        send = self.transport.send
        token = "" if dry_run else token
        prepared = self._prepare(limits, dry_run, bypass, token, token_body, reserve)
        if not prepared.limiting:
            return self.decode(prepared, b"")
        reply = send(prepared.call)
        if self.is_stale(reply):
            prepared = self._prepare(limits, dry_run, bypass, token, token_body, reserve)
            reply = send(prepared.call)
        return self.decode(prepared, reply)

    def charged(self, limits: Sequence[Limit], token: str, token_body: str = "") -> Decision | None:
        """What an allowed check with this token was answered; None where none was made. Charges nothing."""
        prepared = self._prepare(limits, True, False, token, token_body, None)
        if not prepared.limiting:
            return None
        reply = self.transport.send(prepared.call)
        return self.decode(prepared, reply) if type(reply) is list else None

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
        token = "" if asked.dry_run else asked.token
        return self._prepare(asked.limits, asked.dry_run, asked.bypass, token, asked.token_body, asked.reserve)

    def is_stale(self, reply: Reply) -> bool:
        """Whether nothing was done since calendar periods are not those of the server's clock; they will be next time."""
        if len(reply) != codec.STATUS.size or reply[0] != codec.STALE:
            return False
        self._ahead = int(codec.STATUS.unpack_from(reply)[1]) - time.time_ns() // 1000
        return True

    def _prepare(
        self, limits: Sequence[Limit], dry_run: bool, bypass: bool, token: str, token_body: str, reserve: bool | None
    ) -> Prepared:
        now = self.now()
        of_limits = PackedLimits.of(limits, self.keys, now)
        count = of_limits.count
        wanted = not dry_run and (of_limits.reserves if reserve is None else reserve)
        takes_slot = not dry_run and of_limits.slot_life > 0
        keys: list[bytes] = []
        flags, reservation, slot, body = self._charge(keys, wanted, takes_slot, token, token_body)
        if dry_run:
            flags |= codec.DRY_RUN
        if bypass:
            flags |= codec.BYPASS
        head = codec.HEAD.pack(count, flags, (of_limits.slot_life or RESERVATION_LIFE) * 1000, INDEX_SIZE)
        payload = packed(
            self._peek if dry_run else self._check, 2 * count + len(keys), 4 + count,
            of_limits.counters_sent, of_limits.indexes_sent, *keys,
            EMPTY if self.clock is None else bulk(b"%d" % now), bulk(head + of_limits.specs), slot, body,
            of_limits.members_sent,
        )  # fmt: skip
        call = Call(self._peek if dry_run else self._check, (), (), payload)
        return Prepared(of_limits.ordered, of_limits.limiting, of_limits.counters, call, reservation, bypass)

    def _charge(
        self, keys: list[bytes], reserve: bool, takes_slot: bool, token: str, token_body: str
    ) -> tuple[int, str | None, bytes, bytes]:
        """Flags, reservation, lease of a slot and the token's body of a check; adds their keys to `keys`."""
        flags, reservation, slot, body = 0, None, EMPTY, EMPTY
        if reserve:
            reservation = random_id()
            slot = bulk(reservation.encode())
            keys.append(bulk(self.keys.reservation(reservation)))
            flags = codec.RESERVE
        elif takes_slot:
            slot = bulk(random_id().encode())
        if token:
            keys.append(bulk(self.keys.token(token)))
            body = bulk(digest(token_body).encode())
            flags |= codec.TOKEN
        return flags, reservation, slot, body

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
        counters = tuple(known.split(b" "))
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

        Refunds what was not used, to the windows that it was charged in and no others; charges what came on top,
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
        return settlement.steps(self.keys, self._settle, reservation, dict(actual or {}), self._now(), reserved)

    def settle_call(self, reservation: str, actual: Mapping[str, int], reserved: Sequence[bytes]) -> Call:
        """The script that settles a reservation whose counters are known, for a caller that needs no answer."""
        return settlement.call(self.keys, self._settle, reservation, actual, self._now(), reserved)

    def _now(self) -> bytes:
        return b"" if self.clock is None else b"%d" % self.clock()

    def units_of(self, reservation: str) -> frozenset[str]:
        """The units of an open reservation, as keys spell them; empty for one that is settled or not known."""
        record = self.transport.command("GET", self.keys.reservation(reservation))
        if record is None or record.startswith(b"="):
            return frozenset()
        return frozenset(map(self.keys.unit_of, record.partition(b"\n")[0].split()))

    def peek(self, limits: Sequence[Limit]) -> tuple[LimitState, ...]:
        """The present state of the limits, and whether their costs would pass. Charges nothing and creates no key."""
        return self.check(limits, dry_run=True).limits
