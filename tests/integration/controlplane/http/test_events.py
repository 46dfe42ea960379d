"""Live events: from `emit` in any thread to a listener of the door."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client, override_settings

from controlplane.api.events import STREAMS
from controlplane.http import sse
from controlplane.http.event_hub import Hub, event_of
from controlplane.observability import stream
from controlplane.observability.stream import Publisher
from queues import connection
from quotas import events
from quotas.models import ApiKey, Project
from quotas.services import api_keys
from tests.integration.controlplane.http.asgi import Door
from tests.integration.quotas.api.conftest import Api, api
from tests.support.instance import wait_until
from tests.support.valkey import run_server, valkey_binary, wait_for

OURS = ("job.", "queue.")


class Listener:
    """A client of `GET /api/v1/events` on the door's own loop."""

    def __init__(self, door: Door, key: Api | None, query: str = "", **headers: str) -> None:
        self.door, self.sent, self.gone = door, [], asyncio.Event()
        named = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
        if key is not None:
            named.append((b"authorization", b"Bearer " + key.token.encode()))
        self.scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "path": "/api/v1/events",
            "query_string": query.encode(), "headers": [(b"host", b"localhost"), *named],
        }  # fmt: skip
        self.done = asyncio.run_coroutine_threadsafe(self._listen(), door.loop)
        wait_for(lambda: "listening" in self.text or self.done.done())

    async def _listen(self) -> None:
        first = True

        async def receive() -> Any:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": b"", "more_body": False}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            self.sent.append(message)

        await self.door.application(self.scope, receive, send)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def received(self) -> list[tuple[str, str, Any]]:
        """(id, name, data) of each event of jobs and queues: threads of a process that has run other tests emit events of
        limits, accounts and alerts at any time."""
        found = []
        for block in self.text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and line[0] != ":")
            if "data" in fields and fields["event"].startswith(OURS):
                found.append((fields["id"], fields["event"], json.loads(fields["data"])))
        return found

    def names(self) -> list[str]:
        return [name for _, name, _ in self.received]

    def leave(self) -> None:
        self.door.loop.call_soon_threadsafe(self.gone.set)
        self.done.result(10)


def changed(job: str, project: str = "acme", status: str = "completed") -> events.JobChanged:
    return events.JobChanged(job, "batch", "t", status, project=project)


def emit(*emitted: events.Event) -> None:
    events.emit_all(emitted)
    assert stream.publisher.flush()


def test_a_project_gets_its_own_events_and_the_platform_all(door: Door) -> None:
    mine, all_ = Listener(door, api("read", project="acme")), Listener(door, api("read"))
    emit(changed("j1"), changed("j2", "other"), events.QueueChanged("batch", "paused", "why"), changed("j3"))
    wait_for(lambda: len(all_.received) == 4 and len(mine.received) == 2)
    assert all_.names() == ["job.completed", "job.completed", "queue.paused", "job.completed"]
    assert [event["data"]["job"] for _, _, event in mine.received] == ["j1", "j3"]
    assert mine.received[0][2]["project"] == "acme" and mine.received[0][2]["event"] == "job.completed"
    assert all_.received[2][2]["project"] is None
    headers = dict(mine.sent[0]["headers"])
    assert headers[b"content-type"] == b"text/event-stream" and b"content-length" not in headers
    mine.leave(), all_.leave()
    assert not len(door.application.streams)


def test_a_listener_goes_on_where_it_was(door: Door) -> None:
    first = Listener(door, api("read"))
    emit(*(changed(f"j{n}") for n in range(5)))
    wait_for(lambda: len(first.received) == 5)
    third = first.received[2][0]
    first.leave()
    emit(changed("late"))
    for again in (
        Listener(door, api("read"), "", Last_Event_ID=third),
        Listener(door, api("read"), f"since={third}"),
        Listener(door, api("read"), "since=0", Last_Event_ID=third),
    ):
        wait_for(lambda again=again: len(again.received) == 3)  # type: ignore[misc]
        assert [event["data"]["job"] for _, _, event in again.received] == ["j3", "j4", "late"]
        again.leave()
    whole = Listener(door, api("read"), "since=2020-01-01T00:00:00Z")
    wait_for(lambda: len(whole.received) == 6)
    whole.leave()


