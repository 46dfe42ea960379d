"""What a confirmation says is what happens, and many dead letters are handled in the background."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.alerts import records, summaries
from controlplane.models import Alert, AuditEntry
from queues.models import BulkAction, DeadLetter, Job
from queues.services import bulk_actions, dead_letters
from queues.states import Stage, Status
from quotas.admin import bulk
from quotas.models import ApiKey, Tier
from quotas.services import api_keys
from tests.browser.seed import Day

SignIn = Callable[[str], Client]
URL = "/admin/queues/deadletter/"


def make_letters(day: Day, count: int, project: Any = None, category: str = "server") -> list[DeadLetter]:
    now = timezone.now()
    project = project or day.acme
    made = []
    for _ in range(count):
        job = Job.objects.create(
            project=project, queue=day.queue, type="http.request", payload=day.dead.payload, stage=Stage.DONE,
            status=Status.DEAD, category=category, error="503", created_at=now - timedelta(hours=1), finished_at=now,
        )  # fmt: skip
        made.append(
            DeadLetter.objects.create(
                job=job,
                project=project,
                queue=day.queue,
                type=job.type,
                category=category,
                severity="warning",
                fingerprint="a" * 16,
                error="503",
                attempts=1,
                created_at=now,
            )  # fmt: skip
        )
    return made


def ask(client: Client, action: str, url: str = URL, **given: Any) -> tuple[int, dict[str, Any]]:
    """Open the question; the number it says, and what its form would send."""
    page = client.post(url, {"action": action, "select_across": "1", **given}).content.decode()
    said = re.findall(r"<h2>\D*([\d,]+) ", page)[0]
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    fields.pop("csrfmiddlewaretoken", None)
    return int(said.replace(",", "")), {**fields, **given, "reason": "provider is back"}


def finish() -> None:
    """All slices, as if the time for an undo were over."""
    while bulk_actions.process_next_slice(timezone.now() + bulk_actions.UNDO_FOR):
        pass


def test_all_matching_is_what_the_question_said(signed_in: SignIn, day: Day) -> None:
    client = signed_in("operator")
    handled, *letters = make_letters(day, 6)
    dead_letters.discard(handled.pk, actor="test")
    chosen = {"_selected_action": [letters[0].pk]}
    count, fields = ask(client, "discard_letters", **chosen)
    assert count == 6, "five, and the seed's; not the one that was handled"
    late = make_letters(day, 2)
    before = AuditEntry.objects.count()
    answer = client.post(URL, fields)
    assert answer.status_code == 302
    action = BulkAction.objects.get()
    assert (action.total, action.done, action.finished_at) == (6, 0, None), "the web request only begins it"
    finish()
    action.refresh_from_db()
    assert (action.done, action.skipped) == (6, 0) and action.finished_at
    assert set(DeadLetter.objects.filter(handled_at=None)) == set(late)
    assert AuditEntry.objects.count() == before + 1, "one entry for all"
    entry = AuditEntry.objects.get(verb="dead_letter.bulk_discard")
    assert (entry.actor, entry.reason, entry.after["total"]) == ("user:operator", "provider is back", 6)


def test_the_lists_filters_hold_for_all_that_match(signed_in: SignIn, day: Day) -> None:
    make_letters(day, 3)
    make_letters(day, 4, category="auth")
    make_letters(day, 2, project=day.globex, category="auth")
    url = f"{URL}?category=auth&project__id__exact={day.acme.pk}"
    client = signed_in("operator")
    count, fields = ask(client, "discard_letters", url, _selected_action=[1])
    assert count == 4
    client.post(url, fields)
    finish()
    gone = DeadLetter.objects.exclude(handled_at=None)
    assert gone.count() == 4 and set(gone.values_list("category", "project")) == {("auth", day.acme.pk)}


def test_a_members_all_is_the_own_projects(signed_in: SignIn, day: Day) -> None:
    make_letters(day, 2)
    theirs = make_letters(day, 3, project=day.globex)
    client = signed_in("member")
    count, fields = ask(client, "discard_letters", _selected_action=[theirs[0].pk])
    assert count == 3
    client.post(URL, fields)
    finish()
    assert DeadLetter.objects.filter(handled_at=None).count() == 3
    assert not DeadLetter.objects.filter(project=day.globex).exclude(handled_at=None).exists()


def test_chosen_rows_are_replayed_and_those_handled_are_not_counted(signed_in: SignIn, day: Day) -> None:
    letters = make_letters(day, 3)
    dead_letters.discard(letters[0].pk, actor="test")
    client = signed_in("operator")
    count, fields = ask(client, "replay_letters", f"{URL}?handled=all", select_across="0",
                        _selected_action=[letter.pk for letter in letters])  # fmt: skip
    assert count == 2
    client.post(URL, fields)
    finish()
    assert Job.objects.filter(status=Status.PENDING, replays=1).count() == 2


def test_a_double_click_does_it_once(signed_in: SignIn, day: Day) -> None:
    make_letters(day, 3)
    client = signed_in("operator")
    _, fields = ask(client, "replay_letters", _selected_action=[1])
    client.post(URL, fields)
    client.post(URL, fields)
    finish()
    assert set(Job.objects.filter(status=Status.PENDING, replays__gt=0).values_list("replays", flat=True)) == {1}
    assert sum(BulkAction.objects.values_list("done", flat=True)) == 4


def test_alerts_that_open_after_the_question_stay_open(signed_in: SignIn, day: Day) -> None:
    for name in ("a1", "a2"):
        records.report(summaries.auth_failed("llm", name))
    client, url = signed_in("operator"), "/admin/controlplane/alert/"
    count, fields = ask(client, "resolve_alerts", url, _selected_action=[1])
    assert count == 2
    late = records.report(summaries.auth_failed("llm", "a3"))
    client.post(url, fields)
    assert list(Alert.objects.filter(resolved_at=None)) == [late]


def test_without_a_cut_off_all_that_match_is_only_asked_about(signed_in: SignIn, day: Day) -> None:
    make_letters(day, 2)
    fields = {
        "action": "discard_letters",
        "select_across": "1",
        "_selected_action": ["1"],
        "confirmed": "1",
        "reason": "x",
    }
    assert signed_in("operator").post(URL, fields).status_code == 200
    assert not BulkAction.objects.exists()


KEYS = "/admin/quotas/apikey/"


def test_many_rows_of_configuration_are_changed_in_parts(
    signed_in: SignIn, day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "PART", 3)
    ApiKey.objects.all().delete()
    for number in range(8):
        api_keys.create(f"ci {number}", ["check"], project=day.acme, actor="test")
    client = signed_in("administrator")
    count, fields = ask(client, "revoke_keys", KEYS, _selected_action=[1])
    assert count == 3
    late, _ = api_keys.create("late", ["check"], project=day.acme, actor="test")
    revoked = []
    for left in ("3", "2"):
        page = client.post(KEYS, fields).content.decode()
        revoked.append(ApiKey.objects.exclude(revoked_at=None).count())
        assert f"Revoke {left} API keys?" in page and 'value="provider is back"' in page, "asked again, with the reason"
        fields |= dict(re.findall(r'<input type="hidden" name="(after|newest)" value="([^"]*)"', page))
    assert client.post(KEYS, fields).status_code == 302
    revoked.append(ApiKey.objects.exclude(revoked_at=None).count())
    assert revoked == [3, 6, 8], "each request changes so many rows"
    assert ApiKey.objects.get(revoked_at=None) == late, "what came after the question is not included"
    assert AuditEntry.objects.filter(verb="apikey.revoke", reason="provider is back").count() == 8


def test_rows_that_cannot_be_changed_do_not_stop_the_next_parts(
    signed_in: SignIn, day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "PART", 2)
    url = "/admin/quotas/tier/"
    Tier.objects.bulk_create(Tier(name=f"t{number}") for number in range(4))
    client = signed_in("administrator")
    _, fields = ask(client, "delete_selected", url, _selected_action=[1])
    for _ in range(3):
        page = client.post(url, fields)
        if page.status_code == 302:
            break
        fields |= dict(re.findall(r'<input type="hidden" name="(after|newest)" value="([^"]*)"', page.content.decode()))
    assert list(Tier.objects.values_list("name", flat=True)) == ["gold"], "it is in use, and the others are gone"
