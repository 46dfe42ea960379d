"""The watch: what is so is alerted on although no event came, what is over ends, and nothing flaps."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from controlplane.alerts import records, summaries
from controlplane.alerts.watch import Watch
from controlplane.models import Alert
from queues.models import DeadLetter, Job, Queue
from quotas import clock
from quotas.models import Account, Policy, Pool, Project, ThresholdMark
from tests.integration.controlplane.alerts.conftest import rule

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def calm(settings: Any) -> None:
    settings.ALERT_CALM = 0.0


def put(pool: Pool, name: str, **columns: Any) -> None:
    Account.objects.filter(pool=pool, name=name).update(**columns)


def kinds() -> set[tuple[str, str]]:
    return set(Alert.objects.filter(resolved_at=None).values_list("kind", "subject"))


def test_states_without_an_event_are_seen_and_end_with_the_state(pool: Pool) -> None:
    watch = Watch()
    put(pool, "a1", state="open", until=clock.now() + timedelta(seconds=60))
    put(pool, "a2", state="disabled", why="auth")
    watch.look()
    assert kinds() == {
        ("breaker_opened", "llm/a1"),
        ("account_auth_failed", "llm/a2"),
        ("all_accounts_limited", "llm"),
    }
    put(pool, "a1", state="half_open", until=None)
    watch.look()
    assert ("breaker_opened", "llm/a1") in kinds(), "half-open is not closed"
    put(pool, "a1", state="available")
    watch.look()
    assert kinds() == {("account_auth_failed", "llm/a2")}
    put(pool, "a2", state="available", why="")
    watch.look()
    assert kinds() == set()
    assert all(alert.resolved_by == "" for alert in Alert.objects.all())


def test_an_account_without_money_is_one_alert_until_its_cooldown_is_over(pool: Pool) -> None:
    watch = Watch()
    put(pool, "a1", state="cooling_down", why="rate_limited", until=clock.now() + timedelta(seconds=60))
    watch.look()
    assert kinds() == set(), "a rate limit passes by itself"
    for seconds in (300, 600):
        put(pool, "a1", state="cooling_down", why="quota_exhausted", until=clock.now() + timedelta(seconds=seconds))
        watch.look()
    assert kinds() == {("account_quota_exhausted", "llm/a1")}
    assert Alert.objects.filter(kind="account_quota_exhausted").count() == 1
    put(pool, "a1", until=clock.now() - timedelta(seconds=1))
    watch.look()
    assert kinds() == set()


def test_a_cooldown_that_is_over_is_over_though_the_row_was_not_written_since(pool: Pool) -> None:
    watch = Watch()
    for name in ("a1", "a2"):
        put(pool, name, state="cooling_down", until=clock.now() + timedelta(seconds=60))
    watch.look()
    assert kinds() == {("all_accounts_limited", "llm")}
    put(pool, "a2", until=clock.now() - timedelta(seconds=1))
    watch.look()
    assert kinds() == set()


def test_it_does_not_end_before_it_was_calm_for_a_while(pool: Pool, settings: Any) -> None:
    settings.ALERT_CALM = 3600.0
    watch = Watch()
    put(pool, "a1", state="open")
    watch.look()
    put(pool, "a1", state="available")
    watch.look()
    watch.look()
    assert kinds() == {("breaker_opened", "llm/a1")}
    settings.ALERT_CALM = 0.0
    watch.look()
    assert kinds() == set()


def test_what_an_operator_has_resolved_is_opened_by_something_new_only(pool: Pool) -> None:
    watch = Watch()
    put(pool, "a2", state="disabled", why="auth")
    watch.look()
    records.resolve(Alert.objects.get(), actor="user:eve", reason="known")
    watch.look()
    assert kinds() == set()
    records.report(summaries.auth_failed("llm", "a2"))
    assert kinds() == {("account_auth_failed", "llm/a2")}


def test_a_high_error_rate_is_seen_over_a_minute_and_ends_at_half_of_it(pool: Pool) -> None:
    watch = Watch()
    put(pool, "a1", successes=1000, errors={"server": 500})
    watch.look()
    assert kinds() == set(), "what was before is nothing to go by"
    put(pool, "a1", successes=1010, errors={"server": 506})
    watch.look()
    assert kinds() == set(), "sixteen calls say nothing"
    put(pool, "a1", successes=1010, errors={"server": 506, "timeout": 4, "validation": 900})
    watch.look()
    assert kinds() == {("high_error_rate", "llm")}
    assert "50% of pool llm's calls failed: 10 of 20" in Alert.objects.get().summary
    put(pool, "a1", successes=1055)
    watch.look()
    assert kinds() == {("high_error_rate", "llm")}, "15 % is above half of the bound"
    put(pool, "a1", successes=1500)
    watch.look()
    assert kinds() == set()
    put(pool, "a1", successes=5, errors={})  # Redis lost its memory
    watch.look()
    assert kinds() == set()


def test_thresholds_end_when_their_marks_go() -> None:
    policy = Policy.objects.create(name="day", scope="project", algorithm="calendar", period="day", limit=100)
    mark = ThresholdMark.objects.create(policy=policy, project="acme", key="acme", share=0.8)
    watch = Watch()
    records.report(summaries.threshold("day", "acme", "acme", 0.8, 80, 100))
    watch.look()
    assert kinds() == {("quota_threshold", "day/acme")}
    mark.delete()
    watch.look()
    assert kinds() == set()


@pytest.fixture
def queue(db: None) -> Queue:
    return Queue.objects.create(name="line", max_size=10)


def submit(queue: Queue, count: int, age: float = 0.0, **columns: Any) -> None:
    project, _ = Project.objects.get_or_create(slug="acme")
    at = clock.now() - timedelta(seconds=age)
    Job.objects.bulk_create(
        [Job(project=project, queue=queue, type="t", created_at=at, **columns) for _ in range(count)]
    )


def test_a_queue_that_fills_up_and_one_that_falls_behind(queue: Queue) -> None:
    watch = Watch()
    submit(queue, 7)
    watch.look()
    assert kinds() == set()
    submit(queue, 1)
    watch.look_at_everything()
    assert kinds() == {("queue_backlog", "line")}
    submit(queue, 2)
    watch.look_at_everything()
    assert Alert.objects.get().severity == "critical" and "full" in Alert.objects.get().summary
    Job.objects.all().delete()
    submit(queue, 1, age=700)
    watch.look_at_everything()
    assert kinds() == {("queue_backlog", "line")}
    Job.objects.all().delete()
    submit(queue, 1, age=7000, not_before=clock.now() - timedelta(seconds=1))
    watch.look_at_everything()
    assert kinds() == set(), "it was scheduled for later, and that was a second ago"


def test_a_paused_queue_may_wait(queue: Queue) -> None:
    Queue.objects.update(paused_at=clock.now())
    submit(queue, 1, age=7000)
    Watch().look()
    assert kinds() == set()


def test_critical_letters_end_when_they_are_handled(queue: Queue) -> None:
    submit(queue, 1, stage=5, status="dead")
    job = Job.objects.get()
    letter = DeadLetter.objects.create(
        job=job, project=job.project, queue=queue, type="t", category="code", severity="critical", fingerprint="f",
        created_at=clock.now(),
    )  # fmt: skip
    watch = Watch()
    watch.look()
    assert kinds() == {("dead_letter_critical", "acme/line")}
    assert Alert.objects.get().project == "acme"
    DeadLetter.objects.filter(pk=letter.pk).update(handled_at=clock.now())
    watch.look_at_everything()
    assert kinds() == set()


def test_old_ones_are_forgotten(pool: Pool) -> None:
    rule()
    alert = records.report(summaries.auth_failed("llm", "a1"))
    records.end(alert)
    Alert.objects.update(resolved_at=clock.now() - timedelta(days=91))
    Watch().look()
    assert not Alert.objects.exists()
