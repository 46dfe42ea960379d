"""Every page of the admin, as people with different roles see it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.utils import timezone

from controlplane.models import AuditEntry
from tests.browser.conftest import Visit
from tests.browser.page_faults import SIDEWAYS
from tests.browser.seed import CREDENTIAL, Day

pytestmark = pytest.mark.browser
Open = Callable[[str], Visit]


def test_the_dashboard_shows_what_happens(visit: Open, day: Day) -> None:
    root = visit("root")
    page = root.page
    for name in ("pulse", "throughput", "queues", "limits", "accounts", "letters", "workers", "lately"):
        page.wait_for_selector(
            f"#panel-{name} .sl-tile, #panel-{name} table, #panel-{name} svg, #panel-{name} .sl-chip, #panel-{name} .sl-feed"
        )
    assert page.locator("#panel-pulse .sl-tile", has_text="Queued").locator("b").inner_text() == "109"
    row = page.locator("#panel-queues tr", has_text="batch")
    assert row.locator(".sl-stack i").count() == 3
    assert "user-hourly" in page.locator("#panel-limits").inner_text()
    chips = page.locator("#panel-accounts .sl-chip")
    assert [chip.split("\n")[0] for chip in chips.all_inner_texts()] == ["a1", "a2", "a3", "a4"]
    assert "cooling" in chips.nth(1).inner_text()
    assert page.locator("#panel-workers .sl-tag", has_text="lost").count() == 1
    root.shot("dashboard")
    page.evaluate("document.documentElement.classList.add('dark')")
    root.shot("dashboard-dark")
    assert root.complaints == []
    assert root.strangers == [], "nothing is loaded from elsewhere"


def test_an_account_shows_its_health_over_time(visit: Open, day: Day) -> None:
    root = visit("root")
    assert root.go(f"quotas/account/{day.account.pk}/change/").status == 200
    live = root.page.locator("#account-live")
    live.locator("svg .sl-line").first.wait_for()
    assert live.locator(".sl-mark.sl-open").count() == 9 + 1, "nine minutes, and the legend"
    assert live.locator("rect.sl-bar-dead").count() == 19
    assert "Last rate-limit headers" in live.inner_text() and CREDENTIAL not in root.page.content()
    root.shot("account-live")
    assert root.complaints == []


LISTS = (
    "queues/queue", "queues/job", "queues/batch", "queues/deadletter", "queues/workerprocess", "queues/bulkaction",
    "queues/retrypolicy", "quotas/policy", "quotas/override", "quotas/tier", "quotas/costrule", "quotas/network",
    "quotas/account", "quotas/pool", "quotas/provider", "quotas/project", "quotas/apikey", "auth/user", "auth/group",
    "controlplane/auditentry",
)  # fmt: skip


def test_all_lists_open_fit_the_window_and_none_shows_a_credential(visit: Open, day: Day) -> None:
    AuditEntry.objects.create(
        at=timezone.now(), actor="user:administrator", verb="policy.change", target="policy:user-hourly-of-the-import",
        project="acme", before={"limit": 100, "mode": "enforce"}, after={"limit": 250, "mode": "shadow", "warn_at": [0.6]},
        reason="customers complained about refusals in the morning run, see the ticket of the support team",
    )  # fmt: skip
    root = visit("root")
    root.page.set_viewport_size({"width": 1280, "height": 820})
    wide = {}
    for path in LISTS:
        assert root.go(f"{path}/").status == 200, path
        assert CREDENTIAL not in root.page.content()
        wide[path] = root.page.evaluate(SIDEWAYS)
        if path == "queues/job":
            boxes = root.page.locator("input[name=_selected_action]")
            boxes.first.check()
            boxes.last.check()  # the bar of actions does not cover it
        root.shot("list-" + path.replace("/", "-"))
    assert {path for path, pixels in wide.items() if pixels > 0} == {"queues/job"}, "its 14 columns are chosen so"
    assert root.complaints == []


def test_all_pages_open_and_none_shows_a_credential(visit: Open, day: Day) -> None:
    root = visit("root")
    pages = {
        "queues/queue": day.queue.pk,
        "queues/job": day.dead.pk,
        "queues/deadletter": day.letter.pk,
        "queues/batch": day.running.batch_id,
        "quotas/policy": day.policy.pk,
        "quotas/account": day.account.pk,
        "quotas/pool": day.account.pool_id,
        "quotas/project": day.acme.pk,
        "quotas/apikey": day.key.pk,
    }
    for path, pk in pages.items():
        assert root.go(f"{path}/{pk}/change/").status == 200, path
        root.page.wait_for_load_state("networkidle")
        assert CREDENTIAL not in root.page.content()
        root.shot("page-" + path.replace("/", "-"))
    for path in ("quotas/policy", "quotas/account", "quotas/apikey", "quotas/pool", "quotas/project"):
        assert root.go(f"{path}/add/").status == 200, path
        root.shot("add-" + path.replace("/", "-"))
    assert root.complaints == []
