"""Nothing of bodies, prompts, queries and credentials is kept or shown anywhere."""

from __future__ import annotations

import json
import secrets
from typing import Any

import httpx
import pytest

from tests.support.gateway_scene import SECRETS, Scene
from tests.support.instance import wait_until


def places(scene: Scene) -> dict[str, bytes]:
    """All that the instance has written and shows: its files, SQL, Redis, metrics, recent calls, events, output."""
    found = {
        str(path): path.read_bytes()
        for path in scene.instance.data_dir.rglob("*")
        if path.is_file() and path.stat().st_size
    }
    client = scene.instance.client()
    for path in (
        "/metrics",
        "/api/v1/calls?limit=500",
        "/api/v1/accounts?limit=100",
        "/api/v1/alerts",
        "/api/v1/audit",
    ):
        found[path] = client.get(path).content
    found["output"] = "\n".join(scene.instance.lines).encode()
    with scene.instance.redis() as redis:
        found["redis"] = b"\n".join(_dump(redis, key) for key in redis.scan_iter(count=1000))  # type: ignore[attr-defined]
    return found


def _dump(redis: Any, key: bytes) -> bytes:
    kind = redis.type(key)
    readers = {
        b"string": redis.get, b"hash": redis.hgetall, b"set": redis.smembers,
        b"list": lambda name: redis.lrange(name, 0, -1), b"zset": lambda name: redis.zrange(name, 0, -1),
        b"stream": lambda name: redis.xrange(name),
    }  # fmt: skip
    return key + b" " + repr(readers[kind](key)).encode() if kind in readers else key


def _end_jobs(scene: Scene) -> None:
    """Cancel the jobs of other tests: what the provider answers a job is kept with it."""
    client = scene.instance.client()
    unfinished = [
        job["id"]
        for status in ("pending", "rate_limited", "retrying", "executing")
        for job in client.get(f"/api/v1/jobs?status={status}&limit=500").json()["results"]
    ]
    for job in unfinished:
        client.post(f"/api/v1/jobs/{job}/cancel", json={})
    final = ("completed", "dead", "cancelled")
    wait_until(lambda: all(client.get(f"/api/v1/jobs/{job}").json()["status"] in final for job in unfinished), 10)


@pytest.fixture(scope="module")
def words(scene: Scene) -> dict[str, str]:
    """A word for each place of a call where something secret may stand, after calls of each kind."""
    _end_jobs(scene)
    found = {
        name: f"{name}-{secrets.token_hex(8)}"
        for name in ("prompt", "query", "field", "answer", "mistake", "error", "tool")
    }
    body: Any = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": f"{found['prompt']} is what we say"}],
        "tools": [{"type": "function", "function": {"name": found["tool"], "parameters": {}}}],
    }
    fields = {"X-Private": found["field"]}
    paths = ("/v1/chat/completions", f"/v1/chat/completions?q={found['query']}", f"/v1/nothing?q={found['query']}")
    for pool in ("llm", "raw", "hasty", "lonely", "narrow", "cached"):
        for path in paths:
            scene.call(pool, path, json=body, headers=fields)
            scene.call(pool, path, json=body | {"stream": True}, headers=fields)
    scene.sim.faults({"status": 400, "body": json.dumps({"error": {"message": f"{found['mistake']} {{credential}}"}})})
    scene.call("llm", json=body, headers=fields)
    scene.sim.faults({"status": 500, "body": f"<html>{found['error']} {{credential}}</html>"})
    scene.call("llm", json=body, headers=fields)
    scene.sim.faults()
    scene.call("tg", "/sendMessage", json={"chat_id": 77, "text": found["answer"]})
    try:
        scene.call("raw", "/v1/broken", json=body, headers=fields)
    except httpx.RemoteProtocolError:
        scene.call("raw", "/v1/echo", json=body, headers=fields)
    wait_until(lambda: scene.is_idle("raw"), 5)
    scene.recent(scene.call("llm", json=body, headers=fields))
    return found


@pytest.mark.parametrize("word", ["prompt", "query", "field", "answer", "mistake", "tool"])
def test_no_part_of_a_call_is_kept(scene: Scene, words: dict[str, str], word: str) -> None:
    found = [place for place, content in places(scene).items() if words[word].encode() in content]
    assert not found


@pytest.mark.parametrize("name", [*SECRETS, "key"])
def test_no_credential_is_kept(scene: Scene, words: dict[str, str], name: str) -> None:
    secret = scene.key.rpartition("_")[2] if name == "key" else SECRETS[name]
    found = [place for place, content in places(scene).items() if secret.encode() in content]
    assert not found


def test_a_providers_own_error_is_kept_with_its_account_only(scene: Scene, words: dict[str, str]) -> None:
    """The last error of an account is for operators; the credential in it was taken out."""
    shown = {place for place, content in places(scene).items() if words["error"].encode() in content}
    assert not shown & {"/metrics", "/api/v1/calls?limit=500", "output"}
    projects = scene.instance.manage("apikey", "create", "--name", "p", "--project", "acme", "--scopes", "read")
    client = scene.instance.client(projects.stdout.strip())
    for path in ("/api/v1/accounts?limit=100", "/api/v1/calls?limit=500"):
        assert words["error"] not in client.get(path).text
