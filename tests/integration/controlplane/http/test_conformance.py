"""One contract, two servers of it: every case is sent to the fast path and to Django's view, on equal counters."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import redis
from django.test import override_settings

from quotas.models import Account, CostRule, Network, Pool, Project, Provider
from quotas.snapshot import resolve
from tests.integration.controlplane.http.asgi import Answered, Door
from tests.integration.quotas.api.conftest import Api, api, policy

SECONDS = re.compile(r"\d+\.\d+ s")
VOLATILE = {"reset_after", "retry_after", "reservation", "lease", "expires_in"}
CHECK, BATCH, SETTLE = "/api/v1/limits/check", "/api/v1/limits/check-batch", "/api/v1/limits/settle"
ACQUIRE, REPORT = "/api/v1/pools/llm/acquire", "/api/v1/leases/nobody/settle"


def world() -> None:
    policy("per-user", "user", 2)
    policy("tokens", "global", 100, unit="tokens")
    policy("watched", "project", 1, mode="shadow")
    policy("none", "endpoint", 0, match="POST /closed")
    CostRule.objects.create(match="POST /v1/embeddings", cost={"requests": 2})
    Network.objects.create(name="attic", action="deny", cidrs=["198.51.100.0/24"])
    Project.objects.get_or_create(slug="other")
    provider = Provider.objects.create(name="sim", dialect="generic", base_url="http://127.0.0.1:9")
    pool = Pool.objects.create(name="llm", provider=provider)
    Account.objects.create(pool=pool, name="a1", credential="secret-1")
    Pool.objects.create(name="closed", provider=provider)


def without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: type(inner).__name__ if name in VOLATILE and inner is not None else without_volatile(inner)
            for name, inner in value.items()
        }
    if isinstance(value, str):
        return SECONDS.sub("some s", value)
    return [without_volatile(inner) for inner in value] if isinstance(value, list) else value


def essence(answer: Answered) -> tuple[Any, ...]:
    """What both must agree in: all but moments and ids. The order of members counts."""
    body = json.loads(answer.body) if answer.body else None
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    for name in ("retry-after", "x-ratelimit-reset"):
        headers[name] = headers.get(name) and "some"
    if "ratelimit" in headers:
        headers["ratelimit"] = headers["ratelimit"].split(";t=")[0]
    return answer.status, json.dumps(without_volatile(body)), dict(sorted(headers.items()))


class Both:
    """Sends to both, each on a Redis that is as empty as the other's was."""

    def __init__(self, door: Door, store: redis.Redis, key: Api | None) -> None:
        self.door, self.store, self.key = door, store, key

    def headers(self, more: dict[str, str]) -> list[tuple[str, str]]:
        given = {"Content-Type": "application/json", **more}
        if self.key is not None:
            given.setdefault("Authorization", f"Bearer {self.key.token}")
        return [(name, value) for name, value in given.items() if value]

    def ask(self, *calls: tuple[str, Any], method: str = "POST", through: str = "lean", **more: str) -> Answered:
        """The calls in a row; the last one's answer, on which both have agreed as on all before."""
        headers = self.headers({name.replace("_", "-"): value for name, value in more.items()})
        answers: dict[str, list[Answered]] = {}
        for way in (through, "bridge"):
            self.store.flushall()
            resolve.clear()
            answers[way] = []
            for path, body in calls:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                answers[way].append(self.door.request(method, path, data, headers, way))
        for lean, django in zip(answers[through], answers["bridge"], strict=True):
            mine, theirs = essence(lean), essence(django)
            assert mine == theirs
        return answers[through][-1]


@pytest.fixture
def both(door: Door, store: redis.Redis) -> Both:
    world()
    return Both(door, store, api("check", "submit", project="acme"))


