"""Answers and exceptions of any HTTP client, as far as an account's lease must know them.

Nothing here raises, and nothing is read from the network: a body that is still a stream stays one.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

_NETWORK_NAMES = frozenset(
    {"NetworkError", "ConnectError", "ProtocolError", "TransportError", "NewConnectionError", "MaxRetryError",
     "ChunkedEncodingError", "ClientPayloadError"}
)  # fmt: skip
_DEADLINES = ("asyncio.timeouts", "asyncio.tasks", "concurrent.futures", "async_timeout", "anyio.")
_NETWORK_KINDS = (ConnectionError, socket.gaierror, ssl.SSLError, http.client.HTTPException)


def status_of(answer: object) -> int | None:
    """The HTTP status; None for what is no answer: a client library's own object may have a `status` in words."""
    for name in ("status_code", "status"):
        value = _look(answer, name)
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
            return int(value)
    return None


def headers_of(answer: object) -> object:
    return _look(answer, "headers")


def body_of(answer: object) -> bytes | str | None:
    """The body as far as it was read."""
    if _look(answer, "is_stream_consumed") is False or _look(answer, "_content") is False:
        return None  # httpx; requests
    if "_body" in (_look(answer, "__dict__") or ()):  # urllib3, aiohttp
        value = _look(answer, "_body")
        return value if isinstance(value, bytes | str) else None
    for name in ("content", "data", "text"):
        value = _look(answer, name)
        if isinstance(value, bytes | str):
            return value
    return None


def target_of(answer: object) -> str:
    """Method and path that the answer is to; empty where the client does not say."""
    request = _look(answer, "request") or answer  # aiohttp's answers have both themselves
    method, url = _look(request, "method"), _look(request, "url")
    if not isinstance(method, str) or url is None:
        return ""
    try:
        return f"{method} {urlsplit(str(url)).path}"
    except ValueError:
        return ""


def latency_of(answer: object) -> float | None:
    """Seconds that the call took, where the client has measured them."""
    value = _look(answer, "elapsed")
    return value.total_seconds() if isinstance(value, timedelta) else None


def answer_in(error: BaseException) -> object | None:
    """The answer that an exception is about: as with `raise_for_status`, or with urllib, whose error is the answer."""
    response = _look(error, "response")
    if response is not None and status_of(response) is not None:
        return response
    if headers_of(error) is not None and (status_of(error) or 0) >= 400:
        return error
    return None


def fault_of(error: BaseException) -> str:
    """`timeout` or `network` where an exception of an HTTP client means that no answer came; else empty.

    A deadline of the caller's own (`asyncio.timeout`, `wait_for`, a future's) is neither: the provider was not given
    the time that its account has.
    """
    if _is_own_deadline(error):
        return ""
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, TimeoutError) or any("Timeout" in name for name in names):
        return "timeout"
    if isinstance(error, _NETWORK_KINDS) or names & _NETWORK_NAMES:
        return "network"
    if any(name.endswith("ConnectionError") for name in names):
        return "network"
    reason = _look(error, "reason")  # urllib's `URLError` has the cause in it
    return fault_of(reason) if isinstance(reason, BaseException) else ""


def _is_own_deadline(error: BaseException) -> bool:
    """Whether it was raised by what waits for any work, and not by a client or a socket."""
    if type(error) is not TimeoutError or error.errno is not None:
        return type(error).__name__ == "TooSlowError"  # trio's
    last, step = None, error.__traceback__
    while step is not None:
        last, step = step, step.tb_next
    module = "" if last is None else str(last.tb_frame.f_globals.get("__name__", ""))
    return module.startswith(_DEADLINES)


def _look(thing: Any, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:  # a property that raises (a body not read, a time not measured) is one that is not known
        return None
