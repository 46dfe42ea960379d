"""Completion callbacks by the Standard Webhooks convention: signed, retried for a day, never sent into private networks."""

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
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from queues.errors import FieldError, InvalidJob
from queues.lifecycle import effects
from queues.models import Batch, Callback, Job
from queues.presenters.batches import batch_shape
from queues.presenters.jobs import job_whole, parts_of_jobs
from queues.services import webhook
from queues.services.webhook import AddressRefused
from quotas import clock, events
from quotas.models import Project
from quotas.runtime.outbox import Outbox
from quotas.times import rfc3339

NOTED_AT_ONCE = 500
"""Jobs whose content is read by one statement."""
_OLD_FORM = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}")


def check_url(url: str, pointer: str) -> None:
    """Refuse an address that is no http(s) URL, or whose host is written as a private address.

    A name is resolved and checked by the same rule when the call is made.
    """
    if not url:
        return
    if not url.isprintable() or " " in url:
        raise InvalidJob([FieldError(pointer, "Must not contain a space or a control character.")])
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
        secret: str = row.webhook_secret.reveal()
        return secret


def receiver_of(url: str) -> str:
    """Scheme, host and port of an address, equal for all of its spellings."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:  # no number: a try fails by it, too
        port = None
    host = (parts.hostname or "").rstrip(".")
    return f"{parts.scheme}://{host}:{port or (443 if parts.scheme == 'https' else 80)}"[:300]


def connect() -> None:
    """Write callbacks for all jobs and batches that end from now on."""
    effects.write_callbacks_with(note_jobs, note_batches)


def note_jobs(jobs: Sequence[Job], now: datetime) -> None:
    """Write a callback for each of these ended jobs, which have an address for it, with the job as it is now: what happens
    to it later, such as a replay, is not what this callback says."""
    ids = [job.pk for job in jobs]
    for start in range(0, len(ids), NOTED_AT_ONCE):
        rows = Job.objects.filter(pk__in=ids[start : start + NOTED_AT_ONCE]).order_by("pk")
        rows = rows.select_related("project", "queue", "batch")
        Callback.objects.bulk_create(
            _noted(job.project_id, job.callback_url, f"job.{job.status}", _content_of_job(job), now, job=job)
            for job in rows.prefetch_related(*_parts_of_jobs())
        )


def note_batches(batch_ids: Sequence[int], now: datetime) -> None:
    """The same for completed batches."""
    rows = Batch.objects.filter(pk__in=batch_ids).exclude(callback_url="").select_related("project", "then")
    Callback.objects.bulk_create(
        _noted(batch.project_id, batch.callback_url, "batch.completed", _content_of_batch(batch), now, batch=batch)
        for batch in rows
    )


def _noted(project_id: int, url: str, event: str, content: dict[str, Any], now: datetime, **about: Any) -> Callback:
    return Callback(
        project_id=project_id, url=url, receiver=receiver_of(url), event=event, body=_written(event, now, content),
        created_at=now, due_at=now, **about,
    )  # fmt: skip


def _written(event: str, at: datetime, content: dict[str, Any]) -> str:
    return json.dumps({"type": event, "timestamp": rfc3339(at), "data": content}, separators=(",", ":"))


def _content_of_job(job: Job) -> dict[str, Any]:
    return job_whole(job)


def _content_of_batch(batch: Batch) -> dict[str, Any]:
    return batch_shape(batch)


def _parts_of_jobs() -> list[Any]:
    return parts_of_jobs()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature` (standardwebhooks, HMAC-SHA256 over id, timestamp and body)."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class CallbackOutbox(Outbox[Callback]):
    """Callbacks of jobs and batches; tenants are projects."""

    model = Callback
    cleared = {"body": ""}

    def rows(self, receivers: Collection[str], tenants: Collection[int]) -> QuerySet[Callback, Callback]:
        rows = Callback.objects.select_related("project")
        if receivers:
            rows = rows.exclude(receiver__in=receivers)
        return rows.exclude(project_id__in=tenants) if tenants else rows

    def receiver(self, row: Callback) -> str:
        return row.receiver or receiver_of(row.url)

    def tenant(self, row: Callback) -> int | None:
        return row.project_id

    def deliver(self, row: Callback) -> str:
        try:
            status = _post(row)
        except AddressRefused as refused:
            return str(refused)
        except (http.client.HTTPException, OSError, ValueError) as failed:
            # The last two: an address that no connection can be opened to, such as a name that is not valid.
            return type(failed).__name__
        return "" if 200 <= status < 300 else f"HTTP {status}"

    def given_up(self, row: Callback, error: str) -> None:
        events.emit(events.CallbackGivenUp(row.uid, error))


outbox = CallbackOutbox()


def _body_of(callback: Callback) -> str:
    """What it says. One from before contents were stored gets its content at its next try, and keeps it from then on."""
    if not callback.body:
        if callback.job is not None:
            content = _content_of_job(callback.job)
        else:
            content = _content_of_batch(callback.batch) if callback.batch is not None else {}
        callback.body = _written(callback.event, callback.created_at, content)
        Callback.objects.filter(pk=callback.pk).update(body=callback.body)
    return callback.body


def _post(callback: Callback) -> int:
    """One try; the HTTP status."""
    body = _body_of(callback).encode()
    stamp = int(clock.now().timestamp())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "sluice",
        "webhook-id": callback.uid,
        "webhook-timestamp": str(stamp),
        "webhook-signature": sign(secret_of(callback.project), callback.uid, stamp, body),
    }
    return webhook.post(callback.url, body, headers, permitted=allowed)
