"""Every explicit wait that an answer may carry, whichever provider's form it has.

Gateways and compatible servers answer in one provider's shape with another one's hints, so that a dialect reads its own
first and then all others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from quotas.engine.categories import LIMITS, TRANSIENT
from quotas.engine.dialects import dates, numbers, wait_values
from quotas.engine.dialects.findings import Reading, least, reset_of
from quotas.engine.dialects.response import Answer, dig

MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after")
_SECONDS_IN_BODY = (
    ("parameters", "retry_after"), ("retry_after",), ("retryAfter",), ("retry_after_seconds",), ("estimated_time",),
    ("error", "retry_after"),
    ("error", "retryAfter"), ("error", "retry_after_seconds"), ("error", "metadata", "retry_after_seconds"),
    ("error", "metadata", "retry_after"), ("error", "details", "retry_after"),
)  # fmt: skip
_MS_IN_BODY = (("retry_after_ms",), ("error", "retry_after_ms"), ("error", "metadata", "retry_after_ms"))
_UNITS = {"h": "h", "hr": "h", "hour": "h", "m": "m", "min": "m", "minute": "m", "s": "s", "sec": "s", "second": "s"}
_AMOUNT = r"[0-9]{1,9}(?:\.[0-9]{1,12})? ?(?:hours?|hrs?|h|minutes?|mins?|milliseconds?|ms|m|seconds?|secs?|s)(?![a-z])"
_IN_TEXT = re.compile(
    r"(?:try again|retry(?:ing)?|wait|available|resets?)\b[^.0-9\n]{0,30}?"
    rf"(?P<amount>{_AMOUNT}(?:(?:,? and |, | ?){_AMOUNT}){{0,3}})",
    re.IGNORECASE,
)
_ONE_AMOUNT = re.compile(r"([0-9.]+) ?([a-z]+)", re.IGNORECASE)
_PLAIN_SECONDS = re.compile(r"retry after ([0-9]{1,9}(?:\.[0-9]{1,9})?)\b(?![.:]?[0-9])", re.IGNORECASE)
_REPLENISHED = re.compile(r"(?:replenished|try again|retry) in ([0-9]{1,3}):([0-5][0-9]):([0-5][0-9])\b", re.IGNORECASE)
_REGAINED = re.compile(r"regain access on ([0-9]{4}-[0-9]{2}-[0-9]{2})(?: at ([0-9]{2}:[0-9]{2}) UTC)?")
_RESETS = (
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("x-ratelimit-remaining", "x-ratelimit-reset-after"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-rate-limit-remaining", "x-rate-limit-reset"),
    ("x-ratelimit-requests-remaining", "x-ratelimit-requests-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
)


def complete(answer: Answer, reading: Reading) -> None:
    """Find the wait that the dialect has not found: another form's explicit hint, then another form's reset.

    A hint that names a time takes precedence over a hint for now.
    """
    if reading.category not in TRANSIENT:
        return
    if reading.hint is None or reading.hint < wait_values.NOW:
        found = list(_explicit(answer, reading))
        reading.hint = next((wait for wait in found if wait >= wait_values.NOW), found[0] if found else reading.hint)
    stated = any(quota.reset_after is not None for quota in reading.learned.values())
    if reading.hint is None and not stated and reading.category in LIMITS and not reading.unpaid:
        reading.hint = _exhausted(answer)


def in_milliseconds(answer: Answer) -> float | None:
    """The wait of the header fields that are in milliseconds."""
    for name in MILLISECONDS:
        for value in answer.all(name):
            for piece in value[:200].split(","):
                number = numbers.signed(piece)
                wait = None if number is None else wait_values.hint(number / 1000)
                if wait is not None:
                    return wait
    return None


def in_text(text: str, clock: float = 0.0) -> float | None:
    """The wait in "Please try again in 6m0.5s", "retry after 6 seconds" or "wait 2 minutes and 5 seconds"."""
    text = text[:4000]
    if match := _IN_TEXT.search(text):
        return wait_values.hint(_sum(match["amount"]))
    if match := _PLAIN_SECONDS.search(text):
        return wait_values.hint(float(match[1]))
    if match := _REPLENISHED.search(text):
        return wait_values.hint(int(match[1]) * 3600.0 + int(match[2]) * 60 + int(match[3]))
    if clock and (match := _REGAINED.search(text)):
        moment = dates.rfc_3339(f"{match[1]}T{match[2] or '00:00'}:00Z")
        return None if moment is None else wait_values.hint(moment - clock)
    return None


def retry_delay(details: object) -> float | None:
    """The longest `retryDelay` of `google.rpc.RetryInfo` among an error's details."""
    found = []
    for detail in details[:50] if isinstance(details, list) else []:
        delay = dig(detail, "retryDelay")
        if isinstance(delay, str):
            wait = wait_values.hint(numbers.go_duration(delay))
        else:
            wait = wait_values.hint(numbers.signed(dig(delay, "seconds")))
        if wait is not None:
            found.append(wait)
    return max(found, default=None)


def within(answer: Answer) -> Answer:
    """The fields that OpenRouter reports in the body of an error instead of the header."""
    return Answer(answer.status, answer.at("error", "metadata", "headers"), None, answer.clock)


def _explicit(answer: Answer, reading: Reading) -> Iterator[float]:
    for fields in (answer, within(answer)):
        for wait in (in_milliseconds(fields), wait_values.retry_after(fields.all("retry-after"), answer.clock)):
            if wait is not None:
                yield wait
    for part in answer.parts[:50]:
        error = dig(part, "error")
        for details in (dig(error, "details"), dig(part, "details")):
            if (wait := retry_delay(details)) is not None:
                yield wait
        for places, scale in ((_SECONDS_IN_BODY, 1.0), (_MS_IN_BODY, 0.001)):
            for place in places:
                number = numbers.signed(dig(part, *place))
                if number is not None and (wait := wait_values.hint(number * scale)) is not None:
                    yield wait
    if (wait := in_text(reading.message, answer.clock)) is not None:
        yield wait


def _exhausted(answer: Answer) -> float | None:
    """The longest reset of what no request remains of, in any provider's fields."""
    for fields in (answer, within(answer)):
        found = [reset_of(fields, reset) for remaining, reset in _RESETS if least(fields, remaining) == 0]
        resets = [reset for reset in found if reset is not None]
        if resets:
            return wait_values.hint(max(resets))
    return None


def _sum(amounts: str) -> float:
    total = 0.0
    for number, unit in _ONE_AMOUNT.findall(amounts):
        name = unit.lower()
        if name == "ms" or name.startswith("milli"):
            total += numbers.decimal(number) / 1000 if numbers.decimal(number) is not None else 0.0  # type: ignore[operator]
        else:
            total += numbers.go_duration(number + _UNITS[name if name in _UNITS else name.rstrip("s")]) or 0.0
    return total
