"""Conditions of alert rules: counts and shares within a time, in jobs and calls that are in SQL."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from controlplane.alerts import conditions
from controlplane.alerts.watch import Watch
from controlplane.models import AccountSample, Alert, AlertNotice, AlertRule
from queues.models import Job, Queue
from queues.states import Stage, Status
from quotas import clock
from quotas.models import Pool, Project
from tests.integration.controlplane.alerts.conftest import rule

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def calm(settings: Any) -> None:
    settings.ALERT_CALM = 0.0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("dead_letters > 5% in 10m", "dead_letters > 5% in 10m"),
        ("dead letters > 5 % in 10 min", "dead_letters > 5% in 10m"),
        ("dead_letters > 20 in 1h of imports", "dead_letters > 20 in 1h of imports"),
        ("call_errors>0.5% in 300s of llm", "call_errors > 0.5% in 5m of llm"),
    ],
)
def test_it_is_read_and_shown(text: str, shown: str) -> None:
    found = conditions.parse(text)
    assert str(found) == shown and conditions.parse(shown) == found


@pytest.mark.parametrize(
    "text",
    [
        "", "dead_letters", "dead_letters > 5% in 10", "dead_letters < 5% in 10m", "dead_letters > -1 in 10m",
        "jobs > 5 in 10m", "dead_letters > 100% in 10m", "dead_letters > 5% in 2h", "dead_letters > 5% in 30s",
        "dead_letters > 5% in 10m of", "dead_letters > 5% in 10m of two words", "dead_letters > 5% in 10 fortnights",
        "dead_letters > 1e3 in 10m", "dead_letters > 5% in 1.2.3m",
    ],
)  # fmt: skip
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(conditions.BadCondition):
        conditions.parse(text)


def end(queue: str, status: Status, count: int, ago: float = 30.0) -> None:
    project, _ = Project.objects.get_or_create(slug="acme")
    row, _ = Queue.objects.get_or_create(name=queue)
    at = clock.now() - timedelta(seconds=ago)
    Job.objects.bulk_create(
        Job(project=project, queue=row, type="t", stage=Stage.DONE, status=status, created_at=at, finished_at=at)
        for _ in range(count)
    )


def opened() -> list[str]:
    rows = Alert.objects.filter(kind="condition", resolved_at=None)
    return sorted(alert.facts.get("queue") or alert.facts.get("pool") for alert in rows)


def asked(*texts: str, name: str = "mine") -> AlertRule:
    found = rule(name, when=())
    found.conditions = list(texts)
    found.save()
    return found


def test_a_share_of_a_queues_jobs_opens_and_ends_at_half_of_it() -> None:
    mine = asked("dead_letters > 5% in 10m")
    rule("others", when=("breaker_opened",))
    end("imports", Status.COMPLETED, 95)
    end("imports", Status.DEAD, 5)
    end("mails", Status.COMPLETED, 5)
    end("mails", Status.DEAD, 4)
    end("mails", Status.DEAD, 50, ago=601)
    watch = Watch()
    watch.look_at_everything()
    assert opened() == [], "5 % is not more than 5 %, and of 9 jobs there is no share"
    end("imports", Status.DEAD, 1)
    watch.look_at_everything()
    assert opened() == ["imports"]
    alert = Alert.objects.get(kind="condition")
    assert "6 of 101 jobs became dead letters in queue imports" in alert.summary and "(5.9%)" in alert.summary
    assert list(AlertNotice.objects.values_list("rule__name", flat=True)) == [mine.name]
    end("imports", Status.COMPLETED, 60)
    watch.look_at_everything()
    assert opened() == ["imports"], "3.7 % is more than half of the bound"
    end("imports", Status.COMPLETED, 100)
    watch.look_at_everything()
    watch.look_at_everything()
    assert opened() == []
    assert list(AlertNotice.objects.order_by("pk").values_list("event", flat=True)) == ["raised", "resolved"]


def test_a_count_of_one_queue() -> None:
    asked("dead_letters > 2 in 1h of mails")
    for queue in ("imports", "mails"):
        end(queue, Status.DEAD, 3, ago=3000)
    Watch().look_at_everything()
    assert opened() == ["mails"]


def test_a_share_of_a_pools_calls(pool: Pool) -> None:
    asked("call_errors > 10% in 5m")
    at = clock.now().replace(second=0, microsecond=0)
    for number, account in enumerate(pool.accounts.order_by("name")):
        for minute in (1, 2, 10):
            AccountSample.objects.create(
                account=account, at=at - timedelta(minutes=minute), health=1.0, state="available",
                succeeded=40, failed=100 if minute == 10 else 10 * number,
            )  # fmt: skip
    Watch().look_at_everything()
    assert opened() == ["llm"]
    assert "20 of 180 calls failed" in Alert.objects.get(kind="condition").summary


def test_one_rule_off_and_two_alike_are_two_alerts() -> None:
    end("imports", Status.DEAD, 30)
    for name in ("one", "two", "off"):
        asked("dead_letters > 5% in 10m", name=name)
    AlertRule.objects.filter(name="off").update(enabled=False)
    Watch().look_at_everything()
    assert sorted(Alert.objects.filter(kind="condition").values_list("facts__rule", flat=True)) == ["one", "two"]
    assert AlertNotice.objects.count() == 2


def test_the_configuration_file_has_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sluice.yaml"
    file.write_text(
        "version: 1\nalerts:\n  - {name: ops, conditions: ['dead letters > 5 % in 10 min'], to: 'webhook+http://127.0.0.1:1/'}\n"
    )
    call_command("apply", str(file))
    assert AlertRule.objects.get().conditions == ["dead_letters > 5% in 10m"]
    capsys.readouterr()
    call_command("export")
    assert "dead_letters > 5% in 10m" in capsys.readouterr().out


@pytest.mark.parametrize("given", [{"conditions": "dead_letters > lots"}, {}])
def test_the_form_refuses_what_is_none(admin_client: Client, given: dict[str, str]) -> None:
    answer = admin_client.post(
        "/admin/controlplane/alertrule/add/",
        {"name": "ops", "enabled": "on", "to": "webhook+http://127.0.0.1:1/", **given},
    )
    assert answer.status_code == 200 and not AlertRule.objects.exists()


def test_the_form_takes_one_on_each_line(admin_client: Client) -> None:
    given = {"name": "ops", "enabled": "on", "to": "webhook+http://127.0.0.1:1/",
             "conditions": "dead letters > 5% in 10m\n\ncall_errors > 3 in 5m of llm"}  # fmt: skip
    assert admin_client.post("/admin/controlplane/alertrule/add/", given).status_code == 302
    assert AlertRule.objects.get().conditions == ["dead_letters > 5% in 10m", "call_errors > 3 in 5m of llm"]
