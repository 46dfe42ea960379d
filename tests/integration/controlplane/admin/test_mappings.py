"""Forms read mappings to their leaves, as the configuration file does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from queues.models import RetryPolicy
from quotas.models import CostRule, Provider
from tests.browser.seed import Day

SignIn = Callable[[str], Client]
PROVIDER = {
    "name": "new", "dialect": "generic", "base_url": "https://api.example.com", "timeout": "30", "settings": "{}", "default_output_tokens": "512",
    "auth_header": "Authorization: Bearer {credential}",
}  # fmt: skip
RETRY = {
    "name": "new", "strategy": "exponential", "initial": "1", "max": "60", "max_attempts": "5", "jitter": "0.1",
    "auto_replays": "0", "auto_replay_after": "900", "by_category": "{}",
}  # fmt: skip


def provider(client: Client, settings: Any, **fields: str) -> Any:
    return client.post("/admin/quotas/provider/add/", {**PROVIDER, **fields, "settings": json.dumps(settings)})


def retry_policy(client: Client, by_category: Any) -> Any:
    return client.post("/admin/queues/retrypolicy/add/", {**RETRY, "by_category": json.dumps(by_category)})


def test_good_ones_are_saved(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    limits = {"requests": {"limit": "X-Limit", "reset": "X-Reset", "encoding": "epoch"}}
    assert provider(client, {"retry_after": "X-Wait", "limits": limits}).status_code == 302
    assert Provider.objects.get(name="new").settings["retry_after"] == "X-Wait"
    assert retry_policy(client, {"auth": "never", "server": {"initial": 0.5, "max": 4}}).status_code == 302


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"retry_afterr": "X"}, "did you mean &#x27;retry_after&#x27;?"),
        ({"limits": {"requests": {"remainin": "X"}}}, "limits.requests.remainin is not known here"),
        ({"codes": {"auth": "bad"}}, "codes.auth must be a list"),
        ([1], "must be a mapping"),
    ],
)
def test_settings_of_a_provider(signed_in: SignIn, day: Day, settings: Any, message: str) -> None:
    answer = provider(signed_in("root"), settings)
    assert message in answer.content.decode()
    assert not Provider.objects.filter(name="new").exists()


def test_settings_of_a_dialect_that_reads_none(signed_in: SignIn, day: Day) -> None:
    answer = provider(signed_in("root"), {"retry_after": "X"}, dialect="openai")
    assert "are read for the dialect generic only" in answer.content.decode()


@pytest.mark.parametrize(
    ("by_category", "message"),
    [
        ({"servr": "never"}, "did you mean &#x27;server&#x27;?"),
        ({"server": {"intial": 1}}, "did you mean &#x27;initial&#x27;?"),
        ({"server": {"initial": "soon"}}, "server.initial: seconds"),
        ({"server": {"initial": 5, "max": 1}}, "server: initial is above max"),
        ({"server": {"max_attempts": 2}}, "server.max_attempts is not known"),
        ({"server": {"strategy": "exponentially"}}, "did you mean &#x27;exponential&#x27;?"),
        ({"server": "sometimes"}, "&quot;never&quot;, or"),
    ],
)
def test_exceptions_of_a_retry_policy(signed_in: SignIn, day: Day, by_category: Any, message: str) -> None:
    answer = retry_policy(signed_in("root"), by_category)
    assert message in answer.content.decode()
    assert not RetryPolicy.objects.filter(name="new").exists()


@pytest.mark.parametrize("cost", [{"": 1}, {"two words": 1}, {"u" * 33: 1}])
def test_units_of_a_cost(signed_in: SignIn, day: Day, cost: Any) -> None:
    posted = {"match": "/v1/x", "cost": json.dumps(cost)}
    assert signed_in("root").post("/admin/quotas/costrule/add/", posted).status_code == 200
    assert not CostRule.objects.filter(match="/v1/x").exists()
