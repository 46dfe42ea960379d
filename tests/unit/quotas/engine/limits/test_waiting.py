"""The state machine of a check that waits: the steps that it yields, without a server, a thread or a clock."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.keys import Keys
from quotas.engine.limits import wait_steps, waiting
from quotas.engine.limits.wait_queue import Enqueued
from quotas.engine.limits.wait_steps import Reply, Step, Waiter
from quotas.engine.limits.waiting import LocalQueues, Wait
from quotas.engine.types import Decision, Limit

KEYS = Keys()
A = Limit("a", "a", "user", "u", "fixed_window", 1, window=60.0)
B = Limit("b", "b", "user", "u", "fixed_window", 1, window=60.0)
OF_A, OF_B = KEYS.counter(A), KEYS.counter(B)
ALLOWED = Decision(True)
BY_A, BY_B = (Decision(False, retry_after=2.0, binding=name) for name in ("a", "b"))


class Check:
    """One waiting check; the test performs its steps."""

    def __init__(self, queues: LocalQueues, max_wait: float = 10.0) -> None:
        self.time = 0.0
        self.waiter = Waiter(threading.Event())
        wait = Wait(self.waiter, queues, KEYS, lambda: [A, B], max_wait, lambda: self.time)
        self.steps: Generator[Step, Reply, Decision] = wait.steps()
        self.decision: Decision | None = None
        self.step: Step | None = next(self.steps)

    def reply(self, reply: Reply = None) -> Step | None:
        """Answer the step; returns the next one, None at the end."""
        try:
            self.step = self.steps.send(reply)
        except StopIteration as end:
            self.decision, self.step = end.value, None
        return self.step

    def queue_up(self, first: str = "") -> Step | None:
        """Refused by A, it enters the queue of A, of which `first` is the first ticket; by default its own."""
        assert self.step == wait_steps.Occupied([OF_A, OF_B])
        assert self.reply(None) == wait_steps.Ask()
        assert self.reply(BY_A) == wait_steps.Enqueue(OF_A, [self.waiter])
        return self.reply(Enqueued([self.waiter.position or 100], first or self.waiter.ticket))


def test_an_allowed_check_enters_no_queue() -> None:
    queues = LocalQueues()
    check = Check(queues)
    check.reply(None)
    assert check.reply(ALLOWED) is None and check.decision is ALLOWED
    assert queues.count() == 0


@pytest.mark.parametrize(
    "denied",
    [Decision(False, retry_after=None, binding="a"), Decision(False, retry_after=11.0, binding="a"),
     Decision(False, retry_after=1.0, binding="a", impossible=True)],
)  # fmt: skip
def test_where_waiting_cannot_help_the_denial_is_final(denied: Decision) -> None:
    check = Check(LocalQueues())
    check.reply(None)
    assert check.reply(denied) is None and check.decision is denied


def test_the_first_one_sleeps_until_the_named_time_at_most_a_second_and_asks_again() -> None:
    check = Check(LocalQueues())
    assert check.queue_up() == wait_steps.Ask()
    assert check.reply(BY_A) == wait_steps.Sleep(1.0)
    assert check.reply() == wait_steps.Enqueue(OF_A, [check.waiter])
    assert check.reply(Enqueued([100], check.waiter.ticket)) == wait_steps.Ask()
    assert check.reply(Decision(False, retry_after=0.25, binding="a")) == wait_steps.Sleep(0.25)


def test_behind_another_process_it_awaits_its_call() -> None:
    check = Check(LocalQueues())
    assert check.queue_up(first="another") == wait_steps.AwaitCall(1.0)
    assert check.reply() == wait_steps.Enqueue(OF_A, [check.waiter])
    assert check.reply(Enqueued([100], check.waiter.ticket)) == wait_steps.Ask()


def test_behind_a_waiter_of_its_process_it_awaits_its_turn_and_the_first_renews_for_both() -> None:
    queues = LocalQueues()
    first, second = Check(queues), Check(queues)
    assert first.queue_up() == wait_steps.Ask()
    assert second.reply(OF_A) == wait_steps.Ask(dry_run=True)
    assert second.reply(ALLOWED) == wait_steps.Enqueue(OF_A, [second.waiter])
    assert second.reply(Enqueued([200], first.waiter.ticket)) == wait_steps.AwaitTurn(10.0)
    first.reply(BY_A)
    assert first.reply() == wait_steps.Enqueue(OF_A, [first.waiter, second.waiter])
    second.waiter.turn.clear()
    queues.leave(first.waiter)
    assert second.waiter.turn.is_set()


def test_refused_by_another_counter_it_changes_the_queue_and_keeps_its_position() -> None:
    queues = LocalQueues()
    check = Check(queues)
    check.queue_up()
    assert check.reply(BY_B) == wait_steps.Dequeue(OF_A, check.waiter.ticket)
    assert check.reply() == wait_steps.Enqueue(OF_B, [check.waiter])
    assert check.waiter.position == 100
    assert queues.occupied([OF_A]) is None and queues.occupied([OF_B]) == OF_B


def test_whose_time_is_up_asks_once_more() -> None:
    check = Check(LocalQueues())
    check.queue_up(first="another")
    check.time = 10.0
    check.reply()
    assert check.reply(Enqueued([100], "another")) == wait_steps.Ask()
    assert check.reply(BY_A) is None and check.decision is BY_A


def test_without_a_server_each_process_serves_its_own_waiters() -> None:
    check = Check(LocalQueues())
    check.reply(None)
    check.reply(BY_A)
    assert check.reply(None) == wait_steps.Ask()
    assert check.reply(ALLOWED) is None


def test_a_ticket_that_was_renewed_after_its_waiter_left_is_removed() -> None:
    queues = LocalQueues()
    first, second = Check(queues), Check(queues)
    first.queue_up()
    second.reply(OF_A)
    second.reply(ALLOWED)
    second.reply(Enqueued([200], first.waiter.ticket))
    first.reply(BY_A)
    assert first.reply() == wait_steps.Enqueue(OF_A, [first.waiter, second.waiter])
    queues.leave(second.waiter)
    assert first.reply(Enqueued([100, 200], first.waiter.ticket)) == wait_steps.Dequeue(OF_A, second.waiter.ticket)
    assert first.reply() == wait_steps.Ask()


def test_positions_of_the_server_decide_who_is_first() -> None:
    queues = LocalQueues()
    late, early = Waiter(threading.Event()), Waiter(threading.Event())
    queues.enter(OF_A, late)
    queues.enter(OF_A, early)
    assert queues.is_first(late)
    assert queues.enqueued(OF_A, [late, early], Enqueued([2, 1], early.ticket)) == []
    assert queues.is_first(early) and not queues.is_first(late)


def _two(queues: LocalQueues, second_on_server: str = "") -> tuple[Check, Check]:
    """Two waiters of one process in the queue of A; the first one has renewed both tickets."""
    first, second = Check(queues), Check(queues)
    first.queue_up()
    second.reply(OF_A)
    second.reply(ALLOWED)
    second.reply(Enqueued([200], first.waiter.ticket, second.waiter.ticket, 2))
    first.reply(BY_A)
    first.reply()
    first.reply(Enqueued([100, 200], first.waiter.ticket, second_on_server or second.waiter.ticket, 2))
    return first, second


def test_the_next_one_of_the_same_process_asks_at_once_and_renews_meanwhile() -> None:
    queues = LocalQueues()
    first, second = _two(queues)
    first.reply(ALLOWED)
    queues.leave(first.waiter)
    assert second.reply() == wait_steps.AskAndEnqueue(OF_A, [second.waiter])
    enqueued = Enqueued([200], second.waiter.ticket, "another", 2)
    assert second.reply(waiting.Asked(BY_A, enqueued)) == wait_steps.Sleep(1.0)
    assert second.waiter.behind == "another"
    assert second.reply() == wait_steps.Enqueue(OF_A, [second.waiter])


def test_where_a_ticket_of_another_process_is_between_the_next_one_asks_the_queue_first() -> None:
    queues = LocalQueues()
    first, second = _two(queues, "another")
    first.reply(ALLOWED)
    queues.leave(first.waiter)
    assert second.reply() == wait_steps.Enqueue(OF_A, [second.waiter])
    assert second.reply(Enqueued([200], "another", second.waiter.ticket, 2)) == wait_steps.AwaitCall(1.0)


def test_one_that_was_called_asks_again_where_the_server_did_not_answer() -> None:
    queues = LocalQueues()
    first, second = _two(queues)
    first.reply(ALLOWED)
    queues.leave(first.waiter)
    step = second.reply()
    assert step == wait_steps.AskAndEnqueue(OF_A, [second.waiter])
    assert second.steps.throw(LimiterUnavailable("lost")) == wait_steps.Sleep(waiting.SERVER_PAUSE)
    assert second.reply() == step
    assert second.reply(waiting.Asked(ALLOWED, None)) is None and second.decision is ALLOWED


def test_all_tickets_are_renewed_twice_a_second_and_at_once_where_the_server_has_lost_some() -> None:
    queues = LocalQueues()
    first, second = _two(queues)
    both, ticket = [first.waiter, second.waiter], first.waiter.ticket
    short = Decision(False, retry_after=0.1, binding="a")
    for at, count, renewed in (
        (0.0, 2, both[:1]), (0.4, 2, both[:1]), (0.5, 2, both), (0.6, 1, both[:1]), (0.7, 2, both), (0.8, 2, both[:1]),
    ):  # fmt: skip
        first.time = at
        first.reply(short)
        assert first.reply() == wait_steps.Enqueue(OF_A, renewed), at
        positions = [100, 200][: len(renewed)]
        assert first.reply(Enqueued(positions, ticket, second.waiter.ticket, count)) == wait_steps.Ask()
