"""Limits as they are sent: keys, index members and specs, packed once for each limit, and for each set of them, and not
once per check."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from quotas.engine.keys import Keys, subject
from quotas.engine.limits import codec
from quotas.engine.limits.requests import in_order
from quotas.engine.redis.scripts import bulk
from quotas.engine.types import Limit

ALWAYS = (-sys.maxsize, sys.maxsize)


class PackedLimit:
    """What a check sends of one limit that limits, for the keys of one instance."""

    __slots__ = (
        "counter",
        "counter_sent",
        "index_sent",
        "keys",
        "takes_slot",
        "member_sent",
        "reserves",
        "since",
        "spec",
        "until",
    )

    def __init__(self, limit: Limit, keys: Keys, now: int) -> None:
        self.keys = keys
        prefix, index = keys.policy(limit.id, limit.generation, limit.algorithm, limit.unit)
        hashed, member = subject(limit.partition, limit.subject, limit.space)
        self.counter = prefix + hashed
        self.counter_sent, self.index_sent, self.member_sent = bulk(self.counter), bulk(index), bulk(member)
        self.spec = codec.pack_spec(limit, now)
        self.since, self.until = codec.present(limit, now) if limit.algorithm == "calendar" else ALWAYS
        """From when to when, by our guess at the server's clock, the spec is true."""
        self.takes_slot = limit.algorithm == "concurrency" and limit.cost > 0
        """Whether it occupies a slot that must be released."""
        self.reserves = self.takes_slot or (limit.algorithm != "concurrency" and limit.unit != "requests")
        """Whether it is to be settled: a slot, or a unit whose actual use is known later, even if it costs 0 ahead."""

    @classmethod
    def of(cls, limit: Limit, keys: Keys, now: int) -> PackedLimit:
        """The limit's packed form, which is kept with the limit for as long as `keys` are the same and it is true."""
        known: PackedLimit | None = limit.packed
        if known is not None and known.keys is keys and known.since <= now < known.until:
            return known
        made = cls(limit, keys, now)
        object.__setattr__(limit, "packed", made)
        return made


class LimitSet(tuple[Limit, ...]):
    """The limits of one kind of request, which come again: what is packed of them together stays with them."""

    packed: PackedLimits | None = None


class PackedLimits:
    """What a check sends of all its limits. Raises ValueError where two of them have the same counter.

    `ordered` are all of them as they are reported, `limiting` those that limit; what is sent is of the latter.
    """

    __slots__ = (
        "count",
        "counters",
        "counters_sent",
        "indexes_sent",
        "keys",
        "limiting",
        "members_sent",
        "ordered",
        "reserves",
        "since",
        "slot_life",
        "specs",
        "until",
    )

    def __init__(self, limits: Sequence[Limit], keys: Keys, now: int) -> None:
        self.keys = keys
        self.ordered = in_order(limits)
        self.since, self.until = ALWAYS
        self.reserves = False
        self.slot_life = 0.0
        """Seconds for which the slots that it takes are kept; 0: it takes none."""
        self.limiting: list[Limit] = []
        counters: list[bytes] = []
        counters_sent: list[bytes] = []
        indexes_sent: list[bytes] = []
        members_sent: list[bytes] = []
        specs: list[bytes] = []
        for limit in self.ordered:
            if limit.limit is None:
                continue
            one = limit.packed
            if one is None or one.keys is not keys or not one.since <= now < one.until:
                one = PackedLimit.of(limit, keys, now)
            self.limiting.append(limit)
            counters.append(one.counter)
            counters_sent.append(one.counter_sent)
            indexes_sent.append(one.index_sent)
            members_sent.append(one.member_sent)
            specs.append(one.spec)
            if one.until != ALWAYS[1]:
                self.since, self.until = max(self.since, one.since), min(self.until, one.until)
            if one.reserves:
                self.reserves = True
                if one.takes_slot and limit.lease_ttl > self.slot_life:
                    self.slot_life = limit.lease_ttl
        self.count = len(counters)
        self.counters = tuple(counters)
        if len(set(counters)) != self.count:
            raise ValueError("one request names the same counter twice")
        self.counters_sent, self.indexes_sent = b"".join(counters_sent), b"".join(indexes_sent)
        self.members_sent, self.specs = b"".join(members_sent), b"".join(specs)

    @classmethod
    def of(cls, limits: Sequence[Limit], keys: Keys, now: int) -> PackedLimits:
        """The packed form, which is kept with a `LimitSet` for as long as `keys` are the same and it is true."""
        if type(limits) is not LimitSet:
            return cls(limits, keys, now)
        known = limits.packed
        if known is None or known.keys is not keys or not known.since <= now < known.until:
            known = limits.packed = cls(limits, keys, now)
        return known
