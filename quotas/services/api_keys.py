"""API keys: made, given a new secret, revoked. The secret leaves this module once and is kept as a hash only."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Any

from django.db import transaction

from quotas import clock, events
from quotas.errors import QuotaError
from quotas.models import ApiKey, Project
from quotas.models.api_key import SCOPES
from quotas.rest.authentication import hash_secret, keyring
from quotas.times import rfc3339


class AlreadyRotated(QuotaError):
    """The key got another secret meanwhile. That one is valid."""


class UnknownScope(ValueError):
    """There is no such scope."""


def create(
    name: str,
    scopes: Iterable[str],
    *,
    project: Project | None = None,
    expires_at: datetime | None = None,
    actor: str,
    reason: str = "",
) -> tuple[ApiKey, str]:
    """A new key and its token `sl_<prefix>_<secret>`, which is not kept anywhere. No project: a platform key."""
    wanted = _validated(scopes)
    secret = secrets.token_hex(32)
    with transaction.atomic():
        key = ApiKey.objects.create(
            prefix=secrets.token_hex(5),
            secret_hash=hash_secret(secret),
            name=name,
            project=project,
            scopes=wanted,
            expires_at=expires_at,
        )
        _record(key, "apikey.create", actor, reason, None, _facts(key))
    return key, f"sl_{key.prefix}_{secret}"


def rotate(key: ApiKey, *, actor: str, reason: str = "") -> str:
    """A new secret for the same key; the old one is refused within a second. Returns the new token.

    Raises `AlreadyRotated` where the key has another secret than when it was read: the secret that somebody was shown
    a moment ago stays valid.
    """
    secret = secrets.token_hex(32)
    with transaction.atomic():
        present, key.secret_hash = key.secret_hash, hash_secret(secret)
        if not ApiKey.objects.filter(pk=key.pk, secret_hash=present).update(secret_hash=key.secret_hash):
            raise AlreadyRotated
        _record(key, "apikey.rotate", actor, reason, _facts(key), _facts(key))
    keyring.forget()
    return f"sl_{key.prefix}_{secret}"


def mark(key: ApiKey) -> str:
    """Another one for each secret; it says nothing about the secret."""
    return blake2b(key.secret_hash.encode(), digest_size=8).hexdigest()


def revoke(key: ApiKey, *, actor: str, reason: str = "") -> bool:
    """Refuse the key from now on, in every process within a second. False where it was revoked before."""
    with transaction.atomic():
        before = _facts(key)
        if not ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=clock.now()):
            return False
        key.refresh_from_db()
        _record(key, "apikey.revoke", actor, reason, before, _facts(key))
    keyring.forget()
    return True


def _validated(scopes: Iterable[str]) -> list[str]:
    wanted = set(scopes)
    if unknown := sorted(wanted - set(SCOPES)):
        raise UnknownScope(f"There is no scope {unknown[0]!r}; scopes are {', '.join(SCOPES)}.")
    if not wanted:
        raise UnknownScope(f"A key needs a scope: {', '.join(SCOPES)}.")
    return [scope for scope in SCOPES if scope in wanted]


def _facts(key: ApiKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "prefix": key.prefix,
        "project": key.project.slug if key.project else None,
        "scopes": list(key.scopes),
        "expires_at": rfc3339(key.expires_at),
        "revoked_at": rfc3339(key.revoked_at),
    }


def _record(key: ApiKey, verb: str, actor: str, reason: str, before: Any, after: Any) -> None:
    events.emit(
        events.OperatorActed(
            actor,
            verb,
            f"apikey:sl_{key.prefix}",
            before,
            after,
            reason,
            project=key.project.slug if key.project else "",
        )
    )
