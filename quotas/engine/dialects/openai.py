"""OpenAI. Resets are Go durations until the bucket is full again, not until the next call.

https://platform.openai.com/docs/guides/rate-limits
"""

from __future__ import annotations

import re

from quotas.engine.dialects.findings import Reading, by_status, count_usage, reset_of, trio, usage_in
from quotas.engine.dialects.response import Answer
from quotas.engine.dialects.retry_hints import in_milliseconds

_MODEL = re.compile(r"Rate limit (?:reached )?for (?!organization\b)[\w.:/-]{2,80}")
_DAY = 86400.0
_UNITS = {
    "requests": "requests",
    "tokens": "tokens",
    "tokens_usage_based": "tokens",
    "project-tokens": "project_tokens",
}


def read(answer: Answer) -> Reading:
    """Quota from `x-ratelimit-*`; wait from `retry-after-ms`, `retry-after` or the error's text; use from `usage`."""
    reading = by_status(answer)
    reading.resource = ""
    if answer.has_any("x-ratelimit-"):
        _learn(answer, reading)
    wait_in_ms(answer, reading)
    if reading.category == "rate_limited":
        _scope_to_model(answer, reading)
    if answer.status == 401 and "Incorrect API key provided" in reading.message[:200]:  # relays may drop the code
        reading.refuse_credential()
    use_of(answer, reading)
    return reading


def _learn(answer: Answer, reading: Reading) -> None:
    for suffix, unit in _UNITS.items():
        if unit in reading.learned:
            continue
        quota = trio(answer, "x-ratelimit-", suffix=f"-{suffix}")
        reset = reset_of(answer, f"x-ratelimit-reset-{suffix}", "go")
        reading.learn(unit, **quota, reset_after=reset, window=_window(quota, reset), kind="bucket")


def use_of(answer: Answer, reading: Reading) -> None:
    """Tokens of a document, of a stream's chunks (also Groq's `x_groq`), and of the Responses API's last event."""
    totals = usage_in(answer, ("usage",), ("response", "usage"), ("x_groq", "usage"))
    if totals.get("total_tokens"):
        count_usage(reading, totals, "total_tokens")
    else:
        count_usage(reading, totals, "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
    count_usage(reading, totals, "total_tokens")


def wait_in_ms(answer: Answer, reading: Reading) -> None:
    """`retry-after-ms` is more exact than `retry-after`, which has been read."""
    if reading.category not in ("ok", "validation") and (wait := in_milliseconds(answer)):
        reading.hint = wait


def _scope_to_model(answer: Answer, reading: Reading) -> None:
    if _MODEL.search(reading.message[:4000]):
        reading.scope = "model"


def _window(quota: dict[str, int | None], reset: float | None) -> float | None:
    """How long the whole limit takes to refill: (limit - remaining) units need `reset` seconds. At least a minute, and
    either a minute or a day where too little is missing to conclude more."""
    limit, remaining = quota["limit"], quota["remaining"]
    if not limit or remaining is None:
        return None
    if reset is None or remaining >= limit:
        return 60.0
    whole = reset * limit / (limit - remaining)
    if limit - remaining >= limit / 10:
        return max(60.0, whole)
    return _DAY if 0.8 < whole / _DAY < 1.2 else 60.0