GOOD: list[tuple[str, list[tuple[str, Any]], int]] = [
    ("no limits", [(CHECK, {})], 200),
    ("empty body", [(CHECK, b"")], 200),
    ("allowed", [(CHECK, {"user": "u-17", "ip": "203.0.113.9", "method": "post", "endpoint": "/v1/chat"})], 200),
    ("denied", [(CHECK, {"user": "u"})] * 3, 429),
    ("cost rule", [(CHECK, {"user": "u", "endpoint": "/v1/embeddings", "method": "POST"})] * 2, 429),
    ("never", [(CHECK, {"endpoint": "/closed", "method": "POST"})], 429),
    ("impossible", [(CHECK, {"cost": {"tokens": 101}})], 422),
    ("reserved", [(CHECK, {"cost": {"tokens": 10, "requests": 0}})], 200),
    ("number", [(CHECK, {"cost": 2, "user": "é\u2028/{x}\n"})], 200),
    ("dry run", [(CHECK, {"user": "u", "dry_run": True})] * 3, 200),
    ("waiting in vain", [(CHECK, {"user": "u"})] * 2 + [(CHECK, {"user": "u", "max_wait": 0.05})], 429),
    ("nulls", [(CHECK, {"user": None, "ip": None, "keys": None, "cost": None, "project": None})], 200),
    ("keys", [(CHECK, {"keys": {"chat": "-100"}, "max_wait": 0})], 200),
    ("own project", [(CHECK, {"project": "acme"})], 200),
    ("network", [(CHECK, {"ip": "198.51.100.7"})], 403),
    ("foreign project", [(CHECK, {"project": "other"})], 404),
    ("no bypass", [(CHECK, {"bypass": True})], 403),
    ("batch", [(BATCH, {"checks": [{"user": "a"}] * 3 + [{"project": "x"}, {"ip": "198.51.100.7"}]})], 200),
    ("settle nobody", [(SETTLE, {"reservation": "nobody"})], 404),
    ("acquire", [(ACQUIRE, {"cost": {"tokens": 5}, "priority": "high"})], 200),
    ("acquire with an empty body", [(ACQUIRE, b"")], 200),
    ("unknown pool", [("/api/v1/pools/nope/acquire", {})], 404),
    ("empty pool", [("/api/v1/pools/closed/acquire", {})], 503),
    ("report nobody", [(REPORT, {"status": 200})], 404),
]


@pytest.mark.parametrize(("calls", "status"), [case[1:] for case in GOOD], ids=[case[0] for case in GOOD])
def test_decisions_are_answered_alike(both: Both, calls: list[tuple[str, Any]], status: int) -> None:
    assert both.ask(*calls).status == status


BAD: list[Any] = [
    {"colour": "red"}, {"a/b~c": 1}, {"cost": -1}, {"cost": 1.5}, {"cost": True}, {"cost": "1"}, {"cost": [1]},
    b'{"cost": NaN}', b'{"cost": {"tokens": Infinity}}', {"cost": {"tokens": 2**53}}, b'{"cost": 1e999}',
    {"cost": {"": 1}}, {"cost": {"x" * 33: 1}}, {"ip": "999.1.1.1"}, {"ip": 5}, {"user": 17}, {"user": ""},
    {"user": "x" * 1025}, {"keys": {"chat": 5}}, {"keys": "chat"}, {"keys": {"": "x"}}, {"max_wait": -1},
    {"max_wait": 61}, {"max_wait": "1"}, {"max_wait": True}, {"dry_run": "yes"}, {"bypass": 1}, {"endpoint": "x" * 2049},
    {"method": "x" * 17}, {"project": ""}, {"user": 1, "cost": -1, "colour": 2}, b"{", b"\xff{}", b'{"a": 1,}',
    b"[" * 100_000, b"[1]", b'"text"', b"null", b'{"user": "a\\u0000b"}', b'{"user": "a\\ud800b"}',
    b'{"user": "x", "user": "y"}', b'{"cost": {"a": 1, "a": 2}}', b'{"cost": ' + b"9" * 5000 + b"}", b" ",
]  # fmt: skip


@pytest.mark.parametrize("body", BAD, ids=lambda body: repr(body)[:40])
def test_bad_input_is_answered_alike(both: Both, body: Any) -> None:
    answer = both.ask((CHECK, body))
    assert answer.status == 400 and answer.headers["content-type"] == "application/problem+json"
    if isinstance(body, dict):
        assert both.ask((BATCH, {"checks": [{}, body]})).status == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [(BATCH, {}), (BATCH, {"checks": []}), (BATCH, {"checks": [{}] * 1001}), (BATCH, {"checks": [1]}),
     (BATCH, {"checks": [{"max_wait": 1}]}), (SETTLE, {}), (SETTLE, {"reservation": 5}),
     (SETTLE, {"reservation": "x", "actual": {"tokens": -1}}), (SETTLE, {"reservation": "x", "more": 1}),
     (ACQUIRE, {"priority": 10}), (ACQUIRE, {"priority": "urgent"}), (ACQUIRE, {"tokens": 5}),
     (ACQUIRE, {"max_wait": "x"}), (REPORT, {}), (REPORT, {"status": "200"}), (REPORT, {"status": 99}),
     (REPORT, {"error": "boom"}), (REPORT, {"status": 200, "latency": -1})],
)  # fmt: skip
def test_bad_input_of_the_other_calls_is_answered_alike(both: Both, path: str, body: Any) -> None:
    assert both.ask((path, body)).status == 400


