"""What a Python task lets slip of its account's credential: it is taken out before anything is kept or logged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from queues import JobError, task
from queues.registry import JobContext, RunResult
from queues.worker.running import perform
from quotas import clock, pools
from quotas.upstream import endpoint
from tests.integration.quotas.api.test_pools import SECRET, make_pool

KEY = f"{SECRET}-0"


@task(name="slip.address", pool="llm")
def address(job: Any) -> None:
    request = httpx.Request("POST", f"https://api.example/bot{job.lease.credential}/sendMessage")
    httpx.Response(400, request=request).raise_for_status()


@task(name="slip.error", pool="llm")
def raises(job: Any) -> None:
    raise JobError(f"refused: {job.lease.credential}", category="server")


@task(name="slip.exit", pool="llm")
def exits(job: Any) -> None:
    raise SystemExit(job.lease.credential)


@task(name="slip.result", pool="llm")
def result(job: Any) -> dict[str, Any]:
    return {"echo": [f"you sent {job.lease.credential}", 7, None], job.lease.credential: True}


def run(kind: Any) -> RunResult:
    make_pool(accounts=1)
    with pools.get("llm").acquire() as lease:
        way = endpoint.endpoint(lease.account_id)
    context = JobContext("j1", "acme", "batch", "", {}, 1, 5, 60.0, "j1", lease=way)
    job = SimpleNamespace(
        created_at=clock.now(), type=kind.name, payload={}, account_lease=lease.id, uid="j1", worker="w"
    )
    return perform(SimpleNamespace(job=job, context=context, endpoint=way))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [address, raises, exits, result])
def test_nothing_that_is_kept_has_the_credential(kind: Any, caplog: Any, capfd: Any) -> None:
    found = run(kind)
    assert KEY not in repr(found) + caplog.text + "".join(capfd.readouterr())
    assert "[redacted]" in repr(found)


def test_the_rest_of_a_result_stays_as_it_is() -> None:
    assert run(result).result == {"echo": ["you sent [redacted]", 7, None], "[redacted]": True}
