"""Notices: in order, again and again until they are accepted, by any live process, without revealing the address."""

from __future__ import annotations

import json
import socket
import threading
from datetime import timedelta
from typing import Any

import pytest

from controlplane.alerts import channels, outbox, records, summaries
from controlplane.alerts.deadline import Deadline, TooSlow
from controlplane.alerts.outbox import notices
from controlplane.alerts.sender import Sender
from controlplane.models import Alert, AlertNotice, AuditEntry
from quotas import clock
from quotas.runtime.outbox import CLAIM, WAITS
from tests.integration.controlplane.alerts.conftest import rule
from tests.integration.queues.test_webhook_post import drip, receiving
from tests.support.receiver import Receiver
from tests.support.valkey import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
TROUBLE = summaries.auth_failed("llm", "a1")


def due_now() -> None:
    AlertNotice.objects.filter(due_at__isnull=False).update(due_at=clock.now() - timedelta(seconds=1))


def test_a_webhook_gets_the_alert_and_its_end(receiver: Receiver) -> None:
    rule(to=f"webhook+http://bot:pass%20word@{receiver.address}/hook?x=1")
    alert = records.report(TROUBLE)
    records.end(alert)
    assert notices.send_due() == 1, "the end waits for its turn"
    assert notices.send_due() == 1
    assert notices.send_due() == 0
    assert receiver.kinds == [("alert.raised", "account_auth_failed"), ("alert.resolved", "account_auth_failed")]
    path, headers, body = receiver.got[0]
    assert path == "/hook?x=1" and headers["authorization"] == "Basic Ym90OnBhc3Mgd29yZA=="
    assert headers["webhook-id"] == AlertNotice.objects.order_by("pk")[0].uid
    assert body["data"]["id"] == alert.uid and body["data"]["severity"] == "critical"
    assert body["data"]["summary"] == TROUBLE.summary and body["timestamp"].endswith("Z")
    assert not AlertNotice.objects.filter(delivered_at=None).exists()


def test_it_is_tried_again_until_it_is_taken(receiver: Receiver) -> None:
    receiver.statuses = [500, 302, 200]
    rule(to=f"webhook+http://{receiver.address}/")
    records.report(TROUBLE)
    for tries, error in ((1, "HTTP 500"), (2, "HTTP 302"), (3, "")):
        assert notices.send_due() == 1
        notice = AlertNotice.objects.get()
        assert (notice.tries, notice.error) == (tries, error)
        assert notices.send_due() == 0, "not before its time"
        due_now()
    assert len(receiver.got) == 3
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1


def test_a_repeated_notice_says_what_it_said(receiver: Receiver) -> None:
    receiver.statuses = [500, 200]
    rule(to=f"webhook+http://{receiver.address}/")
    alert = records.report(TROUBLE)
    assert notices.send_due() == 1
    records.report(TROUBLE, times=5)
    records.acknowledge(alert, actor="someone", reason="seen")
    due_now()
    assert notices.send_due() == 1
    assert receiver.got[0][2] == receiver.got[1][2]
    assert receiver.got[0][2]["data"]["count"] == 1


def test_a_slow_receiver_delays_neither_other_rules_nor_the_watch(receiver: Receiver, settings: Any) -> None:
    settings.ALERT_CALM = 0
    with socket.create_server(("127.0.0.1", 0)) as silent:
        rule("silent", to=f"webhook+http://127.0.0.1:{silent.getsockname()[1]}/")
        for number in range(10):
            records.report(summaries.auth_failed("llm", f"a{number}"))
        rule("fine", to=f"webhook+http://{receiver.address}/")
        records.report(summaries.pool_limited("gone"))
        sender = Sender(lambda: True)
        sender.start()
        try:
            wait_for(lambda: ("alert.resolved", "all_accounts_limited") in receiver.kinds, 20)
            assert AlertNotice.objects.filter(rule__name="silent", tries=0).count() >= 8, "their time is not over"
        finally:
            sender.stop()
    wait_for(lambda: not sender._notices.underway, 20)


def test_after_a_day_it_is_given_up_and_the_next_one_goes(receiver: Receiver) -> None:
    silent = rule("silent", to="webhook+http://hush-user:hush-word@127.0.0.1:1/hush-path")
    records.end(records.report(TROUBLE))
    for _ in range(len(WAITS) + 1):
        due_now()
        assert notices.send_due() == 1
    notice = AlertNotice.objects.order_by("pk")[0]
    assert notice.due_at is None and notice.error.startswith("given up: ")
    assert "hush" not in str(list(AlertNotice.objects.values_list("error")))
    silent.to = f"webhook+http://{receiver.address}/"  # type: ignore[assignment]
    silent.save()
    assert notices.send_due() == 1
    assert receiver.kinds == [("alert.resolved", "account_auth_failed")]


def test_a_sender_that_died_after_taking_one_is_followed_by_another(receiver: Receiver) -> None:
    rule(to=f"webhook+http://{receiver.address}/")
    records.report(TROUBLE)
    AlertNotice.objects.update(due_at=clock.now() + CLAIM)  # taken, and then it died
    assert notices.send_due() == 0
    due_now()  # a minute later
    assert notices.send_due() == 1
    assert len(receiver.got) == 1


