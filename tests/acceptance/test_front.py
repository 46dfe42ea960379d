"""The one port from outside: hot calls, pages, large files, odd requests, live events, and its end."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.support.instance import Instance, running, wait_until


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running() as started:
        yield started


def raw(instance: Instance, request: bytes, then: tuple[bytes, ...] = ()) -> tuple[bytes, bytes]:
    """What comes back on a connection of its own: (head, body)."""
    with socket.create_connection(("127.0.0.1", instance.port), timeout=20) as sock:
        sock.sendall(request)
        for more in then:
            sock.sendall(more)
        data = b""
        while piece := sock.recv(65536):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


class EventListener:
    """Reads live events in a thread."""

    def __init__(self, instance: Instance, key: str | None = None, since: str = "") -> None:
        self.received: list[tuple[str, str, Any]] = []
        self.listening = threading.Event()
        self.ended = threading.Event()
        self.complete = False
        """Whether the stream came to its proper end: a server that is killed leaves it cut off."""
        self._client = instance.client(key)
        self._since = since
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        assert self.listening.wait(20)

    def _listen(self) -> None:
        query = {"since": self._since} if self._since else {}
        try:
            with self._client.stream("GET", "/api/v1/events", params=query, timeout=60) as answer:
                assert answer.status_code == 200
                fields: dict[str, str] = {}
                for line in answer.iter_lines():
                    if line == ": listening":
                        self.listening.set()
                    name, _, value = line.partition(": ")
                    if line:
                        fields[name] = value
                    elif "data" in fields:
                        self.received.append((fields["id"], fields["event"], json.loads(fields["data"])))
                        fields = {}
                self.complete = True
        except httpx.HTTPError:
            pass  # the server went away, or the test closed the connection
        finally:
            self.ended.set()

    def names(self, **members: Any) -> list[str]:
        return [name for _, name, reported in self.received if members.items() <= reported["data"].items()]


@contextmanager
def listening(instance: Instance, key: str | None = None, since: str = "") -> Iterator[EventListener]:
    yield EventListener(instance, key, since)


def test_hot_calls_and_pages_share_a_port(instance: Instance) -> None:
    with instance.client() as client:
        answer = client.post("/api/v1/limits/check", json={"user": "u"})
        assert answer.status_code == 200 and answer.json()["allowed"] is True
        assert client.get("/api/v1/limits/check").status_code == 405
        assert client.post("/api/v1/limits/check", json={"colour": 1}).status_code == 400
        batch = client.post("/api/v1/limits/check-batch", json={"checks": [{}] * 1000})
        assert batch.status_code == 200 and len(batch.json()["results"]) == 1000
        assert client.post("/api/v1/pools/nope/acquire", json={}).status_code == 404
    assert "csrf" in httpx.get(f"{instance.url}/admin/login/").text


def test_a_chunked_body_is_read_on_both_sides(instance: Instance) -> None:
    key = instance.credentials["platform_key"].encode()
    for path, expected in ((b"/api/v1/limits/check", b"400"), (b"/api/v1/limits/reset", b"400")):
        head, body = raw(
            instance,
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" % (path, key),
            (b'9\r\n{"colour"\r\n', b"5\r\n: 12}\r\n", b"0\r\n\r\n"),
        )
        assert head.split()[1] == expected and b"#/colour" in body, (head, body)


def test_head_and_large_files(instance: Instance) -> None:
    path = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"
    whole = httpx.get(instance.url + path)
    assert whole.status_code == 200 and len(whole.content) > 1_000_000
    assert whole.headers.get("content-length") in (None, str(len(whole.content)))
    assert httpx.get(instance.url + path, headers={"Range": "bytes=0-9"}).content == whole.content[:10]
    head, body = raw(instance, b"HEAD %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
    assert head.split()[1] == b"200" and body == b""


def test_a_client_that_leaves_early_hurts_nobody(instance: Instance) -> None:
    key = instance.credentials["platform_key"].encode()
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", instance.port)) as sock:
            sock.sendall(
                b"POST /api/v1/limits/check HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"
                b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{" % key
            )
    with instance.client() as client:
        assert client.post("/api/v1/limits/check", json={}).status_code == 200


def test_a_job_is_heard_of_by_its_project_only(instance: Instance) -> None:
    with instance.client() as client:
        instance.manage("apply", "-", stdin=CONFIGURATION)
        made = instance.manage("apikey", "create", "--name", "o", "--project", "ours", "--scopes", "read,submit")
        ours = next(word for word in made.stdout.split() if word.startswith("sl_"))
        made = instance.manage("apikey", "create", "--name", "t", "--project", "theirs", "--scopes", "read,submit")
        theirs = next(word for word in made.stdout.split() if word.startswith("sl_"))
        with listening(instance, ours) as us, listening(instance, theirs) as them, listening(instance) as all_:
            assert client.post("/api/v1/queues/batch/pause", json={"reason": "test"}).status_code == 200
            wait_until(lambda: "queue.paused" in all_.names(), 10)
            client.post("/api/v1/queues/batch/resume", json={"reason": "test"})
            payload = {"pool": "nowhere", "method": "GET", "path": "/"}
            job = {"type": "http.request", "queue": "batch", "project": "ours", "payload": payload, "max_attempts": 1}
            submitted = client.post("/api/v1/jobs", json=job)
            assert submitted.status_code == 202, submitted.text
            uid = submitted.json()["id"]
            wait_until(lambda: "job.dead" in us.names(job=uid), 30, lambda: str(us.received))
            assert us.names(job=uid)[0] == "job.executing"
            assert "job.dead" in all_.names(job=uid) and not them.received
            assert "queue.paused" not in us.names()
        last = us.received[0][0]
        with listening(instance, ours, since=last) as again:
            wait_until(lambda: [event[0] for event in again.received] == [event[0] for event in us.received[1:]], 10)


CONFIGURATION = """
version: 1
projects: [{slug: ours}, {slug: theirs}]
providers: [{name: nowhere, dialect: generic, base_url: "http://127.0.0.1:9", auth_header: "Authorization: Bearer {credential}", timeout: 2s}]
pools:
  - name: nowhere
    provider: nowhere
    breaker: {failures: 50, window: 60s, open_for: 60s, probes: 1}
    accounts: [{name: a1, credential_env: PATH}]
"""


def test_open_streams_do_not_hold_up_the_end() -> None:
    with running() as instance:
        listener = EventListener(instance)
        begun = time.monotonic()
        assert instance.stop() == 0
        assert listener.ended.wait(5)
        assert listener.complete, instance.output
        # A process that has written nothing has no log file; the parent shows each line, too.
        assert "refused to gracefully stop" not in instance.output, instance.output
        assert time.monotonic() - begun < 60
        instance.no_survivors()
