"""Actions on all jobs that match the list run in the background, on what the question said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.models import AuditEntry
from queues.models import BulkAction, DeadLetter, Job, Queue
from queues.services import bulk_actions, queue_actions
from queues.states import LIVE_STAGES, Stage, Status
from tests.browser.seed import Day
from tests.integration.controlplane.admin.test_bulk import ask, finish
from tests.integration.controlplane.admin.test_roles import SURE

SignIn = Callable[[str], Client]
URL = "/admin/queues/job/"


def make_jobs(day: Day, count: int, **given: object) -> list[Job]:
    fields = {
        "project": day.acme, "queue": Queue.objects.get(name="embeddings"), "type": "t.bulk",
        "created_at": timezone.now() - timedelta(hours=1), **given,
    }  # fmt: skip
    return [Job.objects.create(**fields) for _ in range(count)]


def open_jobs() -> int:
    return Job.objects.filter(type="t.bulk", stage__in=LIVE_STAGES).count()


def test_all_that_match_are_cancelled_and_later_ones_are_not(signed_in: SignIn, day: Day) -> None:
    make_jobs(day, 60, user="cust-3")
    other = make_jobs(day, 4, user="cust-4")
    ended = make_jobs(day, 2, user="cust-3", stage=Stage.DONE, status=Status.COMPLETED)
    client, url = signed_in("operator"), f"{URL}?q=user:cust-3"
    page = client.post(url, {"action": "cancel_jobs", "select_across": "1", "_selected_action": [1]}).content.decode()
    assert "Cancel 60 jobs?" in page and "2 more can&#x27;t be cancelled: they have ended." in page
    count, fields = ask(client, "cancel_jobs", url, _selected_action=[1])
    late = make_jobs(day, 3, user="cust-3")
    before = AuditEntry.objects.count()
    assert client.post(url, fields).status_code == 302
    action = BulkAction.objects.get()
    assert (count, action.total, action.done) == (60, 60, 0), "the web request only begins it"
    finish()
    action.refresh_from_db()
    assert (action.done, action.skipped) == (60, 0) and action.finished_at
    assert open_jobs() == len(late) + len(other)
    assert not Job.objects.filter(pk__in=[job.pk for job in ended], status=Status.CANCELLED).exists()
    assert AuditEntry.objects.count() == before + 2, "the intent and the outcome"
    entry = AuditEntry.objects.get(verb="job.bulk_cancel")
    said = (entry.actor, entry.reason, entry.after["total"], entry.after["done"])
    assert said == ("user:operator", "provider is back", 60, 60)


@pytest.mark.parametrize(
    "query",
    [
        "status__exact=pending",
        "progress=queued",
        "why=queue_paused",
        "q=age:>10m",
        "type__icontains=bulk",
        "q=t.bulk",
        "p=2",
    ],
)
def test_each_filter_of_the_address_chooses_the_same_jobs_later(signed_in: SignIn, day: Day, query: str) -> None:
    queue = Queue.objects.get(name="embeddings")
    Job.objects.filter(queue=queue).delete()
    queue_actions.pause(queue, actor="test", reason="x")
    make_jobs(day, 7, user="t.bulk")
    url = f"{URL}?{query}&queue__id__exact={queue.pk}&project__id__exact={day.acme.pk}"
    client = signed_in("operator")
    count, fields = ask(client, "cancel_jobs", url, _selected_action=[1])
    client.post(url, fields)
    queue_actions.resume(queue, actor="test", reason="x")
    waiting = Job.objects.filter(stage__in=LIVE_STAGES).count()
    finish()
    action = BulkAction.objects.get()
    assert (count, action.total, action.done, action.skipped) == (7, 7, 7, 0)
    assert Job.objects.filter(stage__in=LIVE_STAGES).count() == waiting - 7


def test_dead_jobs_are_retried_or_discarded(signed_in: SignIn, day: Day) -> None:
    client = signed_in("operator")
    count, fields = ask(client, "retry_jobs", URL, _selected_action=[1])
    assert count == 1, "of the dead jobs only the one with an open dead letter"
    client.post(URL, fields)
    finish()
    day.dead.refresh_from_db()
    assert day.dead.status == Status.PENDING and day.dead.replays == 1
    assert DeadLetter.objects.get(pk=day.letter.pk).handled_as == "replayed"


def test_the_same_answer_twice_is_one_action(signed_in: SignIn, day: Day) -> None:
    jobs = make_jobs(day, 3)
    client = signed_in("operator")
    _, fields = ask(client, "cancel_jobs", URL, select_across="0", _selected_action=[job.pk for job in jobs])
    client.post(URL, fields)
    client.post(URL, fields)
    assert BulkAction.objects.count() == 1 and AuditEntry.objects.filter(verb="job.bulk_cancel.intent").count() == 1
    finish()
    assert open_jobs() == 0


def test_a_member_acts_on_the_own_projects_and_sees_the_progress(signed_in: SignIn, day: Day) -> None:
    make_jobs(day, 2)
    make_jobs(day, 5, project=day.globex)
    client, url = signed_in("member"), f"{URL}?type__icontains=t.bulk"
    count, fields = ask(client, "cancel_jobs", url, _selected_action=[1])
    assert count == 2
    page = client.post(url, fields, follow=True).content.decode()
    finish()
    assert open_jobs() == 5
    action = BulkAction.objects.get()
    address = f"/admin/queues/bulkaction/{action.pk}/change/"
    assert address in page and "2 of 2 done" in client.get(address).content.decode()
    BulkAction.objects.update(actor="user:root")
    assert client.get(address).status_code == 302, "what others began is not shown"


def test_a_viewer_can_not(signed_in: SignIn, day: Day) -> None:
    make_jobs(day, 2)
    fields = {"action": "cancel_jobs", "select_across": "1", "_selected_action": ["1"], "confirmed": "1", "newest": "9999",
              "reason": "x"}  # fmt: skip
    signed_in("viewer").post(URL, fields)
    assert not BulkAction.objects.exists()


def test_a_stopped_action_does_no_more(signed_in: SignIn, day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_actions, "CANCEL_SLICE", 4)
    jobs = make_jobs(day, 10)
    action = bulk_actions.begin(
        "cancel", {"jobs": [job.pk for job in jobs]}, project=None, actor="user:root", reason="x", target="jobs"
    )
    bulk_actions.process_next_slice()
    client, url = signed_in("operator"), f"/admin/queues/bulkaction/{action.pk}"
    assert "6 left" in client.get(f"{url}/change/").content.decode()
    stop = f"/admin/queues/bulkaction/{action.pk}/stop/"
    client.post(stop, {**SURE, "reason": "wrong filter"})
    finish()
    action.refresh_from_db()
    assert (action.done, action.stopped_by, open_jobs()) == (4, "user:operator", 6)
    assert AuditEntry.objects.get(verb="job.bulk_stop").after["not_done"] == 6
    assert "were left as they are" in client.get(f"{url}/change/").content.decode()


def test_the_list_offers_all_that_match_with_their_number(signed_in: SignIn, day: Day) -> None:
    make_jobs(day, 70)
    page = signed_in("operator").get(f"{URL}?type__icontains=t.bulk").content.decode()
    assert "Select all 70 jobs" in page
