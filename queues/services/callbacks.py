"""Completion callbacks by the Standard Webhooks convention: signed, repeated for a day, never into private networks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import json
import re
import secrets
import socket
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import structlog
import urllib3
from django.conf import settings
from django.db import transaction

from queues import clock
from queues.errors import FieldError, InvalidJob
from queues.models import Batch, Callback, Job
from quotas.models import Project

log = structlog.get_logger(__name__)

WAITS = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 21600, 28800)
"""Seconds between two tries; about a day in all."""
LEASE = timedelta(seconds=60)
"""How long a sender holds a callback before another one may try it."""
TIMEOUT = 10.0
_OLD_FORM = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}")


class AddressRefused(Exception):
    """The callback's host resolves to no address that a callback may go to."""


def check_url(url: str, pointer: str) -> None:
    """Refuse an address that is no http(s) URL, or whose host is written as a private address.

    A name is resolved when the call is made, and held against the same rule there: what it means now says nothing.
    """
    if not url:
        return
    if not url.isprintable() or " " in url:
        raise InvalidJob([FieldError(pointer, "Must hold no space and no control character.")])
    try:
        parts = urlsplit(url)
        host = parts.hostname
        if parts.port == 0 or not (host or "").encode("idna"):
            host = None
    except ValueError:  # the port, the brackets, or a name that can't be one
        parts, host = None, None
    if parts is None or parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise InvalidJob([FieldError(pointer, "Must be an http or https URL without a user.")])
    address = _written_address(host)
    if address is not None and not allowed(address):
        raise InvalidJob([FieldError(pointer, "Must not point into a private network.")])


def _written_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is, where it is written as one: also in the old forms (`127.1`, `0x7f000001`), and as
    the name that means this very machine everywhere. None for any other name."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return ipaddress.IPv4Address("127.0.0.1")
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        pass
    if not _OLD_FORM.fullmatch(name):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(name))
    except OSError:
        return None


def allowed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether a callback may go to this address: a public one, or one in `SLUICE_CALLBACK_NETWORKS`."""
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    listed = any(address in network for network in settings.CALLBACK_NETWORKS if network.version == address.version)
    return listed or (address.is_global and not address.is_multicast)


def secret_of(project: Project) -> str:
    """The project's signing secret, `whsec_` and base64; made at the first use."""
    with transaction.atomic():
        row = Project.objects.select_for_update(of=("self",)).get(pk=project.pk)
        if row.webhook_secret is None:
            Project.objects.filter(pk=row.pk).update(
                webhook_secret=f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
            )
            row.refresh_from_db()
        return row.webhook_secret.reveal()  # type: ignore[union-attr]


def note_jobs(jobs: Sequence[Job], now: datetime) -> None:
    """Write a callback for each of the ended jobs that asked for one."""
    Callback.objects.bulk_create(
        [
            Callback(
                project_id=job.project_id,
                job=job,
                url=job.callback_url,
                event=f"job.{job.status}",
                created_at=now,
                due_at=now,
            )
            for job in jobs
            if job.callback_url
        ]
    )


def note_batches(batch_ids: Sequence[int], now: datetime) -> None:
    """The same for completed batches."""
    Callback.objects.bulk_create(
        [
            Callback(
                project_id=batch.project_id,
                batch=batch,
                url=batch.callback_url,
                event="batch.completed",
                created_at=now,
                due_at=now,
            )
            for batch in Batch.objects.filter(pk__in=batch_ids).exclude(callback_url="")
        ]
    )


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature` (standardwebhooks, HMAC-SHA256 over id, timestamp and body)."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def send_due(count: int = 20) -> int:
    """Send what is due, one after the other; returns how many were tried. Safe in any number of processes."""
    taken = [callback for callback in due(count) if take(callback)]
    for callback in taken:
        send(callback)
    return len(taken)


def due(count: int, but: Sequence[str] = ()) -> list[Callback]:
    """Up to `count` callbacks that are due, the oldest first; none whose address begins with one of `but`."""
    rows = Callback.objects.filter(due_at__lte=clock.now()).select_related("project", "job", "batch")
    for beginning in but:
        rows = rows.exclude(url__startswith=beginning)
    return list(rows.order_by("due_at")[:count])


def take(callback: Callback) -> bool:
    """Make it this process's for a while: taking is moving it on, and whoever comes second finds it no longer due."""
    rows = Callback.objects.filter(pk=callback.pk, due_at=callback.due_at)
    return bool(rows.update(due_at=clock.now() + LEASE))


def send(callback: Callback) -> None:
    """Try a taken one, and note how it went."""
    try:
        status = _post(callback)
        error = "" if 200 <= status < 300 else f"HTTP {status}"
    except AddressRefused as refused:
        error = str(refused) or str(AddressRefused.__doc__)
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as failed:
        # The last two: what can't even be asked for, such as a name that is none.
        error = type(failed).__name__
    now = clock.now()
    tries = callback.tries + 1
    if not error:
        fields: dict[str, Any] = {"due_at": None, "delivered_at": now, "error": ""}
    elif tries > len(WAITS):
        fields = {"due_at": None, "error": f"given up: {error}"}
        log.warning("callback.given_up", callback=callback.uid, error=error)
    else:
        fields = {"due_at": now + timedelta(seconds=WAITS[tries - 1]), "error": error}
    Callback.objects.filter(pk=callback.pk).update(tries=tries, **fields)


def _body(callback: Callback) -> dict[str, Any]:
    from queues.api.shapes import batch_shape, job_whole, moment

    data = job_whole(callback.job) if callback.job else batch_shape(callback.batch) if callback.batch else {}
    return {"type": callback.event, "timestamp": moment(callback.created_at), "data": data}


def _post(callback: Callback) -> int:
    """One try; the HTTP status. The name is resolved here, once, and the call goes to the address that was checked."""
    parts = urlsplit(callback.url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _address(host, port)
    body = json.dumps(_body(callback), separators=(",", ":")).encode()
    stamp = int(clock.now().timestamp())
    headers = {
        "Host": parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode(),
        "Content-Type": "application/json",
        "User-Agent": "sluice",
        "webhook-id": callback.uid,
        "webhook-timestamp": str(stamp),
        "webhook-signature": sign(secret_of(callback.project), callback.uid, stamp, body),
    }
    timeout = urllib3.Timeout(connect=5.0, read=TIMEOUT)
    pool: urllib3.HTTPConnectionPool
    if parts.scheme == "https":
        pool = urllib3.HTTPSConnectionPool(address, port, server_hostname=host, assert_hostname=host, timeout=timeout)
    else:
        pool = urllib3.HTTPConnectionPool(address, port, timeout=timeout)
    with pool:
        target = parts.path or "/"
        answer = pool.urlopen(
            "POST", f"{target}?{parts.query}" if parts.query else target, body=body, headers=headers,
            redirect=False, retries=False, preload_content=False,
        )  # fmt: skip
        answer.close()
        return answer.status


def _address(host: str, port: int) -> str:
    for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if allowed(ipaddress.ip_address(str(place[0]).partition("%")[0])):
            return str(place[0])
    raise AddressRefused()
