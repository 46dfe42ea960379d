"""Which header fields of an answer say something about limits, in a form that can be shown.

A provider that echoes credentials may do so in any field: a value is kept as it is only where it is made of numbers,
durations, dates or the IETF's structured fields; any other one is redacted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from quotas.engine.dialects.redaction import MASK, redact
from quotas.engine.dialects.response import Answer

MAX_FIELDS = 24
MAX_LENGTH = 120
_ALSO = ("age", "date", "request-id", "x-request-id", "x-should-retry", "x-endpoint-monthly-call-limit")
_FIGURES = re.compile(r"[0-9.,:;/=+\- ]*(?:(?:h|ms|m|s|us|T|Z|GMT|w|r|t|q|qu)[0-9.,:;/=+\- ]*){0,20}")
_STRUCTURED = re.compile(r'(?:"[a-z_-]{1,16}"|[a-z]{1,9}=|[0-9.,;= ]|(?:;[a-z]{1,2}=))*')
_HTTP_DATE = re.compile(
    r"(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?,? "
    r"(?:[0-9 :-]|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec|GMT|UTC){1,30}"
)
_WORDS = frozenset({"allowed", "allowed_warning", "rejected", "user", "global", "shared", "core", "true", "false"})


def fields_of(answer: Answer, secrets: Iterable[str] = ()) -> dict[str, str]:
    """Field name → value, at most 24 of them, each on one short line."""
    found: dict[str, str] = {}
    known: list[str] | None = None
    for name in answer.names():
        if not _describes_limit(name):
            continue
        known = [secret for secret in secrets if secret] if known is None else known
        value = ", ".join(answer.all(name))[:MAX_LENGTH]
        found[name[:64]] = _shown(value, known)
        if len(found) == MAX_FIELDS:
            break
    return found


@lru_cache(maxsize=1024)
def _describes_limit(name: str) -> bool:
    return "ratelimit" in name or "rate-limit" in name or "retry-after" in name or name in _ALSO


def _shown(value: str, secrets: list[str]) -> str:
    plain = value.strip()
    if any(secret in plain for secret in secrets):
        return MASK
    shapes = (_FIGURES, _STRUCTURED, _HTTP_DATE)
    if plain in _WORDS or any(shape.fullmatch(plain) for shape in shapes):
        return redact(plain, secrets)
    return MASK
