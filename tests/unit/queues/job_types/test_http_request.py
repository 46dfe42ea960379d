"""`http.request`: what is refused before it is accepted."""

from __future__ import annotations

from typing import Any

import pytest

from queues.job_types.http_request import HttpRequest

TYPE = HttpRequest()


def pointers(**payload: Any) -> list[str]:
    return [error.pointer for error in TYPE.validate({"path": "/v1/x", **payload}, "/payload")]


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"method": "POST", "json": {"a": [1, None]}, "headers": {"X-Trace": "a b"}, "expect": [200, 404]},
        {"method": "PUT", "body": "text"},
        {"path": "/"},
        {"path": "/v1/a?x=1&y=%2F/../z"},
        {"path": "/a//b"},
        {"json": None},
        {"pool": "llm"},
    ],
)
def test_what_is_accepted(payload: dict[str, Any]) -> None:
    assert pointers(**payload) == []


@pytest.mark.parametrize(
    "path",
    [
        "", "v1", "http://evil.example/", "HTTPS://evil.example", "//evil.example/", "/\\evil.example", "\\\\evil", "/a b",
        "/a\r\nHost: evil", "/a\n", "/a\t", "/a\x00", "/a\x7f", "/ü", "/a#b", "@evil.example/", " /a", None, 3, ["/a"],
        {"path": "/"}, "/" + "a" * 9000,
    ],
)  # fmt: skip
def test_paths_that_could_lead_elsewhere_are_refused(path: Any) -> None:
    assert pointers(path=path) == ["/payload/path"]


def test_the_path_is_required() -> None:
    assert [error.pointer for error in TYPE.validate({}, "/payload")] == ["/payload/path"]


@pytest.mark.parametrize("name", ["X\r\nEvil", "X Y", "", "X:", "X\x00", "Ünicode", "a" * 300, "x\n"])
def test_header_names_cannot_smuggle(name: str) -> None:
    assert pointers(headers={name: "v"}) == ["/payload/headers"]


@pytest.mark.parametrize("value", ["a\r\nEvil: 1", "a\nb", "a\x00", "a\x7f", "ü", 3, None, ["a"], "a" * 9000])
def test_header_values_cannot_smuggle(value: Any) -> None:
    assert pointers(headers={"X-A": value}) == ["/payload/headers/X-A"]


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "HOST",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "Idempotency-Key",
        "x-request-ID",
        "TE",
    ],
)
def test_headers_that_the_call_sets_itself_are_refused(name: str) -> None:
    assert pointers(headers={name: "v"}) == [f"/payload/headers/{name}"]


@pytest.mark.parametrize(
    ("member", "value", "pointer"),
    [
        ("method", "get", "method"), ("method", "CONNECT", "method"), ("method", "GET\r\n", "method"),
        ("method", 1, "method"), ("method", None, "method"), ("method", ["GET"], "method"),
        ("headers", [], "headers"), ("headers", None, "headers"), ("body", 1, "body"), ("body", None, "body"),
        ("expect", [], "expect"), ("expect", 200, "expect"), ("expect", [True], "expect"), ("expect", [99], "expect"),
        ("expect", ["200"], "expect"), ("expect", [600], "expect"), ("pool", 1, "pool"), ("pool", None, "pool"),
        ("url", "http://x", "url"), ("redirect", True, "redirect"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_by_its_place(member: str, value: Any, pointer: str) -> None:
    assert pointers(**{member: value}) == [f"/payload/{pointer}"]


def test_json_or_body_not_both() -> None:
    assert pointers(json={}, body="") == ["/payload/body"]


@pytest.mark.parametrize(
    ("payload", "model"),
    [
        ({"path": "/v1/chat/completions", "json": {"model": "gpt-4o"}}, "gpt-4o"),
        ({"path": "/v1beta/models/gemini-2.0-flash:generateContent", "json": {"contents": []}}, "gemini-2.0-flash"),
        ({"path": "/openai/deployments/mine/chat/completions?api-version=1"}, "mine"),
        ({"path": "/v1/models"}, ""),
        ({"path": "/x", "json": {"model": 7}}, ""),
        ({"path": "/x", "json": [1]}, ""),
        ({"path": "/x", "body": "model=a"}, ""),
        ({"path": "/x", "json": {"model": "m" * 500}}, "m" * 200),
    ],
)
def test_which_model_is_asked_for(payload: dict[str, Any], model: str) -> None:
    assert HttpRequest().model(payload) == model
