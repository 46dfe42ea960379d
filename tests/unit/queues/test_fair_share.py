"""Whose turn it is: priorities, weights, projects that come back, ageing."""

from __future__ import annotations

from collections import Counter, deque
from datetime import UTC, datetime, timedelta
from itertools import count, islice

import pytest

from queues.config import ProjectSpec
from queues.dispatcher.candidates import Candidate, GroupCursor
from queues.fair_share import AGEING_AFTER, AGEING_SHARE, FairShare

NOW = datetime(2030, 1, 1, tzinfo=UTC)
_ids = count(1)


def candidate(project: int, priority: int = 5, age: float = 0.0, ordering_key: str = "", **fields: int) -> Candidate:
    number = fields.get("id") or next(_ids)
    return Candidate(
        id=number, uid=str(number), queue_id=1, priority=priority, project_id=project, pool="", ordering_key=ordering_key, user="",
        keys={}, cost={}, delivery=0, suspect=False, created_at=NOW - timedelta(seconds=age), status="pending", timeout=None,
    )  # fmt: skip


def group(*candidates: Candidate) -> GroupCursor:
    made = GroupCursor(candidates[0].group)
    made.rows = deque(candidates)
    made._exhausted = True  # nothing more is in SQL
    return made


def projects(**weights: int) -> dict[int, ProjectSpec]:
    return {int(name[1:]): ProjectSpec(int(name[1:]), name, weight) for name, weight in weights.items()}


def draw(share: FairShare, groups: list[GroupCursor], known: dict[int, ProjectSpec], number: int) -> list[Candidate]:
    """Draw so many and start them all."""
    drawn = [item for _, item in islice(share.order(groups, set(), known, NOW), number)]
    for item in drawn:
        share.confirm(item)
    return drawn


def start_one(share: FairShare, groups: list[GroupCursor], known: dict[int, ProjectSpec]) -> Candidate:
    """A round as the dispatcher has it with one slot: what is drawn behind the first one finds none."""
    started: Candidate | None = None
    back: list[tuple[GroupCursor, Candidate]] = []
    for group in groups:
        group.blocked_until = 0.0
    for group, item in share.order(groups, set(), known, NOW):
        if started is None:
            started = item
            continue
        share.refund(item, known)
        back.append((group, item))
        group.blocked_until = 1.0
    for group, item in back:
        group.return_unused([item])
    assert started is not None
    share.confirm(started)
    return started


@pytest.mark.parametrize(("weight", "other"), [(3, 1), (1, 1), (10, 1), (2, 3)])
def test_starts_follow_the_weights(weight: int, other: int) -> None:
    share = FairShare()
    groups = [group(*(candidate(1) for _ in range(600))), group(*(candidate(2) for _ in range(600)))]
    drawn = Counter(item.project_id for item in draw(share, groups, projects(p1=weight, p2=other), 400))
    wanted = 400 * weight / (weight + other)
    assert wanted * 0.9 <= drawn[1] <= wanted * 1.1


def test_weights_hold_over_many_small_rounds() -> None:
    """A dispatcher draws a few at a time: the share is kept between its rounds."""
    share = FairShare()
    groups = [group(*(candidate(1) for _ in range(600))), group(*(candidate(2) for _ in range(600)))]
    drawn: Counter[int] = Counter()
    for _ in range(200):
        drawn.update(item.project_id for item in draw(share, groups, projects(p1=3, p2=1), 2))
    assert 270 <= drawn[1] <= 330


def test_first_come_first_served_inside_a_project() -> None:
    share = FairShare()
    drawn = draw(share, [group(*(candidate(1) for _ in range(50)))], projects(p1=1), 50)
    assert [item.id for item in drawn] == sorted(item.id for item in drawn)


def test_priority_goes_before_share() -> None:
    share = FairShare()
    low = group(*(candidate(2, priority=8) for _ in range(100)))
    high = group(*(candidate(1, priority=1) for _ in range(15)))
    drawn = draw(share, [low, high], projects(p1=1, p2=100), 20)
    assert [item.priority for item in drawn] == [1] * 15 + [8] * 5


