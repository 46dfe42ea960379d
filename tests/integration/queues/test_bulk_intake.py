"""A large bulk is built before anything is locked, and its rows are those that single submissions would have."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from django.forms.models import model_to_dict

from queues.lifecycle.acceptance import new_job
from queues.models import Batch, Job, JobDependency
from queues.services import batches, draft, intake
from queues.services.draft import prepare
from queues.services.submission import accept, draw
from queues.services.submit import submit_specs
from queues.specs import JobSpec, read_job
from quotas import clock
from tests.integration.queues.desk import Desk

LARGE = 150
"""More than one part."""


def spec(**fields: Any) -> JobSpec:
    return read_job({"type": "test.echo", **fields})


@pytest.fixture
def built_under_lock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs whose objects were made, apart from those that were read, while a transaction was open."""
    found: list[str] = []

    def noted(**fields: Any) -> Job:
        job = new_job(**fields)
        if connection.in_atomic_block:
            found.append(job.uid)
        return job

    monkeypatch.setattr(draft, "new_job", noted)
    return found


@pytest.mark.parametrize("kind", ["plain", "unique", "keyed"])
def test_no_job_of_a_large_bulk_is_built_while_others_are_kept_from_writing(
    desk: Desk, built_under_lock: list[str], kind: str
) -> None:
    more: dict[str, Any] = {"plain": {}, "unique": {"unique_for": 60}, "keyed": {}}[kind]
    specs = [
        spec(payload={"n": n}, **more, **({"idempotency_key": f"k{n}"} if kind == "keyed" else {}))
        for n in range(LARGE)
    ]
    batches.submit_bulk(desk.project(), specs)
    assert Job.objects.count() == LARGE
    assert built_under_lock == []


def test_a_row_of_a_large_bulk_is_that_of_a_single_submission(desk: Desk) -> None:
    project = desk.project()
    first = submit_specs(project, [spec()])[0].job
    fields: list[dict[str, Any]] = [
        {},
        {
            "payload": {"text": "ä\u2028\U0001f600", "deep": [{"a": None}, 1.5, True]},
            "user": "u",
            "keys": {"chat": "-1"},
        },
        {"delay": 60, "priority": 8, "cost": {"tokens": 2**53 - 1}, "max_attempts": 9, "timeout": 1.5},
        {"run_at": "2090-01-01T00:00:00Z", "delivery": "at_most_once", "callback_url": "http://127.0.0.1:1/x"},
        {"unique_for": 60, "unique_key": "twin", "idempotency_key": "key"},
        {"after": [first.uid]},
    ]
    other = desk.project("other")
    after = submit_specs(other, [spec()])[0].job
    alone = []
    for one in fields:
        here = {**one, "after": [after.uid]} if "after" in one else one
        alone.append(submit_specs(other, [spec(**here)])[0].job.pk)
    batch, ids, _ = batches.submit_bulk(project, [spec(**one) for one in fields] + [spec() for _ in range(LARGE)])
    apart = {"id", "project", "batch", "request_hash", "unique_key", "unique_until", "not_before", "created_at"}
    for pk, uid in zip(alone, ids, strict=False):
        single, bulk = Job.objects.get(pk=pk), Job.objects.get(uid=uid)
        assert {name: value for name, value in model_to_dict(single).items() if name not in apart} == {
            name: value for name, value in model_to_dict(bulk).items() if name not in apart
        }
        for name in ("unique_key", "unique_until", "not_before", "created_at"):
            assert (getattr(single, name) is None) == (getattr(bulk, name) is None)
            assert type(getattr(single, name)) is type(getattr(bulk, name))
        assert bulk.batch_id == batch.pk
    assert JobDependency.objects.get(job__uid=ids[5]).after_id == first.pk


def test_a_twin_that_comes_while_a_bulk_is_prepared_answers_it(desk: Desk) -> None:
    project = desk.project()
    specs = [spec(payload={"n": n}, unique_for=60) for n in range(LARGE)]
    keyed = [spec(payload={"n": -1}, idempotency_key="key")]
    prepared = prepare(project, specs + keyed)
    intake.serialise(prepared.drafts)
    drawn = draw(prepared)
    twin = submit_specs(project, [specs[7]])[0].job
    known = submit_specs(project, keyed)[0].job
    with transaction.atomic():
        batch = Batch.objects.create(project=project, created_at=clock.now())
        answers = accept(prepared, batch=batch, in_parts=True, drawn=drawn)
    assert (answers[7].job.pk, answers[7].created) == (twin.pk, False)
    assert (answers[-1].job.pk, answers[-1].created) == (known.pk, False)
    assert sum(answer.created for answer in answers) == LARGE - 1
