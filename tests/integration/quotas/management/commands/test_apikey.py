"""`manage.py apikey`, and what its keys open."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from controlplane.models import AuditEntry
from quotas.models import ApiKey
from quotas.rest.authentication import keyring
from quotas.services import api_keys, projects

pytestmark = pytest.mark.django_db


def run(*args: str) -> str:
    out = io.StringIO()
    call_command("apikey", *args, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_key_stands_on_a_line_of_its_own_and_opens() -> None:
    projects.create("acme", actor="test")
    token = run("create", "--name", "ci", "--project", "acme", "--scopes", "check,read", "--expires", "30d").strip()
    caller = keyring.find(token)
    assert caller is not None and caller.project_slug == "acme" and caller.scopes == {"check", "read"}
    key = ApiKey.objects.get()
    assert key.expires_at is not None and 29 < (key.expires_at - timezone.now()).total_seconds() / 86400 <= 30


def test_secret_is_kept_nowhere() -> None:
    token = run("create", "--name", "ci", "--platform", "--scopes", "admin").strip()
    secret = token.split("_")[2]
    kept = [*ApiKey.objects.values_list(), *AuditEntry.objects.values_list()]
    assert AuditEntry.objects.filter(verb="apikey.create").count() == 1
    assert secret not in str(kept)
    assert secret not in run("list")


def test_revoked_key_opens_nothing_and_is_audited() -> None:
    token = run("create", "--name", "ci", "--platform", "--scopes", "check").strip()
    assert keyring.find(token)
    run("revoke", token.split("_")[1], "--reason", "left the company")
    assert keyring.find(token) is None
    assert AuditEntry.objects.get(verb="apikey.revoke").reason == "left the company"
    assert "revoked" in run("list")
    with pytest.raises(CommandError, match="before"):
        run("revoke", token)


def test_rotated_key_has_another_secret() -> None:
    key, old = api_keys.create("ci", ["check"], actor="test")
    assert keyring.find(old)
    new = api_keys.rotate(key, actor="test")
    assert keyring.find(old) is None
    assert keyring.find(new)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--platform", "--scopes", "check,fly"], "no scope 'fly'"),
        (["--platform", "--scopes", ","], "needs a scope"),
        (["--project", "nobody", "--scopes", "check"], "no project 'nobody'"),
        (["--platform", "--scopes", "check", "--expires", "soon"], "'soon' is not a duration"),
        (["--scopes", "check"], "required"),
    ],
)
def test_mistakes_are_reported_and_make_no_key(args: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run("create", "--name", "x", *args)
    assert not ApiKey.objects.exists()


def test_durations_round_trip() -> None:
    from quotas import durations

    cases: list[tuple[Any, float]] = [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("7d", 604800),
        (1.5, 1.5),
    ]
    for written, seconds in cases:
        assert durations.parse(written) == seconds
    for seconds in (0.0, 0.001, 0.5, 1.0, 90.0, 3600.0, 86400.0, 0.1234567):
        assert durations.parse(durations.render(seconds)) == seconds
    for bad in ("", "5", "-5s", "1e3s", "５s", "5 s", None, True, float("nan"), float("inf"), -1, "5w"):
        with pytest.raises(durations.BadDuration):
            durations.parse(bad)
