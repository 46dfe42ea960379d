"""A quota's page: what was used and refused over time, who is blocked, and what another limit would have denied."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.admin.dashboard import forget
from controlplane.models import AuditEntry
from quotas import limits
from quotas.models import Override, Policy, Project, UsageRollup
from quotas.services import api_keys
from quotas.services.rollups import start_of
from quotas.snapshot import resolve
from tests.browser.seed import Day
from tests.integration.controlplane.admin.pages import filled

SignIn = Callable[[str], Client]


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def panel(client: Client, policy: Policy, period: str = "1h") -> str:
    forget()
    answer = client.get(f"/admin/live/policy?pk={policy.pk}&period={period}")
    assert answer.status_code == 200
    return answer.content.decode()


def table(html: str, id: str) -> list[str]:
    found = re.search(rf'id="{id}".*?</table>', html, re.S)
    return [] if found is None else [text_of(row).strip() for row in re.findall(r"<tr>.*?</tr>", found[0], re.S)[1:]]


@pytest.fixture
def hourly(day: Day) -> Policy:
    """Two users and a stranger over three hours, by minute and hour."""
    Policy.objects.all().delete()
    policy = Policy.objects.create(name="hourly", scope="user", algorithm="fixed_window", limit=10, window=60)
    resolve.clear()
    now = timezone.now()
    for ago, key, used, denied in ((2, "ann", 10, 40), (3, "ann", 10, 5), (2, "bob", 7, 0), (180, "old", 9, 300)):
        for resolution in ("minute", "hour"):
            UsageRollup.objects.create(
                policy=policy, project="acme", key=key, resolution=resolution, used=used, denied=denied, limit=10,
                start=start_of("minute", now - timedelta(minutes=ago)),
            )  # fmt: skip
    UsageRollup.objects.create(
        policy=policy, project="globex", key="eve", resolution="minute", used=4, denied=90, limit=10,
        start=start_of("minute", now - timedelta(minutes=2)),
    )  # fmt: skip
    return policy


def test_top_consumers_by_use_and_by_denials_follow_the_period(signed_in: SignIn, hourly: Policy) -> None:
    client = signed_in("root")
    page = panel(client, hourly)
    assert table(page, "by-use") == ["ann acme 20 10 of 10", "bob acme 7 7 of 10", "eve globex 4 4 of 10"]
    assert table(page, "by-denials") == ["eve globex 90", "ann acme 45"]
    assert "135 denied" in text_of(page) and "at most 100% of its limit" in text_of(page)
    later = panel(client, hourly, "6h")
    assert table(later, "by-denials") == ["old acme 300", "eve globex 90", "ann acme 45"]
    assert len(re.findall(r'<rect class="sl-bar-dead"', later)) >= 2


def test_the_page_and_the_api_agree_on_denials(signed_in: SignIn, hourly: Policy) -> None:
    client = signed_in("root")
    since = (timezone.now() - timedelta(minutes=59)).isoformat()
    rows = client.get(
        "/api/v1/limits/usage/history", {"policy": "hourly", "resolution": "minute", "from": since}
    ).json()["results"]
    shown = {row.split()[0]: int(row.split()[-1]) for row in table(panel(client, hourly), "by-denials")}
    sums: dict[str, int] = {}
    for row in rows:
        sums[row["key"]] = sums.get(row["key"], 0) + row["denied"]
    assert shown == {key: count for key, count in sums.items() if count} and shown


def test_a_member_sees_the_own_projects_subjects_only(signed_in: SignIn, hourly: Policy) -> None:
    page = panel(signed_in("member"), hourly)
    assert "ann" in page and "eve" not in page


def test_the_chosen_project_narrows_lists_and_figures(signed_in: SignIn, hourly: Policy) -> None:
    client = signed_in("root")
    globex = Project.objects.get(slug="globex")
    back = "/admin/queues/job/"
    answer = client.post("/admin/project/", {"project": globex.pk, "next": back})
    assert (answer.status_code, answer["Location"]) == (302, back)
    assert "eve" in (page := panel(client, hourly)) and "ann" not in page
    shown = client.get(back).context["cl"].queryset
    assert set(shown.values_list("project__slug", flat=True)) == {"globex"}
    assert client.get("/admin/quotas/policy/").context["cl"].queryset.filter(name="hourly").exists(), (
        "it applies to all"
    )
    client.post("/admin/project/", {"project": "", "next": "https://elsewhere.example/"})
    assert "ann" in panel(client, hourly)
    stranger = signed_in("member")
    stranger.post("/admin/project/", {"project": globex.pk})
    assert "eve" not in panel(stranger, hourly), "a choice gives no access"


def test_an_override_is_marked_and_who_is_blocked_is_named(signed_in: SignIn, hourly: Policy) -> None:
    Override.objects.create(policy=hourly, key="ann", limit=3, reason="load test")
    Override.objects.create(
        policy=hourly, key="bob", limit=3, reason="over", until=timezone.now() - timedelta(minutes=1)
    )
    resolve.clear()
    for user, count in (("ann", 3), ("bob", 3)):
        for _ in range(count):
            assert limits.check(project="acme", user=user)
    page = panel(signed_in("root"), hourly)
    rows = {row.split()[0]: row for row in table(page, "use-now")}
    assert "override" in rows["ann"] and "3 of 3 requests" in rows["ann"]
    assert "override" not in rows["bob"] and "3 of 10 requests" in rows["bob"]
    blocked = text_of(re.search(r'<p id="blocked-now">.*?</p>', page, re.S)[0])  # type: ignore[index]
    assert "ann" in blocked and "resets in" in blocked and "bob" not in blocked


def test_the_page_asks_the_same_number_of_queries_for_many_subjects(signed_in: SignIn, hourly: Policy) -> None:
    client = signed_in("root")
    panel(client, hourly)

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as asked:
            panel(client, hourly)
        return len(asked)

    before = queries()
    start = start_of("minute", timezone.now() - timedelta(minutes=4))
    UsageRollup.objects.bulk_create(
        UsageRollup(policy=hourly, project="acme", key=f"u-{number}", resolution="minute", start=start, used=number % 10, denied=1, limit=10)
        for number in range(3_000)
    )  # fmt: skip
    assert queries() <= before + 1, "the configuration's version is read once a second as well"


def try_out(client: Client, policy: Policy, period: str = "1h", **given: Any) -> str:
    page = client.get(f"/admin/quotas/policy/{policy.pk}/change/").content.decode()
    fields = filled(page, "policy", **given)
    answer = client.post(f"/admin/quotas/policy/backtest/?pk={policy.pk}", {**fields, "period": period})
    assert answer.status_code == 200
    return text_of(answer.content.decode())


def test_the_form_says_what_another_limit_would_have_denied(signed_in: SignIn, hourly: Policy) -> None:
    client = signed_in("administrator")
    with_five = try_out(client, hourly, limit="5")
    token = api_keys.create("t", ["operate"], project=None, actor="test", reason="test")[1]
    now = timezone.now()
    body = {
        "policy": {"name": "hourly", "scope": "user", "unit": "requests", "algorithm": "fixed_window", "limit": 5, "window": 60},
        "from": (now - timedelta(hours=1)).isoformat(), "to": now.isoformat(),
    }  # fmt: skip
    said = Client().post(
        "/api/v1/limits/backtest", body, content_type="application/json", headers={"Authorization": f"Bearer {token}"}
    )
    assert said.status_code == 200, said.content
    total = said.json()["total"]
    assert total["denied"] > 0
    assert (
        f"Would have denied {total['denied']:,} of {total['demand']:,} requests, "
        f"{total['subjects_denied']} of {total['subjects']} users" in with_five
    )
    assert "Would have denied 0 of" in try_out(client, hourly, limit="5000")
    assert "Would report" in try_out(client, hourly, limit="5", mode="shadow")
    hourly.refresh_from_db()
    assert hourly.limit == 10 and not AuditEntry.objects.filter(verb="policy.change").exists(), "nothing is saved"


def test_a_form_that_is_not_complete_says_what_is_missing(signed_in: SignIn, hourly: Policy) -> None:
    assert "Window: Required for fixed window." in try_out(signed_in("administrator"), hourly, window="")
    assert "Nothing is recorded" in try_out(signed_in("administrator"), hourly, unit="tokens")


@pytest.mark.parametrize("role", ["viewer", "operator", "member"])
def test_who_may_not_change_a_policy_has_no_backtest(signed_in: SignIn, hourly: Policy, role: str) -> None:
    client = signed_in(role)
    assert client.post(f"/admin/quotas/policy/backtest/?pk={hourly.pk}", {"limit": 1}).status_code in (403, 404)
    assert client.post("/admin/quotas/policy/backtest/", {"limit": 1}).status_code == 403
    assert b'id="backtest"' not in client.get(f"/admin/quotas/policy/{hourly.pk}/change/").content
    assert signed_in("administrator").get("/admin/quotas/policy/backtest/").status_code == 405
