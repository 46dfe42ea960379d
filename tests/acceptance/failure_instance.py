"""Instances with the tests' own tasks, for tests that kill processes and stop servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.shapes import Place, placed

CONFIG = """
version: 1
projects: [{slug: acme}, {slug: narrow}]
policies:
  - {name: inflight, scope: project, project: acme, unit: requests, algorithm: concurrency, limit: 150, lease_ttl: 60s}
  - {name: inflight-narrow, scope: project, project: narrow, unit: requests, algorithm: concurrency, limit: 8, lease_ttl: 60s}
  - {name: slow, scope: user, unit: requests, algorithm: token_bucket, limit: 5, window: 10s, burst: 1}
retry_policies: [{name: steady, strategy: fixed, initial: 2s, max: 2s, max_attempts: 1000, jitter: 0}]
queues: [{name: patient, retry_policy: steady}, {name: parked}, {name: forked, lane: cpu}, {name: threaded, lane: io}]
"""


@contextmanager
def failure_instance(shape: str, scratch: Path, *options: str, **environ: str) -> Iterator[Place]:
    """An instance of that shape with no I/O worker of its own, unless `options` of `up` say otherwise. Forked jobs and
    workers may take 300 MiB."""
    given = {
        "SLUICE_TASK_MODULES": "tests.acceptance.tasks",
        "ACCEPTANCE_SCRATCH": str(scratch),
        "SLUICE_MAX_MEMORY": "300",
        **environ,
    }
    with placed(shape, *(options or ("--workers", "0")), environ=given) as place:
        place.scratch = scratch
        place.instance.manage("apply", "-", stdin=CONFIG)
        yield place


def submit(place: Place, count: int, type: str = "t.sleep", **fields: Any) -> list[str]:
    """Jobs of one kind; their ids."""
    body = {"jobs": [{"type": type, "queue": "batch", "project": "acme", **fields} for _ in range(count)]}
    with place.instance.client() as client:
        answer = client.post("/api/v1/jobs/bulk", json=body)
    assert answer.status_code == 202, answer.text
    ids: list[str] = answer.json()["ids"]
    return ids
