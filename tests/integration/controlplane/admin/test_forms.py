"""Every add and change form of every page, opened and saved as each role."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

import controlplane.urls  # noqa: F401  registers every page
from controlplane.alerts import records, summaries
from controlplane.models import AuditEntry
from queues.models import Queue
from queues.services import bulk_actions
from quotas.models import Policy, Pool, Project, Provider
from tests.browser.seed import PASSWORD, Day
from tests.integration.controlplane.admin.pages import filled

SignIn = Callable[[str], Client]
ROLES = ("root", "administrator", "operator", "viewer", "member")
SECRET = "Tr0ub4dor-and-3-more"


def additions() -> dict[str, dict[str, Any]]:
    """What is filled in on each add page."""
    project = Project.objects.get(slug="acme").pk
    policy, pool, provider = (model.objects.order_by("pk").first() for model in (Policy, Pool, Provider))
    assert policy is not None and pool is not None and provider is not None
    return {
        "auth.user": {"username": "ann", "password1": SECRET, "password2": SECRET},
        "auth.group": {"name": "night shift"},
        "controlplane.alertrule": {"name": "ops", "when": ["breaker_opened"], "to": "webhook+https://hooks.example.com/"},
        "queues.queue": {"name": "added"},
        "queues.recurring": {
            "name": "added", "cron": "0 3 * * *", "type": "http.request", "project": project,
            "payload": '{"pool": "llm", "method": "GET", "path": "/v1/models"}',
        },
        "queues.retrypolicy": {"name": "added"},
        "quotas.account": {"name": "added", "pool": pool.pk, "credential": "sk-added"},
        "quotas.apikey": {"name": "added", "scopes": ["check"]},
        "quotas.costrule": {"match": "POST /v1/added", "cost": '{"requests": 2}'},
        "quotas.network": {"name": "added", "action": "deny", "cidrs": "192.0.2.0/24"},
        "quotas.override": {"policy": policy.pk, "key": "u-99", "limit": 3, "reason": "test"},
        "quotas.policy": {"name": "added", "scope": "user", "algorithm": "fixed_window", "limit": 3, "window": 60},
        "quotas.pool": {"name": "added", "provider": provider.pk},
        "quotas.project": {"slug": "added"},
        "quotas.provider": {"name": "added", "base_url": "http://127.0.0.1:9"},
        "quotas.tier": {"name": "added"},
    }  # fmt: skip


def label(model: Any) -> str:
    return str(model._meta.label_lower)


def address(model: Any, page: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


OURS = {"auth", "controlplane", "queues", "quotas"}
MODELS = sorted((model for model in admin.site._registry if model._meta.app_label in OURS), key=label)


@pytest.fixture
def rows(day: Day, signed_in: SignIn, model: Any) -> None:
    """At least one row of the model; where the seed has none, made on its add page."""
    if label(model) == "controlplane.alert":
        records.report(summaries.auth_failed("llm", "a1"))
    if label(model) == "queues.bulkaction":
        bulk_actions.begin("discard", {"category": "server"}, project=None, actor="user:root", reason="test")
    if not model.objects.exists():
        root = signed_in("root")
        page = root.get(address(model, "add")).content.decode()
        given = additions()[label(model)]
        answer = root.post(address(model, "add"), filled(page, model._meta.model_name, **given))
        assert answer.status_code == 302, errors(answer)


def errors(answer: Any) -> Any:
    context = answer.context or {}
    return getattr(context.get("adminform"), "errors", None), [
        one.formset.errors for one in context.get("inline_admin_formsets", [])
    ]


@pytest.mark.parametrize("model", MODELS, ids=label)
def test_whoever_may_add_a_row_can_add_it(day: Day, signed_in: SignIn, model: Any) -> None:
    for role in ROLES:
        add(signed_in, model, role)


def add(signed_in: SignIn, model: Any, role: str) -> None:
    client, url = signed_in(role), address(model, "add")
    opened = client.get(url)
    may = label(model) in additions() and (
        role == "root" or (role == "administrator" and label(model) != "auth.group")
    )  # fmt: skip
    assert opened.status_code == (200 if may else 403)
    if not may:
        assert client.post(url, {}).status_code == 403
        return
    given = additions()[label(model)]
    model.objects.filter(
        **{name: given[name] for name in ("name", "slug", "username", "match") if name in given}
    ).delete()
    entries = AuditEntry.objects.filter(verb=f"{model._meta.model_name}.create", actor=f"user:{role}")
    before, seen = model.objects.count(), entries.count()
    answer = client.post(url, filled(opened.content.decode(), model._meta.model_name, **given))
    assert answer.status_code == 302, errors(answer)
    assert model.objects.count() == before + 1
    assert entries.count() == seen + 1, role


@pytest.mark.parametrize("model", MODELS, ids=label)
def test_whoever_may_change_a_row_can_save_its_page(rows: None, signed_in: SignIn, model: Any) -> None:
    for role in ROLES:
        save(signed_in, model, role)


def save(signed_in: SignIn, model: Any, role: str) -> None:
    client = signed_in(role)
    row = model.objects.exclude(pk=User.objects.get(username="root").pk if model is User else 0).order_by("pk").first()
    url = address(model, "change", row.pk)
    opened = client.get(url)
    if opened.status_code != 200:
        assert opened.status_code in (302, 403) and role not in ("root", "administrator")
        assert client.post(url, {}).status_code in (302, 403)
        return
    page = opened.content.decode()
    if not re.search(r'name="_save"', page):
        assert client.post(url, {}).status_code == 403
        return
    assert role in ("root", "administrator")
    given = filled(page, model._meta.model_name)
    answer = client.post(url, given)
    assert answer.status_code == 302, errors(answer)
    assert not AuditEntry.objects.filter(verb=f"{model._meta.model_name}.change").exists(), "nothing was changed"


@pytest.mark.parametrize("role", ["root", "administrator"])
def test_a_person_is_added_with_a_role_and_deactivated(signed_in: SignIn, day: Day, role: str) -> None:
    client, add = signed_in(role), reverse("admin:auth_user_add")
    viewer = Group.objects.get(name="viewer").pk
    page = client.get(add).content.decode()
    given = {
        "username": "ann",
        "password1": SECRET,
        "password2": SECRET,
        "groups": [viewer],
        "reason": "a new colleague",
    }
    assert client.post(add, filled(page, "user", **given)).status_code == 302
    ann = User.objects.get(username="ann")
    assert (ann.is_staff, ann.is_active, ann.is_superuser) == (True, True, False)
    hers = Client()
    assert hers.login(username="ann", password=SECRET) and hers.get("/admin/").status_code == 200
    entry = AuditEntry.objects.get(verb="user.create")
    assert entry.before is None and entry.after["roles"] == ["viewer"] and entry.reason == "a new colleague"
    assert SECRET not in str(entry.after)
    url = reverse("admin:auth_user_change", args=[ann.pk])
    form = filled(client.get(url).content.decode(), "user", reason="left the company")
    form.pop("is_active")
    assert client.post(url, form).status_code == 302
    entry = AuditEntry.objects.get(verb="user.change")
    assert (entry.before, entry.after, entry.reason) == ({"active": True}, {"active": False}, "left the company")
    assert not Client().login(username="ann", password=SECRET)
    assert hers.get("/admin/").status_code == 302, "her session has ended"


def test_no_person_without_a_name(signed_in: SignIn, day: Day) -> None:
    client, count = signed_in("root"), User.objects.count()
    answer = client.post(reverse("admin:auth_user_add"), {"password1": SECRET, "password2": SECRET})
    assert answer.status_code == 200 and "username" in errors(answer)[0]
    assert User.objects.count() == count


def test_what_others_use_is_not_deleted_and_says_by_what(signed_in: SignIn, day: Day) -> None:
    client, url = signed_in("root"), address(Queue, "delete", day.queue.pk)
    assert url not in client.get(address(Queue, "change", day.queue.pk)).content.decode(), "its page offers no deletion"
    page = client.get(url).content.decode()
    assert "can&#x27;t be deleted" in page or "can't be deleted" in page
    assert "jobs" in page and "1 dead letter" in page and "permission" not in page
    client.post(url, {"post": "yes", "reason": "unused"})
    fields = {"action": "delete_selected", "_selected_action": [day.queue.pk], "confirmed": "1", "reason": "unused"}
    answer = client.post(address(Queue, "changelist"), fields, follow=True)
    assert "Skipped" in answer.content.decode()
    assert Queue.objects.filter(pk=day.queue.pk).exists()


def test_a_deletion_asks_why(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    queue = Queue.objects.create(name="unused")
    url = address(Queue, "delete", queue.pk)
    assert url in client.get(address(Queue, "change", queue.pk)).content.decode()
    answer = client.post(url, {"post": "yes", "reason": ""})
    assert answer.status_code == 200 and Queue.objects.filter(pk=queue.pk).exists()
    assert client.post(url, {"post": "yes", "reason": "a mistake"}).status_code == 302
    assert not Queue.objects.filter(pk=queue.pk).exists()
    assert AuditEntry.objects.get(verb="queue.delete").reason == "a mistake"


def test_login_with_the_seeds_password_works(day: Day) -> None:
    """The other tests rely on it."""
    assert Client().login(username="root", password=PASSWORD)


def test_a_line_of_a_form_has_at_most_two_fields() -> None:
    """With three, a help text has one word per line beside its label."""
    crowded = [
        (model._meta.label, line)
        for model, page in admin.site._registry.items()
        for _, options in page.fieldsets or ()
        for line in options["fields"]
        if isinstance(line, tuple | list) and len(line) > 2
    ]
    assert crowded == []
