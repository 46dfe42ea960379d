"""An instance in the middle of a working day: every state of everything, once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import Group, User
from django.db import DEFAULT_DB_ALIAS
from django.utils import timezone

from controlplane.models import AccountSample
from queues import config
from queues.models import Attempt, Batch, DeadLetter, Job, Leadership, Queue, Transition, WorkerProcess
from queues.services.defaults import create_defaults
from queues.states import Stage, Status
from quotas.models import Account, ApiKey, Override, Policy, Pool, PoolLimit, Project, Provider, Tier
from quotas.services import api_keys
from quotas.services.limits import Check, check
from quotas.snapshot import resolve
from tests.support.rows import TableRows, added, insert_rows, read_rows

PASSWORD = "correct horse battery"
CREDENTIAL = "sk-live-do-not-show-me-0123456789"


@dataclass
class Day:
    """What was made, to be named in tests."""

    acme: Project
    globex: Project
    running: Job
    dead: Job
    letter: DeadLetter
    account: Account
    policy: Policy
    queue: Queue
    key: ApiKey


@dataclass(frozen=True)
class _Made:
    day: Day
    at: datetime
    rows: list[TableRows]


_made: dict[tuple[str, ...], _Made] = {}
"""What this process has made, by the roles' keys, to which people refer."""


def make_day() -> Day:
    """Fill an empty database. What was filled in once is inserted again, as many seconds later as it is then."""
    roles = tuple(str(pk) for pk in Group.objects.order_by("pk").values_list("pk", flat=True))
    now = timezone.now()
    if (made := _made.get(roles)) is None:
        before = read_rows(DEFAULT_DB_ALIAS)
        made = _made[roles] = _Made(_make(now), now, added(before, read_rows(DEFAULT_DB_ALIAS)))
    else:
        insert_rows(DEFAULT_DB_ALIAS, [table.moved(made.at, now) for table in made.rows], replacing=True)
    day = replace(made.day)
    for name, row in vars(day).items():
        setattr(day, name, type(row).objects.get(pk=row.pk))
    # An emptied database counts its versions of the configuration from the beginning: this one may look like an old one.
    resolve.clear()
    config.snapshot.clear()
    for user in range(30):
        check(Check(project="acme", user=f"u-{user % 3}", cost={"requests": 1}), actor="test")
    return day


def _make(now: datetime) -> Day:
    create_defaults()
    gold = Tier.objects.create(name="gold")
    acme = Project.objects.create(slug="acme", name="Acme Ltd", weight=3, tier=gold)
    globex = Project.objects.create(slug="globex", name="Globex")
    _people(acme)
    policy = _policies(acme)
    pool, account = _pool(now)
    batch = Batch.objects.create(project=acme, name="package summaries", created_at=now - timedelta(minutes=30))
    queue = Queue.objects.get(name="batch")
    queue.pool = pool
    queue.save()
    jobs = _jobs(now, acme, globex, batch, account)
    letter = _story(now, jobs["dead"], account)
    for number in range(3):
        WorkerProcess.objects.create(
            name=f"io-host1-{number}", host="host1", pid=4000 + number, lane="io", places=20, busy=7 * number,
            jobs_done=1200 + number, jobs_failed=3, started_at=now, seen_at=now - timedelta(seconds=40 * (number == 2)),
        )  # fmt: skip
    Leadership.objects.create(role="dispatcher", holder="host1:3999", token=4, until=now + timedelta(hours=1))
    key, _ = api_keys.create("ci pipeline", ["check", "submit"], project=acme, actor="user:root", reason="first use")
    return Day(acme, globex, jobs["running"], jobs["dead"], letter, account, policy, queue, key)


def _people(acme: Project) -> None:
    User.objects.create_superuser("root", password=PASSWORD)
    for role in ("viewer", "operator", "administrator"):
        user = User.objects.create_user(role, password=PASSWORD, is_staff=True)
        user.groups.add(Group.objects.get(name=role))
    member = User.objects.create_user("member", password=PASSWORD, is_staff=True)
    member.groups.add(Group.objects.get(name="operator"))
    acme.members.add(member)


def _policies(acme: Project) -> Policy:
    policy = Policy.objects.create(
        name="user-hourly", scope="user", unit="requests", algorithm="sliding_window", limit=12, window=3600
    )
    Policy.objects.create(
        name="acme-day", scope="project", project=acme, unit="requests", algorithm="fixed_window", limit=500,
        window=86400, pause_at=0.8, warn_at=[0.6, 0.8, 0.95],
    )  # fmt: skip
    Policy.objects.create(
        name="bursty", scope="endpoint", match="POST /v1/*", unit="requests", algorithm="token_bucket", limit=20,
        window=1, burst=40, mode="shadow",
    )  # fmt: skip
    Override.objects.create(policy=policy, key="u-17", limit=5000, reason="load test")
    return policy


