"""The whole path of a job in one process, step by step: submit, dispatch, take, claim, settle. Real SQL and Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from rq.job import Job as RQJob
from rq.serializers import JSONSerializer

from queues import config, settlement, wakeups
from queues.broker import Delivery, belt, deliveries_of
from queues.connection import client
from queues.deliveries import Claimed, Ended
from queues.dispatcher.admission import Admissions
from queues.dispatcher.dispatcher import Dispatcher
from queues.lifecycle.delivery import finish as settle
from queues.maintenance.reconciler import Reconciler
from queues.maintenance.runner import Maintenance
from queues.models import Job, Queue, RetryPolicy
from queues.registry import RunResult
from queues.services.defaults import create_defaults
from queues.services.submit import submit_specs
from queues.specs import read_job
from queues.states import AttemptOutcome, Stage
from queues.worker import claims
from queues.worker.heartbeat import Heartbeat
from queues.worker.running import perform
from quotas import clock
from quotas.models import Account, Policy, Pool, PoolLimit, Project, Provider
from quotas.runtime.connection import accounts, limiter
from quotas.snapshot import resolve

OK = RunResult(AttemptOutcome.SUCCEEDED, result={"fine": True})


def failed(category: str = "server", error: str = "it broke", **fields: Any) -> RunResult:
    return RunResult(AttemptOutcome.FAILED, category=category, error=error, **fields)


@dataclass
class Worker:
    """A worker process as far as SQL sees it; the test is its hands."""

    name: str
    lane: str
    places: int
    report: Heartbeat
    claimed_jobs: list[Claimed] = field(default_factory=list)

    def take(self, count: int | None = None) -> list[Delivery]:
        """Take parcels off the belt, all or `count`; not yet claimed."""
        found: list[Delivery] = []
        taken = 0
        while count is None or taken < count:
            raw = client().lpop(belt(self.lane).key)
            if raw is None:
                break
            parcel = RQJob.fetch(raw.decode(), connection=client(), serializer=JSONSerializer)  # type: ignore[union-attr]
            found += deliveries_of(parcel)
            client().delete(parcel.key)
            taken += 1
        return found

    def claim(self, taken: Sequence[Delivery] | None = None) -> list[Claimed]:
        """Claim what it took (all that is on the belt, where nothing is given)."""
        claimed = claims.claim(self.take() if taken is None else taken, self.name)
        self.claimed_jobs += claimed
        return claimed

    def settle(self, claimed: Iterable[Claimed] | None = None, result: RunResult = OK) -> int:
        """End its deliveries; returns how many were still its own."""
        items = list(self.claimed_jobs if claimed is None else claimed)
        self.claimed_jobs = [item for item in self.claimed_jobs if item not in items]
        ended = [Ended(item, result) for item in items]
        ended = settlement.settle_engine(ended)
        return settle(ended, self.name) if ended else 0

    def run(self, claimed: Iterable[Claimed] | None = None) -> None:
        """Really run its deliveries."""
        for item in list(self.claimed_jobs if claimed is None else claimed):
            self.settle([item], perform(item))

    def beat(self) -> None:
        self.report.beat([item.id for item in self.claimed_jobs])


class Desk:
    """Everything that a test needs to drive jobs through."""

    def __init__(self, skip: Callable[[float], None]) -> None:
        self.skip = skip
        """Move SQL's clock on by seconds."""
        create_defaults()
        self.renew_configuration()
        self.maintenance = Maintenance()
        self.dispatcher = Dispatcher(Admissions(accounts(), limiter()), self.maintenance, "d1")
        self.closing = ExitStack()

    @staticmethod
    def renew_configuration() -> None:
        """Read it anew: an emptied database begins counting its versions again."""
        config.snapshot.clear()
        resolve.clear()

    @staticmethod
    def another_dispatcher(name: str) -> Dispatcher:
        return Dispatcher(Admissions(accounts(), limiter()), Maintenance(), name)

    # What there is

    def project(self, slug: str = "acme", **fields: Any) -> Project:
        made, _ = Project.objects.get_or_create(slug=slug, defaults={"name": slug, **fields})
        self.renew_configuration()
        return made

    def queue(self, name: str = "q", retry: Mapping[str, Any] | None = None, **fields: Any) -> Queue:
        if retry is not None:
            fields["retry_policy"] = RetryPolicy.objects.create(name=f"for-{name}", **retry)
        made = Queue.objects.create(name=name, **fields)
        self.renew_configuration()
        return made

    def pool(
        self,
        name: str = "llm",
        accounts: int = 1,
        limits: Sequence[Mapping[str, Any]] = (),
        url: str = "",
        **fields: Any,
    ) -> Pool:
        provider, _ = Provider.objects.get_or_create(
            name=f"p-{name}", defaults={"base_url": url or "http://127.0.0.1:9"}
        )
        made = Pool.objects.create(name=name, provider=provider, **{"pause_at": None, **fields})
        for number in range(1, accounts + 1):
            Account.objects.create(pool=made, name=f"a{number}", credential=f"secret-{name}-{number}")
        for limit in limits:
            PoolLimit.objects.create(pool=made, **limit)
        self.renew_configuration()
        return made

    def policy(self, name: str, scope: str, limit: int | None, **fields: Any) -> Policy:
        made = Policy.objects.create(
            name=name, scope=scope, limit=limit, **{"algorithm": "fixed_window", "window": 3600.0, **fields}
        )
        self.renew_configuration()
        return made

    def worker(self, name: str = "w1", lane: str = "io", places: int = 10) -> Worker:
        made = Worker(name, lane, places, Heartbeat(name, lane, places))
        made.report.begin()
        return made

    # What happens

    def submit(self, count: int = 1, *, project: str = "acme", type: str = "test.echo", **fields: Any) -> list[Job]:
        owner = self.project(project)
        body = {"type": type, **fields}
        return [answer.job for answer in submit_specs(owner, [read_job(body) for _ in range(count)])]

    def cycle(self, dispatcher: Dispatcher | None = None, *, anew: bool = True) -> float:
        """One round of the leader. `anew`: it looks at everything, as after a while."""
        one = dispatcher or self.dispatcher
        one.refresh_soon(groups=anew)
        assert one.lead(), "another dispatcher leads"
        woken = wakeups.wait(0)
        if anew:
            woken.unblock = True
        return one.cycle(woken)

    def run_until_done(self, worker: Worker, seconds: float = 20.0) -> list[int]:
        """Dispatch, claim and do everything until nothing waits; ids in the order of their starts."""
        started: list[int] = []
        deadline = time.monotonic() + seconds
        while Job.objects.exclude(stage=Stage.DONE).exists():
            assert time.monotonic() < deadline, (
                f"still waiting: {list(Job.objects.exclude(stage=Stage.DONE)[:5].values())}"
            )
            worker.beat()
            self.cycle()
            started += [item.id for item in worker.claim()]
            worker.run()
        return started

    def run_until_done_but(self, worker: Worker, left: int, seconds: float = 20.0) -> None:
        """The same until only `left` jobs wait, which then get three more chances."""
        deadline, chances = time.monotonic() + seconds, 3
        while chances:
            assert time.monotonic() < deadline, f"still waiting: {Job.objects.exclude(stage=Stage.DONE).count()}"
            chances -= Job.objects.exclude(stage=Stage.DONE).count() <= left
            worker.beat()
            self.cycle()
            worker.claim()
            worker.run()

    def reconcile(self) -> None:
        """What the leader's reconciler finds once enough time has passed, whatever was lost."""
        reconciler = Reconciler()
        for _ in range(6):
            reconciler.run(clock.now())
            self.skip(4.0)

    def reconcile_renewing(self, worker: Worker) -> None:
        """The same, while this worker continues to renew its claims."""
        reconciler = Reconciler()
        for _ in range(8):
            worker.beat()
            reconciler.run(clock.now())
            self.skip(4.0)


def fresh(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def ago(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
