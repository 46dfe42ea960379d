"""Each action of each page, found in the URL list, is refused to a person who has every permission but its own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import Permission, User
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from rest_framework.views import APIView

import controlplane.urls  # noqa: F401 - registers the pages
from controlplane.admin.dashboard import PANELS
from controlplane.alerts import records, summaries
from controlplane.models import AlertRule, AuditEntry
from queues.models import BulkAction, DeadLetter, Recurring
from queues.services import bulk_actions, ignored_failures
from quotas.models import CostRule, Network
from quotas.permissions import ACTS, SEE_PAYLOADS
from tests.browser.seed import PASSWORD, Day

ORDINARY = {"changelist", "add", "history", "delete", "change"}
OURS = {"auth", "controlplane", "queues", "quotas"}
JOBS, QUEUES, LIMITS, ACCOUNTS = ({permission} for permission in ACTS)
NEEDED: dict[str, set[str]] = {
    "queues_job": JOBS,
    "queues_deadletter": JOBS,
    "queues_bulkaction": JOBS,
    "queues_queue": QUEUES,
    "quotas_policy": LIMITS,
    "quotas_account": ACCOUNTS,
    "quotas_pool": ACCOUNTS,
    "controlplane_alert": set(ACTS),
    "quotas_apikey": {"quotas.delete_apikey"},
    "controlplane_alertrule": {"controlplane.change_alertrule"},
    "auth_user": {"auth.change_user"},
}
"""What the actions of a model's pages need: any of these."""
ALSO = {"queues_deadletter_edit": SEE_PAYLOADS}
"""What single ones need besides."""
OWN = {
    "queues_queue_set_concurrency": {"queues.change_queue"},
    "quotas_policy_backtest": {"quotas.add_policy"},
    "quotas_project_set_weight": {"quotas.change_project"},
}
"""What single ones need instead."""
POSTED = {"quotas_policy_backtest", "queues_bulkaction_undo"}
"""Those that answer only what is posted."""
READING = {
    "queues_deadletter_groups": {"queues.view_deadletter", "queues.change_deadletter"},
    "queues_job_suggestions": {"queues.view_job", "queues.change_job"},
}
"""Pages that only show something: one of these permissions is enough."""


def name_of(model: Any) -> str:
    return f"{model._meta.app_label}_{model._meta.model_name}"


MODELS = sorted((model for model in admin.site._registry if model._meta.app_label in OURS), key=name_of)


def found_actions() -> list[tuple[Any, str, str]]:
    """(model, name of the URL, its one parameter) of every page that is not an ordinary one."""
    found = []
    for model in MODELS:
        for pattern in admin.site._registry[model].get_urls():
            name = getattr(pattern, "name", None) or ""
            if not name.startswith(name_of(model)) or name.removeprefix(f"{name_of(model)}_") in ORDINARY:
                continue
            parameters = list(pattern.pattern.converters)
            found.append((model, name, parameters[0] if parameters else ""))
    return found


ACTIONS = found_actions()
BULK = [model for model in MODELS if admin.site._registry[model].actions]


def person(*permissions: str) -> Client:
    """A client of somebody with exactly these."""
    user, _ = User.objects.get_or_create(username="somebody", defaults={"is_staff": True})
    user.set_password(PASSWORD)
    user.save()
    user.user_permissions.set([
        row for row in Permission.objects.select_related("content_type")
        if f"{row.content_type.app_label}.{row.codename}" in permissions
    ])  # fmt: skip
    client = Client()
    assert client.login(username="somebody", password=PASSWORD)
    return client


def everything() -> set[str]:
    rows = Permission.objects.select_related("content_type")
    return {f"{row.content_type.app_label}.{row.codename}" for row in rows}


def looking() -> set[str]:
    return {permission for permission in everything() if permission.partition(".")[2].startswith("view_")}


@pytest.fixture
def rows(day: Day) -> None:
    records.report(summaries.auth_failed("llm", "a1"))
    bulk_actions.begin("discard", {"category": "server"}, project=None, actor="user:root", reason="test")
    AlertRule.objects.create(name="ops", when=["breaker_opened"], to="webhook+http://127.0.0.1:9/")
    Recurring.objects.create(name="nightly", cron="0 3 * * *", type="http.request", project=day.acme, payload={"a": 1})
    CostRule.objects.create(match="POST /v1/embeddings", cost={"requests": 2})
    Network.objects.create(name="office", action="allow", cidrs=["192.0.2.0/24"])
    User.objects.create_user("zoe", password=PASSWORD, is_staff=True)
    ignored_failures.ignore(DeadLetter.objects.all(), day.letter.fingerprint, timedelta(hours=1), actor="user:root")


def row_of(model: Any, day: Day) -> Any:
    if model is User:
        return User.objects.get(username="zoe")
    if name_of(model) == "queues_job":
        return day.running
    return model.objects.order_by("pk").first()


def address(name: str, parameter: str, model: Any, day: Day) -> str:
    values = {"": [], "fingerprint": [day.letter.fingerprint], "object_id": [row_of(model, day).pk]}
    values["id"] = values["object_id"]
    return reverse(f"admin:{name}", args=values[parameter])


def done() -> tuple[int, int]:
    return AuditEntry.objects.count(), BulkAction.objects.count()


def needed_of(name: str, model: Any) -> list[set[str]]:
    """All of these sets are needed, of each set any one."""
    also = [{ALSO[name]}] if name in ALSO else []
    if name in READING:
        return [READING[name]]
    return [OWN[name] if name in OWN else NEEDED[name_of(model)], *also]


