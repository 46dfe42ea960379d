"""GitHub's REST API: a stepping window per resource; limits refuse with 403 or 429, and 403 may also mean no permission.

https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
"""

from __future__ import annotations

import re

from quotas.engine.dialects import numbers
from quotas.engine.dialects.findings import Reading, by_status, reset_of, trio
from quotas.engine.dialects.response import Answer
from quotas.engine.dialects.wait_values import retry_after

_SECONDARY_WAIT = 60.0
_RESOURCE = re.compile(r"[a-z_]{1,40}")


def read(answer: Answer) -> Reading:
    """A secondary limit without `retry-after` waits a minute at least, whatever remains of the primary one."""
    reading = by_status(answer)
    named = answer.get("x-ratelimit-resource")
    if named:
        # Only what has a resource's form: any other text must not become a stored name.
        reading.resource = named if _RESOURCE.fullmatch(named) else "other"
    unit = "requests"
    quota = trio(answer, "x-ratelimit-")
    if quota["remaining"] is None and quota["limit"] is not None:
        used = numbers.whole(answer.get("x-ratelimit-used"))
        quota["remaining"] = None if used is None else max(0, quota["limit"] - used)
    reading.learn(unit, **quota, reset_after=reset_of(answer, "x-ratelimit-reset", "epoch"))
    if answer.status == 401 and answer.text_at("message") == "Bad credentials":
        reading.refuse_credential()
    if answer.status not in (403, 429):
        return reading
    text = answer.text_at("message").lower()
    secondary = "secondary rate limit" in text or "abuse detection" in text
    asked = retry_after(answer.all("retry-after"), answer.clock)
    if secondary or quota["remaining"] == 0 or "rate limit exceeded" in text or asked is not None:
        primary = reading.resource and quota["remaining"] == 0 and not secondary
        reading.category, reading.scope, reading.hint = "rate_limited", "model" if primary else "account", asked
        if secondary and asked is None:
            known = reading.learned.get(unit) if quota["remaining"] == 0 else None
            reading.hint = max(_SECONDARY_WAIT, (known.reset_after if known else None) or 0.0)
    return reading
