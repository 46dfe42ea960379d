"""OpenAI. Resets are Go durations until the bucket is full again, not until the next call.

https://platform.openai.com/docs/guides/rate-limits
"""

from __future__ import annotations

import re

from quotas.engine.headers import numbers, waits
from quotas.engine.headers.answer import Answer
from quotas.engine.headers.reading import LIMITED, Reading, by_status, count_usage, reset_of, trio

_TRY_AGAIN = re.compile(r"(?:try again|retry) (?:in|after) ((?:[0-9]{1,9}(?:\.[0-9]{1,9})? ?(?:h|ms|m|seconds?|s))+)")
_MODEL = re.compile(r"Rate limit (?:reached )?for (?!organization\b)[\w.:/-]{2,80}")
_DAY = 86400.0
BAD_KEYS = frozenset({"invalid_api_key", "account_deactivated", "organization_deactivated", "token_expired"})
"""Values of `error.code` that are about the key or the account behind it, whatever was asked for."""
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
    for suffix, unit in _UNITS.items():
        if unit in reading.learned:
            continue
        quota = trio(answer, "x-ratelimit-", suffix=f"-{suffix}")
        reset = reset_of(answer, f"x-ratelimit-reset-{suffix}", "go")
        reading.learn(unit, **quota, reset_after=reset, window=_window(quota, reset), kind="bucket")
    wait_in_ms(answer, reading)
    if reading.category == "rate_limited":
        _tell_quota_apart(answer, reading)
    if answer.text_at("error", "code") in BAD_KEYS:
        reading.refuse_credential()
    count_usage(reading, answer.at("usage"), "total_tokens")
    return reading


def wait_in_ms(answer: Answer, reading: Reading) -> None:
    """The more exact hints: `retry-after-ms`, then `retry-after` (already read), then the error's text."""
    if reading.category in ("ok", "validation"):
        return
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        number = numbers.decimal(answer.get(name))
        if number is not None and waits.bounded(number / 1000):
            reading.hint = waits.bounded(number / 1000)
            return
    if reading.hint is None and reading.category in LIMITED:
        reading.hint = wait_in_text(reading.message)


def wait_in_text(text: str) -> float | None:
    """The wait in "Please try again in 6m0.5s" or "Please retry after 6 seconds"."""
    match = _TRY_AGAIN.search(text[:4000])
    if match is None:
        return None
    return waits.bounded(numbers.go_duration(re.sub(r" ?seconds?", "s", match[1]).replace(" ", "")))


def _tell_quota_apart(answer: Answer, reading: Reading) -> None:
    codes = {answer.text_at("error", "code"), answer.text_at("error", "type")}
    if codes & {"insufficient_quota", "billing_hard_limit_reached"}:
        reading.category = "quota_exhausted"
    elif _MODEL.search(reading.message[:4000]):
        reading.scope = "model"


def _window(quota: dict[str, int | None], reset: float | None) -> float | None:
    """A minute, or a day where the refill is that slow: (limit - remaining) units need `reset` seconds."""
    limit, remaining = quota["limit"], quota["remaining"]
    if not limit or remaining is None:
        return None
    if reset is None or remaining >= limit:
        return 60.0
    return _DAY if reset * limit / (limit - remaining) > 1800 else 60.0
