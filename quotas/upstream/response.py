"""Answers and exceptions of any HTTP client, as far as an account's lease must know them.

Nothing here raises, and nothing is read from the network: a body that is still a stream stays one.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from quotas.upstream.sdk_errors import ReportedError, reported_by

_WORDS = {
    # No connection was made, or it broke.
    "NewConnectionError": "network", "NameResolutionError": "network", "ProtocolError": "network",
    "MaxRetryError": "network", "ConnectionError": "network", "ConnectError": "network", "ReadError": "network",
    "WriteError": "network", "CloseError": "network", "NetworkError": "network", "RemoteProtocolError": "network",
    "ProxyError": "network", "SSLError": "network", "IncompleteRead": "network", "ChunkedEncodingError": "network",
    "TransportError": "network", "ClientConnectionError": "network", "ClientPayloadError": "network",
    "APIConnectionError": "network", "TelegramNetworkError": "network", "HTTPClientError": "network",
    # It took too long.
    "ConnectTimeoutError": "timeout", "ReadTimeoutError": "timeout", "ConnectTimeout": "timeout",
    "ReadTimeout": "timeout", "WriteTimeout": "timeout", "PoolTimeout": "timeout", "TimeoutException": "timeout",
    "Timeout": "timeout", "ServerTimeoutError": "timeout", "APITimeoutError": "timeout", "TimedOut": "timeout",
    # Misuse of a client, or an answer that came: neither.
    "LocalProtocolError": "", "UnsupportedProtocol": "", "BadRequest": "", "TelegramEntityTooLarge": "",
    "ClientResponseError": "", "APIStatusError": "", "HTTPStatusError": "", "InvalidURL": "",
}  # fmt: skip
"""What an exception class means, by its name. The nearest class of an exception's ancestry that is known decides, not
any of them: libraries move their classes about (with urllib3 2.8 a refused connection descends from a timeout)."""
_KINDS: dict[type[BaseException], str] = {
    TimeoutError: "timeout",
    ConnectionError: "network",
    socket.gaierror: "network",
    ssl.SSLError: "network",
    http.client.HTTPException: "network",
}
_WRAPPERS = frozenset({"MaxRetryError", "ProtocolError", "ConnectionError", "APIConnectionError", "URLError"})
"""Classes that stand for whatever went wrong below them: a cause that is known says more."""
_UNREACHABLE = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.ENETRESET, errno.EADDRNOTAVAIL}
)
_DEEPEST = 8
_DEADLINES = ("asyncio.timeouts", "asyncio.tasks", "concurrent.futures", "async_timeout", "anyio.")
"""Modules that wait for any work: a timeout which they raise is the caller's own."""


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


def body_of(answer: object) -> bytes | str | dict[str, Any] | None:
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
        if name == "data" and isinstance(value, dict):  # slack_sdk has it parsed
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
    response: object = _look(error, "response")
    if response is not None and status_of(response) is not None:
        return response
    if headers_of(error) is not None and (status_of(error) or 0) >= 400:
        return error
    return None


def reported_in(error: BaseException) -> ReportedError | None:
    """Status, header fields and body that an exception is about: of the response in it, or from a provider's library
    them in its own members (the error event of a stream that began with a 200, Telegram's `RetryAfter`)."""
    response = answer_in(error)
    reported = reported_by(error)
    if response is None:
        return reported
    body: object = body_of(response)
    status = status_of(response) or 0
    if body is None and reported is not None:
        body = reported.body
    return ReportedError(status, headers_of(response), body)


def fault_of(error: BaseException, depth: int = 0) -> str:
    """`timeout` or `network` where an exception of an HTTP client means that no answer came; else empty.

    A deadline of the caller's own (`asyncio.timeout`, `wait_for`, a future's) is neither: the provider was not given
    the time that its account has.
    """
    if depth > _DEEPEST or (depth == 0 and _is_own_deadline(error)):
        return ""
    if isinstance(error, BaseExceptionGroup):
        words = {fault_of(one, depth + 1) for one in error.exceptions}
        return words.pop() if len(words) == 1 else ""
    wrapped = any(kind.__name__ in _WRAPPERS for kind in type(error).__mro__)
    if wrapped:
        for cause in _causes(error):
            if word := fault_of(cause, depth + 1):
                return word
    return _word(error)


def _word(error: BaseException) -> str:
    for kind in type(error).__mro__:
        word = _KINDS.get(kind, _WORDS.get(kind.__name__))
        if word is not None:
            return word
        if "Timeout" in kind.__name__:
            return "timeout"
        if kind.__name__.endswith(("ConnectionError", "ConnectError")):
            return "network"
    return "network" if isinstance(error, OSError) and error.errno in _UNREACHABLE else ""


def _causes(error: BaseException) -> list[BaseException]:
    """What is inside a wrapping exception: `reason` (urllib, urllib3), its arguments (requests), what it came from."""
    inner = (_look(error, "reason"), *error.args, error.__cause__)
    return [cause for cause in inner if isinstance(cause, BaseException) and cause is not error]


def _is_own_deadline(error: BaseException) -> bool:
    """Whether it was raised by a time limit around any work, and not by a client or a socket."""
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
    except Exception:  # noqa: BLE001 - a property may raise (a body not read, a time not measured): then it is unknown
        return None
