"""Slack: 429 with `Retry-After` in whole seconds; other errors come as 200 with `ok: false`.

https://api.slack.com/apis/rate-limits
"""

from __future__ import annotations

from quotas.engine.headers.answer import Answer
from quotas.engine.headers.reading import Reading, by_status
from quotas.engine.headers.waits import retry_after

_BAD_TOKEN = ("invalid_auth", "account_inactive", "token_revoked", "token_expired", "not_authed")
_OTHER = {
    "ratelimited": "rate_limited",
    "rate_limited": "rate_limited",
    "internal_error": "server",
    "fatal_error": "server",
    "service_unavailable": "server",
    "request_timeout": "timeout",
}


def read(answer: Answer) -> Reading:
    """The body's `error` decides where the status says nothing."""
    reading = by_status(answer)
    error = answer.text_at("error")
    if reading.category not in ("ok", "rate_limited") or answer.at("ok") is not False:
        return reading
    if error in _BAD_TOKEN:
        reading.refuse_credential()
    elif reading.category == "ok":
        reading.category = _OTHER.get(error, "validation")
        if reading.category != "validation":
            reading.hint = retry_after(answer.all("retry-after"), answer.clock)
    reading.message = f"{answer.status} {error}"
    return reading
