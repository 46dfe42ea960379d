"""How people get in: invitations, deactivation, roles that users can't assign beyond their own, and the throttled login."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from django.urls import reverse

from controlplane.admin import login
from controlplane.models import AuditEntry
from controlplane.roles import ABILITIES, STANDARD, abilities_of, make_roles
from quotas.models import Project
from tests.browser.seed import PASSWORD, Day
from tests.integration.controlplane.admin.pages import filled

SignIn = Callable[[str], Client]
SURE = {"reason": "because", "_form_submitted": "on"}
CHOSEN = "a long passphrase of hers"
LOGIN = "/admin/login/"


def invited(client: Client, **given: Any) -> str:
    """The link that the page shows after a person was added without a password."""
    add = reverse("admin:auth_user_add")
    form = filled(client.get(add).content.decode(), "user", username="ann", reason="a new colleague", **given)
    page = client.post(add, form, follow=True).content.decode()
    return link_on(page)


def link_on(page: str) -> str:
    found = re.search(r"id='invitation'>http://testserver([^<]+)<", page)
    assert found, re.findall(r"errorlist[^<]*<li>([^<]*)", page) or "there is no link"
    return found[1]


def accept(address: str, password: str = CHOSEN) -> Any:
    client = Client()
    page = client.get(address, follow=True)
    if "new_password1" not in page.content.decode():
        return page
    return client.post(page.redirect_chain[-1][0], {"new_password1": password, "new_password2": password}, follow=True)


@pytest.mark.parametrize("role", ["root", "administrator"])
def test_a_person_is_invited_and_signs_in_by_the_link_once(signed_in: SignIn, day: Day, role: str) -> None:
    address = invited(signed_in(role), groups=[Group.objects.get(name="operator").pk])
    ann = User.objects.get(username="ann")
    assert not ann.has_usable_password()
    page = accept(address)
    assert page.status_code == 200 and page.redirect_chain[-1][0] == "/admin/"
    assert page.context["user"] == ann
    assert Client().login(username="ann", password=CHOSEN)
    assert "not valid" in accept(address, "another passphrase of somebody").content.decode()
    assert Client().login(username="ann", password=CHOSEN)
    assert AuditEntry.objects.filter(verb="user.accept_invitation", actor="user:ann").count() == 1
    token = address.rstrip("/").rpartition("/")[2]
    assert not [entry for entry in AuditEntry.objects.all() if token in f"{entry.before}{entry.after}"]


def test_a_newer_link_ends_the_older_one_and_the_password(signed_in: SignIn, day: Day) -> None:
    root = signed_in("root")
    older = invited(root)
    ann = User.objects.get(username="ann")
    root.post(f"/admin/auth/user/{ann.pk}/invite/", SURE)
    newer = link_on(root.get(f"/admin/auth/user/{ann.pk}/change/").content.decode())
    assert "not valid" in accept(older).content.decode()
    assert accept(newer).redirect_chain[-1][0] == "/admin/"
    root.post(f"/admin/auth/user/{ann.pk}/invite/", SURE)
    assert not Client().login(username="ann", password=CHOSEN)


def test_a_weak_password_is_refused_and_the_link_still_works(signed_in: SignIn, day: Day) -> None:
    address = invited(signed_in("root"))
    assert "too short" in accept(address, "short").content.decode()
    assert accept(address).redirect_chain[-1][0] == "/admin/"


def test_a_deactivated_person_is_out_at_once_and_gets_in_by_no_link(signed_in: SignIn, day: Day) -> None:
    root, viewer = signed_in("root"), signed_in("viewer")
    address = invited(root)
    ann = User.objects.get(username="ann")
    for user in (ann, User.objects.get(username="viewer")):
        assert root.post(f"/admin/auth/user/{user.pk}/deactivate/", SURE).status_code in (200, 302)
    assert viewer.get("/admin/").status_code == 302
    assert viewer.get("/api/v1/jobs").status_code == 401
    assert "not valid" in accept(address).content.decode()
    entry = AuditEntry.objects.filter(verb="user.change").latest("pk")
    assert (entry.before, entry.after, entry.reason) == ({"active": True}, {"active": False}, "because")
    root.post(f"/admin/auth/user/{ann.pk}/activate/", SURE)
    assert User.objects.get(pk=ann.pk).is_active


def test_nobody_deactivates_or_locks_out_themselves(signed_in: SignIn, day: Day) -> None:
    root = signed_in("root")
    mine = User.objects.get(username="root")
    for verb in ("deactivate", "invite"):
        root.post(f"/admin/auth/user/{mine.pk}/{verb}/", SURE)
    form = filled(root.get(f"/admin/auth/user/{mine.pk}/change/").content.decode(), "user")
    root.post(f"/admin/auth/user/{mine.pk}/change/", {name: form[name] for name in form if name != "is_active"})
    assert User.objects.get(pk=mine.pk).is_active and Client().login(username="root", password=PASSWORD)


def manager(*more: str) -> Client:
    """Somebody who may manage people and nothing else but `more`."""
    user = User.objects.create_user("manager", password=PASSWORD, is_staff=True)
    names = {"view_user", "change_user", "add_user", "view_group", *more}
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client = Client()
    assert client.login(username="manager", password=PASSWORD)
    return client


def test_nobody_gives_a_role_with_more_than_their_own(day: Day) -> None:
    client = manager()
    page = client.get(reverse("admin:auth_user_add")).content.decode()
    administrator = Group.objects.get(name="administrator")
    form = filled(page, "user", username="accomplice", password1=CHOSEN, password2=CHOSEN)
    answer = client.post(reverse("admin:auth_user_add"), {**form, "groups": [administrator.pk]})
    assert answer.status_code == 200, "the form is shown again"
    assert not User.objects.filter(username="accomplice").exists()


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("name", ["administrator", "root"])
def test_nobody_gets_at_the_login_of_somebody_with_more(day: Day, name: str, active: bool) -> None:
    User.objects.filter(username=name).update(is_active=active)
    client, other = manager(), User.objects.get(username=name)
    for page in ("change/", "password/", "invite/", "activate/", "deactivate/"):
        answer = client.post(f"/admin/auth/user/{other.pk}/{page}", {**SURE, "password1": CHOSEN, "password2": CHOSEN})
        assert answer.status_code in (403, 404), page
    after = User.objects.get(pk=other.pk)
    assert after.is_active == active and after.check_password(PASSWORD)


def test_a_role_is_made_of_abilities(signed_in: SignIn, day: Day) -> None:
    root, add = signed_in("root"), reverse("admin:auth_group_add")
    form = filled(root.get(add).content.decode(), "group", name="on call", abilities=["see", "act_on_jobs"])
    assert root.post(add, form).status_code == 302
    role = Group.objects.get(name="on call")
    assert abilities(role) == ["see", "act_on_jobs"]
    change = reverse("admin:auth_group_change", args=[role.pk])
    page = root.get(change).content.decode()
    form = filled(page, "group", abilities=["see", "act_on_queues"], reason="queues, too")
    assert root.post(change, form).status_code == 302
    assert abilities(role) == ["see", "act_on_queues"]
    entry = AuditEntry.objects.get(verb="group.change")
    assert "act_on_queues" in str(entry.after) and entry.reason == "queues, too"


def abilities(role: Group) -> list[str]:
    return abilities_of(set(role.permissions.values_list("pk", flat=True)))


def test_single_permissions_of_a_role_survive_another_ability(signed_in: SignIn, day: Day) -> None:
    role = Group.objects.create(name="auditor")
    role.permissions.set(Permission.objects.filter(codename__in=["view_job", "change_queue"]))
    change = reverse("admin:auth_group_change", args=[role.pk])
    root = signed_in("root")
    root.post(change, filled(root.get(change).content.decode(), "group", abilities=["see_audit"]))
    found = set(role.permissions.values_list("codename", flat=True))
    assert found == {"view_job", "change_queue", "view_auditentry"}


def test_the_standard_roles_are_made_of_their_abilities(day: Day) -> None:
    for name, names in STANDARD.items():
        role = Group.objects.get(name=name)
        assert set(abilities(role)) == set(names), name
    every = {pk for one in ABILITIES for pk in one.permissions()}
    assert set(Group.objects.get(name="administrator").permissions.values_list("pk", flat=True)) == every
    counted = sum(len(one.permissions()) for one in ABILITIES)
    assert counted == len(every), "no permission belongs to two abilities"


def test_whether_a_role_sees_payloads_is_the_installations_choice(day: Day) -> None:
    payloads = Permission.objects.get(codename="see_payloads")
    Group.objects.get(name="viewer").permissions.add(payloads)
    Group.objects.get(name="operator").permissions.remove(payloads)
    make_roles()
    assert "see_payloads" in abilities(Group.objects.get(name="viewer"))
    assert "see_payloads" not in abilities(Group.objects.get(name="operator"))


def test_an_upgrade_leaves_everybody_what_they_could_do(day: Day) -> None:
    project = ContentType.objects.get_for_model(Project)
    operate = Permission.objects.create(codename="operate", content_type=project, name="Can operate")
    look = Permission.objects.get(codename="view_job")
    Permission.objects.filter(content_type=project).filter(codename__in=NEW).delete()
    viewer, operator, other = (Group.objects.get(name="viewer"), Group.objects.get(name="operator"),
                               Group.objects.create(name="no jobs"))  # fmt: skip
    operator.permissions.add(operate)
    zoe = User.objects.create_user("zoe", is_staff=True)
    zoe.user_permissions.set([operate, look])
    importlib.import_module("controlplane.migrations.0006_split_operate").split(apps, None)
    make_roles()
    acts = NEW - {"see_payloads"}
    assert codenames(operator.permissions) >= NEW and codenames(zoe.user_permissions) >= NEW
    assert "see_payloads" in codenames(viewer.permissions) and not acts & codenames(viewer.permissions)
    assert not codenames(other.permissions)
    assert not Permission.objects.filter(codename="operate").exists()


NEW = {"act_on_jobs", "act_on_queues", "act_on_limits", "act_on_accounts", "see_payloads"}


def codenames(permissions: Any) -> set[str]:
    return set(permissions.values_list("codename", flat=True))


def attempt(name: str, password: str, address: str = "203.0.113.7") -> Any:
    return Client(REMOTE_ADDR=address).post(LOGIN, {"username": name, "password": password, "next": "/admin/"})


def test_passwords_are_not_tried_without_end(day: Day) -> None:
    for _ in range(login.BY_ADDRESS):
        assert attempt("root", "a wrong password").status_code == 200
    refused = attempt("root", PASSWORD)
    assert refused.status_code == 429, "the right one is refused, too"
    assert 0 < int(refused["Retry-After"]) <= login.ADDRESS_WINDOW * 61 / 60
    assert "Too many attempts" in refused.content.decode()
    assert attempt("root", PASSWORD, "203.0.113.8").status_code == 302, "from elsewhere the owner gets in"


def test_a_made_up_forwarded_address_gives_no_further_tries(day: Day) -> None:
    def tried(number: int) -> int:
        given = {"username": f"name-{number}", "password": "wrong"}
        return Client().post("/admin/login/", given, headers={"X-Forwarded-For": f"198.51.100.{number}"}).status_code

    assert [tried(number) for number in range(login.BY_ADDRESS + 1)] == [200] * login.BY_ADDRESS + [429]


def test_a_name_is_not_tried_from_many_addresses_without_end(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "BY_NAME", 5)
    for number in range(5):
        attempt("root" if number % 2 else "ROOT", "a wrong password", f"203.0.113.{number}")
    assert attempt("root", PASSWORD, "203.0.113.99").status_code == 429
    assert attempt("viewer", PASSWORD, "203.0.113.99").status_code == 302


def test_signing_in_costs_nothing(day: Day) -> None:
    for _ in range(login.BY_ADDRESS + 5):
        assert attempt("viewer", PASSWORD).status_code == 302
