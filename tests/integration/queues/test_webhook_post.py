"""One POST to a receiver that does as it likes: the whole of a try has an end."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from controlplane.alerts import channels
from queues.services import webhook
from queues.services.webhook import AddressRefused, TooSlow, post

Talk = Callable[[socket.socket, threading.Event], None]


def drip(head: bytes) -> Talk:
    """Says `head`, then a letter now and then, without end."""

    def talk(sock: socket.socket, over: threading.Event) -> None:
        sock.sendall(head)
        while not over.wait(0.05):
            sock.sendall(b"x")

    return talk


def again_and_again(sock: socket.socket, over: threading.Event) -> None:
    """Interim answers without end."""
    while not over.wait(0.01):
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def silent(sock: socket.socket, over: threading.Event) -> None:
    over.wait()


def fields_without_end(sock: socket.socket, over: threading.Event) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    while not over.wait(0.05):
        sock.sendall(b"X-More: 1\r\n")


@contextmanager
def receiving(talk: Talk) -> Iterator[int]:
    """A receiver that talks so to everyone who calls; its port."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def serve(sock: socket.socket) -> None:
        with sock:
            try:
                talk(sock, over)
            except OSError:
                return  # the caller has gone

    def accept() -> None:
        while not over.is_set():
            try:
                sock, _ = listening.accept()
            except TimeoutError:
                continue
            threads.append(threading.Thread(target=serve, args=(sock,)))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            accepting.join()
            for thread in threads:
                thread.join()


@pytest.mark.parametrize(
    "talk",
    [drip(b""), drip(b"HTTP/1.1 "), drip(b"HTTP/1.1 200 OK\r\nX-Slow: "), again_and_again, fields_without_end, silent],
    ids=["drips", "drips a status", "drips a field", "continues with interim answers", "fields", "silent"],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_has_one_deadline_for_all(talk: Talk, scheme: str) -> None:
    with receiving(talk) as port:
        began = time.monotonic()
        with pytest.raises((TooSlow, ssl.SSLError)):
            post(f"{scheme}://127.0.0.1:{port}/", b"{}", {}, deadline=0.5)
        assert time.monotonic() - began < 10.0


def test_alerts_have_the_same_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "DEADLINE", 0.5)
    document = {"type": "alert.raised", "data": {"severity": "info"}}
    with receiving(drip(b"HTTP/1.1 200")) as port, pytest.raises(channels.NotDelivered, match="TooSlow"):
        channels.deliver(f"webhook+http://127.0.0.1:{port}/", "id", "title", "text", document)


def answers(status: bytes) -> Talk:
    def talk(sock: socket.socket, over: threading.Event) -> None:
        request = b""
        while b"\r\n\r\n{}" not in request:  # the head and the body may come in two pieces
            piece = sock.recv(65536)
            if not piece:
                return
            request += piece
        sock.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 9999999\r\n\r\nand then nothing")
        over.wait()

    return talk


@pytest.mark.parametrize(("status", "number"), [(b"204 No Content", 204), (b"302 Found", 302), (b"500", 500)])
def test_the_answers_head_is_enough(status: bytes, number: int) -> None:
    with receiving(answers(status)) as port:
        assert post(f"http://127.0.0.1:{port}/päth?q=ä b", b"{}", {"webhook-id": "x"}) == number


def test_only_permitted_addresses_are_called() -> None:
    with receiving(answers(b"200 OK")) as port:
        asked: list[str] = []

        def permitted(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
            asked.append(str(address))
            return False

        with pytest.raises(AddressRefused, match="no address that a callback may go to"):
            post(f"http://localhost:{port}/", b"{}", {}, permitted=permitted)
        assert "127.0.0.1" in asked
        # Of a name with several addresses, one that refuses the connection is not the end.
        assert post(f"http://localhost:{port}/", b"{}", {}) == 200


def test_a_name_that_is_not_resolved_ends_with_the_try(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: release.wait(60) and [])
    began = time.monotonic()
    try:
        with pytest.raises(TooSlow):
            post("http://hooks.example.com/", b"{}", {}, deadline=0.5)
        assert time.monotonic() - began < 10.0
    finally:
        release.set()


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), TimeoutError("no name server")])
def test_a_name_that_is_unknown_says_so(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def unknown(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(type(error), match=str(error.args[-1])):
        post("http://hooks.example.com/", b"{}", {})
