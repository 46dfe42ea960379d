"""Buttons, clicked through: the dialog, the act, the audit trail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.utils import timezone

from controlplane.models import AuditEntry
from queues.models import DeadLetter, Job, Queue
from queues.services import bulk_actions
from quotas.models import Account, ApiKey
from quotas.rest.authentication import keyring
from tests.browser.conftest import Visit
from tests.browser.seed import CREDENTIAL, Day

pytestmark = pytest.mark.browser
Open = Callable[[str], Visit]


def in_dialog(visit: Visit, button: str, reason: str, submit: str) -> None:
    """Press a button of the page's head, give the reason, press the dialog's button, wait for the page."""
    page = visit.page
    page.click(f"a:has-text('{button}'), button:has-text('{button}')")
    page.wait_for_selector("#dialog-form input[name=reason]", state="visible")
    visit.shot(f"dialog-{button.lower().replace(' ', '-')}")
    page.fill("#dialog-form input[name=reason]", reason)
    with page.expect_navigation():
        page.click(f"#dialog button:has-text('{submit}')")


def test_an_operator_pauses_and_resumes_a_queue(visit: Open, day: Day) -> None:
    operator = visit("operator")
    operator.go(f"queues/queue/{day.queue.pk}/change/")
    in_dialog(operator, "Pause", "provider maintenance", "Pause")
    assert "batch is paused" in operator.page.inner_text("body")
    assert Queue.objects.get(pk=day.queue.pk).paused_reason == "provider maintenance"
    entry = AuditEntry.objects.get(verb="queue.pause")
    assert (entry.actor, entry.target, entry.reason) == ("user:operator", "queue:batch", "provider maintenance")
    in_dialog(operator, "Resume", "all well again", "Resume")
    assert Queue.objects.get(pk=day.queue.pk).paused_at is None
    assert operator.complaints == []


def test_a_dialog_without_a_reason_does_nothing(visit: Open, day: Day) -> None:
    operator = visit("operator")
    operator.go(f"queues/queue/{day.queue.pk}/change/")
    operator.page.click("a:has-text('Pause')")
    operator.page.wait_for_selector("#dialog-form input[name=reason]", state="visible")
    operator.page.click("#dialog button:has-text('Pause')")
    operator.page.wait_for_selector("#dialog-form :text('required')")
    assert Queue.objects.get(pk=day.queue.pk).paused_at is None


def test_a_dead_letter_is_edited_and_replayed(visit: Open, day: Day) -> None:
    operator = visit("operator")
    operator.go(f"queues/deadletter/{day.letter.pk}/change/")
    page = operator.page
    page.click("a:has-text('Edit and replay')")
    page.wait_for_selector("#dialog-form textarea[name=payload]", state="visible")
    payload = page.input_value("#dialog-form textarea[name=payload]")
    assert '"small"' in payload
    page.fill("#dialog-form textarea[name=payload]", payload.replace("small", "large"))
    page.fill("#dialog-form input[name=reason]", "the small model is gone")
    operator.shot("dialog-edit")
    with page.expect_navigation():
        page.click("#dialog button:has-text('Replay')")
    job = Job.objects.get(pk=day.dead.pk)
    assert (job.status, job.payload["json"]["model"], job.edits) == ("pending", "large", 1)
    letter = DeadLetter.objects.get(pk=day.letter.pk)
    assert (letter.handled_as, letter.handled_by) == ("replayed", "user:operator")


def test_many_jobs_are_cancelled_after_a_question_with_their_count(visit: Open, day: Day) -> None:
    operator = visit("operator")
    operator.go("queues/job/?status__exact=pending")
    page = operator.page
    for number in range(3):
        page.locator("input.action-select").nth(number + 1).check()
    page.select_option("select[name=action]", "cancel_jobs")
    page.click("button:has-text('Run')")
    page.wait_for_selector("text=Cancel 3 jobs?")
    operator.shot("confirm-cancel")
    page.fill("input[name=reason]", "sent twice")
    with page.expect_navigation():
        page.click("button:has-text('Cancel jobs')")
    assert "Cancelling 3 jobs in the background" in page.inner_text("body")
    assert not bulk_actions.process_next_slice(), "it can be undone for some seconds"
    assert bulk_actions.process_next_slice(timezone.now() + bulk_actions.UNDO_FOR)
    assert Job.objects.filter(status="cancelled").count() == 3
    assert AuditEntry.objects.filter(verb="job.bulk_cancel", reason="sent twice", actor="user:operator").count() == 1


def test_a_key_is_shown_once(visit: Open, day: Day) -> None:
    root = visit("root")
    root.go("quotas/apikey/add/")
    page = root.page
    page.fill("input[name=name]", "nightly")
    page.check("input[name=scopes][value=check]")
    page.check("input[name=scopes][value=read]")
    with page.expect_navigation():
        page.click("button[name=_save], input[name=_save]")
    token = page.inner_text("#new-key")
    root.shot("key-shown-once")
    key = ApiKey.objects.get(name="nightly")
    assert key.scopes == ["check", "read"]
    caller = keyring.find(token)
    assert caller is not None and caller.key_id == key.pk
    root.go(f"quotas/apikey/{key.pk}/change/")
    secret = token.rpartition("_")[2]
    assert secret not in page.content()
    in_dialog(root, "Revoke", "no longer used", "Revoke")
    assert ApiKey.objects.get(pk=key.pk).revoked_at is not None
    entries = list(AuditEntry.objects.filter(target=f"apikey:sl_{key.prefix}").values_list("verb", flat=True))
    assert entries == ["apikey.revoke", "apikey.create"]
    assert not any(secret in str(entry.after) for entry in AuditEntry.objects.all())


def test_a_credential_goes_in_and_never_comes_out(visit: Open, day: Day) -> None:
    root = visit("root")
    page = root.page
    root.go(f"quotas/account/{day.account.pk}/change/")
    assert page.input_value("input[name=credential]") == ""
    page.fill("input[name=weight]", "3")
    page.click("button[name=_save], input[name=_save]")
    page.wait_for_url("**/quotas/account/")
    account = Account.objects.get(pk=day.account.pk)
    assert (account.weight, account.credential.reveal()) == (3, CREDENTIAL)  # type: ignore[attr-defined]
    root.go(f"quotas/account/{day.account.pk}/change/")
    page.fill("input[name=credential]", "sk-the-new-one")
    page.fill("input[name=reason]", "rotated")
    page.click("button[name=_save], input[name=_save]")
    page.wait_for_url("**/quotas/account/")
    account.refresh_from_db()
    assert account.credential.reveal() == "sk-the-new-one"  # type: ignore[attr-defined]
    entry = AuditEntry.objects.filter(verb="account.change").first()
    assert entry is not None
    assert entry.reason == "rotated"
    assert "sk-the-new-one" not in str(entry.before) + str(entry.after) + page.content()
