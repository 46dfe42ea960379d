"""The first administrator and the first platform key, created once and written to a file."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.contrib.auth import get_user_model
from django.db import transaction

from quotas.models import ApiKey
from quotas.models.api_key import SCOPES
from quotas.services import api_keys

USERNAME = "admin"
ACTOR = "first start"


def make_credentials(path: Path) -> bool:
    """Create what is missing and write it to `path` (mode 600); False if there was nothing to do.

    The file is complete before the rows are committed: a crash in between leaves no rows, and the next start
    begins anew.
    """
    with transaction.atomic():
        lines = [*_administrator(), *_platform_key()]
        if not lines:
            return False
        _write(path, "".join(f"{line}\n" for line in lines))
    return True


def _administrator() -> list[str]:
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return []
    password = secrets.token_urlsafe(15)
    users.create_superuser(USERNAME, password=password)
    return [f"admin_username: {USERNAME}", f"admin_password: {password}"]


def _platform_key() -> list[str]:
    if ApiKey.objects.filter(project=None).exists():
        return []
    _, token = api_keys.create("first platform key", SCOPES, actor=ACTOR)
    return [f"platform_key: {token}"]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