def test_two_senders_send_once(receiver: Receiver) -> None:
    rule(to=f"webhook+http://{receiver.address}/")
    for number in range(8):
        records.report(summaries.auth_failed("llm", f"a{number}"))
    from django.db import connection

    barrier = threading.Barrier(2)

    def work() -> None:
        barrier.wait()
        while notices.send_due(2):
            continue
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while notices.send_due():
        continue
    subjects = [body["data"]["subject"] for _, _, body in receiver.got]
    assert sorted(subjects) == [f"llm/a{number}" for number in range(8)]


def test_the_thread_watches_and_sends_while_it_leads(receiver: Receiver) -> None:
    rule(to=f"webhook+http://{receiver.address}/")
    records.report(summaries.pool_limited("gone"))  # nothing is so any more: the watch ends it
    leads = threading.Event()
    sender = Sender(leads.is_set)
    sender.start()
    try:
        assert not receiver.got
        leads.set()
        wait_for(lambda: receiver.got, 20)
    finally:
        sender.stop()
    assert receiver.kinds[0] == ("alert.raised", "all_accounts_limited")


def test_services_of_apprise(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    rule(to=f"json://hush-user:hush-word@{receiver.address}/hush-path")
    receiver.statuses = [500, 200]
    records.report(TROUBLE)
    with caplog.at_level("DEBUG"):
        assert notices.send_due() == 1
        assert AlertNotice.objects.get().error == "the service did not accept it"
        due_now()
        assert notices.send_due() == 1
    assert AlertNotice.objects.get().delivered_at is not None
    _, _, body = receiver.got[-1]
    assert body["title"] == "[critical] Credential refused: llm/a1"
    assert TROUBLE.summary in body["message"] and body["type"] == "failure"
    assert "hush" not in caplog.text


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["head", "body"])
def test_a_service_of_apprise_that_drips_is_left_at_the_deadline(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "APPRISE", Deadline(1.0))
    with receiving(drip(head)) as port:
        rule(to=f"json://127.0.0.1:{port}/")
        records.report(TROUBLE)
        assert notices.send_due() == 1
        assert AlertNotice.objects.get().error == "the service did not answer in time"
        wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "notify"], 20)


def test_a_call_that_cannot_be_interrupted_is_not_joined_by_another() -> None:
    """One instruction of C: nothing is raised in it before it is over."""
    deadline, go_on = Deadline(0.2), threading.Lock()
    go_on.acquire()
    with pytest.raises(TooSlow):
        deadline.within("a", go_on.acquire)
    alive = [thread for thread in threading.enumerate() if thread.name == "notify"]
    with pytest.raises(TooSlow):
        deadline.within("a", lambda: None)
    assert [thread for thread in threading.enumerate() if thread.name == "notify"] == alive
    assert deadline.within("b", lambda: 1) == 1
    go_on.release()
    wait_for(lambda: not alive[0].is_alive(), 20)
    assert deadline.within("a", lambda: 2) == 2


@pytest.mark.parametrize(
    ("address", "wrong"),
    [
        ("webhook+https://hooks.example.com/x", None),
        ("WEBHOOK+HTTP://127.0.0.1:8080", None),
        ("webhook+https://[2001:db8::1]:8443/x", None),
        ("webhook+https://", "with a host"),
        ("webhook+https://host:port/", "with a host"),
        ("webhook+https://host/a b", "with a host"),
        ("https://hooks.example.com/x", "begins with webhook+https://"),
        ("ops@example.com", "needs a scheme"),
        ("nosuchservice://x", "apprise"),
        ("mailto://user:pass@example.com", None),
        ("slack://TokenA/TokenB/TokenC/#ops", None),
    ],
)
def test_addresses(address: str, wrong: str | None) -> None:
    found = channels.problem(address)
    assert (found is None) if wrong is None else (found is not None and wrong in found)


def test_a_rule_can_be_tried_out(receiver: Receiver) -> None:
    asked = rule(to=f"webhook+http://{receiver.address}/")
    asked.refresh_from_db()
    assert outbox.send_test(asked, actor="user:eve", reason="new") == ""
    receiver.statuses = [404]
    assert outbox.send_test(asked, actor="user:eve", reason="again") == "HTTP 404"
    assert receiver.kinds == [("alert.resolved", "test")] * 2
    assert not Alert.objects.exists() and not AlertNotice.objects.exists()
    assert [entry.after for entry in AuditEntry.objects.filter(verb="alert_rule.test").order_by("pk")] == [
        {"delivered": True},
        {"delivered": False, "error": "HTTP 404"},
    ]


def test_the_address_is_encrypted_at_rest_and_needs_its_key(settings: Any) -> None:
    from cryptography.fernet import Fernet

    from quotas.services import credentials

    asked = rule(to="webhook+https://hush.example.com/")
    asked.refresh_from_db()
    assert "hush" not in str.__str__(asked.to) + repr(asked.to) + json.dumps(str(asked))  # type: ignore[arg-type]
    new = Fernet.generate_key().decode()
    settings.CREDENTIAL_KEYS = [new, *settings.CREDENTIAL_KEYS]
    assert credentials.rotate(actor="test") == 1
    settings.CREDENTIAL_KEYS = [new]
    asked.refresh_from_db()
    assert asked.to.reveal() == "webhook+https://hush.example.com/"  # type: ignore[attr-defined]
    settings.CREDENTIAL_KEYS = [Fernet.generate_key().decode()]
    records.report(TROUBLE)
    assert notices.send_due() == 1
    assert AlertNotice.objects.get().error == "the address can't be decrypted with the keys in SLUICE_CREDENTIAL_KEYS"
