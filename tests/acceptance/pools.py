"""An instance with pools of every kind, the simulated providers behind them, and a receiver of its alerts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from tests.integration.controlplane.simulator.process import Simulator
from tests.support.events import EventStream
from tests.support.instance import BASE_DIR, wait_until
from tests.support.product import Product
from tests.support.receiver import Receiver, receiving
from tests.support.shapes import EMBEDDED, Deployment, Plan, deployed

SECRET = "outside9f3b7cQzWk"  # of no known shape: only a comparison with the account's own credential finds it
BOT = f"110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw-{SECRET}"
HOURLY: dict[str, Any] = {"unit": "requests", "algorithm": "fixed_window", "window": "1h"}
CHAT = {"model": "gpt-4o-mini", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
POOLS: dict[str, dict[str, Any]] = {
    "counted": {"accounts": 1, "breaker": {"failures": 100}},
    "cooled": {"accounts": 2},
    "even": {"accounts": 3, "strategy": "round_robin"},
    "weighted": {"accounts": 2, "strategy": "weighted_random"},
    "busy": {
        "accounts": 2,
        "strategy": "round_robin",
        "limits": [{"unit": "requests", "algorithm": "token_bucket", "limit": 4, "window": "60s", "burst": 1}],
        "pause_at": None,
    },
    "tokens": {"accounts": 1, "limits": [{**HOURLY, "unit": "tokens", "limit": 1000}], "pause_at": None},
    "breaking": {"accounts": 1, "breaker": {"failures": 2, "window": "60s", "open_for": "1s", "probes": 1}},
    "learning": {"accounts": 1},
    "pausing": {"accounts": 1, "limits": [{**HOURLY, "limit": 10}], "pause_at": 0.8, "pause": "low"},
    "adapting": {
        "accounts": 1,
        "concurrency": {"initial": 10, "floor": 2, "ceiling": 12},
        "breaker": {"failures": 1000},
    },
    "first": {"accounts": 1, "limits": [{**HOURLY, "limit": 1}], "pause_at": None, "fallback": ["second"]},
    "second": {"accounts": 1},
    "sticky": {"accounts": 3, "strategy": "round_robin", "sticky": True},
    "wrapped": {"accounts": 2, "strategy": "round_robin", "cooldown": {"default": "1s", "max": "2s"}},
    "stormy": {
        "accounts": 6,
        "strategy": "health",
        "breaker": {"failures": 2, "window": "60s", "open_for": "2s", "probes": 1},
        "cooldown": {"default": "1s", "max": "3s"},
    },
    "echoing": {"accounts": 2, "breaker": {"failures": 100}, "cooldown": {"default": "1s", "max": "2s"}},
    "lasting": {"accounts": 2, "strategy": "round_robin"},
}


def credential(pool: str, number: int) -> str:
    return f"{SECRET}-{pool}-{number}"


def configuration(openai: str, telegram: str, hook: str) -> tuple[str, dict[str, str]]:
    """The file that is applied, and the environment with the credentials that it names."""
    environ = {"OUTSIDE_BOT": BOT, "OUTSIDE_HOOK": f"webhook+http://hook:{SECRET}@{hook}/{SECRET}"}
    pools: list[dict[str, Any]] = []
    for name, columns in POOLS.items():
        accounts = []
        for number in range(1, columns["accounts"] + 1):
            variable = f"OUTSIDE_{name}_{number}".upper()
            environ[variable] = credential(name, number)
            accounts.append({"name": f"{name}-{number}", "credential_env": variable})
        pools.append({"name": name, "provider": "outside", **columns, "accounts": accounts})
    preset = yaml.safe_load((BASE_DIR / "controlplane" / "presets" / "telegram.yaml").read_text())
    (chats,) = preset["pools"]
    chats["accounts"] = [{"name": "bot", "credential_env": "OUTSIDE_BOT"}]
    (messenger,) = preset["providers"]
    messenger["base_url"] = telegram + "/bot{credential}"
    document = {
        "version": 1,
        "projects": [{"slug": "outside"}],
        "providers": [
            {"name": "outside", "dialect": "openai", "base_url": openai, "timeout": "10s"},
            messenger,
        ],
        "pools": [*pools, chats],
        "retry_policies": [
            {
                "name": "keen",
                "strategy": "exponential",
                "initial": "200ms",
                "max": "1s",
                "max_attempts": 9,
                "by_category": {"auth": "never"},
            },
            {"name": "once", "strategy": "fixed", "initial": "100ms", "max_attempts": 1},
        ],
        "queues": [
            {"name": "outside-keen", "retry_policy": "keen", "timeout": "30s"},
            {"name": "outside-once", "retry_policy": "once", "timeout": "30s"},
        ],
        "alerts": [
            {"name": "outside", "when": ["account_auth_failed", "breaker_opened"], "to_env": "OUTSIDE_HOOK"},
            {
                "name": "unreachable",
                "when": ["account_auth_failed"],
                "to": f"json://nobody:{SECRET}@127.0.0.1:1/{SECRET}",
            },
        ],
    }
    return yaml.safe_dump(document), environ


@dataclass
class Pools:
    """A configured instance with the providers of its pools and the receiver of its alerts."""

    deployment: Deployment
    sim: Simulator
    bot: Simulator
    hook: Receiver

    @property
    def product(self) -> Product:
        return self.deployment.product

    def submit(self, pool: str, queue: str = "outside-keen", **fields: Any) -> str:
        """A chat completion as a job."""
        payload = {"pool": pool, "method": "POST", "path": "/v1/chat/completions", "json": CHAT}
        return self.product.submit(
            "http.request", **{"project": "outside", "queue": queue, "payload": payload, **fields}
        )

    def events(self, since: str = "") -> EventStream:
        return self.deployment.events(since=since)

    def notices(self) -> list[tuple[str, str]]:
        """(event, subject) of the alerts that were sent."""
        return [(body["type"], body["data"]["subject"]) for _, _, body in list(self.hook.got)]


@contextmanager
def pools_deployed() -> Iterator[Pools]:
    plan = Plan(environ={"SLUICE_LOG_LEVEL": "debug", "SLUICE_ALERT_CALM": "1"})
    with (
        Simulator("--dialect", "openai") as sim,
        Simulator("--dialect", "telegram") as bot,
        receiving() as hook,
        deployed(EMBEDDED, plan) as deployment,
    ):
        document, environ = configuration(sim.base_url, bot.base_url, hook.address)
        deployment.instance.environ.update(environ)
        deployment.apply(document)
        wait_until(lambda: deployment.product.call("GET", "pools/lasting").status_code == 200, 10)
        yield Pools(deployment, sim, bot, hook)
