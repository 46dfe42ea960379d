"""`/api/v1/limits/` as callers see it."""

from __future__ import annotations

from typing import Any

import http_sf
import pytest

from controlplane.models import AuditEntry
from quotas.models import CostRule, Network, Override, Project, ThresholdMark
from quotas.services.rollups import Sampler
from tests.integration.quotas.api.conftest import api, policy
from tests.support.limiter_server import limiter_at


def test_allowed_check_has_the_members_of_the_contract() -> None:
    policy("user-hourly", "user", 3)
    answer = api("check", project="acme").post("limits/check", {"user": "u-17"})
    assert answer.status_code == 200 and answer["Content-Type"] == "application/json"
    body = answer.json()
    assert list(body) == ["allowed", "retry_after", "binding", "degraded", "bypassed", "reservation", "limits"]
    reset = body["limits"][0].pop("reset_after")
    assert 0 < reset <= 3600
    assert body["limits"] == [
        {
            "policy": "user-hourly", "scope": "user", "key": "u-17", "unit": "requests", "algorithm": "fixed_window",
            "limit": 3, "remaining": 2, "mode": "enforce", "allowed": True,
        }
    ]  # fmt: skip
    assert body["allowed"] is True and body["reservation"] is None and body["degraded"] is False
    assert "Retry-After" not in answer
    assert http_sf.parse(answer["RateLimit-Policy"].encode(), tltype="list") == [("user-hourly", {"q": 3, "w": 3600})]
    ((name, parameters),) = http_sf.parse(answer["RateLimit"].encode(), tltype="list")  # type: ignore[misc]
    assert name == "user-hourly" and parameters["r"] == 2 and 0 < parameters["t"] <= 3600
    assert (answer["X-RateLimit-Limit"], answer["X-RateLimit-Remaining"]) == ("3", "2")
    assert answer["X-RateLimit-Reset"] == str(parameters["t"])


