"""A limit as it is sent: its keys, its index member and its spec, packed once per limit and not once per check."""

from __future__ import annotations

import sys

from quotas.engine.keys import Keys, subject
from quotas.engine.limits import codec
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