def test_more_than_memory_holds_is_read_from_redis(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.http.event_hub.REMEMBERED", 10)
    monkeypatch.setattr("controlplane.http.event_hub.PAGE", 50)
    keeps_reading = Listener(door, api("read"))
    ours = [f"j{n}" for n in range(300)]

    def jobs(listener: Listener) -> list[str]:
        """Without what else a process emits that has run other tests."""
        found = [event["data"].get("job") for _, _, event in listener.received]
        return [job for job in found if job in ours]

    emit(*map(changed, ours))
    wait_for(lambda: jobs(keeps_reading) == ours)
    late = Listener(door, api("read"), "since=0")
    wait_for(lambda: jobs(late) == ours)
    keeps_reading.leave(), late.leave()


def test_a_stream_survives_a_redis_that_loses_its_memory(door: Door, store: redis.Redis) -> None:
    listener = Listener(door, api("read"))
    emit(changed("before"))
    wait_for(lambda: len(listener.received) == 1)
    store.flushall()
    # An id is a millisecond: a stream that begins anew within that of the last event would give the same one again.
    last = int(str(listener.received[0][0]).partition("-")[0])
    wait_for(lambda: store.time()[0] * 1000 + store.time()[1] // 1000 > last + 1)  # type: ignore[index]
    emit(changed("after"))
    wait_until(lambda: len(listener.received) == 2, 15, lambda: f"{listener.text}\nin Redis: {store.keys()}")
    listener.leave()


def test_lower_ids_after_a_loss_are_noticed(door: Door, store: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.http.event_hub.BLOCK", 0.2)
    listener = Listener(door, api("read"))
    emit(changed("before"))
    wait_for(lambda: len(listener.received) == 1)
    store.flushall()
    store.xadd(stream.stream_key(), {"n": "job.completed", "p": "", "d": "{}"}, id="5-0")  # type: ignore[arg-type]
    wait_for(lambda: [event[0] for event in listener.received][1:] == ["5-0"])
    listener.leave()


def test_a_stream_survives_a_restart_of_redis(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.valkey import free_port

    port = free_port()
    publisher = Publisher()
    with override_settings(REDIS_URL=f"redis://127.0.0.1:{port}/0"):
        connection.client.cache_clear()
        try:
            with run_server(valkey_binary(), port=port):
                listener = Listener(door, api("read"))
                publisher.put(stream.Entry("job.completed", "", {"n": 1}))
                wait_for(lambda: len(listener.received) == 1)
            publisher.put(stream.Entry("job.completed", "", {"n": 2}))
            with run_server(valkey_binary(), port=port):
                wait_for(lambda: len(listener.received) == 2, 20)
            assert [event["data"]["n"] for _, _, event in listener.received] == [1, 2], "kept while no client took it"
            listener.leave()
        finally:
            connection.client.cache_clear()


def test_silence_is_broken_by_comments(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.http.sse.HEARTBEAT", 0.05)
    listener = Listener(door, api("read"))
    wait_for(lambda: listener.text.count("\n: \n") >= 3)
    assert not listener.received
    listener.leave()


def test_listeners_are_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.http.sse.MOST", 1)
    first = Listener(door, api("read"))
    second = Listener(door, api("read"))
    assert second.status == 503 and json.loads(second.text)["type"] == "/problems/too-many-streams"
    first.leave()
    third = Listener(door, api("read"))
    assert third.status == 200
    third.leave()


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [("since=zz", {}, 400), ("since=2020-01-01", {}, 400), ("colour=red", {}, 400), ("", {"Last_Event_ID": "x"}, 400),
     ("project=nobody", {}, 404)],
)  # fmt: skip
def test_bad_requests_are_refused(door: Door, query: str, headers: dict[str, str], status: int) -> None:
    assert Listener(door, api("read", project="acme"), query, **headers).status == status


def test_listening_needs_the_scope_or_a_session(door: Door) -> None:
    assert Listener(door, api("check")).status == 403
    assert Listener(door, None).status == 401
    client = Client()
    client.force_login(User.objects.create_superuser("root", "", "x"))
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    listener = Listener(door, None, Cookie=cookie)
    assert listener.status == 200
    emit(changed("j1"))
    wait_for(lambda: len(listener.received) == 1)
    listener.leave()


def test_a_member_of_several_projects_receives_the_events_of_each(door: Door) -> None:
    member = User.objects.create_user("member", password="x", is_staff=True)
    member.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    for slug in ("acme", "globex", "initech"):
        Project.objects.get_or_create(slug=slug, defaults={"name": slug})
    member.sluice_projects.set(Project.objects.filter(slug__in=("acme", "globex")))
    client = Client()
    client.force_login(member)
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    both, one = Listener(door, None, Cookie=cookie), Listener(door, None, "project=globex", Cookie=cookie)
    assert (both.status, one.status) == (200, 200)
    assert Listener(door, None, "project=initech", Cookie=cookie).status == 404, "not a project of this person"
    emit(changed("a"), changed("i", "initech"), changed("none", ""), changed("g", "globex"))
    wait_for(lambda: len(both.received) == 2 and len(one.received) == 1)
    assert [data["data"]["job"] for _, _, data in both.received] == ["a", "g"]
    assert [data["data"]["job"] for _, _, data in one.received] == ["g"]
    both.leave()
    one.leave()
    page = client.get("/admin/", **{STREAMS: True}).content.decode()
    assert 'data-events="/api/v1/events"' in page, "the console subscribes before a project is chosen"


def test_a_stream_ends_with_the_right_to_it(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "CHECKED_EVERY", 0.05)
    key = api("read", project="acme")
    root = User.objects.create_superuser("root", "", "x")
    client = Client()
    client.force_login(root)
    by_key = Listener(door, key)
    by_session = Listener(door, None, Cookie=f"sessionid={client.cookies['sessionid'].value}")
    emit(changed("j1"))
    wait_for(lambda: len(by_key.received) == len(by_session.received) == 1)
    assert api_keys.revoke(ApiKey.objects.get(project__slug="acme"), actor="test")
    User.objects.filter(pk=root.pk).update(is_active=False)
    for listener in (by_key, by_session):
        listener.done.result(10)
        assert listener.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_an_event_of_a_rolled_back_transaction_is_not_sent(store: redis.Redis) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        events.emit(changed("never"))
        raise RuntimeError
    with transaction.atomic():
        events.emit(changed("committed"))
        stream.publisher.flush()
        assert store.xlen(stream.stream_key()) == 0
    stream.publisher.flush()
    rows: Any = store.xrange(stream.stream_key())
    assert [json.loads(fields[b"d"])["job"] for _, fields in rows] == ["committed"]


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    yield Publisher()


def test_denials_are_published_at_once_and_then_counted(publisher: Publisher, store: redis.Redis) -> None:
    denied = events.LimitDenied("p", "user", "u", 5.0, project="acme")
    for _ in range(1000):
        publisher.publish(denied)
    publisher.publish(events.LimitDenied("p", "user", "v", 5.0, project="acme"))

    def denials() -> list[tuple[str, int]]:
        rows: Any = store.xrange(stream.stream_key())
        data = [json.loads(fields[b"d"]) for _, fields in rows]
        return [(one["key"], one["count"]) for one in data]

    wait_for(lambda: sum(count for _, count in denials()) == 1001)
    assert denials()[:2] == [("u", 1), ("v", 1)] and len(denials()) <= 4


def test_submissions_are_published_at_once_and_then_counted(publisher: Publisher, store: redis.Redis) -> None:
    for _ in range(100):
        publisher.publish(events.JobsSubmitted("batch", 7, project="acme"))
    publisher.publish(events.JobsSubmitted("batch", 1, project="globex"))

    def found() -> list[tuple[bytes, int]]:
        rows: Any = store.xrange(stream.stream_key())
        return [(fields[b"p"], json.loads(fields[b"d"])["count"]) for _, fields in rows]

    wait_for(lambda: sum(count for _, count in found()) == 701)
    assert found()[:2] == [(b"acme", 7), (b"globex", 1)] and len(found()) <= 4


def test_failed_calls_are_events_and_counted_together(publisher: Publisher, store: redis.Redis) -> None:
    def ended(outcome: str) -> events.CallEnded:
        return events.CallEnded(
            call="c", at=0.0, pool="llm", method="POST", path="/x", model="", user="u", actor="key:a", account="a1",
            status=502, outcome=outcome, attempts=1, waited=0.0, seconds=1.0, overhead=0.0, first_byte=None,
            is_stream=False, cost={}, actual={}, project="acme",
        )  # fmt: skip

    for _ in range(100):
        publisher.publish(ended("server"))
    for outcome in ("ok", "validation", "quota_exceeded", "cancelled", "network"):
        publisher.publish(ended(outcome))

    def found() -> list[tuple[bytes, bytes, dict[str, Any]]]:
        rows: Any = store.xrange(stream.stream_key())
        return [(fields[b"n"], fields[b"p"], json.loads(fields[b"d"])) for _, fields in rows]

    wait_for(lambda: sum(data["count"] for _, _, data in found()) == 101)
    assert {(name, project) for name, project, _ in found()} == {(b"call.failed", b"acme")}
    assert {data["outcome"] for _, _, data in found()} == {"server", "network"} and len(found()) <= 4


def test_a_full_buffer_drops_and_counts(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, store: redis.Redis
) -> None:
    monkeypatch.setattr(stream, "BUFFERED", 10)
    with override_settings(REDIS_URL="redis://127.0.0.1:1/0"):
        connection.client.cache_clear()
        for n in range(25):
            publisher.put(stream.Entry("job.completed", "", {"n": n}))
        assert not publisher.flush() and publisher.dropped == 15
    connection.client.cache_clear()
    publisher.reconnect()
    wait_for(lambda: publisher.flush() and store.get(stream.dropped_key()) is not None)
    assert store.xlen(stream.stream_key()) == 10 and store.get(stream.dropped_key()) == b"15"


def test_a_forked_child_writes_its_own_events_only(store: redis.Redis) -> None:
    publisher = Publisher(thread=False)
    publisher.put(stream.Entry("job.completed", "", {"of": "parent"}))
    pid = os.fork()
    if pid == 0:
        publisher.put(stream.Entry("job.completed", "", {"of": "child"}))
        os._exit(0 if publisher.flush() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    publisher.flush()
    rows: Any = store.xrange(stream.stream_key())
    assert [json.loads(fields[b"d"])["of"] for _, fields in rows] == ["child", "parent"]


def test_the_stream_is_capped(publisher: Publisher, monkeypatch: pytest.MonkeyPatch, store: redis.Redis) -> None:
    monkeypatch.setattr(stream, "MAX_EVENTS", 500)
    monkeypatch.setattr(stream, "BUFFERED", 5000)
    for n in range(3000):
        publisher.put(stream.Entry("job.completed", "", {"n": n}))
    wait_for(lambda: publisher.flush())
    assert 500 <= store.xlen(stream.stream_key()) <= 700


def test_a_hub_without_listeners_reads_nothing(door: Door) -> None:
    listener = Listener(door, api("read"))
    hub = door.application.streams.hub
    assert isinstance(hub, Hub) and hub.is_reading
    listener.leave()
    assert door.application.streams.hub is None and not hub.is_reading


def test_an_entry_that_can_not_be_read_hides_no_later_one(door: Door, store: redis.Redis) -> None:
    listener = Listener(door, api("read"))
    for fields in ({"x": "y"}, {"n": b"\xff", "p": "", "d": "{}"}, {"n": "job.completed", "p": "", "d": "no JSON"}):
        store.xadd(stream.stream_key(), fields)
    store.xadd(stream.stream_key(), {"n": "job.completed", "p": "", "d": '{"job": "readable"}'})
    wait_for(lambda: "readable" in listener.text)
    listener.leave()


def test_a_hub_continues_after_a_value_of_another_type_and_after_a_fault(
    door: Door, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener(door, api("read"))
    store.delete(stream.stream_key())
    store.set(stream.stream_key(), "not a stream")
    hub = door.application.streams.hub
    assert hub is not None and hub.is_reading
    faults = []

    def faulty(*row: Any) -> Any:
        if b"faulty" in row[1].get(b"d", b""):
            faults.append(row)
            raise RuntimeError("a fault of the product")
        return event_of(*row)

    monkeypatch.setattr("controlplane.http.event_hub.event_of", faulty)
    store.delete(stream.stream_key())
    store.xadd(stream.stream_key(), {"n": "job.completed", "p": "", "d": '{"job": "faulty"}'})
    wait_for(lambda: faults)
    monkeypatch.undo()
    wait_for(lambda: hub.tail is not None, 30.0)
    store.xadd(stream.stream_key(), {"n": "job.completed", "p": "", "d": '{"job": "after"}'})
    wait_for(lambda: "after" in listener.text, 30.0)
    listener.leave()


def test_an_event_with_a_value_that_is_no_json_holds_up_no_other(publisher: Publisher, store: redis.Redis) -> None:
    publisher.put(stream.Entry("job.completed", "", {"odd": {1, 2}}))
    publisher.put(stream.Entry("job.completed", "", {"n": 1}))
    wait_for(lambda: publisher.flush() and store.xlen(stream.stream_key()) == 2)
