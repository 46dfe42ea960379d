"""What must hold after any failure: all that was accepted has ended, nothing twice, and nothing is held any more."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from tests.acceptance.instance import wait_until
from tests.acceptance.shapes import Place

FINAL = ("completed", "dead", "cancelled")


def seconds(value: Any) -> float:
    """SQL's time as seconds since 1970."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.replace(tzinfo=UTC).timestamp() if value.tzinfo is None else value.timestamp()


def counts(place: Place) -> dict[str, int]:
    """Jobs by status."""
    return dict(place.rows("SELECT status, count(*) FROM queues_job GROUP BY status"))


def wait_for_the_end(place: Place, within: float = 120.0) -> None:
    """Until no job is left that has not ended."""

    def left() -> list[tuple[Any, ...]]:
        return place.rows(
            "SELECT status, stage, reason, count(*) FROM queues_job WHERE stage <> 5 GROUP BY status, stage, reason"
        )

    wait_until(lambda: not left(), within, lambda: f"left: {left()}\n{place.instance.output}")


def assert_sound(place: Place, accepted: Collection[str], *, dead: int = 0, cancelled: int = 0) -> None:
    """Accepted = finished + dead + cancelled; each completed job has exactly one attempt that succeeded."""
    rows = dict(place.rows("SELECT uid, status FROM queues_job"))
    lost = set(accepted) - rows.keys()
    assert not lost, f"accepted and gone: {lost}"
    assert set(rows.values()) <= set(FINAL), counts(place)
    assert (counts(place).get("dead", 0), counts(place).get("cancelled", 0)) == (dead, cancelled), counts(place)
    doubled = place.rows(
        "SELECT job_id, count(*) FROM queues_attempt WHERE outcome = 'succeeded' GROUP BY job_id HAVING count(*) <> 1"
    )
    assert not doubled, f"settled twice: {doubled}"
    never = place.rows(
        "SELECT uid FROM queues_job WHERE status = 'completed' AND NOT EXISTS"
        " (SELECT 1 FROM queues_attempt WHERE job_id = queues_job.id AND outcome = 'succeeded')"
    )
    assert not never, f"completed without an attempt: {never}"
    assert_nothing_is_held(place)


def assert_nothing_is_held(place: Place) -> None:
    """Slots of limits and of accounts are at 0 again, and RQ's keys are gone with what they stood for."""
    with place.instance.client() as client:

        def held() -> dict[str, Any]:
            usage = client.get("/api/v1/limits/usage?policy=inflight").json()["results"]
            accounts = client.get("/api/v1/accounts").json()["results"]
            return {
                "active": client.get("/api/v1/queue/status").json()["active_requests"],
                "policy": sum(row["used"] for row in usage),
                "accounts": sum(row["in_flight"] for row in accounts),
                "belt": _on_redis(place),
            }

        wait_until(lambda: not any(held().values()), 90, lambda: f"still held: {held()}")


def _on_redis(place: Place) -> int:
    with place.instance.redis() as redis:
        lanes = sum(redis.llen(f"rq:queue:{lane}{part}") for lane in ("io", "cpu") for part in ("", ":intermediate"))
        return lanes + sum(1 for _ in redis.scan_iter("rq:job:*", count=1000))


def slowest_orphan(place: Place, killed: Mapping[str, float]) -> float:
    """The longest time from a worker's death to the next start of a job that it ran, in seconds."""
    longest = 0.0
    for job, number, worker in place.rows("SELECT job_id, number, worker FROM queues_attempt WHERE outcome = 'lost'"):
        if worker not in killed:
            continue
        following = place.rows(
            "SELECT started_at FROM queues_attempt WHERE job_id = ? AND number > ? ORDER BY number", job, number
        )
        assert following, f"job {job} ran no more after attempt {number}"
        longest = max(longest, seconds(following[0][0]) - killed[worker])
    return longest