def test_denied_check_is_a_problem_with_the_same_members_and_charges_nothing() -> None:
    policy("user-hourly", "user", 1)
    policy("everybody", "global", 100)
    caller = api("check", "read", project="acme")
    assert caller.post("limits/check", {"user": "u"}).status_code == 200
    answer = caller.post("limits/check", {"user": "u"})
    assert answer.status_code == 429 and answer["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == "/problems/quota-exceeded" and body["status"] == 429 and body["title"] and body["detail"]
    assert body["violated-policies"] == ["user-hourly"] and body["binding"] == "user-hourly"
    assert [state["allowed"] for state in body["limits"]] == [False, True]
    assert body["limits"][1]["remaining"] == 99, "the other limit was not charged"
    retry = int(answer["Retry-After"])
    assert 1 <= retry <= 3600 and body["retry_after"] <= retry < body["retry_after"] + 1 + 1e-6
    assert f"t={retry}" in answer["RateLimit"] and answer["X-RateLimit-Reset"] == str(retry)


def test_dry_run_answers_alike_and_never_charges() -> None:
    policy("user-hourly", "user", 1)
    caller = api("check")
    for _ in range(3):
        assert caller.post("limits/check", {"user": "u", "dry_run": True}).status_code == 200
    caller.post("limits/check", {"user": "u"})
    assert caller.post("limits/check", {"user": "u", "dry_run": True}).status_code == 429


def test_blank_zero_and_unlimited_are_three_things() -> None:
    policy("refused", "user", 0)
    policy("free", "project", None)
    caller = api("check", project="acme")
    free = caller.post("limits/check", {})
    assert free.status_code == 200
    assert free.json()["limits"][0]["limit"] is None and free.json()["limits"][0]["remaining"] is None
    answer = caller.post("limits/check", {"user": "u"})
    assert answer.status_code == 429 and answer.json()["retry_after"] is None
    assert "Retry-After" not in answer
    assert caller.post("limits/check", {"user": "u", "cost": 0}).status_code == 200


def test_cost_that_can_never_pass_is_422() -> None:
    policy("tokens", "global", 100, unit="tokens")
    answer = api("check").post("limits/check", {"cost": {"tokens": 101}})
    assert answer.status_code == 422 and "Retry-After" not in answer
    assert answer.json()["type"] == "/problems/cost-exceeds-limit" and answer.json()["binding"] == "tokens"


def test_estimates_are_reserved_and_settled_once() -> None:
    policy("tokens", "project", 1000, unit="tokens")
    caller = api("check", "read", project="acme")
    reservation = caller.post("limits/check", {"cost": {"tokens": 800}}).json()["reservation"]
    settled = caller.post("limits/settle", {"reservation": reservation, "actual": {"tokens": 512}})
    assert settled.status_code == 200
    assert settled.json() == {"reservation": reservation, "actual": {"tokens": 512}, "refunded": {"tokens": 288}}
    again = caller.post("limits/settle", {"reservation": reservation, "actual": {"tokens": 1}})
    assert again.json() == settled.json(), "the first one counts"
    (used,) = caller.get("limits/usage", policy="tokens").json()["results"]
    assert used["used"] == 512 and used["remaining"] == 488 and used["ratio"] == 0.512 and used["key"] == "acme"
    unknown = caller.post("limits/settle", {"reservation": "nobody"})
    assert unknown.status_code == 404 and unknown.json()["type"] == "/problems/unknown-reservation"


def test_concurrency_slots_come_back() -> None:
    policy("inflight", "project", 1, algorithm="concurrency", window=None)
    caller = api("check", project="acme")
    first = caller.post("limits/check")
    assert caller.post("limits/check").status_code == 429
    caller.post("limits/settle", {"reservation": first.json()["reservation"]})
    assert caller.post("limits/check").status_code == 200


def test_cost_rules_hold_for_checks_without_a_cost() -> None:
    policy("all", "global", 10)
    CostRule.objects.create(match="POST /v1/embeddings", cost={"requests": 5})
    caller = api("check")
    body = {"endpoint": "/v1/embeddings", "method": "POST"}
    assert caller.post("limits/check", body).json()["limits"][0]["remaining"] == 5
    assert caller.post("limits/check", {**body, "cost": 1}).json()["limits"][0]["remaining"] == 4


def test_idempotent_check_charges_once() -> None:
    policy("all", "global", 10)
    caller, other = api("check"), api("check")
    body = {"user": "u", "cost": 2}
    first = caller.post("limits/check", body, Idempotency_Key="k1").json()
    assert (
        caller.post("limits/check", {"cost": 2, "user": "u"}, Idempotency_Key="k1").json()["limits"] == first["limits"]
    )
    conflict = caller.post("limits/check", {"user": "u"}, Idempotency_Key="k1")
    assert conflict.status_code == 409 and conflict.json()["type"] == "/problems/idempotency-conflict"
    assert other.post("limits/check", body, Idempotency_Key="k1").json()["limits"][0]["remaining"] == 6
    assert caller.post("limits/check", body, Idempotency_Key="x" * 256).status_code == 400


def test_bypass_needs_the_scope_and_is_audited() -> None:
    policy("none", "global", 0)
    refused = api("check").post("limits/check", {"bypass": True})
    assert refused.status_code == 403
    assert not AuditEntry.objects.filter(verb="limit.bypass").exists()
    answer = api("check", "bypass").post("limits/check", {"bypass": True})
    assert answer.status_code == 200 and answer.json()["bypassed"] is True
    assert answer.json()["limits"][0]["allowed"] is False
    assert AuditEntry.objects.get(verb="limit.bypass").actor == "key:test"


def test_shadow_policies_report_and_never_deny() -> None:
    policy("watch", "global", 1, mode="shadow")
    caller = api("check")
    caller.post("limits/check")
    answer = caller.post("limits/check")
    assert answer.status_code == 200
    assert answer.json()["limits"][0]["allowed"] is False and answer.json()["limits"][0]["mode"] == "shadow"


def test_denied_network_is_403() -> None:
    Network.objects.create(name="attic", action="deny", cidrs=["198.51.100.0/24"])
    answer = api("check").post("limits/check", {"ip": "198.51.100.1"})
    assert answer.status_code == 403 and answer.json()["type"] == "/problems/network-denied"


def test_unknown_and_foreign_projects_are_404() -> None:
    Project.objects.create(slug="other")
    for caller, project in ((api("check"), "nobody"), (api("check", project="acme"), "other")):
        answer = caller.post("limits/check", {"project": project})
        assert answer.status_code == 404 and answer.json()["type"] == "/problems/unknown-project"
        assert answer.json()["errors"][0]["pointer"] == "#/project"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"colour": "red"}, "#/colour"),
        ({"cost": -1}, "#/cost"),
        ({"cost": 1.5}, "#/cost"),
        ({"cost": True}, "#/cost"),
        (b'{"cost": NaN}', "#/cost"),
        (b'{"cost": {"tokens": Infinity}}', "#/cost/tokens"),
        ({"cost": {"tokens": 2**53}}, "#/cost/tokens"),
        (b'{"cost": 1e999}', "#/cost"),
        ({"ip": "999.1.1.1"}, "#/ip"),
        ({"user": 17}, "#/user"),
        ({"user": ""}, "#/user"),
        ({"user": "x" * 1025}, "#/user"),
        ({"keys": {"chat": 5}}, "#/keys/chat"),
        ({"keys": "chat"}, "#/keys"),
        ({"max_wait": -1}, "#/max_wait"),
        ({"max_wait": "1"}, "#/max_wait"),
        ({"dry_run": "yes"}, "#/dry_run"),
    ],
)  # fmt: skip
def test_bad_input_is_named_alone_and_in_a_batch(body: Any, pointer: str) -> None:
    caller = api("check")
    answer = caller.post("limits/check", body)
    assert answer.status_code == 400 and answer["Content-Type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    if not isinstance(body, bytes):
        batch = caller.post("limits/check-batch", {"checks": [{}, body]})
        assert batch.status_code == 400
        assert [error["pointer"] for error in batch.json()["errors"]] == [pointer.replace("#", "#/checks/1")]


def test_largest_cost_and_longest_subject_are_fine() -> None:
    policy("all", "user", None)
    policy("money", "global", 2**53 - 1, unit="money")
    answer = api("check").post("limits/check", {"cost": {"money": 2**53 - 1}, "user": "é" * 1024})
    assert answer.status_code == 200, answer.content
    assert answer.json()["limits"][1]["remaining"] == 0
    assert len(answer.json()["limits"][0]["key"]) == 1024


def test_batch_answers_in_order() -> None:
    policy("per-user", "user", 1)
    policy("tokens", "global", 5, unit="tokens")
    Network.objects.create(name="attic", action="deny", cidrs=["198.51.100.0/24"])
    answer = api("check").post(
        "limits/check-batch",
        {"checks": [{"user": "a"}, {"user": "a"}, {"project": "nobody"}, {"ip": "198.51.100.1"},
                    {"cost": {"tokens": 6}}, {"bypass": True}, {"user": "b"}]},
    )  # fmt: skip
    assert answer.status_code == 200
    assert [item["status"] for item in answer.json()["results"]] == [200, 429, 404, 403, 422, 403, 200]
    assert [item["allowed"] for item in answer.json()["results"]] == [True] + [False] * 5 + [True]
    assert answer.json()["results"][1]["violated-policies"] == ["per-user"]


def test_batch_of_a_key_charges_once() -> None:
    policy("per-user", "user", 10)
    caller = api("check")
    body = {"checks": [{"user": "a"}, {"user": "a"}, {"project": "nobody"}]}
    first = caller.post("limits/check-batch", body, Idempotency_Key="b").json()
    assert caller.post("limits/check-batch", body, Idempotency_Key="b").json() == first
    assert caller.post("limits/check", {"user": "a"}).json()["limits"][0]["remaining"] == 7


@pytest.mark.parametrize("checks", [[], [{}] * 1001, {}, "x", [1]])
def test_batches_of_another_shape_are_400(checks: Any) -> None:
    assert api("check").post("limits/check-batch", {"checks": checks}).status_code == 400


def test_project_sees_its_own_usage_only() -> None:
    policy("users", "user", 10)
    policy("addresses", "ip", 10)
    policy("theirs", "project", 10, project=Project.objects.create(slug="b"))
    a, b, platform = api(project="a"), api(project="b"), api()
    a.post("limits/check", {"user": "ann", "ip": "192.0.2.1"})
    b.post("limits/check", {"user": "bob", "ip": "192.0.2.1"})
    seen = {(row["policy"], row["key"]) for row in a.get("limits/usage").json()["results"]}
    assert seen == {("users", "ann")}
    seen = {(row["policy"], row["key"]) for row in b.get("limits/usage").json()["results"]}
    assert seen == {("users", "bob"), ("theirs", "b")}
    assert len(platform.get("limits/usage").json()["results"]) == 4
    assert [row["key"] for row in platform.get("limits/usage", project="a").json()["results"]] == ["ann"]
    foreign = a.get("limits/usage", project="b")
    assert foreign.status_code == 404 and foreign.json()["errors"][0]["pointer"] == "?project"
    assert a.get("limits/usage", policy="users", key="bob").json()["results"][0]["used"] == 0
    assert a.get("limits/usage", colour="red").status_code == 400


def test_usage_shows_the_overridden_limit() -> None:
    users = policy("users", "user", 10)
    Override.objects.create(policy=users, key="vip", limit=50, reason="contract")
    caller = api()
    caller.post("limits/check", {"user": "vip"})
    caller.post("limits/check", {"user": "u"})
    rows = caller.get("limits/usage").json()["results"]
    assert {row["key"]: (row["limit"], row["remaining"]) for row in rows} == {"vip": (50, 49), "u": (10, 9)}


def used(caller: Any) -> set[tuple[str, str | None, str]]:
    return {(row["policy"], row["project"], row["key"]) for row in caller.get("limits/usage").json()["results"]}


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({"policy": "users"}, {("all", None, "*")}),
        ({"policy": "users", "key": "ann"}, {("all", None, "*"), ("users", "a", "bob"), ("users", "b", "bob")}),
        ({"key": "bob", "project": "a"}, {("all", None, "*"), ("users", "a", "ann"), ("users", "b", "bob"), ("users", "b", "ann")}),
        ({"scope": "global"}, {("users", "a", "ann"), ("users", "a", "bob"), ("users", "b", "ann"), ("users", "b", "bob")}),
        ({"project": "a"}, {("all", None, "*"), ("users", "b", "ann"), ("users", "b", "bob")}),
        ({"all": True}, set()),
        ({"all": True, "project": "b"}, {("all", None, "*"), ("users", "a", "ann"), ("users", "a", "bob")}),
    ],
)  # fmt: skip
def test_reset_clears_what_is_named_and_no_more(chosen: dict[str, Any], left: set[Any]) -> None:
    policy("users", "user", 10)
    policy("all", "global", 10)
    api(project="a"), api(project="b")
    platform = api()
    for project in ("a", "b"):
        for user in ("ann", "bob"):
            platform.post("limits/check", {"project": project, "user": user})
    before = used(platform)
    answer = platform.post("limits/reset", {**chosen, "reason": "test"})
    assert answer.status_code == 200, answer.content
    assert used(platform) == left
    assert answer.json() == {"reset": len(before) - len(left)}
    entries = AuditEntry.objects.filter(verb__startswith="limit.reset").order_by("pk")
    assert [entry.verb for entry in entries] == ["limit.reset.intent", "limit.reset"]
    assert entries[1].after == answer.json() and entries[1].reason == "test"


