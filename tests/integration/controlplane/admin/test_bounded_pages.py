"""Pages need no more queries with many rows than with few, and read a bounded number of jobs for their counts."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from bench.admin_pages import PAGES, addresses
from controlplane.admin.dashboard import forget
from queues.models import DeadLetter, Job
from queues.selectors import job_counts
from queues.states import Stage, Status
from quotas.models import Account, Policy
from tests.browser.seed import Day
from tests.integration.controlplane.admin.conftest import SignIn


def queries(client: Client) -> dict[str, int]:
    found = {}
    for name, path in addresses():
        forget()
        client.get(path)  # what is read once and kept is not counted
        forget()
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert client.get(path).status_code == 200, name
        found[name] = len(captured)
    return found


def grow(day: Day, letter: str = "p", count: int = 40) -> None:
    """Several times as many of everything that pages list."""
    jobs = [
        Job(project=day.acme, queue=day.queue, type="http.request", payload={}, stage=stage, status=status, user=f"u-{number}",
            created_at=day.dead.created_at, finished_at=day.dead.finished_at if stage == Stage.DONE else None)
        for number in range(5 * count)
        for stage, status in ((Stage.DONE, Status.DEAD), (Stage.DONE, Status.COMPLETED), (Stage.READY, Status.PENDING))
    ]  # fmt: skip
    Job.objects.bulk_create(jobs)
    DeadLetter.objects.bulk_create(
        DeadLetter(job=job, project=day.acme, queue=day.queue, type=job.type, category="server", severity="warning",
                   fingerprint=f"{number % 40:032}", error="503", created_at=day.dead.created_at)
        for number, job in enumerate(Job.objects.filter(status=Status.DEAD, payload={}))
    )  # fmt: skip
    for number in range(count):
        Policy.objects.create(name=f"{letter}{number}", scope="custom", key_name=f"k{number}", algorithm="fixed_window", limit=9,
                              window=60)  # fmt: skip
        Account.objects.create(pool_id=day.account.pool_id, name=f"{letter}{number}", credential=f"sk-{letter}{number}")


def test_pages_need_no_more_queries_with_more_rows(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    grow(day, "o", 5)  # so that no page is empty
    few = queries(client)
    grow(day)
    many = queries(client)
    assert set(few) == set(PAGES)
    assert {name: (few[name], many[name]) for name in few if many[name] > few[name] + 2} == {}


def test_counts_under_a_filter_read_a_bounded_number_of_jobs(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(day)
    rows = Job.objects.filter(queue=day.queue)
    exact = {status: rows.filter(status=status).count() for status in Status}
    assert {status: int(count) for status, count in job_counts.by_status(rows).items()} == exact
    assert not any(count.more for count in job_counts.by_status(rows).values())
    monkeypatch.setattr(job_counts, "MOST", 150)
    counts = job_counts.by_status(rows)
    assert all(counts[status] <= exact[status] for status in Status)
    for status in Status:
        assert counts[status].more or counts[status] == exact[status], status
    assert str(counts[Status.DEAD]).endswith("+")
    assert (str(job_counts.total(counts, "")), job_counts.total(counts, "dead")) == ("150+", counts[Status.DEAD])


def test_groups_are_counted_whichever_way(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    from queues.ready_groups import groups_waiting

    grow(day)
    keys = groups_waiting()
    one_by_one = job_counts.by_group(Job.objects.all(), keys)
    monkeypatch.setattr(job_counts, "FEW_GROUPS", 0)
    assert job_counts.by_group(Job.objects.all(), keys) == one_by_one
    assert sum(one_by_one.values()) == Job.objects.filter(stage=Stage.READY).count()
    monkeypatch.setattr(job_counts, "MOST_GROUPED", 100)
    least: Any = job_counts.by_group(Job.objects.all(), keys)
    assert set(least) == set(one_by_one) and any(count.more for count in least.values())
