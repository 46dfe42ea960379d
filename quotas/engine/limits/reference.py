"""The limiter in one process: the same contract as limiter.Limiter, without a server.

It is the model that the scripts are tested against, and the local limiter that takes over while the server is unavailable.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from quotas.engine.costs import check_amounts
from quotas.engine.errors import IdempotencyConflict
from quotas.engine.keys import Keys, subject
from quotas.engine.limits import codec
from quotas.engine.limits.cells import EMPTY, Cell, Spec, StaleBoundaries, Tags, Verdict
from quotas.engine.limits.requests import INDEX_SIZE, RESERVATION_LIFE, CheckRequest, in_order, wants_reservation
from quotas.engine.types import Decision, Limit, LimitState, Settlement

MICROSECONDS = codec.MICROSECONDS


def spec_of(limit: Limit, now: int) -> Spec:
    algo, shadow, *numbers = codec.SPEC.unpack(codec.pack_spec(limit, now))
    return Spec(algo, bool(shadow), *map(int, numbers))


class _Charge:
    """One charge of a reservation; of 0 where its actual use is charged when it is settled."""

    __slots__ = ("epoch", "key", "limit", "spec", "tags")

    def __init__(self, key: bytes, limit: Limit, spec: Spec, tags: Tags, epoch: object) -> None:
        self.key, self.limit, self.spec, self.tags = key, limit, spec, tags
        self.epoch = epoch
        """That of the counter when it was charged: a cleared one that began anew has another."""


class ReferenceLimiter:
    """Checks, settles, shows and resets limits in this process's memory.

    `clock` returns microseconds since the epoch (default: this machine's time). Threads may share one; a check is
    atomic. At most `size` counters are kept: beyond that the least recently charged ones are dropped.
    """

    def __init__(self, *, clock: Callable[[], int] | None = None, size: int = 100_000) -> None:
        self.keys = Keys()
        self.clock = clock or (lambda: time.time_ns() // 1000)
        self.size = size
        self._lock = threading.RLock()
        self._cells: OrderedDict[bytes, Cell] = OrderedDict()
        self._epochs: dict[bytes, object] = {}
        self._indexes: dict[bytes, OrderedDict[bytes, tuple[str, str, str]]] = {}
        self._reservations: OrderedDict[str, tuple[int, list[_Charge]]] = OrderedDict()
        self._settled: OrderedDict[str, tuple[int, Settlement]] = OrderedDict()
        self._tokens: OrderedDict[str, tuple[int, str, Decision]] = OrderedDict()

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
        """As Limiter.check."""
        with self._lock:
            now = self.clock()
            self._forget(now)
            if token and not dry_run and token in self._tokens:
                _, body, known = self._tokens[token]
                if body != token_body:
                    raise IdempotencyConflict
                return replace(known, replayed=True)
            decision = self._decide(in_order(limits), now, dry_run, bypass, reserve)
            if token and not dry_run and decision:
                self._tokens[token] = (now + 600 * MICROSECONDS, token_body, decision)
            return decision

    def check_many(self, requests: Iterable[CheckRequest]) -> list[Decision]:
        """As Limiter.check_many."""
        return [
            self.check(
                r.limits,
                dry_run=r.dry_run,
                bypass=r.bypass,
                token=r.token,
                token_body=r.token_body,
                reserve=r.reserve,
            )
            for r in requests
        ]

    def _decide(self, limits: Sequence[Limit], now: int, dry_run: bool, bypass: bool, reserve: bool | None) -> Decision:
        limiting = [limit for limit in limits if limit.limit is not None]
        keys = [self.keys.counter(limit) for limit in limiting]
        if len(set(keys)) != len(keys):
            raise ValueError("one check names the same counter twice")
        specs = [spec_of(limit, now) for limit in limiting]
        cells = [self._cell(key, spec, now) for key, spec in zip(keys, specs, strict=True)]
        verdicts = [cell.judge(spec, now, spec.cost) for cell, spec in zip(cells, specs, strict=True)]
        allowed = bypass or all(v.allowed or s.shadow for v, s in zip(verdicts, specs, strict=True))
        reservation = None
        if allowed and not dry_run:
            charging = [limit for limit in limiting if limit.cost]
            leases = [limit.lease_ttl for limit in charging if limit.algorithm == "concurrency"]
            lease = secrets.token_urlsafe(15)
            charges = []
            for i, (limit, key, spec) in enumerate(zip(limiting, keys, specs, strict=True)):
                if not verdicts[i].allowed:
                    continue
                if not spec.cost:
                    if spec.algo != 6:
                        charges.append(_Charge(key, limit, spec, (0, 0), None))
                    continue
                cell, tags = cells[i].charge(spec, now, spec.cost, lease)
                self._store(key, cell, limit)
                charges.append(_Charge(key, limit, spec, tags, self._epochs[key]))
                used = cell.used_now(spec, now)
                verdicts[i] = Verdict(True, used, max(0, spec.capacity - used), 0, cell.reset(spec, now))
            if wants_reservation(limiting) if reserve is None else reserve:
                reservation = lease
                life = max(leases, default=RESERVATION_LIFE)
                self._reservations[lease] = (now + round(life * MICROSECONDS), charges)
        answers = iter(verdicts)
        states, impossible = [], []
        for limit in limits:
            if limit.limit is None:
                states.append(codec.unlimited(limit))
                impossible.append(False)
                continue
            v = next(answers)
            states.append(codec.state_of(limit, now, v.allowed, v.used, v.remaining, v.retry, v.reset))
            impossible.append(v.impossible)
        return codec.decide(limits, states, impossible, allowed, bypassed=bypass, reservation=reservation)

    def _cell(self, key: bytes, spec: Spec, now: int) -> Cell:
        return self._cells.get(key, EMPTY[spec.algo]).at(spec, now)

    def _store(self, key: bytes, cell: Cell, limit: Limit) -> None:
        self._cells[key] = cell
        self._cells.move_to_end(key)
        self._epochs.setdefault(key, object())
        if len(self._cells) > self.size:
            self._drop(next(iter(self._cells)))
        index = self._indexes.setdefault(self.keys.index(limit), OrderedDict())
        member = subject(limit.partition, limit.subject, limit.space)[0]
        index[member] = (limit.partition, limit.subject, limit.space)
        index.move_to_end(member)
        if len(index) > INDEX_SIZE:
            index.popitem(last=False)

    def _drop(self, key: bytes) -> bool:
        """Whether there was such a counter."""
        self._epochs.pop(key, None)
        return self._cells.pop(key, None) is not None

    def _forget(self, now: int) -> None:
        for records in (self._reservations, self._settled, self._tokens):
            while records:
                oldest = next(iter(records))
                if records[oldest][0] > now:
                    break
                del records[oldest]

    def expires(self, reservation: str) -> int | None:
        """When an open reservation expires, in microseconds; None where there is no such one."""
        found = self._reservations.get(reservation)
        return found[0] if found else None

    def settle(self, reservation: str, actual: Mapping[str, int] | None = None) -> Settlement | None:
        """As Limiter.settle."""
        actual = dict(actual or {})
        check_amounts(actual)
        with self._lock:
            now = self.clock()
            if reservation in self._settled and self._settled[reservation][0] > now:
                return replace(self._settled[reservation][1], repeated=True)
            expires, charges = self._reservations.pop(reservation, (0, []))
            if expires <= now:
                return None
            refunded: dict[str, int] = {}
            for charge in charges:
                back = self._settle(charge, actual.get(charge.limit.unit, -1), now, reservation)
                unit = charge.limit.unit
                if unit in actual and (unit not in refunded or abs(back) > abs(refunded[unit])):
                    refunded[unit] = back
            settled = Settlement(reservation, actual, refunded)
            self._settled[reservation] = (now + 600 * MICROSECONDS, settled)
            return replace(settled, limits=tuple(charge.limit.id for charge in charges))

    def _settle(self, charge: _Charge, actual: int, now: int, lease: str) -> int:
        spec, key = charge.spec, charge.key
        try:
            cell = self._cell(key, spec, now)
        except StaleBoundaries:
            return 0
        if spec.algo == 6:
            if key in self._cells:
                self._cells[key] = cell.refund(spec, now, spec.cost, charge.tags, lease)[0]
            return 0
        if actual > spec.cost:
            self._store(key, cell.charge(spec, now, actual - spec.cost, lease)[0], charge.limit)
            return spec.cost - actual
        if actual < 0 or self._epochs.get(key) is not charge.epoch:
            return 0
        after, back = cell.refund(spec, now, spec.cost - actual, charge.tags, lease)
        if back and after.used_now(spec, now):
            self._cells[key] = after
        elif back:
            self._drop(key)
        return back

    def peek(self, limits: Sequence[Limit]) -> tuple[LimitState, ...]:
        """As Limiter.peek."""
        return self.check(limits, dry_run=True).limits

    def usage(
        self, templates: Iterable[Limit], *, page: int = 500, space_of: Callable[[str], str] | None = None
    ) -> Iterator[LimitState]:
        """As Limiter.usage."""
        for template in templates:
            index = self._indexes.get(self.keys.index(template), OrderedDict())
            for partition, name, space in reversed(index.values()):
                if space_of is not None and space != space_of(partition):
                    continue
                (state,) = self.peek([replace(template, partition=partition, subject=name, space=space, cost=0)])
                if state.used:
                    yield state

    def reset(self, limits: Sequence[Limit]) -> int:
        """As Limiter.reset."""
        with self._lock:
            return sum(self._drop(self.keys.counter(limit)) for limit in limits)

    def reset_policy(self, limit_id: str) -> int:
        """As Limiter.reset_policy."""
        counters, indexes = (pattern[:-1].encode() for pattern in self.keys.of_policy(limit_id))
        with self._lock:
            gone = [key for key in self._cells if key.startswith(counters)]
            for key in gone:
                self._drop(key)
            for index in [key for key in self._indexes if key.startswith(indexes)]:
                del self._indexes[index]
            return len(gone)
