"""Who calls: `Authorization: Bearer sl_<prefix>_<secret>`, or the admin's session for reading."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import InterfaceError, OperationalError
from django.db.models import Q
from django.utils import timezone
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.request import Request

from quotas import events
from quotas.models import ApiKey, Project
from quotas.rest.caller import Caller

KEY_TTL = 1.0
"""Seconds for which a looked-up key is believed without reading SQL: a revoked one lives no longer."""
STALE = 300.0
"""Seconds for which it is believed while SQL does not answer, so that limit checks keep working."""
MAX_KEYS = 10_000
TOUCH = timedelta(minutes=1)
"""`last_used_at` is written no more often."""
REFUSED = "The API key is missing, unknown, revoked or expired."


def hash_secret(secret: str) -> str:
    """SHA-256, in hex. The secret has 256 random bits, so that no slow hash is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    secret_hash: str
    expires_at: datetime | None
    looked_up: float


def _parts(token: str) -> tuple[str, str] | None:
    """Prefix and secret of `sl_<prefix>_<secret>`; None for what has another form."""
    kind, _, rest = token.partition("_")
    prefix, _, secret = rest.partition("_")
    return None if kind != "sl" or not prefix or not secret or len(token) > 200 else (prefix, secret)


def _holder(known: _Known | None, secret: str) -> Caller | None:
    matches = hmac.compare_digest(hash_secret(secret), known.secret_hash if known else "")
    if known is None or not matches or (known.expires_at is not None and known.expires_at <= timezone.now()):
        return None
    return known.caller


class KeyRing:
    """Keys looked up lately, bounded, for one process. Safe under threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._touched: dict[int, datetime] = {}
        self._lock = threading.Lock()

    def find(self, token: str, no_older: float | None = None) -> Caller | None:
        """The caller whose key `token` is, or None. SQL is read where what is known is older than `no_older` seconds;
        where none are given, than `KEY_TTL`."""
        parts = _parts(token)
        if parts is None:
            return None
        known = self._lookup(parts[0], KEY_TTL if no_older is None else no_older)
        caller = _holder(known, parts[1])
        if caller is not None:
            self._touch(caller.key_id, timezone.now())
        return caller

    def peek(self, token: str) -> tuple[Caller | None, float]:
        """The caller as far as memory knows, and the seconds since the key was read from SQL.

        For an event loop: it reads memory only. None for whatever `find` would have to look up or would refuse.
        """
        parts = _parts(token)
        known = self._known.get(parts[0]) if parts is not None else None
        if parts is None or known is None:
            return None, float("inf")
        return _holder(known, parts[1]), time.monotonic() - known.looked_up

    def forget(self) -> None:
        with self._lock:
            self._known.clear()
            self._touched.clear()

    def _lookup(self, prefix: str, no_older: float) -> _Known | None:
        known = self._known.get(prefix)
        now = time.monotonic()
        if known is not None and now - known.looked_up < no_older:
            return known
        try:
            row = ApiKey.objects.select_related("project").filter(prefix=prefix, revoked_at=None).first()
        except (OperationalError, InterfaceError) as error:
            if known is not None and now - known.looked_up < STALE:
                events.emit(
                    events.ServiceUnavailable("authentication", f"reading API key {prefix}", type(error).__name__)
                )
                return known
            raise
        with self._lock:
            if row is None:
                self._known.pop(prefix, None)
                return None
            fresh = _Known(
                Caller(f"key:{row.name}", row.project, frozenset(row.scopes), row.pk),
                row.secret_hash,
                row.expires_at,
                now,
            )
            self._known[prefix] = fresh
            self._known.move_to_end(prefix)
            while len(self._known) > MAX_KEYS:
                self._known.popitem(last=False)
            return fresh

    def _touch(self, key_id: int | None, now: datetime) -> None:
        if key_id is None or now - self._touched.get(key_id, now - TOUCH) < TOUCH:
            return
        self._touched[key_id] = now
        stale = Q(last_used_at=None) | Q(last_used_at__lte=now - TOUCH)
        try:
            ApiKey.objects.filter(stale, pk=key_id).update(last_used_at=now)
        except (OperationalError, InterfaceError) as error:
            events.emit(
                events.ServiceUnavailable("authentication", "writing an API key's last use", type(error).__name__)
            )


keyring = KeyRing()


class ApiKeyAuthentication(BaseAuthentication):
    """`request.auth` becomes the key's `Caller`; 401 for anything in the header that is no good key."""

    def authenticate(self, request: Request) -> tuple[Caller, Caller] | None:
        header = get_authorization_header(request)
        if not header:
            return None
        word, _, token = header.partition(b" ")
        caller = None
        if word.lower() == b"bearer":
            try:
                caller = keyring.find(token.strip().decode("ascii"))
            except UnicodeDecodeError:
                caller = None
        if caller is None:
            raise exceptions.AuthenticationFailed(REFUSED)
        return caller, caller

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="sluice"'


class AdminSession(BaseAuthentication):
    """A staff member's session, for reading only: nothing is changed by a request that a browser could be tricked into.

    Members of projects see one of theirs, named by `?project=` where they have several; others the whole platform.
    """

    def authenticate(self, request: Request) -> tuple[Caller, Caller] | None:
        user: Any = getattr(request._request, "user", None)
        if request.method not in ("GET", "HEAD") or user is None or not (user.is_active and user.is_staff):
            return None
        scopes = {"read"}
        if user.is_superuser or user.has_perm("controlplane.view_auditentry"):
            scopes.add("admin")
        caller = Caller(
            f"user:{user.get_username()}",
            self._project(request, user),
            frozenset(scopes),
            permissions=frozenset(user.get_all_permissions()),
        )
        return caller, caller

    def _project(self, request: Request, user: Any) -> Project | None:
        if user.is_superuser:
            return None
        mine: dict[str, Project] = {project.slug: project for project in user.sluice_projects.all()}
        if not mine:
            if user.has_perm("quotas.view_project"):
                return None
            raise exceptions.PermissionDenied("You are a member of no project.")
        if len(mine) == 1:
            return next(iter(mine.values()))
        chosen = mine.get(request.query_params.get("project", ""))
        if chosen is None:
            return self._without_choice(mine)
        return chosen

    def _without_choice(self, mine: dict[str, Project]) -> Project:
        raise exceptions.PermissionDenied("Name one of your projects: ?project=")


class MembersSession(AdminSession):
    """For views that show a member of several projects all of them, unless one is named: the caller's `projects`."""

    def authenticate(self, request: Request) -> tuple[Caller, Caller] | None:
        found = super().authenticate(request)
        if found is None or found[0].project is None or "project" in request.query_params:
            return found
        user: Any = request._request.user
        caller = replace(found[0], projects=frozenset(user.sluice_projects.values_list("slug", flat=True)))
        return caller, caller

    def _without_choice(self, mine: dict[str, Project]) -> Project:
        return next(iter(mine.values()))
