"""Notices and live figures from the stream of live events, on an instance that streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.instance import Instance, running

pytestmark = pytest.mark.browser

CONFIGURATION = """
version: 1
projects: [{slug: acme}]
providers: [{name: sim, dialect: openai, base_url: "http://127.0.0.1:9"}]
pools: [{name: llm, provider: sim}]
"""


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running("--workers", "1", migrated=True) as started:
        started.manage("apply", "-", stdin=CONFIGURATION)
        yield started
        started.stop()


@pytest.fixture
def console(browser: Any, instance: Instance) -> Iterator[Any]:
    """The administrator's page, which receives live events; nothing may be wrong in its console at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"{instance.url}/admin/login/")
    page.fill("input[name=username]", instance.credentials["admin_username"])
    page.fill("input[name=password]", instance.credentials["admin_password"])
    with page.expect_response("**/api/v1/events*") as streaming:
        page.click("button[type=submit]")
    assert streaming.value.status == 200
    yield page
    context.close()
    assert complaints == []


def test_what_happens_is_shown_until_it_is_muted(console: Any, instance: Instance) -> None:
    page = console
    with instance.client() as client:

        def pause(reason: str) -> None:
            answer = client.post("/api/v1/queues/batch/pause", json={"reason": reason})
            assert answer.status_code == 200, answer.text

        toast = page.locator(".sl-toast[data-kind='queue.paused']")
        for attempt in range(20):  # the listener may not be at the end of the stream yet
            if toast.count():
                break
            pause(f"provider down {attempt}")
            page.wait_for_timeout(500)
        assert "batch: provider down" in toast.first.inner_text()
        assert toast.first.locator("a").get_attribute("href") == "/admin/queues/queue/?q=batch"
        toast.first.locator("button:has-text('Mute')").click()
        assert toast.count() == 0
        page.click("#notices summary")
        assert not page.locator("#notices input[value='queue.paused']").is_checked()
        page.reload()
        page.wait_for_selector("#notices", state="attached")
        with page.expect_response("**/api/v1/events*"):
            page.reload()
        pause("again")
        page.wait_for_timeout(1_500)
        assert toast.count() == 0, "muted stays muted"


SEEN = "addEventListener('sluice:event', event => (window.seen ||= []).push(event.detail.kind), true)"


def test_many_pages_of_one_browser_share_a_stream(console: Any, instance: Instance) -> None:
    """A seventh connection to one server waits until another one is closed."""
    context, address = console.context, f"{instance.url}/admin/doctor/"
    context.add_init_script(SEEN)
    pages = [context.new_page() for _ in range(8)]
    for page in pages:
        page.goto(address, timeout=15_000)
    with instance.client() as client:
        submit_later(client)
        for page in pages:
            page.wait_for_function("(window.seen || []).includes('jobs.submitted')", timeout=8_000)
        for page in (console, *pages[:-1]):  # the one that has the stream is among them: another one opens it
            page.close()
        last = pages[-1]
        last.evaluate("window.seen = []")
        for _ in range(30):
            submit_later(client)
            if last.evaluate("window.seen.length"):
                break
            last.wait_for_timeout(300)
        assert "jobs.submitted" in last.evaluate("window.seen")


REFRESH = "localStorage.setItem('sluice-refresh', '{}')"


def submit_later(client: Any) -> None:
    """A job that does not run meanwhile."""
    job = {"type": "http.request", "queue": "batch", "project": "acme", "run_at": "2099-01-01T00:00:00Z"}
    answer = client.post("/api/v1/jobs", json={**job, "payload": {"pool": "llm", "path": "/v1/models"}})
    assert answer.status_code == 202, answer.text


def open_live(page: Any, address: str, pace: int) -> None:
    """The page with its refreshing set to `pace` seconds (0: paused), once it receives events."""
    page.evaluate(REFRESH.format(pace))
    page.add_init_script("addEventListener('sluice:stream', () => window.isStreaming = true, true)")
    page.goto(address)
    page.wait_for_function("window.isStreaming")


def test_the_stream_refreshes_lists_and_panels(console: Any, instance: Instance) -> None:
    page, jobs = console, f"{instance.url}/admin/queues/job/"
    with instance.client() as client:
        open_live(page, jobs, 30)
        page.wait_for_timeout(3_000)  # the loads that follow the connection are over
        submit_later(client)
        page.wait_for_selector("#new-jobs .sl-pill:has-text('1 new')", timeout=8_000)
        queued = page.locator("#panel-pulse .sl-tile:has-text('Queued') b")
        open_live(page, f"{instance.url}/admin/", 30)
        queued.wait_for()
        page.wait_for_timeout(3_000)
        before = int(queued.inner_text())
        submit_later(client)
        page.wait_for_function(
            "text => [...document.querySelectorAll('#panel-pulse .sl-tile b')].some(b => b.textContent === text)",
            arg=str(before + 1),
            timeout=8_000,
        )


def test_nothing_is_refreshed_while_it_is_paused(console: Any, instance: Instance) -> None:
    page = console
    open_live(page, f"{instance.url}/admin/queues/job/", 0)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    with instance.client() as client, page.expect_event("console", lambda message: message.text == "jobs.submitted"):
        page.evaluate("document.addEventListener('sluice:event', event => console.log(event.detail.kind))")
        submit_later(client)
    page.wait_for_timeout(1_500)
    assert requests == []
    page.select_option("#refresh select", "30")
    page.wait_for_selector("#new-jobs .sl-pill:has-text('1 new')", timeout=8_000)


@pytest.mark.long
def test_many_rows_are_changed_by_the_dispatcher(console: Any, instance: Instance) -> None:
    """After the time for an undo, with the page of the action open: it shows the end without a reload."""
    tiers = ", ".join(f"{{name: t{number}}}" for number in range(25))
    instance.manage("apply", "-", stdin=f"{CONFIGURATION}tiers: [{tiers}]\n")
    page = console
    page.goto(f"{instance.url}/admin/quotas/tier/")
    page.check("#action-toggle")
    page.select_option("select[name=action]", "delete_selected")
    page.click("button:has-text('Run')")
    page.wait_for_selector("h2:has-text('Delete 25 tiers?')")
    page.fill("[name=reason]", "they were for a test")
    page.click(".sl-danger")
    page.click("text=Show progress")
    page.wait_for_selector("#bulk-progress:has-text('25 of 25 done. Finished.')", timeout=40_000)
    page.goto(f"{instance.url}/admin/quotas/tier/")
    assert page.locator("input[name=_selected_action]").count() == 0
