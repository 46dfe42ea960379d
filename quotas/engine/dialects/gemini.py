"""Gemini: no headers; `google.rpc` details in the body, which may be a list or JSON inside a string.

https://ai.google.dev/gemini-api/docs/rate-limits
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from quotas.engine.dialects import numbers
from quotas.engine.dialects.findings import Reading, by_status, count_usage, usage_in
from quotas.engine.dialects.response import Answer, dig
from quotas.engine.dialects.retry_hints import retry_delay

_PACIFIC = "America/Los_Angeles"


def read(answer: Answer) -> Reading:
    """A daily quota waits for midnight Pacific, whatever short `retryDelay` comes with it."""
    reading = by_status(answer)
    reading.resource = ""
    body = next((part for part in answer.parts if isinstance(dig(part, "error"), dict)), None)
    count_usage(reading, usage_in(answer, ("usageMetadata",), ("response", "usageMetadata")), "totalTokenCount")
    details = dig(body, "error", "details")
    if not isinstance(details, list) or reading.category == "ok":
        return reading
    for detail in details[:50]:
        kind = dig(detail, "@type")
        if isinstance(kind, str) and kind.endswith("QuotaFailure"):
            _violations(dig(detail, "violations"), reading)
        elif dig(detail, "reason") == "MODEL_CAPACITY_EXHAUSTED":
            reading.category, reading.scope = "server", "model"
        elif reading.category == "rate_limited" and "PerDay" in str(dig(detail, "metadata", "quota_limit")):
            reading.category = "quota_exhausted"
    delay = retry_delay(details)
    if delay is not None and reading.category != "validation":
        reading.hint = delay
    if reading.category == "quota_exhausted":
        reading.hint = max(delay or 0.0, _until_midnight(answer.clock))
    return reading


def _violations(violations: Any, reading: Reading) -> None:
    for violation in violations[:50] if isinstance(violations, list) else []:
        quota = f"{dig(violation, 'quotaId')} {dig(violation, 'quotaMetric')}"
        daily = "PerDay" in quota
        if numbers.whole(dig(violation, "quotaValue")) == 0:  # this model is not part of the account's plan
            reading.category, reading.scope = "quota_exhausted", "model"
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
