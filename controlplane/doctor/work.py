"""The dispatcher, workers, and API keys."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db import DatabaseError

from controlplane.doctor.finding import Finding, error, ok, warning
from controlplane.health import readiness
from queues import liveness
from queues.models import Job, Queue
from queues.states import Stage
from quotas import clock
from quotas.models import ApiKey

SOON = timedelta(days=7)


def examine() -> Iterator[Finding]:
    if dying := readiness.failing_children():
        remedy = (
            "Read the end of its log: a job, its memory or its disk may be the cause. It is started again for ever."
        )
        yield error("processes", f"{dying}.", remedy)
    try:
        yield from _all()
    except DatabaseError:  # reported under sql already
        return


def _all() -> Iterator[Finding]:
    for check in readiness.check():
        if check.name == "dispatcher":
            yield (
                warning("dispatcher", check.problem, "Run `manage.py dispatch`.")
                if check.problem
                else ok("dispatcher", "leads")
            )
    yield from _workers()
    now = clock.now()
    keys = ApiKey.objects.filter(revoked_at=None)
    if not keys.exists():
        yield warning("API keys", "There is none.", "Run `manage.py apikey create`.")
    expiring = keys.filter(expires_at__gt=now, expires_at__lt=now + SOON).count()
    if expiring:
        yield warning("API keys", f"{expiring} expire within a week.", "Rotate them.")
    else:
        yield ok("API keys", f"{keys.count()} in force")


def _workers() -> Iterator[Finding]:
    fresh = liveness.alive(clock.now())
    lanes = set(fresh.values_list("lane", flat=True))
    for name, stuck in fresh.filter(lost_places__gt=0).values_list("name", "lost_places"):
        yield warning(
            "workers",
            f"{name} has {stuck} stuck threads, takes no more jobs and makes room for another worker.",
            "Look for `worker.thread_stuck` in its log: that job still runs in spite of its timeout or cancel.",
        )
    for lane in ("io", "cpu"):
        waiting = Job.objects.filter(stage=Stage.READY, queue__in=Queue.objects.filter(lane=lane)).exists()
        if lane in lanes:
            yield ok("workers", f"{fresh.filter(lane=lane).count()} on {lane}")
        elif waiting or lane == "io":
            yield warning("workers", f"None on {lane}.", f"Run `manage.py rqworker {lane}`.")
