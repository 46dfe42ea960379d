"""`http.request` and an account whose credential is refused."""

from __future__ import annotations

import urllib3

from queues import clock
from queues.models import Job
from queues.registry import RunResult
from queues.states import Stage, Status
from queues.types.http_request import HttpRequest
from queues.worker.settle import decide
from quotas import policies
from quotas.models import Pool
from quotas.services import operate
from quotas.upstream import endpoint
from tests.integration.api.test_pools import make_pool


def refused(pool: Pool, status: int = 401) -> RunResult:
    """The result of a call through the pool's first account that is answered with `status`."""
    way = endpoint(str(pool.accounts.order_by("pk")[0].pk))
    return HttpRequest._answered(urllib3.HTTPResponse(body=b"", status=status), b"", {}, way, 0.1)


def test_refused_credential_is_not_held_against_the_job_while_another_account_is_in_service() -> None:
    pool = make_pool(accounts=2)
    result = refused(pool)
    assert (result.outcome, result.category, result.counted) == ("failed", "auth", False)
    fate = decide(Job(delivery_mode="at_most_once"), result, clock.now(), cancelled=False)
    assert (fate.stage, fate.status, fate.final) == (Stage.READY, Status.PENDING, False)
    assert refused(pool, 403).counted, "that is about what was asked for"

    operate.disable(pool.accounts.order_by("pk")[1], actor="test", reason="gone")
    assert refused(pool).counted, "nobody is left"

    pool.fallback = [make_pool("spare", accounts=1).name]
    pool.save()
    policies.forget()
    assert not refused(pool).counted
