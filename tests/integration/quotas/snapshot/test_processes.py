"""A change of a policy is in force in every process within a second, without a query per check, with 1,000 policies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from quotas.models import Policy
from quotas.snapshot.freshness import LOOK_EVERY
from tests.support.postgres import url_of

POLICIES = 1000
RELOAD = 20
"""Queries that reading all of the configuration takes at most, however many policies there are."""


class Watcher:
    def __init__(self) -> None:
        database = settings.DATABASES["default"]
        environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
        environ["DATABASE_URL"] = url_of(database)
        command = [sys.executable, "-m", "tests.integration.quotas.snapshot.watcher"]
        root = Path(__file__).parents[4]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ, cwd=root
        )

    def send(self, wanted: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


@pytest.fixture
def watchers() -> Iterator[list[Watcher]]:
    started = [Watcher() for _ in range(3)]
    yield started
    for watcher in started:
        watcher.process.kill()
        watcher.process.communicate()


@pytest.mark.django_db(transaction=True)
def test_changes_are_in_force_everywhere(watchers: list[Watcher]) -> None:
    common = {"scope": "user", "algorithm": "fixed_window", "window": 3600.0, "limit": 100}
    # A few apply to everybody; most are a project's own, as in a large installation.
    Policy.objects.bulk_create(
        Policy(name=f"p{n}", **{**common, "scope": "endpoint", "match": f"GET /p/{n}/*"}) for n in range(POLICIES - 1)
    )
    watched = Policy.objects.create(name="watched", **common)
    changes: list[dict[str, Any]] = [
        {"limit": 10},
        {"limit": 1000},
        {"algorithm": "token_bucket", "generation": 1},
        {"mode": "shadow"},
        {"enabled": False},
    ]
    everywhere(watchers, watched)
    for change in changes:
        for column, value in change.items():
            setattr(watched, column, value)
        answers = everywhere(watchers, watched, save=True)
        for answer in answers:
            # One look each half second, and one reading of everything: none of it per check.
            assert answer["queries"] <= answer["seconds"] / LOOK_EVERY + 2 + RELOAD, answer


def everywhere(watchers: list[Watcher], policy: Policy, *, save: bool = False) -> list[dict[str, Any]]:
    """Wait until every process uses the policy as it is here; the answer of each."""
    wanted = [policy.algorithm, policy.limit, policy.mode] if policy.enabled else None
    for watcher in watchers:
        watcher.send(wanted)
    began = time.time()
    if save:
        policy.save()
    answers = [watcher.receive() for watcher in watchers]
    assert [answer["found"] for answer in answers] == [wanted] * len(watchers), answers
    longest = max(answer["at"] for answer in answers) - began
    print(f"{wanted}: in force after {longest:.2f} s, {answers[0]['resolved']} resolutions meanwhile")
    return answers
