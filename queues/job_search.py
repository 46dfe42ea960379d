"""The search box of the jobs list: `user:cust-3 error:404 queue:imports age:>10m`, each term narrowing the list."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.db.models.fields.json import KeyTextTransform
from django.db.models.lookups import Exact

from queues.models import Job
from quotas import clock

NEWEST = 100_000
"""Terms without an index are looked for among so many of the newest jobs."""
AGE = re.compile(r"([<>])(\d+(?:\.\d+)?)(s|m|h|d)")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
EXACT = {
    "queue": "queue__name", "project": "project__slug", "type": "type", "user": "user", "pool": "pool", "status": "status",
}  # fmt: skip
INDEXED = {"queue", "project", "status", "batch", "id"}
QUALIFIERS = (
    "user:", "key.NAME:", "error:", "queue:", "type:", "age:>10m", "batch:", "account:", "pool:", "policy:", "project:",
    "status:",
)  # fmt: skip


@dataclass
class Search:
    """`terms` as they were typed, each with what is wrong with it, or an empty text."""

    condition: Q = field(default_factory=Q)
    expressions: list[Any] = field(default_factory=list)
    terms: list[tuple[str, str]] = field(default_factory=list)
    scans: bool = False
    now: datetime = field(default_factory=clock.now)

    def apply(self, rows: QuerySet[Job], floor: int | None = None) -> QuerySet[Job]:
        """`floor`: where terms without an index are looked for among jobs with higher primary keys; None: among the newest."""
        if any(wrong for _, wrong in self.terms):
            return rows.none()
        rows = rows.filter(self.condition, *self.expressions)
        if not self.scans:
            return rows
        lowest = scan_floor() if floor is None else floor
        return rows.filter(pk__gt=lowest) if lowest > 0 else rows


def scan_floor() -> int:
    newest = Job.objects.order_by("-id").values_list("id", flat=True).first() or 0
    return int(newest) - NEWEST


def split(text: str) -> list[str]:
    """Words; quotes keep those with spaces together."""
    try:
        return shlex.split(text)
    except ValueError:  # a quote that is not closed yet
        return text.split()


def joined(words: list[str]) -> str:
    return " ".join(shlex.quote(word) if re.search(r"[\s'\"]", word) else word for word in words)


def parse(text: str, now: datetime | None = None) -> Search:
    """`now`: the time from which ages count."""
    found = Search(now=now or clock.now())
    for word in split(text):
        name, colon, value = word.partition(":")
        found.terms.append((word, _add(found, name if colon else "", value if colon else word)))
    return found


def _add(found: Search, name: str, value: str) -> str:
    """Narrow `found` by one term; returns what is wrong with it."""
    if not value:
        return "a value is missing"
    found.scans = found.scans or (bool(name) and name not in INDEXED)
    if not name:
        found.condition &= Q(uid__gte=value, uid__lt=value + "\uffff") | Q(user=value)
        found.scans = True
    elif name == "id":
        found.condition &= Q(uid__gte=value, uid__lt=value + "\uffff")
    elif name in EXACT:
        found.condition &= Q(**{EXACT[name]: value})
    elif name == "batch":
        found.condition &= Q(batch__uid=value) | Q(batch__name=value)
    elif name == "error":
        found.condition &= Q(error__icontains=value) | Q(reason__icontains=value)
    elif name == "account":
        pool, slash, account = value.rpartition("/")
        found.condition &= Q(account__name=account, account__pool__name=pool) if slash else Q(account__name=value)
    elif name == "policy":
        found.condition &= Q(reason__startswith=f"policy {value}")
    elif name.startswith("key.") and name != "key.":
        found.expressions.append(Exact(KeyTextTransform(name.removeprefix("key."), "keys"), value))
    elif name == "age":
        if (age := AGE.fullmatch(value)) is None:
            return "use an age such as >10m or <2h"
        edge = found.now - timedelta(seconds=float(age[2]) * SECONDS[age[3]])
        found.condition &= Q(created_at__lt=edge) if age[1] == ">" else Q(created_at__gt=edge)
    else:
        return f"unknown; known are {', '.join(QUALIFIERS)}"
    return ""
