"""Panels when figures can't be refreshed, and pages when a session ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.conftest import Visit
from tests.browser.seed import Day

pytestmark = pytest.mark.browser
Open = Callable[[str], Visit]


def test_a_panel_says_when_its_figures_are_old_and_recovers(visit: Open, day: Day) -> None:
    root = visit("root")
    page = root.page
    page.wait_for_selector("#panel-pulse .sl-tile")
    figure = page.locator("#panel-pulse .sl-tile b").first.inner_text()
    page.context.set_offline(True)
    note = page.locator("#panel-pulse .sl-stale-note")
    note.wait_for()
    assert "Figures are from" in note.inner_text()
    assert page.locator("#panel-pulse .sl-tile b").first.inner_text() == figure, "the last figures stay"
    root.shot("dashboard-offline")
    page.context.set_offline(False)
    note.wait_for(state="detached")
    page.route("**/admin/live/queues*", lambda route: route.fulfill(status=500, body="fault"))
    broken = page.locator("#panel-queues .sl-stale-note")
    broken.filter(has_text="error (500)").wait_for()  # instead of the one that says offline
    page.unroute("**/admin/live/queues*")
    broken.wait_for(state="detached")


def test_a_session_that_ends_leads_to_the_login_form_and_back(visit: Open, day: Day) -> None:
    root = visit("root")
    page = root.page
    page.wait_for_selector("#panel-pulse .sl-tile")
    page.context.clear_cookies()
    page.wait_for_url("**/admin/login/?next=/admin/")
    assert page.locator("input[name=username]").count() == 1