@pytest.mark.parametrize(
    "authorization",
    ["Bearer", "Bearer sl_abc_wrong", "Bearer abc", "Basic sl_abc_x", "Bearer sl__x", "Bearer \u00fc", "bearer  "],
)
def test_bad_keys_are_answered_alike(both: Both, authorization: str) -> None:
    answer = both.ask((CHECK, {}), Authorization=authorization)
    assert answer.status == 401 and answer.headers["www-authenticate"]


def test_keys_of_another_scope_are_answered_alike(both: Both) -> None:
    both.key = api("read", project="acme")
    for path in (CHECK, BATCH, SETTLE, ACQUIRE, REPORT):
        assert both.ask((path, b"{")).status == 403, "the scope is looked at before the body"


def test_a_platform_key_and_its_bypass_are_answered_alike(both: Both) -> None:
    both.key = api("check", "bypass")
    bypass = {"endpoint": "/closed", "method": "POST", "bypass": True, "project": "acme"}
    assert both.ask((CHECK, bypass)).json()["bypassed"] is True
    assert both.ask((CHECK, {"project": "nobody"})).status == 404


def test_idempotency_is_answered_alike(both: Both) -> None:
    same = both.ask((CHECK, {"user": "u"}), (CHECK, {"user": "u"}), Idempotency_Key="k")
    assert same.status == 200 and same.headers["x-ratelimit-remaining"] == "1"
    assert both.ask((CHECK, {"user": "u"}), (CHECK, {"user": "v"}), Idempotency_Key="k").status == 409
    assert both.ask((BATCH, {"checks": [{}]}), (BATCH, {"checks": [{"user": "v"}]}), Idempotency_Key="k").status == 409
    for bad in ("x" * 256, "\u00e9", " "):
        both.ask((CHECK, {}), Idempotency_Key=bad)


def test_a_key_that_one_server_saw_holds_at_the_other(both: Both) -> None:
    headers = both.headers({"Idempotency-Key": "k"})
    first = both.door.request("POST", CHECK, b'{"user": "u"}', headers, "lean")
    again = both.door.request("POST", CHECK, b'{"user": "u"}', headers, "bridge")
    assert again.json()["limits"] == first.json()["limits"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "", "json"])
def test_media_types_are_answered_alike(both: Both, kind: str) -> None:
    assert both.ask((CHECK, {}), Content_Type=kind).status == 415
    assert both.ask((CHECK, b""), Content_Type=kind).status == 200


def test_parameters_of_the_media_type_and_of_the_query_are_answered_alike(both: Both) -> None:
    assert both.ask((CHECK, {}), Content_Type="application/json; charset=utf-8").status == 200
    assert both.ask((f"{CHECK}?colour=red&a=%ff", {})).status == 200


def test_bodies_that_are_too_large_are_answered_alike(both: Both) -> None:
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000):
        assert both.ask((CHECK, b" " * 998 + b"{}")).status == 200
        assert both.ask((CHECK, b" " * 999 + b"{}")).status == 413
        assert both.ask((CHECK, b" " * 999 + b"{}"), Authorization="Bearer x").status == 401


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
def test_other_methods_are_djangos(both: Both, method: str) -> None:
    answer = both.ask((CHECK, b""), method=method, through="door")
    assert answer.status == (200 if method == "OPTIONS" else 405)


def test_what_is_odd_is_djangos(both: Both) -> None:
    assert both.ask((CHECK, {}), through="door", Authorization="").status == 401
    assert both.ask((CHECK, {}), through="door", Host="evil.example").status == 400
    assert both.ask(("/api/v1/limits/check/", {}), through="door").status == 404
    assert both.ask(("/api/v1/limits/nothing", {}), through="door").status == 404
    twice = [*both.headers({}), ("Content-Type", "text/plain")]
    assert both.door.request("POST", CHECK, b"{}", twice).status == 415
