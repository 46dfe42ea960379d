"""Jobs through a real instance to a simulated provider, with kills, pauses and interrupts: none is lost or runs twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.controlplane.simulator.process import Simulator
from tests.support.instance import BASE_DIR, Instance, wait_until
from tests.support.product import Product
from tests.support.shapes import EMBEDDED, Deployment, Plan, deployed

CONFIG = """
version: 1
projects: [{{slug: acme}}]
providers: [{{name: sim, dialect: openai, base_url: "{url}", auth_header: "Authorization: Bearer {{credential}}", timeout: 10s}}]
pools:
  - name: llm
    provider: sim
    strategy: round_robin
    pause_at: null
    limits: [{{unit: requests, algorithm: token_bucket, limit: {rpm}, window: 60s, burst: 10}}]
    accounts: [{{name: a1, credential_env: K1}}, {{name: a2, credential_env: K2}}, {{name: a3, credential_env: K3}}, {{name: a4, credential_env: K4}}]
queues:
  - {{name: calls, timeout: 30s, pool: llm, lane: io}}
  - {{name: parked, max_size: {size}, pool: llm}}
"""


@dataclass
class Calls:
    """An instance and the provider that its jobs call."""

    deployment: Deployment
    simulator: Simulator

    @property
    def instance(self) -> Instance:
        return self.deployment.instance

    @property
    def product(self) -> Product:
        return self.deployment.product

    def apply(self, rpm: int = 600, size: int = 100_000) -> None:
        self.deployment.apply(CONFIG.format(url=self.simulator.base_url, rpm=rpm, size=size))

    def submit(self, count: int, **fields: Any) -> str:
        """A batch of calls; its id."""
        jobs = [job(number, **fields) for number in range(count)]
        return str(self.product.post("jobs/bulk", {"jobs": jobs}, expected=202)["batch"]["id"])

    def totals(self, batch: str) -> dict[str, int]:
        """The batch's jobs by status; {} while no web process serves."""
        try:
            response = self.product.call("GET", f"batches/{batch}")
        except httpx.TransportError:
            return {}
        totals: dict[str, int] = response.json()["totals"] if response.status_code == 200 else {}
        return totals

    def wait_for(self, batch: str, completed: int, seconds: float = 90.0) -> None:
        wait_until(
            lambda: self.totals(batch).get("completed", 0) >= completed,
            seconds,
            lambda: f"{completed} completed: {self.totals(batch)}\n{self.instance.output}",
        )

    def assert_all_ended_once(self, batch: str, count: int) -> None:
        """All complete, each attempt sent once, as the provider counts them; no slot is in use any more."""
        totals = self.totals(batch)
        assert totals == {**dict.fromkeys(totals, 0), "completed": count}
        stats = self.simulator.stats()
        assert stats["repeated_request_ids"] == 0
        assert stats["succeeded"] >= count
        wait_until(lambda: self.product.get("queue/status")["active_requests"] == 0, 30)
        wait_until(
            lambda: [row["in_flight"] for row in self.product.results("accounts")] == [0] * 4,
            60,
            lambda: str(self.product.results("accounts")),
        )


