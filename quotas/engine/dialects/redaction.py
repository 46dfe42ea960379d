"""Credentials out of texts: providers echo them in errors."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote, quote_plus

MASK = "[redacted]"
MAX_TEXT = 300
_SHAPES = (
    re.compile(r"(?i)\b(bearer)\s+[A-Za-z0-9._~+/=:-]{6,}"),
    re.compile(r"(?i)\b(basic|token)\s+(?=[^\s]*[0-9=])[A-Za-z0-9._~+/=:-]{8,}"),
    re.compile(
        r"(?i)([\"']?\b(?:x-api-key|api[-_ ]?key|access[-_]?token|auth[-_]?token|client[-_]?secret|authorization|password"
        r"|secret|token|key|sig|signature)\b[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;]{4,}"
    ),
    re.compile(r"(?:\bbot|\b)[0-9]{5,}:[A-Za-z0-9_-]{20,}"),
    re.compile(
        r"\b(?:[spr]k[-_]|gsk_|xai-|xox[a-z]-|gh[a-z]_|github_pat_|shp[a-z]{2}_|glpat-|hf_|r8_|whsec_|AIza|AKIA|ya29\.)"
        r"[-_.A-Za-z0-9*]{6,}"
    ),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^\s/@]+@"),
)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without any of `secrets` (plain, quoted for URLs or JSON, or in base64) and without what looks like one."""
    text = without(text, secrets)
    for shape in _SHAPES:
        text = shape.sub(_masked, text)
    return text


def without(text: str, secrets: Iterable[str]) -> str:
    """`text` without any of `secrets`, in each form that they may be echoed in."""
    for secret in secrets:
        for form in sorted(forms_of(secret), key=len, reverse=True):
            text = text.replace(form, MASK)
    return text


def short(text: str, secrets: Iterable[str] = ()) -> str:
    """One redacted line of at most 300 characters."""
    line = _UNPRINTABLE.sub(" ", redact(text, secrets)).strip()
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


def _masked(match: re.Match[str]) -> str:
    head = match.group(1) if match.re.groups else ""
    if head and head[-1].isalnum():
        head += " "
    tail = "@" if match.group(0).endswith("@") else ""
    return f"{head}{MASK}{tail}"


@lru_cache(maxsize=256)
def forms_of(secret: str) -> frozenset[str]:
    """The forms that a secret may be echoed in: plain, quoted for URLs or JSON, in base64."""
    if not secret:
        return frozenset()
    raw = secret.encode("utf-8", "surrogatepass")
    encoded = {base64.b64encode(data).decode() for data in (raw, b":" + raw, raw + b":")} if len(raw) >= 6 else set()
    quoted = {quote(raw, safe=""), quote_plus(raw)}
    return frozenset({secret, json.dumps(secret)[1:-1]} | quoted | encoded)
