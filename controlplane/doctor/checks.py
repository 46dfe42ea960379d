"""All examinations, in the order in which they depend on each other."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.doctor import disk, redis_server, settings, sql, work
from controlplane.doctor.finding import Finding


def examine() -> Iterator[Finding]:
    for part in (settings, disk, sql, redis_server, work):
        yield from part.examine()
