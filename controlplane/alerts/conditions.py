"""Conditions of alert rules: a count or a share within a time, such as `dead_letters > 5% in 10m of imports`.

measure     dead_letters: jobs of a queue that became dead letters; share: of the queue's jobs that ended
            call_errors: calls of a pool that failed; share: of its calls
of NAME     only this queue or pool; without it each one is looked at by itself
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Sum

from controlplane.alerts import kinds
from controlplane.alerts.kinds import Trouble
from controlplane.models import AccountSample, AlertRule
from queues.models import Job, Queue
from queues.selectors.ignored_failures import without_ignored_deaths
from queues.states import Stage, Status
from quotas import durations

_FORM = re.compile(
    r"(?P<measure>dead[_ ]letters|call[_ ]errors) *> *(?P<bound>[0-9]{1,9}(?:\.[0-9]{1,3})?) *(?P<share>%?)"
    r" +in +(?P<window>[0-9.]{1,12} *[a-z]+)(?: +of +(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,62}))?",
    re.ASCII,
)
SHORTEST, LONGEST = 60.0, 3600.0
MIN_SAMPLE = 10
"""With fewer jobs or calls in the time no share is computed."""
_UNITS = {"min": "m", "minutes": "m", "minute": "m", "hour": "h", "hours": "h"}
NOUNS = {"dead_letters": ("queue", "jobs became dead letters"), "call_errors": ("pool", "calls failed")}


class BadCondition(ValueError):
    """Not a condition: write `dead_letters > 5% in 10m`, `call_errors > 100 in 5m of POOL` or the like."""


@dataclass(frozen=True, slots=True)
class Condition:
    measure: str
    bound: float
    """A count; of a share, from 0 to 100."""
    is_share: bool
    window: float
    name: str = ""
    """The queue or pool; empty: each one."""

    def __str__(self) -> str:
        of = f" of {self.name}" if self.name else ""
        return f"{self.measure} > {self.bound:g}{'%' * self.is_share} in {durations.render(self.window)}{of}"

    def is_met(self, bad: int, total: int, *, is_open: bool) -> bool:
        """Whether the value exceeds the bound; for an open alert, half of the bound."""
        bound = self.bound / (2 if is_open else 1)
        if not self.is_share:
            return bad > bound
        return total >= MIN_SAMPLE and bad * 100 > bound * total


def parse(text: str) -> Condition:
    """Raises `BadCondition`."""
    found = _FORM.fullmatch(" ".join(text.split()))
    if found is None:
        raise BadCondition(BadCondition.__doc__)
    number, unit = re.fullmatch(r"([0-9.]+) *([a-z]+)", found["window"]).groups()  # type: ignore[union-attr]
    try:
        window = durations.parse(f"{number}{_UNITS.get(unit, unit)}")
    except durations.BadDuration as error:
        raise BadCondition(str(error)) from None
    if not SHORTEST <= window <= LONGEST:
        raise BadCondition("The time must be from 1m to 1h.")
    bound, is_share = float(found["bound"]), bool(found["share"])
    if is_share and bound >= 100:
        raise BadCondition("A share must be below 100%.")
    return Condition(found["measure"].replace(" ", "_"), bound, is_share, window, found["name"] or "")


def troubles(now: datetime, is_open: Callable[[tuple[str, str]], bool]) -> Iterator[Trouble]:
    """The problems that the conditions of all enabled rules find."""
    counted: dict[tuple[str, float], dict[str, tuple[int, int]]] = {}
    for rule in AlertRule.objects.filter(enabled=True).exclude(conditions=[]).defer("to"):
        for text in rule.conditions:
            condition = parse(text)
            key = condition.measure, condition.window
            if key not in counted:
                counted[key] = _COUNTS[condition.measure](now, timedelta(seconds=condition.window))
            for name, (bad, total) in counted[key].items():
                if condition.name in ("", name):
                    trouble = trouble_of(rule.name, condition, name, bad, total)
                    if condition.is_met(bad, total, is_open=is_open(trouble.place)):
                        yield trouble


def trouble_of(rule: str, condition: Condition, name: str, bad: int, total: int) -> Trouble:
    noun, what = NOUNS[condition.measure]
    share = f" ({bad / total:.1%})" if total else ""
    span = durations.render(condition.window)
    summary = (
        f"Rule {rule}: {bad:,} of {total:,} {what} in {noun} {name} within {span}{share}; its condition is {condition}."
    )
    facts = {"rule": rule, "condition": str(condition), noun: name, "count": bad, "total": total}
    return Trouble(kinds.CONDITION, f"{rule}: {condition} ({name})", summary, "warning", facts=facts)


def _dead_letters(now: datetime, span: timedelta) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    counted = without_ignored_deaths(Job.objects.filter(stage=Stage.DONE, finished_at__gt=now - span), now).order_by()
    for queue in Queue.objects.all():
        rows = counted.filter(queue=queue)
        died = rows.filter(status=Status.DEAD).count()
        if died:
            found[queue.name] = died, rows.exclude(status=Status.CANCELLED).count()
    return found


def _call_errors(now: datetime, span: timedelta) -> dict[str, tuple[int, int]]:
    rows = AccountSample.objects.filter(at__gte=now - span).order_by().values_list("account__pool__name")
    sums: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for pool, succeeded, failed in rows.annotate(Sum("succeeded"), Sum("failed")):
        sums[pool], failures[pool] = succeeded + failed, failed
    return {pool: (failures[pool], total) for pool, total in sums.items() if failures[pool]}


_COUNTS: dict[str, Callable[[datetime, timedelta], dict[str, tuple[int, int]]]] = {
    "dead_letters": _dead_letters,
    "call_errors": _call_errors,
}
