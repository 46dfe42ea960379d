"""The trace points between a submit and the start of its job."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from rq.serializers import JSONSerializer

from queues import broker, connection, hops
from queues.states import Stage
from queues.worker.threaded import ThreadedWorker
from tests.integration.queues.conftest import wait_until
from tests.integration.queues.desk import Desk, fresh
from tests.integration.queues.hands import hands


@pytest.mark.parametrize("coroutine", [False, True], ids=["in a thread", "async"])
def test_a_job_passes_all_of_them_in_order(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, type_of: Any, coroutine: bool
) -> None:
    async def awaited(job: Any) -> None: ...

    type_of("test.plain")(awaited if coroutine else lambda job: None)
    passed: list[str] = []
    leading = threading.Thread(target=desk.dispatcher.run)
    desk.project()
    with hands(desk) as running:
        worker = ThreadedWorker(
            [broker.belt("io")], connection=connection.client(), serializer=JSONSerializer, name=running.worker.name
        )
        worker._threads = running.threads
        leading.start()
        try:
            wait_until(lambda: any(client["cmd"] == "blpop" for client in connection.client().client_list()))
            monkeypatch.setattr(hops, "observer", passed.append)
            (job,) = desk.submit(type="test.plain")
            taken = worker._take(10.0)
            assert taken is not None
            worker.execute_job(*taken)
            wait_until(lambda: fresh(job).stage == Stage.DONE)
            monkeypatch.setattr(hops, "observer", None)
        finally:
            desk.dispatcher.stop()
            leading.join(20)
    first = [name for position, name in enumerate(passed) if name not in passed[:position]]
    assert set(first) == set(hops.POINTS)
    beside = (hops.PUBLISHED, hops.ENQUEUED)  # the next process may be awake before the sender has gone on
    assert [name for name in first if name not in beside] == [name for name in hops.POINTS if name not in beside]
    assert passed.count(hops.STARTED) == passed.count(hops.CLAIMED) == passed.count(hops.RELEASED) == 1
