"""Header fields: which of a caller's are for us, which travel on, and which of a provider's come back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from django.conf import settings

from quotas.engine.costs import COUNT_RULE, MAX_COST
from quotas.engine.priorities import PRIORITIES
from quotas.rest.problems import ProblemError

Pairs = list[tuple[bytes, bytes]]
MAX_WAIT = 300.0
CREDENTIALS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1"""
_STAYS = HOP_BY_HOP | {
    *CREDENTIALS, b"host", b"content-length", b"cookie", b"prefer", b"expect", b"accept-encoding", b"forwarded", b"via",
    b"x-real-ip",
}  # fmt: skip
_STAYS_BACK = HOP_BY_HOP | {b"set-cookie", b"content-length", b"server", b"alt-svc", b"strict-transport-security"}
_SINGLE = frozenset({*CREDENTIALS, b"host", b"content-type", b"content-length", b"idempotency-key"})
_RATE_LIMIT = re.compile(rb"rate-?limit")
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,63}")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the fields `Sluice-*` and `Prefer` request. `cost` has only the units that the caller has named."""

    project: str | None = None
    user: str | None = None
    priority: int = 5
    keys: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, int] = field(default_factory=dict)
    sticky: str = ""
    wait: float = 0.0
    may_defer: bool = False
    """Whether a call that can't be made now becomes a job."""
    queue: str = ""
    """The queue of that job; empty: the pool's."""

    @property
    def preferred(self) -> str:
        """What was applied, for `Preference-Applied`."""
        return f"wait={self.wait:g}" if self.wait else ""


_NONE = Wishes()


def single(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Fields by name. Raises a problem where a decisive one occurs twice, or lengths conflict."""
    found: dict[bytes, bytes] = {}
    size = 0
    for name, value in pairs:
        size += len(name) + len(value) + 4
        if name in found and (name in _SINGLE or name.startswith(b"sluice-")):
            raise _invalid(f"{name.decode('latin-1')} occurs more than once.")
        found[name] = b"%b, %b" % (found[name], value) if name == b"prefer" and name in found else value
    if size > settings.GATEWAY_MAX_HEADERS:
        raise ProblemError(
            "headers-too-large", "Header fields too large", 431, f"They may have {settings.GATEWAY_MAX_HEADERS} bytes."
        )
    if b"content-length" in found and b"transfer-encoding" in found:
        raise _invalid("Content-Length and Transfer-Encoding exclude each other.")
    return found


def token_of(fields: Mapping[bytes, bytes]) -> str:
    """The API key, from where the SDKs of providers send theirs; empty where there is none."""
    found = set()
    for name in CREDENTIALS:
        value = fields.get(name, b"").decode("latin-1").strip()
        if name == b"authorization":
            word, _, value = value.partition(" ")
            value = value.strip() if word.lower() == "bearer" else ""
        if value.startswith("sl_") and value.isascii():
            found.add(value)
    return found.pop() if len(found) == 1 else ""


def wishes_of(fields: Mapping[bytes, bytes]) -> Wishes:
    """Raises a problem for a field that can't be read, or that does not exist."""
    given = {
        name[7:].decode("latin-1"): _text(name, value) for name, value in fields.items() if name.startswith(b"sluice-")
    }
    if not given and b"prefer" not in fields:
        return _NONE
    known = {"project", "user", "priority", "keys", "cost", "sticky", "queue"}
    if unknown := sorted(given.keys() - known):
        raise _invalid(f"There is no request field Sluice-{unknown[0].title()}.")
    wait, may_defer = _prefer(fields.get(b"prefer", b"").decode("latin-1"))
    return Wishes(
        project=given.get("project") or None,
        user=given.get("user") or None,
        priority=_priority(given.get("priority", "normal")),
        keys=_pairs_of("Sluice-Keys", given.get("keys", "")),
        cost={unit: _count(unit, text) for unit, text in _pairs_of("Sluice-Cost", given.get("cost", "")).items()},
        sticky=given.get("sticky", ""),
        wait=wait,
        may_defer=may_defer,
        queue=given.get("queue", ""),
    )


def onward(pairs: Iterable[tuple[bytes, bytes]], fields: Mapping[bytes, bytes], token: str) -> list[tuple[str, str]]:
    """A caller's fields that are sent to the provider: none that is for this connection, for us, or contains the key."""
    named = _named_by_connection(fields[b"connection"]) if b"connection" in fields else ()
    secret = token.encode()
    return [
        (shown, value.decode("latin-1"))
        for name, value in pairs
        if (shown := _onward(name)) and name not in named and secret not in value
    ]


@lru_cache(maxsize=1024)
def _onward(name: bytes) -> str:
    """The name of a field that is passed on; empty for any other."""
    stays = name in _STAYS or name.startswith((b"sluice-", b"x-forwarded-"))
    return "" if stays else name.decode("latin-1")


def back(pairs: Iterable[tuple[bytes, bytes]], *, limits: bool) -> Pairs:
    """A provider's fields that are sent to the caller; `limits`: also those about the account's limits."""
    fields = [(name.lower(), value) for name, value in pairs]
    connection = [value for name, value in fields if name == b"connection"]
    named = _named_by_connection(b",".join(connection)) if connection else ()
    return [(name, value) for name, value in fields if _comes_back(name, limits) and name not in named]


@lru_cache(maxsize=1024)
def _comes_back(name: bytes, limits: bool) -> bool:
    if name in _STAYS_BACK or name.startswith(b"sluice-"):
        return False
    return limits or not _RATE_LIMIT.search(name)


def _named_by_connection(value: bytes) -> set[bytes]:
    return {word.strip().lower() for word in value.split(b",")}


def _text(name: bytes, value: bytes) -> str:
    try:
        text = value.decode().strip()
    except UnicodeDecodeError:
        raise _invalid(f"{name.decode('latin-1')} is not UTF-8.") from None
    if len(text) > 1024:
        raise _invalid(f"{name.decode('latin-1')} has more than 1024 characters.")
    return text


def _priority(text: str) -> int:
    if text in PRIORITIES:
        return PRIORITIES[text]
    if len(text) == 1 and text.isascii() and text.isdigit():
        return int(text)
    raise _invalid("Sluice-Priority must be high, normal, low or a digit from 0 to 9.")


def _pairs_of(name: str, text: str) -> dict[str, str]:
    """`chat=-100123, model=x`."""
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        key, equals, value = part.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not value or not _KEY.fullmatch(key) or key in found:
            raise _invalid(f"{name} must be pairs such as name=value, separated by commas.")
        found[key] = value
    return found


def _count(unit: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) > MAX_COST:
        raise _invalid(f"Sluice-Cost: {unit} must be {COUNT_RULE}.")
    return int(text)


def _prefer(text: str) -> tuple[float, bool]:
    """`wait=30, respond-async` (https://www.rfc-editor.org/rfc/rfc7240): unknown preferences are ignored, and of one
    that is repeated the first counts."""
    wait: float | None = None
    may_defer = False
    for part in text.split(","):
        name, _, value = part.partition(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name == "wait" and wait is None and value.isascii() and value.isdigit() and len(value) < 10:
            wait = min(MAX_WAIT, float(value))
        may_defer = may_defer or name == "respond-async"
    return wait or 0.0, may_defer


def _invalid(detail: str) -> ProblemError:
    return ProblemError("invalid-request", "Invalid request", 400, detail)
