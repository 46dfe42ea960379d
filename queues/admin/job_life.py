"""A job's life as a chart: a row for each cause of waiting and one for its attempts, on one axis of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest

from queues import redaction
from queues.admin import reason_links
from queues.models import Attempt, Job
from queues.reason_codes import REASONS
from queues.selectors.wait_history import DEAD, RUNNING, Span, spans_of
from quotas.moments import spell_moment, zone_of

FINEST = 0.002
"""Bars of one row that are closer to each other than this share of the chart are drawn as one."""
NARROWEST = 0.3
"""Per cent of the width that a bar has at least, so that it can be seen and pointed at."""
MOST_ROWS = 12
TICKS = 4
ATTEMPTS = 100
"""Newest ones that the page lists."""


@dataclass(slots=True)
class Bar:
    """`left` and `width` are per cent of the chart."""

    left: float
    width: float
    title: str
    failed: bool = False


@dataclass(slots=True)
class Row:
    """One line of the chart. `tone` is a number of the style sheet's colours, or `running` or `dead`."""

    label: str
    tone: str
    seconds: float
    bars: list[Bar] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wait:
    """One line of the sums below the chart."""

    label: str
    name: str
    seconds: float
    share: float
    means: str
    remedy: str
    link: reason_links.Link | None
    tone: str


@dataclass(frozen=True, slots=True)
class Life:
    rows: list[Row]
    ticks: list[tuple[float, str]]
    began: str
    ended: str
    seconds: float
    waits: list[Wait]
    waited: float


def drawn(job: Job, request: HttpRequest) -> Life | None:
    """None where nothing has passed yet."""
    spans = spans_of(job)
    if not spans:
        return None
    began, ended = spans[0].began_at, max(span.ended_at for span in spans)
    whole = (ended - began).total_seconds()
    if whole <= 0:
        return None
    attempts = {attempt.started_at: attempt for attempt in Attempt.objects.filter(job=job) if attempt.started_at}
    by_cause: dict[tuple[str, str], list[Span]] = {}
    for span in spans:
        key = (span.code, "" if span.code in (RUNNING, DEAD) else span.name)
        by_cause.setdefault(key, []).append(span)
    longest = sorted(by_cause, key=lambda key: -_sum(by_cause[key]))[:MOST_ROWS]
    shown = [key for key in by_cause if key in longest]
    tones = _tones(shown)
    rows = [
        Row(_label(*key), tones[key], _sum(by_cause[key]), list(_bars(by_cause[key], began, whole, attempts)))
        for key in shown
    ]
    waits = _waits(job, request, by_cause, tones)
    return Life(
        rows=rows,
        ticks=[(100 * at / TICKS, _offset(whole * at / TICKS)) for at in range(TICKS + 1)],
        began=_time(began),
        ended=_time(ended),
        seconds=whole,
        waits=waits,
        waited=sum(_sum(some) for (code, _), some in by_cause.items() if code not in (RUNNING, DEAD)),
    )


def attempts(job: Job) -> list[dict[str, Any]]:
    """Newest first, with the seconds that each took; the errors without the secrets in URLs."""
    return [
        {
            "row": attempt,
            "seconds": (attempt.ended_at - attempt.started_at).total_seconds() if attempt.started_at else None,
            "error": redaction.hide_in_text(attempt.error),
        }
        for attempt in job.attempts.order_by("-number").defer("traceback")[:ATTEMPTS]
    ]


def sums(seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Seconds by reason code, as a page shows them."""
    whole = sum(seconds.values()) or 1.0
    return [
        {"reason": REASONS[code], "code": code, "seconds": count, "share": round(100 * count / whole)}
        for code, count in seconds.items()
        if code in REASONS
    ]


def _sum(spans: Iterable[Span]) -> float:
    return sum(span.seconds for span in spans)


def _tones(keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """A colour for each row: waits are numbered in order of appearance."""
    found: dict[tuple[str, str], str] = {}
    number = 0
    for key in keys:
        if key[0] in (RUNNING, DEAD):
            found[key] = key[0]
        else:
            found[key] = f"wait{number % 6}"
            number += 1
    return found


def _label(code: str, name: str) -> str:
    if code == RUNNING:
        return "Running"
    if code == DEAD:
        return "Dead, not replayed"
    words = REASONS[code].label if code in REASONS else code
    return f"{words[:1].upper()}{words[1:]}" + (f": {name}" if name else "")


def _bars(spans: list[Span], began: datetime, whole: float, attempts: dict[Any, Attempt]) -> Iterator[Bar]:
    group: list[Span] = []
    for span in spans:
        apart = group and (span.began_at - group[-1].ended_at).total_seconds() > FINEST * whole
        if group and (apart or (span.code == RUNNING and len(spans) <= 200)):
            yield _bar(group, began, whole, attempts)
            group = []
        group.append(span)
    if group:
        yield _bar(group, began, whole, attempts)


def _bar(group: list[Span], began: datetime, whole: float, attempts: dict[Any, Attempt]) -> Bar:
    first, last = group[0], group[-1]
    left = 100 * (first.began_at - began).total_seconds() / whole
    width = max(100 * (last.ended_at - first.began_at).total_seconds() / whole, NARROWEST)
    times = f"{_time(first.began_at)} to {_time(last.ended_at)}, {_sum(group):,.3f} s"
    if len(group) > 1:
        times += f" in {len(group):,} parts"
    attempt = attempts.get(first.began_at) if first.code == RUNNING else None
    what = _label(first.code, "" if first.code == RUNNING else first.name)
    if attempt is not None:
        where = f" on {attempt.account}" if attempt.account else ""
        what = f"Attempt {attempt.number}{where}, {attempt.outcome.replace('_', ' ')}"
    return Bar(
        round(min(left, 100 - NARROWEST), 3),
        round(min(width, 100 - min(left, 100 - NARROWEST)), 3),
        f"{what}: {times}",
        failed=attempt is not None and attempt.outcome not in ("succeeded", "completed"),
    )


def _waits(
    job: Job,
    request: HttpRequest,
    by_cause: dict[tuple[str, str], list[Span]],
    tones: dict[tuple[str, str], str],
) -> list[Wait]:
    sums = {key: _sum(some) for key, some in by_cause.items() if key[0] in REASONS}
    whole = sum(sums.values()) or 1.0
    found = []
    for (code, name), seconds in sorted(sums.items(), key=lambda item: -item[1])[:MOST_ROWS]:
        reason = REASONS[code]
        found.append(
            Wait(
                label=_label(code, ""),
                name=name,
                seconds=seconds,
                share=100 * seconds / whole,
                means=reason.means,
                remedy=reason.remedy,
                link=reason_links.find(request, job, code, name),
                tone=tones.get((code, name), "wait0"),
            )
        )
    return found


def _time(at: datetime) -> str:
    return f"{spell_moment(at, zone=False)}.{at.microsecond // 1000:03} {zone_of(at)}"


def _offset(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds else "0"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return str(timedelta(seconds=round(seconds)))
