"""django-tasks with its database back end: one job at a time in a worker."""

from __future__ import annotations

import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

from bench.durable.job import DATABASE, in_threads, run, steadily_in_threads

_parts = conninfo_to_dict(DATABASE)
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": _parts.get("dbname"),
            "USER": _parts.get("user", ""),
            "PASSWORD": _parts.get("password", ""),
            "HOST": _parts.get("host", ""),
            "PORT": _parts.get("port", ""),
            "CONN_MAX_AGE": None,
        }
    },
    INSTALLED_APPS=["django_tasks", "django_tasks_db"],
    TASKS={"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django_tasks import task  # noqa: E402


@task()
def job(at: float) -> None:
    run(at)


def prepare() -> None:
    call_command("migrate", verbosity=0)


def fill(count: float) -> None:
    in_threads(lambda at: job.enqueue(at), int(count))


def steady(rate: float, seconds: float) -> None:
    steadily_in_threads(lambda at: job.enqueue(at), rate, seconds)


def work() -> None:
    call_command("db_worker", interval=0.05, startup_delay=False, reload=False, verbosity=0)
