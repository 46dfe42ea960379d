"""What every dialect builds on: a category from the status, learned quota, the priority of hints, one error line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from quotas.engine.categories import LIMITS
from quotas.engine.costs import MAX_COST
from quotas.engine.dialects import numbers, wait_values
from quotas.engine.dialects.response import Answer, dig
from quotas.engine.learned import Kind, LearnedQuota

Scope = Literal["account", "key", "pool", "model"]


@dataclass(slots=True)
class Reading:
    """A dialect's findings while it reads; `None` is not known."""

    category: str
    scope: Scope = "account"
    hint: float | None = None
    """The provider's explicit wait."""
    learned: dict[str, LearnedQuota] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    message: str = ""
    resource: str | None = None
    """See `Outcome.resource`."""
    certain: bool = False
    """See `Outcome.certain`."""
    unpaid: bool = False
    """The account has no money or quota that comes back by itself: no reset of a rate limit ends that."""

    def reject_request(self) -> None:
        """The refusal is about the request, whichever account sends it."""
        self.category, self.hint, self.certain = "validation", None, False

    def spend_account(self) -> None:
        """The account is out of money or of a quota that no rate limit's reset brings back."""
        self.category, self.scope, self.unpaid = "quota_exhausted", "account", True

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
        kind: Kind = "window",
    ) -> None:
        """Keep what is known of one unit's quota. A limit of 0 or none at all says nothing without a remainder."""
        if limit is not None and limit <= 0:
            limit = remaining = None
        if limit is None and remaining is None:
            return
        self.learned[unit] = LearnedQuota(limit, remaining, reset_after, window, kind)

    def wait(self) -> float | None:
        """The hint by priority: explicit; reset of what is exhausted; the longest reset; None.

        Only an answer that refuses because of a limit waits for resets; a server's error only for its own hint.
        What says "now" is a short wait, never none and never the default.
        """
        if self.hint is not None:
            return wait_values.floored(self.hint)
        if self.category not in LIMITS or self.unpaid:
            return None
        resets = [(quota.remaining, quota.reset_after) for quota in self.learned.values()]
        exhausted = [reset for remaining, reset in resets if remaining == 0 and reset is not None]
        every = [reset for _, reset in resets if reset]
        longest = max(exhausted or every, default=None)
        return None if longest is None else wait_values.floored(longest)


def by_status(answer: Answer) -> Reading:
    """The findings that apply to any HTTP API: category by status, `Retry-After`, the error's text."""
    reading = Reading(category(answer.status))
    if answer.status == 403:
        reading.scope = "key"
    if reading.category not in ("ok", "validation"):
        reading.hint = wait_values.retry_after(answer.all("retry-after"), answer.clock)
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
        detail = body.get("detail")
        for place in (*(one for one in (error, detail) if isinstance(one, dict)), body):
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
        "limit": least(answer, f"{prefix}limit{suffix}"),
        "remaining": least(answer, f"{prefix}remaining{suffix}"),
    }


def least(answer: Answer, name: str) -> int | None:
    """The count in field `name`; the least one where there are several, or where a proxy has merged them.

    Policies behind a count (`100, 10;w=1`) are no counts, unless there is nothing else.
    """
    values = answer.all(name)
    if not values:
        return None
    pieces = [piece.strip(" \t") for value in values for piece in value[:1000].split(",")]
    plain = [number for piece in pieces if (number := numbers.whole(piece)) is not None]
    if not plain:
        plain = [number for piece in pieces if (number := numbers.whole(piece.partition(";")[0])) is not None]
    return min(plain, default=None)


def reset_of(answer: Answer, name: str, encoding: str = "auto") -> float | None:
    """Seconds until the time in field `name`; the longest where there are several."""
    values = answer.all(name)
    if not values:
        return None
    pieces = [piece for value in values for piece in wait_values.parts(value)]
    found = [seconds for piece in pieces if (seconds := wait_values.reset(piece, answer.clock, encoding)) is not None]
    return max(found, default=None)


def usage_in(answer: Answer, *places: tuple[str, ...]) -> dict[str, int]:
    """The counts of the use that the body reports at any of `places`, in any of its parts.

    The events of a stream report running totals, each of them some of the members: the last of each is kept, as the
    end of a stream may correct what its beginning has estimated. A zero corrects nothing: servers put it where they do not count.
    """
    totals: dict[str, int] = {}
    for part in answer.parts:
        for place in places:
            source = dig(part, *place)
            if not isinstance(source, Mapping):
                continue
            for name, value in source.items():
                number = value if type(value) is int and 0 <= value <= MAX_COST else numbers.whole(value)
                if number is not None and isinstance(name, str) and (number or name not in totals):
                    totals[name] = number
    return totals


def count_usage(reading: Reading, totals: Mapping[str, int], *members: str, unit: str = "tokens") -> None:
    """Sum `members` of `totals` as actual use; nothing if none is present."""
    found = [totals[name] for name in members if name in totals]
    if found and unit not in reading.usage:
        reading.usage[unit] = min(MAX_COST, sum(found))


def reason_of(text: str) -> str:
    """The first 2,000 characters of an error's text without the status in front of it."""
    status, _, words = text[:2000].partition(" ")
    return words if status.isdigit() else text[:2000]


_CATEGORIES = {
    401: "auth",
    402: "quota_exhausted",
    403: "auth",
    407: "network",
    408: "timeout",
    420: "rate_limited",
    429: "rate_limited",
}
