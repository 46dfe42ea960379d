"""Who sees what, and who may do what."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from queues.models import Job, Queue
from quotas.models import Account, ApiKey, Policy, Pool, Provider
from quotas.runtime.connection import accounts
from quotas.services import account_actions
from quotas.snapshot import resolve
from tests.browser.seed import CREDENTIAL, Day

SignIn = Callable[[str], Client]

PLATFORM = ("quotas/account/", "quotas/pool/", "quotas/provider/", "queues/workerprocess/", "controlplane/auditentry/",
            "quotas/network/", "quotas/costrule/", "quotas/tier/")  # fmt: skip


SURE = {"reason": "because", "_form_submitted": "on"}


def pause(client: Client, queue: Queue) -> int:
    return client.post(f"/admin/queues/queue/{queue.pk}/pause/", SURE).status_code


def test_a_viewer_looks_and_does_nothing(signed_in: SignIn, day: Day) -> None:
    viewer = signed_in("viewer")
    assert viewer.get("/admin/queues/job/").status_code == 200
    page = viewer.get(f"/admin/queues/queue/{day.queue.pk}/change/").content.decode()
    assert f"/queue/{day.queue.pk}/pause/" not in page
    assert "_save" not in page
    assert pause(viewer, day.queue) == 403
    assert Queue.objects.get(pk=day.queue.pk).paused_at is None
    assert viewer.get("/admin/controlplane/auditentry/").status_code == 403
    assert viewer.get("/admin/quotas/apikey/add/").status_code == 403
    account = viewer.get(f"/admin/quotas/account/{day.account.pk}/change/").content.decode()
    assert CREDENTIAL not in account
    assert "credential" not in account.lower()
    assert str(day.account.credential) not in account, "nor as it is encrypted"


def test_an_operator_steers_and_does_not_configure(signed_in: SignIn, day: Day) -> None:
    operator = signed_in("operator")
    assert pause(operator, day.queue) == 200
    assert Queue.objects.get(pk=day.queue.pk).paused_reason == "because"
    before = Policy.objects.get(pk=day.policy.pk).limit
    page = operator.post(f"/admin/quotas/policy/{day.policy.pk}/change/", {"limit": 1_000_000})
    assert page.status_code == 403
    assert Policy.objects.get(pk=day.policy.pk).limit == before
    assert operator.get("/admin/controlplane/auditentry/").status_code == 200
    assert operator.post(f"/admin/quotas/apikey/{day.key.pk}/revoke/", SURE).status_code == 403
    assert ApiKey.objects.get(pk=day.key.pk).revoked_at is None


def test_an_administrator_configures_and_makes_no_superuser(signed_in: SignIn, day: Day) -> None:
    administrator = signed_in("administrator")
    for path in ("quotas/policy", "quotas/apikey", "queues/queue", "auth/user"):
        assert administrator.get(f"/admin/{path}/add/").status_code == 200, path
    mine = User.objects.get(username="administrator")
    data = {"username": "administrator", "is_superuser": "on", "is_staff": "on", "is_active": "on",
            "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}  # fmt: skip
    administrator.post(f"/admin/auth/user/{mine.pk}/change/", data)
    assert not User.objects.get(pk=mine.pk).is_superuser
    root = User.objects.get(username="root")
    assert administrator.post(f"/admin/auth/user/{root.pk}/password/", {}).status_code == 403
    assert administrator.get("/admin/auth/group/add/").status_code == 403


def test_a_member_reads_no_names_of_pools_that_queues_use(signed_in: SignIn, day: Day) -> None:
    pool = Pool.objects.create(name="hush-pool", provider=Provider.objects.all()[0], projects=["globex"])
    queue = Queue.objects.create(name="of-others", pool=pool)
    for who, shown in (("member", False), ("root", True)):
        client = signed_in(who)
        for path in ("", f"{queue.pk}/change/"):
            answer = client.get(f"/admin/queues/queue/{path}")
            assert answer.status_code == 200 and ("hush-pool" in answer.content.decode()) == shown, (who, path)


def test_a_member_sees_the_own_project_only(signed_in: SignIn, day: Day) -> None:
    member = signed_in("member")
    jobs = member.get("/admin/queues/job/").content.decode()
    assert "acme" in jobs
    assert "globex" not in jobs
    foreign = Job.objects.get(type="globex.secret")
    assert member.get(f"/admin/queues/job/{foreign.pk}/change/").status_code == 302
    assert member.post(f"/admin/queues/job/{foreign.pk}/cancel/", SURE).status_code == 404
    assert Job.objects.get(pk=foreign.pk).status == "pending"
    assert "globex" not in member.get(f"/admin/queues/job/?q={foreign.uid}").content.decode()
    assert "globex" not in member.get("/admin/quotas/project/").content.decode()
    for path in PLATFORM:
        assert member.get(f"/admin/{path}").status_code == 403, path
    assert pause(member, day.queue) == 403, "a queue is everybody's"
    search = member.get("/admin/autocomplete/?app_label=queues&model_name=job&field_name=project&term=g")
    assert "globex" not in search.content.decode()


@pytest.mark.parametrize("name", ["pulse", "throughput", "queues", "limits", "letters"])
def test_a_members_panels_are_about_the_own_project(signed_in: SignIn, day: Day, name: str) -> None:
    answer = signed_in("member").get(f"/admin/live/{name}")
    assert answer.status_code == 200
    assert "globex" not in answer.content.decode()
    mine = signed_in("member").get("/admin/live/queues").content.decode()
    everybodys = signed_in("root").get("/admin/live/queues").content.decode()
    assert "normal 14," not in mine
    assert "normal 14," in everybodys


@pytest.mark.parametrize("name", ["accounts", "workers", "lately"])
def test_a_members_dashboard_leaves_the_platform_out(signed_in: SignIn, day: Day, name: str) -> None:
    assert signed_in("member").get(f"/admin/live/{name}").status_code == 403
    assert f"panel-{name}" not in signed_in("member").get("/admin/").content.decode()
    assert signed_in("root").get(f"/admin/live/{name}").status_code == 200


def test_nobody_gets_in_without_signing_in(day: Day) -> None:
    for path in ("/admin/", "/admin/live/pulse", "/admin/queues/job/"):
        assert Client().get(path).status_code == 302


def test_an_account_that_the_provider_refused_can_be_enabled_on_its_page(signed_in: SignIn, day: Day) -> None:
    def buttons(state: str, enabled: bool) -> set[str]:
        Account.objects.filter(pk=day.account.pk).update(state=state, enabled=enabled)
        page = signed_in("operator").get(f"/admin/quotas/account/{day.account.pk}/change/").content.decode()
        return set(re.findall(rf"/account/{day.account.pk}/([a-z-]+)/", page)) - {"change", "history", "delete"}

    assert buttons("disabled", True) == {"enable", "disable"}
    assert buttons("disabled", False) == {"enable"}
    assert buttons("open", True) == {"disable", "close", "test"}
    assert buttons("cooling_down", True) == {"trip", "disable", "clear-cooldown", "test"}
    assert buttons("available", True) == {"trip", "disable", "test"}


def test_the_box_on_an_accounts_page_puts_it_back(
    signed_in: SignIn, day: Day, django_capture_on_commit_callbacks: Any
) -> None:
    pool = day.account.pool
    account_actions.disable(day.account, actor="test", reason="maintenance")
    fields = {"pool": pool.pk, "name": day.account.name, "weight": 1, "enabled": "on", "credential": "", "reason": "on"}
    with django_capture_on_commit_callbacks(execute=True):
        answer = signed_in("root").post(f"/admin/quotas/account/{day.account.pk}/change/", fields)
    assert answer.status_code == 302
    resolve.clear()
    (state,) = [one for one in accounts().states(resolve.pool_spec(pool.name)) if one.id == str(day.account.pk)]
    assert state.state != "disabled"
