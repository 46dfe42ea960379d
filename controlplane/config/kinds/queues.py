"""Sections `retry_policies` and `queues`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from controlplane.config import readers
from controlplane.config.document import Mistake, Node
from controlplane.config.kinds.base import Kind, Reference
from controlplane.config.records import Item, Member, Mistakes, Record, duration
from queues.errors import CATEGORIES
from queues.models import Queue, RetryPolicy
from queues.services import uses
from quotas import durations
from quotas.models import Pool
from quotas.services.in_use import Use

STRATEGIES = ("exponential", "linear", "fixed", "smart")
_EXCEPTION = Record(
    (
        Member("strategy", readers.choice(STRATEGIES[:3]), None),
        duration("initial", readers.seconds(), None),
        duration("max", readers.seconds(), None),
    )
)


def _by_category(node: Node) -> dict[str, Any]:
    if not isinstance(node.data, dict):
        raise node.wrong("must be categories with `never` or with {initial, max}")
    exceptions: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    for category, inner in node.data.items():
        try:
            exceptions[category] = _exception(category, inner)
        except Mistake as mistake:
            mistakes.append(mistake)
        except Mistakes as several:
            mistakes += several.mistakes
    if mistakes:
        raise Mistakes(mistakes)
    return exceptions


def _exception(category: str, node: Node) -> Any:
    if category not in CATEGORIES:
        raise node.unknown(category, CATEGORIES)
    if node.data == "never":
        return "never"
    if not isinstance(node.data, dict):
        raise node.wrong("must be `never`, or a mapping such as {initial: 500ms, max: 4s}")
    given = {name: value for name, value in _EXCEPTION.read(node).items() if value is not None}
    if given.get("initial", 0) > given.get("max", math.inf):
        raise node.data["initial"].wrong("is above the maximum")
    return given


def _show_by_category(exceptions: dict[str, Any]) -> dict[str, Any]:
    def shown(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: durations.render(item) if name != "strategy" else item for name, item in value.items()}

    return {category: shown(value) for category, value in exceptions.items()}


def _check(node: Node, item: Item) -> None:
    if item["initial"] > item["max"]:
        raise node.data.get("initial", node).wrong("is above the maximum")


class RetryPolicies(Kind):
    section, word = "retry_policies", "retry policy"
    record = Record(
        (
            Member("name", readers.name),
            Member("strategy", readers.choice(STRATEGIES), "exponential"),
            duration("initial", readers.seconds(), 1.0),
            duration("max", readers.seconds(), 60.0),
            Member("max_attempts", readers.whole(1, 1000), 5),
            Member("jitter", readers.share, 0.1),
            Member("by_category", _by_category, dict, _show_by_category),
            Member("auto_replays", readers.whole(0, 100), 0),
            duration("auto_replay_after", readers.seconds(), 900.0),
        ),
        _check,
    )

    def stored(self) -> dict[str, Item]:
        return {
            row.name: {member.name: getattr(row, member.name) for member in self.record.members}
            for row in RetryPolicy.objects.all()
        }

    def save(self, item: Item, before: Item | None) -> None:
        row = RetryPolicy.objects.filter(name=item["name"]).first() or RetryPolicy()
        for name, value in item.items():
            setattr(row, name, value)
        row.save()

    def row(self, item: Item) -> RetryPolicy | None:
        return RetryPolicy.objects.filter(name=item["name"]).first()


class Queues(Kind):
    section, word = "queues", "queue"
    record = Record(
        (
            Member("name", readers.name),
            Member("max_size", readers.nullable(readers.whole(0, 2**31 - 1)), 100_000),
            duration("timeout", readers.seconds(0.1), 600.0),
            Member("retry_policy", readers.nullable(readers.name), None),
            Member("pool", readers.nullable(readers.name), None),
            Member("concurrency", readers.nullable(readers.whole(0, 1_000_000)), None),
            Member("lane", readers.choice(("io", "cpu")), "io"),
            Member("priority_levels", readers.whole(1, 10), 10),
        )
    )

    def references(self, item: Item) -> Iterable[Reference]:
        if item["retry_policy"] is not None:
            yield "retry_policies", item["retry_policy"], "retry_policy"
        if item["pool"] is not None:
            yield "pools", item["pool"], "pool"

    def stored(self) -> dict[str, Item]:
        return {
            row.name: {
                "name": row.name,
                "max_size": row.max_size,
                "timeout": row.timeout,
                "retry_policy": row.retry_policy.name if row.retry_policy else None,
                "pool": row.pool.name if row.pool else None,
                "concurrency": row.concurrency,
                "lane": row.lane,
                "priority_levels": row.priority_levels,
            }
            for row in Queue.objects.select_related("retry_policy", "pool")
        }

    def save(self, item: Item, before: Item | None) -> None:
        row = Queue.objects.filter(name=item["name"]).first() or Queue(name=item["name"])
        for name in ("max_size", "timeout", "concurrency", "lane", "priority_levels"):
            setattr(row, name, item[name])
        retry, pool = item["retry_policy"], item["pool"]
        row.retry_policy = RetryPolicy.objects.get(name=retry) if retry is not None else None
        row.pool = Pool.objects.get(name=pool) if pool is not None else None
        row.save()

    def loses(self, item: Item, before: Item) -> list[Use]:
        """A queue that no longer names a pool: jobs that wait in it may need an account of that pool."""
        row = self.row(item)
        if row is None or before["pool"] is None or item["pool"] is not None:
            return []
        return list(uses.waiting_for_queues_pool(row))

    def row(self, item: Item) -> Queue | None:
        return Queue.objects.filter(name=item["name"]).first()
