"""The recent subjects of a policy: who has used it, and clearing some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from quotas.engine.keys import parse_member
from quotas.engine.limits.limiter import Limiter
from quotas.engine.types import Limit

PAGE = 1000


def recent(limiter: Limiter, template: Limit) -> Iterator[list[tuple[bytes, str, str]]]:
    """Pages of (hash, partition, subject as far as it is kept), newest first. The template's own subject is ignored."""
    index, start = limiter.keys.index(template), 0
    while members := limiter.transport.command("ZREVRANGE", index, str(start), str(start + PAGE - 1)):
        start += PAGE
        yield [parse_member(member) for member in members]


def reset_where(limiter: Limiter, template: Limit, wanted: Callable[[str, str], bool]) -> int:
    """Clear the counters of those recent subjects for which `wanted(partition, subject)`. Returns how many."""
    cleared = 0
    for page in recent(limiter, template):
        keys = [
            limiter.keys.counter_of(template, hashed)
            for hashed, partition, subject in page
            if wanted(partition, subject)
        ]
        if keys:
            cleared += int(limiter.transport.command("UNLINK", *keys))
    return cleared
