"""No credential survives in an error's text."""

from __future__ import annotations

import base64

import pytest

from quotas.engine.dialects import read, redact
from quotas.engine.dialects.redaction import MAX_TEXT, short


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Incorrect API key provided: sk-proj-abcDEF123*****wxyz. You can", "abcDEF123"),
        ("401 for Authorization: Bearer abcdef123456", "abcdef123456"),
        ("GET https://api.telegram.org/bot123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/sendMessage", "AAHdqTcvCH1vGW"),
        ("https://x/?api_key=topsecret99&b=1", "topsecret99"),
        ('{"x-api-key": "topsecret99"}', "topsecret99"),
        ("AIzaSyA-1234567890abcdef is not valid", "1234567890abcdef"),
        ("bad ghp_0123456789abcdef and xoxb-123-456-abcdef", "0123456789abcdef"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc", "eyJzdWIiOiIxMjM0In0"),
        ("postgres://user:hunter22@host/db", "hunter22"),
    ],
)
def test_what_looks_like_a_credential_goes(text, secret):
    assert secret not in redact(text)


def test_prose_stays():
    for text in (
        "Rate limit reached on tokens per min (TPM): Limit 600, Used 600. Please try again in 20s.",
        "The token limit was exceeded; skipping the basic account",
        "key not found",
    ):
        assert redact(text) == text


@pytest.mark.parametrize("secret", ["k1", "p@ss word/ü", 'quo"te\\n', "plain-looking"])
def test_a_given_secret_goes_in_every_form(secret):
    from urllib.parse import quote, quote_plus

    forms = [secret, quote(secret, safe=""), quote_plus(secret)]
    if len(secret) >= 6:
        forms.append(base64.b64encode(secret.encode()).decode())
    for form in forms:
        assert redact(f"<{form}>", [secret]) == "<[redacted]>"


def test_an_outcomes_error_is_one_short_redacted_line():
    body = {"error": {"message": "key k-9 is\nbad " + "x" * 1000}}
    error = read("openai", 401, {}, body, secrets=["k-9"]).error
    assert "k-9" not in error
    assert "\n" not in error
    assert len(error) == MAX_TEXT
    assert short("\ud800a") == "a"
