"""Hides secrets in payloads and results that are shown, by the names of their members."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings

from queues.registry import REDACTED

ENDINGS = (
    "password", "passwd", "secret", "token", "apikey", "authorization", "credential", "credentials", "privatekey",
    "accesskey", "cookie", "signature",
)  # fmt: skip
"""A member whose name ends so, without dashes and underscores, is hidden: `X-Api-Key`, `client_secret`, but not `max_tokens`. The setting `REDACT_NAMES` adds to them."""
IN_QUERY = re.compile(r"([?&;])([\w.~-]+)=([^&;#\s\"']+)")


def is_secret(name: str) -> bool:
    return re.sub(r"[\s_.-]", "", name).lower().endswith((*ENDINGS, *settings.REDACT_NAMES))


def hide(value: Any, name: str = "") -> Any:
    """The same, without its secrets: values of members with a secret's name, at any depth, and such parameters of URLs."""
    if name and is_secret(name) and value not in (None, ""):
        return REDACTED
    if isinstance(value, dict):
        return {key: hide(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [hide(item) for item in value]
    return hide_in_text(value) if isinstance(value, str) else value


def hide_in_text(text: str) -> str:
    """Without the values of secret parameters of URLs in it."""
    return IN_QUERY.sub(lambda found: f"{found[1]}{found[2]}={REDACTED}" if is_secret(found[2]) else found[0], text)


def restore(given: Any, stored: Any, name: str = "") -> Any:
    """`given`, an edited copy of what was shown of `stored`, with the secrets that it still hides restored."""
    if given == hide(stored, name):
        return stored
    if isinstance(given, dict) and isinstance(stored, dict):
        return {key: restore(item, stored[key], key) if key in stored else item for key, item in given.items()}
    if isinstance(given, list) and isinstance(stored, list) and len(given) == len(stored):
        return [restore(item, old) for item, old in zip(given, stored, strict=True)]
    return given


def hides(value: Any) -> bool:
    """Whether a hidden value's mark is somewhere in it."""
    if isinstance(value, dict):
        return any(hides(item) for item in value.values())
    if isinstance(value, list):
        return any(hides(item) for item in value)
    return isinstance(value, str) and REDACTED in value
