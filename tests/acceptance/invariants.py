"""What must be true after any failure: each accepted job has ended, none ran to success twice, nothing is reserved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.support.instance import wait_until
from tests.support.product import FINAL
from tests.support.shapes import Deployment


@dataclass(frozen=True)
class Attempt:
    """One attempt as SQL has it; times in seconds since 1970."""

    job: str
    number: int
    outcome: str
    counted: bool
    worker: str
    error: str
    started_at: float


def seconds(value: Any) -> float:
    """SQL's time as seconds since 1970."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.replace(tzinfo=UTC).timestamp() if value.tzinfo is None else value.timestamp()


def statuses(deployment: Deployment, ids: Collection[str]) -> dict[str, str]:
    """Status by id, of those of the jobs that exist."""
    wanted = set(ids)
    return {uid: status for uid, status in deployment.rows("SELECT uid, status FROM queues_job") if uid in wanted}


def counts(deployment: Deployment, ids: Collection[str]) -> Counter[str]:
    """How many of these jobs have each status."""
    return Counter(statuses(deployment, ids).values())


def attempts(deployment: Deployment, ids: Collection[str]) -> list[Attempt]:
    """All attempts of these jobs, each job's in order."""
    wanted = set(ids)
    rows = deployment.rows(
        "SELECT uid, number, outcome, counted, a.worker, a.error, a.started_at FROM queues_attempt a"
        " JOIN queues_job j ON j.id = a.job_id ORDER BY a.job_id, number"
    )
    return [
        Attempt(uid, number, outcome, bool(counted), worker, error, seconds(started))
        for uid, number, outcome, counted, worker, error, started in rows
        if uid in wanted
    ]


def wait_for_the_end(deployment: Deployment, ids: Collection[str], within: float = 120.0) -> None:
    """Until each of the jobs has ended."""

    def left() -> Counter[str]:
        return Counter({status: count for status, count in counts(deployment, ids).items() if status not in FINAL})

    wait_until(lambda: not left(), within, lambda: f"left: {left()}\n{deployment.instance.output}")


def assert_all_ended_once(
    deployment: Deployment, accepted: Collection[str], *, dead: int = 0, cancelled: int = 0
) -> None:
    """Accepted = finished + dead + cancelled; each completed job has exactly one attempt that succeeded."""
    ended = statuses(deployment, accepted)
    assert not set(accepted) - ended.keys(), "accepted, but no longer there"
    found = Counter(ended.values())
    assert found == Counter(completed=len(ended) - dead - cancelled, dead=dead, cancelled=cancelled), found
    succeeded = Counter(one.job for one in attempts(deployment, accepted) if one.outcome == "succeeded")
    completed = {uid for uid, status in ended.items() if status == "completed"}
    assert succeeded == Counter(completed), "exactly once each"
    assert_nothing_is_reserved(deployment)


def charged(deployment: Deployment, ids: Collection[str]) -> int:
    """Attempts that were counted against a job's maximum and did not succeed."""
    return sum(one.counted and one.outcome != "succeeded" for one in attempts(deployment, ids))


def assert_nothing_is_reserved(deployment: Deployment) -> None:
    """No slot of a limit or of an account is in use, and RQ's keys of the jobs are gone."""
    product = deployment.product

    def total(path: str, column: str) -> Any:
        """The sum over a list; the response where it is refused for the moment, as after an outage."""
        response = product.call("GET", path)
        if response.status_code == 503:
            return response.text
        assert response.status_code == 200, response.text
        return sum(row[column] for row in response.json()["results"])

    def reserved() -> dict[str, Any]:
        return {
            "active": product.get("queue/status")["active_requests"],
            "policy": total("limits/usage?policy=inflight", "used"),
            "accounts": total("accounts", "in_flight"),
            "belt": _on_redis(deployment),
        }

    wait_until(lambda: not any(reserved().values()), 90, lambda: f"still reserved: {reserved()}")


def _on_redis(deployment: Deployment) -> int:
    with deployment.instance.redis() as redis:
        lanes = sum(redis.llen(f"rq:queue:{lane}{part}") for lane in ("io", "cpu") for part in ("", ":intermediate"))
        return lanes + sum(1 for _ in redis.scan_iter("rq:job:*", count=1000))


def slowest_orphan(deployment: Deployment, ids: Collection[str], killed: Mapping[str, float]) -> float:
    """The longest time from a worker's death to the next start of a job that it ran, in seconds."""
    longest = 0.0
    tries = attempts(deployment, ids)
    for one, following in zip(tries, [*tries[1:], None], strict=True):
        if one.outcome == "lost" and one.worker in killed:
            assert following is not None and following.job == one.job, f"{one.job} ran no more after {one.number}"
            longest = max(longest, following.started_at - killed[one.worker])
    return longest
