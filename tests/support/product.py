"""A client of the product: its REST interface as callers and operators use it, with the checks that every test repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx

from tests.support.instance import Instance, wait_until

FINAL = ("completed", "dead", "cancelled")


class Product:
    """Calls `/api/v1/` of one instance with one key. `call` returns the response; the other methods check its status and
    return its JSON. Safe to use from several threads; as a context manager it closes its connections."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    @classmethod
    def of(cls, instance: Instance, key: str | None = None) -> Product:
        """With the platform's key, or another one; with `""` without any."""
        return cls(instance.client(key))

    def __enter__(self) -> Product:
        return self

    def __exit__(self, *exc: object) -> None:
        self.http.close()

    # Any path

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        return self.http.request(method, f"/api/v1/{path}", json=body, params=params, headers=headers)

    def get(self, path: str, **params: Any) -> Any:
        response = self.call("GET", path, params=params or None)
        assert response.status_code == 200, response.text
        return response.json()

    def results(self, path: str, **params: Any) -> list[dict[str, Any]]:
        """The rows of one page of a list."""
        rows: list[dict[str, Any]] = self.get(path, **params)["results"]
        return rows

    def post(
        self, path: str, body: Any = None, *, expected: int = 200, headers: Mapping[str, str] | None = None
    ) -> Any:
        response = self.call("POST", path, {} if body is None else body, headers=headers)
        assert response.status_code == expected, response.text
        return response.json()

    # Jobs

    def submit(self, type: str = "t.echo", **fields: Any) -> str:
        """One job, unless `fields` say otherwise to queue `batch` of project `acme`; its id."""
        return str(self.post("jobs", job_of(type, **fields), expected=202)["id"])

    def submit_bulk(self, count: int, type: str = "t.echo", batch: Any = None, **fields: Any) -> list[str]:
        """So many equal jobs in one call; their ids in order."""
        body = {"batch": batch or {}, "jobs": [job_of(type, **fields)] * count}
        ids: list[str] = self.post("jobs/bulk", body, expected=202)["ids"]
        return ids

    def job(self, uid: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"jobs/{uid}")
        return found

    def status(self, uid: str) -> str:
        return str(self.job(uid)["status"])

    def explain(self, uid: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"jobs/{uid}/explain")
        return found

    def timeline(self, uid: str) -> list[dict[str, Any]]:
        return self.results(f"jobs/{uid}/timeline")

    def until(self, uid: str, condition: Callable[[dict[str, Any]], bool], seconds: float = 60.0) -> dict[str, Any]:
        """The job, once the condition is true for it."""
        wait_until(lambda: condition(self.job(uid)), seconds, lambda: str(self.job(uid)))
        return self.job(uid)

    def wait(self, *uids: str, status: str = "completed", seconds: float = 60.0) -> dict[str, Any]:
        """Until each job has that status; the last one."""
        for uid in uids:
            last = self.until(uid, lambda job: bool(job["status"] == status), seconds)
        return last

    def wait_for_end(self, *uids: str, seconds: float = 90.0) -> list[dict[str, Any]]:
        """The jobs, once each of them has ended in one way or another."""
        return [self.until(uid, lambda job: job["status"] in FINAL, seconds) for uid in uids]

    def in_order_of_start(self, *uids: str) -> list[str]:
        return sorted(uids, key=lambda uid: str(self.job(uid)["started_at"]))

    def cancel(self, uid: str) -> Any:
        return self.post(f"jobs/{uid}/cancel", {"reason": "test"})

    def totals(self, batch: str) -> dict[str, int]:
        """A batch's jobs by status."""
        found: dict[str, int] = self.get(f"batches/{batch}")["totals"]
        return found

    # Queues and pools

    def pause(self, queue: str) -> None:
        self._act(f"queues/{queue}", "pause")

    def resume(self, queue: str) -> None:
        self._act(f"queues/{queue}", "resume")

    def drain(self, queue: str) -> None:
        self._act(f"queues/{queue}", "drain")

    def _act(self, path: str, verb: str) -> None:
        self.post(f"{path}/{verb}", {"reason": "test"})

    # Limits

    def check(self, project: str = "", **asked: Any) -> httpx.Response:
        return self.call("POST", "limits/check", {"project": project, **asked} if project else asked)

    def usage(self, **query: str) -> list[dict[str, Any]]:
        return self.results("limits/usage", **query)

    # Accounts

    def acquire(self, pool: str, **body: Any) -> httpx.Response:
        return self.call("POST", f"pools/{pool}/acquire", body)

    def lease(self, pool: str, **body: Any) -> dict[str, Any]:
        """An account of the pool, which has to have one available."""
        response = self.acquire(pool, **body)
        assert response.status_code == 200, response.text
        lease: dict[str, Any] = response.json()
        return lease

    def settle(self, lease: dict[str, Any], status: int = 200, **report: Any) -> dict[str, Any]:
        settled: dict[str, Any] = self.post(f"leases/{lease['lease']}/settle", {"status": status, **report})
        return settled

    def account(self, name: str) -> dict[str, Any]:
        return next(row for row in self.results("accounts", limit=500) if row["name"] == name)


def job_of(type: str = "t.echo", **fields: Any) -> dict[str, Any]:
    """The body that submits a job."""
    return {"type": type, "queue": "batch", "project": "acme", **fields}
