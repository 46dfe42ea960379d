"""Forecasts over REST: each selector, what they count, what would change them, bad input, isolation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection, models
from django.test.utils import CaptureQueriesContext

from queues.models import Batch, Job
from queues.selectors import backlog
from queues.services import queue_actions
from queues.states import Stage
from quotas import clock
from quotas.engine.types import AdmitRequest, CallOutcome
from quotas.models import Account, Override, Pool, UsageRollup
from quotas.runtime.connection import accounts, limiter
from quotas.services.rollups import Sampler, start_of
from quotas.snapshot import resolve
from tests.integration.queues import conftest
from tests.integration.queues.desk import Desk
from tests.integration.queues.test_rest import api
from tests.integration.quotas.api.conftest import Api

BUCKET = {"algorithm": "token_bucket", "window": 1.0, "burst": 1}


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQL's clock stands still but for `desk.skip`: what the machine takes for a step changes no time."""
    moment = conftest.real_now()
    monkeypatch.setattr(conftest, "real_now", lambda: moment)


def zone_at(hour: int) -> str:
    """A time zone in which this hour of the day has begun, so that no day ends while a test runs."""
    ahead = (hour - clock.now().hour + 11) % 24 - 11
    return f"Etc/GMT{-ahead:+d}"


@pytest.fixture
def platform(desk: Desk) -> Api:
    desk.project("acme")
    desk.project("other")
    return api()


