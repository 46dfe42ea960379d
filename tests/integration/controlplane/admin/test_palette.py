"""What the palette offers follows what a person may do and see."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from queues.models import Batch
from tests.browser.seed import Day

SignIn = Callable[[str], Client]


def offered(client: Client, text: str) -> dict[str, str]:
    """Titles and addresses."""
    cache.clear()
    answer = client.get("/admin/search/", {"s": text, "extended": "1"})
    assert answer.status_code == 200
    found = re.findall(r'href="([^"]*)"\s+data-title="([^"]*)"', answer.content.decode())
    return {unescape(title): unescape(link) for link, title in found}


def test_verbs_lead_to_the_pages_own_buttons(signed_in: SignIn, day: Day) -> None:
    client = signed_in("operator")
    pause = offered(client, "pause bat")
    assert pause["Pause batch"] == f"/admin/queues/queue/{day.queue.pk}/change/?do=pause"
    assert "Pause llm" in offered(client, "pause llm")
    assert "Resume batch" not in offered(client, "resume batch"), "it runs"
    assert "Clear llm/a2" in offered(client, "clear llm/a2") and "Clear llm/a1" not in offered(client, "clear llm/a1")
    assert any(title.startswith("Retry") for title in offered(client, f"retry {day.dead.uid[:25]}"))
    assert any(title.startswith("Replay") for title in offered(client, f"replay {day.letter.uid}"))


def test_a_subjects_counters_are_offered_with_their_use(signed_in: SignIn, day: Day) -> None:
    found = offered(signed_in("operator"), "reset u-1")
    assert found["Reset u-1 of user-hourly"] == (
        f"/admin/quotas/policy/{day.policy.pk}/change/?do=reset&key=u-1&project=acme&used=10+of+12+requests"
    )
    assert "Reset user-hourly" in offered(signed_in("operator"), "reset user")


@pytest.mark.parametrize("role", ["viewer", "member"])
def test_what_a_person_may_not_do_is_not_offered(signed_in: SignIn, day: Day, role: str) -> None:
    client = signed_in(role)
    for text in ("pause batch", "reset u-1", "disable llm/a1"):
        assert not [title for title in offered(client, text) if title.split()[0] in ("Pause", "Reset", "Disable")], text


def test_ids_and_names_are_found_by_who_sees_them(signed_in: SignIn, day: Day) -> None:
    mine = Batch.objects.get(name="package summaries")
    theirs = Batch.objects.create(project=day.globex, name="globex import", created_at=timezone.now())
    assert any(day.dead.uid in title for title in offered(signed_in("viewer"), day.dead.uid[:25]))
    member = signed_in("member")
    assert any(str(mine) == title for title in offered(member, "package"))
    assert not any(str(theirs) == title for title in offered(member, "globex"))
    assert any(str(theirs) == title for title in offered(signed_in("root"), "globex"))
