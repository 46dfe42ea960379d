"""A credential that the provider refuses is its account's trouble: the job goes to another account, if there is one."""

from __future__ import annotations

from queues.states import Status
from tests.integration.queues.desk import Desk, fresh
from tests.integration.simulator.process import Simulator


def rounds(desk: Desk, count: int) -> None:
    worker = desk.worker()
    for _ in range(count):
        desk.cycle()
        worker.claim()
        worker.run()


def test_the_job_goes_to_another_account_at_no_cost(desk: Desk) -> None:
    with Simulator("--dialect", "generic") as sim:
        sim.faults({"invalid_key": "secret-llm-1"}, {"invalid_key": "secret-llm-2"})
        desk.pool("llm", accounts=3, url=sim.base_url)
        (job,) = desk.submit(type="http.request", queue="batch", payload={"pool": "llm", "path": "/"})
        rounds(desk, 3)
    done = fresh(job)
    attempts = list(job.attempts.order_by("number").values_list("outcome", "counted", "category", "account"))
    assert attempts == [
        ("failed", False, "auth", "llm/a1"),
        ("failed", False, "auth", "llm/a2"),
        ("succeeded", True, "", "llm/a3"),
    ]
    assert (done.status, done.attempts_counted) == (Status.COMPLETED, 0)
    assert any("another account will do it" in row.reason for row in job.transitions.all())


def test_the_last_accounts_refusal_is_the_jobs_end(desk: Desk) -> None:
    with Simulator("--dialect", "generic") as sim:
        sim.faults({"invalid_key": "secret-llm-1"}, {"invalid_key": "secret-llm-2"})
        desk.pool("llm", accounts=2, url=sim.base_url)
        (job,) = desk.submit(type="http.request", queue="batch", payload={"pool": "llm", "path": "/"})
        rounds(desk, 2)
    assert (fresh(job).status, fresh(job).category, fresh(job).attempts_counted) == (Status.DEAD, "auth", 1)


def test_another_pool_that_it_falls_back_to_will_do(desk: Desk) -> None:
    with Simulator("--dialect", "generic") as sim:
        sim.faults({"invalid_key": "secret-llm-1"})
        desk.pool("spare", accounts=1, url=sim.base_url)
        desk.pool("llm", accounts=1, url=sim.base_url, fallback=["spare"])
        (job,) = desk.submit(type="http.request", queue="batch", payload={"pool": "llm", "path": "/"})
        rounds(desk, 2)
    assert fresh(job).status == Status.COMPLETED
