"""The job page draws the job's life and sums up its waits; the batch page sums up its groups'."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.test import Client
from django.utils import timezone

from queues.models import Attempt, Batch, Job, Queue, WaitInterval
from queues.selectors.wait_history import seconds_by_code, spans_of
from queues.states import Stage, Status
from tests.browser.seed import Day

SignIn = Callable[[str], Client]


def make_waited(day: Day, start: datetime | None = None, batch: Batch | None = None) -> Job:
    """100 s in the queue, of which a policy blocked it for 40 s and its queue's pause for 30 s; two attempts of 5 s each."""
    start = start or timezone.now() - timedelta(minutes=5)

    def at(seconds: float) -> datetime:
        return start + timedelta(seconds=seconds)

    queue = Queue.objects.get(name="notifications")
    job = Job.objects.create(
        project=day.acme, queue=queue, type="http.request", payload=day.dead.payload, stage=Stage.DONE, batch=batch,
        status=Status.COMPLETED, created_at=start, started_at=at(115), finished_at=at(120), attempts_made=2,
    )  # fmt: skip
    group: dict[str, Any] = {"queue": queue, "priority": job.priority, "project": day.acme, "pool": ""}
    for code, name, began, ended in (
        ("policy_limit", "user-hourly", 10, 50),
        ("queue_paused", "notifications", 50, 80),
    ):
        WaitInterval.objects.create(**group, code=code, name=name, began_at=at(began), ended_at=at(ended))
    for number, outcome, began in ((1, "failed", 100), (2, "succeeded", 115)):
        Attempt.objects.create(
            job=job, number=number, delivery=number, outcome=outcome, account="llm/a1", started_at=at(began),
            dispatched_at=at(began), ready_at=at(110) if number == 2 else None, ended_at=at(began + 5),
            error="GET /x?api_key=sk-hidden failed" if outcome == "failed" else "",
        )  # fmt: skip
    return job


def page_of(client: Client, path: str) -> str:
    answer = client.get(f"/admin/{path}")
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_page_sums_up_what_the_ledger_says(signed_in: SignIn, day: Day) -> None:
    job = make_waited(day)
    page = page_of(signed_in("root"), f"queues/job/{job.pk}/change/")
    waits = page.partition('id="waits"')[2].partition("</table>")[0]
    shown = dict(re.findall(r"<tr><td>([^<]+?)(?: <code>[^<]*</code>)?</td><td class=\"sl-num\">([\d.]+)</td>", waits))
    words = {
        "Policy limit": "policy_limit",
        "Queue paused": "queue_paused",
        "Its turn": "turn",
        "Retry delay": "retry_backoff",
    }
    expected = seconds_by_code(spans_of(job))
    assert {words[label]: float(seconds) for label, seconds in shown.items()} == expected
    assert (expected["policy_limit"], expected["queue_paused"]) == (40.0, 30.0)
    assert f'href="/admin/quotas/policy/{day.policy.pk}/change/"' in waits
    assert f'href="/admin/queues/queue/{job.queue_id}/change/"' in waits
    assert "reset its counters" in waits and "Resume the queue" in waits


def test_bars_lie_where_the_spans_do(signed_in: SignIn, day: Day) -> None:
    page = page_of(signed_in("viewer"), f"queues/job/{make_waited(day).pk}/change/")
    bars = re.findall(r'style="left:([\d.]+)%;width:([\d.]+)%" title="([^"]+)"', page)
    places = {title.partition(":")[0]: (float(left), float(width)) for left, width, title in bars}
    assert places["Policy limit"] == (8.333, 33.333)  # from 10 to 50 of 120 seconds
    assert places["Attempt 2 on llm/a1, succeeded"] == (95.833, 4.167)
    assert all(float(left) >= 0 and float(left) + float(width) <= 100.01 for left, width, _ in bars)
    assert "40.000 s" in page and "5.000 s" in page


