"""Forms refuse values that can't be stored, and each change is in the audit log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.forms.models import model_to_dict
from django.test import Client

from controlplane.models import AuditEntry
from quotas.models import ConfigVersion, Policy, Pool, Project, Provider
from tests.browser.seed import Day
from tests.integration.controlplane.admin.pages import filled

SignIn = Callable[[str], Client]
NO_OVERRIDES = {"overrides-TOTAL_FORMS": "0", "overrides-INITIAL_FORMS": "0"}
GOOD = {
    "name": "tokens-day", "enabled": "on", "scope": "user", "unit": "tokens", "algorithm": "sliding_window",
    "limit": "1000", "window": "60", "timezone": "UTC", "lease_ttl": "60", "mode": "enforce",
    "on_redis_down": "fail_closed", "warn_at": "0.8", "exempt": "", "excluded_paths": "", "pause": "low",
    "reason": "a new customer", **NO_OVERRIDES,
}  # fmt: skip


def post(client: Client, **changed: Any) -> Any:
    return client.post("/admin/quotas/policy/add/", {**GOOD, **changed})


def test_a_good_policy_is_saved_announced_and_in_force(signed_in: SignIn, day: Day) -> None:
    version = ConfigVersion.current()
    assert post(signed_in("root")).status_code == 302
    assert Policy.objects.get(name="tokens-day").limit == 1000
    assert ConfigVersion.current() > version
    entry = AuditEntry.objects.get(verb="policy.create")
    assert (entry.actor, entry.target, entry.reason) == ("user:root", "policy:tokens-day", "a new customer")
    assert entry.after["limit"] == 1000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limit", "-1"),
        ("window", "0"),
        ("window", ""),
        ("timezone", "Mars/Olympus"),
        ("scope", "custom"),
        ("scope", "endpoint"),
        ("algorithm", "calendar"),
        ("warn_at", "2"),
        ("warn_at", "[0.8]"),
        ("warn_at", "often"),
        ("warn_at", '{"a": 1}'),
        ("pause_at", "1.5"),
        ("exempt", '"all"'),
        ("exempt", '["u-1"]'),
        ("adaptive_floor", "9"),
        ("adaptive_latency", "2"),
        ("adaptive_pool", "no-such-pool"),
        ("name", "no spaces"),
    ],
)
def test_what_no_limiter_could_hold_is_refused(signed_in: SignIn, day: Day, field: str, value: str) -> None:
    assert post(signed_in("root"), **{field: value}).status_code == 200
    assert not Policy.objects.filter(name=GOOD["name"]).exists()


def test_an_adaptive_limit_is_typed_in_fields(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    page = post(client, adaptive_floor="90", adaptive_ceiling="10").content.decode()
    assert "The floor is above the ceiling." in page
    page = post(client, adaptive_floor="1", adaptive_ceiling="10", adaptive_errors="7").content.decode()
    assert "Errors is a share above 0, up to 1." in page
    given = {"adaptive_floor": "10", "adaptive_ceiling": "100", "adaptive_latency": "2.5", "adaptive_pool": "llm"}
    assert post(client, **given, limit="").status_code == 200, "it starts from a limit"
    assert post(client, **given).status_code == 302
    policy = Policy.objects.get(name=GOOD["name"])
    assert policy.adaptive == {"floor": 10, "ceiling": 100, "latency": 2.5, "pool": "llm"}
    url = f"/admin/quotas/policy/{policy.pk}/change/"
    sent = filled(client.get(url).content.decode(), "policy")
    assert sent["adaptive_latency"] == ["2.5"] and sent["adaptive_pool"] == ["llm"]
    shown = signed_in("viewer").get(url).content.decode()
    assert "ceiling 100" in shown
    assert (
        client.post(
            url, {**sent, "adaptive_floor": "", "adaptive_ceiling": "", "adaptive_latency": "", "adaptive_pool": ""}
        ).status_code
        == 302
    )
    policy.refresh_from_db()
    assert policy.adaptive is None
    assert AuditEntry.objects.filter(verb="policy.change", after={"adaptive": None}).count() == 1


def test_a_network_that_is_none_is_refused_before_it_breaks_the_snapshot(signed_in: SignIn, day: Day) -> None:
    assert post(signed_in("root"), scope="ip", exempt="10.0.0.0/99").status_code == 200
    assert not Policy.objects.filter(name=GOOD["name"]).exists()


@pytest.mark.parametrize(
    ("field", "value", "anew"),
    [
        ("limit", "99", 0),
        ("window", "61", 1),
        ("algorithm", "fixed_window", 1),
        ("scope", "project", 1),
        ("unit", "money", 1),
        ("key_name", "chat", 1),
        ("match", "POST /v1/*", 1),
    ],  # fmt: skip
)
def test_counters_start_anew_where_they_must(signed_in: SignIn, day: Day, field: str, value: str, anew: int) -> None:
    client = signed_in("root")
    post(client)
    policy = Policy.objects.get(name=GOOD["name"])
    answer = client.post(f"/admin/quotas/policy/{policy.pk}/change/", {**GOOD, field: value})
    assert answer.status_code == 302
    policy.refresh_from_db()
    assert policy.generation == anew
    assert str(model_to_dict(policy)[field]).startswith(value)
    entry = AuditEntry.objects.get(verb="policy.change")
    assert list(entry.after) == [field]


def test_a_deletion_is_in_the_audit_log(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    answer = client.post(f"/admin/quotas/policy/{day.policy.pk}/delete/", {"post": "yes", "reason": "unused"})
    assert answer.status_code == 302
    entry = AuditEntry.objects.get(verb="policy.delete")
    assert (entry.before["name"], entry.reason) == ("user-hourly", "unused")


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("", None),
        ("none", []),
        ("acme\nacme", ["acme"]),
        ("acme, acme", ["acme"]),
        ("nobody", False),
        ("acme\nnobody", False),
        ('"acme"', False),
        ("[]", False),
    ],  # fmt: skip
)
def test_whose_a_pool_is(signed_in: SignIn, day: Day, given: str, stored: Any) -> None:
    provider = Provider.objects.first()
    assert provider is not None
    Project.objects.get_or_create(slug="acme", defaults={"name": "acme"})
    sent = {
        "name": "theirs", "provider": provider.pk, "strategy": "health", "fallback": "", "projects": given,
        "breaker_failures": 5, "breaker_window": 60, "breaker_open_for": 60, "breaker_probes": 1,
        "cooldown_default": 60, "cooldown_max": 3600, "pause_at": 0.8, "pause": "low", "sticky_by": "key", "tries": 3, "reason": "new",
        "limits-TOTAL_FORMS": 0, "limits-INITIAL_FORMS": 0, "accounts-TOTAL_FORMS": 0, "accounts-INITIAL_FORMS": 0,
    }  # fmt: skip
    answer = signed_in("root").post("/admin/quotas/pool/add/", sent)
    assert answer.status_code == (200 if stored is False else 302)
    rows = list(Pool.objects.filter(name="theirs").values_list("projects", flat=True))
    assert rows == ([] if stored is False else [stored])


def test_the_reason_of_an_inline_override_is_that_of_its_entry(signed_in: SignIn, day: Day) -> None:
    """Added, changed and deleted on the policy's page: the override's own reason counts where the form gives none."""
    client, url = signed_in("root"), f"/admin/quotas/policy/{day.policy.pk}/change/"

    def save(**given: Any) -> AuditEntry:
        sent = filled(client.get(url).content.decode(), "policy")
        answer = client.post(url, {**sent, **given})
        assert answer.status_code == 302, answer.context["errors"]
        return AuditEntry.objects.filter(verb__startswith="override.").latest("pk")

    first = save(**{"overrides-0-limit": "7", "overrides-0-reason": "VIP until June"})
    assert (first.verb, first.reason, first.after["limit"]) == ("override.change", "VIP until June", 7)
    added = save(
        **{
            "overrides-TOTAL_FORMS": "2", "overrides-1-key": "u-99", "overrides-1-limit": "5",
            "overrides-1-reason": "abuse", "overrides-1-policy": str(day.policy.pk), "overrides-1-id": "",
        }
    )  # fmt: skip
    assert (added.verb, added.reason, added.after["key"]) == ("override.create", "abuse", "u-99")
    gone = save(**{"overrides-1-DELETE": "on", "reason": "it is over"})
    assert (gone.verb, gone.reason, gone.before["key"]) == ("override.delete", "it is over", "u-99")
