"""Jobs that state no cost: what is estimated for them, what blocks them, what they are charged in the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from queues.lifecycle.dead_letters import write
from queues.models import Job
from queues.services.dead_letters import replay
from queues.states import Stage, Status
from quotas.engine.types import AdmitRequest, CallOutcome
from quotas.models import Pool, Provider
from quotas.runtime.connection import accounts, limiter
from quotas.snapshot import resolve
from tests.integration.controlplane.simulator.process import Simulator
from tests.integration.queues.desk import Desk, fresh

TOKENS = {"unit": "tokens", "algorithm": "fixed_window", "limit": 1_000, "window": 86_400.0}


def chat(pool: str = "llm", prompt: str = "x" * 400, **body: Any) -> dict[str, Any]:
    message = {"role": "user", "content": prompt}
    return {
        "pool": pool,
        "method": "POST",
        "path": "/v1/chat/completions",
        "json": {"model": "m", "messages": [message], **body},
    }


def request(desk: Desk, payload: dict[str, Any], **fields: Any) -> Job:
    return desk.submit(type="http.request", queue="q", payload=payload, **fields)[0]


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


def test_tokens_are_estimated_where_the_pool_counts_them(desk: Desk) -> None:
    desk.queue()
    desk.pool(limits=[TOKENS])
    desk.pool("plain")
    assert request(desk, chat(max_tokens=50)).cost == {"requests": 1, "tokens": 150}
    assert request(desk, chat()).cost == {"requests": 1, "tokens": 612}
    assert request(desk, chat(), cost={"tokens": 7}).cost == {"requests": 1, "tokens": 7}, "the caller's figure stands"
    assert request(desk, chat(max_tokens=50), cost={"requests": 2}).cost == {"requests": 2, "tokens": 150}
    assert request(desk, {"pool": "llm", "method": "GET", "path": "/v1/models"}).cost == {"requests": 1}
    assert request(desk, chat("plain")).cost == {"requests": 1}, "nobody counts tokens there"
    text = {"pool": "llm", "method": "POST", "path": "/v1/completions", "body": '{"prompt": "abcd", "max_tokens": 9}'}
    assert request(desk, text).cost == {"requests": 1, "tokens": 10}


def test_the_queues_pool_a_fallback_a_policy_or_the_dialect_count_as_well(desk: Desk) -> None:
    desk.pool("spare", limits=[TOKENS])
    front = desk.pool("front", fallback=["spare"])
    own = desk.pool("own", limits=[TOKENS])
    desk.queue("q", pool=own)
    assert request(desk, chat(front.name)).cost["tokens"] == 612
    payload = {name: value for name, value in chat().items() if name != "pool"}
    assert request(desk, payload).cost["tokens"] == 612
    plain = desk.pool("plain")
    assert "tokens" not in request(desk, chat(plain.name)).cost
    Provider.objects.filter(pools=plain).update(dialect="openai", default_output_tokens=20)
    desk.renew_configuration()
    assert request(desk, chat(plain.name)).cost["tokens"] == 120
    Provider.objects.filter(pools=plain).update(dialect="generic")
    desk.policy("day", "project", 10_000, unit="tokens")
    assert request(desk, chat(plain.name)).cost["tokens"] == 120


def test_jobs_without_a_cost_are_held_by_the_pools_token_limit(desk: Desk, sim: Simulator) -> None:
    desk.queue()
    desk.pool(url=sim.base_url, limits=[TOKENS])
    worker = desk.worker()
    for _ in range(3):
        request(desk, chat(max_tokens=300))
    desk.cycle()
    assert len(worker.claim()) == 2, "400 of 1,000 each: the third waits"


def test_a_job_of_another_type_is_held_by_what_was_used_without_an_estimate(desk: Desk) -> None:
    pool = desk.pool(limits=[TOKENS])
    desk.queue(pool=pool)
    desk.submit(type="test.echo", queue="q")
    spec = resolve.pool_spec("llm")
    lease = accounts().admit(AdmitRequest(pool=spec)).lease
    accounts().settle(lease or "", CallOutcome("ok", usage={"tokens": 5_000}))
    worker = desk.worker()
    desk.cycle()
    assert worker.claim() == []
    job = Job.objects.get()
    assert job.stage == Stage.READY and job.status == Status.RATE_LIMITED and "tokens" in job.reason


def test_an_answer_that_is_not_valid_costs_its_caller_the_request_only(desk: Desk, sim: Simulator) -> None:
    desk.queue()
    desk.policy("day", "project", 10_000, unit="tokens")
    desk.policy("calls", "project", 10)
    desk.pool(url=sim.base_url)
    payload = chat() | {"path": "/v1/nothing-of-the-kind"}
    job = request(desk, payload, max_attempts=1)
    desk.run_until_done(desk.worker())
    assert (fresh(job).status, fresh(job).category) == (Status.DEAD, "validation")
    used = {
        policy: limiter().peek([limit])[0].used
        for policy in ("day", "calls")
        for limit in resolve.resolve_job(
            project="acme", user=None, keys={}, queue="q", cost={"tokens": 1, "requests": 1}, priority=5
        )
        if limit.name == policy
    }
    assert used == {"day": 0, "calls": 1}


def test_an_edited_replay_is_estimated_anew_and_asks_for_its_own_model(desk: Desk) -> None:
    desk.queue()
    desk.pool(limits=[TOKENS])
    for given, after in ((None, {"requests": 1, "tokens": 25}), ({"tokens": 7}, {"requests": 1, "tokens": 7})):
        job = request(desk, chat(max_tokens=50), **({"cost": given} if given else {}))
        Job.objects.filter(pk=job.pk).update(stage=Stage.DONE, status=Status.DEAD, category="validation")
        (letter,) = write([fresh(job)], job.created_at)
        replay(letter.pk, actor="test", payload=chat(prompt="x" * 40, max_tokens=15, model="other"))
        assert (fresh(job).cost, fresh(job).model) == (after, "other")


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/repos/a/b", "core"),
        ("/search/issues?q=x", "search"),
        ("/search/code?q=x", "code_search"),
        ("/graphql", "graphql"),
        ("/api/graphql", "graphql"),
        ("/api/v3/search/issues", "search"),
        ("/searching", "core"),
    ],
)
def test_githubs_jobs_ask_for_the_resource_of_their_path(desk: Desk, path: str, resource: str) -> None:
    desk.queue()
    pool: Pool = desk.pool()
    assert request(desk, {"pool": "llm", "method": "GET", "path": path}).model == ""
    Provider.objects.filter(pools=pool).update(dialect="github")
    desk.renew_configuration()
    assert request(desk, {"pool": "llm", "method": "GET", "path": path}).model == resource
