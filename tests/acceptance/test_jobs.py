"""Jobs through a real instance to a real provider: killed, emptied, paused, interrupted; nothing lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.controlplane.simulator.process import Simulator
from tests.support.instance import BASE_DIR, Instance, running, wait_until

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


class World:
    """An instance, its provider, and what is asked of them."""

    def __init__(self, instance: Instance, simulator: Simulator) -> None:
        self.instance = instance
        self.simulator = simulator

    def apply(self, rpm: int = 600, size: int = 100_000) -> None:
        self.instance.manage("apply", "-", stdin=CONFIG.format(url=self.simulator.base_url, rpm=rpm, size=size))

    def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        with self.instance.client() as client:
            return client.request(method, f"/api/v1/{path}", json=body)

    def get(self, path: str) -> Any:
        """The answer; {} while the web server is away."""
        try:
            answer = self.call("GET", path)
        except httpx.TransportError:
            return {}
        return answer.json() if answer.status_code == 200 else {}

    def submit(self, count: int, **fields: Any) -> str:
        """A batch of calls; its id."""
        answer = self.call("POST", "jobs/bulk", {"jobs": [job(number, **fields) for number in range(count)]})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["batch"]["id"])

    def totals(self, batch: str) -> dict[str, int]:
        found: dict[str, int] = self.get(f"batches/{batch}").get("totals", {})
        return found

    def wait_for(self, batch: str, completed: int, seconds: float = 90.0) -> None:
        wait_until(
            lambda: self.totals(batch).get("completed", 0) >= completed,
            seconds,
            lambda: f"{completed} completed: {self.totals(batch)}\n{self.instance.output}",
        )

    def assert_consistent(self, batch: str, count: int) -> None:
        """All complete, each attempt sent once, as the provider counts them; nothing is reserved any more."""
        totals = self.totals(batch)
        assert totals == {**dict.fromkeys(totals, 0), "completed": count}
        stats = self.simulator.stats()
        assert stats["repeated_request_ids"] == 0
        assert stats["succeeded"] >= count
        wait_until(lambda: self.get("queue/status").get("active_requests") == 0, 30)
        wait_until(
            lambda: [row["in_flight"] for row in self.get("accounts").get("results", [])] == [0] * 4,
            60,
            lambda: str(self.get("accounts")),
        )


def job(number: int, **fields: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": f"number {number}"}], "max_tokens": 5}
    return {
        "type": "http.request", "queue": "calls", "project": "acme",
        "payload": {"method": "POST", "path": "/v1/chat/completions", "json": body}, **fields,
    }  # fmt: skip


@contextmanager
def world(*flags: str, **environ: str) -> Iterator[World]:
    keys = {f"K{number}": f"key-{number}" for number in range(1, 5)}
    with Simulator("--rpm", "60000", *flags) as simulator, running(environ={**keys, **environ}) as instance:
        made = World(instance, simulator)
        made.apply()
        yield made


@pytest.fixture(scope="module")
def calm() -> Iterator[World]:
    """One that nobody kills."""
    with world("--latency", "20") as made:
        yield made


@pytest.mark.timeout(300)
def test_whatever_is_killed_the_batch_ends_complete() -> None:
    """One kill of each kind in the middle of one batch: a worker, the dispatcher, the parent; and Redis emptied."""
    with world("--latency", "200") as one:
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
        one.assert_consistent(batch, 320)


def test_without_a_kill_no_call_is_made_twice(calm: World) -> None:
    before = calm.simulator.stats()
    batch = calm.submit(200)
    calm.wait_for(batch, 200)
    calm.assert_consistent(batch, 200)
    stats = calm.simulator.stats()
    assert stats["requests"] - before["requests"] == 200
    assert (stats["duplicates"], stats["refused"]) == (before["duplicates"], before["refused"])


@pytest.mark.parametrize(
    ("pause", "resume"), [("queues/calls/pause", "queues/calls/resume"), ("pools/llm/pause", "pools/llm/resume")]
)
def test_a_pause_holds_within_a_second_and_a_resume_goes_on(calm: World, pause: str, resume: str) -> None:
    batch = calm.submit(240)
    calm.wait_for(batch, 20)
    assert calm.call("POST", pause, {"reason": "test"}).status_code == 200
    paused = datetime.now(UTC)
    wait_until(lambda: (datetime.now(UTC) - paused).total_seconds() > 2.5, 10)
    wait_until(lambda: calm.get("queue/status")["active_requests"] == 0, 15)
    rows = calm.get(f"jobs?batch={batch}&status=completed&limit=500")["results"]
    assert len(rows) < 240
    late = [row for row in rows if datetime.fromisoformat(row["started_at"]) > paused]
    assert all((datetime.fromisoformat(row["started_at"]) - paused).total_seconds() < 1.0 for row in late)
    assert calm.call("POST", resume, {"reason": "test"}).status_code == 200
    calm.wait_for(batch, 240)


@pytest.mark.timeout(240)
def test_a_worker_that_is_asked_to_stop_hands_back_what_it_cannot_finish() -> None:
    with world("--latency", "5000", SLUICE_GRACE="0.2") as one:
        batch = one.submit(120, max_attempts=1)
        wait_until(lambda: one.totals(batch).get("executing", 0) > 20, 30)
        for pid in one.instance.pids("worker-io"):
            os.kill(pid, signal.SIGTERM)
        one.wait_for(batch, 120)
        one.assert_consistent(batch, 120)
        attempts = [
            attempt["outcome"]
            for row in one.get(f"jobs?batch={batch}&limit=500")["results"]
            for attempt in one.get(f"jobs/{row['id']}")["attempts"]
        ]
        assert attempts.count("succeeded") == 120
        assert "lost" in attempts, "some were in hand when it was asked to stop"


# The command


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_submit_names_the_line_and_accepts_nothing(calm: World, tmp_path: Path) -> None:
    before = calm.get("queue/status")["total_requests"]
    for bad, words in [
        ('{"type": "http.request", "payload": {"path": NaN}}', "NaN"),
        ('{"type": "http.request", "delay": 1e999}', "1e999"),
        ('{"type": "http.request", "delay": -1}', "/delay"),
        ("{", "JSON"),
        ("[]", "object"),
        ('{"type": "http.request", "nonsense": 1}', "/nonsense"),
        ('{"type": "http.request", "payload": {"path": "/\\u0000"}}', "/payload/path"),
        ('{"type": "http.request", "queue": "nowhere", "payload": {"path": "/"}}', "queue"),
        ('{"type": "http.request", "payload": {"path": "//evil"}}', "/payload/path"),
    ]:
        file = write(tmp_path / "bad.jsonl", [*(job(number) for number in range(16)), bad, job(17)])
        done = calm.instance.manage("submit", str(file), "--project", "acme", check=False)
        assert done.returncode == 1, bad
        assert "line 17" in done.stderr, (bad, done.stderr)
        assert words in done.stderr, (bad, done.stderr)
        assert "Traceback" not in done.stderr
    assert calm.get("queue/status")["total_requests"] == before


def test_submit_waits_and_says_how_it_ended(calm: World, tmp_path: Path) -> None:
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


def test_submit_interrupted_and_resumed_doubles_nothing(calm: World, tmp_path: Path) -> None:
    """The queue has room for the first slice only, so that the command is in the middle when it is interrupted."""
    file = write(tmp_path / "long.jsonl", [job(number, queue="parked") for number in range(2500)])
    assert calm.call("POST", "queues/parked/pause", {"reason": "stays so"}).status_code == 200
    calm.apply(size=1500)
    before = calm.get("queue/status")["total_requests"]
    command = [sys.executable, "manage.py", "submit", str(file), "--project", "acme"]
    process = subprocess.Popen(
        command,
        cwd=BASE_DIR,
        env=calm.instance.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs deaf to SIGINT, and the tests may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_until(lambda: calm.get("queue/status")["total_requests"] == before + 1000, 60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, "Nothing is lost" in said) == (130, True), said
    calm.apply()
    for _ in range(2):
        calm.instance.manage("submit", str(file), "--project", "acme")
        assert calm.get("queue/status")["total_requests"] == before + 2500
