"""What the pages show is what the counters, the rows and REST say."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from controlplane.admin.dashboard import forget
from controlplane.admin.panels import performance, throughput
from controlplane.admin.periods import PERIODS
from controlplane.alerts import records, summaries
from queues.models import DeadLetter, Job, Queue, WorkerProcess
from queues.selectors.queues import queue_facts
from queues.services import dead_letters
from queues.states import WAITING_STAGES, Stage, Status
from queues.worker.heartbeat import Heartbeat
from quotas.admin.spans import spell_span
from quotas.engine.types import CallOutcome
from quotas.models import Account, Policy, Pool
from quotas.services import accounts
from quotas.services.limits import Check, check
from quotas.snapshot import resolve
from tests.browser.seed import Day

SignIn = Callable[[str], Client]


def panel(client: Client, name: str, pk: int | None = None) -> str:
    forget()
    text = client.get(f"/admin/live/{name}" + (f"?pk={pk}" if pk else "")).content.decode()
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def test_there_is_no_badge_where_there_is_nothing(signed_in: SignIn, day: Day) -> None:
    DeadLetter.objects.all().delete()
    for role in ("root", "member"):
        page = signed_in(role).get("/admin/").content.decode()
        assert "sl-badge" not in page and ">None<" not in page
    records.report(summaries.auth_failed("llm", "a1"))
    page = signed_in("root").get("/admin/").content.decode()
    assert re.findall(r'sl-badge">([^<]+)<', page) == ["1"]


def test_the_tile_of_queued_jobs_leads_to_those_jobs(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    Job.objects.filter(pk__in=Job.objects.filter(stage=Stage.READY)[:3]).update(status="rate_limited")
    queued = Job.objects.filter(stage__in=WAITING_STAGES).count()
    forget()
    tiles = client.get("/admin/live/pulse").content.decode()
    link, count = re.findall(r'href="([^"]+)"><b>([\d,]+)</b><span>Queued', tiles)[0]
    assert int(count.replace(",", "")) == queued
    changelist = client.get(link).context["cl"]
    assert changelist.queryset.count() == queued


def test_what_is_used_of_a_token_bucket_is_shown_of_its_burst(signed_in: SignIn, day: Day) -> None:
    Policy.objects.all().delete()
    policy = Policy.objects.create(
        name="bucket", scope="user", algorithm="token_bucket", limit=10, burst=30, window=3600
    )
    resolve.clear()
    for _ in range(24):
        assert check(Check(project="acme", user="ann"), actor="test").allowed
    for name, pk, unit in (("limits", None, ""), ("policy", policy.pk, " requests")):
        assert re.search(rf"\b24 of 30{unit} burst", panel(signed_in("root"), name, pk))


def test_an_account_that_holds_low_priority_is_available(signed_in: SignIn, day: Day) -> None:
    Account.objects.all().update(state="paused", enabled=True, until=None)
    client, pool = signed_in("root"), Pool.objects.get(name="llm")
    assert "4 of 4 Accounts available, low priority waits on 4" in panel(client, "pulse")
    assert "4 of 4 available, low priority waits on 4" in panel(client, "accounts")
    listed = client.get("/admin/quotas/pool/").content.decode()
    assert "4 of 4 available, low priority waits on 4" in listed
    Pool.objects.filter(pk=pool.pk).update(paused_at=timezone.now(), paused_reason="maintenance")
    assert "0 of 4 Accounts available" in panel(client, "pulse")
    assert "0 of 4 available" in panel(client, "accounts") and "pool paused" in panel(client, "accounts")
    assert "pool paused" in client.get("/admin/quotas/account/").content.decode()


def test_the_oldest_job_is_counted_from_when_it_became_ready(signed_in: SignIn, day: Day) -> None:
    now = timezone.now()
    Job.objects.filter(queue=day.queue, stage__in=WAITING_STAGES).delete()
    Job.objects.filter(pk=day.dead.pk).update(created_at=now - timedelta(days=7))
    dead_letters.replay(day.letter.pk, actor="test")
    facts = queue_facts(day.queue)
    assert facts.oldest_age < 60
    key = signed_in("root").get(f"/api/v1/queues/{day.queue.name}").json()
    assert key["oldest_age"] < 60
    panels = panel(signed_in("root"), "queue", day.queue.pk)
    assert int(re.findall(r"(\d+) s Oldest job", panels)[0]) < 60
    Job.objects.filter(pk=day.dead.pk).update(stage=Stage.HELD)
    assert queue_facts(day.queue).oldest_age is None, "a job of stage HELD is not ready"


def test_the_front_door_leads_to_the_admin_site(day: Day) -> None:
    answer = Client().get("/")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


@pytest.mark.parametrize(
    ("path", "status", "text"), [("/nowhere", 404, "Page not found"), ("/admin/auth/group/add/", 403, "Not allowed")]
)
def test_error_pages_are_styled_and_lead_back(signed_in: SignIn, day: Day, path: str, status: int, text: str) -> None:
    answer = signed_in("viewer").get(path)
    page = answer.content.decode()
    assert answer.status_code == status and text in page
    assert "error.css" in page and 'href="/admin/"' in page


def test_a_fault_has_a_page_too_and_the_api_its_problem(rf: Any) -> None:
    from controlplane.error_pages import server_error

    page = server_error(rf.get("/admin/"))
    assert page.status_code == 500 and "Server error" in page.content.decode()
    problem = server_error(rf.get("/api/v1/jobs"))
    assert problem.status_code == 500 and problem["Content-Type"].startswith("application/problem+json")


def test_a_panel_of_a_session_that_ended_sends_the_page_to_the_login_form(day: Day) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://testserver/admin/queues/job/?q=1"}
    for path in ("/admin/live/pulse", f"/admin/queues/queue/{day.queue.pk}/pause/"):
        answer = Client().get(path, headers=headers)
        assert answer.status_code == 204
        assert answer["HX-Redirect"] == "/admin/login/?next=/admin/queues/job/%3Fq%3D1"
        assert b"password" not in answer.content


def test_lists_and_pages_name_things_in_the_plural(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    for path, noun in (("queues/workerprocess", "workers"), ("queues/recurring", "recurring jobs")):
        page = client.get(f"/admin/{path}/").content.decode()
        assert noun in page.lower() and "processs" not in page


def test_times_have_seconds_and_jobs_have_user_and_age(signed_in: SignIn, day: Day) -> None:
    Job.objects.filter(pk=day.running.pk).update(user="cust-3", created_at=timezone.now() - timedelta(minutes=12))
    page = signed_in("root").get(f"/admin/queues/job/?q={day.running.uid}").content.decode()
    assert "cust-3" in page and "12 min" in page
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", page)
    assert "p.m." not in page and "a.m." not in page


def test_the_success_rate_is_of_the_jobs_in_the_throughput_chart(day: Day) -> None:
    Job.objects.filter(pk=day.running.pk).update(stage=Stage.DONE, status=Status.DEAD, finished_at=timezone.now())
    for period in PERIODS.values():
        drawn = throughput.figures(None, None, period)["total"]
        assert performance.figures(None, None, period)["ended"] == drawn["completed"] + drawn["dead"], period


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.0004, "1 ms"), (0.0421, "42 ms"), (0.9994, "999 ms"), (0.9999, "1 s"), (1.4, "1 s"), (-3, "0 s")],
)
def test_a_run_under_a_second_is_shown_in_milliseconds(seconds: float, text: str) -> None:
    assert spell_span(timedelta(seconds=seconds)) == text


def test_a_person_without_roles_sees_what_to_do(day: Day) -> None:
    User.objects.create_user("nobody", password="correct horse battery", is_staff=True)
    client = Client()
    assert client.login(username="nobody", password="correct horse battery")
    assert "No role assigned" in client.get("/admin/").content.decode()
    assert Group.objects.filter(name="viewer").exists() and Queue.objects.exists()


def test_a_workers_attempts_are_the_same_on_each_page_and_in_rest(signed_in: SignIn, day: Day) -> None:
    beating = Heartbeat("io-counted", "io", 4)
    beating.begin()
    beating.done, beating.failed = 8_016, 4_276
    beating.beat([])
    client = signed_in("root")
    worker = next(one for one in client.get("/api/v1/workers").json()["results"] if one["name"] == "io-counted")
    assert (worker["jobs_done"], worker["jobs_failed"], worker["success_rate"]) == (8_016, 4_276, 0.4666)
    listed = client.get("/admin/queues/workerprocess/?q=io-counted").content.decode()
    assert "8016" in listed.replace(",", "") and "4276" in listed.replace(",", "")
    assert "Attempts ended" in listed and "Failed attempts" in listed, "what is counted: attempts, not jobs"
    forget()
    html = client.get("/admin/live/workers").content.decode()
    row = next(row for row in re.findall(r"<tr>.*?</tr>", html, re.S) if "io-counted" in row)
    assert ">8,016<" in row and ">4,276<" in row
    assert 'title="Attempts that ended, failed ones included"' in html
    pk = WorkerProcess.objects.get(name="io-counted").pk
    page = client.get(f"/admin/queues/workerprocess/{pk}/change/").content.decode()
    assert "All attempts that ended on this worker, failed ones included." in page


def test_an_account_says_its_last_failure_once_with_its_own_time(signed_in: SignIn, day: Day) -> None:
    """What SQL stores is up to a minute old; the page shows what the limiter knows, text and time."""
    admission = accounts.acquire("llm", {"requests": 1})
    assert admission.lease and admission.account_id
    accounts.settle_outcome(admission.lease, CallOutcome("not_found", status=404, error="404 no such model"))
    old = timezone.now() - timedelta(days=3)
    Account.objects.update(last_error="500 stored", last_error_at=old, errors={"not_found": 3_751}, successes=0)
    client = signed_in("root")
    shown = panel(client, "account", int(admission.account_id))
    page = client.get(f"/admin/quotas/account/{admission.account_id}/change/").content.decode()
    assert f"404 no such model at {timezone.now():%Y-%m-%d}" in shown and "500 stored" not in shown + page
    assert "1 not found" in shown and "not_found" not in shown, "codes are written as words"
    listed = client.get("/admin/quotas/account/").content.decode()
    assert "0 ok, 0 failed, 3,751 refused" in listed, "a caller's mistake is no failure of the account"
