"""Forms and lists in the browser: only the fields that count, lists as lines, empty lists that say what they are for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quotas.models import Network, Override, Policy, Pool
from tests.browser.conftest import Visit
from tests.browser.seed import Day

pytestmark = pytest.mark.browser
Open = Callable[[str], Visit]


def test_a_policy_form_shows_the_fields_of_its_algorithm(visit: Open, day: Day) -> None:
    root = visit("root")
    root.go(f"quotas/policy/{day.policy.pk}/change/")
    page = root.page
    expected = {
        "token_bucket": {"window", "burst"},
        "calendar": {"period", "timezone"},
        "concurrency": {"lease_ttl"},
        "sliding_window": {"window"},
    }
    for algorithm, fields in expected.items():
        page.select_option("#id_algorithm", algorithm)
        page.wait_for_timeout(100)
        shown = {
            name
            for name in ("window", "burst", "period", "timezone", "lease_ttl")
            if page.locator(f"#id_{name}").evaluate("e => e.parentElement.checkVisibility()")
        }
        assert shown == fields, algorithm
    assert page.input_value("#id_window") == "3600.0", "what is hidden keeps its value until it is saved"
    page.select_option("#id_algorithm", "calendar")
    page.select_option("#id_period", "day")
    page.evaluate("document.getElementById('id_timezone').value = 'Europe/Berlin'")
    page.fill("#id_exempt", "u-1\nteam, north")
    page.fill("#id_warn_at", "0.5, 0.9")
    root.shot("policy-form")
    page.click("button[name=_continue]")
    page.wait_for_load_state("networkidle")
    saved = Policy.objects.get(pk=day.policy.pk)
    assert (saved.algorithm, saved.period, saved.timezone, saved.window) == ("calendar", "day", "Europe/Berlin", None)
    assert (saved.exempt, saved.warn_at) == (["u-1", "team, north"], [0.5, 0.9])
    assert page.input_value("#id_exempt") == "u-1\nteam, north"
    assert root.complaints == []


def test_lists_are_typed_line_by_line(visit: Open, day: Day) -> None:
    root = visit("root")
    page = root.page
    root.go("quotas/network/add/")
    page.fill("#id_name", "office")
    page.fill("#id_cidrs", "192.0.2.0/24\n2001:db8::/32")
    page.click("button[name=_save]")
    page.wait_for_load_state("networkidle")
    assert Network.objects.get(name="office").cidrs == ["192.0.2.0/24", "2001:db8::/32"]
    root.go(f"quotas/pool/{day.account.pool_id}/change/")
    for text, kept in (("acme\nglobex", ["acme", "globex"]), ("none", []), ("", None)):
        page.fill("#id_projects", text)
        page.click("button[name=_continue]")
        page.wait_for_load_state("networkidle")
        assert Pool.objects.get(pk=day.account.pool_id).projects == kept
        assert page.input_value("#id_projects") == text


def test_a_pool_page_shows_its_accounts_as_they_are_now(visit: Open, day: Day) -> None:
    viewer = visit("viewer")
    viewer.go(f"quotas/pool/{day.account.pool_id}/change/")
    panel = viewer.page.locator("#pool-live")
    panel.locator("table").wait_for()
    assert "of 4 accounts available" in panel.inner_text()
    assert panel.locator("tbody tr").count() == 4
    heading = viewer.page.locator("h1").inner_text()
    assert "llm" in heading and "Llm" not in heading and "Quotas" not in heading
    assert viewer.complaints == []


def test_empty_lists_say_what_they_are_for(visit: Open, day: Day) -> None:
    root = visit("root")
    Override.objects.all().delete()
    root.go("quotas/override/")
    text = root.page.locator("#content, main, body").first.inner_text()
    assert "another limit than its policy" in text and "yielded" not in text
    root.go("queues/job/?q=nothing-like-this")
    assert "Nothing matches the search and filters." in root.page.locator("body").inner_text()


@pytest.mark.parametrize("path", ["django_rq/", "django_rq/dashboard/", "django_rq/queue/"])
def test_the_pages_of_rq_are_not_there(visit: Open, day: Day, path: str) -> None:
    root = visit("root")
    assert root.go(path).status == 404
