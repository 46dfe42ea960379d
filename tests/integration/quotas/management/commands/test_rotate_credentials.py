"""`manage.py rotate_credentials`: a new key in front, and the old one can go."""

from __future__ import annotations

import io
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command

from controlplane.models import AuditEntry
from quotas.models import Account, Pool, Project, Provider
from quotas.models.encrypted import CredentialUnreadable

pytestmark = pytest.mark.django_db
OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))


@pytest.fixture
def account(settings: Any) -> Account:
    settings.CREDENTIAL_KEYS = [OLD]
    provider = Provider.objects.create(name="p", dialect="openai", base_url="http://127.0.0.1")
    pool = Pool.objects.create(name="llm", provider=provider)
    Project.objects.create(slug="with-secret", webhook_secret="hook")
    Project.objects.create(slug="without")
    return Account.objects.create(pool=pool, name="a", credential="sk-plain")


def rotate() -> str:
    out = io.StringIO()
    call_command("rotate_credentials", reason="yearly", stdout=out)
    return out.getvalue()


def test_old_key_is_not_needed_any_more(account: Account, settings: Any) -> None:
    settings.CREDENTIAL_KEYS = [NEW, OLD]
    assert rotate().startswith("2 ")
    settings.CREDENTIAL_KEYS = [NEW]
    account.refresh_from_db()
    assert account.credential.reveal() == "sk-plain"
    assert Project.objects.get(slug="with-secret").webhook_secret.reveal() == "hook"
    assert Project.objects.get(slug="without").webhook_secret is None
    entry = AuditEntry.objects.get(verb="credentials.rotate")
    assert (entry.after, entry.reason) == ({"rotated": 2}, "yearly")


def test_a_missing_key_changes_nothing_and_says_which(account: Account, settings: Any) -> None:
    settings.CREDENTIAL_KEYS = [OTHER]
    Project.objects.filter(slug="without").update(webhook_secret="readable")
    with pytest.raises(CommandError, match=f"account {account.pk}"):
        rotate()
    settings.CREDENTIAL_KEYS = [OLD]
    account.refresh_from_db()
    assert account.credential.reveal() == "sk-plain"
    assert not AuditEntry.objects.filter(verb="credentials.rotate").exists()


def test_without_the_right_key_nothing_is_revealed(account: Account, settings: Any) -> None:
    settings.CREDENTIAL_KEYS = [OTHER]
    account.refresh_from_db()
    with pytest.raises(CredentialUnreadable):
        account.credential.reveal()
    assert "sk-plain" not in repr(account.credential) + str(account.credential)


def test_an_invalid_key_is_reported_without_its_value(account: Account, settings: Any) -> None:
    settings.CREDENTIAL_KEYS = ["not-a-fernet-key"]
    with pytest.raises(CommandError, match="no Fernet key") as raised:
        rotate()
    assert "not-a-fernet-key" not in str(raised.value)
