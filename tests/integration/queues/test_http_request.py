"""`http.request` and an account whose credential is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import structlog
import urllib3

from queues.deliveries import Claimed
from queues.job_types.http_answer import result_of
from queues.job_types.http_request import HttpRequest
from queues.lifecycle.fate import decide
from queues.models import Job
from queues.registry import RunResult
from queues.states import Stage, Status
from queues.worker.running import perform
from quotas import clock
from quotas.engine.types import CallOutcome
from quotas.models import Pool
from quotas.services import account_actions
from quotas.snapshot import resolve
from quotas.upstream.endpoint import endpoint
from tests.integration.quotas.api.test_pools import SECRET, make_pool


def refused(pool: Pool, status: int = 401) -> RunResult:
    """The result of a call through the pool's first account that is answered with `status`."""
    account = endpoint(str(pool.accounts.order_by("pk")[0].pk))
    return result_of(urllib3.HTTPResponse(body=b"", status=status), b"", {}, account, 0.1)


def test_a_refused_credential_does_not_end_the_job_while_another_account_is_in_service() -> None:
    pool = make_pool(accounts=2)
    result = refused(pool)
    assert (result.outcome, result.category, result.counted) == ("failed", "auth", False)
    fate = decide(Job(delivery_mode="at_most_once"), result, clock.now(), cancelled=False)
    assert (fate.stage, fate.status, fate.final) == (Stage.READY, Status.PENDING, False)
    assert refused(pool, 403).counted, "that is about the request"

    account_actions.disable(pool.accounts.order_by("pk")[1], actor="test", reason="gone")
    assert refused(pool).counted, "no account is left"

    pool.fallback = [make_pool("spare", accounts=1).name]
    pool.save()
    resolve.clear()
    assert not refused(pool).counted


class Boom(Exception):
    """As a client raises it, with the address or the header field of the call."""


@pytest.mark.parametrize("foreseen", [True, False])
def test_what_a_job_raises_shows_no_credential(foreseen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    account = endpoint(str(make_pool(accounts=1).accounts.get().pk))

    def run(context: object, payload: object) -> RunResult:
        message = f"401 for https://api.example.com/bot{account.credential}/send, sent {b'Bearer ' + account.credential.encode()!r}"
        if not foreseen:
            raise Boom(message)
        upstream = CallOutcome("server", error=message)
        return RunResult("failed", category="server", error=message, traceback=message, upstream=upstream)

    kind = SimpleNamespace(run=run, needs_pool=False, trusted=False, redact=())
    monkeypatch.setattr("queues.registry.get", lambda name: kind)
    with structlog.testing.capture_logs() as logged:
        result = perform(Claimed(Job(type="x"), SimpleNamespace(attempt=1), account, 1, 1))  # type: ignore[arg-type]
    assert "[redacted]" in result.error and "[redacted]" in result.traceback
    assert SECRET not in repr(result) and SECRET not in repr(logged)
    assert foreseen or logged[0]["event"] == "job.fault"


def test_a_request_that_cannot_be_written_reports_only_that() -> None:
    pool = make_pool(accounts=1)
    pool.accounts.update(credential=f"{SECRET}\nX-Other: 1")
    account = endpoint(str(pool.accounts.get().pk))
    context = SimpleNamespace(lease=account, id="j", attempt=1, timeout=5.0, idempotency_key="j")
    result = HttpRequest().run(context, {"method": "GET", "path": "/v1/models"})  # type: ignore[arg-type]
    assert (result.outcome, result.category, result.upstream) == ("failed", "validation", CallOutcome("unused"))
    assert SECRET not in repr(result)