def test_attempts_are_newest_first_with_durations_and_without_secrets(signed_in: SignIn, day: Day) -> None:
    page = page_of(signed_in("viewer"), f"queues/job/{make_waited(day).pk}/change/")
    attempts = page.partition('id="attempts"')[2].partition("</table>")[0]
    assert re.findall(r"<tr><td>(\d+)</td>", attempts) == ["2", "1"]
    assert "sk-hidden" not in page and "api_key=[redacted]" in attempts


def test_a_member_gets_no_link_to_what_is_hidden(signed_in: SignIn, day: Day) -> None:
    job = make_waited(day)
    WaitInterval.objects.filter(code="queue_paused").update(code="account_cooldown", name="llm/a2")
    page = page_of(signed_in("member"), f"queues/job/{job.pk}/change/")
    assert (
        "Cooldown" in page and "/admin/quotas/account/" not in page.partition('id="waits"')[2].partition("</table>")[0]
    )


def test_a_thousand_holds_are_a_bounded_chart(signed_in: SignIn, day: Day) -> None:
    job = make_waited(day)
    WaitInterval.objects.all().delete()
    WaitInterval.objects.bulk_create(
        WaitInterval(
            queue=job.queue, priority=job.priority, project=day.acme, code="policy_limit", name="user-hourly",
            began_at=job.created_at + timedelta(milliseconds=50 * number),
            ended_at=job.created_at + timedelta(milliseconds=50 * number + 25),
        )
        for number in range(1500)
    )  # fmt: skip
    page = page_of(signed_in("viewer"), f"queues/job/{job.pk}/change/")
    assert page.count('title="Policy limit: user-hourly:') <= 1 / 0.002
    assert "parts" in page and "37.500" in page  # the sums are of all of them


def test_jobs_without_a_past_and_of_every_state_open(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    fresh = Job.objects.create(
        project=day.acme, queue=day.queue, type="x", created_at=timezone.now() + timedelta(minutes=1)
    )
    for job in (fresh, day.running, day.dead):
        page = page_of(client, f"queues/job/{job.pk}/change/")
        assert ('hx-select="#job-story"' in page) == (job.stage != Stage.DONE), "it refreshes until the job has ended"


def test_a_batch_says_its_groups_waits(signed_in: SignIn, day: Day) -> None:
    start = timezone.now() - timedelta(minutes=5)
    batch = Batch.objects.create(
        project=day.acme, name="b", created_at=start, finished_at=start + timedelta(seconds=120)
    )
    make_waited(day, start, batch)
    page = page_of(signed_in("viewer"), f"queues/batch/{batch.pk}/change/")
    waits = page.partition('id="waits"')[2]
    assert re.search(r"Policy limit</td><td class=\"sl-num\">40\.0</td>", waits)
    assert re.search(r"Queue paused</td><td class=\"sl-num\">30\.0</td>", waits)


def test_markup_in_what_callers_send_is_shown_as_text(signed_in: SignIn, day: Day) -> None:
    bad = "<script>alert(1)</script>"
    job = make_waited(day)
    WaitInterval.objects.update(name=bad)
    Attempt.objects.filter(job=job).update(error=bad, account=bad)
    Job.objects.filter(pk=job.pk).update(
        payload={bad: bad}, result=[bad], error=bad, reason=bad, user=bad, type=bad, stage=Stage.DONE
    )
    client = signed_in("root")
    for path in (f"queues/job/{job.pk}/change/", "queues/job/", f"queues/job/?q={bad}"):
        assert bad not in page_of(client, path)


def test_a_huge_payload_is_shortened(signed_in: SignIn, day: Day) -> None:
    Job.objects.filter(pk=day.dead.pk).update(payload={"text": "x" * 3_000_000})
    page = page_of(signed_in("root"), f"queues/job/{day.dead.pk}/change/")
    assert len(page) < 600_000 and "The first 100,000 of 3,000," in page
