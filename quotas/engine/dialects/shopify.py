"""Shopify: a leaky bucket stated as `used/limit`; GraphQL states points in the body, and throttles with 200 or 429.

https://shopify.dev/docs/api/usage/rate-limits
"""

from __future__ import annotations

import re

from quotas.engine.dialects import numbers, wait_values
from quotas.engine.dialects.findings import Reading, by_status, count_usage, usage_in
from quotas.engine.dialects.response import Answer, dig

_CALLS = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_ASKED = ("requestedQueryCost",)
_MOST = ("throttleStatus", "maximumAvailable")
_DRAINED_IN = 20.0
"""The bucket of 40 calls leaks 2 a second: it is empty after 20 s, and so are the larger plans' buckets."""


def read(answer: Answer) -> Reading:
    """REST calls as `requests`, GraphQL's cost as `points`."""
    reading = by_status(answer)
    if answer.status == 423:  # the shop is locked for all requests
        reading.refuse_credential()
    if answer.status == 401 and "Invalid API key or access token" in reading.message[:1000]:
        reading.refuse_credential()
    match = _CALLS.fullmatch((answer.get("x-shopify-shop-api-call-limit") or "").strip())
    if match:
        used, limit = int(match[1]), int(match[2])
        reset = used / limit * _DRAINED_IN if limit else None
        reading.learn(
            "requests",
            limit=limit,
            remaining=max(0, limit - used),
            reset_after=reset,
            window=_DRAINED_IN,
            kind="bucket",
        )
    cost = answer.at("extensions", "cost")
    _points(cost, reading)
    count_usage(reading, usage_in(answer, ("extensions", "cost")), "actualQueryCost", unit="points")
    if reading.category == "rate_limited":
        asked, most = (numbers.decimal(dig(cost, *place)) for place in (_ASKED, _MOST))
        if asked is not None and most and asked > most:
            reading.reject_request()
        elif reading.hint is None:
            reading.hint = _until_affordable(cost)
    return reading


def _points(cost: object, reading: Reading) -> None:
    status = dig(cost, "throttleStatus")
    limit, left = numbers.decimal(dig(status, "maximumAvailable")), numbers.decimal(dig(status, "currentlyAvailable"))
    rate = numbers.decimal(dig(status, "restoreRate"))
    if limit and left is not None and rate:
        reset = wait_values.bounded((limit - left) / rate) or 0.0
        reading.learn(
            "points",
            limit=numbers.whole(int(limit)),
            remaining=numbers.whole(int(left)),
            reset_after=reset,
            window=limit / rate,
            kind="bucket",
        )


def _until_affordable(cost: object) -> float | None:
    asked = numbers.decimal(dig(cost, *_ASKED))
    left = numbers.decimal(dig(cost, "throttleStatus", "currentlyAvailable"))
    rate = numbers.decimal(dig(cost, "throttleStatus", "restoreRate"))
    if asked is None or left is None or not rate:
        return None
    return wait_values.hint((asked - left) / rate)
