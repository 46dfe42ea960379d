"""Verbs in the palette, suggestions of the search box, new jobs, payloads that were edited, the configuration page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from controlplane.models import AuditEntry
from queues.models import Job, Queue
from queues.services import dead_letters
from quotas.models import Policy
from quotas.services.usage import Selection, usage
from tests.browser.conftest import Visit
from tests.browser.seed import Day

pytestmark = pytest.mark.browser
Open = Callable[[str], Visit]


def type_in_palette(page: Any, text: str) -> Any:
    page.click("#open-palette")
    page.wait_for_selector("#search-input-command:focus")
    page.keyboard.type(text)
    return page.locator("#command-results-list li a")


def reason_and_go(page: Any, submit: str) -> None:
    page.locator("#dialog-form input[name=reason]").wait_for(state="visible")
    page.fill("#dialog-form input[name=reason]", "by the palette")
    with page.expect_navigation():
        page.click(f"#dialog button:has-text('{submit}')")


def test_the_palette_pauses_a_queue_and_resets_a_user(visit: Open, day: Day) -> None:
    operator = visit("operator")
    page = operator.page
    result = type_in_palette(page, "pause bat")
    result.filter(has_text="Pause batch").click()
    reason_and_go(page, "Pause")
    assert Queue.objects.get(name="batch").paused_reason == "by the palette"
    assert "do=" not in page.url
    result = type_in_palette(page, "reset u-1")
    row = result.filter(has_text="Reset u-1 of user-hourly")
    row.wait_for()
    assert "10 of 12 requests" in row.inner_text()
    operator.shot("palette")
    row.click()
    page.locator("#dialog [name=key]").wait_for()
    assert page.input_value("#dialog [name=key]") == "u-1"
    assert "Used now: 10 of 12 requests" in page.inner_text("#dialog")
    reason_and_go(page, "Reset")
    used = {state.key: state.used for state in usage(Selection(policy="user-hourly"))}
    assert used.get("u-1", 0) == 0 and used["u-0"] == 10
    assert operator.complaints == []


def test_the_palette_finds_ids_and_shows_nobody_what_is_not_theirs(visit: Open, day: Day) -> None:
    root = visit("root")
    type_in_palette(root.page, day.dead.uid[:25]).filter(has_text=day.dead.uid).wait_for()
    hidden = Job.objects.filter(project=day.globex).first()
    assert hidden is not None
    member = visit("member")
    type_in_palette(member.page, hidden.uid)
    member.page.wait_for_load_state("networkidle")
    member.page.wait_for_timeout(700)
    assert hidden.uid not in member.page.inner_html("#command-results")
    viewer = visit("viewer")
    type_in_palette(viewer.page, "pause batch")
    viewer.page.wait_for_timeout(900)
    assert viewer.page.locator("#command-results-list li", has_text="Pause").count() == 0


def test_the_search_box_suggests_qualifiers_and_values(visit: Open, day: Day) -> None:
    Job.objects.filter(pk=day.dead.pk).update(user="cust-3", keys={"chat": "c7"})
    root = visit("root")
    page = root.page
    root.go("queues/job/")
    box = page.locator("#searchbar")
    box.click()
    box.press_sequentially("qu")
    page.wait_for_function(
        "[...document.querySelectorAll('#suggestions li')].map(li => li.innerText).join() === 'queue:'"
    )
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert box.input_value() == "queue:"
    box.press_sequentially("bat")
    page.locator("#suggestions li", has_text="queue:batch").click()
    box.press_sequentially("user:cu")
    page.locator("#suggestions li", has_text="user:cust-3").click()
    assert box.input_value() == "queue:batch user:cust-3 "
    root.shot("jobs-suggestions")
    box.press("Enter")
    page.wait_for_url("**q=queue*")
    assert page.locator(".sl-term code").all_inner_texts() == ["queue:batch", "user:cust-3"]
    assert page.locator("#result_list tbody").count() == 1
    assert root.complaints == []


def test_a_pill_counts_the_new_jobs_that_match(visit: Open, day: Day) -> None:
    root = visit("root")
    page = root.page
    root.go("queues/job/?q=queue:batch")
    page.select_option("#refresh select", "1")
    for number in range(15):
        queue = day.queue if number < 12 else Queue.objects.get(name="embeddings")
        Job.objects.create(project=day.acme, queue=queue, type="t", payload={}, created_at=timezone.now())
    pill = page.locator("#new-jobs .sl-pill")
    pill.filter(has_text="12 new").wait_for()
    page.wait_for_timeout(1_500)
    assert pill.inner_text() == "12 new", "the others are of another queue"
    pill.click()
    page.wait_for_load_state()
    assert "newer_than" not in page.url and "q=queue" in page.url
    page.wait_for_timeout(1_500)
    assert pill.count() == 0
    assert root.complaints == []


def test_an_edited_replay_shows_what_it_changed_and_how_to_submit_the_job_again(visit: Open, day: Day) -> None:
    secret = {**day.dead.payload, "headers": {"X-Api-Token": "sk-secret"}}
    Job.objects.filter(pk=day.dead.pk).update(payload=secret)
    changed = {**secret, "json": {"model": "large"}}
    dead_letters.replay(day.letter.pk, actor="user:root", reason="the small model is gone", payload=changed)
    root = visit("root")
    page = root.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    root.go(f"queues/job/{day.dead.pk}/change/#payload-and-result")
    edition = page.locator(".sl-edition")
    edition.wait_for(state="attached")
    assert '"small"' in edition.locator("del").inner_text() and '"large"' in edition.locator("ins").inner_text()
    page.locator("a:has-text('Payload and result')").first.click()
    page.click("#curl summary")
    root.shot("job-editions")
    page.locator("#curl .sl-copy").click()
    page.locator("#curl .sl-copy", has_text="Copied").wait_for()
    command = page.evaluate("navigator.clipboard.readText()")
    assert command.startswith(f'curl -X POST {root.url}/api/v1/jobs -H "Authorization: Bearer $SLUICE_KEY"')
    assert '"model": "large"' in command and "sk-secret" not in page.content() + command
    assert root.complaints == []


def test_a_configuration_is_compared_and_then_applied(visit: Open, day: Day) -> None:
    administrator = visit("administrator")
    page = administrator.page
    administrator.go("configuration/")
    text = page.input_value("textarea[name=text]")
    assert "user-hourly" in text
    page.fill("textarea[name=text]", text.replace("limit: 12", "limit: 34"))
    page.click("button[name=preview]")
    changes = page.locator("#changes")
    changes.wait_for()
    assert "0 added, 1 changed, 0 removed" in changes.inner_text() and "limit: 12 → 34" in changes.inner_text()
    administrator.shot("configuration")
    assert Policy.objects.get(name="user-hourly").limit == 12, "nothing is changed by looking"
    page.fill("input[name=reason]", "they pay for more")
    page.click("button[name=apply]")
    page.wait_for_selector("text=Applied: 0 added, 1 changed, 0 removed")
    assert Policy.objects.get(name="user-hourly").limit == 34
    entry = AuditEntry.objects.get(verb="policy.change")
    assert (entry.actor, entry.reason, entry.after) == ("user:administrator", "they pay for more", {"limit": 34})
    page.fill("textarea[name=text]", "version: 1\npolicies:\n- name: user-hourly\n  limt: 3\n")
    page.click("button[name=preview]")
    assert "line" in page.inner_text("#mistakes") and "limt" in page.inner_text("#mistakes")
    for name, allowed in (("operator", False), ("viewer", False), ("member", False)):
        assert (visit(name).go("configuration/").status == 200) is allowed, name
    assert administrator.complaints == []


def test_the_doctor_is_a_page(visit: Open, day: Day) -> None:
    operator = visit("operator")
    assert operator.go("doctor/").status == 200
    assert "What to do" in operator.page.inner_text("#doctor")
    operator.shot("doctor")
    assert visit("viewer").go("doctor/").status == 403 and visit("member").go("doctor/").status == 403
    assert operator.complaints == []