def _pool(now: datetime) -> tuple[Pool, Account]:
    provider = Provider.objects.create(name="sim", dialect="openai", base_url="http://127.0.0.1:9100")
    pool = Pool.objects.create(name="llm", provider=provider, strategy="health", concurrency_initial=4,
                               concurrency_floor=1, concurrency_ceiling=16)  # fmt: skip
    PoolLimit.objects.create(pool=pool, unit="requests", limit=500, window=60)
    states = {
        "a1": {"state": "available", "health": 0.98},
        "a2": {
            "state": "cooling_down",
            "until": now + timedelta(seconds=48),
            "why": "429 rate_limited",
            "health": 0.71,
        },
        "a3": {"state": "open", "until": now + timedelta(seconds=33), "why": "5 server errors", "health": 0.22},
        "a4": {"state": "disabled", "enabled": False, "disabled_reason": "401 auth", "health": 0.4},
    }
    accounts = {}
    for name, fields in states.items():
        accounts[name] = Account.objects.create(
            pool=pool, name=name, credential=CREDENTIAL, successes=1800, errors={"rate_limited": 12, "server": 5},
            learned={"requests": {"limit": 500, "remaining": 212, "reset_after": 31}}, last_used=now, latency=0.412,
            last_error="503 overloaded", last_error_at=now, **fields,
        )  # fmt: skip
    AccountSample.objects.bulk_create(
        AccountSample(
            account=accounts["a2"], at=now.replace(second=0, microsecond=0) - timedelta(minutes=ago),
            health=1.0 - 0.4 * (30 < ago < 50), state="open" if 40 < ago < 50 else "available",
            succeeded=20 + ago % 7, failed=3 * (30 < ago < 50), latency=0.4,
        )
        for ago in range(1, 90)
    )  # fmt: skip
    return pool, accounts["a2"]


def _jobs(now: datetime, acme: Project, globex: Project, batch: Batch, account: Account) -> dict[str, Job]:
    queues = {queue.name: queue for queue in Queue.objects.all()}
    payload = {"pool": "llm", "method": "POST", "path": "/v1/chat/completions", "json": {"model": "small"}}
    common: dict[str, Any] = {"type": "http.request", "payload": payload, "cost": {"requests": 1, "tokens": 900}}
    made = [
        Job(project=project, queue=queues[queue], priority=priority, created_at=now - timedelta(seconds=back), **common)
        for project, queue, priority, count in (
            (acme, "batch", 5, 60), (acme, "batch", 8, 25), (globex, "batch", 1, 6), (globex, "embeddings", 5, 14),
            (acme, "notifications", 1, 3),
        )
        for back in range(count)
    ]  # fmt: skip
    for minute in range(25):
        for number in range(2 + (minute * 7) % 4):
            ended = now - timedelta(minutes=minute, seconds=number)
            dead = number == 0 and minute % 6 == 1
            made.append(
                Job(project=acme, queue=queues["batch"], batch=batch, stage=Stage.DONE, created_at=ended,
                    status=Status.DEAD if dead else Status.COMPLETED, started_at=ended, finished_at=ended, **common)
            )  # fmt: skip
    Job.objects.bulk_create(made)
    running = Job.objects.create(
        project=acme, queue=queues["batch"], batch=batch, stage=Stage.RUNNING, status=Status.EXECUTING, account=account,
        worker="io-host1-1", attempts_made=1, attempts_counted=1, created_at=now, started_at=now, **common,
    )  # fmt: skip
    dead = Job.objects.create(
        project=acme, queue=queues["batch"], stage=Stage.DONE, status=Status.DEAD, category="server", attempts_made=3,
        error="503 overloaded", reason="gave up after 3 attempts", created_at=now - timedelta(minutes=9),
        finished_at=now - timedelta(minutes=4), **common,
    )  # fmt: skip
    Job.objects.create(project=globex, queue=queues["batch"], created_at=now, **{**common, "type": "globex.secret"})
    return {"running": running, "dead": dead}


def _story(now: datetime, job: Job, account: Account) -> DeadLetter:
    for number in (1, 2, 3):
        at = now - timedelta(minutes=9 - number)
        Attempt.objects.create(job=job, number=number, delivery=number, outcome="failed", category="server", status=503,
                               account=str(account), error="503 overloaded", started_at=at,
                               ended_at=at + timedelta(seconds=2))  # fmt: skip
        Transition.objects.create(job=job, at=at + timedelta(seconds=2), state="retrying", reason="server: in 4 s")
    return DeadLetter.objects.create(
        job=job, project=job.project, queue=job.queue, type=job.type, category="server", severity="warning",
        fingerprint="f" * 32, error="503 overloaded", attempts=3, created_at=now - timedelta(minutes=4),
    )  # fmt: skip
