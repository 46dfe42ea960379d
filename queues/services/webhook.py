"""Sends one POST to the receiver of a webhook, with a deadline for all of it.

A socket's own timeout begins again with each byte that arrives, so a receiver that sends a byte now and then would
occupy its sender for ever. Here the connection is shut down when the time of the whole try is over.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any
from urllib.parse import quote, urlsplit

DEADLINE = 15.0
"""Seconds for one try: resolving, connecting, TLS, sending, and the head of the answer."""
CONNECT = 5.0
"""Seconds for one address to accept the connection; a name may have several addresses."""
_URL_LETTERS = "/:?#[]@!$&'()*+,;=%-._~"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(Exception):
    """The callback's host resolves to no address that a callback may go to."""


class TooSlow(OSError):
    """The receiver did not answer in time."""


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    permitted: Callable[[Address], bool] = lambda address: True,
    deadline: float | None = None,
) -> int:
    """The status of the answer; its body is not read. The name is resolved once, and the call goes to an address that
    was checked. Raises `AddressRefused`, `TooSlow`, `OSError`, `http.client.HTTPException` or `ValueError`."""
    ends = time.monotonic() + (DEADLINE if deadline is None else deadline)
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    sock = _connect(parts.hostname or "", port, permitted, ends)
    with _ShutDown(sock, ends) as cut:
        try:
            if secure:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=parts.hostname)
            status = _exchange(sock, parts.netloc, _target(parts.path, parts.query), body, headers)
        except (OSError, http.client.HTTPException) as error:
            if cut.over or isinstance(error, TimeoutError):
                raise TooSlow(TooSlow.__doc__) from error
            raise
        finally:
            sock.close()
    if cut.over:
        raise TooSlow(TooSlow.__doc__)  # cut in the middle of its head, which reads like its end
    return status


def _connect(host: str, port: int, permitted: Callable[[Address], bool], ends: float) -> socket.socket:
    """A connection to the first permitted address that accepts one."""
    refused: Exception = AddressRefused(AddressRefused.__doc__)
    for address in _addresses(host, port, ends):
        if not permitted(ipaddress.ip_address(address.partition("%")[0])):
            continue
        left = ends - time.monotonic()
        if left <= 0:
            raise TooSlow(TooSlow.__doc__)
        try:
            sock = socket.create_connection((address, port), timeout=min(CONNECT, left))
        except OSError as error:
            refused = error
            continue
        sock.settimeout(max(ends - time.monotonic(), 0.001))
        return sock
    raise refused


def _addresses(host: str, port: int, ends: float) -> list[str]:
    """The addresses of a name. The system's resolver has no deadline of its own, so it is called in a thread that is left
    behind when the time is over."""
    found: Future[list[Any]] = Future()

    def resolve() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            found.set_exception(error)

    threading.Thread(target=resolve, name="resolve", daemon=True).start()
    try:
        return [str(place[0]) for *_, place in found.result(max(ends - time.monotonic(), 0.0))]
    except TimeoutError as error:
        if found.done():
            raise
        raise TooSlow(TooSlow.__doc__) from error


def _exchange(sock: socket.socket, netloc: str, target: str, body: bytes, headers: Mapping[str, str]) -> int:
    connection = http.client.HTTPConnection(netloc if netloc.isascii() else netloc.encode("idna").decode())
    connection.sock = sock
    connection.request("POST", target, body=body, headers=dict(headers))
    return connection.getresponse().status


def _target(path: str, query: str) -> str:
    return quote(f"{path or '/'}?{query}" if query else path or "/", safe=_URL_LETTERS)


class _ShutDown:
    """Shuts a connection down when its time is over; a reader then gets an end of file."""

    def __init__(self, sock: socket.socket, ends: float) -> None:
        self.over = False
        self._sock = sock.dup()  # TLS takes the first descriptor over
        self._timer = threading.Timer(max(ends - time.monotonic(), 0.0), self._end)
        self._timer.daemon = True

    def __enter__(self) -> _ShutDown:
        self._timer.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._timer.cancel()
        self._timer.join()
        self._sock.close()

    def _end(self) -> None:
        self.over = True
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the receiver has closed it already
