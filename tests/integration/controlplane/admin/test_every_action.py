"""Each action of each page, found in the URL list: asks first, is audited with before and after, once, in its project."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from controlplane.models import AuditEntry
from queues.models import BulkAction, DeadLetter, IgnoredFailure, Job, RetryPolicy
from queues.services import bulk_actions, bulk_records, queue_actions
from queues.states import Stage, Status
from quotas.models import Account, Pool, Project, Provider, Tier
from quotas.services import account_actions, row_actions
from quotas.services.row_actions import RowAction
from tests.browser.seed import Day
from tests.integration.controlplane.admin.conftest import SignIn
from tests.integration.controlplane.admin.test_permissions import ACTIONS, MODELS, READING, address, name_of, rows

__all__ = ["rows"]
OTHERWISE = {"quotas_policy_backtest", "auth_user_password_change", "quotas_account_test"}
"""Shows something and changes nothing; Django's own form, without a reason; calls a provider, which has its own test."""
ACTS = [action for action in ACTIONS if action[1] not in READING.keys() | OTHERWISE]
EXTRA: dict[str, dict[str, str]] = {
    "queues_deadletter_ignore_group": {"span": "day"},
    "queues_queue_set_concurrency": {"concurrency": "3"},
    "quotas_project_set_weight": {"weight": "7"},
    "quotas_policy_reset": {"key": "u-1", "project": "acme"},
    "queues_deadletter_edit": {"payload": '{"pool": "llm", "method": "POST", "path": "/v1/chat/completions"}'},
}
OUTSIDE = {"controlplane_alertrule_send_test"}
"""Sends something and changes no row."""


@pytest.fixture
def ready(rows: None, day: Day) -> None:
    """Rows are in the state that lets the action change something."""
    bulk_actions.begin(
        "discard",
        {"category": "server"},
        project=None,
        actor="user:root",
        reason="test",
        undo_for=bulk_actions.UNDO_FOR,
    )


def prepare(name: str, day: Day) -> Any:
    """The state from which the action changes something; the row, where it is not the usual one."""
    if name == "queues_queue_resume":
        queue_actions.pause(day.queue, actor="test", reason="test")
        return day.queue
    if name == "quotas_pool_resume_pool":
        account_actions.pause_pool(Pool.objects.get(name="llm"), actor="test", reason="test")
    if name == "auth_user_activate":
        User.objects.filter(username="zoe").update(is_active=False)
    if name == "queues_deadletter_ignore_group":
        IgnoredFailure.objects.all().delete()
    if name == "queues_job_retry":
        return day.dead
    if name == "queues_bulkaction_undo":
        return BulkAction.objects.exclude(starts_at=None).get()
    states = {"enable": "a4", "clear_cooldown": "a2", "close_breaker": "a3"}
    for verb, account in states.items():
        if name == f"quotas_account_{verb}":
            return Account.objects.get(name=account)
    return None


def where(name: str, parameter: str, model: Any, day: Day) -> str:
    url, row = address(name, parameter, model, day), prepare(name, day)
    return re.sub(r"/\d+/(?=[^/]+/$)", f"/{row.pk}/", url) if row is not None else url


def press(client: Client, name: str, url: str) -> Any:
    """What the dialog's button or the page's form sends."""
    page = client.get(url).content.decode()
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    hidden.pop("csrfmiddlewaretoken", None)
    given = {**hidden, "_form_submitted": "on", "reason": "because of the test", **EXTRA.get(name, {})}
    return page, client.post(url, given), given


def entries() -> list[AuditEntry]:
    """Without those that say beforehand what is about to be tried, for actions on Redis."""
    found = AuditEntry.objects.filter(reason__in=["because of the test", bulk_records.UNDONE])
    return list(found.exclude(verb__endswith=".intent"))


def rows_now() -> dict[str, list[dict[str, Any]]]:
    """What a second click could change once more."""
    changing = {"updated_at", "password", "last_login"}
    return {
        name_of(model): [
            {name: value for name, value in row.items() if name not in changing}
            for row in model._default_manager.order_by("pk").values()
        ]
        for model in [*MODELS, IgnoredFailure]
        if model is not AuditEntry
    }


@pytest.mark.parametrize(("model", "name", "parameter"), ACTS, ids=[name for _, name, _ in ACTS])
def test_an_action_asks_is_audited_and_is_done_once(
    ready: None, day: Day, signed_in: SignIn, model: Any, name: str, parameter: str
) -> None:
    url = where(name, parameter, model, day)
    client = signed_in("root")
    page, answer, given = press(client, name, url)
    if name != "queues_bulkaction_undo":  # one click, within seconds of a confirmation
        assert "?" in page and re.search(r"name=.?reason", page), "it asks, and wants a reason"
    assert answer.status_code in (200, 302), answer.content
    if name == "queues_deadletter_replay_group":  # its entry of the outcome comes at the end
        while bulk_actions.process_next_slice(timezone.now() + bulk_actions.UNDO_FOR):
            pass
    done = entries()
    assert len(done) == 1, f"{name} is in the audit log once, not {[entry.verb for entry in done]}"
    assert done[0].actor == "user:root" and done[0].target
    assert done[0].after is not None or done[0].before is not None or name in OUTSIDE, name
    after_first = rows_now()
    assert client.post(url, given).status_code < 500
    assert rows_now() == after_first, f"{name}: a second click changes nothing"


PROJECT_ACTS = [action for action in ACTS if getattr(admin.site._registry[action[0]], "project_lookup", None)]


