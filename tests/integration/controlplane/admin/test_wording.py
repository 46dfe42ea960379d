"""Small things that a page says: one name for one thing, words instead of codes, names as they are written."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.unfold import NAVIGATION
from queues.models import DeadLetter, Job, Queue
from quotas.models import Account
from tests.browser.seed import Day
from tests.integration.controlplane.admin.conftest import SignIn

LINKS = {str(item["link"]): item["title"] for part in NAVIGATION for item in part["items"]}


def text(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, address
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", answer.content.decode())))


def heading(client: Client, address: str) -> str:
    page = client.get(address).content.decode()
    found = re.findall(r"<h1[^>]*>(.*?)</h1>", page, re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", found[0]))).strip()


def test_a_page_is_called_as_the_navigation_calls_it(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    headings = {address: heading(client, address) for address in LINKS if address != "/admin/"}
    wrong = {at: said for at, said in headings.items() if LINKS[at].lower() not in said.lower()}
    assert wrong == {}


def test_names_are_written_as_they_are(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    Queue.objects.filter(pk=day.queue.pk).update(name="night_tasks")
    assert "night_tasks" in heading(client, f"/admin/queues/queue/{day.queue.pk}/change/")
    account = heading(client, f"/admin/quotas/account/{day.account.pk}/change/")
    assert str(day.account) in account


def test_a_priority_is_the_same_word_in_the_list_and_on_the_page(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    for priority, word in ((8, "low"), (5, "normal"), (1, "high"), (7, "low 7")):
        Job.objects.filter(pk=day.dead.pk).update(priority=priority)
        listed = client.get(f"/admin/queues/job/?q={day.dead.uid}").content.decode()
        page = client.get(f"/admin/queues/job/{day.dead.pk}/change/").content.decode()
        for html in (listed, page):
            assert re.search(rf">\s*{word}\s*<", html), (priority, word)


@pytest.mark.parametrize("code", ["rate_limited", "timeout_total", "invalid_payload"])
def test_codes_are_words(signed_in: SignIn, day: Day, code: str) -> None:
    DeadLetter.objects.filter(pk=day.letter.pk).update(category=code)
    Account.objects.update(state="cooling_down", why=code, until=timezone.now() + timedelta(minutes=5))
    client = signed_in("root")
    for address in ("/admin/queues/deadletter/", "/admin/quotas/account/", "/admin/queues/deadletter/groups/"):
        assert f" {code} " not in text(client, address), address
        assert code.replace("_", " ") in text(client, address), address


def test_a_badge_counts_what_its_list_has(signed_in: SignIn, day: Day) -> None:
    client, count = signed_in("root"), 1_203
    DeadLetter.objects.bulk_create(
        DeadLetter(job=day.dead, project=day.acme, queue=day.queue, type="t", category="server", severity="warning",
                   fingerprint="b" * 32, error="x", created_at=timezone.now())
        for _ in range(count - 1)
    )  # fmt: skip
    page = client.get("/admin/queues/deadletter/").content.decode()
    assert re.findall(r'sl-badge">([^<]+)<', page) == ["1,203"]


def test_an_account_that_just_became_free_waits_no_zero_seconds(signed_in: SignIn, day: Day) -> None:
    Account.objects.update(state="cooling_down", until=timezone.now() - timedelta(seconds=1))
    assert "in 0 s" not in text(signed_in("root"), "/admin/quotas/account/")


def test_a_list_without_filters_offers_nothing_to_clear(signed_in: SignIn, day: Day) -> None:
    client = signed_in("root")
    assert "Clear filters" not in text(client, "/admin/quotas/policy/")
    filtered = client.get("/admin/quotas/policy/?q=user").content.decode()
    assert 'href="?"' in filtered and "Clear filters" in filtered and "Show all" not in filtered
