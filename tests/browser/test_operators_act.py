"""What operators do, from the dashboard on, each with the most clicks and keys that it may take."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.models import AuditEntry
from queues.models import BulkAction, DeadLetter, Job, Queue
from queues.services import bulk_actions, dead_letters
from quotas.models import Account, ApiKey, Policy, UsageRollup
from quotas.rest.authentication import keyring
from quotas.services.rollups import start_of
from quotas.services.usage import Selection, usage
from tests.browser.conftest import Visit
from tests.browser.hand import Hand
from tests.browser.seed import Day
from tests.browser.test_operators_look import hand_of, nav

pytestmark = pytest.mark.browser
People = Callable[[str], Visit]


@pytest.fixture(scope="module")
def day(shared_day: tuple[str, Day]) -> Day:
    return shared_day[1]


def reason(hand: Hand, text: str) -> None:
    """The dialog has the cursor in its reason; Enter presses its button."""
    hand.page.locator("#dialog-form [name=reason]").wait_for(state="visible")
    hand.write(text, "[name=reason]")
    with hand.page.expect_navigation():
        hand.press("Enter")


def letter(day: Day, error: str, count: int = 1) -> list[DeadLetter]:
    now, made = timezone.now(), []
    for number in range(count):
        job = Job.objects.create(
            project=day.acme, queue=day.queue, type="http.request", payload=day.dead.payload, status="dead", stage=5,
            created_at=now - timedelta(minutes=number), finished_at=now, error=error,
        )  # fmt: skip
        made.append(
            DeadLetter.objects.create(
                job=job, project=day.acme, queue=day.queue, type=job.type, category="code", severity="warning",
                fingerprint=f"{error:f<32}"[:32], error=error, attempts=1, created_at=now,
            )
        )  # fmt: skip
    return made


def test_a_queue_is_paused_and_resumed_from_its_row(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    hand.click("[aria-label='Pause embeddings']")
    reason(hand, "provider maintenance")
    hand.within(2)
    assert Queue.objects.get(name="embeddings").paused_reason == "provider maintenance"
    entry = AuditEntry.objects.get(verb="queue.pause", target="queue:embeddings")
    assert (entry.actor, entry.reason) == ("user:operator", "provider maintenance")
    again = Hand(page)
    again.click("[aria-label='Resume embeddings']")
    reason(again, "all well")
    again.within(2)
    assert Queue.objects.get(name="embeddings").paused_at is None


def test_a_dialog_opens_though_its_panel_is_refreshed_meanwhile(people: People, day: Day) -> None:
    page = people("operator").page
    stopped: list[Any] = []
    link = page.locator("[aria-label='Pause embeddings']")
    link.wait_for()
    page.route("**/queues/queue/*/pause*/**", lambda route: stopped.append(route))
    panel = link.evaluate_handle("link => link.closest('[data-live]')")
    link.click()
    with page.expect_response("**/live/queues*"):
        panel.evaluate("panel => htmx.trigger(panel, 'tick')")
    page.wait_for_function("panel => !panel.classList.contains('htmx-request')", arg=panel)
    stopped[0].continue_()
    page.locator("#dialog-form").wait_for(state="visible")
    page.unroute("**/queues/queue/*/pause*/**")


def test_a_queues_concurrency_is_set_in_place(people: People, day: Day) -> None:
    page, hand = hand_of(people, "administrator")
    nav(hand, "Queues")
    hand.click("[aria-label='Set concurrency of agent_tasks']")
    page.locator("#dialog-form [name=concurrency]").wait_for(state="visible")
    hand.write("7", "[name=concurrency]")
    hand.press("Tab")
    hand.write("they are slow", "[name=reason]")
    with page.expect_navigation():
        hand.press("Enter")
    assert Queue.objects.get(name="agent_tasks").concurrency == 7
    hand.within(4)


def test_all_jobs_that_match_are_cancelled_and_it_is_undone(people: People, day: Day) -> None:
    Job.objects.bulk_create(
        Job(project=day.acme, queue=day.queue, type="t.many", payload={}, created_at=timezone.now()) for _ in range(60)
    )
    page, hand = hand_of(people)
    nav(hand, "Jobs")
    page.wait_for_selector("#searchbar")
    hand.press("/")
    hand.write("type:t.many", "#searchbar")
    hand.press("Enter")
    page.wait_for_url("**q=type*")
    hand.click("#action-toggle")
    hand.click("a:has-text('Select all 60')")
    hand.choose("select[name=action]", value="cancel_jobs")
    hand.click("button:has-text('Run')")
    page.wait_for_selector("h2:has-text('Cancel 60 jobs')")
    text = page.inner_text(".sl-confirm")
    assert "What is added later is not included" in text and "t.many" in text, "what, how many, and until when"
    hand.write("sent twice", "[name=reason]")
    with page.expect_navigation():
        hand.press("Enter")
    hand.within(10)
    assert "q=type" in page.url, "the filters stay"
    action = BulkAction.objects.get(verb="cancel")
    undo = Hand(page)
    with page.expect_navigation():
        undo.click("button:has-text('Undo')")
    undo.within(1)
    action.refresh_from_db()
    assert action.stopped_by == "user:operator" and action.done == 0
    assert not bulk_actions.process_next_slice(timezone.now() + timedelta(minutes=1))
    assert Job.objects.filter(type="t.many", status="pending").count() == 60
    assert AuditEntry.objects.filter(verb="job.bulk_undo").count() == 1


def test_a_bulk_action_is_watched_and_stopped(people: People, day: Day, monkeypatch: Any) -> None:
    made = letter(day, "slow one", 60)
    action = bulk_actions.begin(
        "discard", {"letters": [one.pk for one in made]}, project=None, actor="user:root", reason="test"
    )
    bulk_actions.process_next_slice()
    page, hand = hand_of(people)
    nav(hand, "Bulk actions")
    hand.click("#result_list tbody th a")
    bar = page.locator("#bulk-progress [role=progressbar]")
    bar.wait_for()
    assert bar.get_attribute("aria-valuenow") == "83" and "10 left" in page.inner_text("#bulk-progress")
    hand.click("a:has-text('Stop')")
    reason(hand, "wrong filter")
    action.refresh_from_db()
    assert (action.done, action.stopped_by) == (50, "user:operator")
    hand.within(4)


def test_a_failure_that_is_back_is_replayed_one_first_then_the_rest(people: People, day: Day) -> None:
    made = letter(day, "it is back", 3)
    dead_letters.discard(made[0].pk, actor="user:root", reason="fixed")
    DeadLetter.objects.filter(pk=made[0].pk).update(handled_at=timezone.now() - timedelta(hours=1))
    page, hand = hand_of(people)
    nav(hand, "Dead letters")
    hand.click("a:has-text('Show by failure')")
    row = page.locator("#groups tbody tr", has_text="it is back")
    assert row.locator(".sl-tag", has_text="back again").count() == 1
    assert row.locator(".sl-spark polyline").count() == 1
    assert page.locator("#groups tbody tr", has_text="503 overloaded").locator("text=back again").count() == 0
    hand.click(row.locator("text=Replay this group"))
    hand.write("is it fixed?", "[name=reason]")
    with page.expect_navigation():
        hand.click("button:has-text('Replay one first')")
    assert DeadLetter.objects.filter(fingerprint=made[0].fingerprint, handled_at=None).count() == 1
    hand.within(4)
    rest = Hand(page)
    people("operator").go("queues/deadletter/groups/")
    rest.click(page.locator("#groups tbody tr", has_text="it is back").locator("text=Replay this group"))
    rest.write("it is", "[name=reason]")
    with page.expect_navigation():
        rest.press("Enter")
    rest.within(2)
    assert BulkAction.objects.get(verb="replay").total == 1
    page.locator("#bulk-progress button:has-text('Undo')").wait_for()


def test_a_known_failure_is_ignored_for_a_day_and_seen_again(people: People, day: Day) -> None:
    made = letter(day, "known and harmless", 2)
    page, hand = hand_of(people)
    nav(hand, "Dead letters")
    hand.click("a:has-text('Show by failure')")
    row = page.locator("#groups tbody tr", has_text="known and harmless")
    hand.click(row.locator("text=Ignore"))
    page.locator("[name=reason]").focus()
    hand.write("fixed on Monday", "[name=reason]")
    with page.expect_navigation():
        hand.press("Enter")
    hand.within(4)
    assert row.count() == 0 and page.locator("text=Ignored for 1 day, until").count()
    page.click("a:has-text('Show ignored failures')")
    assert "by user:operator: fixed on Monday" in row.inner_text()
    row.locator("text=Stop ignoring").click()
    page.fill("[name=reason]", "it is Monday")
    with page.expect_navigation():
        page.click("button:has-text('Stop ignoring')")
    assert row.count() == 1
    verbs = AuditEntry.objects.filter(target=f"failure:{made[0].fingerprint}").values_list("verb", flat=True)
    assert set(verbs) == {"dead_letter.ignore", "dead_letter.stop_ignoring"}


def test_a_letter_is_edited_and_replayed(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    nav(hand, "Dead letters")
    hand.click(page.locator("#result_list a", has_text=day.letter.uid))
    hand.click("a:has-text('Edit and replay')")
    box = page.locator("#dialog-form textarea[name=payload]")
    box.wait_for(state="visible")
    text = box.input_value().replace("small", "large")
    page.wait_for_function("document.activeElement.name === 'payload'")
    page.keyboard.press("Control+a")
    hand.write(text, "[name=payload]")
    hand.press("Tab")
    hand.write("the small model is gone", "[name=reason]")
    with page.expect_navigation():
        hand.press("Enter")
    assert Job.objects.get(pk=day.dead.pk).payload["json"]["model"] == "large"
    hand.within(5)


def test_a_users_counter_is_reset_from_its_row(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    hand.click("#panel-limits a:has-text('user-hourly')")
    row = page.locator("#policy-use tbody tr", has_text="u-2")
    row.wait_for()
    hand.click(row.locator(".sl-reset"))
    page.locator("#dialog [name=key]").wait_for()
    assert "Used now: 10 of 12 requests" in page.inner_text("#dialog")
    reason(hand, "customer called")
    used = {state.key: state.used for state in usage(Selection(policy="user-hourly"))}
    assert used.get("u-2", 0) == 0 and used["u-0"] == 10
    hand.within(3)


def test_a_list_is_walked_by_keys(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    nav(hand, "Jobs")
    page.wait_for_selector("#result_list")
    second = page.locator("#result_list tbody tr").nth(1).inner_text()
    hand.press("j", "j", "x")
    current = page.locator("#result_list tr[aria-current=true]")
    assert current.inner_text() == second
    assert current.locator("input.action-select").is_checked()
    assert page.locator("#result_list input.action-select:checked").count() == 1
    hand.within(4)
    hand.press("k", "Enter")
    page.wait_for_url("**/queues/job/*/change/")
    hand.within(6)


def test_the_palette_pauses_a_queue(people: People, day: Day) -> None:
    page, hand = hand_of(people)
    page.wait_for_selector("#open-palette")
    hand.press("Control+k")
    page.wait_for_selector("#search-input-command:focus")
    hand.write("pause notif", "#search-input-command")
    hand.click(page.locator("#command-results-list li a", has_text="Pause notifications"))
    reason(hand, "by the palette")
    assert Queue.objects.get(name="notifications").paused_reason == "by the palette"
    hand.within(3)


def test_a_limit_is_tried_before_it_is_saved(people: People, day: Day) -> None:
    policy = Policy.objects.create(
        name="tried", scope="user", unit="requests", algorithm="sliding_window", limit=12, window=60
    )
    for ago in range(2, 50):
        for user in range(7):
            UsageRollup.objects.create(
                policy=policy, project="acme", key=f"cust-{user}", resolution="minute", used=min(12, 2 + user), limit=12,
                start=start_of("minute", timezone.now() - timedelta(minutes=ago)),
            )  # fmt: skip
    visit = people("administrator")
    page, hand = visit.page, Hand(visit.page)
    visit.go(f"quotas/policy/{policy.pk}/change/")
    verdict = page.locator("#backtest .sl-verdict")
    verdict.wait_for()
    first = verdict.inner_text()
    slider = page.locator("#backtest input[type=range]")
    slider.focus()
    hand.press("Home")
    page.wait_for_function("document.querySelector('#backtest .sl-verdict').innerText !== " + repr(first))
    assert re.search(r"Would have denied [1-9][\d,]* of [\d,]+ requests, 7 of 7 users", verdict.inner_text())
    policy.refresh_from_db()
    assert policy.limit == 12, "nothing is saved"
    hand.within(1)


def test_a_configuration_is_exported_compared_and_applied(people: People, day: Day) -> None:
    page, hand = hand_of(people, "administrator")
    nav(hand, "Configuration")
    box = page.locator("textarea[name=text]")
    box.wait_for()
    text = box.input_value()
    assert "acme-day" in text
    box.fill(text.replace("limit: 500", "limit: 501", 1))
    hand.click("button[name=preview]")
    page.locator("#changes", has_text="1 changed").wait_for()
    page.fill("input[name=reason]", "they pay for more")
    hand.click("button[name=apply]")
    page.wait_for_selector("text=Applied: 0 added, 1 changed, 0 removed")
    hand.within(3)


def test_a_key_is_made_and_copied(people: People, day: Day) -> None:
    page, hand = hand_of(people, "administrator")
    nav(hand, "API keys")
    hand.click("a[href*='apikey/add']")
    page.fill("input[name=name]", "nightly")
    hand.click("input[name=scopes][value=check]")
    hand.click("button[name=_save]")
    page.wait_for_selector("#new-key")
    hand.click(".sl-copy")
    page.locator(".sl-copy", has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.inner_text("#new-key")
    assert ApiKey.objects.get(name="nightly").scopes == ["check"]
    hand.within(5)


def test_a_double_click_makes_one_key_and_one_rotation(people: People, day: Day) -> None:
    visit = people("administrator")
    page = visit.page
    visit.go("quotas/apikey/add/")
    page.fill("input[name=name]", "clicked twice")
    page.check("input[name=scopes][value=read]")
    page.dblclick("button[name=_save]")
    page.wait_for_selector("#new-key")
    key = ApiKey.objects.get(name="clicked twice")
    visit.go(f"quotas/apikey/{key.pk}/change/")
    page.click("a:has-text('Rotate secret')")
    page.locator("#dialog-form [name=reason]").wait_for(state="visible")
    page.fill("#dialog-form [name=reason]", "leaked")
    page.dblclick("#dialog button:has-text('Rotate secret')")
    page.wait_for_selector("#new-key")
    assert AuditEntry.objects.filter(verb="apikey.rotate", reason="leaked").count() == 1
    caller = keyring.find(page.inner_text("#new-key"))
    assert caller is not None and caller.key_id == key.pk, "the secret that is shown is the valid one"


def test_a_cooldown_is_cleared(people: People, day: Day) -> None:
    _, hand = hand_of(people)
    hand.click("#panel-accounts .sl-chip:has-text('a2')")
    hand.click("a:has-text('Clear cooldown')")
    reason(hand, "the provider says it is over")
    assert Account.objects.get(name="a2").state == "available"
    hand.within(3)
