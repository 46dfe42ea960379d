"""Discord: a stepping window per bucket; `shared` limits count against no account; Cloudflare's 429 has no JSON.

https://discord.com/developers/docs/topics/rate-limits
"""

from __future__ import annotations

import re

from quotas.engine.dialects import numbers, wait_values
from quotas.engine.dialects.findings import Reading, by_status, reset_of, trio
from quotas.engine.dialects.response import Answer

_BUCKET = re.compile(r"[0-9a-f]{1,64}")
_ACCOUNT_CODES = (40002, 340013)
"""The account must be verified; the application is quarantined. Any other code of a 403 is about the request."""


def read(answer: Answer) -> Reading:
    """`reset-after` rather than `reset`, as clocks differ; the body's `retry_after` has the fraction."""
    reading = by_status(answer)
    reset = reset_of(answer, "x-ratelimit-reset-after", "delta")
    if reset is None:
        reset = reset_of(answer, "x-ratelimit-reset", "epoch")
    quota = trio(answer, "x-ratelimit-")
    if answer.status == 401:
        reading.certain = answer.text_at("message") == "401: Unauthorized"
    if answer.status == 403:
        _forbidden(answer, reading)
    if reading.category != "rate_limited":
        reading.learn(_unit(answer), **quota, reset_after=reset)
        return reading
    stated = wait_values.hint(numbers.signed(answer.at("retry_after")))
    reading.hint = stated if stated is not None else reading.hint
    if reading.hint is None:
        reading.hint = wait_values.hint(reset)
    everywhere = answer.at("global") is True or answer.get("x-ratelimit-global") == "true"
    limited = answer.get("x-ratelimit-scope")
    # An address that is blocked as a whole gets no retry time, in a page or in an object.
    fields = [answer.at("retry_after"), answer.at("global"), limited]
    if everywhere or limited == "global" or fields == [None, None, None]:
        reading.scope = "account"
    else:
        reading.scope = "key"
        if limited != "shared":
            reading.learn(_unit(answer), **quota, reset_after=reset)
    return reading


def _forbidden(answer: Answer, reading: Reading) -> None:
    """A code of Discord's own: about the account only where it says so, else about a channel, a user or a right."""
    code = numbers.whole(answer.at("code"))
    if code in _ACCOUNT_CODES:
        reading.refuse_credential()
    elif code:
        reading.reject_request()


def _unit(answer: Answer) -> str:
    """Limits are per bucket (a route): they are shown, and do not limit the account's requests as a whole."""
    bucket = answer.get("x-ratelimit-bucket")
    if not bucket:
        return "requests"
    return f"requests_{bucket[:40] if _BUCKET.fullmatch(bucket) else 'other'}"