def test_reset_by_a_project_touches_its_own_only() -> None:
    policy("users", "user", 10)
    policy("all", "global", 10)
    a, b, platform = api(project="a"), api(project="b"), api()
    for caller in (a, b):
        caller.post("limits/check", {"user": "ann"})
    assert a.post("rate-limiter/reset", {"all": True, "reason": "x"}).json() == {"reset": 1}
    assert used(platform) == {("all", None, "*"), ("users", "b", "ann")}
    assert a.post("limits/reset", {"policy": "all", "reason": "x"}).status_code == 404
    assert a.post("limits/reset", {"project": "b", "reason": "x"}).status_code == 404


@pytest.mark.parametrize(
    "body",
    [{}, {"reason": "x"}, {"all": True}, {"all": False, "reason": "x"}, {"policy": "p", "reason": " "},
     {"all": True, "key": "k", "reason": "x"}, {"scope": "moon", "reason": "x"}, {"all": 1, "reason": "x"}],
)  # fmt: skip
def test_reset_without_a_choice_or_a_reason_is_400(body: dict[str, Any]) -> None:
    assert api().post("limits/reset", body).status_code == 400


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [("read", "post", "limits/check"), ("read", "post", "limits/check-batch"), ("read", "post", "limits/settle"),
     ("check", "get", "limits/usage"), ("check", "post", "limits/reset"), ("check", "post", "rate-limiter/reset")],
)  # fmt: skip
def test_scopes(scope: str, method: str, path: str) -> None:
    assert getattr(api(scope), method)(path).status_code == 403


