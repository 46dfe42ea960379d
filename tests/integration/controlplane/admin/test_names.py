"""What jobs and other rows name keeps its name, and a queue keeps the pool that its jobs wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from controlplane.models import AuditEntry
from queues.models import Job, Queue
from queues.states import LIVE_STAGES, Stage
from quotas.models import Policy, Pool, Project, Provider
from tests.browser.seed import Day
from tests.integration.controlplane.admin.pages import filled

SignIn = Callable[[str], Client]


def change(client: Client, row: Model, **given: Any) -> Any:
    options = row._meta
    url = reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[row.pk])
    return client.post(url, filled(client.get(url).content.decode(), str(options.model_name), **given))


def delete_selected(client: Client, row: Model) -> str:
    fields = {"action": "delete_selected", "_selected_action": [row.pk], "confirmed": "1", "reason": "unused"}
    url = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_changelist")
    return str(client.post(url, fields, follow=True).content.decode())


@pytest.fixture
def pool(day: Day) -> Pool:
    """A pool that nothing names."""
    provider = Provider.objects.create(name="spare", base_url="http://127.0.0.1:9")
    return Pool.objects.create(name="spare", provider=provider)


@pytest.fixture
def queue(day: Day, pool: Pool) -> Queue:
    return Queue.objects.create(name="spare", pool=pool)


def waiting_job(queue: Queue, pool: str = "") -> Job:
    job = Job.objects.filter(stage__in=LIVE_STAGES).exclude(stage=Stage.RUNNING).order_by("pk")[0]
    Job.objects.filter(pk=job.pk).update(queue=queue, pool=pool)
    return job


def named_by_a_job(pool: Pool) -> None:
    waiting_job(Queue.objects.exclude(pool=pool)[0], pool.name)


def named_by_a_fallback(pool: Pool) -> None:
    Pool.objects.create(name="first", provider=pool.provider, fallback=[pool.name])


def named_by_a_policy(pool: Pool) -> None:
    policy = Policy.objects.filter(scope="project")[0]
    Policy.objects.filter(pk=policy.pk).update(adaptive={"pool": pool.name})


@pytest.mark.parametrize("name_it", [named_by_a_job, named_by_a_fallback, named_by_a_policy])
def test_a_pool_that_is_named_is_neither_renamed_nor_deleted(
    signed_in: SignIn, pool: Pool, name_it: Callable[[Pool], None]
) -> None:
    client = signed_in("root")
    name_it(pool)
    answer = change(client, pool, name="other")
    assert answer.status_code == 200 and "be renamed while it is used under its name" in answer.content.decode()
    assert "Skipped" in delete_selected(client, pool)
    pool.refresh_from_db()
    assert pool.name == "spare"
    assert not AuditEntry.objects.filter(verb="pool.change").exists()


def test_what_nothing_names_is_renamed(signed_in: SignIn, pool: Pool, queue: Queue) -> None:
    client = signed_in("root")
    for row in (pool, queue, pool.provider):
        assert change(client, row, name="other").status_code == 302
        row.refresh_from_db()
        assert row.name == "other"
    assert Queue.objects.get(name="other").pool == pool


def test_a_queue_that_a_policy_names_is_not_renamed(signed_in: SignIn, queue: Queue) -> None:
    client = signed_in("root")
    policy = Policy.objects.filter(scope="project")[0]
    Policy.objects.filter(pk=policy.pk).update(scope="queue", match=queue.name)
    answer = change(client, queue, name="other")
    assert answer.status_code == 200 and f"policy {policy.name} is for it" in answer.content.decode()
    assert "Skipped" in delete_selected(client, queue)
    assert Queue.objects.filter(name="spare").exists()


def test_a_project_that_a_pool_lists_is_neither_renamed_nor_deleted(signed_in: SignIn, pool: Pool) -> None:
    client = signed_in("root")
    project = Project.objects.create(slug="listed")
    Pool.objects.filter(pk=pool.pk).update(projects=["listed"])
    answer = change(client, project, slug="other")
    assert answer.status_code == 200 and "pool spare lists it" in answer.content.decode()
    assert "Skipped" in delete_selected(client, project)
    Pool.objects.filter(pk=pool.pk).update(projects=None)
    assert change(client, project, slug="other").status_code == 302


def test_a_queue_keeps_the_pool_that_its_jobs_wait_for(signed_in: SignIn, queue: Queue) -> None:
    client = signed_in("root")
    job = waiting_job(queue)
    answer = change(client, queue, pool="")
    assert answer.status_code == 200 and "1 unfinished job may need it" in answer.content.decode()
    queue.refresh_from_db()
    assert queue.pool is not None
    Job.objects.filter(pk=job.pk).update(stage=Stage.DONE, status="cancelled")
    assert change(client, queue, pool="").status_code == 302
    queue.refresh_from_db()
    assert queue.pool is None


@pytest.mark.parametrize(
    ("field", "given", "message"),
    [("fallback", "lllm", "did you mean &#x27;llm&#x27;?"), ("projects", "acmee", "did you mean &#x27;acme&#x27;?")],
)
def test_names_in_a_pool_are_suggested(signed_in: SignIn, pool: Pool, field: str, given: str, message: str) -> None:
    answer = change(signed_in("root"), pool, **{field: given})
    assert answer.status_code == 200 and message in answer.content.decode()
