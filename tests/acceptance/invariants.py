"""What is true after any failure: each accepted job has ended, none ran twice, and nothing is reserved any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.support.instance import wait_until
from tests.support.shapes import Place

FINAL = ("completed", "dead", "cancelled")


@dataclass(frozen=True)
class Try:
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


def statuses(place: Place, ids: Collection[str]) -> dict[str, str]:
    """Of those of the jobs that are there."""
    wanted = set(ids)
    return {uid: status for uid, status in place.rows("SELECT uid, status FROM queues_job") if uid in wanted}


def counts(place: Place, ids: Collection[str]) -> Counter[str]:
    """Of these jobs, by status."""
    return Counter(statuses(place, ids).values())


def attempts(place: Place, ids: Collection[str]) -> list[Try]:
    """All attempts of these jobs, each job's in order."""
    wanted = set(ids)
    rows = place.rows(
        "SELECT uid, number, outcome, counted, a.worker, a.error, a.started_at FROM queues_attempt a"
        " JOIN queues_job j ON j.id = a.job_id ORDER BY a.job_id, number"
    )
    return [
        Try(uid, number, outcome, bool(counted), worker, error, seconds(started))
        for uid, number, outcome, counted, worker, error, started in rows
        if uid in wanted
    ]


def wait_for_the_end(place: Place, ids: Collection[str], within: float = 120.0) -> None:
    """Until each of the jobs has ended."""

    def left() -> Counter[str]:
        return Counter({status: count for status, count in counts(place, ids).items() if status not in FINAL})

    wait_until(lambda: not left(), within, lambda: f"left: {left()}\n{place.instance.output}")


def assert_consistent(place: Place, accepted: Collection[str], *, dead: int = 0, cancelled: int = 0) -> None:
    """Accepted = finished + dead + cancelled; each completed job has exactly one attempt that succeeded."""
    ended = statuses(place, accepted)
    assert not set(accepted) - ended.keys(), "accepted and gone"
    found = Counter(ended.values())
    assert found == Counter(completed=len(ended) - dead - cancelled, dead=dead, cancelled=cancelled), found
    succeeded = Counter(one.job for one in attempts(place, accepted) if one.outcome == "succeeded")
    completed = {uid for uid, status in ended.items() if status == "completed"}
    assert succeeded == Counter(completed), "once each, no more and no less"
    assert_nothing_is_held(place)


def charged(place: Place, ids: Collection[str]) -> int:
    """Attempts that count against a job's maximum though nothing was wrong with it."""
    return sum(one.counted and one.outcome != "succeeded" for one in attempts(place, ids))


def assert_nothing_is_held(place: Place) -> None:
    """Slots of limits and of accounts are at 0 again, and RQ's keys are gone with what they stood for."""
    with place.instance.client() as client:

        def reserved() -> dict[str, Any]:
            usage = client.get("/api/v1/limits/usage?policy=inflight").json()["results"]
            accounts = client.get("/api/v1/accounts").json()["results"]
            return {
                "active": client.get("/api/v1/queue/status").json()["active_requests"],
                "policy": sum(row["used"] for row in usage),
                "accounts": sum(row["in_flight"] for row in accounts),
                "belt": _on_redis(place),
            }

        wait_until(lambda: not any(reserved().values()), 90, lambda: f"still reserved: {reserved()}")


def _on_redis(place: Place) -> int:
    with place.instance.redis() as redis:
        lanes = sum(redis.llen(f"rq:queue:{lane}{part}") for lane in ("io", "cpu") for part in ("", ":intermediate"))
        return lanes + sum(1 for _ in redis.scan_iter("rq:job:*", count=1000))


def slowest_orphan(place: Place, ids: Collection[str], killed: Mapping[str, float]) -> float:
    """The longest time from a worker's death to the next start of a job that it ran, in seconds."""
    longest = 0.0
    tries = attempts(place, ids)
    for one, following in zip(tries, [*tries[1:], None], strict=True):
        if one.outcome == "lost" and one.worker in killed:
            assert following is not None and following.job == one.job, f"{one.job} ran no more after {one.number}"
            longest = max(longest, following.started_at - killed[one.worker])
    return longest
