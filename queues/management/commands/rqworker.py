"""`rqworker`: runs a worker of one lane."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django_rq.workers import get_worker
from rq.serializers import JSONSerializer

from queues.job_types import http_request
from queues.worker import process_limits
from queues.worker.forking import DEFAULT_PLACES as CPU_PLACES
from queues.worker.threaded import DEFAULT_PLACES
from quotas.runtime.connection import be_patient

LANES = ("io", "cpu")
MAX_CONCURRENCY = 100_000
"""As of SLUICE_CONCURRENCY."""


class Command(BaseCommand):
    help = "Run jobs of one lane: `io` (threads) or `cpu` (a process for each job; also where suspects run)."
    requires_system_checks: list[str] = []
    """They would load every page, of which this process has none."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("lanes", nargs="*", metavar="LANE", help="io (default) or cpu; exactly one")
        parser.add_argument(
            "--concurrency",
            type=int,
            default=None,
            help=f"jobs at once (default: {DEFAULT_PLACES} threads, or {CPU_PLACES} processes on the lane cpu)",
        )
        parser.add_argument("--max-jobs", type=int, default=None, help="end after about so many jobs")
        parser.add_argument("--max-memory", type=float, default=None, help="end above so many MiB; so do forked jobs")
        parser.add_argument("--name", default=None, help="a name of its own; it must be unlike every other worker's")
        parser.add_argument("--burst", action="store_true", help="stop when the belt is empty")

    def handle(self, *args: Any, **options: Any) -> None:
        lanes = options["lanes"] or ["io"]
        if len(lanes) != 1 or lanes[0] not in LANES:
            raise CommandError(f"A worker has exactly one lane, {' or '.join(LANES)}.")
        concurrency = options["concurrency"]
        if concurrency is not None and not 1 <= concurrency <= MAX_CONCURRENCY:
            raise CommandError(f"--concurrency must be from 1 to {MAX_CONCURRENCY:,}.")
        if lanes[0] == "io":
            try:
                process_limits.prepare(concurrency or DEFAULT_PLACES)
            except process_limits.TooFewResources as error:
                raise CommandError(str(error)) from None
            http_request.keep_connections(concurrency or DEFAULT_PLACES)
        be_patient()
        worker: Any = get_worker(lanes[0], name=options["name"], serializer=JSONSerializer)
        worker.places = concurrency or worker.places
        for name in ("jobs", "memory"):
            given = options[f"max_{name}"]
            if given is not None and given < 0:
                raise CommandError(f"--max-{name} can't be negative.")
            setattr(worker.recycling, name, getattr(worker.recycling, name) if given is None else given)
        connections.close_all()
        worker.work(burst=options["burst"], logging_level="WARNING")
