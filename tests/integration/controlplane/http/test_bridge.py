"""Django behind the bridge: what comes in and goes out is what a WSGI server would have passed on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from django.test import override_settings

from tests.integration.controlplane.http.asgi import Door
from tests.support.valkey import wait_for

Start = Callable[[str, list[tuple[str, str]]], Any]


class Probe:
    """A WSGI application that records its requests and answers as the test says."""

    def __init__(self) -> None:
        self.environ: dict[str, Any] = {}
        self.body = b""
        self.parts: Iterable[bytes] = [b"hello"]
        self.headers: list[tuple[str, str]] = [("Content-Type", "text/plain")]
        self.calls = 0
        self.closed = False

    def __call__(self, environ: dict[str, Any], start: Start) -> Any:
        self.calls += 1
        self.environ, self.body = environ, environ["wsgi.input"].read()
        start("200 OK", self.headers)
        probe = self

        class Parts:
            def __iter__(self) -> Iterator[bytes]:
                return iter(probe.parts)

            def close(self) -> None:
                probe.closed = True

        return Parts()


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
def door(probe: Probe) -> Iterator[Door]:
    made = Door(probe)
    yield made
    made.close()


def test_a_body_comes_in_whole_however_it_was_sent(door: Door, probe: Probe) -> None:
    assert door.request("POST", "/x", b"abc").body == b"hello"
    assert (probe.body, probe.environ["CONTENT_LENGTH"], probe.closed) == (b"abc", "3", True)
    door.request("POST", "/x", [b"ab", b"", b"c" * 70_000], [("Transfer-Encoding", "chunked")])
    assert probe.body == b"ab" + b"c" * 70_000 and probe.environ["CONTENT_LENGTH"] == "70002"
    assert "HTTP_TRANSFER_ENCODING" not in probe.environ
    door.request("GET", "/x")
    assert probe.body == b"" and "CONTENT_LENGTH" not in probe.environ


def test_large_bodies_go_through_a_file(door: Door, probe: Probe) -> None:
    door.request("POST", "/x", [b"x" * 700_000] * 3)
    assert probe.body == b"x" * 2_100_000


def test_bodies_above_the_limit_are_refused_before_django_or_by_the_view(door: Door, probe: Probe) -> None:
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100):
        assert door.request("POST", "/admin/x", b"x" * 101).status == 413
        assert probe.calls == 0
        assert door.request("POST", "/api/v1/jobs", [b"x" * 101, b"y" * 50]).status == 200
        assert len(probe.body) == 101, "no more is read than shows that it is too much"


def test_the_environment_says_what_the_request_said(door: Door, probe: Probe) -> None:
    headers = [
        ("Content-Type", "application/json"), ("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-For", "192.0.2.2"),
        ("Cookie", "a=1"), ("Cookie", "b=2"), ("X_Forwarded_For", "203.0.113.66"),
    ]  # fmt: skip
    door.request("POST", "/a%20b/%C3%A9?x=%20&y=1", b"{}", headers)
    environ = probe.environ
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/a b/é" and environ["QUERY_STRING"] == "x=%20&y=1"
    assert environ["HTTP_X_FORWARDED_FOR"] == "192.0.2.1,192.0.2.2", "an underscore is no hyphen"
    assert environ["HTTP_COOKIE"] == "a=1; b=2" and environ["CONTENT_TYPE"] == "application/json"
    assert environ["REMOTE_ADDR"] == "127.0.0.1" and environ["HTTP_HOST"] == "localhost"


def test_repeated_fields_go_out_as_they_are(door: Door, probe: Probe) -> None:
    probe.headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    answer = door.request("GET", "/x")
    assert answer.headers["set-cookie"] == "a=1, b=2"


def test_head_has_fields_and_no_body(door: Door, probe: Probe) -> None:
    probe.headers.append(("Content-Length", "5"))
    answer = door.request("HEAD", "/x")
    assert answer.body == b"" and answer.headers["content-length"] == "5" and probe.closed


def test_large_answers_come_in_pieces(door: Door, probe: Probe) -> None:
    probe.parts = (b"%07d\n" % number for number in range(200_000))
    answer = door.request("GET", "/x")
    assert len(answer.body) == 1_600_000 and answer.body.endswith(b"0199999\n") and probe.closed


def test_a_client_that_leaves_while_it_sends_reaches_nothing(door: Door, probe: Probe) -> None:
    async def leave() -> list[Any]:
        messages = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/x",
            "query_string": b"",
            "headers": [],
            "http_version": "1.1",
        }
        await door.application(scope, receive, send)
        return sent

    assert door.run(leave()) == [] and probe.calls == 0


def test_one_slow_page_holds_up_no_other(door: Door, probe: Probe) -> None:
    release = threading.Event()

    def slow() -> Iterator[bytes]:
        release.wait(20)
        yield b"late"

    probe.parts = slow()
    first = asyncio.run_coroutine_threadsafe(door._request("GET", "/slow", b"", [], "door"), door.loop)
    wait_for(lambda: probe.calls == 1)
    probe.parts = [b"quick"]
    assert door.request("GET", "/quick").body == b"quick"
    release.set()
    assert first.result(20).body in (b"late", b"quick")
