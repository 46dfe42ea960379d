"""Gemini: no headers; `google.rpc` details in the body, which may be a list or JSON inside a string.

https://ai.google.dev/gemini-api/docs/rate-limits
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from quotas.engine.headers import numbers, waits
from quotas.engine.headers.answer import Answer, dig
from quotas.engine.headers.reading import Reading, by_status, count_usage

_PACIFIC = "America/Los_Angeles"
_BAD_KEY = ("API_KEY_INVALID", "API_KEY_EXPIRED", "CONSUMER_SUSPENDED", "CONSUMER_INVALID", "ACCOUNT_STATE_INVALID")


def read(answer: Answer) -> Reading:
    """A daily quota waits for midnight Pacific, whatever short `retryDelay` comes with it."""
    reading = by_status(answer)
    reading.resource = ""
    body = answer.json
    if isinstance(body, list) and body:
        body = body[0]
    count_usage(reading, dig(body, "usageMetadata"), "totalTokenCount")
    details = dig(body, "error", "details")
    if not isinstance(details, list) or reading.category == "ok":
        return reading
    delays: list[float] = []
    for detail in details[:50]:
        kind = dig(detail, "@type")
        kind = kind if isinstance(kind, str) else ""
        if kind.endswith("RetryInfo"):
            delay = dig(detail, "retryDelay")
            seconds = waits.bounded(numbers.go_duration(delay)) if isinstance(delay, str) else None
            delays += [] if seconds is None else [seconds]
        elif kind.endswith("QuotaFailure"):
            _violations(dig(detail, "violations"), reading)
        elif dig(detail, "reason") == "MODEL_CAPACITY_EXHAUSTED":
            reading.category, reading.scope = "server", "model"
        elif dig(detail, "reason") in _BAD_KEY:
            reading.refuse_credential()
    if delays and reading.category != "validation":
        reading.hint = max(delays)
    if reading.category == "quota_exhausted":
        reading.hint = max(delays + [_until_midnight(answer.clock)])
    return reading


def _violations(violations: Any, reading: Reading) -> None:
    for violation in violations[:50] if isinstance(violations, list) else []:
        quota = f"{dig(violation, 'quotaId')} {dig(violation, 'quotaMetric')}"
        daily = "PerDay" in quota
        unit = "tokens" if "oken" in quota else "requests"
        if daily:
            reading.category = "quota_exhausted"
        if "PerModel" in quota:
            reading.scope = "model"
        reading.learn(unit, limit=numbers.whole(dig(violation, "quotaValue")), window=86400.0 if daily else 60.0)


def _until_midnight(clock: float) -> float:
    zone = ZoneInfo(_PACIFIC)
    now = datetime.fromtimestamp(clock, zone)
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), zone)
    return midnight.timestamp() - clock
