"""Answers and exceptions of HTTP clients, as they are: httpx, urllib, urllib3, requests-like ones and odd objects."""

from __future__ import annotations

import email.message
import errno
import http.client
import io
import socket
import urllib.error
from datetime import timedelta
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import requests
import urllib3

from quotas.engine import dialects
from quotas.upstream import response as answers

REQUEST = httpx.Request("POST", "http://127.0.0.1/")


def urllib_error(status: int, fields: dict[str, str]) -> urllib.error.HTTPError:
    headers = email.message.Message()
    for name, value in fields.items():
        headers[name] = value
    return urllib.error.HTTPError("http://127.0.0.1/", status, "no", headers, io.BytesIO(b"{}"))


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (httpx.Response(429), 429),
        (urllib3.HTTPResponse(status=503), 503),
        (urllib_error(429, {}), 429),
        (SimpleNamespace(status_code=HTTPStatus.TOO_MANY_REQUESTS), 429),
        (SimpleNamespace(status="429"), 429),
        (SimpleNamespace(status_code=None, status=200), 200),
        (SimpleNamespace(status="completed"), None),
        (SimpleNamespace(status_code=True), None),
        (SimpleNamespace(status=0), None),
        (SimpleNamespace(status="４２９"), None),
        ("text", None),
        (None, None),
    ],
)
def test_status(answer: object, status: int | None) -> None:
    assert answers.status_of(answer) == status


@pytest.mark.parametrize("error", [urllib_error(429, {"Retry-After": "7"}), urllib_error(429, {"retry-after": "7"})])
def test_urllibs_fields_are_read(error: urllib.error.HTTPError) -> None:
    assert dialects.read("openai", 429, answers.headers_of(error)).retry_after == 7.0


