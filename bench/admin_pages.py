"""How long the admin's lists, forms and panels take on a large instance, and how many queries each makes.

    python -m bench.admin_pages [--rows 1000000] [--database sqlite|postgres] [--keep DIRECTORY] [--page TEXT]

The large instance has `--rows` jobs, a tenth of them dead letters, 1,000 policies and 200 accounts. The baseline is the
same instance with 1,000 jobs, 10 policies and 4 accounts, measured in the same run. With `--keep`, the directory keeps the
filled database, and a later run with the same directory migrates and measures it, without the baseline.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

PAGES = {
    "job list": "/admin/queues/job/",
    "job list, page 20": "/admin/queues/job/?p=20",
    "status completed": "/admin/queues/job/?status__exact=completed",
    "status dead": "/admin/queues/job/?status__exact=dead",
    "one project": "/admin/queues/job/?project__id__exact={project}",
    "one queue": "/admin/queues/job/?queue__id__exact={queue}",
    "one user": "/admin/queues/job/?q=user:u-17",
    "a job": "/admin/queues/job/{job}/change/",
    "dead letters": "/admin/queues/deadletter/",
    "dead letters of a category": "/admin/queues/deadletter/?category=code",
    "failures": "/admin/queues/deadletter/groups/",
    "a dead letter": "/admin/queues/deadletter/{letter}/change/",
    "queues": "/admin/queues/queue/",
    "a queue": "/admin/queues/queue/{queue}/change/",
    "policies": "/admin/quotas/policy/",
    "a policy": "/admin/quotas/policy/{policy}/change/",
    "accounts": "/admin/quotas/account/",
    "an account": "/admin/quotas/account/{account}/change/",
    "a pool": "/admin/quotas/pool/{pool}/change/",
    "projects": "/admin/quotas/project/",
    "audit log": "/admin/controlplane/auditentry/",
    "alerts": "/admin/controlplane/alert/",
    "people": "/admin/auth/user/",
    "dashboard": "/admin/",
    "dashboard: pulse": "/admin/live/pulse",
    "dashboard: throughput": "/admin/live/throughput",
    "dashboard: queues": "/admin/live/queues",
    "dashboard: limits": "/admin/live/limits",
    "dashboard: accounts": "/admin/live/accounts",
    "dashboard: letters": "/admin/live/letters",
    "metrics": "/metrics",
}
FASTER = {
    "sqlite": ("PRAGMA synchronous=OFF", "PRAGMA cache_size=-1000000"),
    # Without checks of foreign keys: the copies have the keys of their originals.
    "postgresql": (
        "SET session_replication_role = replica",
        "SET synchronous_commit = off",
        "SET maintenance_work_mem = '512MB'",
    ),
}
"""For the copies alone."""
TIMES = 5
GOAL = 0.2


@dataclass(frozen=True)
class Taken:
    """Medians of one page: seconds, and of these what this process computed; and its queries."""

    seconds: float
    busy: float
    queries: int


def main() -> None:
    """Fill, measure, fill more, measure, print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--keep", default="", help="a directory for the filled database")
    parser.add_argument("--page", default="", help="only pages whose names contain this text")
    options = parser.parse_args()
    directory = options.keep or tempfile.mkdtemp(prefix="sluice-bench-")
    os.makedirs(directory, exist_ok=True)
    os.environ["SLUICE_DATA_DIR"] = directory
    os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
    os.environ["SLUICE_LOG_LEVEL"] = "ERROR"
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    from tests.support.postgres import Cluster
    from tests.support.valkey import run_server, valkey_binary

    try:
        with ExitStack() as stack:
            os.environ["REDIS_URL"] = stack.enter_context(run_server(valkey_binary())).unix_url
            if options.database == "postgres":
                cluster = Cluster(directory)
                cluster.start()
                stack.callback(cluster.stop)
                os.environ["DATABASE_URL"] = cluster.url
                os.environ["SLUICE_SECRET_KEY"] = "bench"
            _measure(options.rows, options.page)
    finally:
        if not options.keep:
            shutil.rmtree(directory)


