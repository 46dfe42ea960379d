"""What arrives: who calls, by which key, and the call as its fields describe it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from controlplane.gateway import fields
from controlplane.gateway.body import Body
from controlplane.gateway.call import Call
from controlplane.gateway.target import Target
from controlplane.http.fast_path import is_ours
from controlplane.http.hot_cache import HotCache
from controlplane.http.request import Scope
from quotas.rest import scopes
from quotas.rest.authentication import REFUSED
from quotas.rest.caller import Caller
from quotas.rest.problems import NotFound, ProblemError
from quotas.snapshot.config import ConfigSnapshot
from quotas.web.identity import client_ip

MAX_KEY = 255
"""Characters of an idempotency key."""


async def caller_of(given: Mapping[bytes, bytes], target: Target, known: HotCache) -> tuple[str, Caller]:
    """The API key and its caller. Raises a problem for a request that may not call."""
    if not is_ours(given.get(b"host", b"").decode("latin-1")):
        raise ProblemError("invalid-host", "Invalid host", 400, "The request came by a host that is not served here.")
    token = fields.token_of(given)
    caller = await known.caller(token) if token else None
    if caller is None or token is None:
        challenge = {"WWW-Authenticate": 'Bearer realm="sluice"'}
        raise ProblemError("not-authenticated", "Not authenticated", 401, REFUSED, headers=challenge)
    if not caller.may("call"):
        raise ProblemError("permission-denied", "Permission denied", 403, scopes.refusal("call"))
    if token in target.query or token in target.path:
        raise ProblemError("invalid-path", "Invalid path", 400, "The API key must not be part of the address.")
    # Any other upgrade may be ignored (RFC 9110, 7.8); some clients offer HTTP/2 with each request.
    if b"websocket" in given.get(b"upgrade", b"").lower():
        raise ProblemError("not-implemented", "Not implemented", 501, "WebSockets are not supported.")
    return token, caller


def call_of(
    name: str, scope: Scope, given: Mapping[bytes, bytes], target: Target, body: Body, *, caller: Caller, token: str,
    snapshot: ConfigSnapshot,
) -> Call:  # fmt: skip
    """The call, without its body. Raises a problem for whatever is wrong with its fields."""
    wishes = fields.wishes_of(given)
    project = _project(caller, wishes.project, snapshot)
    pool = snapshot.pools.get(target.pool)
    if pool is None or not pool.is_open_to(project):
        raise NotFound(f"There is no pool {target.pool!r}, or it is not for this project.", "unknown-pool")
    return Call(
        id=name,
        target=target,
        method=scope["method"],
        pool=pool,
        project=project,
        user=wishes.user,
        ip=_address(scope, given),
        wishes=wishes,
        headers=fields.onward(scope["headers"], given, token),
        body=body,
        actor=caller.name,
        idempotency_key=_key_of(given),
        encoding=given.get(b"content-encoding", b"").decode("latin-1"),
        traceparent=given.get(b"traceparent", b"").decode("latin-1"),
    )


def _project(caller: Caller, named: str | None, snapshot: ConfigSnapshot) -> str | None:
    project = named or caller.project_slug or None
    if project is not None and (not caller.sees(project) or project not in snapshot.projects):
        raise NotFound("There is no such project, or it is not yours.", "unknown-project")
    return project


def _address(scope: Scope, given: Mapping[bytes, bytes]) -> str | None:
    """The client's address, by the same rules as for all requests."""
    peer = (scope.get("client") or ("",))[0]
    return _address_of(peer, given.get(b"x-forwarded-for", b""), tuple(settings.TRUSTED_PROXIES))


@lru_cache(maxsize=1024)
def _address_of(peer: str, forwarded: bytes, trusted: tuple[Any, ...]) -> str | None:
    """`trusted` is what the rules go by: with others the same request comes from somebody else."""
    request = HttpRequest()
    request.META = {"REMOTE_ADDR": peer}
    if forwarded:
        request.META["HTTP_X_FORWARDED_FOR"] = forwarded.decode("latin-1")
    return client_ip(request)


def _key_of(given: Mapping[bytes, bytes]) -> str:
    key = given.get(b"idempotency-key", b"").decode("latin-1").strip()
    if len(key) > MAX_KEY:
        raise ProblemError(
            "invalid-request", "Invalid request", 400, f"Idempotency-Key has more than {MAX_KEY} characters."
        )
    return key


def length_of(given: Mapping[bytes, bytes]) -> int | None:
    """`Content-Length`. Raises a problem where it is no number."""
    text = given.get(b"content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise ProblemError("invalid-request", "Invalid request", 400, "Content-Length is not a number.")
    return int(text)


def dialect_by(given: Mapping[bytes, bytes]) -> str:
    """Whose SDK calls, where the pool does not say."""
    if b"anthropic-version" in given:
        return "anthropic"
    return "openai" if b"x-stainless-lang" in given else ""