def job(number: int, **fields: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": f"number {number}"}], "max_tokens": 5}
    return {
        "type": "http.request", "queue": "calls", "project": "acme",
        "payload": {"method": "POST", "path": "/v1/chat/completions", "json": body}, **fields,
    }  # fmt: skip


@contextmanager
def calls(*flags: str, **environ: str) -> Iterator[Calls]:
    """A started instance with four accounts of a provider that runs with these flags."""
    keys = {f"K{number}": f"key-{number}" for number in range(1, 5)}
    plan = Plan(environ={**keys, **environ})
    with Simulator("--rpm", "60000", *flags) as simulator, deployed(EMBEDDED, plan) as deployment:
        made = Calls(deployment, simulator)
        made.apply()
        yield made


@pytest.fixture(scope="module")
def calm() -> Iterator[Calls]:
    """One that the tests leave alive."""
    with calls("--latency", "20") as made:
        yield made


@pytest.mark.timeout(300)
def test_a_batch_completes_whatever_is_killed() -> None:
    """One kill of each kind in the middle of one batch: a worker, the dispatcher, the parent; and Redis emptied."""
    with calls("--latency", "200") as one:
        batch = one.submit(320)
        one.wait_for(batch, 30)
        one.instance.kill_child("worker-io")
        one.wait_for(batch, 80)
        one.instance.kill_child("dispatcher")
        one.wait_for(batch, 140)
        one.instance.flushall()
        one.wait_for(batch, 200)
        one.instance.kill()
        one.instance.no_survivors()
        one.instance.start()
        one.wait_for(batch, 320)
        one.assert_all_ended_once(batch, 320)


def test_without_a_kill_no_call_is_made_twice(calm: Calls) -> None:
    before = calm.simulator.stats()
    batch = calm.submit(200)
    calm.wait_for(batch, 200)
    calm.assert_all_ended_once(batch, 200)
    stats = calm.simulator.stats()
    assert stats["requests"] - before["requests"] == 200
    assert (stats["duplicates"], stats["refused"]) == (before["duplicates"], before["refused"])


@pytest.mark.parametrize(
    ("pause", "resume"), [("queues/calls/pause", "queues/calls/resume"), ("pools/llm/pause", "pools/llm/resume")]
)
def test_a_pause_takes_effect_within_a_second_and_a_resume_continues(calm: Calls, pause: str, resume: str) -> None:
    batch = calm.submit(240)
    calm.wait_for(batch, 20)
    calm.product.post(pause, {"reason": "test"})
    paused = datetime.now(UTC)
    wait_until(lambda: (datetime.now(UTC) - paused).total_seconds() > 2.5, 10)
    wait_until(lambda: calm.product.get("queue/status")["active_requests"] == 0, 15)
    rows = calm.product.get(f"jobs?batch={batch}&status=completed&limit=500")["results"]
    assert len(rows) < 240
    late = [row for row in rows if datetime.fromisoformat(row["started_at"]) > paused]
    assert all((datetime.fromisoformat(row["started_at"]) - paused).total_seconds() < 1.0 for row in late)
    calm.product.post(resume, {"reason": "test"})
    calm.wait_for(batch, 240)


@pytest.mark.timeout(240)
def test_a_worker_that_is_asked_to_stop_returns_what_it_cannot_finish() -> None:
    with calls("--latency", "5000", SLUICE_GRACE="0.2") as one:
        batch = one.submit(120, max_attempts=1)
        wait_until(lambda: one.totals(batch).get("executing", 0) > 20, 30)
        for pid in one.instance.pids("worker-io"):
            os.kill(pid, signal.SIGTERM)
        one.wait_for(batch, 120)
        one.assert_all_ended_once(batch, 120)
        attempts = [
            attempt["outcome"]
            for row in one.product.get(f"jobs?batch={batch}&limit=500")["results"]
            for attempt in one.product.get(f"jobs/{row['id']}")["attempts"]
        ]
        assert attempts.count("succeeded") == 120
        assert "lost" in attempts, "it had unfinished jobs when it had to stop"


# The command


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_submit_names_the_line_and_accepts_nothing(calm: Calls, tmp_path: Path) -> None:
    before = calm.product.get("queue/status")["total_requests"]
    file = write(tmp_path / "bad.jsonl", [*(job(number) for number in range(16)), "{", job(17)])
    done = calm.instance.manage("submit", str(file), "--project", "acme", check=False)
    assert done.returncode == 1
    assert "line 17" in done.stderr and "JSON" in done.stderr and "Traceback" not in done.stderr
    assert calm.product.get("queue/status")["total_requests"] == before


def test_submit_waits_and_prints_how_it_ended(calm: Calls, tmp_path: Path) -> None:
    file = write(tmp_path / "good.jsonl", [job(number) for number in range(40)])
    done = calm.instance.manage("submit", str(file), "--project", "acme", "--wait", check=False)
    assert done.returncode == 0, done.stderr
    assert "40 completed" in done.stdout
    again = calm.instance.manage("submit", str(file), "--project", "acme", "--wait", check=False)
    assert again.returncode == 0
    assert "40 completed" in again.stdout, "the same file is the same batch"
    lost = job(1, payload={"method": "GET", "path": "/no/such/place"})
    file = write(tmp_path / "dead.jsonl", [job(0), lost])
    done = calm.instance.manage("submit", str(file), "--project", "acme", "--wait", check=False)
    assert done.returncode == 1
    assert "1 dead" in done.stdout
    unknown = calm.instance.manage("submit", str(file), "--project", "nobody", check=False)
    assert (unknown.returncode, "nobody" in unknown.stderr) == (1, True)
    absent = calm.instance.manage("submit", str(tmp_path / "none"), "--project", "acme", check=False)
    assert (absent.returncode, "Traceback" in absent.stderr) == (1, False)


def test_submit_interrupted_and_resumed_doubles_nothing(calm: Calls, tmp_path: Path) -> None:
    """The queue has room for the first slice only, so that the command is in the middle when it is interrupted."""
    file = write(tmp_path / "long.jsonl", [job(number, queue="parked") for number in range(2500)])
    calm.product.pause("parked")
    calm.apply(size=1500)
    before = calm.product.get("queue/status")["total_requests"]
    command = [sys.executable, "manage.py", "submit", str(file), "--project", "acme"]
    process = subprocess.Popen(
        command,
        cwd=BASE_DIR,
        env=calm.instance.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with SIGINT ignored, and the tests may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_until(lambda: calm.product.get("queue/status")["total_requests"] == before + 1000, 60)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=30)
    assert (process.returncode, "Nothing is lost" in printed) == (130, True), printed
    calm.apply()
    for _ in range(2):
        calm.instance.manage("submit", str(file), "--project", "acme")
        assert calm.product.get("queue/status")["total_requests"] == before + 2500
