"""Jobs over a running instance's REST, as a caller of it would send and follow them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.integration.controlplane.simulator.process import Simulator
from tests.support.instance import wait_until
from tests.support.shapes import EMBEDDED, Place, placed

FINAL = ("completed", "dead", "cancelled")

CONFIG = """
version: 1
projects: [{{slug: acme}}, {{slug: heavy, weight: 3}}, {{slug: light, weight: 1}}, {{slug: limited}}, {{slug: narrow}}, {{slug: thrifty}}]
policies:
  - {{name: inflight, scope: project, project: narrow, unit: requests, algorithm: concurrency, limit: 1, lease_ttl: 60s}}
  - {{name: twice, scope: project, project: limited, unit: requests, algorithm: sliding_window, limit: 2, window: 4s}}
  - {{name: thrift, scope: project, project: thrifty, unit: requests, algorithm: fixed_window, limit: 10, window: 1h, pause_at: 0.5, pause: low}}
providers: [{{name: sim, dialect: openai, base_url: "{url}", auth_header: "Authorization: Bearer {{credential}}", timeout: 10s}}]
pools: [{{name: llm, provider: sim, accounts: [{{name: a1, credential_env: K1}}]}}]
retry_policies:
  - {{name: brisk, strategy: fixed, initial: 100ms, max: 100ms, max_attempts: 3, jitter: 0}}
  - {{name: clever, strategy: smart, max_attempts: 3}}
  - {{name: forgiving, strategy: fixed, initial: 100ms, max: 100ms, max_attempts: 1, jitter: 0, auto_replays: 1, auto_replay_after: 1s}}
queues:
  - {{name: brisk, retry_policy: brisk, timeout: 30s}}
  - {{name: clever, retry_policy: clever}}
  - {{name: forgiving, retry_policy: forgiving}}
  - {{name: small, max_size: 5}}
  - {{name: parked, max_size: 100000}}
  - {{name: drained}}
  - {{name: single, concurrency: 1}}
  - {{name: pair, concurrency: 2}}
recurring: [{{name: each-minute, cron: "* * * * *", type: t.mark, project: acme, payload: {{name: ticks}}}}]
"""


class JobsClient:
    """Submits and reads jobs over REST."""

    def __init__(self, place: Place, scratch: Path, http: httpx.Client) -> None:
        self.place = place
        self.scratch = scratch
        self.http = http

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.http.request(method, f"/api/v1/{path}", json=body, headers=headers)

    def get(self, path: str) -> Any:
        answer = self.call("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, expected: int = 200, **headers: str) -> Any:
        answer = self.call("POST", path, {} if body is None else body, **headers)
        assert answer.status_code == expected, answer.text
        return answer.json()

    def job(self, type: str = "t.echo", **fields: Any) -> str:
        """Submit one; its id."""
        body = {"type": type, "queue": "batch", "project": "acme", **fields}
        return str(self.post("jobs", body, expected=202)["id"])

    def jobs(self, count: int, type: str = "t.echo", batch: Any = None, **fields: Any) -> list[str]:
        """Submit many in one call; their ids in order."""
        body = {"type": type, "queue": "batch", "project": "acme", **fields}
        made = self.post("jobs/bulk", {"batch": batch or {}, "jobs": [body] * count}, expected=202)
        ids: list[str] = made["ids"]
        return ids

    def look(self, uid: str) -> Any:
        return self.get(f"jobs/{uid}")

    def wait(self, *uids: str, status: str = "completed", seconds: float = 60.0) -> Any:
        """Until all have that status; the last one, whole."""
        for uid in uids:
            self.until(uid, lambda job: job["status"] == status, seconds)
        return self.look(uids[-1])

    def until(self, uid: str, condition: Callable[[Any], bool], seconds: float = 60.0) -> None:
        wait_until(lambda: condition(self.look(uid)), seconds, lambda: str(self.look(uid)))

    def steer(self, queue: str, verb: str) -> None:
        self.post(f"queues/{queue}/{verb}", {"reason": "test"})

    def order(self, *uids: str) -> list[str]:
        """The jobs in the order in which they started."""
        return sorted(uids, key=lambda uid: self.look(uid)["started_at"])


@contextmanager
def jobs_client(scratch: Path, **environ: str) -> Iterator[JobsClient]:
    """An instance with the tests' tasks, queues and policies, and a provider for its one pool."""
    with Simulator("--rpm", "60000") as simulator:
        given = {
            "SLUICE_TASK_MODULES": "tests.acceptance.tasks,tests.acceptance.django_tasks_here",
            "ACCEPTANCE_SCRATCH": str(scratch),
            "DJANGO_SETTINGS_MODULE": "tests.acceptance.settings",
            "SLUICE_CALLBACK_NETWORKS": "127.0.0.0/8",  # where the tests receive; with SQLite it is the default
            "K1": "key-1",
            **environ,
        }
        with placed(EMBEDDED, "--workers", "1", environ=given) as place:
            place.instance.manage("apply", "-", stdin=CONFIG.format(url=simulator.base_url))
            with place.instance.client() as http:
                yield JobsClient(place, scratch, http)
