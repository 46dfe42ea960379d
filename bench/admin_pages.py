"""How long the admin's job list, its filters and the dashboard's panels take with many finished jobs.

    python -m bench.admin_pages [--rows 1000000]

The baseline is the same instance with 1,000 finished jobs, measured in the same run. SQLite in a temporary directory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from datetime import timedelta
from typing import Any

PAGES = {
    "job list": "/admin/queues/job/",
    "job list, page 20": "/admin/queues/job/?p=20",
    "status completed": "/admin/queues/job/?status__exact=completed",
    "status dead": "/admin/queues/job/?status__exact=dead",
    "one project": "/admin/queues/job/?project__id__exact=2",
    "one queue": "/admin/queues/job/?queue__id__exact=3",
    "dead letters": "/admin/queues/deadletter/",
    "dashboard: pulse": "/admin/live/pulse",
    "dashboard: throughput": "/admin/live/throughput",
    "dashboard: queues": "/admin/live/queues",
    "dashboard: letters": "/admin/live/letters",
    "metrics": "/metrics",
}
TIMES = 5


def main() -> None:
    """Fill, measure, fill more, measure, print both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    directory = tempfile.mkdtemp(prefix="sluice-bench-")
    os.environ["SLUICE_DATA_DIR"] = directory
    os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
    os.environ["SLUICE_LOG_LEVEL"] = "ERROR"
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    from tests.support.valkey import run_server, valkey_binary

    try:
        with run_server(valkey_binary()) as server:
            os.environ["REDIS_URL"] = server.unix_url
            _measure(rows)
    finally:
        shutil.rmtree(directory)


def _measure(rows: int) -> None:
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.test import Client

    from queues.services.defaults import create_defaults
    from quotas.models import Project

    call_command("migrate", verbosity=0)
    create_defaults()
    projects = [Project.objects.create(slug=slug) for slug in ("acme", "globex")]
    client = Client(headers={"host": "localhost"})
    client.force_login(User.objects.create_superuser("root"))
    _fill(1_000, projects)
    few = _times(client)
    _fill(rows - 1_000, projects)
    many = _times(client)
    print(f"{'page':26}{'1,000 rows':>14}{f'{rows:,} rows':>18}{'ratio':>8}")
    for name in PAGES:
        print(f"{name:26}{few[name] * 1000:>11.1f} ms{many[name] * 1000:>15.1f} ms{many[name] / few[name]:>8.2f}")


def _fill(count: int, projects: list[Any]) -> None:
    """Finished jobs over the last week, one of a hundred dead; some that wait."""
    from django.utils import timezone

    from queues.models import Job, Queue
    from queues.states import Stage, Status

    now = timezone.now()
    queues = list(Queue.objects.order_by("pk"))
    payload = {"pool": "llm", "method": "POST", "path": "/v1/chat/completions", "json": {"messages": ["x" * 300]}}
    for begin in range(0, count, 10_000):
        made = []
        for number in range(begin, min(begin + 10_000, count)):
            ended = now - timedelta(seconds=604_800 * (count - number) / count)
            made.append(
                Job(
                    project=projects[number % 2], queue=queues[number % len(queues)], type="http.request",
                    payload=payload, stage=Stage.DONE, created_at=ended, started_at=ended, first_started_at=ended,
                    finished_at=ended, status=Status.DEAD if number % 100 == 0 else Status.COMPLETED,
                )
            )  # fmt: skip
        Job.objects.bulk_create(made, batch_size=1_000)


def _times(client: Any) -> dict[str, float]:
    from controlplane.admin.dashboard import forget

    found = {}
    for name, path in PAGES.items():
        assert client.get(path).status_code == 200, path
        taken = []
        for _ in range(TIMES):
            forget()
            began = time.perf_counter()
            client.get(path)
            taken.append(time.perf_counter() - began)
        found[name] = statistics.median(taken)
    return found


if __name__ == "__main__":
    main()
