"""Mistral: `x-ratelimit-{limit,remaining}-{req,tokens}-{minute,month}`, and what the call cost; mostly without resets."""

from __future__ import annotations

from quotas.engine.dialects import numbers
from quotas.engine.dialects.findings import Reading, by_status, reset_of, trio
from quotas.engine.dialects.openai import use_of
from quotas.engine.dialects.response import Answer

_MONTH = 30 * 86400.0


def read(answer: Answer) -> Reading:
    """The minute's quotas as `requests` and `tokens`, the month's beside them."""
    reading = by_status(answer)
    reading.resource = ""
    for name, unit, window in (
        ("req-minute", "requests", 60.0),
        ("tokens-minute", "tokens", 60.0),
        ("req-month", "requests_month", _MONTH),
        ("tokens-month", "tokens_month", _MONTH),
    ):
        quota = trio(answer, "x-ratelimit-", suffix=f"-{name}")
        reset = reset_of(answer, f"x-ratelimit-reset-{name}", "delta")
        reading.learn(unit, **quota, reset_after=reset, window=window)
    month = [quota for unit, quota in reading.learned.items() if unit in ("requests_month", "tokens_month")]
    if reading.category == "rate_limited" and any(quota.remaining == 0 for quota in month):
        reading.category = "quota_exhausted"
    cost = numbers.whole(answer.get("x-ratelimit-tokens-query-cost"))
    if cost is not None:
        reading.usage["tokens"] = cost
    use_of(answer, reading)
    return reading
