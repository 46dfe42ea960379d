"""Use of limits as the API shows it: now, and over time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from quotas.engine.types import LimitState
from quotas.models import UsageRollup
from quotas.services import adaptive, usage
from quotas.shapes import Page, Shape, field


class Standing(Shape):
    configured: int = field(help="The limit as it is written down; `limit` is where it is now.")
    floor: int
    ceiling: int
    why: str = field(help="Why it moved last; empty where it has not.")
    since: datetime | None


class UsageRow(Shape):
    policy: str
    scope: str
    key: str
    project: str | None = field("partition", blank_is_null=True)
    unit: str
    algorithm: str
    limit: int | None
    used: int
    remaining: int | None
    ratio: float | None
    reset_after: float = field(digits=6)
    adaptive: Standing | None


class Usage(Shape):
    results: list[UsageRow]


class HistoryRow(Shape):
    policy: str = field("policy.name")
    scope: str = field("policy.scope")
    key: str
    project: str | None = field(blank_is_null=True)
    unit: str = field("policy.unit")
    start: datetime
    used: int = field(help="The highest that was seen.")
    denied: int = field(help="Checks that the policy refused; in shadow mode, would have refused.")
    limit: int | None
    ratio: float | None


class History(Page):
    results: list[HistoryRow]


def usage_row(state: LimitState, moved: adaptive.Standing | None) -> dict[str, Any]:
    return UsageRow.of(state, ratio=usage.ratio(state), adaptive=moved)


def history_row(row: UsageRollup) -> dict[str, Any]:
    return HistoryRow.of(row, ratio=usage.share(row.used, row.policy.capacity(row.limit)))
