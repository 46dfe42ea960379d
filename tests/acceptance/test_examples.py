"""The examples, run as their docstrings say, against a real instance and simulated providers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.controlplane.simulator.process import Simulator
from tests.support.shapes import EMBEDDED, Deployment, Plan, deployed

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
def examples() -> Iterator[Deployment]:
    """An instance with the example's task module, one provider for calls and one for messages."""
    environ = {
        "SLUICE_TASK_MODULES": "task_module",
        "PYTHONPATH": str(EXAMPLES),
        "SIM_KEY": "sk-1",
        "BOT_TOKEN": "123:abc",
    }
    with (
        Simulator() as openai,
        Simulator("--dialect", "telegram") as telegram,
        deployed(EMBEDDED, Plan(environ=environ)) as deployment,
    ):
        deployment.apply(PROVIDERS % (openai.base_url, telegram.base_url))
        yield deployment


def run(examples: Deployment, script: str, *words: str) -> str:
    instance = examples.instance
    environ = {**os.environ, "SLUICE_URL": instance.url, "SLUICE_KEY": instance.credentials["platform_key"]}
    done = subprocess.run(
        [sys.executable, script, *words], cwd=EXAMPLES, env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_fan_out_follows_500_calls_to_their_end_and_doubles_none_when_repeated(examples: Deployment) -> None:
    first = run(examples, "fan_out.py", "--calls", "500")
    assert "'completed': 500, 'dead': 0" in first
    run(examples, "fan_out.py", "--calls", "500")
    assert examples.product.get("queue/status")["total_requests"] == 500


def test_telegram_sender_sends_each_message(examples: Deployment) -> None:
    printed = run(
        examples, "telegram_sender.py", "--pool", "bots", "12345:Hello", "12345:again", "-100987:Hello, group"
    )
    ids = [line.split()[1] for line in printed.splitlines()]
    assert len(ids) == 3
    examples.product.wait(*ids)


def test_a_task_of_ones_own_runs_and_refuses_a_bad_payload(examples: Deployment) -> None:
    job = {"type": "reports.word_count", "project": "demo", "payload": {"text": "one two three"}}
    uid = examples.product.post("jobs", job, expected=202)["id"]
    assert examples.product.wait(uid)["result"] == {"words": 3}
    refused = examples.product.post("jobs", job | {"payload": {"text": 3}}, expected=400)
    assert refused["errors"][0]["pointer"] == "#/payload/text"
