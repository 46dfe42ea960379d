"""The simulation against arithmetic that one can do by hand."""

from __future__ import annotations

import pytest

from queues.config import ProjectSpec
from queues.fair_share import AGEING_AFTER
from queues.simulation.counters import Use
from queues.simulation.groups import Running
from queues.simulation.scene import shares
from queues.simulation.waits import Cause
from tests.unit.queues.simulation.scenes import NOW, charge, counter, job, jobs, limit, need, pool, run


def test_a_token_bucket_of_two_a_second_needs_fifty_seconds_for_a_hundred_jobs() -> None:
    found = run(
        jobs(100, charges=(charge("p", 2),)), counters={"p": counter(Use(((NOW + 1, 2),)), limit=2, window=1.0)}
    )
    assert found.done_at == pytest.approx(50.0)
    assert found.starts_at == pytest.approx(0.5), "the bucket is empty at the beginning"
    assert dict(shares(found)) == {Cause("policy", "p"): pytest.approx(1.0)}


def test_workers_bound_what_no_limit_bounds() -> None:
    found = run(jobs(100, seconds=2.0), slots=10)
    assert found.done_at == pytest.approx(20.0) and found.starts_at == 0.0
    assert dict(shares(found)) == {Cause("workers", "io"): pytest.approx(1.0)}


def test_the_concurrency_of_a_queue_bounds_its_jobs_alone() -> None:
    mine, others = jobs(20, seconds=1.0), jobs(20, seconds=1.0, queue=2, counts=False)
    found = run([*others, *mine], concurrency={1: ("q", 2), 2: ("other", None)})
    assert found.done_at == pytest.approx(10.0)
    assert dict(shares(found)) == {Cause("queue", "q"): pytest.approx(1.0)}


def test_a_concurrency_limit_is_freed_by_ends() -> None:
    found = run(
        jobs(30, seconds=2.0, charges=(charge("p", 3),)), counters={"p": counter(algorithm="concurrency", limit=3)}
    )
    assert found.done_at == pytest.approx(20.0)
    assert dict(shares(found)) == {Cause("policy", "p"): pytest.approx(1.0)}


def test_two_users_under_a_limit_of_users_do_not_wait_for_each_other() -> None:
    waiting = []
    for _ in range(10):
        waiting.append(job(ordering_key="u1", charges=(charge("u1", 1),)))
    waiting.append(job(ordering_key="u2", charges=(charge("u2", 1),)))
    counters = {name: counter(algorithm="fixed_window", limit=1, window=60.0) for name in ("u1", "u2")}
    for one in waiting[:10]:
        one.counts = False
    assert run(waiting, counters=counters).done_at == 0.0, "the second user's one job starts at once"
    for one in waiting:
        one.counts = not one.counts
    counters = {name: counter(algorithm="fixed_window", limit=1, window=60.0) for name in ("u1", "u2")}
    assert run(waiting, counters=counters).done_at == pytest.approx(9 * 60.0)


def test_a_calendar_day_ends_at_midnight_of_its_time_zone() -> None:
    """START is midnight UTC: in Berlin that is one o'clock, so that the day ends in 23 hours."""
    day = {"algorithm": "calendar", "limit": 10, "window": 0.0, "period": "day", "timezone": "Europe/Berlin"}
    found = run(jobs(25, charges=(charge("p", 10),)), counters={"p": counter(**day)})
    assert found.done_at == pytest.approx((23 + 24) * 3600.0)


def test_a_cost_of_several_units_takes_as_many() -> None:
    window = {"algorithm": "fixed_window", "limit": 10, "window": 60.0}
    found = run(jobs(6, charges=(charge("p", 10, units=4),)), counters={"p": counter(**window)})
    assert found.done_at == pytest.approx(120.0), "two jobs of 4 units in each window of 10"


