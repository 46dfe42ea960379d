"""Every kind of alert reaches a webhook and a mail server once when it begins, and once when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.alerts import conditions, kinds, records, summaries
from controlplane.alerts.kinds import Trouble
from controlplane.alerts.outbox import notices
from controlplane.models import AlertNotice
from tests.integration.controlplane.alerts.conftest import rule
from tests.support.mail import MailServer, receiving_mail
from tests.support.receiver import Receiver

pytestmark = pytest.mark.django_db(transaction=True)

TROUBLES: dict[str, Trouble] = {
    one.kind: one
    for one in (
        summaries.breaker_opened("llm", "a1"),
        summaries.pool_limited("llm"),
        summaries.auth_failed("llm", "a1"),
        summaries.quota_exhausted("llm", "a1"),
        summaries.error_rate("llm", 30, 100, 60.0),
        summaries.threshold("acme-day", "acme", "acme", 0.8, 80, 100),
        summaries.backlog("imports", 900, 1000, 700.0),
        summaries.letters("acme", "imports", "code", "reports.summarise"),
        summaries.failure_rate("imports", 60, 409),
        conditions.trouble_of("ops", conditions.parse("dead_letters > 5% in 10m"), "imports", 60, 409),
    )
}


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with receiving_mail() as mail_server:
        yield mail_server


def test_no_kind_is_forgotten() -> None:
    assert TROUBLES.keys() == kinds.KINDS.keys() == kinds.NEXT.keys()


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_it_arrives_once_and_so_does_its_end(
    kind: str, receiver: Receiver, mail_server: MailServer, settings: Any
) -> None:
    settings.PUBLIC_URL = "https://sluice.example.com"
    rule("hook", to=f"webhook+http://{receiver.address}/hook", when=(kind,))
    mail = f"mailto://127.0.0.1:{mail_server.port}/?from=sluice@example.com&to=ops@example.com&mode=insecure"
    rule("mail", to=mail, when=(kind,))
    rule("other", to=f"webhook+http://{receiver.address}/other", when=tuple(set(kinds.KINDS) - {kind}))
    alert = records.report(TROUBLES[kind])
    records.report(TROUBLES[kind])
    records.end(alert)
    while notices.send_due():
        pass
    assert not AlertNotice.objects.filter(delivered_at=None).exists(), list(AlertNotice.objects.values("error"))
    assert receiver.kinds == [("alert.raised", kind), ("alert.resolved", kind)]
    assert {path for path, _, _ in receiver.got} == {"/hook"}
    raised = receiver.got[0][2]["data"]
    link = f"https://sluice.example.com/admin/controlplane/alert/{alert.pk}/change/"
    assert raised["next"] == kinds.NEXT[kind] and raised["url"] == link
    label = kinds.KINDS[kind]
    assert [subject.split(":")[0] for subject in mail_server.subjects] == [
        f"[{alert.severity}] {label}", f"[resolved] {label}",
    ]  # fmt: skip
    first, last = (text_of(message) for message in mail_server.got)
    assert kinds.NEXT[kind][:20] in first and link in first and alert.summary[:30] in first
    assert "Resolved at" in last and "Next:" not in last


def text_of(message: Any) -> str:
    return " ".join(message.get_body(preferencelist=("plain", "html")).get_content().split())


def test_without_an_address_of_the_instance_there_is_no_link(receiver: Receiver) -> None:
    rule(to=f"webhook+http://{receiver.address}/hook")
    records.report(TROUBLES["breaker_opened"])
    notices.send_due()
    assert receiver.got[0][2]["data"]["url"] is None
