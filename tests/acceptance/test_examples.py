"""The examples, run as their docstrings say, against a real instance and simulated providers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.controlplane.simulator.process import Simulator
from tests.support.instance import Instance, running, wait_until

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PROVIDERS = """
version: 1
projects: [{slug: demo}]
providers:
  - {name: sim, dialect: openai, base_url: "%s"}
  - {name: chat, dialect: telegram, base_url: "%s/bot{credential}", auth_header: ""}
pools:
  - name: demo-pool
    provider: sim
    limits: [{unit: requests, algorithm: token_bucket, limit: 100, window: 1s}]
    accounts: [{name: a1, credential_env: SIM_KEY}]
  - name: bots
    provider: chat
    limits: [{unit: requests, algorithm: token_bucket, limit: 1, window: 1s, burst: 1, per_key: true}]
    accounts: [{name: bot, credential_env: BOT_TOKEN}]
"""


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    """An instance with the example's task module, one provider for calls and one for messages."""
    environ = {
        "SLUICE_TASK_MODULES": "task_module",
        "PYTHONPATH": str(EXAMPLES),
        "SIM_KEY": "sk-1",
        "BOT_TOKEN": "123:abc",
    }
    with Simulator() as openai, Simulator("--dialect", "telegram") as telegram, running(environ=environ) as started:
        started.manage("apply", "-", stdin=PROVIDERS % (openai.base_url, telegram.base_url))
        yield started


def run(instance: Instance, script: str, *words: str) -> str:
    environ = {**os.environ, "SLUICE_URL": instance.url, "SLUICE_KEY": instance.credentials["platform_key"]}
    done = subprocess.run(
        [sys.executable, script, *words], cwd=EXAMPLES, env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_fan_out_follows_500_calls_to_their_end_and_doubles_none_when_repeated(instance: Instance) -> None:
    first = run(instance, "fan_out.py", "--calls", "500")
    assert "'completed': 500, 'dead': 0" in first
    run(instance, "fan_out.py", "--calls", "500")
    with instance.client() as client:
        stats = client.get("/api/v1/queue/status").json()
    assert stats["total_requests"] == 500


def test_telegram_sender_sends_each_message(instance: Instance) -> None:
    printed = run(
        instance, "telegram_sender.py", "--pool", "bots", "12345:Hello", "12345:again", "-100987:Hello, group"
    )
    ids = [line.split()[1] for line in printed.splitlines()]
    assert len(ids) == 3
    with instance.client() as client:
        for uid in ids:
            wait_until(lambda uid=uid: status(client, uid) == "completed", 30, lambda uid=uid: status(client, uid))


def test_a_task_of_ones_own_runs_and_refuses_a_bad_payload(instance: Instance) -> None:
    job = {"type": "reports.word_count", "project": "demo", "payload": {"text": "one two three"}}
    with instance.client() as client:
        made = client.post("/api/v1/jobs", json=job)
        assert made.status_code == 202, made.text
        uid = made.json()["id"]
        wait_until(lambda: status(client, uid) == "completed", 30, lambda: status(client, uid))
        assert client.get(f"/api/v1/jobs/{uid}").json()["result"] == {"words": 3}
        refused = client.post("/api/v1/jobs", json=job | {"payload": {"text": 3}})
        assert refused.status_code == 400 and refused.json()["errors"][0]["pointer"] == "#/payload/text"


def status(client: httpx.Client, uid: str) -> str:
    return str(client.get(f"/api/v1/jobs/{uid}").json()["status"])