def _measure(rows: int, page: str) -> None:
    import django

    django.setup()
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.test import Client

    from queues.models import Job

    settings.CREDENTIAL_KEYS = settings.CREDENTIAL_KEYS or ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]
    call_command("migrate", verbosity=0)
    client = Client(headers={"host": "localhost"})
    root, _ = User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)
    client.force_login(root)
    few = None if Job.objects.exists() else _baseline(client, page)
    _configure(1_000, 200)
    _double(rows)
    many = _times(client, page)
    print(f"{'page':28}{'small':>13}{f'{rows:,} jobs':>20}{'of it CPU':>12}{'queries':>16}")
    for name, much in many.items():
        small = f"{few[name].seconds * 1000:.1f} ms, {few[name].queries}" if few else ""
        mark = "" if much.seconds < GOAL else "  above the goal"
        print(f"{name:28}{small:>13}{much.seconds * 1000:>17.1f} ms{much.busy * 1000:>9.1f} ms{much.queries:>16}{mark}")


def _baseline(client: Any, page: str) -> dict[str, Taken]:
    """A small instance, filled and measured."""
    from queues.services.defaults import create_defaults
    from quotas.models import Project

    create_defaults()
    projects = [Project.objects.create(slug=slug) for slug in ("acme", "globex")]
    _configure(10, 4)
    _fill(1_000, projects)
    return _times(client, page)


def _configure(policies: int, accounts: int) -> None:
    """So many policies and accounts in all; a policy in ten is used."""
    from quotas.models import Account, Policy, Pool, Provider
    from quotas.services.limits import Check, check
    from quotas.snapshot import resolve

    provider, _ = Provider.objects.get_or_create(name="sim", dialect="openai", base_url="http://127.0.0.1:9100")
    for number in range(Policy.objects.count(), policies):
        Policy.objects.create(
            name=f"policy-{number}", scope="user" if number % 10 == 0 else "custom", key_name=f"key{number}",
            algorithm="sliding_window", limit=1000, window=3600,
        )  # fmt: skip
    for number in range(Account.objects.count(), accounts):
        pool, _ = Pool.objects.get_or_create(name=f"pool-{number // 20}", provider=provider)
        Account.objects.create(pool=pool, name=f"a{number}", credential=f"sk-{number}", last_error="503 overloaded")
    resolve.clear()
    for user in range(20):
        check(Check(project="acme", user=f"u-{user}"), actor="bench")


def _fill(count: int, projects: list[Any]) -> None:
    """Jobs of the last week: one of ten is dead, with its dead letter, one of twenty is pending, the others completed."""
    from django.utils import timezone

    from queues.models import DeadLetter, Job, Queue
    from queues.states import Stage, Status

    now = timezone.now()
    queues = list(Queue.objects.order_by("pk"))
    payload = {"pool": "pool-0", "method": "POST", "path": "/v1/chat/completions", "json": {"messages": ["x" * 300]}}
    Job.objects.bulk_create(
        Job(
            project=projects[number % 2], queue=queues[number % len(queues)], type="http.request", user=f"u-{number % 50}",
            payload=payload, created_at=ended, error="503 overloaded" if number % 10 == 0 else "",
            **(
                {"stage": Stage.READY, "status": Status.PENDING}
                if number % 20 == 7
                else {
                    "stage": Stage.DONE, "finished_at": ended, "started_at": ended, "first_started_at": ended,
                    "status": Status.DEAD if number % 10 == 0 else Status.COMPLETED,
                }
            ),
        )
        for number in range(count)
        for ended in [now - timedelta(seconds=604_800 * (count - number) / count)]
    )  # fmt: skip
    DeadLetter.objects.bulk_create(
        DeadLetter(
            job=job, project_id=job.project_id, queue_id=job.queue_id, type=job.type, severity="warning",
            category="server" if number % 3 else "code", fingerprint=f"{number % 40:032}", error=job.error,
            created_at=job.finished_at,
        )
        for number, job in enumerate(Job.objects.filter(status=Status.DEAD).order_by("pk"))
    )  # fmt: skip


