"""The counters of limits on the server: what recent subjects have used, and clearing counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from quotas.engine.keys import SHOWN, Keys, parse_member, subject
from quotas.engine.limits import codec
from quotas.engine.limits.requests import INDEX_SIZE
from quotas.engine.redis.scripts import Call, load
from quotas.engine.redis.transport import Transport
from quotas.engine.types import Limit, LimitState

PAGE = 1000


class Counters:
    """Shows and resets the counters. `clock` returns microseconds; None: the server's own time decides."""

    def __init__(self, transport: Transport, keys: Keys, clock: Callable[[], int] | None = None) -> None:
        self.transport = transport
        self.keys = keys
        self.clock = clock
        self._peek = load("check", read_only=True)
        self._ahead = 0
        """Microseconds by which the server's clock was seen ahead of ours: for calendar boundaries only."""

    def now(self) -> int:
        """A guess at the server's time in microseconds, without a call."""
        return self.clock() if self.clock else time.time_ns() // 1000 + self._ahead

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

    def reset_where(self, template: Limit, wanted: Callable[[str, str], bool]) -> int:
        """Clear the counters of those recent subjects for which `wanted(partition, subject)`. Returns how many."""
        cleared = 0
        for page in self._recent(template):
            keys = [
                self.keys.counter_of(template, hashed)
                for hashed, partition, subject in page
                if wanted(partition, subject)
            ]
            if keys:
                cleared += int(self.transport.command("UNLINK", *keys))
        return cleared

    def _recent(self, template: Limit) -> Iterator[list[tuple[bytes, str, str]]]:
        """Pages of (hash, partition, subject as far as it is kept), newest first. The template's own subject is ignored."""
        index, start = self.keys.index(template), 0
        while members := self.transport.command("ZREVRANGE", index, str(start), str(start + PAGE - 1)):
            start += PAGE
            yield [parse_member(member) for member in members]
