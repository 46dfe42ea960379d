"""Everything that can be made to go wrong, in each dialect, and what the dialect's reader makes of it."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from quotas.engine.dialects import read
from tests.integration.controlplane.simulator.process import Simulator
from tests.support.valkey import wait_for

TELEGRAM = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
CALLS: dict[str, tuple[str, str, Any]] = {
    "openai": ("POST", "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}),
    "anthropic": (
        "POST",
        "/v1/messages",
        {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]},
    ),
    "telegram": ("POST", f"/bot{TELEGRAM}/sendMessage", {"chat_id": 1, "text": "Hello"}),
    "github": ("GET", "/user", None),
    "generic": ("POST", "/anything", {"a": 1}),
}
LIMIT_HEADERS = {
    "openai": "x-ratelimit-remaining-requests",
    "anthropic": "anthropic-ratelimit-requests-remaining",
    "github": "x-ratelimit-remaining",
    "generic": "ratelimit",
}


class Called:
    """One provider and the call that its dialect knows."""

    def __init__(self, dialect: str, sim: Simulator) -> None:
        self.dialect, self.sim = dialect, sim
        self.key = TELEGRAM if dialect == "telegram" else "k1"

    def __call__(self) -> tuple[int, dict[str, str], Any]:
        method, path, body = CALLS[self.dialect]
        if self.dialect == "anthropic":
            return self.sim.call(method, path, body, key="", x_api_key=self.key)
        return self.sim.call(method, path, body, key="" if self.dialect == "telegram" else self.key)

    def outcome(self) -> Any:
        status, headers, body = self()
        return read(self.dialect, status, headers, body, secrets=[self.key])


@pytest.fixture(params=sorted(CALLS))
def called(request: pytest.FixtureRequest) -> Iterator[Called]:
    # Telegram's limit of one message a second per chat is not what is looked at here.
    with Simulator("--dialect", request.param, "--rpm", "6000") as sim:
        yield Called(request.param, sim)


def test_storms_and_server_errors(called: Called) -> None:
    called.sim.faults({"status": 429, "key": called.key, "headers": {"retry-after": "7"}})
    assert (called.outcome().category, called.outcome().retry_after) == ("rate_limited", 7.0)
    called.sim.faults({"status": 429})
    assert called.outcome().category == "rate_limited"
    for status in (500, 502, 503):
        called.sim.faults({"status": status})
        assert called.outcome().category == "server"
    called.sim.faults({"status": 429, "key": "somebody else's"})
    assert called()[0] == 200
    assert called.sim.stats()["refused"] == 3


def test_slow_answers(called: Called) -> None:
    called.sim.faults({"latency": 0.3})
    start = time.monotonic()
    assert called()[0] == 200
    assert time.monotonic() - start >= 0.3


def test_a_reset_in_the_middle_of_the_body(called: Called) -> None:
    called.sim.faults({"drop": True})
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        called()
    called.sim.faults()
    wait_for(lambda: called()[0] == 200)  # Telegram: the work was done, so the chat has had its message of this second


@pytest.mark.parametrize("skew", [3600, -3600])
def test_a_wrong_clock_changes_no_wait(called: Called, skew: int) -> None:
    called.sim.faults({"clock_skew": skew, "status": 429})
    _, headers, _ = called()
    at = parsedate_to_datetime(headers["date"]).timestamp()
    assert abs(at - time.time() - skew) < 10
    for unit, quota in called.outcome().learned.items():
        assert quota.reset_after is not None and quota.reset_after <= 61, (unit, quota)


def test_missing_headers_say_nothing(called: Called) -> None:
    if called.dialect in LIMIT_HEADERS:
        assert LIMIT_HEADERS[called.dialect] in called()[1]
    called.sim.faults({"missing_headers": True, "status": 429})
    status, headers, _ = called()
    assert status == 429
    assert not [name for name in headers if "ratelimit" in name or name in ("retry-after", "date")]
    outcome = called.outcome()
    assert (outcome.category, outcome.learned, outcome.retry_after) == ("rate_limited", {}, None)


def test_a_key_becomes_invalid_and_is_echoed(called: Called) -> None:
    assert called()[0] == 200
    body = {"openai": '{"error": {"message": "bad key {credential}"}}', "telegram": '{"ok":false,"error_code":401}'}
    called.sim.faults({"invalid_key": called.key, "body": body.get(called.dialect, '{"message": "{credential}"}')})
    outcome = called.outcome()
    assert (outcome.category, outcome.scope, outcome.status) == ("auth", "account", 401)
    assert called.key not in outcome.error
    called.sim.faults()
    assert called.outcome().category in ("ok", "rate_limited"), "it returns"


def test_a_blocked_address_is_nobodys_credential(called: Called) -> None:
    """403 for everybody, as after a ban of the address: no key is to blame, so none may be taken out."""
    called.sim.faults({"status": 403})
    outcome = called.outcome()
    assert outcome.category in ("auth", "validation")
    assert outcome.scope == "key", "an account's own refusal would disable it"