def _double(rows: int) -> None:
    """Copy the jobs and their letters inside the database until there are `rows` jobs, without indexes meanwhile."""
    from django.db import connection

    from queues.models import DeadLetter, Job

    with connection.cursor() as cursor, _unindexed(cursor, Job.objects.count() < rows):
        for statement in FASTER[connection.vendor]:
            cursor.execute(statement)
        while (count := Job.objects.count()) < rows:
            last = Job.objects.order_by("-pk").values_list("pk", flat=True)[0]
            letter = DeadLetter.objects.order_by("-pk").values_list("pk", flat=True)[0]
            most = rows - count
            shift = last - Job.objects.order_by("pk").values_list("pk", flat=True)[0] + 1
            cursor.execute(_copy(Job, {"uid": _uid(shift)}, f"ORDER BY id LIMIT {most}"))
            first = Job.objects.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[0]
            oldest = Job.objects.order_by("pk").values_list("pk", flat=True)[0]
            shift = first - oldest
            cursor.execute(
                _copy(
                    DeadLetter,
                    {"job_id": f"job_id + {shift}", "uid": _uid(letter)},
                    f"WHERE id <= {letter} AND job_id + {shift} IN (SELECT id FROM queues_job)",  # noqa: S608 - no value from outside
                )
            )
    connection.close()
    with connection.cursor() as cursor:
        # An instance's own autovacuum has done it by then.
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


@contextmanager
def _unindexed(cursor: Any, drop: bool) -> Iterator[None]:
    """Without the indexes of jobs and letters that no constraint needs; they are made anew at the end."""
    from django.db import connection

    found = []
    if drop:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('queues_job', 'queues_deadletter')"
            " AND indexdef NOT LIKE 'CREATE UNIQUE%'"
            if connection.vendor == "postgresql"
            else "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT LIKE 'CREATE UNIQUE%'"
            " AND tbl_name IN ('queues_job', 'queues_deadletter')"
        )
        found = cursor.fetchall()
    for name, _ in found:
        cursor.execute(f'DROP INDEX "{name}"')
    yield
    for _, definition in found:
        cursor.execute(definition)


def _uid(shift: int) -> str:
    """The id of the copy of a row. Ids grow with time, as real ones do."""
    from django.db import connection

    if connection.vendor == "postgresql":
        return f"'0bench' || lpad((id + {shift})::text, 20, '0')"
    return f"printf('0bench%020d', id + {shift})"


def _copy(model: Any, changed: dict[str, str], which: str) -> str:

    table = model._meta.db_table
    columns = [field.column for field in model._meta.concrete_fields if field.column != "id"]
    values = {**{column: f'"{column}"' for column in columns}, **changed}
    names = ", ".join(f'"{column}"' for column in columns)
    return (
        f"INSERT INTO {table} ({names}) SELECT {', '.join(values[column] for column in columns)} FROM {table} {which}"  # noqa: S608 - no value from outside
    )


def addresses() -> Iterator[tuple[str, str]]:
    """Names and addresses of the pages, with the newest row of each model."""
    from queues.models import DeadLetter, Job, Queue
    from quotas.models import Account, Policy, Pool, Project

    rows = {
        "project": Project, "queue": Queue, "job": Job, "letter": DeadLetter, "policy": Policy, "account": Account,
        "pool": Pool,
    }  # fmt: skip
    keys = {name: model.objects.order_by("-pk").values_list("pk", flat=True)[0] for name, model in rows.items()}
    yield from ((name, path.format(**keys)) for name, path in PAGES.items())


def _times(client: Any, page: str) -> dict[str, Taken]:
    from django.db import connection

    from controlplane.admin.dashboard import forget

    found = {}
    for name, path in addresses():
        if page not in name:
            continue
        forget()
        queries: list[str] = []

        def count(execute: Any, sql: str, *rest: Any, queries: list[str] = queries) -> Any:
            queries.append(sql)
            return execute(sql, *rest)

        with connection.execute_wrapper(count):
            answer = client.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        taken = []
        for _ in range(TIMES):
            forget()
            began = time.perf_counter(), time.process_time()
            client.get(path)
            taken.append((time.perf_counter() - began[0], time.process_time() - began[1]))
        wall, busy = (statistics.median(times) for times in zip(*taken, strict=True))
        found[name] = Taken(wall, busy, len(queries))
    return found


if __name__ == "__main__":
    main()
