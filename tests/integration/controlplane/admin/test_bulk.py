"""What a confirmation says is what happens, and many dead letters are handled in the background."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from controlplane.alerts import records, summaries
from controlplane.models import Alert, AuditEntry
from queues.models import BulkAction, DeadLetter, Job, Queue
from queues.services import bulk_actions, bulk_rows, dead_letters, queue_actions
from queues.states import Stage, Status
from quotas.admin.visibility import CHOSEN
from quotas.models import Account, ApiKey, Policy, Tier
from quotas.services import api_keys, row_actions
from quotas.services.accounts import state_of
from quotas.snapshot import resolve
from tests.browser.seed import Day
from tests.support.limiter_server import limiter_at
from tests.support.valkey import run_server, valkey_binary, wait_for

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
    assert AuditEntry.objects.count() == before + 2, "one entry of the intent and one of the outcome, for all"
    entry = AuditEntry.objects.get(verb="dead_letter.bulk_discard")
    said = (entry.actor, entry.reason, entry.after["total"], entry.after["done"])
    assert said == ("user:operator", "provider is back", 6, 6)


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
MANY = bulk_rows.AT_ONCE + 5


def make_keys(day: Day, count: int) -> None:
    ApiKey.objects.all().delete()
    for number in range(count):
        api_keys.create(f"ci {number}", ["check"], project=day.acme, actor="test")


def revoked() -> int:
    return ApiKey.objects.exclude(revoked_at=None).count()


def test_many_rows_of_configuration_are_changed_in_the_background(signed_in: SignIn, day: Day) -> None:
    make_keys(day, MANY)
    client = signed_in("administrator")
    count, fields = ask(client, "revoke_keys", KEYS, _selected_action=[1])
    assert count == MANY
    late, _ = api_keys.create("late", ["check"], project=day.acme, actor="test")
    page = client.post(KEYS, fields, follow=True).content.decode()
    action = BulkAction.objects.get()
    address = f"/admin/queues/bulkaction/{action.pk}/"
    assert f"{address}change/" in page and f"{address}undo/" in page
    assert (action.total, action.done, revoked()) == (MANY, 0, 0), "the web request only begins it"
    assert not bulk_actions.process_next_slice(), "it can be undone for some seconds"
    client.post(KEYS, fields)
    finish()
    action.refresh_from_db()
    assert (action.done, action.skipped) == (MANY, 0) and action.finished_at
    assert ApiKey.objects.get(revoked_at=None) == late, "what came after the question is not included"
    rows = AuditEntry.objects.filter(verb="apikey.revoke", reason="provider is back", actor="user:administrator")
    assert rows.count() == MANY and all(entry.before and entry.after for entry in rows)
    whole = AuditEntry.objects.get(verb="apikey.bulk_revoke")
    assert (whole.actor, whole.after["total"], whole.after["done"]) == ("user:administrator", MANY, MANY)
    assert "revoke keys" in client.get(f"{address}change/").content.decode()


def test_a_few_rows_are_changed_at_once_as_the_same_object(signed_in: SignIn, day: Day) -> None:
    make_keys(day, 3)
    client = signed_in("administrator")
    _, fields = ask(client, "revoke_keys", KEYS, _selected_action=[1])
    page = client.post(KEYS, fields, follow=True).content.decode()
    assert "3 API keys revoked." in page and revoked() == 3
    again = client.post(KEYS, fields, follow=True).content.decode()
    assert "Skipped" not in again and "Nothing was done" in again
    action = BulkAction.objects.get()
    assert (action.total, action.done, action.skipped) == (3, 3, 0) and action.finished_at
    assert AuditEntry.objects.get(verb="apikey.bulk_revoke").after["done"] == 3
    assert AuditEntry.objects.filter(verb="apikey.revoke").count() == 3


def test_what_a_web_process_left_undone_is_done_in_the_background(signed_in: SignIn, day: Day) -> None:
    make_keys(day, 3)
    keys = list(ApiKey.objects.values_list("pk", flat=True))
    kind = row_actions.of(ApiKey, "revoke")
    bulk_rows.begin(kind, keys, actor="user:root", reason="x", uid="1", undo_for=timedelta(0))
    finish()
    assert revoked() == 0, "the web process has its time"
    while bulk_actions.process_next_slice(timezone.now() + bulk_rows.TAKEN_OVER_AFTER):
        pass
    assert revoked() == 3


def test_rows_that_cannot_be_changed_are_named_before_and_after(signed_in: SignIn, day: Day) -> None:
    url = "/admin/quotas/tier/"
    Tier.objects.bulk_create(Tier(name=f"t{number}") for number in range(4))
    client = signed_in("administrator")
    question = client.post(url, {"action": "delete_selected", "select_across": "1", "_selected_action": [1]})
    page = question.content.decode()
    assert "Delete 4 tiers?" in page and "skipped: " in page and "project acme" in page
    _, fields = ask(client, "delete_selected", url, _selected_action=[1])
    answer = client.post(url, fields, follow=True).content.decode()
    assert "4 tiers deleted." in answer and "Skipped: gold: " in answer
    assert list(Tier.objects.values_list("name", flat=True)) == ["gold"], "it is in use, and the others are gone"
    action = BulkAction.objects.get()
    assert (action.done, action.skipped, action.refused[0][0]) == (4, 1, "gold")
    progress = client.get(f"/admin/queues/bulkaction/{action.pk}/change/").content.decode()
    assert "gold" in progress and "project acme" in progress
    assert AuditEntry.objects.get(verb="tier.delete", target="tier:t0").before["name"] == "t0"


def test_rows_that_would_not_change_are_left_out_and_said(signed_in: SignIn, day: Day) -> None:
    client, url = signed_in("administrator"), "/admin/queues/queue/"
    queue_actions.pause(day.queue, actor="test", reason="first")
    others = Queue.objects.count() - 1
    page = client.post(url, {"action": "pause_queues", "select_across": "1", "_selected_action": [1]}).content.decode()
    assert f"Pause {others} queues?" in page and "1 not included: already paused." in page
    page = client.post(url, {"action": "pause_queues", "_selected_action": [day.queue.pk]}).content.decode()
    assert 'type="submit"' not in page.split("sl-confirm")[1].split("</form>")[0], "nothing to confirm"


@pytest.mark.parametrize(("url", "action"), [(URL, "discard_letters"), ("/admin/queues/job/", "cancel_jobs")])
def test_the_chosen_project_holds_for_all_that_match(signed_in: SignIn, day: Day, url: str, action: str) -> None:
    make_letters(day, 2)
    make_letters(day, 3, project=day.globex)
    client = signed_in("root")
    session = client.session
    session[CHOSEN] = day.globex.pk
    session.save()
    count, fields = ask(client, action, url, _selected_action=[1])
    client.post(url, fields)
    finish()
    begun = BulkAction.objects.get()
    assert (begun.total, begun.done) == (count, count), "what the question said"
    if action == "discard_letters":
        changed = DeadLetter.objects.exclude(handled_at=None).values_list("project", flat=True)
    else:
        changed = Job.objects.filter(status=Status.CANCELLED).values_list("project", flat=True)
    assert set(changed) == {day.globex.pk}


def test_the_chosen_project_holds_for_a_failure(signed_in: SignIn, day: Day) -> None:
    here, there = make_letters(day, 2), make_letters(day, 3, project=day.globex)
    client = signed_in("root")
    session = client.session
    session[CHOSEN] = day.globex.pk
    session.save()
    assert ">3<" in re.sub(r"\s+", "", client.get("/admin/queues/deadletter/groups/").content.decode())
    url = f"/admin/queues/deadletter/groups/{here[0].fingerprint}/replay/"
    page = client.get(url).content.decode()
    assert "Replay 3 dead letters of this failure?" in page
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    client.post(url, {**fields, "reason": "provider is back"})
    finish()
    assert set(DeadLetter.objects.exclude(handled_at=None)) == set(there)


def test_filters_and_searches_hold_for_all_that_match_on_a_list_of_configuration(signed_in: SignIn, day: Day) -> None:
    client = signed_in("administrator")
    for query, name in (("mode__exact=shadow", "bursty"), ("q=acme", "acme-day")):
        url = f"/admin/quotas/policy/?{query}"
        count, fields = ask(client, "disable_policies", url, _selected_action=[1])
        answer = client.post(url, fields)
        assert count == 1 and answer.url.endswith(f"?{query}"), "the list keeps its filter"
        assert list(Policy.objects.filter(enabled=False).values_list("name", flat=True)) == [name]
        Policy.objects.update(enabled=True)


def lose_the_role(user: User) -> None:
    user.groups.clear()


def be_deactivated(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


@pytest.mark.parametrize("lose", [lose_the_role, be_deactivated])
@pytest.mark.parametrize("what", ["revoke_keys", "discard_letters"])
def test_what_a_person_may_not_do_any_more_is_not_done(
    signed_in: SignIn, day: Day, lose: Callable[[User], None], what: str
) -> None:
    url = KEYS if what == "revoke_keys" else URL
    make_keys(day, MANY)
    make_letters(day, MANY)
    client = signed_in("administrator")
    _, fields = ask(client, what, url, _selected_action=[1])
    client.post(url, fields)
    lose(User.objects.get(username="administrator"))
    finish()
    action = BulkAction.objects.get()
    assert action.finished_at and (action.done, action.skipped) == (0, 0)
    assert revoked() == 0 and not DeadLetter.objects.exclude(handled_at=None).exists()
    page = signed_in("root").get(f"/admin/queues/bulkaction/{action.pk}/change/").content.decode()
    assert "Stopped: administrator" in page and "were left as they are" in page
    noun = "apikey" if what == "revoke_keys" else "dead_letter"
    assert "administrator" in AuditEntry.objects.get(verb=f"{noun}.bulk_{action.verb}").after["why"]


def test_a_person_who_changes_projects_acts_on_the_present_ones(signed_in: SignIn, day: Day) -> None:
    make_letters(day, 3)
    client = signed_in("member")
    _, fields = ask(client, "discard_letters", _selected_action=[1])
    client.post(URL, fields)
    day.globex.members.add(User.objects.get(username="member"))
    day.acme.members.clear()
    finish()
    assert not DeadLetter.objects.exclude(handled_at=None).exists()


def test_an_action_on_rows_is_undone_and_stopped(signed_in: SignIn, day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_rows, "SLICE", 4)
    make_keys(day, MANY)
    client = signed_in("administrator")
    for verb in ("undo", "stop"):
        _, fields = ask(client, "revoke_keys", KEYS, _selected_action=[1])
        client.post(KEYS, fields)
        action = BulkAction.objects.latest("pk")
        if verb == "stop":
            bulk_actions.process_next_slice(timezone.now() + bulk_actions.UNDO_FOR)
        url, given = f"/admin/queues/bulkaction/{action.pk}/{verb}/", {"reason": "wrong", "_form_submitted": "on"}
        assert signed_in("operator").post(url, given).status_code == 403, (
            "who may not revoke keys may not stop it either"
        )
        client.post(url, given)
        finish()
        action.refresh_from_db()
        assert action.stopped_by == "user:administrator"
        assert (action.done, revoked()) == ((0, 0) if verb == "undo" else (4, 4))


def test_an_unexpected_error_ends_the_action_and_no_other(day: Day) -> None:
    def fail(row: Any, *, actor: str, reason: str) -> None:
        raise RuntimeError("a fault of the test")

    make_keys(day, MANY)
    faulty = replace(row_actions.of(ApiKey, "revoke"), name="test_fault", act=fail)
    row_actions.register(faulty)
    keys = list(ApiKey.objects.order_by("pk").values_list("pk", flat=True))
    for kind in (faulty, row_actions.of(ApiKey, "revoke")):
        bulk_rows.begin(kind, keys, actor="user:root", reason="x", uid=kind.name, undo_for=timedelta(0))
    with pytest.raises(RuntimeError):
        bulk_actions.process_next_slice()
    finish()
    ended = BulkAction.objects.get(verb="test_fault")
    assert ended.finished_at and "RuntimeError" in ended.stopped_why
    assert revoked() == MANY, "the next action is not behind it"


def test_all_that_match_from_a_later_page_is_stored_as_a_filter(signed_in: SignIn, day: Day) -> None:
    make_letters(day, 4)
    client = signed_in("root")
    for query, stored in (("p=1", {"newest"}), ("severity__exact=warning&p=1", {"newest", "severity"})):
        count, fields = ask(client, "discard_letters", f"{URL}?{query}", _selected_action=[1])
        client.post(f"{URL}?{query}", fields)
        action = BulkAction.objects.latest("pk")
        assert action.total == count and set(action.filter) == stored


def test_an_action_on_accounts_waits_for_redis_and_finishes_the_row_it_was_at(day: Day) -> None:
    Account.objects.bulk_create(
        Account(pool=day.account.pool, name=f"more-{number}", credential="x") for number in range(MANY)
    )
    rows = Account.objects.filter(name__startswith="more-")
    with run_server(valkey_binary()) as server, limiter_at(server.url, LIMITER_TIMEOUT=0.3):
        kind = row_actions.of(Account, "disable")
        ids = list(rows.values_list("pk", flat=True))
        action, _ = bulk_rows.begin(kind, ids, actor="user:root", reason="x", uid="1", undo_for=timedelta(0))
        server.process.send_signal(signal.SIGSTOP)
        assert not bulk_actions.process_next_slice()
        action.refresh_from_db()
        assert (action.done, action.finished_at) == (0, None)
        first = min(ids)
        rows.filter(pk=first).update(enabled=False)  # as if SQL had been changed, and Redis not
        server.process.send_signal(signal.SIGCONT)

        def ended() -> bool:
            finish()
            action.refresh_from_db()
            return action.finished_at is not None

        wait_for(ended)
        assert (action.done, action.skipped) == (MANY, 0)
        state = state_of(resolve.pool_spec("llm"), str(first))
        assert state is not None and state.state == "disabled"