def found(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.json()
    body: dict[str, Any] = answer.json()
    return body


def seconds(text: str | None) -> float:
    """From now on."""
    assert text is not None
    return (datetime.fromisoformat(text) - clock.now()) / timedelta(seconds=1)


def places(answer: Any, status: int = 400) -> list[str]:
    """The places of the mistakes."""
    assert answer.status_code == status, answer.json()
    return [error["pointer"] for error in answer.json()["errors"]]


def bound(body: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(one["kind"], one["name"]): one["share"] for one in body["binding"]}


def ran(desk: Desk, run: float, count: int = 10, **fields: Any) -> None:
    """Jobs that have ended after so many seconds of running."""
    now = clock.now()
    for job in desk.submit(count, **fields):
        Job.objects.filter(pk=job.pk).update(
            stage=Stage.DONE, status="completed", dispatched_at=now - timedelta(seconds=run),
            started_at=now - timedelta(seconds=run), finished_at=now,
        )  # fmt: skip


# Jobs


def test_a_queue_behind_a_rate_ends_as_arithmetic_says(desk: Desk, platform: Api) -> None:
    desk.queue()
    desk.worker()
    desk.policy("two", "project", 2, **BUCKET)
    ran(desk, 0.0, queue="q")
    desk.submit(101, queue="q")
    body = found(platform.get("forecast", queue="q"))
    assert body["jobs"] == 101
    assert seconds(body["done_at"]) == pytest.approx(50.0, abs=0.5)
    assert seconds(body["starts_at"]) == pytest.approx(0.0, abs=0.5)
    assert bound(body) == {("policy", "two"): pytest.approx(1.0, abs=0.01)}
    assert body["earliest"] <= body["done_at"] <= body["latest"]
    assert body["exhausted_at"] is None and body["what_if"] == [] and body["approximate"] == []


def test_the_present_use_of_a_limit_counts(desk: Desk, platform: Api) -> None:
    desk.queue()
    worker = desk.worker()
    desk.policy("hour", "project", 3, algorithm="sliding_window")
    desk.submit(3, queue="q")
    desk.run_until_done(worker)
    desk.submit(1, queue="q")
    body = found(platform.get("forecast", queue="q"))
    assert seconds(body["starts_at"]) == pytest.approx(3600.0, rel=0.03), "all of it was used just now"
    assert bound(body) == {("policy", "hour"): 1.0}


def test_run_times_are_those_of_recent_jobs_of_the_same_type(desk: Desk, platform: Api) -> None:
    desk.queue("q", concurrency=2)
    desk.worker()
    ran(desk, 4.0, queue="q")
    ran(desk, 400.0, queue="q", type="test.fail", count=10)
    desk.submit(10, queue="q")
    body = found(platform.get("forecast", queue="q"))
    assert seconds(body["done_at"]) == pytest.approx(20.0, abs=0.5)
    assert bound(body) == {("queue", "q"): 1.0}


def test_cancelled_jobs_and_pauses_say_nothing_of_how_long_jobs_run(desk: Desk, platform: Api) -> None:
    queue = desk.queue("q", concurrency=1)
    desk.worker()
    ran(desk, 2.0, queue="q")
    ran(desk, 0.0, count=20, queue="q")
    Job.objects.filter(started_at=models.F("finished_at")).update(status="cancelled")
    desk.submit(5, queue="q")
    queue_actions.pause(queue, actor="t", reason="test")
    desk.skip(3600.0)
    desk.worker("w2")
    queue_actions.resume(queue, actor="t", reason="test")
    body = found(platform.get("forecast", queue="q"))
    assert seconds(body["done_at"]) == pytest.approx(10.0, abs=0.5)


def test_the_spread_of_run_times_gives_the_bounds(desk: Desk, platform: Api) -> None:
    desk.queue("q", concurrency=1)
    desk.worker()
    for run in (1.0, 2.0, 3.0, 4.0, 10.0):
        ran(desk, run, count=4, queue="q")
    desk.submit(10, queue="q")
    body = found(platform.get("forecast", queue="q"))
    assert seconds(body["earliest"]) == pytest.approx(10.0, abs=0.5)
    assert seconds(body["done_at"]) == pytest.approx(40.0, abs=0.5)
    assert seconds(body["latest"]) == pytest.approx(100.0, abs=0.5)


def test_without_any_history_a_run_time_is_assumed_and_the_answer_says_so(desk: Desk, platform: Api) -> None:
    desk.queue("q", concurrency=1, timeout=60.0)
    desk.worker()
    desk.submit(3, queue="q")
    body = found(platform.get("forecast", queue="q"))
    assert seconds(body["done_at"]) == pytest.approx(3.0, abs=0.5)
    assert seconds(body["latest"]) == pytest.approx(180.0, abs=0.5)
    assert "test.echo" in body["approximate"][0]


def test_a_job_that_runs_longer_than_all_before_it_ends_in_the_future(desk: Desk, platform: Api) -> None:
    desk.queue()
    worker = desk.worker()
    ran(desk, 1.0, queue="q")
    (job,) = desk.submit(queue="q")
    desk.cycle()
    worker.claim()
    started = Job.objects.get(pk=job.pk).started_at
    desk.skip(30.0)
    worker.beat()
    body = found(platform.get("forecast", job=job.uid))
    assert 0 < seconds(body["done_at"]) < 60.0
    assert datetime.fromisoformat(body["starts_at"]) - started < timedelta(milliseconds=1) and body["binding"] == []


def test_a_job_waits_for_those_before_it(desk: Desk, platform: Api) -> None:
    desk.queue("q", concurrency=1)
    desk.worker()
    ran(desk, 2.0, queue="q")
    jobs = desk.submit(5, queue="q")
    body = found(platform.get("forecast", job=jobs[2].uid))
    assert seconds(body["starts_at"]) == pytest.approx(4.0, abs=0.5)
    assert seconds(body["done_at"]) == pytest.approx(6.0, abs=0.5)
    assert body["jobs"] == 1


def test_a_job_that_has_ended_says_when(desk: Desk, platform: Api) -> None:
    desk.queue()
    (job,) = desk.submit(queue="q")
    desk.run_until_done(desk.worker())
    body = found(platform.get("forecast", job=job.uid))
    assert body["jobs"] == 0
    assert (
        body["done_at"] == body["earliest"] == body["latest"] == platform.get(f"jobs/{job.uid}").json()["finished_at"]
    )


def test_scheduled_jobs_and_those_that_come_after_others_are_waited_for(desk: Desk, platform: Api) -> None:
    desk.queue("q", concurrency=10)
    desk.worker()
    ran(desk, 2.0, queue="q")
    (first,) = desk.submit(queue="q", delay=30)
    (last,) = desk.submit(queue="q", after=[first.uid])
    body = found(platform.get("forecast", queue="q"))
    assert seconds(body["done_at"]) == pytest.approx(34.0, abs=0.5)
    assert bound(body) == {
        ("schedule", ""): pytest.approx(0.48, abs=0.05),
        ("dependency", ""): pytest.approx(0.52, abs=0.05),
    }
    alone = found(platform.get("forecast", job=last.uid))
    assert seconds(alone["starts_at"]) == pytest.approx(32.0, abs=0.5)


def test_a_batch_is_its_jobs_among_the_others(desk: Desk, platform: Api) -> None:
    desk.queue("q", concurrency=1)
    desk.worker()
    ran(desk, 1.0, queue="q")
    desk.submit(5, queue="q")
    one = {"type": "test.echo", "project": "acme", "queue": "q"}
    made = platform.post("jobs/bulk", {"batch": {"name": "b"}, "jobs": [one] * 5}).json()["batch"]["id"]
    desk.submit(5, queue="q")
    body = found(platform.get("forecast", batch=made))
    assert body["jobs"] == 5
    assert seconds(body["done_at"]) == pytest.approx(10.0, abs=0.5)
    assert seconds(body["starts_at"]) == pytest.approx(5.0, abs=0.5)


def test_a_batch_that_is_complete_says_when(desk: Desk, platform: Api) -> None:
    desk.queue()
    one = {"type": "test.echo", "project": "acme", "queue": "q"}
    made = platform.post("jobs/bulk", {"batch": {"name": "b"}, "jobs": [one] * 2}).json()["batch"]["id"]
    desk.run_until_done(desk.worker())
    body = found(platform.get("forecast", batch=made))
    assert body["done_at"] == platform.get(f"batches/{made}").json()["finished_at"] and body["jobs"] == 0
    assert Batch.objects.get(uid=made).finished_at is not None


def test_a_queue_without_jobs_has_nothing_to_wait_for(desk: Desk, platform: Api) -> None:
    desk.queue()
    body = found(platform.get("forecast", queue="q"))
    assert body == {
        "jobs": 0, "done_at": None, "earliest": None, "latest": None, "starts_at": None, "binding": [],
        "exhausted_at": None, "what_if": [], "approximate": [],
    }  # fmt: skip


@pytest.mark.parametrize("reason", ["paused", "queue", "workers", "pool", "pool paused", "limit"])
def test_what_only_a_person_can_end_has_no_end_in_sight(desk: Desk, platform: Api, reason: str) -> None:
    pool = desk.pool(accounts=0 if reason == "pool" else 1)
    queue = desk.queue(pool=pool if reason.startswith("pool") else None, concurrency=0 if reason == "queue" else None)
    if reason != "workers":
        desk.worker()
    desk.submit(3, queue="q")
    if reason == "paused":
        queue_actions.pause(queue, actor="t", reason="test")
    if reason == "pool paused":
        Pool.objects.update(paused_at=clock.now())
    if reason == "limit":
        desk.policy("none", "project", 0)
    desk.renew_configuration()
    body = found(platform.get("forecast", queue="q"))
    assert (body["jobs"], body["done_at"], body["earliest"], body["latest"]) == (3, None, None, None)
    causes = {
        "paused": ("paused", "q"), "queue": ("queue", "q"), "workers": ("workers", "io"), "pool": ("pool", "llm"),
        "pool paused": ("paused", "llm"), "limit": ("policy", "none"),
    }  # fmt: skip
    assert bound(body) == {causes[reason]: 1.0}


def test_two_users_wait_each_for_their_own_limit(desk: Desk, platform: Api) -> None:
    desk.queue()
    desk.worker()
    desk.policy("minute", "user", 1, **BUCKET | {"window": 60.0})
    ran(desk, 0.0, queue="q")
    desk.submit(11, queue="q", user="u1")
    (other,) = desk.submit(1, queue="q", user="u2")
    assert seconds(found(platform.get("forecast", job=other.uid))["done_at"]) == pytest.approx(0.0, abs=0.5)
    assert seconds(found(platform.get("forecast", queue="q"))["done_at"]) == pytest.approx(600.0, abs=5.0)
    body = found(platform.get("forecast", policy="minute", key="u1", project="acme"))
    assert body["jobs"] == 11 and seconds(body["done_at"]) == pytest.approx(600.0, abs=5.0)


def test_an_override_counts_for_its_subject(desk: Desk, platform: Api) -> None:
    desk.queue()
    desk.worker()
    policy = desk.policy("hour", "user", 1)
    Override.objects.create(policy=policy, key="u2", limit=100, reason="test")
    desk.renew_configuration()
    (job,) = desk.submit(5, queue="q", user="u2")[-1:]
    assert seconds(found(platform.get("forecast", job=job.uid))["starts_at"]) < 2.0


# Pools


def test_accounts_their_use_and_their_cooldowns_count(desk: Desk, platform: Api) -> None:
    limit = {"unit": "requests", "algorithm": "token_bucket", "limit": 60, "window": 60.0, "burst": 1}
    desk.queue(pool=desk.pool(accounts=2, limits=[limit]))
    desk.worker()
    ran(desk, 0.0, queue="q")
    desk.submit(21, queue="q")
    body = found(platform.get("forecast", queue="q"))
    assert seconds(body["done_at"]) == pytest.approx(10.0, abs=0.5), "each of the two takes one a second"
    assert bound(body) == {("pool", "llm"): pytest.approx(1.0, abs=0.01)}
    one = str(Account.objects.first().pk)  # type: ignore[union-attr]
    Account.objects.filter(pk=one).update(enabled=False)
    desk.renew_configuration()
    assert seconds(found(platform.get("forecast", pool="llm"))["done_at"]) == pytest.approx(20.0, abs=0.5)


def test_a_cooldown_is_waited_for(desk: Desk, platform: Api) -> None:
    desk.queue(pool=desk.pool())
    desk.worker()
    desk.submit(1, queue="q")
    admission = accounts().admit(AdmitRequest(pool=resolve.pool_spec("llm"), cost={"requests": 1}))
    accounts().settle(admission.lease or "", CallOutcome("rate_limited", status=429, retry_after=40.0))
    body = found(platform.get("forecast", pool="llm"))
    assert seconds(body["starts_at"]) == pytest.approx(40.0, rel=0.15)
    assert seconds(body["exhausted_at"]) == pytest.approx(0.0, abs=0.5)
    assert seconds(found(platform.get("forecast", queue="q"))["starts_at"]) == pytest.approx(40.0, rel=0.15)


def test_a_pool_says_when_its_accounts_are_used_up(desk: Desk, platform: Api) -> None:
    day = {"unit": "requests", "algorithm": "calendar", "limit": 100, "period": "day", "timezone": zone_at(12)}
    desk.queue(pool=desk.pool(accounts=2, limits=[day]))
    assert found(platform.get("forecast", pool="llm"))["exhausted_at"] is None
    ran(desk, 0.0, count=20, queue="q")
    Job.objects.update(finished_at=clock.now() - timedelta(seconds=20))
    body = found(platform.post("forecast", {"pool": "llm", "what_if": {"accounts": {"llm": 2}}}))
    assert seconds(body["exhausted_at"]) == pytest.approx(200.0, abs=0.5), "of 200 one a second is used"
    (change,) = body["what_if"]
    assert change["change"] == {"accounts": {"llm": 2}} and change["done_at"] is None
    assert seconds(change["exhausted_at"]) == pytest.approx(400.0, abs=0.5)


# Quotas


def test_a_quota_says_when_it_is_used_up_at_the_present_rate(desk: Desk, platform: Api) -> None:
    policy = desk.policy("bucket", "project", 3600, algorithm="token_bucket", burst=3600)
    minute = start_of("minute", clock.now()) - timedelta(minutes=2)
    limit = resolve.snapshot().policies["bucket"].limit_for("acme", "acme", 1, 0.0)
    assert found(platform.get("forecast", policy="bucket", key="acme"))["exhausted_at"] is None
    # 9,000 in the last hour, of which 3,600 have come back: 2.5 a second are used, and 1 comes back.
    for number, used in enumerate((3000, 6000, 9000)):
        UsageRollup.objects.create(
            policy=policy, resolution="minute", project="acme", key="acme", used=used,
            start=minute - timedelta(minutes=2 - number),
        )  # fmt: skip
    body = found(
        platform.post("forecast", {"policy": "bucket", "key": "acme", "what_if": {"limits": {"bucket": 36_000}}})
    )
    assert limiter().peek([limit])[0].used == 0
    assert seconds(body["exhausted_at"]) == pytest.approx(3600 / 1.5, rel=0.1)
    assert body["starts_at"] > body["exhausted_at"], "it is available again"
    assert body["what_if"] == [{"change": {"limits": {"bucket": 36_000}}, "done_at": None, "exhausted_at": None}], (
        "then more comes back than is used"
    )


def test_a_quota_that_is_used_up_says_until_when(desk: Desk, platform: Api) -> None:
    desk.queue()
    worker = desk.worker()
    desk.policy("day", "user", 2, algorithm="calendar", period="day", window=None, timezone=zone_at(12))
    desk.submit(2, queue="q", user="u")
    desk.run_until_done(worker)
    desk.submit(3, queue="q", user="u")
    body = found(platform.get("forecast", policy="day", key="u", project="acme"))
    midnight = (clock.now() + timedelta(hours=12)).replace(minute=0, second=0, microsecond=0)
    assert seconds(body["exhausted_at"]) == pytest.approx(0.0, abs=0.5)
    # Redis has its own clock, which has moved on meanwhile.
    assert abs(datetime.fromisoformat(body["starts_at"]) - midnight) < timedelta(minutes=5)
    done = datetime.fromisoformat(body["done_at"])
    assert timedelta() <= done - midnight - timedelta(days=1) < timedelta(seconds=5), "two tomorrow, one the day after"
    assert bound(body) == {("policy", "day"): 1.0} and body["jobs"] == 3


def test_the_rate_is_that_of_the_sampled_use(desk: Desk, platform: Api) -> None:
    """A quota of which a part has been used within the last hour, as the sampler records it."""
    desk.policy("day", "global", 1000, algorithm="calendar", period="day", window=None, timezone=zone_at(6))
    limit = resolve.snapshot().policies["day"].limit_for("*", "", 100, 0.0)
    for _ in range(5):
        limiter().check([limit])
    Sampler().sample()
    body = found(platform.get("forecast", policy="day"))
    # 500 since midnight: the other half lasts as long as the first one.
    since = 6 * 3600.0 + clock.now().minute * 60 + clock.now().second
    assert seconds(body["exhausted_at"]) == pytest.approx(since, abs=120.0)


def test_the_rate_of_a_long_period_is_that_of_today(desk: Desk, platform: Api) -> None:
    zone = zone_at(12)
    policy = desk.policy("month", "global", 1010, algorithm="calendar", period="month", window=None, timezone=zone)
    limit = resolve.snapshot().policies["month"].limit_for("*", "", 1000, 0.0)
    limiter().check([limit])
    noon = clock.now().replace(minute=0, second=0, microsecond=0)
    rows = (("hour", noon - timedelta(hours=40), 900), ("minute", noon - timedelta(hours=1), 1000))
    if noon.astimezone(ZoneInfo(zone)).day <= 2:
        pytest.skip("the hour is in another month")
    for resolution, start, used in rows:
        UsageRollup.objects.create(policy=policy, resolution=resolution, key="*", start=start, used=used)
    body = found(platform.get("forecast", policy="month"))
    # 100 of the 1,000 were used today: 10 more are in a tenth of that time.
    since = 12 * 3600.0 + clock.now().minute * 60 + clock.now().second
    assert seconds(body["exhausted_at"]) == pytest.approx(since / 10, abs=120.0)


# Changes


def test_changes_are_tried_one_by_one_and_together(desk: Desk, platform: Api) -> None:
    limit = {"unit": "requests", "algorithm": "token_bucket", "limit": 60, "window": 60.0, "burst": 1}
    desk.queue(pool=desk.pool(limits=[limit]))
    desk.worker()
    desk.policy("four", "project", 4, **BUCKET)
    ran(desk, 0.0, queue="q")
    desk.submit(41, queue="q")
    changes = {"accounts": {"llm": 1}, "limits": {"four": 1}, "pause_at": {"llm": None}}
    body = found(platform.post("forecast", {"queue": "q", "what_if": changes}))
    assert seconds(body["done_at"]) == pytest.approx(40.0, abs=0.5)
    assert [one["change"] for one in body["what_if"]] == [
        {"accounts": {"llm": 1}}, {"limits": {"four": 1}}, {"pause_at": {"llm": None}}, changes,
    ]  # fmt: skip
    assert [round(seconds(one["done_at"]) / 10) for one in body["what_if"]] == [2, 4, 4, 4]
    less = found(platform.post("forecast", {"queue": "q", "what_if": {"accounts": {"llm": -1}}}))
    assert less["what_if"] == [{"change": {"accounts": {"llm": -1}}, "done_at": None, "exhausted_at": None}]
    assert Account.objects.count() == 1 and resolve.snapshot().policies["four"].limit == 4, "nothing was changed"


def test_a_higher_threshold_releases_low_priorities_earlier(desk: Desk, platform: Api) -> None:
    limit = {"unit": "requests", "algorithm": "sliding_window", "limit": 10, "window": 86_400.0}
    desk.queue(pool=desk.pool(limits=[limit], pause_at=0.5))
    desk.worker()
    desk.submit(8, queue="q", priority="low")
    body = found(platform.post("forecast", {"queue": "q", "what_if": {"pause_at": {"llm": 1}}}))
    assert seconds(body["done_at"]) > 10.0
    assert seconds(body["what_if"][0]["done_at"]) < 10.0


# Jobs that have not been submitted


def test_planned_jobs_come_after_all_others_and_are_not_stored(desk: Desk, platform: Api) -> None:
    desk.queue("q", concurrency=1)
    desk.worker()
    ran(desk, 1.0, queue="q")
    desk.submit(10, queue="q")
    before = Job.objects.count()
    planned = [{"type": "test.echo", "project": "acme", "queue": "q", "idempotency_key": "k"}] * 5
    for _ in range(2):
        body = found(platform.post("forecast", {"jobs": planned}))
        assert body["jobs"] == 5
        assert seconds(body["starts_at"]) == pytest.approx(10.0, abs=0.5)
        assert seconds(body["done_at"]) == pytest.approx(15.0, abs=0.5)
    urgent = found(platform.post("forecast", {"jobs": [{**one, "priority": "high"} for one in planned]}))
    assert seconds(urgent["done_at"]) == pytest.approx(5.0, abs=0.5)
    assert Job.objects.count() == before


def test_planned_jobs_may_come_after_jobs_that_wait(desk: Desk, platform: Api) -> None:
    desk.queue("q", concurrency=10)
    desk.worker()
    ran(desk, 1.0, queue="q")
    (first,) = desk.submit(queue="q", delay=20)
    one = {"type": "test.echo", "project": "acme", "queue": "q", "after": [first.uid]}
    assert seconds(found(platform.post("forecast", {"jobs": [one]}))["starts_at"]) == pytest.approx(21.0, abs=0.5)
    assert places(platform.post("forecast", {"jobs": [{**one, "after": ["nothing"]}]})) == ["#/jobs/0/after/0"]


def test_many_planned_jobs_are_simulated_together(desk: Desk, platform: Api) -> None:
    desk.queue()
    desk.worker()
    desk.policy("hundred", "project", 100, **BUCKET)
    ran(desk, 0.0, queue="q")
    one = {"type": "test.echo", "project": "acme", "queue": "q"}
    body = found(platform.post("forecast", {"jobs": [one] * 5000}))
    assert body["jobs"] == 5000
    assert seconds(body["done_at"]) == pytest.approx(50.0, rel=0.05)
    assert "stands for several" in body["approximate"][0]


# Many jobs


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bounds that a test reaches with few jobs."""
    monkeypatch.setattr(backlog, "MOST", 100)
    monkeypatch.setattr(backlog, "SAMPLED", 100)
    yield


def test_of_many_jobs_a_sample_is_read(desk: Desk, platform: Api, few: None) -> None:
    desk.queue()
    desk.worker()
    desk.policy("ten", "project", 10, **BUCKET)
    ran(desk, 0.0, queue="q")
    desk.submit(300, queue="q", user="u1")
    desk.submit(300, queue="q", project="other")
    desk.submit(200, queue="q", delay=1)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        body = found(platform.get("forecast", queue="q", project="acme"))
    assert body["jobs"] == 500
    assert seconds(body["done_at"]) == pytest.approx(50.0, rel=0.1)
    assert body["approximate"] == ["More than 2,000 jobs wait: each simulated one stands for several equal ones."]
    assert len(queries) < 100
    whole = backlog.read_backlog()
    assert len(whole.waiting) < 150 and sum(row.size for row in whole.waiting) == 800


def test_a_single_job_of_many_keeps_its_position(desk: Desk, platform: Api, few: None) -> None:
    desk.queue("q", concurrency=1)
    desk.worker()
    ran(desk, 1.0, queue="q")
    jobs = desk.submit(400, queue="q")
    body = found(platform.get("forecast", job=jobs[199].uid))
    assert body["jobs"] == 1
    assert seconds(body["starts_at"]) == pytest.approx(200.0, rel=0.1)


# Bad input, scopes, projects


def test_exactly_one_thing_is_named(desk: Desk, platform: Api) -> None:
    desk.queue()
    assert places(platform.get("forecast")) == ["?queue"]
    assert places(platform.get("forecast", queue="q", pool="llm")) == ["?pool"]
    assert places(platform.get("forecast", queue="q", what="x")) == ["?what"]
    assert places(platform.get("forecast", queue="q", key="x")) == ["?key"]
    assert places(platform.post("forecast", {"jobs": [{"type": "test.echo"}], "project": "acme"})) == ["#/project"]
    assert places(platform.post("forecast", {})) == ["#"]
    assert places(platform.post("forecast", {"queue": "q", "jobs": [{"type": "test.echo"}]})) == ["#/jobs"]
    assert places(platform.post("forecast", {"queue": "q", "unknown": 1})) == ["#/unknown"]
    assert places(platform.post("forecast", {"queue": 5})) == ["#/queue"]


def test_a_change_that_can_not_be_tried_is_named(desk: Desk, platform: Api) -> None:
    desk.queue(pool=desk.pool())
    desk.policy("p", "project", 10)
    wrong: list[tuple[Any, str, int]] = [
        ({"accounts": {"nothing": 1}}, "#/what_if/accounts/nothing", 404),
        ({"limits": {"nothing": 1}}, "#/what_if/limits/nothing", 404),
        ({"pause_at": {"nothing": 0.5}}, "#/what_if/pause_at/nothing", 404),
        ({"accounts": {"llm": "1"}}, "#/what_if/accounts/llm", 400),
        ({"accounts": {"llm": 100_000}}, "#/what_if/accounts/llm", 400),
        ({"accounts": {"llm": True}}, "#/what_if/accounts/llm", 400),
        ({"limits": {"p": -1}}, "#/what_if/limits/p", 400),
        ({"limits": {"p": 1.5}}, "#/what_if/limits/p", 400),
        ({"pause_at": {"llm": 0}}, "#/what_if/pause_at/llm", 400),
        ({"pause_at": {"llm": 1.5}}, "#/what_if/pause_at/llm", 400),
        ({"accounts": [1]}, "#/what_if/accounts", 400),
        ({"workers": {"io": 1}}, "#/what_if/workers", 400),
        ({"limits": {f"p{number}": 1 for number in range(11)}}, "#/what_if", 400),
        ("more", "#/what_if", 400),
    ]
    for what_if, place, status in wrong:
        assert places(platform.post("forecast", {"queue": "q", "what_if": what_if}), status) == [place]


def test_planned_jobs_are_checked_as_submitted_ones(desk: Desk, platform: Api) -> None:
    desk.queue()
    good = {"type": "test.echo", "project": "acme", "queue": "q"}

    def wrong(*jobs: Any) -> list[str]:
        return places(platform.post("forecast", {"jobs": list(jobs)}))

    assert wrong(good, {**good, "priority": 11}, {**good, "unknown": 1}) == ["#/jobs/1/priority", "#/jobs/2/unknown"]
    assert wrong(good, {**good, "type": "nothing"}) == ["#/jobs/1/type"]
    assert wrong({**good, "queue": "nothing"}) == ["#/jobs/0/queue"]
    assert wrong(good, {"type": "test.echo"}) == ["#/jobs/1/project"]
    assert wrong() == ["#/jobs"]
    assert places(platform.post("forecast", {"jobs": {}})) == ["#/jobs"]
    missing = platform.post("forecast", {"jobs": [good, {**good, "project": "nobody"}]})
    assert places(missing, 404) == ["#/jobs/1/project"] and missing.json()["type"] == "/problems/unknown-project"
    assert not Job.objects.exists()


def test_unknown_things_are_404_and_a_subject_is_required(desk: Desk, platform: Api) -> None:
    desk.policy("u", "user", 10)
    for query in ({"queue": "x"}, {"batch": "x"}, {"job": "x"}, {"policy": "x", "key": "k"}, {"pool": "x"}):
        assert platform.get("forecast", **query).status_code == 404, query
    assert places(platform.get("forecast", policy="u", project="acme")) == ["?key"]
    assert places(platform.get("forecast", policy="u", key="k")) == ["?project"]
    assert places(platform.post("forecast", {"policy": "u", "key": "k"})) == ["#/project"]
    assert places(platform.get("forecast", policy="u", key="k", project="nobody"), 404) == ["?project"]


def test_reading_is_enough_and_needed(desk: Desk, platform: Api) -> None:
    desk.queue()
    assert api("read").get("forecast", queue="q").status_code == 200
    assert api("read").post("forecast", {"queue": "q"}).status_code == 200
    assert api("submit").get("forecast", queue="q").status_code == 403


def test_a_project_sees_its_own_jobs_behind_those_of_others(desk: Desk, platform: Api) -> None:
    desk.queue("q", concurrency=1)
    desk.worker()
    ran(desk, 1.0, queue="q", project="other")
    ran(desk, 1.0, queue="q")
    desk.submit(20, queue="q", project="other", priority="high", user="their-user")
    desk.submit(2, queue="q")
    acme = api(project="acme")
    answer = acme.get("forecast", queue="q")
    body = found(answer)
    assert body["jobs"] == 2
    assert seconds(body["starts_at"]) == pytest.approx(20.0, abs=0.5)
    assert b"other" not in answer.content and b"their-user" not in answer.content


def test_a_project_gets_404_for_things_of_others(desk: Desk, platform: Api) -> None:
    desk.pool("theirs", projects=["other"])
    desk.policy("everyone", "global", 10)
    desk.policy("their-limit", "project", 10, project=desk.project("other"))
    (job,) = desk.submit(project="other")
    assert platform.get("forecast", job=job.uid, project="other").status_code == 200
    assert platform.get("forecast", job=job.uid, project="acme").status_code == 404
    one = {"type": "test.echo", "project": "other"}
    batch = platform.post("jobs/bulk", {"jobs": [one]}).json()["batch"]["id"]
    acme = api(project="acme")
    for query in (
        {"job": job.uid}, {"batch": batch}, {"pool": "theirs"}, {"policy": "everyone"}, {"policy": "their-limit"},
        {"queue": "batch", "project": "other"}, 
    ):  # fmt: skip
        assert acme.get("forecast", **query).status_code == 404, query
    assert places(acme.post("forecast", {"jobs": [one]}), 404) == ["#/jobs/0/project"]
    for what_if in ({"accounts": {"theirs": 1}}, {"limits": {"everyone": 1}}, {"limits": {"their-limit": 1}}):
        assert acme.post("forecast", {"queue": "batch", "what_if": what_if}).status_code == 404, what_if
