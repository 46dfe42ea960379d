"""Slack: 429 with `Retry-After` in whole seconds; other errors come as 200 with `ok: false`, webhooks' as plain text.

https://api.slack.com/apis/rate-limits
"""

from __future__ import annotations

import re

from quotas.engine.categories import Category
from quotas.engine.dialects.findings import Reading, by_status
from quotas.engine.dialects.response import Answer
from quotas.engine.dialects.wait_values import retry_after

_BAD_TOKEN = frozenset(
    {
        "invalid_auth", "account_inactive", "token_revoked", "token_expired", "not_authed", "invalid_token",
        "org_login_required", "two_factor_setup_required", "user_removed_from_team",
    }
)  # fmt: skip
_PERMISSION = frozenset(
    {
        "missing_scope", "not_allowed_token_type", "no_permission", "access_denied", "ekm_access_denied",
        "team_access_not_granted",
    }
)  # fmt: skip
"""What the token may not do: another account may, and this one may do other things."""
_OTHER = {
    "ratelimited": "rate_limited",
    "rate_limited": "rate_limited",
    "message_limit_exceeded": "quota_exhausted",
    "internal_error": "server",
    "fatal_error": "server",
    "service_unavailable": "server",
    "team_added_to_org": "server",
    "rollup_error": "server",
    "request_timeout": "timeout",
}
_CODE = re.compile(r"[a-z_]{3,60}")


def read(answer: Answer) -> Reading:
    """The body's `error` decides, whatever the status; what is about a channel or a user is `validation`."""
    reading = by_status(answer)
    error = answer.text_at("error") if answer.json is not None else answer.text.strip()
    refused = answer.at("ok") is False or (answer.status >= 400 and _CODE.fullmatch(error) is not None)
    by_error = {Category.OK, Category.RATE_LIMITED, Category.AUTH, Category.VALIDATION}
    if reading.category not in by_error or not refused:
        return reading
    if error in _BAD_TOKEN:
        reading.refuse_credential()
    elif error in _PERMISSION:
        reading.category, reading.scope = "auth", "key"
    elif answer.status == 401 or (reading.category == "rate_limited" and error not in _OTHER):
        return reading
    else:
        reading.category, reading.scope = _OTHER.get(error, "validation"), "account"
        limited = reading.category != "validation"
        reading.hint = retry_after(answer.all("retry-after"), answer.clock) if limited else None
    if error == "rate_limited":
        reading.scope = "key"  # too many messages for one channel
    reading.message = f"{answer.status} {error}"
    return reading