def test_check_makes_no_query(django_assert_num_queries: Any) -> None:
    policy("users", "user", 10)
    caller = api("check", project="acme")
    caller.post("limits/check", {"user": "u"})
    headers = {"Authorization": f"Bearer {caller.token}"}
    with django_assert_num_queries(0):
        answer = caller.client.post("/api/v1/limits/check", "{}", content_type="application/json", headers=headers)
    assert answer.status_code == 200


def test_blocks_are_charged_ahead_and_the_rest_is_refunded() -> None:
    policy("per-user", "user", 100)
    caller = api("check", "read", project="acme")
    answer = caller.post("limits/leases", {"user": "u", "units": 60, "ttl": 5})
    assert answer.status_code == 201
    block = answer.json()
    assert block["units"] == 60 and 0 < block["expires_in"] <= 5
    rest = caller.post("limits/leases", {"user": "u", "units": 60}).json()
    assert rest["units"] == 40, "near the limit fewer than requested"
    assert caller.post("limits/leases", {"user": "u", "units": 1}).status_code == 429
    path = f"/api/v1/limits/leases/{block['id']}"
    headers = {"Authorization": f"Bearer {caller.token}"}
    for _ in range(2):
        back = caller.client.delete(path, '{"spent": 37}', content_type="application/json", headers=headers)
        assert back.status_code == 200 and back.json() == {"id": block["id"], "spent": 37, "refunded": 23}
    assert caller.get("limits/usage", policy="per-user", key="u").json()["results"][0]["used"] == 77
    for bad in ("nobody", "requests.nobody"):
        gone = caller.client.delete(
            f"/api/v1/limits/leases/{bad}", '{"spent": 1}', content_type="application/json", headers=headers
        )
        assert gone.status_code == 404


