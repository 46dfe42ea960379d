"""A newcomer's walk: how many files of `queues` one job passes through, and whether each says what it is for."""

from __future__ import annotations

import time

from queues import settlement
from queues.models import Job
from queues.worker.thread_pool import WATCH_INTERVAL
from tests.integration.queues.conftest import wait_until
from tests.integration.queues.desk import Desk
from tests.integration.queues.hands import hands
from tests.integration.queues.test_rest import api
from tests.tools.walk import Tracer, Walk, purpose

MOST_STATIONS = 23
MOST_FILES = 32
"""With the leaves, and with what a worker does now and then. One more file that every job passes through needs a reason:
`queues/fair_share.py` is apart from the dispatcher since forecasts use the same rule."""


def test_a_job_passes_through_few_files_and_each_says_what_it_is_for(desk: Desk) -> None:
    desk.project("acme")
    desk.pool("llm")
    client = api("submit", "read")
    body = {"type": "test.echo", "project": "acme", "queue": "batch", "payload": {"x": 1}}
    with Tracer().recording() as tracer, hands(desk) as worker:

        def run_one_job() -> None:
            assert client.post("jobs", body).status_code == 202
            worker.start()
            wait_until(lambda: not Job.objects.filter(finished_at=None).exists())  # enters no file of the app

        def idle() -> None:
            desk.maintenance.make_all_due()  # any of it may fall into the recorded job's time
            worker.start()
            settlement.retry_unsettled()
            time.sleep(2 * WATCH_INTERVAL)  # so does the watch of deadlines

        run_one_job()  # the first one also loads what the process keeps
        tracer.steps.clear()
        idle()
        without = list(tracer.steps)
        tracer.steps.clear()
        run_one_job()
        walk = Walk.of(tracer.steps, without)
    for title, files in (("stations", walk.stations), ("leaves", walk.leaves)):
        print(f"{len(files)} {title}:", *(f"  {file}: {purpose(file)}" for file in files), sep="\n")
    print(f"{len(walk.stations) + len(walk.leaves)} files together")
    assert len(walk.stations) <= MOST_STATIONS, walk.stations
    assert len(walk.stations) + len(walk.leaves) <= MOST_FILES, walk.leaves
    assert [file for file in walk.stations + walk.leaves if not purpose(file).endswith((".", ":"))] == []
