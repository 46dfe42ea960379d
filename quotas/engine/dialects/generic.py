"""Any other API: the common names by default, or names and encodings by configuration.

Settings (all optional):
- `limits`: {unit: {"limit": name, "remaining": name, "used": name, "reset": name, "encoding": .., "window": seconds,
  "kind": "bucket" | "window"}}; encodings: auto, delta, ms, epoch, epoch_ms, go, rfc3339, http_date
- `retry_after`: name or list of names; `retry_after_encoding`; `retry_after_body`: dotted path to seconds in the body
- `rate_limited`, `quota_exhausted`: statuses that mean that; `codes`: {category: [values of `code_path` in the body]};
  `code_path`: dotted path (default `error.code`)
- `usage`: {unit: dotted path in the body}
- `scope`: account, key, model or pool: what a rate limit is about
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from quotas.engine.categories import LIMITS, OF_CALLS
from quotas.engine.dialects import ietf, numbers, wait_values
from quotas.engine.dialects.findings import Reading, Scope, by_status, least, reset_of, trio
from quotas.engine.dialects.response import Answer, dig
from quotas.engine.dialects.retry_hints import within
from quotas.engine.learned import Kind

_PREFIXES = ("x-ratelimit-", "x-rate-limit-", "ratelimit-")
_SUFFIXES = {"": "requests", "-requests": "requests", "-tokens": "tokens", "-minute": "requests"}


def read(answer: Answer, settings: Mapping[str, Any] | None = None) -> Reading:
    """By settings where there are any for a thing, else by the usual names."""
    settings = settings if isinstance(settings, Mapping) else {}
    reading = by_status(answer)
    _recategorise(answer, reading, settings)
    limits = settings.get("limits")
    if isinstance(limits, Mapping) and limits:
        for unit, names in limits.items():
            if isinstance(names, Mapping):
                _configured(answer, reading, str(unit), names)
    elif not ietf.learn(answer, reading):
        _usual(answer, reading)
        if not reading.learned:
            _usual(within(answer), reading)
    if reading.category not in ("ok", "validation"):
        _hint(answer, reading, settings)
    for unit, path in _mapping(settings, "usage").items():
        found = [used for part in answer.parts if (used := numbers.whole(dig(part, *_path(path)))) is not None]
        if found:  # the events of a stream report running totals
            reading.usage[str(unit)] = max(found)
    if reading.category in LIMITS and settings.get("scope") in get_args(Scope):
        reading.scope = settings["scope"]
    return reading


def _recategorise(answer: Answer, reading: Reading, settings: Mapping[str, Any]) -> None:
    before = reading.category
    for category in LIMITS:
        if answer.status in _list(settings, category):
            reading.category = category
    code = answer.at(*_path(settings.get("code_path", "error.code")))
    if isinstance(code, str | int):
        for category, codes in _mapping(settings, "codes").items():
            if category in OF_CALLS and isinstance(codes, list | tuple) and code in codes:
                reading.category = category
    if reading.category != before:
        reading.scope = "account"
        reading.hint = wait_values.retry_after(answer.all("retry-after"), answer.clock)


def _configured(answer: Answer, reading: Reading, unit: str, names: Mapping[str, Any]) -> None:
    def count(what: str) -> int | None:
        name = names.get(what)
        return least(answer, name.lower()) if isinstance(name, str) else None

    limit, remaining, used = (count(what) for what in ("limit", "remaining", "used"))
    if remaining is None and used is not None and limit is not None:
        remaining = max(0, limit - used)
    encoding = names.get("encoding", "auto")
    reset = reset_of(answer, str(names.get("reset", "")).lower(), str(encoding))
    window = numbers.decimal(names.get("window"))
    kind: Kind = "bucket" if names.get("kind") == "bucket" else "window"
    reading.learn(
        unit,
        limit=limit,
        remaining=remaining,
        reset_after=reset,
        window=window or None,
        kind=kind,
    )


def _usual(answer: Answer, reading: Reading) -> None:
    for prefix in _PREFIXES:
        for suffix, unit in _SUFFIXES.items():
            if unit not in reading.learned:
                quota = trio(answer, prefix, suffix=suffix)
                reading.learn(unit, **quota, reset_after=reset_of(answer, f"{prefix}reset{suffix}"))


def _hint(answer: Answer, reading: Reading, settings: Mapping[str, Any]) -> None:
    if "retry_after_body" in settings:
        stated = wait_values.hint(numbers.signed(answer.at(*_path(settings["retry_after_body"]))))
        if stated is not None:
            reading.hint = stated
            return
    encoding = settings.get("retry_after_encoding")
    for name in _list(settings, "retry_after"):
        values = answer.all(name.lower()) if isinstance(name, str) else []
        if isinstance(encoding, str) and encoding != "auto":
            known = [wait for value in values if (wait := wait_values.reset(value, answer.clock, encoding)) is not None]
            stated = wait_values.hint(max(known, default=None))
        else:
            stated = wait_values.retry_after(values, answer.clock)
        if stated is not None:
            reading.hint = stated
            return


def _mapping(settings: Mapping[str, Any], name: str) -> Mapping[Any, Any]:
    value = settings.get(name)
    return value if isinstance(value, Mapping) else {}


def _list(settings: Mapping[str, Any], name: str) -> list[Any]:
    value = settings.get(name)
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _path(dotted: object) -> list[str | int]:
    parts = str(dotted).split(".")
    return [int(part) if part.isascii() and part.isdigit() and len(part) < 6 else part for part in parts]
