"""A newcomer's walk: how many files of `queues` one job passes through, and whether each says what it is for."""

from __future__ import annotations

from queues.models import Job
from queues.states import Stage
from tests.integration.queues.conftest import wait_until
from tests.integration.queues.desk import Desk
from tests.integration.queues.hands import hands
from tests.integration.queues.test_rest import api
from tests.tools.walk import Tracer, purpose

MOST = 34
"""Files: adding one more to every job's way needs a reason."""


def test_a_job_passes_through_few_files_and_each_says_what_it_is_for(desk: Desk) -> None:
    desk.project("acme")
    desk.pool("llm")
    client = api("submit", "read")
    body = {"type": "test.echo", "project": "acme", "queue": "batch", "payload": {"x": 1}}
    with Tracer().recording() as tracer, hands(desk) as worker:

        def run_one_job() -> None:
            assert client.post("jobs", body).status_code == 202
            worker.start()
            wait_until(lambda: not Job.objects.exclude(stage=Stage.DONE).exists())

        run_one_job()  # the first one also loads what the process keeps
        tracer.files.clear()
        run_one_job()
        files = list(tracer.files)
    for file in sorted(files):
        print(f"{file}: {purpose(file)}")
    print(len(files), "files")
    assert len(files) <= MOST, files
    assert [file for file in files if not purpose(file).endswith((".", ":"))] == []
