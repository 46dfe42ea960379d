"""A job as a session of the admin site reads it: without secrets, as on its page."""

from __future__ import annotations

from typing import Any

from queues import redaction
from queues.registry import REDACTED


def readable(shown: dict[str, Any], with_payload: bool) -> dict[str, Any]:
    """`shown` without secrets, and without the values of payload and result where the person may not see these."""
    found = {**shown, **{name: _text(shown[name]) for name in ("error", "reason", "callback_url")}}
    found["attempts"] = [{**one, "error": _text(one["error"])} for one in shown["attempts"]]
    if with_payload:
        found |= {name: redaction.hide(shown[name]) for name in ("payload", "result")}
    else:
        found["payload"] = dict.fromkeys(shown["payload"], REDACTED)
        found["result"] = None if shown["result"] is None else REDACTED
    return found


def _text(text: str | None) -> str | None:
    return text if text is None else redaction.hide_in_text(text)
