"""The IETF's RateLimit fields, in all three syntaxes that are in use.

- up to draft 06: `RateLimit-Limit: 100, 100;w=60`, `RateLimit-Remaining`, `RateLimit-Reset` (seconds; some send epochs)
- draft 07: `RateLimit: limit=100, remaining=50, reset=30`, `RateLimit-Policy: 100;w=60`
- from draft 08 on: `RateLimit: "default";r=50;t=30`, `RateLimit-Policy: "default";q=100;w=60;qu="requests"`

https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ (structured fields: RFC 9651)
"""

from __future__ import annotations

import re
from typing import Any

import http_sf

from quotas.engine.dialects import numbers, wait_values
from quotas.engine.dialects.findings import Reading, by_status, least, reset_of
from quotas.engine.dialects.response import Answer

_WINDOW = re.compile(r";[ \t]*w=([0-9]{1,9})")
_FIRST = re.compile(r"[ \t]*([0-9]{1,16})[ \t]*(?:[,;].*)?", re.DOTALL)


def read(answer: Answer) -> Reading:
    """Quota by unit; where several policies share a unit, the one with the least left."""
    reading = by_status(answer)
    learn(answer, reading)
    if answer.text_at("type").endswith("#temporary-reduced-capacity") and reading.category == "rate_limited":
        reading.category = "server"
    return reading


def learn(answer: Answer, reading: Reading) -> bool:
    """Read whichever syntax is present; True if one was."""
    field = ", ".join(answer.all("ratelimit"))
    if field:
        return _items(answer, field, reading) or _dictionary(answer, field, reading)
    return _separate(answer, reading)


def _items(answer: Answer, field: str, reading: Reading) -> bool:
    states = _parse(field, "list")
    policies = _policies(answer)
    read_any = False
    for item in states if isinstance(states, list) else []:
        name, parameters = _item(item)
        remaining = numbers.whole(_number(parameters.get("r")))
        if name is None or remaining is None:
            continue
        policy = policies.get(name, {})
        unit = policy.get("qu", "requests")
        unit = unit[:60] if isinstance(unit, str) and unit else "requests"
        if name in ("tokens", "requests") and "qu" not in policy:
            unit = name
        reset = numbers.decimal(_number(parameters.get("t")))
        window = numbers.decimal(_number(policy.get("w")))
        limit = numbers.whole(_number(policy.get("q")))
        _keep_tightest(reading, unit, limit, remaining, reset, window)
        read_any = True
    return read_any


def _dictionary(answer: Answer, field: str, reading: Reading) -> bool:
    members = _parse(field, "dictionary")
    if not isinstance(members, dict):
        return False
    found = {name: _number(_item(members[name])[0]) for name in ("limit", "remaining", "reset") if name in members}
    if "remaining" not in found and "limit" not in found:
        return False
    match = _WINDOW.search(answer.get("ratelimit-policy") or "")
    _keep_tightest(
        reading,
        "requests",
        numbers.whole(found.get("limit")),
        numbers.whole(found.get("remaining")),
        numbers.decimal(found.get("reset")),
        float(match[1]) if match else None,
    )
    return True


def _separate(answer: Answer, reading: Reading) -> bool:
    limit_field = answer.get("ratelimit-limit") or ""
    first = _FIRST.fullmatch(limit_field)
    limit = numbers.whole(first[1]) if first else None
    remaining = least(answer, "ratelimit-remaining")
    if limit is None and remaining is None:
        return False
    window = _WINDOW.search(limit_field) or _WINDOW.search(answer.get("ratelimit-policy") or "")
    _keep_tightest(
        reading,
        "requests",
        limit,
        remaining,
        reset_of(answer, "ratelimit-reset"),
        float(window[1]) if window else None,
    )
    return True


def _keep_tightest(
    reading: Reading,
    unit: str,
    limit: int | None,
    remaining: int | None,
    reset: float | None,
    window: float | None,
) -> None:
    before = reading.learned.get(unit)
    known = before.remaining if before is not None else None
    if known is not None and (remaining is None or remaining >= known):
        return
    if reset is not None:
        reset = min(reset, wait_values.MAX_WAIT)
    reading.learn(unit, limit=limit, remaining=remaining, reset_after=reset, window=window or None)


def _policies(answer: Answer) -> dict[str, dict[str, Any]]:
    parsed = _parse(", ".join(answer.all("ratelimit-policy")), "list")
    found: dict[str, dict[str, Any]] = {}
    for item in parsed if isinstance(parsed, list) else []:
        name, parameters = _item(item)
        if name is not None:
            found[name] = parameters
    return found


def _item(item: Any) -> tuple[str | None, dict[str, Any]]:
    """Name (or number as text) and parameters of one parsed item; inner lists have none."""
    if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], dict)):
        return None, {}
    value, parameters = item
    if isinstance(value, bool | bytes | list):
        return None, {}
    return str(value), parameters


def _number(value: Any) -> str | None:
    return str(value) if value is not None and not isinstance(value, bool) else None


def _parse(field: str, kind: str) -> Any:
    if not field:
        return None
    try:
        return http_sf.parse(field.encode("utf-8", "replace"), tltype=kind)
    except (ValueError, ArithmeticError, RecursionError):
        return None
