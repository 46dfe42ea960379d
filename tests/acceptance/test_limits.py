"""Limits that several processes check at once, that change, and that keys without the scope may not check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.instance import wait_until
from tests.support.product import Product
from tests.support.shapes import Deployment

POLICIES = """
version: 1
projects: [{slug: race}]
policies:
  - {name: race-ip, scope: ip, project: race, algorithm: fixed_window, limit: 70, window: 365d}
  - {name: race-user, scope: user, project: race, algorithm: sliding_window, limit: 50, window: 1h}
  - {name: race-project, scope: project, project: race, algorithm: token_bucket, limit: 90, window: 365d}
  - {name: race-endpoint, scope: endpoint, match: "POST /race", project: race, algorithm: fixed_window, limit: 1000, window: 365d}
"""
BODY: dict[str, Any] = {"project": "race", "ip": "203.0.113.9", "user": "u-1", "endpoint": "/race", "method": "POST"}


def in_force(product: Product, body: dict[str, Any], limit: int) -> bool:
    response = product.check(**body, dry_run=True)
    return response.status_code in (200, 429) and limit in [state["limit"] for state in response.json()["limits"]]


def test_two_processes_of_many_threads_stay_within_the_smallest_limit(shared: Deployment) -> None:
    shared.apply(POLICIES)
    product = shared.product
    key = shared.instance.credentials["platform_key"]
    root = Path(__file__).parents[2]
    wait_until(lambda: in_force(product, BODY, 50), 10)
    command = [
        sys.executable,
        "-m",
        "tests.acceptance.concurrent_checks",
        shared.instance.url,
        key,
        "200",
        "32",
        json.dumps(BODY),
    ]
    racers = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for _ in range(2)
    ]
    outcome: Counter[str] = Counter()
    for racer in racers:
        printed, _ = racer.communicate(timeout=150)
        outcome.update(json.loads(printed))
    assert outcome == {"200": 50, "429": 350}
    rows = product.usage(project="race")
    assert {row["policy"]: row["used"] for row in rows} == dict.fromkeys(
        ("race-ip", "race-user", "race-project", "race-endpoint"), 50
    )


def test_changed_policy_is_in_force_at_once_and_mistakes_change_nothing(shared: Deployment) -> None:
    text = "version: 1\npolicies:\n  - {{name: live, scope: custom, key_name: live, algorithm: fixed_window, limit: {}, window: 1h}}\n"
    body = {"keys": {"live": "x"}}
    for limit in (100, 10, 1000):
        shared.apply(text.format(limit))
        wait_until(lambda: in_force(shared.product, body, limit), 10)  # noqa: B023
    wrong = shared.instance.manage("apply", "-", stdin=text.format("many"), check=False)
    assert wrong.returncode != 0 and "line 3" in wrong.stderr
    assert in_force(shared.product, body, 1000)


def test_key_without_the_scope_and_key_of_another_project(shared: Deployment) -> None:
    instance = shared.instance
    shared.apply("version: 1\nprojects: [{slug: fort}, {slug: hut}]\n")
    made = instance.manage("apikey", "create", "--name", "t", "--project", "fort", "--scopes", "check")
    with Product.of(instance, made.stdout.strip()) as product:
        product.post("limits/check")
        assert product.call("GET", "limits/usage").status_code == 403
        product.post("limits/check", {"project": "hut"}, expected=404)
        instance.manage("apikey", "revoke", made.stdout.strip())
        wait_until(lambda: product.check().status_code == 401, 10)
