"""What operators look up, from the dashboard on, each with the most clicks and keys that it may take.

Other parts of the same list: `test_operators_act`, and `test_notices` for live notices.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

from controlplane.models import QueueSample
from queues.models import Batch, Job
from queues.services import queue_actions
from tests.browser.conftest import Visit
from tests.browser.hand import Hand
from tests.browser.seed import Day
from tests.integration.controlplane.admin.test_job_life import make_waited

pytestmark = pytest.mark.browser
People = Callable[[str], Visit]
NAV = "#nav-sidebar a, nav a"


@pytest.fixture(scope="module")
def day(shared_day: tuple[str, Day]) -> Day:
    made = shared_day[1]
    now = timezone.now().replace(second=0, microsecond=0)
    for ago in range(1, 50):
        QueueSample.objects.create(
            queue=made.queue, project=made.acme, at=now - timedelta(minutes=ago), resolution="minute", normal=90 + ago,
            enqueued=20, completed=15, dead=1,
        )  # fmt: skip
    secrets = {"headers": {"X-Api-Token": "sk-in-clear"}, "json": {"model": "small", "password": "hunter2"}}
    Job.objects.filter(pk=made.dead.pk).update(user="cust-3", payload={**made.dead.payload, **secrets})
    return made


def hand_of(people: People, role: str = "operator") -> tuple[Any, Hand]:
    page = people(role).page
    return page, Hand(page)


def nav(hand: Hand, title: str) -> None:
    hand.click(
        hand.page.locator("#nav-sidebar-inner a, #nav-sidebar a, aside a, nav a").filter(
            has_text=re.compile(rf"\b{title}\b")
        )
    )


def test_the_overview_of_another_period(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    page.wait_for_selector("#panel-pulse .sl-tile")
    hand.click("#periods a:has-text('24h')")
    page.wait_for_selector("#panel-throughput :text('in 24h')")
    assert page.locator("#panel-alerts").count() == 1 and "period=24h" in page.url
    hand.within(1)


def test_refreshing_is_paused(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    page.wait_for_selector("#panel-pulse .sl-tile")
    hand.choose("#refresh select", value="0")
    page.reload()
    assert page.input_value("#refresh select") == "0"
    page.select_option("#refresh select", "5")
    hand.within(2)


def test_the_table_of_queues(people: People, day: Day) -> None:
    queue_actions.pause(type(day.queue).objects.get(name="cleanup"), actor="user:ana", reason="disk is full")
    page, hand = hand_of(people)
    nav(hand, "Queues")
    row = page.locator(".sl-depths tr", has_text="batch").first
    row.wait_for()
    assert page.locator(".sl-depths thead").first.inner_text().split("\n")[0]
    assert all(word in page.inner_text(".sl-depths thead") for word in ("Oldest", "In/s", "Out/s", "Utilisation"))
    assert row.locator(".sl-spark polyline").count() == 1
    paused = page.locator(".sl-depths tr", has_text="cleanup").first.inner_text()
    assert "ana" in paused and "disk is full" in paused
    hand.within(1)


def test_jobs_of_one_state_with_counts(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    hand.click("#panel-pulse .sl-tile:has-text('Queued')")
    page.wait_for_url("**progress=queued*")
    tab = page.locator(".sl-tabs a", has_text="Pending")
    assert re.search(r"\d", tab.inner_text()), "each state has its count under the other filters"
    hand.click(tab)
    page.wait_for_url("**status__exact=pending*")
    hand.within(2)


def test_a_job_is_found_by_its_user(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    nav(hand, "Jobs")
    page.wait_for_selector("#searchbar")
    hand.press("/")
    hand.write("user:cust-3 error:503", "#searchbar")
    hand.press("Enter")
    page.wait_for_url("**q=user*")
    assert page.locator("#result_list tbody").count() == 1
    hand.within(3)


def test_filters_stay_in_the_address_and_are_removed_by_their_chip(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    page.goto(f"{people('operator').url}/admin/queues/job/?q=queue:batch")
    page.reload()
    assert page.locator(".sl-term code").first.inner_text() == "queue:batch"
    hand.click(".sl-term")
    page.wait_for_function("!location.search.includes('queue')")
    hand.within(1)


def test_why_a_job_waited(people: People, day: Day) -> None:
    start = timezone.now() - timedelta(minutes=5)
    batch = Batch.objects.create(project=day.acme, name="waited", created_at=start)
    job = make_waited(day, start, batch)
    page, hand = hand_of(people)
    nav(hand, "Jobs")
    hand.click(page.locator("#result_list a", has_text=job.uid))
    page.locator(".sl-gantt-label", has_text="Policy limit: user-hourly 40.0 s").wait_for()
    assert "What you can do" in page.inner_text("#waits")
    hand.within(2)


def test_attempts_with_their_durations(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    nav(hand, "Dead letters")
    hand.click("#result_list tbody th a, #result_list tbody td a")
    hand.click(page.locator("a.sl-link", has_text=day.dead.uid))
    page.locator("#attempts").wait_for()
    text = page.inner_text("#attempts")
    assert "503" in text and re.search(r"2(\.\d+)? s", text), "three attempts of two seconds"
    hand.within(3)


def test_a_payload_is_read_and_copied_without_its_secrets(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    page.goto(f"{people('operator').url}/admin/queues/job/{day.dead.pk}/change/")
    assert "hunter2" not in page.content() and "sk-in-clear" not in page.content()
    hand.click("a:has-text('Payload and result')")
    shown = page.locator("pre.sl-json, .sl-json").first
    shown.wait_for()
    assert "model" in shown.inner_text()
    hand.click(page.locator(".sl-copy").filter(visible=True).last)
    page.locator(".sl-copy", has_text="Copied").wait_for()
    assert "hunter2" not in page.evaluate("navigator.clipboard.readText()")
    hand.within(2)


def test_a_viewer_has_no_button_and_no_way_around(people: People, day: Day) -> None:
    viewer = people("viewer")
    viewer.go(f"queues/queue/{day.queue.pk}/change/")
    assert viewer.page.locator("a:has-text('Pause'), a:has-text('Drain')").count() == 0
    token = viewer.page.context.cookies()
    csrf = next(cookie["value"] for cookie in token if cookie["name"] == "csrftoken")
    answer = viewer.page.request.post(
        f"{viewer.url}/admin/queues/queue/{day.queue.pk}/pause/",
        form={"reason": "x", "_form_submitted": "on", "csrfmiddlewaretoken": csrf},
    )
    assert answer.status == 403
    day.queue.refresh_from_db()
    assert day.queue.paused_at is None


def test_who_did_what_is_searched(people: People, day: Day) -> None:
    queue_actions.pause(type(day.queue).objects.get(name="exports"), actor="user:ben", reason="export fails")
    page, hand = hand_of(people)
    nav(hand, "Audit log")
    page.wait_for_selector("#searchbar")
    hand.press("/")
    hand.write("queue:exports", "#searchbar")
    hand.press("Enter")
    page.wait_for_url("**q=queue*")
    text = page.inner_text("#result_list")
    assert "ben" in text and "export fails" in text and page.locator("#result_list tbody").count() == 1
    hand.within(3)


def test_a_quotas_use_resets_denials_and_consumers(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    hand.click("#panel-limits a:has-text('user-hourly')")
    page.locator("#policy-use tbody tr", has_text="u-1").wait_for()
    text = page.inner_text("#policy-use")
    assert all(
        word in text for word in ("of 12 requests", "Resets in", "Denied", "Blocked now", "Top consumers by use")
    )
    hand.within(1)


def test_one_project_for_everything(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    page.wait_for_selector("#panel-pulse .sl-tile")
    hand.choose("#toolbar select[name=project]", label="globex")
    page.wait_for_selector("#panel-pulse .sl-tile:has-text('21')")
    with page.expect_navigation():
        page.select_option("#toolbar select[name=project]", label="all")
    hand.within(2)


def test_an_empty_list_says_what_it_is_for(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    nav(hand, "Bulk actions")
    page.locator("text=appear here with their progress").wait_for()
    hand.within(1)


def test_when_a_queue_is_empty(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    hand.click("#panel-queues a:has-text('batch')")
    page.locator("#forecast", has_text="mpty").wait_for()
    assert page.locator("#queue-history").count() == 1
    hand.within(1)


def test_the_doctor(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    nav(hand, "Doctor")
    page.locator("#doctor", has_text="What to do").wait_for()
    hand.within(1)


def test_an_accounts_health_over_a_day(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    hand.click("#panel-accounts .sl-chip:has-text('a2')")
    page.locator("#account-live #account-history").wait_for()
    hand.click("#periods a:has-text('24h')")
    page.wait_for_selector("#account-history[aria-label*='24h']")
    hand.within(2)


CUT = """() => [...document.querySelectorAll('.sl-scroll')]
    .filter(one => one.scrollWidth > one.clientWidth)
    .map(one => one.innerText + ': ' + one.scrollWidth + ' in ' + one.clientWidth)"""


def test_no_table_of_the_dashboard_is_cut(people: People, day: Day) -> None:
    page, _ = hand_of(people)
    before = page.viewport_size
    page.set_viewport_size({"width": 1280, "height": 900})
    try:
        page.locator("#panel-queues td a", has_text="pause").first.wait_for()
        assert page.evaluate(CUT) == []
    finally:
        page.set_viewport_size(before)


SMALLEST = """() => [...document.querySelectorAll('.sl-axis text')]
    .map(one => [one.textContent, parseFloat(getComputedStyle(one).fontSize) * one.getScreenCTM().a])"""


def test_labels_of_charts_can_be_read_on_every_screen(people: People, day: Day) -> None:
    visit = people("operator")
    page, before = visit.page, visit.page.viewport_size
    charts = {
        "": "#panel-throughput .sl-chart", f"queues/queue/{day.queue.pk}/change/": "#queue-history",
        f"quotas/account/{day.account.pk}/change/": "#account-history",
    }  # fmt: skip
    try:
        for path, chart in charts.items():
            visit.go(path)
            page.locator(chart).wait_for()
            for width in (390, 1280):
                page.set_viewport_size({"width": width, "height": 900})
                sizes = page.evaluate(SMALLEST)
                assert sizes and min(size for _, size in sizes) >= 9, (path, width, sizes)
    finally:
        page.set_viewport_size(before)


def test_times_are_shown_in_the_chosen_zone(people: People, day: Day) -> None:
    visit = people("viewer")
    page, hand = visit.page, Hand(visit.page)
    utc = page.locator("#zone")
    assert utc.inner_text() == "UTC"
    hand.click(utc)
    hand.choose("#preferences select", label="Asia/Kolkata")
    hand.click("#preferences button[type=submit]")
    page.locator("#zone", has_text="Asia/Kolkata UTC+05:30").wait_for()
    hand.within(4)
    visit.go(f"queues/job/{day.dead.pk}/change/")
    local = timezone.localtime(day.dead.finished_at, ZoneInfo("Asia/Kolkata"))
    assert f"{local:%Y-%m-%d %H:%M:%S}" in page.locator("#content").inner_text()
    visit.shot("job-in-another-zone")
    visit.go("")
    page.locator("#panel-pulse .sl-tile").first.wait_for()
    assert visit.complaints == []
    page.context.set_offline(True)
    note = page.locator("#panel-pulse .sl-stale-note")
    note.wait_for()
    said = note.inner_text()
    page.context.set_offline(False)
    assert re.search(r"Figures are from \d\d:\d\d:\d\d (GMT\+5:30|IST)", said), said
    page.locator('[x-on\\:click="openUserLinks = !openUserLinks"]').first.click()
    page.locator("a[href='/admin/preferences/']", has_text="Preferences").wait_for()


def test_a_panel_that_is_refreshed_disturbs_neither_selecting_text_nor_the_keyboard(people: People, day: Day) -> None:
    page, _ = hand_of(people, "root")
    page.locator("#panel-pulse .sl-tile").first.wait_for()
    page.locator("#panel-queues td a").nth(1).wait_for()
    page.evaluate("document.querySelectorAll('#panel-queues td a')[1].focus()")
    focused = "document.activeElement.outerHTML"
    before = page.evaluate(focused)
    page.select_option("#refresh select", "1")
    page.evaluate("document.querySelectorAll('#panel-queues td a')[1].focus()")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#panel-pulse .sl-tile'))")
    selected = page.evaluate("getSelection().toString()")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for _ in range(2):
        with page.expect_response("**/admin/live/queues*"):
            pass
    page.wait_for_timeout(200)
    assert page.evaluate("getSelection().toString()") == selected and "Queued" in selected
    assert not [url for url in asked if "/live/pulse" in url]
    assert page.evaluate(focused) == before
    with page.expect_response("**/admin/live/pulse*"):
        page.evaluate("getSelection().removeAllRanges()")
    page.select_option("#refresh select", "5")
