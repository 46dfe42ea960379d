"""Failures by fingerprint, a quota's own page, links from the audit log, help and copying."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controlplane.models import AuditEntry
from queues.models import BulkAction, Queue
from queues.services import queue_actions
from quotas.services.usage import Selection, usage
from tests.browser.conftest import Visit
from tests.browser.seed import Day

pytestmark = pytest.mark.browser
Open = Callable[[str], Visit]


def test_a_failure_is_replayed_as_a_group(visit: Open, day: Day) -> None:
    operator = visit("operator")
    page = operator.page
    operator.go("queues/deadletter/")
    page.click("text=Show by failure")
    row = page.locator("#groups tbody tr").first
    assert "503 overloaded" in row.inner_text() and f"{day.letter.created_at:%Y-%m-%d %H:%M:%S}" in row.inner_text()
    operator.shot("failures")
    row.locator("text=Replay this group").click()
    assert "Replay 1 dead letter of this failure?" in page.locator(".sl-confirm h2").inner_text()
    page.fill("[name=reason]", "provider is back")
    page.click("button:has-text('Replay')")
    page.wait_for_url("**/queues/bulkaction/*/change/")
    begun = BulkAction.objects.get()
    assert (begun.verb, begun.total, begun.filter["fingerprint"]) == ("replay", 1, day.letter.fingerprint)
    viewer = visit("viewer")
    viewer.go("queues/deadletter/groups/")
    assert viewer.page.locator("text=Replay this group").count() == 0
    assert viewer.go(f"queues/deadletter/groups/{day.letter.fingerprint}/replay/").status == 403
    assert operator.complaints == []


def test_a_row_of_a_quota_is_reset_with_its_present_use(visit: Open, day: Day) -> None:
    operator = visit("operator")
    page = operator.page
    operator.go(f"quotas/policy/{day.policy.pk}/change/")
    row = page.locator("#policy-use tbody tr", has_text="u-1")
    row.wait_for()
    assert "10 of 12 requests" in row.inner_text()
    row.locator(".sl-reset").click()
    page.locator("#dialog [name=key]").wait_for()
    assert page.input_value("#dialog [name=key]") == "u-1"
    assert "Used now: 10 of 12 requests" in page.locator("#dialog").inner_text()
    page.fill("#dialog [name=reason]", "customer called")
    with page.expect_navigation():
        page.click("#dialog button:has-text('Reset')")
    used = {state.key: state.used for state in usage(Selection(policy=day.policy.name))}
    assert used.get("u-1", 0) == 0 and used["u-0"] == 10
    viewer = visit("viewer")
    viewer.go(f"quotas/policy/{day.policy.pk}/change/")
    viewer.page.locator("#policy-use tbody tr").first.wait_for()
    assert viewer.page.locator(".sl-reset").count() == 0
    assert operator.complaints == []


def test_an_audit_entry_leads_to_its_object(visit: Open, day: Day) -> None:
    queue_actions.pause(Queue.objects.get(name="batch"), actor="test", reason="provider down")
    entry = AuditEntry.objects.get(target="queue:batch")
    operator = visit("operator")
    operator.go(f"controlplane/auditentry/{entry.pk}/change/")
    operator.page.click("a.sl-link:has-text('queue:batch')")
    operator.page.wait_for_url(f"**/queues/queue/{day.queue.pk}/change/")


def test_help_and_copying(visit: Open, day: Day) -> None:
    root = visit("root")
    page = root.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.keyboard.press("?")
    assert page.locator("#sl-help").get_attribute("aria-label") == "Keyboard shortcuts"
    assert page.locator("#sl-help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#sl-help").is_visible()
    root.go(f"queues/job/{day.dead.pk}/change/")
    page.locator(".sl-copy").first.click()
    page.locator(".sl-copy", has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == day.dead.uid
    page.keyboard.press("/")
    assert root.complaints == []
