"""Recurring jobs: once per tick, in their own time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controlplane import config
from queues.models import Job, Recurring
from queues.services.defaults import create_defaults
from queues.services.recurring import is_cron, next_tick, submit_due
from queues.tasks import task
from quotas.models import Project

pytestmark = pytest.mark.django_db(transaction=True)


@task(name="tests.recurring.report", queue="batch")
def report(job: object, document_id: int) -> None:
    """Does nothing."""


@pytest.fixture
def nightly() -> Recurring:
    create_defaults()
    project = Project.objects.create(slug="acme")
    return Recurring.objects.create(
        name="nightly", cron="0 3 * * *", timezone="Europe/Berlin", type="tests.recurring.report", project=project,
        payload={"document_id": 7},
    )  # fmt: skip


def test_a_tick_is_submitted_once_whatever_the_number_of_leaders(nightly: Recurring) -> None:
    now = datetime(2030, 1, 10, 12, tzinfo=UTC)
    assert submit_due(now) == 0, "the first look only plans"
    nightly.refresh_from_db()
    assert nightly.next_at == datetime(2030, 1, 11, 2, tzinfo=UTC)

    due = nightly.next_at + timedelta(seconds=1)
    assert submit_due(due) == 1
    assert submit_due(due) == 0
    # A leader that was cut off and believes that the tick is still due.
    Recurring.objects.update(next_at=nightly.next_at)
    submit_due(due)
    assert Job.objects.filter(type="tests.recurring.report").count() == 1
    assert Job.objects.get().payload == {"document_id": 7}


def test_missed_ticks_are_made_up_for_once(nightly: Recurring) -> None:
    start = datetime(2030, 1, 10, 12, tzinfo=UTC)
    submit_due(start)
    assert submit_due(start + timedelta(days=5)) == 1
    nightly.refresh_from_db()
    assert nightly.next_at is not None
    assert nightly.next_at > start + timedelta(days=5)
    assert Job.objects.count() == 1


def test_ticks_while_it_was_disabled_are_not_made_up_for(nightly: Recurring) -> None:
    """celery/django-celery-beat#383, #510, #537: a task that is enabled again runs at once, whatever its schedule says."""
    start = datetime(2030, 1, 10, 12, tzinfo=UTC)
    submit_due(start)
    Recurring.objects.update(enabled=False)
    assert submit_due(start + timedelta(hours=1)) == 0
    Recurring.objects.update(enabled=True)
    assert submit_due(start + timedelta(days=5)) == 0
    nightly.refresh_from_db()
    assert nightly.next_at == datetime(2030, 1, 16, 2, tzinfo=UTC)
    assert submit_due(nightly.next_at) == 1


@pytest.mark.parametrize(("change", "submitted"), [("priority: 8", 1), ('cron: "30 3 * * *"', 0)])
def test_a_change_loses_no_due_tick_but_of_another_schedule(nightly: Recurring, change: str, submitted: int) -> None:
    def apply(line: str) -> None:
        given = "version: 1\nrecurring: [{name: nightly, type: tests.recurring.report, project: acme, timezone: Europe/Berlin, payload: {document_id: 7}"
        schedule = "" if line.startswith("cron") else ', cron: "0 3 * * *"'
        config.apply(f"{given}{schedule}, {line}}}]", actor="user:root")

    apply("priority: 5")
    now = datetime.now(UTC)
    submit_due(now)
    Recurring.objects.update(next_at=now)  # it is due, and the dispatcher has not looked yet
    apply(change)
    assert submit_due(now) == submitted


def test_a_refused_tick_says_why_and_the_next_one_comes(nightly: Recurring) -> None:
    Recurring.objects.update(payload={"document_id": "seven"})
    start = datetime(2030, 1, 10, 12, tzinfo=UTC)
    submit_due(start)
    assert submit_due(start + timedelta(days=1)) == 0
    nightly.refresh_from_db()
    assert "document_id" in nightly.last_error
    assert Job.objects.count() == 0

    Recurring.objects.update(payload={"document_id": 8})
    assert submit_due(start + timedelta(days=2)) == 1


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        # Clocks go forward on 31 March 2030: 03:00 local is 01:00 UTC from then on.
        (datetime(2030, 3, 30, 12, tzinfo=UTC), datetime(2030, 3, 31, 1, tzinfo=UTC)),
        (datetime(2030, 3, 29, 12, tzinfo=UTC), datetime(2030, 3, 30, 2, tzinfo=UTC)),
        # Back on 27 October.
        (datetime(2030, 10, 26, 12, tzinfo=UTC), datetime(2030, 10, 27, 2, tzinfo=UTC)),
    ],
)
def test_ticks_follow_their_time_zone(after: datetime, expected: datetime) -> None:
    assert next_tick("0 3 * * *", "Europe/Berlin", after) == expected


def test_a_named_hour_comes_once_where_clocks_go_back() -> None:
    times = [datetime(2030, 10, 25, 12, tzinfo=UTC)]
    for _ in range(3):
        times.append(next_tick("30 2 * * *", "Europe/Berlin", times[-1]))
    assert [moment.isoformat()[5:16] for moment in times[1:]] == ["10-26T00:30", "10-27T00:30", "10-28T01:30"]
    begun_in_between = datetime(2030, 10, 27, 1, 10, tzinfo=UTC)
    assert next_tick("30 2 * * *", "Europe/Berlin", begun_in_between) == datetime(2030, 10, 28, 1, 30, tzinfo=UTC)
    every_half_hour = [datetime(2030, 10, 26, 23, 40, tzinfo=UTC)]
    for _ in range(4):
        every_half_hour.append(next_tick("*/30 * * * *", "Europe/Berlin", every_half_hour[-1]))
    assert [moment.isoformat()[11:16] for moment in every_half_hour[1:]] == ["00:00", "00:30", "01:00", "01:30"]


def test_a_time_that_never_comes_is_refused_and_stops_no_other(nightly: Recurring) -> None:
    assert not is_cron("0 0 31 2 *")
    assert is_cron("0 0 29 2 *")
    stored_before_that = Recurring.objects.create(
        name="a-never", cron="0 0 31 2 *", type="tests.recurring.report", project=nightly.project, payload={}
    )
    start = datetime(2030, 1, 10, 12, tzinfo=UTC)
    submit_due(start)
    assert submit_due(start + timedelta(days=1)) == 1
    stored_before_that.refresh_from_db()
    assert "names no time" in stored_before_that.last_error
