"""Alerts and their rules in the admin: no address is shown, members see their project's, buttons do what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.test import Client

from controlplane.alerts import records, summaries
from controlplane.models import Alert, AlertRule, AuditEntry
from tests.browser.seed import Day

SignIn = Callable[[str], Client]
HUSH = "webhook+https://hush-user:hush-word@hooks.example.com/hush-path"
FORM: dict[str, Any] = {
    "name": "ops",
    "enabled": "on",
    "when": ["breaker_opened", "queue_backlog"],
    "reason": "because",
}


def test_an_address_goes_in_and_never_comes_out(signed_in: SignIn, day: Day) -> None:
    root = signed_in("administrator")
    refused = root.post("/admin/controlplane/alertrule/add/", {**FORM, "to": "https://hush/"})
    assert refused.status_code == 200 and "begins with webhook+https://" in refused.content.decode()
    assert not AlertRule.objects.exists()
    assert root.post("/admin/controlplane/alertrule/add/", {**FORM, "to": HUSH}).status_code == 302
    rule = AlertRule.objects.get()
    assert rule.to.reveal() == HUSH and rule.when == ["breaker_opened", "queue_backlog"]  # type: ignore[attr-defined]
    path = f"/admin/controlplane/alertrule/{rule.pk}/change/"
    assert root.post(path, {**FORM, "when": ["breaker_opened"], "to": ""}).status_code == 302
    rule.refresh_from_db()
    assert rule.to.reveal() == HUSH and rule.when == ["breaker_opened"]  # type: ignore[attr-defined]
    for name in ("administrator", "operator", "viewer"):
        client = signed_in(name)
        for page in (path, "/admin/controlplane/alertrule/"):
            text = client.get(page).content.decode()
            assert "ops" in text and "hush" not in text and str.__str__(rule.to) not in text
    assert "hush" not in str(list(AuditEntry.objects.values_list()))
    assert signed_in("operator").post(path, FORM).status_code == 403


def test_alerts_are_looked_after_by_button_and_in_bulk(signed_in: SignIn, day: Day) -> None:
    alerts = [records.report(summaries.auth_failed("llm", f"a{number}")) for number in (1, 2, 3)]
    operator = signed_in("operator")
    listed = operator.get("/admin/controlplane/alert/").content.decode()
    assert all(f"llm/a{number}" in listed for number in (1, 2, 3))
    sure = {"reason": "on it", "_form_submitted": "on"}
    assert operator.post(f"/admin/controlplane/alert/{alerts[0].pk}/acknowledge/", sure).status_code == 200
    assert "user:operator" in operator.get(f"/admin/controlplane/alert/{alerts[0].pk}/change/").content.decode()
    assert operator.post(f"/admin/controlplane/alert/{alerts[0].pk}/resolve/", sure).status_code == 200
    chosen = {"action": "resolve_alerts", "_selected_action": [alert.pk for alert in alerts[1:]], "confirmed": "1"}
    operator.post("/admin/controlplane/alert/", {**chosen, "reason": "known"})
    assert not Alert.objects.filter(resolved_at=None).exists()
    assert set(Alert.objects.values_list("resolved_by", flat=True)) == {"user:operator"}
    assert signed_in("viewer").post(f"/admin/controlplane/alert/{alerts[0].pk}/resolve/", sure).status_code == 403


def test_members_see_their_projects_alerts(signed_in: SignIn, day: Day) -> None:
    mine = records.report(summaries.letters("acme", "batch", "code", "mine.task"))
    theirs = records.report(summaries.letters("globex", "batch", "code", "their.task"))
    records.report(summaries.auth_failed("llm", "a1"))
    member = signed_in("member")
    listed = member.get("/admin/controlplane/alert/").content.decode()
    assert "acme/batch" in listed and "globex" not in listed and "llm/a1" not in listed
    assert member.get(f"/admin/controlplane/alert/{mine.pk}/change/").status_code == 200
    assert member.get(f"/admin/controlplane/alert/{theirs.pk}/change/").status_code == 302
    assert member.get("/admin/controlplane/alertrule/").status_code == 403
