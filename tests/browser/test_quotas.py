"""A limit is tried out before it is saved; charts follow the period; figures are refreshed as often as one likes."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from quotas.models import Policy, UsageRollup
from quotas.services.rollups import start_of
from tests.browser.conftest import Visit
from tests.browser.seed import Day

pytestmark = pytest.mark.browser
Open = Callable[[str], Visit]


def record(policy: Policy) -> None:
    now = timezone.now()
    for ago in range(2, 50):
        for user in range(7):
            UsageRollup.objects.create(
                policy=policy, project="acme", key=f"cust-{user}", resolution="minute", used=min(12, 2 + user + ago // 10),
                denied=3 * (user == 6), limit=12, start=start_of("minute", now - timedelta(minutes=ago)),
            )  # fmt: skip


def test_a_limit_is_tried_with_the_slider_before_it_is_saved(visit: Open, day: Day) -> None:
    policy = day.policy
    policy.window = 60
    policy.save()
    record(policy)
    root = visit("root")
    page = root.page
    root.go(f"quotas/policy/{policy.pk}/change/")
    verdict = page.locator("#backtest .sl-verdict")
    verdict.wait_for()
    first = verdict.inner_text()
    assert re.search(r"Would have denied [\d,]+ of [\d,]+ requests, \d of \d+ users", first), first
    slider = page.locator("#backtest input[type=range]")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_function("document.querySelector('#backtest .sl-verdict').innerText !== " + repr(first))
    assert page.input_value("#id_limit") == "0"
    denied, demand = re.search(r"denied ([\d,]+) of ([\d,]+)", verdict.inner_text()).groups()  # type: ignore[union-attr]
    assert denied == demand, "a limit of 0 denies everything"
    root.shot("policy-backtest")
    policy.refresh_from_db()
    assert policy.limit == 12, "nothing is saved"
    page.select_option("#id_algorithm", "concurrency")
    assert page.locator("#id_window").is_hidden() and page.locator("#id_lease_ttl").is_visible()
    assert root.complaints == []


def test_the_chart_follows_the_period_which_stays_in_the_address(visit: Open, day: Day) -> None:
    record(day.policy)
    root = visit("root")
    page = root.page
    root.go(f"quotas/policy/{day.policy.pk}/change/")
    page.locator("#use-history").wait_for()
    assert "over 1h" in (page.get_attribute("#use-history", "aria-label") or "")
    page.click("#periods a:has-text('24h')")
    page.wait_for_selector("#use-history[aria-label$='over 24h'], .sl-empty:has-text('last 24h')")
    assert "period=24h" in page.url
    page.reload()
    assert page.inner_text("#periods a[aria-current]") == "24h"
    assert root.complaints == []


def test_refreshing_can_be_paused_and_sped_up(visit: Open, day: Day) -> None:
    root = visit("root")
    page = root.page
    page.wait_for_selector("#panel-pulse .sl-tile")
    page.select_option("#refresh select", "0")
    page.wait_for_load_state("networkidle")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/admin/live/" in request.url else None)
    page.wait_for_timeout(6_500)
    assert asked == [], "paused means paused"
    page.reload()
    page.wait_for_selector("#panel-pulse .sl-tile")
    assert page.input_value("#refresh select") == "0", "the choice stays"
    page.select_option("#refresh select", "1")
    with page.expect_request("**/admin/live/pulse*"):
        pass
    with page.expect_request("**/admin/live/pulse*", timeout=3_000):
        pass


def test_one_project_is_chosen_for_everything(visit: Open, day: Day) -> None:
    root = visit("root")
    page = root.page
    with page.expect_navigation():
        page.select_option("#toolbar select[name=project]", label="globex")
    tile = page.locator("#panel-pulse .sl-tile", has_text="Queued").locator("b")
    tile.wait_for()
    assert tile.inner_text() == "21"
    root.go("queues/job/")
    assert page.locator("#result_list tbody tr").count() == 21
    with page.expect_navigation():
        page.select_option("#toolbar select[name=project]", label="all")
    assert page.locator("#result_list tbody tr").count() > 21
    member = visit("member")
    assert member.page.locator("#toolbar select[name=project]").count() == 0


def test_a_hidden_page_and_a_slow_server_are_asked_no_more(visit: Open, day: Day) -> None:
    root = visit("root")
    page = root.page
    page.wait_for_selector("#panel-pulse .sl-tile")
    page.select_option("#refresh select", "1")
    asked: list[str] = []
    held: list[Any] = []

    def hold(route: Any) -> None:
        asked.append(route.request.url)
        held.append(route)

    page.route("**/admin/live/pulse*", hold)
    page.wait_for_timeout(4_500)
    assert len(asked) == 1, "while one request is in progress, none is added"
    held[0].continue_()
    page.unroute("**/admin/live/pulse*")
    page.wait_for_load_state("networkidle")
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.wait_for_timeout(1_500)
    hidden: list[str] = []
    page.on("request", lambda request: hidden.append(request.url))
    page.wait_for_timeout(3_000)
    assert hidden == [], "the page is hidden"
    page.evaluate("Object.defineProperty(document, 'hidden', {value: false, configurable: true})")
    with page.expect_request("**/admin/live/pulse*", timeout=5_000):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
