"""The pages of recent calls: of all, of a pool, of a project; members see their project's."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable

import pytest
from django.test import Client

from controlplane.admin.dashboard import forget
from controlplane.observability import recent_calls
from queues.connection import client as redis_client
from quotas import events
from quotas.models import Pool, Project
from tests.browser.seed import Day
from tests.support.valkey import run_server, valkey_binary, wait_for

SignIn = Callable[[str], Client]


def ended(project: str, user: str, pool: str = "llm") -> events.CallEnded:
    return events.CallEnded(
        call=f"id-{user}", at=time.time(), pool=pool, method="POST", path="/v1/chat", model="m", user=user, actor="key:a",
        account="a1", status=200, outcome="ok", attempts=1, waited=0.25, waited_for=("policy few", "redis"), seconds=1.5, overhead=0.001, first_byte=0.5,
        is_stream=False, cost={"requests": 1}, actual={"requests": 1, "tokens": 1234, "cached_tokens": 1000},
        project=project,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _calls(day: Day) -> None:
    for event in (ended("acme", "ann"), ended("globex", "bob"), ended("acme", "eve", "other")):
        events.emit(event)
    recent_calls.recorder.flush()


def shown(client: Client, name: str, pk: int | None = None) -> str:
    forget()
    answer = client.get(f"/admin/live/{name}" + (f"?pk={pk}" if pk else ""))
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def test_a_call_is_shown_with_who_account_outcome_and_use(signed_in: SignIn) -> None:
    client = signed_in("root")
    assert client.get("/admin/calls/").status_code == 200
    text = shown(client, "calls")
    assert "ann POST /v1/chat a1 ok 200 1 0.25 policy few, redis 1.50 1,234 tokens, 1,000 cached tokens" in text
    assert "bob" in text and "eve" in text


def test_a_pool_and_a_project_show_their_own(signed_in: SignIn) -> None:
    client = signed_in("root")
    text = shown(client, "pool_calls", Pool.objects.get(name="llm").pk)
    assert "ann" in text and "bob" in text and "eve" not in text
    text = shown(client, "project_calls", Project.objects.get(slug="acme").pk)
    assert "ann" in text and "eve" in text and "bob" not in text
    for kind, slug in (("pool", Pool), ("project", Project)):
        page = client.get(f"/admin/quotas/{kind}/{slug.objects.first().pk}/change/").content.decode()
        assert f"/admin/live/{kind}_calls?pk=" in page


def test_a_member_sees_the_calls_of_its_project(signed_in: SignIn) -> None:
    text = shown(signed_in("member"), "calls")
    assert "ann" in text and "bob" not in text
    other = Project.objects.get(slug="globex")
    assert signed_in("member").get(f"/admin/live/project_calls?pk={other.pk}").status_code == 404


def test_no_stream_grows_without_end(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_calls, "MAX_CALLS", 300)
    monkeypatch.setattr(recent_calls, "KEPT_BY_PROJECT", 100)
    for number in range(4):
        for turn in range(400):
            events.emit(ended("acme" if number % 2 else "globex", f"u{number}-{turn}"))
        recent_calls.recorder.flush()
    # Redis trims whole nodes of a stream, of 100 entries each.
    assert redis_client().xlen(recent_calls.stream_key(None)) <= 400
    assert redis_client().xlen(recent_calls.stream_key("acme")) <= 200
    newest = next(recent_calls.calls("globex"))[1]
    assert newest["user"] == "u2-399"


def test_a_burst_costs_a_bounded_buffer_and_keeps_the_newest(day: Day) -> None:
    with recent_calls.recorder._lock:  # nothing of it is written meanwhile
        for turn in range(recent_calls.BUFFERED + 10):
            recent_calls.recorder._buffer.append(ended("acme", f"b{turn}"))
        assert len(recent_calls.recorder._buffer) == recent_calls.BUFFERED
    # Where Redis does not answer a write in time, the next one repeats it.
    wait_for(lambda: next(recent_calls.calls("acme"))[1]["user"] == f"b{recent_calls.BUFFERED + 9}", 15)
    written = redis_client().xinfo_stream(recent_calls.stream_key("acme"))["entries-added"]
    assert written <= 2 * recent_calls.KEPT_BY_PROJECT, "only the newest are written to the project's own stream"


def test_what_redis_does_not_answer_for_is_written_later_and_shown_once(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_calls, "TIMEOUT", 0.1)
    recent_calls.recorder._forget()
    with run_server(valkey_binary()) as server, server.client() as own:
        monkeypatch.setattr(recent_calls, "client", lambda: own)
        events.emit(ended("acme", "first"))
        recent_calls.recorder.flush()
        server.process.send_signal(signal.SIGSTOP)
        events.emit(ended("acme", "second"))
        recent_calls.recorder.flush()
        server.process.send_signal(signal.SIGCONT)
        wait_for(lambda: own.xlen(recent_calls.stream_key("acme")) >= 2)
        wait_for(lambda: "second" in [call["user"] for _, call in recent_calls.calls("acme")])
        wait_for(lambda: not recent_calls.recorder._unanswered)
        assert own.xlen(recent_calls.stream_key("acme")) >= 3, "it was written twice, since its answer was lost"
        assert [call["user"] for _, call in recent_calls.calls("acme")] == ["second", "first"]
    recent_calls.recorder._forget()
