"""Every page and dialog as each role, on a wide and a narrow screen, light and dark.

No console error, no remote request, no overflow, no axe fault of level serious or critical. All combinations are long;
one of them, on a phone, is in the normal tier.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.auth.tokens import default_token_generator
from django.utils import timezone
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from controlplane.alerts import records, summaries
from controlplane.models import Alert, AlertRule, AuditEntry
from queues.models import BulkAction, DeadLetter, Recurring, WorkerProcess
from queues.services import bulk_actions, ignored_failures
from quotas.models import CostRule, Network, Override
from tests.browser.conftest import Visit
from tests.browser.page_faults import axe_faults, faults
from tests.browser.seed import Day
from tests.browser.test_pages import LISTS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]
DARK = """new MutationObserver(() => document.documentElement.classList.add('dark'))
  .observe(document, {childList: true, subtree: true})"""
LOADED = """() => document.readyState === 'complete' && !document.querySelector('.htmx-request')
  && [...document.querySelectorAll('[hx-trigger*=load]')].every((panel) => panel.childElementCount)"""
CALM = """() => new Promise(calm => {
  let due = setTimeout(calm, 120);
  new MutationObserver(() => { clearTimeout(due); due = setTimeout(calm, 120); })
    .observe(document.body, {attributes: true, childList: true, subtree: true});
})"""
"""The theme builds its widgets after the page is loaded, then they are given their names."""
ROLES = ("root", "administrator", "operator", "viewer", "member")
NORMAL = {("operator", 390, "dark")}
IGNORED = "known-fault"
"""The fingerprint of a failure that is ignored."""
CONFIRMED = ("queues/job", "queues/deadletter")
"""Lists whose bulk actions are tried in the normal tier; the others' look alike."""
LEFT_OUT = ("add", "delete")
"""Pages that the normal tier leaves out, since they look like the others."""
COMBINATIONS = [
    pytest.param(role, width, theme, marks=[] if (role, width, theme) in NORMAL else [pytest.mark.long])
    for role in ROLES
    for width in (1280, 390)
    for theme in ("light", "dark")
]


@pytest.fixture(scope="module")
def day(shared_day: tuple[str, Day]) -> Day:
    made = shared_day[1]
    records.report(summaries.auth_failed("llm", "a1"))
    bulk_actions.begin("discard", {"category": "none"}, project=None, actor="user:root", reason="test")
    AlertRule.objects.create(name="ops", when=["breaker_opened"], to="webhook+http://127.0.0.1:9/")
    Recurring.objects.create(name="nightly", cron="0 3 * * *", type="http.request", project=made.acme, payload={"a": 1})
    CostRule.objects.create(match="POST /v1/embeddings", cost={"requests": 2})
    Network.objects.create(name="office", action="allow", cidrs=["192.0.2.0/24"])
    DeadLetter.objects.create(
        job=made.dead, project=made.acme, queue=made.queue, type=made.dead.type, category="code", severity="critical",
        fingerprint=IGNORED, error="KeyError: 'total'", created_at=timezone.now(),
    )  # fmt: skip
    ignored_failures.ignore(DeadLetter.objects.all(), IGNORED, timedelta(days=1), actor="user:root", reason="known")
    User.objects.create_user("invited", is_staff=True)
    return made


def pages(day: Day) -> dict[str, str]:
    rows = {
        "queues/queue": day.queue.pk, "queues/job": day.dead.pk, "queues/deadletter": day.letter.pk,
        "queues/batch": day.running.batch_id, "queues/bulkaction": BulkAction.objects.earliest("pk").pk,
        "queues/recurring": Recurring.objects.get().pk, "queues/workerprocess": WorkerProcess.objects.earliest("pk").pk,
        "queues/retrypolicy": day.queue.retry_policy_id, "quotas/policy": day.policy.pk,
        "quotas/override": Override.objects.get().pk, "quotas/tier": day.acme.tier_id,
        "quotas/costrule": CostRule.objects.get().pk, "quotas/network": Network.objects.get().pk,
        "quotas/account": day.account.pk, "quotas/pool": day.account.pool_id,
        "quotas/provider": day.account.pool.provider_id, "quotas/project": day.acme.pk, "quotas/apikey": day.key.pk,
        "auth/user": User.objects.get(username="member").pk, "auth/group": Group.objects.get(name="operator").pk,
        "controlplane/alert": Alert.objects.earliest("pk").pk, "controlplane/alertrule": AlertRule.objects.get().pk,
        "controlplane/auditentry": AuditEntry.objects.earliest("pk").pk,
    }  # fmt: skip
    forms = [path for path in rows if path not in READ_ONLY]
    return {
        "dashboard": "", "doctor": "doctor/", "configuration": "configuration/", "calls": "calls/", "preferences": "preferences/",
        "failures": "queues/deadletter/groups/", "missing": "no-such-page/",
        "replay": f"queues/deadletter/groups/{day.letter.fingerprint}/replay/",
        "replay ignored": f"queues/deadletter/groups/{IGNORED}/replay/?ignored=1",
        "ignore": f"queues/deadletter/groups/{day.letter.fingerprint}/ignore/",
        "ignored": "queues/deadletter/groups/?ignored=1",
        "stop ignoring": f"queues/deadletter/groups/{IGNORED}/stop-ignoring/",
        "invitation": invitation(User.objects.get(username="invited")), "old invitation": "invitation/MQ/used-up/",
        "password": f"auth/user/{rows['auth/user']}/password/",
        **{f"list {path}": f"{path}/" for path in {*LISTS, *rows}},
        **{f"row {path}": f"{path}/{pk}/change/" for path, pk in rows.items()},
        **{f"add {path}": f"{path}/add/" for path in forms},
        **{f"delete {path}": f"{path}/{rows[path]}/delete/" for path in ("queues/queue", "quotas/project", "auth/user")},
    }  # fmt: skip


