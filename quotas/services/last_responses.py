"""The last response of an account's provider: status and header fields about limits, redacted, for display.

Kept in Redis for a week, per account. Written at each failure (at most once a second) and else every few seconds, so
that a busy account costs nothing more.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.types import CallOutcome
from quotas.runtime.connection import accounts

RESPONSE_TTL = 7 * 86400
WRITE_INTERVAL = 5.0
"""Seconds between two successes that are written by one process."""
AT_ONCE = 1.0
"""The same for failures."""
MAX_ACCOUNTS = 10_000
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LastAnswer:
    at: datetime
    status: int | None
    outcome: str
    headers: Mapping[str, str]


_lock = threading.Lock()
_written: dict[str, float] = {}


def forget() -> None:
    """Write each account's next response, however short the last one was ago."""
    with _lock:
        _written.clear()


def note(account_id: str, outcome: CallOutcome) -> None:
    """Keep it if it is time. It is only for show: where Redis is unavailable, the call that it came from ends all the same."""
    now = time.monotonic()
    with _lock:
        if not is_due(account_id, outcome):
            return
        if len(_written) >= MAX_ACCOUNTS:
            _written.clear()
        _written[account_id] = now
    document = {
        "at": time.time(),
        "status": outcome.status,
        "outcome": outcome.category,
        "headers": dict(outcome.rate_limit_fields),
    }
    try:
        accounts().transport.command("SET", _key(account_id), json.dumps(document).encode(), "EX", str(RESPONSE_TTL))
    except LimiterUnavailable as error:
        log.info("account.last_answer_lost", account=account_id, error=str(error))


def is_due(account_id: str, outcome: CallOutcome) -> bool:
    """Whether `note` would write it."""
    if not account_id or outcome.status is None:
        return False
    pause = WRITE_INTERVAL if outcome.category == "ok" else AT_ONCE
    return time.monotonic() - _written.get(account_id, float("-inf")) >= pause


def of(account_id: str) -> LastAnswer | None:
    """The last one that was kept. Raises `LimiterUnavailable`."""
    raw = accounts().transport.command("GET", _key(account_id))
    if raw is None:
        return None
    found = json.loads(raw)
    at = datetime.fromtimestamp(found["at"], UTC)
    return LastAnswer(at, found["status"], found["outcome"], found["headers"])


def _key(account_id: str) -> bytes:
    return accounts().keys.key("a", "h", account_id)
