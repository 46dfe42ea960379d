"""With many finished rows, no query of the dispatcher, of a worker or of a list reads them all: the database says how."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from queues.maintenance.parcel_cleaner import sweep
from queues.maintenance.reconciler import Reconciler
from queues.models import DeadLetter, Job, Queue
from queues.selectors.explanation import explain
from queues.selectors.jobs import created_after
from queues.selectors.queues import depths
from queues.services import auto_replay, bulk_actions, queue_room
from queues.states import Stage, Status
from queues.worker import claims
from quotas import clock
from quotas.services import api_keys
from tests.integration.queues.desk import Desk
from tests.integration.quotas.api.conftest import Api

DOUBLINGS = 7
"""200 finished rows become 25,600."""


@pytest.fixture
def many(desk: Desk) -> Desk:
    """Finished jobs of three projects in all queues, a few that wait, and a worker."""
    projects = [desk.project(slug) for slug in ("acme", "globex", "initech")]
    queues = list(Queue.objects.order_by("pk"))
    now = clock.now()
    Job.objects.bulk_create(
        Job(
            uid=f"m{number}", project=projects[number % 3], queue=queues[number % len(queues)], type="test.echo", stage=Stage.DONE,
            status=Status.DEAD if number % 50 == 0 else Status.COMPLETED, created_at=now - timedelta(hours=1),
            started_at=now, first_started_at=now, finished_at=now - timedelta(seconds=10 + number),
        )
        for number in range(200)
    )  # fmt: skip
    columns = [field.column for field in Job._meta.concrete_fields if field.column not in ("id", "uid")]
    names = ", ".join(f'"{name}"' for name in columns)
    with connection.cursor() as cursor:
        for turn in range(DOUBLINGS):
            letter = "abcdefghij"[turn]
            # Names of columns and a letter of ours, no input.
            copy = f"INSERT INTO queues_job (uid, {names}) SELECT uid || '{letter}', {names} FROM queues_job"  # noqa: S608
            cursor.execute(copy)
        cursor.execute("ANALYZE")
    desk.submit(30)
    desk.submit(5, delay=60)
    desk.submit(5, project="globex", keys={"chat": "c"})
    desk.worker()
    return desk


class Plans:
    """How the database went about each query that was seen."""

    def __init__(self) -> None:
        self.seen = 0
        self.whole: list[str] = []

    def look(self, run: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        *_, last = sql.lstrip().split("; ")  # the one before, if there is one, locks
        reads = last.startswith(("SELECT", "UPDATE")) or (last.startswith("INSERT") and ' FROM "queues_job"' in last)
        if not many and '"queues_job"' in last and reads:
            self.seen += 1
            explain = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN "
            with connection.cursor() as cursor:
                cursor.cursor.execute(explain + last, params or ())
                plan = "\n".join(str(row[-1]) for row in cursor.cursor.fetchall())
            # Newest first without a condition: it follows the primary key, and stops where the page is full.
            first_few = " LIMIT " in sql and " WHERE " not in sql and "TEMP B-TREE" not in plan
            if self.reads_all(plan) and not (connection.vendor == "sqlite" and first_few):
                self.whole.append(f"{sql[:600]}\n{plan}")
        return run(sql, params, many, context)

    @staticmethod
    def reads_all(plan: str) -> bool:
        if connection.vendor == "sqlite":
            return any(re.match("SCAN (queues_job|k)", line) and "INDEX" not in line for line in plan.splitlines())
        return re.search(r"Seq Scan on queues_job\b", plan) is not None


@contextmanager
def plans() -> Iterator[Plans]:
    found = Plans()
    with connection.execute_wrapper(found.look):
        yield found


def holds(act: Callable[[], Any]) -> None:
    with plans() as found:
        act()
    assert found.seen, "it read no job at all"
    assert not found.whole, "\n\n".join(found.whole)


def test_the_check_would_notice(many: Desk) -> None:
    with plans() as found:
        list(Job.objects.filter(error="nothing has an index here"))
    assert found.whole


def test_a_round_of_the_dispatcher(many: Desk) -> None:
    holds(lambda: many.cycle())


def test_what_the_leader_does_on_the_side(many: Desk) -> None:
    now = clock.now()
    many.cycle()

    def side() -> None:
        reconciler = Reconciler()
        for _ in range(3):
            many.skip(8)
            reconciler.run(clock.now())
        sweep(now)
        bulk_actions.process_next_slice(now)
        auto_replay.replay_due(now)

    holds(side)


def test_a_worker(many: Desk) -> None:
    worker = many.worker("w2")
    many.cycle()

    def work() -> None:
        worker.claim()
        worker.beat()
        claims.cancel_requests("w2")
        worker.settle()

    holds(work)


def test_submitting_and_room(many: Desk) -> None:
    with plans() as found:
        many.submit(3, idempotency_key=None)
    assert not found.whole
    many.submit(1)
    holds(lambda: many.submit(1, idempotency_key="plain"))
    holds(lambda: queue_room._count(Queue.objects.get(name="batch").pk, at_most=100_000))
    holds(lambda: many.submit(1, unique_for=60))
    holds(lambda: many.submit(1, idempotency_key="k"))


@pytest.mark.parametrize(
    "path",
    [
        "jobs",
        "jobs?status=completed",
        "jobs?status=dead",
        "jobs?status=pending",
        "jobs?queue=batch",
        "jobs?project=globex",
        "jobs?project=globex&status=dead",
        "queue/requests",
        "queue/stats",
        "queues",
        "queues/batch",
    ],
)
def test_lists_and_figures(many: Desk, path: str) -> None:
    _, token = api_keys.create("test", ["read"], actor="tests")
    client = Api(token)
    assert client.get(path).status_code == 200
    holds(lambda: client.get(path))


def test_what_came_lately_is_found_without_the_older_ones(many: Desk) -> None:
    since = clock.now() - timedelta(seconds=30)
    found = created_after(Job.objects.all(), since)
    assert found.count() == 40
    holds(found.count)
    floor = next(int(node.rhs) for node in found.query.where.children if node.lhs.target.name == "id")
    assert Job.objects.filter(pk__lte=floor).count() > 20_000, "so many it does not look at"
    assert created_after(Job.objects.all(), since - timedelta(days=1)).count() == Job.objects.count()


def test_facts_of_a_batch_and_an_explanation(many: Desk) -> None:
    job = Job.objects.filter(stage=Stage.READY).order_by("-pk").first()
    assert job is not None
    holds(lambda: explain(job))
    holds(lambda: depths())


def test_open_letters_of_a_category_are_found_without_the_resolved_ones(desk: Desk) -> None:
    jobs = desk.submit(300)
    now = clock.now()
    DeadLetter.objects.bulk_create(
        DeadLetter(
            job=job, project_id=job.project_id, queue_id=job.queue_id, type=job.type, severity="warning",
            category="code" if number < 2 else "server", fingerprint="f", created_at=now,
            handled_at=None if number < 150 else now,
        )
        for number, job in enumerate(jobs)
    )  # fmt: skip
    rows = DeadLetter.objects.filter(handled_at=None, category="code").order_by("-pk")[:50]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        if connection.vendor == "postgresql":
            cursor.execute("SET enable_seqscan = off")
        plan = rows.explain()
        if connection.vendor == "postgresql":
            cursor.execute("RESET enable_seqscan")
    assert "letter_open_by_category" in plan
