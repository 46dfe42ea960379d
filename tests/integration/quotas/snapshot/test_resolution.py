"""Which limits apply to a check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import OperationalError
from django.utils import timezone

from quotas.errors import NetworkDenied, UnknownProject
from quotas.models import (
    Account,
    ConfigVersion,
    CostRule,
    Network,
    Override,
    Policy,
    Pool,
    Project,
    Provider,
    Tier,
    TierUser,
)
from quotas.snapshot import addresses, resolve
from quotas.snapshot.patterns import BadPattern, compile_pattern

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_snapshot() -> Iterator[None]:
    resolve.clear()
    yield
    resolve.clear()


def policy(name: str, scope: str, limit: int | None = 10, **columns: Any) -> Policy:
    columns = {"algorithm": "sliding_window", "window": 60, **columns}
    return Policy.objects.create(name=name, scope=scope, limit=limit, **columns)


def names(**check: Any) -> list[str]:
    resolve.clear()
    return [limit.name for limit in resolve.limits_for(**check)]


def test_order_of_report_and_keys() -> None:
    Project.objects.create(slug="acme")
    policy("a-global", "global")
    policy("b-custom", "custom", key_name="chat")
    policy("c-queue", "queue", match="batch")
    policy("d-endpoint", "endpoint", match="POST /v1/*")
    policy("e-project", "project")
    policy("f-user", "user")
    policy("g-ip", "ip")
    limits = resolve.limits_for(
        project="acme",
        user="u",
        ip="192.0.2.1",
        endpoint="/v1/chat?x=1",
        method="post",
        keys={"chat": "-1"},
        queue="batch",
    )
    assert [(limit.scope, limit.subject, limit.partition) for limit in limits] == [
        ("ip", "192.0.2.1", ""),
        ("user", "u", "acme"),
        ("project", "acme", "acme"),
        ("endpoint", "POST /v1/*", "acme"),
        ("queue", "batch", ""),
        ("custom", "-1", "acme"),
        ("global", "*", ""),
    ]
    assert names() == ["a-global"], "what is not named is not limited by its scope"
    assert names(endpoint="/v1/chat", method="GET") == ["a-global"]
    assert names(endpoint="/v1/chat") == ["d-endpoint", "a-global"], "leaving the method out is no way round"
    assert names(queue="other") == ["a-global"]


def test_projects_and_tiers() -> None:
    gold = Tier.objects.create(name="gold")
    TierUser.objects.create(tier=gold, user="vip")
    acme = Project.objects.create(slug="acme", tier=gold)
    Project.objects.create(slug="plain")
    policy("only-acme", "user", project=acme)
    policy("gold-users", "user", tier=gold)
    policy("everybody", "user")
    assert names(project="acme", user="u") == ["everybody", "only-acme", "gold-users"]
    assert names(project="plain", user="u") == ["everybody"]
    assert names(project="plain", user="vip") == ["everybody", "gold-users"]
    assert names(user="vip") == ["everybody", "gold-users"]
    with pytest.raises(UnknownProject):
        resolve.limits_for(project="nobody")


def test_limit_null_and_zero_stay_apart_and_disabled_is_left_out() -> None:
    policy("none", "global", None)
    policy("refuse", "global", 0)
    policy("off", "global", 5, enabled=False)
    assert {limit.name: limit.limit for limit in resolve.limits_for()} == {"none": None, "refuse": 0}


def test_overrides_end_by_the_clock_of_sql() -> None:
    acme = Project.objects.create(slug="acme")
    Project.objects.create(slug="other")
    hourly = policy("hourly", "user", 10)
    Override.objects.create(policy=hourly, key="u-17", limit=5000, reason="load test")
    Override.objects.create(policy=hourly, key="u-17", project=acme, limit=None, reason="contract")
    Override.objects.create(policy=hourly, key="u-18", limit=1, reason="", until=timezone.now() - timedelta(seconds=1))
    Override.objects.create(policy=hourly, key="u-19", limit=0, reason="", until=timezone.now() + timedelta(hours=1))
    limits = {
        (project, user): resolve.limits_for(project=project, user=user)[0].limit
        for project in ("acme", "other")
        for user in ("u-17", "u-18", "u-19")
    }
    assert limits[("acme", "u-17")] is None
    assert limits[("other", "u-17")] == 5000
    assert limits[("other", "u-18")] == 10
    assert limits[("other", "u-19")] == 0


def test_exempt_subjects_and_excluded_paths() -> None:
    policy("users", "user", exempt=["root"], excluded_paths=["/health", "GET /docs/*"])
    policy("addresses", "ip", exempt=["192.0.2.0/28", "2001:db8::1"])
    assert names(user="root") == []
    assert names(user="u", endpoint="/health") == []
    assert names(user="u", endpoint="/docs/a", method="GET") == []
    assert names(user="u", endpoint="/docs/a", method="POST") == ["users"]
    assert names(user="u", endpoint="/docs/a") == ["users"]
    assert names(ip="192.0.2.15") == []
    assert names(ip="192.0.2.16") == ["addresses"]
    assert names(ip="2001:db8::ffff") == [], "the same /64"


def test_networks_are_let_past_or_refused() -> None:
    policy("addresses", "ip")
    Network.objects.create(name="office", action="allow", cidrs=["192.0.2.0/24", "2001:db8::/32"])
    Network.objects.create(name="attic", action="deny", cidrs=["192.0.2.128/25", "198.51.100.7"])
    assert names(ip="192.0.2.1") == []
    assert names(ip="::ffff:192.0.2.1") == []
    assert names(ip="2001:db8:1::1") == []
    assert names(ip="203.0.113.1") == ["addresses"]
    for address in ("192.0.2.129", "198.51.100.7", "::ffff:198.51.100.7"):
        with pytest.raises(NetworkDenied) as refused:
            resolve.limits_for(ip=address)
        assert refused.value.network == "attic"


@pytest.mark.parametrize(
    ("address", "subject"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:DB8:0:1:2::3", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_how_addresses_are_counted(address: str, subject: str) -> None:
    policy("addresses", "ip")
    assert resolve.limits_for(ip=address)[0].subject == subject


@pytest.mark.parametrize("address", ["", "localhost", "1.2.3", "01.2.3.4", "1.2.3.4/32", "1.2.3.4%eth0", "::g"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(addresses.BadAddress):
        resolve.limits_for(ip=address)


def test_costs() -> None:
    policy("requests", "global")
    policy("tokens", "global", unit="tokens")
    CostRule.objects.create(match="/v1/*", cost={"requests": 2})
    CostRule.objects.create(match="POST /v1/embeddings", cost={"tokens": 7})

    def cost(**check: Any) -> tuple[int, ...]:
        return tuple(limit.cost for limit in resolve.limits_for(**check))

    assert cost() == (1, 0)
    assert cost(cost={"tokens": 5}) == (1, 5)
    assert cost(cost={"requests": 0, "tokens": 5}) == (0, 5)
    assert cost(endpoint="/v1/x", method="GET") == (2, 0)
    assert cost(endpoint="/v1/embeddings", method="POST") == (1, 7)
    assert cost(endpoint="/v1/embeddings", method="POST", cost={"requests": 3}) == (3, 0)


def test_patterns() -> None:
    def matches(text: str, method: str, path: str) -> bool:
        return compile_pattern(text).matches(method, path)

    assert matches("", "GET", "/x") and matches("*", "GET", "/x") and matches("* /x", "GET", "/x")
    assert matches("post /v1/*", "POST", "/v1/a/b") and not matches("post /v1/*", "GET", "/v1/a")
    assert matches("/v1/*/end", "GET", "/v1/a/b/end") and not matches("/v1/*/end", "GET", "/v1/end")
    assert matches("/a.b", "GET", "/a.b") and not matches("/a.b", "GET", "/aXb")
    for bad in ("v1", "POST", "FETCH /v1", "POST /v1 /v2"):
        with pytest.raises(BadPattern):
            compile_pattern(bad)


def test_changes_are_seen_without_asking_per_check(django_assert_num_queries: Any) -> None:
    changed = policy("one", "global", 10)
    assert resolve.limits_for()[0].limit == 10
    with django_assert_num_queries(0):
        for _ in range(20):
            resolve.limits_for()
    changed.limit = 20
    changed.save()
    resolve.expire()
    assert resolve.limits_for()[0].limit == 20
    Policy.objects.filter(pk=changed.pk).update(limit=30)
    resolve.expire()
    assert resolve.limits_for()[0].limit == 30
    Policy.objects.all().delete()
    resolve.expire()
    assert resolve.limits_for() == ()


def _add_tier() -> None:
    gold = Tier.objects.create(name="gold")
    TierUser.objects.create(tier=gold, user="u")
    policy("of-gold", "user", 99, tier=gold)


CHANGES: dict[str, tuple[Callable[[], object], dict[str, int | None]]] = {
    "limit": (lambda: Policy.objects.filter(name="hourly").update(limit=20), {"hourly": 20}),
    "override": (
        lambda: Override.objects.create(policy=Policy.objects.get(name="hourly"), key="u", limit=5000, reason="x"),
        {"hourly": 5000},
    ),
    "tier": (_add_tier, {"hourly": 10, "of-gold": 99}),
    "disabled": (lambda: Policy.objects.filter(name="hourly").update(enabled=False), {}),
    "removed": (lambda: Policy.objects.get(name="hourly").delete(), {}),
    "new policy": (lambda: policy("everybody", "global", 1000), {"hourly": 10, "everybody": 1000}),
    "exempt user": (lambda: Policy.objects.filter(name="hourly").update(exempt=["u"]), {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_question_that_was_answered_before_gets_the_new_limits(change: str) -> None:
    """In other limiters a restart was needed (api-umbrella#3, gubernator#37, cloudserver#6046, supabase/auth#2358)."""
    Project.objects.create(slug="acme")
    policy("hourly", "user")

    def limits() -> dict[str, int | None]:
        return {limit.name: limit.limit for limit in resolve.limits_for(project="acme", user="u")}

    assert limits() == limits() == {"hourly": 10}
    apply, expected = CHANGES[change]
    apply()
    resolve.expire()
    assert limits() == limits() == expected


def test_an_override_ends_while_its_limit_is_in_memory(monkeypatch: Any) -> None:
    hourly = policy("hourly", "user", 10)
    Override.objects.create(policy=hourly, key="u", limit=500, reason="", until=timezone.now() + timedelta(hours=1))
    snapshot = resolve.snapshot()
    assert [resolve.limits_for(user="u")[0].limit for _ in range(2)] == [500, 500]
    later = snapshot.now() + 3601
    monkeypatch.setattr(type(snapshot), "now", lambda _: later)
    assert [resolve.limits_for(user="u", snapshot=snapshot)[0].limit for _ in range(2)] == [10, 10]


def test_without_sql_the_snapshot_stays(monkeypatch: Any) -> None:
    policy("one", "global", 10)
    assert resolve.limits_for()

    def away() -> int:
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(ConfigVersion, "numbers", away)
    resolve.expire()
    assert [limit.name for limit in resolve.limits_for()] == ["one"]


def test_health_columns_outdate_nothing(settings: Any) -> None:
    settings.CREDENTIAL_KEYS = [Fernet.generate_key().decode()]
    provider = Provider.objects.create(name="sim", base_url="http://127.0.0.1:9100")
    pool = Pool.objects.create(name="llm", provider=provider)
    account = Account.objects.create(pool=pool, name="a1", credential="k")
    before = ConfigVersion.current()
    assert Account.objects.filter(pk=account.pk).update(health=0.5) == 1
    account.save(update_fields=["state", "until"])
    assert ConfigVersion.current() == before
    assert Account.objects.filter(pk=account.pk).update(health=0.5, enabled=False) == 1
    assert ConfigVersion.current() > before


def test_pause_threshold_holds_the_named_priorities_back() -> None:
    Project.objects.create(slug="acme")
    policy("window", "project", 100, pause_at=0.8, pause="normal")
    policy("bucket", "project", 100, algorithm="token_bucket", burst=50, pause_at=0.8, pause="low")
    policy("plain", "project", 100)

    def capacity(priority: int, requests: int = 1) -> dict[str, tuple[int | None, int | None]]:
        limits = resolve.resolve_job(project="acme", queue="batch", cost={"requests": requests}, priority=priority)
        return {limit.name: (limit.limit, limit.burst) for limit in limits}

    assert capacity(1) == {"window": (100, None), "bucket": (100, 50), "plain": (100, None)}
    assert capacity(5) == {"window": (80, None), "bucket": (100, 50), "plain": (100, None)}
    assert capacity(8) == {"window": (80, None), "bucket": (100, 40), "plain": (100, None)}, "the refill stays"
    assert capacity(8, 90)["window"] == (90, None), "a large cost waits for an idle limit; it is not impossible"
    assert resolve.limits_for(project="acme")[0].limit == 100, "a check has no priority and is not delayed"
