"""What the tests of the gateway share: a real instance, simulators, and a provider that streams and breaks off."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import yaml

from tests.integration.controlplane.simulator.process import Simulator
from tests.support.instance import Instance, running, wait_until
from tests.support.streaming_provider import StreamingProvider, streaming_provider

PROMPT = "secret-prompt-9f3b7c hello there my friend"
MESSAGES: Any = [{"role": "user", "content": PROMPT}]
SECRETS = {
    "GATEWAY_ONE": "sk-one-4b1d77e0", "GATEWAY_TWO": "sk-two-9a2c31f5",
    "GATEWAY_BAD": "sk-bad-77c0e1a2", "GATEWAY_GOOD": "sk-good-13d9f0b4",
    "GATEWAY_FIRST": "sk-first-5e07c2d9", "GATEWAY_SECOND": "sk-second-b8316fa4",
}  # fmt: skip


@dataclass
class Scene:
    instance: Instance
    sim: Simulator
    claude: Simulator
    gemini: Simulator
    telegram: Simulator
    provider: StreamingProvider
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def openai(self, pool: str, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.instance.url}/gateway/{pool}/v1", api_key=self.key, **options)

    def call(self, pool: str, path: str = "/v1/chat/completions", **options: Any) -> httpx.Response:
        headers = {**self.headers, **options.pop("headers", {})}
        options.setdefault("json", {"model": "gpt-4o-mini", "messages": MESSAGES})
        url = f"{self.instance.url}/gateway/{pool}{path}"
        # Reading the certificates takes longer than a call: several at the same time would not come together.
        return httpx.post(url, headers=headers, timeout=30, verify=False, **options)

    def calls(self, **query: Any) -> list[dict[str, Any]]:
        """Recent calls, newest first."""
        answer = self.instance.client().get("/api/v1/calls", params=query)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["results"])

    def recent(self, answer: httpx.Response) -> dict[str, Any]:
        """The recent call that an answer belongs to, as soon as it is recorded."""
        wanted = answer.headers["sluice-request-id"]
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [call for call in self.calls(limit=500) if call["id"] == wanted]
            return bool(found)

        wait_until(look, 10, f"call {wanted}")
        return found[0]

    def account(self, pool: str) -> dict[str, Any]:
        found = self.instance.client().get("/api/v1/accounts", params={"limit": 100}).json()["results"]
        return next(one for one in found if one["pool"] == pool)

    def is_idle(self, pool: str) -> bool:
        return bool(self.account(pool)["in_flight"] == 0)

    def used(self, policy: str, unit: str = "requests") -> int:
        rows = self.instance.client().get("/api/v1/limits/usage", params={"policy": policy}).json()["results"]
        return sum(row["used"] for row in rows if row["unit"] == unit)


@contextmanager
def gateway_scene() -> Iterator[Scene]:
    with (
        Simulator("--dialect", "openai") as sim,
        Simulator("--dialect", "anthropic") as claude,
        Simulator("--dialect", "gemini") as gemini,
        Simulator("--dialect", "telegram") as telegram,
        streaming_provider() as provider,
        running(environ=SECRETS, migrated=True) as instance,
    ):
        one = [{"name": "one", "credential_env": "GATEWAY_ONE"}]
        two = [*one, {"name": "two", "credential_env": "GATEWAY_TWO"}]
        # Accounts with the same credential share its fate, so the pool whose credential is refused has its own.
        bad = [{"name": "one", "credential_env": "GATEWAY_BAD"}, {"name": "two", "credential_env": "GATEWAY_GOOD"}]
        pair = [
            {"name": "first", "credential_env": "GATEWAY_FIRST"},
            {"name": "second", "credential_env": "GATEWAY_SECOND"},
        ]
        closed = socket.create_server(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
        closed.close()
        document: dict[str, Any] = {
            "version": 1,
            "projects": [{"slug": "acme"}, {"slug": "other"}],
            "providers": [
                {"name": "openai", "dialect": "openai", "base_url": sim.base_url},
                {"name": "claude", "dialect": "anthropic", "base_url": claude.base_url, "auth_header": "x-api-key: {credential}"},
                {"name": "raw", "dialect": "openai", "base_url": provider.url, "timeout": "20s"},
                {"name": "hasty", "dialect": "openai", "base_url": provider.url, "timeout": "1s"},
                {"name": "azure", "dialect": "azure", "base_url": sim.base_url, "auth_header": "api-key: {credential}"},
                {"name": "gemini", "dialect": "gemini", "base_url": gemini.base_url, "auth_header": "x-goog-api-key: {credential}"},
                {"name": "telegram", "dialect": "telegram", "base_url": telegram.base_url + "/bot{credential}", "auth_header": ""},
                {"name": "nobody", "dialect": "generic", "base_url": nobody},
            ],
            "pools": [
                {"name": "llm", "provider": "openai", "accounts": two},
                {"name": "failing", "provider": "openai", "accounts": bad},
                {"name": "claude", "provider": "claude", "accounts": one},
                {"name": "raw", "provider": "raw", "accounts": one, "concurrency": {"initial": 2}, "breaker": {"failures": 1000}},
                {"name": "hasty", "provider": "hasty", "accounts": two},
                {"name": "nobody", "provider": "nobody", "accounts": one, "fallback": ["llm"]},
                {"name": "azure", "provider": "azure", "accounts": one},
                {"name": "gemini", "provider": "gemini", "accounts": two},
                {"name": "tg", "provider": "telegram", "accounts": one},
                {"name": "lonely", "provider": "nobody", "accounts": one},
                {"name": "cached", "provider": "raw", "accounts": two, "sticky": "prefix", "strategy": "round_robin"},
                {"name": "inside", "provider": "raw", "accounts": pair},
                {"name": "shown", "provider": "raw", "accounts": one, "show_provider_limits": True},
                {"name": "shut", "provider": "nobody", "accounts": one, "fallback": ["closed"]},
                {"name": "closed", "provider": "openai", "accounts": one, "projects": ["other"]},
                {
                    "name": "narrow", "provider": "openai", "accounts": one,
                    "limits": [{"unit": "requests", "algorithm": "sliding_window", "limit": 1, "window": "2s"}],
                },
                {
                    "name": "rare", "provider": "openai", "accounts": one,
                    "limits": [{"unit": "requests", "algorithm": "sliding_window", "limit": 1, "window": "50s"}],
                },
            ],
            "policies": [
                {"name": "rarely", "scope": "custom", "key_name": "rarely", "algorithm": "sliding_window", "limit": 1, "window": "50s"},
                {"name": "few", "scope": "custom", "key_name": "few", "algorithm": "sliding_window", "limit": 1, "window": "2s"},
                {"name": "one-at-a-time", "scope": "custom", "key_name": "single", "algorithm": "concurrency", "limit": 1},
                {"name": "two-per-minute", "scope": "custom", "key_name": "single", "algorithm": "fixed_window", "limit": 30, "window": "1h"},
                {"name": "by-ip", "scope": "ip", "algorithm": "fixed_window", "limit": 100000, "window": "1h"},
                {"name": "by-path", "scope": "endpoint", "match": "GET /v1/by-path/*", "algorithm": "fixed_window", "limit": 1, "window": "1h"},
                {"name": "by-user", "scope": "user", "algorithm": "fixed_window", "limit": 1000, "window": "1h"},
                {"name": "tokens", "scope": "user", "unit": "tokens", "algorithm": "fixed_window", "limit": 100000, "window": "1h"},
            ],
        }  # fmt: skip
        document["queues"] = [
            {"name": "later", "pool": "narrow", "lane": "io"},
            {"name": "elsewhere", "lane": "io"},
        ]
        instance.manage("apply", "-", stdin=yaml.safe_dump(document))
        made = instance.manage("apikey", "create", "--name", "g", "--project", "acme", "--scopes", "call")
        yield Scene(instance, sim, claude, gemini, telegram, provider, made.stdout.strip())
