"""Failures that operators ignore until a time: what is left out meanwhile, who may do it, and that they come back."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from controlplane.alerts import conditions, watch
from controlplane.alerts.subscriber import trouble_of
from controlplane.models import AlertRule, AuditEntry
from controlplane.observability.stream import entry_of
from queues.lifecycle import dead_letters as lifecycle
from queues.models import BulkAction, DeadLetter, IgnoredFailure, Job
from queues.services import dead_letters, ignored_failures
from queues.states import Stage, Status
from quotas import clock, events
from quotas.models import Project
from quotas.testing import capture_events
from tests.browser.seed import Day
from tests.integration.controlplane.admin.conftest import SignIn

GROUPS = "/admin/queues/deadletter/groups/"
ERROR = "401 the key was revoked"


def died(day: Day, count: int = 1, project: Project | None = None) -> list[DeadLetter]:
    """Dead jobs of one failure, of a category that is critical."""
    now = clock.now()
    jobs = [
        Job.objects.create(
            project=project or day.acme, queue=day.queue, type="http.request", payload={}, status=Status.DEAD,
            stage=Stage.DONE, category="auth", error=ERROR, created_at=now, finished_at=now,
        )
        for _ in range(count)
    ]  # fmt: skip
    with transaction.atomic():
        return lifecycle.write(jobs, now)


def ignore(client: Client, fingerprint: str, span: str = "day") -> Any:
    return client.post(f"{GROUPS}{fingerprint}/ignore/", {"span": span, "reason": "known"}, follow=True)


def end(fingerprint: str) -> None:
    """Its time is over."""
    IgnoredFailure.objects.filter(fingerprint=fingerprint).update(until=clock.now() - timedelta(seconds=1))


def shown(client: Client, query: str = "") -> str:
    answer = client.get(GROUPS + query)
    assert answer.status_code == 200
    return str(answer.content.decode())


@pytest.mark.parametrize(("span", "seconds"), [("hour", 3600), ("day", 86_400), ("week", 604_800)])
def test_a_failure_is_left_out_until_its_time_is_over(signed_in: SignIn, day: Day, span: str, seconds: int) -> None:
    letter, client = died(day)[0], signed_in("operator")
    assert ERROR in shown(client) and "Show ignored failures (0)" in shown(client)
    before = clock.now()
    ignore(client, letter.fingerprint, span)
    row = IgnoredFailure.objects.get()
    assert 0 <= (row.until - before).total_seconds() - seconds < 60
    assert ERROR not in shown(client) and "Show ignored failures (1)" in shown(client)
    ignored = shown(client, "?ignored=1")
    assert ERROR in ignored and f"until {row.until:%Y-%m-%d %H:%M:%S} by user:operator: known" in ignored
    assert "503 overloaded" in shown(client) and "503 overloaded" not in ignored
    end(letter.fingerprint)
    assert ERROR in shown(client) and "No failure is ignored" in shown(client, "?ignored=1")


def test_ignoring_again_changes_nothing_and_both_ways_are_audited(signed_in: SignIn, day: Day) -> None:
    letter, client = died(day)[0], signed_in("operator")
    ignore(client, letter.fingerprint)
    first = IgnoredFailure.objects.values().get()
    assert "ignored already" in ignore(client, letter.fingerprint, "week").content.decode()
    assert IgnoredFailure.objects.values().get() == first
    stop = f"{GROUPS}{letter.fingerprint}/stop-ignoring/"
    assert client.post(stop, {"reason": ""}).status_code == 200 and IgnoredFailure.objects.exists()
    client.post(stop, {"reason": "fixed"})
    assert "not ignored" in client.post(stop, {"reason": "fixed"}, follow=True).content.decode()
    assert ERROR in shown(client) and not IgnoredFailure.objects.exists()
    one, other = AuditEntry.objects.filter(target=f"failure:{letter.fingerprint}").order_by("pk")
    assert (one.verb, one.actor, one.reason, one.project) == (
        "dead_letter.ignore", "user:operator", "known", "acme",
    )  # fmt: skip
    assert one.after == {"ignored_until": first["until"].isoformat()}
    assert other.verb == "dead_letter.stop_ignoring" and other.before["by"] == "user:operator"
    assert client.get(stop).status_code == 404


@pytest.mark.parametrize("span", ["", "year", "-1"])
def test_a_span_that_is_not_offered_is_refused(signed_in: SignIn, day: Day, span: str) -> None:
    letter = died(day)[0]
    assert ignore(signed_in("operator"), letter.fingerprint, span).status_code == 200
    assert not IgnoredFailure.objects.exists()


def test_an_ignored_failure_raises_no_alert_and_no_notice(day: Day) -> None:
    AlertRule.objects.create(
        name="ops", when=[], conditions=["dead_letters > 5% in 10m"], to="webhook+http://127.0.0.1:9/"
    )
    Job.objects.filter(stage=Stage.DONE).delete()

    def found() -> set[str]:
        now = clock.now()
        troubles = [*watch._letters(now), *watch._failures(now, {}), *conditions.troubles(now, lambda place: False)]
        return {trouble.kind for trouble in troubles}

    letters = died(day, 20)
    kinds = found()
    assert {"dead_letter_critical", "condition"} <= kinds and len(kinds) == 3, kinds
    rows = DeadLetter.objects.all()
    ignored_failures.ignore(rows, letters[0].fingerprint, timedelta(hours=1), actor="user:root")
    assert found() == set()
    with capture_events(events.JobDied) as captured:
        died(day)
        died(day, project=day.globex)
        end(letters[0].fingerprint)
        died(day)
    entries = [entry_of(event) for event in captured]
    assert [entry.data["ignored"] for entry in entries if entry] == [True, False, False]
    assert [trouble_of(event) is None for event in captured] == [True, False, False]
    assert found() == kinds


def test_an_ignored_failure_is_replayed_and_discarded(signed_in: SignIn, day: Day) -> None:
    first, second = died(day, 2)
    client = signed_in("operator")
    ignore(client, first.fingerprint)
    assert f"{first.fingerprint}/replay/?ignored=1" in shown(client, "?ignored=1")
    for query in ("", "?ignored=1"):
        page = client.get(f"{GROUPS}{first.fingerprint}/replay/{query}").content.decode()
        assert "Replay 2 dead letters of this failure?" in page
    dead_letters.discard(first.pk, actor="user:operator")
    assert dead_letters.replay(second.pk, actor="user:operator").status == "pending"
    assert "Stop ignoring" in shown(client, "?ignored=1"), "what is ignored is listed, also when nothing of it is open"


def test_a_member_ignores_the_failure_of_its_project_only(signed_in: SignIn, day: Day) -> None:
    fingerprint = died(day)[0].fingerprint
    died(day, project=day.globex)
    ignored_failures.ignore(
        DeadLetter.objects.filter(project=day.globex), fingerprint, timedelta(hours=1), actor="user:root"
    )
    root, member = signed_in("root"), signed_in("member")
    assert ERROR in shown(member) and ERROR not in shown(member, "?ignored=1")
    assert member.get(f"{GROUPS}{fingerprint}/stop-ignoring/").status_code in (403, 404)
    member.post(f"{GROUPS}{fingerprint}/stop-ignoring/", {"reason": "not mine"})
    assert IgnoredFailure.objects.get().project == day.globex
    assert ERROR in shown(root), "the other project's is not ignored"
    ignore(root, fingerprint)
    assert ERROR not in shown(root) and IgnoredFailure.objects.count() == 2
    assert {entry.project for entry in AuditEntry.objects.filter(verb="dead_letter.ignore")} == {"acme", "globex"}


def test_a_group_is_replayed_as_the_list_shows_it(signed_in: SignIn, day: Day) -> None:
    """The same failure is ignored in one project and open in another: each list's button is about its own letters."""
    letter, *_ = died(day, 3)
    died(day, 2, project=day.globex)
    DeadLetter.objects.filter(pk=day.letter.pk).update(fingerprint="e" * 32, project=day.globex)
    for rows, fingerprint in ((day.globex, letter.fingerprint), (day.acme, "e" * 32)):
        IgnoredFailure.objects.create(
            project=rows, fingerprint=fingerprint, until=clock.now() + timedelta(hours=1), ignored_at=clock.now()
        )
    client = signed_in("operator")
    assert "503 overloaded" not in shown(client, "?ignored=1"), "another failure is ignored in its project"

    def replay(query: str, ended: bool = False) -> tuple[int, int]:
        """How many the question says, and how many the answer replays."""
        address = f"{GROUPS}{letter.fingerprint}/replay/{query}"
        page = client.get(address).content.decode()
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
        said = int(re.findall(r"Replay (\d+) dead letters", page)[0])
        if ended:
            end(letter.fingerprint)
        client.post(address, {**fields, "reason": "the key is back"})
        return said, BulkAction.objects.latest("pk").total

    assert replay("") == (3, 3)
    assert replay("?ignored=1") == (2, 2)
    assert replay("", ended=True) == (3, 3), "what is open again since the question is not part of it"


