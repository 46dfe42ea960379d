"""Limits from outside: configured by file, asked over HTTP, by several processes at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx

from tests.support.instance import Instance, wait_until

POLICIES = """
version: 1
projects: [{slug: race}]
policies:
  - {name: race-ip, scope: ip, project: race, algorithm: fixed_window, limit: 70, window: 365d}
  - {name: race-user, scope: user, project: race, algorithm: sliding_window, limit: 50, window: 1h}
  - {name: race-project, scope: project, project: race, algorithm: token_bucket, limit: 90, window: 365d}
  - {name: race-endpoint, scope: endpoint, match: "POST /race", project: race, algorithm: fixed_window, limit: 1000, window: 365d}
"""
BODY = {"project": "race", "ip": "203.0.113.9", "user": "u-1", "endpoint": "/race", "method": "POST"}


def in_force(client: httpx.Client, body: dict[str, object], limit: int) -> bool:
    answer = client.post("/api/v1/limits/check", json={**body, "dry_run": True})
    return answer.status_code in (200, 429) and limit in [state["limit"] for state in answer.json()["limits"]]


def test_two_processes_of_many_threads_are_held_to_the_smallest_limit(shared_instance: Instance) -> None:
    shared_instance.manage("apply", "-", stdin=POLICIES)
    key = shared_instance.credentials["platform_key"]
    root = Path(__file__).parents[2]
    with shared_instance.client(key) as client:
        wait_until(lambda: in_force(client, dict(BODY), 50), 10)
        command = [
            sys.executable,
            "-m",
            "tests.acceptance.check_load",
            shared_instance.url,
            key,
            "200",
            "32",
            json.dumps(BODY),
        ]
        racers = [
            subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
            for _ in range(2)
        ]
        outcome: Counter[str] = Counter()
        for racer in racers:
            reported, _ = racer.communicate(timeout=150)
            outcome.update(json.loads(reported))
        assert outcome == {"200": 50, "429": 350}
        rows = client.get("/api/v1/limits/usage", params={"project": "race"}).json()["results"]
        assert {row["policy"]: row["used"] for row in rows} == dict.fromkeys(
            ("race-ip", "race-user", "race-project", "race-endpoint"), 50
        )


def test_changed_policy_is_in_force_at_once_and_mistakes_change_nothing(shared_instance: Instance) -> None:
    text = "version: 1\npolicies:\n  - {{name: live, scope: custom, key_name: live, algorithm: fixed_window, limit: {}, window: 1h}}\n"
    body = {"keys": {"live": "x"}}
    with shared_instance.client(shared_instance.credentials["platform_key"]) as client:
        for limit in (100, 10, 1000):
            shared_instance.manage("apply", "-", stdin=text.format(limit))
            wait_until(lambda: in_force(client, dict(body), limit), 10)  # noqa: B023
        wrong = shared_instance.manage("apply", "-", stdin=text.format("many"), check=False)
        assert wrong.returncode != 0 and "line 3" in wrong.stderr
        assert in_force(client, dict(body), 1000)


def test_key_without_the_scope_and_key_of_another_project(shared_instance: Instance) -> None:
    shared_instance.manage("apply", "-", stdin="version: 1\nprojects: [{slug: fort}, {slug: hut}]\n")
    made = shared_instance.manage("apikey", "create", "--name", "t", "--project", "fort", "--scopes", "check")
    with shared_instance.client(made.stdout.strip()) as client:
        assert client.post("/api/v1/limits/check", json={}).status_code == 200
        assert client.get("/api/v1/limits/usage").status_code == 403
        assert client.post("/api/v1/limits/check", json={"project": "hut"}).status_code == 404
        shared_instance.manage("apikey", "revoke", made.stdout.strip())
        wait_until(lambda: client.post("/api/v1/limits/check", json={}).status_code == 401, 10)
