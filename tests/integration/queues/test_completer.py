"""One delivery that can't be written delays no other."""

from __future__ import annotations

import pytest

from queues import config
from queues.deliveries import Ended
from queues.models import Job, RetryPolicy
from queues.states import Stage, Status
from queues.worker.completer import Completer
from tests.integration.queues.desk import OK, Desk, failed

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_fault_in_one_settle_is_that_ones_alone(desk: Desk) -> None:
    jobs = desk.submit(3)
    worker = desk.worker(places=5)
    desk.cycle()
    claimed = worker.claim()
    # A strategy that no code knows: only the failed delivery needs it.
    RetryPolicy.objects.update(by_category={"server": {"strategy": "prayer"}})
    config.snapshot.clear()
    completer = Completer(worker.report, lambda deliveries: None, lambda: set())

    completer._settle([Ended(claimed[0], OK), Ended(claimed[1], failed("server")), Ended(claimed[2], OK)])

    rows = [Job.objects.get(pk=job.pk) for job in jobs]
    assert [row.status for row in rows] == [Status.COMPLETED, Status.DEAD, Status.COMPLETED]
    assert (rows[1].stage, rows[1].category) == (Stage.DONE, "code")
    assert rows[1].error == "How it ended can't be stored: KeyError: 'prayer'"
