"""Accounts and pools over time; one account is tested with one call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.admin.dashboard import forget
from controlplane.models import AccountSample, AuditEntry
from controlplane.observability.account_history import merge_hour
from quotas.models import Account, Pool, Provider
from quotas.runtime.connection import accounts
from quotas.snapshot import resolve
from tests.browser.seed import CREDENTIAL, Day
from tests.integration.controlplane.simulator.process import Simulator

SignIn = Callable[[str], Client]


def panel(client: Client, name: str, pk: int, period: str = "1h") -> str:
    forget()
    answer = client.get(f"/admin/live/{name}?pk={pk}&period={period}")
    assert answer.status_code == 200
    return answer.content.decode()


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def test_the_chart_of_an_account_follows_the_period(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    hour, longer = panel(client, "account", day.account.pk), panel(client, "account", day.account.pk, "6h")
    assert 'class="sl-mark sl-open" x=' in hour and "over 1h" in hour and "over 6h" in longer

    def calls(html: str) -> int:
        return int(re.findall(r"([\d,]+) successful <i", html)[0].replace(",", ""))

    assert calls(hour) < calls(longer) == sum(sample.succeeded for sample in AccountSample.objects.all())


def test_old_minutes_are_merged_by_the_hour(day: Day) -> None:
    AccountSample.objects.all().delete()
    hour = timezone.now().replace(minute=0, second=0, microsecond=0) - timedelta(days=3)
    for number, (state, health) in enumerate([("available", 0.9), ("open", 0.2), ("cooling_down", 0.5)]):
        AccountSample.objects.create(
            account=day.account,
            at=hour + timedelta(minutes=7 + number),
            state=state,
            health=health,
            succeeded=5,
            failed=1,
        )
    other = AccountSample.objects.create(account=day.account, at=hour + timedelta(hours=1), state="available", health=1)
    merge_hour(hour)
    merge_hour(hour)
    one, rest = AccountSample.objects.order_by("at")
    assert (one.at, one.state, one.health, one.succeeded, one.failed) == (hour, "open", 0.2, 15, 3)
    assert rest == other


def test_a_pool_shows_its_fallbacks_in_order_and_what_is_left(signed_in: SignIn, day: Day) -> None:
    provider = Provider.objects.get(name="sim")
    for name in ("spare", "last"):
        Account.objects.create(pool=Pool.objects.create(name=name, provider=provider), name=f"{name}-1", credential="x")
    Pool.objects.filter(name="llm").update(fallback=["spare", "last"])
    resolve.clear()
    page = panel(signed_in("root"), "pool", day.account.pool_id)
    assert "Falls back to: 1. spare 1 of 1 available , 2. last 1 of 1 available" in text_of(page)
    assert 'id="pool-history"' in page and "successful" in page
    assert "212 of 500 requests" in text_of(signed_in("root").get("/admin/quotas/account/").content.decode())


@pytest.fixture
def simulator(day: Day) -> Iterator[Simulator]:
    with Simulator("--rpm", "60", "--key", f"{CREDENTIAL}:rpm=60") as running:
        Provider.objects.filter(name="sim").update(base_url=running.base_url)
        Account.objects.update(state="available", until=None, enabled=True, disabled_reason="")
        resolve.clear()
        yield running


def trial(client: Client, account: Account, **fields: str) -> Any:
    return client.post(f"/admin/quotas/account/{account.pk}/test/", {**fields, "_form_submitted": "True"})


def said(client: Client) -> str:
    return text_of(client.get("/admin/quotas/account/").content.decode())


def test_one_call_tests_the_chosen_account_and_no_other(signed_in: SignIn, day: Day, simulator: Simulator) -> None:
    client = signed_in("operator")
    for account in Account.objects.order_by("pk")[1:3]:
        asked = client.get(f"/admin/quotas/account/{account.pk}/test/").content.decode()
        assert 'value="/v1/models"' in asked, "the path that costs nothing is filled in"
        before = simulator.stats()["requests"]
        assert trial(client, account, path="/v1/models", reason="new credential").status_code == 200
        assert f"{account}: ok, status 200 in" in said(client)
        assert simulator.stats()["requests"] == before + 1
        (state,) = [one for one in accounts().states(resolve.pool_spec("llm")) if one.id == str(account.pk)]
        assert state.successes == 1 and state.in_flight == 0
        done = AuditEntry.objects.filter(verb="account.test", target=f"account:{account}").order_by("pk").last()
        assert done is not None and (done.actor, done.reason) == ("user:operator", "new credential")
        assert done.after == {"path": "/v1/models", "category": "ok", "status": 200}
    assert CREDENTIAL not in said(client) + str(list(AuditEntry.objects.values()))


def test_a_failed_test_says_why(signed_in: SignIn, day: Day, simulator: Simulator) -> None:
    client = signed_in("operator")
    account = day.account
    simulator.stop()
    trial(client, account, path="/v1/models", reason="is it up?")
    assert "network, no answer in" in said(client)
    trial(client, account, path="//elsewhere.example/v1", reason="try")
    trial(client, account, path="@elsewhere.example/", reason="try")
    assert said(client).count("stay on the provider") == 1
    Pool.objects.filter(pk=account.pool_id).update(paused_at=timezone.now())
    resolve.clear()
    trial(client, account, path="/v1/models", reason="try")
    assert "No call was made" in said(client)


@pytest.mark.parametrize("role", ["viewer", "member"])
def test_who_may_not_operate_tests_no_account(signed_in: SignIn, day: Day, simulator: Simulator, role: str) -> None:
    before = simulator.stats()["requests"]
    assert trial(signed_in(role), day.account, path="/v1/models", reason="because").status_code in (302, 403, 404)
    assert simulator.stats()["requests"] == before and not AuditEntry.objects.filter(verb="account.test").exists()
