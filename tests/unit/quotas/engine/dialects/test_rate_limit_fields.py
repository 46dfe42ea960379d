"""The header fields that are shown: figures as they are, and nothing that may be a credential."""

from __future__ import annotations

import pytest

from quotas.engine.dialects import read

SECRET = "sk-proj-very-secret-0123456789"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-ratelimit-limit-requests", "5000"),
        ("x-ratelimit-reset-tokens", "6m0s"),
        ("x-ratelimit-reset-requests", "12ms"),
        ("retry-after", "57.238747106"),
        ("retry-after", "Fri, 29 Sep 2023 16:26:57 GMT"),
        ("retry-after", "Friday, 29-Sep-23 16:26:57 GMT"),
        ("anthropic-ratelimit-requests-reset", "2026-09-27T12:34:56Z"),
        ("anthropic-ratelimit-unified-status", "allowed_warning"),
        ("ratelimit", '"requests";r=1;t=30, "tokens";r=98;t=1'),
        ("ratelimit-policy", '"burst";q=100;w=60,"daily";q=1000;w=86400'),
        ("ratelimit", "limit=100, remaining=50, reset=30"),
        ("date", "Fri, 29 Sep 2023 16:26:57 GMT"),
        ("x-ratelimit-reset", "1695999417"),
    ],
)
def test_figures_are_shown(name: str, value: str) -> None:
    assert read("openai", 200, {name: value}).rate_limit_fields == {name: value}


@pytest.mark.parametrize("status", [200, 401, 429])
@pytest.mark.parametrize("secret", [SECRET, "plainword", "abcdef0123456789abcdef", "Bearer x", "k-9", '"k9"'])
def test_nothing_else_is(status: int, secret: str) -> None:
    shown = read(
        "openai", status, {"x-ratelimit-resource": secret, "retry-after": secret}, secrets=[secret]
    ).rate_limit_fields
    assert secret not in str(shown)
    unknown = read("openai", status, {"x-ratelimit-resource": secret}).rate_limit_fields
    assert secret == "k-9" or secret not in str(unknown), "also where the credential is not passed"


def test_other_fields_are_not_kept_and_there_is_an_end() -> None:
    fields = {"set-cookie": "a=b", "x-echo": SECRET, "content-type": "text/plain", "server": "x"}
    assert read("openai", 200, fields).rate_limit_fields == {}
    many = {f"x-ratelimit-{number}": "1" * 500 for number in range(100)}
    shown = read("openai", 200, many).rate_limit_fields
    assert len(shown) == 24 and all(len(value) <= 120 for value in shown.values())
