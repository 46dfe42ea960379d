"""The bots: 50 bots answer 100 users for ten minutes in Telegram's dialect.

    python -m bench.scenarios.bots [--minutes 10] [--bots 50] [--users 100] [--rate 20]

`rate` messages a second are submitted on average, to private chats and to groups: answers to mentions with high
priority, replies with normal priority, and background work (digests), which is submitted all at once at the beginning,
with low priority. Each bot has Telegram's limits (30 a second, one a second per chat, 20 a minute per group), and a policy
limits each user and pauses background work from half of this limit on. The provider enforces its limits, too. Fairness is Jain's index over the users' mean times from submit to
answer; it is taken for each priority.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from typing import Any

import yaml

from bench.scenarios.chart import draw
from bench.scenarios.scene import CHARTS, Sampler, Watch, jain, percentile, report, started, upstream
from tests.integration.controlplane.simulator.process import Simulator

CLASSES = {"mention": "high", "reply": "normal", "background": "low"}
LEVELS = {1: "mention", 5: "reply", 8: "background"}
USER_LIMIT = 30
"""Messages a minute of one user."""


def configuration(url: str, bots: int) -> str:
    limits = [
        {"unit": "requests", "algorithm": "token_bucket", "limit": 30, "window": "1s", "burst": 29},
        {"unit": "requests", "algorithm": "token_bucket", "limit": 1, "window": "1s", "burst": 1, "per_key": True},
        {
            "unit": "requests", "algorithm": "sliding_window", "limit": 20, "window": "60s", "per_key": True,
            "key_match": "-*,@*",
        },
    ]  # fmt: skip
    pools = [
        {
            "name": f"bot-{number}", "provider": "telegram", "limits": limits, "pause_at": None,
            "cooldown": {"default": "5s", "max": "1h"},
            "accounts": [{"name": f"bot-{number}", "credential_env": f"BENCH_BOT_{number}"}],
        }
        for number in range(bots)
    ]  # fmt: skip
    policy = {
        "name": "user-minute", "scope": "user", "unit": "requests", "algorithm": "sliding_window", "limit": USER_LIMIT,
        "window": "60s", "pause_at": 0.5, "pause": "low",
    }  # fmt: skip
    return yaml.safe_dump(
        {
            "version": 1,
            "projects": [{"slug": "bench"}],
            "providers": [
                {"name": "telegram", "dialect": "telegram", "base_url": url + "/bot{credential}", "auth_header": ""}
            ],
            "pools": pools,
            "queues": [{"name": "messages", "timeout": "60s", "max_size": None}],
            "policies": [policy],
        }
    )


class Crowd:
    """The messages of users to bots, the same in each run."""

    def __init__(self, bots: int, users: int) -> None:
        self._chance = random.Random(7)
        self._bots, self._users = bots, users

    def message(self, kind: str) -> dict[str, Any]:
        user, bot = self._chance.randrange(self._users), self._chance.randrange(self._bots)
        group = self._chance.random() < 0.3
        chat = f"-100{bot:04}{user % 5}" if group else f"{100_000 + user}"
        body = {"chat_id": chat, "text": f"{kind} for user {user}"}
        return {
            "type": "http.request", "project": "bench", "queue": "messages", "priority": CLASSES[kind],
            "user": f"user-{user}", "keys": {"chat": chat},
            "payload": {"pool": f"bot-{bot}", "method": "POST", "path": "/sendMessage", "json": body},
        }  # fmt: skip

    def kind(self) -> str:
        return "mention" if self._chance.random() < 0.3 else "reply"


def by_class(rows: list[tuple[Any, ...]]) -> dict[str, object]:
    """A line of the report for each priority. `rows`: priority, user, seconds until the start, seconds until the end."""
    waits: dict[str, list[float]] = defaultdict(list)
    users: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for priority, user, waited, took in rows:
        waits[LEVELS[priority]].append(waited)
        users[LEVELS[priority]][user].append(took)
    lines: dict[str, object] = {}
    for kind in CLASSES:
        p50, p95, p99 = (percentile(waits[kind], share) for share in (0.5, 0.95, 0.99))
        means = [sum(took) / len(took) for took in users[kind].values()]
        lines[f"{kind}: waits p50, p95, p99"] = (
            f"{p50:.2f}, {p95:.2f}, {p99:.2f} s ({len(waits[kind]):,} messages); Jain's index over users {jain(means):.3f}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--bots", type=int, default=50)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--rate", type=float, default=20.0, help="mentions and replies a second")
    parser.add_argument("--background", type=int, default=3000)
    given = parser.parse_args()
    environ = {f"BENCH_BOT_{number}": f"{10_000 + number}:simulated" for number in range(given.bots)}
    crowd = Crowd(given.bots, given.users)
    with (
        Simulator("--dialect", "telegram", "--latency", "60") as simulator,
        started("--workers", "2", environ=environ) as instance,
        instance.client() as http,
    ):
        instance.manage("apply", "-", stdin=configuration(simulator.base_url, given.bots))
        http.timeout = 120

        def submit(kinds: list[str]) -> None:
            http.post("/api/v1/jobs/bulk", json={"jobs": [crowd.message(kind) for kind in kinds]}).raise_for_status()

        watch = Watch(instance)
        with Sampler(lambda: float(simulator.stats()["succeeded"])) as sent:
            submit(["background"] * given.background)
            submitted = given.background
            begun = time.monotonic()
            while (passed := time.monotonic() - begun) < given.minutes * 60:
                due = round(passed * given.rate) + given.background - submitted
                if due > 0:
                    submit([crowd.kind() for _ in range(due)])
                    submitted += due
                time.sleep(0.25)
            during = watch.totals()["completed"]
            deadline = time.monotonic() + 600
            while (totals := watch.totals())["completed"] + totals["dead"] < submitted:
                if time.monotonic() > deadline:
                    raise SystemExit(f"not done: {totals}")
                time.sleep(0.5)
        seen = upstream(simulator)
        rows = watch.rows(
            "SELECT priority, user, (julianday(first_started_at) - julianday(created_at)) * 86400,"
            " (julianday(finished_at) - julianday(created_at)) * 86400 FROM queues_job"
        )
    report(
        f"{given.bots} bots, {given.users} users, {given.minutes:g} minutes",
        {
            "messages a minute, while users wrote": f"{during / given.minutes:,.0f}",
            "completed, dead": f"{totals['completed']:,}, {totals['dead']}",
            "lost": submitted - totals.total(),
            **by_class(rows),
            **seen,
        },
    )
    draw(CHARTS / "bots.svg", f"{given.bots} bots, {given.users} users", "messages a second", {"sent": sent.rates()})


if __name__ == "__main__":
    main()
