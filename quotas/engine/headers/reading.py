"""What every dialect builds on: a category from the status, learned quota, the priority of hints, one error line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from quotas.engine.headers import numbers, waits
from quotas.engine.headers.answer import Answer, dig
from quotas.engine.types import MAX_COST

Scope = Literal["account", "key", "pool", "model"]
LIMITED = ("rate_limited", "quota_exhausted")


@dataclass(slots=True)
class Reading:
    """A dialect's findings while it reads; `None` is not known."""

    category: str
    scope: Scope = "account"
    hint: float | None = None
    """The provider's explicit wait."""
    learned: dict[str, dict[str, object]] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    message: str = ""
    resource: str | None = None
    """See `Outcome.resource`."""
    certain: bool = False
    """See `Outcome.certain`."""

    def refuse_credential(self) -> None:
        """The answer names the credential, or the account behind it, as refused."""
        self.category, self.scope, self.certain = "auth", "account", True

    def learn(
        self,
        unit: str,
        *,
        limit: int | None = None,
        remaining: int | None = None,
        reset_after: float | None = None,
        window: float | None = None,
        kind: Literal["bucket", "window"] = "window",
    ) -> None:
        """Keep what is known of one unit's quota. A limit of 0 or none at all says nothing without a remainder."""
        if limit is not None and limit <= 0:
            limit = remaining = None
        if limit is None and remaining is None:
            return
        found: dict[str, object] = {"limit": limit, "remaining": remaining, "reset_after": reset_after}
        if window is not None:
            found["window"] = window
        found["kind"] = kind
        self.learned[unit] = found

    def wait(self) -> float | None:
        """The hint by priority: explicit; reset of what is exhausted; the longest reset; None.

        Only an answer that refuses because of a limit waits for resets; a server's error only for its own hint.
        """
        if self.hint is not None:
            return waits.bounded(self.hint)
        if self.category not in LIMITED:
            return None
        resets = [(quota["remaining"], quota["reset_after"]) for quota in self.learned.values()]
        exhausted = [reset for remaining, reset in resets if remaining == 0 and isinstance(reset, float) and reset > 0]
        every = [reset for _, reset in resets if isinstance(reset, float) and reset > 0]
        return waits.bounded(max(exhausted or every, default=None))


def by_status(answer: Answer) -> Reading:
    """The findings that hold for any HTTP API: category by status, `Retry-After`, the error's text."""
    reading = Reading(category(answer.status))
    if answer.status == 403:
        reading.scope = "key"
    if reading.category not in ("ok", "validation"):
        reading.hint = waits.retry_after(answer.all("retry-after"), answer.clock)
    if reading.category != "ok":
        reading.message = message(answer)
    return reading


def category(status: int) -> str:
    """`ok` or the error category of an HTTP status."""
    if 200 <= status < 400:
        return "ok"
    if status in _CATEGORIES:
        return _CATEGORIES[status]
    if 400 <= status < 500:
        return "validation"
    return "server" if 500 <= status < 600 else "unknown"


def message(answer: Answer) -> str:
    """The error's own words, wherever the body has them; not yet redacted."""
    body = answer.json
    if isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, dict):
        error = body.get("error")
        for place in (error if isinstance(error, dict) else {}, body):
            for name in ("message", "description", "detail", "title", "error_description"):
                if isinstance(place.get(name), str) and place[name]:
                    return f"{answer.status} {place[name]}"
        errors = body.get("errors")
        first = dig(errors, 0, "message") if isinstance(errors, list) else errors
        for text in (error, first):
            if isinstance(text, str):
                return f"{answer.status} {text}"
    return f"{answer.status} {answer.text[:1000]}".strip()


def trio(answer: Answer, prefix: str, *, suffix: str = "") -> dict[str, Any]:
    """`limit` and `remaining` of `<prefix>limit<suffix>`, as arguments for `learn`."""
    return {
        "limit": numbers.whole(answer.get(f"{prefix}limit{suffix}")),
        "remaining": numbers.whole(answer.get(f"{prefix}remaining{suffix}")),
    }


def reset_of(answer: Answer, name: str, encoding: str = "auto") -> float | None:
    """Seconds until the time in field `name`."""
    value = answer.get(name)
    return None if value is None else waits.reset(value, answer.clock, encoding)


def count_usage(reading: Reading, source: object, *members: str, unit: str = "tokens") -> None:
    """Sum the whole numbers in `members` of `source` as actual use; nothing if none is there."""
    if isinstance(source, Mapping):
        found = [number for name in members if (number := numbers.whole(source.get(name))) is not None]
        if found:
            reading.usage[unit] = min(MAX_COST, sum(found))


_CATEGORIES = {
    401: "auth",
    402: "quota_exhausted",
    403: "auth",
    407: "network",
    408: "timeout",
    429: "rate_limited",
}