def test_a_job_that_costs_more_than_the_whole_limit_ends_at_once_as_the_dispatcher_gives_it_up() -> None:
    found = run(jobs(1, seconds=9.0, charges=(charge("p", 10, units=11),)), counters={"p": counter(limit=10)})
    assert found.done_at == 0.0


def test_a_limit_of_zero_never_admits() -> None:
    found = run(jobs(3, charges=(charge("p", 0),)), counters={"p": counter(limit=0)})
    assert found.done_at is None and found.starts_at is None
    assert list(shares(found)) == [(Cause("policy", "p"), 1.0)]


def test_accounts_multiply_the_limit_of_one() -> None:
    per_account = limit("fixed_window", 10, 60.0)
    for accounts, ends in ((1, 9 * 60.0), (2, 4 * 60.0), (5, 60.0)):
        waiting = jobs(100, pool="llm", need=need())
        found = run(waiting, pools={"llm": pool(accounts, limits=(per_account,))})
        assert found.done_at == pytest.approx(ends), accounts
        assert dict(shares(found)) == {Cause("pool", "llm"): pytest.approx(1.0)}


def test_an_account_takes_so_many_calls_at_once() -> None:
    found = run(jobs(40, seconds=1.0, need=need()), pools={"llm": pool(2, most=2)})
    assert found.done_at == pytest.approx(10.0)


def test_a_cooldown_is_waited_for() -> None:
    found = run(jobs(3, seconds=1.0, need=need()), pools={"llm": pool(free_from=NOW + 30)})
    assert (found.starts_at, found.done_at) == (pytest.approx(30.0), pytest.approx(31.0))


def test_a_pool_without_an_account_never_ends() -> None:
    found = run(jobs(3, need=need()), pools={"llm": pool(0)})
    assert found.done_at is None
    assert list(shares(found)) == [(Cause("pool", "llm"), 1.0)]


def test_a_pool_keeps_the_rest_of_its_quota_for_higher_priorities() -> None:
    spec = {"limits": (limit("fixed_window", 10, 60.0),), "pause_at": 0.5, "pause": "low"}
    low = run(jobs(10, priority=8, need=need(8)), pools={"llm": pool(**spec)})
    normal = run(jobs(10, need=need(5)), pools={"llm": pool(**spec)})
    assert (low.done_at, normal.done_at) == (pytest.approx(60.0), 0.0)


def test_a_limit_per_chat_bounds_each_chat_by_itself() -> None:
    per_chat = limit("fixed_window", 1, 60.0, scope="custom")
    a, b = need(key="a"), need(key="b")
    waiting = [*jobs(3, ordering_key="a", need=a), *jobs(2, ordering_key="b", need=b)]
    assert run(waiting, pools={"llm": pool(limits=(per_chat,))}).done_at == pytest.approx(120.0)


def test_higher_priorities_start_first() -> None:
    first = jobs(10, seconds=1.0, priority=1, counts=False)
    mine = jobs(1, seconds=1.0, priority=5)
    assert run([*mine, *first], slots=1).done_at == pytest.approx(11.0)
    mine[0].counts, first[-1].counts = False, True
    assert run([*mine, *first], slots=1).done_at == pytest.approx(10.0)


def test_projects_share_by_weight() -> None:
    mine, others = jobs(10, seconds=1.0, project=1), jobs(100, seconds=1.0, project=2, counts=False)
    weights = {1: ProjectSpec(1, "a", 1), 2: ProjectSpec(2, "b", 3)}
    found = run([*others, *mine], slots=1, projects=weights)
    assert found.done_at == pytest.approx(40.0, abs=4.0), "one start in four"


def test_the_oldest_job_is_not_starved_by_higher_priorities() -> None:
    old = job(seconds=1.0, priority=9, age=AGEING_AFTER.total_seconds() + 1)
    others = jobs(200, seconds=1.0, priority=1, counts=False)
    found = run([old, *others], slots=1)
    assert found.done_at is not None and found.done_at < 30.0


