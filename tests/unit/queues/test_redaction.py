from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from queues.redaction import hide, hides, is_secret, restore

PAYLOAD: dict[str, Any] = {
    "path": "/v1/x?page=2&api_key=sk-live-1&sort=up",
    "headers": {"X-Api-Key": "k-1", "Authorization": "Bearer b-1", "Accept": "text/plain"},
    "json": {"max_tokens": 20, "users": [{"name": "ann", "password": "hunter2"}], "client_secret": {"a": "deep"}},
}


@pytest.mark.parametrize("name", ["password", "X-API-Key", "access_token", "Authorization", "clientSecret", "api.key"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["max_tokens", "tokens", "keys", "path", "user", "secretary"])
def test_other_names(name: str) -> None:
    assert not is_secret(name)


def test_secrets_are_hidden_at_any_depth_and_in_urls() -> None:
    shown = str(hide(PAYLOAD))
    for secret in ("sk-live-1", "k-1", "b-1", "hunter2", "deep"):
        assert secret not in shown
    for kept in ("page=2", "sort=up", "text/plain", "ann", "20"):
        assert kept in shown


def test_an_edited_copy_gets_its_secrets_back() -> None:
    edited = hide(PAYLOAD)
    edited["json"]["max_tokens"] = 30
    edited["headers"]["Accept"] = "text/html"
    whole = restore(edited, PAYLOAD)
    assert whole["headers"] == {**PAYLOAD["headers"], "Accept": "text/html"}
    assert whole["path"] == PAYLOAD["path"] and whole["json"] == {**PAYLOAD["json"], "max_tokens": 30}
    assert not hides(whole)


def test_a_mark_that_is_moved_elsewhere_is_noticed() -> None:
    edited = hide(PAYLOAD)
    edited["json"]["users"].append(dict(edited["json"]["users"][0]))
    assert hides(restore(edited, PAYLOAD))


def test_the_setting_adds_names(settings) -> None:
    assert hide({"IBAN": "DE1"}) == {"IBAN": "DE1"}
    settings.REDACT_NAMES = ("iban", "pincode")
    assert hide({"IBAN": "DE1", "x": [{"pin_code": 4}], "plan": 1}) == {
        "IBAN": "[redacted]", "x": [{"pin_code": "[redacted]"}], "plan": 1,
    }  # fmt: skip
    assert "DE1" not in hide("GET /pay?iban=DE1&a=2")


def test_names_are_read_from_the_environment() -> None:
    from controlplane.environment import read

    assert read({"SLUICE_REDACT_NAMES": "Pin-Code, iban"}).redact_names == ("pincode", "iban")
    with pytest.raises(ImproperlyConfigured, match="SLUICE_REDACT_NAMES must be names"):
        read({"SLUICE_REDACT_NAMES": "a"})