def test_a_block_that_nothing_limits_is_given_whole_and_comes_back_too() -> None:
    caller = api("check", project="acme")
    block, other = (caller.post("limits/leases", {"user": "u", "units": 60, "ttl": 5}).json() for _ in range(2))
    assert (block["units"], block["expires_in"]) == (60, 5) and block["id"] != other["id"]
    back = caller.client.delete(
        f"/api/v1/limits/leases/{block['id']}",
        '{"spent": 37}',
        content_type="application/json",
        headers={"Authorization": f"Bearer {caller.token}"},
    )
    assert back.status_code == 200 and back.json() == {"id": block["id"], "spent": 37, "refunded": 0}


@pytest.mark.parametrize(
    "body",
    [{}, {"units": 0}, {"units": 1.5}, {"units": 1, "cost": 1}, {"units": 1, "ttl": 0}, {"units": 1, "unit": ""}],
)
def test_bad_blocks_are_400(body: dict[str, Any]) -> None:
    assert api("check").post("limits/leases", body).status_code == 400


def test_waiting_checks_pass_when_there_is_capacity_again() -> None:
    policy("fast", "global", 1, algorithm="token_bucket", window=0.3)
    caller = api("check")
    assert caller.post("limits/check").status_code == 200
    assert caller.post("limits/check", {"max_wait": 5}).status_code == 200
    refused = caller.post("limits/check", {"max_wait": 0.01})
    assert refused.status_code == 429


