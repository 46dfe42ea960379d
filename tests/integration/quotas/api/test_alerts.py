"""`/api/v1/alerts`: the platform sees all, a project its own; who acknowledges and resolves is written down."""

from __future__ import annotations

from controlplane.alerts import records, summaries
from controlplane.models import Alert, AuditEntry
from tests.integration.quotas.api.conftest import api


def test_lists_and_filters() -> None:
    account = records.report(summaries.auth_failed("llm", "a1"))
    letters = records.report(summaries.letters("acme", "batch", "code", "reports"))
    records.end(letters)
    platform = api()
    rows = platform.get("alerts").json()["results"]
    assert [row["id"] for row in rows] == [letters.uid, account.uid]
    assert {name: rows[1][name] for name in ("kind", "subject", "severity", "count", "resolved_at", "project")} == {
        "kind": "account_auth_failed",
        "subject": "llm/a1",
        "severity": "critical",
        "count": 1,
        "resolved_at": None,
        "project": "",
    }
    assert [row["id"] for row in platform.get("alerts", open="true").json()["results"]] == [account.uid]
    assert [row["id"] for row in platform.get("alerts", open="false").json()["results"]] == [letters.uid]
    assert [row["id"] for row in platform.get("alerts", kind="dead_letter_critical").json()["results"]] == [letters.uid]
    assert platform.get("alerts", kind="nonsense").status_code == 400
    assert platform.get("alerts", colour="red").status_code == 400
    first = platform.get("alerts", limit="1").json()
    assert [row["id"] for row in platform.get("alerts", limit="1", cursor=first["next"]).json()["results"]] == [
        account.uid
    ]


def test_a_projects_key_sees_its_project_only() -> None:
    records.report(summaries.auth_failed("llm", "a1"))
    theirs = records.report(summaries.letters("globex", "batch", "code", "reports"))
    mine = records.report(summaries.letters("acme", "batch", "code", "reports"))
    acme = api(project="acme")
    assert [row["id"] for row in acme.get("alerts").json()["results"]] == [mine.uid]
    assert acme.get(f"alerts/{mine.uid}").json()["id"] == mine.uid
    assert acme.get(f"alerts/{theirs.uid}").status_code == 404
    assert acme.post(f"alerts/{theirs.uid}/resolve", {"reason": "x"}).status_code == 404


def test_acknowledge_and_resolve() -> None:
    alert = records.report(summaries.auth_failed("llm", "a1"))
    assert api("read").post(f"alerts/{alert.uid}/resolve", {"reason": "x"}).status_code == 403
    operator = api("operate", "read")
    assert operator.post(f"alerts/{alert.uid}/resolve", {}).status_code == 400
    taken = operator.post(f"alerts/{alert.uid}/acknowledge", {"reason": "on it"})
    assert taken.status_code == 200 and taken.json()["acknowledged_at"] and not taken.json()["resolved_at"]
    assert operator.post(f"alerts/{alert.uid}/acknowledge", {"reason": "on it"}).status_code == 409
    assert operator.post(f"alerts/{alert.uid}/resolve", {"reason": "new key"}).json()["resolved_at"]
    assert operator.post(f"alerts/{alert.uid}/resolve", {"reason": "new key"}).status_code == 409
    assert operator.get("alerts/nobody").status_code == 404
    assert Alert.objects.get().resolved_by == taken.json()["acknowledged_by"] != ""
    assert list(AuditEntry.objects.filter(verb__startswith="alert.").values_list("reason", flat=True)) == [
        "new key",
        "on it",
    ]
