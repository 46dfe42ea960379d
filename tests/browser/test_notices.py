"""Notices from the stream of live events, on an instance that streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.instance import Instance

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    started = Instance("--workers", "1").start()
    yield started
    started.stop()
    started.remove()


def test_what_happens_is_shown_until_it_is_muted(browser: Any, instance: Instance) -> None:
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
    assert complaints == []
    context.close()