@pytest.mark.parametrize(("model", "name", "parameter"), PROJECT_ACTS, ids=[name for _, name, _ in PROJECT_ACTS])
def test_an_action_on_another_projects_row_is_refused(
    ready: None, day: Day, signed_in: SignIn, model: Any, name: str, parameter: str
) -> None:
    member = signed_in("member")
    url = where(name, parameter, model, day)
    other = Project.objects.get(slug="globex")
    for job in (day.dead, day.running):
        Job.objects.filter(pk=job.pk).update(project=other)
    DeadLetter.objects.update(project=other)
    BulkAction.objects.update(project=other)
    IgnoredFailure.objects.update(project=other)
    _, answer, _ = press(member, name, url)
    assert answer.status_code in (302, 403, 404), (name, answer.status_code)
    assert entries() == []


def test_the_list_of_actions_is_not_empty() -> None:
    assert len(ACTS) > 20 and {name_of(model) for model, _, _ in PROJECT_ACTS} >= {"queues_job", "queues_deadletter"}


def list_actions(model: Any) -> list[Any]:
    """The actions on many rows of a list; deleting comes last, since the others need the rows."""
    request = RequestFactory().get("/")
    request.user = User(username="root", is_superuser=True, is_staff=True, is_active=True)
    found = admin.site._registry[model].get_actions(request)
    return sorted((action for action, _, _ in found.values()), key=lambda one: "delete" in one.__name__)


LISTS = [
    model
    for model in MODELS
    if admin.site._registry[model].actions or row_actions.find(model._meta.label_lower, "delete")
]


def make_able(model: Any, name: str, day: Day) -> None:
    """At least one row from which the action changes something."""
    if model in (Job, DeadLetter):
        Job.objects.filter(pk=day.dead.pk).update(stage=Stage.DONE, status=Status.DEAD)
        DeadLetter.objects.filter(pk=day.letter.pk).update(handled_at=None, handled_as="")
    if name.startswith("enable_") and model is not Account:
        model.objects.update(enabled=False)
    if name.startswith("resume_"):
        model.objects.update(paused_at=day.dead.created_at)
    if name == "activate_people":
        User.objects.filter(username="zoe").update(is_active=False)
    if name == "delete_selected" and model in (Project, Pool, RetryPolicy, Tier):
        fields = {"slug": "idle"} if model is Project else {"name": "idle"}
        more = {"provider": Provider.objects.get()} if model is Pool else {}
        model.objects.create(**fields, **more)
    if name == "delete_selected" and model is Provider:
        Provider.objects.create(name="idle", dialect="openai", base_url="http://127.0.0.1:9100")


@pytest.mark.parametrize("model", LISTS, ids=name_of)
def test_an_action_on_a_list_is_one_object_and_one_summary(
    ready: None, day: Day, signed_in: SignIn, model: Any
) -> None:
    BulkAction.objects.all().delete()
    client, url = signed_in("root"), reverse(f"admin:{name_of(model)}_changelist")
    for listed in list_actions(model):
        make_able(model, listed.__name__, day)
        seen = AuditEntry.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        given = {"action": listed.__name__, "select_across": "1", "_selected_action": ["1"]}
        page = client.post(url, given).content.decode()
        assert "?" in re.findall(r"<h2>(.*?)</h2>", page)[0] and re.search(r"name=.?reason", page), listed.__name__
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
        hidden.pop("csrfmiddlewaretoken", None)
        given |= {**hidden, "reason": "because of the test"}
        assert client.post(url, given).status_code == 302
        while bulk_actions.process_next_slice(timezone.now() + bulk_actions.UNDO_FOR):
            pass
        action = BulkAction.objects.latest("pk")
        assert action.done and action.done + action.skipped == action.total, (listed.__name__, action.refused)
        fresh = AuditEntry.objects.filter(pk__gt=seen)
        whole = fresh.get(verb__contains=".bulk_", verb__endswith=f"_{action.verb}")
        assert (whole.actor, whole.after["done"]) == ("user:root", action.done)
        assert all(
            entry.after is not None or entry.before is not None for entry in fresh.exclude(verb__endswith=".intent")
        )
        before = rows_now()
        for sent in (
            given,
            {**given, "select_across": "0", "_selected_action": ["999999"]},
            {**given, "_selected_action": ["x"]},
        ):
            assert client.post(url, sent).status_code < 500
        assert rows_now() == before, f"{listed.__name__}: a second click, or one on no row, changes nothing"


@pytest.mark.parametrize("role", ["root", "viewer", "operator", "administrator", "member"])
def test_the_background_asks_the_same_permission_as_the_page(day: Day, role: str) -> None:
    request = RequestFactory().get("/")
    request.user = User.objects.get(username=role)
    for model in LISTS:
        page = admin.site._registry[model]
        offered = page.get_actions(request) if page.has_view_permission(request) else {}
        for listed in list_actions(model):
            if isinstance(listed.on, RowAction):
                assert listed.on.allowed(request.user) == (listed.__name__ in offered), (role, listed.__name__)


def test_every_list_whose_rows_can_be_deleted_offers_it() -> None:
    request = RequestFactory().get("/")
    request.user = User(username="root", is_superuser=True, is_staff=True, is_active=True)
    able = {model for model in MODELS if admin.site._registry[model].has_delete_permission(request)}
    assert {name_of(model) for model in able - set(LISTS)} == set(), "its deletion is registered"
