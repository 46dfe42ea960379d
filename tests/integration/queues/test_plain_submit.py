"""A plain job is one statement, and its row and its answer are those of the ordinary way."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from queues.errors import InvalidJob, QueueDraining, QueueFull
from queues.models import Job
from queues.services import queue_actions
from queues.services.submit import submit, submit_specs
from queues.specs import JobSpec, read_job
from quotas import clock
from quotas.models import ConfigVersion, Project
from tests.integration.queues.desk import Desk

APART = {"id", "uid", "idempotency_key", "created_at"}


def spec(**fields: Any) -> JobSpec:
    return read_job({"type": "test.echo", **fields})


def statements(seen: CaptureQueriesContext) -> list[str]:
    """Without a transaction's own, without the clock of the desk, which is read apart, and without the look at the
    version of the configuration, twice a second."""
    passed_over = ("BEGIN IMMEDIATE", "COMMIT", "SELECT clock_timestamp()")
    sent = [query["sql"] for query in seen.captured_queries]
    return [sql for sql in sent if sql not in passed_over and ConfigVersion._meta.db_table not in sql]


def raw(pk: int) -> dict[str, Any]:
    """The row as SQL stores it; on SQLite with the types of its values."""
    with connection.cursor() as cursor:
        cursor.execute('SELECT * FROM "queues_job" WHERE "id" = %s', [pk])
        (values,) = cursor.fetchall()
        names = [column[0] for column in cursor.description]
        types = [""] * len(names)
        if connection.vendor == "sqlite":
            columns = ", ".join(f'typeof("{name}")' for name in names)
            cursor.execute(f'SELECT {columns} FROM "queues_job" WHERE "id" = %s', [pk])  # noqa: S608
            types = cursor.fetchone()
    return {name: (value, type) for name, value, type in zip(names, values, types, strict=True) if name not in APART}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"payload": {"text": "ä\u2028'; --%s", "deep": [{"a": None}, 1.5, True]}, "user": "u", "keys": {"chat": "-1"}},
        {"priority": 8, "cost": {"tokens": 2**53 - 1}, "max_attempts": 9, "timeout": 1.5, "idempotency_key": "k"},
        {"delivery": "at_most_once", "callback_url": "http://127.0.0.1:1/x"},
    ],
    ids=["bare", "texts", "numbers", "words"],
)
@pytest.mark.parametrize("max_size", [100_000, None])
def test_its_row_is_that_of_the_ordinary_way(desk: Desk, fields: dict[str, Any], max_size: int | None) -> None:
    desk.queue("q", max_size=max_size)
    project = desk.project()
    submit_specs(project, [spec(queue="q")])  # counts the queue
    with transaction.atomic():
        (ordinary,) = submit_specs(project, [spec(queue="q", **fields)])
    if "idempotency_key" in fields:
        fields = {**fields, "idempotency_key": "another"}
    with CaptureQueriesContext(connection) as seen:
        (plain,) = submit_specs(project, [spec(queue="q", **fields)])
    assert len(statements(seen)) == 1
    one, other = raw(plain.job.pk), raw(ordinary.job.pk)
    if "idempotency_key" in fields:
        one.pop("request_hash"), other.pop("request_hash")
        assert plain.job.request_hash == ordinary.job.request_hash
    assert one == other
    again = Job.objects.get(pk=plain.job.pk)
    for field in Job._meta.concrete_fields:
        assert getattr(plain.job, field.attname) == getattr(again, field.attname), field.attname


def test_from_python_it_is_one_statement_too(desk: Desk) -> None:
    desk.project()
    submit("test.echo", project="acme")
    with CaptureQueriesContext(connection) as seen:
        job = submit("test.echo", project="acme")
    assert len(statements(seen)) == 1
    assert job.project.slug == "acme"


def test_what_objects_is_found_by_the_ordinary_way(desk: Desk) -> None:
    """Each is committed by another process, so that the configuration of this one does not have it yet."""
    queue = desk.queue("q", max_size=100_000)
    project = desk.project()
    submit("test.echo", project="acme", queue="q")
    queue_actions.drain(queue, actor="test", reason="test")
    with pytest.raises(QueueDraining):
        submit_specs(project, [spec(queue="q")])
    queue_actions.resume(queue, actor="test", reason="test")
    with connection.cursor() as cursor:
        cursor.execute('UPDATE "queues_queue" SET "max_size" = 1 WHERE "id" = %s', [queue.pk])
    with pytest.raises(QueueFull):
        submit_specs(project, [spec(queue="q")])
    assert Job.objects.count() == 1


def test_a_project_that_is_made_anew_under_its_slug_gets_its_jobs(desk: Desk) -> None:
    desk.project()
    submit("test.echo", project="acme").delete()
    with connection.cursor() as cursor:
        cursor.execute("""UPDATE "quotas_project" SET "slug" = 'former' WHERE "slug" = 'acme'""")
    with pytest.raises(InvalidJob):
        submit("test.echo", project="acme")
    successor = Project(slug="acme", created_at=clock.now(), updated_at=clock.now())
    successor.save_base(raw=True)  # the version of the configuration stays, as after a restore
    for statements_at_most in (20, 1):
        with CaptureQueriesContext(connection) as seen:
            assert submit("test.echo", project="acme").project_id == successor.pk
        assert len(statements(seen)) <= statements_at_most


def test_a_key_that_is_used_is_answered_before_anything_else_is_said(desk: Desk) -> None:
    project = desk.project()
    (first,) = submit_specs(project, [spec(idempotency_key="k")])
    (again,) = submit_specs(project, [spec(idempotency_key="k")])
    assert (again.job.pk, again.created) == (first.job.pk, False)
    (alone,) = submit_specs(desk.project("other"), [spec(idempotency_key="k")])
    assert alone.created
