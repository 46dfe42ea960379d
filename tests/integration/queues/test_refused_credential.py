"""A credential that the provider refuses is its account's trouble: the job goes to another account, if there is one."""

from __future__ import annotations

import pytest

from queues.models import Job
from queues.services import dead_letters
from queues.states import Status
from quotas.events import AccountChanged
from quotas.runtime.connection import accounts
from quotas.snapshot import resolve
from quotas.testing import capture_events
from tests.integration.controlplane.simulator.process import Simulator
from tests.integration.queues.desk import Desk, fresh


def rounds(desk: Desk, count: int) -> None:
    worker = desk.worker()
    for _ in range(count):
        desk.cycle()
        worker.claim()
        worker.run()


def submit(desk: Desk, path: str = "/") -> Job:
    (job,) = desk.submit(type="http.request", queue="batch", payload={"pool": "llm", "path": path})
    return job


def states() -> list[str]:
    resolve.clear()
    return [state.state for state in accounts().states(resolve.pool_spec("llm"))]


def test_the_job_goes_to_another_account_at_no_cost(desk: Desk) -> None:
    with Simulator("--dialect", "generic") as sim:
        sim.faults({"invalid_key": "secret-llm-1"})
        desk.pool("llm", accounts=3, url=sim.base_url)
        job = submit(desk)
        rounds(desk, 2)
        done = fresh(job)
        attempts = list(job.attempts.order_by("number").values_list("outcome", "counted", "category", "account"))
        assert attempts == [("failed", False, "auth", "llm/a1"), ("succeeded", True, "", "llm/a2")]
        assert (done.status, done.attempts_counted) == (Status.COMPLETED, 0)
        assert any("another account will do it" in row.reason for row in job.transitions.all())
        assert states() == ["available"] * 3, "it may have been the request"
        jobs = [submit(desk) for _ in range(3)]
        rounds(desk, 3)
        assert {fresh(one).status for one in jobs} == {Status.COMPLETED}
        assert states() == ["disabled", "available", "available"], "another job was refused, which others did"


@pytest.mark.parametrize("queue", ["smart", "exponential"])
def test_a_job_that_two_accounts_refuse_dies_and_disables_none(desk: Desk, queue: str) -> None:
    with Simulator("--dialect", "generic") as sim:
        sim.faults(*({"invalid_key": f"secret-llm-{number}"} for number in range(1, 25)))
        desk.queue("q", retry={"strategy": queue, "max_attempts": 10})
        desk.pool("llm", accounts=24, url=sim.base_url)
        (job,) = desk.submit(type="http.request", queue="q", payload={"pool": "llm", "path": "/closed"})
        rounds(desk, 3)
        dead = fresh(job)
        assert (dead.status, dead.category, dead.attempts_counted) == (Status.DEAD, "auth", 1)
        accounts_asked = list(job.attempts.order_by("number").values_list("account", "counted"))
        assert [counted for _, counted in accounts_asked] == [False, True]
        assert len({name for name, _ in accounts_asked}) == 2
        assert set(states()) == {"available"}
        more = [
            desk.submit(type="http.request", queue="q", payload={"pool": "llm", "path": "/closed"})[0]
            for _ in range(30)
        ]
        for _ in range(60):  # as many as the machine's speed takes
            rounds(desk, 1)
            if {fresh(one).status for one in more} == {Status.DEAD}:
                break
        assert {fresh(one).status for one in more} == {Status.DEAD}
        assert set(states()) == {"available"}


def test_a_replayed_job_may_be_refused_by_two_accounts_again(desk: Desk) -> None:
    with Simulator("--dialect", "generic") as sim:
        sim.faults(*({"invalid_key": f"secret-llm-{number}"} for number in range(1, 5)))
        desk.pool("llm", accounts=4, url=sim.base_url)
        job = submit(desk, "/closed")
        rounds(desk, 2)
        assert fresh(job).status == Status.DEAD
        dead_letters.replay(job.dead_letters.get().pk, actor="test")
        rounds(desk, 1)
        assert fresh(job).status == Status.PENDING and fresh(job).refused_by is not None


def test_certain_refusals_disable_at_once_with_one_event(desk: Desk) -> None:
    with capture_events(AccountChanged) as changes, Simulator("--dialect", "openai") as sim:
        sim.faults({"invalid_key": "secret-llm-1"})
        pool = desk.pool("llm", accounts=2, url=sim.base_url)
        pool.provider.dialect = "openai"
        pool.provider.save()
        desk.renew_configuration()
        jobs = [submit(desk, "/v1/models") for _ in range(4)]
        rounds(desk, 3)
    assert {fresh(job).status for job in jobs} == {Status.COMPLETED}
    assert states() == ["disabled", "available"]
    assert [(one.account, one.after) for one in changes] == [("a1", "disabled")]


def test_the_only_accounts_refusal_is_the_jobs_end(desk: Desk) -> None:
    with Simulator("--dialect", "generic") as sim:
        sim.faults({"invalid_key": "secret-llm-1"})
        desk.pool("llm", accounts=1, url=sim.base_url)
        job = submit(desk)
        rounds(desk, 1)
        assert (fresh(job).status, fresh(job).category, fresh(job).attempts_counted) == (Status.DEAD, "auth", 1)
        assert states() == ["available"]
        submit(desk)
        rounds(desk, 1)
        assert states() == ["disabled"]


def test_another_pool_that_it_falls_back_to_will_do(desk: Desk) -> None:
    with Simulator("--dialect", "generic") as sim:
        sim.faults({"invalid_key": "secret-llm-1"})
        desk.pool("spare", accounts=1, url=sim.base_url)
        desk.pool("llm", accounts=1, url=sim.base_url, fallback=["spare"])
        (job,) = desk.submit(type="http.request", queue="batch", payload={"pool": "llm", "path": "/"})
        rounds(desk, 2)
    assert fresh(job).status == Status.COMPLETED
