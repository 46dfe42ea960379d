"""Each person's time zone: all times of the admin are shown in it, and nothing else is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.admin.charts import label
from controlplane.admin.dashboard import forget
from controlplane.admin.periods import PERIODS
from controlplane.models import AuditEntry, Preferences
from queues.models import Job, Queue, Transition
from queues.services import queue_actions
from quotas.models import Override
from quotas.moments import spell_moment
from tests.browser.seed import Day
from tests.integration.controlplane.admin.conftest import SignIn
from tests.integration.controlplane.admin.pages import filled

AT = datetime(2026, 5, 4, 20, 45, 30, tzinfo=UTC)
KOLKATA, UTC_TIME = "2026-05-05 02:15:30", "2026-05-04 20:45:30"


def choose(client: Client, zone: str) -> str:
    answer = client.post("/admin/preferences/", {"time_zone": zone}, follow=True)
    assert answer.status_code == 200
    return str(answer.content.decode())


def text(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, address
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def then(day: Day) -> None:
    """Everything of the seed happened at the same time."""
    Job.objects.filter(pk=day.dead.pk).update(created_at=AT - timedelta(minutes=1), finished_at=AT)
    Transition.objects.filter(job=day.dead).update(at=AT)
    day.dead.attempts.update(started_at=AT, ended_at=AT)
    queue_actions.pause(day.queue, actor="user:zoe", reason="x")
    Queue.objects.filter(pk=day.queue.pk).update(paused_at=AT)
    AuditEntry.objects.update(at=AT)


def test_times_are_in_the_chosen_zone_with_its_name(signed_in: SignIn, day: Day) -> None:
    then(day)
    client = signed_in("root")
    assert "Times are shown in Asia/Kolkata." in choose(client, "Asia/Kolkata")
    pages = {
        "job": f"/admin/queues/job/{day.dead.pk}/change/",
        "audit": "/admin/controlplane/auditentry/",
        "queue": f"/admin/live/queue?pk={day.queue.pk}",
        "queues": "/admin/live/all_queues",
        "lately": "/admin/live/lately",
    }
    forget()
    for name, address in pages.items():
        page = text(client, address)
        assert KOLKATA in page and UTC_TIME not in page, name
        assert " UTC " not in page.replace("UTC+05:30", ""), f"{name}: nothing says UTC beside a time of another zone"
    assert "Asia/Kolkata UTC+05:30" in text(client, pages["audit"]), "each page names the zone"
    assert f"{KOLKATA} IST" in text(client, pages["queue"]), "a sentence says it beside the time"
    assert "2026-05-05 02:14:30" in text(client, "/admin/queues/job/?status__exact=dead")
    other = signed_in("operator")
    assert UTC_TIME in text(other, pages["queues"]), "panels of two people are not mixed up"
    assert f"{UTC_TIME} UTC" in text(other, pages["queue"])


def test_rest_exports_and_filters_by_time_stay_in_utc(signed_in: SignIn, day: Day) -> None:
    then(day)
    Override.objects.update(until=AT + timedelta(days=900))
    client = signed_in("root")

    def outside() -> list[Any]:
        job = client.get(f"/api/v1/jobs/{day.dead.uid}").json()
        return [job["finished_at"], client.get("/admin/configuration/?download=1").content]

    before = outside()
    assert before[0] == "2026-05-04T20:45:30.000Z"
    choose(client, "Asia/Kolkata")
    assert outside() == before
    AuditEntry.objects.filter(verb="preferences.create").update(at=AT + timedelta(days=1))
    asked = "?at_from_0=2026-05-04&at_from_1=20:45:00&at_to_0=2026-05-04&at_to_1=20:46:00"
    page = text(client, f"/admin/controlplane/auditentry/{asked}")
    assert KOLKATA in page and "(UTC)" in page
    none = text(client, f"/admin/controlplane/auditentry/{asked.replace('20:4', '02:1').replace('05-04', '05-05')}")
    assert KOLKATA not in none


def test_a_time_that_is_typed_into_a_form_is_of_the_zone(signed_in: SignIn, day: Day) -> None:
    client = signed_in("administrator")
    choose(client, "Asia/Kolkata")
    override = Override.objects.get()
    Override.objects.update(until=AT)
    address = f"/admin/quotas/override/{override.pk}/change/"
    page = client.get(address).content.decode()
    assert 'value="2026-05-05"' in page and 'value="02:15:30"' in page
    address = f"/admin/quotas/policy/{day.policy.pk}/change/"
    sent = filled(client.get(address).content.decode(), "policy")
    assert client.post(address, {**sent, "overrides-0-until_1": "03:00:00"}).status_code == 302
    override.refresh_from_db()
    assert override.until == datetime(2026, 5, 4, 21, 30, tzinfo=UTC)
    entry = AuditEntry.objects.get(verb="override.change")
    assert (entry.before, entry.after) == (
        {"until": "2026-05-04 20:45:30+00:00"}, {"until": "2026-05-04 21:30:00+00:00"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "moment", "shown"),
    [
        ("Europe/Berlin", datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "2026-10-25 02:30:00 CEST"),
        ("Europe/Berlin", datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "2026-10-25 02:30:00 CET"),
        ("Europe/Berlin", datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC), "2026-03-29 01:59:59 CET"),
        ("Europe/Berlin", datetime(2026, 3, 29, 1, 0, tzinfo=UTC), "2026-03-29 03:00:00 CEST"),
        ("Asia/Kathmandu", datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01 05:45:00 UTC+05:45"),
        ("UTC", datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01 00:00:00 UTC"),
    ],
)
def test_the_hour_that_comes_twice_names_its_offset(zone: str, moment: datetime, shown: str) -> None:
    with timezone.override(zone):
        assert spell_moment(moment) == shown


def test_charts_are_labelled_in_the_zone(day: Day) -> None:
    now = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    with timezone.override("Europe/Berlin"):
        labels = [label(start, PERIODS["24h"]) for start in PERIODS["24h"].steps(now)]
        assert labels[-3:] == ["01:00", "02:00", "02:00"] and label(now, PERIODS["24h"], zone=True) == "02:30 CET"
        assert label(now, PERIODS["7d"]) == "Sun 25, 02:30"


def test_the_choice_is_each_persons_own_and_is_audited(signed_in: SignIn, day: Day) -> None:
    viewer = signed_in("viewer")
    for zone in ("Europe/Berlin", "Asia/Tokyo"):
        choose(viewer, zone)
    for odd in ("Mars/Olympus", "", "../../etc/passwd"):
        assert "Times are shown" not in choose(viewer, odd)
    assert Preferences.objects.get().time_zone == "Asia/Tokyo" and str(Preferences.objects.get().user) == "viewer"
    first, second = AuditEntry.objects.filter(actor="user:viewer").order_by("pk")
    assert (first.verb, second.verb) == ("preferences.create", "preferences.change")
    assert (second.before, second.after) == ({"time_zone": "Europe/Berlin"}, {"time_zone": "Asia/Tokyo"})
    Preferences.objects.update(time_zone="Gone/Zone")
    assert "UTC" in text(viewer, "/admin/queues/job/"), "a zone that this machine does not know is no fault"
    assert Client().get("/admin/preferences/").status_code == 302
