"""Where a stream is requested to report its use, and what becomes of the body."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.gateway import usage_request

PLACE = ("provider", "/v1/chat/completions", "", "model")


def changed(body: bytes, dialect: str = "openai", place: usage_request.Place = PLACE) -> bytes | None:
    return usage_request.with_request(json.loads(body), body, dialect, place)


@pytest.mark.parametrize(
    "body", [b'{"stream":true}', b' {"stream": true, "n": 1e2}\n', '{"stream":true,"x":"é"}'.encode()]
)
def test_the_rest_of_a_body_stays_as_it_was_written(body: bytes) -> None:
    found = changed(body)
    assert found is not None and found.startswith(body.rstrip()[:-1])
    assert json.loads(found) == json.loads(body) | {"stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    "options", [None, {}, {"include_usage": False}, {"include_obfuscation": False, "include_usage": None}]
)
def test_other_options_are_kept(options: dict[str, Any] | None) -> None:
    body = {"stream": True, "stream_options": options, "text": "\ud800 北"}
    found = changed(json.dumps(body).encode())
    assert found is not None
    assert json.loads(found) == body | {"stream_options": {**(options or {}), "include_usage": True}}


@pytest.mark.parametrize(
    ("body", "dialect", "place"),
    [
        (b'{"stream":false}', "openai", PLACE),
        (b'{"stream":true,"stream_options":{"include_usage":true}}', "openai", PLACE),
        (b'{"stream":true}', "anthropic", PLACE),
        (b'{"stream":true}', "azure", ("provider", "/v1/responses", "", "model")),
        ('{"stream":true}'.encode("utf-16-le"), "openai", PLACE),
    ],
)
def test_other_bodies_are_not_changed(body: bytes, dialect: str, place: usage_request.Place) -> None:
    assert changed(body, dialect, place) is None


def test_a_place_that_refuses_the_request_gets_no_other() -> None:
    place = ("old", "/openai/deployments/d/chat/completions", "api-version=2024-02-01", "")
    assert changed(b'{"stream":true}', "azure", place)
    error = b'{"error": {"message": "Unrecognized request argument supplied: stream_options"}}'
    assert usage_request.is_refused(400, error) and not usage_request.is_refused(500, error)
    assert not usage_request.is_refused(400, b"no such model")
    usage_request.remember_refusal(place)
    assert changed(b'{"stream":true}', "azure", place) is None and changed(b'{"stream":true}', "azure")
