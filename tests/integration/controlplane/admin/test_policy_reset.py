"""Counters are reset from a policy's page and from the list: of one subject, one project, a policy, all; audited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from controlplane.models import AuditEntry
from quotas import limits
from quotas.models import Policy, Project
from quotas.services.usage import Selection, reset, usage
from quotas.snapshot import resolve
from tests.browser.seed import Day

SignIn = Callable[[str], Client]


@pytest.fixture
def hourly(day: Day) -> Policy:
    Policy.objects.all().delete()
    Project.objects.get_or_create(slug="globex")
    made = Policy.objects.create(name="hourly", scope="user", algorithm="fixed_window", limit=10, window=3600)
    Policy.objects.create(name="wide", scope="user", algorithm="fixed_window", limit=10, window=3600)
    resolve.clear()
    for project in ("acme", "globex"):
        for user in ("ann", "bob"):
            assert limits.check(project=project, user=user)
    return made


def used(name: str) -> set[tuple[str, str]]:
    return {(state.partition, state.key) for state in usage(Selection(policy=name))}


ALL = {("acme", "ann"), ("acme", "bob"), ("globex", "ann"), ("globex", "bob")}


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({"key": "ann", "project": "acme"}, ALL - {("acme", "ann")}),
        ({"key": "ann"}, {("acme", "bob"), ("globex", "bob")}),
        ({"project": "globex"}, {("acme", "ann"), ("acme", "bob")}),
        ({}, set()),
    ],
)
def test_one_policy(signed_in: SignIn, hourly: Policy, chosen: dict[str, str], left: set[Any]) -> None:
    url = reverse("admin:quotas_policy_reset", args=[hourly.pk])
    client = signed_in("operator")
    assert (
        "reason" in client.post(url, {**chosen, "_form_submitted": "True"}).content.decode() and used("hourly") == ALL
    ), "a reason is required"
    answer = client.post(url, {**chosen, "reason": "her mistake", "_form_submitted": "True"})
    assert answer.status_code == 200 and answer.headers["HX-Redirect"]
    assert used("hourly") == left and used("wide") == ALL
    entries = AuditEntry.objects.filter(verb="limit.reset")
    assert {(entry.actor, entry.reason) for entry in entries} == {("user:operator", "her mistake")}
    assert any(entry.after == {"reset": 4 - len(left)} for entry in entries)


def test_all_policies_at_once(signed_in: SignIn, hourly: Policy) -> None:
    ids = [str(pk) for pk in Policy.objects.values_list("pk", flat=True)]
    client = signed_in("operator")
    fields = {"action": "reset_counters", "_selected_action": ids, "reason": "a new month", "confirmed": "yes"}
    client.post(reverse("admin:quotas_policy_changelist"), fields)
    assert used("hourly") == set() == used("wide")
    assert AuditEntry.objects.filter(verb="limit.reset", reason="a new month").exists()


def test_viewers_can_not(signed_in: SignIn, hourly: Policy) -> None:
    answer = signed_in("viewer").post(
        reverse("admin:quotas_policy_reset", args=[hourly.pk]), {"reason": "because", "_form_submitted": "True"}
    )
    assert answer.status_code in (302, 403) and used("hourly") == ALL


def test_a_reset_of_a_projects_policy_is_in_that_projects_audit_log(hourly: Policy) -> None:
    own = Policy.objects.create(
        name="own", scope="user", project=Project.objects.get(slug="acme"), algorithm="fixed_window", limit=9, window=60
    )
    resolve.clear()
    for name, project in ((own.name, "acme"), (hourly.name, "")):
        reset(Selection(policy=name), actor="cli:ann", reason="test")
        assert set(AuditEntry.objects.filter(target=f"policy:{name}").values_list("project", flat=True)) == {project}