def test_without_redis_each_policy_answers_its_own_way() -> None:
    with limiter_at("unix:///nowhere/valkey.sock"):
        opened = policy("open", "user", 2, on_redis_down="fail_open")
        caller = api("check")
        answers = [caller.post("limits/check", {"user": "u"}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429], "never unlimited"
        assert answers[0].json()["degraded"] is True
        opened.on_redis_down = "fail_closed"
        opened.save()
        closed = caller.post("limits/check", {"user": "u"})
        assert closed.status_code == 503 and closed.json()["type"] == "/problems/limiter-unavailable"
        assert int(closed["Retry-After"]) >= 1
        batch = caller.post("limits/check-batch", {"checks": [{"user": "u"}, {}]}).json()["results"]
        assert [item["status"] for item in batch] == [503, 200]


@pytest.mark.parametrize("body", [b"{", b"\xff{}", b"[" * 100_000, b'\xef\xbb\xbf{"user": "u"}'])
def test_invalid_json_is_reported_as_a_mistake_of_the_whole_body(body: bytes) -> None:
    answer = api().post("limits/check", body)
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == ["#"]


def test_a_shadow_policy_does_not_shorten_a_block() -> None:
    policy("trial", "user", 2, algorithm="sliding_window", window=60, mode="shadow")
    policy("users", "user", 10, algorithm="token_bucket")
    block = api().post("limits/leases", {"user": "u", "units": 5, "ttl": 7})
    assert block.status_code == 201
    assert block.json()["expires_in"] == 7, "the bucket of `users` has no end that would shorten it"


@pytest.mark.parametrize(
    ("counted", "written"),
    [("2001:db9::1", "2001:0db9:0:0:7::2"), ("2001:db9::1", "2001:db9::/64"), ("::ffff:198.18.0.1", "198.18.0.1")],
)
def test_addresses_are_found_and_reset_in_any_spelling(counted: str, written: str) -> None:
    policy("addresses", "ip", 10)
    caller = api()
    caller.post("limits/check", {"ip": counted})
    for query in ({"key": written}, {"key": written, "policy": "addresses"}):
        assert [row["used"] for row in caller.get("limits/usage", **query).json()["results"]] == [1]
    Sampler().sample()
    assert [row["used"] for row in caller.get("limits/usage/history", key=written).json()["results"]] == [1]
    assert caller.post("limits/reset", {"key": written, "reason": "test"}).json() == {"reset": 1}


def test_a_project_settles_its_own_reservations_and_blocks_only() -> None:
    policy("tokens", "user", 100, unit="tokens")
    a, b, platform = api(project="a"), api(project="b"), api()
    made = [a.post("limits/check", {"user": "u", "cost": {"tokens": 40}}).json()["reservation"]]
    batch = a.post("limits/check-batch", {"checks": [{"user": "u", "cost": {"tokens": 30}}]})
    made.append(batch.json()["results"][0]["reservation"])
    made.append(
        platform.post("limits/check", {"project": "a", "user": "u", "cost": {"tokens": 20}}).json()["reservation"]
    )
    nobodys = platform.post("limits/check", {"user": "u", "cost": {"tokens": 20}}).json()["reservation"]
    block = a.post("limits/leases", {"user": "u", "units": 10, "unit": "tokens"}).json()["id"]
    forged = b.post("limits/check", {"user": "u", "cost": {"tokens": 1}}).json()["reservation"].partition(":")[2]
    for reservation in (*made, nobodys, made[0].partition(":")[0], f"{made[0].partition(':')[0]}:{forged}"):
        assert b.post("limits/settle", {"reservation": reservation, "actual": {"tokens": 0}}).status_code == 404
    assert b.delete(f"limits/leases/{block}", {"spent": 0}).status_code == 404
    assert a.get("limits/usage", key="u").json()["results"][0]["used"] == 100
    assert a.post("limits/settle", {"reservation": nobodys, "actual": {"tokens": 0}}).status_code == 404
    for caller, reservation in ((a, made[0]), (platform, made[1]), (a, made[2]), (platform, nobodys)):
        settled = caller.post("limits/settle", {"reservation": reservation, "actual": {"tokens": 1}})
        assert settled.status_code == 200 and settled.json()["reservation"] == reservation
    assert a.delete(f"limits/leases/{block}", {"spent": 4}).json() == {"id": block, "spent": 4, "refunded": 6}
    assert a.get("limits/usage", key="u").json()["results"][0]["used"] == 7


def test_a_buckets_ratio_is_of_its_burst() -> None:
    policy("wide", "user", 10, algorithm="token_bucket", burst=40)
    policy("narrow", "project", 10, algorithm="token_bucket", burst=4)
    caller = api(project="a")
    caller.post("limits/check", {"user": "u", "cost": 4})
    Sampler().sample()
    for path in ("limits/usage", "limits/usage/history"):
        ratios = {row["policy"]: row["ratio"] for row in caller.get(path).json()["results"]}
        assert ratios == {"wide": 0.1, "narrow": 1.0}
    assert [(mark.policy.name, mark.share) for mark in ThresholdMark.objects.all()] == [("narrow", 0.95)]


def test_a_unit_that_costs_nothing_ahead_is_charged_when_it_is_settled() -> None:
    policy("tokens", "project", 1000, unit="tokens")
    key = api("check", "read", project="acme")
    for asked in ({"cost": {"tokens": 0}}, {"cost": 1}, {}):
        answer = key.post("limits/check", asked).json()
        assert answer["reservation"], asked
        assert (
            key.post("limits/settle", {"reservation": answer["reservation"], "actual": {"tokens": 300}}).status_code
            == 200
        )
    (used,) = key.get("limits/usage", policy="tokens").json()["results"]
    assert used["used"] == 900
    assert key.post("limits/check", {"cost": {"tokens": 101}}).status_code == 429


@pytest.mark.parametrize("unit", ["tokns", "token", "Tokens", "request"])
def test_a_misspelt_unit_is_refused_and_changes_nothing(unit: str) -> None:
    policy("tokens", "project", 1000, unit="tokens")
    policy("slots", "project", 1, algorithm="concurrency", window=None)
    key = api("check", project="acme")
    reservation = key.post("limits/check", {"cost": {"tokens": 800}}).json()["reservation"]
    refused = key.post("limits/settle", {"reservation": reservation, "actual": {unit: 5}})
    assert refused.status_code == 400 and refused.json()["errors"][0]["pointer"] == f"#/actual/{unit}"
    settled = key.post(
        "limits/settle", {"reservation": reservation, "actual": {"tokens": 5, "money": 1, "requests": 1}}
    )
    assert settled.status_code == 200 and settled.json()["refunded"]["tokens"] == 795


def test_a_unit_whose_policy_was_removed_can_be_settled() -> None:
    made = policy("signs", "project", 1000, unit="signs")
    key = api("check", project="acme")
    reservation = key.post("limits/check", {"cost": {"signs": 800}}).json()["reservation"]
    made.delete()
    assert key.post("limits/settle", {"reservation": reservation, "actual": {"signs": 5}}).status_code == 200


def test_a_reset_between_reserving_and_settling_leaves_the_later_use() -> None:
    policy("tokens", "project", 1000, unit="tokens")
    key = api("check", "operate", "read", project="acme")
    reservation = key.post("limits/check", {"cost": {"tokens": 800}}).json()["reservation"]
    block = key.post("limits/leases", {"units": 3, "unit": "tokens"}).json()["id"]
    assert key.post("limits/reset", {"policy": "tokens", "reason": "test"}).json() == {"reset": 1}
    assert key.post("limits/check", {"cost": {"tokens": 400}}).status_code == 200
    assert key.post("limits/settle", {"reservation": reservation, "actual": {"tokens": 0}}).json()["refunded"] == {
        "tokens": 0
    }
    assert key.delete(f"limits/leases/{block}", {"spent": 0}).json()["refunded"] == 0
    assert key.get("limits/usage", policy="tokens").json()["results"][0]["used"] == 400
