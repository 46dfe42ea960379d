"""Queues and workers: what the pages show, and the concurrency that is set in place."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.admin.dashboard import forget
from controlplane.models import AuditEntry, QueueSample
from queues.models import Job, Queue, WorkerProcess
from queues.services import queue_actions
from queues.states import Stage
from queues.worker.heartbeat import Heartbeat
from tests.browser.seed import Day

SignIn = Callable[[str], Client]


def panel(client: Client, name: str, pk: int | None = None, period: str = "1h") -> str:
    forget()
    answer = client.get(f"/admin/live/{name}?period={period}" + (f"&pk={pk}" if pk else ""))
    assert answer.status_code == 200
    return answer.content.decode()


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def test_a_paused_queue_says_by_whom_when_and_why(signed_in: SignIn, day: Day) -> None:
    queue_actions.pause(day.queue, actor="user:zoe", reason="provider maintenance")
    day.queue.refresh_from_db()
    assert day.queue.paused_at is not None
    when = f"{day.queue.paused_at:%Y-%m-%d %H:%M:%S}"
    client = signed_in("root")
    assert f"Paused by user:zoe since {when} UTC: provider maintenance" in text_of(panel(client, "queue", day.queue.pk))
    assert f"user:zoe, {when}: provider maintenance" in text_of(panel(client, "all_queues"))
    assert f"by user:zoe since {when} UTC: provider maintenance" in panel(client, "queues")


def test_the_list_has_rates_utilisation_and_a_sparkline(signed_in: SignIn, day: Day) -> None:
    Queue.objects.filter(pk=day.queue.pk).update(concurrency=4)
    QueueSample.objects.create(
        queue=day.queue, project=day.acme, resolution="minute", low=9,
        at=timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=5),
    )  # fmt: skip
    client = signed_in("root")
    page = panel(client, "all_queues")
    row = next(row for row in re.findall(r"<tr>.*?</tr>", page, re.S) if ">batch<" in row)
    assert "25%" in row and "1 <span" in row and "of 4" in row, "one job runs"
    assert "<polyline" in row
    rest = client.get("/api/v1/queues/batch").json()
    figures = [float(number) for number in re.findall(r'<td class="sl-num">(\d+\.\d)</td>', row)]
    assert figures[0] == pytest.approx(rest["rate_in"], abs=0.2)
    assert "Set concurrency" not in panel(signed_in("operator"), "all_queues")


def test_concurrency_is_set_in_place(signed_in: SignIn, day: Day) -> None:
    Queue.objects.filter(pk=day.queue.pk).update(concurrency=4)
    path = f"/admin/queues/queue/{day.queue.pk}/concurrency/"
    client = signed_in("administrator")
    assert 'value="4"' in client.get(path).content.decode()
    given = {"concurrency": "7", "reason": "more room", "_form_submitted": "True"}
    for _ in range(2):  # a double click
        assert client.post(path, given).status_code == 200
    entry = AuditEntry.objects.get(verb="queue.change")
    assert (entry.before, entry.after, entry.reason) == ({"concurrency": 4}, {"concurrency": 7}, "more room")
    assert client.post(path, {**given, "concurrency": "-1"}).status_code == 200
    assert Queue.objects.get(pk=day.queue.pk).concurrency == 7
    for role in ("viewer", "operator", "member"):
        assert signed_in(role).post(path, {**given, "concurrency": "1"}).status_code in (302, 403)
    assert Queue.objects.get(pk=day.queue.pk).concurrency == 7
    client.post(path, {**given, "concurrency": ""})
    assert Queue.objects.get(pk=day.queue.pk).concurrency is None


def test_a_weight_is_set_in_place(signed_in: SignIn, day: Day) -> None:
    path = f"/admin/quotas/project/{day.acme.pk}/weight/"
    client = signed_in("administrator")
    assert path in client.get("/admin/quotas/project/").content.decode()
    given = {"weight": "5", "reason": "they pay for more", "_form_submitted": "True"}
    for _ in range(2):  # a double click
        assert client.post(path, given).status_code == 200
    entry = AuditEntry.objects.get(verb="project.change")
    assert (entry.before, entry.after, entry.reason, entry.project) == (
        {"weight": 3}, {"weight": 5}, "they pay for more", "acme",
    )  # fmt: skip
    for role in ("viewer", "operator", "member"):
        page = signed_in(role)
        assert page.post(path, {**given, "weight": "1"}).status_code in (302, 403)
        assert path not in page.get("/admin/quotas/project/").content.decode()
    client.post(path, {**given, "weight": "0"})
    day.acme.refresh_from_db()
    assert day.acme.weight == 5


def test_a_worker_shows_what_it_runs_its_memory_and_version(signed_in: SignIn, day: Day) -> None:
    Heartbeat("io-host1-1", "io", 20).begin()
    worker = WorkerProcess.objects.get(name="io-host1-1")
    assert worker.memory > 10_000_000
    page = panel(signed_in("root"), "worker", worker.pk)
    assert day.running.uid in page and f"/admin/queues/job/{day.running.pk}/change/" in page
    assert "MB" in page and worker.version and worker.version in page
    idle = WorkerProcess.objects.get(name="io-host1-0")
    assert "It runs no job at the moment." in panel(signed_in("viewer"), "worker", idle.pk)
    assert signed_in("member").get(f"/admin/live/worker?pk={worker.pk}").status_code == 403


def test_a_queue_says_when_it_is_empty_or_that_nobody_knows(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    now = timezone.now()
    Job.objects.filter(queue=day.queue, stage=Stage.DONE).delete()
    assert "When it is empty is not known" in text_of(panel(client, "queue", day.queue.pk)), "nothing has ended lately"
    waiting = Job.objects.filter(queue=day.queue, stage=Stage.READY).order_by()
    Job.objects.bulk_create(
        Job(
            project_id=project, priority=priority, queue=day.queue, type="t", payload={}, stage=Stage.DONE,
            status="completed", created_at=now, finished_at=now - timedelta(seconds=second),
        )
        for project, priority in waiting.values_list("project", "priority").distinct()
        for second in range(60)
    )  # fmt: skip
    page = text_of(panel(client, "queue", day.queue.pk))
    assert f"Empty at about {now:%Y-%m-%d}" in page and "if nothing is added" in page
    queue_actions.pause(day.queue, actor="test", reason="maintenance")
    assert "When it is empty is not known (queue batch is paused)." in text_of(panel(client, "queue", day.queue.pk))
    idle = Queue.objects.get(name="cleanup")
    assert "Empty at about" not in text_of(panel(client, "queue", idle.pk)), "it is empty"


@pytest.mark.parametrize("name", ["queues", "all_queues", "performance", "throughput", "queue"])
def test_panels_ask_the_same_number_of_queries_for_many_samples(signed_in: SignIn, day: Day, name: str) -> None:
    client = signed_in("root")
    pk = day.queue.pk if name == "queue" else None

    def queries() -> int:
        counts = []
        for _ in range(3):
            with CaptureQueriesContext(connection) as asked:
                panel(client, name, pk, "24h")
            counts.append(len(asked))
        return min(counts)

    before = queries()
    now = timezone.now().replace(second=0, microsecond=0)
    QueueSample.objects.bulk_create(
        QueueSample(queue=queue, project=project, resolution="minute", at=now - timedelta(minutes=ago), low=ago, waits={"3": 1})
        for queue in Queue.objects.all() for project in (day.acme, day.globex) for ago in range(200)
    )  # fmt: skip
    Job.objects.filter(pk=day.dead.pk).update(finished_at=now)
    assert queries() <= before + 1, "the configuration's version is read once a second as well"