def invitation(user: User) -> str:
    """The link by which somebody chooses a password."""
    return f"invitation/{urlsafe_base64_encode(force_bytes(user.pk))}/{default_token_generator.make_token(user)}/"


READ_ONLY = {
    "queues/job", "queues/deadletter", "queues/batch", "queues/bulkaction", "queues/workerprocess", "controlplane/alert",
    "controlplane/auditentry",
}  # fmt: skip


def dialogs(visit: Visit) -> Iterator[tuple[str, Any]]:
    """Open each dialog that the page's buttons lead to, one after the other."""
    page = visit.page
    addresses = page.eval_on_selector_all(
        "[hx-target='#modal-content']", "all => [...new Set(all.map((one) => one.getAttribute('hx-get')))]"
    )
    for address in addresses:
        page.evaluate("a => document.querySelector(`[hx-get='${a}']`).click()", address)
        page.locator("#dialog-form").wait_for(state="visible")
        yield address, axe_faults(page, "#modal-content")
        page.keyboard.press("Escape")
        page.locator("#dialog-form").wait_for(state="hidden")
        page.evaluate("document.getElementById('modal-content').replaceChildren()")


def confirmations(visit: Visit, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The page that each bulk action of a list shows before it acts, for the list's first row."""
    page = visit.page
    names = page.eval_on_selector_all(
        "#changelist-form select[name=action] option", "all => all.map((one) => one.value).filter((one) => one)"
    )
    for name in names if page.locator("input[name=_selected_action]").count() else []:
        visit.go(f"{path}/")
        with page.expect_navigation():
            page.evaluate(
                """(name) => {
                  document.querySelector("input[name=_selected_action]").checked = true;
                  const form = document.getElementById("changelist-form");
                  form.querySelector("select[name=action]").value = name;
                  HTMLFormElement.prototype.submit.call(form);
                }""",
                name,
            )
        page.wait_for_function(LOADED)
        assert page.locator("input[name=action]").first.get_attribute("value") == name
        yield f"confirm {name} {path}", faults(page)


@pytest.mark.parametrize(("role", "width", "theme"), COMBINATIONS)
def test_pages_and_dialogs(
    browser: Any, shared_day: tuple[str, Day], day: Day, role: str, width: int, theme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(30_000)
    if theme == "dark":
        context.add_init_script(DARK)
    visit = Visit(context.new_page(), shared_day[0])
    found: dict[str, Any] = {}
    visit.page.goto(f"{visit.url}/admin/login/")
    found["login"] = faults(visit.page)
    visit.sign_in(role)
    for name, path in pages(day).items():
        if (role, width, theme) in NORMAL and name.startswith(LEFT_OUT):
            continue
        status = visit.go(path).status
        visit.page.wait_for_function(LOADED)
        visit.page.evaluate(CALM)
        if theme == "dark":
            assert visit.page.evaluate("document.documentElement.classList.contains('dark')")
        if (role, width, theme) not in NORMAL or os.environ.get("SLUICE_TEST_SHOTS"):
            visit.shot(f"{role}-{width}-{theme}/{name.replace('/', '-').replace(' ', '-')}")
        found[name] = faults(visit.page)
        if status == 200:
            found |= {address: {"axe": fault} for address, fault in dialogs(visit) if fault}
        listed = name.removeprefix("list ")
        if status == 200 and listed != name and ((role, width, theme) not in NORMAL or listed in CONFIRMED):
            found |= dict(confirmations(visit, listed))
    context.close()
    expected = ("403 (Forbidden)", "404 (Not Found)")  # pages of other roles, and the missing one
    assert [text for text in visit.complaints if not any(words in text for words in expected)] == []
    assert visit.strangers == []
    bad = {name: fault for name, fault in found.items() if fault}
    assert not bad, "\n".join(f"{name}: {fault}" for name, fault in bad.items())