@pytest.mark.parametrize(("model", "name", "parameter"), ACTIONS, ids=[name for _, name, _ in ACTIONS])
def test_an_action_needs_its_permission_and_no_more(
    rows: None, day: Day, model: Any, name: str, parameter: str
) -> None:
    url, before = address(name, parameter, model, day), done()
    for lacking in needed_of(name, model):
        client = person(*(everything() - lacking))
        assert client.get(url).status_code == 403
        assert client.post(url, {"reason": "because", "_form_submitted": "on"}).status_code == 403
    assert done() == before
    for one in needed_of(name, model)[0]:
        also = {ALSO[name]} if name in ALSO else set()
        client = person(*looking(), one, *also)
        ask = client.post if name in POSTED else client.get
        assert ask(address(name, parameter, model, day)).status_code == 200, one


@pytest.mark.parametrize("model", BULK, ids=name_of)
def test_an_action_on_many_is_refused_without_its_permission(rows: None, day: Day, model: Any) -> None:
    row, url, before = row_of(model, day), reverse(f"admin:{name_of(model)}_changelist"), done()
    page = admin.site._registry[model]
    request = RequestFactory().get("/")
    request.user = User.objects.get(username="root")
    names = list(page.get_actions(request))
    assert names
    for name in names:
        needed = {f"{model._meta.app_label}.delete_{model._meta.model_name}"}
        if name != "delete_selected" and name_of(model) in NEEDED:
            needed = NEEDED[name_of(model)]
        if name.startswith(("enable_", "disable_")) and name_of(model) != "quotas_account":
            needed = {f"{model._meta.app_label}.change_{model._meta.model_name}"}
        client = person(*(everything() - needed))
        answer = client.post(
            url, {"action": name, ACTION_CHECKBOX_NAME: [row.pk], "confirmed": "1", "reason": "because"}
        )
        assert answer.status_code in (200, 302, 403), name
        request.user = User.objects.get(username="somebody")
        assert name not in page.get_actions(request)
    assert done() == before
    assert model.objects.filter(pk=row.pk).exists()


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_pages_of_rows_are_refused_without_their_permission(rows: None, day: Day, model: Any) -> None:
    app, noun = model._meta.app_label, model._meta.model_name
    row, before = row_of(model, day), done()
    assert person(*(everything() - {f"{app}.add_{noun}"})).post(
        reverse(f"admin:{app}_{noun}_add"), {}
    ).status_code == 403  # fmt: skip
    change = reverse(f"admin:{app}_{noun}_change", args=[row.pk])
    assert person(*(everything() - {f"{app}.change_{noun}"})).post(change, {"reason": "because"}).status_code == 403
    deletion = reverse(f"admin:{app}_{noun}_delete", args=[row.pk])
    assert person(*(everything() - {f"{app}.delete_{noun}"})).post(deletion, {"reason": "x"}).status_code == 403
    blind = person(*(everything() - {f"{app}.{verb}_{noun}" for verb in ("view", "change")}))
    assert blind.get(change).status_code == 403
    assert blind.get(reverse(f"admin:{app}_{noun}_changelist")).status_code == 403
    assert done() == before


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_is_refused_without_its_permission(day: Day, name: str) -> None:
    client = person(*(everything() - {PANELS[name].permission}))
    assert client.get(reverse("admin-live", args=[name])).status_code == 403


def rest_views(urls: Any = None, prefix: str = "/") -> dict[str, Any]:
    """Every GET of the API: its address, with values in it, and its view."""
    found: dict[str, Any] = {}
    for one in (get_resolver() if urls is None else urls).url_patterns:
        path = prefix + str(one.pattern)
        if isinstance(one, URLResolver):
            found |= rest_views(one, path)
        elif isinstance(one, URLPattern):
            view = getattr(one.callback, "cls", None)
            if view is not None and issubclass(view, APIView) and "GET" in getattr(view, "scopes", {}):
                found[path] = view
    return found


REST = rest_views()


def test_the_api_has_views_to_be_tested() -> None:
    assert "/api/v1/jobs" in REST and "/api/v1/audit" in REST and len(REST) > 20


def rest_address(path: str, day: Day) -> str:
    for parameter in ("<str:uid>", "<str:call>", "<str:account>", "<str:pool>", "<str:name>"):
        path = path.replace(parameter, day.running.uid if "jobs/" in path else "1")
    return path


@pytest.mark.parametrize("path", sorted(REST))
def test_a_session_reads_what_its_roles_show(day: Day, path: str) -> None:
    needed = REST[path].session_needs
    assert needed, "a view that says nothing is for nobody's session"
    for one in needed:
        answer = person(*(everything() - {one})).get(rest_address(path, day))
        assert answer.status_code == 403, one
    answer = person(*needed, "quotas.view_project").get(rest_address(path, day))
    assert answer.status_code != 403, answer.content


def test_payloads_are_for_those_who_may_see_them(rows: None, day: Day) -> None:
    payload = {"path": "/v1/mail", "json": {"to": "someone@example.com", "password": "hunter2"}}
    for job in (day.running, day.dead):
        type(job).objects.filter(pk=job.pk).update(payload=payload, result={"body": "a private answer"})
    pages = [
        f"/admin/queues/job/{day.running.pk}/change/",
        f"/admin/queues/deadletter/{day.letter.pk}/change/",
        f"/api/v1/jobs/{day.running.uid}",
    ]
    for page in pages:
        blind = person(*looking(), *ACTS).get(page).content.decode()
        assert "someone@example.com" not in blind and "a private answer" not in blind, page
        seeing = person(*looking(), SEE_PAYLOADS).get(page).content.decode()
        assert "someone@example.com" in seeing, page
        assert "hunter2" not in seeing, page
    recurring = f"/admin/queues/recurring/{Recurring.objects.get().pk}/change/"
    page = person(*(everything() - {SEE_PAYLOADS})).get(recurring).content.decode()
    assert "payload" in page and "&quot;a&quot;" not in page and "_save" not in page
