"""Anthropic. Resets are RFC 3339 times of the full refill; `tokens` is the most restrictive of its token limits.

https://docs.anthropic.com/en/api/rate-limits
"""

from __future__ import annotations

import re

from quotas.engine.dialects.findings import Reading, by_status, count_usage, reset_of, trio, usage_in
from quotas.engine.dialects.response import Answer

_UNITS = {
    "requests": "requests",
    "tokens": "tokens",
    "input-tokens": "input_tokens",
    "output-tokens": "output_tokens",
}
_BAD_KEY = re.compile(r"(?i)invalid (?:x-api-key|bearer token|api key)|token has (?:expired|been revoked)")


def read(answer: Answer) -> Reading:
    """Quota by unit, the plan's unified window where it is rejected, use from `usage` (cache reads are not counted)."""
    reading = by_status(answer)
    reading.resource = ""
    for name, unit in _UNITS.items():
        quota = trio(answer, f"anthropic-ratelimit-{name}-")
        reset = reset_of(answer, f"anthropic-ratelimit-{name}-reset", "rfc3339")
        reading.learn(unit, **quota, reset_after=reset, window=60.0, kind="bucket")
    if reading.category == "rate_limited":
        _unified(answer, reading)
    kind = answer.text_at("error", "type")
    if kind == "overloaded_error":
        reading.category = "server"
    elif kind == "authentication_error" and _BAD_KEY.search(reading.message):
        reading.refuse_credential()
    count_usage(
        reading,
        usage_in(answer, ("usage",), ("message", "usage")),
        "input_tokens",
        "cache_creation_input_tokens",
        "output_tokens",
    )
    return reading


def _unified(answer: Answer, reading: Reading) -> None:
    """A subscription's window that is used up: hours rather than seconds, so quota and not rate."""
    if answer.get("anthropic-ratelimit-unified-status") != "rejected":
        return
    reading.category = "quota_exhausted"
    if reading.hint is None:
        reading.hint = reset_of(answer, "anthropic-ratelimit-unified-reset", "epoch")