def test_a_running_job_occupies_its_slot_until_it_ends() -> None:
    running = [Running(job(counts=False), NOW + 7.0)]
    found = run(jobs(1, seconds=1.0), slots=1, running=running)
    assert (found.starts_at, found.done_at) == (pytest.approx(7.0), pytest.approx(8.0))


def test_what_runs_still_has_to_end() -> None:
    """All have started, and one of them takes long: nothing waits, and something is still left."""
    running = [Running(job(), NOW + 40.0), Running(job(), NOW + 1.0)]
    found = run([], running=running)
    assert found.done_at == pytest.approx(40.0) and found.starts_at is None
    assert list(shares(found)) == []


def test_a_scheduled_job_waits_for_its_time() -> None:
    found = run([job(seconds=1.0, ready_at=NOW + 30)])
    assert (found.starts_at, found.done_at) == (pytest.approx(30.0), pytest.approx(31.0))
    assert list(shares(found)) == [(Cause("schedule"), pytest.approx(1.0))]


def test_a_dependent_job_starts_when_the_last_one_before_it_has_ended() -> None:
    first, second = job(seconds=3.0), job(seconds=5.0)
    last = job(seconds=1.0, after=(first.id, second.id))
    found = run([first, second, last])
    assert found.done_at == pytest.approx(6.0)


def test_waits_that_follow_each_other_add_up() -> None:
    """A job that waits for its time, then for an account."""
    found = run(
        [job(ready_at=NOW + 10, need=need(), seconds=1.0)],
        pools={"llm": pool(free_from=NOW + 30)},
    )
    assert found.done_at == pytest.approx(31.0)
    assert dict(shares(found)) == {Cause("schedule"): pytest.approx(1 / 3), Cause("pool", "llm"): pytest.approx(2 / 3)}


def test_a_paused_queue_has_no_end_in_sight_but_others_have() -> None:
    stopped = jobs(5, stopped=Cause("paused", "q"))
    found = run([*stopped, *jobs(5, queue=2)])
    assert found.done_at is None and found.starts_at == 0.0
    assert list(shares(found)) == [(Cause("paused", "q"), 1.0)]


def test_without_a_worker_there_is_no_end_in_sight() -> None:
    found = run(jobs(5), slots=0)
    assert found.done_at is None and list(shares(found)) == [(Cause("workers", "io"), 1.0)]


@pytest.mark.parametrize("size", [1, 10, 100])
@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 20, "window": 1.0},
        {"algorithm": "fixed_window", "limit": 7, "window": 10.0},
        {"algorithm": "sliding_window", "limit": 50, "window": 60.0},
        {"algorithm": "calendar", "limit": 500, "window": 0.0, "period": "day"},
    ],
)
def test_equal_jobs_simulated_as_one_take_as_long_as_one_by_one(fields: dict[str, object], size: int) -> None:
    capacity = float(fields["limit"])  # type: ignore[arg-type]
    exact = run(jobs(1000, charges=(charge("p", capacity),)), counters={"p": counter(**fields)})
    found = run(jobs(1000 // size, size=size, charges=(charge("p", capacity),)), counters={"p": counter(**fields)})
    assert exact.done_at is not None and found.done_at == pytest.approx(exact.done_at, rel=0.06)


def test_many_are_simulated_as_one_under_workers_and_accounts_as_well() -> None:
    exact = run(jobs(1000, seconds=0.5), slots=10)
    found = run(jobs(100, seconds=0.5, size=10), slots=10)
    assert found.done_at == pytest.approx(exact.done_at)
    per_account = limit("sliding_window", 10, 60.0)
    one_by_one = run(jobs(1000, need=need()), pools={"llm": pool(4, limits=(per_account,))})
    together = run(jobs(50, size=20, need=need()), pools={"llm": pool(4, limits=(per_account,))})
    assert one_by_one.done_at is not None
    assert together.done_at == pytest.approx(one_by_one.done_at, rel=0.1)