def test_a_project_that_comes_back_neither_waits_nor_claims_what_it_missed() -> None:
    share = FairShare()
    known = projects(p1=1, p2=1)
    first = group(*(candidate(1) for _ in range(500)))
    draw(share, [first], known, 300)
    second = group(*(candidate(2) for _ in range(500)))
    drawn = Counter(item.project_id for item in draw(share, [first, second], known, 100))
    assert 45 <= drawn[2] <= 55, "it takes its half from now on, not the 300 that it missed"
    alone = FairShare()
    draw(alone, [group(*(candidate(1) for _ in range(300)))], known, 300)
    fresh = draw(alone, [group(candidate(1)), group(candidate(2))], known, 2)
    assert fresh[0].project_id == 2 or fresh[1].project_id == 2


def test_a_refund_gives_the_turn_back() -> None:
    """Half of what project 2 draws is denied: it still gets as many starts as project 1, not half as many."""
    share, known = FairShare(), projects(p1=1, p2=1)
    ones = group(*(candidate(1) for _ in range(300)))
    twos = group(*(candidate(2) for _ in range(300)))
    started: Counter[int] = Counter()
    denied = 0
    while started.total() < 100:
        _, item = next(share.order([ones, twos], set(), known, NOW))
        if item.project_id == 2 and denied <= started[2]:
            denied += 1
            share.refund(item, known)
        else:
            share.confirm(item)
            started[item.project_id] += 1
    assert abs(started[1] - started[2]) <= 2


@pytest.mark.parametrize(("weight", "other"), [(3, 1), (1, 1), (2, 3)])
def test_weights_hold_where_there_is_one_place(weight: int, other: int) -> None:
    """A project that finds no slot keeps its share."""
    share, known = FairShare(), projects(p1=weight, p2=other)
    groups = [group(*(candidate(1) for _ in range(300))), group(*(candidate(2) for _ in range(300)))]
    started = Counter(start_one(share, groups, known).project_id for _ in range(100))
    wanted = 100 * weight / (weight + other)
    assert abs(started[1] - wanted) <= 2


def test_ageing_counts_starts_and_not_draws() -> None:
    share = FairShare()
    old = [candidate(2, priority=9, age=AGEING_AFTER.total_seconds() + 1, id=number) for number in range(-150, -100)]
    high = group(*(candidate(1, priority=0) for _ in range(1000)))
    started = Counter(start_one(share, [high, group(*old)], projects(p1=1, p2=1)).priority for _ in range(200))
    assert 8 <= started[9] <= 11


def test_what_waits_too_long_gets_one_start_in_so_many() -> None:
    share = FairShare()
    old = [candidate(2, priority=9, age=AGEING_AFTER.total_seconds() + 1, id=number) for number in range(-50, 0)]
    high = group(*(candidate(1, priority=0) for _ in range(1000)))
    drawn = draw(share, [high, group(*old)], projects(p1=1, p2=1), AGEING_SHARE * 10)
    aged = sum(item.priority == 9 for item in drawn)
    assert 8 <= aged <= 11


def test_what_is_young_does_not_jump_the_queue_by_ageing() -> None:
    share = FairShare()
    young = [candidate(2, priority=9, age=1.0, id=number) for number in range(-50, 0)]
    high = group(*(candidate(1, priority=0) for _ in range(1000)))
    drawn = draw(share, [high, group(*young)], projects(p1=1, p2=1), AGEING_SHARE * 10)
    assert {item.priority for item in drawn} == {0}


def test_an_unknown_project_counts_as_weight_one() -> None:
    drawn = draw(FairShare(), [group(candidate(7), candidate(7))], {}, 2)
    assert len(drawn) == 2


def test_nothing_is_drawn_twice_and_nothing_is_left() -> None:
    share = FairShare()
    groups = [
        group(*(candidate(project, priority=priority) for _ in range(20)))
        for project in range(5)
        for priority in (1, 5, 8)
    ]
    drawn = draw(share, groups, {}, 10_000)
    assert len(drawn) == len({item.id for item in drawn}) == 300
