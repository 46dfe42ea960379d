"""The figures of `/metrics`, compared with known rows and counters."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import redis
from django.conf import settings
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from queues.models import Job, Queue
from queues.services.defaults import create_defaults
from queues.states import Stage, Status
from quotas.models import Account, Policy, Pool, Project, Provider
from quotas.services.limits import Check, check, check_many

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clean(valkey: redis.Redis) -> None:
    create_defaults()


def scrape() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = Client().get("/metrics")
    assert answer.status_code == 200
    found = {}
    for family in text_string_to_metric_families(answer.content.decode()):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    assert all(value == 1 for (name, _), value in found.items() if name == "sluice_scrape_ok")
    return found


def labels(**given: str) -> frozenset[tuple[str, str]]:
    return frozenset(given.items())


def test_checks_are_counted_by_policy_and_outcome() -> None:
    Project.objects.create(slug="acme")
    Policy.objects.create(name="two", scope="project", unit="requests", algorithm="fixed_window", limit=2, window=3600)
    Policy.objects.create(
        name="watch", scope="project", unit="requests", algorithm="fixed_window", limit=1, window=3600, mode="shadow"
    )
    before = scrape()
    for _ in range(3):
        check(Check(project="acme"), actor="test")
    check(Check(project="acme", dry_run=True), actor="test")
    now = scrape()

    def risen(policy: str, outcome: str) -> float:
        place = ("sluice_limit_checks_total", labels(policy=policy, scope="project", outcome=outcome))
        return now.get(place, 0.0) - before.get(place, 0.0)

    assert (risen("two", "allowed"), risen("two", "denied")) == (2, 1)
    assert (risen("watch", "allowed"), risen("watch", "shadow_denied")) == (1, 1)
    assert now["sluice_limit_check_seconds_count", labels()] >= 3
    assert now["sluice_quota_used_ratio", labels(policy="two", project="acme")] == 1.0


def test_a_bypassed_denial_is_counted_apart() -> None:
    Project.objects.create(slug="acme")
    for name, mode in (("two", "enforce"), ("watch", "shadow")):
        Policy.objects.create(
            name=name, scope="project", unit="requests", algorithm="fixed_window", limit=1, window=3600, mode=mode
        )
    before = scrape()
    for question in (Check(project="acme", bypass=True), Check(project="acme", bypass=True)):
        (decision,) = check_many([question], actor="test")
        assert decision
    check(Check(project="acme", bypass=True), actor="test")
    now = scrape()

    def risen(policy: str, outcome: str) -> float:
        place = ("sluice_limit_checks_total", labels(policy=policy, scope="project", outcome=outcome))
        return now.get(place, 0.0) - before.get(place, 0.0)

    assert (risen("two", "allowed"), risen("two", "bypassed"), risen("two", "shadow_denied")) == (1, 2, 0)
    assert (risen("watch", "allowed"), risen("watch", "shadow_denied"), risen("watch", "bypassed")) == (1, 2, 0)


def test_jobs_are_counted_once_however_often_it_is_asked() -> None:
    project, queue, now = Project.objects.create(slug="acme"), Queue.objects.get(name="batch"), timezone.now()
    ended = now - timedelta(seconds=30)
    for number in range(5):
        Job.objects.create(
            project=project, queue=queue, type="x", stage=Stage.DONE, created_at=ended - timedelta(seconds=number),
            status=Status.DEAD if number == 4 else Status.COMPLETED, started_at=ended, first_started_at=ended,
            finished_at=ended + timedelta(milliseconds=20),
        )  # fmt: skip
    Job.objects.create(project=project, queue=queue, type="x", created_at=now, priority=1)
    for _ in range(3):
        figures = scrape()
        assert figures["sluice_jobs_total", labels(queue="batch", status="completed")] == 4
        assert figures["sluice_jobs_total", labels(queue="batch", status="dead")] == 1
    assert figures["sluice_job_wait_seconds_count", labels(queue="batch")] == 5
    assert figures["sluice_job_wait_seconds_sum", labels(queue="batch")] == pytest.approx(10)
    assert figures["sluice_job_run_seconds_bucket", labels(queue="batch", le="0.05")] == 5
    assert figures["sluice_queue_depth", labels(queue="batch", priority="high")] == 1


def test_many_jobs_that_ended_at_one_moment_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from controlplane.observability import job_metrics

    monkeypatch.setattr(job_metrics, "ROWS_PER_SCRAPE", 3)
    project, queue = Project.objects.create(slug="acme"), Queue.objects.get(name="batch")
    moment = timezone.now() - timedelta(seconds=30)
    for _ in range(8):
        Job.objects.create(
            project=project, queue=queue, type="x", stage=Stage.DONE, status=Status.CANCELLED, created_at=moment,
            finished_at=moment,
        )  # fmt: skip
    counts = [scrape()["sluice_jobs_total", labels(queue="batch", status="cancelled")] for _ in range(4)]
    assert counts == [3, 6, 8, 8]


def test_each_queue_is_counted_from_its_own_mark_and_an_old_mark_counts_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A queue's jobs that ended before another queue's newest one are not missed; nothing is counted twice after an
    upgrade from one mark for all queues."""
    from controlplane.observability import job_metrics

    monkeypatch.setattr(job_metrics, "ROWS_PER_SCRAPE", 4)
    project, moment = Project.objects.create(slug="acme"), timezone.now() - timedelta(seconds=60)
    queues = list(Queue.objects.order_by("pk")[:2])
    jobs = [
        Job.objects.create(
            project=project, queue=queue, type="x", stage=Stage.DONE, status=Status.COMPLETED, created_at=moment,
            finished_at=moment + timedelta(seconds=second),
        )
        for second in range(6)
        for queue in queues
    ]  # fmt: skip
    counted = jobs[1]
    assert counted.finished_at is not None
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.hset(job_metrics._key(), "mark", json.dumps([counted.finished_at.timestamp(), counted.pk]))

    def totals() -> list[float]:
        figures = scrape()
        return [
            figures.get(("sluice_jobs_total", labels(queue=queue.name, status="completed")), 0.0) for queue in queues
        ]

    assert [totals() for _ in range(4)] == [[4, 0], [5, 3], [5, 5], [5, 5]]


def test_accounts_have_metrics() -> None:
    provider = Provider.objects.create(name="p", base_url="http://127.0.0.1:1")
    Account.objects.create(pool=Pool.objects.create(name="llm", provider=provider), name="a1", credential="k")
    figures = scrape()
    assert figures["sluice_account_health", labels(pool="llm", account="a1")] == 1.0
    assert figures["sluice_breaker_state", labels(pool="llm", account="a1")] == 0


def test_redis_away_leaves_out_what_needs_it_and_says_so(settings: object) -> None:
    settings.REDIS_URL = "unix:///nowhere/valkey.sock"  # type: ignore[attr-defined]
    text = Client().get("/metrics").content.decode()
    assert 'sluice_scrape_ok{part="queues"} 1.0' in text
    assert 'sluice_scrape_ok{part="jobs"} 0.0' in text
