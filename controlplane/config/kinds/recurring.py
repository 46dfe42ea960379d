"""Section `recurring`."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.config import readers
from controlplane.config.document import Node
from controlplane.config.kinds.base import Kind, Reference
from controlplane.config.records import Item, Member, Record
from queues import registry
from queues.models import Queue, Recurring
from queues.services.recurring import is_cron
from quotas.engine.priorities import PRIORITIES
from quotas.models import Project


def _cron(node: Node) -> str:
    if not isinstance(node.data, str) or not is_cron(node.data):
        raise node.wrong("must be a cron expression of five fields that names some time, such as `0 3 * * *`")
    return node.data


def _priority(node: Node) -> int:
    value = PRIORITIES.get(node.data) if isinstance(node.data, str) else node.data
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9:
        raise node.wrong("must be `high`, `normal`, `low` or a whole number from 0 to 9")
    return value


def _check(node: Node, item: Item) -> None:
    job_type = registry.get(item["type"])
    if job_type is None:
        raise node.data["type"].wrong(f"is no job type; known are {', '.join(registry.names())}")
    for error in job_type.validate(item["payload"], "/payload"):
        raise node.data.get("payload", node).wrong(f"{error.pointer}: {error.detail}")


class RecurringJobs(Kind):
    section, word = "recurring", "recurring job"
    record = Record(
        (
            Member("name", readers.name),
            Member("cron", _cron),
            Member("timezone", readers.timezone, "UTC"),
            Member("type", readers.text(200)),
            Member("project", readers.name),
            Member("queue", readers.nullable(readers.name), None),
            Member("priority", _priority, 5),
            Member("payload", readers.mapping, dict),
        ),
        _check,
    )

    def references(self, item: Item) -> Iterable[Reference]:
        yield "projects", item["project"], "project"
        if item["queue"] is not None:
            yield "queues", item["queue"], "queue"
        job_type = registry.get(item["type"])
        pool = job_type.pool(item["payload"]) if job_type is not None else None
        if pool is not None:
            yield "pools", pool, "payload" if item["payload"].get("pool") == pool else "type"

    def stored(self) -> dict[str, Item]:
        return {
            row.name: {
                "name": row.name,
                "cron": row.cron,
                "timezone": row.timezone,
                "type": row.type,
                "project": row.project.slug,
                "queue": row.queue.name if row.queue else None,
                "priority": row.priority,
                "payload": row.payload,
            }
            for row in Recurring.objects.select_related("project", "queue")
        }

    def save(self, item: Item, before: Item | None) -> None:
        row = Recurring.objects.filter(name=item["name"]).first() or Recurring(name=item["name"])
        for name in ("cron", "timezone", "type", "priority", "payload"):
            setattr(row, name, item[name])
        row.project = Project.objects.get(slug=item["project"])
        row.queue = Queue.objects.get(name=item["queue"]) if item["queue"] is not None else None
        if before is None or any(before[name] != item[name] for name in ("cron", "timezone")):
            row.next_at = None  # another expression starts from now on; any other change loses no tick that is due
        row.save()

    def row(self, item: Item) -> Recurring | None:
        return Recurring.objects.filter(name=item["name"]).first()
