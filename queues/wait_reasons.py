"""Why groups wait: published in Redis by the dispatcher, read by explanations and batches.

Times are Redis's own: what one host has written, a host with another clock reads the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from queues import connection
from queues.states import GroupKey

GROUP_WAIT_TTL = 120
"""Seconds that a group's wait is kept in Redis."""
GRACE = 5.0
"""Seconds that a wait is still shown after its end: the dispatcher publishes the next one meanwhile."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What limits a group: the reason code, the reason in words, the name of the policy or pool, seconds until it ends
    if known."""

    code: str
    reason: str
    name: str | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class GroupWait:
    """The published wait of a group. `until` is None if only an operator can help."""

    code: str
    reason: str
    binding: str | None
    until: datetime | None


def _field(group: GroupKey) -> str:
    return ":".join(str(part) for part in group)


def publish(bindings: Mapping[GroupKey, Binding]) -> None:
    """Publish what each of the groups waits for; it expires by itself."""
    if not bindings:
        return
    at = connection.server_time()
    mapping = {
        _field(group): json.dumps(
            {
                "code": binding.code,
                "reason": binding.reason,
                "binding": binding.name,
                "until": None if binding.seconds is None else at + binding.seconds,
                "at": at,
            }
        )
        for group, binding in bindings.items()
    }
    name = connection.key("waits")
    with connection.client().pipeline(transaction=False) as pipeline:
        pipeline.hset(name, mapping=mapping)  # type: ignore[arg-type]
        pipeline.expire(name, GROUP_WAIT_TTL)
        pipeline.execute()


def read_group_waits(groups: Sequence[GroupKey]) -> dict[GroupKey, GroupWait]:
    """The published waits of those of the groups that have one, in their order; none if Redis is unavailable."""
    raws, now = connection.read_hints("waits", [_field(group) for group in groups])
    found: dict[GroupKey, GroupWait] = {}
    for group, raw in zip(groups, raws, strict=True):
        if raw is not None and _is_current(wait := json.loads(raw), now):
            until = wait["until"]
            found[group] = GroupWait(
                str(wait["code"]),
                str(wait["reason"]),
                wait.get("binding"),
                None if until is None else datetime.fromtimestamp(float(until), tz=UTC),
            )
    return found


def _is_current(wait: Mapping[str, Any], now: float) -> bool:
    """Whether it was published in the last `GROUP_WAIT_TTL` seconds and its end has not passed."""
    if "code" not in wait:
        return False  # by a dispatcher of an earlier version
    return now - wait["at"] <= GROUP_WAIT_TTL and (wait["until"] is None or wait["until"] >= now - GRACE)
