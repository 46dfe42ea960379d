"""What a project's key with the scope `operate` may steer, for every such endpoint of the URL table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from queues.models import Queue
from quotas.models import Account
from tests.integration.quotas.api.conftest import api, policy
from tests.integration.quotas.api.test_pools import make_pool


def steering(patterns: list[Any] | None = None, above: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of all that the scope `operate` opens."""
    for one in get_resolver().url_patterns if patterns is None else patterns:
        path = f"{above}{one.pattern}"
        if isinstance(one, URLResolver):
            yield from steering(one.url_patterns, path)
        elif isinstance(one, URLPattern):
            scopes = getattr(getattr(one.callback, "view_class", None), "scopes", {})
            yield from (
                (method, path.removeprefix("api/v1/")) for method, scope in scopes.items() if scope == "operate"
            )


VERBS = ["clear-cooldown", "trip", "close", "disable", "enable"]
SHARED = {
    **{f"pools/<str:pool>/{verb}": [f"pools/llm/{verb}"] for verb in ("pause", "resume")},
    **{f"queues/<str:name>/{verb}": [f"queues/batch/{verb}"] for verb in ("pause", "resume", "drain")},
    "accounts/<str:account>/<str:verb>": [f"accounts/ID/{verb}" for verb in VERBS],
}
"""By pattern the calls on what several projects use."""
OWN = {
    "limits/reset", "rate-limiter/reset", "limits/backtest", "jobs/<str:uid>/retry", "dead-letters/replay",
    "dead-letters/<str:uid>/replay", "dead-letters/<str:uid>/discard", "alerts/<str:uid>/acknowledge",
    "alerts/<str:uid>/resolve",
}  # fmt: skip
"""What is bound to a project: tests of each say that other projects' things are not found."""


def test_each_endpoint_is_of_one_kind() -> None:
    table = {path for _, path in steering()}
    assert table == {*SHARED, *OWN}
    assert not set(SHARED) & OWN


def path_of(template: str) -> str:
    return template.replace("ID", str(Account.objects.order_by("pk").values_list("pk", flat=True)[0]))


CALLS = [call for calls in SHARED.values() for call in calls]


@pytest.mark.parametrize("projects", [None, ["acme", "other"]], ids=["everybody's", "of two"])
@pytest.mark.parametrize("call", CALLS)
def test_a_projects_key_does_not_steer_what_others_use(call: str, projects: list[str] | None) -> None:
    pool = make_pool(accounts=1, projects=projects)
    Queue.objects.get_or_create(name="batch")
    key, platform = api("operate", "read", project="acme"), api("operate", "read")
    refused = key.post(path_of(call), {"reason": "test"})
    assert refused.status_code == 403 and refused.json()["type"] == "/problems/forbidden"
    pool.refresh_from_db()
    assert pool.paused_at is None and pool.accounts.get().enabled
    assert platform.post(path_of(call), {"reason": "test"}).status_code == 200


@pytest.mark.parametrize("call", [call for call in CALLS if not call.startswith("queues/")])
def test_a_projects_key_steers_a_pool_of_its_own(call: str) -> None:
    make_pool(accounts=1, projects=["acme"])
    assert api("operate", project="acme").post(path_of(call), {"reason": "test"}).status_code == 200
    assert api("operate", project="other").post(path_of(call), {"reason": "test"}).status_code == 404


@pytest.mark.parametrize("scope", ["ip", "global", "user"])
@pytest.mark.parametrize("path", ["limits/reset", "rate-limiter/reset"])
def test_a_projects_key_resets_no_counter_of_others(path: str, scope: str) -> None:
    policy("few", scope, 1)
    asked = {"ip": "192.0.2.1", "user": "u"}
    other, key = api("check", project="other"), api("operate", project="acme")
    assert other.post("limits/check", asked).status_code == 200
    key.post(path, {"policy": "few", "reason": "test"})
    key.post(path, {"all": True, "reason": "test"})
    assert other.post("limits/check", asked).status_code == 429
