"""What a check decides: algorithms, scopes, costs, denials, modes, tiers and networks."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from tests.support.instance import wait_until
from tests.support.product import Product
from tests.support.shapes import Deployment

CONFIGURATION = """
version: 1
tiers: [{{name: gold, users: [rich]}}]
projects: [{{slug: each}}, {{slug: scopes}}, {{slug: costs}}, {{slug: modes}}, {{slug: blocks}}, {{slug: plans, tier: gold}}, {{slug: poor}}, {{slug: nets}}]
networks: [{{name: office, action: allow, cidrs: [198.51.100.0/24]}}, {{name: denied, action: deny, cidrs: ["2001:db8:bad::/48"]}}]
cost_rules: [{{match: "POST /rows/embeddings", cost: {{requests: 5}}}}]
overrides: [{{policy: tiers-user, key: guest, limit: 3, until: "{soon}", reason: a visit}}]
policies:
  - {{name: each-sliding_window, project: each, scope: custom, key_name: sliding_window, algorithm: sliding_window, limit: 3, window: 1h}}
  - {{name: each-counter, project: each, scope: custom, key_name: counter, algorithm: sliding_window_counter, limit: 3, window: 1h}}
  - {{name: each-token_bucket, project: each, scope: custom, key_name: token_bucket, algorithm: token_bucket, limit: 3, window: 1h}}
  - {{name: each-fixed_window, project: each, scope: custom, key_name: fixed_window, algorithm: fixed_window, limit: 3, window: 365d}}
  - {{name: each-calendar, project: each, scope: custom, key_name: calendar, algorithm: calendar, limit: 3, period: day, timezone: Europe/Berlin}}
  - {{name: each-concurrency, project: each, scope: custom, key_name: concurrency, algorithm: concurrency, limit: 3, lease_ttl: 2s}}
  - {{name: quick, project: each, scope: custom, key_name: quick, algorithm: token_bucket, limit: 2, window: 3s, burst: 1}}
  - {{name: scope-ip, project: scopes, scope: ip, algorithm: fixed_window, limit: 100, window: 365d}}
  - {{name: scope-user, project: scopes, scope: user, algorithm: fixed_window, limit: 100, window: 365d}}
  - {{name: scope-project, project: scopes, scope: project, algorithm: fixed_window, limit: 100000, window: 365d}}
  - {{name: scope-endpoint, project: scopes, scope: endpoint, match: "POST /rows/*", algorithm: fixed_window, limit: 1000, window: 365d}}
  - {{name: scope-bot, project: scopes, scope: custom, key_name: bot, algorithm: fixed_window, limit: 1, window: 365d}}
  - {{name: cost-requests, project: costs, scope: user, algorithm: fixed_window, limit: 100, window: 365d}}
  - {{name: cost-tokens, project: costs, scope: user, unit: tokens, algorithm: fixed_window, limit: 1000, window: 365d}}
  - {{name: cost-money, project: costs, scope: user, unit: money, algorithm: fixed_window, limit: 5000000, window: 365d}}
  - {{name: trial, project: modes, scope: user, algorithm: fixed_window, limit: 1, window: 365d, mode: shadow}}
  - {{name: enforced, project: modes, scope: user, algorithm: fixed_window, limit: 2, window: 365d, exempt: [boss], excluded_paths: [/open/*]}}
  - {{name: blocks-user, project: blocks, scope: user, algorithm: fixed_window, limit: 100, window: 365d}}
  - {{name: tiers-user, tier: gold, scope: user, algorithm: fixed_window, limit: 2, window: 365d}}
  - {{name: nets-ip, project: nets, scope: ip, algorithm: fixed_window, limit: 1, window: 365d}}
"""


@pytest.fixture(scope="module", autouse=True)
def configured(shared: Deployment) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    shared.apply(CONFIGURATION.format(soon=soon))
    wait_until(lambda: shared.product.check("nets", ip="203.0.113.1", dry_run=True).is_success)


def state(response: httpx.Response, policy: str) -> dict[str, Any]:
    """One policy's part of a check's response."""
    found: dict[str, Any] = next(one for one in response.json()["limits"] if one["policy"] == policy)
    return found


@pytest.mark.parametrize(
    "key", ["sliding_window", "counter", "token_bucket", "fixed_window", "calendar", "concurrency"]
)
def test_each_algorithm_admits_its_limit_and_no_more(product: Product, key: str) -> None:
    responses = [product.check("each", keys={key: "x"}) for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 200, 200, 429]
    denied = state(responses[3], f"each-{key}")
    assert responses[3].json()["binding"] == f"each-{key}" and denied["remaining"] == 0
    if key == "calendar":
        berlin = datetime.now(ZoneInfo("Europe/Berlin"))
        midnight = (berlin + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        left = midnight.timestamp() - berlin.timestamp()
        assert abs(denied["reset_after"] - left) < 60 or left > 86340
    if key == "concurrency":
        product.post("limits/settle", {"reservation": responses[0].json()["reservation"]})
        assert product.check("each", keys={key: "x"}).status_code == 200, "a slot that was released"
        assert product.check("each", keys={key: "x"}).status_code == 429
        wait_until(lambda: product.check("each", keys={key: "x"}, dry_run=True).is_success, 20, "leases expire")


def test_one_request_is_checked_in_all_scopes_and_charged_by_all_or_none(product: Product) -> None:
    asked = {"ip": "203.0.113.7", "user": "u-2", "endpoint": "/rows/x", "method": "POST", "keys": {"bot": "b"}}
    first = product.check("scopes", **asked)
    names = ["scope-ip", "scope-user", "scope-project", "scope-endpoint", "scope-bot"]
    assert [one["policy"] for one in first.json()["limits"]] == names
    assert [one["key"] for one in first.json()["limits"]] == ["203.0.113.7", "u-2", "scopes", "POST /rows/*", "b"]
    before = {row["policy"]: row["used"] for row in product.usage(project="scopes")}
    denied = product.check("scopes", **asked)
    assert denied.status_code == 429 and denied.json()["violated-policies"] == ["scope-bot"]
    assert {row["policy"]: row["used"] for row in product.usage(project="scopes")} == before


def test_odd_subjects_never_share_a_counter_and_equal_ones_always_do(product: Product) -> None:
    odd = ["a:c", "a", "c", "{x}", "x", "a\nc", "a c", "*", "scopes", "\u00e9", "e\u0301", "1", "01", "A", "a%3Ac"]
    long = "y" * 1023
    for subject in (*odd, long + "1", long + "2"):
        assert product.check("scopes", keys={"bot": subject}).status_code == 200, subject
    for subject in (*odd, long + "1", long + "2"):
        assert product.check("scopes", keys={"bot": subject}).status_code == 429, subject
    refused = product.check("scopes", keys={"bot": "y" * 10_240})
    assert refused.status_code == 400, "not truncated to a name that another subject has"


def test_costs_in_several_units_by_rule_and_settled_with_the_actual_use(product: Product) -> None:
    by_rule = product.check("costs", user="r", endpoint="/rows/embeddings", method="POST")
    assert state(by_rule, "cost-requests")["remaining"] == 95
    cost = {"tokens": 800, "money": 1_500_000}
    reserved = product.check("costs", user="u", cost=cost)
    remaining = [state(reserved, f"cost-{unit}")["remaining"] for unit in ("requests", "tokens", "money")]
    assert remaining == [99, 200, 3_500_000]
    assert product.check("costs", user="u", cost={"tokens": 201}).status_code == 429
    assert product.check("costs", user="u", cost={"tokens": 1001}).status_code == 422
    settle = {"reservation": reserved.json()["reservation"], "actual": {"tokens": 300, "money": 2_000_000}}
    settled = product.post("limits/settle", settle)
    assert settled["refunded"] == {"tokens": 500, "money": -500_000}
    assert product.post("limits/settle", settle) == settled, "once"
    after = product.check("costs", user="u", cost=0, dry_run=True)
    assert [state(after, f"cost-{unit}")["remaining"] for unit in ("tokens", "money")] == [700, 3_000_000]


def test_a_denial_says_which_policy_denied_and_when_the_same_request_passes(product: Product) -> None:
    asked: dict[str, Any] = {"keys": {"quick": "k"}}
    assert product.check("each", **asked).status_code == 200
    denied = product.check("each", **asked)
    wait = int(denied.headers["Retry-After"])
    body = denied.json()
    assert denied.status_code == 429 and denied.headers["Content-Type"].startswith("application/problem+json")
    assert body["type"] == "/problems/quota-exceeded" and body["violated-policies"] == ["quick"]
    assert 0 < body["retry_after"] <= wait < body["retry_after"] + 1 and 1 <= wait <= 2
    assert denied.headers["RateLimit"] == f'"quick";r=0;t={wait}'
    assert denied.headers["RateLimit-Policy"].startswith('"quick";q=2;w=3')
    trio = [denied.headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset")]
    assert trio == ["2", "0", str(wait)]
    time.sleep(wait)  # exactly as the response says
    assert product.check("each", **asked).status_code == 200


def test_shadow_policies_exempt_subjects_and_excluded_paths(product: Product) -> None:
    responses = [product.check("modes", user="u") for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    trial = state(responses[1], "trial")
    assert trial["mode"] == "shadow" and trial["allowed"] is False, "it would have denied"
    assert responses[2].json()["violated-policies"] == ["enforced"]
    assert [product.check("modes", user="boss").status_code for _ in range(5)] == [200] * 5
    assert [product.check("modes", user="u", endpoint="/open/door").status_code for _ in range(5)] == [200] * 5
    assert product.check("modes", user="u", endpoint="/other").status_code == 429


def test_many_checks_in_one_call_and_blocks_to_spend_in_memory(product: Product) -> None:
    checks = [{"project": "blocks", "user": f"u-{n % 5}", "cost": 60} for n in range(10)]
    results = product.post("limits/check-batch", {"checks": checks})["results"]
    assert [result["status"] for result in results] == [200] * 5 + [429] * 5
    ask = {"project": "blocks", "user": "lessee", "units": 80, "ttl": 60}
    blocks = [product.call("POST", "limits/leases", ask) for _ in range(3)]
    assert [block.status_code for block in blocks] == [201, 201, 429]
    assert [block.json()["units"] for block in blocks[:2]] == [80, 20], "near the limit fewer than requested"
    lease = blocks[0].json()["id"]
    returned = product.call("DELETE", f"limits/leases/{lease}", {"spent": 30})
    assert returned.json() == {"id": lease, "spent": 30, "refunded": 50}
    assert product.usage(policy="blocks-user", project="blocks", key="lessee")[0]["used"] == 50


def test_tiers_overrides_and_networks(shared: Deployment, product: Product) -> None:
    def allowed(project: str, **who: str) -> int:
        return sum(product.check(project, **who).is_success for _ in range(4))

    assert allowed("plans", user="u") == 2, "the project's plan"
    assert allowed("poor", user="u") == 4 and allowed("poor", user="rich") == 2, "the user's plan"
    assert allowed("plans", user="guest") == 3, "an override, for an hour"
    ended = (datetime.now(UTC) - timedelta(seconds=1)).isoformat(timespec="seconds")
    shared.apply(f"""
version: 1
overrides: [{{policy: tiers-user, key: guest, limit: 3, until: "{ended}", reason: the visit is over}}]
""")
    wait_until(lambda: state(product.check("plans", user="guest", dry_run=True), "tiers-user")["limit"] == 2, 20)
    assert allowed("nets", ip="203.0.113.60") == 1 and allowed("nets", ip="::ffff:203.0.113.60") == 0
    assert allowed("nets", ip="198.51.100.60") == 4, "the allowed network"
    assert allowed("nets", ip="2001:db8:5::1") == 1 and allowed("nets", ip="2001:db8:5::2") == 0, "one /64"
    denied = product.check("nets", ip="2001:db8:bad:1::1")
    assert denied.status_code == 403 and denied.json()["type"] == "/problems/network-denied"