def test_a_viewer_sees_what_is_ignored_and_changes_nothing(signed_in: SignIn, day: Day) -> None:
    fingerprint = died(day)[0].fingerprint
    viewer = signed_in("viewer")
    assert ignore(viewer, fingerprint).status_code == 403
    ignore(signed_in("operator"), fingerprint)
    page = shown(viewer, "?ignored=1")
    assert ERROR in page and "Stop ignoring" not in page
    assert viewer.post(f"{GROUPS}{fingerprint}/stop-ignoring/", {"reason": "x"}).status_code == 403
    assert IgnoredFailure.objects.count() == 1


def test_the_pages_need_no_more_queries_with_more_that_is_ignored(signed_in: SignIn, day: Day) -> None:
    client, letter = signed_in("root"), died(day)[0]
    ignored_failures.ignore(DeadLetter.objects.all(), letter.fingerprint, timedelta(hours=1), actor="user:root")

    def count() -> list[int]:
        found = []
        for query in ("", "?ignored=1"):
            with CaptureQueriesContext(connection) as captured:
                shown(client, query)
            found.append(len(captured))
        return found

    count()
    few, now = count(), clock.now()
    for number in range(30):
        fingerprint = f"{number:032}"
        DeadLetter.objects.create(
            job=day.dead, project=day.acme, queue=day.queue, type="t", category="code", severity="critical",
            fingerprint=fingerprint, error="x", created_at=now,
        )  # fmt: skip
        ignored_failures.ignore(DeadLetter.objects.all(), fingerprint, timedelta(hours=1), actor="user:root")
    assert count() == few
