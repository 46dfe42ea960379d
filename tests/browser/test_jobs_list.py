"""The jobs list: tabs, search terms, why jobs wait, links to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from queues.models import Job, Queue
from queues.services import queue_actions
from tests.browser.conftest import Visit
from tests.browser.seed import Day

pytestmark = pytest.mark.browser
Open = Callable[[str], Visit]


def test_tabs_count_under_the_search_and_terms_can_be_removed(visit: Open, day: Day) -> None:
    Job.objects.filter(pk=day.dead.pk).update(user="cust-3", keys={"chat": "c 7"})
    viewer = visit("viewer")
    page = viewer.page
    viewer.go("queues/job/")
    page.fill("#searchbar", "user:cust-3 error:503 'key.chat:c 7' age:>1m")
    page.press("#searchbar", "Enter")
    page.wait_for_url("**q=user*")
    assert page.locator("#result_list tbody").count() == 1
    tabs = page.locator(".sl-tabs a")
    assert {text.split()[-1] for text in tabs.all_inner_texts()[1:]} == {"0", "1"}
    page.locator(".sl-tabs a", has_text="Completed").click()
    page.wait_for_url("**status__exact=completed*")
    assert page.locator("#result_list tbody").count() == 0 and "error" in page.locator(".sl-terms").first.inner_text()
    for _ in range(4):
        page.locator(".sl-term").first.click()
        page.wait_for_load_state("networkidle")
    assert page.locator("#result_list tbody").count() > 10 and "status__exact=completed" in page.url
    viewer.go("queues/job/?q=colour:red")
    assert "unknown; known are" in page.locator(".sl-wrong").inner_text()
    assert viewer.complaints == []


def test_waiting_jobs_say_why_and_are_filtered_by_it(visit: Open, day: Day) -> None:
    queue_actions.pause(Queue.objects.get(name="notifications"), actor="test", reason="provider down")
    root = visit("root")
    page = root.page
    root.go("queues/job/?q=queue:notifications")
    assert "queue paused: notifications" in page.locator("#result_list").inner_text()
    root.go("queues/job/")
    root.shot("jobs-head")
    page.locator("#reasons a", has_text="queue paused").click()
    page.wait_for_url("**why=queue_paused*")
    assert page.locator("#result_list tbody").count() == 3
    member = visit("member")
    member.go("queues/job/")
    hidden = Job.objects.filter(project=day.globex).values_list("uid", flat=True)
    assert not any(uid in member.page.content() for uid in hidden)
    assert root.complaints == [] and member.complaints == []


def test_queue_policy_and_account_pages_lead_to_their_jobs(visit: Open, day: Day) -> None:
    root = visit("root")
    for path in (f"queues/queue/{day.queue.pk}", f"quotas/policy/{day.policy.pk}", f"quotas/account/{day.account.pk}"):
        root.go(f"{path}/change/")
        root.page.locator(".sl-links a").click()
        root.page.wait_for_url("**/queues/job/?q=*")
        assert root.page.locator(".sl-term").count() >= 1 and root.page.locator(".sl-wrong").count() == 0


def test_secrets_in_payloads_are_not_shown_and_survive_an_edit(visit: Open, day: Day) -> None:
    payload = {
        **day.dead.payload,
        "headers": {"X-Api-Key": "k-hidden"},
        "json": {"model": "small", "password": "hunter2"},
    }
    Job.objects.filter(pk=day.dead.pk).update(payload=payload)
    operator = visit("operator")
    page = operator.page
    for path in (f"queues/job/{day.dead.pk}", f"queues/deadletter/{day.letter.pk}"):
        operator.go(f"{path}/change/")
        assert "hunter2" not in page.content() and "k-hidden" not in page.content()
    page.click("text=Edit and replay")
    box = page.locator("#dialog textarea[name=payload]")
    box.wait_for()
    assert "hunter2" not in box.input_value()
    box.fill(box.input_value().replace("small", "large"))
    page.fill("#dialog [name=reason]", "other model")
    with page.expect_navigation():
        page.click("#dialog button:has-text('Replay')")
    kept = Job.objects.get(pk=day.dead.pk).payload
    assert kept == {**payload, "json": {"model": "large", "password": "hunter2"}}
