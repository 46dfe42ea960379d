"""The keys that settling a lease needs: remembered by the process that acquired it, or read from the lease's record."""

from __future__ import annotations

from collections import OrderedDict

from quotas.engine.keys import Keys
from quotas.engine.redis.scripts import bulk

REMEMBERED = 10_000
PackedKeys = tuple[int, bytes]
"""How many keys, and the keys as they are sent."""


class LeaseKeys:
    """The leases that this process has acquired and not settled; the oldest are dropped beyond `REMEMBERED`."""

    def __init__(self, keys: Keys) -> None:
        self._prefix = keys.key("a", "l") + b":"
        self._known: OrderedDict[str, PackedKeys] = OrderedDict()

    def key(self, lease: str) -> bytes:
        """The key of a lease's record."""
        return self._prefix + lease.encode()

    def remember(self, lease: str, keys: PackedKeys) -> None:
        """Keep the keys of a lease, so that settling it takes one round trip."""
        self._known[lease] = keys
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def pop(self, lease: str) -> PackedKeys | None:
        """The keys of a lease that this process acquired, once; None for any other."""
        return self._known.pop(lease, None)

    def of_record(self, lease: str, record: bytes) -> PackedKeys:
        """The keys of a lease by its record: another process acquired it."""
        key = self.key(lease)
        if record.startswith(b"="):
            keys = [key] * 5
        else:
            state, pool, statistics, cooldown, *counters = record.partition(b"\n")[0].split(b" ")
            keys = [key, state, pool, statistics, key if cooldown == b"-" else cooldown, *counters]
        return len(keys), b"".join(map(bulk, keys))

    @staticmethod
    def state_key_of(record: bytes) -> bytes | None:
        """The key of the account's state in a lease's record; None if the lease is settled."""
        return None if record.startswith(b"=") else record.partition(b"\n")[0].split(b" ", 1)[0]