class Raises:
    """Every property raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_bodies_are_taken_where_they_were_read_and_streams_are_left_alone() -> None:
    assert answers.body_of(httpx.Response(400, content=b"read")) == b"read"
    assert answers.body_of(httpx.Response(200, stream=httpx.ByteStream(b"x"))) is None
    assert answers.body_of(urllib3.HTTPResponse(b"read", status=400)) == b"read"
    stream = io.BytesIO(b"unread")
    unread = urllib3.HTTPResponse(stream, status=200, preload_content=False)
    assert answers.body_of(unread) is None
    assert stream.tell() == 0
    assert answers.body_of(SimpleNamespace(_content=False, content=b"requests, streamed")) is None
    assert answers.body_of(SimpleNamespace(_content=b"r", content=b"requests, read")) == b"requests, read"
    assert answers.body_of(SimpleNamespace(text=lambda: "a method")) is None
    assert answers.body_of(Raises()) is None and answers.headers_of(Raises()) is None


def test_a_consumed_stream_has_no_body_that_can_be_had() -> None:
    response = httpx.Response(200, stream=httpx.ByteStream(b"x"))
    assert list(response.iter_raw()) == [b"x"]
    assert answers.body_of(response) is None and answers.latency_of(response) is None


def test_what_an_exception_is_about() -> None:
    response = httpx.Response(429, request=REQUEST)
    try:
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        assert answers.answer_in(error) is response
    refused = urllib_error(503, {})
    assert answers.answer_in(refused) is refused
    assert answers.answer_in(KeyError("x")) is None
    assert answers.answer_in(httpx.ConnectError("no", request=REQUEST)) is None


class APIConnectionError(Exception):
    """As the SDKs of OpenAI and Anthropic name it."""


class APITimeoutError(APIConnectionError):
    """Likewise: a timeout is a connection error there."""


def library(module: str, name: str, *bases: type, **members: Any) -> Any:
    """An exception class as a library defines it that need not be installed."""
    return type(name, bases or (Exception,), {"__module__": module, **members})


NetworkError = library("telegram.error", "NetworkError")
TimedOut = library("telegram.error", "TimedOut", NetworkError)
BadRequest = library("telegram.error", "BadRequest", NetworkError)
ClientConnectionError = library("aiohttp", "ClientConnectionError")
ServerTimeoutError = library("aiohttp", "ServerTimeoutError", ClientConnectionError, TimeoutError)
ClientOSError = library("aiohttp", "ClientOSError", ClientConnectionError, OSError)
ClientConnectorError = library("aiohttp", "ClientConnectorError", ClientOSError)
Base = library("botocore.exceptions", "ConnectionError")
EndpointConnectionError = library("botocore.exceptions", "EndpointConnectionError", Base)


RestartingTelegram = library(
    "aiogram.exceptions", "RestartingTelegram", library("aiogram.exceptions", "TelegramServerError")
)


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


POOL: Any = None
REFUSED = urllib3.exceptions.NewConnectionError(POOL, "refused")
SLOW = urllib3.exceptions.ReadTimeoutError(POOL, "/", "slow")


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (httpx.ConnectError("x"), "network"),
        (httpx.ReadError("x"), "network"),
        (httpx.RemoteProtocolError("x"), "network"),
        (httpx.ReadTimeout("x"), "timeout"),
        (httpx.ConnectTimeout("x"), "timeout"),
        (urllib.error.URLError(ConnectionRefusedError()), "network"),
        (urllib.error.URLError(TimeoutError()), "timeout"),
        (urllib.error.URLError("unknown url type"), ""),
        (http.client.IncompleteRead(b""), "network"),
        (http.client.RemoteDisconnected(), "network"),
        (socket.gaierror(), "network"),
        (APIConnectionError(), "network"),
        (APITimeoutError(), "timeout"),
        (caused(APIConnectionError(), httpx.ConnectTimeout("x")), "timeout"),
        (caused(APIConnectionError(), httpx.ConnectError("x")), "network"),
        (REFUSED, "network"),
        (urllib3.exceptions.NameResolutionError("h", POOL, socket.gaierror()), "network"),
        (urllib3.exceptions.MaxRetryError(POOL, "/", REFUSED), "network"),
        (urllib3.exceptions.MaxRetryError(POOL, "/", SLOW), "timeout"),
        (urllib3.exceptions.ConnectTimeoutError(POOL, "x"), "timeout"),
        (SLOW, "timeout"),
        (urllib3.exceptions.ProtocolError("Connection aborted.", http.client.RemoteDisconnected()), "network"),
        (urllib3.exceptions.ProtocolError("Connection aborted.", TimeoutError()), "timeout"),
        (urllib3.exceptions.IncompleteRead(1, 2), "network"),
        (urllib3.exceptions.SSLError("x"), "network"),
        (urllib3.exceptions.LocationParseError("x"), ""),
        (requests.ConnectionError(urllib3.exceptions.MaxRetryError(POOL, "/", REFUSED)), "network"),
        (requests.ConnectionError(SLOW), "timeout"),
        (requests.ConnectTimeout(), "timeout"),
        (requests.ReadTimeout(), "timeout"),
        (requests.exceptions.ChunkedEncodingError(), "network"),
        (requests.exceptions.InvalidURL(), ""),
        (httpx.LocalProtocolError("x"), ""),
        (httpx.UnsupportedProtocol("x"), ""),
        (httpx.ProxyError("x"), "network"),
        (ClientConnectorError(111, "refused"), "network"),
        (ServerTimeoutError(), "timeout"),
        (EndpointConnectionError(), "network"),
        (NetworkError("x"), "network"),
        (TimedOut("x"), "timeout"),
        (BadRequest("Chat not found"), ""),
        (ConnectionRefusedError(), "network"),
        (OSError(errno.EHOSTUNREACH, "no route"), "network"),
        (OSError(errno.ENOSPC, "full"), ""),
        (ExceptionGroup("all", [ConnectionRefusedError(), ConnectionRefusedError()]), "network"),
        (ExceptionGroup("mixed", [ConnectionRefusedError(), TimeoutError()]), ""),
        (FileNotFoundError(), ""),
        (KeyError(), ""),
    ],
)
def test_what_kind_of_fault_an_exception_means(error: Exception, word: str) -> None:
    assert answers.fault_of(error) == word


def test_a_cause_that_is_its_own_cause_ends() -> None:
    first, second = urllib.error.URLError("a"), urllib.error.URLError("b")
    first.reason, second.reason = second, first
    assert answers.fault_of(first) == ""


class Raised(Exception):
    """An exception with any members."""

    def __init__(self, message: str = "", **members: Any) -> None:
        super().__init__(message)
        self.__dict__.update(members)


def raised(name: str, message: str = "", **members: Any) -> Exception:
    module, _, kind = name.rpartition(".")
    error: Exception = library(module, kind, Raised)(message, **members)
    return error


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
SLACK = {"ok": False, "error": "channel_not_found"}
THROTTLED = {
    "Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"},
    "ResponseMetadata": {"HTTPStatusCode": 400, "HTTPHeaders": {"retry-after": "4"}},
}
INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38s"}


@pytest.mark.parametrize(
    ("dialect", "error", "category", "wait"),
    [
        ("telegram", raised("telegram.error.RetryAfter", retry_after=5), "rate_limited", 5.0),
        ("telegram", raised("telegram.error.RetryAfter", retry_after=timedelta(seconds=5)), "rate_limited", 5.0),
        ("telegram", raised("telegram.error.Forbidden", "bot was blocked by the user"), "validation", None),
        ("telegram", raised("telegram.error.InvalidToken", "The token was rejected"), "auth", None),
        ("telegram", BadRequest("Chat not found"), "validation", None),
        ("telegram", raised("telegram.error.ChatMigrated", new_chat_id=-1), "validation", None),
        ("telegram", raised("aiogram.exceptions.TelegramRetryAfter", retry_after=7), "rate_limited", 7.0),
        ("telegram", raised("aiogram.exceptions.TelegramForbiddenError"), "validation", None),
        ("telegram", RestartingTelegram("x"), "server", None),
        (
            "telegram",
            raised("telebot.apihelper.ApiTelegramException", error_code=429,
                   result_json={"ok": False, "error_code": 429, "parameters": {"retry_after": 9}}),
            "rate_limited", 9.0,
        ),
        ("discord", raised("discord.errors.RateLimited", retry_after=3.5), "rate_limited", 3.5),
        ("slack", raised("slack_sdk.errors.SlackApiError", response=dict(SLACK)), "validation", None),
        (
            "slack",
            raised("slack_sdk.errors.SlackApiError", response=SimpleNamespace(status_code=200, headers={}, data=SLACK)),
            "validation", None,
        ),
        (
            "anthropic",
            raised("anthropic.APIStatusError", body=OVERLOADED,
                   response=httpx.Response(200, stream=httpx.ByteStream(b"x"))),
            "server", None,
        ),
        ("openai", raised("openai.APIError", body={"message": "x", "type": "server_error"}), "server", None),
        ("openai", raised("openai.APIError", body={"code": "rate_limit_exceeded"}), "rate_limited", None),
        ("generic", raised("botocore.exceptions.ClientError", response=THROTTLED), "rate_limited", 4.0),
        ("gemini", raised("google.api_core.exceptions.ResourceExhausted", code=HTTPStatus.TOO_MANY_REQUESTS, message="x",
                          details=[SimpleNamespace(retry_delay=SimpleNamespace(seconds=38))]), "rate_limited", 38.0),
        ("gemini", raised("google.genai.errors.ClientError", code=429, message="x",
                          details={"error": {"code": 429, "details": [INFO]}}), "rate_limited", 38.0),
        ("openai", raised("somebody.elses.Error", body={"message": "x"}), "unknown", None),
    ],
)  # fmt: skip
def test_what_the_exceptions_of_providers_libraries_say(
    dialect: str, error: Exception, category: str, wait: float | None
) -> None:
    reported = answers.reported_in(error)
    outcome = dialects.read(dialect, *reported) if reported is not None else dialects.failed("odd")
    assert (outcome.category, outcome.retry_after) == (category, wait)


def test_a_librarys_members_that_raise_say_nothing() -> None:
    class Broken(Exception):
        @property
        def response(self) -> Any:
            raise RuntimeError("no")

    Broken.__module__ = "slack_sdk.errors"
    assert answers.reported_in(Broken()) is None
